/**
 * Reloading under traffic, through the real service: every datagram that was sent is confirmed at NATS once, and what
 * became of it (queue, rule, key) is what one of the two rule sets says, whole.
 */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { unpack } from 'msgpackr'
import { connect } from 'nats'
import t, { type Test } from 'tap'
import { type Blast, blast } from './rig/blast.js'
import { totals } from './rig/books.js'
import { freeUdpPort } from './rig/ports.js'
import { PATIENT, type Scene, scene } from './rig/scene.js'

t.setTimeout(240_000)

const QUEUES = 4
const RELOADS = 100
/** Slow enough that nothing is lost on two busy CPUs. */
const RATE = 8000
/** Datagrams that arrive at NATS between two reloads at least. */
const BETWEEN = 200

/** What a rule set says of datagram n, whose number is in its first four bytes. */
interface Decision {
  readonly rule: string
  readonly key: number
}

/**
 * Two sets that agree on no datagram: other names at the same index, another number of rules, other keys. A datagram
 * judged by one and named by the other, or by rules of both, is none of the two.
 */
const A = 'a_low: u8[3] < 128 => mod(u32[0])\na_high: mod(u32[0] + 1)\n'
const B =
  'b_3: u32[0] % 3 == 0 => mod(u32[0] + 2)\nb_odd: u8[3] & 1 == 1 => mod(u32[0] * 3 + 3)\nb: mod(u32[0] + 3)\n'
const SETS: readonly ((n: number) => Decision)[] = [
  (n) => ((n & 255) < 128 ? { rule: 'a_low', key: n } : { rule: 'a_high', key: n + 1 }),
  (n) => {
    if (n % 3 === 0) return { rule: 'b_3', key: n + 2 }
    return n % 2 === 1 ? { rule: 'b_odd', key: n * 3 + 3 } : { rule: 'b', key: n + 3 }
  },
]

/** Publishes what became of each datagram: [number, queue, rule, key]. */
const HANDLER = `export default {
  handle(batch, out) {
    for (let i = 0; i < batch.length; i++) {
      out.emit([batch.u32(i, 0), batch.queue, batch.ruleName(i), batch.key(i)])
    }
  },
}`

/** A service on loopback that reads its rules from `rules`, its handler in folder `dir`; results are checked as they come. */
async function start(t: Test, dir: string, rules: string, body = HANDLER) {
  const handler = join(dir, 'handler.mjs')
  writeFileSync(handler, body)
  const port = await freeUdpPort()
  const s = await scene({
    backend: 'socket',
    wire: false,
    queues: QUEUES,
    port,
    verify: false,
    rulesFile: rules,
    env: { ...PATIENT, MILLRACE_HANDLER: handler, MILLRACE_RX_THREADS: 2 },
  })
  t.teardown(() => s.close())
  const seen = new Set<number>()
  const bySet = [0, 0]
  const faults: string[] = []
  const nc = await connect({ servers: s.nats.url })
  t.teardown(() => nc.close())
  nc.subscribe('t.>', {
    callback(_error, message) {
      for (const [n, queue, rule, key] of unpack(message.data) as [number, number, string, number][]) {
        if (seen.has(n)) faults.push(`${n} came twice`)
        seen.add(n)
        const set = SETS.findIndex((decide) => {
          const want = decide(n)
          return want.rule === rule && want.key === key && want.key % QUEUES === queue
        })
        if (set < 0) faults.push(`${n} is of neither set: queue ${queue}, ${rule}, key ${key}`)
        else bySet[set]!++
      }
    },
  })
  await nc.flush()
  return { s, seen, bySet, faults }
}

/** Numbered datagrams until they are stopped. */
const send = (s: Scene): Blast =>
  blast(null, { to: s.target, rate: RATE, seconds: 200, size: '8..200', flows: 16 })

/** Stops the traffic, and compares all books with what was sent. */
async function settle(t: Test, run: Awaited<ReturnType<typeof start>>, traffic: Blast) {
  const { s, seen, bySet, faults } = run
  traffic.stop()
  const { sent } = await traffic.done
  await s.subscriber.settled(sent)
  const { refused, generation } = await counters(s)
  const ended = await s.service.stop()
  t.equal(ended.code, 0, 'it ended well')
  const books = totals(ended)
  t.match(books, { received: sent, handled: sent, confirmed: sent, balanced: true })
  t.same(books.dropped, {}, 'nothing lost, by the kernel or by us')
  t.same(faults.slice(0, 5), [])
  t.equal(seen.size, sent, 'every number once')
  t.ok([...seen].every((n) => n < sent))
  return { sent, bySet, refused, generation }
}

/** What /metrics says of the rules. */
async function counters(s: Scene) {
  const { address } = await s.service.line((l) => l.address !== undefined, 'the address of /metrics')
  const text = await (await fetch(`http://${address}/metrics`)).text()
  const read = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1])
  return { refused: read('millrace_rules_refused_total'), generation: read('millrace_rules_generation') }
}

/** Waits until a generation is in force, and traffic has flowed under it. */
async function reloaded({ s, seen }: Awaited<ReturnType<typeof start>>, generation: number): Promise<void> {
  const name = `generation ${generation}`
  await s.service.line((l) => l.msg === 'rules reloaded' && l.generation === generation, name)
  const enough = seen.size + BETWEEN
  const end = Date.now() + 20_000
  while (seen.size < enough) {
    if (Date.now() > end) throw new Error(`${name}: ${seen.size} datagrams after 20 s, expected ${enough}`)
    await sleep(2)
  }
}

void t.test('a hundred reloads by SIGHUP', async (t) => {
  // The link's directory is the one that is watched; the file is in another, so that nothing but the signal reads it.
  const dir = t.testdir({ watched: {}, rules: A })
  const link = join(dir, 'watched', 'rules')
  symlinkSync('../rules', link)
  const run = await start(t, dir, link)
  const traffic = send(run.s)
  for (let k = 1; k <= RELOADS; k++) {
    writeFileSync(join(dir, 'rules'), k % 2 === 1 ? B : A)
    run.s.service.hangup()
    await reloaded(run, k + 1)
  }
  const { sent, bySet, refused, generation } = await settle(t, run, traffic)
  t.same({ refused, generation }, { refused: 0, generation: RELOADS + 1 })
  t.ok(bySet[0]! > 0 && bySet[1]! > 0, `${bySet} of ${sent}`)
})

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
  const traffic = send(run.s)
  for (let k = 1; k <= RELOADS; k++) {
    map.swap(k % 2 === 1 ? B : A)
    await reloaded(run, k + 1)
  }
  const { sent, bySet, refused, generation } = await settle(t, run, traffic)
  t.same({ refused, generation }, { refused: 0, generation: RELOADS + 1 })
  t.ok(bySet[0]! > 0 && bySet[1]! > 0, `${bySet} of ${sent}`)
})

void t.test(
  'rules that cannot be taken leave the old ones in force, with one error and one count each',
  async (t) => {
    const dir = t.testdir({ rules: A })
    const path = join(dir, 'rules')
    const run = await start(t, dir, path)
    const traffic = send(run.s)
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
  const run = await start(t, dir, link, dying)
  const traffic = send(run.s)
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
  t.same(run.faults.slice(0, 5), [])
  t.ok(run.bySet[1]! > BETWEEN, `${run.bySet} of ${sent}`)
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
