import type { EngineConfigJson, PublisherConfig } from '../src/config/index.js'

const MiB = 1024 * 1024

/**
 * What Node itself takes, measured with Node 20 under load: the process with its main thread, and each worker's isolate
 * with the garbage it makes between two collections.
 */
const RUNTIME = { process: 62 * MiB, worker: 26 * MiB }

/** UMEM frame, bytes; crates/millrace-core/src/rx/xdp/umem.rs. */
const XDP_FRAME = 2048
/** Receive buffers of a socket thread or guard: 64 slots for GRO super-packets; rx/socket/batch.rs. */
const SOCKET_BUFFERS = 64 * (65_536 + 17 * 64)
/** Lane and descriptor, bytes. */
const DESCRIPTOR = 64

/** The parts of the most memory a service can come to hold, bytes. */
export interface MemoryBound {
  /** What the kernel receives into: UMEM, TPACKET blocks, or socket buffers. */
  readonly rings: number
  /** Lanes: every receive thread has one to every queue. */
  readonly lanes: number
  /** Unconfirmed envelopes, and the copy nats.js makes of what the socket has not taken yet. */
  readonly inFlight: number
  readonly runtime: number
  readonly total: number
}

/**
 * The bound that docs/performance.md explains: it depends on the configuration and on nothing that traffic does.
 *
 * @param threads receive threads that read an interface or sockets, without the guard's.
 * @param guard whether there is a guard thread (xdp and packet).
 */
export function memoryBound(
  engine: EngineConfigJson,
  publisher: PublisherConfig,
  backend: 'xdp' | 'packet' | 'socket',
  threads: number,
  guard: boolean,
): MemoryBound {
  const ring = {
    xdp: engine.xdpFrames * XDP_FRAME,
    packet: engine.packetBlocks * engine.packetBlockBytes,
    socket: SOCKET_BUFFERS,
  }
  const rings = threads * ring[backend] + (guard ? SOCKET_BUFFERS : 0)
  const lane = engine.laneSlots * DESCRIPTOR + engine.laneBytes
  const lanes = engine.queues * (threads + (guard ? 1 : 0)) * lane
  const inFlight = engine.queues * 2 * publisher.windowBytes
  const runtime = RUNTIME.process + engine.queues * RUNTIME.worker
  return { rings, lanes, inFlight, runtime, total: rings + lanes + inFlight + runtime }
}
