import { readFile } from 'node:fs/promises'
import { type ConnectionOptions, credsAuthenticator, nkeyAuthenticator } from 'nats'
import type { ResolvedConfig } from './config.js'

/**
 * Milliseconds between two PINGs of nats.js, which calls a connection stale when the third is due and the first two are
 * unanswered. Too low: a server that is busy for a moment loses its connections. Too high: the worker waits long for a
 * server that has stopped answering without closing the connection. With 10 s it waits 20 to 30 s.
 */
const PING_INTERVAL_MS = 10_000

/**
 * Makes the options of one nats.js connection. Files of credentials and keys are read for each connection, so that a
 * rotated one is used at the next attempt.
 *
 * @throws an `fs` error when the `.creds` file cannot be read.
 */
export async function connectionOptions(
  config: ResolvedConfig,
  servers: readonly string[],
): Promise<ConnectionOptions> {
  const { auth, tls } = config
  const options: ConnectionOptions = {
    servers: [...servers],
    name: config.name,
    timeout: config.connectTimeoutMs,
    noEcho: true,
    pingInterval: PING_INTERVAL_MS,
    // connection.ts says why a client must not reconnect by itself.
    reconnect: false,
    ignoreAuthErrorAbort: true,
  }
  if (auth?.user !== undefined) options.user = auth.user
  if (auth?.password !== undefined) options.pass = auth.password
  if (auth?.token !== undefined) options.token = auth.token
  if (auth?.creds !== undefined) options.authenticator = credsAuthenticator(await readFile(auth.creds))
  if (auth?.nkeySeed !== undefined) {
    options.authenticator = nkeyAuthenticator(new TextEncoder().encode(auth.nkeySeed))
  }
  if (tls !== undefined || servers.some((server) => server.startsWith('tls://'))) {
    options.tls = {
      ...(tls?.ca !== undefined && { caFile: tls.ca }),
      ...(tls?.cert !== undefined && { certFile: tls.cert }),
      ...(tls?.key !== undefined && { keyFile: tls.key }),
    }
  }
  return options
}
