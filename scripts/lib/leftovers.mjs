// What a test run must not leave behind: namespaces and processes.
import { existsSync, readdirSync, readFileSync } from 'node:fs'

/** Every process started under a run carries this variable; the name has no MILLRACE_ because the service refuses
 * MILLRACE_ names it does not know. */
export const RUN_VARIABLE = 'MR_TEST_RUN'

/** Names of the rigs' namespaces: `mr<pid of the maker>x…` (Rust) and `mr<pid>t…` (TypeScript). */
function namespaces() {
  try {
    return readdirSync('/run/netns').filter((name) => /^mr\d+[xt]\d+[ab]$/.test(name))
  } catch {
    return []
  }
}

/** Remembers what is there now; call the result at the end to learn what was left, one line each. */
export function watchLeftovers(run) {
  const before = new Set(namespaces())
  return () => {
    const left = []
    for (const name of namespaces()) {
      // A live maker is someone else's test on the same machine.
      const maker = /^mr(\d+)/.exec(name)[1]
      if (!before.has(name) && !existsSync(`/proc/${maker}`)) left.push(`network namespace ${name}`)
    }
    for (const pid of readdirSync('/proc').filter((p) => /^\d+$/.test(p) && Number(p) !== process.pid)) {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`${RUN_VARIABLE}=${run}`))
          continue
        left.push(
          `process ${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()}`,
        )
      } catch {
        // It ended while we looked, or is not ours to read.
      }
    }
    return left
  }
}
