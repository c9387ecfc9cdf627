/** Worker threads of the real service, with handlers that misbehave in every way a handler can. Loopback, any user. */
import t from 'tap'
import { blast } from '../rig/blast.js'
import { freeUdpPort } from '../rig/ports.js'
import { testbed } from '../rig/testbed.js'

t.setTimeout(240_000)

/** A handler module in a folder of the test's own. */
function handler(t: { testdir(files: Record<string, string>): string }, body: string): string {
  return `${t.testdir({ 'handler.mjs': body })}/handler.mjs`
}

async function start(
  t: Parameters<typeof handler>[0] & { teardown(f: () => unknown): void },
  body: string,
  env = {},
) {
  const port = await freeUdpPort()
  const s = await testbed({
    backend: 'socket',
    wire: false,
    queues: 1,
    format: 'raw',
    port,
    verify: false,
    rules: 'queue(0)',
    env: { MILLRACE_HANDLER: handler(t, body), MILLRACE_RX_THREADS: 1, ...env },
  })
  t.teardown(() => s.close())
  return s
}

void t.test('a setup that throws ends the start, with its words', async (t) => {
  await t.rejects(
    start(
      t,
      `export default { async setup() { await new Promise((r) => setTimeout(r, 500)); throw new Error('no database') }, handle() {} }`,
    ),
    /MILLRACE_E_HANDLER: .*no database/,
  )
})

void t.test('a timer and a server that a handler leaves open do not delay the end', async (t) => {
  const s = await start(
    t,
    `import { createServer } from 'node:net'
     export default { setup() { setInterval(() => {}, 10); createServer().listen(0, '127.0.0.1') }, handle(b, out) { out.forward(b) } }`,
    { MILLRACE_DRAIN_MS: 20_000 },
  )
  const ended = await s.service.stop()
  t.equal(ended.code, 0, s.service.lastOutput())
  // A worker that does not end by itself is terminated after the deadline, and the drain is then not clean.
  t.match(
    ended.log.filter((l) => l.books !== undefined),
    [{ clean: true }],
  )
  t.equal(ended.text.filter((line) => line.includes('MILLRACE_E_DRAIN')).length, 0)
})

void t.test(
  'a worker that dies is started again on its lanes; the batch it held is failed, nothing else',
  async (t) => {
    // Dies in the handler on one datagram of 3,000: by an exception outside any batch, which ends the thread.
    const s = await start(
      t,
      `export default { async handle(batch, out) {
       for (const i of batch) if (batch.u32(i, 0) === 1500) { setImmediate(() => { throw new Error('boom') }); await new Promise(() => {}) }
       out.forward(batch)
     } }`,
      { MILLRACE_BATCH: 10 },
    )
    const report = await blast(null, { to: s.target, count: 3000, rate: 10_000, size: '64' }).done
    await s.service.line((l) => l.msg === 'worker runs again', 'worker runs again')
    await s.subscriber.settled(2990, 2000)
    const { books, code } = await s.service.stop()
    t.equal(code, 0, s.service.lastOutput())
    const b = books as unknown as Record<string, number> & { publisherDropped: Record<string, number> }
    t.equal(b['received'], report.sent)
    t.equal(b['handled']! + b['failed']!, report.sent)
    t.ok(b['failed']! >= 1 && b['failed']! <= 10, `failed ${b['failed']}: the batch it died in`)
    // What its connection had not taken when it died may or may not have arrived.
    t.equal(b['taken']! + b['publisherDropped']['unconfirmed']!, b['emitted'])
    t.equal(b['balanced'], true)
  },
)

void t.test('process.exit in a handler ends its worker, not the service', async (t) => {
  const s = await start(
    t,
    `export default { handle(batch, out) { if (batch.u32(0, 0) === 0) process.exit(3); out.forward(batch) } }`,
    { MILLRACE_BATCH: 1 },
  )
  await blast(null, { to: s.target, count: 100, rate: 10_000, size: '64' }).done
  await s.service.line((l) => l.msg === 'worker runs again', 'worker runs again')
  await s.subscriber.settled(99)
  const { books, code } = await s.service.stop()
  t.equal(code, 0, s.service.lastOutput())
  t.match(books, { received: 100, handled: 99, failed: 1, balanced: true })
})

void t.test(
  'a worker that cannot come up again ends the service, after trying with growing pauses',
  async (t) => {
    const s = await start(
      t,
      `import { existsSync, writeFileSync } from 'node:fs'
     const mark = new URL('ran', import.meta.url)
     export default {
       setup() { if (existsSync(mark)) throw new Error('never again'); writeFileSync(mark, '') },
       handle() { process.exit(1) },
     }`,
    )
    await blast(null, { to: s.target, count: 1, rate: 1000, size: '64' }).done
    const ended = await s.service.ended
    t.equal(ended.code, 5, s.service.lastOutput())
    const pauses = ended.log.flatMap((l) => {
      const { restartInMs } = l as { restartInMs?: number }
      return restartInMs === undefined ? [] : [restartInMs]
    })
    t.same(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000])
  },
)
