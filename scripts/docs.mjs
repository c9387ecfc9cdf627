// `npm run docs`: writes every generated part of the documentation anew, and the files generated for the code. Each is
// printed by the test that compares it, so that what CI checks and what this writes cannot differ.
import { spawnSync } from 'node:child_process'
import { ROOT } from './lib/run.mjs'
import { PATH } from './lib/tools.mjs'

const node = process.execPath
const STEPS = [
  [
    'the layout of lanes and the shapes of JSON (src/generated)',
    ['cargo', 'test', '-q', '-p', 'millrace-core', 'generated_'],
  ],
  [
    'the recipes of docs/rules.md',
    ['cargo', 'test', '-q', '-p', 'millrace-core', '--lib', 'rule::tests::recipes'],
  ],
  ['compiling TypeScript', ['npm', 'run', '--silent', 'build:ts']],
  ['docs/configuration.md and docs/errors.md', [node, 'build/test/config-docs.test.js']],
  ['docs/metrics.md', [node, 'build/test/service-metrics.test.js']],
  ['the numbers in README.md', [node, 'build/bench/main.js', 'readme']],
]

for (const [what, [program, ...args]] of STEPS) {
  console.error(`docs: ${what}`)
  const env = { ...process.env, PATH, MILLRACE_BLESS: '1' }
  const { status } = spawnSync(program, args, { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'], env })
  if (status !== 0) {
    console.error(`docs: \`${[program, ...args].join(' ')}\` ended with ${status}`)
    process.exit(1)
  }
}
console.error('docs: written; read the difference (git diff) before you commit it')
