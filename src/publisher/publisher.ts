import { MillraceError } from '../errors.js'
import type { AddressCache } from '../queue/address.js'
import type { Batch } from '../queue/batch.js'
import type { CounterName, Counters } from '../queue/counters.js'
import type { HandlerLog, Out } from '../queue/handler.js'
import { ChunkPool, newChunk } from './chunk.js'
import { ColumnsEnvelope } from './columns.js'
import { type PublisherConfig, type ResolvedConfig, resolveConfig } from './config.js'
import { copyPayload } from './copy.js'
import { type Envelope, SLACK } from './envelope.js'
import { MAX_OPEN, OpenEnvelopes } from './open.js'
import { Outbox } from './outbox.js'
import { RecordsEnvelope } from './records.js'
import { Room, SHARED_CHUNK } from './room.js'
import { checkSubject, expandSubject, SubjectCache } from './subject.js'
import { aloneBytes, packValue, ValuesEnvelope } from './values.js'

/** An envelope is sealed early, on an idle connection, at most once in this many milliseconds. */
const EARLY_MS = 1

/** What the publisher tells its worker. */
export interface PublisherHooks {
  /** {@link Publisher.ready} has turned from false to true. Called from a microtask: start a pump turn, do not run one. */
  onReady(): void
  readonly log: HandlerLog
}

/**
 * Publishes what one worker's handler produces, over a connection of its own, in bounded memory, and accounts for every
 * result: `emitted = confirmed + Σ dropped… + inFlight` whenever no call is under way.
 */
export class Publisher implements Out {
  readonly #config: ResolvedConfig
  readonly #counters: Counters
  readonly #hooks: PublisherHooks
  readonly #pool: ChunkPool
  readonly #outbox: Outbox
  readonly #room: Room
  readonly #perPort: boolean
  /** Subjects by destination port. */
  readonly #subjects = new Map<number, string>()
  readonly #checked = new SubjectCache()
  readonly #addresses: AddressCache = RecordsEnvelope.addresses()
  /** By port, or all under 0 when the subject does not name the port. */
  readonly #datagrams: OpenEnvelopes<number, Envelope>
  /** By subject. */
  readonly #values: OpenEnvelopes<string, ValuesEnvelope>
  #ready: boolean
  #state: 'open' | 'draining' | 'closed' = 'open'
  #earlyAt = 0
  #timer: NodeJS.Timeout | undefined
  #timerArmed = false
  /** Resolves drain()'s wait when nothing is left. */
  #onSettled: (() => void) | undefined

  private constructor(config: ResolvedConfig, counters: Counters, hooks: PublisherHooks) {
    this.#config = config
    this.#counters = counters
    this.#hooks = hooks
    this.#ready = config.whenDown === 'drop'
    this.#perPort = config.subject.includes('{port}')
    const raw = config.format === 'raw'
    const chunkBytes = raw ? SHARED_CHUNK : config.envelopeBytes + SLACK
    const pool = new ChunkPool(chunkBytes, Math.ceil(config.windowBytes / chunkBytes) + MAX_OPEN)
    const events = { moved: () => this.#refresh(), lost: () => this.#lost() }
    const outbox = new Outbox(config, counters, pool, events, hooks.log)
    this.#pool = pool
    this.#outbox = outbox
    this.#room = new Room(
      () => (raw ? pool.take() : newChunk(SHARED_CHUNK)),
      (chunk) => outbox.retire(chunk),
    )
    this.#datagrams = new OpenEnvelopes(outbox, pool, () => this.#newEnvelope())
    this.#values = new OpenEnvelopes(outbox, pool, () => new ValuesEnvelope())
    this.#refresh()
  }

  /**
   * Returns at once and connects in the background, for ever if need be.
   * @throws MillraceError for a configuration that can never work.
   */
  static async open(config: PublisherConfig, counters: Counters, hooks: PublisherHooks): Promise<Publisher> {
    return new Publisher(resolveConfig(config), counters, hooks)
  }

  /** False while the worker is to stop draining: the window is full, or NATS is away and the policy is `hold`. */
  get ready(): boolean {
    return this.#ready && this.#outbox.unconfirmedBytes < this.#config.windowBytes
  }

  /** Results accepted and neither confirmed nor dropped. */
  get inFlight(): number {
    return this.#datagrams.results + this.#values.results + this.#outbox.results
  }

  /** Bytes handed to the connection, PUB lines included, and not yet confirmed. At most the window, one batch, and what
   * the open envelopes held before it. */
  get unconfirmedBytes(): number {
    return this.#outbox.unconfirmedBytes
  }

  forward(batch: Batch, i?: number): void {
    const from = i ?? 0
    const to = i === undefined ? batch.length : i + 1
    let bytes = 0
    for (let k = from; k < to; k++) bytes += batch.size(k)
    this.#counters.add('emitted', to - from)
    this.#counters.add('emittedBytes', bytes)
    if (!this.#admit(to - from)) return
    if (this.#config.format === 'raw') {
      for (let k = from; k < to; k++) this.#forwardRaw(batch, k)
    } else if (this.#perPort) {
      for (let k = from; k < to; ) {
        const port = batch.dstPort(k)
        let end = k + 1
        while (end < to && batch.dstPort(end) === port) end++
        this.#gather(batch, k, end, port)
        k = end
      }
    } else this.#gather(batch, from, to, 0)
  }

  publish(payload: Uint8Array, subject?: string): void {
    const to = subject === undefined ? this.#subject(0) : this.#checked.check(subject)
    this.#counters.add('emitted', 1)
    this.#counters.add('emittedBytes', payload.length)
    if (payload.length > this.#outbox.maxPayload) throw this.#tooLarge(payload.length)
    if (!this.#admit(1)) return
    const { chunk, at, shared } = this.#room.find(payload.length)
    chunk.bytes.set(payload, at)
    this.#outbox.send(to, chunk.bytes.subarray(at, at + payload.length), 1, shared ? undefined : chunk)
  }

  emit(value: unknown, subject?: string): void {
    const to = subject === undefined ? this.#subject(0) : this.#checked.check(subject)
    const packed = packValue(value)
    this.#counters.add('emitted', 1)
    this.#counters.add('emittedBytes', packed.length)
    const alone = aloneBytes(packed.length)
    if (alone > this.#outbox.maxPayload) throw this.#tooLarge(alone)
    if (!this.#admit(1)) return
    if (this.#values.get(to)?.add(packed) === true) return
    this.#values.seal(to)
    this.#openValues(to, alone).add(packed)
  }

  /** To be called at the end of each pump turn: seals what is due and starts a flush when one is needed. */
  turn(): void {
    if (this.#datagrams.size > 0 || this.#values.size > 0) {
      const now = performance.now()
      if (this.#outbox.idle && now - this.#earlyAt >= EARLY_MS) {
        this.#earlyAt = now
        this.#sealAll()
      } else this.#sealDue(now)
    }
    this.#outbox.flush()
    this.#refresh()
  }

  /**
   * Takes nothing more, sends and confirms what it has, and closes. What is not confirmed when `deadlineMs` have passed
   * is counted as `droppedShutdown` and returned; the part of it that was handed over may still have arrived.
   */
  async drain(deadlineMs: number): Promise<{ left: number }> {
    if (this.#state !== 'open') return { left: 0 }
    this.#state = 'draining'
    this.#sealAll()
    this.#outbox.flush()
    if (this.inFlight > 0 && deadlineMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadlineMs)
        this.#onSettled = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#onSettled = undefined
    }
    const left = this.inFlight
    await this.close()
    return { left }
  }

  /** Closes at once; whatever is in flight is counted as `droppedShutdown`. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#counters.add('droppedShutdown', this.inFlight)
    this.#dropOpen()
    clearTimeout(this.#timer)
    const closed = this.#outbox.close()
    this.#refresh()
    await closed
  }

  /** Whether `n` results can be taken; counts them as dropped when not. */
  #admit(n: number): boolean {
    if (this.#state !== 'open') return this.#drop('droppedShutdown', n)
    if (this.#config.whenDown === 'drop' && this.#outbox.away) return this.#drop('droppedDisconnected', n)
    // The worker stops when `ready` is false; a handler that produces by a timer of its own does not.
    const { windowBytes } = this.#config
    const limit = Math.max(4 * windowBytes, windowBytes + (64 << 20))
    if (this.#outbox.bytes > limit) return this.#drop('droppedOverrun', n)
    return true
  }

  #drop(reason: CounterName, n: number): false {
    this.#counters.add(reason, n)
    return false
  }

  #tooLarge(bytes: number): MillraceError {
    this.#counters.add('droppedOversize', 1)
    return new MillraceError(
      'MILLRACE_E_PAYLOAD',
      `${bytes} bytes are more than the NATS server's max_payload of ${this.#outbox.maxPayload}`,
    )
  }

  #subject(port: number): string {
    let subject = this.#subjects.get(port)
    if (subject === undefined) {
      const { subject: template, queue, node } = this.#config
      subject = checkSubject(expandSubject(template, { port, queue, node }))
      this.#subjects.set(port, subject)
    }
    return subject
  }

  #forwardRaw(batch: Batch, i: number): void {
    const size = batch.size(i)
    if (size > this.#outbox.maxPayload) {
      this.#counters.add('droppedOversize', 1)
      return
    }
    const { chunk, at, shared } = this.#room.find(size, batch.slab.byteOffset + batch.offset(i))
    copyPayload(chunk, at, batch.slab, batch.offset(i), size)
    const subject = this.#subject(this.#perPort ? batch.dstPort(i) : 0)
    this.#outbox.send(subject, chunk.bytes.subarray(at, at + size), 1, shared ? undefined : chunk)
  }

  #gather(batch: Batch, from: number, to: number, port: number): void {
    for (let i = from; i < to; ) {
      const envelope = this.#datagrams.get(port)
      if (envelope !== undefined) {
        i = envelope.add(batch, i, to)
        if (i === to) return
        this.#datagrams.seal(port)
      }
      // The next datagram begins a message, of its own if it is larger than an envelope.
      const alone = this.#aloneBytes(batch, i)
      if (alone > this.#outbox.maxPayload) {
        this.#counters.add('droppedOversize', 1)
        i++
      } else this.#openDatagrams(port, alone)
    }
  }

  #aloneBytes(batch: Batch, i: number): number {
    this.#measure ??= this.#newEnvelope()
    return this.#measure.alone(batch, i)
  }
  #measure: Envelope | undefined

  #newEnvelope(): Envelope {
    const { format, node, queue, envelopeBytes } = this.#config
    return format === 'columns'
      ? new ColumnsEnvelope(node, queue, envelopeBytes)
      : new RecordsEnvelope(this.#addresses)
  }

  #openDatagrams(port: number, alone: number): void {
    const limit = this.#limit(alone)
    this.#datagrams.open(port, this.#subject(port), this.#pool.take(limit + SLACK), limit)
    this.#arm(this.#config.envelopeMs)
  }

  #openValues(subject: string, alone: number): ValuesEnvelope {
    const limit = this.#limit(alone)
    const chunk = this.#config.format === 'raw' ? newChunk(limit) : this.#pool.take(limit)
    const envelope = this.#values.open(subject, subject, chunk, limit)
    this.#arm(this.#config.envelopeMs)
    return envelope
  }

  /** Bytes an envelope may have whose first result makes a message of `alone` bytes by itself. */
  #limit(alone: number): number {
    return Math.max(Math.min(this.#config.envelopeBytes, this.#outbox.maxPayload), alone)
  }

  #sealAll(): void {
    this.#datagrams.sealAll()
    this.#values.sealAll()
  }

  /** Seals what is old enough. */
  #sealDue(now: number): void {
    const due = now - this.#config.envelopeMs
    this.#datagrams.sealDue(due)
    this.#values.sealDue(due)
  }

  /** Forgets open envelopes and returns how many results were in them. */
  #dropOpen(): number {
    return this.#datagrams.drop() + this.#values.drop()
  }

  /** One timer for all envelopes. It does not keep the process alive: that is up to whoever may yet call drain(). */
  #arm(ms: number): void {
    if (this.#timerArmed || this.#state !== 'open') return
    this.#timerArmed = true
    this.#timer = setTimeout(() => this.#tick(), ms).unref()
  }

  #tick(): void {
    this.#timerArmed = false
    if (this.#state !== 'open') return
    const now = performance.now()
    // setTimeout may come up to a millisecond early.
    this.#sealDue(now + 1)
    this.#outbox.flush()
    this.#refresh()
    const never = Number.POSITIVE_INFINITY
    const since = Math.min(this.#datagrams.since ?? never, this.#values.since ?? never)
    if (since < never) this.#arm(Math.max(1, since + this.#config.envelopeMs - now))
  }

  /** The connection is gone. */
  #lost(): void {
    // The dead client has seen the beginning of the shared chunk.
    this.#room.forget()
    if (this.#config.whenDown === 'drop') this.#drop('droppedDisconnected', this.#dropOpen())
    this.#refresh()
  }

  /** Brings `ready` and the gauge up to date, and tells whoever waits. */
  #refresh(): void {
    const { windowBytes, whenDown } = this.#config
    const outbox = this.#outbox
    this.#counters.set('inFlightBytes', outbox.bytes)
    if (this.#state !== 'open') {
      this.#ready = false
      if (this.#onSettled !== undefined && this.inFlight === 0) this.#onSettled()
      return
    }
    const reachable = outbox.up ? !outbox.holds : whenDown === 'drop'
    // A quarter of the window must be free before the worker drains again, else it would stop and go at every PONG.
    const ready = reachable && outbox.unconfirmedBytes < (this.#ready ? windowBytes : 0.75 * windowBytes)
    if (ready === this.#ready) return
    this.#ready = ready
    if (ready) this.#hooks.onReady()
    else this.#counters.add('paused', 1)
  }
}
