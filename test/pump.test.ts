/** The pump over lanes written as Rust writes them: batches, order, budgets, leases, and what a death leaves behind. */
import t from 'tap'
import { fakeQueue } from '../rig/lane.js'
import { LAYOUT } from '../src/generated/layout.js'
import type { Batch } from '../src/queue/batch.js'
import { Counters } from '../src/queue/counters.js'
import type { Handler } from '../src/queue/handler.js'
import { queueControl } from '../src/queue/lane.js'
import { recoverQueue } from '../src/service/recovery.js'
import { Pump, type PumpOut } from '../src/worker/pump.js'

class FakeOut implements PumpOut {
  ready = true
  turns = 0
  turn() {
    this.turns++
  }
  forward() {}
  publish() {}
  emit() {}
}

function rig(handle: Handler['handle'], options: { batch?: number; poison?: boolean; lanes?: number } = {}) {
  const queue = fakeQueue(options.lanes ?? 1)
  const counters = new Counters()
  const out = new FakeOut()
  const failures: unknown[] = []
  const control = queueControl(queue.memory, queue.plan)
  const lanes = queue.lanes.map((l) => l.lane)
  const pump = new Pump(control, lanes, 3, { handle }, out, counters, {
    batch: options.batch ?? 1024,
    poison: options.poison ?? false,
    onFailure: (error) => failures.push(error),
  })
  const put = (lane: number, ...texts: string[]) => {
    for (const text of texts) queue.lanes[lane]!.put({ payload: Buffer.from(text) })
  }
  const armed = () => Atomics.load(control, LAYOUT.armedOffset / 4)
  return { ...queue, counters, out, failures, control, pump, put, armed }
}

const texts = (batch: Batch) => [...batch].map((i) => batch.payload(i).toString())
const ticks = () => new Promise((resolve) => setImmediate(resolve))

void t.test('drains in order, in batches, and sleeps when there is nothing', async (t) => {
  const seen: string[][] = []
  const r = rig((batch) => void seen.push(texts(batch)), { batch: 2 })
  r.pump.run()
  t.equal(r.armed(), 1, 'asleep')
  r.put(0, 'a', 'b', 'c', 'd', 'e')
  r.pump.wake()
  t.same(seen, [['a', 'b'], ['c', 'd'], ['e']])
  t.equal(r.counters.get('handled'), 5)
  t.equal(r.counters.get('batches'), 3)
  t.equal(r.counters.get('wakeups'), 1)
  t.equal(r.lanes[0]!.lane.ready(9), 0, 'released')
  t.ok(r.out.turns >= 2, 'the publisher got its turn')
})

void t.test('lanes take turns, so that a busy one cannot starve another', async (t) => {
  const seen: string[] = []
  const r = rig((batch) => void seen.push(...texts(batch)), { batch: 1, lanes: 2 })
  r.put(0, 'a1', 'a2', 'a3')
  r.put(1, 'b1', 'b2')
  r.pump.run()
  t.same(seen, ['a1', 'b1', 'a2', 'b2', 'a3'])
})

void t.test('an async handler keeps its batch until it settles, and the next one waits', async (t) => {
  let settle = () => {}
  const seen: string[] = []
  const r = rig(async (batch) => {
    seen.push(...texts(batch))
    await new Promise<void>((resolve) => {
      settle = resolve
    })
    seen.push(`still ${texts(batch)}`)
  })
  r.put(0, 'first')
  r.pump.run()
  r.put(0, 'second')
  r.pump.run()
  await ticks()
  t.same(seen, ['first'])
  t.equal(r.lanes[0]!.lane.ready(9), 2, 'nothing released')
  settle()
  await ticks()
  t.same(seen, ['first', 'still first', 'second'])
  settle()
  await ticks()
  t.equal(r.counters.get('handled'), 2)
  t.equal(r.armed(), 1)
})

for (const kind of ['sync', 'async'] as const) {
  void t.test(`a ${kind} handler under endless load leaves the event loop its turns`, async (t) => {
    const put = () => {
      for (let i = 0; i < 500; i++) r.put(0, 'x')
    }
    const handle = () => put()
    const r = rig(kind === 'sync' ? handle : async () => handle(), { batch: 500 })
    let rounds = 0
    put()
    r.pump.run()
    // Only the event loop can stop it.
    while (rounds < 20) {
      await ticks()
      rounds++
    }
    t.ok(r.counters.get('handled') > 10_000)
    r.out.ready = false
  })
  void t.test(`what a ${kind} handler throws costs the batch only`, async (t) => {
    let calls = 0
    const fail = () => {
      calls++
      if (calls === 1) throw new Error('no')
    }
    const r = rig(kind === 'sync' ? fail : async () => fail(), { batch: 2 })
    r.put(0, 'a', 'b', 'c')
    r.pump.run()
    await ticks()
    t.match(r.failures, [{ message: 'no' }])
    t.match(r.counters.snapshot(), { handled: 1, failed: 2, failedBatches: 1, batches: 1 })
    t.equal(r.lanes[0]!.lane.ready(9), 0)
  })
}

void t.test('stops while the publisher is not ready, and goes on when it is', async (t) => {
  const r = rig(
    () => {
      r.out.ready = false
    },
    { batch: 1 },
  )
  r.put(0, 'a', 'b')
  r.pump.run()
  t.equal(r.counters.get('handled'), 1)
  t.equal(r.armed(), 0, 'not asleep: the publisher will call, a receive thread need not')
  r.out.ready = true
  r.pump.run()
  t.equal(r.counters.get('handled'), 2)
})

void t.test('emptied resolves when the lanes are', async (t) => {
  const r = rig(async () => {}, { batch: 1 })
  r.put(0, 'a', 'b', 'c')
  await r.pump.emptied()
  t.equal(r.counters.get('handled'), 3)
})

void t.test('poison shows a view that was kept too long', async (t) => {
  const kept: Buffer[] = []
  let batch!: Batch
  const r = rig(
    (b) => {
      batch = b
      kept.push(b.payload(0))
    },
    { poison: true },
  )
  r.put(0, 'secret')
  r.pump.run()
  t.same(kept[0], Buffer.alloc(6, 0xde))
  t.equal(batch.length, 0, 'and a batch that was kept is empty')
})

void t.test('a reader beyond the payload throws and names the datagram', async (t) => {
  const r = rig((b) => {
    t.equal(b.u16(0, 0), 0x6162)
    t.throws(() => b.u16(0, 2), {
      code: 'MILLRACE_E_RANGE',
      message: /2 byte\(s\) at offset 2 of datagram 0, which has 3/,
    })
    t.throws(() => b.u8(0, -1), { code: 'MILLRACE_E_RANGE' })
    t.equal(b.srcAddress(0), '10.0.0.1')
    t.equal(b.srcIPv4(0), 0x0a000001)
    t.equal(b.receivedAt(0), 1_700_000_000_000_000)
  })
  r.put(0, 'abc')
  r.pump.run()
  t.same(r.failures, [])
  t.equal(r.counters.get('handled'), 1)
})

void t.test('a death at any step loses no datagram from the books and repeats none', async (t) => {
  // What the worker had written down when it died, from taking the batch to having counted it.
  const deaths: Record<string, (r: ReturnType<typeof rig>) => void> = {
    'before it took anything': () => {},
    'in the handler': (r) => lease(r),
    'after release, before the lease ended': (r) => {
      lease(r)
      r.lanes[0]!.lane.release(2)
    },
    'after the lease ended, before it was counted': (r) => r.lanes[0]!.lane.release(2),
    'after it was counted': (r) => {
      r.lanes[0]!.lane.release(2)
      r.counters.add('handled', 2)
    },
  }
  function lease(r: ReturnType<typeof rig>) {
    Atomics.store(r.control, LAYOUT.leasedStartOffset / 4, r.lanes[0]!.lane.next)
    Atomics.store(r.control, LAYOUT.leasedCountOffset / 4, 2)
    Atomics.store(r.control, LAYOUT.leasedLaneOffset / 4, 1)
  }
  for (const [when, die] of Object.entries(deaths)) {
    const r = rig(() => {})
    r.put(0, 'a', 'b', 'c')
    r.counters.add('emitted', 5)
    r.counters.add('taken', 3)
    die(r)
    const settled = recoverQueue(r.memory, r.plan, r.counters)
    const gone = when === 'before it took anything' ? 0 : 2
    t.equal(r.counters.get('handled') + r.counters.get('failed'), gone, when)
    t.equal(settled.unconfirmed, 2, when)
    t.match(
      recoverQueue(r.memory, r.plan, r.counters),
      { failed: 0, unconfirmed: 0 },
      `${when}, settled once`,
    )
    // The next worker gets exactly the rest.
    const next = rigOn(r)
    next.run()
    t.equal(r.counters.get('handled') + r.counters.get('failed'), 3, `${when}, then the next worker`)
  }
  function rigOn(r: ReturnType<typeof rig>) {
    const lanes = r.fresh()
    const control = queueControl(r.memory, r.plan)
    const options = { batch: 9, poison: false, onFailure: () => {} }
    return new Pump(control, lanes, 3, { handle: () => {} }, r.out, r.counters, options)
  }
})
