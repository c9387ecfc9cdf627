import type { Batch } from '../queue/batch.js'
import type { Counters } from '../queue/counters.js'
import { type Chunk, newChunk } from './chunk.js'
import { copyPayload } from './copy.js'
import type { Outbox } from './outbox.js'
import type { Subjects } from './subject.js'

/**
 * Bytes of a chunk that raw messages share. Too low: more chunks go back and forth for the same traffic, and larger
 * messages need memory of their own. Too high: a chunk of which little is used stays occupied until all of it is
 * confirmed.
 */
export const SHARED_CHUNK_BYTES = 128 << 10

/** Memory for one message. */
interface Allocation {
  chunk: Chunk
  /** Position of the message in the chunk. */
  at: number
  /** The chunk holds other messages too, so it cannot be reused when this one is confirmed. */
  shared: boolean
}

/**
 * Messages that are no envelopes: each datagram of the format `raw`, and what a handler publishes. They are copied one
 * behind the other into a shared chunk, or, when one is larger than half of it, into a chunk of its own, and handed to
 * the outbox at once.
 */
export class RawMessages {
  readonly #outbox: Outbox
  readonly #subjects: Subjects
  readonly #counters: Counters
  readonly #newSharedChunk: () => Chunk
  #shared: Chunk | undefined
  /** Where the free part of the shared chunk begins. */
  #end = 0
  /** The result of {@link RawMessages.#allocate}: one object for all calls, so that a message costs none. */
  readonly #allocation: Allocation = { chunk: newChunk(0), at: 0, shared: false }

  /** @param newSharedChunk provides chunks of {@link SHARED_CHUNK_BYTES} bytes. */
  constructor(outbox: Outbox, subjects: Subjects, counters: Counters, newSharedChunk: () => Chunk) {
    this.#outbox = outbox
    this.#subjects = subjects
    this.#counters = counters
    this.#newSharedChunk = newSharedChunk
  }

  /** Sends datagrams `from` up to `to`, exclusive, one message each; counts those the server would refuse as oversize. */
  forward(batch: Batch, from: number, to: number): void {
    for (let i = from; i < to; i++) {
      const size = batch.size(i)
      if (size > this.#outbox.maxPayload) {
        this.#counters.add('droppedOversize', 1)
        continue
      }
      const { chunk, at, shared } = this.#allocate(size, batch.slab.byteOffset + batch.offset(i))
      copyPayload(chunk, at, batch.slab, batch.offset(i), size)
      const subject = this.#subjects.forPort(this.#subjects.perPort ? batch.dstPort(i) : 0)
      this.#outbox.send(subject, chunk.bytes.subarray(at, at + size), 1, shared ? undefined : chunk)
    }
  }

  /** Sends a copy of `payload`, which is no larger than the server's max_payload. */
  publish(payload: Uint8Array, subject: string): void {
    const { chunk, at, shared } = this.#allocate(payload.length, 0)
    chunk.bytes.set(payload, at)
    this.#outbox.send(subject, chunk.bytes.subarray(at, at + payload.length), 1, shared ? undefined : chunk)
  }

  /**
   * Stops using the current shared chunk, without giving it back: a client whose connection has died may still refer to
   * the messages at its beginning.
   */
  abandonSharedChunk(): void {
    this.#shared = undefined
  }

  /**
   * Finds memory for a message; the result is valid until the next call. The message gets the alignment of `source`, the
   * address it is copied from (see ColumnsEnvelope.add).
   */
  #allocate(size: number, source: number): Readonly<Allocation> {
    const allocation = this.#allocation
    if (size > SHARED_CHUNK_BYTES / 2) {
      allocation.at = source & 7
      allocation.chunk = newChunk(allocation.at + size)
      allocation.shared = false
      return allocation
    }
    this.#end += (source - this.#end) & 7
    if (this.#shared === undefined || this.#end + size > this.#shared.bytes.length) {
      if (this.#shared !== undefined) this.#outbox.retire(this.#shared)
      this.#shared = this.#newSharedChunk()
      this.#end = source & 7
    }
    allocation.chunk = this.#shared
    allocation.at = this.#end
    allocation.shared = true
    this.#end += size
    return allocation
  }
}
