import type { Batch } from '../queue/batch.js'
import type { Chunk } from './chunk.js'

/**
 * Bytes that a chunk has beyond the longest message in it. They let a message begin at any of eight consecutive
 * addresses, so that the payloads can have the alignment of their source (see ColumnsEnvelope.add).
 */
export const ALIGNMENT_SLACK = 8

/** An encoder that gathers datagrams into one NATS message. The object is reused for one message after the other. */
export interface Envelope {
  /** Datagrams in the message so far. */
  readonly count: number
  /** Length in bytes that the message would have if it were sealed now. */
  readonly bytes: number
  /**
   * Begins a message of at most `limit` bytes.
   *
   * @param chunk memory of at least `origin` + `limit` + {@link ALIGNMENT_SLACK} bytes.
   * @param origin bytes in front of the message that are left alone; a multiple of eight.
   */
  start(chunk: Chunk, limit: number, origin?: number): void
  /**
   * Adds datagrams `from` up to `to`, exclusive, as far as they fit.
   *
   * @returns the index of the first datagram that was not added, or `to`.
   */
  add(batch: Batch, from: number, to: number): number
  /** Upper bound, in bytes, of a message that holds only datagram `i`. */
  singleBytes(batch: Batch, i: number): number
  /** Finishes the message and returns it as a view of the chunk. The envelope is then empty and has no chunk. */
  seal(): Uint8Array
}
