import { connect, Events, type NatsConnection, type Status } from 'nats'
import type { ErrorCode } from '../errors.js'
import type { HandlerLog } from '../queue/handler.js'
import type { ResolvedConfig } from './config.js'
import { connectionOptions } from './options.js'

/** Pause between connection attempts: this, plus as much again at random, so that a fleet does not dial in step. */
const RETRY_MS = 250

const AUTH_CODES = new Set([
  'AUTHORIZATION_VIOLATION',
  'AUTHENTICATION_EXPIRED',
  'AUTHENTICATION_TIMEOUT',
  'ACCOUNT_EXPIRED',
  'BAD_AUTHENTICATION',
  'BAD_CREDS',
])

/** nats.js's own code, and those Node takes over from OpenSSL. */
const TLS_CODES = /^(?:TLS$|ERR_TLS|ERR_SSL|EPROTO$|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_)/u

/** What a {@link Connection} tells its owner; `up` and `down` alternate. */
export interface ConnectionEvents {
  up(client: NatsConnection): void
  /** Nothing handed over since the last confirmed flush can be confirmed any more. */
  down(): void
}

/**
 * Keeps one connection to NATS, for ever.
 *
 * Each connection is a nats.js client of its own that does not reconnect. A reconnecting client takes what is published
 * while it is away without limit, empties its queue at every dial, and tells of it some microtasks later; with one
 * client per connection there is nothing a dead one could still send, and whatever it was given is either confirmed or
 * not when it ends. It also brings the first connection and every later one to the same loop, where the reason of each
 * failed attempt is known.
 */
export class Connection {
  readonly #config: ResolvedConfig
  readonly #events: ConnectionEvents
  readonly #log: HandlerLog
  /** Servers the cluster told us about, besides the configured ones. */
  readonly #gossip = new Set<string>()
  #client: NatsConnection | undefined
  #closed = false
  #wake: (() => void) | undefined
  #lastFailure = ''
  readonly #ended: Promise<void>

  constructor(config: ResolvedConfig, events: ConnectionEvents, log: HandlerLog) {
    this.#config = config
    this.#events = events
    this.#log = log
    this.#ended = this.#run()
  }

  /** The client while it can be given data. Checked against the socket itself: news of its end comes a little later. */
  get client(): NatsConnection | undefined {
    const client = this.#client
    return client !== undefined && usable(client) ? client : undefined
  }

  /** Closes without flushing. A connection attempt under way is not waited for; it closes what it gets. */
  async close(): Promise<void> {
    this.#closed = true
    this.#wake?.()
    if (this.#client === undefined) return
    await this.#client.close()
    await this.#ended
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        const servers = [...new Set([...this.#config.servers, ...this.#gossip])]
        const client = await connect(await connectionOptions(this.#config, servers))
        await this.#serve(client)
      } catch (error) {
        this.#failed(error as Error & { code?: string })
      }
      if (!this.#closed) await this.#pause(RETRY_MS * (1 + Math.random()))
    }
  }

  async #serve(client: NatsConnection): Promise<void> {
    if (this.#closed) return void (await client.close())
    for (const url of client.info?.connect_urls ?? []) this.#gossip.add(url)
    this.#lastFailure = ''
    const ended = new Promise<void>((resolve) => {
      void client.closed().then(() => resolve())
      void this.#watch(client, resolve)
    })
    this.#client = client
    const server = client.getServer()
    this.#log.info({ server, maxPayload: client.info?.max_payload }, 'connected to NATS')
    this.#events.up(client)
    await ended
    this.#client = undefined
    this.#events.down()
    if (this.#closed) return
    this.#log.warn({ server }, 'connection to NATS lost, dialling until it is back')
    // A stale client is not closed yet: its own way to close waits for a write that a stalled server never takes.
    await client.close()
  }

  async #watch(client: NatsConnection, end: () => void): Promise<void> {
    for await (const status of client.status()) {
      if (status.type === 'staleConnection' || status.type === Events.Disconnect) end()
      else if (status.type === Events.Error) this.#report(status)
      else if (status.type === Events.LDM)
        this.#log.warn({ server: status.data }, 'NATS server is about to stop')
      else if (status.type === Events.Update && typeof status.data === 'object') {
        for (const url of status.data.added ?? []) this.#gossip.add(url)
      }
    }
  }

  #report(status: Status): void {
    const { permissionContext: context } = status
    if (context !== undefined) {
      const fields = {
        code: 'MILLRACE_E_NATS_PERMISSION',
        operation: context.operation,
        subject: context.subject,
      }
      this.#log.error(fields, 'NATS refuses the subject: the server discards what is published there')
    } else
      this.#log.error({ code: codeOf(String(status.data)), reason: status.data }, 'NATS reports an error')
  }

  /** Logs a failed attempt when its reason is another than the last one's. */
  #failed(error: Error & { code?: string }): void {
    const reason = error.message || String(error.code)
    if (this.#closed || reason === this.#lastFailure) return
    this.#lastFailure = reason
    const code = codeOf(String(error.code))
    const fields = { code, reason, servers: this.#config.servers }
    if (code === 'MILLRACE_E_NATS_AUTH') {
      this.#log.error(
        fields,
        `${code}: NATS refuses the credentials (${reason}); trying again until it takes them`,
      )
    } else
      this.#log.warn(fields, `${code}: cannot connect to NATS (${reason}); trying again until it answers`)
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

function codeOf(code: string): ErrorCode {
  if (AUTH_CODES.has(code)) return 'MILLRACE_E_NATS_AUTH'
  return TLS_CODES.test(code) ? 'MILLRACE_E_NATS_TLS' : 'MILLRACE_E_NATS_CONNECT'
}

/** The parts of nats.js 2.29 behind its public face that know of a broken socket first. All optional: a later version
 * without them costs only that head start, for its `closed()` comes anyway. */
interface Inside {
  protocol?: {
    connected?: boolean
    transport?: { isClosed?: boolean; socket?: { destroyed?: boolean; writable?: boolean } }
  }
}

function usable(client: NatsConnection): boolean {
  if (client.isClosed()) return false
  const protocol = (client as NatsConnection & Inside).protocol
  const socket = protocol?.transport?.socket
  return (
    protocol?.connected !== false &&
    protocol?.transport?.isClosed !== true &&
    socket?.destroyed !== true &&
    socket?.writable !== false
  )
}
