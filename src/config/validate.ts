import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ErrorCode, fromNative } from '../errors.js'
import type { HostInfo } from './host-info.js'
import { type Problem, shown } from './problems.js'
import { readRules, rulesFileName } from './rules-text.js'
import type { Values, VariableName } from './variables.js'

/** The inputs of one load, and the list in which what is wrong with them is collected. */
export class Validation {
  readonly #faulty: ReadonlySet<string>
  readonly #exists: (path: string) => boolean
  readonly #readFile: (path: string) => Buffer

  /** @param problems those found when the values were read; further ones are appended. */
  constructor(
    readonly env: Readonly<Record<string, string>>,
    readonly values: Values,
    readonly host: HostInfo,
    readonly problems: Problem[],
  ) {
    this.#faulty = new Set(problems.map((p) => p.name))
    this.#exists = host.exists ?? existsSync
    this.#readFile = host.readFile ?? ((path) => readFileSync(path))
  }

  /** True when the environment has the variable, rightly or wrongly. */
  isSet(name: VariableName): boolean {
    return this.env[name] !== undefined
  }

  /**
   * Reports that `name` is not what was `expected`. It adds nothing where `name`, or one of the variables in `also`, could
   * not be read and is reported for that already.
   */
  fail(
    name: VariableName,
    expected: string,
    also: readonly VariableName[] = [],
    code: ErrorCode = 'MILLRACE_E_CONFIG',
  ): void {
    if ([name, ...also].some((n) => this.#faulty.has(n))) return
    const given = this.env[name] === undefined ? '(unset)' : shown(name, this.env[name])
    this.problems.push({ code, name, given, expected })
  }

  /** Reports every variable of the list that is set, except the first. */
  exclusive(...names: VariableName[]): void {
    const given = names.filter((name) => this.isSet(name))
    for (const name of given.slice(1)) this.fail(name, `no value while ${given[0]} is set`, [given[0]!])
  }

  /** The absolute path that a variable names, or null where it is unset. A file that does not exist is reported. */
  existingFile(name: VariableName, code: ErrorCode = 'MILLRACE_E_CONFIG'): string | null {
    const value = this.env[name]
    if (value === undefined) return null
    const path = resolve(value)
    if (!this.#exists(path)) this.fail(name, `a file that exists; ${path} does not`, [], code)
    return path
  }

  /** The text of the file that a variable names, or null where it is unset. A file that cannot be read is reported. */
  readText(name: VariableName): string | null {
    const value = this.env[name]
    if (value === undefined) return null
    try {
      return this.#readFile(resolve(value)).toString()
    } catch (error) {
      // Node's message repeats the path; the code alone keeps a mistyped secret out of the line.
      this.fail(name, `a file that can be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`)
      return null
    }
  }

  /** The rules in the file of MILLRACE_RULES_FILE, or null where it is unset. A file without rules is reported. */
  readRulesFile(): string | null {
    const name = 'MILLRACE_RULES_FILE'
    const value = this.env[name]
    if (value === undefined) return null
    try {
      return readRules(resolve(value), rulesFileName(value), this.#readFile)
    } catch (error) {
      // The message is that of a reload and of `millrace rules`, so that one mistake has one message.
      const { code, message } = fromNative(error)
      this.problems.push({ code, name, message })
      return null
    }
  }
}
