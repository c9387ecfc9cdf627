import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'

/** The names of one generation's rules, by index. Announced to workers before the generation is put in force. */
export interface Generation {
  /** 1 for the rules of the start, one more with each reload. */
  readonly number: number
  readonly names: readonly string[]
}

/** Generations that are remembered: so many reloads may happen while a datagram waits in its lane. */
export const REMEMBERED = 64

/** The name of a rule whose generation is forgotten. No rule can be called so. */
export const FORGOTTEN = '?'

/** A descriptor holds this many generations apart. */
const WRAP = 2 ** 16

/**
 * What the rules are called, for a worker: a rule's index means nothing without the generation it counts in, and datagrams
 * of an old generation may lie in the lanes long after a new one is in force.
 *
 * The main thread announces a generation on a port before the receive threads get it. So whoever sees a datagram of a
 * generation that is new to him finds its names on the port, without waiting for a turn of the event loop.
 */
export class RuleNames {
  readonly #names = new Map<number, readonly string[]>()
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
    this.#current = this.#names.get(generation) ?? []
  }

  #read(): void {
    if (!this.#port) return
    for (;;) {
      const got = receiveMessageOnPort(this.#port)
      if (!got) return
      this.#add(got.message as Generation)
    }
  }

  #add({ number, names }: Generation): void {
    const key = number % WRAP
    // Announced anew when the reload it was announced for failed; the order of insertion is the order of age.
    this.#names.delete(key)
    this.#names.set(key, names)
    if (this.#asked === key) this.#asked = -1
    if (this.#names.size > REMEMBERED) this.#names.delete(this.#names.keys().next().value!)
  }
}
