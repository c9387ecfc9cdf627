import { type ErrorCode, MillraceError } from '../errors.js'
import { VARIABLES } from './variables.js'

/** One thing that is wrong with the environment. */
export type Problem = {
  readonly code: ErrorCode
  /** Name of the variable. */
  readonly name: string
} & (
  | {
      /** The value as {@link shown} quotes it, already without secrets. */
      readonly given: string
      /** What a valid value looks like. */
      readonly expected: string
    }
  /** The whole message, for problems with the contents of a file. */
  | { readonly message: string }
)

/** Everything that is wrong with the environment of one start; the message has one line for each problem. */
export class ConfigError extends MillraceError {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    // The error has the code of the first problem; all codes of configuration have the same exit status.
    super(problems[0]?.code ?? 'MILLRACE_E_CONFIG', problems.map(problemText).join('\n'))
    this.problems = problems
  }

  /** One line `MILLRACE_E_X: …` for each problem. */
  override toString(): string {
    return this.problems.map((p) => `${p.code}: ${problemText(p)}`).join('\n')
  }
}

function problemText(problem: Problem): string {
  if ('message' in problem) return problem.message
  return `${problem.name}=${problem.given}: expected ${problem.expected}`
}

/** Characters of a value that a message shows: fewer would hide the mistake, more would wrap in a terminal. */
const MAX_SHOWN = 80

/** A value as messages show it: quoted, on one line, shortened, without secrets. */
export function shown(name: string, value: string): string {
  const open = redacted(name, value)
  const short = open.length > MAX_SHOWN ? `${open.slice(0, MAX_SHOWN)}…` : open
  return JSON.stringify(short)
}

/** A value without secrets: `[redacted]` for a secret variable, and in place of the credentials inside a URL. */
export function redacted(name: string, value: string): string {
  if ((VARIABLES as Record<string, { secret?: true }>)[name]?.secret) return '[redacted]'
  // Greedy up to the last @ of an entry, so that an unencoded @ or / in a password does not leak its tail.
  if (name === 'NATS_URL') return value.replace(/(^|,)(\s*(?:[a-z]+:\/\/)?)[^,]*@/gi, '$1$2[redacted]@')
  return value
}
