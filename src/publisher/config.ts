import { FORMATS } from '../config/formats.js'
import type { PublisherConfig } from '../config/index.js'
import { MillraceError } from '../errors.js'
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
  if (nats.creds !== null && nats.nkeySeed !== null) {
    throw invalid('auth', 'creds and nkeySeed exclude each other')
  }
  checkSubject(expandSubject(config.subject, { port: 0, queue, node }))
}

function invalid(field: string, message: string): MillraceError {
  return new MillraceError('MILLRACE_E_CONFIG', `${field}: ${message}`)
}
