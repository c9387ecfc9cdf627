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
  /** Paths of files with the password and with the token, read at each dial. */
  readonly passwordFile: string | null
  readonly tokenFile: string | null
  /** Path of a credentials file, read at each dial. */
  readonly creds: string | null
  /** An nkey seed (`SU…`), where it was given and not a path. */
  readonly nkeySeed: string | null
  /** Path of a file with an nkey seed, read at each dial. */
  readonly nkeyFile: string | null
  /** Paths of PEM files; null where TLS is not asked for. */
  readonly tls: {
    readonly ca: string | null
    readonly cert: string | null
    readonly key: string | null
    /** The server expects the TLS handshake before it sends its INFO. */
    readonly handshakeFirst: boolean
  } | null
  /** Whether servers that the cluster announces are dialled too. */
  readonly gossip: boolean
  /** Silence of the server after which it is sent a PING, milliseconds. */
  readonly pingMs: number
  /** Time without an answer to a PING after which the server counts as dead, milliseconds. */
  readonly deadMs: number
}

/** Configuration of the publishers, the same for every queue. */
export interface PublisherConfig {
  readonly format: Format
  /** Subject template with `{port}` and `{queue}`; `{node}` is already replaced. */
  readonly subject: string
  /** Bytes sent and not taken, or waiting for NATS, at which a worker stops draining its queue. */
  readonly windowBytes: number
  /** Bytes at which an envelope is sealed. */
  readonly envelopeBytes: number
  /** Age at which an envelope is sealed, milliseconds after its first datagram. */
  readonly envelopeMs: number
  /** While NATS is away: `hold` fills the window, then stops draining the queue; `drop` drops and counts results. */
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
