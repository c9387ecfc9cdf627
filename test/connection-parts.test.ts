/** The parts of the connection that need no server: the order of servers, what is logged, shared calls, limits of time. */
import t from 'tap'
import { DialError, dialError } from '../src/publisher/connection/failure.js'
import { Reasons, RefusedSubjects } from '../src/publisher/connection/log-limits.js'
import { type ServerAddress, ServerList, serverText } from '../src/publisher/connection/server-list.js'
import { SharedCalls } from '../src/publisher/connection/shared-calls.js'
import { TimeLimit } from '../src/publisher/connection/time-limit.js'

/** `random` for an order that is not shuffled. */
const unshuffled = () => 0.999
const list = (...servers: string[]) => new ServerList(servers, true, unshuffled)

void t.test('servers that cannot be dialled are an error, not an empty list', async (t) => {
  for (const servers of [[], ['h:0'], ['h:65536'], ['a:1', 'b c'], ['']]) {
    if (servers[0] === 'a:1') t.doesNotThrow(() => list('a:1'))
    else t.throws(() => list(...servers), /expected/, servers.join())
  }
})

void t.test('what a server announces does not put the first one first again; restart() does', async (t) => {
  const servers = list('a:1', 'b:1')
  const via = servers.next()
  servers.announce(['c:1', 'broken:0'], via)
  t.same([servers.next(), servers.next(), servers.next()].map(serverText), ['b:1', 'c:1', 'a:1'])
  servers.restart()
  t.equal(serverText(servers.next()), 'a:1')
})

void t.test('a move tries every other server, and then the same name', async (t) => {
  const servers = list('a:1', 'b:1')
  const [a] = servers.all as [ServerAddress]
  servers.announce(['c:1'], a)
  t.same(servers.others(a).map(serverText), ['b:1', 'c:1', 'a:1'])
})

void t.test('a reason is logged once a minute, with the number not logged', async (t) => {
  const reasons = new Reasons()
  t.equal(reasons.admit('a', false, 0), 0)
  for (let i = 0; i < 5; i++) t.equal(reasons.admit('a', false, 1000), undefined)
  t.equal(reasons.admit('a', false, 60_000), 5)
  t.equal(reasons.admit('a', false, 60_001), undefined)
  t.equal(reasons.admit('a', true, 60_002), 1, 'one that must be logged')
  t.equal(reasons.admit('a', false, 60_003), undefined)
  reasons.forget()
  t.equal(reasons.admit('a', false, 60_004), 1, 'the number is not forgotten')
})

void t.test('of too many reasons the oldest is forgotten, not all', async (t) => {
  const reasons = new Reasons()
  for (let i = 0; i < 65; i++) reasons.admit(`${i}`, false, i)
  for (let i = 1; i < 65; i++) t.equal(reasons.admit(`${i}`, false, 100), undefined, `${i}`)
  t.equal(reasons.admit('0', false, 100), 0)
})

void t.test('refused subjects: one line a second in all, one a minute for each', async (t) => {
  const subjects = new RefusedSubjects()
  const lines: number[] = []
  for (let ms = 0; ms < 10_000; ms++) {
    const silent = subjects.admit(`s.${ms % 200}`, ms)
    if (silent !== undefined) lines.push(silent)
  }
  t.equal(lines.length, 10)
  t.same(lines.slice(0, 2), [0, 1000])
  const one = new RefusedSubjects()
  t.equal(one.admit('s', 0), 0)
  t.equal(one.admit('s', 5000), undefined)
  t.equal(one.admit('s', 60_000), 1)
})

void t.test('a shared call is begun once while it is under way, and anew afterwards', async (t) => {
  const calls = new SharedCalls<number>()
  let begun = 0
  let finish: (value: number) => void = () => undefined
  const start = () => {
    begun++
    return new Promise<number>((resolve) => {
      finish = resolve
    })
  }
  const waiting = Array.from({ length: 100 }, () => calls.run('host', start))
  t.equal(begun, 1)
  finish(7)
  t.same(new Set(await Promise.all(waiting)), new Set([7]))
  const again = calls.run('host', start)
  t.equal(begun, 2)
  finish(8)
  t.equal(await again, 8)
  for (let i = 0; i < 2; i++) {
    await t.rejects(
      calls.run('host', async () => {
        throw new Error(`lookup ${i}`)
      }),
      { message: `lookup ${i}` },
      'a failure is not kept',
    )
  }
})

void t.test('a limit names what was waited for, also when it is over before a step begins', async (t) => {
  const limit = new TimeLimit(1, (missing) => `over: ${missing}`)
  const never = new Promise<never>(() => undefined)
  await t.rejects(limit.wait('a file', never), { message: 'over: a file', kind: 'connect' })
  await t.rejects(limit.wait('another', never), { message: 'over: a file' })
  await t.rejects(
    limit.wait('another', Promise.resolve(1)),
    { message: 'over: a file' },
    'done, but too late',
  )
  const cleared = new TimeLimit(1, (missing) => missing)
  cleared.clear()
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.equal(await cleared.wait('x', Promise.resolve(1)), 1)
})

void t.test('reasons are bounded, and their kind is known by the code', async (t) => {
  t.equal(new DialError('connect', 'x'.repeat(10_000)).message.length, 256)
  for (const code of ['INVALID_PURPOSE', 'INVALID_CA', 'CERT_HAS_EXPIRED', 'ERR_SSL_X']) {
    t.equal(dialError(Object.assign(new Error('no'), { code })).kind, 'tls', code)
  }
  t.equal(dialError(Object.assign(new Error('no'), { code: 'ECONNRESET' })).kind, 'connect')
})
