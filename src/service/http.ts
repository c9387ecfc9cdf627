import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { addressPort, type HttpAddress } from '../config/index.js'
import { MillraceError } from '../errors.js'
import type { ProbeResult } from './health.js'

/** What the HTTP server answers with. Each function is called at every request. */
interface Endpoints {
  metrics(): Promise<string>
  healthy(): ProbeResult
  ready(): ProbeResult
}

/** A listening HTTP server. */
export interface HttpServer {
  /** Address and port on which it listens, with the port that the kernel chose for 0. */
  readonly address: string
  close(): Promise<void>
}

/**
 * Connections at a time. Scrapes and probes need a few; the bound keeps a client that leaks connections from using up the
 * process's descriptors.
 */
const MAX_CONNECTIONS = 64

/** Times after which idle or slow connections are closed, milliseconds, so that they do not keep others out. */
const TIMEOUTS = {
  requestTimeout: 5000,
  headersTimeout: 5000,
  keepAliveTimeout: 5000,
  connectionsCheckingInterval: 5000,
}

/**
 * Serves /metrics, /healthz and /readyz on the main thread.
 *
 * @throws MillraceError `MILLRACE_E_PORT` when the address is taken or may not be bound.
 */
export async function serve(at: HttpAddress, endpoints: Endpoints): Promise<HttpServer> {
  const server = createServer(TIMEOUTS, (request, response) => {
    // The request target is not parsed as a URL, which throws on some that clients send; only the path is needed.
    const [path] = (request.url ?? '/').split('?', 1)
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD')
      return json(response, 405, { error: 'only GET and HEAD' })
    }
    if (path === '/healthz') return probe(response, endpoints.healthy())
    if (path === '/readyz') return probe(response, endpoints.ready())
    if (path !== '/metrics') return json(response, 404, { error: 'try /metrics, /healthz or /readyz' })
    endpoints.metrics().then(
      (text) => send(response, 200, 'text/plain; version=0.0.4; charset=utf-8', text),
      (error: unknown) => json(response, 500, { error: String(error) }),
    )
  })
  server.maxConnections = MAX_CONNECTIONS
  await listen(server, at)
  const { address, port } = server.address() as AddressInfo
  return {
    address: addressPort(address, port),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

function listen(server: Server, { host, port }: HttpAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        {
          EADDRINUSE: 'taken by another process',
          EADDRNOTAVAIL: 'no address of this host',
          EACCES: 'not allowed',
        }[error.code ?? ''] ?? error.message
      const message = `MILLRACE_HTTP=${JSON.stringify(addressPort(host, port))}: ${why}; expected a free TCP port, or off`
      reject(new MillraceError('MILLRACE_E_PORT', message, { cause: error }))
    })
    server.listen({ host, port, exclusive: true }, () => resolve())
  })
}

function probe(response: ServerResponse, { ok, phase, reasons }: ProbeResult): void {
  json(response, ok ? 200 : 503, { ok, phase, reasons })
}

function json(response: ServerResponse, status: number, body: object): void {
  send(response, status, 'application/json', `${JSON.stringify(body)}\n`)
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  })
  response.end(response.req.method === 'HEAD' ? undefined : body)
}
