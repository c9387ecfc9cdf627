import type { Chunk, ChunkPool } from './chunk.js'
import type { Envelope } from './envelope.js'
import type { Outbox } from './outbox.js'

/** Envelopes open at a time, of one kind; the oldest is sealed to make room. */
export const MAX_OPEN = 64

/** An envelope being filled. */
interface Open<E> {
  readonly subject: string
  readonly envelope: E
  readonly chunk: Chunk
  /** performance.now() of its first result. */
  readonly since: number
}

/** Envelopes being filled, one for each key, in the order they were opened; sealed ones go to the outbox. */
export class OpenEnvelopes<K, E extends Pick<Envelope, 'count' | 'start' | 'seal'>> {
  readonly #outbox: Outbox
  readonly #pool: ChunkPool
  readonly #make: () => E
  readonly #open = new Map<K, Open<E>>()
  readonly #spare: E[] = []

  /** @param make an envelope, when there is no spare one. @param pool takes the chunks of those sealed empty. */
  constructor(outbox: Outbox, pool: ChunkPool, make: () => E) {
    this.#outbox = outbox
    this.#pool = pool
    this.#make = make
  }

  get(key: K): E | undefined {
    return this.#open.get(key)?.envelope
  }

  get size(): number {
    return this.#open.size
  }

  /** Results in them. */
  get results(): number {
    let results = 0
    for (const { envelope } of this.#open.values()) results += envelope.count
    return results
  }

  /** performance.now() when the oldest was opened. */
  get since(): number | undefined {
    return this.#open.values().next().value?.since
  }

  /** Begins a message of at most `limit` bytes in `chunk`; the key has none open. */
  open(key: K, subject: string, chunk: Chunk, limit: number): E {
    if (this.#open.size >= MAX_OPEN) {
      for (const oldest of this.#open.keys()) {
        this.seal(oldest)
        break
      }
    }
    const envelope = this.#spare.pop() ?? this.#make()
    envelope.start(chunk, limit)
    this.#open.set(key, { subject, envelope, chunk, since: performance.now() })
    return envelope
  }

  /** Sends the key's message, if it has one. */
  seal(key: K): void {
    const open = this.#open.get(key)
    if (open === undefined) return
    const { subject, envelope, chunk } = open
    const { count } = envelope
    this.#open.delete(key)
    if (count > 0) this.#outbox.send(subject, envelope.seal(), count, chunk)
    else this.#pool.give(chunk)
    this.#spare.push(envelope)
  }

  sealAll(): void {
    for (const key of this.#open.keys()) this.seal(key)
  }

  /** Seals those opened up to `due`: the first one younger ends the search. */
  sealDue(due: number): void {
    for (const [key, { since }] of this.#open) {
      if (since > due) break
      this.seal(key)
    }
  }

  /** Forgets them and returns how many results were in them. */
  drop(): number {
    const { results } = this
    this.#open.clear()
    return results
  }
}
