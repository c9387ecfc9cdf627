import type { Batch } from '../queue/batch.js'
import type { Chunk } from './chunk.js'

/** Bytes a chunk must have beyond the longest message, so that the message may begin where copying is cheapest. */
export const SLACK = 8

/** An encoder that gathers datagrams into one NATS message in a chunk it is given; reused message after message. */
export interface Envelope {
  /** Datagrams in it. */
  readonly count: number
  /** Sum of their payload bytes. */
  readonly payloadBytes: number
  /** Bytes of the message if it were sealed now. */
  readonly bytes: number
  /** Begins a new message of at most `limit` bytes in `chunk`, which holds at least that many and {@link SLACK}. */
  start(chunk: Chunk, limit: number): void
  /** Adds datagrams `from` up to `to`, exclusive, as far as they fit. Returns the first one it did not take. */
  add(batch: Batch, from: number, to: number): number
  /** Bytes of a message that holds datagram `i` alone. */
  alone(batch: Batch, i: number): number
  /** Finishes the message and returns it as a view of the chunk. The envelope is then empty and has no chunk. */
  seal(): Uint8Array
}
