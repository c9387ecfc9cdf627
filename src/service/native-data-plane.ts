import type { Config } from '../config/index.js'
import { fromNative, MillraceError } from '../errors.js'
import type {
  CompiledRules,
  EngineDescription,
  EngineStats,
  QueueLayout,
  ThreadStats,
} from '../generated/contract.js'
import type { Log } from '../log.js'
import { type Native, native } from '../native.js'
import { Counters } from '../queue/counters.js'
import { Generations } from '../queue/rule-names.js'
import type { DataPlane } from './data-plane.js'
import type { Snapshot } from './statistics.js'
import { SupervisedWorker } from './supervisor.js'

/**
 * Interval at which the main thread looks after receive threads and heartbeats, milliseconds. Longer notices dead threads
 * later, and makes heartbeats look older than they are; shorter wakes an idle service for nothing.
 */
const WATCH_MS = 1000

/** Makes the data plane of a service. Nothing is opened before {@link DataPlane.start}. */
export function createDataPlane(config: Config, log: Log, addon: Native = native()): DataPlane {
  return new NativeDataPlane(config, log, addon)
}

class NativeDataPlane implements DataPlane {
  readonly #config: Config
  readonly #log: Log
  readonly #addon: Native
  /** Handle of the native engine; 0 while there is none. */
  #engine = 0
  #workers: SupervisedWorker[] = []
  /** The statistics read last, which stay readable after the engine is closed. */
  #last: EngineStats | undefined
  #watch: NodeJS.Timeout | undefined
  #fatal: (error: Error) => void = () => {}
  /** Why a receive thread had nothing to receive from when {@link WATCH_MS} last passed; null when all had. */
  #away: string | null = null
  #starting: Promise<void> | undefined
  /** Generation of the rules in force. */
  #generation = 1
  /** Names of the rules that were and are in force, for workers that are started again. */
  readonly #rules = new Generations()
  /** Reloads that were refused before they reached the engine, which counts the others. */
  #refusedBefore = 0

  constructor(config: Config, log: Log, addon: Native) {
    this.#config = config
    this.#log = log
    this.#addon = addon
  }

  onFatal(listener: (error: Error) => void): void {
    this.#fatal = listener
  }

  start(): Promise<void> {
    this.#starting = this.#start()
    return this.#starting
  }

  async #start(): Promise<void> {
    const engine = this.#open()
    this.#rules.add({ number: this.#generation, names: engine.rules })
    try {
      this.#workers = Array.from({ length: engine.queues }, (_, queue) => this.#worker(engine, queue))
      await Promise.all(this.#workers.map((worker) => worker.start()))
      this.#call(() => this.#addon.startEngine(this.#engine))
      this.#logWarnings(this.#compile(this.#config.engine.rules))
    } catch (error) {
      await Promise.all(this.#workers.map((worker) => worker.kill()))
      this.#close()
      throw error
    }
    this.#watch = setInterval(() => this.#inspect(), WATCH_MS)
  }

  async stop(deadlineMs: number): Promise<{ clean: boolean }> {
    // A start that is under way ends first, well or badly, so that there is either everything to stop or nothing.
    await this.#starting?.catch(() => {})
    clearInterval(this.#watch)
    if (this.#engine === 0) return { clean: true }
    const deadline = performance.now() + deadlineMs
    this.#call(() => this.#addon.stopEngine(this.#engine))
    const left = () => Math.max(0, deadline - performance.now())
    const drained = await Promise.all(this.#workers.map((worker) => worker.drain(left())))
    const { queues } = this.#stats()
    this.#close()
    return { clean: drained.every(Boolean) && queues.every((queue) => queue.depth === 0) }
  }

  snapshot(): Snapshot {
    return { time: Date.now(), engine: this.#stats(), workers: this.#workers.map((worker) => worker.stats()) }
  }

  reload(rules: string): number {
    if (this.#engine === 0) throw new MillraceError('MILLRACE_E_STATE', 'reload of rules while nothing runs')
    let compiled: CompiledRules
    try {
      compiled = this.#compile(rules)
    } catch (error) {
      this.#refusedBefore += 1
      throw error
    }
    // The announcement precedes the reload, so that a worker that gets a datagram of the new rules can find their names.
    const next = { number: this.#generation + 1, names: compiled.names }
    for (const worker of this.#workers) worker.announce(next)
    this.#generation = this.#call(() => this.#addon.reloadRules(this.#engine, rules))
    // Only now, because the kernel may refuse the rules, and a worker that starts later must know only what came in force.
    this.#rules.add(next)
    this.#logWarnings(compiled)
    return this.#generation
  }

  reloadRefused(): void {
    this.#refusedBefore += 1
  }

  #compile(rules: string): CompiledRules {
    const { queues } = this.#config.engine
    return this.#call(() => JSON.parse(this.#addon.compileRules(rules, queues)) as CompiledRules)
  }

  #logWarnings({ warnings }: CompiledRules): void {
    for (const warning of warnings) this.#log.warn({}, warning)
  }

  #open(): EngineDescription {
    return this.#call(() => {
      this.#engine = this.#addon.openEngine(JSON.stringify(this.#config.engine))
      return JSON.parse(this.#addon.describeEngine(this.#engine)) as EngineDescription
    })
  }

  #worker({ queueBytes }: EngineDescription, queue: number): SupervisedWorker {
    const { engine, workers, publisher, node, log } = this.#config
    const memory = new SharedArrayBuffer(queueBytes)
    const layout = this.#call(() => this.#addon.attachQueue(this.#engine, queue, new Uint8Array(memory)))
    const { cpus } = workers
    const setup = {
      engine: this.#engine,
      queue,
      queues: engine.queues,
      memory,
      layout: JSON.parse(layout) as QueueLayout,
      counters: new SharedArrayBuffer(Counters.BYTES),
      node,
      handler: workers.handler,
      batch: workers.batch,
      cpu: cpus.length > 0 ? cpus[queue % cpus.length]! : null,
      poison: workers.debugPoison,
      publisher: { ...publisher, name: `millrace ${node} queue ${queue}`, node, queue },
      logLevel: log.level,
    }
    return new SupervisedWorker(setup, this.#rules, this.#log, (error) => this.#fatal(error))
  }

  #stats(): EngineStats {
    if (this.#engine !== 0) {
      const stats = this.#call(() => JSON.parse(this.#addon.engineStats(this.#engine)) as EngineStats)
      this.#last = { ...stats, rulesRefused: stats.rulesRefused + this.#refusedBefore }
    }
    if (!this.#last) throw new MillraceError('MILLRACE_E_STATE', 'snapshot before start')
    return this.#last
  }

  /** Reads the statistics a last time and closes the engine. */
  #close(): void {
    if (this.#engine === 0) return
    this.#stats()
    this.#addon.closeEngine(this.#engine)
    this.#engine = 0
  }

  /** Logs what changed, and ends the service when no receive thread is left. */
  #inspect(): void {
    const receivers = this.#stats().threads.filter((thread) => thread.kind === 'receive')
    this.#logAbsence(receivers)
    const dead = receivers.filter((thread) => thread.error !== null)
    if (dead.length > 0 && dead.length === receivers.length) {
      clearInterval(this.#watch)
      const message = `no receive thread is left: ${dead[0]!.error}`
      this.#fatal(new MillraceError('MILLRACE_E_RECEIVE', message))
    }
    // The ages of heartbeats are measured from call to call, which must not wait for a scrape.
    for (const worker of this.#workers) worker.stats()
  }

  /** Logs one line when an interface is lost and one when it is back, not one for each thread. */
  #logAbsence(receivers: readonly ThreadStats[]): void {
    const reason = receivers.find((thread) => thread.away !== null)?.away ?? null
    if ((reason === null) === (this.#away === null)) return
    if (reason !== null) this.#log.warn({ reason }, 'nothing to receive from; waiting for it')
    else this.#log.info({ lost: this.#away }, 'receiving again')
    this.#away = reason
  }

  #call<T>(f: () => T): T {
    try {
      return f()
    } catch (error) {
      throw fromNative(error)
    }
  }
}
