import type { Format } from '../src/config/formats.js'
import { type NatsServer, startNats } from './nats.js'
import { type Namespace, V4, V6, VethPair } from './netns.js'
import { Service } from './service.js'
import { type Subscriber, subscribe } from './subscriber.js'

/** UDP port that the service listens on, unless a test names another one. */
export const PORT = 9000
/** Rules that send datagram n to queue n % queues, and those too short for a number to a queue by flow. */
const BY_NUMBER = 'numbered: len >= 4 => mod(u32[0]); short: else => hash(flow)'

/**
 * Rings deep enough for tests in which nothing may be lost: four receive threads, four workers, sender, server and
 * subscriber may share two CPUs, so that a receive thread waits long for its turn. Too small, and the kernel drops
 * datagrams then; too large only costs memory. Of TPACKET_V3 the number of blocks matters more than their size, because
 * the kernel closes a block after about a millisecond however little is in it (tp_retire_blk_tov).
 */
export const DEEP_RINGS = {
  MILLRACE_XDP_FRAMES: 16_384,
  MILLRACE_PACKET_BLOCKS: 512,
  MILLRACE_PACKET_BLOCK_BYTES: 131_072,
  MILLRACE_SOCKET_RCVBUF: 33_554_432,
}

/**
 * Configuration of a nats-server that does not disconnect a subscriber which lags. On two busy CPUs one may lag for a
 * second; a server that disconnected it as a slow consumer would look like a loss of Millrace.
 */
const NO_SLOW_CONSUMER = 'max_pending: 1GB\nwrite_deadline: "60s"'

/** What a testbed consists of. The defaults are what most tests want. */
export interface TestbedOptions {
  readonly backend: 'auto' | 'xdp' | 'packet' | 'socket'
  /** False: no namespaces, everything on loopback, which needs no privilege (socket backend only). Default true. */
  readonly wire?: boolean
  /** Address family that is sent to. Default 4. */
  readonly family?: 4 | 6
  /** Default `records`. */
  readonly format?: Format
  /** Default 4. */
  readonly queues?: number
  /** Text of the rules. Default {@link BY_NUMBER}. */
  readonly rules?: string
  /** Path of a file with the rules, instead of the text. */
  readonly rulesFile?: string
  /** False: count only, for load that checking every byte could not keep up with. Default true. */
  readonly verify?: boolean
  /** Default {@link PORT}. */
  readonly port?: number
  /** More variables for the service; they win over those of the other options. */
  readonly env?: Readonly<Record<string, string | number>>
  /** Words before `node` in the service's command line, such as `setpriv --reuid 65534`. */
  readonly prefix?: readonly string[]
}

/** A veth pair or loopback, a nats-server, a subscriber and a service that is ready. */
export interface Testbed {
  /** Null on loopback. */
  readonly pair: VethPair | null
  /** Namespace of service, nats-server and subscriber. */
  readonly ns: Namespace
  /** Namespace that datagrams are sent from. */
  readonly sender: Namespace
  /** `HOST:PORT` that datagrams are sent to. */
  readonly target: string
  readonly nats: NatsServer
  readonly subscriber: Subscriber
  /** Environment that the service was started with, for tests that start it again. */
  readonly env: Readonly<Record<string, string | number>>
  readonly service: Service
  /** Ends all processes and removes the namespaces. */
  close(): Promise<void>
}

/** The service's environment for a testbed, without NATS_URL. */
export function environment(options: TestbedOptions): Record<string, string | number> {
  return {
    MILLRACE_BACKEND: options.backend,
    ...(options.wire === false ? {} : { MILLRACE_INTERFACE: 'vb' }),
    MILLRACE_LISTEN: options.wire === false ? `127.0.0.1:${options.port ?? PORT}` : PORT,
    MILLRACE_QUEUES: options.queues ?? 4,
    MILLRACE_OVERSUBSCRIBE: 1,
    ...(options.rulesFile === undefined
      ? { MILLRACE_RULES: options.rules ?? BY_NUMBER }
      : { MILLRACE_RULES_FILE: options.rulesFile }),
    MILLRACE_FORMAT: options.format ?? 'records',
    MILLRACE_SUBJECT: 't.{queue}',
    MILLRACE_NODE: 'rig',
    // A port that the kernel chooses, because several testbeds may run on loopback at once.
    MILLRACE_HTTP: '127.0.0.1:0',
    ...options.env,
  }
}

/** Builds a testbed and waits until the service receives. When a step fails, all steps before it are undone. */
export async function testbed(options: TestbedOptions): Promise<Testbed> {
  const queues = options.queues ?? 4
  const pair = options.wire === false ? null : new VethPair(queues)
  const ns = pair?.b ?? null
  const undo: (() => unknown)[] = [() => pair?.close()]
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const nats = await startNats({ ns, config: NO_SLOW_CONSUMER })
    undo.push(() => nats.stop())
    const subscriber = await subscribe(ns, {
      url: nats.url,
      prefix: 't',
      format: options.format ?? 'records',
      queues,
      verify: options.verify ?? true,
    })
    undo.push(() => subscriber.stop())
    const env = { ...environment(options), NATS_URL: nats.url }
    const service = new Service({ ns, env, prefix: options.prefix ?? [] })
    undo.push(() => service.kill())
    await service.ready()
    const host = pair === null ? '127.0.0.1' : options.family === 6 ? `[${V6[1]}]` : V4[1]
    const target = `${host}:${options.port ?? PORT}`
    return { pair, ns, sender: pair?.a ?? null, target, nats, subscriber, env, service, close }
  } catch (error) {
    await close()
    throw error
  }
}
