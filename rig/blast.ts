import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type Namespace, spawnIn } from './netns.js'

/** Path of the load generator. This file runs from build/rig. */
const BLAST = fileURLToPath(new URL('../../target/release/millrace-blast', import.meta.url))

/** What to send. The defaults are those of millrace-blast. */
interface BlastOptions {
  /** `HOST:PORT`. */
  readonly to: string
  /** Datagrams per second. Without it the sender is as fast as it can. */
  readonly rate?: number
  readonly count?: number
  readonly seconds?: number
  /** Payload bytes: one size, or `LOW..HIGH` to cycle through. */
  readonly size?: string
  readonly flows?: number
  readonly via?: 'socket' | 'packet' | 'xdp'
  readonly interface?: string
  /** Datagrams per send call, with UDP_SEGMENT (udp(7)). */
  readonly gso?: number
}

/** The part of the load generator's report that tests and the demo read. */
export interface BlastReport {
  /** Datagrams handed to the kernel. */
  readonly sent: number
  /** Frames that the sender's veth interface dropped although the send call had succeeded. */
  readonly interface_tx_dropped: number
  readonly [more: string]: unknown
}

/** A running sender. */
export interface Blast {
  readonly pid: number
  /** Ends the sender early. The report still comes. */
  stop(): void
  readonly done: Promise<BlastReport>
}

/** Starts the load generator in a namespace. */
export function blast(ns: Namespace, options: BlastOptions): Blast {
  const args = [options.to, '--payload', 'counter@0', '--json', '--quiet']
  for (const name of ['rate', 'count', 'seconds', 'size', 'flows', 'via', 'interface', 'gso'] as const) {
    const value = options[name]
    if (value !== undefined) args.push(`--${name}`, String(value))
  }
  const child = spawnIn(ns, [BLAST, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const out: string[] = []
  const errors: string[] = []
  createInterface(child.stdout!).on('line', (line) => out.push(line))
  createInterface(child.stderr!).on('line', (line) => errors.push(line))
  const done = new Promise<BlastReport>((resolve, reject) => {
    child.once('error', reject)
    // `close` comes after the last line has been read; `exit` may come before.
    child.once('close', (code, signal) => {
      if (code !== 0) {
        reject(
          new Error(`millrace-blast ${args.join(' ')}: ${signal ?? `exit ${code}`}\n${errors.join('\n')}`),
        )
        return
      }
      try {
        resolve(JSON.parse(out.join('\n')) as BlastReport)
      } catch {
        reject(new Error(`millrace-blast: its report is no JSON object:\n${out.join('\n')}`))
      }
    })
  })
  // A test that failed earlier never awaits the report, and must not end with an unhandled rejection.
  done.catch(() => {})
  return { pid: child.pid!, stop: () => child.kill('SIGINT'), done }
}
