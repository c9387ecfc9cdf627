import type { LaneLayout, QueueLayout } from '../generated/contract.js'
import { LAYOUT } from '../generated/layout.js'

export type { LaneLayout as LanePlan, QueueLayout as QueuePlan } from '../generated/contract.js'

/**
 * Consumer's side of a lane: the ring between one receive thread and this queue. Indices run freely and wrap at 2^32;
 * `index & mask` is the slot.
 */
export class Lane {
  readonly mask: number
  readonly slots: number
  readonly descriptors: DataView
  readonly payloads: Uint8Array
  readonly payloadView: DataView
  readonly #head: number
  readonly #tail: number
  readonly #words: Int32Array
  #next: number

  constructor(memory: SharedArrayBuffer, plan: LaneLayout) {
    this.slots = plan.slots
    this.mask = plan.slots - 1
    this.descriptors = new DataView(memory, plan.descriptorsOffset, plan.slots * LAYOUT.descriptorBytes)
    this.payloads = new Uint8Array(memory, plan.payloadOffset, plan.payloadBytes)
    this.payloadView = new DataView(memory, plan.payloadOffset, plan.payloadBytes)
    this.#words = new Int32Array(memory, plan.controlOffset, LAYOUT.laneControlBytes / 4)
    this.#head = LAYOUT.headOffset / 4
    this.#tail = LAYOUT.tailOffset / 4
    this.#next = Atomics.load(this.#words, this.#tail) >>> 0
  }

  /** Index of the oldest datagram not yet released, as a signed 32-bit word. */
  get next(): number {
    return this.#next | 0
  }

  /** Slot of the oldest datagram not yet released. */
  get first(): number {
    return this.#next & this.mask
  }

  /** Datagrams ready from {@link first} on without crossing the end of the descriptor ring, at most `limit`. */
  ready(limit: number): number {
    const pending = ((Atomics.load(this.#words, this.#head) >>> 0) - this.#next) >>> 0
    const toEnd = this.slots - (this.#next & this.mask)
    return Math.min(pending, toEnd, limit)
  }

  /** Gives the `count` oldest datagrams' room back to the receive thread; they must not be read afterwards. */
  release(count: number): void {
    this.#next = (this.#next + count) >>> 0
    Atomics.store(this.#words, this.#tail, this.#next | 0)
  }
}

/** The control words of a queue: armed flag, heartbeat, lease; see crates/millrace-core/src/lane/layout.rs. */
export function queueControl(memory: SharedArrayBuffer, plan: QueueLayout): Int32Array {
  return new Int32Array(memory, plan.controlOffset, LAYOUT.queueControlBytes / 4)
}
