import { FORMATS } from '../config/formats.js'
import type { PublisherConfig } from '../config/index.js'
import { MillraceError } from '../errors.js'
import { VERSION } from '../version.js'
import type { ConnectionConfig } from './connection/connection.js'
import { checkSubject, expandSubject } from './subject.js'

/** Configuration of the publisher of one queue. It is plain data, because it goes to the worker in `workerData`. */
export interface QueuePublisherConfig extends PublisherConfig {
  /** Client name that the server's monitoring shows. */
  readonly name: string
  /** Name of this node, for `{node}` in subjects and for columnar envelopes. */
  readonly node: string
  readonly queue: number
  /** Milliseconds that one connection attempt may take. Default 5,000. */
  readonly connectTimeoutMs?: number
}

/** Time for a dial as a whole, ms; of it TCP has two seconds. Too low, and a busy server is never reached; too high, and one that
 * accepts and says nothing keeps the next one waiting. */
const DIAL_TIMEOUT_MS = 5000

/**
 * Refuses a configuration that can never work.
 *
 * @throws MillraceError `MILLRACE_E_CONFIG` or `MILLRACE_E_SUBJECT`.
 */
export function validateConfig(config: QueuePublisherConfig): void {
  const { nats, queue, node } = config
  if (nats.servers.length === 0) throw invalid('servers', 'at least one is needed')
  if (!FORMATS.includes(config.format)) {
    throw invalid('format', `'${config.format}' is not one of ${FORMATS}`)
  }
  if (!(config.windowBytes >= 1)) throw invalid('windowBytes', 'must be at least 1')
  if (!(config.envelopeBytes >= 512)) throw invalid('envelopeBytes', 'must be at least 512')
  if (!(config.envelopeMs >= 1)) throw invalid('envelopeMs', 'must be at least 1')
  if (nats.creds !== null && (nats.nkeySeed !== null || nats.nkeyFile !== null)) {
    throw invalid('auth', 'creds and nkeySeed exclude each other')
  }
  checkSubject(expandSubject(config.subject, { port: 0, queue, node }))
}

/** What a connection needs to know. */
export function connectionConfig({ nats, name, connectTimeoutMs }: QueuePublisherConfig): ConnectionConfig {
  return {
    servers: nats.servers,
    gossip: nats.gossip,
    name,
    version: VERSION,
    credentials: nats,
    tls: nats.tls,
    dialTimeoutMs: connectTimeoutMs ?? DIAL_TIMEOUT_MS,
    pingIntervalMs: nats.pingMs,
    deadAfterMs: nats.deadMs,
  }
}

function invalid(field: string, message: string): MillraceError {
  return new MillraceError('MILLRACE_E_CONFIG', `${field}: ${message}`)
}
