// `npm test`: everything that can be wrong, one after the other, and one line at the end: `N passed, N failed, N skipped`.
// `npm test -- PATTERN` runs the TypeScript test files whose path, and the Rust tests whose path, contains PATTERN, without
// the linters. `--only lint|rust|ts` runs one part.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { RUN_VARIABLE, watchLeftovers } from './lib/leftovers.mjs'
import { libtest } from './lib/libtest.mjs'
import { LINTS } from './lib/lint.mjs'
import { ltsNode } from './lib/lts-node.mjs'
import { ROOT, run } from './lib/run.mjs'
import { tapReader } from './lib/tap.mjs'
import { PATH } from './lib/tools.mjs'

/** Longest that one test file may take, s. Too low, and a file fails on a busy machine; too high, and a hang costs CI this long. */
const FILE_TIMEOUT = 600

const PARTS = ['lint', 'rust', 'ts']
const { values: options, positionals } = parseArgs({
  options: { only: { type: 'string' } },
  allowPositionals: true,
})
if (options.only !== undefined && !PARTS.includes(options.only)) {
  console.error(`test: --only ${options.only}: expected ${PARTS.join(', ')}`)
  process.exit(2)
}
if (positionals.length > 1) {
  console.error(`test: ${positionals.join(' ')}: expected at most one PATTERN`)
  process.exit(2)
}
const pattern = positionals[0] ?? ''
const wants = (part) =>
  options.only === undefined ? part !== 'lint' || pattern === '' : options.only === part
const runId = `${process.pid}-${Date.now()}`
process.env[RUN_VARIABLE] = runId
process.env.PATH = PATH
// These make tests write what they should compare with. A shell may have them from the last `npm run docs`.
for (const variable of ['MILLRACE_BLESS', 'TAP_SNAPSHOT']) delete process.env[variable]
const scratch = mkdtempSync(join(tmpdir(), 'millrace-test-'))
const leftovers = watchLeftovers(runId)
const total = { passed: 0, failed: 0, skipped: 0 }
/** Rust tests marked #[ignore]: tools to be run by hand, which no machine is expected to run. They count as skipped. */
let byHand = 0
const failures = []
const skips = []
/** Lines for tests that were counted already and ran once more, on another Node. */
const repeated = []

/** Prints one part's line and adds its counts: all of them, or of a repetition only what went wrong. */
function report(name, start, counts, { repetition = false } = {}) {
  for (const key of repetition ? ['failed'] : Object.keys(total)) total[key] += counts[key] ?? 0
  const mark = counts.failed > 0 ? 'FAIL' : 'ok'
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''
  const seconds = ((Date.now() - start) / 1000).toFixed(1)
  const said = `${name}: ${counts.passed} passed, ${counts.failed} failed${skipped}`
  console.log(`${mark.padEnd(5)}${said} (${seconds} s)`)
  if (repetition) repeated.push(said)
}

/** Shows the end of a failed command's output and where the rest is. */
function show({ log, tail }) {
  console.log(tail.map((l) => `     | ${l}`).join('\n'))
  console.log(`     the whole output: ${relative(process.cwd(), log)}`)
}

/** A check that is one test: it passes or it does not. */
async function check(name, command) {
  const start = Date.now()
  const result = await run(`test-${name.replaceAll(' ', '-')}`, command)
  report(name, start, { passed: result.code === 0 ? 1 : 0, failed: result.code === 0 ? 0 : 1 })
  if (result.code === 0) return
  failures.push(name)
  show(result)
}

async function rust() {
  const start = Date.now()
  const skipLog = join(scratch, 'rust-skips')
  const reader = libtest()
  const command = ['cargo', 'test', '--workspace', '--no-fail-fast', ...(pattern ? ['--', pattern] : [])]
  const result = await run('test-rust', command, { env: { MILLRACE_SKIP_LOG: skipLog }, onLine: reader.see })
  const { passed, failed, ignored } = reader.counts
  // A test that skipped itself returned early, which libtest can only call passed.
  const skipped = existsSync(skipLog) ? readFileSync(skipLog, 'utf8').trim().split('\n') : []
  skips.push(...skipped.map((line) => line.replace(/^SKIP /, '')))
  byHand = ignored
  if (ignored > 0) skips.push(`${ignored} Rust tests marked #[ignore]`)
  failures.push(...reader.failures)
  const broke = result.code !== 0 && failed === 0
  if (broke) failures.push(`cargo test ended with ${result.code} before every test had run`)
  report('cargo test', start, {
    passed: passed - skipped.length,
    failed: failed + (broke ? 1 : 0),
    skipped: skipped.length + ignored,
  })
  if (result.code !== 0) show(result)
}

/** Compiled test files whose path contains the pattern and that `wanted` accepts. */
function testFiles(wanted) {
  const folder = join(ROOT, 'build', 'test')
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true })
    .filter((f) => f.endsWith('.test.js') && f.includes(pattern) && wanted(f))
    .sort()
    .map((f) => join('build', 'test', f))
}

/** `jobs`: how many files at once. Tests that move datagrams run alone, or they would starve each other of CPU. */
async function tap(name, files, jobs, { node = process.execPath, repetition = false } = {}) {
  if (files.length === 0) return
  const start = Date.now()
  const progress = (file, ok, ms) => console.log(`  ${ok ? '·' : 'x'} ${file} (${(ms / 1000).toFixed(1)} s)`)
  const reader = tapReader(progress)
  const bin = join('node_modules', 'tap', 'dist', 'esm', 'run.mjs')
  const flags = ['--reporter=tap', `--jobs=${jobs}`, `--timeout=${FILE_TIMEOUT}`]
  const result = await run(`test-${name.replaceAll(' ', '-')}`, [node, bin, ...flags, ...files], {
    onLine: reader.see,
  })
  reader.end()
  const { counts } = reader
  if (result.code !== 0 && counts.failed === 0) {
    counts.failed = 1
    failures.push(`${name}: tap ended with ${result.code}`)
  }
  failures.push(...reader.failures)
  skips.push(...reader.skips)
  report(name, start, counts, { repetition })
  if (counts.failed > 0) show(result)
}

async function typescript() {
  if (pattern === '' && testFiles(() => true).length === 0) {
    total.failed++
    failures.push('build/test has no test files: TypeScript was not compiled (npm run build:ts)')
    return
  }
  const e2e = (f) => f.startsWith('e2e')
  await tap(
    'tap',
    testFiles((f) => !e2e(f)),
    2,
  )
  await tap('tap e2e', testFiles(e2e), 1)
  const again = testFiles((f) => !e2e(f) || f.startsWith('e2e-smoke'))
  if (again.length === 0) return
  const lts = await ltsNode()
  if ('path' in lts) {
    await tap(`the same files on Node ${lts.major}`, again, 1, { node: lts.path, repetition: true })
  } else {
    total.skipped++
    skips.push(`the suite on LTS Node: ${lts.reason}`)
  }
}

if (wants('lint')) for (const [name, command] of LINTS) await check(name, command)
if (wants('rust')) await rust()
if (wants('ts')) await typescript()

rmSync(scratch, { recursive: true, force: true })
// A killed process needs a moment to be gone.
await new Promise((resolve) => setTimeout(resolve, 200))
const left = leftovers()
if (left.length > 0) {
  total.failed++
  failures.push(...left.map((l) => `left behind: ${l}`))
}

if (skips.length > 0) console.log(`\nskipped:\n${skips.map((s) => `  ${s}`).join('\n')}`)
if (failures.length > 0) console.log(`\nfailed:\n${failures.map((f) => `  ${f}`).join('\n')}`)
const ci = process.env.CI === 'true'
const notRun = total.skipped > byHand
if (ci && notRun) console.log('\nCI must run everything: a skipped test fails it')
if (total.passed + total.failed === 0) console.log('\nno test matched')
if (repeated.length > 0) console.log(`\nnot counted again below: ${repeated.join('; ')}`)
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exitCode = total.failed > 0 || total.passed === 0 || (ci && notRun) ? 1 : 0
