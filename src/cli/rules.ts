import type { Command } from 'commander'
import { type HostInfo, readHostInfo } from '../config/index.js'
import { readRules } from '../config/rules-text.js'
import { MillraceError } from '../errors.js'
import type {
  CaptureSummary,
  ExplainedVerdict,
  Explanation,
  RulesReport,
  RuleTrace,
  Translation,
} from '../generated/contract.js'
import { native } from '../native.js'
import { counted, fit, histogram, keyText } from './terminal.js'

/** Options of both commands, as commander hands them over. */
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

/** Stages of compilation that `--dump` prints. */
const DUMP_STAGES = ['program', 'cbpf', 'reuseport', 'ebpf']
/** Trials shown at either end of a long list. Both ends fit one screen; the last one decided. */
const SHOWN_TRIALS = 20
const OUTCOMES = {
  matched: 'matched',
  false: 'does not match',
  beyond: 'does not match',
  kept: 'sampled',
} as const

/** Adds `millrace rules` to the command line; `print` prints whole lines. */
export function addRulesCommand(program: Command, print: (text: string) => void): void {
  const rules = program.command('rules').description('check and explain rule sets; see docs/rules.md')
  const common = (command: Command): Command =>
    command
      .option('--queues <n>', 'number of queues (default: MILLRACE_QUEUES, or one for each CPU)')
      .option('--json', 'as one JSON object')
  common(rules.command('check <file>'))
    .description('compile the rules; exit 2 with every mistake when they are wrong')
    .option('--dump <stage>', `print a stage of them instead: ${DUMP_STAGES.join(', ')}`)
    .action((file: string, options: Options) => print(compile(read(file), options)))
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
  return file === '-' ? readRules(0, 'standard input') : readRules(file, file)
}

function compile(text: string, options: Options): string {
  const queues = queueCount(options, readHostInfo())
  if (options.dump !== undefined) {
    if (!DUMP_STAGES.includes(options.dump))
      throw usage(`--dump ${options.dump}: expected ${DUMP_STAGES.join(', ')}`)
    const dump = native().rulesDump(text, queues, options.dump)
    return options.json
      ? JSON.stringify({ stage: options.dump, lines: dump.trimEnd().split('\n') })
      : dump.trimEnd()
  }
  const report = JSON.parse(native().rulesReport(text, queues)) as RulesReport
  if (options.json) return JSON.stringify({ queues, ...report })
  const width = Math.max(...report.rules.map(({ name }) => name.length))
  return [
    `${counted(report.rules.length, 'rule')} for ${counted(queues, 'queue')}`,
    ...report.rules.map(({ name, text }) => `  ${name.padEnd(width)}  ${fit(text)}`),
    ...report.warnings.map((warning) => `warning: ${warning}`),
    `user space: all of it`,
    `classic BPF, packet fanout: ${translation(report.targets.fanout)}`,
    `classic BPF, socket group: ${translation(report.targets.reuseport)}`,
    `eBPF, packet fanout: ${translation(report.targets.ebpf)}`,
    `XDP, early drop: ${early(report.earlyDrops)}`,
  ].join('\n')
}

function early(rules: number): string {
  if (rules < 2) return rules === 0 ? 'no rule' : 'the first rule'
  return `the first ${rules} rules`
}

function translation(target: Translation): string {
  return 'instructions' in target
    ? `yes, ${target.instructions} instructions`
    : `no, because of rule ${target.rule}: ${target.why}`
}

function explain(text: string, options: Options): string {
  const queues = queueCount(options, readHostInfo())
  if ((options.hex === undefined) === (options.pcap === undefined)) {
    throw usage('rules explain: expected either --hex or --pcap')
  }
  if (options.pcap !== undefined) {
    const capture = JSON.parse(native().rulesCapture(text, queues, options.pcap)) as CaptureSummary
    return options.json ? JSON.stringify(capture) : histogram(capture)
  }
  const payload = hexBytes(options.hex ?? '')
  const [rxq, cpu] = [count('--rxq', options.rxq, 0), count('--cpu', options.cpu, 0)]
  const answer = JSON.parse(
    native().rulesExplain(text, queues, payload, options.from, options.to, rxq, cpu),
  ) as Explanation
  if (options.json) return JSON.stringify(answer)
  const { trials } = answer
  const hidden = trials.slice(SHOWN_TRIALS, -SHOWN_TRIALS).length
  const width = Math.max(...trials.map(({ name }) => name.length))
  const lines = (some: readonly RuleTrace[]) =>
    some.map(
      ({ name, text, outcome, why }) =>
        `${name.padEnd(width)}  ${OUTCOMES[outcome]}${why && `: ${why}`}\n${' '.repeat(width)}    ${fit(text)}`,
    )
  const shown =
    hidden === 0
      ? lines(trials)
      : [
          ...lines(trials.slice(0, SHOWN_TRIALS)),
          `… ${counted(hidden, 'rule')} more that did not decide`,
          ...lines(trials.slice(-SHOWN_TRIALS)),
        ]
  return [...shown, `⇒ ${verdict(answer.verdict)}`].join('\n')
}

function verdict(verdict: ExplainedVerdict): string {
  if ('drop' in verdict) return 'drop'
  const spill = verdict.spill ? `; when it is full, the next of ${verdict.spill.join('..')}` : ''
  return `queue ${verdict.queue}${verdict.key === 0 ? '' : `, key ${keyText(verdict.key)}`}${spill}`
}

function hexBytes(text: string): Uint8Array {
  const digits = text.replace(/[\s:]/g, '').replace(/^0x/i, '')
  if (digits.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(digits)) {
    throw usage(
      `--hex ${JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)}: expected pairs of hexadecimal digits`,
    )
  }
  return Uint8Array.from(Buffer.from(digits, 'hex'))
}

function queueCount(options: Options, host: HostInfo): number {
  // The configuration is not loaded, so that rules can be compiled where it would be refused.
  const given = options.queues ?? process.env['MILLRACE_QUEUES']
  return given ? count('--queues', given, 1) : (host.parallelism ?? host.cpus.length)
}

function count(option: string, text: string, least: number): number {
  const n = Number(text)
  if (!Number.isInteger(n) || n < least || n > 65_535)
    throw usage(`${option} ${JSON.stringify(text)}: expected a whole number from ${least} to 65535`)
  return n
}

function usage(message: string): MillraceError {
  return new MillraceError('MILLRACE_E_CONFIG', message)
}
