/** What kind of failure keeps us from a server; each has an error code of its own (docs/errors.md). */
export type FailureKind = 'connect' | 'auth' | 'tls'

/** Why a server cannot be used, or can no longer be. The message is the server's last word where it said one. */
export class DialError extends Error {
  override readonly name = 'DialError'
  readonly kind: FailureKind

  constructor(kind: FailureKind, message: string) {
    super(message)
    this.kind = kind
  }
}

/** What servers say before they close a connection whose credentials they refuse (server/errors.go). */
const AUTH = /authorization violation|authentication|credentials|jwt|revoked|nkey/iu

/** Node's and OpenSSL's codes for a handshake or certificate that fails. */
const TLS_CODES =
  /^(?:TLS$|ERR_TLS|ERR_SSL|ERR_OSSL|EPROTO$|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|HOSTNAME_MISMATCH)/u

/** Sorts what sockets, TLS, files and servers report. @param timeoutMs the dial's time, when it was over. */
export function dialError(error: unknown, timeoutMs?: number): DialError {
  if (error instanceof DialError && timeoutMs === undefined) return error
  const { message, code } = error as Error & { code?: string }
  if (timeoutMs !== undefined) {
    const where = error instanceof DialError ? ` (${message})` : ''
    return new DialError('connect', `no connection within ${timeoutMs} ms${where}`)
  }
  if (TLS_CODES.test(code ?? '') || (/TLS/u.test(message) && code === undefined))
    return new DialError('tls', message)
  if (code === undefined && AUTH.test(message)) return new DialError('auth', message)
  return new DialError('connect', message || String(code))
}
