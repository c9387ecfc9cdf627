/**
 * Wire to NATS: on every backend 100,000 numbered datagrams of every size from 0 to 1472 arrive on the queue their
 * payload says, byte for byte, once each. Sent at a modest pace, because what is shown here is that nothing is lost on
 * the way, not how much fits.
 */
import t from 'tap'
import { blast } from '../rig/blast.js'
import { totals } from '../rig/books.js'
import { privileged } from '../rig/netns.js'
import { DEEP_RINGS, testbed } from '../rig/testbed.js'

// Tap's 30 s are for unit tests.
t.setTimeout(240_000)

const COUNT = 100_000
const RATE = 20_000
const RUNS = [
  { backend: 'xdp', format: 'raw', family: 6 },
  { backend: 'xdp', format: 'records', family: 4 },
  { backend: 'xdp', format: 'columns', family: 4 },
  { backend: 'packet', format: 'raw', family: 4 },
  { backend: 'packet', format: 'records', family: 6 },
  { backend: 'packet', format: 'columns', family: 4 },
  { backend: 'socket', format: 'raw', family: 4 },
  { backend: 'socket', format: 'records', family: 4 },
  { backend: 'socket', format: 'columns', family: 6 },
] as const

for (const run of RUNS) {
  void t.test(`${run.backend}, ${run.format}, IPv${run.family}`, async (t) => {
    if (!privileged(t)) return
    const s = await testbed({ ...run, env: DEEP_RINGS })
    t.teardown(() => s.close())
    if (run.backend === 'xdp') t.ok(s.pair?.xdpAttached(), 'an XDP program is on the interface')
    const report = await blast(s.sender, {
      to: s.target,
      count: COUNT,
      rate: RATE,
      size: '0..1472',
      flows: 32,
    }).done
    t.match(report, { sent: COUNT, interface_tx_dropped: 0 })

    await s.subscriber.settled(COUNT)
    const account = await s.subscriber.against({ count: COUNT, low: 0, high: 1472 })
    t.match(account, {
      received: COUNT,
      missing: 0,
      duplicates: 0,
      corrupt: 0,
      misplaced: 0,
      split: 0,
    })
    t.same(account.faults, [])

    const ended = await s.service.stop()
    t.equal(ended.code, 0, 'SIGTERM drains and exits 0')
    const books = totals(ended)
    t.match(books, { backend: run.backend, received: COUNT, handled: COUNT, taken: COUNT })
    t.same(books.dropped, {})
    if (run.backend === 'xdp') {
      t.match(books.mode, /native/)
      t.notOk(s.pair?.xdpAttached(), 'no XDP program is left')
    }
    // Once more than necessary, because it is what the issue promises: nothing came after the books were closed.
    t.equal(s.subscriber.account?.received, COUNT)
  })
}
