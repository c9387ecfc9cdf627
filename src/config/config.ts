import type { EngineConfig } from '../generated/contract.js'
import type { HttpAddress } from './addresses.js'
import type { VariableName } from './variables.js'

export type { EngineConfig as EngineConfigJson } from '../generated/contract.js'

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
  readonly engine: EngineConfig
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
