import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { MillraceError } from './errors.js'
import { LAYOUT } from './generated/layout.js'

/** The addon's functions, which crates/millrace-node/src/lib.rs documents. They throw errors that `fromNative` understands. */
export interface Native {
  layout(): string
  checkHost(config: string): string
  openEngine(config: string): number
  describeEngine(handle: number): string
  attachQueue(handle: number, queue: number, memory: Uint8Array): string
  openQueue(handle: number, queue: number, wake: () => void): void
  closeQueue(handle: number, queue: number): void
  startEngine(handle: number): void
  stopEngine(handle: number): void
  engineStats(handle: number): string
  closeEngine(handle: number): void
  reloadRules(handle: number, text: string): number
  compileRules(text: string, queues: number): string
  rulesReport(text: string, queues: number): string
  rulesExplain(
    text: string,
    queues: number,
    payload: Uint8Array,
    source: string,
    destination: string,
    rxq: number,
    cpu: number,
  ): string
  rulesCapture(text: string, queues: number, path: string): string
  rulesDump(text: string, queues: number, what: string): string
  allowedCpus(): number[]
  pinThread(cpu: number): void
}

let loaded: Native | undefined

/**
 * Loads the addon, and asserts that it was built for the same lane layout as this code. The main thread must load it before
 * any worker does, because Node unloads an addon with the last environment that has loaded it, even while threads run in it.
 *
 * @throws MillraceError `MILLRACE_E_ADDON`.
 */
export function native(): Native {
  if (loaded) return loaded
  const file = new URL(`../millrace.linux-${process.arch}-gnu.node`, import.meta.url)
  if (!existsSync(file)) {
    throw new MillraceError(
      'MILLRACE_E_ADDON',
      `native addon ${file.pathname} is missing: run npm run build:native`,
    )
  }
  let addon: Native
  try {
    addon = createRequire(import.meta.url)(file.pathname) as Native
  } catch (cause) {
    throw new MillraceError('MILLRACE_E_ADDON', `native addon ${file.pathname} does not load: ${cause}`, {
      cause,
    })
  }
  const theirs = JSON.parse(addon.layout()) as Record<string, number>
  const names = new Set([...Object.keys(theirs), ...Object.keys(LAYOUT)])
  const wrong = [...names].filter((name) => theirs[name] !== (LAYOUT as Record<string, number>)[name])
  if (wrong.length > 0) {
    const list = wrong
      .map((n) => `${n} is ${theirs[n]}, expected ${(LAYOUT as Record<string, number>)[n]}`)
      .join('; ')
    throw new MillraceError('MILLRACE_E_ADDON', `native addon was built for another lane layout: ${list}`)
  }
  loaded = addon
  return addon
}
