/**
 * A reason that comes again within this time is counted and not logged, ms; a link that lives this long makes every reason
 * new. Too low, and a server that takes us and throws us out again fills the log; too high, and the log tells an old story.
 */
export const REPEAT_MS = 60_000

/** Reasons that are remembered. Too low, and reasons of many servers in turn are each logged again; too high, and a peer that
 * words its reasons anew each time makes us keep them. */
const REASONS = 64

/** Time between two lines about refused subjects, ms: there may be a subject for each port. Too low, and they fill the log;
 * too high, and the second of two subjects is named late. */
const REFUSED_MS = 1000

/** Which reasons have been logged, so that one which repeats, also in turn with others, is logged once a minute. */
export class Reasons {
  readonly #logged = new Map<string, { at: number; silent: number }>()

  /**
   * @param must true: it is logged in any case.
   * @returns how often the reason was not logged since it last was; `undefined` when it is not to be logged now either.
   */
  admit(reason: string, must = false, now = performance.now()): number | undefined {
    const before = this.#logged.get(reason)
    if (before !== undefined && now - before.at < REPEAT_MS && !must) {
      before.silent++
      return undefined
    }
    this.#logged.delete(reason)
    // The map is in the order of logging, so that the first key is the oldest.
    if (this.#logged.size >= REASONS) this.#logged.delete(this.#logged.keys().next().value!)
    this.#logged.set(reason, { at: now, silent: 0 })
    return before?.silent ?? 0
  }

  /** Every reason is logged when it comes again, with the number that was not logged. */
  forget(): void {
    for (const entry of this.#logged.values()) entry.at = Number.NEGATIVE_INFINITY
  }
}

/** Refused subjects: each is logged once a minute, and all together once a second. */
export class RefusedSubjects {
  readonly #subjects = new Reasons()
  #loggedAt = Number.NEGATIVE_INFINITY
  #silent = 0

  /** The number of refusals that were not logged since one was, or `undefined` when this one is not to be logged either. */
  admit(subject: string, now = performance.now()): number | undefined {
    if (now - this.#loggedAt < REFUSED_MS || this.#subjects.admit(subject, false, now) === undefined) {
      this.#silent++
      return undefined
    }
    const silent = this.#silent
    this.#silent = 0
    this.#loggedAt = now
    return silent
  }
}
