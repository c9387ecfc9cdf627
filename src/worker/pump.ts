import { LAYOUT } from '../generated/layout.js'
import { Batch } from '../queue/batch.js'
import type { Counters } from '../queue/counters.js'
import type { Handler, Out } from '../queue/handler.js'
import type { Lane } from '../queue/lane.js'
import type { RuleNames } from '../queue/rule-names.js'

/** What the pump needs of a publisher besides what the handler sees. */
export interface PumpOut extends Out {
  /** False while nothing must be drained: the window is full, of what NATS has not taken or, while it is away, of what waits for it. */
  readonly ready: boolean
  /** Called at the end of every turn: seals what is due and flushes. */
  turn(): void
}

/** Options of a {@link Pump}. */
export interface PumpOptions {
  /** Most datagrams in a batch. */
  readonly batch: number
  /** Whether released payloads are overwritten, so that a handler sees that it kept a view too long. */
  readonly poison: boolean
  /** Called when a handler threw or rejected. */
  readonly onFailure: (error: unknown, datagrams: number) => void
  /** Names of the rules; by default none. */
  readonly names?: RuleNames
}

/**
 * Datagrams that are handled before the event loop gets a turn for NATS, timers and messages. More delay NATS's answers and
 * the heartbeat; fewer cost a trip through the event loop more often.
 */
const TURN_BUDGET = 4096

/** Byte written over released payloads when they are poisoned. */
const POISON = 0xde

/**
 * Drains the lanes of a queue into the handler: hands out what is ready, one batch at a time, releases batches in order, and
 * arms the wake-up when nothing is left. The lanes are not read again after arming. The receive threads see to what came in
 * between, and the batches grow meanwhile.
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
  /** True while an async handler has a batch, and while a turn is scheduled. */
  #busy = false
  /** Resolves the promise of {@link Pump.emptied}. */
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

  /** Called when a receive thread wakes this worker. */
  wake(): void {
    this.#counters.add('wakeups', 1)
    this.run()
  }

  /** Drains until the lanes are empty, the budget is spent, the publisher is not ready, or an async handler has a batch. */
  run(): void {
    this.#run(TURN_BUDGET)
  }

  /**
   * An async handler's batches are continued with what is left of the budget. They follow each other as microtasks, and with
   * a new budget for each they would starve the event loop.
   */
  #run(budget: number): void {
    if (this.#busy) return
    while (this.#out.ready) {
      const index = this.#selectLane()
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
    // The publisher is not ready. It counts the pause, and calls `run` when it is over.
    this.#out.turn()
  }

  /** Resolves when the lanes are empty and no handler runs. Only the drain calls it, after the receive threads have stopped. */
  emptied(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle = resolve
      this.run()
    })
  }

  /** Increments the heartbeat word, which the main thread watches. */
  beat(): void {
    Atomics.add(this.#control, LAYOUT.heartbeatOffset / 4, 1)
  }

  /** Index of the next lane, in rotation, that has datagrams, or -1. */
  #selectLane(): number {
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
    batch.point(lane, lane.firstSlot, count)
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

  /**
   * Records in the control words which batch the handler is about to get, so that `recoverQueue` can settle the books when
   * this thread dies in the handler. The lane is stored last: it makes the lease valid.
   */
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
    // A handler that kept the batch finds it empty instead of reading the next datagrams.
    this.#batch.length = 0
    // The order is release, end of the lease, count. Wherever the thread dies, recoverQueue can tell what is done already.
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
