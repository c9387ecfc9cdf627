/** What the rules of a datagram are called, when rules are reloaded while datagrams wait. */
import { setImmediate as turn } from 'node:timers/promises'
import { MessageChannel } from 'node:worker_threads'
import t from 'tap'
import { FakeLane } from '../rig/lane.js'
import { Batch } from '../src/queue/batch.js'
import { Generations, MAX_GENERATIONS, MAX_NAMES, RuleNames, UNKNOWN_RULE } from '../src/queue/rule-names.js'

t.test('each datagram has the name that its own rules give it', async (t) => {
  const { port1, port2 } = new MessageChannel()
  t.teardown(() => port1.close())
  const names = new RuleNames([{ number: 1, names: ['a', 'b'] }], port2)
  const lane = new FakeLane()
  const batch = new Batch(0, names)
  const payload = Buffer.from('x')
  lane.put({ payload, rule: 1, generation: 1 })
  lane.put({ payload, rule: 1, generation: 2 })
  lane.put({ payload, rule: 0, generation: 1 })
  lane.put({ payload, rule: 0, generation: 3 })
  batch.point(lane.lane, 0, 4)
  // Announced, and asked for within the same turn of the event loop.
  port1.postMessage({ number: 2, names: ['c', 'd', 'e'] })
  port1.postMessage({ number: 3, names: ['f'] })
  t.same(
    [0, 1, 2, 3].map((i) => batch.ruleName(i)),
    ['b', 'd', 'a', 'f'],
  )
})

t.test('a generation announced again, because its reload failed, has the later names', async (t) => {
  const { port1, port2 } = new MessageChannel()
  t.teardown(() => port1.close())
  const names = new RuleNames([{ number: 1, names: ['a'] }], port2)
  port1.postMessage({ number: 2, names: ['never'] })
  t.equal(names.name(1, 0), 'a')
  port1.postMessage({ number: 2, names: ['b'] })
  t.equal(names.name(2, 0), 'b')
  t.equal(names.name(1, 0), 'a')
})

t.test('what is forgotten is no wrong name, and nothing piles up', async (t) => {
  const { port1, port2 } = new MessageChannel()
  t.teardown(() => port1.close())
  const names = new RuleNames([{ number: 1, names: ['first'] }], port2)
  t.equal(names.name(1, 0), 'first')
  t.equal(names.name(2, 0), UNKNOWN_RULE, 'not announced')
  t.equal(names.name(1, 9), UNKNOWN_RULE, 'no such rule')
  for (let number = 2; number <= MAX_GENERATIONS + 1; number++)
    port1.postMessage({ number, names: [`n${number}`] })
  // Nobody asks: the event loop alone takes them off the port.
  for (let i = 0; i < 2 * MAX_GENERATIONS; i++) await turn()
  t.equal(names.name(2, 0), 'n2')
  t.equal(names.name(1, 0), UNKNOWN_RULE)
  t.equal(names.name(MAX_GENERATIONS + 1, 0), `n${MAX_GENERATIONS + 1}`)
  // A descriptor holds 16 bits of the number.
  port1.postMessage({ number: 2 ** 16 + 2, names: ['wrapped'] })
  t.equal(names.name(2, 0), 'wrapped')
})

t.test('names are bounded in all, but for the two newest generations', async (t) => {
  const known = new Generations()
  const add = (number: number, size: number) => known.add({ number, names: Array(size).fill(`n${number}`) })
  const numbers = () => known.list.map(({ number }) => number)
  add(1, 10)
  add(2, MAX_NAMES / 2)
  add(3, MAX_NAMES / 2 - 10)
  t.same(numbers(), [1, 2, 3], 'just as many as may be')
  add(4, 1)
  t.same(numbers(), [2, 3, 4])
  t.same([known.names(1), known.names(4)], [[], ['n4']])
  add(5, MAX_NAMES)
  add(6, MAX_NAMES)
  t.same(numbers(), [5, 6])
  t.equal(new RuleNames(known.list).name(5, MAX_NAMES - 1), 'n5')
  // However often a reload fails, it takes one place, and what it held is free again.
  for (let k = 0; k <= MAX_GENERATIONS; k++) add(7, MAX_NAMES)
  t.same(numbers(), [6, 7])
  add(7, 1)
  add(8, 1)
  t.same(numbers(), [7, 8])
  for (let number = 9; number <= 12; number++) add(number, MAX_NAMES / 4 - 1)
  t.same(numbers(), [7, 8, 9, 10, 11, 12])
})
