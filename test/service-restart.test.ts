/** When a worker that died is started again. */
import t from 'tap'
import { RestartPolicy } from '../src/service/restart-policy.js'

t.test('pauses double up to five seconds, and the ninth death in a row is the last', async (t) => {
  const policy = new RestartPolicy()
  policy.running(0)
  const pauses = Array.from({ length: 9 }, (_, i) => policy.died(1000 * i))
  t.same(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000, undefined])
  t.equal(policy.deaths, 9)
})

t.test('a stable run makes the next death the first', async (t) => {
  const policy = new RestartPolicy()
  policy.running(0)
  policy.died(10)
  policy.running(100)
  t.equal(policy.died(30_100), 200, 'thirty seconds are not yet stable')
  policy.running(40_000)
  t.equal(policy.died(70_001), 100)
  t.equal(policy.deaths, 1)
  t.equal(policy.died(200_000), 200, 'a start that fails is no run, however late it comes')
})
