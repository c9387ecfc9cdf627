/** Exit statuses of the `millrace` command; {@link EXIT_MEANING} describes them. */
export const EXIT = {
  /** The drain ended in time and the books balance. */
  clean: 0,
  /** An uncaught exception, or a fault of Millrace itself. */
  unexpected: 1,
  /** The configuration, the rules, the handler or the command line is wrong. */
  usage: 2,
  /** The host refuses what the configuration asks for. */
  refused: 3,
  /** The drain left something: the deadline passed, or the books do not balance. */
  leftover: 4,
  /** The service was running and could not go on. */
  failed: 5,
} as const

/** One sentence for each exit status, for `--help` and docs/errors.md. */
export const EXIT_MEANING: readonly (readonly [status: string, meaning: string])[] = [
  ['0', 'Drained within the deadline; every datagram and result is accounted for.'],
  ['1', 'Unexpected: an exception nobody caught, or a fault of Millrace itself.'],
  ['2', 'Configuration or usage: a variable, the rules, the handler or the command line.'],
  ['3', 'The host refuses: interface, port, permission, something unsupported or owned by another program.'],
  ['4', 'The drain deadline passed, or the closing books left something unaccounted for.'],
  ['5', 'It was running and could not go on: all receive threads dead, or a worker that keeps crashing.'],
  ['130', 'A second signal ended it at once, SIGINT (128 + 2); nothing was drained further.'],
  ['143', 'A second signal ended it at once, SIGTERM (128 + 15).'],
]

interface ErrorEntry {
  /** Exit status of a process that this error ends; null for an error that is logged or thrown and ends no process. */
  readonly exit: number | null
  readonly meaning: string
  /** What the operator can do about it. */
  readonly remedy: string
}

/** Every code that Millrace reports. Codes are stable: none is ever reused for another meaning. */
export const ERRORS = {
  MILLRACE_E_CONFIG: {
    exit: EXIT.usage,
    meaning: 'An environment variable is unknown, cannot be read, is out of range or contradicts another.',
    remedy:
      'The line names the variable, its value and what was expected; `millrace config` checks without starting.',
  },
  MILLRACE_E_QUEUES: {
    exit: EXIT.usage,
    meaning: 'More queues than CPUs this process may use.',
    remedy: 'Lower `MILLRACE_QUEUES`, give the process more CPUs, or set `MILLRACE_OVERSUBSCRIBE=true`.',
  },
  MILLRACE_E_RULES: {
    exit: EXIT.usage,
    meaning: 'The rule set does not compile.',
    remedy: 'The message shows the place in the rule text.',
  },
  MILLRACE_E_HANDLER: {
    exit: EXIT.usage,
    meaning: 'The handler module is missing, throws while loading, or exports no handler.',
    remedy: 'Check `MILLRACE_HANDLER`; the module must be ESM with a default export made by `defineHandler`.',
  },
  MILLRACE_E_INTERFACE: {
    exit: EXIT.refused,
    meaning: 'The network interface does not exist, is down, or cannot be used.',
    remedy: 'Check `MILLRACE_INTERFACE` against `ip link`.',
  },
  MILLRACE_E_PORT: {
    exit: EXIT.refused,
    meaning:
      'A port (UDP to receive on, or TCP of `MILLRACE_HTTP`) is taken (a UDP port: for longer than 0.3 s) or may not be bound.',
    remedy: 'Find the owner with `ss -lunp` or `ss -ltnp`, or choose another port.',
  },
  MILLRACE_E_PERMISSION: {
    exit: EXIT.refused,
    meaning: 'The process lacks a capability, or a resource limit is too low.',
    remedy: 'The message names the capability or limit.',
  },
  MILLRACE_E_UNSUPPORTED: {
    exit: EXIT.refused,
    meaning: 'The kernel, driver or interface does not offer what was asked for.',
    remedy: 'Use `MILLRACE_BACKEND=auto`, or a backend further down the ladder.',
  },
  MILLRACE_E_BUSY: {
    exit: EXIT.refused,
    meaning: 'Another program owns what we need: a foreign XDP program, or a fanout group.',
    remedy: 'Stop the other program, or use a backend that does not need it.',
  },
  MILLRACE_E_KERNEL: {
    exit: EXIT.refused,
    meaning: 'A kernel call failed in a way no other code explains.',
    remedy: "The message ends with the kernel's own words; please report it.",
  },
  MILLRACE_E_ADDON: {
    exit: EXIT.refused,
    meaning: 'The native addon cannot be loaded, or was built from another version.',
    remedy: 'Run `npm run build:native` on this machine.',
  },
  MILLRACE_E_NATS_CONNECT: {
    exit: null,
    meaning:
      'No NATS server answers. Logged once when it begins; the service stays up, not ready, and keeps trying.',
    remedy: 'Check `NATS_URL` and the server.',
  },
  MILLRACE_E_NATS_AUTH: {
    exit: null,
    meaning:
      'The NATS server refuses the credentials, or a file with them cannot be read. Logged; the service stays up, not ready, and keeps trying.',
    remedy:
      'Check `NATS_USER`, `NATS_PASSWORD`, `NATS_TOKEN`, `NATS_CREDS`, `NATS_NKEY`, and the files that they or their `_FILE` variables name.',
  },
  MILLRACE_E_NATS_TLS: {
    exit: null,
    meaning:
      'TLS to the NATS server fails, or a PEM file cannot be read. Logged; the service stays up, not ready, and keeps trying.',
    remedy: 'Check `NATS_CA`, `NATS_CERT` and `NATS_KEY` against what the server presents.',
  },
  MILLRACE_E_NATS_PERMISSION: {
    exit: null,
    meaning:
      'The NATS server does not let us publish to a subject. Logged; what goes there is lost at the server.',
    remedy: 'Allow the subject of `MILLRACE_SUBJECT` (and those the handler uses) for this user.',
  },
  MILLRACE_E_FORMAT: {
    exit: null,
    meaning: 'A consumer gave `millrace/decode` bytes that are no envelope of Millrace.',
    remedy: 'Subscribe to the subjects of `MILLRACE_SUBJECT` only; `raw` messages need no decoding.',
  },
  MILLRACE_E_DRAIN: {
    exit: EXIT.leftover,
    meaning: 'The drain deadline passed, or the closing books left something.',
    remedy: 'The closing line says what; raise `MILLRACE_DRAIN_MS`, or see whether NATS was away.',
  },
  MILLRACE_E_RECEIVE: {
    exit: EXIT.failed,
    meaning: 'No receive thread is left.',
    remedy:
      'The log has the reason of each thread, such as an interface that went away with `packet` (`xdp` waits for it).',
  },
  MILLRACE_E_WORKER: {
    exit: EXIT.failed,
    meaning: 'A worker keeps crashing.',
    remedy: 'The log has the exception; it is almost always the handler.',
  },
  MILLRACE_E_RANGE: {
    exit: null,
    meaning: 'A handler read beyond the end of a datagram. Costs the batch, not the process.',
    remedy: 'Compare with `batch.size(i)` first, or let a rule keep short datagrams away.',
  },
  MILLRACE_E_SUBJECT: {
    exit: EXIT.unexpected,
    meaning:
      'A handler published to something that is no NATS subject, which costs the batch, not the process; or `MILLRACE_SUBJECT` makes a subject of more than 1,024 characters, which ends the start.',
    remedy: 'Subjects to publish to have non-empty tokens without white space, `*` or `>`.',
  },
  MILLRACE_E_PAYLOAD: {
    exit: null,
    meaning:
      "A handler published more bytes than the server's max_payload. Costs the batch, not the process.",
    remedy: 'Split the payload, or raise `max_payload` on the server.',
  },
  MILLRACE_E_STATE: {
    exit: EXIT.unexpected,
    meaning: 'Millrace used its own data plane out of order.',
    remedy: 'A fault of ours: please report it with the log.',
  },
  MILLRACE_E_UNEXPECTED: {
    exit: EXIT.unexpected,
    meaning: 'Anything without a code of its own.',
    remedy: 'A fault of ours: please report it with the log.',
  },
} as const satisfies Record<string, ErrorEntry>

/** A stable error code. */
export type ErrorCode = keyof typeof ERRORS

/** An error with a stable code and a message that says what was given and what was expected. */
export class MillraceError extends Error {
  override readonly name = 'MillraceError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  /** `MILLRACE_E_X: message`, the form in which errors are printed everywhere. */
  override toString(): string {
    return `${this.code}: ${this.message}`
  }
}

const CODED = /^(MILLRACE_E_[A-Z]+): ([\s\S]*)$/

/**
 * Turns anything that was thrown into a MillraceError. The addon's errors have the message `MILLRACE_E_X: text`; errors from
 * a worker have lost their class and kept a property `code`; every other one becomes MILLRACE_E_UNEXPECTED. The original is
 * the cause.
 */
export function fromNative(error: unknown): MillraceError {
  if (error instanceof MillraceError) return error
  const message = error instanceof Error ? error.message : String(error)
  const coded = CODED.exec(message)
  if (coded && isCode(coded[1]!)) return new MillraceError(coded[1], coded[2]!, { cause: error })
  const own = (error as { code?: unknown } | null)?.code
  if (typeof own === 'string' && isCode(own)) return new MillraceError(own, message, { cause: error })
  return new MillraceError('MILLRACE_E_UNEXPECTED', message, { cause: error })
}

/** Exit status of a process that this error ends; {@link EXIT.unexpected} where its code was not meant to end one. */
export function exitStatus(error: unknown): number {
  return ERRORS[fromNative(error).code].exit ?? EXIT.unexpected
}

function isCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERRORS, text)
}

/** The generated parts of docs/errors.md. */
export function errorsMarkdown(): { readonly exit: string; readonly codes: string } {
  const status = EXIT_MEANING.map(([code, meaning]) => `| ${code} | ${meaning} |`)
  const codes = Object.entries(ERRORS).map(
    ([code, { exit, meaning, remedy }]) => `| \`${code}\` | ${exit ?? '–'} | ${meaning} | ${remedy} |`,
  )
  return {
    exit: ['| Status | Meaning |', '| --- | --- |', ...status].join('\n'),
    codes: ['| Code | Exit status | Meaning | What to do |', '| --- | --- | --- | --- |', ...codes].join(
      '\n',
    ),
  }
}
