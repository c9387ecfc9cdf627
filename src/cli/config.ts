import type { Command } from 'commander'
import { type Config, helpText, redactedConfig, settingsTable } from '../config/index.js'

/**
 * Adds `millrace config` to the command line.
 *
 * @param load loads the configuration; throws when it is wrong.
 * @param print prints whole lines.
 */
export function addConfigCommand(program: Command, load: () => Config, print: (text: string) => void): void {
  program
    .command('config')
    .description('print the effective configuration; exit 2 with every problem when it is invalid')
    .option('--json', 'as one JSON object')
    .addHelpText('after', () => `\n${helpText()}`)
    .action(({ json }: { json?: boolean }) => {
      const config = load()
      print(json ? JSON.stringify(redactedConfig(config), null, 2) : settingsTable(config))
    })
}
