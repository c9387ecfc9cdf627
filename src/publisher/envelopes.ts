import type { Batch } from '../queue/batch.js'
import type { Counters } from '../queue/counters.js'
import type { AddressCache } from './address-cache.js'
import { type ChunkPool, newChunk } from './chunk.js'
import { ColumnsEnvelope } from './columns.js'
import type { QueuePublisherConfig } from './config.js'
import { ALIGNMENT_SLACK, type Envelope } from './envelope.js'
import { type Head, headRoom, TAIL_BYTES } from './frame.js'
import { OpenEnvelopes } from './open-envelopes.js'
import type { Outbox } from './outbox.js'
import { RecordsEnvelope } from './records.js'
import type { Subjects } from './subject.js'
import { singleValueBytes, ValuesEnvelope } from './values.js'

/**
 * On an idle connection all envelopes are sealed at the end of a turn, at most once in this many milliseconds. Too low:
 * at a rate just below the connection's pace every message holds only a few datagrams. Too high: on a quiet connection
 * a datagram waits for its envelope to reach its age limit.
 */
const IDLE_SEAL_INTERVAL_MS = 1

/**
 * While NATS is away no envelope is sealed for its age; the timer asks again after this time, in milliseconds. Too low: the
 * worker wakes for nothing. Too high: that much later the envelopes go out when NATS is back.
 */
const AWAY_RETRY_MS = 10

/**
 * The open envelopes of a publisher, and every rule of when one is sealed: it is full; it is `envelopeMs` old; the
 * connection is idle at the end of a turn; too many are open; the publisher drains. While NATS is away none is sealed for
 * its age.
 */
export class Envelopes {
  readonly #config: QueuePublisherConfig
  readonly #outbox: Outbox
  readonly #pool: ChunkPool
  readonly #subjects: Subjects
  readonly #counters: Counters
  readonly #onTimer: () => void
  /** Forwarded datagrams, by destination port; all under port 0 when the subject does not name the port. */
  readonly #datagrams: OpenEnvelopes<number, Envelope>
  /** Emitted values, by subject. */
  readonly #values: OpenEnvelopes<string, ValuesEnvelope>
  readonly #addresses: AddressCache = RecordsEnvelope.addresses()
  /** Never filled: it only tells how long a message of one datagram would be. Made when it is first needed. */
  #measure: Envelope | undefined
  /** performance.now() when all envelopes were last sealed because the connection was idle. */
  #idleSealAt = 0
  #timer: NodeJS.Timeout | undefined
  #timerArmed = false
  #stopped = false

  /**
   * @param pool provides the chunks.
   * @param onTimer is called when the timer has sealed envelopes that became too old.
   */
  constructor(
    config: QueuePublisherConfig,
    outbox: Outbox,
    pool: ChunkPool,
    subjects: Subjects,
    counters: Counters,
    onTimer: () => void,
  ) {
    this.#config = config
    this.#outbox = outbox
    this.#pool = pool
    this.#subjects = subjects
    this.#counters = counters
    this.#onTimer = onTimer
    this.#datagrams = new OpenEnvelopes(outbox, pool, () => this.#newEnvelope())
    this.#values = new OpenEnvelopes(outbox, pool, () => new ValuesEnvelope())
  }

  /** Results in open envelopes. */
  get results(): number {
    return this.#datagrams.results + this.#values.results
  }

  /** Adds datagrams `from` up to `to`, exclusive; counts those that no message can hold as oversize. */
  forward(batch: Batch, from: number, to: number): void {
    const { perPort } = this.#subjects
    for (let i = from; i < to; ) {
      const port = perPort ? batch.dstPort(i) : 0
      let end = to
      // Datagrams that follow each other and have one destination port are added in one call.
      if (perPort) for (end = i + 1; end < to && batch.dstPort(end) === port; end++);
      while (i < end) {
        const envelope = this.#datagrams.get(port)
        if (envelope !== undefined) {
          i = envelope.add(batch, i, end)
          if (i === end) break
          this.#datagrams.seal(port)
        }
        // Datagram i begins a message, which it has to itself if it is larger than an envelope.
        this.#measure ??= this.#newEnvelope()
        const single = this.#measure.singleBytes(batch, i)
        if (single > this.#outbox.maxPayload) {
          this.#counters.add('droppedOversize', 1)
          i++
        } else this.#openDatagrams(port, single)
      }
    }
  }

  /** Adds a value, encoded by packValue, that fits into a message by itself. */
  emit(packed: Uint8Array, head: Head): void {
    const { subject } = head
    if (this.#values.get(subject)?.add(packed) === true) return
    this.#values.seal(subject)
    const limit = this.#messageLimit(singleValueBytes(packed.length))
    // In the format `raw` the pool's chunks are those of raw messages, far larger than an envelope.
    const bytes = headRoom(head) + limit + TAIL_BYTES
    const chunk = this.#config.format === 'raw' ? newChunk(bytes) : this.#pool.acquire(bytes)
    const envelope = this.#values.open(subject, head, chunk, limit)
    this.#armTimer(this.#config.envelopeMs)
    envelope.add(packed)
  }

  /** Seals what is due at the end of a pump turn: everything when the connection is idle, else what is old enough. */
  sealAtEndOfTurn(): void {
    if (this.#datagrams.size === 0 && this.#values.size === 0) return
    // While NATS is away nothing is gained by many small messages.
    if (this.#outbox.away) return
    const now = performance.now()
    if (this.#outbox.idle && now - this.#idleSealAt >= IDLE_SEAL_INTERVAL_MS) {
      this.#idleSealAt = now
      this.sealAll()
    } else this.#sealDue(now)
  }

  sealAll(): void {
    this.#datagrams.sealAll()
    this.#values.sealAll()
  }

  /** Discards open envelopes and their chunks, and returns the number of results that were in them. */
  discard(): number {
    return this.#datagrams.discard() + this.#values.discard()
  }

  /** Stops the timer for good. Call it when nothing will be added any more. */
  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  #openDatagrams(port: number, single: number): void {
    const limit = this.#messageLimit(single)
    const head = this.#subjects.forPort(port)
    const chunk = this.#pool.acquire(headRoom(head) + limit + ALIGNMENT_SLACK + TAIL_BYTES)
    this.#datagrams.open(port, head, chunk, limit)
    this.#armTimer(this.#config.envelopeMs)
  }

  #newEnvelope(): Envelope {
    const { format, node, queue, envelopeBytes } = this.#config
    return format === 'columns'
      ? new ColumnsEnvelope(node, queue, envelopeBytes)
      : new RecordsEnvelope(this.#addresses)
  }

  /** Bytes a message may have whose first result needs `single` bytes by itself. */
  #messageLimit(single: number): number {
    return Math.max(Math.min(this.#config.envelopeBytes, this.#outbox.maxPayload), single)
  }

  /** Seals what was opened `envelopeMs` before `now`, or earlier. */
  #sealDue(now: number): void {
    const time = now - this.#config.envelopeMs
    this.#datagrams.sealOpenedBy(time)
    this.#values.sealOpenedBy(time)
  }

  /** Arms the one timer of all envelopes, unless it is armed. It does not keep the process alive: the owner's drain does. */
  #armTimer(ms: number): void {
    if (this.#timerArmed || this.#stopped) return
    this.#timerArmed = true
    this.#timer = setTimeout(() => this.#timerFired(), ms).unref()
  }

  #timerFired(): void {
    this.#timerArmed = false
    if (this.#outbox.away) {
      if (this.#datagrams.size + this.#values.size > 0) this.#armTimer(AWAY_RETRY_MS)
      return
    }
    const now = performance.now()
    // A timer may fire up to a millisecond early.
    this.#sealDue(now + 1)
    this.#onTimer()
    const never = Number.POSITIVE_INFINITY
    const oldest = Math.min(this.#datagrams.oldest ?? never, this.#values.oldest ?? never)
    if (oldest < never) this.#armTimer(Math.max(1, oldest + this.#config.envelopeMs - now))
  }
}
