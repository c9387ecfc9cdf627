import { DROPS, droppedByReason, resultsInFlight } from '../queue/counters.js'
import { closeBooks, reasonText } from './books.js'
import {
  type Family,
  perQueue,
  perRule,
  perThread,
  perThreadAndReason,
  perWorker,
  type Sample,
  threadLabels,
  workerCounter,
} from './metric-family.js'

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
    help: 'Things the kernel granted only in part; a warning at the start, "the kernel granted less", names them.',
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
    'Datagrams received and given to no queue: rule (by an action drop or sample) or queue_full.',
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
    'Numbers for diagnosis, most of them counters of the kernel. They may overlap: do not add them up. guard_rcvbuf_unsure: datagrams that overflowed the guard socket where it looks for reassembled fragments, and that the rings have too unless they were just that; none of them is counted as lost. guard_program_cut: times that, after the start, net.core.optmem_max had too little room for what the guard sorts by: datagrams for addresses the rings do not know are lost, or some come twice.',
    (t) => t.kernelNotes,
  ),
  perThread(
    'counter',
    'thread_wakeups_total',
    'Wake-ups the thread sent to sleeping workers.',
    (t) => t.wakeups,
  ),
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

  workerCounter('handled_datagrams_total', 'Datagrams whose handler returned.', 'handled'),
  workerCounter(
    'failed_datagrams_total',
    'Datagrams of batches whose handler threw or rejected, or with which the worker died.',
    'failed',
  ),
  workerCounter('batches_total', 'Batches whose handler returned.', 'batches'),
  workerCounter(
    'failed_batches_total',
    'Batches whose handler threw or rejected, or with which the worker died.',
    'failedBatches',
  ),
  perWorker(
    'counter',
    'handler_seconds_total',
    'Time from the call of the handler until it returned or its promise was fulfilled. Failed batches are left out.',
    (w) => w.counters.handlerNanos / 1e9,
  ),
  workerCounter('worker_wakeups_total', 'Times a receive thread woke the worker.', 'wakeups'),
  workerCounter(
    'worker_paused_total',
    'Times the worker stopped draining: window full, or NATS away.',
    'paused',
  ),
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
    'Time since the event loop of the worker was last seen to turn; 0 while the worker does not run.',
    (w) => w.heartbeatAgeMs / 1e3,
  ),

  workerCounter('emitted_results_total', 'Results the handler gave to the publisher.', 'emitted'),
  workerCounter('emitted_bytes_total', 'Payload bytes of those results.', 'emittedBytes'),
  workerCounter(
    'taken_results_total',
    'Results the NATS server has taken: it has parsed them. Whether a subscriber or a stream got them, it does not say.',
    'taken',
  ),
  workerCounter(
    'refused_messages_total',
    'Times the NATS server reported that it refuses a subject (permissions). It discards those messages, and their results count as taken.',
    'refused',
  ),
  {
    name: 'dropped_results_total',
    type: 'counter',
    help: `Results that were lost: ${DROPS.map((drop) => drop.help).join(', ')}.`,
    labels: ['queue', 'reason'],
    read: ({ workers }) =>
      workers.flatMap((w) =>
        Object.entries(droppedByReason(w.counters)).map(
          ([reason, n]): Sample => [{ queue: w.queue, reason }, n],
        ),
      ),
  },
  perWorker('gauge', 'results_in_flight', 'Results neither taken nor dropped.', (w) =>
    resultsInFlight(w.counters),
  ),
  workerCounter(
    'nats_in_flight_bytes',
    'Bytes of sealed messages, protocol lines included, that wait for the connection, or for the server to take them.',
    'inFlightBytes',
    'gauge',
  ),
  workerCounter('nats_messages_total', 'NATS messages handed to the connection.', 'messages'),
  workerCounter(
    'nats_message_bytes_total',
    'Bytes of those messages, without protocol lines.',
    'messageBytes',
  ),
  workerCounter('nats_flushes_total', 'Flushes: one round trip to the server each.', 'flushes'),
  workerCounter('nats_connected', '1 while the publisher is connected.', 'connected', 'gauge'),
  workerCounter('nats_reconnects_total', 'Times the publisher came back after a disconnect.', 'reconnects'),
]
