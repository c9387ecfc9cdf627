import { isatty } from 'node:tty'
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

/** The logger every part of the main thread and of the workers uses. */
export type Log = Logger

/** Fields whose value never reaches the log, wherever in an object they stand. */
const CREDENTIALS = ['password', 'pass', 'token', 'nkeySeed', 'NATS_PASSWORD', 'NATS_TOKEN', 'NATS_NKEY']

/** Options of {@link createLog}. */
export interface LogOptions {
  readonly level?: string
  /** True: one readable line for a person; false: JSON. Default: readable when stdout is a terminal. */
  readonly readable?: boolean
  /** Where complete lines go. Default: stdout, synchronously, so that nothing is lost when the process exits. */
  readonly stream?: DestinationStream
}

/** A logger with ISO time, without pid and host name, that hides credentials. */
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

/** `12:34:56.789 INFO  message  key=value …`, and a stack on lines of its own where there is one. */
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
