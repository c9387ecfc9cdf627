import { mkdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { blast } from '../rig/blast.js'
import { testbed } from '../rig/testbed.js'
import { loadConfig } from '../src/config/index.js'
import { memoryBound } from './memory-bound.js'
import { cpuMicros } from './process.js'

/** Adds the command `footprint`. */
export function addFootprint(program: Command): void {
  program
    .command('footprint')
    .description('CPU of an idle service, and its memory under overload against the documented bound')
    .option('--settle <s>', 'how long it is let alone before: V8 compiles and collects until then', '30')
    .option('--seconds <s>', 'how long it idles, and how long it is flooded', '10')
    .option('--queues <n>', 'queues', '2')
    .option('--out <folder>', 'where footprint.json goes', 'bench/results')
    .action(footprint)
}

interface Options {
  settle: string
  seconds: string
  queues: string
  out: string
}

async function footprint(options: Options): Promise<void> {
  if (process.geteuid?.() !== 0) {
    console.error('the footprint bench makes network namespaces: run it as root')
    process.exitCode = 2
    return
  }
  const rows = []
  for (const backend of ['xdp', 'packet', 'socket'] as const) rows.push(await measure(backend, options))
  mkdirSync(options.out, { recursive: true })
  writeFileSync(
    `${options.out}/footprint.json`,
    `${JSON.stringify({ bench: 'footprint', options, rows }, null, 2)}\n`,
  )
  console.table(Object.fromEntries(rows.map(({ backend, ...row }) => [backend, row])))
}

async function measure(backend: 'xdp' | 'packet' | 'socket', options: Options) {
  const queues = Number(options.queues)
  const seconds = Number(options.seconds)
  const env = { MILLRACE_RX_THREADS: queues, MILLRACE_FORMAT: 'columns' }
  const s = await testbed({ backend, queues, format: 'columns', verify: false, rules: 'mod(u32[0])', env })
  try {
    await sleep(Number(options.settle) * 1000)
    const before = cpuMicros(s.service.pid)
    await sleep(seconds * 1000)
    const idlePercent = (cpuMicros(s.service.pid) - before) / (seconds * 1e4)
    // Large datagrams of many flows fill every lane and touch every page.
    await blast(s.sender, { to: s.target, seconds, size: '1400', flows: 64, via: 'socket' }).done
    const { peak } = s.service.memory()
    const config = loadConfig(Object.fromEntries(Object.entries(s.env).map(([k, v]) => [k, String(v)])), {
      cpus: [0, 1, 2, 3],
      hostname: 'bench',
    })
    const bound = memoryBound(config.engine, config.publisher, backend, queues, backend !== 'socket')
    const mib = (bytes: number) => Math.round(bytes / 1024 / 1024)
    return {
      backend,
      idlePercent: Number(idlePercent.toFixed(2)),
      peakMiB: mib(peak),
      boundMiB: mib(bound.total),
      peakOfBound: Number((peak / bound.total).toFixed(2)),
    }
  } finally {
    await s.service.stop()
    await s.close()
  }
}
