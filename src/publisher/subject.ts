import { MillraceError } from '../errors.js'

/** What a subject template may name. */
export interface SubjectValues {
  /** Destination port of the datagram; 0 for results that belong to no datagram. */
  readonly port: number
  readonly queue: number
  readonly node: string
}

/** White space, controls, `.`, `*` and `>`: what would end, split or widen a token. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNSAFE = /[\s\u0000-\u001f\u007f.*>]/gu

/** Makes one subject token of any text: each unsafe character becomes `_`; nothing at all becomes `_`. */
export function subjectToken(text: string): string {
  return text.replace(UNSAFE, '_') || '_'
}

/**
 * Fills `{port}`, `{queue}` and `{node}` in. The node's name is made one token (`host.example` → `host_example`), so a
 * name can never add a level or a wildcard.
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
 * Returns the subject when one can publish to it.
 * @throws MillraceError `MILLRACE_E_SUBJECT` when it is empty, has an empty token, white space, control characters, or
 * a wildcard. nats.js does not check: on the wire a space would turn the rest into a reply subject.
 */
export function checkSubject(subject: string): string {
  const why = fault(subject)
  if (why !== undefined) throw new MillraceError('MILLRACE_E_SUBJECT', `'${subject}' ${why}`)
  return subject
}

function fault(subject: string): string | undefined {
  if (typeof subject !== 'string' || subject === '') return 'is empty'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  if (/[\s\u0000-\u001f\u007f]/u.test(subject)) return 'contains white space or a control character'
  if (/[{}]/u.test(subject)) return 'contains a brace'
  for (const token of subject.split('.')) {
    if (token === '') return 'has an empty token'
    if (token === '*' || token === '>') return 'contains a wildcard'
  }
  // A server's PUB line is at most 4 KiB (max_control_line).
  if (subject.length > 1024) return 'is longer than 1,024 characters'
  return undefined
}

/** Subjects that have been checked, so that a hot path pays a lookup; starts over when it has grown large. */
export class SubjectCache {
  readonly #known = new Set<string>()

  check(subject: string): string {
    if (this.#known.has(subject)) return subject
    checkSubject(subject)
    if (this.#known.size >= 4096) this.#known.clear()
    this.#known.add(subject)
    return subject
  }
}
