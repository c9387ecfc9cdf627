import { Packr } from 'msgpackr'
import { type Chunk, newChunk } from './chunk.js'
import { ARRAY16_HEAD_BYTES, ARRAY16_MAX_COUNT, writeArray16Head } from './msgpack.js'

// msgpackr's record extension stays off, so that every msgpack library can read what a handler emits.
const packr = new Packr({ useRecords: false })

/**
 * Encodes any value as msgpack. The bytes are valid until the next call.
 *
 * @throws what msgpackr throws for a value that it cannot encode.
 */
export function packValue(value: unknown): Uint8Array {
  return packr.pack(value)
}

/** Length in bytes of a message that holds only one value, whose encoding has `packedBytes` bytes. */
export function singleValueBytes(packedBytes: number): number {
  return ARRAY16_HEAD_BYTES + packedBytes
}

/** An envelope of values that a handler emitted: one msgpack array. */
export class ValuesEnvelope {
  /** Values in the message so far. */
  count = 0
  /** Length in bytes that the message would have if it were sealed now. */
  bytes = ARRAY16_HEAD_BYTES
  #chunk: Chunk = newChunk(ARRAY16_HEAD_BYTES)
  #limit = 0
  /** Position in the chunk where the message begins. */
  #origin = 0

  /** Begins a message of at most `limit` bytes, `origin` bytes behind the beginning of `chunk`. */
  start(chunk: Chunk, limit: number, origin = 0): void {
    this.#chunk = chunk
    this.#limit = limit
    this.#origin = origin
    this.count = 0
    this.bytes = ARRAY16_HEAD_BYTES
  }

  /** Adds one encoded value. Returns false, and changes nothing, when it does not fit. */
  add(packed: Uint8Array): boolean {
    if (this.bytes + packed.length > this.#limit || this.count === ARRAY16_MAX_COUNT) return false
    this.#chunk.bytes.set(packed, this.#origin + this.bytes)
    this.bytes += packed.length
    this.count++
    return true
  }

  /** Finishes the message and returns it as a view of the chunk. The envelope is then empty and has no chunk. */
  seal(): Uint8Array {
    const { view, bytes } = this.#chunk
    const origin = this.#origin
    writeArray16Head(view, origin, this.count)
    const message = bytes.subarray(origin, origin + this.bytes)
    this.count = 0
    this.bytes = ARRAY16_HEAD_BYTES
    return message
  }
}
