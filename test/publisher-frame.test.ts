/** PUB operations: written in front of a message, written line by line, aligned, and told apart again. */
import t from 'tap'
import { newChunk } from '../src/publisher/chunk.js'
import {
  frameBytes,
  frameInPlace,
  HEAD_ROOM,
  headRoom,
  newHead,
  TAIL_BYTES,
  walkFrames,
  writeLine,
  writeTail,
} from '../src/publisher/frame.js'

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1')
const SUBJECTS = ['a', 'ab', 'abc', 'udp.node.9000.12', 'ü.ñ', 'x'.repeat(1024)]
const SIZES = [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 99_999, 100_000, 1_048_576]

void t.test('in place', async (t) => {
  for (const subject of SUBJECTS) {
    const head = newHead(subject)
    const room = headRoom(head)
    t.ok(room >= HEAD_ROOM && room % 8 === 0)
    for (const size of SIZES) {
      const chunk = newChunk(room + size + TAIL_BYTES)
      chunk.bytes.fill(0x2e)
      const from = frameInPlace(chunk, head, room, room + size)
      t.ok(from >= 0)
      const line = Buffer.from(`PUB ${subject} ${size}\r\n`).toString('latin1')
      const frame = text(chunk.bytes.subarray(from))
      if (frame !== `${line}${'.'.repeat(size)}\r\n`)
        t.equal(frame.slice(0, 2000), line, `${subject} ${size}`)
    }
  }
})

void t.test('line by line, at every alignment', async (t) => {
  for (const subject of SUBJECTS) {
    const head = newHead(subject)
    for (const size of SIZES.slice(0, 10)) {
      for (let align = -1; align < 8; align++) {
        const chunk = newChunk(3 + frameBytes(head, size, 7))
        const at = writeLine(chunk, 3, head, size, align)
        if (align >= 0) t.equal(at & 7, align)
        chunk.bytes.fill(0x2e, at, at + size)
        const end = writeTail(chunk, at + size)
        t.ok(end <= chunk.bytes.length)
        const line = text(chunk.bytes.subarray(3, end))
        const expected = Buffer.from(`PUB ${subject} `).toString('latin1')
        t.ok(line.startsWith(expected))
        t.match(line.slice(expected.length), new RegExp(`^ {0,7}${size}\\r\\n\\.{${size}}\\r\\n$`))
      }
    }
  }
})

void t.test('frames are told apart, whatever their messages hold', async (t) => {
  const chunk = newChunk(4096)
  const messages = ['', 'PUB a 3\r\nabc\r\n', '\r\n', 'x'.repeat(500), ' 12']
  let at = 5
  const ends: [number, number, number][] = []
  for (const [i, message] of messages.entries()) {
    const begin = at
    const from = writeLine(chunk, at, newHead(`s.${i}`), message.length, i)
    chunk.bytes.set(Buffer.from(message), from)
    at = writeTail(chunk, from + message.length)
    ends.push([begin, at, message.length])
  }
  const found: [number, number, number][] = []
  walkFrames(chunk, 5, at, (...frame) => void found.push(frame))
  t.same(found, ends)
})
