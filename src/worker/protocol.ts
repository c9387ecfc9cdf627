/** What the main thread and a worker tell each other: the data of the start, and messages. */
import type { MessagePort } from 'node:worker_threads'
import type { QueueLayout } from '../generated/contract.js'
import type { QueuePublisherConfig } from '../publisher/config.js'
import type { Generation } from '../queue/rule-names.js'

/** `workerData` of a worker thread. */
export interface WorkerData {
  /** Handle of the native engine. */
  readonly engine: number
  readonly queue: number
  /** Number of queues. */
  readonly queues: number
  /** Memory of the queue, laid out as {@link WorkerData.layout} says. */
  readonly memory: SharedArrayBuffer
  readonly layout: QueueLayout
  /** Memory of the worker's counters. */
  readonly counters: SharedArrayBuffer
  /** The rules whose datagrams may lie in the lanes; those in force are the last. */
  readonly generations: readonly Generation[]
  /** Port on which later generations are announced. */
  readonly rulesPort: MessagePort
  readonly node: string
  /** `forward`, or the path of a handler module. */
  readonly handler: string
  /** Most datagrams in a batch. */
  readonly batch: number
  /** CPU to pin the thread to; null: none. */
  readonly cpu: number | null
  /** Whether released payloads are overwritten. */
  readonly poison: boolean
  readonly publisher: QueuePublisherConfig
  readonly logLevel: string
}

/** Message of the main thread to a worker. */
export interface DrainRequest {
  readonly type: 'drain'
  /** Milliseconds for emptying the lanes, tearing the handler down and having what was published taken by NATS. */
  readonly deadlineMs: number
}

/** Message of a worker to the main thread. */
export type WorkerMessage =
  | { readonly type: 'running' }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  /** `left`: results that NATS had not taken in time. */
  | { readonly type: 'drained'; readonly left: number }
