import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { generatedPart } from '../rig/generated-part.js'
import { helpText, referenceMarkdown } from '../src/config/index.js'
import { VARIABLES } from '../src/config/variables.js'
import { ERRORS, errorsMarkdown } from '../src/errors.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
generatedPart(t, 'configuration.md', 'variables', referenceMarkdown())
generatedPart(t, 'errors.md', 'exit', errorsMarkdown().exit)
generatedPart(t, 'errors.md', 'codes', errorsMarkdown().codes)

function* sources(directory: string): Generator<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (entry.isDirectory() && entry.name !== 'target') yield* sources(path)
    else if (/\.(ts|rs)$/.test(entry.name)) yield path
  }
}

t.test('every code in src/ and crates/ is documented', async (t) => {
  const codes = new Set<string>()
  for (const directory of ['src', 'crates']) {
    for (const path of sources(join(ROOT, directory))) {
      for (const [code] of readFileSync(path, 'utf8').matchAll(/\bMILLRACE_E_[A-Z]{2,}\b/g)) codes.add(code)
    }
  }
  t.ok(codes.size >= 10, `${codes.size} codes found`)
  const page = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8')
  for (const code of codes) {
    t.ok(page.includes(`\`${code}\``), `${code} is in docs/errors.md`)
    t.ok(Object.hasOwn(ERRORS, code), `${code} is in src/errors.ts`)
  }
})

t.test('the help lists every variable and stays within its width', async (t) => {
  const help = helpText(100)
  for (const name of Object.keys(VARIABLES)) t.match(help, `    ${name}`)
  const long = help.split('\n').filter((line) => line.length > 110)
  t.same(long, [])
})
