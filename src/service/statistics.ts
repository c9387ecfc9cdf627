import type { EngineStats } from '../generated/contract.js'
import type { CounterName } from '../queue/counters.js'

/** The counters of one worker, and what its supervisor knows about it. */
export interface WorkerStats {
  readonly queue: number
  readonly counters: Readonly<Record<CounterName, number>>
  /** Times the worker was started again. */
  readonly restarts: number
  /** Milliseconds since the worker's event loop was last seen to turn; about 0 while the worker does not run. */
  readonly heartbeatAgeMs: number
  readonly state: 'starting' | 'running' | 'draining' | 'stopped' | 'failed'
}

/** One reading of everything that `/metrics`, the probes and the closing books show. */
export interface Snapshot {
  /** Time of the reading, milliseconds since the epoch. */
  readonly time: number
  readonly engine: EngineStats
  readonly workers: readonly WorkerStats[]
}
