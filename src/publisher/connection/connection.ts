import { isDeepStrictEqual } from 'node:util'
import type { ErrorCode } from '../../errors.js'
import type { HandlerLog } from '../../queue/handler.js'
import { type DialError, dialError, type FailureKind } from './failure.js'
import { Link, type LinkConfig } from './link.js'
import { type ServerAddress, ServerList, serverText } from './server-list.js'

/** Pause between two dials, ms: this, and up to as much again at random, so that a fleet does not dial in step. */
const RETRY_MS = 250

/** Longest that a server which is about to stop is waited for to confirm what it has, ms. Servers keep clients for at least
 * ten seconds more (`lame_duck_grace_period`); too high, and its end finds us still there. */
const LEAVE_MS = 5000

/** A link that has lived this long was no accident, ms: what is said of the next failure does not depend on what was said
 * before. Too low, and a server that takes us and throws us out fills the log; too high, and an outage is not said. */
const STABLE_MS = 1000

/** A reason that comes again within this time is counted and not logged, ms. */
const REPEAT_MS = 60_000

const CODES: Readonly<Record<FailureKind, ErrorCode>> = {
  connect: 'MILLRACE_E_NATS_CONNECT',
  auth: 'MILLRACE_E_NATS_AUTH',
  tls: 'MILLRACE_E_NATS_TLS',
}

/** What a {@link Connection} needs to know. */
export interface ConnectionConfig extends LinkConfig {
  /** `host:port` of the configured servers, at least one. */
  readonly servers: readonly string[]
  /** Whether servers that the cluster announces may be dialled too. */
  readonly gossip: boolean
}

/** What a {@link Connection} tells its owner; `up` and `down` alternate. */
export interface ConnectionEvents {
  up(link: Link): void
  /**
   * The link is dead: whether the server has taken what was written since its last PONG cannot be known any more.
   *
   * @param moving a link to another server is ready, and `up` follows at once.
   */
  down(moving: boolean): void
  /**
   * The server is about to stop and another one is ready: nothing more may be written to the link.
   * @returns a promise that resolves when everything written is taken, or the link is down.
   */
  leave(): Promise<void>
  /** The server's limits have changed. */
  changed(): void
  /** The server refuses to take what is published on a subject. */
  refused(subject: string): void
  /** A message for a subscription; views are valid until the call returns. */
  message(subject: Uint8Array, headers: Uint8Array | undefined, payload: Uint8Array): void
}

/** Keeps one link to NATS, for ever: when one ends, the servers are dialled in turn until one takes us. */
export class Connection {
  readonly #config: ConnectionConfig
  readonly #events: ConnectionEvents
  readonly #log: HandlerLog
  readonly #servers: ServerList
  #link: Link | undefined
  #closed = false
  #wake: (() => void) | undefined
  readonly #reasons: Reasons
  readonly #ended: Promise<void>

  constructor(config: ConnectionConfig, events: ConnectionEvents, log: HandlerLog) {
    this.#config = config
    this.#events = events
    this.#log = log
    this.#servers = new ServerList(config.servers, config.gossip)
    this.#reasons = new Reasons()
    this.#ended = this.#run()
  }

  /** The link while it can be written to, which ends before the news of it. */
  get link(): Link | undefined {
    return this.#link?.usable === true ? this.#link : undefined
  }

  /** Closes without waiting for confirmations. A dial under way is not waited for; it closes what it gets. */
  async close(): Promise<void> {
    this.#closed = true
    const link = this.#link
    this.#wake?.()
    if (link === undefined) return
    await this.#ended
  }

  async #run(): Promise<void> {
    let next: Link | undefined
    while (!this.#closed) {
      const link = next ?? (await this.#dial(this.#servers.next()))
      next = link === undefined ? undefined : await this.#serve(link)
      if (!this.#closed && next === undefined) await this.#pause(RETRY_MS * (1 + Math.random()))
    }
    next?.destroy()
  }

  async #dial(server: ServerAddress): Promise<Link | undefined> {
    try {
      const link = await Link.dial(server, this.#config)
      if (!this.#closed) return link
      link.destroy()
    } catch (error) {
      this.#failed(dialError(error), server)
    }
    return undefined
  }

  /** Lives with a link until it ends. Returns the one that has taken its place, if the server wanted us to move. */
  async #serve(link: Link): Promise<Link | undefined> {
    const server = serverText(link.server)
    let known = link.info
    this.#servers.connected()
    this.#servers.announce(known.connectUrls, link.server)
    const since = performance.now()
    let moveTo: Promise<Link | undefined> | undefined
    const ended = new Promise<DialError | Link | undefined>((resolve) => {
      this.#wake = () => resolve(undefined)
      link.open({
        closed: resolve,
        refused: (operation, subject) => this.#refused(operation, subject),
        message: (subject, headers, payload) => this.#events.message(subject, headers, payload),
        changed: (info) => {
          if (!isDeepStrictEqual(info.connectUrls, known.connectUrls)) {
            this.#servers.announce(info.connectUrls, link.server)
          }
          known = info
          this.#events.changed()
          if (info.lameDuck && moveTo === undefined) {
            this.#log.warn({ server }, 'NATS server is about to stop')
            moveTo = this.#findOther(link)
            void moveTo.then((other) => other && resolve(other))
          }
        },
      })
    })
    this.#link = link
    const { version, maxPayload } = known
    const silent = this.#reasons.admit(`connected ${server}`)
    if (silent !== undefined) {
      this.#log.info({ server, version, maxPayload, notLogged: silent }, 'connected to NATS')
    }
    this.#events.up(link)
    let outcome = await ended
    if (outcome instanceof Link && !this.#closed) {
      await Promise.race([this.#events.leave(), this.#pause(LEAVE_MS)])
      this.#log.info({ server, next: serverText(outcome.server) }, 'moving to another NATS server')
    } else if (outcome instanceof Link) {
      outcome.destroy()
      outcome = undefined
    }
    this.#link = undefined
    link.destroy()
    this.#events.down(outcome instanceof Link)
    if (outcome instanceof Link) return outcome
    if (performance.now() - since >= STABLE_MS) this.#reasons.forget()
    if (outcome !== undefined) this.#lost(outcome, server)
    if (this.#closed) {
      void moveTo?.then((other) => other?.destroy())
      return undefined
    }
    // A move that was under way has nothing to move from any more; what it finds serves.
    return await moveTo
  }

  /** A link to another server than this one, as soon as there is any; `undefined` when the link ends before. */
  async #findOther(link: Link): Promise<Link | undefined> {
    while (!this.#closed && link.usable) {
      const server = this.#servers.other(link.server)
      if (server !== undefined) {
        const found = await this.#dial(server)
        if (found !== undefined) return found
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS).unref())
    }
    return undefined
  }

  #refused(operation: 'publish' | 'subscription', subject: string): void {
    if (operation === 'publish') this.#events.refused(subject)
    const silent = this.#reasons.admit(`${operation} ${subject}`)
    if (silent === undefined) return
    this.#log.error(
      { code: 'MILLRACE_E_NATS_PERMISSION', operation, subject, notLogged: silent },
      'NATS refuses the subject: the server discards what is published there',
    )
  }

  #lost({ kind, message: reason }: DialError, server: string): void {
    const silent = this.#reasons.admit(`lost ${server} ${reason}`)
    if (silent === undefined) return
    this.#log.warn(
      { code: CODES[kind], server, reason, notLogged: silent },
      'connection to NATS lost, dialling until it is back',
    )
  }

  /** Logs a failed dial, unless the same reason was logged within the last minute: reasons of several servers alternate. */
  #failed({ kind, message: reason }: DialError, server: ServerAddress): void {
    if (this.#closed) return
    const silent = this.#reasons.admit(`${kind} ${reason}`)
    if (silent === undefined) return
    const code = CODES[kind]
    const fields = {
      code,
      reason,
      server: serverText(server),
      servers: this.#config.servers,
      notLogged: silent,
    }
    if (kind === 'auth') {
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

/** Which reasons have been said, so that one which repeats, also in turn with others, is said once a minute. */
class Reasons {
  readonly #said = new Map<string, { at: number; silent: number }>()

  /** How often the reason was kept silent since it was said, or `undefined` when it is to be kept silent again. */
  admit(reason: string, now = performance.now()): number | undefined {
    const before = this.#said.get(reason)
    if (before !== undefined && now - before.at < REPEAT_MS) {
      before.silent++
      return undefined
    }
    // Bounded: a peer may word its reasons without end.
    if (this.#said.size >= 64) this.#said.clear()
    this.#said.set(reason, { at: now, silent: 0 })
    return before?.silent ?? 0
  }

  /** What was said is said again when it comes again. */
  forget(): void {
    this.#said.clear()
  }
}
