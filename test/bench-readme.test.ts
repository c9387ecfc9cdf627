/** The README shows what is in bench/results. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { withNumbers } from '../bench/readme.js'

const at = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

void t.test("the README's numbers are those in bench/results", async (t) => {
  const readme = readFileSync(at('README.md'), 'utf8')
  t.equal(withNumbers(readme, at('bench/results')), readme, 'run npm run bench -- readme')
})
