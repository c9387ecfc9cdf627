import { readFile } from 'node:fs/promises'
import { type ConnectionOptions, credsAuthenticator, nkeyAuthenticator } from 'nats'
import type { ResolvedConfig } from './config.js'

/** What nats.js needs for one connection. Key files are read here, anew each time, so that a rotated one is picked up. */
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
    pingInterval: 10_000,
    // One nats.js client is one connection: see connection.ts for why it must not reconnect by itself.
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
