import { isatty } from 'node:tty'
import type { Config } from '../config/index.js'
import { EXIT, exitStatus, fromNative } from '../errors.js'
import type { Log } from '../log.js'
import { type Books, booksTable, closeBooks } from './books.js'
import type { DataPlane } from './data-plane-api.js'
import { healthy, type Phase, ready } from './health.js'
import { type HttpServer, serve } from './http.js'
import { Metrics } from './metrics.js'
import { RulesFile } from './rules-file.js'
import { type Cause, watchProcess } from './signals.js'
import type { Snapshot } from './statistics.js'

/** How much longer than its deadline the data plane may take to say that it passed, milliseconds. */
const GRACE_MS = 2000

/** What {@link run} talks to besides the log. */
export interface Surroundings {
  /** Prints for a person: errors of the start, and the closing table. Default: stderr. */
  readonly print?: (text: string) => void
  /** Whether the closing table is printed. Default: when stderr is a terminal. */
  readonly table?: boolean
  /** Ends the process at once, on a second signal. Default: process.exit. */
  readonly exit?: (status: number) => void
}

/**
 * Runs the service from start to closing books, and resolves to the exit status. Owns the process's signal handlers and
 * the HTTP server while it runs.
 */
export async function run(
  config: Config,
  dataPlane: DataPlane,
  log: Log,
  surroundings: Surroundings = {},
): Promise<number> {
  const service = new Service(config, dataPlane, log, surroundings)
  return await service.run()
}

class Service {
  readonly #config: Config
  readonly #dataPlane: DataPlane
  readonly #log: Log
  readonly #print: (text: string) => void
  readonly #table: boolean
  readonly #exit: (status: number) => void
  #phase: Phase = 'starting'
  #started = false
  #uncaught = false
  #rules: RulesFile | undefined
  /** A SIGHUP that came while starting. */
  #hungUp = false

  constructor(config: Config, dataPlane: DataPlane, log: Log, surroundings: Surroundings) {
    this.#config = config
    this.#dataPlane = dataPlane
    this.#log = log
    this.#print = surroundings.print ?? ((text) => process.stderr.write(`${text}\n`))
    this.#table = surroundings.table ?? isatty(2)
    this.#exit = surroundings.exit ?? ((status) => process.exit(status))
  }

  async run(): Promise<number> {
    let end: (cause: Cause) => void = () => {}
    const ended = new Promise<Cause>((resolve) => {
      end = (cause) => {
        // Only the first decides; what comes later must still be seen.
        if (cause.kind !== 'signal') this.#log.error({ err: cause.error }, cause.error.message)
        this.#uncaught ||= cause.kind === 'uncaught'
        resolve(cause)
      }
    })
    const unwatch = watchProcess({
      end,
      abort: (signal, status) => {
        this.#log.warn({ signal, status }, 'second signal: exiting at once, nothing is drained further')
        this.#exit(status)
      },
      hangup: () => this.#hangup(),
    })
    let http: HttpServer | null = null
    const { serviceLinks } = this.#config
    if (serviceLinks.length > 0) {
      this.#log.debug({ names: serviceLinks }, 'ignored variables that Kubernetes injects for a Service')
    }
    try {
      http = await this.#serve()
      this.#dataPlane.onFatal((error) => end({ kind: 'fatal', error }))
      const cause = await Promise.race([ended, this.#start()])
      return await this.#stop(cause ?? (await ended))
    } catch (error) {
      // Only the start throws: nothing has been received yet, so there are no books to close.
      const known = fromNative(error)
      this.#print(String(known))
      if (known.code === 'MILLRACE_E_UNEXPECTED') this.#log.error({ err: error }, 'the start failed')
      return exitStatus(error)
    } finally {
      this.#phase = 'stopped'
      this.#rules?.close()
      await http?.close()
      unwatch()
    }
  }

  /** Before the data plane, so that a taken port is known before an interface is touched. */
  async #serve(): Promise<HttpServer | null> {
    if (!this.#config.http) return null
    const metrics = new Metrics()
    const server = await serve(this.#config.http, {
      metrics: () => metrics.scrape(this.#snapshot()),
      healthy: () => healthy(this.#phase, this.#snapshot()),
      ready: () => ready(this.#phase, this.#snapshot()),
    })
    this.#log.info({ address: server.address }, 'serving /metrics, /healthz and /readyz')
    return server
  }

  async #start(): Promise<void> {
    await this.#dataPlane.start()
    this.#started = true
    // A signal may have come first; the drain that it began keeps the phase.
    if (this.#phase !== 'starting') return
    this.#phase = 'running'
    this.#watchRules()
    const { backend, refused, threads, queues } = this.#dataPlane.snapshot().engine
    for (const rung of refused) this.#log.info(rung, `backend ${rung.backend} refused`)
    if (backend.degraded.length > 0) this.#log.warn({ degraded: backend.degraded }, 'the kernel granted less')
    this.#log.info(
      {
        backend: backend.backend,
        mode: backend.mode,
        interface: backend.interface,
        granted: Object.fromEntries(backend.granted),
        threads: threads.length,
        queues: queues.length,
      },
      'receiving',
    )
  }

  /** Path of the rules file, if rules come from one. */
  get #rulesPath(): string {
    return this.#config.settings.find(({ name }) => name === 'MILLRACE_RULES_FILE')?.value ?? ''
  }

  #hangup(): void {
    if (this.#rules) {
      this.#rules.reload()
      return
    }
    if (this.#phase === 'starting' && this.#rulesPath) {
      this.#hungUp = true
      this.#log.info('SIGHUP while starting: the rules file is read again once receiving')
      return
    }
    this.#log.warn('SIGHUP ignored: a restart is needed to read the configuration again')
  }

  #watchRules(): void {
    const path = this.#rulesPath
    if (!path) return
    const sink = {
      apply: (text: string) => this.#dataPlane.reload(text),
      refused: () => this.#dataPlane.reloadRefused(),
    }
    this.#rules = new RulesFile(path, this.#config.engine.rules, sink, this.#log)
    if (this.#hungUp) this.#rules.reload()
  }

  async #stop(cause: Cause): Promise<number> {
    this.#phase = 'draining'
    this.#rules?.close()
    this.#rules = undefined
    const { drainMs } = this.#config
    this.#log.info({ cause: cause.kind === 'signal' ? cause.signal : cause.kind, drainMs }, 'draining')
    const clean = await this.#drain(drainMs)
    const snapshot = this.#snapshot()
    const settled = snapshot !== null && this.#close(snapshot, clean)
    if (this.#uncaught) return EXIT.unexpected
    if (cause.kind === 'fatal') return exitStatus(cause.error)
    if (clean && (settled || !this.#started)) return EXIT.clean
    this.#print('MILLRACE_E_DRAIN: the drain left something; the closing line of the log says what')
    return EXIT.leftover
  }

  async #drain(deadlineMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<{ clean: boolean }>((resolve) => {
      timer = setTimeout(() => resolve({ clean: false }), deadlineMs + GRACE_MS)
    })
    try {
      const { clean } = await Promise.race([this.#dataPlane.stop(deadlineMs), late])
      return clean
    } catch (error) {
      this.#log.error({ err: error }, 'the drain failed')
      return false
    } finally {
      clearTimeout(timer)
    }
  }

  /** The closing line; true when nothing is left and everything is accounted for. */
  #close(snapshot: Snapshot, clean: boolean): boolean {
    const books = closeBooks(snapshot)
    const settled = nothingLeft(books)
    const level = clean && settled ? 'info' : 'error'
    this.#log[level]({ clean, books }, books.balanced ? 'closing books' : 'closing books do not balance')
    if (this.#table) this.#print(booksTable(books))
    return settled
  }

  /** The data plane's snapshot, or null while it has none (before it is up). */
  #snapshot(): Snapshot | null {
    try {
      return this.#dataPlane.snapshot()
    } catch (error) {
      if (this.#started) this.#log.error({ err: error }, 'no snapshot')
      return null
    }
  }
}

function nothingLeft(books: Books): boolean {
  const { shutdown = 0 } = books.publisherDropped
  return books.balanced && books.queued === 0 && books.inFlight === 0 && shutdown === 0
}
