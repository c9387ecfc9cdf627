import { Packr } from 'msgpackr'
import { type Chunk, newChunk } from './chunk.js'

const HEAD = 3
const MAX_COUNT = 0xffff

// Plain maps, no record extension: what a handler emits is to be readable by every msgpack library.
const packr = new Packr({ useRecords: false })

/** msgpack bytes of any value; valid until the next call. @throws what msgpackr throws for a value it cannot pack. */
export function packValue(value: unknown): Uint8Array {
  return packr.pack(value)
}

/** Bytes of an envelope that holds one value of `size` bytes. */
export function aloneBytes(size: number): number {
  return HEAD + size
}

/** Array of the values a handler emitted. */
export class ValuesEnvelope {
  count = 0
  bytes = HEAD
  #chunk: Chunk = newChunk(HEAD)
  #limit = 0

  start(chunk: Chunk, limit: number): void {
    this.#chunk = chunk
    this.#limit = limit
    this.count = 0
    this.bytes = HEAD
  }

  /** Adds one packed value; false when it does not fit. */
  add(packed: Uint8Array): boolean {
    if (this.bytes + packed.length > this.#limit || this.count === MAX_COUNT) return false
    this.#chunk.bytes.set(packed, this.bytes)
    this.bytes += packed.length
    this.count++
    return true
  }

  seal(): Uint8Array {
    const { view, bytes } = this.#chunk
    view.setUint8(0, 0xdc)
    view.setUint16(1, this.count)
    const message = bytes.subarray(0, this.bytes)
    this.count = 0
    this.bytes = HEAD
    return message
  }
}
