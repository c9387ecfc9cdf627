import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { helpText, referenceMarkdown } from '../src/config/index.js'
import { VARIABLES } from '../src/config/variables.js'
import { ERRORS, errorsMarkdown } from '../src/errors.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const { TAP_SNAPSHOT } = process.env

/** Compares the generated part of a page with what it should be; with TAP_SNAPSHOT=1 writes it instead. */
function generated(page: string, part: string, expected: string): void {
  const path = join(ROOT, 'docs', page)
  const text = readFileSync(path, 'utf8')
  const open = `<!-- generated: ${part} -->\n`
  const from = text.indexOf(open) + open.length
  const to = text.indexOf('<!-- /generated -->', from)
  t.ok(from >= open.length && to >= from, `${page} has the part ${part}`)
  if (TAP_SNAPSHOT === '1') {
    writeFileSync(path, `${text.slice(0, from)}${expected}\n${text.slice(to)}`)
  } else {
    t.equal(text.slice(from, to), `${expected}\n`, `${page}: ${part} is up to date`)
  }
}

generated('configuration.md', 'variables', referenceMarkdown())
generated('errors.md', 'exit', errorsMarkdown().exit)
generated('errors.md', 'codes', errorsMarkdown().codes)

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
