// Reads what Rust's test harness prints.

/** @returns {{ see(line: string): void, counts: { passed: number, failed: number, ignored: number }, failures: string[] }} */
export function libtest() {
  const counts = { passed: 0, failed: 0, ignored: 0 }
  const failures = []
  return {
    counts,
    failures,
    see(line) {
      const total = /^test result: \S+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line)
      if (total) {
        counts.passed += Number(total[1])
        counts.failed += Number(total[2])
        counts.ignored += Number(total[3])
        return
      }
      const failed = /^test (.+) \.\.\. FAILED$/.exec(line)
      if (failed) failures.push(failed[1])
    },
  }
}
