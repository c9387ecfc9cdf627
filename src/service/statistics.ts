import type { CounterName } from '../queue/counters.js'

/** The open backend, with what the kernel granted; `BackendInfo` in crates/millrace-core/src/rx. */
export interface BackendInfo {
  readonly backend: 'xdp' | 'packet' | 'socket'
  /** e.g. `native copy`, `tpacket_v3 fanout hash`, `reuseport`. */
  readonly mode: string
  readonly interface: string | null
  readonly granted: readonly (readonly [string, string])[]
  readonly degraded: readonly string[]
}

/** Counters of one receive thread, cumulative. `received = scattered + dropped.rule + dropped.queueFull`. */
export interface ThreadStats {
  readonly index: number
  readonly kind: 'receive' | 'guard'
  /** CPU it is pinned to, or null. */
  readonly cpu: number | null
  /** Its SCHED_FIFO priority, or null when it is scheduled normally. */
  readonly priority: number | null
  readonly rxQueue: number
  /** Datagrams to an address and port of the configuration. */
  readonly received: number
  /** Their payload bytes. */
  readonly receivedBytes: number
  readonly scattered: number
  /** Of these, datagrams of queues that this receive thread owns (queue modulo receive threads). */
  readonly steeredLocal: number
  readonly dropped: { readonly rule: number; readonly queueFull: number }
  /** Frames that were no datagram for us, by reason: foreign, malformed, fragment, truncated, bad_checksum. */
  readonly frames: Readonly<Record<string, number>>
  /** Lost by the kernel on our behalf, by reason; adds up. */
  readonly kernelLost: Readonly<Record<string, number>>
  /** Kernel counters that may overlap; diagnosis only. */
  readonly kernelNotes: Readonly<Record<string, number>>
  /** Wake-ups that the thread sent to sleeping workers. */
  readonly wakeups: number
  /** Times the thread went to sleep. */
  readonly sleeps: number
  /** Why the thread ended early, or null. */
  readonly error: string | null
  /** Why there is nothing to receive from while the thread goes on (its interface was removed), or null. */
  readonly away: string | null
}

export interface QueueStats {
  readonly index: number
  readonly scattered: number
  readonly queueFull: number
  /** Datagrams in its lanes now, and how many they hold. */
  readonly depth: number
  readonly capacity: number
}

/** One rule's numbers since the start, over reloads by its name. */
export interface RuleStats {
  readonly name: string
  readonly text: string
  readonly matched: number
  /** By a `drop` or `sample` action, early drops in the XDP program included. */
  readonly dropped: number
  /** Because the lane was full. */
  readonly queueFull: number
  /** Queue and datagrams put into its lane, without queues that got none; empty where rules × queues exceed 4,096. */
  readonly queues: readonly (readonly [number, number])[]
}

/** Drop counters of the interface since the engine opened; they may include traffic that was not ours. */
export interface InterfaceStats {
  readonly rxDropped: number
  readonly rxMissed: number
  readonly rxFifo: number
  readonly rxOver: number
}

/** The data plane's half of the books. */
export interface EngineStats {
  readonly backend: BackendInfo
  /** Rungs `auto` tried and was refused. */
  readonly refused: readonly { readonly backend: string; readonly code: string; readonly message: string }[]
  readonly threads: readonly ThreadStats[]
  readonly queues: readonly QueueStats[]
  readonly rules: readonly RuleStats[]
  /** 1 for the rules of the start, one more with each reload. */
  readonly rulesGeneration: number
  /** Reloads refused, whatever the reason. */
  readonly rulesRefused: number
  /** Datagrams that rules dropped in the XDP program, before any thread received them. */
  readonly earlyDropped: number
  readonly interface: InterfaceStats | null
}

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
