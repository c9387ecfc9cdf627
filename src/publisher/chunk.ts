/**
 * Memory in which whole PUB operations are built and which the socket reads when it writes. README.md in this folder says
 * who owns a chunk at each step.
 */
export interface Chunk {
  readonly bytes: Uint8Array
  /** The same memory, for numbers in network order. */
  readonly view: DataView
  /** Extents of it that have not been written to a socket or discarded. */
  extents: number
  /** True when nothing more will be built in it. */
  complete: boolean
}

/** Allocates a chunk of `size` bytes whose ArrayBuffer belongs to it alone; Node's shared Buffer pool is not used. */
export function newChunk(size: number): Chunk {
  const bytes = new Uint8Array(size)
  return { bytes, view: new DataView(bytes.buffer), extents: 0, complete: false }
}

/** Idle chunks of one size, kept for reuse. */
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
    const chunk = this.#idle.pop()
    if (chunk === undefined) return newChunk(this.#chunkBytes)
    chunk.complete = false
    return chunk
  }

  /** Says that nothing more will be built in the chunk: it is reused as soon as its extents are written or discarded. */
  finish(chunk: Chunk): void {
    chunk.complete = true
    this.#release(chunk)
  }

  /** Says that one extent of the chunk is written or discarded, so that nothing refers to that part any more. */
  done(chunk: Chunk): void {
    chunk.extents--
    this.#release(chunk)
  }

  /** Keeps a free chunk for reuse if it has the pooled size and the pool is not full; else it is left to the collector. */
  #release(chunk: Chunk): void {
    if (!chunk.complete || chunk.extents > 0) return
    if (chunk.bytes.length === this.#chunkBytes && this.#idle.length < this.#maxIdle) this.#idle.push(chunk)
  }
}
