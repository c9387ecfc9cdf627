/** The connection dies or is not there: what becomes of results with `hold` and `drop`, and which counters say so. */
import t from 'tap'
import { FakeLane } from '../rig/lane.js'
import { freePort } from '../rig/ports.js'
import {
  collect,
  natsServer,
  numbered,
  numberOf,
  sleep,
  startPublisher,
  tcpProxy,
  until,
} from '../rig/publisher.js'
import { decode } from '../src/decode.js'

t.setTimeout(120_000)

void t.test('a server that comes late', async (t) => {
  const port = await freePort()
  const r = await startPublisher(t, `nats://127.0.0.1:${port}`)
  t.equal(r.publisher.ready, true, 'there is a window to fill')
  const lane = new FakeLane()
  r.publisher.forward(numbered(lane, 10, 0))
  r.publisher.turn()
  await until('a failed attempt', () => r.log.length > 0)
  await sleep(700)
  t.equal(r.log.filter((l) => l.code === 'MILLRACE_E_NATS_CONNECT').length, 1, 'one line, not one an attempt')
  t.equal(r.publisher.inFlight, 10)
  await natsServer(t, { port })
  await until('connection', () => r.counters.get('connected') === 1)
  r.publisher.turn()
  await until('confirmation', () => r.counters.get('taken') === 10)
  t.equal(r.readyCalls, 0, 'the worker was never stopped')
  r.balance('at rest')
})

for (const format of ['raw', 'records', 'columns'] as const) {
  void t.test(
    `while NATS is away, \`hold\` fills the window before the worker stops: ${format}`,
    async (t) => {
      const port = await freePort()
      const windowBytes = 256 << 10
      const r = await startPublisher(t, `nats://127.0.0.1:${port}`, { windowBytes, format, node: 'n' })
      const lane = new FakeLane(256, 1 << 16)
      let next = 0
      while (r.publisher.ready) {
        r.publisher.forward(numbered(lane, 128, next))
        r.publisher.turn()
        next += 128
        lane.release()
      }
      t.ok(r.publisher.unconfirmedBytes >= windowBytes, `${r.publisher.unconfirmedBytes} bytes`)
      t.equal(r.counters.get('paused'), 1)
      t.equal(r.publisher.inFlight, next)
      r.balance('away')
      const late = await natsServer(t, { port })
      const sub = await collect(late.url, 'udp.>')
      await until('everything is taken', () => r.counters.get('taken') === next)
      t.equal(r.readyCalls, 1)
      r.balance('at rest')
      await sub.client.close()
    },
  )
}

void t.test('the policy `drop` while NATS is away', async (t) => {
  const port = await freePort()
  const r = await startPublisher(t, `nats://127.0.0.1:${port}`, { natsDown: 'drop' })
  t.equal(r.publisher.ready, true)
  r.publisher.forward(numbered(new FakeLane(), 10, 0))
  r.publisher.emit(1)
  t.equal(r.counters.get('droppedDisconnected'), 11)
  const nats = await natsServer(t, { port })
  await until('connection', () => r.counters.get('connected') === 1)
  r.publisher.forward(numbered(new FakeLane(), 10, 0))
  // Open, not handed over: dropped when the connection goes.
  await nats.kill('SIGKILL')
  await until('disconnection', () => r.counters.get('connected') === 0)
  t.equal(r.dropped(), 21)
  t.equal(r.publisher.ready, true)
  r.balance('away')
})

for (const natsDown of ['hold', 'drop'] as const) {
  void t.test(`killed and restarted in mid stream, policy ${natsDown}`, async (t) => {
    const nats = await natsServer(t)
    const r = await startPublisher(t, nats.url, { natsDown, format: 'columns', windowBytes: 256 << 10 })
    const sub = await collect(nats.url, 'udp.>')
    await until('connection', () => r.counters.get('connected') === 1)
    const lane = new FakeLane(256, 1 << 16)
    let next = 0
    let running = true
    const pump = (async () => {
      while (running) {
        for (let k = 0; k < 4 && r.publisher.ready; k++) {
          r.publisher.forward(numbered(lane, 128, next))
          next += 128
          lane.release()
        }
        r.publisher.turn()
        await sleep(1)
      }
    })()
    for (let round = 0; round < 2; round++) {
      const before = r.counters.get('taken')
      await until('traffic', () => r.counters.get('taken') > before + 5000)
      await nats.kill('SIGKILL')
      await until('disconnection', () => r.counters.get('connected') === 0)
      if (natsDown === 'drop') t.equal(r.publisher.ready, true)
      r.balance('server gone')
      await sleep(50)
      await nats.start()
      await until('reconnection', () => r.counters.get('connected') === 1)
      await sub.client.flush()
    }
    running = false
    await pump
    t.same(await r.publisher.drain(10_000), { left: 0 })
    await sub.client.flush()
    await sub.client.flush()
    r.balance('drained')
    const taken = r.counters.get('taken')
    const unconfirmed = r.counters.get('droppedUnconfirmed')
    t.equal(r.counters.get('emitted'), next)
    t.equal(r.counters.get('reconnects'), 2)
    if (natsDown === 'hold') t.equal(r.counters.get('droppedDisconnected'), 0)
    // A subscriber has its own outage: what the server had taken from us while the subscriber was still away is not its
    // to receive. So only the upper bound is asserted here; the exact one is in the next test, through a proxy.
    t.ok(sub.count() <= taken + unconfirmed, `${sub.count()} of ${taken} + ${unconfirmed}`)
    const numbers = sub.messages.flatMap((m) => decode(m.data).map((d) => numberOf(d.payload)))
    t.equal(new Set(numbers).size, numbers.length, 'nothing arrives twice')
    t.same(
      numbers,
      numbers.toSorted((a, b) => a - b),
      'in order',
    )
    await sub.client.close()
  })
}

for (const format of ['raw', 'records', 'columns'] as const) {
  void t.test(
    `connection reset in mid stream: taken ≤ received ≤ taken + unconfirmed (${format})`,
    async (t) => {
      const nats = await natsServer(t)
      const link = await tcpProxy(t, nats.port)
      const r = await startPublisher(t, link.url, { format, windowBytes: 128 << 10 })
      const sub = await collect(nats.url, 'udp.>')
      await until('connection', () => r.counters.get('connected') === 1)
      const lane = new FakeLane(256, 1 << 16)
      let next = 0
      for (let round = 0; round < 3; round++) {
        const target = next + 4000
        while (next < target) {
          if (r.publisher.ready) {
            r.publisher.forward(numbered(lane, 128, next))
            next += 128
            lane.release()
            r.publisher.turn()
          }
          await new Promise(setImmediate)
        }
        r.publisher.forward(numbered(lane, 64, next))
        next += 64
        lane.release()
        r.publisher.turn()
        link.reset()
        r.publisher.forward(numbered(lane, 64, next))
        next += 64
        lane.release()
        await until('reset', () => r.counters.get('reconnects') === round + 1)
        await until('ready', () => r.publisher.ready)
      }
      t.same(await r.publisher.drain(10_000), { left: 0 })
      await sleep(50)
      await sub.client.flush()
      r.balance('drained')
      const taken = r.counters.get('taken')
      const unconfirmed = r.counters.get('droppedUnconfirmed')
      const payloads = sub.messages.flatMap((m) =>
        format === 'raw' ? [m.data] : decode(m.data).map((d) => d.payload),
      )
      const received = payloads.length
      t.equal(taken + unconfirmed, next, 'nothing else is dropped')
      t.ok(taken <= received, `${taken} taken, ${received} received`)
      t.ok(received <= taken + unconfirmed, `${received} received, ${unconfirmed} unconfirmed`)
      t.equal(new Set(payloads.map(numberOf)).size, received, 'nothing arrives twice or broken')
      await sub.client.close()
    },
  )
}

void t.test('a server that comes back with a smaller max_payload', async (t) => {
  const big = await natsServer(t)
  const r = await startPublisher(t, big.url, { format: 'raw' })
  await until('connection', () => r.counters.get('connected') === 1)
  await big.kill('SIGKILL')
  await until('disconnection', () => r.counters.get('connected') === 0)
  const lane = new FakeLane()
  lane.put({ payload: new Uint8Array(5000) })
  lane.put({ payload: new Uint8Array(50) })
  r.publisher.forward(lane.take())
  await natsServer(t, { port: big.port, maxPayload: 1024 })
  await until('confirmation', () => r.counters.get('taken') === 1)
  t.equal(r.counters.get('droppedOversize'), 1)
  r.balance('at rest')
})
