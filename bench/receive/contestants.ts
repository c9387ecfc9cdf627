import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Path of the receiver in Rust. This file runs from build/bench/receive. */
const RECEIVER = fileURLToPath(new URL('../../../target/release/examples/receive_bench', import.meta.url))

export const BACKENDS = ['xdp', 'packet', 'socket'] as const
export type Backend = (typeof BACKENDS)[number]
export const PORT = 9000

/** Stages of a drain. Each does what the one before does, and one thing more. */
export const STAGES = ['count', 'parse', 'rules', 'lanes'] as const
export type Stage = (typeof STAGES)[number]

/**
 * How datagrams are sent. `apart`: sender and receiver have a CPU each. `oneCpu`: they share one, which then is the limit,
 * and not the sender alone. `merged`: they have a CPU each, and datagrams come in bursts that the kernel delivers as one
 * packet, as it does with what a NIC's GRO has merged.
 */
const SCENES = ['apart', 'oneCpu', 'merged'] as const
export type Scene = (typeof SCENES)[number]
/** The scenes for receivers that count frames, which cannot count the datagrams of a merged one. */
const BY_FRAME = SCENES.filter((scene) => scene !== 'merged')

/** A program that receives from `vb` while the sender sends. */
export interface Contestant {
  readonly backend: Backend
  readonly name: string
  readonly command: readonly string[]
  /**
   * True for our own: they print `ready`, end when stdin ends, and report JSON. The others end by SIGINT and print their
   * count as text.
   */
  readonly ours: boolean
  /** The scenes in which it takes part. */
  readonly scenes: readonly Scene[]
  /** Finds the number of datagrams or frames in its output. */
  count(output: string): number
  /** Why it cannot run on this machine; undefined when it can. */
  readonly missing?: string
}

/** Returns the command line of one of our own receivers. */
export function receiver(mode: 'flow' | 'drain', backend: Backend, what: string): string[] {
  return [RECEIVER, mode, backend, what, 'vb', String(PORT)]
}

function own(backend: Backend, name: 'millrace' | 'count'): Contestant {
  const count = (output: string) => (JSON.parse(output) as { datagrams: number }).datagrams
  const byDatagram = backend === 'socket' || (backend === 'packet' && name === 'millrace')
  const scenes = byDatagram ? SCENES : BY_FRAME
  return { backend, name, command: receiver('flow', backend, name), ours: true, scenes, count }
}

function foreign(name: string, words: RegExp, args: readonly string[]): Contestant {
  const path = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'].map((d) => `${d}/${name}`).find(existsSync)
  const count = (output: string) => {
    const found = words.exec(output)?.[1]
    if (found === undefined) throw new Error(`${name} did not say how much it took:\n${output}`)
    return Number(found)
  }
  const missing = path === undefined ? { missing: `${name} is not installed (apt-get install ${name})` } : {}
  const command = [path ?? name, ...args]
  return { backend: 'packet', name, command, ours: false, scenes: BY_FRAME, count, ...missing }
}

/** All contestants in the order of the table. The rings of all that use AF_PACKET have the same size. */
export const CONTESTANTS: readonly Contestant[] = [
  own('xdp', 'millrace'),
  own('xdp', 'count'),
  own('packet', 'millrace'),
  own('packet', 'count'),
  foreign('tcpdump', /(\d+) packets captured/, ['-i', 'vb', '-n', '-B', '32768', '-w', '/dev/null', 'udp']),
  foreign('netsniff-ng', /(\d+)\s+packets incoming/, [
    ...['--in', 'vb', '--out', '/dev/null', '--silent', '--ring-size', '32MiB', 'udp'],
  ]),
  own('socket', 'millrace'),
  own('socket', 'count'),
]
