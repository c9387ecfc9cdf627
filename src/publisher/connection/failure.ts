/** What kind of failure keeps us from a server; each has an error code of its own (docs/errors.md). */
export type FailureKind = 'connect' | 'auth' | 'tls'

/**
 * Characters of a reason that are kept. Too low, and a certificate's names are cut off; too high, and a peer that words its
 * refusals at length fills the log.
 */
const REASON_CHARACTERS = 256

/** Why a server cannot be used, or can no longer be. The message is the server's last word where it said one. */
export class DialError extends Error {
  override readonly name = 'DialError'
  readonly kind: FailureKind
  /** True when a file of ours is at fault, and no server was asked. */
  readonly ownFile: boolean

  constructor(kind: FailureKind, message: string, ownFile = false) {
    // Messages of OpenSSL end with a line end.
    const text = message.trim()
    super(text.length > REASON_CHARACTERS ? `${text.slice(0, REASON_CHARACTERS - 1)}…` : text)
    this.kind = kind
    this.ownFile = ownFile
  }
}

/** What servers say before they close a connection whose credentials they refuse (server/errors.go). */
const AUTH = /authorization violation|authentication|credentials|jwt|revoked|nkey/iu

/** Node's and OpenSSL's codes for a handshake or certificate that fails. */
const TLS_CODES =
  /^(?:TLS$|ERR_TLS|ERR_SSL|ERR_OSSL|EPROTO$|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA$|INVALID_PURPOSE$)/u

/** Sorts what sockets, TLS, files and servers report. */
export function dialError(error: unknown): DialError {
  if (error instanceof DialError) return error
  const { message, code } = error as Error & { code?: string }
  if (TLS_CODES.test(code ?? '') || (/TLS/u.test(message) && code === undefined))
    return new DialError('tls', message)
  if (code === undefined && AUTH.test(message)) return new DialError('auth', message)
  return new DialError('connect', message || String(code))
}
