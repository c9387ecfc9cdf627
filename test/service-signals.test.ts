// Signals and exit statuses, with the service in a process of its own.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'

// The children mostly wait; one after the other they would take most of tap's timeout on a busy machine.
t.jobs = 4

const FAKE = fileURLToPath(new URL('./service-fake.test.js', import.meta.url))

interface Line {
  readonly msg: string
  readonly calls?: readonly string[]
  readonly [field: string]: unknown
}

/** A running child, what it has written, and a way to wait for a log line. */
class Child {
  readonly lines: Line[] = []
  stderr = ''
  readonly #process: ChildProcess
  readonly #ended: Promise<unknown[]>
  readonly #waiting = new Map<string, (line: Line) => void>()

  constructor(scenario: object) {
    this.#process = spawn(process.execPath, [FAKE, 'child', JSON.stringify(scenario)])
    this.#ended = once(this.#process, 'close')
    t.teardown(() => this.#process.kill('SIGKILL'))
    this.#process.stderr!.on('data', (chunk) => {
      this.stderr += String(chunk)
    })
    createInterface(this.#process.stdout!).on('line', (text) => {
      const line = JSON.parse(text) as Line
      this.lines.push(line)
      this.#waiting.get(line.msg)?.(line)
    })
  }

  async line(msg: string): Promise<Line> {
    return (
      this.lines.find((l) => l.msg === msg) ?? (await new Promise((found) => this.#waiting.set(msg, found)))
    )
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  async status(): Promise<number | null> {
    const [code] = await this.#ended
    return code as number | null
  }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`${signal} drains in order`, { buffered: true }, async (t) => {
    const child = new Child({ stopMs: 200 })
    await child.line('receiving')
    child.kill(signal)
    t.equal(await child.status(), 0)
    const order = ['receiving', 'draining', 'closing books', 'calls']
    t.same(
      child.lines.map((l) => l.msg).filter((msg) => order.includes(msg)),
      order,
    )
    t.same(child.lines.at(-1)?.calls, ['start', 'stop 5000', 'stopped'])
    t.match(child.stderr, /^received {2,}135$/m, 'the table is on stderr')
    t.match(child.stderr, 'the books balance')
  })

  t.test(`a second ${signal} exits at once`, { buffered: true }, async (t) => {
    const child = new Child({ stopMs: 60_000 })
    await child.line('receiving')
    child.kill(signal)
    await child.line('draining')
    child.kill(signal)
    t.equal(await child.status(), signal === 'SIGINT' ? 130 : 143)
    t.ok(await child.line('second signal: exiting at once, nothing is drained further'))
    t.notOk(child.lines.some((l) => l.msg === 'closing books'))
  })
}

t.test('an exception during the drain decides the exit status', { buffered: true }, async (t) => {
  const child = new Child({ mishap: 'late', stopMs: 500 })
  await child.line('receiving')
  await child.line('armed')
  child.kill('SIGTERM')
  t.equal(await child.status(), 1)
  t.match(await child.line('late'), { level: 'error' })
  t.ok(await child.line('closing books'))
})

t.test('SIGHUP changes nothing', { buffered: true }, async (t) => {
  const child = new Child({})
  await child.line('receiving')
  child.kill('SIGHUP')
  await child.line('SIGHUP ignored: a restart is needed to read the configuration again')
  child.kill('SIGTERM')
  t.equal(await child.status(), 0)
})

t.test('a signal while starting stops, too', { buffered: true }, async (t) => {
  const child = new Child({ startMs: 60_000 })
  await child.line('serving /metrics, /healthz and /readyz')
  child.kill('SIGTERM')
  t.equal(await child.status(), 0)
  t.same(child.lines.at(-1)?.calls, ['start', 'stop 5000', 'stopped'])
})

const ends: [scenario: object, status: number, says: string][] = [
  [{ mishap: 'uncaught' }, 1, 'nobody caught me'],
  [{ mishap: 'rejection' }, 1, 'nobody awaited me'],
  [{ mishap: 'fatal MILLRACE_E_WORKER' }, 5, 'as told'],
  [{ mishap: 'fatal MILLRACE_E_STATE' }, 1, 'as told'],
]
for (const [scenario, status, says] of ends) {
  t.test(`${JSON.stringify(scenario)} ends with ${status}`, { buffered: true }, async (t) => {
    const child = new Child(scenario)
    t.equal(await child.status(), status)
    t.match(await child.line(says), { level: 'error' })
    t.same(child.lines.at(-1)?.calls, ['start', 'stop 5000', 'stopped'], 'it drained first')
  })
}

const refusals: [code: string, status: number][] = [
  ['MILLRACE_E_PORT', 3],
  ['MILLRACE_E_RULES', 2],
  ['MILLRACE_E_UNEXPECTED', 1],
]
for (const [code, status] of refusals) {
  t.test(`a start refused with ${code} ends with ${status}`, { buffered: true }, async (t) => {
    const child = new Child({ mishap: `start ${code}` })
    t.equal(await child.status(), status)
    t.equal(child.stderr, `${code}: as told\n`, 'one line')
  })
}

t.test('datagrams left in a queue end with 4', { buffered: true }, async (t) => {
  const child = new Child({ left: 7 })
  await child.line('receiving')
  child.kill('SIGTERM')
  t.equal(await child.status(), 4)
  t.match(child.stderr, 'MILLRACE_E_DRAIN: ')
  t.match(await child.line('closing books'), { level: 'error', books: { queued: 7, balanced: true } })
})
