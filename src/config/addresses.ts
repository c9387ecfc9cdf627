import { isIP, isIPv6 } from 'node:net'
import { type Kind, range, Unfit, within } from './value-types.js'

/** An address and port to receive on, as the Rust side takes it. */
export interface Listen {
  /** null: every address of both families. */
  readonly address: string | null
  /** Interface that a link-local address is on; absent: MILLRACE_INTERFACE. */
  readonly scope?: string
  readonly port: number
}

/** Where an HTTP server listens. */
export interface HttpAddress {
  readonly host: string
  readonly port: number
}

const MOST_PORTS = 1024

/** Addresses and ports: `9000,9010-9013,192.0.2.2:9000,[2001:db8::2]:9000,[fe80::1%eth0]:9000`. */
export const listenList: Kind<readonly Listen[]> = {
  expected:
    'ports 1..65535, alone or after an address: 9000, 9000-9003, 192.0.2.2:9000, [2001:db8::2]:9000, [fe80::1%eth0]:9000',
  parse: (list) => {
    const entries: Listen[] = []
    for (const part of list.split(',')) {
      const match = /^(?:(?:\[([^\]%]+)(?:%([^\s/%\]]{1,15}))?\]|([\d.]+)):)?([\d-]+)$/.exec(part.trim())
      if (!match) return undefined
      const [, v6, scope, v4, ports] = match
      const address = v6 ?? v4 ?? null
      if (address !== null && isIP(address) !== (v6 === undefined ? 4 : 6)) return undefined
      if (scope !== undefined && !isLinkLocal(address!)) {
        throw new Unfit(`%interface behind a link-local address only, which ${address} is not`)
      }
      for (const port of range(ports!, 1, 65_535)) {
        if (port === undefined) return undefined
        if (entries.some((e) => e.port === port && e.address === address && e.scope === scope)) {
          throw new Unfit(`each address and port once; ${part.trim()} repeats port ${port}`)
        }
        if (entries.length === MOST_PORTS) throw new Unfit(`at most ${MOST_PORTS} address and port pairs`)
        entries.push(scope === undefined ? { address, port } : { address, scope, port })
      }
    }
    return entries
  },
}

/** A multicast group to join, as the Rust side takes it. */
export interface Multicast {
  readonly group: string
  /** null: MILLRACE_INTERFACE, else the one the kernel's routes name. */
  readonly interface: string | null
  /** null: every source. */
  readonly source: string | null
}

/** Multicast groups: `239.1.2.3%eth0,ff15::1%eth0,192.0.2.1@232.1.1.1%eth0`. */
export const multicastList: Kind<readonly Multicast[]> = {
  expected:
    'multicast groups as [source@]group[%interface]: 239.1.2.3, ff15::1%eth0, 192.0.2.1@232.1.1.1%eth0',
  parse: (list) => {
    const groups: Multicast[] = []
    for (const part of list.split(',')) {
      const match = /^(?:([\da-f.:]+)@)?([\da-f.:]+)(?:%([^\s/%]{1,15}))?$/i.exec(part.trim())
      if (!match) return undefined
      const [, source = null, group, name = null] = match
      if (!isMulticast(group!)) throw new Unfit(`a multicast address, which ${group} is not`)
      if (source !== null && (isMulticast(source) || isIP(source) !== isIP(group!))) {
        throw new Unfit(`a unicast source of the family of ${group}, which ${source} is not`)
      }
      groups.push({ group: group!, interface: name, source })
    }
    return groups
  },
}

/** fe80::/10, and multicast of the same reach. */
function isLinkLocal(address: string): boolean {
  return /^(fe[89ab][\da-f]|ff[\da-f][12]):/i.test(address)
}

/** 224.0.0.0/4 or ff00::/8. */
function isMulticast(address: string): boolean {
  if (isIP(address) === 4) return Number(address.split('.')[0]) >> 4 === 14
  return isIPv6(address) && /^ff[\da-f]{2}:/i.test(address)
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
