import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'
import { readRules, rulesFileName } from '../config/rules-text.js'
import { type ErrorCode, fromNative, type MillraceError } from '../errors.js'
import type { Log } from '../log.js'

/**
 * Time without further events after which a changed file is read, milliseconds. A change of a ConfigMap is several events:
 * shorter would read the file in the middle of them, longer delays the reload.
 */
const SETTLE_MS = 100

/** Errors of the text itself, which stay until the file changes. After any other the same text is tried again. */
const ERRORS_OF_TEXT: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['MILLRACE_E_RULES', 'MILLRACE_E_CONFIG'])

/** What receives the text of the file. */
interface RulesTarget {
  /** Compiles rules, puts them in force and returns their generation; throws, and counts a refused reload, when it cannot. */
  apply(text: string): number
  /** Counts a refused reload for which the file could not be read. */
  refused(): void
}

/**
 * The rules file of a running service. When it changes, or on request, the rules are compiled and put in force. When they do
 * not compile or the file cannot be read, the old rules stay in force, and the reload is logged and counted as refused.
 *
 * The directory is watched and not the file, because an editor replaces the file, and Kubernetes replaces the symbolic link
 * `..data` beside it, through which the file is reached.
 */
export class RulesFile {
  readonly #path: string
  readonly #target: RulesTarget
  readonly #log: Log
  readonly #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  /**
   * The text that was read last, good or bad, or the error of reading it: an event that leaves it as it was is ignored.
   * Undefined when a good text could not be put in force, so that the next event tries it again.
   */
  #lastRead: string | MillraceError | undefined

  /** @param text the rules in force. */
  constructor(path: string, text: string, target: RulesTarget, log: Log) {
    this.#path = path
    this.#lastRead = text
    this.#target = target
    this.#log = log
    try {
      this.#watcher = watch(dirname(path), { persistent: false }, () => this.#changed())
      this.#watcher.on('error', (err) =>
        log.warn({ err, path }, 'the rules file is watched no more; SIGHUP reads it'),
      )
    } catch (err) {
      log.warn({ err, path }, 'the rules file cannot be watched; SIGHUP reads it')
    }
    // The file may have changed between the start's reading and the watch, for which there is no event.
    this.#changed()
  }

  /** Reads the file now, and applies its text also when it is as before. */
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

  #read(always: boolean): void {
    const current = readText(this.#path)
    const before = this.#lastRead
    this.#lastRead = current
    if (!always && String(current) === String(before) && typeof current === typeof before) return
    if (typeof current !== 'string') {
      this.#target.refused()
      this.#refuse(current)
      return
    }
    try {
      const generation = this.#target.apply(current)
      this.#log.info({ path: this.#path, generation }, 'rules reloaded')
    } catch (error) {
      this.#refuse(error)
    }
  }

  #refuse(error: unknown): void {
    const { code, message } = fromNative(error)
    if (!ERRORS_OF_TEXT.has(code)) this.#lastRead = undefined
    this.#log.error(
      { path: this.#path, code, reason: message },
      'rules not reloaded: the old ones stay in force',
    )
  }
}

/** The text of the file, or the error of reading it. */
function readText(path: string): string | MillraceError {
  try {
    return readRules(path, rulesFileName(path))
  } catch (error) {
    return fromNative(error)
  }
}
