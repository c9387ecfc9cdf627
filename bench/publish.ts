import { mkdirSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { connect } from 'nats'
import { FakeLane } from '../rig/lane.js'
import { startNats } from '../rig/nats.js'
import { loadConfig, readHostInfo } from '../src/config/index.js'
import { Publisher } from '../src/publisher/publisher.js'
import type { Batch } from '../src/queue/batch.js'
import { Counters } from '../src/queue/counters.js'
import { median } from './pipeline/summary.js'

/** Bytes that may be sent and not taken by the server, for every contestant: MILLRACE_WINDOW_BYTES by default. */
const WINDOW_BYTES = 4 << 20
/** Batches published between two turns of the event loop. */
const BATCHES_A_TURN = 8
const SUBJECT = 'bench.publish'

/** Publishes `count` datagrams and resolves when the server has taken all of them. */
type Contestant = Readonly<{
  name: string
  publish(batch: Batch, count: number): Promise<void>
  close(): Promise<void>
}>

/** With nats.js one would write this: it publishes a message for each datagram and flushes once a window. */
async function natsJs(url: string): Promise<Contestant> {
  const client = await connect({ servers: url, noEcho: true })
  return {
    name: 'nats.js, raw',
    async publish(batch, count) {
      let bytes = 0
      for (let sent = 0; sent < count; sent += batch.length) {
        for (let i = 0; i < batch.length; i++) {
          client.publish(SUBJECT, batch.copy(i))
          bytes += batch.size(i)
        }
        if (bytes < WINDOW_BYTES) continue
        bytes = 0
        await client.flush()
      }
      await client.flush()
    },
    close: () => client.close(),
  }
}

async function ours(url: string, format: 'raw' | 'records' | 'columns'): Promise<Contestant> {
  const config = loadConfig(
    { NATS_URL: url, MILLRACE_FORMAT: format, MILLRACE_SUBJECT: SUBJECT },
    readHostInfo(),
  ).publisher
  const counters = new Counters()
  let resume: (() => void) | undefined
  const log = { info: () => undefined, warn: console.error, error: console.error }
  const hooks = { onReady: () => resume?.(), log }
  const publisher = new Publisher({ ...config, name: 'bench', node: 'bench', queue: 0 }, counters, hooks)
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
  while (counters.get('connected') === 0) await turn()
  return {
    name: `millrace, ${format}`,
    async publish(batch, count) {
      for (let sent = 0; sent < count; ) {
        if (!publisher.ready) {
          await new Promise<void>((resolve) => {
            resume = resolve
          })
        }
        for (let k = 0; k < BATCHES_A_TURN && sent < count && publisher.ready; k++) {
          publisher.forward(batch)
          sent += batch.length
        }
        publisher.turn()
        await turn()
      }
      while (counters.get('taken') < counters.get('emitted')) {
        publisher.turn()
        await turn()
      }
    },
    close: () => publisher.close(),
  }
}

/** Adds the command `publish`. */
export function addPublish(program: Command): void {
  program
    .command('publish')
    .description('CPU of this process for each datagram published to a nats-server, against nats.js')
    .option('--rounds <n>', 'rounds; in each every contestant runs once, and a figure is the median', '5')
    .option('--count <n>', 'datagrams of one round', '500000')
    .option('--bytes <n>', 'bytes of a datagram', '100')
    .option('--out <folder>', 'where publish.json goes', 'bench/results')
    .action(async (options: { rounds: string; count: string; bytes: string; out: string }) => {
      const [rounds, count, bytes] = [Number(options.rounds), Number(options.count), Number(options.bytes)]
      const server = await startNats()
      const lane = new FakeLane(256, 1 << 20)
      for (let i = 0; i < 256; i++) lane.put({ payload: new Uint8Array(bytes).fill(i) })
      const batch = lane.take()
      const contestants = [
        await natsJs(server.url),
        await ours(server.url, 'raw'),
        await ours(server.url, 'records'),
        await ours(server.url, 'columns'),
      ]
      const figures = new Map<string, number[]>(contestants.map(({ name }) => [name, []]))
      // The first round warms up and is not counted.
      for (let round = 0; round <= rounds; round++) {
        for (const { name, publish } of contestants) {
          const before = process.cpuUsage()
          await publish(batch, count)
          const { user, system } = process.cpuUsage(before)
          if (round > 0) figures.get(name)!.push(((user + system) * 1000) / count)
        }
      }
      for (const { close } of contestants) await close()
      await server.stop()
      const reference = median(figures.get(contestants[0]!.name)!)
      const rows = [...figures].map(([name, nanos]) => ({
        name,
        nsPerDatagram: Math.round(median(nanos)),
        against: Number((reference / median(nanos)).toFixed(1)),
        figures: nanos.map(Math.round),
      }))
      mkdirSync(options.out, { recursive: true })
      writeFileSync(
        `${options.out}/publish.json`,
        `${JSON.stringify({ bench: 'publish', bytes, count, rows }, null, 2)}\n`,
      )
      console.table(
        rows.map(({ name, nsPerDatagram, against }) => ({
          publisher: name,
          'CPU ns a datagram': nsPerDatagram,
          'cheaper than nats.js': `${against} ×`,
        })),
      )
    })
}
