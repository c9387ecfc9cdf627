import { LAYOUT } from '../generated/layout.js'

/**
 * Words of one descriptor. Formats read a lane's descriptors as 32-bit words: one aligned load of a typed array is cheaper
 * than a DataView's read of each field, and brings two 16-bit fields. A typed array has the machine's byte order, and
 * descriptors are little-endian, as are x64 and arm64, for which Millrace is built.
 */
export const WORDS = LAYOUT.descriptorBytes / 4
/** Index of the word with the payload's offset in the slab. */
export const W_OFFSET = LAYOUT.payloadOffset / 4
/** Index of the word with the length (low half) and the flags (high half). */
export const W_LENGTH = LAYOUT.length / 4
/** Index of the word with the seconds of the time of arrival. */
export const W_SECONDS = LAYOUT.seconds / 4
/** Index of the word with its nanoseconds. */
export const W_NANOS = LAYOUT.nanoseconds / 4
/** Index of the first of the four words of the source address, whose bytes are in network order. */
export const W_SRC = LAYOUT.srcAddress / 4
/** Index of the word with the source port (low half) and the destination port (high half). */
export const W_PORTS = LAYOUT.srcPort / 4
/** Index of the word with the rule (low half) and the rx queue (high half). */
export const W_RULE = LAYOUT.rule / 4
/** Value of the third word of an IPv4-mapped address: its bytes 00 00 ff ff, read little-endian. */
export const V4_MARK = 0xffff0000

let lastView: DataView | undefined
let lastWords: Uint32Array
const cache = new WeakMap<DataView, Uint32Array>()

/** The words of a lane's descriptors; the array is made once for each lane. */
export function descriptorWords(view: DataView): Uint32Array {
  if (view === lastView) return lastWords
  let words = cache.get(view)
  if (words === undefined) {
    words = new Uint32Array(view.buffer, view.byteOffset, view.byteLength >>> 2)
    cache.set(view, words)
  }
  lastView = view
  lastWords = words
  return words
}
