import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { blast } from '../../rig/blast.js'
import { runIn, spawnIn, V4, type VethPair } from '../../rig/netns.js'
import { type Backend, type Contestant, PORT, receiver, type Scene, type Stage } from './contestants.js'

/** Until a foreign program has its ring; and until the last frames are through. */
const SETTLE_MS = 700
/** Datagrams of a merged burst: 64 KiB hold many more, and a NIC merges no more than came in one go. */
const MERGED = 16
/** Nothing here takes this long; a child that does is killed and the bench fails. */
const PATIENCE_MS = 20_000

/** One contestant under the sender's full rate, once. */
export interface Flow {
  readonly backend: Backend
  readonly contestant: string
  readonly scene: Scene
  readonly sent: number
  /** Datagrams a second that came out of the sender, and of the receiver. */
  readonly sentRate: number
  readonly receivedRate: number
  readonly received: number
  /** Lost between sender and receiver's interface: the veth pair's queue was full. */
  readonly wireDropped: number
  /** CPU time of the receiver's receiving threads, ns for each datagram received. */
  readonly cpuNanos: number
}

/** One stage emptying a full ring, once. */
export interface Drain {
  readonly backend: Backend
  readonly stage: Stage
  readonly datagrams: number
  readonly cpuNanos: number
  readonly publishNanos: number
}

interface Report {
  datagrams: number
  lost: number
  cpuNanos: number
  publishNanos: number
}

/** Sender and this process on the first CPU, receivers on the second one; with one CPU they share it. */
export function pinSender(): void {
  if (cpus().length > 1) runIn(null, 'taskset', '-cp', '0', String(process.pid))
}

/** A child with its output. */
function start(pair: VethPair, command: readonly string[], cpu = 1) {
  const pinned = cpus().length > 1 ? ['taskset', '-c', String(cpu)] : []
  const child = spawnIn(pair.b, [...pinned, ...command], { stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  let errors = ''
  child.stderr!.on('data', (data: Buffer) => {
    errors += data.toString()
  })
  const said = new Promise<void>((resolve) => {
    child.stdout!.on('data', (data: Buffer) => {
      output += data.toString()
      if (output.includes('ready\n')) resolve()
    })
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS)
  const closed = once(child, 'close').finally(() => clearTimeout(timer))
  closed.catch(() => {})
  const failed = async (): Promise<never> => {
    const [code, signal] = await closed
    throw new Error(`${command.join(' ')}: ${signal ?? `exit ${code}`} too early\n${errors}`)
  }
  return {
    child,
    ready: () => Promise.race([said, failed()]),
    /** Its end; gives what it said. */
    async ended(): Promise<string> {
      const [code, signal] = await closed
      if (code !== 0) throw new Error(`${command.join(' ')}: ${signal ?? `exit ${code}`}\n${errors}`)
      return output.replace('ready\n', '') + errors
    },
  }
}

function report(text: string): Report {
  return JSON.parse(text) as Report
}

/** Sends as fast as it goes for `seconds` to a contestant that waits. */
export async function flow(
  pair: VethPair,
  contestant: Contestant,
  seconds: number,
  scene: Scene,
): Promise<Flow> {
  const { child, ready, ended } = start(pair, contestant.command, scene === 'oneCpu' ? 0 : 1)
  try {
    await (contestant.ours ? ready() : sleep(SETTLE_MS))
    const before = contestant.ours ? 0 : cpuNanos(child.pid!)
    const sent = await send(pair, scene === 'merged' ? { seconds, gso: MERGED } : { seconds })
    await sleep(SETTLE_MS / 2)
    const foreignCpu = contestant.ours ? 0 : cpuNanos(child.pid!) - before
    if (contestant.ours) child.stdin!.end()
    else child.kill('SIGINT')
    const output = await ended()
    const received = contestant.count(output)
    const cpu = contestant.ours ? report(output).cpuNanos : foreignCpu
    return {
      backend: contestant.backend,
      contestant: contestant.name,
      scene,
      sent: sent.sent,
      sentRate: sent.sent / sent.seconds,
      receivedRate: received / sent.seconds,
      received,
      wireDropped: sent.dropped,
      cpuNanos: cpu / received,
    }
  } finally {
    child.kill('SIGKILL')
  }
}

/** Fills the ring of a receiver that waits, then lets it empty the ring. */
export async function drain(pair: VethPair, backend: Backend, stage: Stage, count: number): Promise<Drain> {
  const { child, ready, ended } = start(pair, receiver('drain', backend, stage))
  try {
    await ready()
    await send(pair, { count, rate: 150_000 })
    await sleep(50)
    child.stdin!.end()
    const { datagrams, cpuNanos, publishNanos } = report(await ended())
    if (datagrams < count * 0.9)
      throw new Error(`${backend} ${stage}: only ${datagrams} of ${count} to drain`)
    return {
      backend,
      stage,
      datagrams,
      cpuNanos: cpuNanos / datagrams,
      publishNanos: publishNanos / datagrams,
    }
  } finally {
    child.kill('SIGKILL')
  }
}

async function send(pair: VethPair, how: { seconds?: number; count?: number; rate?: number; gso?: number }) {
  const to = `${V4[1]}:${PORT}`
  const path =
    how.gso === undefined ? ({ via: 'packet', interface: 'va' } as const) : { via: 'socket' as const }
  const done = await blast(pair.a, { to, size: '100', flows: 16, ...path, ...how }).done
  return { sent: done.sent, seconds: done['seconds'] as number, dropped: done.interface_tx_dropped }
}

/** CPU time of all threads of a process, ns (`/proc/<pid>/task/<tid>/schedstat`). */
function cpuNanos(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`)
  const nanos = (tid: string) =>
    Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0])
  return tasks.reduce((sum, tid) => sum + nanos(tid), 0)
}
