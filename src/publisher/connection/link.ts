import type { Socket } from 'node:net'
import { type Credentials, connectCredentials, readSecrets } from './credentials.js'
import { CLOSED, dialTcp, readTlsFiles, type TlsFiles, upgradeTls } from './dial.js'
import { DialError, dialError } from './failure.js'
import { firstInfo } from './first-info.js'
import { ProtocolError, ServerParser } from './parser.js'
import { parseInfo, type ServerInfo } from './server-info.js'
import type { ServerAddress } from './server-list.js'
import { TimeLimit } from './time-limit.js'

/** What every connection of a publisher has in common. */
export interface LinkConfig {
  /** Client name shown by the server's monitoring. */
  readonly name: string
  readonly version: string
  readonly credentials: Credentials
  /** `null`: TLS only where the server requires it, with the system's authorities. */
  readonly tls: TlsFiles | null
  /** Time for our own files, TCP, TLS, INFO and the first PONG together, ms. Too low, and a busy server is never reached; too high, and a
   * dead address keeps the next one waiting. */
  readonly dialTimeoutMs: number
  /** Silence of the server after which a PING is sent, ms. */
  readonly pingIntervalMs: number
  /** Time without an answer to a PING, or any other byte, after which the server counts as dead, ms. Too low, and a server
   * that pauses costs a reconnect; too high, and the window stands full for that long. */
  readonly deadAfterMs: number
}

/** What a link tells its owner, until {@link LinkEvents.closed}. */
export interface LinkEvents {
  /** The link is gone, for this reason; called once, and not after {@link Link.destroy}. */
  closed(reason: DialError): void
  /** The server refuses an operation on a subject, and keeps the connection. */
  refused(operation: 'publish' | 'subscription', subject: string): void
  /** The server has sent another INFO: its limits or its cluster have changed, or it is about to stop. */
  changed(info: ServerInfo): void
  /** A message for a subscription; views are valid until the call returns. */
  message(subject: Uint8Array, headers: Uint8Array | undefined, payload: Uint8Array): void
}

/** How servers refuse an operation and keep the connection (server/client.go). */
const PERMISSION = /^Permissions Violation for (Publish|Subscription)(?: to| with Reply of)? "([^"]*)"/iu

const PING = Buffer.from('PING\r\n')
const PONG = Buffer.from('PONG\r\n')
const nothing = () => undefined

/**
 * Time after an error of the server in which the end of the connection is put down to it, ms. Servers close at once after an
 * error that is fatal. Too low, and a slow line hides why; too high, and an error that the server let pass is blamed for
 * something else.
 */
const LAST_ERROR_MS = 2000

/** Ticks of the watch in {@link LinkConfig.deadAfterMs}. Too low, and a dead server is found late; too high, and the timer
 * costs CPU for nothing. */
const TICKS = 4

/**
 * One connection to one NATS server, from CONNECT to its end. It never reconnects: what was written to it is either answered
 * or not when it closes.
 */
export class Link {
  readonly server: ServerAddress
  readonly #config: LinkConfig
  readonly #socket: Socket
  readonly #parser: ServerParser
  #info: ServerInfo
  #events: LinkEvents | undefined
  /** One for each PING that has no PONG yet, in order. */
  #pongs: (() => void)[] = []
  #lastError: { text: string; at: number } | undefined
  /** Why the link has ended. */
  #endReason: DialError | undefined
  /** A PONG of ours waits behind bytes that the kernel has not taken. */
  #pongWaits = false
  #closed = false
  #corked = false
  /** When the server last sent anything, and when the oldest PING without a PONG was sent; performance.now(). */
  #heardAt = performance.now()
  #askedAt = 0
  /** Bytes that the kernel had taken at the last tick of the watch, and those that waited for it. */
  #sentBytes = 0
  #waitingBytes = 0
  #timer: NodeJS.Timeout | undefined
  /** Settles the dial: the first PONG, or the reason why there is none. */
  #greeting: { resolve: () => void; reject: (error: Error) => void } | undefined

  /**
   * Dials one server and proves who we are.
   * @throws DialError
   */
  static async dial(server: ServerAddress, config: LinkConfig): Promise<Link> {
    const { tls, dialTimeoutMs: ms } = config
    const limit = new TimeLimit(ms, (missing) => `no connection within ${ms} ms (${missing})`)
    let socket: Socket | undefined
    try {
      // Files first: between the steps after INFO only what is there already may happen, or an end would be overlooked.
      const secrets = await readSecrets(config.credentials, limit)
      const material = await readTlsFiles(tls, limit)
      socket = await dialTcp(server, limit)
      const handshakeFirst = tls?.handshakeFirst === true
      if (handshakeFirst) socket = await upgradeTls(socket, server, material, limit)
      const upgrades = (info: ServerInfo) => !handshakeFirst && (tls !== null || info.tlsRequired)
      const info = await limit.wait('no INFO', firstInfo(socket, upgrades))
      if (upgrades(info)) {
        if (!info.tlsRequired && !info.tlsAvailable) throw new DialError('tls', 'the server offers no TLS')
        socket = await upgradeTls(socket, server, material, limit)
      }
      const fields = {
        ...connectCredentials(secrets, info.nonce ?? ''),
        verbose: false,
        pedantic: false,
        tls_required: tls !== null || info.tlsRequired,
        name: config.name,
        lang: 'millrace',
        version: config.version,
        protocol: 1,
        echo: false,
        headers: true,
        no_responders: true,
      }
      const link = new Link(server, config, socket, info)
      await limit.wait('no PONG', link.#greet(`CONNECT ${JSON.stringify(fields)}\r\nPING\r\n`))
      return link
    } catch (error) {
      socket?.destroy()
      throw dialError(error)
    } finally {
      limit.clear()
    }
  }

  private constructor(server: ServerAddress, config: LinkConfig, socket: Socket, info: ServerInfo) {
    this.server = server
    this.#config = config
    this.#socket = socket
    this.#info = info
    this.#parser = new ServerParser({
      info: (json) => this.#inform(json),
      ping: () => this.#answer(),
      pong: () => this.#pong(),
      error: (text) => this.#error(text),
      message: (subject, headers, payload) => this.#events?.message(subject, headers, payload),
    })
    socket.on('data', (bytes: Buffer) => this.#receive(bytes))
    socket.on('error', (error) => this.#fail(dialError(error)))
    const onClosed = () => this.#fail(new DialError('connect', CLOSED))
    // A peer that has closed its side and reads no more would keep what we write for ever.
    socket.on('end', onClosed).on('close', onClosed)
    socket.resume()
  }

  /** What the server says of itself; its limits may change while the link lives. */
  get info(): ServerInfo {
    return this.#info
  }

  /** False as soon as nothing more can be written, which is before the news of the link's end. */
  get usable(): boolean {
    return !this.#closed && this.#socket.writable && !this.#socket.destroyed
  }

  /** Bytes that were written and that the kernel has not taken. */
  get backlogBytes(): number {
    return this.#socket.writableLength
  }

  /** Receives events from here on, and keeps the link alive by PING. */
  open(events: LinkEvents): void {
    this.#events = events
    const { pingIntervalMs, deadAfterMs } = this.#config
    const tick = Math.max(1, Math.min(pingIntervalMs, deadAfterMs / TICKS))
    this.#timer = setInterval(() => this.#watch(), tick).unref()
    // The link may have ended between its first PONG and this call.
    if (this.#closed) {
      clearInterval(this.#timer)
      queueMicrotask(() => events.closed(this.#endReason ?? new DialError('connect', CLOSED)))
    }
  }

  /**
   * Writes whole operations. `written` is called when the kernel has the bytes or the link has died: from then on their
   * memory may be used again, and not before. What is written in one turn goes out together, at {@link Link.flush} or when
   * the turn ends.
   */
  write(bytes: Uint8Array, written: () => void): void {
    this.#cork()
    this.#socket.write(bytes, written)
  }

  /** Sends a PING; `answered` is called when the server has parsed everything written before it, and never after the link's end. */
  ping(answered: () => void): void {
    if (this.#pongs.length === 0) this.#askedAt = performance.now()
    this.#pongs.push(answered)
    this.#cork()
    this.#send(PING)
  }

  /** Hands to the kernel what this turn has written. */
  flush(): void {
    if (!this.#corked) return
    this.#corked = false
    this.#socket.uncork()
  }

  /** Ends the link at once, without a word to its owner. */
  destroy(): void {
    this.#events = undefined
    this.#end()
  }

  /** Sends CONNECT; resolves at the first PONG. */
  #greet(connect: string): Promise<void> {
    const answered = new Promise<void>((resolve, reject) => {
      this.#greeting = { resolve, reject }
    })
    this.#pongs.push(() => {
      this.#greeting?.resolve()
      this.#greeting = undefined
    })
    const { errored, destroyed } = this.#socket
    if (errored !== null) this.#fail(dialError(errored))
    else if (destroyed) this.#fail(new DialError('connect', CLOSED))
    else this.#socket.write(connect)
    return answered
  }

  #cork(): void {
    if (this.#corked) return
    this.#corked = true
    this.#socket.cork()
    process.nextTick(() => this.flush())
  }

  #send(bytes: Uint8Array): void {
    if (this.usable) this.#socket.write(bytes)
  }

  /** Answers a PING. A peer that sends many and reads nothing gets one PONG, not memory of ours without end. */
  #answer(): void {
    if (this.#socket.writableLength === 0) this.#send(PONG)
    else if (!this.#pongWaits && this.usable) {
      this.#pongWaits = true
      this.#socket.write(PONG, () => {
        this.#pongWaits = false
      })
    }
  }

  #receive(bytes: Buffer): void {
    this.#heardAt = performance.now()
    try {
      this.#parser.feed(bytes)
    } catch (error) {
      // Anything else was thrown by whoever heard of an operation, and is no fault of the server.
      if (!(error instanceof ProtocolError)) throw error
      this.#fail(new DialError('connect', `not the NATS protocol: ${error.message}`))
    }
  }

  #inform(json: string): void {
    this.#info = parseInfo(json)
    this.#events?.changed(this.#info)
  }

  #pong(): void {
    this.#pongs.shift()?.()
  }

  #error(text: string): void {
    const refused = PERMISSION.exec(text)
    if (refused !== null) {
      const operation = refused[1]!.toLowerCase() as 'publish' | 'subscription'
      this.#events?.refused(operation, refused[2]!)
      return
    }
    // The server closes the connection after most other errors; its last word is the reason.
    this.#lastError = { text, at: performance.now() }
  }

  /** Sends a PING when the server has been silent, and ends the link when it has not answered one for too long. */
  #watch(): void {
    const { pingIntervalMs, deadAfterMs } = this.#config
    const { bytesWritten, writableLength } = this.#socket
    // On a slow line the answer comes only behind a whole window. That the kernel takes bytes which had to wait for room in its
    // buffer shows that the peer takes them; without a backlog it would show nothing, because the buffer takes bytes for a dead peer.
    const sent = bytesWritten - writableLength
    if (this.#waitingBytes > 0 && sent > this.#sentBytes) this.#heardAt = performance.now()
    this.#sentBytes = sent
    this.#waitingBytes = writableLength
    if (this.#pongs.length === 0) {
      if (performance.now() - this.#heardAt >= pingIntervalMs) this.ping(nothing)
      return
    }
    const waiting = () => performance.now() - Math.max(this.#heardAt, this.#askedAt)
    if (waiting() < deadAfterMs) return
    // A handler may have held this thread for that long: what has arrived meanwhile is read first.
    setImmediate(() => {
      if (waiting() < deadAfterMs) return
      const seconds = Math.round(waiting() / 1000)
      this.#fail(new DialError('connect', `the server has not answered for ${seconds} s`))
    })
  }

  #fail(reason: DialError): void {
    if (this.#closed) return
    const { text, at } = this.#lastError ?? { text: '', at: Number.NEGATIVE_INFINITY }
    const final = performance.now() - at < LAST_ERROR_MS ? dialError(new Error(text)) : reason
    this.#endReason = final
    const events = this.#events
    const greeting = this.#greeting
    this.#events = undefined
    this.#end()
    greeting?.reject(final)
    events?.closed(final)
  }

  #end(): void {
    this.#closed = true
    this.#pongs = []
    clearInterval(this.#timer)
    this.#socket.destroy()
  }
}
