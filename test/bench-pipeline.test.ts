/** The arithmetic of the pipeline bench: zero-loss rates, and medians of climbs. */
import t from 'tap'
import { median, type Point, summarise, zeroLossPoint } from '../bench/pipeline/summary.js'

void t.test('a step above one that lost does not count', async (t) => {
  const point = (achieved: number, received: number, wireDropped = 0): Point => {
    return { offered: achieved, achieved, sent: 100, received, wireDropped, cpuMicros: 2, peakRss: 0 }
  }
  const climb = (contestant: string, points: Point[]) => ({ contestant, points })
  t.equal(zeroLossPoint(climb('a', [point(1, 100), point(2, 99), point(3, 100)]))?.achieved, 1)
  t.equal(zeroLossPoint(climb('a', [point(1, 99)])), undefined)
  const summary = summarise(
    [climb('careful', [point(1, 100), point(2, 50)]), climb('ours', [point(3, 100), point(4, 90, 10)])],
    'careful',
  )
  t.match(summary, [
    { contestant: 'careful', zeroLoss: 1, zeroLossRatio: 1, wireLimited: false },
    { contestant: 'ours', zeroLoss: 3, zeroLossRatio: 3, wireLimited: true },
  ])
  t.same([median([3, 1, 2]), median([4, 1, 2, 3])], [2, 2.5])
})
