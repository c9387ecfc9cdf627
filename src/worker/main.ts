import { parentPort, workerData } from 'node:worker_threads'
import { MillraceError } from '../errors.js'
import { createLog } from '../log.js'
import { native } from '../native.js'
import { Publisher } from '../publisher/publisher.js'
import { Counters } from '../queue/counters.js'
import { Lane, queueControl } from '../queue/lane.js'
import { RuleNames } from '../queue/rule-names.js'
import { loadHandler } from './load-handler.js'
import type { DrainRequest, WorkerData, WorkerMessage } from './protocol.js'
import { Pump } from './pump.js'

/**
 * Interval at which the heartbeat word moves, milliseconds. The main thread looks at it every second, and `/healthz` fails
 * when it has not moved for HEARTBEAT_LIMIT_MS: an interval near that would make a busy worker look dead, a short one wakes
 * idle workers for nothing.
 */
const HEARTBEAT_MS = 250
/**
 * Shortest time between two log lines about failed batches, milliseconds. The counter has them all; a handler that always
 * throws would otherwise write a line for every batch.
 */
const FAILURE_LOG_MS = 1000

const data = workerData as WorkerData
const port = parentPort!
const report = (message: WorkerMessage) => port.postMessage(message)

async function start(): Promise<void> {
  const addon = native()
  if (data.cpu !== null) addon.pinThread(data.cpu)
  const log = createLog({ level: data.logLevel }).child({ queue: data.queue })
  const counters = new Counters(data.counters)
  const handler = await loadHandler(data.handler)
  const lanes = data.layout.lanes.map((layout) => new Lane(data.memory, layout))
  const onFailure = logFailures(log, handler.name ?? data.handler)
  let running: Pump | undefined
  const publisher = new Publisher(data.publisher, counters, { onReady: () => running?.run(), log })
  const pump = new Pump(
    queueControl(data.memory, data.layout),
    lanes,
    data.queue,
    handler,
    publisher,
    counters,
    {
      batch: data.batch,
      poison: data.poison,
      onFailure,
      names: new RuleNames(data.generations, data.rulesPort),
    },
  )
  const { queue, queues, node, generations } = data
  const rules = generations.at(-1)?.names ?? []
  try {
    await handler.setup?.({ queue, queues, node, rules, log })
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause)
    throw new MillraceError('MILLRACE_E_HANDLER', `setup of ${data.handler} failed: ${text}`, { cause })
  }
  setInterval(() => pump.beat(), HEARTBEAT_MS)
  addon.openQueue(data.engine, queue, () => pump.wake())
  port.on('message', (message: DrainRequest) => {
    drain(message.deadlineMs).then(
      (left) => {
        report({ type: 'drained', left })
        end(0)
      },
      (error: unknown) => fail(error),
    )
  })
  report({ type: 'running' })
  running = pump
  pump.run()

  /**
   * Empties the lanes, tears the handler down and waits until NATS has taken everything, once the receive threads have stopped.
   *
   * @returns results that were not taken at the deadline.
   */
  async function drain(deadlineMs: number): Promise<number> {
    const deadline = performance.now() + deadlineMs
    await Promise.race([pump.emptied(), delay(deadlineMs)])
    addon.closeQueue(data.engine, queue)
    try {
      await Promise.race([handler.teardown?.(publisher), delay(deadline - performance.now())])
    } catch (error) {
      log.error({ err: error, code: 'MILLRACE_E_HANDLER' }, 'handler teardown failed')
    }
    const { left } = await publisher.drain(Math.max(0, deadline - performance.now()))
    return left
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, Math.max(0, ms)).unref()
  })
}

/** Logs failed batches, but not more often than every {@link FAILURE_LOG_MS}. */
function logFailures(log: ReturnType<typeof createLog>, handler: string) {
  let last = Number.NEGATIVE_INFINITY
  let suppressed = 0
  return (err: unknown, datagrams: number) => {
    const now = performance.now()
    if (now - last < FAILURE_LOG_MS) {
      suppressed += 1
      return
    }
    log.error(
      { err, handler, datagrams, notLogged: suppressed },
      'handler failed; its batch is counted as failed',
    )
    last = now
    suppressed = 0
  }
}

function fail(error: unknown): void {
  const code = error instanceof MillraceError ? error.code : 'MILLRACE_E_UNEXPECTED'
  report({ type: 'failed', code, message: error instanceof Error ? error.message : String(error) })
  end(1)
}

/** Ends this thread, not the process, even where the handler has left timers or sockets open. */
function end(status: number): void {
  process.exit(status)
}

start().catch(fail)
