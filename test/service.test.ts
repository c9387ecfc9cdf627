import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { MillraceError } from '../src/errors.js'
import { createLog, readableLine } from '../src/log.js'
import { healthy, ready } from '../src/service/health.js'
import { run } from '../src/service/run.js'
import { FakeDataPlane, type OpenSnapshot, snapshot, testConfig } from './service-fake.test.js'

interface Line {
  readonly level: string
  readonly msg: string
  readonly time?: string
  readonly [field: string]: unknown
}

/** The service in this process, on a fake data plane, with what it logs and prints. */
function started(plane: FakeDataPlane, env: Record<string, string> = {}) {
  const lines: Line[] = []
  const printed: string[] = []
  const stream = { write: (line: string) => lines.push(JSON.parse(line) as Line) }
  const log = createLog({ stream, readable: false, level: 'debug' })
  const status = run(testConfig(env), plane, log, { print: (text) => printed.push(text), table: false })
  const line = async (msg: string): Promise<Line> => {
    for (const deadline = Date.now() + 10_000; Date.now() < deadline; await sleep(5)) {
      const found = lines.find((l) => l.msg === msg)
      if (found) return found
    }
    throw new Error(`no line "${msg}" among ${lines.map((l) => l.msg).join(' | ')}`)
  }
  const get = async (path: string, init: RequestInit = {}) => {
    const { address } = await line('serving /metrics, /healthz and /readyz')
    return await fetch(`http://${String(address)}${path}`, { ...init, headers: { connection: 'close' } })
  }
  return { lines, printed, status, line, get }
}

const EVENTS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException']

t.test('from start to closing books', async (t) => {
  const listeners = EVENTS.map((event) => process.listenerCount(event))
  const plane = new FakeDataPlane()
  let start = () => {}
  plane.mayStart = new Promise((resolve) => {
    start = resolve
  })
  plane.stopMs = 500
  const service = started(plane)

  const early = await service.get('/readyz')
  t.equal(early.status, 503)
  t.same(await early.json(), { ok: false, phase: 'starting', reasons: ['starting'] })
  t.equal((await service.get('/healthz')).status, 200, 'alive while starting')
  t.match(await (await service.get('/metrics')).text(), 'millrace_build_info')

  start()
  t.match(await service.line('receiving'), { backend: 'packet', interface: 'eth0', threads: 2, queues: 2 })
  t.match(await service.line('backend xdp refused'), { code: 'MILLRACE_E_PERMISSION' })
  t.match(await service.line('the kernel granted less'), { level: 'warn', degraded: ['busy poll refused'] })
  const now = await service.get('/readyz')
  t.equal(now.status, 200)
  t.same(await now.json(), { ok: true, phase: 'running', reasons: [] })
  const scraped = await service.get('/metrics')
  t.match(scraped.headers.get('content-type'), 'text/plain; version=0.0.4')
  t.match(await scraped.text(), 'millrace_received_datagrams_total{thread="0",kind="receive"} 100')
  t.equal((await service.get('/elsewhere')).status, 404)
  t.equal((await service.get('/metrics', { method: 'POST' })).status, 405)
  const head = await service.get('/healthz', { method: 'HEAD' })
  t.equal(head.status, 200)
  t.equal(await head.text(), '')

  plane.snap.workers[1]!.counters.connected = 0
  t.match(await (await service.get('/readyz')).json(), { reasons: ['publisher 1 is not connected to NATS'] })
  plane.snap.workers[1]!.counters.connected = 1
  plane.snap.workers[0]!.heartbeatAgeMs = 2000
  const stalled = await service.get('/healthz')
  t.equal(stalled.status, 503)
  t.match(await stalled.json(), { reasons: ['worker 0 has not answered for 2000 ms'] })
  plane.snap.workers[0]!.heartbeatAgeMs = 1

  process.emit('SIGHUP')
  t.match(await service.line('SIGHUP ignored: a restart is needed to read the configuration again'), {
    level: 'warn',
  })
  process.emit('SIGTERM')
  t.match(await service.line('draining'), { cause: 'SIGTERM', drainMs: 5000 })
  t.same(await (await service.get('/readyz')).json(), { ok: false, phase: 'draining', reasons: ['draining'] })
  t.equal((await service.get('/healthz')).status, 200, 'alive while draining')

  t.equal(await service.status, 0)
  t.match(await service.line('closing books'), {
    clean: true,
    books: {
      received: 135,
      handled: 115,
      balanced: true,
      dropped: { rule: 11, queue_full: 2, rule_early: 5 },
    },
  })
  t.same(plane.calls, ['start', 'stop 5000', 'stopped'])
  t.same(service.printed, [])
  t.same(
    EVENTS.map((event) => process.listenerCount(event)),
    listeners,
    'the process is let go',
  )
})

t.test('a rules file that changes while the service starts', async (t) => {
  const path = join(t.testdir({ rules: 'queue(0)' }), 'rules')
  const begin = (hangup: boolean) => {
    const plane = new FakeDataPlane()
    let start = () => {}
    plane.mayStart = new Promise((resolve) => {
      start = resolve
    })
    const service = started(plane, { MILLRACE_RULES_FILE: path })
    if (hangup) process.emit('SIGHUP')
    return { plane, service, start: () => start() }
  }
  const end = async (service: ReturnType<typeof started>) => {
    process.emit('SIGTERM')
    t.equal(await service.status, 0)
  }

  const asked = begin(true)
  writeFileSync(path, 'queue(1)')
  t.match(asked.service.lines.at(-1), {
    level: 'info',
    msg: /^SIGHUP while starting: the rules file is read/,
  })
  t.same(asked.plane.calls, ['start'].slice(0, asked.plane.calls.length), 'not before it has started')
  asked.start()
  await asked.service.line('rules reloaded')
  await end(asked.service)
  t.same(asked.plane.calls.slice(0, 2), ['start', 'reload queue(1)'])

  const unasked = begin(false)
  writeFileSync(path, 'queue(2)')
  unasked.start()
  await unasked.service.line('rules reloaded')
  await end(unasked.service)
  t.same(unasked.plane.calls, ['start', 'reload queue(2)', 'stop 5000', 'stopped'])

  const same = begin(true)
  same.start()
  await same.service.line('rules reloaded')
  await end(same.service)
  t.same(
    same.plane.calls,
    ['start', 'reload queue(2)', 'stop 5000', 'stopped'],
    'once, although nothing changed',
  )
})

t.test('health', async (t) => {
  const verdict = (probe: typeof healthy, change: (s: OpenSnapshot) => void, phase = 'running' as const) => {
    const snap = snapshot()
    change(snap)
    return probe(phase, snap).reasons
  }
  t.same(
    verdict(healthy, () => {}),
    [],
  )
  t.same(
    verdict(healthy, (s) => (s.engine.threads[1]!.error = 'gone')),
    ['receive thread 1: gone'],
  )
  t.same(
    verdict(healthy, (s) => (s.workers[1]!.state = 'failed')),
    ['worker 1 failed'],
  )
  t.same(
    verdict(healthy, (s) => (s.workers[1]!.heartbeatAgeMs = 1999)),
    [],
  )
  t.same(
    verdict(healthy, (s) => {
      s.workers[1]!.heartbeatAgeMs = 9999
      s.workers[1]!.state = 'stopped'
    }),
    [],
    'a stopped worker need not answer',
  )
  t.same(
    verdict(ready, () => {}),
    [],
  )
  t.same(
    verdict(ready, (s) => (s.workers[0]!.state = 'starting')),
    ['worker 0 is starting'],
  )
  t.same(
    verdict(ready, (s) => (s.engine.threads[0]!.error = 'gone')),
    ['receive thread 0: gone'],
  )
  t.same(
    verdict(ready, (s) => (s.engine.threads[0]!.away = 'interface eth0 was removed')),
    ['receive thread 0: interface eth0 was removed'],
  )
  t.same(
    verdict(healthy, (s) => (s.engine.threads[0]!.away = 'interface eth0 was removed')),
    [],
    'a receiver that waits for its interface must not be restarted',
  )
  t.same(
    verdict(ready, (s) => s.engine.threads.splice(0)),
    ['no receive thread'],
  )
  t.same(ready('running', null).reasons, ['no data plane'])
  t.same(healthy('starting', null), { ok: true, phase: 'starting', reasons: [] })
})

t.test('requests no client should send', async (t) => {
  const service = started(new FakeDataPlane())
  const { address } = await service.line('serving /metrics, /healthz and /readyz')
  const { port } = new URL(`http://${String(address)}`)
  for (const target of ['//', 'http://[', '*', '/%zz', '/metrics?x=1']) {
    const socket = connect(Number(port), '127.0.0.1')
    socket.end(`GET ${target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
    let answer = ''
    for await (const chunk of socket) answer += String(chunk)
    t.match(answer, target.startsWith('/metrics') ? /^HTTP\/1.1 200 / : /^HTTP\/1.1 40[04] /, target)
  }
  await service.line('receiving')
  process.emit('SIGTERM')
  t.equal(await service.status, 0)
})

t.test('a counter that went backwards does not cost the scrape', async (t) => {
  const plane = new FakeDataPlane()
  plane.snap.engine.threads[0]!.wakeups = -1
  const service = started(plane)
  await service.line('receiving')
  const answer = await service.get('/metrics')
  t.equal(answer.status, 200)
  t.match(await answer.text(), 'millrace_thread_wakeups_total{thread="0",kind="receive"} 0')
  process.emit('SIGTERM')
  t.equal(await service.status, 0)
})

t.test('what Kubernetes injects is one debug line', async (t) => {
  const service = started(new FakeDataPlane(), {
    MILLRACE_HTTP: 'off',
    MILLRACE_PORT: 'tcp://10.0.0.7:9180',
    MILLRACE_SERVICE_HOST: '10.0.0.7',
  })
  await service.line('receiving')
  process.emit('SIGTERM')
  t.equal(await service.status, 0)
  t.match(await service.line('ignored variables that Kubernetes injects for a Service'), {
    level: 'debug',
    names: ['MILLRACE_PORT', 'MILLRACE_SERVICE_HOST'],
  })
})

t.test('the HTTP port is taken', async (t) => {
  const other = createServer().listen(0, '127.0.0.1')
  t.teardown(() => other.close())
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  const plane = new FakeDataPlane()
  const service = started(plane, { MILLRACE_HTTP: `127.0.0.1:${port}` })
  t.equal(await service.status, 3)
  t.same(service.printed, [
    `MILLRACE_E_PORT: MILLRACE_HTTP="127.0.0.1:${port}": taken by another process; expected a free TCP port, or off`,
  ])
  t.same(plane.calls, [], 'before anything was opened')
})

t.test('an address that is not ours', async (t) => {
  const service = started(new FakeDataPlane(), { MILLRACE_HTTP: '192.0.2.1:9' })
  t.equal(await service.status, 3)
  t.match(service.printed[0], 'MILLRACE_E_PORT: MILLRACE_HTTP="192.0.2.1:9": no address of this host')
})

t.test('the start is refused', async (t) => {
  const plane = new FakeDataPlane()
  plane.startError = new Error('MILLRACE_E_INTERFACE: nosuch0: no such interface')
  const service = started(plane, { MILLRACE_HTTP: 'off' })
  t.equal(await service.status, 3)
  t.same(service.printed, ['MILLRACE_E_INTERFACE: nosuch0: no such interface'])
})

t.test('the drain leaves something', async (t) => {
  const leave: [string, (plane: FakeDataPlane) => void][] = [
    ['not clean', (p) => (p.clean = false)],
    [
      'dropped at shutdown',
      ({ snap }) => {
        snap.workers[0]!.counters.taken--
        snap.workers[0]!.counters.droppedShutdown++
      },
    ],
    ['unbalanced', ({ snap }) => snap.engine.threads[0]!.received++],
    ['stop rejects', (p) => (p.stop = () => Promise.reject(new Error('stuck')))],
  ]
  for (const [name, change] of leave) {
    const plane = new FakeDataPlane()
    change(plane)
    const service = started(plane, { MILLRACE_HTTP: 'off' })
    await service.line('receiving')
    process.emit('SIGINT')
    t.equal(await service.status, 4, name)
    t.match(service.printed, [/^MILLRACE_E_DRAIN: /])
  }
})

t.test('a data plane that never answers', async (t) => {
  const plane = new FakeDataPlane()
  plane.stop = () => new Promise(() => {})
  const service = started(plane, { MILLRACE_HTTP: 'off', MILLRACE_DRAIN_MS: '0' })
  await service.line('receiving')
  process.emit('SIGTERM')
  t.equal(await service.status, 4)
})

t.test('it cannot go on', async (t) => {
  const plane = new FakeDataPlane()
  const service = started(plane, { MILLRACE_HTTP: 'off' })
  await service.line('receiving')
  plane.fatal(new MillraceError('MILLRACE_E_RECEIVE', 'no thread left'))
  plane.fatal(new MillraceError('MILLRACE_E_WORKER', 'and then this'))
  t.equal(await service.status, 5)
  t.match(await service.line('no thread left'), { level: 'error', err: { code: 'MILLRACE_E_RECEIVE' } })
  t.ok(await service.line('and then this'), 'what comes later is seen, too')
  t.ok(await service.line('closing books'))
})

t.test('log', async (t) => {
  const lines: string[] = []
  const stream = { write: (line: string) => lines.push(line) }
  const log = createLog({ stream, readable: false, level: 'debug' })
  log.info({ nats: { user: 'u', password: 'hunter2' }, token: 'hunter2' }, 'connecting')
  const json = JSON.parse(lines[0]!) as Line
  t.match(json, {
    level: 'info',
    msg: 'connecting',
    token: '[redacted]',
    nats: { user: 'u', password: '[redacted]' },
  })
  t.match(json.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  t.notOk('pid' in json || 'hostname' in json)
  createLog({ stream, readable: true }).warn({ queue: 3, why: 'two words' }, 'slow')
  t.match(lines[1], /^\d\d:\d\d:\d\d\.\d{3} WARN {2}slow {2}queue=3 {2}why="two words"\n$/)
  createLog({ stream, readable: true }).error({ err: new Error('bad') }, 'failed')
  t.match(lines[2], /ERROR failed\n {4}Error: bad\n {4,}at /)
  t.match(readableLine('{"level":"info","time":"2026-01-01T01:02:03.004Z"}'), /^01:02:03\.004 INFO/)
})
