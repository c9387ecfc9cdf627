/** Pause before the first restart, milliseconds. Shorter would spin on a handler that fails at once; longer lets lanes fill. */
const FIRST_PAUSE_MS = 100
/** Longest pause, milliseconds; pauses double up to it. Longer would leave a queue without a worker long after the cause is gone. */
const MAX_PAUSE_MS = 5_000
/**
 * Time that a worker must have run for its death to count as the first, milliseconds. Shorter would restart a worker for
 * ever that dies now and then; longer would give up on one whose rare deaths have nothing to do with each other.
 */
const STABLE_MS = 30_000
/** Deaths in a row that are followed by a restart. At one more the service gives up, and Kubernetes restarts the pod. */
const MAX_DEATHS = 8

/** When a dead worker is started again. Times are milliseconds of a monotonic clock, such as performance.now(). */
export class RestartPolicy {
  #deaths = 0
  #runningSince = Number.POSITIVE_INFINITY

  /** Deaths in a row, without a stable run in between. */
  get deaths(): number {
    return this.#deaths
  }

  /** Records that the worker runs. */
  running(now: number): void {
    this.#runningSince = now
  }

  /**
   * Records that the worker died, or did not get as far as running.
   *
   * @returns milliseconds until it is to be started again, or undefined when it is not.
   */
  died(now: number): number | undefined {
    const stable = now - this.#runningSince > STABLE_MS
    this.#runningSince = Number.POSITIVE_INFINITY
    this.#deaths = stable ? 1 : this.#deaths + 1
    if (this.#deaths > MAX_DEATHS) return undefined
    return Math.min(FIRST_PAUSE_MS * 2 ** (this.#deaths - 1), MAX_PAUSE_MS)
  }
}
