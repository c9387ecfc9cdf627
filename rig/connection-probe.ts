/** A connection of the publisher for tests, that writes down what it tells, and peers that play a server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Connection, type ConnectionConfig } from '../src/publisher/connection/connection.js'
import type { Link } from '../src/publisher/connection/link.js'
import { type NatsOptions, startNats } from './nats.js'

/** A line of the log: level, message, and the reason it gives. */
export type Line = Readonly<{
  level: string
  message: string
  reason?: unknown
  code?: unknown
  server?: unknown
}>

export const NOBODY: ConnectionConfig['credentials'] = {
  user: null,
  password: null,
  passwordFile: null,
  token: null,
  tokenFile: null,
  creds: null,
  nkeySeed: null,
  nkeyFile: null,
}

export const tls = (files: object) => ({ ca: null, cert: null, key: null, handshakeFirst: false, ...files })

/** A connection, and what it told. */
export class Probe {
  readonly lines: Line[] = []
  readonly told: string[] = []
  /** What each `down` said. */
  readonly moving: boolean[] = []
  /** How often the owner was asked to leave. */
  leaves = 0
  readonly config: ConnectionConfig
  readonly connection: Connection
  /** While it may be written to. */
  link: Link | undefined

  constructor(servers: readonly string[], config: Partial<ConnectionConfig> = {}) {
    const log = (level: string) => (fields: object, message: string) => {
      this.lines.push({ level, message, ...fields })
    }
    this.config = {
      servers,
      gossip: true,
      name: 'test',
      version: '0',
      credentials: NOBODY,
      tls: null,
      dialTimeoutMs: 5000,
      pingIntervalMs: 2000,
      deadAfterMs: 6000,
      ...config,
    }
    this.connection = new Connection(
      this.config,
      {
        up: (link) => {
          this.link = link
          this.told.push('up')
        },
        down: (moving) => {
          this.link = undefined
          this.told.push('down')
          this.moving.push(moving)
        },
        leave: () => {
          const { link } = this
          this.link = undefined
          this.leaves++
          return new Promise((resolve) => (link === undefined ? resolve() : link.ping(resolve)))
        },
        changed: () => this.told.push('changed'),
        refused: (subject) => this.told.push(`refused ${subject}`),
        message: () => undefined,
      },
      { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') } as never,
    )
  }

  /** Resolves when `what` has been told so often. */
  async saw(what: string, times = 1): Promise<void> {
    await until(
      () => this.told.filter((word) => word === what).length >= times,
      `${what} x ${times}: ${this.told}`,
    )
  }

  /** Publishes one message and resolves when the server has parsed it. */
  async publish(subject: string, payload: string): Promise<void> {
    const { link } = this
    if (link === undefined) throw new Error('no link')
    const written = new Promise<void>((resolve) => {
      link.write(Buffer.from(`PUB ${subject} ${payload.length}\r\n${payload}\r\n`), resolve)
    })
    const answered = new Promise<void>((resolve) => link.ping(resolve))
    await written
    await answered
  }

  /** Messages of the lines that begin so. */
  said(begin: string): Line[] {
    return this.lines.filter((line) => line.message.startsWith(begin))
  }

  /** The first reason logged. */
  async reason(): Promise<Line> {
    await until(() => this.lines.some((line) => line.reason !== undefined), 'a reason')
    return this.lines.find((line) => line.reason !== undefined)!
  }
}

export async function until(done: () => boolean, what: string, ms = 30_000): Promise<void> {
  const deadline = Date.now() + ms
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

export async function server(t: Test, options: NatsOptions = {}) {
  const nats = await startNats(options)
  t.teardown(() => nats.stop())
  return { ...nats, pid: nats.pid, address: `127.0.0.1:${nats.port}` }
}

export function probe(t: Test, servers: readonly string[], config?: Partial<ConnectionConfig>): Probe {
  const probe = new Probe(servers, config)
  t.teardown(() => probe.connection.close())
  return probe
}

/** A directory for secrets. */
export function directory(t: Test): (name: string, text: string) => string {
  const path = mkdtempSync(join(tmpdir(), 'millrace-secret-'))
  t.teardown(() => rmSync(path, { recursive: true }))
  return (name, text) => {
    writeFileSync(join(path, name), text)
    return join(path, name)
  }
}

/** An INFO of a server that plays. */
export const info = (fields: object = {}) => `INFO ${JSON.stringify(fields)}\r\n`

/** Sends INFO and answers every PING. */
export const talk =
  (fields: object = {}) =>
  (socket: Socket): void => {
    socket.write(info(fields))
    socket.on('data', (bytes) => {
      for (const _ of bytes.toString('latin1').matchAll(/PING\r\n/gu)) socket.write('PONG\r\n')
    })
  }

/** A peer that plays a server: `script` gets each connection. */
export async function peer(t: Test, script: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const listener: Server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined))
    script(socket)
  })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  return `127.0.0.1:${(listener.address() as { port: number }).port}`
}
