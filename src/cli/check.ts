import type { Command } from 'commander'
import type { Config } from '../config/index.js'
import { EXIT, fromNative } from '../errors.js'
import type { PreflightReport } from '../generated/contract.js'

export type { PreflightReport as CheckReport } from '../generated/contract.js'

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

async function check(config: Config): Promise<PreflightReport> {
  // Lazily, as in `run`: the addon is not needed for anything else here.
  const { native } = await import('../native.js')
  try {
    return JSON.parse(native().checkHost(JSON.stringify(config.engine))) as PreflightReport
  } catch (error) {
    throw fromNative(error)
  }
}

/** The table as text: a line for each finding, and its cure below. */
export function checkTable({ findings }: PreflightReport): string {
  const width = Math.max(...findings.map((finding) => finding.name.length))
  return findings
    .map(({ name, state, why, cure }) => {
      const line = `${state.padEnd(8)}  ${name.padEnd(width)}  ${why}\n`
      return cure === '' || state === 'ok' ? line : `${line}${' '.repeat(width + 12)}→ ${cure}\n`
    })
    .join('')
}
