import { Command } from 'commander'
import { addPipeline } from './pipeline/main.js'
import { addRules } from './rules/main.js'

const program = new Command('bench').description(
  'Side-by-side benchmarks; figures are ratios measured in one run',
)
addPipeline(program)
addRules(program)
await program.parseAsync()
