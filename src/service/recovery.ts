import { LAYOUT } from '../generated/layout.js'
import type { Counters } from '../queue/counters.js'
import { Lane, type QueuePlan, queueControl } from '../queue/lane.js'

/**
 * Settles the books of a worker that ended without draining. Called by the main thread between the worker's exit and
 * its restart, so nobody else writes the queue's control words or counters.
 *
 * - The batch it held is released and counted as failed: a batch that kills its handler must not kill the next worker.
 *   Wherever between taking a batch and counting it the worker died, the batch is counted once and never seen again.
 * - Results it had not seen confirmed are counted as unconfirmed: its connection died with it.
 *
 * @returns how many datagrams and results that were.
 */
export function recoverQueue(
  memory: SharedArrayBuffer,
  plan: QueuePlan,
  counters: Counters,
): { failed: number; unconfirmed: number } {
  const control = queueControl(memory, plan)
  Atomics.store(control, LAYOUT.armedOffset / 4, 0)
  const lanes = plan.lanes.map((lane) => new Lane(memory, lane))
  const leased = lanes[Atomics.exchange(control, LAYOUT.leasedLaneOffset / 4, 0) - 1]
  // A lane that has moved on since was released already; only the count is missing.
  if (leased && leased.next === Atomics.load(control, LAYOUT.leasedStartOffset / 4)) {
    leased.release(leased.ready(Atomics.load(control, LAYOUT.leasedCountOffset / 4)))
  }
  // Tails count what was released since the start, modulo 2^32; handled and failed count the same datagrams.
  const released = lanes.reduce((sum, lane) => sum + lane.next, 0)
  const failed = (released - ((counters.get('handled') + counters.get('failed')) % 2 ** 32)) >>> 0
  counters.add('failed', failed)
  counters.add('failedBatches', failed > 0 ? 1 : 0)
  const unconfirmed = inFlight(counters)
  counters.add('droppedUnconfirmed', unconfirmed)
  counters.set('inFlightBytes', 0)
  counters.set('connected', 0)
  return { failed, unconfirmed }
}

/** Results given to the publisher that are neither confirmed nor dropped. */
export function inFlight(counters: Counters): number {
  return (
    counters.get('emitted') -
    counters.get('confirmed') -
    counters.get('droppedDisconnected') -
    counters.get('droppedUnconfirmed') -
    counters.get('droppedOversize') -
    counters.get('droppedOverrun') -
    counters.get('droppedShutdown')
  )
}
