import type { Chunk } from './chunk.js'

/** Longest copy done word by word: below it a loop beats building a subarray for `set`. Measured, see bench/formats.ts. */
const LOOP = 160

let lastSlab: Uint8Array | undefined
let lastView: DataView
const views = new WeakMap<Uint8Array, DataView>()

/** The DataView over a lane's slab, made once per lane. */
export function slabView(slab: Uint8Array): DataView {
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

/** Copies `length` payload bytes from the slab into a chunk. */
export function copyPayload(
  target: Chunk,
  at: number,
  slab: Uint8Array,
  offset: number,
  length: number,
): void {
  if (length > LOOP) {
    target.bytes.set(slab.subarray(offset, offset + length), at)
    return
  }
  const to = target.view
  const from = slabView(slab)
  let i = 0
  for (; i + 4 <= length; i += 4) to.setUint32(at + i, from.getUint32(offset + i, true), true)
  for (; i < length; i++) to.setUint8(at + i, from.getUint8(offset + i))
}
