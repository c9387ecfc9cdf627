import type { Socket } from 'node:net'
import { type Credentials, connectCredentials } from './credentials.js'
import { dialTcp, type TlsFiles, upgradeTls } from './dial.js'
import { DialError, dialError } from './failure.js'
import { ServerParser } from './parser.js'
import { parseInfo, type ServerInfo } from './server-info.js'
import type { ServerAddress } from './server-list.js'

/** What every connection of a publisher has in common. */
export interface LinkConfig {
  /** Client name shown by the server's monitoring. */
  readonly name: string
  readonly version: string
  readonly credentials: Credentials
  /** `null`: TLS only where the server requires it, with the system's authorities. */
  readonly tls: TlsFiles | null
  /** Time for TCP, TLS, INFO and the first PONG together, ms. Too low, and a busy server is never reached; too high, and a
   * dead address keeps the next one waiting. */
  readonly dialTimeoutMs: number
  /** Silence of the server after which a PING is sent, ms. */
  readonly pingIntervalMs: number
  /** Time without an answer to a PING, or any other byte, after which the server counts as dead, ms. Too low, and a server that pauses costs a reconnect; too high,
   * and the window stands full for that long. */
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

const PING = Buffer.from('PING\r\n')
const PONG = Buffer.from('PONG\r\n')
const NO_FILES: TlsFiles = { ca: null, cert: null, key: null, handshakeFirst: false }
const nothing = () => undefined

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
  #lastError: string | undefined
  #closed = false
  #corked = false
  /** When the server last sent anything, and when the oldest PING without a PONG was sent; performance.now(). */
  #heardAt = performance.now()
  #askedAt = 0
  #timer: NodeJS.Timeout | undefined
  /** Settles the dial: the first PONG, or the reason why there is none. */
  #greeting: { resolve: () => void; reject: (error: Error) => void } | undefined

  /**
   * Dials one server and proves who we are.
   * @throws DialError
   */
  static async dial(server: ServerAddress, config: LinkConfig): Promise<Link> {
    const signal = AbortSignal.timeout(config.dialTimeoutMs)
    let socket: Socket | undefined
    try {
      // Between the steps below nobody else listens: an error is then seen as the close that follows it.
      socket = (await dialTcp(server, signal)).on('error', nothing)
      const { tls } = config
      if (tls?.handshakeFirst === true)
        socket = (await upgradeTls(socket, server, tls, signal)).on('error', nothing)
      const info = await firstInfo(socket, signal)
      if (tls?.handshakeFirst !== true && (tls !== null || info.tlsRequired)) {
        if (!info.tlsRequired && !info.tlsAvailable) throw new DialError('tls', 'the server offers no TLS')
        socket = (await upgradeTls(socket, server, tls ?? NO_FILES, signal)).on('error', nothing)
      }
      const fields = {
        ...(await connectCredentials(config.credentials, info.nonce ?? '')),
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
      await link.#greet(`CONNECT ${JSON.stringify(fields)}\r\nPING\r\n`, signal)
      return link
    } catch (error) {
      socket?.destroy()
      throw dialError(error, signal.aborted ? config.dialTimeoutMs : undefined)
    }
  }

  private constructor(server: ServerAddress, config: LinkConfig, socket: Socket, info: ServerInfo) {
    this.server = server
    this.#config = config
    this.#socket = socket
    this.#info = info
    this.#parser = new ServerParser({
      info: (json) => this.#inform(json),
      ping: () => this.#send(PONG),
      pong: () => this.#pong(),
      error: (text) => this.#error(text),
      message: (subject, headers, payload) => this.#events?.message(subject, headers, payload),
    })
    socket.on('data', (bytes: Buffer) => this.#receive(bytes))
    socket.on('error', (error) => this.#fail(dialError(error)))
    socket.on('close', () => this.#fail(new DialError('connect', 'the server closed the connection')))
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
    this.#timer = setInterval(() => this.#watch(), this.#config.pingIntervalMs).unref()
    // The link may have ended between its first PONG and this call.
    if (this.#closed) queueMicrotask(() => events.closed(new DialError('connect', this.#said())))
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

  async #greet(connect: string, signal: AbortSignal): Promise<void> {
    const answered = new Promise<void>((resolve, reject) => {
      this.#greeting = { resolve, reject }
    })
    const late = () => this.#greeting?.reject(new DialError('connect', 'no PONG'))
    signal.addEventListener('abort', late)
    this.#pongs.push(() => this.#greeting?.resolve())
    if (this.#socket.closed) this.#fail(new DialError('connect', this.#said()))
    else this.#socket.write(connect)
    try {
      await answered
    } finally {
      this.#greeting = undefined
      signal.removeEventListener('abort', late)
    }
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

  #receive(bytes: Buffer): void {
    this.#heardAt = performance.now()
    try {
      this.#parser.feed(bytes)
    } catch (error) {
      this.#fail(new DialError('connect', `not the NATS protocol: ${(error as Error).message}`))
    }
  }

  #inform(json: string): void {
    try {
      this.#info = parseInfo(json)
    } catch (error) {
      this.#fail(new DialError('connect', `not the NATS protocol: ${(error as Error).message}`))
      return
    }
    this.#events?.changed(this.#info)
  }

  #pong(): void {
    this.#pongs.shift()?.()
  }

  #error(text: string): void {
    const refused = /^Permissions Violation for (Publish|Subscription) (?:to )?"([^"]*)"/iu.exec(text)
    if (refused !== null) {
      const operation = refused[1]!.toLowerCase() as 'publish' | 'subscription'
      this.#events?.refused(operation, refused[2]!)
      return
    }
    // The server closes the connection after any other error; its last word is the reason.
    this.#lastError = text
  }

  /** Sends a PING when the server has been silent, and ends the link when it has not answered one for too long. */
  #watch(): void {
    const { pingIntervalMs, deadAfterMs } = this.#config
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

  #said(): string {
    return this.#lastError ?? 'the server closed the connection'
  }

  #fail(reason: DialError): void {
    if (this.#closed) return
    const final = this.#lastError === undefined ? reason : dialError(new Error(this.#lastError))
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

/** Reads the INFO with which a server begins. Nothing may follow it: before TLS that would be somebody else's bytes. */
function firstInfo(socket: Socket, signal: AbortSignal): Promise<ServerInfo> {
  return new Promise((resolve, reject) => {
    let info: ServerInfo | undefined
    let lastError: string | undefined
    const refuse = (what: string) => () => finish(new DialError('connect', `${what} before its INFO`))
    const parser = new ServerParser({
      info: (json) => {
        info ??= parseInfo(json)
      },
      ping: refuse('PING'),
      pong: refuse('PONG'),
      error: (text) => {
        lastError = text
      },
      message: refuse('a message'),
    })
    const onData = (bytes: Buffer) => {
      try {
        parser.feed(bytes)
      } catch (error) {
        finish(new DialError('connect', `not the NATS protocol: ${(error as Error).message}`))
        return
      }
      if (lastError !== undefined) finish(new Error(lastError))
      if (info === undefined) return
      if (parser.heldBytes > 0) finish(new DialError('connect', 'bytes behind INFO, before TLS or CONNECT'))
      else finish()
    }
    const onClose = () =>
      finish(
        lastError === undefined
          ? new DialError('connect', 'the server closed the connection')
          : new Error(lastError),
      )
    const onAbort = () => finish(new DialError('connect', 'no INFO'))
    function finish(error?: Error): void {
      socket.off('data', onData).off('close', onClose).off('error', finish)
      signal.removeEventListener('abort', onAbort)
      socket.pause()
      if (error !== undefined) reject(error)
      else resolve(info!)
    }
    socket.on('data', onData).on('close', onClose).on('error', finish)
    signal.addEventListener('abort', onAbort)
    socket.resume()
  })
}
