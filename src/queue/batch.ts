import { LAYOUT } from '../generated/layout.js'
import { addressText, ipv4Number } from './address-text.js'
import type { Lane } from './lane.js'
import { RuleNames } from './rule-names.js'

const {
  descriptorBytes: SIZE,
  payloadOffset: OFFSET,
  length: LENGTH,
  flags: FLAGS,
  seconds: SECONDS,
  nanoseconds: NANOS,
  srcAddress: SRC,
  dstAddress: DST,
  srcPort: SRC_PORT,
  dstPort: DST_PORT,
  rule: RULE,
  rxQueue: RX_QUEUE,
  key: KEY,
  generation: GENERATION,
} = LAYOUT

/** Bits of {@link Batch.flags}; `flags` in crates/millrace-core/src/datagram.rs. */
export const DatagramFlag = {
  /** The kernel stamped the datagram; without it the time is that of the receive pass. */
  kernelTime: 1,
  /** It came by the guard socket: reassembled fragments, IP options, extension headers, an unbound rx queue, another interface. */
  slowPath: 2,
  /** It was part of a GRO or GSO super-packet, which Millrace split. */
  split: 4,
} as const

/**
 * The datagrams that a handler gets. There is one batch object for each worker, reused, and no object for a datagram. Index
 * `i` runs from 0 to `length - 1`; an index outside throws a RangeError or reads another datagram's descriptor.
 *
 * Every view that a method returns is valid until the handler returns or its promise settles.
 */
export class Batch {
  /** Number of datagrams; 0 after the handler is done. */
  length = 0
  /** Number of the queue, from 0. */
  readonly queue: number
  readonly #names: RuleNames
  #lane!: Lane
  #base = 0

  /** @internal */
  constructor(queue: number, names = new RuleNames([])) {
    this.queue = queue
    this.#names = names
  }

  /** @internal Makes this the batch of `count` descriptors from `slot` on, which do not cross the end of the ring. */
  point(lane: Lane, slot: number, count: number): void {
    this.#lane = lane
    this.#base = slot * SIZE
    this.length = count
  }

  /** @internal For formats: the lane's descriptors. */
  get descriptors(): DataView {
    return this.#lane.descriptors
  }

  /** @internal For formats: byte offset in {@link descriptors} of the descriptor of datagram 0. */
  get base(): number {
    return this.#base
  }

  /** @internal For formats: the lane's payload slab. Payload `i` begins at `offset(i)` and has `size(i)` bytes. */
  get slab(): Uint8Array {
    return this.#lane.payloads
  }

  /**
   * Byte offset of the payload in {@link slab}. Payloads that arrived one after the other lie one after the other, without
   * gaps, except where the slab wraps.
   */
  offset(i: number): number {
    return this.#lane.descriptors.getUint32(this.#base + i * SIZE + OFFSET, true)
  }

  /** Payload length in bytes, 0..65,527. */
  size(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + LENGTH, true)
  }

  /** The payload as a view of the lane, made without a copy in about 25-50 ns; valid until the handler is done. */
  payload(i: number): Buffer {
    const { payloads } = this.#lane
    return Buffer.from(payloads.buffer, payloads.byteOffset + this.offset(i), this.size(i))
  }

  /** A copy of the payload, which the handler may keep. */
  copy(i: number): Buffer {
    const at = this.offset(i)
    return Buffer.from(this.#lane.payloads.subarray(at, at + this.size(i)))
  }

  #at(i: number, off: number, width: number): number {
    const d = this.#base + i * SIZE
    const { descriptors } = this.#lane
    if (off < 0 || off + width > descriptors.getUint16(d + LENGTH, true)) throw this.#outside(i, off, width)
    return descriptors.getUint32(d + OFFSET, true) + off
  }

  #outside(i: number, off: number, width: number): RangeError {
    const error = new RangeError(
      `MILLRACE_E_RANGE: ${width} byte(s) at offset ${off} of datagram ${i}, which has ${this.size(i)}`,
    )
    return Object.assign(error, { code: 'MILLRACE_E_RANGE' })
  }

  /** Unsigned byte at `off`. @throws RangeError `MILLRACE_E_RANGE` beyond the payload; so do all readers down to `f64`. */
  u8(i: number, off: number): number {
    return this.#lane.payloadView.getUint8(this.#at(i, off, 1))
  }

  /** Unsigned 16-bit, network order. */
  u16(i: number, off: number): number {
    return this.#lane.payloadView.getUint16(this.#at(i, off, 2))
  }

  /** Unsigned 32-bit, network order. */
  u32(i: number, off: number): number {
    return this.#lane.payloadView.getUint32(this.#at(i, off, 4))
  }

  /** Unsigned 64-bit, network order. A BigInt costs 20 times as much as a number: prefer two `u32` on a hot path. */
  u64(i: number, off: number): bigint {
    return this.#lane.payloadView.getBigUint64(this.#at(i, off, 8))
  }

  /** Unsigned 16-bit, little-endian. */
  u16le(i: number, off: number): number {
    return this.#lane.payloadView.getUint16(this.#at(i, off, 2), true)
  }

  /** Unsigned 32-bit, little-endian. */
  u32le(i: number, off: number): number {
    return this.#lane.payloadView.getUint32(this.#at(i, off, 4), true)
  }

  /** Unsigned 64-bit, little-endian. */
  u64le(i: number, off: number): bigint {
    return this.#lane.payloadView.getBigUint64(this.#at(i, off, 8), true)
  }

  /** IEEE 754 double, network order. */
  f64(i: number, off: number): number {
    return this.#lane.payloadView.getFloat64(this.#at(i, off, 8))
  }

  /** Source port. */
  srcPort(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + SRC_PORT, true)
  }

  /** Destination port. */
  dstPort(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + DST_PORT, true)
  }

  /** Source address as text, dotted for IPv4, RFC 5952 for IPv6. It builds a string: prefer {@link srcIPv4} on a hot path. */
  srcAddress(i: number): string {
    return addressText(this.#lane.descriptors, this.#base + i * SIZE + SRC)
  }

  /** Destination address as text; `::` where the backend cannot know it. */
  dstAddress(i: number): string {
    return addressText(this.#lane.descriptors, this.#base + i * SIZE + DST)
  }

  /** Source address as a number from 0 to 2^32 - 1 when it is IPv4, else -1. */
  srcIPv4(i: number): number {
    return ipv4Number(this.#lane.descriptors, this.#base + i * SIZE + SRC)
  }

  /** Index, from 0, of the rule that chose this queue among the rules in force at that moment. */
  rule(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + RULE, true)
  }

  /**
   * Name of the rule that chose this queue, also when the rules have been reloaded since. It is `?` for a datagram that
   * waited in its queue through 64 reloads, or fewer of large rule sets (65,536 names are kept, and at least two sets).
   */
  ruleName(i: number): string {
    const d = this.#base + i * SIZE
    const { descriptors } = this.#lane
    return this.#names.name(
      descriptors.getUint16(d + GENERATION, true),
      descriptors.getUint16(d + RULE, true),
    )
  }

  /** The 32-bit key that the rule's action reduced or hashed; 0 where the action has no key. */
  key(i: number): number {
    return this.#lane.descriptors.getUint32(this.#base + i * SIZE + KEY, true)
  }

  /** rx queue of the interface (xdp), or index of the ring or socket that the datagram came by. */
  rxQueue(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + RX_QUEUE, true)
  }

  /** A sum of the bits in {@link DatagramFlag}. */
  flags(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + FLAGS, true)
  }

  /**
   * Time of arrival, microseconds since the epoch with a fraction: a double has steps of 0.25 µs there until 2041, and of
   * 0.5 µs until 2112.
   */
  receivedAt(i: number): number {
    const d = this.#base + i * SIZE
    const { descriptors } = this.#lane
    return descriptors.getUint32(d + SECONDS, true) * 1e6 + descriptors.getUint32(d + NANOS, true) / 1e3
  }

  /** The indices, for `for (const i of batch)`. A counting loop is faster. */
  *[Symbol.iterator](): IterableIterator<number> {
    for (let i = 0; i < this.length; i++) yield i
  }
}
