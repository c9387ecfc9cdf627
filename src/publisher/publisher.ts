import { MillraceError } from '../errors.js'
import type { Batch } from '../queue/batch.js'
import type { CounterName, Counters } from '../queue/counters.js'
import type { HandlerLog, Out } from '../queue/handler.js'
import { ChunkPool, newChunk } from './chunk.js'
import { type QueuePublisherConfig, validateConfig } from './config.js'
import { ALIGNMENT_SLACK } from './envelope.js'
import { Envelopes } from './envelopes.js'
import { HEAD_ROOM, TAIL_BYTES } from './frame.js'
import { MAX_OPEN } from './open-envelopes.js'
import { Outbox } from './outbox.js'
import { RawMessages, SHARED_CHUNK_BYTES } from './raw-messages.js'
import { SubjectCache, Subjects } from './subject.js'
import { packValue, singleValueBytes } from './values.js'

/**
 * Share of the window below which the unconfirmed bytes must fall before a worker that stopped drains again. Too high:
 * the worker stops and goes at every PONG. Too low: the connection runs empty before the worker goes on.
 */
const RESUME_SHARE = 0.75

/**
 * Most bytes, pending and unconfirmed, with which results are still accepted. The worker stops when `ready` is false; a
 * handler that emits from a timer of its own does not, and is held to this bound. Too low: handlers that emit much
 * between two batches lose results. Too high: such a handler may fill the memory.
 */
const overrunBytes = (windowBytes: number): number => Math.max(4 * windowBytes, windowBytes + (64 << 20))

/** What a publisher tells its worker. */
interface PublisherHooks {
  /**
   * {@link Publisher.ready} has turned from false to true, because a PONG came or a connection began or ended. It is
   * called in a microtask of its own, never from within a call of the worker's.
   */
  onReady(): void
  readonly log: HandlerLog
}

/**
 * Publishes what one worker's handler produces, over a connection of its own, in bounded memory, and counts every result
 * in exactly one place: `emitted = taken + Σ dropped… + inFlight` whenever no call is under way. README.md in this
 * folder draws the way of a result.
 */
export class Publisher implements Out {
  readonly #config: QueuePublisherConfig
  readonly #counters: Counters
  readonly #hooks: PublisherHooks
  readonly #subjects: Subjects
  /** Subjects that the handler has named. */
  readonly #named = new SubjectCache()
  readonly #envelopes: Envelopes
  readonly #rawMessages: RawMessages
  readonly #outbox: Outbox
  #state: 'accepting' | 'draining' | 'closed' = 'accepting'
  #ready = true
  /** Ends the wait of {@link Publisher.drain}; called when nothing is in flight any more. */
  #onDrained: (() => void) | undefined

  /**
   * Connects in the background, and goes on trying for ever.
   *
   * @throws MillraceError `MILLRACE_E_CONFIG` or `MILLRACE_E_SUBJECT` for a configuration that can never work.
   */
  constructor(config: QueuePublisherConfig, counters: Counters, hooks: PublisherHooks) {
    validateConfig(config)
    const { format, windowBytes, envelopeBytes, subject, queue, node } = config
    this.#config = config
    this.#counters = counters
    this.#hooks = hooks
    const raw = format === 'raw'
    const chunkBytes = raw ? SHARED_CHUNK_BYTES : HEAD_ROOM + envelopeBytes + ALIGNMENT_SLACK + TAIL_BYTES
    // As many idle chunks are kept as a full window needs, and all open envelopes of one kind.
    const pool = new ChunkPool(chunkBytes, Math.ceil(windowBytes / chunkBytes) + (raw ? 1 : MAX_OPEN))
    this.#subjects = new Subjects(subject, queue, node)
    const events = {
      onProgress: () => this.#updateReady(),
      onDisconnected: () => this.#onDisconnected(),
    }
    this.#outbox = new Outbox(config, counters, pool, events, hooks.log)
    this.#envelopes = new Envelopes(config, this.#outbox, pool, this.#subjects, counters, () => this.#flush())
    this.#rawMessages = new RawMessages(
      this.#outbox,
      this.#subjects,
      counters,
      () => (raw ? pool.acquire() : newChunk(SHARED_CHUNK_BYTES)),
      (chunk) => pool.finish(chunk),
    )
    this.#updateReady()
  }

  /**
   * False while the worker is to stop draining: the window is full, be it of what the server has not taken or, while
   * NATS is away under the policy `hold`, of what waits for it.
   */
  get ready(): boolean {
    // The worker that is told false is told when it turns true again, so the state must be the same as the answer.
    if (this.#ready && this.#bytes >= this.#config.windowBytes) this.#updateReady()
    return this.#ready
  }

  /** Results that were accepted and are neither taken nor dropped: in open envelopes, pending or unconfirmed. */
  get inFlight(): number {
    return this.#envelopes.results + this.#rawMessages.results + this.#outbox.results
  }

  /**
   * Bytes that were sent and not taken, or wait to be sent, PUB lines included. At most the window, one batch, and what
   * the open envelopes held before it.
   */
  get unconfirmedBytes(): number {
    return this.#bytes
  }

  get #bytes(): number {
    return this.#outbox.bytes + this.#rawMessages.bytes
  }

  forward(batch: Batch, i?: number): void {
    const from = i ?? 0
    const to = i === undefined ? batch.length : i + 1
    let bytes = 0
    for (let k = from; k < to; k++) bytes += batch.size(k)
    this.#counters.add('emitted', to - from)
    this.#counters.add('emittedBytes', bytes)
    if (!this.#admit(to - from)) return
    if (this.#config.format === 'raw') this.#rawMessages.forward(batch, from, to)
    else this.#envelopes.forward(batch, from, to)
  }

  publish(payload: Uint8Array, subject?: string): void {
    const to = subject === undefined ? this.#subjects.forPort(0) : this.#named.head(subject)
    this.#counters.add('emitted', 1)
    this.#counters.add('emittedBytes', payload.length)
    if (payload.length > this.#outbox.maxPayload) throw this.#dropOversize(payload.length)
    if (this.#admit(1)) this.#rawMessages.publish(payload, to)
  }

  emit(value: unknown, subject?: string): void {
    const to = subject === undefined ? this.#subjects.forPort(0) : this.#named.head(subject)
    const packed = packValue(value)
    this.#counters.add('emitted', 1)
    this.#counters.add('emittedBytes', packed.length)
    const messageBytes = singleValueBytes(packed.length)
    if (messageBytes > this.#outbox.maxPayload) throw this.#dropOversize(messageBytes)
    if (this.#admit(1)) this.#envelopes.emit(packed, to)
  }

  /** To be called at the end of each pump turn: seals the envelopes that are due, and starts a flush. */
  turn(): void {
    this.#envelopes.sealAtEndOfTurn()
    this.#flush()
  }

  /**
   * Accepts no more results, sends what it has, waits for the confirmation, and closes. A second call does nothing.
   *
   * @param deadlineMs longest wait in milliseconds.
   * @returns the number of results that were not taken in time. They are counted as `droppedShutdown`; those of them
   * that had been handed to the connection may still have arrived.
   */
  async drain(deadlineMs: number): Promise<{ left: number }> {
    if (this.#state !== 'accepting') return { left: 0 }
    this.#state = 'draining'
    this.#envelopes.stop()
    this.#envelopes.sealAll()
    this.#outbox.flush()
    if (this.inFlight > 0 && deadlineMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadlineMs)
        this.#onDrained = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#onDrained = undefined
    }
    const left = this.inFlight
    await this.close()
    return { left }
  }

  /** Closes at once. Everything in flight is counted as `droppedShutdown`. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#counters.add('droppedShutdown', this.inFlight)
    this.#envelopes.stop()
    this.#envelopes.discard()
    this.#rawMessages.discard()
    const closed = this.#outbox.close()
    this.#updateReady()
    await closed
  }

  /** Returns whether `n` results are accepted, and counts them as dropped when they are not. */
  #admit(n: number): boolean {
    if (this.#state !== 'accepting') return this.#drop('droppedShutdown', n)
    if (this.#config.natsDown === 'drop' && this.#outbox.away) return this.#drop('droppedDisconnected', n)
    if (this.#bytes > overrunBytes(this.#config.windowBytes)) return this.#drop('droppedOverrun', n)
    return true
  }

  #drop(reason: CounterName, n: number): false {
    this.#counters.add(reason, n)
    return false
  }

  /** Counts one result as oversize and makes the error that the handler gets. */
  #dropOversize(bytes: number): MillraceError {
    this.#counters.add('droppedOversize', 1)
    return new MillraceError(
      'MILLRACE_E_PAYLOAD',
      `${bytes} bytes are more than the NATS server's max_payload of ${this.#outbox.maxPayload}`,
    )
  }

  #flush(): void {
    this.#outbox.flush()
    this.#updateReady()
  }

  #onDisconnected(): void {
    if (this.#config.natsDown === 'drop') {
      this.#counters.add('droppedDisconnected', this.#envelopes.discard() + this.#rawMessages.discard())
    }
    this.#updateReady()
  }

  /** Backpressure: brings `ready` and the gauge of bytes in flight up to date, and tells the worker or the drain. */
  #updateReady(): void {
    const { windowBytes } = this.#config
    this.#counters.set('inFlightBytes', this.#bytes)
    if (this.#state !== 'accepting') {
      this.#ready = false
      if (this.#onDrained !== undefined && this.inFlight === 0) this.#onDrained()
      return
    }
    const ready = this.#bytes < (this.#ready ? windowBytes : RESUME_SHARE * windowBytes)
    if (ready === this.#ready) return
    this.#ready = ready
    // In a microtask of its own: an exception of the worker must not look like one of the connection.
    if (ready) queueMicrotask(() => this.#ready && this.#hooks.onReady())
    else this.#counters.add('paused', 1)
  }
}
