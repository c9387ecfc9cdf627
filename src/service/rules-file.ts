import { type FSWatcher, readFileSync, watch } from 'node:fs'
import { dirname } from 'node:path'
import { fromNative } from '../errors.js'
import type { Log } from '../log.js'

/** A change of a ConfigMap is several events; so long nothing more must happen before the file is read, milliseconds. */
const SETTLE_MS = 100

/**
 * The rules file of a running service: when it changes, or on request, the rules are compiled and put in force. Rules
 * that do not compile, or a file that cannot be read, leave the old ones in force and one line in the log.
 *
 * The directory is watched and not the file: an editor replaces the file, and Kubernetes the symbolic link `..data` beside
 * it, through which the file is reached.
 */
export class RulesFile {
  readonly #path: string
  readonly #apply: (text: string) => number
  readonly #log: Log
  readonly #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  /** The last text that was tried, good or bad: an event that leaves it as it was means nothing. */
  #text: string

  /** `text`: the rules in force; `apply` compiles others, puts them in force and returns their generation, or throws. */
  constructor(path: string, text: string, apply: (text: string) => number, log: Log) {
    this.#path = path
    this.#text = text
    this.#apply = apply
    this.#log = log
    try {
      this.#watcher = watch(dirname(path), { persistent: false }, () => this.#changed())
      this.#watcher.on('error', (err) =>
        log.warn({ err, path }, 'the rules file is watched no more; SIGHUP reads it'),
      )
    } catch (err) {
      log.warn({ err, path }, 'the rules file cannot be watched; SIGHUP reads it')
    }
  }

  /** Reads the file now. */
  reload(): void {
    this.#read(true)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#watcher?.close()
  }

  #changed(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#read(false), SETTLE_MS).unref()
  }

  #read(asked: boolean): void {
    const path = this.#path
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path))
      if (text === this.#text && !asked) return
      this.#text = text
      const generation = this.#apply(text)
      this.#log.info({ path, generation }, 'rules reloaded')
    } catch (error) {
      const { code, message } = fromNative(error)
      this.#log.error({ path, code, reason: message }, 'rules not reloaded: the old ones stay in force')
    }
  }
}
