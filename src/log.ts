import { isatty } from 'node:tty'
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

/** The logger of the main thread and of the workers. */
export type Log = Logger

/** Fields whose values are replaced in the log, down to the fourth level of an object. */
const CREDENTIALS = ['password', 'pass', 'token', 'nkeySeed', 'NATS_PASSWORD', 'NATS_TOKEN', 'NATS_NKEY']

/** Options of {@link createLog}. */
export interface LogOptions {
  readonly level?: string
  /** True: readable lines; false: JSON. Default: readable when the log goes to stdout and that is a terminal. */
  readonly readable?: boolean
  /** Where lines are written. Default: stdout, synchronously, so that nothing is lost when the process exits. */
  readonly stream?: DestinationStream
}

/** Makes a logger with ISO time and without pid and host name, which hides credentials. */
export function createLog(options: LogOptions = {}): Log {
  const stream = options.stream ?? destination({ fd: 1, sync: true })
  const readable = options.readable ?? (options.stream === undefined && isatty(1))
  return pino(
    {
      base: null,
      level: options.level ?? 'info',
      timestamp: stdTimeFunctions.isoTime,
      redact: {
        paths: CREDENTIALS.flatMap((field) => [field, `*.${field}`, `*.*.${field}`, `*.*.*.${field}`]),
        censor: '[redacted]',
      },
      formatters: { level: (label) => ({ level: label }) },
    },
    readable ? { write: (line: string) => stream.write(readableLine(line)) } : stream,
  )
}

/** A line of the JSON log as `12:34:56.789 INFO  message  key=value …`, followed by the stack of an error where it has one. */
export function readableLine(json: string): string {
  const { level, time, msg, err, ...rest } = JSON.parse(json) as Record<string, unknown>
  const fields = Object.entries(rest).map(([key, value]) => {
    return `${key}=${typeof value === 'string' && !/\s/.test(value) ? value : JSON.stringify(value)}`
  })
  const stack = (err as { stack?: string } | undefined)?.stack
  const clock = String(time).slice(11, 23)
  const head = [clock, String(level).toUpperCase().padEnd(5), String(msg ?? '')].join(' ')
  return `${[head, ...fields].join('  ')}\n${stack ? `${stack.replaceAll(/^/gm, '    ')}\n` : ''}`
}
