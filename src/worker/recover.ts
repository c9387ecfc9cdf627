import { LAYOUT } from '../generated/layout.js'
import type { Counters } from './counters.js'
import { Lane, type QueuePlan, queueControl } from './lane.js'

/**
 * Settles the books of a worker that ended without draining. Called by the main thread between the worker's exit and
 * its restart, so nobody else writes the queue's control words or counters.
 *
 * - The batch it held is released and counted as failed: a batch that kills its handler must not kill the next worker.
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
  const leased = Atomics.exchange(control, LAYOUT.leasedLaneOffset / 4, 0)
  let failed = 0
  const lanePlan = leased > 0 ? plan.lanes[leased - 1] : undefined
  if (lanePlan) {
    const lane = new Lane(memory, lanePlan)
    failed = lane.ready(Atomics.load(control, LAYOUT.leasedCountOffset / 4))
    lane.release(failed)
    counters.add('failed', failed)
    counters.add('failedBatches', failed > 0 ? 1 : 0)
  }
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
    counters.get('droppedShutdown')
  )
}
