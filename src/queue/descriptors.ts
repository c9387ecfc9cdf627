import { LAYOUT } from '../generated/layout.js'

/**
 * A lane's descriptors as 32-bit words. One aligned typed-array load per word is cheaper than the DataView's field by
 * field, and two 16-bit fields come with one load. Little-endian machines only, as every Node platform for Linux that
 * we build for (x64, arm64) is.
 */
export const WORDS = LAYOUT.descriptorBytes / 4
/** Word that holds the payload offset. */
export const W_OFFSET = LAYOUT.payloadOffset / 4
/** Word that holds the length (low half) and flags (high half). */
export const W_LENGTH = LAYOUT.length / 4
export const W_SECONDS = LAYOUT.seconds / 4
export const W_NANOS = LAYOUT.nanoseconds / 4
/** First of the four words of the source address, bytes in network order. */
export const W_SRC = LAYOUT.srcAddress / 4
/** Word that holds the source port (low half) and destination port (high half). */
export const W_PORTS = LAYOUT.srcPort / 4
/** Word that holds the rule (low half) and rx queue (high half). */
export const W_RULE = LAYOUT.rule / 4
/** Third word of an IPv4-mapped address: bytes 00 00 ff ff read little-endian. */
export const V4_MARK = 0xffff0000

let lastView: DataView | undefined
let lastWords: Uint32Array
const cache = new WeakMap<DataView, Uint32Array>()

/** The words of a lane's descriptors, made once per lane. */
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
