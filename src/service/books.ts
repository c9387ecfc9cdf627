import type { Snapshot, WorkerStats } from './statistics.js'

/** Counts by reason. */
export type ByReason = Readonly<Record<string, number>>

/** Where every datagram and every result went. Counts since start. */
export interface Books {
  /** Datagrams the receive threads took, and those that rules dropped in the XDP program before. */
  readonly received: number
  readonly scattered: number
  /** Received and given to no queue. */
  readonly dropped: ByReason
  readonly handled: number
  /** Of batches whose handler threw. */
  readonly failed: number
  /** In the lanes now. */
  readonly queued: number
  /** Results handlers gave to their publisher. */
  readonly emitted: number
  readonly confirmed: number
  readonly publisherDropped: ByReason
  /** Results neither confirmed nor dropped. */
  readonly inFlight: number
  /** Lost by the kernel on our behalf before we received them; not part of `received`. */
  readonly kernelLost: ByReason
  /** True when the three equations hold, in total and for each thread, queue and publisher. */
  readonly balanced: boolean
  /** Each equation that does not hold, with its numbers. */
  readonly discrepancies: readonly string[]
}

/** Publisher drops of one worker by reason. */
export function publisherDrops({ counters: c }: WorkerStats): ByReason {
  return {
    disconnected: c.droppedDisconnected,
    unconfirmed: c.droppedUnconfirmed,
    oversize: c.droppedOversize,
    overrun: c.droppedOverrun,
    shutdown: c.droppedShutdown,
  }
}

/** Results of one worker that are neither confirmed nor dropped. */
export function resultsInFlight(worker: WorkerStats): number {
  return worker.counters.emitted - worker.counters.confirmed - total(publisherDrops(worker))
}

/** Reasons as metrics and books write them: `queueFull` is `queue_full`. */
export function reasonText(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** Sum over reasons. */
export function total(counts: ByReason): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0)
}

/**
 * Closes the books. The equations (docs/metrics.md) hold at any quiet moment; while traffic flows a snapshot reads
 * counters one after the other, so a busy service may look unbalanced for one reading.
 */
export function closeBooks({ engine, workers }: Snapshot): Books {
  const discrepancies: string[] = []
  const expect = (where: string, left: [string, number], right: Readonly<Record<string, number>>) => {
    if (left[1] === total(right)) return
    const terms = Object.entries(right).map(([name, n]) => `${name} ${n}`)
    discrepancies.push(`${where}: ${left[0]} ${left[1]} is not ${terms.join(' + ')}`)
  }

  // received = scattered + dropped{reason}
  for (const thread of engine.threads) {
    expect(`thread ${thread.index}`, ['received', thread.received], {
      scattered: thread.scattered,
      ...prefixed('dropped', thread.dropped),
    })
  }
  // What threads put into queues is what queues say they got.
  const scattered = sum(engine.threads, (t) => t.scattered)
  expect('queues', ['scattered', scattered], { 'sum of queues': sum(engine.queues, (q) => q.scattered) })
  const full = sum(engine.threads, (t) => t.dropped.queueFull)
  expect('queues', ['dropped queue_full', full], { 'sum of queues': sum(engine.queues, (q) => q.queueFull) })

  // What rules dropped is what threads and the XDP program dropped by rule. A rule that a reload took away still counts there.
  if (engine.rulesGeneration === 1) {
    const byRule = sum(engine.threads, (t) => t.dropped.rule) + engine.earlyDropped
    expect('rules', ['dropped', byRule], { 'sum of rules': sum(engine.rules, (r) => r.dropped) })
  }

  // scattered = handled + failed + queued
  for (const queue of engine.queues) {
    const counters = workers.find((w) => w.queue === queue.index)?.counters
    expect(`queue ${queue.index}`, ['scattered', queue.scattered], {
      handled: counters?.handled ?? 0,
      failed: counters?.failed ?? 0,
      queued: queue.depth,
    })
  }

  // emitted = confirmed + dropped{reason} + in flight. There is no counter of results in flight, so they are the
  // difference; it must not be negative, and not stay open once nothing is under way any more.
  for (const worker of workers) {
    const inFlight = resultsInFlight(worker)
    const over = worker.state === 'stopped' || worker.counters.inFlightBytes === 0
    if (inFlight === 0 || (inFlight > 0 && !over)) continue
    expect(`publisher ${worker.queue}`, ['emitted', worker.counters.emitted], {
      confirmed: worker.counters.confirmed,
      ...prefixed('dropped', publisherDrops(worker)),
      'in flight': 0,
    })
  }

  return {
    received: sum(engine.threads, (t) => t.received) + engine.earlyDropped,
    scattered,
    dropped: merged([...engine.threads.map((t) => t.dropped), { ruleEarly: engine.earlyDropped }]),
    handled: sum(workers, (w) => w.counters.handled),
    failed: sum(workers, (w) => w.counters.failed),
    queued: sum(engine.queues, (q) => q.depth),
    emitted: sum(workers, (w) => w.counters.emitted),
    confirmed: sum(workers, (w) => w.counters.confirmed),
    publisherDropped: merged(workers.map(publisherDrops)),
    inFlight: sum(workers, resultsInFlight),
    kernelLost: merged(engine.threads.map((t) => t.kernelLost)),
    balanced: discrepancies.length === 0,
    discrepancies,
  }
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((n, item) => n + of(item), 0)
}

function prefixed(prefix: string, counts: ByReason): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([name, n]) => [`${prefix} ${reasonText(name)}`, n]))
}

function merged(all: readonly ByReason[]): ByReason {
  const result: Record<string, number> = {}
  for (const counts of all) {
    for (const [name, n] of Object.entries(counts)) {
      result[reasonText(name)] = (result[reasonText(name)] ?? 0) + n
    }
  }
  return result
}

/** The books as a short table for a terminal. */
export function booksTable(books: Books): string {
  const rows: [string, number][] = [
    ['received', books.received],
    ['  scattered', books.scattered],
    ...reasons('  dropped', books.dropped),
    ['handled', books.handled],
    ['  failed', books.failed],
    ['  queued', books.queued],
    ['emitted', books.emitted],
    ['  confirmed', books.confirmed],
    ...reasons('  dropped', books.publisherDropped),
    ['  in flight', books.inFlight],
    ...reasons('lost by the kernel', books.kernelLost),
  ]
  const label = Math.max(...rows.map(([name]) => name.length))
  const text = rows.map(([name, n]) => `${name.padEnd(label)}  ${n.toLocaleString('en').padStart(15)}`)
  const verdict = books.balanced
    ? ['the books balance']
    : ['THE BOOKS DO NOT BALANCE', ...books.discrepancies]
  return [...text, ...verdict].join('\n')
}

/** Reasons that never occurred only make the table longer. */
function reasons(label: string, counts: ByReason): [string, number][] {
  return Object.entries(counts)
    .filter(([, n]) => n !== 0)
    .map(([reason, n]) => [`${label} (${reason})`, n])
}
