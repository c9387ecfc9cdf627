import { AddressCache } from '../queue/address.js'
import type { Batch } from '../queue/batch.js'
import {
  descriptorWords,
  W_LENGTH,
  W_NANOS,
  W_OFFSET,
  W_PORTS,
  W_RULE,
  W_SECONDS,
  W_SRC,
  WORDS,
} from '../queue/descriptors.js'
import { type Chunk, newChunk } from './chunk.js'
import { copyPayload } from './copy.js'
import type { Envelope } from './envelope.js'

/** array16 and its count. */
const HEAD = 3
const MAX_COUNT = 0xffff
/** `{ t: f64, sport: u16, dport: u16, rule: u16`, whose bytes have fixed places, then `src: …, payload: …}`. */
const FIXED = 1 + 2 + 9 + 6 + 3 + 6 + 3 + 5 + 3
const SRC = Uint8Array.of(0xa3, ...Buffer.from('src'))
const PAYLOAD = Uint8Array.of(0xa7, ...Buffer.from('payload'))
/** Bytes of the longest record without its payload: the whole of a cache entry, and a bin16 head. */
const MAX_OVERHEAD = FIXED + 64 + 3

// The words of the fixed part's constant bytes, network order.
const W0 = 0x86a174cb // fixmap 6, "t", float64
const SPORT0 = 0xa573706f // fixstr 5, "spo"
const DPORT0 = 0xa564706f // fixstr 5, "dpo"
const RULE0 = 0xa472756c // fixstr 4, "rul"

/** Array of records, each a plain msgpack map: any msgpack library in any language reads it. See docs/formats.md. */
export class RecordsEnvelope implements Envelope {
  count = 0
  payloadBytes = 0
  bytes = HEAD
  readonly #addresses: AddressCache
  #chunk: Chunk = newChunk(HEAD)
  #limit = 0

  /** @param addresses shared by all envelopes of a publisher; from {@link RecordsEnvelope.addresses}. */
  constructor(addresses: AddressCache) {
    this.#addresses = addresses
  }

  static addresses(): AddressCache {
    return new AddressCache(SRC, PAYLOAD)
  }

  start(chunk: Chunk, limit: number): void {
    this.#chunk = chunk
    this.#limit = limit
    this.count = 0
    this.payloadBytes = 0
    this.bytes = HEAD
  }

  alone(batch: Batch, i: number): number {
    return HEAD + MAX_OVERHEAD + batch.size(i)
  }

  add(batch: Batch, from: number, to: number): number {
    const words = descriptorWords(batch.descriptors)
    const { slab } = batch
    const chunk = this.#chunk
    const { view } = chunk
    const addresses = this.#addresses
    const limit = this.#limit
    const entries = addresses.words
    let at = this.bytes
    let payloadBytes = this.payloadBytes
    let w = (batch.base >>> 2) + from * WORDS
    const last = Math.min(to, from + MAX_COUNT - this.count)
    let i = from
    for (; i < last; i++, w += WORDS) {
      const size = words[w + W_LENGTH]! & 0xffff
      if (at + MAX_OVERHEAD + size > limit) break
      const ports = words[w + W_PORTS]!
      view.setUint32(at, W0)
      view.setFloat64(at + 4, words[w + W_SECONDS]! * 1e6 + words[w + W_NANOS]! / 1e3)
      view.setUint32(at + 12, SPORT0)
      view.setUint32(at + 16, 0x7274cd00) // "rt", uint16
      view.setUint16(at + 19, ports & 0xffff)
      view.setUint32(at + 21, DPORT0)
      view.setUint32(at + 25, 0x7274cd00)
      view.setUint16(at + 28, ports >>> 16)
      view.setUint32(at + 30, RULE0)
      view.setUint16(at + 34, 0x65cd) // "e", uint16
      view.setUint16(at + 36, words[w + W_RULE]! & 0xffff)
      at += FIXED
      const slot = addresses.slot(words, w + W_SRC)
      const entryBytes = addresses.lengths[slot]!
      // Whole words: what the last one writes too much is overwritten by what follows.
      for (let k = 0, e = slot * 16; k < entryBytes; k += 4, e++) view.setUint32(at + k, entries[e]!, true)
      at += entryBytes
      if (size < 256) {
        view.setUint16(at, 0xc400 | size)
        at += 2
      } else {
        view.setUint8(at, 0xc5)
        view.setUint16(at + 1, size)
        at += 3
      }
      copyPayload(chunk, at, slab, words[w + W_OFFSET]!, size)
      at += size
      payloadBytes += size
    }
    this.count += i - from
    this.payloadBytes = payloadBytes
    this.bytes = at
    return i
  }

  seal(): Uint8Array {
    const { view, bytes } = this.#chunk
    view.setUint8(0, 0xdc)
    view.setUint16(1, this.count)
    const message = bytes.subarray(0, this.bytes)
    this.count = 0
    this.payloadBytes = 0
    this.bytes = HEAD
    return message
  }
}
