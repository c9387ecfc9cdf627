import { isIP, isIPv6 } from 'node:net'

/** How one kind of value is read from text. */
export interface Kind<T> {
  /** What a valid value looks like, to follow "expected" in a message and to stand in the documentation. */
  readonly expected: string
  /** The value, or throws {@link Unfit} where a more exact expectation can be given, or returns undefined. */
  readonly parse: (text: string) => T | undefined
}

/** Thrown by a parser that can say more exactly what was expected. */
export class Unfit extends Error {
  override readonly name = 'Unfit'
}

/** An address and port to receive on, as the Rust side takes it. */
export interface Listen {
  /** null: every address of both families. */
  readonly address: string | null
  readonly port: number
}

/** Where an HTTP server listens. */
export interface HttpAddress {
  readonly host: string
  readonly port: number
}

/** A whole number in a range, both ends included. */
export function integer(low: number, high: number, unit = ''): Kind<number> {
  return {
    expected: `a whole number ${low}..${high}${unit && ` ${unit}`}`,
    parse: (text) => (/^\d+$/.test(text) ? within(Number(text), low, high) : undefined),
  }
}

/** A power of two in a range. */
export function powerOfTwo(low: number, high: number): Kind<number> {
  return {
    expected: `a power of two ${low}..${high}`,
    parse: (text) => (/^\d+$/.test(text) ? doubled(within(Number(text), low, high)) : undefined),
  }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/** Bytes: `4096`, `64KiB`, `8M`. Units are binary; `MB` is refused because half of its readers mean 10^6. */
export function size(low: number, high: number, power: 'any' | 'power of two' = 'any'): Kind<number> {
  const what = power === 'any' ? 'bytes' : 'a power of two in bytes'
  return {
    expected: `${what} ${sizeText(low)}..${sizeText(high)}, such as 4096, 64KiB or 8M`,
    parse: (text) => {
      const match = /^(\d+)(?:([kmg])(?:i?b?)?|b)?$/i.exec(text)
      if (!match || /[kmg]b$/i.test(text)) return undefined
      const bytes = within(Number(match[1]) * UNITS[(match[2] ?? '').toLowerCase()]!, low, high)
      return power === 'any' ? bytes : doubled(bytes)
    },
  }
}

/** Text of a byte count in the largest unit that leaves a whole number. */
export function sizeText(bytes: number): string {
  for (const [unit, factor] of [
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${unit}`
  }
  return String(bytes)
}

/** One of a few words. */
export function choice<const W extends string>(words: readonly W[]): Kind<W> {
  return { expected: `one of ${words.join(', ')}`, parse: (text) => words.find((word) => word === text) }
}

/** `true`, `false`, `1`, `0`. */
export const boolean: Kind<boolean> = {
  expected: 'true, false, 1 or 0',
  parse: (text) => ({ true: true, '1': true, false: false, '0': false })[text],
}

/** Any text that is not empty. */
export function text(expected: string, valid: RegExp = /./s): Kind<string> {
  return { expected, parse: (value) => (valid.test(value) ? value : undefined) }
}

/** CPU numbers: `0,2-3`. */
export const cpuList: Kind<readonly number[]> = {
  expected: 'CPU numbers such as 0,2-3, each once',
  parse: (list) => {
    const cpus = list.split(',').flatMap((part) => range(part, 0, 65_535))
    const unique = new Set(cpus)
    return cpus.includes(undefined) || unique.size !== cpus.length ? undefined : (cpus as number[])
  },
}

/** The shortest text {@link cpuList} reads back as the same CPUs. */
export function cpuText(cpus: readonly number[]): string {
  const runs: [number, number][] = []
  for (const cpu of [...cpus].sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last && last[1] === cpu - 1) last[1] = cpu
    else runs.push([cpu, cpu])
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',')
}

const MOST_PORTS = 1024

/** Addresses and ports: `9000,9010-9013,192.0.2.2:9000,[2001:db8::2]:9000`. */
export const listenList: Kind<readonly Listen[]> = {
  expected: 'ports 1..65535, alone or after an address: 9000, 9000-9003, 192.0.2.2:9000, [2001:db8::2]:9000',
  parse: (list) => {
    const entries: Listen[] = []
    for (const part of list.split(',')) {
      const match = /^(?:(?:\[([^\]]+)\]|([\d.]+)):)?([\d-]+)$/.exec(part.trim())
      if (!match) return undefined
      const [, v6, v4, ports] = match
      const address = v6 ?? v4 ?? null
      if (address !== null && isIP(address) !== (v6 === undefined ? 4 : 6)) return undefined
      for (const port of range(ports!, 1, 65_535)) {
        if (port === undefined) return undefined
        if (entries.some((e) => e.port === port && e.address === address)) {
          throw new Unfit(`each address and port once; ${part.trim()} repeats port ${port}`)
        }
        if (entries.length === MOST_PORTS) throw new Unfit(`at most ${MOST_PORTS} address and port pairs`)
        entries.push({ address, port })
      }
    }
    return entries
  },
}

/** `address:port`, or `off` (null). Port 0 lets the kernel choose. */
export const httpAddress: Kind<HttpAddress | null> = {
  expected: 'address:port such as 127.0.0.1:9180 or [::1]:9180, or off',
  parse: (text) => {
    if (text === 'off') return null
    const match = /^(?:\[([^\]]+)\]|([\d.]+)):(\d{1,5})$/.exec(text)
    if (!match) return undefined
    const host = match[1] ?? match[2]!
    if (isIP(host) !== (match[1] === undefined ? 4 : 6)) return undefined
    const port = within(Number(match[3]), 0, 65_535)
    return port === undefined ? undefined : { host, port }
  },
}

/** Text of an address and port; IPv6 in brackets. */
export function addressPort(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}

/** NATS servers, and what their URLs say about credentials and TLS. */
export interface NatsServers {
  /** `host:port`, credentials and scheme removed. */
  readonly servers: readonly string[]
  readonly tls: boolean
  readonly user: string | null
  readonly password: string | null
  readonly token: string | null
}

/** `nats://host:port`, `tls://…`, or `host:port`, separated by commas; `user:password@` or `token@` allowed. */
export const natsServers: Kind<NatsServers> = {
  expected: 'NATS URLs such as nats://127.0.0.1:4222 or tls://nats.example:4222, separated by commas',
  parse: (list) => {
    const urls: URL[] = []
    for (const part of list.split(',')) {
      const text = part.trim()
      if (!text || /\s/.test(text)) return undefined
      const url = URL.canParse(withScheme(text)) ? new URL(withScheme(text)) : undefined
      if (!url?.hostname || !['nats:', 'tls:'].includes(url.protocol)) return undefined
      if (!['', '/'].includes(url.pathname) || url.search || url.hash) return undefined
      urls.push(url)
    }
    const first = urls[0]!
    if (urls.some((u) => u.username !== first.username || u.password !== first.password)) {
      throw new Unfit('the same user and password in every URL')
    }
    const name = decoded(first.username)
    const password = decoded(first.password)
    return {
      servers: urls.map((u) => `${u.hostname}:${u.port || '4222'}`),
      tls: urls.some((u) => u.protocol === 'tls:'),
      user: password ? name : null,
      password,
      token: password ? null : name,
    }
  },
}

function withScheme(text: string): string {
  return text.includes('://') ? text : `nats://${text}`
}

function decoded(text: string): string | null {
  if (!text) return null
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Unfit('percent-encoded user and password')
  }
}

/** Placeholders a subject may hold. */
const PLACEHOLDER = /\{(?:node|port|queue)\}/g

/** A NATS subject to publish to, with `{node}`, `{port}` and `{queue}`. */
export const subject: Kind<string> = {
  expected:
    'a NATS subject of non-empty tokens without white space, * or >; placeholders {node}, {port}, {queue}',
  parse: (text) => (text.replace(PLACEHOLDER, 'x').split('.').every(isToken) ? text : undefined),
}

function isToken(token: string): boolean {
  // Braces are refused so that a misspelt placeholder is an error and not a literal.
  return /^[^\s.*>{}\p{Cc}]+$/u.test(token)
}

/** `n` or `low-high` as the numbers in it, or `[undefined]`. */
function range(part: string, low: number, high: number): (number | undefined)[] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim())
  if (!match) return [undefined]
  const from = within(Number(match[1]), low, high)
  const to = match[2] === undefined ? from : within(Number(match[2]), low, high)
  if (from === undefined || to === undefined || to < from) return [undefined]
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

function within(value: number, low: number, high: number): number | undefined {
  return value >= low && value <= high ? value : undefined
}

function doubled(value: number | undefined): number | undefined {
  return value !== undefined && Number.isInteger(Math.log2(value)) ? value : undefined
}
