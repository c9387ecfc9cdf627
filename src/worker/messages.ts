import type { PublisherConfig } from '../publisher/config.js'
import type { QueuePlan } from './lane.js'

/** What a worker is born with (workerData). */
export interface WorkerBirth {
  readonly engine: number
  readonly queue: number
  readonly queues: number
  readonly memory: SharedArrayBuffer
  readonly plan: QueuePlan
  readonly counters: SharedArrayBuffer
  readonly rules: readonly string[]
  readonly node: string
  /** `forward`, or the path of a handler module. */
  readonly handler: string
  readonly batch: number
  readonly cpu: number | null
  readonly poison: boolean
  readonly publisher: PublisherConfig
  readonly logLevel: string
}

/** Main thread → worker. */
export interface DrainRequest {
  readonly type: 'drain'
  /** Milliseconds for emptying the lanes, tearing down and confirming. */
  readonly deadlineMs: number
}

/** Worker → main thread. */
export type WorkerReport =
  | { readonly type: 'running' }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  /** `left`: results that no PONG confirmed in time. */
  | { readonly type: 'drained'; readonly left: number }
