import { LAYOUT } from '../generated/layout.js'
import { Batch } from '../queue/batch.js'
import type { Counters } from '../queue/counters.js'
import type { Handler, Out } from '../queue/handler.js'
import type { Lane } from '../queue/lane.js'
import type { RuleNames } from '../queue/rule-names.js'

/** What the pump needs of a publisher. */
export interface PumpOut extends Out {
  /** False while the window is full or NATS is away under `hold`: stop draining until resumed. */
  readonly ready: boolean
  /** End of a turn: seal what is due, flush. */
  turn(): void
}

export interface PumpOptions {
  /** Most datagrams in a batch. */
  readonly batch: number
  /** Overwrite released payloads with 0xDE, so that a view kept too long shows itself. */
  readonly poison: boolean
  /** A handler threw or rejected. */
  readonly onFailure: (error: unknown, datagrams: number) => void
  /** What the rules are called. */
  readonly names?: RuleNames
}

/** Datagrams handled before the event loop gets a turn for NATS, timers and messages. */
const TURN_BUDGET = 4096

/** Written over released payloads in debug mode. */
const POISON = 0xde

/**
 * Drains lanes into the handler: takes what is ready, one batch at a time, releases in order, and arms the wake-up when
 * nothing is left. It does not look again after arming: the receive threads do, which lets batches grow.
 */
export class Pump {
  readonly #control: Int32Array
  readonly #lanes: readonly Lane[]
  readonly #batch: Batch
  readonly #handler: Handler
  readonly #out: PumpOut
  readonly #counters: Counters
  readonly #options: PumpOptions
  #nextLane = 0
  /** An async handler holds a batch, or a turn is scheduled. */
  #busy = false
  #onIdle: (() => void) | undefined

  constructor(
    control: Int32Array,
    lanes: readonly Lane[],
    queue: number,
    handler: Handler,
    out: PumpOut,
    counters: Counters,
    options: PumpOptions,
  ) {
    this.#control = control
    this.#lanes = lanes
    this.#batch = new Batch(queue, options.names)
    this.#handler = handler
    this.#out = out
    this.#counters = counters
    this.#options = options
  }

  /** A receive thread says that there is something. */
  wake(): void {
    this.#counters.add('wakeups', 1)
    this.run()
  }

  /** Drains until the lanes are empty, the budget is used, the publisher wants a pause or a handler is async. */
  run(): void {
    this.#run(TURN_BUDGET)
  }

  /** A promise continues with what is left of the budget: a microtask each, it would starve the event loop otherwise. */
  #run(budget: number): void {
    if (this.#busy) return
    while (this.#out.ready) {
      const index = this.#pick()
      const lane = this.#lanes[index]
      if (!lane) {
        this.#idle()
        return
      }
      if (budget <= 0) {
        this.#yield()
        return
      }
      const count = lane.ready(this.#options.batch)
      budget -= count
      this.#lease(index, lane, count)
      const pending = this.#handle(lane, count)
      if (pending) {
        this.#busy = true
        void pending.then(() => {
          this.#busy = false
          this.#run(budget)
        })
        this.#out.turn()
        return
      }
    }
    // The publisher counts the pause, and calls `run` when it is over.
    this.#out.turn()
  }

  /** Resolves when the lanes are empty and no handler runs; for the drain, after the receive threads have stopped. */
  emptied(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle = resolve
      this.run()
    })
  }

  /** Moves the heartbeat word, which the main thread watches. */
  beat(): void {
    Atomics.add(this.#control, LAYOUT.heartbeatOffset / 4, 1)
  }

  /** Index of the next lane in turn that has something, or -1. */
  #pick(): number {
    for (let k = 0; k < this.#lanes.length; k++) {
      const index = (this.#nextLane + k) % this.#lanes.length
      if (this.#lanes[index]!.ready(1) > 0) {
        this.#nextLane = (index + 1) % this.#lanes.length
        return index
      }
    }
    return -1
  }

  #handle(lane: Lane, count: number): Promise<void> | undefined {
    const batch = this.#batch
    batch.point(lane, lane.first, count)
    const started = performance.now()
    try {
      const result = this.#handler.handle(batch, this.#out)
      if (isThenable(result)) {
        return Promise.resolve(result).then(
          () => this.#done(lane, count, started),
          (error: unknown) => this.#failed(lane, count, error),
        )
      }
    } catch (error) {
      this.#failed(lane, count, error)
      return undefined
    }
    this.#done(lane, count, started)
    return undefined
  }

  #done(lane: Lane, count: number, started: number): void {
    const counters = this.#counters
    counters.add('handlerNanos', (performance.now() - started) * 1e6)
    this.#release(lane, count)
    counters.add('handled', count)
    counters.add('batches', 1)
  }

  #failed(lane: Lane, count: number, error: unknown): void {
    this.#release(lane, count)
    this.#counters.add('failed', count)
    this.#counters.add('failedBatches', 1)
    this.#options.onFailure(error, count)
  }

  /** Writes down what the handler is about to get, for whoever settles the books should this thread die in it. */
  #lease(index: number, lane: Lane, count: number): void {
    const control = this.#control
    Atomics.store(control, LAYOUT.leasedStartOffset / 4, lane.next)
    Atomics.store(control, LAYOUT.leasedCountOffset / 4, count)
    Atomics.store(control, LAYOUT.leasedLaneOffset / 4, index + 1)
  }

  #release(lane: Lane, count: number): void {
    if (this.#options.poison) {
      const { slab } = this.#batch
      for (let i = 0; i < count; i++) {
        const at = this.#batch.offset(i)
        slab.fill(POISON, at, at + this.#batch.size(i))
      }
    }
    // An empty batch: what a handler kept past its time reads nothing instead of the next datagrams.
    this.#batch.length = 0
    // Released before the lease ends, counted last: recoverQueue can tell every step between from the others.
    lane.release(count)
    Atomics.store(this.#control, LAYOUT.leasedLaneOffset / 4, 0)
  }

  #idle(): void {
    Atomics.store(this.#control, LAYOUT.armedOffset / 4, 1)
    this.#out.turn()
    const resolve = this.#onIdle
    this.#onIdle = undefined
    resolve?.()
  }

  #yield(): void {
    this.#out.turn()
    this.#busy = true
    setImmediate(() => {
      this.#busy = false
      this.run()
    })
  }
}

function isThenable(value: unknown): value is PromiseLike<void> {
  return (
    typeof value === 'object' && value !== null && typeof (value as PromiseLike<void>).then === 'function'
  )
}
