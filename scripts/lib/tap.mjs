// Reads the TAP that tap's `tap` reporter prints: files at the top level, the tests of a file below it.
import { Parser } from 'tap-parser'

/** Lines kept of what a failed assertion said: its difference, not the stack. */
const SAID = 8

/**
 * Counts the tests of each file (its top-level test points). A point skipped anywhere below counts as skipped. A point that
 * fails and is marked TODO counts as failed: TAP lets it pass, and a green run would not say that something is broken.
 * `failures` has the name of each failed test, and below it what its first failed assertion said.
 * @param {(file: string, ok: boolean, ms: number) => void} onFile
 */
export function tapReader(onFile) {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  const skips = []
  const failures = []
  const parser = new Parser()
  const skip = (name, reason) => {
    counts.skipped++
    skips.push(`${name}: ${typeof reason === 'string' && reason !== '' ? reason : 'no reason given'}`)
  }
  /** Failures seen in each file, so that a file that failed for another reason (crash, timeout) still counts. */
  let failedInFile = 0
  /** What the first failed assertion of the test under way said. */
  let said = []
  parser.on('child', (file) => {
    failedInFile = 0
    file.on('assert', (r) => {
      if (r.skip) skip(`${file.name} > ${r.name}`, r.skip)
      else if (r.ok) counts.passed++
      else {
        if (said.length === 0) said = explain(r)
        fail(`${file.name} > ${r.name}`)
      }
      said = []
    })
    file.on('child', (test) => below(test, `${file.name} > ${test.name}`))
  })
  const fail = (name) => {
    failedInFile++
    counts.failed++
    failures.push(name, ...said)
  }
  const below = (test, path) => {
    test.on('assert', (r) => {
      if (r.skip) skip(`${path} > ${r.name}`, r.skip)
      // Without TODO it fails the test above it, which is counted.
      else if (r.todo && !r.ok) fail(`${path} > ${r.name} (TODO)`)
      else if (!r.ok && said.length === 0) said = explain(r)
    })
    test.on('child', (inner) => below(inner, `${path} > ${inner.name}`))
  }
  parser.on('assert', (r) => {
    if (r.skip) skip(r.name, r.skip)
    else if (!r.ok && failedInFile === 0) {
      counts.failed++
      failures.push(`${r.name}: ${r.diag?.signal ?? r.diag?.timeout ?? `exit ${r.diag?.exitCode ?? '?'}`}`)
    }
    onFile(r.name, r.ok, r.time ?? 0)
  })
  return { counts, skips, failures, see: (line) => parser.write(`${line}\n`), end: () => parser.end() }
}

/** The place of a failed assertion, its name and its difference. A failed subtest, which repeats its assertions, has none. */
function explain({ name, diag }) {
  if (diag?.stack === undefined) return []
  const at = diag.at ? `${diag.at.fileName}:${diag.at.lineNumber}: ` : ''
  const diff = (diag.diff ?? '').split('\n').filter((line) => line.trim() !== '')
  // The first two lines are the heads of the two sides, the third is the place in them.
  const lines = [`${at}${name}`, ...diff.slice(3)]
  return lines.slice(0, SAID).map((line) => `  ${line}`)
}
