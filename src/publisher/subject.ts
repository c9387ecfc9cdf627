import { MillraceError } from '../errors.js'
import { type Head, newHead } from './frame.js'

/** The values of the placeholders in a subject template. */
interface SubjectValues {
  /** Destination port of the datagram; 0 for results that belong to no datagram. */
  readonly port: number
  readonly queue: number
  readonly node: string
}

/** White space, controls, `.`, `*` and `>`: the characters that would end, split or widen a token. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNSAFE = /[\s\u0000-\u001f\u007f.*>]/gu

/** Makes one subject token of any text: each unsafe character becomes `_`, and so does the empty text. */
export function subjectToken(text: string): string {
  return text.replace(UNSAFE, '_') || '_'
}

/**
 * Expands `{port}`, `{queue}` and `{node}`. The node's name becomes one token (`host.example` → `host_example`), so that
 * a name can never add a level or a wildcard.
 *
 * @throws MillraceError `MILLRACE_E_SUBJECT` for any other name in braces.
 */
export function expandSubject(template: string, values: SubjectValues): string {
  return template.replace(/\{([^{}]*)\}/gu, (_, name: string) => {
    switch (name) {
      case 'port':
        return String(values.port)
      case 'queue':
        return String(values.queue)
      case 'node':
        return subjectToken(values.node)
      default:
        throw new MillraceError(
          'MILLRACE_E_SUBJECT',
          `template '${template}': {${name}} is unknown; {port}, {queue} and {node} are not`,
        )
    }
  })
}

/**
 * Returns the subject if it can be published to.
 *
 * @throws MillraceError `MILLRACE_E_SUBJECT` when it is empty, has an empty token, white space, control characters, or
 * a wildcard. On the wire a space would turn the rest into a reply subject, and servers do not look at the tokens.
 */
export function checkSubject(subject: string): string {
  const fault = faultOf(subject)
  if (fault !== undefined) throw new MillraceError('MILLRACE_E_SUBJECT', `'${subject}' ${fault}`)
  return subject
}

/** Describes what is wrong with a subject; undefined when nothing is. */
function faultOf(subject: string): string | undefined {
  if (typeof subject !== 'string' || subject === '') return 'is empty'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  if (/[\s\u0000-\u001f\u007f]/u.test(subject)) return 'contains white space or a control character'
  if (/[{}]/u.test(subject)) return 'contains a brace'
  for (const token of subject.split('.')) {
    if (token === '') return 'has an empty token'
    if (token === '*' || token === '>') return 'contains a wildcard'
  }
  // The limit leaves room in a PUB line, which nats-server limits to 4 KiB (max_control_line).
  if (subject.length > 1024) return 'is longer than 1,024 characters'
  return undefined
}

/**
 * Subjects that a {@link SubjectCache}, and ports that {@link Subjects}, remember; when there are more they start over. Too low: a handler with many
 * subjects pays for the validation again and again. Too high: subjects that are never used again stay in memory.
 */
const MAX_CHECKED = 4096

/** The heads of subjects that are valid, so that the hot path pays for a look-up and not for the validation. */
export class SubjectCache {
  readonly #heads = new Map<string, Head>()

  /**
   * Returns the head of a subject that can be published to.
   *
   * @throws MillraceError `MILLRACE_E_SUBJECT`, as {@link checkSubject} does.
   */
  head(subject: string): Head {
    let head = this.#heads.get(subject)
    if (head === undefined) {
      head = newHead(checkSubject(subject))
      if (this.#heads.size >= MAX_CHECKED) this.#heads.clear()
      this.#heads.set(subject, head)
    }
    return head
  }
}

/** The configured subject, expanded once for each destination port. */
export class Subjects {
  /** True when the template names the port, so that datagrams of different ports have different subjects. */
  readonly perPort: boolean
  readonly #template: string
  readonly #queue: number
  readonly #node: string
  readonly #byPort = new Map<number, Head>()

  /** @param template subject with `{port}`, `{queue}` and `{node}`. */
  constructor(template: string, queue: number, node: string) {
    this.perPort = template.includes('{port}')
    this.#template = template
    this.#queue = queue
    this.#node = node
  }

  /** Returns the subject's head for a destination port, which is 0 for a result that belongs to no datagram. */
  forPort(port: number): Head {
    let head = this.#byPort.get(port)
    if (head === undefined) {
      const values = { port, queue: this.#queue, node: this.#node }
      head = newHead(checkSubject(expandSubject(this.#template, values)))
      if (this.#byPort.size >= MAX_CHECKED) this.#byPort.clear()
      this.#byPort.set(port, head)
    }
    return head
  }
}
