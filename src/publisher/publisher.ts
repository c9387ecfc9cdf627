import type { NatsConnection } from 'nats'
import { MillraceError } from '../errors.js'
import type { HandlerLog, Out } from '../handler.js'
import type { AddressCache } from '../wire/address.js'
import { type Chunk, ChunkPool, newChunk } from '../wire/chunk.js'
import { copyPayload } from '../wire/copy.js'
import type { Batch } from '../worker/batch.js'
import type { CounterName, Counters } from '../worker/counters.js'
import { ColumnsEnvelope } from './columns.js'
import { type PublisherConfig, type ResolvedConfig, resolveConfig } from './config.js'
import { Connection } from './connection.js'
import { type Envelope, SLACK } from './envelope.js'
import { RecordsEnvelope } from './records.js'
import { checkSubject, expandSubject, SubjectCache } from './subject.js'
import { aloneBytes, packValue, ValuesEnvelope } from './values.js'
import { Window } from './window.js'

/** Envelopes open at a time, of datagrams and of emitted values each; the oldest is sealed to make room. */
const MAX_OPEN = 64
/** Messages of their own smaller than this share a chunk. */
const SHARED_CHUNK = 128 << 10
/** Server default, assumed until the first connection tells. */
const DEFAULT_MAX_PAYLOAD = 1 << 20
/** An envelope is sealed early, on an idle connection, at most once in this many milliseconds. */
const EARLY_MS = 1
const NO_OPTIONS = {}

/** Bytes of a message on the wire: without its PUB line an empty datagram would weigh nothing, and fill no window. */
const wireBytes = (subject: string, message: Uint8Array): number => message.length + subject.length + 16

/** What the publisher tells its worker. */
export interface PublisherHooks {
  /** {@link Publisher.ready} has turned from false to true. Called from a microtask: start a pump turn, do not run one. */
  onReady(): void
  readonly log: HandlerLog
}

/** A sealed message that waits for the connection or for room in the window. */
interface Held {
  readonly subject: string
  readonly message: Uint8Array
  readonly results: number
  chunk: Chunk | undefined
}

/** An envelope being filled. */
interface Open<E> {
  subject: string
  readonly envelope: E
  chunk: Chunk
  /** performance.now() of its first result. */
  since: number
}

/**
 * Publishes what one worker's handler produces, over a connection of its own, in bounded memory, and accounts for every
 * result: `emitted = confirmed + Σ dropped… + inFlight` whenever no call is under way.
 */
export class Publisher implements Out {
  readonly #config: ResolvedConfig
  readonly #counters: Counters
  readonly #hooks: PublisherHooks
  readonly #connection: Connection
  readonly #window: Window
  readonly #pool: ChunkPool
  readonly #perPort: boolean
  /** Subjects by destination port. */
  readonly #subjects = new Map<number, string>()
  readonly #checked = new SubjectCache()
  readonly #addresses: AddressCache = RecordsEnvelope.addresses()
  /** Open envelopes in the order they were opened; by port, or all under 0 when the subject does not name the port. */
  readonly #open = new Map<number, Open<Envelope>>()
  readonly #openValues = new Map<string, Open<ValuesEnvelope>>()
  readonly #spare: Envelope[] = []
  readonly #spareValues: ValuesEnvelope[] = []
  #held: Held[] = []
  #heldBytes = 0
  #heldResults = 0
  /** Chunk that raw messages share. */
  #shared: Chunk | undefined
  #sharedAt = 0
  #maxPayload = DEFAULT_MAX_PAYLOAD
  #envelopeBytes: number
  #ready: boolean
  #up = false
  #connections = 0
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
    this.#envelopeBytes = Math.min(config.envelopeBytes, this.#maxPayload)
    this.#ready = config.whenDown === 'drop'
    this.#perPort = config.subject.includes('{port}')
    const chunkBytes = config.format === 'raw' ? SHARED_CHUNK : config.envelopeBytes + SLACK
    this.#pool = new ChunkPool(chunkBytes, Math.ceil(config.windowBytes / chunkBytes) + MAX_OPEN)
    this.#window = new Window(this.#pool, counters, () => this.#confirmed())
    this.#connection = new Connection(
      config,
      { up: (client) => this.#connected(client), down: () => this.#disconnected() },
      hooks.log,
    )
    counters.set('connected', 0)
    counters.set('inFlightBytes', 0)
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
    return this.#ready && this.#window.bytes < this.#config.windowBytes
  }

  /** Results accepted and neither confirmed nor dropped. */
  get inFlight(): number {
    let open = 0
    for (const { envelope } of this.#open.values()) open += envelope.count
    for (const { envelope } of this.#openValues.values()) open += envelope.count
    return open + this.#heldResults + this.#window.results
  }

  /** Bytes handed to the connection, PUB lines included, and not yet confirmed. At most the window, one batch, and what
   * the open envelopes held before it. */
  get unconfirmedBytes(): number {
    return this.#window.bytes
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
    if (payload.length > this.#maxPayload) throw this.#tooLarge(payload.length)
    if (!this.#admit(1)) return
    const { chunk, at, shared } = this.#room(payload.length)
    chunk.bytes.set(payload, at)
    this.#send(to, chunk.bytes.subarray(at, at + payload.length), 1, shared ? undefined : chunk)
  }

  emit(value: unknown, subject?: string): void {
    const to = subject === undefined ? this.#subject(0) : this.#checked.check(subject)
    const packed = packValue(value)
    this.#counters.add('emitted', 1)
    this.#counters.add('emittedBytes', packed.length)
    const alone = aloneBytes(packed.length)
    if (alone > this.#maxPayload) throw this.#tooLarge(alone)
    if (!this.#admit(1)) return
    let open = this.#openValues.get(to)
    if (open?.envelope.add(packed) === true) return
    if (open !== undefined) this.#sealValues(to, open)
    open = this.#openValuesFor(to, Math.max(this.#envelopeBytes, alone))
    open.envelope.add(packed)
  }

  /** To be called at the end of each pump turn: seals what is due and starts a flush when one is needed. */
  turn(): void {
    if (this.#open.size > 0 || this.#openValues.size > 0) {
      const now = performance.now()
      const idle = this.#window.idle && this.#held.length === 0 && this.#up
      if (idle && now - this.#earlyAt >= EARLY_MS) {
        this.#earlyAt = now
        this.#sealAll()
      } else this.#sealDue(now)
    }
    this.#flush()
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
    this.#flush()
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
    this.#window.abandon()
    this.#dropOpen()
    this.#takeHeld()
    clearTimeout(this.#timer)
    this.#refresh()
    await this.#connection.close()
  }

  /** Whether `n` results can be taken; counts them as dropped when not. */
  #admit(n: number): boolean {
    if (this.#state !== 'open') return this.#drop('droppedShutdown', n)
    const away = !this.#up || this.#connection.client === undefined
    if (away && this.#config.whenDown === 'drop') return this.#drop('droppedDisconnected', n)
    // The worker stops when `ready` is false; a handler that produces by a timer of its own does not.
    const { windowBytes } = this.#config
    const limit = Math.max(4 * windowBytes, windowBytes + (64 << 20))
    if (this.#heldBytes + this.#window.bytes > limit) return this.#drop('droppedOverrun', n)
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
      `${bytes} bytes are more than the NATS server's max_payload of ${this.#maxPayload}`,
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
    if (size > this.#maxPayload) {
      this.#counters.add('droppedOversize', 1)
      return
    }
    const { chunk, at, shared } = this.#room(size, batch.slab.byteOffset + batch.offset(i))
    copyPayload(chunk, at, batch.slab, batch.offset(i), size)
    const subject = this.#subject(this.#perPort ? batch.dstPort(i) : 0)
    this.#send(subject, chunk.bytes.subarray(at, at + size), 1, shared ? undefined : chunk)
  }

  readonly #place: { chunk: Chunk; at: number; shared: boolean } = {
    chunk: newChunk(0),
    at: 0,
    shared: false,
  }

  /**
   * Room for a message of its own: in the shared chunk, or, when it is large, in memory never used again. Aligned like
   * the `source` it is to be copied from: see ColumnsEnvelope.add.
   */
  #room(size: number, source = 0): { chunk: Chunk; at: number; shared: boolean } {
    const place = this.#place
    if (size > SHARED_CHUNK / 2) {
      place.at = source & 7
      place.chunk = newChunk(place.at + size)
      place.shared = false
      return place
    }
    this.#sharedAt += (source - this.#sharedAt) & 7
    if (this.#shared === undefined || this.#sharedAt + size > this.#shared.bytes.length) {
      if (this.#shared !== undefined) this.#retireShared(this.#shared)
      this.#shared = this.#config.format === 'raw' ? this.#pool.take() : newChunk(SHARED_CHUNK)
      this.#sharedAt = source & 7
    }
    place.chunk = this.#shared
    place.at = this.#sharedAt
    place.shared = true
    this.#sharedAt += size
    return place
  }

  #retireShared(chunk: Chunk): void {
    const last = this.#held.at(-1)
    // A held envelope carries its own chunk; then the shared one is left to the garbage collector.
    if (last === undefined) this.#window.retire(chunk)
    else last.chunk ??= chunk
  }

  #gather(batch: Batch, from: number, to: number, port: number): void {
    for (let i = from; i < to; ) {
      const open = this.#open.get(port)
      if (open !== undefined) {
        i = open.envelope.add(batch, i, to)
        if (i === to) return
        this.#sealDatagrams(port, open)
      }
      // The next datagram begins a message, of its own if it is larger than an envelope.
      const alone = this.#aloneBytes(batch, i)
      if (alone > this.#maxPayload) {
        this.#counters.add('droppedOversize', 1)
        i++
      } else this.#openFor(port, Math.max(this.#envelopeBytes, alone))
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

  #openFor(port: number, limit: number): void {
    if (this.#open.size >= MAX_OPEN) {
      for (const [oldest, open] of this.#open) {
        this.#sealDatagrams(oldest, open)
        break
      }
    }
    const envelope = this.#spare.pop() ?? this.#newEnvelope()
    const chunk = this.#pool.take(limit + SLACK)
    envelope.start(chunk, limit)
    this.#open.set(port, { subject: this.#subject(port), envelope, chunk, since: performance.now() })
    this.#arm(this.#config.envelopeMs)
  }

  #openValuesFor(subject: string, limit: number): Open<ValuesEnvelope> {
    if (this.#openValues.size >= MAX_OPEN) {
      for (const [oldest, open] of this.#openValues) {
        this.#sealValues(oldest, open)
        break
      }
    }
    const envelope = this.#spareValues.pop() ?? new ValuesEnvelope()
    const chunk = this.#config.format === 'raw' ? newChunk(limit) : this.#pool.take(limit)
    envelope.start(chunk, limit)
    const open = { subject, envelope, chunk, since: performance.now() }
    this.#openValues.set(subject, open)
    this.#arm(this.#config.envelopeMs)
    return open
  }

  #sealDatagrams(port: number, open: Open<Envelope>): void {
    this.#open.delete(port)
    const { count } = open.envelope
    if (count > 0) this.#send(open.subject, open.envelope.seal(), count, open.chunk)
    else this.#pool.give(open.chunk)
    this.#spare.push(open.envelope)
  }

  #sealValues(key: string, open: Open<ValuesEnvelope>): void {
    this.#openValues.delete(key)
    const { count } = open.envelope
    if (count > 0) this.#send(open.subject, open.envelope.seal(), count, open.chunk)
    this.#spareValues.push(open.envelope)
  }

  #sealAll(): void {
    for (const [port, open] of this.#open) this.#sealDatagrams(port, open)
    for (const [key, open] of this.#openValues) this.#sealValues(key, open)
  }

  /** Seals what is old enough. Maps keep the order of opening, so the first one young enough ends the search. */
  #sealDue(now: number): void {
    const due = now - this.#config.envelopeMs
    for (const [port, open] of this.#open) {
      if (open.since > due) break
      this.#sealDatagrams(port, open)
    }
    for (const [key, open] of this.#openValues) {
      if (open.since > due) break
      this.#sealValues(key, open)
    }
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
    this.#flush()
    this.#refresh()
    const first: Open<unknown> | undefined =
      this.#open.values().next().value ?? this.#openValues.values().next().value
    if (first !== undefined) this.#arm(Math.max(1, first.since + this.#config.envelopeMs - now))
  }

  /** Hands a message over, or keeps it for later. `chunk` comes free with its confirmation. */
  #send(subject: string, message: Uint8Array, results: number, chunk: Chunk | undefined): void {
    const client = this.#up ? this.#connection.client : undefined
    if (client !== undefined && this.#held.length === 0) {
      this.#hand(client, subject, message, results, chunk)
      if (this.#window.bytes >= this.#config.windowBytes / 2) this.#window.flush(client)
    } else if (client === undefined && this.#config.whenDown === 'drop') {
      this.#drop('droppedDisconnected', results)
    } else {
      this.#held.push({ subject, message, results, chunk })
      this.#heldBytes += wireBytes(subject, message)
      this.#heldResults += results
    }
  }

  #hand(client: NatsConnection, subject: string, message: Uint8Array, results: number, chunk?: Chunk): void {
    try {
      client.publish(subject, message, NO_OPTIONS)
    } catch {
      // The server's max_payload is smaller than when the message was sealed: it is another server, or was reloaded.
      this.#drop('droppedOversize', results)
      return
    }
    this.#window.handed(results, wireBytes(subject, message), message.length, chunk)
  }

  #flush(): void {
    const client = this.#up ? this.#connection.client : undefined
    if (client !== undefined) this.#window.flush(client)
  }

  /** Hands held messages over as far as the window allows. */
  #sendHeld(): void {
    const client = this.#up ? this.#connection.client : undefined
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

  /** Forgets open envelopes and returns how many results were in them. */
  #dropOpen(): number {
    let results = 0
    for (const { envelope } of this.#open.values()) results += envelope.count
    for (const { envelope } of this.#openValues.values()) results += envelope.count
    this.#open.clear()
    this.#openValues.clear()
    return results
  }

  #connected(client: NatsConnection): void {
    if (this.#state === 'closed') return
    this.#up = true
    this.#maxPayload = client.info?.max_payload ?? DEFAULT_MAX_PAYLOAD
    this.#envelopeBytes = Math.min(this.#config.envelopeBytes, this.#maxPayload)
    this.#counters.set('connected', 1)
    if (this.#connections++ > 0) this.#counters.add('reconnects', 1)
    this.#sendHeld()
    this.#refresh()
  }

  #disconnected(): void {
    this.#up = false
    this.#counters.set('connected', 0)
    this.#counters.add('droppedUnconfirmed', this.#window.abandon())
    // Chunks the dead client has seen are not used again, not even the free part of the shared one.
    this.#shared = undefined
    for (const held of this.#held) held.chunk = undefined
    if (this.#config.whenDown === 'drop') {
      this.#counters.add('droppedDisconnected', this.#dropOpen() + this.#takeHeld())
    }
    this.#refresh()
  }

  #confirmed(): void {
    if (this.#held.length > 0) this.#sendHeld()
    this.#flush()
    this.#refresh()
  }

  /** Brings `ready` and the gauge up to date, and tells whoever waits. */
  #refresh(): void {
    const { windowBytes, whenDown } = this.#config
    const bytes = this.#window.bytes
    this.#counters.set('inFlightBytes', bytes + this.#heldBytes)
    if (this.#state !== 'open') {
      this.#ready = false
      if (this.#onSettled !== undefined && this.inFlight === 0) this.#onSettled()
      return
    }
    const reachable = this.#up ? this.#held.length === 0 : whenDown === 'drop'
    // A quarter of the window must be free before the worker drains again, else it would stop and go at every PONG.
    const ready = reachable && bytes < (this.#ready ? windowBytes : 0.75 * windowBytes)
    if (ready === this.#ready) return
    this.#ready = ready
    if (ready) this.#hooks.onReady()
    else this.#counters.add('paused', 1)
  }
}
