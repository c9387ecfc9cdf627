/** `npm run demo`: UDP off a wire, through Millrace, into NATS, and every datagram accounted for. */
import { fileURLToPath } from 'node:url'
import type { Account } from '../rig/account.js'
import { blast } from '../rig/blast.js'
import { totals } from '../rig/books.js'
import { cleanUp } from '../rig/cleanup.js'
import { spawnIn } from '../rig/netns.js'
import { freePort, freeUdpPort } from '../rig/ports.js'
import { DEEP_RINGS, type Testbed, testbed } from '../rig/testbed.js'
import { type Live, live } from './live.js'
import { type DemoOptions, HELP, parseOptions } from './options.js'
import type { Scraped } from './scrape.js'
import { booksText, type Verdict, verdict } from './verdict.js'

/** Bytes of each payload. */
const SIZE = 100
/**
 * The demo stops the service when the subscriber has received nothing for this many milliseconds, because what was
 * dropped never comes. Too short: the service is stopped while datagrams are on their way, which its drain then delivers.
 * Too long: people wait.
 */
const QUIET_MS = 2000
const SCRAPE = fileURLToPath(new URL('./scrape.js', import.meta.url))

function options(): DemoOptions {
  try {
    const parsed = parseOptions(process.argv.slice(2))
    if (parsed !== null) return parsed
    console.log(HELP)
    process.exit(0)
  } catch (error) {
    console.error(`demo: ${error instanceof Error ? error.message : error}`)
    process.exit(2)
  }
}

const asked = options()
const root = process.geteuid?.() === 0
// With --json, stdout has the one object and nothing else; the text for people goes to stderr.
const screen = asked.json ? process.stderr : process.stdout
const say = (text: string) => void screen.write(`${text}\n`)

/** Selects the backend. Only root can make the namespaces that xdp and packet run in here. */
function chooseBackend(): 'xdp' | 'packet' | 'socket' {
  if (asked.backend === 'auto') return root ? 'xdp' : 'socket'
  if (!root && asked.backend !== 'socket') {
    console.error(
      `demo: --backend ${asked.backend} needs root (network namespaces); try sudo, or --backend socket`,
    )
    process.exit(2)
  }
  return asked.backend
}

/** Prints what will happen. */
function printIntroduction(backend: string): void {
  const wire = root
    ? 'two network namespaces joined by a virtual cable (veth); no real interface is touched'
    : 'the loopback interface (root would get a virtual cable and the faster backends)'
  say(`Millrace receives UDP, decides by the payload which queue a datagram belongs to, and publishes it to NATS.
You will see ${asked.rate.toLocaleString('en-US')} datagrams of ${SIZE} bytes a second for ${asked.seconds} s over ${wire}:
  sender → ${backend} backend → rule \`mod(u32[0])\` → ${asked.queues} queues → NATS → a subscriber that checks every byte.
At the end the books: everything sent must be with the subscriber, or dropped for a named reason.
`)
}

/** Shows readings until the returned function is called. */
function watch(s: Testbed, show: Live, backend: string, httpPort: number): () => void {
  let drops: Scraped['drops'] = {}
  const scraper = spawnIn(s.ns, [process.execPath, SCRAPE, `http://127.0.0.1:${httpPort}/metrics`], {
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  scraper.on('message', (told: Scraped) => {
    drops = told.drops
  })
  const start = Date.now()
  let before: { account: Account; at: number } | null = null
  const timer = setInterval(() => {
    const account = s.subscriber.account
    if (account === null || account === before?.account) return
    const at = Date.now()
    const rate = (now: number, then: number) => (before ? ((now - then) * 1000) / (at - before.at) : 0)
    show.show({
      seconds: Math.min(asked.seconds, (at - start) / 1000),
      of: asked.seconds,
      backend,
      queues: account.perQueue.map((n, q) => rate(n, before?.account.perQueue[q] ?? 0)),
      messages: rate(account.messages, before?.account.messages ?? 0),
      received: account.received,
      drops,
    })
    before = { account, at }
  }, 250)
  return () => {
    clearInterval(timer)
    scraper.kill('SIGKILL')
    show.done()
  }
}

/** Runs the demo and returns what its books say. */
async function runDemo(backend: 'xdp' | 'packet' | 'socket'): Promise<Verdict> {
  const http = root ? 9180 : await freePort()
  say('Starting nats-server, the subscriber and Millrace …')
  const s = await testbed({
    backend,
    wire: root,
    port: root ? 9000 : await freeUdpPort(),
    queues: asked.queues,
    format: asked.format,
    env: { ...DEEP_RINGS, MILLRACE_HTTP: `127.0.0.1:${http}`, MILLRACE_NODE: 'demo' },
  })
  try {
    say(`Ready. Sending to ${s.target} …\n`)
    const stopWatching = watch(s, live(screen), backend, http)
    const { seconds, rate } = asked
    const sending = blast(s.sender, { to: s.target, rate, seconds, size: String(SIZE), flows: 64 })
    const report = await sending.done.finally(stopWatching)
    await s.subscriber.settled(report.sent, QUIET_MS)
    const ended = await s.service.stop()
    if (ended.code !== 0) {
      throw new Error(
        `the service ended with ${ended.code ?? ended.signal}; its last words:\n${s.service.lastOutput()}`,
      )
    }
    const account = await s.subscriber.against({ count: report.sent, low: SIZE, high: SIZE })
    const v = verdict(report, account, totals(ended), { seconds, rate })
    say(`\n${booksText(v, account)}`)
    for (const fault of v.balanced ? [] : account.faults) say(`  ${fault}`)
    return v
  } finally {
    await s.close()
  }
}

/** Prints whether the books balance, and what to try next. */
function printConclusion(v: Verdict): void {
  say(
    v.balanced
      ? `\nBalanced: all ${v.sent.toLocaleString('en-US')} datagrams are accounted for (${v.backend}, ${v.mode}).`
      : '\nNOT balanced: the books above do not add up. Please report this with the lines above.',
  )
  const other = v.backend === 'packet' ? 'xdp' : 'packet'
  say(`
Try next:
  npm run demo -- --rate 1M --format columns     more than fits: see what is dropped, where, and that it still adds up
  ${root ? `npm run demo -- --backend ${other.padEnd(21)}` : 'sudo npm run demo                           '}   ${root ? 'the same through another backend' : 'the same through AF_XDP on a virtual cable'}
  README.md                                      how to run it on a real interface`)
}

const backend = chooseBackend()
printIntroduction(backend)
try {
  const v = await runDemo(backend)
  printConclusion(v)
  if (asked.json) process.stdout.write(`${JSON.stringify(v)}\n`)
  process.exitCode = v.balanced ? 0 : 1
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
} finally {
  cleanUp()
}
