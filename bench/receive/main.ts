import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import type { Command } from 'commander'
import { VethPair } from '../../rig/netns.js'
import { BACKENDS, CONTESTANTS, STAGES } from './contestants.js'
import { type Drain, drain, type Flow, flow, pinSender } from './run.js'
import {
  type FlowRow,
  flowRows,
  type RateRow,
  rateRows,
  type StageRow,
  stageRows,
  type Verdict,
  verdicts,
} from './summary.js'

/** Datagrams of a drain. Every ring and socket buffer here holds as many; with more, some would be lost before it. */
const DRAINED = 24_000
/** Drains of each stage in a run. They are short, and a difference of two figures is noisier than either. */
const DRAINS = 2

interface Options {
  runs: string
  seconds: string
  out: string
}

/** Adds the command `receive`. */
export function addReceive(program: Command): void {
  program
    .command('receive')
    .description(
      'receive, 4 rules, lanes: against loops that only count, tcpdump and netsniff-ng; no Node in the path',
    )
    .option('--runs <n>', 'runs of everything; the figures are medians', '5')
    .option('--seconds <s>', 'how long each contestant is sent to', '1.5')
    .option('--out <folder>', 'where receive.json goes', 'bench/results')
    .action(receive)
}

async function receive(options: Options): Promise<void> {
  if (process.geteuid?.() !== 0) {
    console.error('the receive bench makes network namespaces: run it as root')
    process.exitCode = 2
    return
  }
  build()
  pinSender()
  const skipped = CONTESTANTS.flatMap((c) => (c.missing === undefined ? [] : [c.missing]))
  const { flows, drains } = await measure(Number(options.runs), Number(options.seconds))
  const rows = flowRows(flows)
  const crowded = rateRows(flows, 'oneCpu')
  const merged = rateRows(flows, 'merged')
  const stages = stageRows(drains)
  const targets = verdicts(rows)
  const machine = { cpu: cpus()[0]?.model ?? 'unknown', cpus: cpus().length, kernel: release() }
  mkdirSync(options.out, { recursive: true })
  const json = {
    bench: 'receive',
    options,
    machine,
    skipped,
    rows,
    merged,
    crowded,
    targets,
    stages,
    flows,
    drains,
  }
  writeFileSync(`${options.out}/receive.json`, `${JSON.stringify(json, null, 2)}\n`)
  print(rows, crowded, merged, stages, targets, skipped)
}

function build(): void {
  const cargo = ['build', '--quiet', '--release', '-p', 'millrace-core', '--features', 'bench']
  const { status } = spawnSync('cargo', [...cargo, '--example', 'receive_bench'], { stdio: 'inherit' })
  if (status !== 0) throw new Error(`cargo ${cargo.join(' ')}: exit ${status}`)
}

/** Contestants alternate within a run, so that a noisy minute affects all of them alike. */
async function measure(runs: number, seconds: number): Promise<{ flows: Flow[]; drains: Drain[] }> {
  const flows: Flow[] = []
  const drains: Drain[] = []
  const pair = new VethPair(1)
  try {
    for (let run = 1; run <= runs; run++) {
      for (const contestant of CONTESTANTS.filter((c) => c.missing === undefined)) {
        for (const scene of contestant.scenes) {
          const f = await flow(pair, contestant, seconds, scene)
          flows.push(f)
          const rates = `${thousands(f.receivedRate)} of ${thousands(f.sentRate)} k/s`
          console.error(
            `run ${run}/${runs} ${f.backend} ${f.contestant} ${scene}: ${rates}, ${f.cpuNanos.toFixed(0)} ns CPU`,
          )
        }
      }
      for (let turn = 0; turn < DRAINS; turn++) {
        for (const backend of BACKENDS) {
          for (const stage of STAGES) drains.push(await drain(pair, backend, stage, DRAINED))
        }
      }
    }
  } finally {
    pair.close()
  }
  return { flows, drains }
}

/** The columns that every table shows. */
const figures = (r: FlowRow | RateRow) => ({
  backend: r.backend,
  receiver: r.contestant,
  'k/s': thousands(r.receivedRate),
  'of sent %': Number((r.share * 100).toFixed(1)),
  'CPU ns': Math.round(r.cpuNanos),
})

/** Formats a ratio of Millrace to a contestant; Millrace itself has none. */
const ratio = (r: FlowRow | RateRow, value: number) => (r.contestant === 'millrace' ? '' : value.toFixed(2))

const thousands = (rate: number) => Math.round(rate / 1000)

function print(
  rows: readonly FlowRow[],
  crowded: readonly RateRow[],
  merged: readonly RateRow[],
  stages: readonly StageRow[],
  targets: readonly Verdict[],
  skipped: readonly string[],
): void {
  console.table(
    rows.map((r) => ({
      ...figures(r),
      'millrace arrived ÷': ratio(r, r.shareRatio),
      'millrace CPU ÷': ratio(r, r.cpuRatio),
      limit: r.senderLimited ? 'sender' : 'receiver',
    })),
  )
  console.log('Sender and receiver on one CPU, which is then the limit:')
  printRates(crowded)
  console.log('Bursts that arrive as one packet each, as after the GRO of a NIC:')
  printRates(merged)
  console.log('Where the nanoseconds of a datagram go (CPU of the receive thread, emptying a full ring):')
  const round = ({ backend, ...parts }: StageRow) =>
    Object.fromEntries(Object.entries(parts).map(([name, ns]) => [name, Number(ns.toFixed(1))]))
  console.table(Object.fromEntries(stages.map((s) => [s.backend, round(s)])))
  for (const t of targets) {
    const limit = t.senderLimited ? '; the sender was the limit' : ''
    console.log(
      `${t.met ? 'met   ' : 'missed'} ${t.target}: ${t.measured.toFixed(2)}, CPU per datagram × ${t.cpuRatio.toFixed(2)}${limit}`,
    )
  }
  for (const reason of skipped) console.log(`skipped: ${reason}`)
}

function printRates(rows: readonly RateRow[]): void {
  console.table(
    rows.map((r) => ({
      ...figures(r),
      'millrace rate ÷': ratio(r, r.rateRatio),
    })),
  )
}
