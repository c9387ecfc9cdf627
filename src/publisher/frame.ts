/**
 * The frame of a message on the wire (docs.nats.io, "Client Protocol", PUB): `PUB <subject> <#bytes>`, CR LF, the message,
 * CR LF. The line is written in front of a message that is already in its place, because its length is known last.
 */
import type { Chunk } from './chunk.js'

const CR_LF = 0x0d0a
const SPACE = 0x20
const ZERO = 0x30

/** The beginning of the PUB lines of one subject: `PUB <subject> `. */
export interface Head {
  readonly subject: string
  readonly bytes: Uint8Array
  /** The same bytes as little-endian words, zeros behind them. */
  readonly words: Uint32Array
}

/**
 * Bytes in front of an envelope that are free for its PUB line. Too low: subjects longer than this need a chunk that is not
 * pooled. Too high: every envelope's chunk is that much larger. A multiple of eight, so that it changes no alignment.
 */
export const HEAD_ROOM = 256

/** Most digits of a length, and CR LF behind them. */
const LENGTH_BYTES = 10

/** Bytes that a frame has behind its message. */
export const TAIL_BYTES = 2

export function newHead(subject: string): Head {
  const text = Buffer.from(`PUB ${subject} `)
  const words = new Uint32Array(Math.ceil(text.length / 4))
  const bytes = new Uint8Array(words.buffer, 0, text.length)
  bytes.set(text)
  return { subject, bytes, words }
}

/** Bytes that must be free in front of a message with this head: {@link HEAD_ROOM}, or more for a very long subject. */
export function headRoom(head: Head): number {
  return Math.max(HEAD_ROOM, (head.bytes.length + LENGTH_BYTES + 7) & ~7)
}

/** Upper bound of a frame whose message has `size` bytes; `padding` may lie between subject and length. */
export function frameBytes(head: Head, size: number, padding: number): number {
  return head.bytes.length + padding + LENGTH_BYTES + size + TAIL_BYTES
}

/**
 * Frames the message at `from..to` of a chunk, with {@link headRoom} in front of it and {@link TAIL_BYTES} behind it.
 *
 * @returns where the frame begins.
 */
export function frameInPlace(chunk: Chunk, head: Head, from: number, to: number): number {
  const { bytes, view } = chunk
  view.setUint16(to, CR_LF)
  let at = from - 2
  view.setUint16(at, CR_LF)
  let rest = to - from
  do {
    bytes[--at] = ZERO + (rest % 10)
    rest = Math.trunc(rest / 10)
  } while (rest > 0)
  at -= head.bytes.length
  bytes.set(head.bytes, at)
  return at
}

/**
 * Writes a PUB line for a message of `size` bytes at `at`.
 *
 * @param align the message begins at an address that is this modulo 8; -1 where it does not matter. Spaces between subject
 * and length make it so: the server takes any number of them.
 * @returns where the message begins.
 */
export function writeLine(chunk: Chunk, at: number, head: Head, size: number, align: number): number {
  const { bytes, view } = chunk
  const { words } = head
  // In whole words: what the last one writes beyond the head is overwritten by what follows.
  for (let w = 0; w < words.length; w++) view.setUint32(at + 4 * w, words[w]!, true)
  let end = at + head.bytes.length
  const digits =
    size < 10
      ? 1
      : size < 100
        ? 2
        : size < 1000
          ? 3
          : size < 10_000
            ? 4
            : size < 100_000
              ? 5
              : String(size).length
  if (align >= 0) {
    const padding = (align - (end + digits + 2)) & 7
    for (let k = 0; k < padding; k++) bytes[end++] = SPACE
  }
  let rest = size
  for (let d = end + digits - 1; d >= end; d--) {
    bytes[d] = ZERO + (rest % 10)
    rest = Math.trunc(rest / 10)
  }
  end += digits
  view.setUint16(end, CR_LF)
  return end + 2
}

/** Ends a frame whose message ends at `at`; returns where the next one may begin. */
export function writeTail(chunk: Chunk, at: number): number {
  chunk.view.setUint16(at, CR_LF)
  return at + TAIL_BYTES
}

/**
 * The frames in `from..to` of a chunk, which we wrote: calls `each` with the ends of each frame and its message's length.
 * Only for the rare case that frames have to be told apart again.
 */
export function walkFrames(
  chunk: Chunk,
  from: number,
  to: number,
  each: (from: number, to: number, size: number) => void,
): void {
  const { bytes } = chunk
  for (let at = from; at < to; ) {
    const lineEnd = bytes.indexOf(0x0d, at)
    const line = Buffer.from(bytes.buffer, bytes.byteOffset + at, lineEnd - at).toString('latin1')
    const size = Number(line.slice(line.lastIndexOf(' ') + 1))
    const end = lineEnd + 2 + size + TAIL_BYTES
    each(at, end, size)
    at = end
  }
}
