/**
 * A worker's counters: one Float64 slot each in a SharedArrayBuffer of its own that only this worker writes and the main
 * thread reads at scrape. They survive a restart of the worker, because the memory belongs to the main thread.
 * Integers stay exact up to 2^53.
 */
export const COUNTERS = [
  /** Datagrams whose handler returned. */
  'handled',
  'batches',
  /** Datagrams of batches whose handler threw or rejected. */
  'failed',
  'failedBatches',
  /** Nanoseconds inside handlers. */
  'handlerNanos',
  /** Results the handler gave to the publisher (a forwarded datagram, a published payload or an emitted value each count one). */
  'emitted',
  'emittedBytes',
  /** Results a server PONG has confirmed. */
  'confirmed',
  /** Results dropped because NATS was away and the policy is `drop`. */
  'droppedDisconnected',
  /** Results handed to a connection that broke before it confirmed them: they may or may not have arrived. */
  'droppedUnconfirmed',
  /** Results larger than the server's max_payload. */
  'droppedOversize',
  /** Results a handler produced outside its batches (a timer of its own) when the publisher held all it may. */
  'droppedOverrun',
  /** Results left when the drain deadline passed. */
  'droppedShutdown',
  /** NATS messages and bytes handed to the connection. */
  'messages',
  'messageBytes',
  /** Bytes not yet confirmed (gauge). */
  'inFlightBytes',
  'flushes',
  /** 1 while connected (gauge). */
  'connected',
  'reconnects',
  /** Times the worker stopped draining because the window was full or NATS was away. */
  'paused',
  'wakeups',
] as const

export type CounterName = (typeof COUNTERS)[number]

const SLOT = Object.fromEntries(COUNTERS.map((name, i) => [name, i])) as Record<CounterName, number>

export class Counters {
  static readonly BYTES = COUNTERS.length * 8
  readonly #slots: Float64Array

  constructor(memory: SharedArrayBuffer | ArrayBuffer = new ArrayBuffer(Counters.BYTES)) {
    this.#slots = new Float64Array(memory)
  }

  add(name: CounterName, n: number): void {
    this.#slots[SLOT[name]]! += n
  }

  set(name: CounterName, value: number): void {
    this.#slots[SLOT[name]] = value
  }

  get(name: CounterName): number {
    return this.#slots[SLOT[name]]!
  }

  snapshot(): Record<CounterName, number> {
    return Object.fromEntries(COUNTERS.map((name) => [name, this.get(name)])) as Record<CounterName, number>
  }
}
