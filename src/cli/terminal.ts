import type { CaptureSummary } from '../generated/contract.js'

/** Characters of the longest bar: with name, count and percentage a row still fits 80 columns. */
const BAR = 40
/** Characters of a rule's text that are shown. */
const MAX_TEXT = 100
/** Rules that are shown, those with the most datagrams: about one screen. */
const MAX_RULES = 20
/** Queues that are shown, those with the most datagrams: all of them on most machines. */
const MAX_QUEUES = 64

interface Row {
  readonly name: string
  readonly n: number
  readonly note: string
}

/** The summary of a capture as bars of text. */
export function histogram(capture: CaptureSummary): string {
  const { packets, datagrams, queues, rules } = capture
  const frames = Object.entries(capture.frames).map(([reason, n]) => `${n} ${reason}`)
  const head = [
    `${counted(packets, 'packet')}, ${counted(datagrams, 'datagram')}${frames.length > 0 ? ` (not: ${frames.join(', ')})` : ''}`,
    ...(capture.truncated ? ['the file ends in the middle of a packet'] : []),
  ]
  if (datagrams === 0) return head.join('\n')
  const dropped = rules.reduce((sum, rule) => sum + rule.dropped, 0)
  const inQueues = queues.map((n, queue) => ({ name: `queue ${queue}`, n, note: '' }))
  const byRule = rules.map(({ name, matched, text }) => ({ name, n: matched, note: fit(text) }))
  return [
    ...head,
    '',
    ...bars(inQueues, datagrams, MAX_QUEUES, 'queues'),
    `dropped ${dropped}; the fullest queue has ${capture.skew.toFixed(2)} times the mean`,
    '',
    ...bars(byRule, datagrams, MAX_RULES, 'rules'),
    ...keys(capture),
  ].join('\n')
}

function keys({ heaviest, keys, keysCut, rules, queues, datagrams }: CaptureSummary): string[] {
  const first = heaviest[0]
  if (!first) return []
  const keyed = new Set(rules.filter(({ text }) => /=> (mod|hash)\(/.test(text)).map(({ name }) => name))
  const rows = heaviest.map(({ rule, key, queue, datagrams: n }) => ({
    name: keyed.has(rule) ? keyText(key) : 'no key',
    n,
    note: `${rule} → queue ${queue}`,
  }))
  const even = 1 / queues.length
  const heavy = keyed.has(first.rule) && first.datagrams / datagrams > even && queues.length > 1
  return [
    '',
    `heaviest of ${keys}${keysCut ? ' or more' : ''} keys:`,
    ...bars(rows, datagrams, rows.length, 'keys'),
    ...(heavy
      ? [
          `the first alone has more than a queue's even share of ${(100 * even).toFixed(1)} %, and a key stays in one queue`,
        ]
      : []),
  ]
}

/** One line for each row. Of more than `limit` rows those with the most are shown, in their order, and the rest as a sum. */
function bars(rows: readonly Row[], total: number, limit: number, what: string): string[] {
  const heaviest = [...rows].sort((a, b) => b.n - a.n).slice(0, limit)
  const shown = rows.length <= limit ? rows : rows.filter((row) => heaviest.includes(row))
  const width = Math.max(...shown.map(({ name }) => name.length))
  const most = Math.max(1, ...shown.map(({ n }) => n))
  const lines = shown.map(({ name, n, note }) =>
    `${name.padEnd(width)} ${String(n).padStart(9)} ${percent(n, total)} ${bar(n / most).padEnd(note ? BAR : 0)} ${note}`.trimEnd(),
  )
  const left = rows.length - shown.length
  if (left === 0) return lines
  const rest = rows.reduce((sum, { n }) => sum + n, 0) - shown.reduce((sum, { n }) => sum + n, 0)
  return [...lines, `… and ${left} more ${what} with ${rest} together`]
}

/** A bar in eighths of a character; a share above 0 has at least one. */
function bar(share: number): string {
  const eighths = Math.ceil(share * BAR * 8)
  return '█'.repeat(eighths >> 3) + ' ▏▎▍▌▋▊▉'.charAt(eighths & 7).trim()
}

function percent(n: number, of: number): string {
  return `${((100 * n) / Math.max(1, of)).toFixed(1).padStart(5)} %`
}

/** A key in decimal, and in hexadecimal as it stands in a datagram. */
export function keyText(key: number): string {
  return `${key} (0x${key.toString(16).padStart(8, '0')})`
}

/** A text shortened to {@link MAX_TEXT} characters. */
export function fit(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT - 1)}…`
}

/** A number and its noun, such as `1 rule` or `3 rules`. */
export function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}
