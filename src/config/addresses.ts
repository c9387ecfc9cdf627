import { isIP, isIPv6 } from 'node:net'
import type { Listen, Multicast } from '../generated/contract.js'
import { InvalidValue, inRange, numberRange, type ValueType } from './value-types.js'

/** Where the HTTP server listens. */
export interface HttpAddress {
  /** An IPv4 or IPv6 address without brackets. */
  readonly host: string
  /** TCP port; 0 lets the kernel choose one. */
  readonly port: number
}

/** Address and port pairs in one list. Each is a socket of every receive thread, or an entry of the rings' filter. */
const MAX_LISTEN = 1024

/** Addresses and ports to receive on, such as `9000,9010-9013,192.0.2.2:9000,[2001:db8::2]:9000,[fe80::1%eth0]:9000`. */
export const listenList: ValueType<readonly Listen[]> = {
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
        throw new InvalidValue(`%interface behind a link-local address only, which ${address} is not`)
      }
      for (const port of numberRange(ports!, 1, 65_535)) {
        if (port === undefined) return undefined
        if (entries.some((e) => e.port === port && e.address === address && e.scope === scope)) {
          throw new InvalidValue(`each address and port once; ${part.trim()} repeats port ${port}`)
        }
        if (entries.length === MAX_LISTEN)
          throw new InvalidValue(`at most ${MAX_LISTEN} address and port pairs`)
        entries.push(scope === undefined ? { address, port } : { address, scope, port })
      }
    }
    return entries
  },
}

/** Multicast groups to join, such as `239.1.2.3%eth0,ff15::1%eth0,192.0.2.1@232.1.1.1%eth0`. */
export const multicastList: ValueType<readonly Multicast[]> = {
  expected:
    'multicast groups as [source@]group[%interface]: 239.1.2.3, ff15::1%eth0, 192.0.2.1@232.1.1.1%eth0',
  parse: (list) => {
    const groups: Multicast[] = []
    for (const part of list.split(',')) {
      const match = /^(?:([\da-f.:]+)@)?([\da-f.:]+)(?:%([^\s/%]{1,15}))?$/i.exec(part.trim())
      if (!match) return undefined
      const [, source = null, group, name = null] = match
      if (!isMulticast(group!)) throw new InvalidValue(`a multicast address, which ${group} is not`)
      if (source !== null && (isMulticast(source) || isIP(source) !== isIP(group!))) {
        throw new InvalidValue(`a unicast source of the family of ${group}, which ${source} is not`)
      }
      groups.push({ group: group!, interface: name, source })
    }
    return groups
  },
}

/** True for fe80::/10, and for multicast of interface-local or link-local scope (RFC 4291, section 2.7). */
function isLinkLocal(address: string): boolean {
  return /^(fe[89ab][\da-f]|ff[\da-f][12]):/i.test(address)
}

/** True for 224.0.0.0/4 and ff00::/8. */
function isMulticast(address: string): boolean {
  if (isIP(address) === 4) return Number(address.split('.')[0]) >> 4 === 14
  return isIPv6(address) && /^ff[\da-f]{2}:/i.test(address)
}

/** `address:port`, or `off`, which becomes null. */
export const httpAddress: ValueType<HttpAddress | null> = {
  expected: 'address:port such as 127.0.0.1:9180 or [::1]:9180, or off',
  parse: (text) => {
    if (text === 'off') return null
    const match = /^(?:\[([^\]]+)\]|([\d.]+)):(\d{1,5})$/.exec(text)
    if (!match) return undefined
    const host = match[1] ?? match[2]!
    if (isIP(host) !== (match[1] === undefined ? 4 : 6)) return undefined
    const port = inRange(Number(match[3]), 0, 65_535)
    return port === undefined ? undefined : { host, port }
  },
}

/** An address and port as text, an IPv6 address in brackets. */
export function addressPort(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}
