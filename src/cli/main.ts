#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import {
  type Config,
  helpText,
  loadConfig,
  readFacts,
  redactedConfig,
  settingsTable,
} from '../config/index.js'
import { EXIT, exitStatus, fromNative } from '../errors.js'
import { createLog } from '../log.js'
import { run } from '../service/run.js'
import { VERSION } from '../version.js'
import { addCheckCommand } from './check.js'
import { addRulesCommand } from './rules.js'

function config(): Config {
  return loadConfig(process.env, readFacts())
}

async function serve(): Promise<number> {
  const settings = config()
  const log = createLog({ level: settings.log.level })
  // Lazily: the native addon loads here, and `millrace config` and `--help` must work without it.
  const { createDataPlane } = await import('../service/data-plane.js')
  return await run(settings, createDataPlane(settings, log), log)
}

async function main(argv: readonly string[]): Promise<number> {
  let status: number = EXIT.clean
  const program = new Command('millrace')
    .description(
      'UDP off the wire, spread over CPUs by what is in the payload, through your TypeScript, into NATS.',
    )
    .version(VERSION, '--version')
    .addHelpText('after', () => `\n${helpText()}`)
    .exitOverride()
  program
    .command('run', { isDefault: true })
    .description('receive, until SIGTERM or SIGINT (the default)')
    .action(async () => {
      status = await serve()
    })
  program
    .command('config')
    .description('print the effective configuration; exit 2 with every problem when it is invalid')
    .option('--json', 'as one JSON object')
    .addHelpText('after', () => `\n${helpText()}`)
    .action(({ json }: { json?: boolean }) => {
      const settings = config()
      const text = json ? JSON.stringify(redactedConfig(settings), null, 2) : settingsTable(settings)
      process.stdout.write(`${text}\n`)
    })
  addCheckCommand(program, config, (result) => (status = result))
  addRulesCommand(program, (text) => process.stdout.write(`${text}\n`))
  try {
    await program.parseAsync(argv)
    return status
  } catch (error) {
    // Commander has already printed; help and version throw with status 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.clean : EXIT.usage
    const known = fromNative(error)
    process.stderr.write(`${known}\n`)
    if (known.code === 'MILLRACE_E_UNEXPECTED' && error instanceof Error)
      process.stderr.write(`${error.stack}\n`)
    return exitStatus(error)
  }
}

// A reader that went away (`millrace config | head -1`) is no fault of ours.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
const status = await main(process.argv)
// Not by exit code alone: a handle that somebody leaked must not keep a drained service alive. Pipes are written
// asynchronously, so what is printed goes first.
process.stdout.write('', () => process.stderr.write('', () => process.exit(status)))
