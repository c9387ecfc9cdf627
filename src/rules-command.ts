import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { type Facts, readFacts } from './config/index.js'
import { MillraceError } from './errors.js'
import { native } from './native.js'

interface Refusal {
  readonly rule: string
  readonly why: string
}

type Target = { readonly instructions: number } | Refusal

interface Report {
  readonly rules: readonly { readonly name: string; readonly text: string }[]
  readonly warnings: readonly string[]
  readonly targets: { readonly fanout: Target; readonly reuseport: Target; readonly ebpf: Target }
  readonly earlyDrops: number
}

interface Trial {
  readonly rule: number
  readonly name: string
  readonly text: string
  readonly outcome: 'matched' | 'false' | 'beyond' | 'kept'
  readonly why: string
}

interface Explanation {
  readonly verdict:
    | { readonly queue: number; readonly key: number; readonly spill: readonly [number, number] | null }
    | { readonly drop: true }
  readonly trials: readonly Trial[]
}

interface Capture {
  readonly packets: number
  readonly datagrams: number
  readonly frames: Readonly<Record<string, number>>
  readonly queues: readonly number[]
  readonly rules: readonly {
    readonly name: string
    readonly text: string
    readonly matched: number
    readonly dropped: number
  }[]
  readonly skew: number
  readonly heaviest: readonly {
    readonly rule: string
    readonly key: number
    readonly queue: number
    readonly datagrams: number
  }[]
  readonly keys: number
  readonly keysCut: boolean
  readonly truncated: boolean
}

interface Options {
  readonly queues?: string
  readonly json?: boolean
  readonly dump?: string
  readonly hex?: string
  readonly pcap?: string
  readonly from: string
  readonly to: string
  readonly rxq: string
  readonly cpu: string
}

const DUMPS = ['program', 'cbpf', 'reuseport', 'ebpf']
const BAR = 40
const OUTCOMES = {
  matched: 'matched',
  false: 'does not match',
  beyond: 'does not match',
  kept: 'sampled',
} as const

/** Adds `millrace rules` to the command line. `print` gets whole lines. */
export function addRulesCommand(program: Command, print: (text: string) => void): void {
  const rules = program.command('rules').description('check and explain rule sets; see docs/rules.md')
  const common = (command: Command): Command =>
    command
      .option('--queues <n>', 'number of queues (default: MILLRACE_QUEUES, or one for each CPU)')
      .option('--json', 'as one JSON object')
  common(rules.command('check <file>'))
    .description('compile the rules; exit 2 with every mistake when they are wrong')
    .option('--dump <stage>', `print a stage of them instead: ${DUMPS.join(', ')}`)
    .action((file: string, options: Options) => print(check(read(file), options)))
  common(rules.command('explain <file>'))
    .description('which rule takes a datagram, and why; or what becomes of the datagrams of a capture')
    .option('--hex <bytes>', 'UDP payload; blanks and colons are ignored')
    .option('--pcap <capture>', 'pcap or pcapng file; rxq and cpu are 0')
    .option('--from <address:port>', 'source of the datagram', '10.0.0.1:5000')
    .option('--to <address:port>', 'destination of the datagram', '10.0.0.2:6000')
    .option('--rxq <n>', 'rx queue it came by', '0')
    .option('--cpu <n>', 'CPU of the receive thread', '0')
    .action((file: string, options: Options) => print(explain(read(file), options)))
}

function read(file: string): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(file === '-' ? 0 : file)
  } catch (cause) {
    throw new MillraceError('MILLRACE_E_CONFIG', `rules: ${(cause as Error).message}`, { cause })
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MillraceError('MILLRACE_E_RULES', `rules: ${file} is not UTF-8`, { cause })
  }
}

function check(text: string, options: Options): string {
  const queues = queueCount(options, readFacts())
  if (options.dump !== undefined) {
    if (!DUMPS.includes(options.dump)) throw usage(`--dump ${options.dump}: expected ${DUMPS.join(', ')}`)
    const dump = native().rulesDump(text, queues, options.dump)
    return options.json
      ? JSON.stringify({ stage: options.dump, lines: dump.trimEnd().split('\n') })
      : dump.trimEnd()
  }
  const report = JSON.parse(native().rulesReport(text, queues)) as Report
  if (options.json) return JSON.stringify({ queues, ...report })
  const width = Math.max(...report.rules.map(({ name }) => name.length))
  return [
    `${report.rules.length} rules for ${queues} queues`,
    ...report.rules.map(({ name, text }) => `  ${name.padEnd(width)}  ${text}`),
    ...report.warnings.map((warning) => `warning: ${warning}`),
    `user space: all of it`,
    `classic BPF, packet fanout: ${target(report.targets.fanout)}`,
    `classic BPF, socket group: ${target(report.targets.reuseport)}`,
    `eBPF, packet fanout: ${target(report.targets.ebpf)}`,
    `XDP, early drop: ${report.earlyDrops === 0 ? 'no rule' : `the first ${report.earlyDrops}`}`,
  ].join('\n')
}

function target(target: Target): string {
  return 'instructions' in target
    ? `yes, ${target.instructions} instructions`
    : `no, because of rule ${target.rule}: ${target.why}`
}

function explain(text: string, options: Options): string {
  const queues = queueCount(options, readFacts())
  if ((options.hex === undefined) === (options.pcap === undefined)) {
    throw usage('rules explain: expected either --hex or --pcap')
  }
  if (options.pcap !== undefined) {
    const capture = JSON.parse(native().rulesCapture(text, queues, options.pcap)) as Capture
    return options.json ? JSON.stringify(capture) : histogram(capture)
  }
  const payload = hexBytes(options.hex ?? '')
  const [rxq, cpu] = [count('--rxq', options.rxq, 0), count('--cpu', options.cpu, 0)]
  const answer = JSON.parse(
    native().rulesExplain(text, queues, payload, options.from, options.to, rxq, cpu),
  ) as Explanation
  if (options.json) return JSON.stringify(answer)
  const width = Math.max(...answer.trials.map(({ name }) => name.length))
  const lines = answer.trials.map(
    ({ name, text, outcome, why }) =>
      `${name.padEnd(width)}  ${OUTCOMES[outcome]}${why && `: ${why}`}\n${' '.repeat(width)}    ${text}`,
  )
  return [...lines, `⇒ ${verdict(answer.verdict)}`].join('\n')
}

function verdict(verdict: Explanation['verdict']): string {
  if ('drop' in verdict) return 'drop'
  const spill = verdict.spill ? `; when it is full, the next of ${verdict.spill.join('..')}` : ''
  return `queue ${verdict.queue}${verdict.key === 0 ? '' : `, key ${keyText(verdict.key)}`}${spill}`
}

/** The terminal picture of a capture. Exported for its test. */
export function histogram(capture: Capture): string {
  const frames = Object.entries(capture.frames).map(([reason, n]) => `${n} ${reason}`)
  const dropped = capture.rules.reduce((sum, rule) => sum + rule.dropped, 0)
  return [
    `${capture.packets} packets, ${capture.datagrams} datagrams${frames.length > 0 ? ` (not: ${frames.join(', ')})` : ''}`,
    ...(capture.truncated ? ['the file ends in the middle of a packet'] : []),
    '',
    ...bars(
      capture.queues.map((n, queue) => [`queue ${queue}`, n, '']),
      capture.datagrams,
    ),
    `dropped ${dropped}; the fullest queue has ${capture.skew.toFixed(2)} times the mean`,
    '',
    ...bars(
      capture.rules.map(({ name, matched, text }) => [name, matched, text]),
      capture.datagrams,
    ),
    '',
    `heaviest of ${capture.keys}${capture.keysCut ? ' or more' : ''} keys:`,
    ...capture.heaviest.map(
      ({ rule, key, queue, datagrams }) =>
        `  ${String(datagrams).padStart(9)} ${percent(datagrams, capture.datagrams)}  ${keyText(key)}  ${rule} → queue ${queue}`,
    ),
  ].join('\n')
}

function bars(rows: readonly (readonly [name: string, n: number, note: string])[], total: number): string[] {
  const width = Math.max(...rows.map(([name]) => name.length))
  const most = Math.max(1, ...rows.map(([, n]) => n))
  return rows.map(([name, n, note]) => {
    const bar = '█'.repeat(Math.ceil((n / most) * BAR))
    return `${name.padEnd(width)} ${String(n).padStart(9)} ${percent(n, total)} ${bar.padEnd(note ? BAR : 0)} ${note}`.trimEnd()
  })
}

function percent(n: number, of: number): string {
  return `${((100 * n) / Math.max(1, of)).toFixed(1).padStart(5)} %`
}

function keyText(key: number): string {
  return `${key} (0x${key.toString(16).padStart(8, '0')})`
}

function hexBytes(text: string): Uint8Array {
  const digits = text.replace(/[\s:]/g, '').replace(/^0x/i, '')
  if (digits.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(digits)) {
    throw usage(`--hex ${JSON.stringify(text.slice(0, 40))}: expected pairs of hexadecimal digits`)
  }
  return Uint8Array.from(Buffer.from(digits, 'hex'))
}

function queueCount(options: Options, facts: Facts): number {
  // Not the whole configuration: a rule set can be checked where Millrace could not run.
  const given = options.queues ?? process.env['MILLRACE_QUEUES']
  return given ? count('--queues', given, 1) : (facts.parallelism ?? facts.cpus.length)
}

function count(option: string, text: string, least: number): number {
  const n = Number(text)
  if (!Number.isInteger(n) || n < least || n > 65_535)
    throw usage(`${option} ${JSON.stringify(text)}: expected a whole number from ${least}`)
  return n
}

function usage(message: string): MillraceError {
  return new MillraceError('MILLRACE_E_CONFIG', message)
}
