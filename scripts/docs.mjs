// `npm run docs`: writes every generated part of the documentation anew, and the files generated for the code. Each is
// printed by the test that compares it, so that what CI checks and what this writes cannot differ.
import { run } from './lib/run.mjs'
import { PATH } from './lib/tools.mjs'

const node = process.execPath
const STEPS = [
  ['src/generated: the layout of lanes and the shapes of JSON', ['npm', 'run', '--silent', 'generate']],
  [
    'docs/rules.md: the results of its recipes',
    ['cargo', 'test', '-q', '-p', 'millrace-core', '--lib', 'recipes'],
  ],
  ['compiling TypeScript', ['npm', 'run', '--silent', 'build:ts']],
  ['docs/configuration.md and docs/errors.md', [node, 'build/test/config-docs.test.js']],
  ['docs/metrics.md', [node, 'build/test/service-metrics.test.js']],
  ['README.md: the numbers of bench/results', [node, 'build/bench/main.js', 'readme']],
]

for (const [i, [what, command]] of STEPS.entries()) {
  console.error(`docs: ${what}`)
  const { code, tail } = await run(`docs-${i}`, command, { env: { PATH, MILLRACE_BLESS: '1' } })
  if (code === 0) continue
  console.error(`${tail.join('\n')}\ndocs: \`${command.join(' ')}\` ended with ${code}`)
  process.exit(1)
}
console.error('docs: written; read the difference (git diff) before you commit it')
