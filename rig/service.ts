import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type Namespace, spawnIn } from './netns.js'

/** Path of the `millrace` command. This file runs from build/rig. */
export const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))

/**
 * Longest wait in milliseconds for something that the service must do. It only ends a test that hangs, so it is far
 * longer than a busy machine needs.
 */
const LIMIT_MS = 60_000

/** One line of the service's log, with the fields that the rig and the tests read. */
interface LogLine {
  readonly msg?: string
  readonly backend?: string
  readonly mode?: string
  /** Generation of the rules, in the line of a reload. */
  readonly generation?: number
  /** Code of an error. */
  readonly code?: string
  /** Reason of an error, or why nothing is received. */
  readonly reason?: string
  /** Queue of a worker. */
  readonly queue?: number
  /** Address and port on which /metrics is served. */
  readonly address?: string
  /** The numbers of the closing line, which rig/books.ts reads. */
  readonly books?: object
}

/** How the service ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** The closing line's `books`, or null when it printed none. */
  readonly books: object | null
  /** Lines that are no JSON, such as an error at the start. */
  readonly text: readonly string[]
  readonly log: readonly LogLine[]
}

/** Where and how to start the service. */
interface ServiceOptions {
  readonly ns?: Namespace
  /** MILLRACE_* and NATS_URL. No variable of those names is inherited from this process. */
  readonly env: Readonly<Record<string, string | number>>
  /** Words before `node` in the command line, such as `setpriv --reuid 65534`. */
  readonly prefix?: readonly string[]
}

/** The service under test. */
export class Service {
  readonly pid: number
  /** Resolves when the process has ended and everything it wrote has been read. */
  readonly ended: Promise<Ended>
  readonly #log: LogLine[] = []
  readonly #text: string[] = []
  readonly #watchers = new Set<(line: LogLine | null) => void>()
  readonly #kill: (signal: NodeJS.Signals) => void

  constructor(options: ServiceOptions) {
    const inherited = Object.entries(process.env).filter(([k]) => !/^(MILLRACE_|NATS_|TAP)/.test(k))
    const own = Object.entries(options.env).map(([k, v]) => [k, String(v)])
    const command = [...(options.prefix ?? []), process.execPath, CLI]
    const child = spawnIn(options.ns ?? null, command, {
      env: Object.fromEntries([...inherited, ...own]),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.pid = child.pid!
    this.#kill = (signal) => child.kill(signal)
    createInterface(child.stdout!).on('line', (line) => this.#read(line))
    createInterface(child.stderr!).on('line', (line) => this.#read(line))
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => this.#text.push(error.message))
      child.once('close', (code, signal) => {
        const books = this.#log.findLast((l) => typeof l.books === 'object')?.books ?? null
        resolve({ code, signal, books, text: this.#text, log: this.#log })
        for (const watch of [...this.#watchers]) watch(null)
      })
    })
  }

  /** Starts the service and waits until it receives. */
  static async start(options: ServiceOptions): Promise<Service> {
    const service = new Service(options)
    await service.ready()
    return service
  }

  /** Waits for the log line that reports that it receives. */
  ready(timeoutMs = LIMIT_MS): Promise<LogLine> {
    return this.line((l) => /^(receiving|ready)\b/.test(l.msg ?? ''), 'receiving', timeoutMs)
  }

  /**
   * Waits for the first log line, past or future, for which `wanted` returns true.
   *
   * @throws Error when the service ends before, or when `timeoutMs` have passed.
   */
  line(wanted: (line: LogLine) => boolean, name: string, timeoutMs = LIMIT_MS): Promise<LogLine> {
    const past = this.#log.find(wanted)
    if (past) return Promise.resolve(past)
    return new Promise((resolve, reject) => {
      const finish = (act: () => void) => {
        clearTimeout(timer)
        this.#watchers.delete(watch)
        act()
      }
      const fail = (why: string) =>
        finish(() => reject(new Error(`service: no line "${name}" ${why}; it said:\n${this.lastOutput()}`)))
      const watch = (line: LogLine | null) => {
        if (line === null) fail('before it ended')
        else if (wanted(line)) finish(() => resolve(line))
      }
      const timer = setTimeout(() => fail(`within ${timeoutMs} ms`), timeoutMs)
      this.#watchers.add(watch)
    })
  }

  /** Sends SIGTERM and waits for the end; sends SIGKILL when that takes longer than `timeoutMs`. */
  async stop(timeoutMs = LIMIT_MS): Promise<Ended> {
    const timer = setTimeout(() => this.kill(), timeoutMs)
    this.#kill('SIGTERM')
    const ended = await this.ended
    clearTimeout(timer)
    return ended
  }

  /** Sends SIGHUP, which makes the service read its rules file again. */
  hangup(): void {
    this.#kill('SIGHUP')
  }

  /** Sends SIGKILL and waits for the end. */
  kill(): Promise<Ended> {
    this.#kill('SIGKILL')
    return this.ended
  }

  /** Returns the resident set in bytes, now and at its highest (VmRSS and VmHWM of proc_pid_status(5)). */
  memory(): { rss: number; peak: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    const kib = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? Number.NaN)
    return { rss: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 }
  }

  /** All log lines so far. */
  get log(): readonly LogLine[] {
    return this.#log
  }

  /** The last 30 lines of its output, for the messages of failed tests. */
  lastOutput(): string {
    return [...this.#text, ...this.#log.map((l) => JSON.stringify(l))].slice(-30).join('\n')
  }

  #read(line: string): void {
    if (!line.startsWith('{')) {
      if (line.trim() !== '') this.#text.push(line)
      return
    }
    try {
      const parsed = JSON.parse(line) as LogLine
      this.#log.push(parsed)
      for (const watch of [...this.#watchers]) watch(parsed)
    } catch {
      this.#text.push(line)
    }
  }
}
