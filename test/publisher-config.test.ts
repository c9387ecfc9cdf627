/** Configurations of the publisher that can never work. */
import t from 'tap'
import { type PublisherOverrides, startPublisher } from '../rig/publisher.js'

t.setTimeout(120_000)

void t.test('configurations that can never work', async (t) => {
  const open = (config: PublisherOverrides) => startPublisher(t, 'nats://127.0.0.1:1', config)
  await t.rejects(open({ nats: { servers: [] } }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ format: 'json' as never }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ envelopeBytes: 1 }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ envelopeMs: 0 }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ windowBytes: 0 }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ nats: { creds: 'a', nkeySeed: 'b' } }), { code: 'MILLRACE_E_CONFIG' })
  await t.rejects(open({ subject: 'a b' }), { code: 'MILLRACE_E_SUBJECT' })
  await t.rejects(open({ subject: 'a.{host}' }), { code: 'MILLRACE_E_SUBJECT' })
})
