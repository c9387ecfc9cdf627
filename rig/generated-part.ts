import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url))

/**
 * Compares a generated part of a page in docs/, between `<!-- generated: part -->` and `<!-- /generated -->`, with what it
 * should be. With MILLRACE_BLESS=1, which `npm run docs` sets and `npm test` removes, it writes that part instead.
 */
export function generatedPart(
  t: Pick<Test, 'equal' | 'ok'>,
  page: string,
  part: string,
  expected: string,
): void {
  const path = `${DOCS}${page}`
  const text = readFileSync(path, 'utf8')
  const open = `<!-- generated: ${part} -->\n`
  const from = text.indexOf(open) + open.length
  const to = text.indexOf('<!-- /generated -->', from)
  t.ok(from >= open.length && to >= from, `docs/${page} has the part ${part}`)
  if (process.env['MILLRACE_BLESS'] === '1') {
    writeFileSync(path, `${text.slice(0, from)}${expected}\n${text.slice(to)}`)
  } else {
    t.equal(
      text.slice(from, to),
      `${expected}\n`,
      `docs/${page}: ${part} is up to date, else run npm run docs`,
    )
  }
}
