// "Is this output up to date?" by the content of its sources: mtimes lie after a checkout.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ROOT } from './run.mjs'

/** One hash over the paths and contents of files and of everything under folders; what does not exist counts as such. */
export function hashOf(paths, extra = '') {
  const hash = createHash('sha256').update(extra)
  const add = (path) => {
    const full = join(ROOT, path)
    if (!existsSync(full)) return
    let entries
    try {
      entries = readdirSync(full, { withFileTypes: true })
    } catch {
      hash.update(`\0${path}\0`).update(readFileSync(full))
      return
    }
    for (const e of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (e.name !== 'target' && e.name !== 'node_modules') add(join(path, e.name))
    }
  }
  for (const path of paths) add(path)
  return hash.digest('hex')
}

/** True when the stamp says `hash` and every output is there. */
export function fresh(stamp, hash, outputs) {
  const full = join(ROOT, stamp)
  return (
    existsSync(full) && readFileSync(full, 'utf8') === hash && outputs.every((o) => existsSync(join(ROOT, o)))
  )
}

export function writeStamp(stamp, hash) {
  mkdirSync(dirname(join(ROOT, stamp)), { recursive: true })
  writeFileSync(join(ROOT, stamp), hash)
}
