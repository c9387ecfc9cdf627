/**
 * Measures the cost of each format's encoder on one thread: nanoseconds of CPU per datagram, the median of five rounds,
 * with payloads of 100 bytes by default. No server is involved. `node build/bench/formats.js [payload bytes]`
 */
import { pack } from 'msgpackr'
import { FakeLane } from '../rig/lane.js'
import { newChunk } from '../src/publisher/chunk.js'
import { ColumnsEnvelope } from '../src/publisher/columns.js'
import { copyPayload } from '../src/publisher/copy.js'
import { ALIGNMENT_SLACK, type Envelope } from '../src/publisher/envelope.js'
import { RecordsEnvelope } from '../src/publisher/records.js'
import type { Batch } from '../src/queue/batch.js'

const SIZE = Number(process.argv[2] ?? 100)
const LIMIT = 16 << 10
const BATCH = 256
const ROUND_MS = 300

function filled(sources: number): Batch {
  const rig = new FakeLane(BATCH, 1 << Math.ceil(Math.log2(BATCH * SIZE + 1)))
  for (let i = 0; i < BATCH; i++) {
    const s = i % sources
    const payload = new Uint8Array(SIZE).fill(i)
    rig.put({ payload, src: [10, 0, s >> 8, s & 255], sport: 4000 + s, nanos: i * 1000, rule: i % 3 })
  }
  return rig.take()
}

/** Bytes of all messages. The sum keeps V8 from optimising the work away. */
let produced = 0

function envelope(make: () => Envelope): (batch: Batch) => void {
  const target = make()
  const limit = Math.max(LIMIT, SIZE + 512)
  const chunk = newChunk(limit + ALIGNMENT_SLACK)
  target.start(chunk, limit)
  return (batch) => {
    for (let i = 0; i < batch.length; ) {
      i = target.add(batch, i, batch.length)
      if (i === batch.length) break
      produced += target.seal().length
      target.start(chunk, limit)
    }
  }
}

function raw(): (batch: Batch) => void {
  const chunk = newChunk(128 << 10)
  let at = 0
  return (batch) => {
    for (let i = 0; i < batch.length; i++) {
      const size = batch.size(i)
      at += (batch.offset(i) - at) & 7
      if (at + size > chunk.bytes.length) at = batch.offset(i) & 7
      copyPayload(chunk, at, batch.slab, batch.offset(i), size)
      produced += chunk.bytes.subarray(at, at + size).length
      at += size
    }
  }
}

/** Without an encoder one would write this: it makes an object of each datagram, and msgpackr packs the array. */
function objects(batch: Batch): void {
  const list = []
  for (let i = 0; i < batch.length; i++) {
    list.push({
      t: batch.receivedAt(i),
      sport: batch.srcPort(i),
      dport: batch.dstPort(i),
      rule: batch.rule(i),
      src: batch.srcAddress(i),
      payload: batch.payload(i),
    })
  }
  produced += pack(list).length
}

/** Measures CPU time and not wall-clock time, so that other processes on a shared machine matter less. */
function measure(work: (batch: Batch) => void, batch: Batch): number {
  const rounds: number[] = []
  for (let round = 0; round < 6; round++) {
    const begin = process.cpuUsage()
    let passes = 0
    let nanos = 0
    while (nanos < ROUND_MS * 1e6) {
      for (let k = 0; k < 50; k++) work(batch)
      passes += 50
      const { user, system } = process.cpuUsage(begin)
      nanos = (user + system) * 1e3
    }
    if (round > 0) rounds.push(nanos / passes / batch.length)
  }
  return rounds.sort((a, b) => a - b)[2]!
}

const cases: [string, (batch: Batch) => void][] = [
  ['raw: copy and view', raw()],
  ['records: plain maps, written in place', envelope(() => new RecordsEnvelope(RecordsEnvelope.addresses()))],
  ['columns', envelope(() => new ColumnsEnvelope('node', 0, LIMIT))],
  ['(objects and msgpackr, for comparison)', objects],
]
console.log(
  `${SIZE} B payloads, batch of ${BATCH}, envelope ${LIMIT >> 10} KiB; ns of CPU per datagram, median of 5`,
)
for (const sources of [1, 256]) {
  const batch = filled(sources)
  for (const [name, work] of cases) {
    console.log(
      `${String(sources).padStart(4)} sources  ${name.padEnd(40)} ${measure(work, batch).toFixed(1).padStart(8)}`,
    )
  }
}
if (produced === 0) console.log('nothing was encoded')
