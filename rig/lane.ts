import { LAYOUT } from '../src/generated/layout.js'
import { Batch } from '../src/queue/batch.js'
import { Lane, type LaneLayout, type QueueLayout } from '../src/queue/lane.js'

/** A datagram to put into a lane. */
export interface Put {
  payload: Uint8Array
  /** 16 bytes, or 4 for IPv4. Default 10.0.0.1. */
  src?: readonly number[]
  sport?: number
  dport?: number
  rule?: number
  /** Of the rules. */
  generation?: number
  seconds?: number
  nanos?: number
}

/** One lane in memory of its own, written the way the receive thread in Rust does it. */
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
   * @param start slab position of the first payload, to have a wrap where a test wants one.
   * @param place memory and layout of a queue this lane belongs to; default: memory of its own.
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
  }: Put): void {
    const plan = this.#plan
    // A payload never wraps: what does not fit before the slab's end begins at its start.
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

  /** The batch of all datagrams put and not yet released. */
  take(limit = Number.POSITIVE_INFINITY): Batch {
    this.batch.point(this.lane, this.lane.firstSlot, this.lane.ready(limit))
    return this.batch
  }

  /** Gives the batch's room back, and overwrites its payloads, so that a reader that kept a reference shows. */
  release(): void {
    for (let i = 0; i < this.batch.length; i++) this.batch.payload(i).fill(0xdd)
    this.lane.release(this.batch.length)
    this.batch.length = 0
  }
}

/** A whole queue, laid out as Rust does it, with `count` lanes of 1,024 slots and 64 KiB. */
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
  /** Consumers as a restarted worker makes them: from what the memory says. */
  const fresh = () => plan.lanes.map((lane) => new Lane(memory, lane))
  return { memory, plan, lanes, fresh }
}
