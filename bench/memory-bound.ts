import type { PublisherConfig } from '../src/config/index.js'
import type { EngineConfig } from '../src/generated/contract.js'
import { LAYOUT } from '../src/generated/layout.js'

const MiB = 1024 * 1024

/**
 * Memory of Node itself, bytes, measured with Node 20 under load: the process with its main thread, and each worker's isolate
 * with the garbage it makes between two collections.
 */
const RUNTIME = { process: 62 * MiB, worker: 26 * MiB }

/** Bytes of a UMEM frame (FRAME_BYTES in crates/millrace-core/src/rx/xdp/umem.rs). */
const XDP_FRAME = 2048
/** Receive buffers of a thread on sockets, the guard's included: MESSAGES × SLOT_STRIDE in rx/socket/batch.rs, bytes. */
const SOCKET_BUFFERS = 64 * (65_536 + 17 * 64)

/** The most memory that a service can come to use, and its parts, bytes. */
interface MemoryBound {
  /** Memory that the kernel receives into: UMEM, TPACKET blocks, or the buffers of recvmmsg(2). */
  readonly rings: number
  /** Lanes: every receive thread, the guard's included, has one to every queue. */
  readonly lanes: number
  /** These bytes wait for NATS or for the kernel to take them, in chunks that are at least half full. */
  readonly inFlight: number
  readonly runtime: number
  readonly total: number
}

/**
 * The bound that docs/performance.md explains. It depends on the configuration alone, not on the traffic.
 *
 * @param threads receive threads, without the guard's.
 * @param guard whether there is a guard thread (xdp and packet).
 */
export function memoryBound(
  engine: EngineConfig,
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
  const lane = engine.laneSlots * LAYOUT.descriptorBytes + engine.laneBytes
  const lanes = engine.queues * (threads + (guard ? 1 : 0)) * lane
  const inFlight = engine.queues * 2 * publisher.windowBytes
  const runtime = RUNTIME.process + engine.queues * RUNTIME.worker
  return { rings, lanes, inFlight, runtime, total: rings + lanes + inFlight + runtime }
}
