/** A server that does not keep up: the window fills, the worker stops, memory stays bounded, nothing is lost. */
import t from 'tap'
import { FakeLane } from '../rig/lane.js'
import { freePort } from '../rig/ports.js'
import { collect, natsServer, numbered, sleep, startPublisher, tcpProxy, until } from '../rig/publisher.js'

t.setTimeout(120_000)

for (const format of ['raw', 'records', 'columns'] as const) {
  void t.test(
    `a stalled server: the window fills, the worker stops, nothing is lost (${format})`,
    async (t) => {
      const nats = await natsServer(t)
      const windowBytes = 512 << 10
      const r = await startPublisher(t, nats.url, { format, windowBytes })
      const sub = await collect(nats.url, 'udp.>')
      await until('connection', () => r.counters.get('connected') === 1)
      await nats.kill('SIGSTOP')
      const lane = new FakeLane(256, 1 << 18)
      let next = 0
      let batch = 0
      while (r.publisher.ready) {
        const before = r.publisher.unconfirmedBytes
        r.publisher.forward(numbered(lane, 128, next, 1000))
        next += 128
        lane.release()
        r.publisher.turn()
        batch = Math.max(batch, r.publisher.unconfirmedBytes - before)
        t.ok(r.publisher.unconfirmedBytes <= windowBytes + batch, 'bounded') || t.bailout('unbounded')
        await new Promise(setImmediate)
      }
      t.equal(r.counters.get('taken'), 0)
      t.ok(r.publisher.unconfirmedBytes >= windowBytes)
      await sleep(100)
      t.equal(r.publisher.ready, false)
      t.ok(r.publisher.unconfirmedBytes <= windowBytes + 200_000)
      r.balance('stalled')
      const { readyCalls } = r
      await nats.kill('SIGCONT')
      await until('ready', () => r.publisher.ready)
      t.equal(r.readyCalls, readyCalls + 1)
      t.same(await r.publisher.drain(10_000), { left: 0 })
      await until('all', () => (format === 'raw' ? sub.messages.length : sub.count()) >= next)
      t.equal(r.counters.get('taken'), next)
      t.equal(r.dropped(), 0)
      await sub.client.close()
    },
  )
}

void t.test(
  'the window holds within a turn, and bounds what a handler produces by a timer of its own',
  async (t) => {
    const nats = await natsServer(t)
    const windowBytes = 64 << 10
    const r = await startPublisher(t, nats.url, { format: 'raw', windowBytes })
    await until('connection', () => r.counters.get('connected') === 1)
    await nats.kill('SIGSTOP')
    const lane = new FakeLane(256, 1 << 20)
    let emitted = 0
    // One turn of many batches, as the pump does it: no turn() in between.
    while (r.publisher.ready && emitted < 10_000) {
      r.publisher.forward(numbered(lane, 8, 1000, emitted))
      emitted += 8
      lane.release()
    }
    t.ok(r.publisher.unconfirmedBytes <= windowBytes + 8 * 1100, `${r.publisher.unconfirmedBytes} bytes`)
    // Whoever does not ask `ready` is bounded as well, and told by a counter.
    const megabyte = new Uint8Array(1 << 20).subarray(0, 1_000_000)
    for (let i = 0; i < 200; i++) r.publisher.publish(megabyte)
    t.ok(r.publisher.unconfirmedBytes < 70 << 20, `${r.publisher.unconfirmedBytes} bytes`)
    t.ok(r.counters.get('droppedOverrun') > 100)
    r.balance('while the server is stopped')
    await nats.kill('SIGCONT')
    t.same(await r.publisher.drain(20_000), { left: 0 })
    t.equal(r.counters.get('taken') + r.counters.get('droppedOverrun'), emitted + 200)
  },
)

void t.test('empty datagrams fill the window, too', async (t) => {
  const nats = await natsServer(t)
  const r = await startPublisher(t, nats.url, { format: 'raw', windowBytes: 64 << 10 })
  await until('connection', () => r.counters.get('connected') === 1)
  await nats.kill('SIGSTOP')
  const lane = new FakeLane(256, 1 << 10)
  let next = 0
  while (r.publisher.ready && next < 1e6) {
    r.publisher.forward(numbered(lane, 128, 0, 0))
    next += 128
    lane.release()
    r.publisher.turn()
  }
  t.ok(next < 10_000, `stopped after ${next}`)
  await nats.kill('SIGCONT')
  t.same(await r.publisher.drain(10_000), { left: 0 })
  t.equal(r.counters.get('taken'), next)
})

void t.test('a slow reader holds the worker back and loses nothing', async (t) => {
  const nats = await natsServer(t)
  const link = await tcpProxy(t, nats.port)
  const windowBytes = 128 << 10
  const r = await startPublisher(t, link.url, { format: 'columns', windowBytes })
  const sub = await collect(nats.url, 'udp.>')
  await until('connection', () => r.counters.get('connected') === 1)
  link.slow(true)
  const lane = new FakeLane(256, 1 << 18)
  let next = 0
  let worst = 0
  while (next < 8000) {
    if (r.publisher.ready) {
      r.publisher.forward(numbered(lane, 128, next, 1000))
      next += 128
      lane.release()
      r.publisher.turn()
    }
    worst = Math.max(worst, r.publisher.unconfirmedBytes)
    await new Promise(setImmediate)
  }
  // The window, a batch, and what was in the open envelope before it.
  t.ok(worst <= windowBytes + 128 * 1030 + (16 << 10), `at most ${worst} bytes unconfirmed`)
  t.ok(r.counters.get('paused') > 0)
  t.same(await r.publisher.drain(20_000), { left: 0 })
  await until('all', () => sub.count() >= next)
  t.equal(r.counters.get('taken'), next)
  r.balance('drained')
  await sub.client.close()
})

for (const format of ['records', 'columns'] as const) {
  void t.test(
    `while NATS is away small messages need little more memory than they count: ${format}`,
    async (t) => {
      const r = await startPublisher(t, `nats://127.0.0.1:${await freePort()}`, {
        format,
        subject: 'udp.{port}',
        windowBytes: 2 << 20,
        envelopeMs: 1,
      })
      const lane = new FakeLane(256, 1 << 16)
      globalThis.gc?.()
      const before = process.memoryUsage().arrayBuffers
      for (let next = 0; r.publisher.ready && next < 200_000; next += 64) {
        // Each datagram has a port of its own, and more ports than envelopes may be open seal one another.
        for (let i = 0; i < 64; i++)
          lane.put({ payload: new Uint8Array(60).fill(i), dport: 1 + ((next + i) % 4000) })
        r.publisher.forward(lane.take())
        r.publisher.turn()
        lane.release()
      }
      const used = process.memoryUsage().arrayBuffers - before
      t.equal(r.publisher.ready, false, 'the window is full')
      t.ok(used < 4 * (2 << 20), `${(used / 2 ** 20).toFixed(1)} MiB for a window of 2 MiB`)
      r.balance('away')
    },
  )
}

void t.test('what a handler publishes outside a turn is sent and confirmed, whatever its size', async (t) => {
  const nats = await natsServer(t)
  const r = await startPublisher(t, nats.url)
  await until('connection', () => r.counters.get('connected') === 1)
  for (const size of [10, 65_400, 70_000, 200_000]) {
    const before = r.counters.get('taken')
    r.publisher.publish(new Uint8Array(size))
    await until(`confirmation of ${size} bytes`, () => r.counters.get('taken') === before + 1)
  }
  r.balance('at rest')
})
