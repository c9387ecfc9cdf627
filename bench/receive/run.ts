import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { blast } from '../../rig/blast.js'
import { runIn, spawnIn, V4, type VethPair } from '../../rig/netns.js'
import { type Backend, type Contestant, PORT, receiver, type Scene, type Stage } from './contestants.js'

/**
 * Milliseconds that a foreign program gets to set up its ring; half as many are waited for the last frames. Too short:
 * frames count as lost that the program would have received. Too long: the bench takes longer.
 */
const SETTLE_MS = 700
/** Datagrams of a merged burst. 64 KiB would hold many more, but a NIC merges only what has come at once. */
const MERGED = 16
/** Longest run of a child in milliseconds; after it the child is killed and the bench fails. */
const CHILD_LIMIT_MS = 20_000

/** The result of one contestant that was sent to at full rate, once. */
export interface Flow {
  readonly backend: Backend
  readonly contestant: string
  readonly scene: Scene
  readonly sent: number
  /** Datagrams per second that were sent, and that were received. */
  readonly sentRate: number
  readonly receivedRate: number
  readonly received: number
  /** Datagrams lost on the veth pair, because its queue was full. */
  readonly wireDropped: number
  /** CPU time of the receiving threads in ns per datagram received. */
  readonly cpuNanos: number
}

/** The result of one stage that emptied a full ring, once. */
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

/** Pins this process and the sender to the first CPU; receivers run on the second. With one CPU they share it. */
export function pinSender(): void {
  if (cpus().length > 1) runIn(null, 'taskset', '-cp', '0', String(process.pid))
}

/** Starts a child in the receiving namespace, pinned to a CPU, and collects its output. */
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
  const timer = setTimeout(() => child.kill('SIGKILL'), CHILD_LIMIT_MS)
  const closed = once(child, 'close').finally(() => clearTimeout(timer))
  closed.catch(() => {})
  const failed = async (): Promise<never> => {
    const [code, signal] = await closed
    throw new Error(`${command.join(' ')}: ${signal ?? `exit ${code}`} too early\n${errors}`)
  }
  return {
    child,
    ready: () => Promise.race([said, failed()]),
    /** Waits for the end of the child and returns its output. */
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

/** Sends to a contestant at full rate for `seconds`. */
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

/** Fills the ring of a receiver that waits, then lets it empty the ring. @throws Error when too little was in the ring. */
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

/** Returns the CPU time of all threads of a process in ns (`/proc/<pid>/task/<tid>/schedstat`). */
function cpuNanos(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`)
  const nanos = (tid: string) =>
    Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0])
  return tasks.reduce((sum, tid) => sum + nanos(tid), 0)
}
