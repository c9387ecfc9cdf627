import type { Command } from 'commander'
import type { Config } from '../config/index.js'
import { EXIT, fromNative } from '../errors.js'

/** One line of the table; crates/millrace-core/src/check.rs says what is looked at. */
export interface Finding {
  readonly name: string
  readonly state: 'ok' | 'degraded' | 'missing'
  readonly why: string
  /** Empty when all is well. */
  readonly cure: string
}

/** What `millrace check` found. */
export interface CheckReport {
  readonly findings: readonly Finding[]
  /** Backend that would be opened now, or null. */
  readonly backend: 'xdp' | 'packet' | 'socket' | null
}

/** Adds `millrace check`. `config` throws when the configuration is wrong; `finish` takes the exit status. */
export function addCheckCommand(
  program: Command,
  config: () => Config,
  finish: (status: number) => void,
): void {
  program
    .command('check')
    .description('say what this host allows; exit 0 when the configured backend can be opened, 3 when not')
    .option('--json', 'as one JSON object')
    .option('--strict', 'exit 3 when anything is degraded or missing, too')
    .action(async ({ json, strict }: { json?: boolean; strict?: boolean }) => {
      const report = await check(config())
      process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : checkTable(report))
      const well = report.findings.every((finding) => finding.state === 'ok')
      finish(report.backend !== null && (well || !strict) ? EXIT.clean : EXIT.refused)
    })
}

async function check(config: Config): Promise<CheckReport> {
  // Lazily, as in `run`: the addon is not needed for anything else here.
  const { native } = await import('../native.js')
  try {
    return JSON.parse(native().checkHost(JSON.stringify(config.engine))) as CheckReport
  } catch (error) {
    throw fromNative(error)
  }
}

/** The table as text: a line for each finding, and its cure below. */
export function checkTable({ findings }: CheckReport): string {
  const width = Math.max(...findings.map((finding) => finding.name.length))
  return findings
    .map(({ name, state, why, cure }) => {
      const line = `${state.padEnd(8)}  ${name.padEnd(width)}  ${why}\n`
      return cure === '' || state === 'ok' ? line : `${line}${' '.repeat(width + 12)}→ ${cure}\n`
    })
    .join('')
}
