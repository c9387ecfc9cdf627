import type { LaneLayout, QueueLayout } from '../generated/contract.js'
import { LAYOUT } from '../generated/layout.js'

/**
 * The consumer's end of a lane, the ring between one receive thread and one queue. The indices `head` (written by the
 * receive thread) and `tail` (written here) count datagrams and wrap at 2^32; `index & mask` is a slot.
 */
export class Lane {
  readonly mask: number
  /** Descriptors in the ring, a power of two. */
  readonly slots: number
  readonly descriptors: DataView
  readonly payloads: Uint8Array
  readonly payloadView: DataView
  readonly #head: number
  readonly #tail: number
  readonly #words: Int32Array
  /** The tail: index of the oldest datagram not yet released. */
  #next: number

  constructor(memory: SharedArrayBuffer, layout: LaneLayout) {
    this.slots = layout.slots
    this.mask = layout.slots - 1
    this.descriptors = new DataView(memory, layout.descriptorsOffset, layout.slots * LAYOUT.descriptorBytes)
    this.payloads = new Uint8Array(memory, layout.payloadOffset, layout.payloadBytes)
    this.payloadView = new DataView(memory, layout.payloadOffset, layout.payloadBytes)
    this.#words = new Int32Array(memory, layout.controlOffset, LAYOUT.laneControlBytes / 4)
    this.#head = LAYOUT.headOffset / 4
    this.#tail = LAYOUT.tailOffset / 4
    this.#next = Atomics.load(this.#words, this.#tail) >>> 0
  }

  /** The tail, index of the oldest datagram not yet released, as a signed 32-bit word. */
  get next(): number {
    return this.#next | 0
  }

  /** Slot of the oldest datagram not yet released. */
  get firstSlot(): number {
    return this.#next & this.mask
  }

  /** Datagrams ready from {@link firstSlot} on without crossing the end of the descriptor ring, at most `limit`. */
  ready(limit: number): number {
    const pending = ((Atomics.load(this.#words, this.#head) >>> 0) - this.#next) >>> 0
    const toEnd = this.slots - (this.#next & this.mask)
    return Math.min(pending, toEnd, limit)
  }

  /** Gives the memory of the `count` oldest datagrams back to the receive thread; they must not be read afterwards. */
  release(count: number): void {
    this.#next = (this.#next + count) >>> 0
    Atomics.store(this.#words, this.#tail, this.#next | 0)
  }
}

/** The control words of a queue: armed flag, heartbeat and lease; crates/millrace-core/src/lane/layout.rs describes them. */
export function queueControl(memory: SharedArrayBuffer, layout: QueueLayout): Int32Array {
  return new Int32Array(memory, layout.controlOffset, LAYOUT.queueControlBytes / 4)
}
