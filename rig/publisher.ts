import { once } from 'node:events'
import { createServer, connect as dial, type Server, type Socket } from 'node:net'
import { connect, type NatsConnection } from 'nats'
import type { Test } from 'tap'
import type { NatsConfig } from '../src/config/index.js'
import { countDatagrams } from '../src/decode.js'
import type { QueuePublisherConfig } from '../src/publisher/config.js'
import { Publisher } from '../src/publisher/publisher.js'
import { Counters, droppedResults } from '../src/queue/counters.js'
import type { FakeLane } from './lane.js'
import { type NatsOptions, type NatsServer, startNats } from './nats.js'

/** The part of tap's test that clean-up needs. */
type Teardown = Pick<Test, 'teardown'>

/** One line that the publisher logged. */
interface LoggedLine {
  readonly code: unknown
  readonly level: string
  readonly message: string
}

/** What a test gives of a publisher's configuration. */
export type PublisherOverrides = Partial<Omit<QueuePublisherConfig, 'nats'>> & {
  readonly nats?: Partial<NatsConfig>
}

/** Starts a publisher in this process, without a worker around it; it is closed when the test ends. */
export async function startPublisher(
  t: Test,
  url: string,
  { nats = {}, ...config }: PublisherOverrides = {},
) {
  const counters = new Counters()
  const log: LoggedLine[] = []
  let ready = 0
  const write = (level: string) => (fields: object, message: string) =>
    void log.push({ level, code: (fields as { code?: unknown }).code, message })
  const publisher = new Publisher(
    {
      nats: {
        servers: [url.replace(/^nats:\/\//u, '')],
        user: null,
        password: null,
        token: null,
        passwordFile: null,
        tokenFile: null,
        creds: null,
        nkeySeed: null,
        nkeyFile: null,
        tls: null,
        gossip: true,
        pingMs: 2000,
        deadMs: 6000,
        ...nats,
      },
      name: 'test',
      node: 'node.1',
      queue: 2,
      subject: 'udp.{node}.{queue}',
      format: 'records',
      windowBytes: 4 << 20,
      envelopeBytes: 16 << 10,
      envelopeMs: 5,
      natsDown: 'hold',
      connectTimeoutMs: 2000,
      ...config,
    },
    counters,
    { onReady: () => void ready++, log: { info: write('info'), warn: write('warn'), error: write('error') } },
  )
  t.teardown(() => publisher.close())
  return {
    publisher,
    counters,
    log,
    /** How often `ready` has turned from false to true. */
    get readyCalls() {
      return ready
    },
    /** Results dropped, for all reasons together. */
    dropped: () => droppedResults(counters.snapshot()),
    /** Asserts that the books close: emitted = taken + Σ dropped + in flight. */
    balance(what: string) {
      const rest = counters.get('emitted') - counters.get('taken') - this.dropped()
      t.equal(rest, publisher.inFlight, `the books close: ${what}`)
    },
  }
}

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Polls for a condition that has no event. The time limit only ends a test that hangs; no verdict depends on it. */
export async function until(what: string, condition: () => boolean, ms = 60_000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms for: ${what}`)
    await sleep(5)
  }
}

/** Subscribes in this process, and keeps every message. */
export async function collect(url: string, subject: string, options: object = {}) {
  const client: NatsConnection = await connect({
    servers: url,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 20,
    reconnectJitter: 5,
    ...options,
  })
  const messages: { subject: string; data: Uint8Array }[] = []
  client.subscribe(subject, {
    callback: (_, { subject, data }) => void messages.push({ subject, data: Uint8Array.from(data) }),
  })
  await client.flush()
  return {
    client,
    messages,
    count: () => messages.reduce((sum, { data }) => sum + countDatagrams(data), 0),
  }
}

/** Puts `count` datagrams into a lane, numbered from `from` on in their first four bytes, and returns their batch. */
export function numbered(lane: FakeLane, count: number, from: number, size = 100, port?: number) {
  for (let i = 0; i < count; i++) {
    const payload = new Uint8Array(size)
    if (size >= 4) new DataView(payload.buffer).setUint32(0, from + i)
    lane.put({ payload, ...(port !== undefined && { dport: port }) })
  }
  const batch = lane.take()
  if (batch.length !== count)
    throw new Error('a batch that would cross the end of the ring: choose divisors of it')
  return batch
}

/** Reads the number that {@link numbered} has written. */
export const numberOf = (payload: Uint8Array) =>
  new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(0)

/** Starts a nats-server that is stopped when the test ends. */
export async function natsServer(t: Teardown, options: NatsOptions = {}): Promise<NatsServer> {
  const nats = await startNats(options)
  t.teardown(() => nats.stop())
  return nats
}

/** Starts a TCP proxy before a nats-server, whose links can be reset and slowed while the subscriber's stays. */
export async function tcpProxy(t: Teardown, target: number) {
  const links = new Set<Socket>()
  let slow = false
  const listener: Server = createServer((near) => {
    const far = dial(target, '127.0.0.1')
    for (const socket of [near, far]) {
      links.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        links.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    far.pipe(near)
    near.on('data', (data) => {
      far.write(data)
      if (slow) {
        near.pause()
        setTimeout(() => near.resume(), 2)
      }
    })
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const reset = () => {
    for (const link of links) link.resetAndDestroy()
  }
  t.teardown(() => {
    reset()
    listener.close()
  })
  return {
    url: `nats://127.0.0.1:${(listener.address() as { port: number }).port}`,
    /** Resets all links, as a firewall or a crashed host does. */
    reset,
    slow: (on: boolean) => {
      slow = on
    },
  }
}
