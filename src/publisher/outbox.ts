import type { NatsConnection } from 'nats'
import type { Counters } from '../queue/counters.js'
import type { HandlerLog } from '../queue/handler.js'
import type { Chunk, ChunkPool } from './chunk.js'
import type { ResolvedConfig } from './config.js'
import { Connection } from './connection.js'
import { Window } from './window.js'

/** Server default, assumed until the first connection tells. */
const DEFAULT_MAX_PAYLOAD = 1 << 20
const NO_OPTIONS = {}

/** Bytes of a message on the wire: without its PUB line an empty datagram would weigh nothing, and fill no window. */
const wireBytes = (subject: string, message: Uint8Array): number => message.length + subject.length + 16

/** What an {@link Outbox} tells its owner. */
export interface OutboxEvents {
  /** The connection came, or the server confirmed something: what was held is on its way as far as there is room. */
  moved(): void
  /** The connection is gone; what was unconfirmed is counted, and no chunk the outbox was given is used again. */
  lost(): void
}

/** A sealed message that waits for the connection or for room in the window. */
interface Held {
  readonly subject: string
  readonly message: Uint8Array
  readonly results: number
  chunk: Chunk | undefined
}

/** Sealed messages, in order: handed to the connection and unconfirmed, or held until there is one with room for them. */
export class Outbox {
  /** Bytes of the longest message that the server takes. */
  maxPayload = DEFAULT_MAX_PAYLOAD
  readonly #config: ResolvedConfig
  readonly #counters: Counters
  readonly #events: OutboxEvents
  readonly #connection: Connection
  readonly #window: Window
  #held: Held[] = []
  #heldBytes = 0
  #heldResults = 0
  #up = false
  #connections = 0

  /** @param pool takes chunks back when their messages are confirmed. */
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
    this.#window = new Window(pool, counters, () => this.#confirmed())
    this.#connection = new Connection(
      config,
      { up: (client) => this.#connected(client), down: () => this.#disconnected() },
      log,
    )
    counters.set('connected', 0)
  }

  /** The client while there is one that can be given data. */
  get #client(): NatsConnection | undefined {
    return this.#up ? this.#connection.client : undefined
  }

  /** True while nothing can be handed over: sooner than {@link Outbox.up} is false, for it looks at the socket. */
  get away(): boolean {
    return this.#client === undefined
  }

  /** True from one connection's beginning to the news of its end. */
  get up(): boolean {
    return this.#up
  }

  /** True while a message waits for the connection or for room. */
  get holds(): boolean {
    return this.#held.length > 0
  }

  /** True when connected and nothing waits for the server. */
  get idle(): boolean {
    return this.#window.idle && this.#held.length === 0 && this.#up
  }

  /** Bytes handed over and not confirmed, as they go over the wire. */
  get unconfirmedBytes(): number {
    return this.#window.bytes
  }

  /** Bytes held, or handed over and not confirmed. */
  get bytes(): number {
    return this.#heldBytes + this.#window.bytes
  }

  /** Results held, or handed over and not confirmed. */
  get results(): number {
    return this.#heldResults + this.#window.results
  }

  /** Hands a message over, or keeps it for later. `chunk` comes free with its confirmation. */
  send(subject: string, message: Uint8Array, results: number, chunk: Chunk | undefined): void {
    const client = this.#client
    if (client !== undefined && this.#held.length === 0) {
      this.#hand(client, subject, message, results, chunk)
      if (this.#window.bytes >= this.#config.windowBytes / 2) this.#window.flush(client)
    } else if (client === undefined && this.#config.whenDown === 'drop') {
      this.#counters.add('droppedDisconnected', results)
    } else {
      this.#held.push({ subject, message, results, chunk })
      this.#heldBytes += wireBytes(subject, message)
      this.#heldResults += results
    }
  }

  /** A chunk shared by several messages, all of them sent, will get no further one. */
  retire(chunk: Chunk): void {
    const last = this.#held.at(-1)
    // A held envelope carries its own chunk; then the shared one is left to the garbage collector.
    if (last === undefined) this.#window.retire(chunk)
    else last.chunk ??= chunk
  }

  /** Asks the server to confirm what it has, unless it is being asked. */
  flush(): void {
    const client = this.#client
    if (client !== undefined) this.#window.flush(client)
  }

  /** Forgets everything, held or unconfirmed, and closes. */
  async close(): Promise<void> {
    this.#window.abandon()
    this.#takeHeld()
    await this.#connection.close()
  }

  #hand(client: NatsConnection, subject: string, message: Uint8Array, results: number, chunk?: Chunk): void {
    try {
      client.publish(subject, message, NO_OPTIONS)
    } catch {
      // The server's max_payload is smaller than when the message was sealed: it is another server, or was reloaded.
      this.#counters.add('droppedOversize', results)
      return
    }
    this.#window.handed(results, wireBytes(subject, message), message.length, chunk)
  }

  /** Hands held messages over as far as the window allows. */
  #sendHeld(): void {
    const client = this.#client
    if (client === undefined) return
    let sent = 0
    for (const { subject, message, results, chunk } of this.#held) {
      if (this.#window.bytes >= this.#config.windowBytes) break
      sent++
      this.#heldBytes -= wireBytes(subject, message)
      this.#heldResults -= results
      this.#hand(client, subject, message, results, chunk)
    }
    this.#held = this.#held.slice(sent)
    this.#window.flush(client)
  }

  /** Empties the list of held messages and returns how many results were in it. */
  #takeHeld(): number {
    const results = this.#heldResults
    this.#held = []
    this.#heldBytes = 0
    this.#heldResults = 0
    return results
  }

  #connected(client: NatsConnection): void {
    this.#up = true
    this.maxPayload = client.info?.max_payload ?? DEFAULT_MAX_PAYLOAD
    this.#counters.set('connected', 1)
    if (this.#connections++ > 0) this.#counters.add('reconnects', 1)
    this.#sendHeld()
    this.#events.moved()
  }

  #disconnected(): void {
    this.#up = false
    this.#counters.set('connected', 0)
    this.#counters.add('droppedUnconfirmed', this.#window.abandon())
    // Chunks the dead client has seen are not used again.
    for (const held of this.#held) held.chunk = undefined
    if (this.#config.whenDown === 'drop') this.#counters.add('droppedDisconnected', this.#takeHeld())
    this.#events.lost()
  }

  #confirmed(): void {
    if (this.#held.length > 0) this.#sendHeld()
    this.flush()
    this.#events.moved()
  }
}
