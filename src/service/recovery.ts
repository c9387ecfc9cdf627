import type { QueueLayout } from '../generated/contract.js'
import { LAYOUT } from '../generated/layout.js'
import { type Counters, resultsInFlight, settledDatagrams } from '../queue/counters.js'
import { Lane, queueControl } from '../queue/lane.js'

/**
 * Settles the books of a worker that ended without draining. The main thread calls it between the worker's exit and its
 * restart, when no other thread writes the queue's control words or counters.
 *
 * - The batch that was in the handler is released and counted as failed: a batch that killed one worker must not kill the
 *   next. At whatever step between taking a batch and counting it the worker died, the batch is counted once and not
 *   delivered again.
 * - Results in flight are counted as unconfirmed, because the connection died with the worker.
 *
 * @returns how many datagrams and results were counted so.
 */
export function recoverQueue(
  memory: SharedArrayBuffer,
  layout: QueueLayout,
  counters: Counters,
): { failed: number; unconfirmed: number } {
  const control = queueControl(memory, layout)
  Atomics.store(control, LAYOUT.armedOffset / 4, 0)
  const lanes = layout.lanes.map((lane) => new Lane(memory, lane))
  const leased = lanes[Atomics.exchange(control, LAYOUT.leasedLaneOffset / 4, 0) - 1]
  // Where the tail has moved on from the lease's start, the batch is released already and only not counted.
  if (leased && leased.next === Atomics.load(control, LAYOUT.leasedStartOffset / 4)) {
    leased.release(leased.ready(Atomics.load(control, LAYOUT.leasedCountOffset / 4)))
  }
  // The tails count the datagrams released since the start, modulo 2^32. Those are the settled ones, and the lost batch.
  const released = lanes.reduce((sum, lane) => sum + lane.next, 0)
  const values = counters.snapshot()
  const failed = (released - (settledDatagrams(values) % 2 ** 32)) >>> 0
  counters.add('failed', failed)
  counters.add('failedBatches', failed > 0 ? 1 : 0)
  const unconfirmed = resultsInFlight(values)
  counters.add('droppedUnconfirmed', unconfirmed)
  counters.set('inFlightBytes', 0)
  counters.set('connected', 0)
  return { failed, unconfirmed }
}
