import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Command } from 'commander'
import { VethPair } from '../../rig/netns.js'
import { drawCharts } from './charts.js'
import { CONTESTANTS, REFERENCE } from './contestants.js'
import { climb } from './run.js'
import { type Climb, summarise } from './summary.js'

/** Offered loads in datagrams per second, in the order of a climb. */
const RATES = [50, 100, 150, 200, 300, 400, 600, 800, 1000, 1200].map((k) => k * 1000)

/** Adds the command `pipeline`. */
export function addPipeline(program: Command): void {
  program
    .command('pipeline')
    .description(
      'UDP to NATS over one veth pair: loss against offered load, CPU per datagram, against two dgram baselines',
    )
    .option('--runs <n>', 'climbs per contestant; the figures are medians', '5')
    .option('--seconds <s>', 'length of one step', '2')
    .option('--size <bytes>', 'payload of a datagram', '100')
    .option('--gso <n>', 'datagrams per UDP_SEGMENT send', '16')
    .option('--only <names>', 'contestants to run, by comma; the reference always runs')
    .option('--out <folder>', 'where pipeline.json and the charts go', 'bench/results')
    .action(pipeline)
}

interface Options {
  runs: string
  seconds: string
  size: string
  gso: string
  only?: string
  out: string
}

async function pipeline(options: Options): Promise<void> {
  if (process.geteuid?.() !== 0) {
    console.error('the pipeline bench makes network namespaces: run it as root')
    process.exitCode = 2
    return
  }
  const wanted = options.only?.split(',')
  const contestants = CONTESTANTS.filter((c) => !wanted || wanted.includes(c.name) || c.name === REFERENCE)
  const climbs: Climb[] = []
  const runs = Number(options.runs)
  // Contestants alternate within a run, so that a noisy minute affects all of them alike.
  for (let run = 1; run <= runs; run++) {
    for (const contestant of contestants) {
      const pair = new VethPair(1)
      try {
        const title = `run ${run}/${runs}  ${contestant.name}`
        const done = await climb(pair, contestant, {
          rates: RATES,
          seconds: Number(options.seconds),
          size: Number(options.size),
          gso: Number(options.gso),
          onPoint: (p) => {
            const loss = ((1 - p.received / p.sent) * 100).toFixed(2)
            const rate = `${Math.round(p.achieved / 1000)} k/s of ${p.offered / 1000}`
            console.error(
              `${title}: ${rate}, lost ${p.sent - p.received} (${loss} %; ${p.wireDropped} on the veth), ${p.cpuMicros.toFixed(2)} µs CPU`,
            )
          },
        })
        climbs.push(done)
      } finally {
        pair.close()
      }
    }
  }
  await report(climbs, options)
}

async function report(climbs: readonly Climb[], options: Options): Promise<void> {
  const summary = summarise(climbs, REFERENCE)
  const [cpu] = cpus()
  const machine = {
    cpu: cpu?.model ?? 'unknown',
    cpus: cpus().length,
    node: process.version,
    kernel: (await import('node:os')).release(),
  }
  mkdirSync(options.out, { recursive: true })
  const json = { bench: 'pipeline', options, machine, summary, climbs }
  writeFileSync(`${options.out}/pipeline.json`, `${JSON.stringify(json, null, 2)}\n`)
  await drawCharts(climbs, options.out)
  console.table(
    Object.fromEntries(
      summary.map((s) => [
        s.contestant,
        {
          'zero loss k/s': Math.round(s.zeroLoss / 1000),
          '× careful': Number(s.zeroLossRatio.toFixed(2)),
          limit: s.wireLimited ? 'veth or sender' : 'receiver',
          'most k/s': Math.round(s.saturation / 1000),
          'CPU µs': Number(s.cpuMicros.toFixed(2)),
          'CPU ÷ careful': Number(s.cpuRatio.toFixed(2)),
        },
      ]),
    ),
  )
}
