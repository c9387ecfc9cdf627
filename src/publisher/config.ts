import { MillraceError } from '../errors.js'
import { VERSION } from '../version.js'
import type { ConnectionConfig } from './connection/connection.js'
import { checkSubject, expandSubject } from './subject.js'

/** How datagrams become NATS messages; see docs/formats.md. */
export type FormatName = 'raw' | 'records' | 'columns'

/** What one publisher needs to know. Plain data: it travels to the worker through `workerData`. */
export interface PublisherConfig {
  /** `host`, `host:port`, or with a `nats://` or `tls://` scheme. Tried in random order. */
  readonly servers: readonly string[]
  readonly auth?: {
    readonly user?: string
    readonly password?: string
    readonly token?: string
    /** Path of a `.creds` file (JWT and seed); read again at every dial, as all files here. */
    readonly creds?: string
    /** An nkey seed (`SU…`). */
    readonly nkeySeed?: string
    /** Path of a file with the password, the token, an nkey seed; white space around it is removed. */
    readonly passwordFile?: string
    readonly tokenFile?: string
    readonly nkeyFile?: string
  }
  /** Paths of PEM files. An empty object asks for TLS with the system's authorities. */
  readonly tls?: {
    readonly ca?: string
    readonly cert?: string
    readonly key?: string
    /** The server expects the TLS handshake before its INFO. */
    readonly handshakeFirst?: boolean
  }
  /** Whether servers that the cluster announces are dialled too. Default true. */
  readonly gossip?: boolean
  /** Silence of the server in milliseconds after which it is sent a PING. Default 2,000. */
  readonly pingIntervalMs?: number
  /** Milliseconds without an answer to a PING after which the server counts as dead. Default 6,000. */
  readonly deadAfterMs?: number
  /** Client name shown by the server's monitoring. */
  readonly name: string
  /** Name of this node: goes into subjects (`{node}`) and columnar envelopes. */
  readonly node: string
  readonly queue: number
  /** Subject template with `{port}`, `{queue}` and `{node}`. */
  readonly subject: string
  readonly format: FormatName
  /** Bytes sent and not confirmed, or waiting for NATS, at which the worker stops draining. Default 4 MiB. */
  readonly windowBytes?: number
  /** Size at which an envelope is sealed. Default 16 KiB; 8-32 KiB is sensible. */
  readonly envelopeBytes?: number
  /** Age in milliseconds at which an envelope is sealed. Default 5. */
  readonly envelopeMs?: number
  /** While NATS is away: `hold` what is at hand and stop draining, or `drop` and count. Default `hold`. */
  readonly whenDown?: 'hold' | 'drop'
  /** Milliseconds one connection attempt may take. Default 5,000. */
  readonly connectTimeoutMs?: number
}

/** {@link PublisherConfig} with its defaults filled in. */
export type ResolvedConfig = Required<Omit<PublisherConfig, 'auth' | 'tls'>> &
  Pick<PublisherConfig, 'auth' | 'tls'>

const FORMATS: readonly string[] = ['raw', 'records', 'columns']

/** @throws MillraceError `MILLRACE_E_CONFIG` or `MILLRACE_E_SUBJECT`. */
export function resolveConfig(config: PublisherConfig): ResolvedConfig {
  const resolved: ResolvedConfig = {
    ...config,
    windowBytes: config.windowBytes ?? 4 << 20,
    envelopeBytes: config.envelopeBytes ?? 16 << 10,
    envelopeMs: config.envelopeMs ?? 5,
    whenDown: config.whenDown ?? 'hold',
    connectTimeoutMs: config.connectTimeoutMs ?? 5000,
    gossip: config.gossip ?? true,
    pingIntervalMs: config.pingIntervalMs ?? 2000,
    deadAfterMs: config.deadAfterMs ?? 6000,
  }
  if (resolved.servers.length === 0) throw bad('servers', 'at least one is needed')
  if (!FORMATS.includes(resolved.format)) throw bad('format', `'${resolved.format}' is not one of ${FORMATS}`)
  if (!(resolved.windowBytes >= 1)) throw bad('windowBytes', 'must be at least 1')
  if (!(resolved.envelopeBytes >= 512)) throw bad('envelopeBytes', 'must be at least 512')
  if (!(resolved.envelopeMs >= 1)) throw bad('envelopeMs', 'must be at least 1')
  const { auth } = resolved
  if (auth?.creds !== undefined && auth.nkeySeed !== undefined)
    throw bad('auth', 'creds and nkeySeed exclude each other')
  checkSubject(expandSubject(resolved.subject, { port: 0, queue: resolved.queue, node: resolved.node }))
  return resolved
}

/** The part of it that a connection needs. A server with the scheme `tls://` asks for TLS with every server. */
export function connectionConfig(config: ResolvedConfig): ConnectionConfig {
  const tls = config.tls ?? (config.servers.some((server) => server.startsWith('tls://')) ? {} : undefined)
  return {
    servers: config.servers.map((server) => server.replace(/^(?:nats|tls):\/\//u, '')),
    gossip: config.gossip,
    name: config.name,
    version: VERSION,
    credentials: config.auth ?? {},
    tls,
    dialTimeoutMs: config.connectTimeoutMs,
    pingIntervalMs: config.pingIntervalMs,
    deadAfterMs: config.deadAfterMs,
  }
}

function bad(field: string, message: string): MillraceError {
  return new MillraceError('MILLRACE_E_CONFIG', `${field}: ${message}`)
}
