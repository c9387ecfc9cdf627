/**
 * Two rule sets that agree on no datagram: other names at the same index, another number of rules, other keys. A datagram
 * judged by one and named by the other, or by rules of both, is none of the two.
 */
export const A = 'a_low: u8[3] < 128 => mod(u32[0])\na_high: mod(u32[0] + 1)\n'
export const B =
  'b_3: u32[0] % 3 == 0 => mod(u32[0] + 2)\nb_odd: u8[3] & 1 == 1 => mod(u32[0] * 3 + 3)\nb: mod(u32[0] + 3)\n'

/** What became of a datagram: its number (first four bytes), its queue, the name of its rule, its key. */
export type Fate = readonly [n: number, queue: number, rule: string, key: number]

const DECIDE: readonly ((n: number) => readonly [rule: string, key: number])[] = [
  (n) => ((n & 255) < 128 ? ['a_low', n] : ['a_high', n + 1]),
  (n) => (n % 3 === 0 ? ['b_3', n + 2] : n % 2 === 1 ? ['b_odd', n * 3 + 3] : ['b', n + 3]),
]

/** 0: wholly by A; 1: wholly by B; -1: neither. */
export function judgedBy([n, queue, rule, key]: Fate, queues: number): number {
  return DECIDE.findIndex((decide) => {
    const [name, number] = decide(n)
    return name === rule && number === key && number % queues === queue
  })
}

/** A handler that publishes the fate of each datagram. */
export const HANDLER = `export default {
  handle(batch, out) {
    for (let i = 0; i < batch.length; i++) {
      out.emit([batch.u32(i, 0), batch.queue, batch.ruleName(i), batch.key(i)])
    }
  },
}`

/** What was found so far. */
export interface Fates {
  /** Different numbers. */
  readonly seen: number
  readonly highest: number
  readonly bySet: readonly [a: number, b: number]
  /** True in the answer to a question: nothing that the server had was left out. */
  readonly last: boolean
  /** The first few faults in words. */
  readonly faults: readonly string[]
}
