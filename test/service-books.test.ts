import t from 'tap'
import { COUNTER_ROLES, COUNTERS, type CounterRole, DROPS } from '../src/queue/counters.js'
import { booksTable, closeBooks, reasonText } from '../src/service/books.js'
import { FAMILIES } from '../src/service/families.js'
import { type OpenSnapshot, snapshot } from './service-fake.test.js'

t.test('sums', async (t) => {
  t.same(closeBooks(snapshot()), {
    received: 135,
    scattered: 117,
    dropped: { rule: 11, queue_full: 2, rule_early: 5 },
    handled: 115,
    failed: 2,
    queued: 0,
    emitted: 115,
    taken: 109,
    publisherDropped: { disconnected: 4, unconfirmed: 0, oversize: 2, overrun: 0, shutdown: 0 },
    inFlight: 0,
    kernelLost: { rx_ring_full: 10 },
    balanced: true,
    discrepancies: [],
  })
  t.equal(reasonText('queueFull'), 'queue_full')
})

/** What the books say after one change to a snapshot that balances. */
function after(change: (snap: OpenSnapshot) => void): readonly string[] {
  const snap = snapshot()
  change(snap)
  const { balanced, discrepancies } = closeBooks(snap)
  if (balanced !== (discrepancies.length === 0)) throw new Error('balanced and discrepancies disagree')
  return discrepancies
}

t.test('received = scattered + dropped', async (t) => {
  t.same(
    after((s) => s.engine.threads[1]!.received++),
    ['thread 1: received 31 is not scattered 27 + dropped rule 2 + dropped queue_full 1'],
  )
  t.same(
    after((s) => {
      // Two threads whose errors cancel out are still wrong.
      s.engine.threads[0]!.received++
      s.engine.threads[1]!.received--
    }).length,
    2,
  )
  t.same(
    after((s) => s.engine.queues[0]!.queueFull++),
    ['queues: dropped queue_full 2 is not sum of queues 3'],
  )
})

t.test('scattered = handled + failed + queued', async (t) => {
  t.same(
    after((s) => s.workers[0]!.counters.handled--).filter((d) => d.startsWith('queue ')),
    ['queue 0: scattered 80 is not handled 78 + failed 1 + queued 0'],
  )
  const moved = after((s) => {
    s.engine.queues[0]!.depth = 9
    s.workers[0]!.counters.handled -= 9
    s.workers[0]!.counters.emitted -= 9
    s.workers[0]!.counters.taken -= 9
  })
  t.same(moved, [], 'what is queued is accounted for')
  t.equal(after((s) => s.workers.pop()).length, 1, 'a queue without a worker handled nothing')
})

t.test('emitted = taken + dropped + in flight', async (t) => {
  const flying = (s: OpenSnapshot) => {
    s.workers[1]!.counters.taken -= 5
    s.workers[1]!.counters.inFlightBytes = 500
  }
  t.same(after(flying), [], 'results in flight are accounted for')
  const snap = snapshot()
  flying(snap)
  t.equal(closeBooks(snap).inFlight, 5)
  t.match(
    after((s) => {
      flying(s)
      s.workers[1]!.state = 'stopped'
    })[0],
    'publisher 1: emitted 36 is not taken 28',
    'nothing is in flight once the worker has stopped',
  )
  t.equal(after((s) => s.workers[1]!.counters.taken--).length, 1, 'in flight without bytes in flight is lost')
  t.equal(after((s) => s.workers[1]!.counters.taken++).length, 1, 'more taken than emitted')
  t.same(
    after((s) => {
      s.workers[0]!.counters.taken -= 4
      s.workers[0]!.counters.droppedUnconfirmed += 3
      s.workers[0]!.counters.droppedShutdown += 1
    }),
    [],
    'every reason counts',
  )
})

t.test('every counter has the role that its name says, and each role the books need has one', async (t) => {
  const named = (role: CounterRole['role']) =>
    COUNTERS.filter((name) => (COUNTER_ROLES[name] as CounterRole).role === role)
  for (const role of ['handled', 'failed', 'emitted', 'taken'] as const) t.same(named(role), [role])
  t.same(
    DROPS.map(({ counter, reason }) => [counter, `dropped${reason[0]!.toUpperCase()}${reason.slice(1)}`]),
    COUNTERS.filter((name) => name.startsWith('dropped')).map((name) => [name, name]),
    'each counter of drops has the role of its reason, and no other one has',
  )
  t.ok(DROPS.length >= 5)
})

t.test('a result that is dropped for any reason is in the books and in the metrics', async (t) => {
  const family = FAMILIES.find(({ name }) => name === 'dropped_results_total')!
  for (const { counter, reason, help } of DROPS) {
    const before = closeBooks(snapshot())
    const snap = snapshot()
    snap.workers[0]!.counters.emitted += 7
    snap.workers[0]!.counters[counter] += 7
    const books = closeBooks(snap)
    t.same(books.discrepancies, [], reason)
    t.equal(books.publisherDropped[reason], before.publisherDropped[reason]! + 7)
    t.match(family.help, help)
    t.ok(
      family.read(snap).some(([labels, n]) => labels['reason'] === reason && n >= 7),
      `${reason} is a label`,
    )
  }
})

t.test('every counter of a worker reaches a metric', async (t) => {
  const samples = (snap: OpenSnapshot) =>
    JSON.stringify(FAMILIES.map(({ read }) => read(snap).filter(([{ queue }]) => queue === 0)))
  for (const counter of COUNTERS) {
    const snap = snapshot()
    snap.workers[0]!.counters[counter] += 1e9
    t.not(samples(snap), samples(snapshot()), counter)
  }
})

t.test('table', async (t) => {
  const text = booksTable(closeBooks(snapshot()))
  t.match(text, /^received {2,}135$/m)
  t.match(text, /^ {2}dropped \(queue_full\) {2,}2$/m)
  t.notMatch(text, 'shutdown', 'reasons that never occurred are left out')
  t.match(text, /the books balance$/)
  const snap = snapshot()
  snap.engine.threads[0]!.received = 1
  t.match(booksTable(closeBooks(snap)), /DO NOT BALANCE\nthread 0: /)
})
