import type { Ended } from './service.js'

type ByReason = Readonly<Record<string, number>>

/** The part of the service's closing line that is added up here. src/service/books.ts defines the fields. */
interface Books {
  readonly received: number
  readonly dropped: ByReason
  readonly handled: number
  readonly failed: number
  readonly taken: number
  readonly publisherDropped: ByReason
  readonly kernelLost: ByReason
  readonly balanced: boolean
}

/** The closing books, reduced to the numbers that tests and the demo compare. */
export interface Totals {
  readonly backend: string
  readonly mode: string
  /** Datagrams received. */
  readonly received: number
  readonly handled: number
  /** Results that the NATS server has taken. */
  readonly taken: number
  /** Datagrams that did not become a taken result, by reason. Reasons that count 0 are left out. */
  readonly dropped: ByReason
  /** True when the service itself found that its equations hold. */
  readonly balanced: boolean
}

/** Reads the closing books. @throws Error when the service printed none. */
export function totals(ended: Ended): Totals {
  const books = ended.books as Books | null
  if (!books) throw new Error(`the service ended with ${ended.code ?? ended.signal} and printed no books`)
  const start = ended.log.find((line) => line.backend !== undefined && line.mode !== undefined)
  const dropped: Record<string, number> = {}
  const add = (prefix: string, reasons: ByReason) => {
    for (const [reason, n] of Object.entries(reasons)) if (n !== 0) dropped[`${prefix}${reason}`] = n
  }
  add('', books.dropped)
  add('kernel_', books.kernelLost)
  add('', { handler_failed: books.failed })
  add('nats_', books.publisherDropped)
  return {
    backend: String(start?.backend ?? 'unknown'),
    mode: String(start?.mode ?? 'unknown'),
    received: books.received,
    handled: books.handled,
    taken: books.taken,
    dropped,
    balanced: books.balanced,
  }
}

/** Returns the sum over all reasons. */
export function sumOf(dropped: ByReason): number {
  return Object.values(dropped).reduce((a, b) => a + b, 0)
}
