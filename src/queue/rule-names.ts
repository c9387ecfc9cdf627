import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'

/** The names of one generation's rules, by index. Announced to workers before the generation is put in force. */
export interface Generation {
  /** 1 for the rules of the start, one more with each reload. */
  readonly number: number
  readonly names: readonly string[]
}

/** Generations that are remembered: so many reloads may happen while a datagram waits in its lane. */
export const REMEMBERED = 64
/** Names that are remembered in all generations together: large sets would hold megabytes for each worker. */
export const MOST_NAMES = 65_536
/** Generations that are remembered however large: the one in force, and the one before it. */
const LEAST = 2

/** The name of a rule whose generation is forgotten. No rule can be called so. */
export const FORGOTTEN = '?'

/** A descriptor holds this many generations apart. */
const WRAP = 2 ** 16

/** The generations whose datagrams may lie in the lanes, as far as they are remembered. */
export class Generations {
  readonly #list: Generation[] = []
  #names = 0

  /** The oldest first. */
  get list(): readonly Generation[] {
    return this.#list
  }

  /** Takes a newer one. One of the same number was announced for a reload that failed, and is forgotten. */
  add(generation: Generation): void {
    while ((this.#list.at(-1)?.number ?? 0) >= generation.number) this.#forget(this.#list.pop())
    this.#list.push(generation)
    this.#names += generation.names.length
    const tooMany = () => this.#list.length > REMEMBERED || this.#names > MOST_NAMES
    while (this.#list.length > LEAST && tooMany()) this.#forget(this.#list.shift())
  }

  /** Names of a generation as a descriptor holds it; none when it is forgotten. */
  names(held: number): readonly string[] {
    return this.#list.findLast(({ number }) => number % WRAP === held)?.names ?? []
  }

  #forget(generation: Generation | undefined): void {
    this.#names -= generation?.names.length ?? 0
  }
}

/**
 * What the rules are called, for a worker: a rule's index means nothing without the generation it counts in, and datagrams
 * of an old generation may lie in the lanes long after a new one is in force.
 *
 * The main thread announces a generation on a port before the receive threads get it. So whoever sees a datagram of a
 * generation that is new to him finds its names on the port, without waiting for a turn of the event loop.
 */
export class RuleNames {
  readonly #known = new Generations()
  readonly #port: MessagePort | undefined
  /** The generation asked for last. */
  #asked = -1
  #current: readonly string[] = []

  /** `known`: in the order they were put in force. */
  constructor(known: readonly Generation[], port?: MessagePort) {
    for (const generation of known) this.#add(generation)
    this.#port = port
    // Names that no datagram asks for must not pile up on the port.
    port?.on('message', (generation: Generation) => this.#add(generation))
    port?.unref()
  }

  /** Name of rule `index` of a generation, as a descriptor holds it. {@link FORGOTTEN} after too many reloads. */
  name(generation: number, index: number): string {
    if (generation !== this.#asked) this.#turn(generation)
    return this.#current[index] ?? FORGOTTEN
  }

  #turn(generation: number): void {
    this.#read()
    this.#asked = generation
    this.#current = this.#known.names(generation)
  }

  #read(): void {
    if (!this.#port) return
    for (;;) {
      const got = receiveMessageOnPort(this.#port)
      if (!got) return
      this.#add(got.message as Generation)
    }
  }

  #add(generation: Generation): void {
    this.#known.add(generation)
    // What was asked for may have other names now, or none.
    this.#asked = -1
  }
}
