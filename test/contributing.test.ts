/** The diffs that CONTRIBUTING.md shows still apply, so that its examples can be followed word for word. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const page = readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8')

/** What git says against a diff; empty when it applies, or is applied already, because somebody follows the page. */
function objections(diff: string): string {
  const attempts = [[], ['--reverse']].map((more) =>
    spawnSync('git', ['apply', '--check', ...more], { cwd: ROOT, input: diff, encoding: 'utf8' }),
  )
  if (attempts.some(({ status }) => status === 0)) return ''
  return attempts.map(({ error, stderr }) => error?.message ?? stderr)[0]!
}

t.test('every diff of CONTRIBUTING.md applies', async (t) => {
  const diffs = [...page.matchAll(/^```diff\n([\s\S]*?)^```$/gm)]
  t.ok(diffs.length > 10, `${diffs.length} diffs found`)
  for (const { index, 1: diff } of diffs) {
    const line = page.slice(0, index).split('\n').length
    t.equal(objections(diff!), '', `the diff in line ${line}`)
  }
})
