import type { Chunk } from './chunk.js'

/**
 * Longest payload, in bytes, that is copied word by word. Below it a loop costs less than the subarray that `set` needs.
 * Too low: short payloads pay for that subarray. Too high: long payloads are copied slower than `set` copies them.
 * bench/formats.ts measures it.
 */
export const WORD_COPY_MAX = 160

let lastSlab: Uint8Array | undefined
let lastView: DataView
const views = new WeakMap<Uint8Array, DataView>()

/** Returns the DataView over a lane's slab. It is made once for each lane. */
function slabView(slab: Uint8Array): DataView {
  if (slab === lastSlab) return lastView
  let view = views.get(slab)
  if (view === undefined) {
    view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength)
    views.set(slab, view)
  }
  lastSlab = slab
  lastView = view
  return view
}

/** Copies `length` payload bytes from `offset` in a lane's slab to `at` in a chunk. */
export function copyPayload(
  target: Chunk,
  at: number,
  slab: Uint8Array,
  offset: number,
  length: number,
): void {
  if (length > WORD_COPY_MAX) {
    target.bytes.set(slab.subarray(offset, offset + length), at)
    return
  }
  const to = target.view
  const from = slabView(slab)
  let i = 0
  for (; i + 4 <= length; i += 4) to.setUint32(at + i, from.getUint32(offset + i, true), true)
  for (; i < length; i++) to.setUint8(at + i, from.getUint8(offset + i))
}
