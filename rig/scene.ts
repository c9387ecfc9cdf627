import { type NatsServer, startNats } from './nats.js'
import { type Namespace, Pair, V4, V6 } from './netns.js'
import { Service } from './service.js'
import { type Subscriber, subscribe } from './subscribe.js'

/** UDP port of every scene. */
export const PORT = 9000
/** Datagram n to queue n % queues; what is too short for a number is spread by flow. */
export const NUMBERED = 'numbered: len >= 4 => mod(u32[0]); short: else => hash(flow)'

/**
 * Rings for receive threads that are kept off their CPU for long: four threads, four workers, sender, server and
 * checker share what may be two CPUs. Of TPACKET_V3 it is the number of blocks that counts, because a block is closed
 * after a millisecond or so however little is in it.
 */
export const PATIENT = {
  MILLRACE_XDP_FRAMES: 16_384,
  MILLRACE_PACKET_BLOCKS: 512,
  MILLRACE_PACKET_BLOCK_BYTES: 131_072,
  MILLRACE_SOCKET_RCVBUF: 33_554_432,
}

/**
 * On two busy cores a subscriber may lag for a second; a server that then cut it off ("slow consumer") would look like
 * loss of ours.
 */
const PATIENT_SERVER = 'max_pending: 1GB\nwrite_deadline: "60s"'

/** What a scene is made of; absent fields are the ones most tests want. */
export interface SceneOptions {
  readonly backend: 'auto' | 'xdp' | 'packet' | 'socket'
  /** false: no namespaces, everything on loopback (socket backend; needs no privilege). */
  readonly wire?: boolean
  readonly family?: 4 | 6
  readonly format?: 'raw' | 'records' | 'columns'
  readonly queues?: number
  readonly rules?: string
  /** Path of a file to read them from instead. */
  readonly rulesFile?: string
  /** Count only, for load a checker cannot keep up with. */
  readonly verify?: boolean
  readonly port?: number
  readonly env?: Readonly<Record<string, string | number>>
  readonly prefix?: readonly string[]
}

/** Wire, NATS, subscriber and a ready service; where to send, and how to take it all down. */
export interface Scene {
  readonly pair: Pair | null
  /** Namespace of the receiving side. */
  readonly ns: Namespace
  /** Namespace of the sending side. */
  readonly sender: Namespace
  readonly target: string
  readonly nats: NatsServer
  readonly subscriber: Subscriber
  /** Environment the service was started with, to start it again. */
  readonly env: Readonly<Record<string, string | number>>
  readonly service: Service
  close(): Promise<void>
}

/** The service's environment for a scene, without NATS_URL. */
export function environment(options: SceneOptions): Record<string, string | number> {
  return {
    MILLRACE_BACKEND: options.backend,
    ...(options.wire === false ? {} : { MILLRACE_INTERFACE: 'vb' }),
    MILLRACE_LISTEN: options.wire === false ? `127.0.0.1:${options.port ?? PORT}` : PORT,
    MILLRACE_QUEUES: options.queues ?? 4,
    MILLRACE_OVERSUBSCRIBE: 1,
    ...(options.rulesFile === undefined
      ? { MILLRACE_RULES: options.rules ?? NUMBERED }
      : { MILLRACE_RULES_FILE: options.rulesFile }),
    MILLRACE_FORMAT: options.format ?? 'records',
    MILLRACE_SUBJECT: 't.{queue}',
    MILLRACE_NODE: 'rig',
    // Port 0: on loopback several scenes may run at once.
    MILLRACE_HTTP: '127.0.0.1:0',
    ...options.env,
  }
}

/** Builds a scene. Whatever fails on the way, what was made before is taken down. */
export async function scene(options: SceneOptions): Promise<Scene> {
  const queues = options.queues ?? 4
  const pair = options.wire === false ? null : new Pair(queues)
  const ns = pair?.b ?? null
  const undo: (() => unknown)[] = [() => pair?.close()]
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    const nats = await startNats({ ns, config: PATIENT_SERVER })
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
    undo.push(() => service.kill9())
    await service.ready()
    const host = pair === null ? '127.0.0.1' : options.family === 6 ? `[${V6[1]}]` : V4[1]
    const target = `${host}:${options.port ?? PORT}`
    return { pair, ns, sender: pair?.a ?? null, target, nats, subscriber, env, service, close }
  } catch (error) {
    await close()
    throw error
  }
}
