// Set-up for `npm run demo`, `npm test` and `npm run bench`: from a fresh clone to ready, and a quick no-op after that.
// Node's own modules only: in a fresh clone there is no node_modules yet.
import { readdirSync, rmSync } from 'node:fs'
import { relative } from 'node:path'
import { ROOT, run } from './lib/run.mjs'
import { fresh, hashOf, writeStamp } from './lib/stamp.mjs'
import { missing, NEEDED, NEEDED_AS_ROOT, PATH, RUST_COMPONENTS, version, which } from './lib/tools.mjs'

const PURPOSES = ['demo', 'test', 'bench']
const purpose = process.argv[2] ?? ''
const root = process.geteuid?.() === 0
process.env.PATH = PATH

/** Ends with one line that says what is wrong and what to do. 2: this machine lacks something. 1: a step failed. */
function fail(status, message) {
  console.error(`setup: ${message}`)
  process.exit(status)
}

/** One step: a line before, the time after, the end of its output and the log's path when it fails. */
async function step(name, what, command) {
  process.stderr.write(`setup: ${what} … `)
  const start = Date.now()
  const { code, log, tail } = await run(`setup-${name}`, command)
  if (code === 0) {
    process.stderr.write(`${((Date.now() - start) / 1000).toFixed(1)} s\n`)
    return
  }
  process.stderr.write(`failed\n${tail.map((l) => `  | ${l}`).join('\n')}\n`)
  fail(
    1,
    `\`${command.join(' ')}\` ended with ${code}; its whole output is in ${relative(process.cwd(), log)}`,
  )
}

function checkToolchains() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 17)) {
    fail(
      2,
      `Node ${process.versions.node} is too old: 20.17 or newer is needed (nodejs.org, or your distribution)`,
    )
  }
  if (process.platform !== 'linux') fail(2, `this is ${process.platform}: Millrace needs Linux`)
  if (which('cargo') === null || version('cargo') === null) {
    fail(
      2,
      'cargo is missing: install Rust with rustup (rustup.rs), then open a new shell or run `. ~/.cargo/env`',
    )
  }
}

/** rustfmt and clippy, which `npm test` runs. A toolchain that rustup did not install must bring them itself. */
async function rustComponents() {
  const absent = Object.entries(RUST_COMPONENTS).filter(([command]) => version('cargo', command) === null)
  if (absent.length === 0) return
  const components = absent.map(([, component]) => component)
  const names = components.join(' ')
  if (which('rustup') === null) fail(2, `missing: ${names}. Install them the way you installed Rust`)
  await step('rust-components', `adding ${names} to the Rust toolchain`, [
    'rustup',
    'component',
    'add',
    ...components,
  ])
}

async function systemPackages() {
  const packages = missing(root ? { ...NEEDED, ...NEEDED_AS_ROOT } : NEEDED)
  if (packages.length === 0) return
  const wanted = packages.join(' ')
  if (which('apt-get') === null)
    fail(2, `missing: ${wanted}. Install them with your package manager, then try again`)
  if (!root) fail(2, `missing: ${wanted}. Run: sudo apt-get update && sudo apt-get install -y ${wanted}`)
  process.env.DEBIAN_FRONTEND = 'noninteractive'
  await step('apt-update', 'reading the package lists', ['apt-get', 'update'])
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...packages]
  await step('apt-install', `installing ${wanted}`, install)
  // Debian starts the service it just installed; tests and demo run servers of their own.
  if (packages.includes('nats-server') && which('systemctl')) {
    await run('setup-nats-off', ['systemctl', 'disable', '--now', 'nats-server'])
  }
}

/**
 * `npm ci`, except where it refuses a lock file that lists no packages for platforms other than this one: npm leaves
 * those out of the lock when the registry it was written with did not carry them. `npm install --no-save` installs the
 * same locked versions and changes no file.
 */
async function nodeModules() {
  const stamp = 'node_modules/.millrace-lock'
  const hash = hashOf(['package-lock.json'], process.arch)
  if (fresh(stamp, hash, ['node_modules/typescript'])) return
  const quiet = ['--no-audit', '--no-fund']
  const trial = await run('setup-npm-ci-trial', ['npm', 'ci', '--dry-run', ...quiet])
  const command = trial.code === 0 ? ['npm', 'ci', ...quiet] : ['npm', 'install', '--no-save', ...quiet]
  await step('npm', 'installing npm packages', command)
  writeStamp(stamp, hash)
}

async function native() {
  const stamp = 'build/.stamp-native'
  const sources = ['crates', 'Cargo.toml', 'Cargo.lock', 'rust-toolchain.toml', '.cargo']
  const hash = hashOf(sources, `${version('rustc')} ${process.arch}`)
  const addon = () => {
    try {
      return readdirSync(`${ROOT}/build`).some((f) => f.endsWith('.node'))
    } catch {
      return false
    }
  }
  if (addon() && fresh(stamp, hash, ['target/release/millrace-blast'])) return
  await step('native', 'building the Rust side (the first time takes a minute or two)', [
    'npm',
    'run',
    'build:native',
  ])
  writeStamp(stamp, hash)
}

async function typescript() {
  const stamp = 'build/.stamp-ts'
  const folders = ['src', 'rig', 'test', 'demo', 'bench']
  const hash = hashOf([...folders, 'tsconfig.json', 'package-lock.json', 'build/native.d.ts'])
  if (fresh(stamp, hash, ['build/src'])) return
  // What no longer has a source must not be run.
  for (const folder of folders) rmSync(`${ROOT}/build/${folder}`, { recursive: true, force: true })
  await step('ts', 'compiling TypeScript', ['npm', 'run', 'build:ts'])
  writeStamp(stamp, hash)
}

if (!PURPOSES.includes(purpose))
  fail(2, `unknown purpose "${purpose}", expected one of ${PURPOSES.join(', ')}`)
checkToolchains()
await systemPackages()
if (purpose === 'test') await rustComponents()
await nodeModules()
await native()
await typescript()
