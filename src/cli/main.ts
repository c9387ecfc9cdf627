#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { type Config, helpText, loadConfig, readHostInfo } from '../config/index.js'
import { EXIT, exitStatus, fromNative } from '../errors.js'
import { createLog } from '../log.js'
import { run } from '../service/run.js'
import { VERSION } from '../version.js'
import { addCheckCommand } from './check.js'
import { addConfigCommand } from './config.js'
import { addRulesCommand } from './rules.js'

function load(): Config {
  return loadConfig(process.env, readHostInfo())
}

async function runService(): Promise<number> {
  const config = load()
  const log = createLog({ level: config.log.level })
  // The import loads the native addon, without which `millrace config` and `--help` must work.
  const { createDataPlane } = await import('../service/native-data-plane.js')
  return await run(config, createDataPlane(config, log), log)
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
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
      status = await runService()
    })
  addConfigCommand(program, load, print)
  addCheckCommand(program, load, (result) => (status = result))
  addRulesCommand(program, print)
  try {
    await program.parseAsync(argv)
    return status
  } catch (error) {
    // Commander has already printed; help and version throw with status 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.clean : EXIT.usage
    const failure = fromNative(error)
    process.stderr.write(`${failure}\n`)
    if (failure.code === 'MILLRACE_E_UNEXPECTED' && error instanceof Error)
      process.stderr.write(`${error.stack}\n`)
    return exitStatus(error)
  }
}

// A reader that closes the pipe early (`millrace config | head -1`) is no error.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
const status = await main(process.argv)
// The exit is explicit, because a handle left open must not keep a drained service alive. Writes to pipes are
// asynchronous, so the process ends when they are done.
process.stdout.write('', () => process.stderr.write('', () => process.exit(status)))
