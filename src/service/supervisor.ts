import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { type ErrorCode, MillraceError } from '../errors.js'
import { LAYOUT } from '../generated/layout.js'
import { Counters } from '../queue/counters.js'
import { queueControl } from '../queue/lane.js'
import type { Generation, Generations } from '../queue/rule-names.js'
import type { WorkerData, WorkerMessage } from '../worker/protocol.js'
import { recoverQueue } from './recovery.js'
import type { WorkerStats } from './statistics.js'

/** First pause before a dead worker is started again, ms; doubles to the longest. */
const RESTART_MS = 100
const RESTART_LONGEST_MS = 5_000
/** A worker that ran this long starts again with the first pause, ms. */
const STABLE_MS = 30_000
/** Deaths without a stable run in between before the service gives up; Kubernetes then restarts the pod. */
const MAX_DEATHS = 8

/** How often a drain looks whether a starting worker runs, ms. */
const START_LOOK_MS = 10

/** What every worker of a queue is born with; the rules come with each birth. */
export type WorkerSetup = Omit<WorkerData, 'generations' | 'rulesPort'>

interface SupervisorLog {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
}

/** One queue's worker: starts it, watches it, starts it again on the same lanes, drains it. */
export class SupervisedWorker {
  readonly queue: number
  readonly #birth: WorkerSetup
  readonly #counters: Counters
  readonly #control: Int32Array
  readonly #log: SupervisorLog
  readonly #onFatal: (error: Error) => void
  #worker: Worker | undefined
  readonly #rules: Generations
  #announce: MessagePort | undefined
  #state: WorkerStats['state'] = 'starting'
  #restarts = 0
  #deaths = 0
  #runningSince = 0
  #restartTimer: NodeJS.Timeout | undefined
  /** Drained or killed: an exit is no death, and nothing is started again. */
  #stopping = false
  #lastBeat = 0
  #lastBeatAt = performance.now()
  #drained: { left: number } | undefined
  #onExit: (() => void) | undefined

  /** `rules`: shared by all workers; what it holds when a worker is born, that one is told. */
  constructor(birth: WorkerSetup, rules: Generations, log: SupervisorLog, onFatal: (error: Error) => void) {
    this.queue = birth.queue
    this.#birth = birth
    this.#rules = rules
    this.#counters = new Counters(birth.counters)
    this.#control = queueControl(birth.memory, birth.layout)
    this.#log = log
    this.#onFatal = onFatal
  }

  /** Starts the worker; resolves when its handler is set up, rejects with what it reported. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => this.#spawn(resolve, reject))
  }

  /** Tells the running worker what the rules of a generation are called; call it before the generation is put in force. */
  announce(rules: Generation): void {
    this.#announce?.postMessage(rules)
  }

  /** Reads counters and heartbeat; the heartbeat's age is measured from call to call, so call it about every second. */
  stats(): WorkerStats {
    const beat = Atomics.load(this.#control, LAYOUT.heartbeatOffset / 4)
    if (beat !== this.#lastBeat || this.#state !== 'running') {
      this.#lastBeat = beat
      this.#lastBeatAt = performance.now()
    }
    return {
      queue: this.queue,
      counters: this.#counters.snapshot(),
      restarts: this.#restarts,
      heartbeatAgeMs: performance.now() - this.#lastBeatAt,
      state: this.#state,
    }
  }

  /**
   * Empties the queue and confirms what was published; call it after the receive threads have stopped.
   *
   * @returns false when something was left at the deadline.
   */
  async drain(deadlineMs: number): Promise<boolean> {
    const started = performance.now()
    // One that is being started again drains as soon as it runs: its lanes are as full as the others'.
    await this.#running(deadlineMs)
    deadlineMs -= performance.now() - started
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
    worker.postMessage({ type: 'drain', deadlineMs })
    // The worker keeps to the deadline by itself unless its event loop is stuck; then it is ended here.
    const late = await Promise.race([exited.then(() => false), timeout(deadlineMs + 1000)])
    if (late) await this.kill()
    return !late && this.#drained?.left === 0
  }

  /** Ends the worker without asking it, for failed starts and missed deadlines. */
  async kill(): Promise<void> {
    this.#stopping = true
    clearTimeout(this.#restartTimer)
    if (this.#state !== 'failed') this.#state = 'stopped'
    await this.#worker?.terminate()
  }

  /** Waits until a worker that is being started runs, or `ms` have passed. */
  async #running(ms: number): Promise<void> {
    const until = performance.now() + ms
    while (this.#state === 'starting' && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, START_LOOK_MS))
    }
  }

  #spawn(onRunning: () => void, onFailed: (error: Error) => void): void {
    // A channel for each worker: the port of the one before died with it, and what came in force since is in the birth.
    const { port1, port2 } = new MessageChannel()
    this.#announce = port1
    const birth: WorkerData = { ...this.#birth, generations: this.#rules.list, rulesPort: port2 }
    const worker = new Worker(new URL('../worker/main.js', import.meta.url), {
      workerData: birth,
      transferList: [port2],
      name: `millrace-q${this.queue}`,
    })
    this.#worker = worker
    let cause: Error | undefined
    let reported = false
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'running') {
        reported = true
        this.#state = 'running'
        this.#runningSince = performance.now()
        this.#lastBeatAt = this.#runningSince
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
        : recoverQueue(this.#birth.memory, this.#birth.layout, this.#counters)
      const error =
        cause ?? new MillraceError('MILLRACE_E_WORKER', `worker of queue ${this.queue} exited with ${status}`)
      if (this.#stopping) {
        this.#state = 'stopped'
        if (!reported) onFailed(error)
      } else if (reported) {
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
    const ran = performance.now() - this.#runningSince
    // Until it runs again it has not run at all: a start that fails is another death in a row.
    this.#runningSince = Number.POSITIVE_INFINITY
    this.#deaths = ran > STABLE_MS ? 1 : this.#deaths + 1
    this.#state = 'starting'
    const fields = {
      err: error,
      queue: this.queue,
      code: 'MILLRACE_E_WORKER',
      deaths: this.#deaths,
      ...settled,
    }
    if (this.#deaths > MAX_DEATHS) {
      this.#state = 'failed'
      this.#log.error(fields, 'worker keeps dying')
      const message = `worker of queue ${this.queue} died ${this.#deaths} times: ${error.message}`
      this.#onFatal(new MillraceError('MILLRACE_E_WORKER', message, { cause: error }))
      return
    }
    const pause = Math.min(RESTART_MS * 2 ** (this.#deaths - 1), RESTART_LONGEST_MS)
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
