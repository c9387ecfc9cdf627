import { parentPort, workerData } from 'node:worker_threads'
import { MillraceError } from '../errors.js'
import { createLog } from '../log.js'
import { native } from '../native.js'
import { Publisher } from '../publisher/publisher.js'
import { Counters } from '../queue/counters.js'
import { Lane, queueControl } from '../queue/lane.js'
import type { DrainRequest, WorkerBirth, WorkerReport } from '../queue/messages.js'
import { RuleNames } from '../queue/rule-names.js'
import { loadHandler } from './load-handler.js'
import { Pump } from './pump.js'

/** How often a worker shows that its event loop turns, ms. */
const HEARTBEAT_MS = 250
/** Failed batches are logged at most this often, ms; the counter has them all. */
const FAILURE_LOG_MS = 1000

const birth = workerData as WorkerBirth
const port = parentPort!
const report = (message: WorkerReport) => port.postMessage(message)

async function start(): Promise<void> {
  const addon = native()
  if (birth.cpu !== null) addon.pinThread(birth.cpu)
  const log = createLog({ level: birth.logLevel }).child({ queue: birth.queue })
  const counters = new Counters(birth.counters)
  const handler = await loadHandler(birth.handler)
  const lanes = birth.plan.lanes.map((plan) => new Lane(birth.memory, plan))
  const onFailure = failureLog(log, handler.name ?? birth.handler)
  let running: Pump | undefined
  const publisher = new Publisher(birth.publisher, counters, { onReady: () => running?.run(), log })
  const pump = new Pump(
    queueControl(birth.memory, birth.plan),
    lanes,
    birth.queue,
    handler,
    publisher,
    counters,
    {
      batch: birth.batch,
      poison: birth.poison,
      onFailure,
      names: new RuleNames(birth.generations, birth.announced),
    },
  )
  const { queue, queues, node, generations } = birth
  const rules = generations.at(-1)?.names ?? []
  try {
    await handler.setup?.({ queue, queues, node, rules, log })
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause)
    throw new MillraceError('MILLRACE_E_HANDLER', `setup of ${birth.handler} failed: ${text}`, { cause })
  }
  setInterval(() => pump.beat(), HEARTBEAT_MS)
  addon.openQueue(birth.engine, queue, () => pump.wake())
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

  /** The receive threads have stopped: empty the lanes, let the handler finish, wait for the last confirmation. */
  async function drain(deadlineMs: number): Promise<number> {
    const deadline = performance.now() + deadlineMs
    await Promise.race([pump.emptied(), delay(deadlineMs)])
    addon.closeQueue(birth.engine, queue)
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

function failureLog(log: ReturnType<typeof createLog>, handler: string) {
  let last = Number.NEGATIVE_INFINITY
  let silent = 0
  return (err: unknown, datagrams: number) => {
    const now = performance.now()
    if (now - last < FAILURE_LOG_MS) {
      silent += 1
      return
    }
    log.error(
      { err, handler, datagrams, notLogged: silent },
      'handler failed; its batch is counted as failed',
    )
    last = now
    silent = 0
  }
}

function fail(error: unknown): void {
  const code = error instanceof MillraceError ? error.code : 'MILLRACE_E_UNEXPECTED'
  report({ type: 'failed', code, message: error instanceof Error ? error.message : String(error) })
  end(1)
}

/** Ends this thread (not the process). A handler may have left timers or sockets open; they must not keep it alive. */
function end(status: number): void {
  process.exit(status)
}

start().catch(fail)
