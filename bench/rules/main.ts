import { spawnSync } from 'node:child_process'
import type { Command } from 'commander'

interface Result {
  readonly nanos: Readonly<Record<string, number>>
  readonly ratios: { readonly rules256to4: number; readonly modToBare: number }
}

/** Highest ratios allowed. They are ratios of one run, which do not depend on the machine. */
const LIMITS = { rules256to4: 3, modToBare: 2 } as const

/** Adds the command `rules`: the cost of decisions. It exits with 1 when a ratio is above its limit. */
export function addRules(program: Command): void {
  program
    .command('rules')
    .description('what a decision costs: many rules on one field against few, mod() against a bare load')
    .option('--json', 'as one JSON object')
    .action(({ json }: { json?: boolean }) => {
      const result = measure()
      const names = Object.keys(LIMITS) as (keyof typeof LIMITS)[]
      const passed = names.every((name) => result.ratios[name] <= LIMITS[name])
      console.log(json ? JSON.stringify({ ...result, limits: LIMITS, passed }) : table(result, names))
      if (!passed) process.exitCode = 1
    })
}

function measure(): Result {
  const cargo = ['run', '--quiet', '--release', '-p', 'millrace-core', '--example', 'rules_cost']
  const { status, stdout } = spawnSync('cargo', cargo, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (status !== 0) throw new Error(`cargo ${cargo.join(' ')}: exit ${status}`)
  return JSON.parse(stdout) as Result
}

function table({ nanos, ratios }: Result, names: readonly (keyof typeof LIMITS)[]): string {
  return [
    ...Object.entries(nanos).map(([name, ns]) => `${name.padEnd(12)} ${ns.toFixed(2).padStart(7)} ns`),
    ...names.map((name) => {
      const verdict = ratios[name] <= LIMITS[name] ? 'ok' : 'ABOVE THE LIMIT'
      return `${name.padEnd(12)} ${ratios[name].toFixed(2).padStart(7)} ×   limit ${LIMITS[name]} ×   ${verdict}`
    }),
  ].join('\n')
}
