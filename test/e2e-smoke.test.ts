/** The whole path on loopback, as any user: UDP sockets → rules → two queues → NATS → every byte checked. */
import t from 'tap'
import { blast } from '../rig/blast.js'
import { totals } from '../rig/books.js'
import { freeUdpPort } from '../rig/ports.js'
import { testbed } from '../rig/testbed.js'

// Tap's 30 s are for unit tests.
t.setTimeout(240_000)

for (const format of ['raw', 'records', 'columns'] as const) {
  void t.test(`10,000 datagrams over loopback as ${format}`, async (t) => {
    const port = await freeUdpPort()
    const s = await testbed({ backend: 'socket', wire: false, queues: 2, format, port })
    t.teardown(() => s.close())
    const report = await blast(s.sender, {
      to: s.target,
      count: 10_000,
      rate: 10_000,
      size: '0..1472',
      flows: 8,
    }).done
    t.equal(report.sent, 10_000)
    await s.subscriber.settled(10_000)
    const account = await s.subscriber.against({ count: 10_000, low: 0, high: 1472 })
    t.match(account, {
      received: 10_000,
      missing: 0,
      duplicates: 0,
      corrupt: 0,
      misplaced: 0,
      split: 0,
      faults: [],
    })
    const ended = await s.service.stop()
    t.equal(ended.code, 0, s.service.lastOutput())
    const { received, dropped } = totals(ended)
    t.equal(received, 10_000)
    t.same(dropped, {})
  })
}
