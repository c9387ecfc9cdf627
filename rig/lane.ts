import type { LaneLayout, QueueLayout } from '../src/generated/contract.js'
import { LAYOUT } from '../src/generated/layout.js'
import { Batch } from '../src/queue/batch.js'
import { Lane } from '../src/queue/lane.js'

/** A datagram to put into a lane. Ports and addresses have defaults. */
export interface DatagramFields {
  payload: Uint8Array
  /** 16 bytes, or 4 for IPv4. Default 10.0.0.1. */
  src?: readonly number[]
  sport?: number
  dport?: number
  rule?: number
  /** Generation of the rules that judged it. Default 1. */
  generation?: number
  /** Arrival: seconds since the epoch, and nanoseconds. */
  seconds?: number
  nanos?: number
}

/** A lane whose producer side is written in TypeScript, as the receive thread does it in Rust. */
export class FakeLane {
  readonly lane: Lane
  readonly batch: Batch
  readonly #plan: LaneLayout
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #words: Int32Array
  #head = 0
  #write: number

  /**
   * @param start position in the slab of the first payload, so that a test can choose where the slab wraps.
   * @param place memory and layout of the queue that the lane belongs to. Default: memory of its own.
   */
  constructor(
    slots = 1024,
    payloadBytes = 1 << 20,
    start = 0,
    place?: { memory: SharedArrayBuffer; plan: LaneLayout },
  ) {
    const own = LAYOUT.laneControlBytes + slots * LAYOUT.descriptorBytes + payloadBytes
    const memory = place?.memory ?? new SharedArrayBuffer(own)
    this.#plan = place?.plan ?? {
      thread: 0,
      controlOffset: 0,
      descriptorsOffset: LAYOUT.laneControlBytes,
      slots,
      payloadOffset: LAYOUT.laneControlBytes + slots * LAYOUT.descriptorBytes,
      payloadBytes,
    }
    this.lane = new Lane(memory, this.#plan)
    this.batch = new Batch(0)
    this.#view = new DataView(memory)
    this.#bytes = new Uint8Array(memory)
    this.#words = new Int32Array(memory)
    this.#write = start
  }

  put({
    payload,
    src = [10, 0, 0, 1],
    sport = 4000,
    dport = 9000,
    rule = 0,
    generation = 1,
    seconds = 1_700_000_000,
    nanos = 0,
  }: DatagramFields): void {
    const plan = this.#plan
    // A payload never wraps: one that does not fit before the slab's end is written to its start.
    if (this.#write + payload.length > plan.payloadBytes) this.#write = 0
    this.#bytes.set(payload, plan.payloadOffset + this.#write)
    const d = plan.descriptorsOffset + (this.#head % plan.slots) * LAYOUT.descriptorBytes
    const view = this.#view
    view.setUint32(d + LAYOUT.payloadOffset, this.#write, true)
    view.setUint16(d + LAYOUT.length, payload.length, true)
    view.setUint32(d + LAYOUT.seconds, seconds, true)
    view.setUint32(d + LAYOUT.nanoseconds, nanos, true)
    const address = src.length === 4 ? [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...src] : src
    this.#bytes.set(address, d + LAYOUT.srcAddress)
    view.setUint16(d + LAYOUT.srcPort, sport, true)
    view.setUint16(d + LAYOUT.dstPort, dport, true)
    view.setUint16(d + LAYOUT.rule, rule, true)
    view.setUint16(d + LAYOUT.generation, generation, true)
    this.#write += payload.length
    this.#head++
    Atomics.store(this.#words, (plan.controlOffset + LAYOUT.headOffset) / 4, this.#head)
  }

  /** Returns the batch of the datagrams that were put and not released, at most `limit`. */
  take(limit = Number.POSITIVE_INFINITY): Batch {
    this.batch.point(this.lane, this.lane.firstSlot, this.lane.ready(limit))
    return this.batch
  }

  /** Releases the batch, and overwrites its payloads first, so that code which kept a reference fails its test. */
  release(): void {
    for (let i = 0; i < this.batch.length; i++) this.batch.payload(i).fill(0xdd)
    this.lane.release(this.batch.length)
    this.batch.length = 0
  }
}

/** A queue laid out as Rust does it, with `count` lanes of 1,024 slots and 64 KiB each. */
export function fakeQueue(count: number) {
  const slots = 1024
  const payloadBytes = 1 << 16
  const ring = slots * LAYOUT.descriptorBytes
  const descriptors = LAYOUT.queueControlBytes + count * LAYOUT.laneControlBytes
  const slabs = descriptors + count * ring
  const plan: QueueLayout = {
    bytes: slabs + count * payloadBytes,
    controlOffset: 0,
    lanes: Array.from({ length: count }, (_, thread) => ({
      thread,
      controlOffset: LAYOUT.queueControlBytes + thread * LAYOUT.laneControlBytes,
      descriptorsOffset: descriptors + thread * ring,
      slots,
      payloadOffset: slabs + thread * payloadBytes,
      payloadBytes,
    })),
  }
  const memory = new SharedArrayBuffer(plan.bytes)
  const lanes = plan.lanes.map((lane) => new FakeLane(slots, payloadBytes, 0, { memory, plan: lane }))
  /** Makes consumers as a restarted worker does, from the indices in the memory. */
  const fresh = () => plan.lanes.map((lane) => new Lane(memory, lane))
  return { memory, plan, lanes, fresh }
}
