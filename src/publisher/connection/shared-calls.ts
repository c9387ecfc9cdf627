/**
 * Asynchronous calls of which at most one is under way for each key: whoever asks meanwhile gets its outcome. Lookups of
 * names and reads of files occupy one of the few threads of libuv until the system answers; a dial that gives up cannot stop
 * them, and if each dial began another one, they would occupy all threads of the process.
 */
export class SharedCalls<T> {
  readonly #underWay = new Map<string, Promise<T>>()

  /** The outcome of the call that is under way for `key`, or of a new one. */
  run(key: string, start: () => Promise<T>): Promise<T> {
    const running = this.#underWay.get(key)
    if (running !== undefined) return running
    const call = start()
    this.#underWay.set(key, call)
    const forget = () => void this.#underWay.delete(key)
    call.then(forget, forget)
    return call
  }
}
