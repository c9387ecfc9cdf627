import { InvalidValue, type ValueType } from './value-types.js'

/** NATS servers, with the credentials and the demand for TLS that their URLs hold. */
export interface NatsServers {
  /** `host:port` each, without credentials and scheme. */
  readonly servers: readonly string[]
  /** True when one of the URLs has the scheme `tls`. */
  readonly tls: boolean
  readonly user: string | null
  readonly password: string | null
  readonly token: string | null
}

/** `nats://host:port`, `tls://…` or `host:port`, separated by commas; `user:password@` or `token@` may stand before a host. */
export const natsServers: ValueType<NatsServers> = {
  expected: 'NATS URLs such as nats://127.0.0.1:4222 or tls://nats.example:4222, separated by commas',
  parse: (list) => {
    const urls: URL[] = []
    for (const part of list.split(',')) {
      const text = part.trim()
      if (!text || /\s/.test(text)) return undefined
      const url = URL.canParse(withScheme(text)) ? new URL(withScheme(text)) : undefined
      if (!url?.hostname || !['nats:', 'tls:'].includes(url.protocol)) return undefined
      if (!['', '/'].includes(url.pathname) || url.search || url.hash) return undefined
      // Nothing listens on port 0, and a URL may hold it.
      if (url.port === '0') return undefined
      urls.push(url)
    }
    const first = urls[0]!
    if (urls.some((u) => u.username !== first.username || u.password !== first.password)) {
      throw new InvalidValue('the same user and password in every URL')
    }
    const name = decoded(first.username)
    const password = decoded(first.password)
    return {
      servers: urls.map((u) => `${u.hostname}:${u.port || '4222'}`),
      tls: urls.some((u) => u.protocol === 'tls:'),
      user: password ? name : null,
      password,
      token: password ? null : name,
    }
  },
}

function withScheme(text: string): string {
  return text.includes('://') ? text : `nats://${text}`
}

function decoded(text: string): string | null {
  if (!text) return null
  try {
    return decodeURIComponent(text)
  } catch {
    throw new InvalidValue('percent-encoded user and password')
  }
}

/** Placeholders of a subject template. */
const PLACEHOLDER = /\{(?:node|port|queue)\}/g

/** A NATS subject to publish to, in which `{node}`, `{port}` and `{queue}` stand for their values. */
export const subject: ValueType<string> = {
  expected:
    'a NATS subject of non-empty tokens without white space, * or >; placeholders {node}, {port}, {queue}',
  parse: (text) => (text.replace(PLACEHOLDER, 'x').split('.').every(isToken) ? text : undefined),
}

function isToken(token: string): boolean {
  // Braces are refused, so that a misspelt placeholder is an error and no literal.
  return /^[^\s.*>{}\p{Cc}]+$/u.test(token)
}
