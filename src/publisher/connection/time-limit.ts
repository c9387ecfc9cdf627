import { DialError } from './failure.js'

/**
 * A time limit for steps that are waited for one after the other. It is held by a timer: an `AbortSignal.timeout` that only
 * `AbortSignal.any` refers to is collected by Node 20 and then never fires.
 */
export class TimeLimit {
  readonly #over: Promise<never>
  #timer: NodeJS.Timeout | undefined
  #reason: DialError | undefined
  #missing = ''

  /** @param reason words the failure; `missing` is what was waited for when the time was over. */
  constructor(ms: number, reason: (missing: string) => string) {
    this.#over = new Promise((_, reject) => {
      this.#timer = setTimeout(() => {
        this.#reason = new DialError('connect', reason(this.#missing))
        reject(this.#reason)
      }, ms)
    })
    this.#over.catch(() => undefined)
  }

  /**
   * Waits for one step. A step that is given up goes on; its caller ends it.
   * @throws DialError when the time is over first, and what the step throws.
   */
  async wait<T>(missing: string, step: Promise<T>): Promise<T> {
    this.#missing = missing
    const outcome = await Promise.race([step, this.#over])
    if (this.#reason !== undefined) throw this.#reason
    return outcome
  }

  /** Ends the limit; called when the last step is over. */
  clear(): void {
    clearTimeout(this.#timer)
  }
}
