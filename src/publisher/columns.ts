import { pack } from 'msgpackr'
import type { Batch } from '../queue/batch.js'
import {
  descriptorWords,
  V4_MARK,
  W_LENGTH,
  W_NANOS,
  W_OFFSET,
  W_PORTS,
  W_RULE,
  W_SECONDS,
  W_SRC,
  WORDS,
} from '../queue/descriptors.js'
import { type Chunk, newChunk } from './chunk.js'
import type { Envelope } from './envelope.js'
import { BIN32, FIXARRAY, FIXMAP, fixstr, UINT32 } from './msgpack.js'

/** The columns after `data`, in the order they are written, with the bytes that each has per datagram. */
const COLUMNS = [
  { name: 'length', width: 2 },
  { name: 'time', width: 4 },
  { name: 'src', width: 4 },
  { name: 'sport', width: 2 },
  { name: 'dport', width: 2 },
  { name: 'rule', width: 2 },
] as const
/** Bytes per datagram in each column, with 4-byte (IPv4) and with 16-byte source addresses. */
const WIDTHS: readonly number[] = COLUMNS.map(({ width }) => width)
const WIDE_WIDTHS: readonly number[] = COLUMNS.map(({ name, width }) => (name === 'src' ? 16 : width))
/** Bytes per datagram in all columns together, with 4-byte and with 16-byte source addresses. */
const ROW_BYTES = WIDTHS.reduce((a, b) => a + b)
const WIDE_ROW_BYTES = WIDE_WIDTHS.reduce((a, b) => a + b)
/** What the source addresses gathered so far grow by, per datagram, when they are widened. */
const WIDENING_BYTES = WIDE_ROW_BYTES - ROW_BYTES

/** The bytes before each column: its key, and the head of a bin 32 whose four length bytes follow. */
const COLUMN_HEADS = COLUMNS.map(({ name }) => Uint8Array.of(...fixstr(name), BIN32))
const COLUMN_HEADS_BYTES = COLUMN_HEADS.reduce((sum, head) => sum + head.length + 4, 0)

/** Limits of the `time` column, an int32 of nanoseconds. */
const MIN_TIME = -0x80000000
const MAX_TIME = 0x7fffffff

/** Position of the four bytes of `n` in a message; docs/formats.md promises it to readers who only want to count. */
const N_AT = 7

/** The message up to its payload bytes, with the positions of the numbers that {@link ColumnsEnvelope.seal} writes. */
interface Header {
  readonly bytes: Uint8Array
  /** Position of the seconds of `t0`; its nanoseconds come five bytes later. */
  readonly t0At: number
  /** Position of the length of `data`. */
  readonly dataBytesAt: number
}

/**
 * Builds the header: a msgpack map whose variable numbers all have a fixed width, so that sealing a message only
 * overwrites them.
 */
function header(node: string, queue: number): Header {
  const zero32 = [0, 0, 0, 0]
  const t0 = Uint8Array.of(...fixstr('t0'), FIXARRAY | 2, UINT32, ...zero32, UINT32, ...zero32)
  const data = Uint8Array.of(...fixstr('data'), BIN32, ...zero32)
  const bytes = Buffer.concat([
    Uint8Array.of(FIXMAP | 12, ...fixstr('v'), 1, ...fixstr('n'), UINT32, ...zero32),
    ...['queue', queue, 'node', node].map((part) => pack(part)),
    t0,
    data,
  ])
  return { bytes, t0At: bytes.length - data.length - 9, dataBytesAt: bytes.length - 4 }
}

/**
 * A columnar envelope; docs/formats.md has the layout. Payloads are copied to their final place as they are added. The
 * columns grow in memory of the envelope's own and are copied behind the payloads when the message is sealed.
 */
export class ColumnsEnvelope implements Envelope {
  count = 0
  #payloadBytes = 0
  readonly #header: Header
  /** Datagrams that the columns have room for. */
  readonly #maxRows: number
  #chunk: Chunk = newChunk(0)
  #limit = 0
  #origin = 0
  /** Position in the chunk where the message begins: the origin, and up to 7 bytes more. */
  #start = 0
  /** True when source addresses have 16 bytes, because one of them is not IPv4. */
  #wide = false
  /** Arrival of the first datagram: seconds since the epoch, and nanoseconds. */
  #t0Seconds = 0
  #t0Nanos = 0
  readonly #length: Uint16Array
  readonly #time: Int32Array
  readonly #src: Uint32Array
  readonly #sport: Uint16Array
  readonly #dport: Uint16Array
  readonly #rule: Uint16Array
  /** The bytes of the six columns, in the order of {@link COLUMNS}. */
  readonly #columns: readonly Uint8Array[]

  /** @param maxBytes largest `limit`, in bytes, of any message that is to hold more than one datagram. */
  constructor(node: string, queue: number, maxBytes: number) {
    this.#header = header(node, queue)
    const rows = Math.max(1, Math.ceil(maxBytes / ROW_BYTES))
    this.#maxRows = rows
    this.#length = new Uint16Array(rows)
    this.#time = new Int32Array(rows)
    this.#src = new Uint32Array(rows * 4)
    this.#sport = new Uint16Array(rows)
    this.#dport = new Uint16Array(rows)
    this.#rule = new Uint16Array(rows)
    this.#columns = [this.#length, this.#time, this.#src, this.#sport, this.#dport, this.#rule].map(
      (column) => new Uint8Array(column.buffer),
    )
  }

  get bytes(): number {
    const rowBytes = this.#wide ? WIDE_ROW_BYTES : ROW_BYTES
    return this.#header.bytes.length + this.#payloadBytes + COLUMN_HEADS_BYTES + this.count * rowBytes
  }

  start(chunk: Chunk, limit: number, origin = 0): void {
    this.#chunk = chunk
    this.#limit = limit
    this.#origin = origin
    this.#start = origin
    this.#wide = false
    this.count = 0
    this.#payloadBytes = 0
  }

  singleBytes(batch: Batch, i: number): number {
    return this.#header.bytes.length + batch.size(i) + COLUMN_HEADS_BYTES + WIDE_ROW_BYTES
  }

  add(batch: Batch, from: number, to: number): number {
    const words = descriptorWords(batch.descriptors)
    const { slab } = batch
    const target = this.#chunk.bytes
    const headerBytes = this.#header.bytes.length
    const length = this.#length
    const time = this.#time
    const src = this.#src
    const sport = this.#sport
    const dport = this.#dport
    const rule = this.#rule
    const maxRows = this.#maxRows
    let wide = this.#wide
    let rowBytes = wide ? WIDE_ROW_BYTES : ROW_BYTES
    let n = this.count
    let free = this.#limit - this.bytes
    if (this.count === 0 && from < to) {
      // V8 copies out of shared memory eight bytes at a time when source and target have the same alignment, else one
      // by one. Payloads follow each other in the slab as in the message, so the first one decides for all.
      this.#start = this.#origin + ((slab.byteOffset + batch.offset(from) - headerBytes) & 7)
    }
    const dataAt = this.#start + headerBytes
    // The payload bytes that are not copied yet are slab[runFrom..runEnd); they belong at `at` in the chunk.
    let at = dataAt + this.#payloadBytes
    let runFrom = 0
    let runEnd = 0
    let w = (batch.base >>> 2) + from * WORDS
    if (n === 0 && from < to) {
      this.#t0Seconds = words[w + W_SECONDS]!
      this.#t0Nanos = words[w + W_NANOS]!
    }
    const t0Seconds = this.#t0Seconds
    const t0Nanos = this.#t0Nanos
    let i = from
    for (; i < to; i++, w += WORDS) {
      const size = words[w + W_LENGTH]! & 0xffff
      const v4 = words[w + W_SRC + 2] === V4_MARK && words[w + W_SRC] === 0 && words[w + W_SRC + 1] === 0
      if (!v4 && !wide) {
        if (size + WIDE_ROW_BYTES + WIDENING_BYTES * n > free || n === maxRows) break
        this.#widen(n)
        free -= WIDENING_BYTES * n
        wide = true
        rowBytes = WIDE_ROW_BYTES
      }
      if (size + rowBytes > free || n === maxRows) break
      free -= size + rowBytes
      const offset = words[w + W_OFFSET]!
      if (offset !== runEnd) {
        if (runEnd !== runFrom) {
          target.set(slab.subarray(runFrom, runEnd), at)
          at += runEnd - runFrom
        }
        runFrom = offset
      }
      runEnd = offset + size
      length[n] = size
      const seconds = words[w + W_SECONDS]!
      const nanos = words[w + W_NANOS]! - t0Nanos
      time[n] = seconds === t0Seconds ? nanos : saturate((seconds - t0Seconds) * 1e9 + nanos)
      if (wide) {
        src[4 * n] = words[w + W_SRC]!
        src[4 * n + 1] = words[w + W_SRC + 1]!
        src[4 * n + 2] = words[w + W_SRC + 2]!
        src[4 * n + 3] = words[w + W_SRC + 3]!
      } else src[n] = words[w + W_SRC + 3]!
      const ports = words[w + W_PORTS]!
      sport[n] = ports & 0xffff
      dport[n] = ports >>> 16
      rule[n] = words[w + W_RULE]! & 0xffff
      n++
    }
    if (runEnd !== runFrom) {
      target.set(slab.subarray(runFrom, runEnd), at)
      at += runEnd - runFrom
    }
    this.count = n
    this.#payloadBytes = at - dataAt
    return i
  }

  /** Rewrites the 4-byte addresses gathered so far as IPv4-mapped ones, from the last to the first: they share memory. */
  #widen(n: number): void {
    const src = this.#src
    for (let i = n - 1; i >= 0; i--) {
      src[4 * i + 3] = src[i]!
      src[4 * i + 2] = V4_MARK
      src[4 * i + 1] = 0
      src[4 * i] = 0
    }
    this.#wide = true
  }

  seal(): Uint8Array {
    const { bytes, view } = this.#chunk
    const { bytes: header, t0At, dataBytesAt } = this.#header
    const n = this.count
    const start = this.#start
    const widths = this.#wide ? WIDE_WIDTHS : WIDTHS
    bytes.set(header, start)
    view.setUint32(start + N_AT, n)
    view.setUint32(start + t0At, this.#t0Seconds)
    view.setUint32(start + t0At + 5, this.#t0Nanos)
    view.setUint32(start + dataBytesAt, this.#payloadBytes)
    let at = start + header.length + this.#payloadBytes
    for (let c = 0; c < COLUMNS.length; c++) {
      const head = COLUMN_HEADS[c]!
      const columnBytes = n * widths[c]!
      bytes.set(head, at)
      view.setUint32(at + head.length, columnBytes)
      bytes.set(this.#columns[c]!.subarray(0, columnBytes), at + head.length + 4)
      at += head.length + 4 + columnBytes
    }
    this.count = 0
    this.#payloadBytes = 0
    this.#wide = false
    return bytes.subarray(start, at)
  }
}

/** Limits nanoseconds to what the `time` column can hold. */
function saturate(nanos: number): number {
  return Math.max(MIN_TIME, Math.min(nanos, MAX_TIME))
}
