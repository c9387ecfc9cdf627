import type { EngineStats } from '../generated/contract.js'
import type { CounterName } from '../queue/counters.js'

export type {
  BackendInfo,
  EngineStats,
  InterfaceStats,
  QueueStats,
  RuleStats,
  ThreadStats,
} from '../generated/contract.js'

/** One worker's half, plus what the supervisor knows about it. */
export interface WorkerStats {
  readonly queue: number
  readonly counters: Readonly<Record<CounterName, number>>
  readonly restarts: number
  /** Milliseconds since the worker last showed that its event loop turns. */
  readonly heartbeatAgeMs: number
  readonly state: 'starting' | 'running' | 'draining' | 'stopped' | 'failed'
}

/** Everything `/metrics`, the live table and the closing books show: one reading. */
export interface Snapshot {
  readonly time: number
  readonly engine: EngineStats
  readonly workers: readonly WorkerStats[]
}
