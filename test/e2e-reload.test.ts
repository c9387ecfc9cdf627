/**
 * Reloading under traffic, through the real service: every datagram that was sent is taken at NATS once, and what
 * became of it (queue, rule, key) is what one of the two rule sets says, whole.
 */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { type Blast, blast } from '../rig/blast.js'
import { totals } from '../rig/books.js'
import { privileged, spawnIn } from '../rig/netns.js'
import { freeUdpPort } from '../rig/ports.js'
import { A, B, HANDLER, type ReloadSummary } from '../rig/reload-rules.js'
import { DEEP_RINGS, type Testbed, type TestbedOptions, testbed } from '../rig/testbed.js'

t.setTimeout(240_000)

const CHECK = fileURLToPath(new URL('../rig/reload-subscriber.js', import.meta.url))
const QUEUES = 4
const RELOADS = 100
/** Slow enough that nothing is lost on two busy CPUs. */
const RATE = 8000
/** Datagrams that arrive at NATS between two reloads at least. */
const BETWEEN = 200

/** A service that reads its rules from `rules`, its handler in folder `dir`; results are checked as they come. */
async function start(
  t: Test,
  dir: string,
  rules: string,
  options: Partial<TestbedOptions> = {},
  body = HANDLER,
) {
  const handler = join(dir, 'handler.mjs')
  writeFileSync(handler, body)
  const wire = options.wire ?? false
  const s = await testbed({
    backend: 'socket',
    wire,
    queues: QUEUES,
    ...(wire ? {} : { port: await freeUdpPort() }),
    verify: false,
    rulesFile: rules,
    ...options,
    env: { ...DEEP_RINGS, MILLRACE_HANDLER: handler, MILLRACE_RX_THREADS: 2, ...options.env },
  })
  t.teardown(() => s.close())
  const child = spawnIn(s.ns, [process.execPath, CHECK, s.nats.url, String(QUEUES)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  t.teardown(() => child.disconnect())
  let summary: ReloadSummary | undefined
  child.on('message', (told: ReloadSummary) => {
    if (!summary?.last) summary = told
  })
  const until = async (what: string, done: (summary: ReloadSummary) => boolean): Promise<ReloadSummary> => {
    for (const end = Date.now() + 60_000; Date.now() < end; await sleep(10)) {
      if (summary && done(summary)) return summary
    }
    throw new Error(`not within 60 s: ${what}; ${JSON.stringify(summary)}`)
  }
  await until('the subscription', () => true)
  const last = () => {
    child.send('last')
    return until('the last word', (summary) => summary.last)
  }
  return { s, until, last, seen: () => summary?.seen ?? 0 }
}

type Run = Awaited<ReturnType<typeof start>>

/** Numbered datagrams until they are stopped. */
const send = ({ s }: Run): Blast =>
  blast(s.sender, { to: s.target, rate: RATE, seconds: 200, size: '8..200', flows: 16 })

/** Stops the traffic, and compares all books with what was sent. */
async function settle(t: Test, { s, until, last }: Run, traffic: Blast, metrics = true) {
  traffic.stop()
  const { sent } = await traffic.done
  await until(`all ${sent}`, ({ seen }) => seen >= sent)
  const counted = metrics ? await counters(s) : undefined
  const ended = await s.service.stop()
  t.equal(ended.code, 0, 'it ended well')
  const books = totals(ended)
  t.match(books, { received: sent, handled: sent, taken: sent, balanced: true })
  t.same(books.dropped, {}, 'nothing lost, by the kernel or by us')
  const { seen, highest, bySet, faults } = await last()
  t.same({ seen, highest, faults }, { seen: sent, highest: sent - 1, faults: [] }, 'every number once')
  return { sent, bySet, ...counted, backend: books.backend, mode: books.mode }
}

/** What /metrics says of the rules. */
async function counters(s: Testbed) {
  const { address } = await s.service.line((l) => l.address !== undefined, 'the address of /metrics')
  const text = await (await fetch(`http://${address}/metrics`)).text()
  const read = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1])
  return { refused: read('millrace_rules_refused_total'), generation: read('millrace_rules_generation') }
}

/** Waits until a generation is in force, and traffic has flowed under it. */
async function reloaded({ s, until, seen }: Run, generation: number): Promise<void> {
  const name = `generation ${generation}`
  await s.service.line((l) => l.msg === 'rules reloaded' && l.generation === generation, name)
  const enough = seen() + BETWEEN
  await until(`${BETWEEN} datagrams under ${name}`, (summary) => summary.seen >= enough)
}

const BACKENDS: readonly [options: Partial<TestbedOptions>, mode: RegExp][] = [
  [{ backend: 'socket', wire: false }, /^reuseport/],
  [
    { backend: 'packet', wire: true, env: { MILLRACE_FANOUT: 'rules', MILLRACE_RX_THREADS: QUEUES } },
    /^tpacket_v3 fanout rules/,
  ],
  [{ backend: 'xdp', wire: true }, /^native/],
]

for (const [options, mode] of BACKENDS) {
  void t.test(`a hundred reloads by SIGHUP, ${options.backend}`, async (t) => {
    if (options.wire && !privileged(t)) return
    // The link's directory is the one that is watched; the file is in another, so that nothing but the signal reads it.
    const dir = t.testdir({ watched: {}, rules: A })
    const link = join(dir, 'watched', 'rules')
    symlinkSync('../rules', link)
    const run = await start(t, dir, link, options)
    const traffic = send(run)
    for (let k = 1; k <= RELOADS; k++) {
      writeFileSync(join(dir, 'rules'), k % 2 === 1 ? B : A)
      run.s.service.hangup()
      await reloaded(run, k + 1)
    }
    // On the wire /metrics is in the other namespace; the log has counted the reloads.
    const books = await settle(t, run, traffic, !options.wire)
    t.match(books.mode, mode)
    if (!options.wire) t.match(books, { refused: 0, generation: RELOADS + 1 })
    t.ok(books.bySet[0] > 0 && books.bySet[1] > 0, `${books.bySet} of ${books.sent}`)
  })
}

/** A ConfigMap as the kubelet mounts it: files are links through `..data` to a folder with a time in its name. */
class ConfigMap {
  readonly path: string
  readonly #dir: string
  #version = 0

  constructor(dir: string, rules: string) {
    this.#dir = dir
    this.path = join(dir, 'rules')
    this.swap(rules)
    symlinkSync('..data/rules', this.path)
  }

  /** Puts a new version in place by one rename, and removes the old one. */
  swap(rules: string): void {
    const name = (version: number) => `..2026_01_02_03_04_05.${version}`
    this.#version += 1
    mkdirSync(join(this.#dir, name(this.#version)))
    writeFileSync(join(this.#dir, name(this.#version), 'rules'), rules)
    symlinkSync(name(this.#version), join(this.#dir, '..data_tmp'))
    renameSync(join(this.#dir, '..data_tmp'), join(this.#dir, '..data'))
    rmSync(join(this.#dir, name(this.#version - 1)), { recursive: true, force: true })
  }
}

void t.test('a hundred reloads by swaps of a ConfigMap', async (t) => {
  const dir = t.testdir({ config: {} })
  const map = new ConfigMap(join(dir, 'config'), A)
  const run = await start(t, dir, map.path)
  const traffic = send(run)
  for (let k = 1; k <= RELOADS; k++) {
    map.swap(k % 2 === 1 ? B : A)
    await reloaded(run, k + 1)
  }
  const { sent, bySet, refused, generation } = await settle(t, run, traffic)
  t.same({ refused, generation }, { refused: 0, generation: RELOADS + 1 })
  t.ok(bySet[0] > 0 && bySet[1] > 0, `${bySet} of ${sent}`)
})

void t.test(
  'rules that cannot be taken leave the old ones in force, with one error and one count each',
  async (t) => {
    const dir = t.testdir({ rules: A })
    const path = join(dir, 'rules')
    const run = await start(t, dir, path)
    const traffic = send(run)
    const errors = () => run.s.service.log.filter((l) => l.msg?.startsWith('rules not reloaded'))
    const refused = async (n: number, because: RegExp) => {
      await run.s.service.line(() => errors().length >= n, `error ${n}`)
      t.match(errors()[n - 1]?.reason, because)
      t.equal((await counters(run.s)).refused, n)
    }
    const replace = (bytes: string | Uint8Array) => {
      writeFileSync(join(dir, 'new'), bytes)
      renameSync(join(dir, 'new'), path)
    }
    replace('a_low: u8[3] < 128 => mud(u32[0])')
    await refused(1, /unknown action `mud`; did you mean `mod`/)
    replace(Uint8Array.of(...Buffer.from(B), 0xff))
    await refused(2, /line 4 is not UTF-8/)
    rmSync(path)
    await refused(3, /no such file/)
    mkdirSync(path)
    await refused(4, /it is a directory/)
    run.s.service.hangup()
    await refused(5, /it is a directory/)
    const codes = errors().map((l) => l.code)
    const [rules, config] = ['MILLRACE_E_RULES', 'MILLRACE_E_CONFIG']
    t.same(codes, [rules, rules, config, config, config])
    const { sent, bySet, generation } = await settle(t, run, traffic)
    t.equal(generation, 1)
    t.same(bySet, [sent, 0], 'every datagram was judged by the rules of the start')
  },
)

void t.test('a worker that is started again knows the rules that were reloaded before', async (t) => {
  const dir = t.testdir({ watched: {}, rules: A })
  const link = join(dir, 'watched', 'rules')
  symlinkSync('../rules', link)
  // Each worker dies on the first datagram that the new rules sent it.
  const dying = HANDLER.replace(
    'export default {',
    `import { existsSync, writeFileSync } from 'node:fs'
     export default {
       setup({ queue }) { this.mark = new URL('died' + queue, import.meta.url) },`,
  ).replace(
    'out.emit(',
    `if (batch.ruleName(i)[0] === 'b' && !existsSync(this.mark)) { writeFileSync(this.mark, ''); process.exit(3) }
     out.emit(`,
  )
  const run = await start(t, dir, link, {}, dying)
  const traffic = send(run)
  writeFileSync(join(dir, 'rules'), B)
  run.s.service.hangup()
  await reloaded(run, 2)
  for (let q = 0; q < QUEUES; q++) {
    await run.s.service.line((l) => l.msg === 'worker runs again' && l.queue === q, `worker ${q} again`)
  }
  await reloaded(run, 2)
  traffic.stop()
  const { sent } = await traffic.done
  const ended = await run.s.service.stop()
  t.equal(ended.code, 0, 'it ended well')
  const { received, balanced } = totals(ended)
  t.same({ received, balanced }, { received: sent, balanced: true })
  const { faults, bySet } = await run.last()
  t.same(faults, [])
  t.ok(bySet[1] > BETWEEN, `${bySet} of ${sent}`)
})

void t.test('a set that drops everything is said so, at the start and when it is reloaded', async (t) => {
  const dir = t.testdir({ watched: {}, rules: 'len < 4 => drop; len >= 4 => drop' })
  const link = join(dir, 'watched', 'rules')
  symlinkSync('../rules', link)
  const { s } = await start(t, dir, link)
  const warnings = () => s.service.log.filter((l) => l.msg === 'these rules drop every datagram').length
  await s.service.line(() => warnings() === 1, 'the warning')
  writeFileSync(join(dir, 'rules'), A)
  s.service.hangup()
  await s.service.line((l) => l.generation === 2, 'generation 2')
  t.equal(warnings(), 1)
  writeFileSync(join(dir, 'rules'), 'drop')
  s.service.hangup()
  await s.service.line((l) => l.generation === 3, 'generation 3')
  t.equal(warnings(), 2)
  t.equal((await s.service.stop()).code, 0)
})
