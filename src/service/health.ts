import type { Snapshot } from './statistics.js'

/** Where the service is in its life. */
export type Phase = 'starting' | 'running' | 'draining' | 'stopped'

/** Answer of a probe: `reasons` is empty exactly when `ok`. */
export interface Verdict {
  readonly ok: boolean
  readonly phase: Phase
  readonly reasons: readonly string[]
}

/** A worker whose event loop has not turned for this long is not alive, milliseconds. */
export const HEARTBEAT_LIMIT_MS = 2000

/**
 * Liveness: no receive thread has failed and every worker's event loop turns. A thread whose interface is away waits for
 * it and lives. That the main loop turns is shown by the
 * answer itself. Without a snapshot (before the data plane is up, and after) there is nothing else to be dead.
 */
export function healthy(phase: Phase, snapshot: Snapshot | null): Verdict {
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

/** Readiness: receiving from an interface that is there, every publisher connected, not draining. */
export function ready(phase: Phase, snapshot: Snapshot | null): Verdict {
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
