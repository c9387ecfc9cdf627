import type { Command } from 'commander'
import type { Config } from '../config/index.js'
import { EXIT, fromNative } from '../errors.js'
import type { PreflightReport } from '../generated/contract.js'

/**
 * Adds `millrace check` to the command line.
 *
 * @param load loads the configuration; throws when it is wrong.
 * @param finish receives the exit status.
 */
export function addCheckCommand(
  program: Command,
  load: () => Config,
  finish: (status: number) => void,
): void {
  program
    .command('check')
    .description('say what this host allows; exit 0 when the configured backend can be opened, 3 when not')
    .option('--json', 'as one JSON object')
    .option('--strict', 'exit 3 when anything is degraded or missing, too')
    .action(async ({ json, strict }: { json?: boolean; strict?: boolean }) => {
      const report = await check(load())
      process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : checkTable(report))
      const well = report.findings.every((finding) => finding.state === 'ok')
      finish(report.backend !== null && (well || !strict) ? EXIT.clean : EXIT.refused)
    })
}

async function check(config: Config): Promise<PreflightReport> {
  // The addon is loaded here, so that the other commands work without it.
  const { native } = await import('../native.js')
  try {
    return JSON.parse(native().checkHost(JSON.stringify(config.engine))) as PreflightReport
  } catch (error) {
    throw fromNative(error)
  }
}

/** The findings as text: a line for each, and below it what would help, where something would. */
export function checkTable({ findings }: PreflightReport): string {
  const width = Math.max(...findings.map((finding) => finding.name.length))
  return findings
    .map(({ name, state, why, cure }) => {
      const line = `${state.padEnd(8)}  ${name.padEnd(width)}  ${why}\n`
      return cure === '' || state === 'ok' ? line : `${line}${' '.repeat(width + 12)}→ ${cure}\n`
    })
    .join('')
}
