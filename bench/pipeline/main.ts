import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import type { Command } from 'commander'
import { Pair } from '../../test/rig/netns.js'
import { lines, svg } from '../chart.js'
import { CONTESTANTS, REFERENCE } from './contestants.js'
import { climb } from './run.js'
import { type Climb, summarise } from './summary.js'

const RATES = [
  20, 35, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1500,
].map((k) => k * 1000)

/** Adds `pipeline` to the bench's command line. */
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
  // Contestants take turns inside a run, so that a noisy minute hurts all of them alike.
  for (let run = 1; run <= runs; run++) {
    for (const contestant of contestants) {
      const pair = new Pair(1)
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
  const points = climbs.flatMap((c) => c.points.map((p) => ({ ...p, series: c.contestant })))
  const loss = points.map((p) => ({
    series: p.series,
    x: p.offered / 1000,
    y: (1 - p.received / p.sent) * 100,
  }))
  const cost = points.map((p) => ({ series: p.series, x: p.offered / 1000, y: p.cpuMicros }))
  const x = 'offered load, thousand datagrams a second'
  writeFileSync(
    `${options.out}/pipeline-loss.svg`,
    await svg(lines('Loss', loss, { x, y: 'lost, %', logX: true })),
  )
  writeFileSync(
    `${options.out}/pipeline-cpu.svg`,
    await svg(lines('CPU of the receiver', cost, { x, y: 'µs per datagram', logX: true })),
  )
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
