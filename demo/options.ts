import { parseArgs } from 'node:util'
import { FORMATS, type Format } from '../src/config/formats.js'

/** The demo's command line. */
export interface DemoOptions {
  readonly backend: 'auto' | 'xdp' | 'packet' | 'socket'
  /** How long to send, in whole seconds, 1 to 3,600. */
  readonly seconds: number
  /** Datagrams per second, 1 to 20,000,000. */
  readonly rate: number
  readonly format: Format
  /** 1 to 64. */
  readonly queues: number
  readonly json: boolean
}

export const HELP = `npm run demo -- [options]
Sends numbered UDP datagrams through Millrace into NATS on this machine and accounts for every one of them.

  --backend auto|xdp|packet|socket  how to receive [auto: xdp as root, otherwise socket]
  --seconds N                       how long to send [10]
  --rate N                          datagrams a second, 50000 or 50k or 1.5M [100k]
  --format ${FORMATS.join('|')}      what a NATS message holds: one datagram, an array, a columnar envelope [records]
  --queues N                        queues, each with a worker of its own [4]
  --json                            print one JSON object at the end and nothing else on stdout
  --help                            this text

Exit status: 0 when the books balance, 1 when they do not or something failed, 2 for a wrong option.
xdp and packet need root: they run between two network namespaces joined by a veth pair, never on a real interface.`

/**
 * Parses the command line. Returns null when help was asked for.
 *
 * @throws Error with one line that names the option, its value and what was expected.
 */
export function parseOptions(args: readonly string[]): DemoOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      backend: { type: 'string', default: 'auto' },
      seconds: { type: 'string', default: '10' },
      rate: { type: 'string', default: '100k' },
      format: { type: 'string', default: 'records' },
      queues: { type: 'string', default: '4' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return null
  return {
    backend: oneOf('backend', values.backend, ['auto', 'xdp', 'packet', 'socket']),
    seconds: within('seconds', Number(values.seconds), values.seconds, 1, 3600),
    rate: within('rate', rateOf(values.rate), values.rate, 1, 20_000_000),
    format: oneOf('format', values.format, FORMATS),
    queues: within('queues', Number(values.queues), values.queues, 1, 64),
    json: values.json,
  }
}

function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((a) => a === value)
  if (found === undefined) throw new Error(`--${name} ${value}: expected one of ${allowed.join(', ')}`)
  return found
}

function within(name: string, value: number, text: string, low: number, high: number): number {
  if (Number.isInteger(value) && value >= low && value <= high) return value
  throw new Error(`--${name} ${text}: expected a whole number from ${low} to ${high}`)
}

function rateOf(text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)([kM]?)$/.exec(text) ?? []
  return Math.round(Number(digits) * ({ k: 1e3, M: 1e6 }[unit ?? ''] ?? 1))
}
