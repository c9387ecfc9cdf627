import { mkdirSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { FakeLane } from '../rig/lane.js'
import { median } from './pipeline/summary.js'

/** Adds the command `handler`. */
export function addHandler(program: Command): void {
  program
    .command('handler')
    .description('JavaScript time to read four fields of each datagram of a batch')
    .option('--runs <n>', 'runs; the figure is their median', '7')
    .option('--out <folder>', 'where handler.json goes', 'bench/results')
    .action((options: { runs: string; out: string }) => {
      const figures = Array.from({ length: Number(options.runs) }, run)
      const result = { bench: 'handler', nsPerDatagram: Number(median(figures).toFixed(2)), figures }
      mkdirSync(options.out, { recursive: true })
      writeFileSync(
        `${options.out}/handler.json`,
        `${JSON.stringify(result, null, 2)}
`,
      )
      console.log(JSON.stringify(result))
    })
}

const ROUNDS = 20_000
const BATCH = 256

/** Returns the nanoseconds per datagram for reading a u32 and a u16 of the payload, the source port and the length. */
function run(): number {
  const lane = new FakeLane(1024, 1 << 17)
  const payload = Buffer.alloc(100)
  for (let i = 0; i < BATCH; i++) {
    payload.writeUInt32BE(i, 0)
    lane.put({ payload })
  }
  const batch = lane.take()
  let sum = 0
  const started = process.hrtime.bigint()
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < batch.length; i++) {
      sum += batch.u32(i, 0) + batch.u16(i, 8) + batch.srcPort(i) + batch.size(i)
    }
  }
  const nanos = Number(process.hrtime.bigint() - started)
  if (sum === 0) throw new Error('the loop was optimised away')
  return nanos / (ROUNDS * BATCH)
}
