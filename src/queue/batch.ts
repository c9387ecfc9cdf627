import { LAYOUT } from '../generated/layout.js'
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

/** Bits of {@link Batch.flags}. */
export const DatagramFlag = {
  /** The kernel stamped the datagram; without it the time is that of the receive pass. */
  kernelTime: 1,
  /** It came by the guard socket: reassembled fragments, IP options, extension headers, another interface. */
  slowPath: 2,
  /** It was part of a GRO or GSO super-packet. */
  split: 4,
} as const

/**
 * The datagrams a handler gets: one reused object, no object per datagram. Index `i` runs from 0 to `length - 1`; an
 * index outside throws a RangeError or reads another datagram's descriptor, so stay inside.
 *
 * Everything it returns by reference is valid until the handler returns or its promise settles.
 */
export class Batch {
  /** Number of datagrams. */
  length = 0
  /** Queue this worker serves. */
  readonly queue: number
  readonly #names: RuleNames
  #lane!: Lane
  #base = 0

  /** @internal */
  constructor(queue: number, names = new RuleNames([])) {
    this.queue = queue
    this.#names = names
  }

  /** @internal Points the flyweight at `count` descriptors from `slot` on; they do not cross the ring's end. */
  point(lane: Lane, slot: number, count: number): void {
    this.#lane = lane
    this.#base = slot * SIZE
    this.length = count
  }

  /** @internal For formats: the lane's descriptors, and the byte offset of datagram 0's. */
  get descriptors(): DataView {
    return this.#lane.descriptors
  }

  /** @internal */
  get base(): number {
    return this.#base
  }

  /** @internal For formats: the lane's payload slab; datagram i's bytes are at `offset(i)`, `size(i)` long. */
  get slab(): Uint8Array {
    return this.#lane.payloads
  }

  /** Byte offset of the payload in {@link slab}. Payloads that arrived one after the other lie one after the other,
   * without gaps, except where the slab wraps. */
  offset(i: number): number {
    return this.#lane.descriptors.getUint32(this.#base + i * SIZE + OFFSET, true)
  }

  /** Payload length in bytes, 0..65,527. */
  size(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + LENGTH, true)
  }

  /** The payload as a view: no copy, about 25-50 ns, valid until the handler is done. */
  payload(i: number): Buffer {
    const { payloads } = this.#lane
    return Buffer.from(payloads.buffer, payloads.byteOffset + this.offset(i), this.size(i))
  }

  /** The payload as a copy of its own, to keep. */
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

  /** Unsigned byte at `off`. @throws RangeError beyond the payload, as for every reader here. */
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

  /** Unsigned 64-bit, network order. A BigInt costs 20 times a number: prefer two u32 on a hot path. */
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

  /** Source address as text: dotted for IPv4, RFC 5952 for IPv6. Builds a string; compare bytes on a hot path. */
  srcAddress(i: number): string {
    return addressText(this.#lane.descriptors, this.#base + i * SIZE + SRC)
  }

  /** Destination address as text; `::` where the backend could not know it. */
  dstAddress(i: number): string {
    return addressText(this.#lane.descriptors, this.#base + i * SIZE + DST)
  }

  /** Source address as a number when it is IPv4, else -1. */
  srcIPv4(i: number): number {
    return ipv4(this.#lane.descriptors, this.#base + i * SIZE + SRC)
  }

  /** Index of the rule that chose this queue, in the order of the rules that were in force when it did. */
  rule(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + RULE, true)
  }

  /**
   * Name of the rule that chose this queue, also when the rules have been reloaded since. `?` for a datagram that waited
   * in its queue through more than 64 reloads, or fewer of large sets (65,536 names are kept).
   */
  ruleName(i: number): string {
    const d = this.#base + i * SIZE
    const { descriptors } = this.#lane
    return this.#names.name(
      descriptors.getUint16(d + GENERATION, true),
      descriptors.getUint16(d + RULE, true),
    )
  }

  /** The 32-bit key the rule reduced or hashed; 0 where its action has none. */
  key(i: number): number {
    return this.#lane.descriptors.getUint32(this.#base + i * SIZE + KEY, true)
  }

  /** rx queue of the interface, or index of the ring member or socket. */
  rxQueue(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + RX_QUEUE, true)
  }

  /** See {@link DatagramFlag}. */
  flags(i: number): number {
    return this.#lane.descriptors.getUint16(this.#base + i * SIZE + FLAGS, true)
  }

  /** Arrival, microseconds since the epoch with a fraction (a double holds them to 0.25 µs until 2100). */
  receivedAt(i: number): number {
    const d = this.#base + i * SIZE
    const { descriptors } = this.#lane
    return descriptors.getUint32(d + SECONDS, true) * 1e6 + descriptors.getUint32(d + NANOS, true) / 1e3
  }

  /** The indices, for `for (const i of batch)`; a plain counting loop is faster. */
  *[Symbol.iterator](): IterableIterator<number> {
    for (let i = 0; i < this.length; i++) yield i
  }
}

function ipv4(view: DataView, at: number): number {
  const mapped = view.getUint32(at) === 0 && view.getUint32(at + 4) === 0 && view.getUint32(at + 8) === 0xffff
  return mapped ? view.getUint32(at + 12) : -1
}

/** Text of a 16-byte address at `at`; IPv4-mapped ones are dotted, others RFC 5952. */
export function addressText(view: DataView, at: number): string {
  const v4 = ipv4(view, at)
  if (v4 >= 0) return `${v4 >>> 24}.${(v4 >>> 16) & 255}.${(v4 >>> 8) & 255}.${v4 & 255}`
  const groups = Array.from({ length: 8 }, (_, g) => view.getUint16(at + 2 * g))
  // RFC 5952 §4.2: the longest run of two or more zero groups, the first of equals, becomes '::'.
  let best = { start: 0, length: 0 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const hex = (part: number[]) => part.map((g) => g.toString(16)).join(':')
  if (best.length < 2) return hex(groups)
  return `${hex(groups.slice(0, best.start))}::${hex(groups.slice(best.start + best.length))}`
}
