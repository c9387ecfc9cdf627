import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { type ErrorCode, MillraceError } from '../errors.js'
import { LAYOUT } from '../generated/layout.js'
import type { Log } from '../log.js'
import { Counters } from '../queue/counters.js'
import { queueControl } from '../queue/lane.js'
import type { Generation, Generations } from '../queue/rule-names.js'
import type { DrainRequest, WorkerData, WorkerMessage } from '../worker/protocol.js'
import { recoverQueue } from './recovery.js'
import { RestartPolicy } from './restart-policy.js'
import type { WorkerStats } from './statistics.js'

/** Interval at which a drain looks whether a starting worker runs, milliseconds: what it adds to a drain at most. */
const START_POLL_MS = 10
/**
 * Time beyond its deadline that a draining worker has to say so, milliseconds. A worker ends itself at the deadline unless
 * its event loop is stuck; less would kill one that is about to report, more delays the end of the service.
 */
const DRAIN_GRACE_MS = 1000

/** What all workers of one queue are started with. The rules are added at each start. */
export type WorkerSetup = Omit<WorkerData, 'generations' | 'rulesPort'>

/** The worker of one queue: starts it, watches it, starts it again on the same lanes when it dies, drains it. */
export class SupervisedWorker {
  readonly queue: number
  readonly #setup: WorkerSetup
  readonly #counters: Counters
  readonly #control: Int32Array
  readonly #log: Log
  readonly #onFatal: (error: Error) => void
  readonly #rules: Generations
  readonly #restarting = new RestartPolicy()
  #worker: Worker | undefined
  #rulesPort: MessagePort | undefined
  #state: WorkerStats['state'] = 'starting'
  #restarts = 0
  #restartTimer: NodeJS.Timeout | undefined
  /** True once the worker is drained or killed: its exit is then no death, and it is not started again. */
  #stopping = false
  #lastHeartbeat = 0
  #lastHeartbeatAt = performance.now()
  #drained: { left: number } | undefined
  #onExit: (() => void) | undefined

  /**
   * @param rules the generations of rules, shared by all workers; each worker gets those that are in it when it starts.
   * @param onFatal called when the worker keeps dying.
   */
  constructor(setup: WorkerSetup, rules: Generations, log: Log, onFatal: (error: Error) => void) {
    this.queue = setup.queue
    this.#setup = setup
    this.#rules = rules
    this.#counters = new Counters(setup.counters)
    this.#control = queueControl(setup.memory, setup.layout)
    this.#log = log
    this.#onFatal = onFatal
  }

  /** Starts the worker. Resolves when its handler is set up, and rejects with what the worker reported otherwise. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => this.#spawn(resolve, reject))
  }

  /** Announces the rule names of a generation to the running worker. It must be called before the generation is in force. */
  announce(rules: Generation): void {
    this.#rulesPort?.postMessage(rules)
  }

  /**
   * Reads counters and heartbeat. The heartbeat's age is the time since a call of this method saw it move, so it must be
   * called about every second.
   */
  stats(): WorkerStats {
    const heartbeat = Atomics.load(this.#control, LAYOUT.heartbeatOffset / 4)
    if (heartbeat !== this.#lastHeartbeat || this.#state !== 'running') {
      this.#lastHeartbeat = heartbeat
      this.#lastHeartbeatAt = performance.now()
    }
    return {
      queue: this.queue,
      counters: this.#counters.snapshot(),
      restarts: this.#restarts,
      heartbeatAgeMs: performance.now() - this.#lastHeartbeatAt,
      state: this.#state,
    }
  }

  /**
   * Empties the queue and waits until NATS has taken what was published. It must be called after the receive threads have stopped.
   *
   * @returns false when something was left at the deadline.
   */
  async drain(deadlineMs: number): Promise<boolean> {
    const deadline = performance.now() + deadlineMs
    // A worker that is being started again drains as soon as it runs, because its lanes are as full as the others'.
    await this.#started(deadline)
    this.#stopping = true
    const worker = this.#worker
    if (!worker || this.#state !== 'running') {
      await this.kill()
      return false
    }
    this.#state = 'draining'
    const exited = new Promise<void>((resolve) => {
      this.#onExit = resolve
    })
    const left = deadline - performance.now()
    const request: DrainRequest = { type: 'drain', deadlineMs: left }
    worker.postMessage(request)
    const late = await Promise.race([exited.then(() => false), timeout(left + DRAIN_GRACE_MS)])
    if (late) await this.kill()
    return !late && this.#drained?.left === 0
  }

  /** Terminates the worker, after a failed start or a missed deadline. */
  async kill(): Promise<void> {
    this.#stopping = true
    clearTimeout(this.#restartTimer)
    if (this.#state !== 'failed') this.#state = 'stopped'
    await this.#worker?.terminate()
  }

  /** Resolves when the worker is not starting any more, or at the deadline. */
  async #started(deadline: number): Promise<void> {
    while (this.#state === 'starting' && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, START_POLL_MS))
    }
  }

  #spawn(onRunning: () => void, onFailed: (error: Error) => void): void {
    // Each worker has a channel of its own: the port of the one before died with it. Generations that were announced there
    // and came in force are in the list that the new worker gets.
    const { port1, port2 } = new MessageChannel()
    this.#rulesPort = port1
    const workerData: WorkerData = { ...this.#setup, generations: this.#rules.list, rulesPort: port2 }
    const worker = new Worker(new URL('../worker/main.js', import.meta.url), {
      workerData,
      transferList: [port2],
      name: `millrace-q${this.queue}`,
    })
    this.#worker = worker
    let cause: Error | undefined
    let running = false
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'running') {
        running = true
        this.#state = 'running'
        this.#lastHeartbeatAt = performance.now()
        this.#restarting.running(this.#lastHeartbeatAt)
        onRunning()
      } else if (message.type === 'drained') {
        this.#drained = message
      } else {
        cause = new MillraceError(message.code as ErrorCode, message.message)
      }
    })
    worker.on('error', (error) => {
      cause = error instanceof Error ? error : new Error(String(error))
    })
    worker.on('exit', (status) => {
      this.#worker = undefined
      const settled = this.#drained
        ? { failed: 0, unconfirmed: 0 }
        : recoverQueue(this.#setup.memory, this.#setup.layout, this.#counters)
      const error =
        cause ?? new MillraceError('MILLRACE_E_WORKER', `worker of queue ${this.queue} exited with ${status}`)
      if (this.#stopping) {
        this.#state = 'stopped'
        if (!running) onFailed(error)
      } else if (running) {
        this.#restart(error, settled)
      } else {
        this.#state = 'failed'
        onFailed(error)
      }
      this.#onExit?.()
    })
  }

  #restart(error: Error, settled: { failed: number; unconfirmed: number }): void {
    if (this.#stopping) return
    const pause = this.#restarting.died(performance.now())
    const { deaths } = this.#restarting
    this.#state = 'starting'
    const fields = { err: error, queue: this.queue, code: 'MILLRACE_E_WORKER', deaths, ...settled }
    if (pause === undefined) {
      this.#state = 'failed'
      this.#log.error(fields, 'worker keeps dying')
      const message = `worker of queue ${this.queue} died ${deaths} times: ${error.message}`
      this.#onFatal(new MillraceError('MILLRACE_E_WORKER', message, { cause: error }))
      return
    }
    this.#log.error({ ...fields, restartInMs: pause }, 'worker died; starting it again on the same lanes')
    this.#restartTimer = setTimeout(() => {
      this.#restarts += 1
      this.#spawn(
        () => this.#log.warn({ queue: this.queue }, 'worker runs again'),
        (failure) => this.#restart(failure, { failed: 0, unconfirmed: 0 }),
      )
    }, pause)
  }
}

function timeout(ms: number): Promise<true> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(true), ms).unref()
  })
}
