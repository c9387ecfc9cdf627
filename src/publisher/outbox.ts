import type { Counters } from '../queue/counters.js'
import type { HandlerLog } from '../queue/handler.js'
import { type Chunk, type ChunkPool, newChunk } from './chunk.js'
import { connectionConfig, type QueuePublisherConfig } from './config.js'
import { Connection } from './connection/connection.js'
import type { Link } from './connection/link.js'
import { walkFrames } from './frame.js'
import { Window } from './window.js'

/** max_payload of a nats-server that configures none, in bytes; assumed until the first connection. */
const DEFAULT_MAX_PAYLOAD = 1 << 20

/**
 * Bytes of a chunk that small extents are copied to. Too low: a chunk is allocated for every few of them. Too high: one small
 * extent that waits keeps that much memory.
 */
const SMALL_CHUNK_BYTES = 64 << 10

/**
 * Bytes that wait for the kernel from which on extents are compacted as if they were pending. Too low: what a turn gathers for
 * one write is copied once more. Too high: that many bytes of small extents may each keep a chunk.
 */
const BACKLOG_BYTES = 256 << 10

/** What an {@link Outbox} tells its owner. */
export interface OutboxEvents {
  /** A connection was made or a PONG came, and pending messages were written as far as the window allows. */
  onProgress(): void
  /** NATS is away, and what was unconfirmed is counted. It is not called when another server is ready at once. */
  onDisconnected(): void
}

/** Whole PUB operations that follow each other in a chunk. */
export interface Extent {
  readonly chunk: Chunk
  readonly from: number
  readonly to: number
  /** NATS messages in it. */
  readonly messages: number
  /** Results in those messages. */
  readonly results: number
  /** Bytes of those messages, without their PUB lines. */
  readonly messageBytes: number
  /** Bytes of the longest of them. */
  readonly largest: number
}

const wireBytes = ({ from, to }: Extent): number => to - from

/** Messages that are written one behind the other into memory that the outbox has not got yet. */
export interface OpenExtent {
  /** Gives what has been gathered to the outbox. */
  close(): void
}

/**
 * Messages in order: first the unconfirmed ones, which were written to the connection (see {@link Window}), then the pending
 * ones, which were not.
 */
export class Outbox {
  /** Bytes of the longest message that the server accepts. */
  maxPayload = DEFAULT_MAX_PAYLOAD
  readonly #config: QueuePublisherConfig
  readonly #counters: Counters
  readonly #events: OutboxEvents
  readonly #connection: Connection
  readonly #pool: ChunkPool
  readonly #window: Window
  #open: OpenExtent | undefined
  #pending: Extent[] = []
  #pendingBytes = 0
  #pendingResults = 0
  #connected = false
  /** Called when the server that is about to stop has taken everything; nothing more is written to it meanwhile. */
  #onLeft: (() => void) | undefined
  /** The old link has ended and the next one is ready: this is no outage. */
  #moving = false
  #connections = 0
  /** Where extents that fill little of their chunk are copied to. */
  #small: Chunk | undefined
  #smallEnd = 0

  /** @param pool gets chunks back when their extents are written or discarded. */
  constructor(
    config: QueuePublisherConfig,
    counters: Counters,
    pool: ChunkPool,
    events: OutboxEvents,
    log: HandlerLog,
  ) {
    this.#config = config
    this.#counters = counters
    this.#pool = pool
    this.#events = events
    this.#window = new Window(counters, () => this.#onConfirmed())
    this.#connection = new Connection(
      connectionConfig(config),
      {
        up: (link) => this.#onConnected(link),
        down: (moving) => this.#onDisconnected(moving),
        leave: () => this.#leave(),
        changed: () => this.#readLimits(),
        refused: () => this.#counters.add('refused', 1),
        message: () => undefined,
      },
      log,
    )
    counters.set('connected', 0)
  }

  /** True from the moment a connection is made until its end is reported. */
  get connected(): boolean {
    return this.#connected
  }

  /** True while NATS is away. Sooner than {@link connected} turns false, because it looks at the socket. */
  get away(): boolean {
    return this.#onLeft === undefined && !this.#moving && this.#link === undefined
  }

  /** True when connected, with nothing unconfirmed and nothing pending. */
  get idle(): boolean {
    return this.#window.idle && this.#pending.length === 0 && this.#connected
  }

  /** Bytes pending or unconfirmed, as they go over the wire. */
  get bytes(): number {
    return this.#pendingBytes + this.#window.bytes
  }

  /** Results pending or unconfirmed. */
  get results(): number {
    return this.#pendingResults + this.#window.results
  }

  /** Names the extent that is being gathered: it is closed before anything else is sent, so that the order is kept. */
  gather(open: OpenExtent): void {
    this.#open = open
  }

  /** Writes an extent to the connection, or makes it pending, or, under the policy `drop` while NATS is away, drops it. */
  send(gathered: Extent): void {
    const link = this.#link
    if (this.away && this.#config.natsDown === 'drop') {
      this.#counters.add('droppedDisconnected', gathered.results)
      return
    }
    const direct = link !== undefined && this.#pending.length === 0
    const extent = direct && link.backlogBytes < BACKLOG_BYTES ? gathered : this.#compact(gathered)
    extent.chunk.extents++
    if (direct) {
      this.#write(link, extent)
      if (this.#window.bytes >= this.#config.windowBytes / 2) this.#window.flush(link)
    } else {
      this.#pending.push(extent)
      this.#pendingBytes += wireBytes(extent)
      this.#pendingResults += extent.results
    }
  }

  /** Closes the extent that is being gathered. */
  closeOpenExtent(): void {
    this.#open?.close()
  }

  /** Asks the server to confirm what it has been sent, unless that question is outstanding, and hands it all to the kernel. */
  flush(): void {
    this.closeOpenExtent()
    const link = this.#link
    if (link === undefined) return
    this.#window.flush(link)
    link.flush()
  }

  /** Discards everything, pending or unconfirmed, without counting it, and closes the connection. */
  async close(): Promise<void> {
    this.#window.abandon()
    this.#discardPending()
    await this.#connection.close()
  }

  /** The link while it may be written to. */
  get #link(): Link | undefined {
    return this.#connected && this.#onLeft === undefined ? this.#connection.link : undefined
  }

  /**
   * Copies an extent that fills less than half of its chunk: a small one into a chunk that small ones share, another one into
   * memory of its own size. What waits for NATS, or for the kernel to take it, then needs no more memory than about twice the
   * bytes that the window counts: an envelope that was sealed by age has some hundred bytes in a chunk of 16 KiB.
   */
  #compact(extent: Extent): Extent {
    const { chunk, from, to } = extent
    const bytes = to - from
    if (bytes * 2 >= chunk.bytes.length) return extent
    if (bytes > SMALL_CHUNK_BYTES / 2) {
      const own = newChunk(bytes)
      own.complete = true
      own.bytes.set(chunk.bytes.subarray(from, to))
      return { ...extent, chunk: own, from: 0, to: bytes }
    }
    if (this.#small === undefined || this.#smallEnd + bytes > SMALL_CHUNK_BYTES) {
      if (this.#small !== undefined) this.#pool.finish(this.#small)
      this.#small = newChunk(SMALL_CHUNK_BYTES)
      this.#smallEnd = 0
    }
    const at = this.#smallEnd
    this.#small.bytes.set(chunk.bytes.subarray(from, to), at)
    this.#smallEnd += bytes
    return { ...extent, chunk: this.#small, from: at, to: at + bytes }
  }

  #write(link: Link, extent: Extent): void {
    if (extent.largest > this.maxPayload) {
      this.#writeSmaller(link, extent)
      return
    }
    const { chunk, from, to } = extent
    link.write(chunk.bytes.subarray(from, to), () => this.#pool.done(chunk))
    this.#window.add(extent.results, to - from)
    this.#counters.add('messages', extent.messages)
    this.#counters.add('messageBytes', extent.messageBytes)
  }

  /**
   * Writes those messages of an extent that the server accepts: its max_payload has become smaller since they were built,
   * because it is another server or was reconfigured. For one that is longer it would close the connection.
   */
  #writeSmaller(link: Link, extent: Extent): void {
    const { chunk } = extent
    if (extent.messages === 1) this.#counters.add('droppedOversize', extent.results)
    else {
      // Several messages in one extent are raw ones, of one result each.
      walkFrames(chunk, extent.from, extent.to, (from, to, size) => {
        if (size > this.maxPayload) this.#counters.add('droppedOversize', 1)
        else {
          chunk.extents++
          this.#write(link, { chunk, from, to, messages: 1, results: 1, messageBytes: size, largest: size })
        }
      })
    }
    this.#pool.done(chunk)
  }

  /** Writes pending messages as far as the window allows. */
  #sendPending(): void {
    const link = this.#link
    if (link === undefined) return
    let sent = 0
    for (const extent of this.#pending) {
      if (this.#window.bytes >= this.#config.windowBytes) break
      sent++
      this.#pendingBytes -= wireBytes(extent)
      this.#pendingResults -= extent.results
      this.#write(link, extent)
    }
    this.#pending = this.#pending.slice(sent)
    this.#window.flush(link)
  }

  /** Discards the pending messages and returns the number of results that were in them. */
  #discardPending(): number {
    const results = this.#pendingResults
    for (const { chunk } of this.#pending) this.#pool.done(chunk)
    this.#pending = []
    this.#pendingBytes = 0
    this.#pendingResults = 0
    return results
  }

  #readLimits(): void {
    this.maxPayload = this.#connection.link?.info.maxPayload ?? this.maxPayload
  }

  #onConnected(link: Link): void {
    this.#connected = true
    this.#moving = false
    this.maxPayload = link.info.maxPayload
    this.#counters.set('connected', 1)
    if (this.#connections++ > 0) this.#counters.add('reconnects', 1)
    this.closeOpenExtent()
    this.#sendPending()
    this.#events.onProgress()
  }

  /** Writes nothing more to the server; resolves when the server has taken everything that was, or the connection is dead. */
  #leave(): Promise<void> {
    this.flush()
    return new Promise((resolve) => {
      this.#onLeft = resolve
      if (this.#window.idle) resolve()
    })
  }

  #onDisconnected(moving: boolean): void {
    this.#connected = false
    this.#moving = moving
    this.#onLeft?.()
    this.#onLeft = undefined
    this.#counters.set('connected', 0)
    this.#counters.add('droppedUnconfirmed', this.#window.abandon())
    // Moving to another server is no outage: `up` follows at once, and what is pending goes there.
    if (moving) return
    if (this.#config.natsDown === 'drop') this.#counters.add('droppedDisconnected', this.#discardPending())
    this.#events.onDisconnected()
  }

  #onConfirmed(): void {
    if (this.#onLeft !== undefined) {
      const link = this.#connection.link
      if (this.#window.idle) this.#onLeft()
      else if (link !== undefined) this.#window.flush(link)
      return
    }
    if (this.#pending.length > 0) this.#sendPending()
    this.flush()
    this.#events.onProgress()
  }
}
