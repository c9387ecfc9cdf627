import type { Snapshot } from './statistics.js'

/** The data plane as the service sees it: native engine, workers and publishers together. */
export interface DataPlane {
  /** Opens the backend and starts workers and receive threads. Rejects with a MillraceError. */
  start(): Promise<void>
  /**
   * Drains in order: receiving stops, queues are emptied, handlers are torn down, publishers wait until NATS has taken everything. It
   * resolves within about `deadlineMs` milliseconds; `clean` is false when anything was left. It may be called while `start`
   * is pending.
   */
  stop(deadlineMs: number): Promise<{ clean: boolean }>
  /** One reading of every counter; after `stop` the last one. Throws a MillraceError before the first. */
  snapshot(): Snapshot
  /**
   * Compiles rules and puts them in force.
   *
   * @returns their generation.
   * @throws MillraceError when they are wrong or refused, or the data plane does not run: the old ones stay in force.
   */
  reload(rules: string): number
  /** Counts a refused reload whose rules could not be read, so that {@link DataPlane.reload} was not called. */
  reloadRefused(): void
  /** Sets the listener that is called when the data plane cannot go on: no receive thread is left, or a worker keeps dying. */
  onFatal(listener: (error: Error) => void): void
}
