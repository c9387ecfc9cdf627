import type { Ended } from './service.js'

type ByReason = Readonly<Record<string, number>>

/** The part of the service's closing line that is added up here (src/service/books.ts says what each means). */
interface Books {
  readonly received: number
  readonly dropped: ByReason
  readonly handled: number
  readonly failed: number
  readonly confirmed: number
  readonly publisherDropped: ByReason
  readonly kernelLost: ByReason
  readonly balanced: boolean
}

/** The closing books in the few numbers that tests and the demo compare. */
export interface Totals {
  readonly backend: string
  readonly mode: string
  /** Datagrams the receive threads took. */
  readonly received: number
  readonly handled: number
  /** Results a server has confirmed. */
  readonly confirmed: number
  /** Every datagram that did not become a confirmed result, by reason; reasons with 0 are left out. */
  readonly dropped: ByReason
  /** The service's own verdict on its equations. */
  readonly balanced: boolean
}

/** Reads how the service ended. @throws when it printed no books. */
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
    confirmed: books.confirmed,
    dropped,
    balanced: books.balanced,
  }
}

/** Sum of all reasons. */
export function sumOf(dropped: ByReason): number {
  return Object.values(dropped).reduce((a, b) => a + b, 0)
}
