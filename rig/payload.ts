/**
 * The payload of datagram number `n` as millrace-blast makes it (crates/millrace-blast/src/payload.rs), implemented a
 * second time so that sender and checker do not share a mistake. Bytes 0 to 3 are the number in network order. Byte j
 * beyond them is byte `j % 8`, little-endian, of `mix(n) + (j / 8) * STEP`, where mix is SplitMix64's finaliser.
 *
 * The arithmetic is on 32-bit halves, because BigInt would cost more than everything else the checker does.
 */
const STEP_HIGH = 0x9e3779b9
const STEP_LOW = 0x7f4a7c15

let high = 0
let low = 0

function add(h: number, l: number): void {
  const sum = low + l
  high = (high + h + (sum > 0xffffffff ? 1 : 0)) >>> 0
  low = sum >>> 0
}

function xorShift(bits: number): void {
  const l = (low >>> bits) | (high << (32 - bits))
  low = (low ^ l) >>> 0
  high = (high ^ (high >>> bits)) >>> 0
}

function multiply(h: number, l: number): void {
  // The upper half of low * l from 16-bit pieces; every partial sum stays below 2^53.
  const [a, b, c, d] = [low >>> 16, low & 0xffff, l >>> 16, l & 0xffff]
  const upper = a * c + Math.floor((a * d + b * c + Math.floor((b * d) / 0x10000)) / 0x10000)
  high = (upper + Math.imul(low, h) + Math.imul(high, l)) >>> 0
  low = Math.imul(low, l) >>> 0
}

function mix(n: number): void {
  high = 0
  low = n >>> 0
  add(STEP_HIGH, STEP_LOW)
  xorShift(30)
  multiply(0xbf58476d, 0x1ce4e5b9)
  xorShift(27)
  multiply(0x94d049bb, 0x133111eb)
  xorShift(31)
}

/** Returns the first `size` bytes of the payload of datagram `n`. */
export function payload(n: number, size: number): Uint8Array {
  const padded = new Uint8Array(Math.ceil(size / 8) * 8)
  const view = new DataView(padded.buffer)
  mix(n)
  for (let i = 0; i < padded.length; i += 8) {
    view.setUint32(i, low, true)
    view.setUint32(i + 4, high, true)
    add(STEP_HIGH, STEP_LOW)
  }
  for (let j = 0; j < Math.min(4, size); j++) padded[j] = n >>> (24 - 8 * j)
  return padded.subarray(0, size)
}

/** Returns whether `bytes` is exactly the payload of datagram `n`. It allocates nothing but one view. */
export function isPayload(bytes: Uint8Array, n: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const size = bytes.byteLength
  mix(n)
  let i = 0
  for (; i + 8 <= size; i += 8) {
    // The first word's low half is the number itself.
    if (view.getUint32(i, i > 0) !== (i === 0 ? n : low) || view.getUint32(i + 4, true) !== high) return false
    add(STEP_HIGH, STEP_LOW)
  }
  for (let j = i; j < size; j++) {
    const k = j - i
    const fill = (k < 4 ? low >>> (8 * k) : high >>> (8 * (k - 4))) & 0xff
    if (bytes[j] !== (j < 4 ? (n >>> (24 - 8 * j)) & 0xff : fill)) return false
  }
  return true
}
