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
import { AddressCache } from './address-cache.js'
import { type Chunk, newChunk } from './chunk.js'
import { copyPayload } from './copy.js'
import type { Envelope } from './envelope.js'
import { ARRAY16_HEAD_BYTES, ARRAY16_MAX_COUNT, BIN8, BIN16, fixstr, writeArray16Head } from './msgpack.js'

/**
 * Bytes of `{ t: float64, sport: uint16, dport: uint16, rule: uint16`, the part of a record in which every byte has a
 * fixed place: the map's head, then each key with its head followed by each number with its head.
 */
const FIXED_BYTES = 1 + 2 + 9 + 6 + 3 + 6 + 3 + 5 + 3
/** The keys around the source address, which together with it come from the address cache as one run of bytes. */
const SRC_KEY = fixstr('src')
const PAYLOAD_KEY = fixstr('payload')
/** Upper bound of a record without its payload: a whole entry of the address cache (64 bytes), and a bin 16 head. */
const MAX_OVERHEAD = FIXED_BYTES + 64 + 3

// The constant bytes of the fixed part as big-endian words, each named for the text it begins.
const MAP_T = 0x86a174cb // fixmap of 6, "t", float 64
const SPORT = 0xa573706f // fixstr of 5, "spo"
const DPORT = 0xa564706f // fixstr of 5, "dpo"
const RULE = 0xa472756c // fixstr of 4, "rul"
const RT_UINT16 = 0x7274cd00 // "rt", uint 16; the last byte is overwritten by the port
const E_UINT16 = 0x65cd // "e", uint 16

/** An array of records, each a plain msgpack map that any msgpack library reads. docs/formats.md has the layout. */
export class RecordsEnvelope implements Envelope {
  count = 0
  bytes = ARRAY16_HEAD_BYTES
  readonly #addresses: AddressCache
  #chunk: Chunk = newChunk(ARRAY16_HEAD_BYTES)
  #limit = 0
  /** Position in the chunk where the message begins. */
  #origin = 0

  /** @param addresses cache from {@link RecordsEnvelope.addresses}, shared by all envelopes of a publisher. */
  constructor(addresses: AddressCache) {
    this.#addresses = addresses
  }

  /** Makes the cache of encoded source addresses that the constructor needs. */
  static addresses(): AddressCache {
    return new AddressCache(SRC_KEY, PAYLOAD_KEY)
  }

  start(chunk: Chunk, limit: number, origin = 0): void {
    this.#chunk = chunk
    this.#limit = limit
    this.#origin = origin
    this.count = 0
    this.bytes = ARRAY16_HEAD_BYTES
  }

  singleBytes(batch: Batch, i: number): number {
    return ARRAY16_HEAD_BYTES + MAX_OVERHEAD + batch.size(i)
  }

  add(batch: Batch, from: number, to: number): number {
    const words = descriptorWords(batch.descriptors)
    const { slab } = batch
    const chunk = this.#chunk
    const { view } = chunk
    const addresses = this.#addresses
    const limit = this.#origin + this.#limit
    const entries = addresses.words
    let at = this.#origin + this.bytes
    let w = (batch.base >>> 2) + from * WORDS
    const last = Math.min(to, from + ARRAY16_MAX_COUNT - this.count)
    let i = from
    for (; i < last; i++, w += WORDS) {
      const size = words[w + W_LENGTH]! & 0xffff
      if (at + MAX_OVERHEAD + size > limit) break
      const ports = words[w + W_PORTS]!
      view.setUint32(at, MAP_T)
      view.setFloat64(at + 4, words[w + W_SECONDS]! * 1e6 + words[w + W_NANOS]! / 1e3)
      view.setUint32(at + 12, SPORT)
      view.setUint32(at + 16, RT_UINT16)
      view.setUint16(at + 19, ports & 0xffff)
      view.setUint32(at + 21, DPORT)
      view.setUint32(at + 25, RT_UINT16)
      view.setUint16(at + 28, ports >>> 16)
      view.setUint32(at + 30, RULE)
      view.setUint16(at + 34, E_UINT16)
      view.setUint16(at + 36, words[w + W_RULE]! & 0xffff)
      at += FIXED_BYTES
      const slot = addresses.slot(words, w + W_SRC)
      const entryBytes = addresses.lengths[slot]!
      // The entry is copied in whole words; what the last word writes beyond it is overwritten by what follows.
      for (let k = 0, e = slot * 16; k < entryBytes; k += 4, e++) view.setUint32(at + k, entries[e]!, true)
      at += entryBytes
      if (size < 256) {
        view.setUint16(at, (BIN8 << 8) | size)
        at += 2
      } else {
        view.setUint8(at, BIN16)
        view.setUint16(at + 1, size)
        at += 3
      }
      copyPayload(chunk, at, slab, words[w + W_OFFSET]!, size)
      at += size
    }
    this.count += i - from
    this.bytes = at - this.#origin
    return i
  }

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
