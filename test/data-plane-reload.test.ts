/** Reloads that the kernel refuses, and workers that are started again after them. Real engine and workers, loopback. */
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { freePort, freeUdpPort } from '../rig/ports.js'
import { loadConfig } from '../src/config/index.js'
import { createLog } from '../src/log.js'
import { type Native, native } from '../src/native.js'
import { MAX_GENERATIONS } from '../src/queue/rule-names.js'
import { createDataPlane } from '../src/service/native-data-plane.js'

/** Writes down what it is born with and the rule of each datagram, and dies of an empty one. */
const HANDLER = `
  import { appendFileSync } from 'node:fs'
  const say = (line) => appendFileSync(new URL('said', import.meta.url), line + '\\n')
  export default {
    setup({ rules }) { say('born ' + rules) },
    handle(batch) {
      for (let i = 0; i < batch.length; i++) {
        if (batch.size(i) === 0) process.exit(3)
        say(batch.ruleName(i))
      }
    },
  }`

t.test('a worker that is started again after refused reloads has the rules in force', async (t) => {
  const dir = t.testdir({ 'handler.mjs': HANDLER, said: '' })
  const port = await freeUdpPort()
  const config = loadConfig(
    {
      MILLRACE_BACKEND: 'socket',
      MILLRACE_LISTEN: `127.0.0.1:${port}`,
      MILLRACE_QUEUES: '1',
      MILLRACE_RULES: 'first: queue(0)',
      MILLRACE_HANDLER: join(dir, 'handler.mjs'),
      // Nobody is there, and nothing is published.
      MILLRACE_NATS_DOWN: 'drop',
      NATS_URL: `nats://127.0.0.1:${await freePort()}`,
    },
    { cpus: [0], hostname: 'test' },
  )
  let refusals = 0
  const addon: Native = {
    ...native(),
    reloadRules: (handle, text) => {
      if (refusals-- > 0) throw new Error('MILLRACE_E_KERNEL: no memory for the program')
      return native().reloadRules(handle, text)
    },
  }
  const plane = createDataPlane(config, createLog({ stream: { write: () => {} }, readable: false }), addon)
  const sender = createSocket('udp4')
  t.teardown(async () => {
    sender.close()
    await plane.stop(5000)
  })
  await plane.start()
  const expected: string[] = ['born first']
  /** Sends a datagram and waits until all that is expected was said. */
  const send = async (payload: string, ...says: string[]) => {
    expected.push(...says)
    const said = () => readFileSync(join(dir, 'said'), 'utf8').trimEnd().split('\n')
    await new Promise((sent) => sender.send(payload, port, '127.0.0.1', sent))
    for (const end = Date.now() + 20_000; said().length < expected.length && Date.now() < end; )
      await sleep(10)
    t.same(said(), expected)
  }
  await send('x', 'first')

  refusals = MAX_GENERATIONS + 1
  for (let k = 0; k <= MAX_GENERATIONS; k++) {
    t.throws(() => plane.reload('refused: u8[0] == 1 => queue(0); too: queue(0)'), {
      code: 'MILLRACE_E_KERNEL',
    })
  }
  t.equal(plane.snapshot().engine.rulesGeneration, 1)
  await send('x', 'first')
  await send('', 'born first')
  await send('x', 'first')

  t.equal(plane.reload('second: queue(0)'), 2)
  await send('x', 'second')
  await send('', 'born second')
  await send('x', 'second')
})
