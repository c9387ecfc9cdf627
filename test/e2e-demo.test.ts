/** The demo, run as a person runs it: its exit status, its closing books, and that the totals it prints agree. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Verdict } from '../demo/verdict.js'

// Tap's 30 s are for unit tests.
t.setTimeout(240_000)

/** The demo's program. This file runs from build/test. */
const DEMO = fileURLToPath(new URL('../demo/main.js', import.meta.url))

/** Runs the demo to its end. */
async function demo(prefix: readonly string[], ...options: string[]) {
  // Tap loads itself into every Node process by NODE_OPTIONS; it would write files where another user cannot.
  const [program, ...args] = [...prefix, 'env', '-u', 'NODE_OPTIONS', process.execPath, DEMO, ...options]
  const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (text: Buffer) => {
    stdout += text
  })
  child.stderr.on('data', (text: Buffer) => {
    stderr += text
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout, stderr }
}

/** Reads a number of the printed books, such as `│ sent │ 5,000 │`. */
function printed(text: string, row: string): number {
  const found = new RegExp(`│ ${row}\\s+│\\s+(-?[\\d,]+) │`).exec(text)?.[1]
  if (found === undefined) throw new Error(`no row '${row}' in:\n${text}`)
  return Number(found.replaceAll(',', ''))
}

const root = process.geteuid?.() === 0
const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']

for (const user of root ? ['root', 'an ordinary user'] : ['an ordinary user']) {
  void t.test(`as ${user}`, async (t) => {
    const prefix = root && user !== 'root' ? nobody : []
    const run = await demo(prefix, '--seconds', '1', '--rate', '5000', '--queues', '2', '--json')
    t.equal(run.code, 0, run.stderr)
    t.equal(run.stdout.trim().split('\n').length, 1, 'one JSON object and nothing else on stdout')
    const books = JSON.parse(run.stdout) as Verdict
    const dropped = Object.values(books.dropped).reduce((sum, n) => sum + n, 0)
    t.equal(books.backend, user === 'root' ? 'xdp' : 'socket')
    t.ok(books.sent > 0)
    t.equal(books.balanced, true)
    t.equal(books.sent, books.nats_received + dropped, JSON.stringify(books))

    t.equal(printed(run.stderr, 'sent'), books.sent)
    t.equal(printed(run.stderr, 'received by the NATS subscriber'), books.nats_received)
    for (const [reason, n] of Object.entries(books.dropped)) {
      t.equal(printed(run.stderr, `dropped: ${reason}`), n)
    }
    t.equal(printed(run.stderr, 'unaccounted for'), 0)
    const { sent, backend, mode } = books
    t.match(
      run.stderr,
      `Balanced: all ${sent.toLocaleString('en-US')} datagrams are accounted for (${backend}, ${mode}).`,
    )
  })
}

void t.test('a wrong option ends it with 2', async (t) => {
  const run = await demo([], '--backend', 'none')
  t.equal(run.code, 2)
  t.match(run.stderr, /--backend none: expected one of auto, xdp, packet, socket/)
  t.equal(run.stdout, '')
})
