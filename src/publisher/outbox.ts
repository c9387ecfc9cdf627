import type { NatsConnection } from 'nats'
import type { HandlerLog } from '../handler.js'
import type { Counters } from '../queue/counters.js'
import type { Chunk, ChunkPool } from './chunk.js'
import type { ResolvedConfig } from './config.js'
import { Connection } from './connection.js'
import { Window } from './window.js'

/** max_payload of a nats-server that configures none, in bytes; assumed until the first connection. */
const DEFAULT_MAX_PAYLOAD = 1 << 20
const NO_OPTIONS = {}

/**
 * Bytes of a message on the wire. The 16 bytes beside the subject are those of `PUB`, the length and the line ends.
 * Without them an empty datagram would weigh nothing, and fill no window.
 */
const wireBytes = (subject: string, message: Uint8Array): number => message.length + subject.length + 16

/** What an {@link Outbox} tells its owner. */
export interface OutboxEvents {
  /** A connection was made or a PONG came, and pending messages were handed over as far as the window allows. */
  onProgress(): void
  /**
   * The connection is dead. What was unconfirmed is counted, and no chunk that the outbox was given before is reused.
   */
  onDisconnected(): void
}

/** A sealed message that waits for a connection, or for room in the window. */
interface PendingMessage {
  readonly subject: string
  readonly message: Uint8Array
  readonly results: number
  /** Memory to be reused once the message is confirmed. */
  chunk: Chunk | undefined
}

/**
 * Sealed messages, in order: first the unconfirmed ones, which were handed to the connection (see {@link Window}), then
 * the pending ones, which were not.
 */
export class Outbox {
  /** Bytes of the longest message that the server accepts. */
  maxPayload = DEFAULT_MAX_PAYLOAD
  readonly #config: ResolvedConfig
  readonly #counters: Counters
  readonly #events: OutboxEvents
  readonly #connection: Connection
  readonly #window: Window
  #pending: PendingMessage[] = []
  #pendingBytes = 0
  #pendingResults = 0
  #connected = false
  #connections = 0

  /** @param pool gets chunks back when their messages are confirmed. */
  constructor(
    config: ResolvedConfig,
    counters: Counters,
    pool: ChunkPool,
    events: OutboxEvents,
    log: HandlerLog,
  ) {
    this.#config = config
    this.#counters = counters
    this.#events = events
    this.#window = new Window(pool, counters, () => this.#onConfirmed())
    this.#connection = new Connection(
      config,
      {
        onConnected: (client) => this.#onConnected(client),
        onDisconnected: () => this.#onDisconnected(),
      },
      log,
    )
    counters.set('connected', 0)
  }

  /** True from the moment a connection is made until its end is reported. */
  get connected(): boolean {
    return this.#connected
  }

  /** True while a message can be handed over. False sooner than {@link connected}, because it looks at the socket. */
  get writable(): boolean {
    return this.#client !== undefined
  }

  /** True while a message waits for a connection or for room in the window. */
  get hasPending(): boolean {
    return this.#pending.length > 0
  }

  /** True when connected, with nothing unconfirmed and nothing pending. */
  get idle(): boolean {
    return this.#window.idle && this.#pending.length === 0 && this.#connected
  }

  /** Bytes handed to the connection and not confirmed, as they go over the wire. */
  get unconfirmedBytes(): number {
    return this.#window.bytes
  }

  /** Bytes pending or unconfirmed, as they go over the wire. */
  get bytes(): number {
    return this.#pendingBytes + this.#window.bytes
  }

  /** Results pending or unconfirmed. */
  get results(): number {
    return this.#pendingResults + this.#window.results
  }

  /**
   * Hands a message to the connection, or makes it pending, or, under the policy `drop` without a connection, drops it.
   *
   * @param results number of results in the message.
   * @param chunk memory to be reused once the message is confirmed; undefined when other messages share it.
   */
  send(subject: string, message: Uint8Array, results: number, chunk: Chunk | undefined): void {
    const client = this.#client
    if (client !== undefined && this.#pending.length === 0) {
      this.#publish(client, subject, message, results, chunk)
      if (this.#window.bytes >= this.#config.windowBytes / 2) this.#window.flush(client)
    } else if (client === undefined && this.#config.whenDown === 'drop') {
      this.#counters.add('droppedDisconnected', results)
    } else {
      this.#pending.push({ subject, message, results, chunk })
      this.#pendingBytes += wireBytes(subject, message)
      this.#pendingResults += results
    }
  }

  /** Lets a shared chunk, all of whose messages were sent before, be reused once they are confirmed. */
  retire(chunk: Chunk): void {
    const last = this.#pending.at(-1)
    // The last pending message takes the chunk with it, unless it has one already, as an envelope does. The shared chunk
    // is then left to the garbage collector.
    if (last === undefined) this.#window.retire(chunk)
    else last.chunk ??= chunk
  }

  /** Asks the server to confirm what it has been sent, unless that question is outstanding. */
  flush(): void {
    const client = this.#client
    if (client !== undefined) this.#window.flush(client)
  }

  /** Discards everything, pending or unconfirmed, without counting it, and closes the connection. */
  async close(): Promise<void> {
    this.#window.abandon()
    this.#discardPending()
    await this.#connection.close()
  }

  /** The client while it can be given messages. */
  get #client(): NatsConnection | undefined {
    return this.#connected ? this.#connection.client : undefined
  }

  #publish(
    client: NatsConnection,
    subject: string,
    message: Uint8Array,
    results: number,
    chunk: Chunk | undefined,
  ): void {
    try {
      client.publish(subject, message, NO_OPTIONS)
    } catch {
      // nats.js checks max_payload, which has become smaller since the message was sealed: the server is another one, or
      // was reconfigured.
      this.#counters.add('droppedOversize', results)
      return
    }
    this.#window.add(results, wireBytes(subject, message), message.length, chunk)
  }

  /** Hands pending messages to the connection as far as the window allows. */
  #sendPending(): void {
    const client = this.#client
    if (client === undefined) return
    let sent = 0
    for (const { subject, message, results, chunk } of this.#pending) {
      if (this.#window.bytes >= this.#config.windowBytes) break
      sent++
      this.#pendingBytes -= wireBytes(subject, message)
      this.#pendingResults -= results
      this.#publish(client, subject, message, results, chunk)
    }
    this.#pending = this.#pending.slice(sent)
    this.#window.flush(client)
  }

  /** Discards the pending messages and returns the number of results that were in them. */
  #discardPending(): number {
    const results = this.#pendingResults
    this.#pending = []
    this.#pendingBytes = 0
    this.#pendingResults = 0
    return results
  }

  #onConnected(client: NatsConnection): void {
    this.#connected = true
    this.maxPayload = client.info?.max_payload ?? DEFAULT_MAX_PAYLOAD
    this.#counters.set('connected', 1)
    if (this.#connections++ > 0) this.#counters.add('reconnects', 1)
    this.#sendPending()
    this.#events.onProgress()
  }

  #onDisconnected(): void {
    this.#connected = false
    this.#counters.set('connected', 0)
    this.#counters.add('droppedUnconfirmed', this.#window.abandon())
    // A pending message may carry a retired chunk whose first messages the dead client has seen.
    for (const pending of this.#pending) pending.chunk = undefined
    if (this.#config.whenDown === 'drop') this.#counters.add('droppedDisconnected', this.#discardPending())
    this.#events.onDisconnected()
  }

  #onConfirmed(): void {
    if (this.#pending.length > 0) this.#sendPending()
    this.flush()
    this.#events.onProgress()
  }
}
