import type { Chunk, ChunkPool } from './chunk.js'
import type { Envelope } from './envelope.js'
import { frameInPlace, type Head, headRoom, TAIL_BYTES } from './frame.js'
import type { Outbox } from './outbox.js'

/**
 * Open envelopes of one kind at a time; the oldest is sealed when another is to be opened. Too low: with more ports or
 * subjects than this, messages hold few results each. Too high: more chunks lie half empty.
 */
export const MAX_OPEN = 64

/** An envelope that is being filled, and its chunk. */
interface OpenEnvelope<E> {
  readonly head: Head
  readonly envelope: E
  readonly chunk: Chunk
  /** performance.now() when it was opened, which is when its first result came. */
  readonly openedAt: number
}

/** Open envelopes, one for each key, in the order they were opened. Sealed ones go to the outbox. */
export class OpenEnvelopes<K, E extends Pick<Envelope, 'count' | 'start' | 'seal'>> {
  readonly #outbox: Outbox
  readonly #pool: ChunkPool
  readonly #newEnvelope: () => E
  readonly #open = new Map<K, OpenEnvelope<E>>()
  /** Encoders whose envelope was sealed, for reuse. */
  readonly #idle: E[] = []

  /**
   * @param pool is told when nothing more will be built in a chunk.
   * @param newEnvelope makes an encoder when no idle one is left.
   */
  constructor(outbox: Outbox, pool: ChunkPool, newEnvelope: () => E) {
    this.#outbox = outbox
    this.#pool = pool
    this.#newEnvelope = newEnvelope
  }

  get(key: K): E | undefined {
    return this.#open.get(key)?.envelope
  }

  get size(): number {
    return this.#open.size
  }

  /** Results in all open envelopes. */
  get results(): number {
    let results = 0
    for (const { envelope } of this.#open.values()) results += envelope.count
    return results
  }

  /** performance.now() when the oldest one was opened; undefined when none is open. */
  get oldest(): number | undefined {
    return this.#open.values().next().value?.openedAt
  }

  /**
   * Opens an envelope for a key that has none. Its message has at most `limit` bytes, and is built in `chunk`, which has
   * {@link headRoom} and {@link TAIL_BYTES} more than the envelope needs.
   */
  open(key: K, head: Head, chunk: Chunk, limit: number): E {
    if (this.#open.size >= MAX_OPEN) {
      for (const oldest of this.#open.keys()) {
        this.seal(oldest)
        break
      }
    }
    const envelope = this.#idle.pop() ?? this.#newEnvelope()
    envelope.start(chunk, limit, headRoom(head))
    this.#open.set(key, { head, envelope, chunk, openedAt: performance.now() })
    return envelope
  }

  /** Seals the envelope of a key, if it has one, and gives its message to the outbox. */
  seal(key: K): void {
    const open = this.#open.get(key)
    if (open === undefined) return
    const { head, envelope, chunk } = open
    const { count } = envelope
    this.#open.delete(key)
    if (count > 0) {
      const message = envelope.seal()
      const { byteOffset: from, length } = message
      // What was published before keeps its place.
      this.#outbox.closeOpenExtent()
      this.#outbox.send({
        chunk,
        from: frameInPlace(chunk, head, from, from + length),
        to: from + length + TAIL_BYTES,
        messages: 1,
        results: count,
        messageBytes: length,
        largest: length,
      })
    }
    this.#pool.finish(chunk)
    this.#idle.push(envelope)
  }

  sealAll(): void {
    for (const key of this.#open.keys()) this.seal(key)
  }

  /** Seals the envelopes that were opened at `time` (performance.now()) or before. */
  sealOpenedBy(time: number): void {
    for (const [key, { openedAt }] of this.#open) {
      // The map is in the order of opening, so all that follow are younger.
      if (openedAt > time) break
      this.seal(key)
    }
  }

  /** Discards all open envelopes and their chunks, and returns the number of results that were in them. */
  discard(): number {
    const { results } = this
    for (const { chunk } of this.#open.values()) this.#pool.finish(chunk)
    this.#open.clear()
    return results
  }
}
