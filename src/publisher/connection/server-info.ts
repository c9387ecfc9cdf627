import { ProtocolError } from './parser.js'

/** What a server says of itself in INFO; see docs.nats.io, "Client Protocol", INFO. Unknown fields are ignored. */
export interface ServerInfo {
  /** Differs between any two servers, and after a restart too. Empty when the server names none. */
  readonly serverId: string
  readonly name: string
  readonly version: string
  /** Bytes of the longest message it takes, headers included. After the first PONG it is the account's limit. */
  readonly maxPayload: number
  readonly authRequired: boolean
  readonly tlsRequired: boolean
  readonly tlsAvailable: boolean
  /** To be signed by an nkey. */
  readonly nonce: string | undefined
  /** `host:port` of the cluster's servers that clients may use. */
  readonly connectUrls: readonly string[]
  /** The server is about to stop and wants its clients to move ("lame duck"). */
  readonly lameDuck: boolean
  readonly headers: boolean
  readonly jetstream: boolean
}

/** The server's own default, for a server that names no limit. */
const DEFAULT_MAX_PAYLOAD = 1 << 20

/** Reads the JSON of an INFO. Fields of a wrong type count as absent. @throws ProtocolError when it is no JSON object. */
export function parseInfo(json: string): ServerInfo {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    throw new ProtocolError((error as Error).message)
  }
  if (typeof value !== 'object' || value === null) throw new ProtocolError('INFO is no JSON object')
  const fields = value as Record<string, unknown>
  const string = (name: string): string | undefined => {
    const field = fields[name]
    return typeof field === 'string' ? field : undefined
  }
  const flag = (name: string): boolean => fields[name] === true
  const { max_payload: max, connect_urls: urls } = fields
  return {
    serverId: string('server_id') ?? '',
    name: string('server_name') ?? '',
    version: string('version') ?? '',
    maxPayload: typeof max === 'number' && max > 0 ? max : DEFAULT_MAX_PAYLOAD,
    authRequired: flag('auth_required'),
    tlsRequired: flag('tls_required'),
    tlsAvailable: flag('tls_available'),
    nonce: string('nonce'),
    connectUrls: Array.isArray(urls) ? urls.filter((url) => typeof url === 'string') : [],
    lameDuck: flag('ldm'),
    headers: flag('headers'),
    jetstream: flag('jetstream'),
  }
}
