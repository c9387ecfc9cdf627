import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { Summary } from './pipeline/summary.js'

const START = '<!-- numbers: written by npm run bench -- readme -->'
const END = '<!-- end of numbers -->'

/** Adds `readme` to the bench's command line. */
export function addReadme(program: Command): void {
  program
    .command('readme')
    .description('writes the results in bench/results into the README')
    .action(() => writeFileSync('README.md', withNumbers(readFileSync('README.md', 'utf8'), 'bench/results')))
}

/** The README with the numbers of a results folder between the markers. */
export function withNumbers(readme: string, results: string): string {
  const from = readme.indexOf(START)
  const to = readme.indexOf(END)
  if (from < 0 || to < from) throw new Error(`README.md has no ${START} … ${END}`)
  return `${readme.slice(0, from + START.length)}\n${numbers(results)}\n${readme.slice(to)}`
}

function numbers(results: string): string {
  const read = (name: string) => JSON.parse(readFileSync(`${results}/${name}.json`, 'utf8'))
  const pipeline = read('pipeline') as {
    options: { runs: string; size: string; gso: string }
    machine: { cpu: string; cpus: number; node: string; kernel: string }
    summary: Summary[]
  }
  const { machine, options } = pipeline
  const rows = pipeline.summary.map((s) => {
    const mark = s.wireLimited ? ' ¹' : ''
    const rate = `${Math.round(s.zeroLoss / 1000)} k/s${mark}`
    const cells = [
      s.contestant,
      rate,
      `${s.zeroLossRatio.toFixed(1)} ×`,
      `${s.cpuMicros.toFixed(2)} µs`,
      `${s.cpuRatio.toFixed(2)} ×`,
    ]
    return `| ${cells.join(' | ')} |`
  })
  const footprint = read('footprint') as {
    rows: { backend: string; idlePercent: number; peakMiB: number; boundMiB: number }[]
  }
  const idle = footprint.rows.map((r) => `${r.backend} ${r.idlePercent} %`).join(', ')
  const memory = footprint.rows.map((r) => `${r.backend} ${r.peakMiB} of ${r.boundMiB} MiB`).join(', ')
  const { nsPerDatagram } = read('handler') as { nsPerDatagram: number }
  return [
    '',
    '| receiver | most without losing one | against careful | CPU per datagram | against careful |',
    '| --- | --- | --- | --- | --- |',
    ...rows,
    '',
    `${options.size}-byte datagrams, ${options.gso} to a send, over one veth pair; sender, receiver, nats-server and a subscriber that`,
    `counts share ${machine.cpus} CPUs (${machine.cpu}, Linux ${machine.kernel}, Node ${machine.node}); medians of ${options.runs}`,
    'climbs. `naive` and `careful` are [ours](bench/baselines), written with `dgram` and `nats`: careful is the best we could do with them.',
    '¹ the veth pair or the sender gave out first. The machine is a noisy virtual one: trust the ratios, not the rates.',
    '',
    `Reading four fields of each datagram in a handler: ${nsPerDatagram} ns. Idle service: ${idle} of a core. Memory under overload against`,
    `the documented bound: ${memory}.`,
    '',
  ].join('\n')
}
