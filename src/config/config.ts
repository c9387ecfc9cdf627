import type { HttpAddress, Listen, Multicast } from './addresses.js'
import type { VariableName } from './variables.js'

/** What the Rust side takes as JSON; field for field `EngineConfig` in crates/millrace-core/src/config.rs. */
export interface EngineConfigJson {
  readonly backend: 'auto' | 'xdp' | 'packet' | 'socket'
  /** null: the interface of the default route. */
  readonly interface: string | null
  readonly listen: readonly Listen[]
  readonly multicast: readonly Multicast[]
  readonly queues: number
  readonly rxThreads: number
  /** In thread order, repeated when short; empty: not pinned. */
  readonly rxCpus: readonly number[]
  /** SCHED_FIFO priority of receive threads; null: normal. */
  readonly rxPriority: number | null
  readonly rules: string
  readonly busyPoll: 'adaptive' | 'always' | 'off'
  /** Microseconds. */
  readonly busyPollUs: number
  readonly laneSlots: number
  /** Bytes. */
  readonly laneBytes: number
  /** Datagrams. */
  readonly wakeMin: number
  /** Microseconds. */
  readonly wakeMaxUs: number
  readonly xdpMode: 'auto' | 'native' | 'generic'
  readonly xdpFrames: number
  readonly xdpZerocopy: 'off' | 'on' | 'auto'
  readonly xdpPreferBusyPoll: boolean
  /** Settings of the interface while xdp runs; null: left alone. */
  readonly napiDeferHardIrqs: number | null
  /** Nanoseconds. */
  readonly groFlushTimeout: number | null
  /** Bytes. */
  readonly packetBlockBytes: number
  readonly packetBlocks: number
  readonly verifyChecksum: boolean
  readonly tpacket: 'v3' | 'v2'
  /** Bytes. */
  readonly packetSlotBytes: number
  readonly fanout: 'rules' | 'hash' | 'lb' | 'cpu' | 'rollover' | 'rnd' | 'qm' | 'cbpf' | 'ebpf'
  readonly fanoutFlags: readonly ('rollover' | 'defrag' | 'uniqueid' | 'ignore_outgoing')[]
  readonly socketTimestamps: 'pass' | 'kernel'
  /** Bytes. */
  readonly socketRcvbuf: number
}

/** What a worker needs to know. */
export interface WorkersConfig {
  /** Queues, one worker each. */
  readonly queues: number
  /** CPU of each worker by queue, exactly `queues` long; empty: not pinned. */
  readonly cpus: readonly number[]
  /** `forward`, or the absolute path of the handler module. */
  readonly handler: string
  /** Most datagrams in a batch. */
  readonly batch: number
  /** Overwrite released batch memory. */
  readonly debugPoison: boolean
}

/** How to reach NATS. At most one of user, token, creds and nkey is given. */
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
  /** null: no TLS asked for. Paths of PEM files. */
  readonly tls: {
    readonly ca: string | null
    readonly cert: string | null
    readonly key: string | null
  } | null
}

/** What a publisher needs to know. */
export interface PublisherConfig {
  readonly format: 'raw' | 'records' | 'columns'
  /** Subject template: `{node}` is already replaced, `{port}` and `{queue}` are not. */
  readonly subject: string
  /** Most unconfirmed bytes of one worker. */
  readonly windowBytes: number
  /** An envelope is sent at this many bytes … */
  readonly envelopeBytes: number
  /** … or this many milliseconds after its first datagram. */
  readonly envelopeMs: number
  readonly natsDown: 'hold' | 'drop'
  readonly nats: NatsConfig
}

/** One line of `millrace config`. */
export interface Setting {
  readonly name: VariableName
  /** As a user would write it, without secrets; empty when unset. */
  readonly value: string
  readonly source: 'environment' | 'default'
}

/** Everything one start of the service is told. Frozen all the way down. */
export interface Config {
  readonly node: string
  readonly engine: EngineConfigJson
  readonly workers: WorkersConfig
  readonly publisher: PublisherConfig
  /** null: no HTTP server. */
  readonly http: HttpAddress | null
  readonly log: { readonly level: string }
  /** Deadline of the drain, milliseconds. */
  readonly drainMs: number
  /** The same by variable, for people. */
  readonly settings: readonly Setting[]
  /** Names with our prefix that Kubernetes injected for a Service and that were ignored. */
  readonly serviceLinks: readonly string[]
}
