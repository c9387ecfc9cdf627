import type { CounterName } from '../queue/counters.js'
import { closeBooks, publisherDrops, reasonText, resultsInFlight } from './books.js'
import type { QueueStats, RuleStats, Snapshot, ThreadStats, WorkerStats } from './statistics.js'

/** One time series: its labels and its value. */
export type Sample = readonly [labels: Readonly<Record<string, string | number>>, value: number]

/** A metric of ours: what docs/metrics.md says about it, and how it is read from a snapshot. */
export interface Family {
  /** Without the prefix `millrace_`. */
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly labels: readonly string[]
  readonly read: (snapshot: Snapshot) => readonly Sample[]
}

type Type = Family['type']

function perThread(type: Type, name: string, help: string, value: (thread: ThreadStats) => number): Family {
  const read = ({ engine }: Snapshot) => engine.threads.map((t): Sample => [threadLabels(t), value(t)])
  return { name, type, help, labels: ['thread', 'kind'], read }
}

function perThreadAndReason(
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

function threadLabels({ index, kind }: ThreadStats) {
  return { thread: index, kind }
}

function perQueue(type: Type, name: string, help: string, value: (queue: QueueStats) => number): Family {
  const read = ({ engine }: Snapshot) => engine.queues.map((q): Sample => [{ queue: q.index }, value(q)])
  return { name, type, help, labels: ['queue'], read }
}

function perRule(name: string, help: string, value: (rule: RuleStats) => number): Family {
  const read = ({ engine }: Snapshot) =>
    engine.rules.map((rule): Sample => [{ rule: rule.name }, value(rule)])
  return { name, type: 'counter', help, labels: ['rule'], read }
}

function perWorker(type: Type, name: string, help: string, value: (worker: WorkerStats) => number): Family {
  const read = ({ workers }: Snapshot) => workers.map((w): Sample => [{ queue: w.queue }, value(w)])
  return { name, type, help, labels: ['queue'], read }
}

function slot(name: string, help: string, counter: CounterName, type: Type = 'counter'): Family {
  return perWorker(type, name, help, (w) => w.counters[counter])
}

/** Every metric that is read from the data plane, in the order of docs/metrics.md. */
export const FAMILIES: readonly Family[] = [
  {
    name: 'mode_info',
    type: 'gauge',
    help: 'What the kernel granted; always 1.',
    labels: ['backend', 'mode', 'interface'],
    read: ({ engine: { backend: b } }) => [
      [{ backend: b.backend, mode: b.mode, interface: b.interface ?? '' }, 1],
    ],
  },
  {
    name: 'backend_refused_info',
    type: 'gauge',
    help: 'A backend that auto tried and was refused, with the error code; always 1.',
    labels: ['backend', 'code'],
    read: ({ engine }) => engine.refused.map(({ backend, code }) => [{ backend, code }, 1]),
  },
  {
    name: 'degraded_features',
    type: 'gauge',
    help: 'Things the kernel granted only in part; the start line of the log names them.',
    labels: [],
    read: ({ engine }) => [[{}, engine.backend.degraded.length]],
  },
  {
    name: 'books_balanced',
    type: 'gauge',
    help: '1 when every datagram and result is accounted for. May be 0 for single readings while traffic flows.',
    labels: [],
    read: (snapshot) => [[{}, Number(closeBooks(snapshot).balanced)]],
  },

  perThread('counter', 'received_datagrams_total', 'Datagrams for us.', (t) => t.received),
  perThread('counter', 'received_bytes_total', 'Payload bytes of datagrams for us.', (t) => t.receivedBytes),
  perThread('counter', 'scattered_datagrams_total', 'Datagrams given to a queue.', (t) => t.scattered),
  perThread(
    'counter',
    'steered_local_datagrams_total',
    'Of the datagrams given to a queue, those that came by the receive thread with the number of the queue modulo receive threads.',
    (t) => t.steeredLocal,
  ),
  perThreadAndReason(
    'dropped_datagrams_total',
    'Datagrams received and given to no queue: rule (a rule says drop) or queue_full.',
    (t) => t.dropped,
  ),
  perThreadAndReason('ignored_frames_total', 'Frames that were no datagram for us.', (t) => t.frames),
  perThreadAndReason(
    'kernel_lost_datagrams_total',
    'Datagrams the kernel lost on our behalf before we received them. Reasons do not overlap.',
    (t) => t.kernelLost,
  ),
  perThreadAndReason(
    'kernel_notes_total',
    'Counters of the kernel for diagnosis. They may overlap: do not add them up. guard_rcvbuf_unsure: datagrams that overflowed the guard socket where it looks for reassembled fragments, and that the rings have too unless they were just that; none of them is counted as lost. guard_program_cut: times that, after the start, net.core.optmem_max had too little room for what the guard sorts by: datagrams for addresses the rings do not know are lost, or some come twice.',
    (t) => t.kernelNotes,
  ),
  perThread('counter', 'thread_wakeups_total', 'Times the thread woke from a sleep.', (t) => t.wakeups),
  perThread('counter', 'thread_sleeps_total', 'Times the thread went to sleep.', (t) => t.sleeps),
  perThread('gauge', 'thread_up', '1 while the thread runs, 0 after it ended with an error.', (t) =>
    Number(t.error === null),
  ),
  perThread(
    'gauge',
    'thread_receiving',
    '1 while the thread has something to receive from, 0 while its interface is away or after it ended.',
    (t) => Number(t.error === null && t.away === null),
  ),
  {
    name: 'thread_info',
    type: 'gauge',
    help: 'Where a thread runs and what it reads; cpu is empty when it is not pinned, priority when it has none in real time; always 1.',
    labels: ['thread', 'kind', 'cpu', 'priority', 'rx_queue'],
    read: ({ engine }) =>
      engine.threads.map((t) => [
        { ...threadLabels(t), cpu: t.cpu ?? '', priority: t.priority ?? '', rx_queue: t.rxQueue },
        1,
      ]),
  },
  {
    name: 'interface_dropped_frames_total',
    type: 'counter',
    help: 'Drop counters of the interface since start, all traffic: rx_dropped, rx_missed, rx_fifo, rx_over.',
    labels: ['reason'],
    read: ({ engine }) =>
      Object.entries(engine.interface ?? {}).map(([k, n]) => [{ reason: reasonText(k) }, n]),
  },

  perQueue('counter', 'queue_scattered_datagrams_total', 'Datagrams put into the queue.', (q) => q.scattered),
  perQueue(
    'counter',
    'queue_full_datagrams_total',
    'Datagrams refused because the queue was full.',
    (q) => q.queueFull,
  ),
  perQueue('gauge', 'queue_depth_datagrams', 'Datagrams in the queue now.', (q) => q.depth),
  perQueue('gauge', 'queue_capacity_datagrams', 'Datagrams the queue holds.', (q) => q.capacity),
  {
    name: 'early_dropped_datagrams_total',
    type: 'counter',
    help: 'Datagrams that leading drop rules dropped in the XDP program, before a receive thread saw them; in the metrics of threads they are not counted.',
    labels: [],
    read: ({ engine }) => [[{}, engine.earlyDropped]],
  },
  {
    name: 'rule_info',
    type: 'gauge',
    help: 'A rule in force and its place among them, from 0; always 1. The counters go by name alone, so that a rule inserted above leaves the series of the others as they are.',
    labels: ['index', 'rule'],
    read: ({ engine }) => engine.rules.map((rule, index): Sample => [{ index, rule: rule.name }, 1]),
  },
  perRule('rule_matched_datagrams_total', 'Datagrams the rule matched.', (r) => r.matched),
  perRule(
    'rule_dropped_datagrams_total',
    'Datagrams the rule dropped, early drops included.',
    (r) => r.dropped,
  ),
  perRule(
    'rule_queue_full_datagrams_total',
    'Datagrams of the rule refused because the queue was full.',
    (r) => r.queueFull,
  ),
  {
    name: 'rule_queue_datagrams_total',
    type: 'counter',
    help: 'Datagrams the rule gave to the queue; series without any are left out. Only while rules × queues are at most 4,096; with more there are no such series.',
    labels: ['rule', 'queue'],
    read: ({ engine }) =>
      engine.rules.flatMap((rule) =>
        rule.queues.map(([queue, n]): Sample => [{ rule: rule.name, queue }, n]),
      ),
  },
  {
    name: 'rules_generation',
    type: 'gauge',
    help: 'Generation of the rules in force: 1 at the start, one more with each reload.',
    labels: [],
    read: ({ engine }) => [[{}, engine.rulesGeneration]],
  },
  {
    name: 'rules_refused_total',
    type: 'counter',
    help: 'Reloads refused, whatever the reason: a file that cannot be read, is not UTF-8 or does not compile, or a kernel that does not take its program; the old rules stayed.',
    labels: [],
    read: ({ engine }) => [[{}, engine.rulesRefused]],
  },

  slot('handled_datagrams_total', 'Datagrams whose handler returned.', 'handled'),
  slot('failed_datagrams_total', 'Datagrams of batches whose handler threw.', 'failed'),
  slot('batches_total', 'Batches given to the handler.', 'batches'),
  slot('failed_batches_total', 'Batches whose handler threw.', 'failedBatches'),
  perWorker(
    'counter',
    'handler_seconds_total',
    'Time inside handlers.',
    (w) => w.counters.handlerNanos / 1e9,
  ),
  slot('worker_wakeups_total', 'Times the worker was woken.', 'wakeups'),
  slot('worker_paused_total', 'Times the worker stopped draining: window full, or NATS away.', 'paused'),
  perWorker(
    'counter',
    'worker_restarts_total',
    'Times the worker was restarted after a crash.',
    (w) => w.restarts,
  ),
  perWorker('gauge', 'worker_up', '1 while the worker runs or drains.', (w) =>
    Number(w.state === 'running' || w.state === 'draining'),
  ),
  perWorker(
    'gauge',
    'worker_heartbeat_age_seconds',
    'Time since the event loop of the worker last turned.',
    (w) => w.heartbeatAgeMs / 1e3,
  ),

  slot('emitted_results_total', 'Results the handler gave to the publisher.', 'emitted'),
  slot('emitted_bytes_total', 'Bytes of those results.', 'emittedBytes'),
  slot('confirmed_results_total', 'Results the NATS server has confirmed.', 'confirmed'),
  {
    name: 'dropped_results_total',
    type: 'counter',
    help: 'Results that were lost: disconnected, unconfirmed (may have arrived), oversize, overrun (of the bound on what is held), shutdown.',
    labels: ['queue', 'reason'],
    read: ({ workers }) =>
      workers.flatMap((w) =>
        Object.entries(publisherDrops(w)).map(([reason, n]): Sample => [{ queue: w.queue, reason }, n]),
      ),
  },
  perWorker('gauge', 'results_in_flight', 'Results neither confirmed nor dropped.', resultsInFlight),
  slot('nats_in_flight_bytes', 'Bytes not yet confirmed by the server.', 'inFlightBytes', 'gauge'),
  slot('nats_messages_total', 'NATS messages handed to the connection.', 'messages'),
  slot('nats_message_bytes_total', 'Bytes of those messages.', 'messageBytes'),
  slot('nats_flushes_total', 'Flushes: one round trip to the server each.', 'flushes'),
  slot('nats_connected', '1 while the publisher is connected.', 'connected', 'gauge'),
  slot('nats_reconnects_total', 'Times the publisher came back after a disconnect.', 'reconnects'),
]
