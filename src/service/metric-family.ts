import type { QueueStats, RuleStats, ThreadStats } from '../generated/contract.js'
import type { CounterName } from '../queue/counters.js'
import { reasonText } from './books.js'
import type { Snapshot, WorkerStats } from './statistics.js'

/** One sample of a time series: its labels and its value. */
export type Sample = readonly [labels: Readonly<Record<string, string | number>>, value: number]

/** A metric that is read from the data plane. */
export interface Family {
  /** Name without the prefix `millrace_`. */
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly labels: readonly string[]
  /** The samples of all its time series in one snapshot. */
  readonly read: (snapshot: Snapshot) => readonly Sample[]
}

type Type = Family['type']

/** A family with one value for each thread. */
export function perThread(
  type: Type,
  name: string,
  help: string,
  value: (thread: ThreadStats) => number,
): Family {
  const read = ({ engine }: Snapshot) => engine.threads.map((t): Sample => [threadLabels(t), value(t)])
  return { name, type, help, labels: ['thread', 'kind'], read }
}

/** A counter with one value for each thread and reason. */
export function perThreadAndReason(
  name: string,
  help: string,
  counts: (thread: ThreadStats) => Readonly<Record<string, number>>,
): Family {
  const read = ({ engine }: Snapshot) =>
    engine.threads.flatMap((t) =>
      Object.entries(counts(t)).map(
        ([reason, n]): Sample => [{ ...threadLabels(t), reason: reasonText(reason) }, n],
      ),
    )
  return { name, type: 'counter', help, labels: ['thread', 'kind', 'reason'], read }
}

/** The labels of a thread's time series. */
export function threadLabels({ index, kind }: ThreadStats) {
  return { thread: index, kind }
}

/** A family with one value for each queue, from the engine. */
export function perQueue(
  type: Type,
  name: string,
  help: string,
  value: (queue: QueueStats) => number,
): Family {
  const read = ({ engine }: Snapshot) => engine.queues.map((q): Sample => [{ queue: q.index }, value(q)])
  return { name, type, help, labels: ['queue'], read }
}

/** A counter with one value for each rule in force. */
export function perRule(name: string, help: string, value: (rule: RuleStats) => number): Family {
  const read = ({ engine }: Snapshot) =>
    engine.rules.map((rule): Sample => [{ rule: rule.name }, value(rule)])
  return { name, type: 'counter', help, labels: ['rule'], read }
}

/** A family with one value for each worker; the label is its queue. */
export function perWorker(
  type: Type,
  name: string,
  help: string,
  value: (worker: WorkerStats) => number,
): Family {
  const read = ({ workers }: Snapshot) => workers.map((w): Sample => [{ queue: w.queue }, value(w)])
  return { name, type, help, labels: ['queue'], read }
}

/** A family that shows one of the worker's counters. */
export function workerCounter(
  name: string,
  help: string,
  counter: CounterName,
  type: Type = 'counter',
): Family {
  return perWorker(type, name, help, (w) => w.counters[counter])
}
