/** Codes of the errors a publisher throws or logs. */
export type PublisherErrorCode =
  | 'MILLRACE_E_SUBJECT'
  | 'MILLRACE_E_PAYLOAD'
  | 'MILLRACE_E_PUBLISHER_CONFIG'
  | 'MILLRACE_E_NATS_AUTH'
  | 'MILLRACE_E_NATS_TLS'
  | 'MILLRACE_E_NATS_CONNECT'
  | 'MILLRACE_E_NATS_PERMISSION'

/** An error with a stable `code`; its message begins with the code. */
export class PublisherError extends Error {
  readonly code: PublisherErrorCode

  constructor(code: PublisherErrorCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options)
    this.name = 'PublisherError'
    this.code = code
  }
}
