// Reads the TAP that tap's `tap` reporter prints: files at the top level, the tests of a file below it.
import { Parser } from 'tap-parser'

/**
 * Counts the tests of each file (its top-level test points); a point skipped anywhere below counts as skipped.
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
      else if (r.ok || r.todo) counts.passed++
      else {
        failedInFile++
        counts.failed++
        failures.push(`${file.name} > ${r.name}`)
      }
    })
    file.on('child', (test) => below(test, `${file.name} > ${test.name}`))
  })
  const below = (test, path) => {
    test.on('assert', (r) => r.skip && skip(`${path} > ${r.name}`, r.skip))
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
