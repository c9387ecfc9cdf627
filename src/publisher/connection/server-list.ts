import { isIP } from 'node:net'

/** A server to dial. */
export interface ServerAddress {
  readonly host: string
  readonly port: number
  /**
   * Name that its TLS certificate must bear: for a server the cluster named, the configured host through which it was
   * learnt, because clusters announce IP addresses and have certificates for names. `undefined`: {@link host} itself.
   */
  readonly tlsName: string | undefined
}

/** `host:port` with IPv6 in brackets, as in INFO's connect_urls and in NATS_URL without its scheme. */
export function parseServer(text: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/u.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3] ?? 4222)
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}

/** As a person reads it, and as two addresses are compared. */
export function serverText({ host, port }: Pick<ServerAddress, 'host' | 'port'>): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/**
 * The servers that may be dialled: those that were configured, in an order drawn at random once so that a fleet spreads,
 * and behind them those that the cluster announced. An announcement replaces the one before it, so that a server which
 * has left the cluster is forgotten.
 */
export class ServerList {
  readonly #configured: readonly ServerAddress[]
  readonly #useAnnounced: boolean
  #announced: readonly ServerAddress[] = []
  #next = 0

  /**
   * @param random draws the order, 0 ≤ x < 1.
   * @param useAnnounced false: only configured servers are ever dialled.
   * @throws Error when there is no server, or one that is not `host:port`.
   */
  constructor(configured: readonly string[], useAnnounced: boolean, random: () => number = Math.random) {
    const servers = configured.map((text) => {
      const server = parseServer(text)
      if (server === undefined) throw new Error(`expected a NATS server as host:port, got ${text}`)
      return { ...server, tlsName: undefined }
    })
    if (servers.length === 0) throw new Error('expected at least one NATS server')
    for (let i = servers.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1))
      ;[servers[i], servers[j]] = [servers[j]!, servers[i]!]
    }
    this.#configured = servers
    this.#useAnnounced = useAnnounced
  }

  /** Every server that may be dialled, in the order in which they are. */
  get all(): readonly ServerAddress[] {
    return [...this.#configured, ...this.#announced]
  }

  /** What a connected server says of its cluster. `via` is the server that says so. */
  announce(urls: readonly string[], via: ServerAddress): void {
    if (!this.#useAnnounced) return
    const name = via.tlsName ?? (isIP(via.host) === 0 ? via.host : undefined)
    const known = new Set(this.#configured.map(serverText))
    this.#announced = urls.flatMap((text) => {
      const server = parseServer(text)
      if (server === undefined || known.has(serverText(server))) return []
      known.add(serverText(server))
      return [{ ...server, tlsName: isIP(server.host) === 0 ? undefined : name }]
    })
  }

  /** The next server to try; begins again with the first configured one after the last. */
  next(): ServerAddress {
    const { all } = this
    const server = all[this.#next % all.length]!
    this.#next = (this.#next + 1) % all.length
    return server
  }

  /** The next search begins with the first configured server again. */
  restart(): void {
    this.#next = 0
  }

  /** The servers to move to from `current`, in the order in which they are tried: `current` itself, whose name may stand for
   * several servers, comes last. */
  others(current: ServerAddress): readonly ServerAddress[] {
    const own = serverText(current)
    return [...this.all.filter((server) => serverText(server) !== own), current]
  }
}
