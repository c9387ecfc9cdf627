import { type ChildProcess, fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { blast } from '../../rig/blast.js'
import { commandIn, spawnIn, V4, type VethPair } from '../../rig/netns.js'
import { cpuMicros } from '../process.js'
import type { Contestant } from './contestants.js'
import type { Climb, Point } from './summary.js'

const PORT = 9000
const NATS = 4222
/**
 * A climb ends when this many steps in a row lost datagrams. Too low: one unlucky step ends it. Too high: it spends its
 * time on loads that are far too much.
 */
const LOSSES = 2
/**
 * A step ends when nothing has arrived for this many milliseconds. Too short: datagrams that are late count as lost. Too
 * long: every step that lost something takes longer.
 */
const QUIET_MS = 400

/** The steps of one climb, which are the same for every contestant. */
interface ClimbOptions {
  /** Datagrams per second of each step. */
  readonly rates: readonly number[]
  /** Length of a step. */
  readonly seconds: number
  /** Payload bytes of a datagram. */
  readonly size: number
  /** Datagrams that the sender hands to the kernel in one send with UDP_SEGMENT, so that it does not limit the rate. */
  readonly gso: number
  readonly onPoint: (point: Point) => void
}

const build = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Measures one contestant at one rate after the other, with a fresh server and subscriber, and one sender per step. */
export async function climb(pair: VethPair, contestant: Contestant, options: ClimbOptions): Promise<Climb> {
  const server = `nats://127.0.0.1:${NATS}`
  const nats = spawnIn(pair.b, ['nats-server', '-a', '127.0.0.1', '-p', String(NATS)], { stdio: 'ignore' })
  await sleep(300)
  const subscriber = await child(pair, 'bench/pipeline/count.js', [server, contestant.wire], {})
  const { script, args, env } = contestant.command({ port: PORT, server, http: '127.0.0.1:9180' })
  const receiver = await child(pair, script, args, env)
  const points: Point[] = []
  try {
    // The warm-up compiles the code, touches the buffers and fills the neighbour tables.
    await step(pair, receiver, subscriber, options.rates[0]!, { ...options, seconds: 0.5 })
    let losses = 0
    for (const rate of options.rates) {
      const point = await step(pair, receiver, subscriber, rate, options)
      points.push(point)
      options.onPoint(point)
      losses = point.received < point.sent ? losses + 1 : 0
      if (losses >= LOSSES) break
    }
  } finally {
    await end(receiver)
    await end(subscriber)
    await end(nats)
  }
  return { contestant: contestant.name, points }
}

async function step(
  pair: VethPair,
  receiver: ChildProcess,
  subscriber: ChildProcess,
  rate: number,
  options: ClimbOptions,
): Promise<Point> {
  const before = { count: await counted(subscriber), cpu: cpuMicros(receiver.pid!) }
  const report = await blast(pair.a, {
    to: `${V4[1]}:${PORT}`,
    rate,
    count: Math.round(rate * options.seconds),
    size: String(options.size),
    flows: 16,
    via: 'socket',
    gso: options.gso,
  }).done
  let [last, lastAt] = [await counted(subscriber), performance.now()]
  while (last - before.count < report.sent && performance.now() - lastAt < QUIET_MS) {
    await sleep(20)
    const now = await counted(subscriber)
    if (now !== last) [last, lastAt] = [now, performance.now()]
  }
  const received = last - before.count
  return {
    offered: rate,
    achieved: Number(report['rate_pps']),
    sent: report.sent,
    received,
    wireDropped: report.interface_tx_dropped,
    cpuMicros: (cpuMicros(receiver.pid!) - before.cpu) / Math.max(1, received),
    peakRss: peakRss(receiver.pid!),
  }
}

/** Starts a script in the receiving namespace with an IPC channel; resolves when it reports that it is ready. */
async function child(
  pair: VethPair,
  script: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<ChildProcess> {
  const [execPath, execArgv] = commandIn(pair.b, [process.execPath])
  const started = fork(build(script), args, {
    execPath,
    execArgv,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  let said = ''
  const ready = new Promise<void>((resolve, reject) => {
    started.once('message', () => resolve())
    started.once('exit', (code) =>
      reject(new Error(`${script} ended with ${code} before it was ready:\n${said}`)),
    )
    for (const stream of [started.stdout, started.stderr]) {
      stream?.on('data', (text: Buffer) => {
        said = (said + text).slice(-4000)
        // The service has no IPC; it reports in its log.
        if (said.includes('"msg":"receiving"') && said.includes('connected to NATS')) resolve()
      })
    }
  })
  await ready
  return started
}

function counted(subscriber: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    subscriber.once('message', (m) => resolve((m as { datagrams: number }).datagrams))
    subscriber.send('count')
  })
}

async function end(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return
  const exited = new Promise((resolve) => process.once('exit', resolve))
  process.kill('SIGTERM')
  const timer = setTimeout(() => process.kill('SIGKILL'), 10_000)
  await exited
  clearTimeout(timer)
}

function peakRss(pid: number): number {
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}
