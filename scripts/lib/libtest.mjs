// Reads what Rust's test harness prints.

/** Lines kept of what a failed test said: the panic and its values, not the backtrace. */
const SAID = 8

/** @returns {{ see(line: string): void, counts: { passed: number, failed: number, ignored: number }, failures: string[] }} */
export function libtest() {
  const counts = { passed: 0, failed: 0, ignored: 0 }
  const failures = []
  let keep = 0
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
      const block = /^---- (.+) stdout ----$/.exec(line)
      if (block) {
        failures.push(block[1])
        keep = SAID
      } else if (keep > 0 && line.trim() !== '') {
        if (/^stack backtrace:/.test(line)) keep = 0
        else failures.push(`  ${line}`)
        keep--
      }
    },
  }
}
