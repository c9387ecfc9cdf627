import { isatty } from 'node:tty'
import type { Config } from '../config/index.js'
import { EXIT, exitStatus, fromNative } from '../errors.js'
import type { Log } from '../log.js'
import { type Books, booksTable, closeBooks } from './books.js'
import type { DataPlane } from './data-plane.js'
import { healthy, type Phase, ready } from './health.js'
import { type HttpServer, serve } from './http.js'
import { Metrics } from './metrics.js'
import { RulesFile } from './rules-file.js'
import { type Cause, watchProcess } from './signals.js'
import type { Snapshot } from './statistics.js'

/**
 * Time beyond its deadline that a drain has to report, milliseconds. It must be longer than the grace of a worker's drain,
 * else the drain counts as late whose last worker had to be killed; and it prolongs the stop of a data plane that hangs.
 */
const GRACE_MS = 2000

/** Options of {@link run}, for tests. */
export interface RunOptions {
  /** Prints errors of the start, and the closing table. Default: to stderr. */
  readonly print?: (text: string) => void
  /** Whether the closing table is printed. Default: when stderr is a terminal. */
  readonly table?: boolean
  /** Ends the process at a second signal. Default: process.exit. */
  readonly exit?: (status: number) => void
}

/**
 * Runs the service from the start to the closing books. While it runs it has the process's signal handlers and the HTTP
 * server.
 *
 * @returns the exit status.
 */
export async function run(
  config: Config,
  dataPlane: DataPlane,
  log: Log,
  options: RunOptions = {},
): Promise<number> {
  const service = new Service(config, dataPlane, log, options)
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
  /** True once the data plane has started. */
  #started = false
  /** True once an exception was not caught: the exit status is then that of a fault, however well the drain ends. */
  #uncaught = false
  /** The watched rules file, while the service runs and rules come from one. */
  #rulesFile: RulesFile | undefined
  /** True when a SIGHUP came while the service was starting. */
  #reloadAfterStart = false

  constructor(config: Config, dataPlane: DataPlane, log: Log, options: RunOptions) {
    this.#config = config
    this.#dataPlane = dataPlane
    this.#log = log
    this.#print = options.print ?? ((text) => process.stderr.write(`${text}\n`))
    this.#table = options.table ?? isatty(2)
    this.#exit = options.exit ?? ((status) => process.exit(status))
  }

  async run(): Promise<number> {
    let end: (cause: Cause) => void = () => {}
    const ended = new Promise<Cause>((resolve) => {
      end = (cause) => {
        // The first cause decides how the service ends; later ones are logged as well.
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
      // Only the start throws. Nothing has been received then, so there are no books to close.
      const failure = fromNative(error)
      this.#print(String(failure))
      if (failure.code === 'MILLRACE_E_UNEXPECTED') this.#log.error({ err: error }, 'the start failed')
      return exitStatus(error)
    } finally {
      this.#phase = 'stopped'
      this.#rulesFile?.close()
      await http?.close()
      unwatch()
    }
  }

  /** Starts the HTTP server. It precedes the data plane, so that a taken port is found before an interface is touched. */
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
    // A signal may have come meanwhile; the drain that it began has set the phase.
    if (this.#phase !== 'starting') return
    this.#phase = 'running'
    this.#watchRules()
    const { backend, refused, threads, queues } = this.#dataPlane.snapshot().engine
    for (const refusal of refused) this.#log.info(refusal, `backend ${refusal.backend} refused`)
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

  /** Path of the rules file; empty when rules come from elsewhere. */
  get #rulesPath(): string {
    return this.#config.settings.find(({ name }) => name === 'MILLRACE_RULES_FILE')?.value ?? ''
  }

  #hangup(): void {
    if (this.#rulesFile) {
      this.#rulesFile.reload()
      return
    }
    if (this.#phase === 'starting' && this.#rulesPath) {
      this.#reloadAfterStart = true
      this.#log.info('SIGHUP while starting: the rules file is read again once receiving')
      return
    }
    this.#log.warn('SIGHUP ignored: a restart is needed to read the configuration again')
  }

  #watchRules(): void {
    const path = this.#rulesPath
    if (!path) return
    const target = {
      apply: (text: string) => this.#dataPlane.reload(text),
      refused: () => this.#dataPlane.reloadRefused(),
    }
    this.#rulesFile = new RulesFile(path, this.#config.engine.rules, target, this.#log)
    if (this.#reloadAfterStart) this.#rulesFile.reload()
  }

  async #stop(cause: Cause): Promise<number> {
    this.#phase = 'draining'
    this.#rulesFile?.close()
    this.#rulesFile = undefined
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

  /** Logs the closing line. Returns true when nothing is left and everything is accounted for. */
  #close(snapshot: Snapshot, clean: boolean): boolean {
    const books = closeBooks(snapshot)
    const settled = nothingLeft(books)
    const level = clean && settled ? 'info' : 'error'
    this.#log[level]({ clean, books }, books.balanced ? 'closing books' : 'closing books do not balance')
    if (this.#table) this.#print(booksTable(books))
    return settled
  }

  /** The data plane's snapshot, or null where it has none because it has not started. */
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
