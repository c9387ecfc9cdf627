import type { EngineConfig } from '../generated/contract.js'
import type { HttpAddress } from './addresses.js'
import type { Format } from './formats.js'
import type { VariableName } from './variables.js'

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
  readonly format: Format
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
  readonly engine: EngineConfig
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
