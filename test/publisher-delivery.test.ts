/** What a handler forwards, publishes and emits arrives as it was, in every format. */
import { unpack } from 'msgpackr'
import t from 'tap'
import { FakeLane } from '../rig/lane.js'
import { collect, natsServer, startPublisher, until } from '../rig/publisher.js'
import { decode } from '../src/decode.js'

t.setTimeout(120_000)

const V6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]

void t.test('every format arrives as it was, after the lane was overwritten', async (t) => {
  const nats = await natsServer(t)
  for (const format of ['raw', 'records', 'columns'] as const) {
    const r = await startPublisher(t, nats.url, { format, subject: '{node}.{queue}.{port}' })
    const sub = await collect(nats.url, 'node_1.2.*')
    const sizes = [0, 1, 100, 1400, 16_384, 40_000, 65_507, 3]
    const sent: string[] = []
    await until('connection', () => r.counters.get('connected') === 1)
    for (let round = 0; round < 3; round++) {
      const lane = new FakeLane(64, 1 << 18, 70_000)
      for (const [i, size] of sizes.entries()) {
        const payload = new Uint8Array(size).fill(i + round)
        const dport = 9000 + (i % 3)
        lane.put({ payload, dport, src: i % 2 ? V6 : [127, 0, 0, 1] })
        sent.push(`${dport} ${Buffer.from(payload).toString('hex')}`)
      }
      r.publisher.forward(lane.take())
      lane.release()
      r.publisher.turn()
    }
    t.same(await r.publisher.drain(10_000), { left: 0 })
    await until(format, () => (format === 'raw' ? sub.messages.length : sub.count()) >= sent.length)
    const got = sub.messages.flatMap(({ subject, data }) => {
      const port = subject.split('.')[2]
      const payloads = format === 'raw' ? [data] : decode(data).map((d) => d.payload)
      return payloads.map((payload) => `${port} ${Buffer.from(payload).toString('hex')}`)
    })
    // Order holds within a subject.
    const order = (list: string[]) => ['9000', '9001', '9002'].map((p) => list.filter((x) => x.startsWith(p)))
    t.same(order(got), order(sent), format)
    t.equal(r.counters.get('taken'), sent.length)
    t.equal(r.counters.get('inFlightBytes'), 0)
    r.balance(format)
    await sub.client.close()
  }
})

void t.test('publish and emit', async (t) => {
  const nats = await natsServer(t, { maxPayload: 4096 })
  const r = await startPublisher(t, nats.url)
  const sub = await collect(nats.url, '>')
  await until('connection', () => r.counters.get('connected') === 1)
  const own = Buffer.from('own')
  r.publisher.publish(own)
  r.publisher.publish(own, 'a.b')
  own.fill(0)
  for (let i = 0; i < 3; i++) r.publisher.emit({ i }, 'values')
  r.publisher.emit('one')
  t.throws(() => r.publisher.publish(own, 'a b'), { code: 'MILLRACE_E_SUBJECT' })
  t.throws(() => r.publisher.emit(1, 'a.*'), { code: 'MILLRACE_E_SUBJECT' })
  t.throws(() => r.publisher.publish(new Uint8Array(4097)), { code: 'MILLRACE_E_PAYLOAD' })
  t.throws(() => r.publisher.emit('x'.repeat(5000)), { code: 'MILLRACE_E_PAYLOAD' })
  // Many subjects: the number of open envelopes stays bounded, nothing is lost.
  for (let i = 0; i < 200; i++) r.publisher.emit(i, `many.${i}`)
  const lane = new FakeLane()
  lane.put({ payload: new Uint8Array(4090) })
  lane.put({ payload: new Uint8Array(100) })
  lane.put({ payload: new Uint8Array(60_000) })
  r.publisher.forward(lane.take())
  r.publisher.forward(lane.batch, 1)
  t.equal(r.counters.get('emitted'), 2 + 4 + 2 + 200 + 4)
  t.equal(r.counters.get('droppedOversize'), 2 + 2)
  r.balance('under way')
  t.same(await r.publisher.drain(10_000), { left: 0 })
  r.balance('drained')
  await until('messages', () => sub.messages.length >= 2 + 2 + 200 + 1)
  const of = (subject: string) => sub.messages.filter((m) => m.subject === subject).map((m) => m.data)
  t.same(
    of('a.b').map((d) => Buffer.from(d).toString()),
    ['own'],
  )
  t.same(
    of('values').map((d) => unpack(d)),
    [[{ i: 0 }, { i: 1 }, { i: 2 }]],
  )
  t.equal(of('many.199').length, 1)
  t.equal(of('udp.node_1.2').length, 4)
  // After the drain nothing is taken any more, and that is counted.
  r.publisher.publish(new Uint8Array(1))
  t.equal(r.counters.get('droppedShutdown'), 1)
  r.balance('closed')
  await sub.client.close()
})

void t.test('an envelope is sealed by age, without a turn', async (t) => {
  const nats = await natsServer(t)
  const r = await startPublisher(t, nats.url, { subject: 'p.{port}' })
  const sub = await collect(nats.url, 'p.>')
  await until('connection', () => r.counters.get('connected') === 1)
  const lane = new FakeLane()
  for (let port = 1; port <= 100; port++) lane.put({ payload: new Uint8Array(1), dport: port })
  r.publisher.forward(lane.take())
  await until('all', () => sub.messages.length === 100)
  await until('confirmation', () => r.counters.get('taken') === 100)
  t.equal(new Set(sub.messages.map((m) => m.subject)).size, 100)
  r.balance('at rest')
  await sub.client.close()
})
