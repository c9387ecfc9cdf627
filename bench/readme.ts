import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { drawCharts } from './pipeline/charts.js'
import type { Climb, Summary } from './pipeline/summary.js'

const START = '<!-- numbers: written by npm run bench -- readme -->'
const END = '<!-- end of numbers -->'

/** Adds the command `readme`. */
export function addReadme(program: Command): void {
  program
    .command('readme')
    .description('writes the results in bench/results into the README and draws the charts again')
    .action(async () => {
      const results = 'bench/results'
      writeFileSync('README.md', withNumbers(readFileSync('README.md', 'utf8'), results))
      const { climbs } = JSON.parse(readFileSync(`${results}/pipeline.json`, 'utf8')) as { climbs: Climb[] }
      await drawCharts(climbs, results)
    })
}

/** Returns the README with the numbers of a results folder between its markers. @throws Error when it has no markers. */
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
    climbs: Climb[]
  }
  const { machine, options } = pipeline
  const lowest = Math.min(...pipeline.climbs.flatMap((c) => c.points.map((p) => p.offered)))
  const rows = pipeline.summary.map((s) => {
    // A figure that no climb produced is NaN, which JSON writes as null.
    const figure = (value: number | null, unit: string, digits = 1) =>
      value ? `${value.toFixed(digits)} ${unit}` : '–'
    const mark = s.wireLimited ? ' ¹' : ''
    const rate = s.zeroLoss > 0 ? `${Math.round(s.zeroLoss / 1000)} k/s${mark}` : `below ${lowest / 1000} k/s`
    const cells = [
      s.contestant,
      rate,
      figure(s.zeroLossRatio, '×'),
      figure(s.cpuMicros, 'µs', 2),
      figure(s.cpuRatio, '×', 2),
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
    '![Loss against offered load](bench/results/pipeline-loss.svg)',
    '',
    `Reading four fields of each datagram in a handler: ${nsPerDatagram} ns. Idle service: ${idle} of a core. Memory under overload against`,
    `the documented bound: ${memory}.`,
    '',
  ].join('\n')
}
