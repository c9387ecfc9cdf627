import { readFile } from 'node:fs/promises'
import { type ConnectionOptions, credsAuthenticator, nkeyAuthenticator } from 'nats'
import type { QueuePublisherConfig } from './config.js'

/**
 * Milliseconds between two PINGs of nats.js, which calls a connection stale when the third is due and the first two are
 * unanswered. Too low: a server that is busy for a moment loses its connections. Too high: the worker waits long for a
 * server that has stopped answering without closing the connection. With 10 s it waits 20 to 30 s.
 */
const PING_INTERVAL_MS = 10_000

/**
 * Milliseconds that one connection attempt may take. Too low: a distant or busy server is never reached. Too high: the
 * worker waits long for a server that does not answer before it tries the next one.
 */
const CONNECT_TIMEOUT_MS = 5000

/**
 * Makes the options of one nats.js connection. Files of credentials and keys are read for each connection, so that a
 * rotated one is used at the next attempt.
 *
 * @throws an `fs` error when the `.creds` file cannot be read.
 */
export async function connectionOptions(
  config: QueuePublisherConfig,
  servers: readonly string[],
): Promise<ConnectionOptions> {
  const { user, password, token, creds, nkeySeed, tls } = config.nats
  const options: ConnectionOptions = {
    servers: [...servers],
    name: config.name,
    timeout: config.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    noEcho: true,
    pingInterval: PING_INTERVAL_MS,
    // connection.ts says why a client must not reconnect by itself.
    reconnect: false,
    ignoreAuthErrorAbort: true,
  }
  if (user !== null) options.user = user
  if (password !== null) options.pass = password
  if (token !== null) options.token = token
  if (creds !== null) options.authenticator = credsAuthenticator(await readFile(creds))
  if (nkeySeed !== null) options.authenticator = nkeyAuthenticator(new TextEncoder().encode(nkeySeed))
  if (tls !== null) {
    options.tls = {
      ...(tls.ca !== null && { caFile: tls.ca }),
      ...(tls.cert !== null && { certFile: tls.cert }),
      ...(tls.key !== null && { keyFile: tls.key }),
    }
  }
  return options
}
