/**
 * Memory in which messages are built and which the NATS client reads when it writes to its socket. README.md in this
 * folder says who owns a chunk at each step.
 */
export interface Chunk {
  readonly bytes: Uint8Array
  /** The same memory, for numbers in network order. */
  readonly view: DataView
}

/** Allocates a chunk of `size` bytes whose ArrayBuffer belongs to it alone; Node's shared Buffer pool is not used. */
export function newChunk(size: number): Chunk {
  const bytes = new Uint8Array(size)
  return { bytes, view: new DataView(bytes.buffer) }
}

/** Idle chunks of one size, kept for reuse. The caller of {@link release} guarantees that nothing refers to the chunk. */
export class ChunkPool {
  readonly #chunkBytes: number
  readonly #maxIdle: number
  readonly #idle: Chunk[] = []

  /**
   * @param chunkBytes size of a pooled chunk in bytes.
   * @param maxIdle number of idle chunks kept. With too few, a busy publisher allocates and collects chunks again and
   * again; with too many, memory of one burst is never returned.
   */
  constructor(chunkBytes: number, maxIdle: number) {
    this.#chunkBytes = chunkBytes
    this.#maxIdle = maxIdle
  }

  /** Returns a chunk of at least `bytes` bytes. One that is larger than the pooled size is allocated for this call. */
  acquire(bytes = this.#chunkBytes): Chunk {
    if (bytes > this.#chunkBytes) return newChunk(bytes)
    return this.#idle.pop() ?? newChunk(this.#chunkBytes)
  }

  /** Keeps the chunk for reuse if it has the pooled size and the pool is not full; else it is left to the collector. */
  release(chunk: Chunk): void {
    if (chunk.bytes.length === this.#chunkBytes && this.#idle.length < this.#maxIdle) this.#idle.push(chunk)
  }
}
