import type { Batch } from './batch.js'

/** Where a handler's results go. Each datagram, payload and value counts as one emitted result. */
export interface Out {
  /** Forwards datagram `i`, or the whole batch, in the configured format to the configured subject. */
  forward(batch: Batch, i?: number): void
  /**
   * Publishes `payload` as one NATS message to `subject`, by default the configured one. The bytes are copied before it
   * returns.
   *
   * @throws MillraceError `MILLRACE_E_SUBJECT` when one cannot publish to the subject, `MILLRACE_E_PAYLOAD` when the payload
   * exceeds the server's max_payload.
   */
  publish(payload: Uint8Array, subject?: string): void
  /**
   * Adds a value that msgpackr can pack to an envelope for `subject`, by default the configured one: a msgpack array of values.
   *
   * @throws MillraceError as {@link publish}, and what msgpackr throws for a value it cannot pack.
   */
  emit(value: unknown, subject?: string): void
}

/** What a handler's `setup` is told about the worker. */
export interface HandlerContext {
  /** Number of the worker's queue, from 0. */
  readonly queue: number
  readonly queues: number
  /** Name of this node, MILLRACE_NODE. */
  readonly node: string
  /** Names of the rules in force when the worker starts. After a reload `batch.ruleName(i)` has the names of the new ones. */
  readonly rules: readonly string[]
  readonly log: HandlerLog
}

/** A structured log: fields first, as with pino. */
export interface HandlerLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/**
 * A handler. `handle` gets the batches of its queue in order, one at a time. It may be async: the batch stays valid until
 * the promise settles, and the next batch waits for that. What it throws fails the batch, whose datagrams are counted as
 * `failed`; the worker goes on.
 */
export interface Handler {
  readonly name?: string
  /** Called once, before the first batch. What it throws fails the start with `MILLRACE_E_HANDLER`. */
  setup?(context: HandlerContext): void | Promise<void>
  handle(batch: Batch, out: Out): void | Promise<void>
  /** Called once, after the last batch and before the publisher drains. */
  teardown?(out: Out): void | Promise<void>
}

/** Makes the default export of a handler module; a function alone is short for `{ handle }`. */
export function defineHandler(handler: Handler | Handler['handle']): Handler {
  return typeof handler === 'function' ? { handle: handler } : handler
}
