import type { Snapshot } from './statistics.js'

/** Phase of the service's life. */
export type Phase = 'starting' | 'running' | 'draining' | 'stopped'

/** Result of a probe; `reasons` is empty exactly when `ok` is true. */
export interface ProbeResult {
  readonly ok: boolean
  readonly phase: Phase
  readonly reasons: readonly string[]
}

/**
 * Age of a heartbeat, in milliseconds, from which a worker counts as dead. It must be well above the second between two
 * readings and the 250 ms between two beats, else a busy worker fails the probe; longer, and a stuck one is found later.
 */
const HEARTBEAT_LIMIT_MS = 2000

/**
 * Liveness: no receive thread has failed, and every worker's event loop turns. A thread whose interface is away waits for it
 * and is alive. That the main thread's loop turns is shown by the answer itself, which is all there is to show without a
 * snapshot, before the data plane has started.
 */
export function healthy(phase: Phase, snapshot: Snapshot | null): ProbeResult {
  const reasons: string[] = []
  for (const thread of snapshot?.engine.threads ?? []) {
    if (thread.error !== null) reasons.push(`${thread.kind} thread ${thread.index}: ${thread.error}`)
  }
  for (const worker of snapshot?.workers ?? []) {
    if (worker.state === 'failed') reasons.push(`worker ${worker.queue} failed`)
    else if (worker.state !== 'stopped' && worker.heartbeatAgeMs >= HEARTBEAT_LIMIT_MS) {
      reasons.push(`worker ${worker.queue} has not answered for ${Math.round(worker.heartbeatAgeMs)} ms`)
    }
  }
  return { ok: reasons.length === 0, phase, reasons }
}

/** Readiness: the service runs and does not drain, its interface is there, and every publisher is connected. */
export function ready(phase: Phase, snapshot: Snapshot | null): ProbeResult {
  const reasons: string[] = []
  if (phase !== 'running') reasons.push(phase)
  else if (!snapshot) reasons.push('no data plane')
  else {
    const receiving = snapshot.engine.threads.filter((t) => t.kind === 'receive')
    if (receiving.length === 0) reasons.push('no receive thread')
    for (const thread of receiving) {
      const trouble = thread.error ?? thread.away
      if (trouble !== null) reasons.push(`receive thread ${thread.index}: ${trouble}`)
    }
    for (const worker of snapshot.workers) {
      if (worker.state !== 'running') reasons.push(`worker ${worker.queue} is ${worker.state}`)
      else if (worker.counters.connected !== 1)
        reasons.push(`publisher ${worker.queue} is not connected to NATS`)
    }
  }
  return { ok: reasons.length === 0, phase, reasons }
}
