// Reads the TAP that tap's `tap` reporter prints: files at the top level, the tests of a file below it.
import { Parser } from 'tap-parser'

/**
 * Counts the tests of each file (its top-level test points). A point skipped anywhere below counts as skipped. A point that
 * fails and is marked TODO counts as failed: TAP lets it pass, and a green run would not say that something is broken.
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
  parser.on('child', (file) => {
    failedInFile = 0
    file.on('assert', (r) => {
      if (r.skip) skip(`${file.name} > ${r.name}`, r.skip)
      else if (r.ok) counts.passed++
      else fail(`${file.name} > ${r.name}`)
    })
    file.on('child', (test) => below(test, `${file.name} > ${test.name}`))
  })
  const fail = (name) => {
    failedInFile++
    counts.failed++
    failures.push(name)
  }
  const below = (test, path) => {
    test.on('assert', (r) => {
      if (r.skip) skip(`${path} > ${r.name}`, r.skip)
      // Without TODO it fails the test above it, which is counted.
      else if (r.todo && !r.ok) fail(`${path} > ${r.name} (TODO)`)
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
