import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'

/** The rule names of one generation of rules, by index. */
export interface Generation {
  /** 1 for the rules of the start, one more with each reload. */
  readonly number: number
  readonly names: readonly string[]
}

/**
 * Generations that are kept, the one in force included: a datagram has a rule name until this many reloads have come while
 * it waited in its lane. Fewer would lose names in a burst of reloads; more cost memory in every worker.
 */
export const MAX_GENERATIONS = 64
/** Names that are kept in all generations together. Fewer would forget large rule sets at once; more are megabytes in every worker. */
export const MAX_NAMES = 65_536
/** Generations that are kept whatever their size: the one in force, and the one before it, whose datagrams are still in the lanes. */
const MIN_GENERATIONS = 2

/** Stands for the name of a rule whose generation is not kept any more. No rule can have this name. */
export const UNKNOWN_RULE = '?'

/** A descriptor holds the number of a generation modulo this. */
const GENERATION_MODULUS = 2 ** 16

/** The newest generations of rules: those whose datagrams may still lie in the lanes. */
export class Generations {
  readonly #list: Generation[] = []
  #names = 0

  /** The generations that are kept, the oldest first. */
  get list(): readonly Generation[] {
    return this.#list
  }

  /**
   * Adds a generation that is newer than the others. One that has the same number already was announced for a reload that
   * failed; it is replaced.
   */
  add(generation: Generation): void {
    while ((this.#list.at(-1)?.number ?? 0) >= generation.number) this.#subtract(this.#list.pop())
    this.#list.push(generation)
    this.#names += generation.names.length
    const tooMany = () => this.#list.length > MAX_GENERATIONS || this.#names > MAX_NAMES
    while (this.#list.length > MIN_GENERATIONS && tooMany()) this.#subtract(this.#list.shift())
  }

  /** Names of the generation whose number a descriptor holds as `low16`; an empty list when it is not kept. */
  names(low16: number): readonly string[] {
    return this.#list.findLast(({ number }) => number % GENERATION_MODULUS === low16)?.names ?? []
  }

  #subtract(generation: Generation | undefined): void {
    this.#names -= generation?.names.length ?? 0
  }
}

/**
 * The names of rules in a worker. The index of a rule means nothing without its generation, and datagrams of an old
 * generation may lie in the lanes long after a new one is in force.
 *
 * The main thread announces a generation on a port before the receive threads get it. So the names of any datagram's
 * generation are on the port at the latest when that datagram is read, and {@link RuleNames.name} reads the port itself
 * instead of waiting for a turn of the event loop.
 */
export class RuleNames {
  readonly #generations = new Generations()
  readonly #port: MessagePort | undefined
  /** The generation, as a descriptor holds it, that {@link RuleNames.#current} belongs to; -1: none. */
  #currentNumber = -1
  #current: readonly string[] = []

  /**
   * @param generations those announced so far, in the order they came in force.
   * @param port where further ones are announced.
   */
  constructor(generations: readonly Generation[], port?: MessagePort) {
    for (const generation of generations) this.#add(generation)
    this.#port = port
    // The listener empties the port also when no name is looked up, so that messages do not pile up there.
    port?.on('message', (generation: Generation) => this.#add(generation))
    port?.unref()
  }

  /**
   * Name of a rule.
   *
   * @param generation number of its generation modulo 2^16, as a descriptor holds it.
   * @param index its index in that generation.
   * @returns {@link UNKNOWN_RULE} where the generation is not kept any more.
   */
  name(generation: number, index: number): string {
    if (generation !== this.#currentNumber) this.#select(generation)
    return this.#current[index] ?? UNKNOWN_RULE
  }

  #select(generation: number): void {
    this.#readPort()
    this.#currentNumber = generation
    this.#current = this.#generations.names(generation)
  }

  #readPort(): void {
    if (!this.#port) return
    for (;;) {
      const received = receiveMessageOnPort(this.#port)
      if (!received) return
      this.#add(received.message as Generation)
    }
  }

  #add(generation: Generation): void {
    this.#generations.add(generation)
    // The current generation may have other names now, or none.
    this.#currentNumber = -1
  }
}
