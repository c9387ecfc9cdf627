import type { Snapshot } from './statistics.js'

/** What the service needs of the data plane (native engine, workers, publishers). */
export interface DataPlane {
  /** Opens the backend, starts workers and receive threads; rejects with MillraceError. */
  start(): Promise<void>
  /**
   * Ordered drain: receive stops, queues empty, handlers tear down, publishers confirm. Resolves within `deadlineMs`
   * milliseconds; `clean` is false if anything was left or the deadline passed. May be called while `start` is pending.
   */
  stop(deadlineMs: number): Promise<{ clean: boolean }>
  /** One reading of every counter; the last one stays readable after `stop`. */
  snapshot(): Snapshot
  /**
   * Compiles other rules and puts them in force; returns their generation. Throws MillraceError when they are wrong, or
   * when it does not run: the old ones stay.
   */
  reload(rules: string): number
  /** Counts a reload that did not come as far as {@link reload}, because the rules could not be read. */
  reloadRefused(): void
  /** Called when it cannot go on (all receive threads dead, a worker keeps crashing …). */
  onFatal(listener: (error: Error) => void): void
}
