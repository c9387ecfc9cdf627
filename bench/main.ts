import { Command } from 'commander'
import { addFootprint } from './footprint.js'
import { addHandler } from './handler.js'
import { addPipeline } from './pipeline/main.js'
import { addPublish } from './publish.js'
import { addReadme } from './readme.js'
import { addReceive } from './receive/main.js'
import { addRules } from './rules/main.js'

const program = new Command('bench').description(
  'Side-by-side benchmarks; figures are ratios measured in one run',
)
addPipeline(program)
addHandler(program)
addFootprint(program)
addPublish(program)
addReadme(program)
addReceive(program)
addRules(program)
await program.parseAsync()
