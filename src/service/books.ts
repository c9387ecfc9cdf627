import { droppedByReason, resultsInFlight } from '../queue/counters.js'
import type { Snapshot } from './statistics.js'

/** Counts by reason. */
type ByReason = Readonly<Record<string, number>>

/** Where every datagram and every result went, counted since the start. */
export interface Books {
  /** Datagrams that receive threads took, and those that rules dropped before in the XDP program. */
  readonly received: number
  /** Datagrams put into a queue. */
  readonly scattered: number
  /** Datagrams received and put into no queue, by reason. */
  readonly dropped: ByReason
  /** Datagrams whose handler returned. */
  readonly handled: number
  /** Datagrams of batches whose handler threw or rejected, or with which the worker died. */
  readonly failed: number
  /** Datagrams in the lanes now. */
  readonly queued: number
  /** Results that handlers gave to their publisher. */
  readonly emitted: number
  /** Results that a NATS server has taken. */
  readonly taken: number
  /** Results that publishers dropped, by reason. */
  readonly publisherDropped: ByReason
  /** Results neither taken nor dropped. */
  readonly inFlight: number
  /** Datagrams that the kernel lost before a receive thread could take them, by reason; not part of `received`. */
  readonly kernelLost: ByReason
  /** True when the equations hold for every thread, queue and publisher. */
  readonly balanced: boolean
  /** Each equation that does not hold, with its numbers. */
  readonly discrepancies: readonly string[]
}

/** A reason as metrics and books write it: `queueFull` is `queue_full`. */
export function reasonText(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** Sum over reasons. */
function total(counts: ByReason): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0)
}

/**
 * Adds the counters of a snapshot up and verifies the equations of docs/metrics.md. They hold at any quiet moment. While
 * traffic flows a snapshot has counters read one after the other, so one reading of a busy service may not balance.
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
  // The engine counts what went into queues, and what found them full, by thread and by queue.
  const scattered = sum(engine.threads, (t) => t.scattered)
  expect('queues', ['scattered', scattered], { 'sum of queues': sum(engine.queues, (q) => q.scattered) })
  const full = sum(engine.threads, (t) => t.dropped.queueFull)
  expect('queues', ['dropped queue_full', full], { 'sum of queues': sum(engine.queues, (q) => q.queueFull) })

  // Drops by rule add up to those of the threads and the XDP program. After a reload they need not, because rules that it
  // removed have no numbers of their own any more.
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

  // emitted = taken + dropped{reason} + in flight. Results in flight have no counter, they are the difference. It must
  // not be negative, and must be 0 once nothing is under way any more.
  for (const worker of workers) {
    const inFlight = resultsInFlight(worker.counters)
    const over = worker.state === 'stopped' || worker.counters.inFlightBytes === 0
    if (inFlight === 0 || (inFlight > 0 && !over)) continue
    expect(`publisher ${worker.queue}`, ['emitted', worker.counters.emitted], {
      taken: worker.counters.taken,
      ...prefixed('dropped', droppedByReason(worker.counters)),
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
    taken: sum(workers, (w) => w.counters.taken),
    publisherDropped: merged(workers.map((w) => droppedByReason(w.counters))),
    inFlight: sum(workers, (w) => resultsInFlight(w.counters)),
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
    ['  taken', books.taken],
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

/** A row for each reason that occurred. */
function reasons(label: string, counts: ByReason): [string, number][] {
  return Object.entries(counts)
    .filter(([, n]) => n !== 0)
    .map(([reason, n]) => [`${label} (${reason})`, n])
}
