import type { MessagePort } from 'node:worker_threads'
import type { PublisherConfig } from '../publisher/config.js'
import type { QueuePlan } from '../queue/lane.js'
import type { Generation } from '../queue/rule-names.js'

/** What a worker is born with (workerData). */
export interface WorkerBirth {
  readonly engine: number
  readonly queue: number
  readonly queues: number
  readonly memory: SharedArrayBuffer
  readonly plan: QueuePlan
  readonly counters: SharedArrayBuffer
  /** The rules whose datagrams may lie in the lanes, the ones in force last. */
  readonly generations: readonly Generation[]
  /** Where further ones are announced. */
  readonly announced: MessagePort
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
