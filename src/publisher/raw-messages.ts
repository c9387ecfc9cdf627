import type { Batch } from '../queue/batch.js'
import type { Counters } from '../queue/counters.js'
import { type Chunk, newChunk } from './chunk.js'
import { copyPayload, WORD_COPY_MAX } from './copy.js'
import { frameBytes, type Head, writeLine, writeTail } from './frame.js'
import type { OpenExtent, Outbox } from './outbox.js'
import type { Subjects } from './subject.js'

/**
 * Bytes of a chunk that raw messages share. Too low: more chunks go back and forth for the same traffic, and larger
 * messages need memory of their own. Too high: a chunk of which little is used stays occupied until all of it is written.
 */
export const SHARED_CHUNK_BYTES = 128 << 10

/**
 * Bytes at which gathered messages are written before the turn ends. Too low: more writes for the same traffic. Too high:
 * the kernel begins to send only when the turn is over.
 */
const WRITE_BYTES = 64 << 10

/**
 * Messages that are no envelopes: each datagram of the format `raw`, and what a handler publishes. Their PUB operations are
 * written one behind the other into a shared chunk, or, when one is larger than half of it, into a chunk of its own, and
 * given to the outbox when the turn ends, when they are many, or when an envelope is sent behind them. What a handler
 * publishes from a timer of its own is in no turn: it is sent when the event loop's current callback has ended.
 */
export class RawMessages implements OpenExtent {
  readonly #outbox: Outbox
  readonly #subjects: Subjects
  readonly #counters: Counters
  readonly #newSharedChunk: () => Chunk
  readonly #finish: (chunk: Chunk) => void
  #shared: Chunk | undefined
  /** Where the gathered messages begin in the shared chunk, and where its free part does. */
  #from = 0
  #end = 0
  #results = 0
  #messageBytes = 0
  #largest = 0
  /** A flush is scheduled for the end of the event loop's current callback. */
  #scheduled = false

  /**
   * @param newSharedChunk provides chunks of {@link SHARED_CHUNK_BYTES} bytes.
   * @param finish is told of each chunk in which nothing more will be written.
   */
  constructor(
    outbox: Outbox,
    subjects: Subjects,
    counters: Counters,
    newSharedChunk: () => Chunk,
    finish: (chunk: Chunk) => void,
  ) {
    this.#outbox = outbox
    this.#subjects = subjects
    this.#counters = counters
    this.#newSharedChunk = newSharedChunk
    this.#finish = finish
    outbox.gather(this)
  }

  /** Results gathered and not given to the outbox. */
  get results(): number {
    return this.#results
  }

  /** Bytes gathered and not given to the outbox, as they go over the wire. */
  get bytes(): number {
    return this.#end - this.#from
  }

  /** Sends datagrams `from` up to `to`, exclusive, one message each; counts those the server would refuse as oversize. */
  forward(batch: Batch, from: number, to: number): void {
    const { slab } = batch
    const { perPort } = this.#subjects
    const { maxPayload } = this.#outbox
    let head = this.#subjects.forPort(perPort && from < to ? batch.dstPort(from) : 0)
    for (let i = from; i < to; i++) {
      const size = batch.size(i)
      if (size > maxPayload) {
        this.#counters.add('droppedOversize', 1)
        continue
      }
      if (perPort) head = this.#subjects.forPort(batch.dstPort(i))
      const chunk = this.#reserve(head, size)
      const offset = batch.offset(i)
      // V8 copies long payloads out of shared memory eight bytes at a time when both sides have the same alignment.
      const align = size > WORD_COPY_MAX ? (slab.byteOffset + offset) & 7 : -1
      const at = writeLine(chunk, this.#end, head, size, align)
      copyPayload(chunk, at, slab, offset, size)
      this.#add(chunk, at, size)
    }
  }

  /** Sends a copy of `payload`, which is no larger than the server's max_payload. */
  publish(payload: Uint8Array, head: Head): void {
    const chunk = this.#reserve(head, payload.length)
    const at = writeLine(chunk, this.#end, head, payload.length, -1)
    chunk.bytes.set(payload, at)
    this.#add(chunk, at, payload.length)
  }

  close(): void {
    if (this.#results === 0) return
    const results = this.#results
    const extent = {
      chunk: this.#shared!,
      from: this.#from,
      to: this.#end,
      messages: results,
      results,
      messageBytes: this.#messageBytes,
      largest: this.#largest,
    }
    this.#forget()
    this.#outbox.send(extent)
  }

  /** Discards what is gathered and returns the number of results that were in it. */
  discard(): number {
    const results = this.#results
    this.#forget()
    return results
  }

  #forget(): void {
    this.#from = this.#end
    this.#results = 0
    this.#messageBytes = 0
    this.#largest = 0
  }

  /** The chunk for the next message: its frame fits at `#end`. */
  #reserve(head: Head, size: number): Chunk {
    const need = frameBytes(head, size, 7)
    const shared = this.#shared
    if (shared !== undefined && this.#end + need <= shared.bytes.length) return shared
    this.close()
    if (shared !== undefined) this.#finish(shared)
    const chunk = need > SHARED_CHUNK_BYTES / 2 ? newChunk(need) : this.#newSharedChunk()
    this.#shared = chunk
    this.#from = 0
    this.#end = 0
    return chunk
  }

  /** Records a message of `size` bytes at `at`. */
  #add(chunk: Chunk, at: number, size: number): void {
    this.#end = writeTail(chunk, at + size)
    this.#results++
    this.#messageBytes += size
    if (size > this.#largest) this.#largest = size
    if (this.#end - this.#from >= WRITE_BYTES) this.close()
    if (this.#scheduled) return
    // Also when the extent is closed already: nothing else may ask the server to confirm it.
    this.#scheduled = true
    process.nextTick(() => {
      this.#scheduled = false
      this.#outbox.flush()
    })
  }
}
