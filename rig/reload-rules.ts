/**
 * Two rule sets that agree on no datagram: they differ in the names at the same index, in the number of rules and in the
 * keys. So a datagram that was judged by one and named by the other belongs to neither.
 */
export const A = 'a_low: u8[3] < 128 => mod(u32[0])\na_high: mod(u32[0] + 1)\n'
export const B =
  'b_3: u32[0] % 3 == 0 => mod(u32[0] + 2)\nb_odd: u8[3] & 1 == 1 => mod(u32[0] * 3 + 3)\nb: mod(u32[0] + 3)\n'

/** The decision on a datagram: its number (the first four bytes), its queue, the name of its rule, its key. */
export type Decision = readonly [n: number, queue: number, rule: string, key: number]

const DECIDE: readonly ((n: number) => readonly [rule: string, key: number])[] = [
  (n) => ((n & 255) < 128 ? ['a_low', n] : ['a_high', n + 1]),
  (n) => (n % 3 === 0 ? ['b_3', n + 2] : n % 2 === 1 ? ['b_odd', n * 3 + 3] : ['b', n + 3]),
]

/** Returns 0 when set A alone explains the decision, 1 when set B does, and -1 when neither does. */
export function judgedBy([n, queue, rule, key]: Decision, queues: number): number {
  return DECIDE.findIndex((decide) => {
    const [name, number] = decide(n)
    return name === rule && number === key && number % queues === queue
  })
}

/** A handler that publishes the decision of each datagram. */
export const HANDLER = `export default {
  handle(batch, out) {
    for (let i = 0; i < batch.length; i++) {
      out.emit([batch.u32(i, 0), batch.queue, batch.ruleName(i), batch.key(i)])
    }
  },
}`

/** What the subscriber has found so far. */
export interface ReloadSummary {
  /** Number of different datagrams. */
  readonly seen: number
  readonly highest: number
  /** Datagrams by the rule set that judged them. */
  readonly bySet: readonly [a: number, b: number]
  /** True in the answer to a message: everything the server had before is included. */
  readonly last: boolean
  /** The first few faults in words. */
  readonly faults: readonly string[]
}
