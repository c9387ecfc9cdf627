import type { HttpAddress, Listen, Multicast } from './addresses.js'
import type { VariableName } from './variables.js'

/** The engine's configuration, which it takes as JSON: field for field `EngineConfig` in crates/millrace-core/src/config.rs. */
export interface EngineConfigJson {
  readonly backend: 'auto' | 'xdp' | 'packet' | 'socket'
  /** null means the interface of the default route with xdp and packet, none with socket, and with auto the sockets. */
  readonly interface: string | null
  readonly listen: readonly Listen[]
  readonly multicast: readonly Multicast[]
  readonly queues: number
  readonly rxThreads: number
  /** CPUs of the receive threads in thread order, used again from the first when they are fewer; empty: not pinned. */
  readonly rxCpus: readonly number[]
  /** SCHED_FIFO priority of the receive threads, 1..99 (sched(7)); null: normal scheduling. */
  readonly rxPriority: number | null
  readonly rules: string
  readonly busyPoll: 'adaptive' | 'always' | 'off'
  /** Pace of `adaptive`, microseconds. */
  readonly busyPollUs: number
  /** Descriptors of a lane, a power of two. */
  readonly laneSlots: number
  /** Payload bytes of a lane, a power of two. */
  readonly laneBytes: number
  /** Datagrams pending in a lane that wake a sleeping worker. */
  readonly wakeMin: number
  /** Age of the oldest pending datagram that wakes a sleeping worker, microseconds. */
  readonly wakeMaxUs: number
  readonly xdpMode: 'auto' | 'native' | 'generic'
  /** UMEM frames of 2 KiB for each rx queue, a power of two. */
  readonly xdpFrames: number
  readonly xdpZerocopy: 'off' | 'on' | 'auto'
  readonly xdpPreferBusyPoll: boolean
  /** `napi_defer_hard_irqs` of the interface while xdp runs; null: left alone. */
  readonly napiDeferHardIrqs: number | null
  /** `gro_flush_timeout` of the interface while xdp runs, nanoseconds; null: left alone. */
  readonly groFlushTimeout: number | null
  /** Bytes of a ring block, a power of two. */
  readonly packetBlockBytes: number
  /** Blocks of each ring. */
  readonly packetBlocks: number
  readonly verifyChecksum: boolean
  readonly tpacket: 'v3' | 'v2'
  /** Bytes of a TPACKET_V2 frame slot, a multiple of 16. */
  readonly packetSlotBytes: number
  readonly fanout: 'rules' | 'hash' | 'lb' | 'cpu' | 'rollover' | 'rnd' | 'qm' | 'cbpf' | 'ebpf'
  readonly fanoutFlags: readonly ('rollover' | 'defrag' | 'uniqueid' | 'ignore_outgoing')[]
  readonly socketTimestamps: 'pass' | 'kernel'
  /** SO_RCVBUF asked for on each socket, bytes. */
  readonly socketRcvbuf: number
}

/** Configuration of the workers. */
export interface WorkersConfig {
  /** Number of queues; each has one worker. */
  readonly queues: number
  /** CPU of each worker by queue, exactly {@link queues} long; empty: not pinned. */
  readonly cpus: readonly number[]
  /** `forward`, or the absolute path of the handler module. */
  readonly handler: string
  /** Most datagrams in a batch. */
  readonly batch: number
  /** Whether released payloads are overwritten, so that a handler that keeps a view sees it. */
  readonly debugPoison: boolean
}

/** How to reach NATS. At most one of user, token, creds and nkeySeed is given. */
export interface NatsConfig {
  /** `host:port`, without scheme and credentials. */
  readonly servers: readonly string[]
  readonly user: string | null
  readonly password: string | null
  readonly token: string | null
  /** Path of a credentials file. */
  readonly creds: string | null
  /** An nkey seed (`SU…`), read from the file where a path was given. */
  readonly nkeySeed: string | null
  /** Paths of PEM files; null where TLS is not asked for. */
  readonly tls: {
    readonly ca: string | null
    readonly cert: string | null
    readonly key: string | null
  } | null
}

/** Configuration of the publishers, the same for every queue. */
export interface PublisherConfig {
  readonly format: 'raw' | 'records' | 'columns'
  /** Subject template with `{port}` and `{queue}`; `{node}` is already replaced. */
  readonly subject: string
  /** Bytes handed to the connection and not yet confirmed at which a worker stops draining its queue. */
  readonly windowBytes: number
  /** Bytes at which an envelope is sealed. */
  readonly envelopeBytes: number
  /** Age at which an envelope is sealed, milliseconds after its first datagram. */
  readonly envelopeMs: number
  /** While NATS is away: `hold` stops draining the queue, `drop` drops and counts results. */
  readonly natsDown: 'hold' | 'drop'
  readonly nats: NatsConfig
}

/** One line of `millrace config`. */
interface Setting {
  readonly name: VariableName
  /** As a user would write it, without secrets; empty when unset. */
  readonly value: string
  readonly source: 'environment' | 'default'
}

/** The whole configuration of one start of the service, deeply frozen. */
export interface Config {
  readonly node: string
  readonly engine: EngineConfigJson
  readonly workers: WorkersConfig
  readonly publisher: PublisherConfig
  /** Address of the HTTP server; null: none is started. */
  readonly http: HttpAddress | null
  readonly log: { readonly level: string }
  /** Deadline of the drain, milliseconds. */
  readonly drainMs: number
  /** The same values by variable, as a user writes them. */
  readonly settings: readonly Setting[]
  /** Ignored variables with our prefix, which Kubernetes injects for a Service. */
  readonly serviceLinks: readonly string[]
}
