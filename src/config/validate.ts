import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ErrorCode, fromNative } from '../errors.js'
import type { Facts } from './host-info.js'
import { type Problem, shown } from './problems.js'
import { readRules, rulesFileName } from './rules-text.js'
import type { Values, VariableName } from './variables.js'

/** The inputs of one load, and the place where problems gather. */
export class Check {
  readonly #faulty: ReadonlySet<string>
  readonly #exists: (path: string) => boolean
  readonly #readFile: (path: string) => Buffer

  constructor(
    readonly env: Readonly<Record<string, string>>,
    readonly values: Values,
    readonly facts: Facts,
    readonly problems: Problem[],
  ) {
    this.#faulty = new Set(problems.map((p) => p.name))
    this.#exists = facts.exists ?? existsSync
    this.#readFile = facts.readFile ?? ((path) => readFileSync(path))
  }

  isSet(name: VariableName): boolean {
    return this.env[name] !== undefined
  }

  /** Reports that `name` is not `expected`; silent where one of the variables involved is already reported. */
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

  /** At most one of several variables may be set. */
  exclusive(...names: VariableName[]): void {
    const given = names.filter((name) => this.isSet(name))
    for (const name of given.slice(1)) this.fail(name, `no value while ${given[0]} is set`, [given[0]!])
  }

  /** The absolute path of a file that exists, or null where the variable is unset. */
  file(name: VariableName, code: ErrorCode = 'MILLRACE_E_CONFIG'): string | null {
    const value = this.env[name]
    if (value === undefined) return null
    const path = resolve(value)
    if (!this.#exists(path)) this.fail(name, `a file that exists; ${path} does not`, [], code)
    return path
  }

  /** The text of a file, or null where the variable is unset or the file cannot be read. */
  text(name: VariableName): string | null {
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

  /** The rules in the file of MILLRACE_RULES_FILE, or null where it is unset or has none. */
  rules(): string | null {
    const name = 'MILLRACE_RULES_FILE'
    const value = this.env[name]
    if (value === undefined) return null
    try {
      return readRules(resolve(value), rulesFileName(value), this.#readFile)
    } catch (error) {
      // The words of a reload and of `millrace rules`, so that one mistake has one message.
      const { code, message } = fromNative(error)
      this.problems.push({ code, name, message })
      return null
    }
  }
}
