import { type ErrorCode, MillraceError } from '../errors.js'
import { VARIABLES } from './variables.js'

/** One thing that is wrong with the environment. */
export type Problem = {
  readonly code: ErrorCode
  /** The variable. */
  readonly name: string
} & (
  | {
      /** What stands there, already without secrets. */
      readonly given: string
      readonly expected: string
    }
  /** All there is to say, where it is about what a file holds. */
  | { readonly message: string }
)

/** All problems of one start; the message has one line for each. */
export class ConfigError extends MillraceError {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    // The code of the first decides; all of them end with the same exit status.
    super(problems[0]?.code ?? 'MILLRACE_E_CONFIG', problems.map(problemText).join('\n'))
    this.problems = problems
  }

  /** One `MILLRACE_E_X: …` line for each problem. */
  override toString(): string {
    return this.problems.map((p) => `${p.code}: ${problemText(p)}`).join('\n')
  }
}

function problemText(problem: Problem): string {
  if ('message' in problem) return problem.message
  return `${problem.name}=${problem.given}: expected ${problem.expected}`
}

const LONGEST = 80

/** A value as messages and listings show it: quoted, on one line, shortened, secrets replaced. */
export function shown(name: string, value: string): string {
  const open = redacted(name, value)
  const short = open.length > LONGEST ? `${open.slice(0, LONGEST)}…` : open
  return JSON.stringify(short)
}

/** A value without what nobody may read: all of a secret, and the credentials inside a URL. */
export function redacted(name: string, value: string): string {
  if ((VARIABLES as Record<string, { secret?: true }>)[name]?.secret) return '[redacted]'
  // Greedy up to the last @ of an entry, so that an unencoded @ or / in a password does not leak its tail.
  if (name === 'NATS_URL') return value.replace(/(^|,)(\s*(?:[a-z]+:\/\/)?)[^,]*@/gi, '$1$2[redacted]@')
  return value
}
