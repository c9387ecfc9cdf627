/**
 * More than fits: five seconds as fast as the sender can into rings made small. Losing is right then; losing count is
 * not. Every datagram sent is either with the subscriber or in exactly one drop counter, kernel drops included.
 */
import t from 'tap'
import { blast } from '../rig/blast.js'
import { sumOf, totals } from '../rig/books.js'
import { privileged } from '../rig/netns.js'
import { testbed } from '../rig/testbed.js'

// Tap's 30 s are for unit tests.
t.setTimeout(240_000)

const SMALL = {
  MILLRACE_LANE_SLOTS: 256,
  MILLRACE_LANE_BYTES: 65_536,
  MILLRACE_XDP_FRAMES: 512,
  MILLRACE_PACKET_BLOCK_BYTES: 131_072,
  MILLRACE_PACKET_BLOCKS: 4,
  MILLRACE_SOCKET_RCVBUF: 65_536,
}
/** Far above what two small-ringed queues need, far below what an unbounded buffer would reach in five seconds. */
const MEMORY_LIMIT = 512 * 1024 * 1024
/** One in 16 datagrams is dropped by a rule, so that reason is in the books too. */
const RULES = 'noise: u32[0] % 16 == 15 => drop; numbered: len >= 4 => mod(u32[0]); short: else => hash(flow)'

for (const [backend, format] of [
  ['xdp', 'columns'],
  ['packet', 'records'],
  ['socket', 'raw'],
] as const) {
  void t.test(`${backend}, ${format}: unpaced for 5 s`, async (t) => {
    if (!privileged(t)) return
    const s = await testbed({ backend, format, queues: 2, rules: RULES, env: SMALL, verify: false })
    t.teardown(() => s.close())
    const report = await blast(s.sender, { to: s.target, seconds: 5, size: '100', flows: 32 }).done
    await s.subscriber.settled(report.sent, 2000)
    t.ok(s.service.memory().peak < MEMORY_LIMIT, `peak ${s.service.memory().peak} bytes`)
    const ended = await s.service.stop()
    t.equal(ended.code, 0, 'no crash, and the drain is clean')
    const account = await s.subscriber.flushed()

    const books = totals(ended)
    const wire = report.interface_tx_dropped
    const entry = { sent: report.sent, nats: account.received, dropped: books.dropped, wire }
    t.comment(JSON.stringify(entry))
    t.equal(account.received + sumOf(books.dropped) + wire, report.sent, JSON.stringify(entry))
    t.equal(account.received, books.taken, 'what the server taken is what the subscriber got')
    const { rule = 0, rule_early = 0 } = books.dropped
    t.ok(rule + rule_early > 0, 'the rule dropped its share')
    if (backend === 'xdp') t.equal(rule, 0, 'in the XDP program')
    t.ok(sumOf(books.dropped) - rule - rule_early + wire > 0, 'it was an overload')
  })
}
