import { unpack } from 'msgpackr'
import t from 'tap'
import { type DatagramFields, FakeLane } from '../rig/lane.js'
import { ColumnsCursor, countDatagrams, decode } from '../src/decode.js'
import { newChunk } from '../src/publisher/chunk.js'
import { ColumnsEnvelope } from '../src/publisher/columns.js'
import { ALIGNMENT_SLACK, type Envelope } from '../src/publisher/envelope.js'
import { RecordsEnvelope } from '../src/publisher/records.js'
import { packValue, singleValueBytes, ValuesEnvelope } from '../src/publisher/values.js'
import type { Batch } from '../src/queue/batch.js'

const SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 100, 159, 160, 161, 255, 256, 257, 1400, 9000, 65_507]
const V6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
const LONG_V6 = [0x20, 1, 0xd, 0xb8, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf1, 0x23, 0x45, 0x67, 0x89]

const bytes = (n: number, seed: number) => Uint8Array.from({ length: n }, (_, i) => (i * 31 + seed) & 255)

/** What decode() must give for a batch. */
function expected(batch: Batch) {
  return Array.from({ length: batch.length }, (_, i) => ({
    payload: Buffer.from(batch.copy(i)).toString('hex'),
    src: batch.srcAddress(i),
    sport: batch.srcPort(i),
    dport: batch.dstPort(i),
    rule: batch.rule(i),
    t: batch.receivedAt(i),
  }))
}

const shown = (messages: Uint8Array[]) =>
  messages
    .flatMap((message) => decode(message))
    .map(({ payload, src, sport, dport, rule, t }) => ({
      payload: Buffer.from(payload).toString('hex'),
      src,
      sport,
      dport,
      rule,
      t,
    }))

/** Encodes a whole batch, as the publisher does. */
function encode(envelope: Envelope, batch: Batch, limit: number): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (let i = 0; i < batch.length; ) {
    const size = Math.max(limit, envelope.singleBytes(batch, i))
    envelope.start(newChunk(size + ALIGNMENT_SLACK), size)
    const next = envelope.add(batch, i, batch.length)
    if (next === i) throw new Error('took nothing')
    const { count, bytes } = envelope
    const message = envelope.seal()
    if (message.length !== bytes || count !== next - i) throw new Error('says another size than it has')
    if (message.length > size) throw new Error('exceeds its limit')
    if (countDatagrams(message) !== count) throw new Error('counts another number than it has')
    messages.push(message)
    i = next
  }
  return messages
}

const FORMATS: [string, () => Envelope][] = [
  ['records', () => new RecordsEnvelope(RecordsEnvelope.addresses())],
  ['columns', () => new ColumnsEnvelope('node-1', 3, 16 << 10)],
]

const CASES: [string, () => FakeLane, DatagramFields[]][] = [
  [
    'payloads of 0 to 65,507 bytes',
    () => new FakeLane(),
    SIZES.map((n, i) => ({ payload: bytes(n, i), rule: i, sport: 65_535 - i, dport: i, nanos: i * 1017 })),
  ],
  [
    'IPv4 and IPv6 sources, in both orders',
    () => new FakeLane(),
    [[10, 0, 0, 1], V6, [255, 255, 255, 255], LONG_V6, new Array(16).fill(0), [0, 0, 0, 0]].map((src, i) => ({
      payload: bytes(10 + i, i),
      src,
    })),
  ],
  [
    'IPv6 only',
    () => new FakeLane(),
    Array.from({ length: 300 }, (_, i) => ({ payload: bytes(50, i), src: V6 })),
  ],
  [
    'IPv6 that comes when the envelope is nearly full',
    () => new FakeLane(2048),
    Array.from({ length: 900 }, (_, i) => ({
      payload: bytes(i % 5, i),
      ...(i % 400 === 399 && { src: V6 }),
    })),
  ],
  [
    'a slab that wraps, with empty payloads at its end',
    () => new FakeLane(64, 1024, 1000),
    [10, 14, 0, 100, 0, 30].map((n, i) => ({ payload: bytes(n, i) })),
  ],
  [
    'times before and after the first, across seconds',
    () => new FakeLane(),
    [
      [1_700_000_000, 999_999_999],
      [1_700_000_001, 1],
      [1_700_000_000, 0],
      [1_699_999_999, 5],
      [1_700_000_002, 146_000_000],
    ].map(([seconds, nanos]) => ({ payload: bytes(3, 1), seconds: seconds!, nanos: nanos! })),
  ],
  [
    'many sources, more than the address cache holds',
    () => new FakeLane(8192),
    Array.from({ length: 6000 }, (_, i) => ({
      payload: bytes(20, i),
      src: [10, i & 3, (i >> 8) & 255, i & 255],
      sport: i,
    })),
  ],
  [
    'nothing but empty payloads',
    () => new FakeLane(8192),
    Array.from({ length: 5000 }, () => ({ payload: bytes(0, 0) })),
  ],
]

for (const [format, make] of FORMATS) {
  void t.test(`${format} round trip`, async (t) => {
    for (const [name, rig, puts] of CASES) {
      for (const limit of [1024, 16 << 10]) {
        const lane = rig()
        for (const put of puts) lane.put(put)
        const batch = lane.take()
        t.equal(batch.length, puts.length)
        t.same(shown(encode(make(), batch, limit)), expected(batch), `${name}, envelopes of ${limit}`)
      }
    }
  })

  void t.test(`${format}: an envelope gathers over batches, and is used again`, async (t) => {
    const envelope = make()
    for (let round = 0; round < 3; round++) {
      const rig = new FakeLane(16, 4096)
      envelope.start(newChunk(4096 + ALIGNMENT_SLACK), 4096)
      const all = []
      for (let b = 0; b < 4; b++) {
        for (let i = 0; i < 3; i++) {
          rig.put({ payload: bytes(20, i + b), sport: b, ...(round === 1 && b > 1 && { src: V6 }) })
        }
        const batch = rig.take()
        all.push(...expected(batch))
        t.equal(envelope.add(batch, 0, batch.length), batch.length)
        rig.release()
      }
      t.same(shown([envelope.seal()]), all)
    }
  })
}

void t.test('records are plain maps for any msgpack reader', async (t) => {
  const rig = new FakeLane()
  rig.put({ payload: bytes(5, 1), nanos: 500, rule: 2 })
  const [message] = encode(new RecordsEnvelope(RecordsEnvelope.addresses()), rig.take(), 1024)
  t.same(unpack(message!), [
    {
      t: 1_700_000_000_000_000.5,
      sport: 4000,
      dport: 9000,
      rule: 2,
      src: '10.0.0.1',
      payload: Buffer.from(bytes(5, 1)),
    },
  ])
})

void t.test('columns are a plain map, too, and payloads are contiguous', async (t) => {
  const rig = new FakeLane()
  rig.put({ payload: bytes(5, 1), nanos: 7 })
  rig.put({ payload: bytes(6, 2), nanos: 6 })
  const [message] = encode(new ColumnsEnvelope('n', 9, 4096), rig.take(), 4096)
  const map = unpack(message!)
  t.match(map, { v: 1, n: 2, node: 'n', queue: 9, t0: [1_700_000_000, 7] })
  t.same(map.data, Buffer.concat([bytes(5, 1), bytes(6, 2)]))
  t.same(map.time, Buffer.from([0, 0, 0, 0, 255, 255, 255, 255]))
  t.same(map.src, Buffer.from([10, 0, 0, 1, 10, 0, 0, 1]))
  const cursor = new ColumnsCursor(message!)
  t.equal(cursor.next() && cursor.next(), true)
  t.match(cursor, { index: 1, offset: 5, size: 6, srcIPv4: 0x0a000001 })
  t.equal(cursor.next(), false)
})

void t.test('times too far from the first saturate', async (t) => {
  const rig = new FakeLane()
  rig.put({ payload: bytes(1, 1) })
  rig.put({ payload: bytes(1, 1), seconds: 1_700_000_100 })
  rig.put({ payload: bytes(1, 1), seconds: 1_699_999_900 })
  const [message] = encode(new ColumnsEnvelope('n', 9, 4096), rig.take(), 4096)
  const times = decode(message!).map((d) => d.t - 1.7e15)
  t.same(times, [0, 2_147_483.75, -2_147_483.75])
})

void t.test('decode refuses what is neither', async (t) => {
  for (const value of [{ a: 1 }, [1, 2], 'text', [{ payload: 'text' }], { v: 1, n: 3, t0: [0, 0] }]) {
    t.throws(() => decode(packValue(value)), { code: 'MILLRACE_E_FORMAT' })
  }
  t.equal(countDatagrams(packValue([1, 2, 3])), 3)
})

void t.test('emitted values', async (t) => {
  const envelope = new ValuesEnvelope()
  envelope.start(newChunk(64), 64)
  const values: unknown[] = []
  for (let i = 0; ; i++) {
    const value = { i, text: 'x' }
    if (!envelope.add(packValue(value))) break
    values.push(value)
  }
  t.ok(values.length > 3)
  t.ok(envelope.bytes <= 64)
  const message = envelope.seal()
  t.equal(countDatagrams(message), values.length)
  t.same(unpack(message), values)
  t.equal(singleValueBytes(5), 8)
})
