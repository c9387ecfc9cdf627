// An in-memory data plane for the other service tests, and the child process they send signals to.
// Run by itself it checks that what it pretends is consistent.
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Config, loadConfig } from '../src/config/index.js'
import { type ErrorCode, MillraceError } from '../src/errors.js'
import type { QueueStats, ThreadStats } from '../src/generated/contract.js'
import { createLog } from '../src/log.js'
import { COUNTERS, type CounterName } from '../src/queue/counters.js'
import { closeBooks } from '../src/service/books.js'
import type { DataPlane } from '../src/service/data-plane.js'
import { run } from '../src/service/run.js'
import type { Snapshot, WorkerStats } from '../src/service/statistics.js'

export type Writable<T> = { -readonly [K in keyof T]: T[K] }

/** A snapshot whose parts may be changed. */
export interface OpenSnapshot extends Omit<Snapshot, 'engine' | 'workers'> {
  readonly engine: Omit<Snapshot['engine'], 'threads' | 'queues'> & {
    readonly threads: Writable<ThreadStats>[]
    readonly queues: Writable<QueueStats>[]
  }
  readonly workers: (Writable<Omit<WorkerStats, 'counters'>> & { counters: Record<CounterName, number> })[]
}

/** Two threads, two queues, numbers that balance: 130 received, 117 scattered, 13 dropped, 2 failed, 115 handled. */
export function snapshot(): OpenSnapshot {
  const thread = (index: number, received: number, scattered: number): Writable<ThreadStats> => ({
    index,
    kind: 'receive',
    cpu: index === 0 ? 0 : null,
    priority: index === 0 ? 10 : null,
    rxQueue: index,
    received,
    receivedBytes: received * 100,
    scattered,
    steeredLocal: scattered,
    dropped: { rule: received - scattered - 1, queueFull: 1 },
    frames: { foreign: 4, bad_checksum: index },
    kernelLost: { rx_ring_full: 5 },
    kernelNotes: { tp_drops: 6 },
    wakeups: 7,
    sleeps: 8,
    error: null,
    away: null,
  })
  const worker = (queue: number, handled: number, failed: number): OpenSnapshot['workers'][number] => ({
    queue,
    counters: {
      ...(Object.fromEntries(COUNTERS.map((name) => [name, 0])) as Record<CounterName, number>),
      handled,
      failed,
      handlerNanos: 2_500_000_000,
      emitted: handled,
      taken: handled - 3,
      droppedDisconnected: 2,
      droppedOversize: 1,
      droppedOverrun: 0,
      connected: 1,
    },
    restarts: 0,
    heartbeatAgeMs: 3,
    state: 'running',
  })
  const queue = (index: number, scattered: number): Writable<QueueStats> => ({
    index,
    scattered,
    queueFull: 1,
    depth: 0,
    capacity: 64,
  })
  return {
    time: 0,
    engine: {
      backend: {
        backend: 'packet',
        mode: 'tpacket_v3 fanout "hash"\\',
        interface: 'eth0',
        granted: [['blocks', '16']],
        degraded: ['busy poll refused'],
      },
      refused: [{ backend: 'xdp', code: 'MILLRACE_E_PERMISSION', message: 'needs CAP_BPF' }],
      threads: [thread(0, 100, 90), thread(1, 30, 27)],
      queues: [queue(0, 80), queue(1, 37)],
      rules: [
        { name: 'noise', text: 'len < 8 => drop', matched: 16, dropped: 16, queueFull: 0, queues: [] },
        {
          name: '',
          text: 'else => hash(flow)',
          matched: 119,
          dropped: 0,
          queueFull: 2,
          queues: [
            [0, 80],
            [1, 37],
          ],
        },
      ],
      rulesGeneration: 1,
      rulesRefused: 0,
      earlyDropped: 5,
      interface: { rxDropped: 1, rxMissed: 2, rxFifo: 3, rxOver: 4 },
    },
    workers: [worker(0, 79, 1), worker(1, 36, 1)],
  }
}

/** A data plane that does as it is told and writes down what it is asked. */
export class FakeDataPlane implements DataPlane {
  readonly calls: string[] = []
  snap = snapshot()
  startError: Error | null = null
  startMs = 0
  /** `start` waits for it as well. */
  mayStart: Promise<void> = Promise.resolve()
  stopMs = 0
  clean = true
  up = false
  fatal: (error: Error) => void = () => {}

  async start(): Promise<void> {
    this.calls.push('start')
    await sleep(this.startMs)
    await this.mayStart
    if (this.startError) throw this.startError
    this.up = true
  }

  async stop(deadlineMs: number): Promise<{ clean: boolean }> {
    this.calls.push(`stop ${deadlineMs}`)
    await sleep(this.stopMs)
    for (const worker of this.snap.workers) worker.state = 'stopped'
    this.calls.push('stopped')
    return { clean: this.clean }
  }

  snapshot(): Snapshot {
    if (!this.up) throw new Error('not up')
    return this.snap
  }

  reload(rules: string): number {
    this.calls.push(`reload ${rules.trim()}`)
    if (rules.includes('wrong')) throw new MillraceError('MILLRACE_E_RULES', '1 error in the rules')
    return this.calls.length
  }

  reloadRefused(): void {
    this.calls.push('reload refused')
  }

  onFatal(listener: (error: Error) => void): void {
    this.fatal = listener
  }
}

/** A configuration for tests: the kernel chooses the HTTP port. */
export function testConfig(env: Record<string, string> = {}): Config {
  const facts = { cpus: [0, 1], hostname: 'test' }
  return loadConfig({ MILLRACE_HTTP: '127.0.0.1:0', MILLRACE_DRAIN_MS: '5000', ...env }, facts)
}

/** The child process: runs the service on a fake data plane that behaves as the arguments say. */
async function child(scenario: {
  stopMs?: number
  startMs?: number
  left?: number
  mishap?: string
}): Promise<void> {
  const plane = new FakeDataPlane()
  plane.stopMs = scenario.stopMs ?? 0
  plane.startMs = scenario.startMs ?? 0
  if (scenario.left) {
    plane.snap.engine.queues[0]!.depth = scenario.left
    plane.snap.workers[0]!.counters.handled -= scenario.left
  }
  const { mishap = '' } = scenario
  if (mishap.startsWith('start '))
    plane.startError = new MillraceError(mishap.slice(6) as ErrorCode, 'as told')
  const log = createLog({ readable: false })
  setTimeout(() => {
    if (mishap === 'uncaught') throw new Error('nobody caught me')
    if (mishap === 'late') {
      process.once('SIGTERM', () => setTimeout(() => Promise.reject(new Error('late')), 50))
      log.info('armed')
    }
    if (mishap === 'rejection') void Promise.reject(new Error('nobody awaited me'))
    if (mishap.startsWith('fatal ')) plane.fatal(new MillraceError(mishap.slice(6) as ErrorCode, 'as told'))
  }, 100)
  const status = await run(testConfig(), plane, log, { table: true })
  log.info({ calls: plane.calls }, 'calls')
  process.exit(status)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === 'child') await child(JSON.parse(process.argv[3]!) as object)
  else {
    // Not at the top: the child is quicker without tap.
    const { default: t } = await import('tap')
    t.same(closeBooks(snapshot()).discrepancies, [], 'the fake snapshot balances')
  }
}
