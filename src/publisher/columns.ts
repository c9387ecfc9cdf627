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

/** Names of the columns after `data`, in the order they are written, with bytes per datagram. */
const COLUMNS = ['length', 'time', 'src', 'sport', 'dport', 'rule'] as const
const MARKS = COLUMNS.map((name) => Uint8Array.of(0xa0 | name.length, ...Buffer.from(name), 0xc6))
const MARKS_BYTES = MARKS.reduce((sum, mark) => sum + mark.length + 4, 0)
/** Bytes of columns per datagram, with 4-byte and with 16-byte source addresses. */
const WIDTHS = [2, 4, 4, 2, 2, 2] as const
const WIDTHS_WIDE = [2, 4, 16, 2, 2, 2] as const
const NARROW = 2 + 4 + 4 + 2 + 2 + 2
const WIDE = NARROW + 12
const MIN_TIME = -0x80000000
const MAX_TIME = 0x7fffffff

/**
 * The message up to the payload bytes: a msgpack map whose variable numbers have a fixed width, so that sealing only
 * patches them. `n` comes at a fixed offset, for readers who only want to count.
 */
function header(node: string, queue: number): { bytes: Uint8Array; t0: number; data: number } {
  const names = Buffer.concat(['queue', queue, 'node', node].map((part) => pack(part)))
  const t0 = Uint8Array.of(0xa2, 0x74, 0x30, 0x92, 0xce, 0, 0, 0, 0, 0xce, 0, 0, 0, 0)
  const data = Uint8Array.of(0xa4, ...Buffer.from('data'), 0xc6, 0, 0, 0, 0)
  // fixmap of 12; v: 1; n: uint32 (patched).
  const bytes = Buffer.concat([
    Uint8Array.of(0x8c, 0xa1, 0x76, 0x01, 0xa1, 0x6e, 0xce, 0, 0, 0, 0),
    names,
    t0,
    data,
  ])
  return { bytes, t0: bytes.length - data.length - 9, data: bytes.length - 4 }
}

const N_AT = 7

/** Columnar envelope; the layout is in docs/formats.md. Payloads go straight to their place, columns follow at the seal. */
export class ColumnsEnvelope implements Envelope {
  count = 0
  payloadBytes = 0
  readonly #head: Uint8Array
  readonly #t0At: number
  readonly #dataAt: number
  readonly #rows: number
  #chunk: Chunk = newChunk(0)
  #limit = 0
  /** Where the message begins in the chunk, 0..7. */
  #shift = 0
  #wide = false
  #t0s = 0
  #t0n = 0
  readonly #length: Uint16Array
  readonly #time: Int32Array
  readonly #src: Uint32Array
  readonly #sport: Uint16Array
  readonly #dport: Uint16Array
  readonly #rule: Uint16Array
  readonly #columns: Uint8Array[]

  /** @param maxBytes largest `limit` a message of more than one datagram will ever have. */
  constructor(node: string, queue: number, maxBytes: number) {
    const { bytes, t0, data } = header(node, queue)
    this.#head = bytes
    this.#t0At = t0
    this.#dataAt = data
    const rows = Math.max(1, Math.ceil(maxBytes / NARROW))
    this.#rows = rows
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
    return this.#head.length + this.payloadBytes + MARKS_BYTES + this.count * (this.#wide ? WIDE : NARROW)
  }

  start(chunk: Chunk, limit: number): void {
    this.#chunk = chunk
    this.#limit = limit
    this.#wide = false
    this.count = 0
    this.payloadBytes = 0
  }

  alone(batch: Batch, i: number): number {
    return this.#head.length + batch.size(i) + MARKS_BYTES + WIDE
  }

  add(batch: Batch, from: number, to: number): number {
    const words = descriptorWords(batch.descriptors)
    const { slab } = batch
    const target = this.#chunk.bytes
    const length = this.#length
    const time = this.#time
    const src = this.#src
    const sport = this.#sport
    const dport = this.#dport
    const rule = this.#rule
    const rows = this.#rows
    let wide = this.#wide
    let row = wide ? WIDE : NARROW
    let n = this.count
    let room = this.#limit - this.bytes
    // Payload bytes not yet copied are slab[runFrom..runEnd), and belong at `at`.
    if (this.count === 0 && from < to) {
      // V8 copies out of shared memory eight bytes at a time when source and target are aligned alike, else one by
      // one. Payloads follow each other in the slab as in the message, so the first one decides for all.
      this.#shift = (slab.byteOffset + batch.offset(from) - this.#head.length) & 7
    }
    const dataAt = this.#shift + this.#head.length
    let at = dataAt + this.payloadBytes
    let runFrom = 0
    let runEnd = 0
    let w = (batch.base >>> 2) + from * WORDS
    if (n === 0 && from < to) {
      this.#t0s = words[w + W_SECONDS]!
      this.#t0n = words[w + W_NANOS]!
    }
    const t0s = this.#t0s
    const t0n = this.#t0n
    let i = from
    for (; i < to; i++, w += WORDS) {
      const size = words[w + W_LENGTH]! & 0xffff
      const v4 = words[w + W_SRC + 2] === V4_MARK && words[w + W_SRC] === 0 && words[w + W_SRC + 1] === 0
      if (!v4 && !wide) {
        if (size + WIDE + 12 * n > room || n === rows) break
        this.#widen(n)
        room -= 12 * n
        wide = true
        row = WIDE
      }
      if (size + row > room || n === rows) break
      room -= size + row
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
      const nanos = words[w + W_NANOS]! - t0n
      time[n] = seconds === t0s ? nanos : saturate((seconds - t0s) * 1e9 + nanos)
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
    this.payloadBytes = at - dataAt
    return i
  }

  /** Rewrites the 4-byte addresses gathered so far as 16-byte ones, from the last to the first as they share memory. */
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
    const n = this.count
    const start = this.#shift
    bytes.set(this.#head, start)
    view.setUint32(start + N_AT, n)
    view.setUint32(start + this.#t0At, this.#t0s)
    view.setUint32(start + this.#t0At + 5, this.#t0n)
    view.setUint32(start + this.#dataAt, this.payloadBytes)
    let at = start + this.#head.length + this.payloadBytes
    for (let c = 0; c < COLUMNS.length; c++) {
      const mark = MARKS[c]!
      const size = n * (this.#wide ? WIDTHS_WIDE : WIDTHS)[c]!
      bytes.set(mark, at)
      view.setUint32(at + mark.length, size)
      bytes.set(this.#columns[c]!.subarray(0, size), at + mark.length + 4)
      at += mark.length + 4 + size
    }
    this.count = 0
    this.payloadBytes = 0
    this.#wide = false
    return bytes.subarray(start, at)
  }
}

function saturate(nanos: number): number {
  return Math.max(MIN_TIME, Math.min(nanos, MAX_TIME))
}
