// Commands that must be on the machine, and the Debian package each comes in.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Debian keeps these out of an ordinary user's PATH. */
const SBIN = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/** The path of a command, or null. */
export function which(command) {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), ...SBIN]) {
    const path = join(folder, command)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this folder.
    }
  }
  return null
}

/** The PATH with the sbin folders in it. */
export const PATH = [...new Set([...(process.env.PATH ?? '').split(delimiter), ...SBIN])].join(delimiter)

/** Which packages bring the commands that are missing. */
export function missing(needs) {
  return [...new Set(Object.entries(needs).flatMap(([command, pkg]) => (which(command) ? [] : [pkg])))]
}

/** The first line a program prints when asked for its version, or null when it does not run. */
export function version(command) {
  const out = spawnSync(command, ['--version'], { encoding: 'utf8' })
  return out.status === 0 ? out.stdout.trim().split('\n')[0] : null
}
