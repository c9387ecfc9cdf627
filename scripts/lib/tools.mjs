// Commands that must be on the machine, and the Debian package each comes in.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Commands that `npm test` and `npm run demo` call, and the Debian package of each. CI installs from the same list. */
export const NEEDED = { 'nats-server': 'nats-server', cc: 'gcc', openssl: 'openssl' }
/** Commands that are called only as root, to make network namespaces and to drop privileges. */
export const NEEDED_AS_ROOT = { ip: 'iproute2', ethtool: 'ethtool', sysctl: 'procps', setpriv: 'util-linux' }
/** Components of the Rust toolchain that the checks of `npm test` call: the cargo command of each, and rustup's name for it. */
export const RUST_COMPONENTS = { fmt: 'rustfmt', clippy: 'clippy' }

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
export function version(command, ...args) {
  const out = spawnSync(command, [...args, '--version'], { encoding: 'utf8' })
  return out.status === 0 ? out.stdout.trim().split('\n')[0] : null
}
