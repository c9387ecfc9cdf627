import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { DialError } from './failure.js'
import type { ServerAddress } from './server-list.js'

/** What a dial needs to know about TLS. Paths of PEM files, read at each dial because certificates are rotated in place. */
export interface TlsFiles {
  readonly ca: string | null
  readonly cert: string | null
  readonly key: string | null
  /** The server expects TLS at once and sends INFO inside it (`handshake_first`). */
  readonly handshakeFirst: boolean
}

/**
 * Time for one of a host's addresses before the next one is tried beside it (RFC 8305, "Happy Eyeballs"), ms. Too low, and
 * a busy machine gives up on addresses that answer (Node's own 250 does); too high, and a dead IPv6 route delays every dial.
 */
const NEXT_ADDRESS_MS = 500

/** Time for TCP alone, all addresses of a name together, ms. Too low, and a host beyond a slow line is never reached; too
 * high, and a dead address keeps the next server waiting. */
const TCP_MS = 2000

/** Opens a TCP connection. Names are looked up by the system's resolver (/etc/hosts included), and all addresses are tried. */
export async function dialTcp(server: ServerAddress, signal: AbortSignal): Promise<Socket> {
  const socket = connectTcp({
    host: server.host,
    port: server.port,
    noDelay: true,
    keepAlive: true,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: NEXT_ADDRESS_MS,
  })
  try {
    await once(socket, 'connect', { signal: AbortSignal.any([signal, AbortSignal.timeout(TCP_MS)]) })
  } catch (error) {
    socket.on('error', () => undefined).destroy()
    if ((error as Error).name === 'AbortError')
      throw new DialError('connect', `no TCP connection within ${TCP_MS} ms`)
    throw addressesTried(error)
  }
  return socket
}

/**
 * Makes TLS of an open connection. The certificate must bear the host's name, or for a literal address that address (RFC
 * 6125, RFC 9525), or the name under which a server of the cluster was learnt.
 */
export async function upgradeTls(
  socket: Socket,
  server: ServerAddress,
  files: TlsFiles,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const read = async (path: string | null) => (path === null ? undefined : await readFile(path))
  const [ca, cert, key] = await Promise.all([read(files.ca), read(files.cert), read(files.key)])
  const name = server.tlsName ?? server.host
  const options: ConnectionOptions = { socket, host: name }
  // A literal address has no server name indication (RFC 6066 §3); Node then verifies `host`.
  if (isIP(name) === 0) options.servername = name
  if (ca !== undefined) options.ca = ca
  if (cert !== undefined) options.cert = cert
  if (key !== undefined) options.key = key
  const secure = connectTls(options)
  try {
    await once(secure, 'secureConnect', { signal })
  } catch (error) {
    secure.on('error', () => undefined).destroy()
    throw error
  }
  return secure
}

/** With several addresses Node reports one error for all, whose own message is empty. */
function addressesTried(error: unknown): unknown {
  if (!(error instanceof AggregateError)) return error
  const [first] = error.errors as (Error & { code?: string })[]
  const said = error.errors.map((e: Error) => e.message).join('; ')
  return Object.assign(new Error(said), { code: first?.code })
}
