import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'
import { readRules, rulesFileName } from '../config/rules-text.js'
import { type ErrorCode, fromNative, type MillraceError } from '../errors.js'
import type { Log } from '../log.js'

/** A change of a ConfigMap is several events; so long nothing more must happen before the file is read, milliseconds. */
const SETTLE_MS = 100

/** Errors that stay until the file changes; after others the same text may be taken another time. */
const OF_THE_FILE: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['MILLRACE_E_RULES', 'MILLRACE_E_CONFIG'])

/** What is done with the text of the file. */
export interface RulesSink {
  /** Compiles rules, puts them in force and returns their generation, or throws and counts. */
  apply(text: string): number
  /** Counts a reload that had no text to apply. */
  refused(): void
}

/**
 * The rules file of a running service: when it changes, or on request, the rules are compiled and put in force. Rules
 * that do not compile, or a file that cannot be read, leave the old ones in force, one line in the log and one more
 * refused reload.
 *
 * The directory is watched and not the file: an editor replaces the file, and Kubernetes the symbolic link `..data` beside
 * it, through which the file is reached.
 */
export class RulesFile {
  readonly #path: string
  readonly #sink: RulesSink
  readonly #log: Log
  readonly #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  /**
   * What was found last, a text, good or bad, or why there is none: an event that leaves it as it was means nothing.
   * Nothing when a good text could not be put in force: the next event tries it again.
   */
  #found: string | MillraceError | undefined

  /** `text`: the rules in force. */
  constructor(path: string, text: string, sink: RulesSink, log: Log) {
    this.#path = path
    this.#found = text
    this.#sink = sink
    this.#log = log
    try {
      this.#watcher = watch(dirname(path), { persistent: false }, () => this.#changed())
      this.#watcher.on('error', (err) =>
        log.warn({ err, path }, 'the rules file is watched no more; SIGHUP reads it'),
      )
    } catch (err) {
      log.warn({ err, path }, 'the rules file cannot be watched; SIGHUP reads it')
    }
    // It may have changed since the start read it; no event will tell.
    this.#changed()
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
    const found = readText(this.#path)
    const before = this.#found
    this.#found = found
    if (!asked && String(found) === String(before) && typeof found === typeof before) return
    if (typeof found !== 'string') {
      this.#sink.refused()
      this.#refuse(found)
      return
    }
    try {
      const generation = this.#sink.apply(found)
      this.#log.info({ path: this.#path, generation }, 'rules reloaded')
    } catch (error) {
      this.#refuse(error)
    }
  }

  #refuse(error: unknown): void {
    const { code, message } = fromNative(error)
    if (!OF_THE_FILE.has(code)) this.#found = undefined
    this.#log.error(
      { path: this.#path, code, reason: message },
      'rules not reloaded: the old ones stay in force',
    )
  }
}

/** The text of the file, or why there is none. */
function readText(path: string): string | MillraceError {
  try {
    return readRules(path, rulesFileName(path))
  } catch (error) {
    return fromNative(error)
  }
}
