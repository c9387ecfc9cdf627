/** The arithmetic of the receive bench: ratios to contestants, and the cost of a stage. */
import t from 'tap'
import type { Drain, Flow } from '../bench/receive/run.js'
import { flowRows, rateRows, stageRows, verdicts } from '../bench/receive/summary.js'

const run = (backend: Flow['backend'], contestant: string, received: number, cpuNanos: number): Flow => ({
  ...{ backend, contestant, received, cpuNanos, sent: 1000, sentRate: 1000 },
  ...{ receivedRate: received, wireDropped: 0, scene: 'apart' },
})

t.test('rates are compared at the same offered rate, medians of the runs', async (t) => {
  const flows = [
    ...[800, 900, 100].map((n) => run('xdp', 'millrace', n, 50)),
    ...[1000, 1000, 1000].map((n) => run('xdp', 'count', n, 25)),
  ]
  const rows = flowRows(flows)
  t.match(rows[1], { contestant: 'count', share: 1, shareRatio: 0.8, cpuRatio: 2, senderLimited: true })
  t.match(verdicts(rows), [{ needed: 0.9, measured: 0.8, met: false, senderLimited: false }])
})

t.test('among equals the one that takes less CPU is the better', async (t) => {
  const flows = [
    run('packet', 'millrace', 1000, 90),
    run('packet', 'tcpdump', 1000, 60),
    run('packet', 'netsniff-ng', 999, 30),
  ]
  t.match(verdicts(flowRows(flows)), [{ needed: 1, met: true, cpuRatio: 3, senderLimited: true }])
})

t.test('on one CPU rates are compared run by run', async (t) => {
  const crowded = (contestant: string, rates: number[]) =>
    rates.map((rate) => ({ ...run('socket', contestant, rate, 1), scene: 'oneCpu' as const }))
  const flows = [...crowded('millrace', [90, 45, 80]), ...crowded('count', [100, 50, 100])]
  t.match(rateRows(flows, 'oneCpu')[1], { contestant: 'count', receivedRate: 100, rateRatio: 0.9 })
  t.strictSame(flowRows(flows), [], 'they are no part of the other comparison')
})

t.test('a stage costs what it adds', async (t) => {
  const drain = (stage: Drain['stage'], cpuNanos: number): Drain => ({
    ...{ backend: 'xdp', stage, cpuNanos },
    ...{ datagrams: 1, publishNanos: stage === 'lanes' ? 1 : 0 },
  })
  const rows = stageRows([drain('count', 2), drain('parse', 30), drain('rules', 40), drain('lanes', 61)])
  t.strictSame(rows, [{ backend: 'xdp', rx: 2, parse: 28, rules: 10, copy: 20, publish: 1, total: 61 }])
})
