import { connect, Events, type NatsConnection, type Status } from 'nats'
import type { ErrorCode } from '../errors.js'
import type { HandlerLog } from '../handler.js'
import type { ResolvedConfig } from './config.js'
import { connectionOptions } from './connection-options.js'

/**
 * Milliseconds between two connection attempts, at least; up to as many again are added at random, so that the workers
 * of a fleet do not all dial at the same moments. Too low: a server that is starting is flooded with attempts. Too high:
 * under the policy `hold` queues fill although the server is back.
 */
const RETRY_MS = 250

/** Codes with which nats.js says that the server refuses the credentials. */
const AUTH_CODES = new Set([
  'AUTHORIZATION_VIOLATION',
  'AUTHENTICATION_EXPIRED',
  'AUTHENTICATION_TIMEOUT',
  'ACCOUNT_EXPIRED',
  'BAD_AUTHENTICATION',
  'BAD_CREDS',
])

/** Codes of TLS failures: nats.js has one of its own, the others are those of Node and OpenSSL. */
const TLS_CODES = /^(?:TLS$|ERR_TLS|ERR_SSL|EPROTO$|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_)/u

/** What a {@link Connection} tells its owner. The two calls alternate, beginning with `onConnected`. */
export interface ConnectionEvents {
  onConnected(client: NatsConnection): void
  /** What was handed over and not confirmed until now will never be confirmed. */
  onDisconnected(): void
}

/**
 * Keeps a publisher connected to NATS: dials until it succeeds, and again whenever the connection dies.
 *
 * Each connection is a nats.js client of its own that does not reconnect. A client that reconnects accepts without limit
 * what is published while it is disconnected, sends it at the next connection, and reports the loss of a connection some
 * microtasks late. With one client for each connection a dead one can send nothing later, and what it was given is
 * either confirmed or not when it ends. It also means that the first connection and all later ones come from the same
 * loop, which knows the reason of each failed attempt.
 */
export class Connection {
  readonly #config: ResolvedConfig
  readonly #events: ConnectionEvents
  readonly #log: HandlerLog
  /** Servers of the cluster that a server has advertised (`connect_urls`), beside the configured ones. */
  readonly #advertised = new Set<string>()
  #client: NatsConnection | undefined
  #closed = false
  /** Ends the pause between two attempts. */
  #endPause: (() => void) | undefined
  #lastFailure = ''
  readonly #loopEnded: Promise<void>

  constructor(config: ResolvedConfig, events: ConnectionEvents, log: HandlerLog) {
    this.#config = config
    this.#events = events
    this.#log = log
    this.#loopEnded = this.#connectLoop()
  }

  /** The client while it can be given messages. It looks at the socket itself, whose end is reported a little later. */
  get client(): NatsConnection | undefined {
    const client = this.#client
    return client !== undefined && isUsable(client) ? client : undefined
  }

  /** Closes without flushing. Does not wait for an attempt that is under way: the loop closes what comes of it. */
  async close(): Promise<void> {
    this.#closed = true
    this.#endPause?.()
    if (this.#client === undefined) return
    await this.#client.close()
    await this.#loopEnded
  }

  async #connectLoop(): Promise<void> {
    while (!this.#closed) {
      try {
        const servers = [...new Set([...this.#config.servers, ...this.#advertised])]
        const client = await connect(await connectionOptions(this.#config, servers))
        await this.#useUntilDead(client)
      } catch (error) {
        this.#logFailedAttempt(error as Error & { code?: string })
      }
      if (!this.#closed) await this.#pause(RETRY_MS * (1 + Math.random()))
    }
  }

  /** Reports a new connection, waits until it is dead, and reports that. */
  async #useUntilDead(client: NatsConnection): Promise<void> {
    if (this.#closed) return void (await client.close())
    for (const url of client.info?.connect_urls ?? []) this.#advertised.add(url)
    this.#lastFailure = ''
    const dead = new Promise<void>((resolve) => {
      void client.closed().then(() => resolve())
      void this.#watchStatus(client, resolve)
    })
    this.#client = client
    const server = client.getServer()
    this.#log.info({ server, maxPayload: client.info?.max_payload }, 'connected to NATS')
    this.#events.onConnected(client)
    await dead
    this.#client = undefined
    this.#events.onDisconnected()
    if (this.#closed) return
    this.#log.warn({ server }, 'connection to NATS lost, dialling until it is back')
    // A stale client is not closed yet: nats.js waits for a write that a stalled server never accepts.
    await client.close()
  }

  /** Logs what the client reports, and calls `onDead` when it reports the end of its connection. */
  async #watchStatus(client: NatsConnection, onDead: () => void): Promise<void> {
    for await (const status of client.status()) {
      if (status.type === 'staleConnection' || status.type === Events.Disconnect) onDead()
      else if (status.type === Events.Error) this.#logServerError(status)
      else if (status.type === Events.LDM)
        this.#log.warn({ server: status.data }, 'NATS server is about to stop')
      else if (status.type === Events.Update && typeof status.data === 'object') {
        for (const url of status.data.added ?? []) this.#advertised.add(url)
      }
    }
  }

  #logServerError(status: Status): void {
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

  /** Logs a failed attempt, unless the one before failed for the same reason. */
  #logFailedAttempt(error: Error & { code?: string }): void {
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
      this.#endPause = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

/** Our code for a code of nats.js, Node or OpenSSL. */
function codeOf(code: string): ErrorCode {
  if (AUTH_CODES.has(code)) return 'MILLRACE_E_NATS_AUTH'
  return TLS_CODES.test(code) ? 'MILLRACE_E_NATS_TLS' : 'MILLRACE_E_NATS_CONNECT'
}

/**
 * Internal parts of nats.js 2.29 that know of a broken socket before `closed()` settles. All are optional: without them,
 * in a later version, the end of a connection is only noticed later.
 */
interface ClientInternals {
  protocol?: {
    connected?: boolean
    transport?: { isClosed?: boolean; socket?: { destroyed?: boolean; writable?: boolean } }
  }
}

/** Whether messages given to the client can still reach its socket. */
function isUsable(client: NatsConnection): boolean {
  if (client.isClosed()) return false
  const protocol = (client as NatsConnection & ClientInternals).protocol
  const socket = protocol?.transport?.socket
  return (
    protocol?.connected !== false &&
    protocol?.transport?.isClosed !== true &&
    socket?.destroyed !== true &&
    socket?.writable !== false
  )
}
