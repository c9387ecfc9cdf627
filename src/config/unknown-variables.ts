import { isIP } from 'node:net'
import { ENTRIES } from './variables.js'

const PREFIX = 'MILLRACE_'

/** Variables with our prefix that tests and tools read, and the service does not. */
const TOOL_NAMES: ReadonlySet<string> = new Set(['MILLRACE_SKIP_LOG'])

/** Variables with our prefix that the service does not read. */
interface UnknownVariables {
  /** Names that are most likely mistakes, each with the name that was probably meant. */
  readonly unknown: readonly { readonly name: string; readonly suggestion: string | undefined }[]
  /** Names that Kubernetes injects for a Service named `millrace` or `millrace-…`. */
  readonly serviceLinks: readonly string[]
}

/** The names that start with `MILLRACE_` and are not in the table of variables: mistakes, and what Kubernetes injects. */
export function unknownVariables(env: Readonly<Record<string, string>>): UnknownVariables {
  const variables = ENTRIES.map(([name]) => name as string)
  const names = Object.keys(env).filter(
    (name) => name.startsWith(PREFIX) && !variables.includes(name) && !TOOL_NAMES.has(name),
  )
  const isLink = (name: string) => isServiceLink(name, env[name]!)
  return {
    serviceLinks: names.filter(isLink),
    unknown: names
      .filter((name) => !isLink(name))
      .map((name) => ({ name, suggestion: nearest(name, variables) })),
  }
}

const TRANSPORT = '(?:TCP|UDP|SCTP)'
const URL_VALUE = /^(?:tcp|udp|sctp):\/\//
const NUMBER = /^\d+$/
/** Names that the kubelet makes, and what their values look like (kubelet's envvars.go, `FromServices`). */
const LINKS: readonly (readonly [RegExp, (value: string) => boolean])[] = [
  [/_SERVICE_HOST$/, (v) => isIP(v) !== 0],
  [/_SERVICE_PORT(?:_[A-Z0-9_]+)?$/, (v) => NUMBER.test(v)],
  [new RegExp(`_PORT_\\d+_${TRANSPORT}$`), (v) => URL_VALUE.test(v)],
  [new RegExp(`_PORT_\\d+_${TRANSPORT}_PROTO$`), (v) => /^(?:tcp|udp|sctp)$/.test(v)],
  [new RegExp(`_PORT_\\d+_${TRANSPORT}_PORT$`), (v) => NUMBER.test(v)],
  [new RegExp(`_PORT_\\d+_${TRANSPORT}_ADDR$`), (v) => isIP(v) !== 0],
  [/_PORT$/, (v) => URL_VALUE.test(v)],
]

/**
 * True for the variables that the kubelet makes for a Service whose name starts with `millrace` (`enableServiceLinks`).
 * Name and value must both match, so that a mistyped variable such as `MILLRACE_HTTP_PORT=9180` stays an error.
 */
export function isServiceLink(name: string, value: string): boolean {
  return name.startsWith(PREFIX) && LINKS.some(([pattern, isValid]) => pattern.test(name) && isValid(value))
}

/** The one of `names` with the fewest edits, where they are so few that it was probably meant. */
function nearest(name: string, names: readonly string[]): string | undefined {
  const ranked = names
    .map((candidate) => ({ candidate, edits: distance(name, candidate) }))
    .sort((a, b) => a.edits - b.edits)
  const best = ranked[0]
  // The prefix is the same in all names, so the limit of one edit in three counts only what follows it.
  if (best && best.edits <= Math.max(2, (name.length - PREFIX.length) / 3)) return best.candidate
  // Otherwise a name with a word too many or too few, such as MILLRACE_NATS_URL, MILLRACE_HTTP_PORT or MILLRACE_LANE.
  return (
    names.find((k) => k === name.slice(PREFIX.length)) ??
    names.find((k) => name.startsWith(`${k}_`)) ??
    names.find((k) => k.startsWith(`${name}_`))
  )
}

/**
 * The number of edits that turn `a` into `b`: insertions, deletions, substitutions and swaps of neighbours (optimal string
 * alignment distance).
 */
export function distance(a: string, b: string): number {
  const width = b.length + 1
  const cost = new Uint16Array((a.length + 1) * width)
  for (let i = 0; i <= a.length; i++) {
    for (let j = 0; j <= b.length; j++) {
      const at = i * width + j
      if (i === 0 || j === 0) {
        cost[at] = i + j
        continue
      }
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      cost[at] = Math.min(cost[at - width]! + 1, cost[at - 1]! + 1, cost[at - width - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost[at] = Math.min(cost[at]!, cost[at - 2 * width - 2]! + 1)
      }
    }
  }
  return cost[cost.length - 1]!
}
