/**
 * For consumers: decodes the messages that Millrace publishes in the formats `records` and `columns`. A message in the
 * format `raw` needs no decoding: it is the datagram.
 *
 * @module millrace/decode
 */
import { unpack } from 'msgpackr'
import { addressText, ipv4Number, ipv4Text } from './queue/address-text.js'

/** One datagram of a message. */
export interface Datagram {
  /** A view of the message, valid as long as that is not overwritten. */
  readonly payload: Uint8Array
  /** Source address: dotted for IPv4, RFC 5952 for IPv6. */
  readonly src: string
  readonly sport: number
  readonly dport: number
  /** Index, from 0, of the rule that chose the queue. */
  readonly rule: number
  /** Time of arrival, microseconds since the epoch. */
  readonly t: number
}

/** The map of a columnar envelope, as any msgpack library reads it; docs/formats.md describes the fields. */
interface Columns {
  v: number
  n: number
  node: string
  queue: number
  t0: [number, number]
  data: Uint8Array
  length: Uint8Array
  time: Uint8Array
  src: Uint8Array
  sport: Uint8Array
  dport: Uint8Array
  rule: Uint8Array
}

/** Decodes a message of either format. @throws Error with code MILLRACE_E_FORMAT when it has neither. */
export function decode(message: Uint8Array): Datagram[] {
  if (!isColumns(message)) return records(message)
  const cursor = new ColumnsCursor(message)
  const datagrams: Datagram[] = []
  while (cursor.next()) {
    const { payload, src, sport, dport, rule, t } = cursor
    datagrams.push({ payload, src, sport, dport, rule, t })
  }
  return datagrams
}

/** Number of datagrams, or of emitted values, in a message; it is read from the first bytes where they hold it. */
export function countDatagrams(message: Uint8Array): number {
  const first = message[0]
  if (first === 0xdc && message.length >= 3) return (message[1]! << 8) | message[2]!
  if (first !== undefined && first >>> 4 === 9) return first & 15
  // Millrace writes `n` at a fixed place; a columnar envelope of another writer may have it elsewhere.
  if (message[4] === 0xa1 && message[5] === 0x6e && message[6] === 0xce && message.length >= 11) {
    return ((message[7]! << 24) | (message[8]! << 16) | (message[9]! << 8) | message[10]!) >>> 0
  }
  return new ColumnsCursor(message).length
}

function isColumns(message: Uint8Array): boolean {
  const first = message[0]
  return first !== undefined && (first >>> 4 === 8 || first === 0xde || first === 0xdf)
}

function records(message: Uint8Array): Datagram[] {
  const list: unknown = unpack(message)
  if (!Array.isArray(list)) throw format('neither an array nor a map')
  for (const record of list)
    if (!(record?.payload instanceof Uint8Array)) throw format('an array, but not of records')
  return list
}

function format(what: string): Error {
  return Object.assign(new Error(`MILLRACE_E_FORMAT: the message is ${what}`), { code: 'MILLRACE_E_FORMAT' })
}

/**
 * Walks a columnar envelope without an object per datagram:
 *
 *     const cursor = new ColumnsCursor(message)
 *     while (cursor.next()) sum += cursor.data[cursor.offset]!
 *
 * `reset(message)` begins another message.
 */
export class ColumnsCursor {
  /** Datagrams in the message. */
  length = 0
  node = ''
  queue = 0
  /** All payloads, one after the other. */
  data: Uint8Array = new Uint8Array(0)
  /** Index of the current datagram; -1 before the first `next()`. */
  index = -1
  /** Byte offset of the current payload in {@link data}. */
  offset = 0
  /** Bytes of the current payload. */
  size = 0
  #seconds = 0
  #nanos = 0
  #srcBytes = 4
  #length = EMPTY
  #time = EMPTY
  #src = EMPTY
  #sport = EMPTY
  #dport = EMPTY
  #rule = EMPTY

  constructor(message: Uint8Array) {
    this.reset(message)
  }

  /** Begins a message. @throws Error with code MILLRACE_E_FORMAT when it is no columnar envelope of version 1. */
  reset(message: Uint8Array): void {
    const map = (isColumns(message) ? unpack(message) : {}) as Partial<Columns>
    if (map.v !== 1 || map.n === undefined || map.t0 === undefined)
      throw format('no columnar envelope of version 1')
    const { n } = map
    this.length = n
    this.node = map.node ?? ''
    this.queue = map.queue ?? 0
    ;[this.#seconds, this.#nanos] = map.t0
    this.data = map.data ?? new Uint8Array(0)
    this.#length = column(map.length, n, 2, 'length')
    this.#time = column(map.time, n, 4, 'time')
    this.#srcBytes = map.src?.length === 16 * n ? 16 : 4
    this.#src = column(map.src, n, this.#srcBytes, 'src')
    this.#sport = column(map.sport, n, 2, 'sport')
    this.#dport = column(map.dport, n, 2, 'dport')
    this.#rule = column(map.rule, n, 2, 'rule')
    this.index = -1
    this.offset = 0
    this.size = 0
  }

  /** Moves to the next datagram; false when there is none. */
  next(): boolean {
    if (this.index + 1 >= this.length) return false
    this.index++
    this.offset += this.size
    this.size = this.#length.getUint16(this.index * 2, true)
    return true
  }

  get payload(): Uint8Array {
    return this.data.subarray(this.offset, this.offset + this.size)
  }

  get sport(): number {
    return this.#sport.getUint16(this.index * 2, true)
  }

  get dport(): number {
    return this.#dport.getUint16(this.index * 2, true)
  }

  get rule(): number {
    return this.#rule.getUint16(this.index * 2, true)
  }

  /** Time of arrival, microseconds since the epoch. */
  get t(): number {
    const nanos = this.#nanos + this.#time.getInt32(this.index * 4, true)
    // Whole seconds and the rest are added as Batch.receivedAt adds them, so that the double is the same.
    const carry = Math.floor(nanos / 1e9)
    return (this.#seconds + carry) * 1e6 + (nanos - carry * 1e9) / 1e3
  }

  /** Source address as a number from 0 to 2^32 - 1 when it is IPv4, else -1. */
  get srcIPv4(): number {
    const at = this.index * this.#srcBytes
    const src = this.#src
    if (this.#srcBytes === 4) return src.getUint32(at)
    return ipv4Number(src, at)
  }

  /** Source address as text. It builds a string: prefer {@link srcIPv4} on a hot path. */
  get src(): string {
    const v4 = this.srcIPv4
    if (v4 >= 0) return ipv4Text(v4)
    return addressText(this.#src, this.index * this.#srcBytes)
  }
}

const EMPTY: DataView = new DataView(new ArrayBuffer(0))

function column(bytes: Uint8Array | undefined, n: number, width: number, name: string): DataView {
  if (bytes === undefined || bytes.length !== n * width)
    throw format(`broken: column '${name}' does not fit n`)
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
