/** Dials one NATS server and prints `ok`, or the reason why not: `node build/rig/dial-once.js HOST:PORT`. */
import { Link } from '../src/publisher/connection/link.js'
import { parseServer } from '../src/publisher/connection/server-list.js'

const server = parseServer(process.argv[2] ?? '')
if (server === undefined) throw new Error('expected HOST:PORT')
const nobody = { user: null, password: null, passwordFile: null, token: null, tokenFile: null, creds: null }
try {
  const link = await Link.dial(
    { ...server, tlsName: undefined },
    {
      name: 'dial-once',
      version: '0',
      credentials: { ...nobody, nkeySeed: null, nkeyFile: null },
      tls: null,
      dialTimeoutMs: 10_000,
      pingIntervalMs: 1000,
      deadAfterMs: 5000,
    },
  )
  console.log('ok')
  link.destroy()
} catch (error) {
  console.log((error as Error).message)
}
