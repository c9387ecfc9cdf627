/**
 * What a counter is to the books. Two equations hold at any quiet moment:
 *
 *     scattered = handled + failed + queued              (datagrams; `scattered` and `queued` are the engine's)
 *     emitted   = taken + Σ dropped + in flight      (results)
 *
 * `dropped` counters have a reason, which is their label in metrics and books, and the words that describe it in the help
 * of the metric. `statistic` counters and `gauge`s stand in neither equation.
 */
export type CounterRole =
  | { readonly role: 'handled' | 'failed' | 'emitted' | 'taken' | 'statistic' | 'gauge' }
  | { readonly role: 'dropped'; readonly reason: string; readonly help: string }

const STATISTIC = { role: 'statistic' } as const
const GAUGE = { role: 'gauge' } as const

/**
 * A worker's counters with their roles, in the order in which they lie in memory. This is the only list of them: recovery,
 * books and metrics take the counters of each role from here.
 */
export const COUNTER_ROLES = {
  /** Datagrams whose handler returned, or whose promise was fulfilled. */
  handled: { role: 'handled' },
  /** Batches whose handler returned. */
  batches: STATISTIC,
  /** Datagrams of batches whose handler threw or rejected, or with which the worker died. */
  failed: { role: 'failed' },
  /** Batches whose handler threw or rejected, or with which the worker died. */
  failedBatches: STATISTIC,
  /** Nanoseconds from the call of the handler until it returned or its promise was fulfilled; failed batches are left out. */
  handlerNanos: STATISTIC,
  /** Results that the handler gave to the publisher: forwarded datagrams, published payloads and emitted values. */
  emitted: { role: 'emitted' },
  /** Payload bytes of those results; packed bytes of emitted values. */
  emittedBytes: STATISTIC,
  /** Results that the NATS server has taken: a PONG says that it has parsed them. It does not say that anybody got them. */
  taken: { role: 'taken' },
  /** Times the server reported that it refuses a subject. It discards those messages, and their results count as taken. */
  refused: STATISTIC,
  /** Results dropped because NATS was away and the policy is `drop`. */
  droppedDisconnected: { role: 'dropped', reason: 'disconnected', help: 'disconnected' },
  /** Results handed to a connection that broke before it said that it had taken them: they may or may not have arrived. */
  droppedUnconfirmed: { role: 'dropped', reason: 'unconfirmed', help: 'unconfirmed (may have arrived)' },
  /** Results larger than the server's max_payload. */
  droppedOversize: { role: 'dropped', reason: 'oversize', help: 'oversize' },
  /** Results that a handler produced outside its batches, by a timer of its own, when the publisher held all it may. */
  droppedOverrun: { role: 'dropped', reason: 'overrun', help: 'overrun (of the bound on what is held)' },
  /** Results left when the deadline of the drain passed. */
  droppedShutdown: { role: 'dropped', reason: 'shutdown', help: 'shutdown' },
  /** NATS messages handed to the connection. */
  messages: STATISTIC,
  /** Bytes of those messages, without their PUB lines. */
  messageBytes: STATISTIC,
  /** Bytes of sealed messages, PUB lines included, that wait for NATS or were written and are not taken. */
  inFlightBytes: GAUGE,
  /** PINGs sent to learn whether the server has taken what was written. */
  flushes: STATISTIC,
  /** 1 while connected, else 0. */
  connected: GAUGE,
  /** Connections after the first one. */
  reconnects: STATISTIC,
  /** Times the worker stopped draining because the window was full. */
  paused: STATISTIC,
  /** Times a receive thread woke the worker. */
  wakeups: STATISTIC,
} as const satisfies Record<string, CounterRole>

/** Name of a counter. */
export type CounterName = keyof typeof COUNTER_ROLES

/** One reading of all counters. */
export type CounterValues = Readonly<Record<CounterName, number>>

/** Names of the counters, in the order in which they lie in memory. */
export const COUNTERS = Object.keys(COUNTER_ROLES) as readonly CounterName[]

/** A reason for which a publisher drops results. */
export interface Drop {
  readonly counter: CounterName
  readonly reason: string
  readonly help: string
}

/** The reasons for which a publisher drops results, with their counters. */
export const DROPS: readonly Drop[] = COUNTERS.flatMap((counter) => {
  const role: CounterRole = COUNTER_ROLES[counter]
  return role.role === 'dropped' ? [{ counter, reason: role.reason, help: role.help }] : []
})

/** Dropped results by reason. */
export function droppedByReason(values: CounterValues): Readonly<Record<string, number>> {
  return Object.fromEntries(DROPS.map(({ counter, reason }) => [reason, values[counter]]))
}

/** Dropped results of all reasons. */
export function droppedResults(values: CounterValues): number {
  return DROPS.reduce((sum, { counter }) => sum + values[counter], 0)
}

/** Results given to the publisher that are neither taken nor dropped. */
export function resultsInFlight(values: CounterValues): number {
  return values.emitted - values.taken - droppedResults(values)
}

/** Datagrams taken from the lanes and accounted for. */
export function settledDatagrams(values: CounterValues): number {
  return values.handled + values.failed
}

const INDEX = Object.fromEntries(COUNTERS.map((name, i) => [name, i])) as Record<CounterName, number>

/**
 * A worker's counters: one Float64 each in a SharedArrayBuffer that only this worker writes, and the main thread reads at
 * every scrape. They survive a restart of the worker, because the memory belongs to the main thread, which writes them only
 * between a worker's exit and its restart. Integers are exact up to 2^53.
 */
export class Counters {
  /** Bytes of the memory. */
  static readonly BYTES = COUNTERS.length * 8
  readonly #values: Float64Array

  /** @param memory {@link Counters.BYTES} bytes; by default memory of its own, for tests. */
  constructor(memory: SharedArrayBuffer | ArrayBuffer = new ArrayBuffer(Counters.BYTES)) {
    this.#values = new Float64Array(memory)
  }

  add(name: CounterName, n: number): void {
    this.#values[INDEX[name]]! += n
  }

  set(name: CounterName, value: number): void {
    this.#values[INDEX[name]] = value
  }

  get(name: CounterName): number {
    return this.#values[INDEX[name]]!
  }

  /** A copy of all counters. They are read one after the other, so a counter may move in between. */
  snapshot(): CounterValues {
    return Object.fromEntries(COUNTERS.map((name) => [name, this.get(name)])) as CounterValues
  }
}
