import { isDeepStrictEqual } from 'node:util'
import type { ErrorCode } from '../../errors.js'
import type { HandlerLog } from '../../queue/handler.js'
import { type DialError, dialError, type FailureKind } from './failure.js'
import { Link, type LinkConfig } from './link.js'
import { REPEAT_MS, Reasons, RefusedSubjects } from './log-limits.js'
import { type ServerAddress, ServerList, serverText } from './server-list.js'

/**
 * Pause between two rounds through all servers, and between two moves, ms. It lasts this long and up to as much again at random,
 * so that a fleet does not dial in step. Too low, and a dead cluster is dialled for nothing; too high, and it is found late
 * when it is back.
 */
const RETRY_MS = 250

/**
 * Time for a server that is about to stop to confirm what it has, ms; then we go on without its PONG. Servers keep clients for
 * at least ten seconds more (`lame_duck_grace_period`). Too low, and results that a busy server has taken count as
 * unconfirmed; too high, and its end finds us still there.
 */
const LEAVE_MS = 5000

/**
 * A link that has lived this long was no accident, ms: the next search begins with the first configured server. Too low, and a
 * server that accepts us and throws us out again keeps us from the others; too high, and an announced server is preferred to a
 * configured one for no reason.
 */
const STABLE_MS = 1000

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
   * @param moving true: the next link is ready, and `up` follows at once.
   */
  down(moving: boolean): void
  /**
   * The server is about to stop and another one is ready: nothing more may be written to the link.
   * @returns a promise that resolves when everything written is taken. It is waited for no longer than until the link ends.
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
  readonly #reasons = new Reasons()
  readonly #refusedSubjects = new RefusedSubjects()
  /** The last line of the log says that there is no connection. */
  #loggedDown = false
  readonly #ended: Promise<void>

  constructor(config: ConnectionConfig, events: ConnectionEvents, log: HandlerLog) {
    this.#config = config
    this.#events = events
    this.#log = log
    this.#servers = new ServerList(config.servers, config.gossip)
    this.#ended = this.#run().catch((err: unknown) => {
      log.error({ err }, 'the connection to NATS has ended by a fault of ours')
      // The worker ends by it: one without a connection would stay for ever, and not ready.
      queueMicrotask(() => {
        throw err
      })
    })
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
    /** Servers that have failed us one behind the other since the last pause. */
    let failed = 0
    while (!this.#closed) {
      const link = next ?? (await this.#dial(this.#servers.next()))
      next = link === undefined ? undefined : await this.#serve(link, next !== undefined)
      if (next !== undefined) failed = 0
      else if (++failed >= this.#servers.all.length && !this.#closed) {
        failed = 0
        await this.#pause()
      }
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

  /**
   * Lives with a link until it ends.
   * @param moved the link has taken the place of another one, so that the next move is not made at once.
   * @returns the link that has taken its place, if the server wanted us to move.
   */
  async #serve(link: Link, moved: boolean): Promise<Link | undefined> {
    const server = serverText(link.server)
    const since = performance.now()
    const move = new Move(link, this.#servers, (address) => this.#dial(address))
    let known = link.info
    let reason: DialError | undefined
    let next: Link | undefined
    /** Goes on with what is waited for below; the end of the link, and close(), end every wait. */
    let proceed = () => {}
    const step = (until: (proceed: () => void) => void) =>
      new Promise<void>((resolve) => {
        proceed = resolve
        if (this.#closed || reason !== undefined) resolve()
        else until(resolve)
      })
    this.#wake = () => proceed()
    const consider = () => {
      if (!known.lameDuck || move.begun) return
      this.#note(`stopping ${server}`, 'warn', { server }, 'NATS server is about to stop')
      move.begin(moved ? pauseMs() : 0, (found) => {
        next = found
        proceed()
      })
    }
    this.#servers.announce(known.connectUrls, link.server)
    link.open({
      closed: (why) => {
        reason = why
        proceed()
      },
      refused: (operation, subject) => this.#refused(operation, subject),
      message: (subject, headers, payload) => this.#events.message(subject, headers, payload),
      changed: (info) => {
        if (!isDeepStrictEqual(info.connectUrls, known.connectUrls)) {
          this.#servers.announce(info.connectUrls, link.server)
        }
        known = info
        this.#events.changed()
        consider()
      },
    })
    this.#link = link
    const { version, maxPayload } = known
    // When a loss was logged, the end of it is logged too, however often that was said before.
    const silent = this.#reasons.admit(`connected ${server}`, this.#loggedDown)
    if (silent !== undefined) {
      this.#loggedDown = false
      this.#log.info({ server, version, maxPayload, notLogged: silent }, 'connected to NATS')
    }
    this.#events.up(link)
    // The server may have said it before its first PONG.
    consider()
    await step((proceed) => next !== undefined && proceed())
    if (next !== undefined && reason === undefined && !this.#closed) {
      let timer: NodeJS.Timeout | undefined
      await step((proceed) => {
        const late = () => {
          const message = 'the NATS server that is about to stop has not confirmed everything in time'
          this.#note(`leaving ${server}`, 'warn', { server, waitedMs: LEAVE_MS }, message)
          proceed()
        }
        timer = setTimeout(late, LEAVE_MS)
        void this.#events.leave().then(proceed)
      })
      clearTimeout(timer)
    }
    this.#link = undefined
    link.destroy()
    move.end()
    if (this.#closed || next?.usable === false) {
      next?.destroy()
      next = undefined
    }
    if (next !== undefined) {
      const fields = { server, next: serverText(next.server) }
      this.#note(`moving ${server}`, 'info', fields, 'moving to another NATS server')
    }
    this.#events.down(next !== undefined)
    const lived = performance.now() - since
    if (lived >= STABLE_MS) this.#servers.restart()
    if (lived >= REPEAT_MS) this.#reasons.forget()
    if (reason !== undefined && !this.#closed) this.#lost(reason, server)
    return next
  }

  /** Logs a line, unless it repeats. */
  #note(reason: string, level: 'info' | 'warn', fields: object, message: string): void {
    const notLogged = this.#reasons.admit(reason)
    if (notLogged !== undefined) this.#log[level]({ ...fields, notLogged }, message)
  }

  #refused(operation: 'publish' | 'subscription', subject: string): void {
    if (operation === 'publish') this.#events.refused(subject)
    const silent = this.#refusedSubjects.admit(`${operation} ${subject}`)
    if (silent === undefined) return
    this.#log.error(
      { code: 'MILLRACE_E_NATS_PERMISSION', operation, subject, notLogged: silent },
      'NATS refuses the subject: the server discards what is published there',
    )
  }

  #lost({ kind, message: reason }: DialError, server: string): void {
    const silent = this.#reasons.admit(`lost ${server} ${reason}`)
    if (silent === undefined) return
    this.#loggedDown = true
    this.#log.warn(
      { code: CODES[kind], server, reason, notLogged: silent },
      'connection to NATS lost, dialling until it is back',
    )
  }

  /** Logs a failed dial, unless the same reason was logged within the last minute: reasons of several servers alternate. */
  #failed({ kind, message: reason, ownFile }: DialError, server: ServerAddress): void {
    if (this.#closed) return
    const silent = this.#reasons.admit(`${kind} ${reason}`)
    if (silent === undefined) return
    // While a move is prepared, the old link still serves.
    if (this.#link === undefined) this.#loggedDown = true
    const code = CODES[kind]
    const fields = {
      code,
      reason,
      server: serverText(server),
      servers: this.#config.servers,
      notLogged: silent,
    }
    if (kind === 'auth' && ownFile) {
      this.#log.error(
        fields,
        `${code}: our own file with the credentials cannot be used (${reason}); trying again until it can`,
      )
    } else if (kind === 'auth') {
      this.#log.error(
        fields,
        `${code}: NATS refuses the credentials (${reason}); trying again until it takes them`,
      )
    } else
      this.#log.warn(fields, `${code}: cannot connect to NATS (${reason}); trying again until it answers`)
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pauseMs())
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

function pauseMs(): number {
  return RETRY_MS * (1 + Math.random())
}

/** The search for a link that takes the place of one whose server is about to stop. It ends with the old link. */
class Move {
  readonly #old: Link
  readonly #servers: ServerList
  readonly #dial: (server: ServerAddress) => Promise<Link | undefined>
  #timer: NodeJS.Timeout | undefined
  #ended = false
  /** True once the search has begun. */
  begun = false

  constructor(old: Link, servers: ServerList, dial: (server: ServerAddress) => Promise<Link | undefined>) {
    this.#old = old
    this.#servers = servers
    this.#dial = dial
  }

  /** @param pause ms before the first dial. @param found is called once, unless the search is ended. */
  begin(pause: number, found: (next: Link) => void): void {
    this.begun = true
    this.#timer = setTimeout(() => void this.#round(found), pause)
  }

  /** What is found from here on is closed. */
  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }

  /** Tries every other server once. */
  async #round(found: (next: Link) => void): Promise<void> {
    for (const server of this.#servers.others(this.#old.server)) {
      const link = this.#ended ? undefined : await this.#dial(server)
      if (link === undefined) continue
      if (!this.#ended && !link.info.lameDuck && !sameServer(link, this.#old)) {
        found(link)
        return
      }
      link.destroy()
    }
    if (!this.#ended) this.begin(pauseMs(), found)
  }
}

/** Whether two links lead to one server: one name may stand for several servers, and several names for one. */
function sameServer(a: Link, b: Link): boolean {
  if (a.info.serverId !== '' && b.info.serverId !== '') return a.info.serverId === b.info.serverId
  return a.info.name === b.info.name && serverText(a.server) === serverText(b.server)
}
