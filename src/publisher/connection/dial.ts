import type { LookupAddress } from 'node:dns'
import { lookup as lookupHost } from 'node:dns/promises'
import { once } from 'node:events'
import { connect as connectTcp, isIP, type LookupFunction, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { DialError } from './failure.js'
import { readOwnFile } from './own-file.js'
import type { ServerAddress } from './server-list.js'
import { SharedCalls } from './shared-calls.js'
import { TimeLimit } from './time-limit.js'

/** What a dial needs to know about TLS. Paths of PEM files, read at each dial because certificates are rotated in place. */
export interface TlsFiles {
  readonly ca: string | null
  readonly cert: string | null
  readonly key: string | null
  /** The server expects TLS at once and sends INFO inside it (`handshake_first`). */
  readonly handshakeFirst: boolean
}

/** What was read from {@link TlsFiles}. */
export type TlsMaterial = Pick<ConnectionOptions, 'ca' | 'cert' | 'key'>

/**
 * Time for one of a host's addresses, ms, after which it is given up and the next one is tried: Node 20 tries them one after
 * the other. Too low, and a busy machine gives up on addresses that answer (Node's own 250 does); too high,
 * and a dead IPv6 route delays every dial.
 */
const NEXT_ADDRESS_MS = 500

/** Time for the lookup and TCP, all addresses of a name together, ms. Too low, and a host beyond a slow line is never
 * reached; too high, and a dead address keeps the next server waiting. */
const TCP_MS = 2000

const lookups = new SharedCalls<LookupAddress[]>()

/**
 * Opens a TCP connection. Names are looked up by the system's resolver (/etc/hosts included), and all addresses are tried.
 * Errors of the socket are listened to from its beginning; {@link Socket.errored} has them.
 */
export async function dialTcp(server: ServerAddress, limit: TimeLimit): Promise<Socket> {
  const { host, port } = server
  const tcp = new TimeLimit(TCP_MS, (missing) => `${missing} within ${TCP_MS} ms`)
  let socket: Socket | undefined
  /** Whichever of the two limits is over first is the reason. */
  const wait = <T>(missing: string, step: Promise<T>) => limit.wait(missing, tcp.wait(missing, step))
  try {
    let lookup: LookupFunction | undefined
    if (isIP(host) === 0) {
      const found = lookups.run(host, () => lookupHost(host, { all: true }))
      const addresses = await wait(`no address of ${host}`, found)
      const first = addresses[0]!
      lookup = (_, { all }, done) =>
        all === true ? done(null, addresses) : done(null, first.address, first.family)
    }
    socket = connectTcp({
      host,
      port,
      noDelay: true,
      keepAlive: true,
      autoSelectFamily: true,
      autoSelectFamilyAttemptTimeout: NEXT_ADDRESS_MS,
      ...(lookup && { lookup }),
    }).on('error', nothing)
    await wait('no TCP connection', once(socket, 'connect'))
    return socket
  } catch (error) {
    socket?.destroy()
    throw addressesTried(error)
  } finally {
    tcp.clear()
  }
}

/** Reads the PEM files. @throws DialError naming the file that cannot be read. */
export async function readTlsFiles(files: TlsFiles | null, limit: TimeLimit): Promise<TlsMaterial> {
  const material: TlsMaterial = {}
  for (const name of ['ca', 'cert', 'key'] as const) {
    const path = files?.[name] ?? null
    if (path !== null) material[name] = await readOwnFile(path, 'tls', limit)
  }
  return material
}

/**
 * Makes TLS of an open connection. The certificate must bear the host's name, or for a literal address that address (RFC
 * 6125, RFC 9525), or the name under which a server of the cluster was learnt.
 * @throws DialError
 */
export async function upgradeTls(
  socket: Socket,
  server: ServerAddress,
  material: TlsMaterial,
  limit: TimeLimit,
): Promise<TLSSocket> {
  // Node waits for ever for TLS on a socket that is destroyed.
  if (socket.destroyed) throw socket.errored ?? new DialError('connect', CLOSED)
  // The final dot of a name is no part of it in a certificate or in server name indication (RFC 6066 §3).
  const name = (server.tlsName ?? server.host).replace(/\.$/u, '')
  const options: ConnectionOptions = { ...material, socket, host: name }
  // A literal address has no server name indication (RFC 6066 §3); Node then verifies `host`.
  if (isIP(name) === 0) options.servername = name
  const secure = connectTls(options).on('error', nothing)
  // Whatever ends the connection inside the handshake, a reset too, is how servers refuse TLS.
  const handshake = once(secure, 'secureConnect').catch((error: Error) => {
    throw new DialError('tls', error.message)
  })
  try {
    await limit.wait('no TLS', handshake)
  } catch (error) {
    secure.destroy()
    throw error
  }
  return secure
}

/** The reason when a connection ends without an error and without a word of the server. */
export const CLOSED = 'the server closed the connection'

function nothing(): void {}

/** With several addresses Node reports one error for all, whose own message is empty. */
function addressesTried(error: unknown): unknown {
  if (!(error instanceof AggregateError)) return error
  const [first] = error.errors as (Error & { code?: string })[]
  const said = error.errors.map((e: Error) => e.message).join('; ')
  return Object.assign(new Error(said), { code: first?.code })
}
