import type { NatsConnection } from 'nats'
import type { Counters } from '../queue/counters.js'
import type { Chunk, ChunkPool } from './chunk.js'

/** Messages handed to the connection between two flushes, and the chunks that are reused when a PONG confirms them. */
interface FlushGroup {
  results: number
  bytes: number
  chunks: Chunk[]
}

const newGroup = (): FlushGroup => ({ results: 0, bytes: 0, chunks: [] })

/**
 * Messages handed to the connection and not yet confirmed. A NATS server answers in order, so the PONG of a flush
 * confirms everything that was handed over before its PING. At most one flush is outstanding; the next one covers all
 * that is handed over until then.
 */
export class Window {
  /** Unconfirmed bytes, counted as they go over the wire. */
  bytes = 0
  readonly #pool: ChunkPool
  readonly #counters: Counters
  readonly #onConfirmed: () => void
  /** Messages that the next flush will cover. */
  #next = newGroup()
  /** Messages that the outstanding flush covers; undefined while none is outstanding. */
  #flushing: FlushGroup | undefined

  /**
   * @param pool gets the chunks of confirmed messages.
   * @param onConfirmed is called after each PONG, when its messages are counted and their chunks released.
   */
  constructor(pool: ChunkPool, counters: Counters, onConfirmed: () => void) {
    this.#pool = pool
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

  /**
   * Records one message that was handed to the connection.
   *
   * @param wireBytes length in bytes with its PUB line.
   * @param messageBytes length in bytes without it.
   * @param chunk memory to be reused once the message is confirmed; undefined when other messages share it.
   */
  add(results: number, wireBytes: number, messageBytes: number, chunk: Chunk | undefined): void {
    const group = this.#next
    group.results += results
    group.bytes += wireBytes
    if (chunk !== undefined) group.chunks.push(chunk)
    this.bytes += wireBytes
    this.#counters.add('messages', 1)
    this.#counters.add('messageBytes', messageBytes)
  }

  /** Lets a shared chunk, all of whose messages were added before, be reused once they are confirmed. */
  retire(chunk: Chunk): void {
    this.#next.chunks.push(chunk)
  }

  /** Starts a flush, unless one is outstanding or it would confirm nothing. */
  flush(client: NatsConnection): void {
    if (this.#flushing !== undefined || this.#next.results === 0) return
    const group = this.#next
    this.#next = newGroup()
    this.#flushing = group
    this.#counters.add('flushes', 1)
    // A flush that fails needs no handling of its own: the connection is dead, and `abandon` will return the results.
    client.flush().then(
      () => this.#confirm(group),
      () => undefined,
    )
  }

  /** The PONG has come: this is the one place that releases chunks the NATS client has seen. */
  #confirm(group: FlushGroup): void {
    if (group !== this.#flushing) return // The group was abandoned with its connection.
    this.#flushing = undefined
    this.bytes -= group.bytes
    this.#counters.add('confirmed', group.results)
    for (const chunk of group.chunks) this.#pool.release(chunk)
    this.#onConfirmed()
  }

  /**
   * Gives up everything unconfirmed because the connection is dead or will be closed. The chunks are left to the garbage
   * collector, because the dead client may still refer to them.
   *
   * @returns the number of unconfirmed results.
   */
  abandon(): number {
    const { results } = this
    this.#next = newGroup()
    this.#flushing = undefined
    this.bytes = 0
    return results
  }
}
