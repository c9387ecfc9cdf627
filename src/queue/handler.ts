import type { Batch } from './batch.js'

/** Where a handler's results go. Each call counts as one emitted result per datagram, payload or value. */
export interface Out {
  /** Forwards datagram `i`, or the whole batch, in the configured format to the configured subject. */
  forward(batch: Batch, i?: number): void
  /** Publishes bytes of your own as one NATS message; copied before it returns. Default: the configured subject.
   * @throws when the subject is not a valid NATS subject or the payload exceeds the server's max_payload. */
  publish(payload: Uint8Array, subject?: string): void
  /** Adds any value msgpackr can pack to an envelope (an array of values) for `subject`. */
  emit(value: unknown, subject?: string): void
}

/** What a handler learns about where it runs. */
export interface HandlerContext {
  readonly queue: number
  readonly queues: number
  readonly node: string
  /** Names of the rules in force when the worker starts. They may be reloaded: `batch.ruleName(i)` keeps up. */
  readonly rules: readonly string[]
  readonly log: HandlerLog
}

export interface HandlerLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/**
 * A handler. `handle` gets every batch of its queue, in order, one at a time. It may be async: the batch stays valid
 * until the promise settles, and the next batch waits for it. What it throws costs the batch (counted as `failed`), not
 * the worker.
 */
export interface Handler {
  readonly name?: string
  setup?(context: HandlerContext): void | Promise<void>
  handle(batch: Batch, out: Out): void | Promise<void>
  /** Called once, after the last batch and before the publisher drains. */
  teardown?(out: Out): void | Promise<void>
}

/** Marks the default export of a handler module; a bare function is short for `{ handle }`. */
export function defineHandler(handler: Handler | Handler['handle']): Handler {
  return typeof handler === 'function' ? { handle: handler } : handler
}
