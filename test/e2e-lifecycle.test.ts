/** The service starts, dies, drains, and refuses to start with wrong input. */
import { createSocket } from 'node:dgram'
import { get } from 'node:http'
import t, { type Test } from 'tap'
import { blast } from '../rig/blast.js'
import { totals } from '../rig/books.js'
import { startNats } from '../rig/nats.js'
import { privileged, runIn, VethPair } from '../rig/netns.js'
import { freePort, freeUdpPort } from '../rig/ports.js'
import { Service } from '../rig/service.js'
import { environment, PORT, testbed } from '../rig/testbed.js'

// Tap's 30 s are for unit tests.
t.setTimeout(240_000)

/** Datagrams that the subscriber has when the service is stopped under load. */
const UNDER_LOAD = 10_000

void t.test('kill -9 leaves no XDP program, and a second start works at once', async (t) => {
  if (!privileged(t)) return
  const s = await testbed({ backend: 'xdp' })
  t.teardown(() => s.close())
  t.ok(s.pair?.xdpAttached(), 'attached while it runs')
  const ended = await s.service.kill()
  t.equal(ended.signal, 'SIGKILL')
  t.notOk(s.pair?.xdpAttached(), 'nothing is left on the interface')

  const second = await Service.start({ ns: s.ns, env: s.env })
  t.teardown(() => second.kill())
  t.ok(s.pair?.xdpAttached())
  await blast(s.sender, { to: s.target, count: 1000, rate: 10_000 }).done
  await s.subscriber.settled(1000)
  t.match(await s.subscriber.against({ count: 1000, low: 100, high: 100 }), { received: 1000, missing: 0 })
  t.equal((await second.stop()).code, 0)
})

void t.test('SIGTERM under load: everything received before is delivered', async (t) => {
  if (!privileged(t)) return
  for (const backend of ['xdp', 'packet', 'socket'] as const) {
    const s = await testbed({ backend, format: 'records' })
    // The sender outlasts the service, however long a busy machine takes for the first datagrams.
    const sender = blast(s.sender, { to: s.target, seconds: 200, rate: 30_000 })
    await s.subscriber.settled(UNDER_LOAD + 1)
    const ended = await s.service.stop()
    sender.stop()
    await sender.done
    const account = await s.subscriber.flushed()
    const books = totals(ended)
    t.equal(ended.code, 0, `${backend}: exit 0`)
    t.ok(books.received > UNDER_LOAD, `${backend}: ${books.received} received`)
    t.equal(account.received, books.received, `${backend}: all it received, the subscriber has`)
    t.match(account, { duplicates: 0, corrupt: 0, misplaced: 0 })
    await s.close()
  }
})

void t.test('an ordinary user runs the socket backend', async (t) => {
  if (!privileged(t)) return
  const s = await testbed({
    backend: 'socket',
    env: { MILLRACE_LISTEN: PORT },
    prefix: ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
  })
  t.teardown(() => s.close())
  await blast(s.sender, { to: s.target, count: 1000, rate: 5000, size: '0..1472' }).done
  await s.subscriber.settled(1000)
  t.match(await s.subscriber.against({ count: 1000, low: 0, high: 1472 }), { received: 1000, missing: 0 })
  t.equal((await s.service.stop()).code, 0)
})

/** Returns the status of one GET, or 0 when there is no answer. */
function status(url: string): Promise<number> {
  return new Promise((resolve) => {
    get(url, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    }).once('error', () => resolve(0))
  })
}

async function until(what: string, reached: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!(await reached())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Environment of a service on loopback sockets. */
async function loopback(more: Record<string, string | number>) {
  const http = await freePort()
  const port = await freeUdpPort()
  const base = environment({ backend: 'socket', wire: false, queues: 1, port })
  return { http, port, env: { ...base, MILLRACE_HTTP: `127.0.0.1:${http}`, ...more } }
}

void t.test('NATS is away at the start: alive, not ready, and ready when it comes', async (t) => {
  const nats = await freePort()
  const { http, env } = await loopback({ NATS_URL: `nats://127.0.0.1:${nats}` })
  const service = new Service({ env })
  t.teardown(() => service.kill())
  await until('/healthz 200', async () => (await status(`http://127.0.0.1:${http}/healthz`)) === 200)
  t.equal(await status(`http://127.0.0.1:${http}/readyz`), 503, 'alive but not ready')
  const server = await startNats({ port: nats })
  t.teardown(() => server.stop())
  await until('/readyz 200', async () => (await status(`http://127.0.0.1:${http}/readyz`)) === 200)
  t.equal(await status(`http://127.0.0.1:${http}/metrics`), 200)
  t.equal((await service.stop()).code, 0)
})

void t.test('the interface goes and comes: alive throughout, ready only with it', async (t) => {
  if (!privileged(t)) return
  const s = await testbed({ backend: 'xdp', queues: 2 })
  t.teardown(() => s.close())
  const pair = s.pair!
  const { address } = await s.service.line((l) => /^serving \/metrics/.test(l.msg ?? ''), 'serving /metrics')
  // The service listens inside its namespace.
  const ask = (path: string) => {
    const script = `fetch('http://${address}${path}').then((r) => console.log(r.status))`
    return Number(runIn(s.ns, process.execPath, '-e', script))
  }
  t.equal(ask('/readyz'), 200)
  pair.removeInterfaces()
  await until('/readyz 503', async () => ask('/readyz') === 503)
  t.equal(ask('/healthz'), 200, 'not to be restarted')
  const lost = await s.service.line((l) => l.msg === 'nothing to receive from; waiting for it', 'the loss')
  t.match(lost.reason, /vb was removed/)
  pair.addInterfaces(2)
  await until('/readyz 200', async () => ask('/readyz') === 200)
  await s.service.line((l) => l.msg === 'receiving again', 'receiving again')
  t.ok(pair.xdpAttached())
  await blast(s.sender, { to: s.target, count: 1000, rate: 5000 }).done
  await s.subscriber.settled(1000)
  t.match(await s.subscriber.against({ count: 1000, low: 100, high: 100 }), { received: 1000, missing: 0 })
  t.equal((await s.service.stop()).code, 0)
})

/** Starts a service that must refuse to run, and checks that it says why in one line with a code. */
async function refuses(
  t: Test,
  options: ConstructorParameters<typeof Service>[0],
  want: { code: string; exit: number; says: RegExp },
) {
  const service = new Service(options)
  const timer = setTimeout(() => void service.kill(), 60_000)
  const ended = await service.ended
  clearTimeout(timer)
  t.equal(ended.code, want.exit, `exit status; it said:\n${service.lastOutput()}`)
  const lines = [...ended.text, ...ended.log.map((l) => JSON.stringify(l))].filter((l) =>
    l.includes('MILLRACE_E_'),
  )
  t.equal(lines.length, 1, `one line names the error:\n${service.lastOutput()}`)
  t.match(lines[0], want.code)
  // The first line says what is wrong; a rule error shows the place below it.
  t.match(ended.text.join('\n') + lines.join('\n'), want.says)
}

void t.test('wrong input is refused in one line, with a code and a status', async (t) => {
  // A server that listens, so that nothing but the fault under test is wrong.
  const nats = await startNats()
  t.teardown(() => nats.stop())
  const handlers = t.testdir({
    'throws.mjs': `throw new Error('the handler says no')`,
    'empty.mjs': 'export const nothing = 1',
  })
  const start = async (env: Record<string, string | number>) => ({
    env: (await loopback({ NATS_URL: nats.url, ...env })).env,
  })

  await t.test('unknown variable', async (t) =>
    refuses(t, await start({ MILLRACE_QEUES: 2 }), {
      code: 'MILLRACE_E_CONFIG',
      exit: 2,
      says: /MILLRACE_QEUES.*MILLRACE_QUEUES/,
    }),
  )
  await t.test('rule that does not compile', async (t) =>
    refuses(t, await start({ MILLRACE_RULES: 'u8[0] = 1 => queue(0)' }), {
      code: 'MILLRACE_E_RULES',
      exit: 2,
      says: /u8\[0\] = 1|==/,
    }),
  )
  await t.test('handler file missing', async (t) =>
    refuses(t, await start({ MILLRACE_HANDLER: '/nonexistent/handler.js' }), {
      code: 'MILLRACE_E_HANDLER',
      exit: 2,
      says: /\/nonexistent\/handler\.js/,
    }),
  )
  await t.test('handler that throws while loading', async (t) =>
    refuses(t, await start({ MILLRACE_HANDLER: `${handlers}/throws.mjs` }), {
      code: 'MILLRACE_E_HANDLER',
      exit: 2,
      says: /the handler says no/,
    }),
  )
  await t.test('handler without a default export', async (t) =>
    refuses(t, await start({ MILLRACE_HANDLER: `${handlers}/empty.mjs` }), {
      code: 'MILLRACE_E_HANDLER',
      exit: 2,
      says: /default/,
    }),
  )
  await t.test('more queues than CPUs', async (t) =>
    refuses(t, await start({ MILLRACE_QUEUES: 200, MILLRACE_OVERSUBSCRIBE: 0 }), {
      code: 'MILLRACE_E_QUEUES',
      exit: 2,
      says: /200/,
    }),
  )
  await t.test('port taken', async (t) => {
    const owner = createSocket('udp4')
    await new Promise<void>((resolve) => owner.bind(0, '127.0.0.1', resolve))
    t.teardown(() => owner.close())
    const { port } = owner.address()
    await refuses(t, await start({ MILLRACE_LISTEN: `127.0.0.1:${port}` }), {
      code: 'MILLRACE_E_PORT',
      exit: 3,
      says: new RegExp(String(port)),
    })
  })
})

void t.test('wrong input that only root can give', async (t) => {
  if (!privileged(t)) return
  const pair = new VethPair(2)
  t.teardown(() => pair.close())
  const nats = await startNats({ ns: pair.b })
  t.teardown(() => nats.stop())
  for (const backend of ['xdp', 'packet'] as const) {
    const env = { ...environment({ backend, queues: 2 }), NATS_URL: nats.url }
    await t.test(`${backend}: unknown interface`, (t) =>
      refuses(
        t,
        { ns: pair.b, env: { ...env, MILLRACE_INTERFACE: 'nosuch0' } },
        { code: 'MILLRACE_E_INTERFACE', exit: 3, says: /nosuch0/ },
      ),
    )
    await t.test(`${backend}: missing capability`, (t) =>
      refuses(
        t,
        { ns: pair.b, env, prefix: ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] },
        { code: 'MILLRACE_E_PERMISSION', exit: 3, says: /CAP_NET_RAW|NET_RAW|CAP_NET_ADMIN|CAP_BPF/ },
      ),
    )
  }
})

void t.test('a handler that throws loses its batch to a counter, not the worker', async (t) => {
  const nats = await startNats()
  t.teardown(() => nats.stop())
  const dir = t.testdir({ 'moody.mjs': 'export default () => { throw new Error("not today") }' })
  const { port, env } = await loopback({ NATS_URL: nats.url, MILLRACE_HANDLER: `${dir}/moody.mjs` })
  const service = await Service.start({ env })
  t.teardown(() => service.kill())
  await blast(null, { to: `127.0.0.1:${port}`, count: 1000, rate: 5000 }).done
  const ended = await service.stop()
  const books = totals(ended)
  t.match(books, { received: 1000, handled: 0 })
  t.same(books.dropped, { handler_failed: 1000 })
})
