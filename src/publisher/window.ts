import type { NatsConnection } from 'nats'
import type { Counters } from '../queue/counters.js'
import type { Chunk, ChunkPool } from './chunk.js'

/** What was handed to the connection between two flushes, and the chunks that come free when a PONG confirms it. */
interface Group {
  results: number
  bytes: number
  chunks: Chunk[]
}

const newGroup = (): Group => ({ results: 0, bytes: 0, chunks: [] })

/**
 * What has been handed to the connection and not yet confirmed. A NATS server answers in order, so the PONG of a flush
 * confirms everything handed over before its PING. One flush is outstanding at a time; the next one covers all that was
 * handed over meanwhile.
 */
export class Window {
  /** Bytes handed over and not confirmed, as they go over the wire. */
  bytes = 0
  readonly #pool: ChunkPool
  readonly #counters: Counters
  readonly #onConfirmed: () => void
  #open = newGroup()
  #flushing: Group | undefined

  constructor(pool: ChunkPool, counters: Counters, onConfirmed: () => void) {
    this.#pool = pool
    this.#counters = counters
    this.#onConfirmed = onConfirmed
  }

  /** Results handed over and not confirmed. */
  get results(): number {
    return this.#open.results + (this.#flushing?.results ?? 0)
  }

  /** True when nothing waits for the server. */
  get idle(): boolean {
    return this.bytes === 0 && this.results === 0
  }

  /**
   * Accounts for one message handed over: `wireBytes` with its PUB line, of which `bytes` are its own. `chunk`, when
   * given, holds nothing that will be handed over later.
   */
  handed(results: number, wireBytes: number, bytes: number, chunk: Chunk | undefined): void {
    const group = this.#open
    group.results += results
    group.bytes += wireBytes
    if (chunk !== undefined) group.chunks.push(chunk)
    this.bytes += wireBytes
    this.#counters.add('messages', 1)
    this.#counters.add('messageBytes', bytes)
  }

  /** A chunk shared by several messages, all of them handed over, will get no further one. */
  retire(chunk: Chunk): void {
    this.#open.chunks.push(chunk)
  }

  /** Starts a flush unless one is outstanding or there is nothing it would confirm. */
  flush(client: NatsConnection): void {
    if (this.#flushing !== undefined || this.#open.results === 0) return
    const group = this.#open
    this.#open = newGroup()
    this.#flushing = group
    this.#counters.add('flushes', 1)
    // A flush that fails needs no handling of its own: the connection is down, and `abandon` accounts for the group.
    client.flush().then(
      () => this.#confirmed(group),
      () => undefined,
    )
  }

  #confirmed(group: Group): void {
    if (group !== this.#flushing) return // of a connection given up meanwhile
    this.#flushing = undefined
    this.bytes -= group.bytes
    this.#counters.add('confirmed', group.results)
    for (const chunk of group.chunks) this.#pool.give(chunk)
    this.#onConfirmed()
  }

  /** The connection is gone: forgets everything unconfirmed, chunks included, and returns the number of results. */
  abandon(): number {
    const { results } = this
    this.#open = newGroup()
    this.#flushing = undefined
    this.bytes = 0
    return results
  }
}
