import { isPayload, payload } from './payload.js'

/** What was sent. It determines every byte of every datagram that must arrive. */
export interface Sent {
  /** Datagrams are numbered 0 … count - 1. */
  readonly count: number
  /** Datagram n has `low + n % (high - low + 1)` bytes. */
  readonly low: number
  readonly high: number
}

/** What a subscriber received, and every fault it found. */
export interface Account {
  /** Datagrams received. */
  readonly received: number
  /** Datagrams by queue. */
  readonly perQueue: readonly number[]
  /** NATS messages that contained them. */
  readonly messages: number
  /** Numbered datagrams seen a second time. */
  readonly duplicates: number
  /** Payloads that differ from what the sender makes. */
  readonly corrupt: number
  /** Numbered datagrams on another queue than `number % queues`. */
  readonly misplaced: number
  /** Datagrams without a number (less than 4 bytes) that came on another queue than the first one of their flow. */
  readonly split: number
  /** The first few faults in words. */
  readonly faults: readonly string[]
  /** Numbered datagrams never seen, and unnumbered ones too few or too many. Only {@link Accounts.against} sets it. */
  readonly missing?: number
}

/**
 * Accounts for numbered datagrams one by one: each must come with the right bytes, on the right queue, once. The rules
 * under test are `mod(u32[0])`, so datagram n belongs to queue n % queues. Datagrams too short for a number do not match
 * that rule and go to the default rule hash(flow), which keeps each flow on one queue.
 */
export class Accounts {
  received = 0
  messages = 0
  readonly #queues: number
  readonly #perQueue: number[]
  readonly #verify: boolean
  #seen = new Uint8Array(1 << 17)
  readonly #short = new Map<string, number>()
  readonly #flowQueue = new Map<string, number>()
  #duplicates = 0
  #corrupt = 0
  #misplaced = 0
  #split = 0
  readonly #faults: string[] = []

  /** @param verify false: count only, for load that checking every byte could not keep up with. */
  constructor(queues: number, verify = true) {
    this.#queues = queues
    this.#perQueue = new Array<number>(queues).fill(0)
    this.#verify = verify
  }

  /** Counts `n` datagrams that came on `queue`, without looking at them. */
  count(queue: number, n: number): void {
    this.received += n
    this.#perQueue[queue] = (this.#perQueue[queue] ?? 0) + n
  }

  /** Accounts for one datagram that came on `queue`. `flow` is its source, undefined when the format does not tell. */
  take(queue: number, bytes: Uint8Array, flow?: string): void {
    this.received++
    this.#perQueue[queue] = (this.#perQueue[queue] ?? 0) + 1
    if (!this.#verify) return
    if (bytes.length < 4) this.#takeShort(queue, bytes, flow)
    else this.#takeNumbered(queue, bytes)
  }

  /** Compares what came with what was sent, and returns the account with `missing`. */
  against(sent: Sent): Account {
    let missing = 0
    const expected = new Map<string, number>()
    for (let n = 0; n < sent.count; n++) {
      const size = sent.low + (n % (sent.high - sent.low + 1))
      if (size >= 4) {
        if (!this.#has(n)) {
          missing++
          this.#fault(`datagram ${n} of ${size} bytes never came`)
        }
      } else {
        const key = keyOf(payload(n, size))
        expected.set(key, (expected.get(key) ?? 0) + 1)
      }
    }
    for (const key of new Set([...expected.keys(), ...this.#short.keys()])) {
      const [want, got] = [expected.get(key) ?? 0, this.#short.get(key) ?? 0]
      if (want !== got) {
        missing += Math.abs(want - got)
        this.#fault(`short datagrams [${key}]: ${got} came, ${want} were sent`)
      }
    }
    return { ...this.report(), missing }
  }

  report(): Account {
    return {
      received: this.received,
      perQueue: this.#perQueue,
      messages: this.messages,
      duplicates: this.#duplicates,
      corrupt: this.#corrupt,
      misplaced: this.#misplaced,
      split: this.#split,
      faults: this.#faults,
    }
  }

  #takeNumbered(queue: number, bytes: Uint8Array): void {
    const n = ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0
    if (!isPayload(bytes, n)) {
      this.#corrupt++
      this.#fault(`queue ${queue}: ${bytes.length} bytes that are not those of datagram ${n}`)
      return
    }
    if (n % this.#queues !== queue) {
      this.#misplaced++
      this.#fault(`datagram ${n} on queue ${queue}, expected ${n % this.#queues}`)
    }
    if (this.#has(n)) {
      this.#duplicates++
      this.#fault(`datagram ${n} came twice`)
    }
    this.#mark(n)
  }

  #takeShort(queue: number, bytes: Uint8Array, flow?: string): void {
    const key = keyOf(bytes)
    this.#short.set(key, (this.#short.get(key) ?? 0) + 1)
    if (flow === undefined) return
    const first = this.#flowQueue.get(flow)
    if (first === undefined) this.#flowQueue.set(flow, queue)
    else if (first !== queue) {
      this.#split++
      this.#fault(`flow ${flow} on queues ${first} and ${queue}`)
    }
  }

  #has(n: number): boolean {
    return ((this.#seen[n >>> 3] ?? 0) & (1 << (n & 7))) !== 0
  }

  #mark(n: number): void {
    const at = n >>> 3
    if (at >= this.#seen.length) {
      const grown = new Uint8Array(Math.max(at + 1, this.#seen.length * 2))
      grown.set(this.#seen)
      this.#seen = grown
    }
    this.#seen[at]! |= 1 << (n & 7)
  }

  #fault(text: string): void {
    if (this.#faults.length < 10) this.#faults.push(text)
  }
}

function keyOf(bytes: Uint8Array): string {
  return `${bytes.length}:${[...bytes].join(' ')}`
}
