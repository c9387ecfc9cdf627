/** Users, passwords, tokens and nkeys, and what is logged when the server refuses. */
import { nkeys } from 'nats'
import t from 'tap'
import { natsServer, sleep, startPublisher, until } from '../rig/publisher.js'

t.setTimeout(120_000)

void t.test('wrong credentials: says so once, and goes on trying', async (t) => {
  const nats = await natsServer(t, { token: 'right' })
  const r = await startPublisher(t, nats.url, { nats: { token: 'wrong' } })
  const auth = () => r.log.filter((l) => l.code === 'MILLRACE_E_NATS_AUTH')
  await until('refusal', () => auth().length > 0)
  await sleep(800)
  t.equal(auth().length, 1)
  t.match(auth()[0], { level: 'error', message: /^MILLRACE_E_NATS_AUTH: .*Authorization Violation/iu })
  t.equal(r.counters.get('connected'), 0)
  // The server is replaced by one that takes them.
  await nats.kill('SIGKILL')
  await natsServer(t, { token: 'wrong', port: nats.port })
  await until('connection', () => r.counters.get('connected') === 1)

  const good = await startPublisher(t, nats.url, { nats: { token: 'wrong' } })
  await until('connection', () => good.counters.get('connected') === 1)
  const files = await startPublisher(t, nats.url, { nats: { creds: '/nonexistent/file.creds' } })
  await until('refusal', () => files.log.some((l) => /ENOENT/u.test(l.message)))
})

void t.test('user and password', async (t) => {
  const nats = await natsServer(t, { user: 'u', password: 'p' })
  const r = await startPublisher(t, nats.url, { nats: { user: 'u', password: 'p' } })
  await until('connection', () => r.counters.get('connected') === 1)
  t.pass('connected')
})

void t.test('an nkey user, and a subject the server refuses', async (t) => {
  const user = nkeys.createUser()
  const nkeySeed = new TextDecoder().decode(user.getSeed())
  const nats = await natsServer(t, {
    config: `authorization { users: [{ nkey: ${user.getPublicKey()}, permissions: { publish: "udp.>" } }] }`,
  })
  const r = await startPublisher(t, nats.url, { nats: { nkeySeed } })
  await until('connection', () => r.counters.get('connected') === 1)
  r.publisher.publish(new Uint8Array(1), 'forbidden')
  r.publisher.publish(new Uint8Array(1), 'udp.1')
  r.publisher.turn()
  await until('refusal', () => r.log.some((l) => l.code === 'MILLRACE_E_NATS_PERMISSION'))
  t.match(
    r.log.find((l) => l.code === 'MILLRACE_E_NATS_PERMISSION'),
    { level: 'error', message: /refuses the subject/u },
  )
  await until('confirmation', () => r.counters.get('taken') === 2)
  r.balance('at rest')
})
