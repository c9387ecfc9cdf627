/** A drain waits for NATS until its deadline, and counts what is left. */
import t from 'tap'
import { FakeLane } from '../rig/lane.js'
import { freePort } from '../rig/ports.js'
import { natsServer, numbered, startPublisher, until } from '../rig/publisher.js'

t.setTimeout(120_000)

void t.test('the drain deadline', async (t) => {
  const nats = await natsServer(t)
  const r = await startPublisher(t, nats.url)
  await until('connection', () => r.counters.get('connected') === 1)
  await nats.kill('SIGSTOP')
  r.publisher.forward(numbered(new FakeLane(), 100, 0))
  t.same(await r.publisher.drain(100), { left: 100 })
  t.equal(r.counters.get('droppedShutdown'), 100)
  r.balance('closed')
  t.same(await r.publisher.drain(100), { left: 0 }, 'a second drain does nothing')

  const away = await startPublisher(t, `nats://127.0.0.1:${await freePort()}`)
  away.publisher.forward(numbered(new FakeLane(), 50, 0))
  t.same(await away.publisher.drain(50), { left: 50 })
  t.equal(away.counters.get('droppedShutdown'), 50)
  away.balance('closed')
})

void t.test('a drain that the server comes back for', async (t) => {
  const nats = await natsServer(t)
  const r = await startPublisher(t, nats.url)
  await until('connection', () => r.counters.get('connected') === 1)
  await nats.kill('SIGKILL')
  await until('disconnection', () => r.counters.get('connected') === 0)
  r.publisher.forward(numbered(new FakeLane(), 100, 0))
  const drained = r.publisher.drain(15_000)
  await nats.start()
  t.same(await drained, { left: 0 })
  t.equal(r.counters.get('taken'), 100)
  r.balance('closed')
})
