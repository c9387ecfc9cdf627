import { type Chunk, newChunk } from './chunk.js'

/** Messages of their own smaller than this share a chunk. */
export const SHARED_CHUNK = 128 << 10

/** Where a message goes. */
export interface Place {
  chunk: Chunk
  at: number
  /** Other messages lie in the chunk too: it does not come free with this one. */
  shared: boolean
}

/** Room for messages that are no envelopes: in a chunk they share, or, when one is large, in memory never used again. */
export class Room {
  readonly #take: () => Chunk
  readonly #retire: (chunk: Chunk) => void
  #shared: Chunk | undefined
  #end = 0
  /** One for all calls: a message costs no object. */
  readonly #place: Place = { chunk: newChunk(0), at: 0, shared: false }

  /** @param take a chunk of {@link SHARED_CHUNK} bytes. @param retire is told of a full one. */
  constructor(take: () => Chunk, retire: (chunk: Chunk) => void) {
    this.#take = take
    this.#retire = retire
  }

  /** Valid until the next call. Aligned like the `source` it is to be copied from: see ColumnsEnvelope.add. */
  find(size: number, source = 0): Readonly<Place> {
    const place = this.#place
    if (size > SHARED_CHUNK / 2) {
      place.at = source & 7
      place.chunk = newChunk(place.at + size)
      place.shared = false
      return place
    }
    this.#end += (source - this.#end) & 7
    if (this.#shared === undefined || this.#end + size > this.#shared.bytes.length) {
      if (this.#shared !== undefined) this.#retire(this.#shared)
      this.#shared = this.#take()
      this.#end = source & 7
    }
    place.chunk = this.#shared
    place.at = this.#end
    place.shared = true
    this.#end += size
    return place
  }

  /** Gives up the free part of the shared chunk. */
  forget(): void {
    this.#shared = undefined
  }
}
