import type { Counters } from '../queue/counters.js'
import type { Link } from './connection/link.js'

/** What was written to the connection between two flushes. */
interface FlushGroup {
  results: number
  bytes: number
}

const newGroup = (): FlushGroup => ({ results: 0, bytes: 0 })

/**
 * What was written to the connection and is not taken. A NATS server answers in order, so the PONG of a flush says that it
 * has parsed everything that was written before its PING. At most one flush is outstanding; the next one covers all that is written
 * until then.
 */
export class Window {
  /** Unconfirmed bytes, counted as they go over the wire. */
  bytes = 0
  readonly #counters: Counters
  readonly #onConfirmed: () => void
  /** What the next flush will cover. */
  #next = newGroup()
  /** What the outstanding flush covers; undefined while none is outstanding. */
  #flushing: FlushGroup | undefined

  /** @param onConfirmed is called after each PONG, when its results are counted. */
  constructor(counters: Counters, onConfirmed: () => void) {
    this.#counters = counters
    this.#onConfirmed = onConfirmed
  }

  /** Unconfirmed results. */
  get results(): number {
    return this.#next.results + (this.#flushing?.results ?? 0)
  }

  /** True when nothing is unconfirmed. */
  get idle(): boolean {
    return this.bytes === 0 && this.results === 0
  }

  /** Records what was written. @param wireBytes its bytes, PUB lines included. */
  add(results: number, wireBytes: number): void {
    this.#next.results += results
    this.#next.bytes += wireBytes
    this.bytes += wireBytes
  }

  /** Starts a flush, unless one is outstanding or it would confirm nothing. */
  flush(link: Link): void {
    if (this.#flushing !== undefined || this.#next.results === 0) return
    const group = this.#next
    this.#next = newGroup()
    this.#flushing = group
    this.#counters.add('flushes', 1)
    // On a link that dies there is no answer, and `abandon` returns the results.
    link.ping(() => this.#confirm(group))
  }

  #confirm(group: FlushGroup): void {
    if (group !== this.#flushing) return // The group was abandoned.
    this.#flushing = undefined
    this.bytes -= group.bytes
    this.#counters.add('taken', group.results)
    this.#onConfirmed()
  }

  /** Gives up everything unconfirmed because the connection is dead or will be closed; returns the number of results. */
  abandon(): number {
    const { results } = this
    this.#next = newGroup()
    this.#flushing = undefined
    this.bytes = 0
    return results
  }
}
