/** Memory a publisher owns and lends to the NATS client. */
export interface Chunk {
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** Allocates a chunk. Not from Node's shared pool: its memory must be nobody else's. */
export function newChunk(size: number): Chunk {
  const bytes = new Uint8Array(size)
  return { bytes, view: new DataView(bytes.buffer) }
}

/** Chunks of one size, kept for reuse. Who gives one back vouches that nothing refers to it any more. */
export class ChunkPool {
  readonly size: number
  readonly #free: Chunk[] = []
  readonly #keep: number

  /** @param size bytes of a pooled chunk. @param keep free chunks kept at most. */
  constructor(size: number, keep: number) {
    this.size = size
    this.#keep = keep
  }

  /** A chunk of at least `size` bytes; one of its own size when the pool's are too small. */
  take(size = this.size): Chunk {
    if (size > this.size) return newChunk(size)
    return this.#free.pop() ?? newChunk(this.size)
  }

  give(chunk: Chunk): void {
    if (chunk.bytes.length === this.size && this.#free.length < this.#keep) this.#free.push(chunk)
  }

  get free(): number {
    return this.#free.length
  }
}
