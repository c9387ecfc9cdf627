/** The connection to NATS against real servers: dialling, credentials, TLS, ends of every kind, moves. */
import type { Socket } from 'node:net'
import { connect as connectNats, nkeys } from 'nats'
import t from 'tap'
import { makeAuthority } from '../rig/certificates.js'
import { directory, NOBODY, Probe, peer, probe, server, tls, until } from '../rig/connection-probe.js'
import { makeAccounts } from '../rig/jwt.js'
import type { NatsOptions } from '../rig/nats.js'
import { newestNats } from '../rig/newest-nats.js'
import { freePort } from '../rig/ports.js'
import type { ConnectionConfig } from '../src/publisher/connection/connection.js'

t.setTimeout(900_000)

void t.test('publishes, and a PONG answers for everything before it', async (t) => {
  const nats = await server(t)
  const subscriber = await connectNats({ servers: nats.address })
  t.teardown(() => subscriber.close())
  const subscription = subscriber.subscribe('a.>')
  await subscriber.flush()
  const p = probe(t, [nats.address])
  await p.saw('up')
  t.ok(p.connection.link)
  await p.publish('a.b', 'one')
  await p.publish('a.c', '')
  const got: string[] = []
  for await (const message of subscription) {
    got.push(`${message.subject} ${message.string()}`)
    if (got.length === 2) break
  }
  t.same(got, ['a.b one', 'a.c '])
  t.equal(p.link?.info.maxPayload, 1 << 20)
  t.same(
    p.lines.map((line) => line.message),
    ['connected to NATS'],
  )
})

void t.test('killed and restarted: down once, up again, and said once each time', async (t) => {
  const nats = await server(t)
  const p = probe(t, [nats.address])
  for (let round = 1; round <= 3; round++) {
    await p.saw('up', round)
    t.ok(p.connection.link?.usable)
    await nats.kill('SIGKILL')
    await p.saw('down', round)
    t.equal(p.connection.link, undefined)
    await nats.start()
  }
  await p.saw('up', 4)
  t.same(p.told, ['up', 'down', 'up', 'down', 'up', 'down', 'up'])
})

void t.test(
  'a server that stands still is noticed, and a silent one that answers PING is not given up',
  async (t) => {
    const nats = await server(t)
    const p = probe(t, [nats.address], { pingIntervalMs: 100, deadAfterMs: 1000, dialTimeoutMs: 500 })
    await p.saw('up')
    await new Promise((resolve) => setTimeout(resolve, 2000))
    t.same(p.told, ['up'], 'idle for twice the dead time')
    await nats.kill('SIGSTOP')
    await p.saw('down')
    t.match((await p.reason()).reason, /has not answered for 1 s/)
    await nats.kill('SIGCONT')
    await p.saw('up', 2)
  },
)

void t.test('a thread that was held up for longer than the dead time reads before it judges', async (t) => {
  const nats = await server(t)
  const p = probe(t, [nats.address], { pingIntervalMs: 50, deadAfterMs: 300 })
  await p.saw('up')
  await new Promise((resolve) => setTimeout(resolve, 200))
  const end = performance.now() + 1000
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 500))
  t.same(p.told, ['up'])
})

void t.test('credentials of every kind, read anew at each dial', async (t) => {
  const file = directory(t)
  const user = nkeys.createUser()
  const seed = new TextDecoder().decode(user.getSeed())
  const accounts = makeAccounts()
  const nkeyServer = { config: `authorization { users: [{ nkey: ${user.getPublicKey()} }] }` }
  const cases: [string, NatsOptions, Partial<ConnectionConfig['credentials']>][] = [
    ['user and password', { user: 'u', password: 'p' }, { user: 'u', password: 'p' }],
    [
      'password from a file with a line end',
      { user: 'u', password: 'p' },
      { user: 'u', passwordFile: file('p', 'p\r\n') },
    ],
    ['token', { token: 's3' }, { token: ' s3\n' }],
    ['token from a file', { token: 's3' }, { tokenFile: file('t', 's3\n') }],
    ['nkey', nkeyServer, { nkeySeed: seed }],
    ['nkey from a file', nkeyServer, { nkeyFile: file('n', `# seed\n${seed}\n`) }],
    ['creds', { config: accounts.config }, { creds: file('c', accounts.creds()) }],
  ]
  for (const [name, options, credentials] of cases) {
    await t.test(name, async (t) => {
      const nats = await server(t, options)
      const p = probe(t, [nats.address], { credentials: { ...NOBODY, ...credentials } })
      await p.saw('up')
      await p.publish('x', 'y')
    })
  }
  await t.test('a wrong one is said once; one that is rotated is taken', async (t) => {
    const nats = await server(t, { token: 'new' })
    const path = file('rotated', 'old')
    const p = probe(t, [nats.address], { credentials: { ...NOBODY, tokenFile: path } })
    t.match(await p.reason(), {
      level: 'error',
      code: 'MILLRACE_E_NATS_AUTH',
      reason: 'Authorization Violation',
    })
    await new Promise((resolve) => setTimeout(resolve, 1500))
    t.equal(p.lines.length, 1)
    file('rotated', 'new\n')
    await p.saw('up')
  })
  await t.test('a file that cannot be read', async (t) => {
    const nats = await server(t, { token: 'new' })
    const p = probe(t, [nats.address], { credentials: { ...NOBODY, tokenFile: '/nonexistent/token' } })
    t.match((await p.reason()).reason, /ENOENT.*\/nonexistent\/token/)
  })
})

void t.test('TLS', async (t) => {
  const authority = makeAuthority()
  t.teardown(() => authority.remove())
  const { ca } = authority
  const byIp = authority.sign('ip', 'IP:127.0.0.1')
  const byName = authority.sign('name', 'DNS:localhost')
  const client = authority.sign('client', 'DNS:client')
  const tlsConfig = (own: { cert: string; key: string }, more = '') =>
    `tls { cert_file: "${own.cert}", key_file: "${own.key}", timeout: 10, ${more} }`

  await t.test('a literal address is verified as that address', async (t) => {
    const nats = await server(t, { config: tlsConfig(byIp) })
    await probe(t, [nats.address], { tls: tls({ ca }) }).saw('up')
    await probe(t, [nats.address], {})
      .reason()
      .then((line) => t.equal(line.code, 'MILLRACE_E_NATS_TLS', 'unknown authority'))
    const named = probe(t, [`localhost:${nats.port}`], { tls: tls({ ca }) })
    t.match(await named.reason(), { code: 'MILLRACE_E_NATS_TLS', reason: /does not match|altnames/i })
  })
  await t.test('a certificate for localhost does not pass for an address', async (t) => {
    const nats = await server(t, { config: tlsConfig(byName) })
    await probe(t, [`localhost:${nats.port}`], { tls: tls({ ca }) }).saw('up')
    const line = await probe(t, [nats.address], { tls: tls({ ca }) }).reason()
    t.match(line, { code: 'MILLRACE_E_NATS_TLS', reason: /does not match|altnames/i })
  })
  await t.test('a client certificate where one is asked for', async (t) => {
    const nats = await server(t, { config: tlsConfig(byIp, `ca_file: "${ca}", verify: true`) })
    const p = probe(t, [nats.address], { tls: tls({ ca, ...client }) })
    await p.saw('up')
    await p.publish('x', 'y'.repeat(100_000))
    const without = await probe(t, [nats.address], { tls: tls({ ca }) }).reason()
    t.equal(without.code, 'MILLRACE_E_NATS_TLS', String(without.reason))
  })
  await t.test('TLS that we ask for and the server has not', async (t) => {
    const nats = await server(t)
    const line = await probe(t, [nats.address], { tls: tls({ ca }) }).reason()
    t.match(line, { code: 'MILLRACE_E_NATS_TLS', reason: 'the server offers no TLS' })
  })
  await t.test('the handshake before INFO, where the server wants it so', async (t) => {
    const newest = await newestNats()
    if (!('path' in newest)) {
      t.plan(0, newest.reason)
      return
    }
    const config = tlsConfig(byIp, 'handshake_first: true')
    const nats = await server(t, { config, binary: newest.path })
    const p = probe(t, [nats.address], { tls: tls({ ca, handshakeFirst: true }) })
    await p.saw('up')
    await p.publish('x', 'y')
    const without = probe(t, [nats.address], { tls: tls({ ca }), dialTimeoutMs: 500 })
    t.match(await without.reason(), { code: 'MILLRACE_E_NATS_CONNECT' })
  })
  await t.test('bytes between INFO and the handshake are refused', async (t) => {
    const address = await peer(t, (socket) => {
      socket.write('INFO {"tls_required":true}\r\nINFO {"connect')
    })
    const line = await probe(t, [address], { tls: tls({ ca }) }).reason()
    t.match(line.reason, /bytes behind INFO/)
  })
  await t.test('a server of the cluster is verified by the configured name', async (t) => {
    const [a, b] = [await freePort(), await freePort()]
    const [ca1, ca2] = [await freePort(), await freePort()]
    const cluster = (own: number, other: number) =>
      `${tlsConfig(byName)}\ncluster { name: c, listen: "127.0.0.1:${own}", routes: ["nats://127.0.0.1:${other}"] }`
    const first = await server(t, { port: a, config: cluster(ca1, ca2) })
    const second = await server(t, { port: b, config: cluster(ca2, ca1) })
    const p = probe(t, [`localhost:${a}`], { tls: tls({ ca }) })
    await p.saw('up')
    await until(
      () => p.link?.info.connectUrls.includes(`127.0.0.1:${b}`) === true,
      'the second server is announced',
    )
    await first.kill('SIGKILL')
    await p.saw('up', 2)
    t.equal(p.link?.server.port, second.port)
    t.equal(p.link?.server.tlsName, 'localhost')
  })
})

void t.test("the server's last word before it closes is the reason", async (t) => {
  const nats = await server(t, { config: 'max_connections: 1' })
  const first = await connectNats({ servers: nats.address })
  t.teardown(() => first.close())
  const p = probe(t, [nats.address])
  t.match(await p.reason(), { reason: /maximum connections exceeded/i, code: 'MILLRACE_E_NATS_CONNECT' })
})

void t.test('a subject that is refused is said once, and the link stays', async (t) => {
  const nats = await server(t, {
    config: 'authorization { users: [{ user: u, password: p, permissions: { publish: "ok.>" } }] }',
  })
  const p = probe(t, [nats.address], { credentials: { ...NOBODY, user: 'u', password: 'p' } })
  await p.saw('up')
  for (let i = 0; i < 100; i++) await p.publish('no.way', 'x')
  await p.publish('ok.way', 'x')
  t.equal(p.told.filter((word) => word === 'refused no.way').length, 100)
  t.equal(p.lines.filter((line) => line.code === 'MILLRACE_E_NATS_PERMISSION').length, 1)
  t.ok(p.connection.link)
})

void t.test('addresses that answer nothing, something else, or nothing more are passed by', async (t) => {
  const nats = await server(t)
  const silent = await peer(t, () => undefined)
  const http = await peer(t, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
  const closes = await peer(t, (socket) => socket.destroy())
  const noPong = await peer(t, (socket) => socket.write('INFO {}\r\n'))
  const dead = `127.0.0.1:${await freePort()}`
  for (const [address, reason] of [
    [silent, /no connection within 300 ms \(no INFO\)/],
    [http, /not the NATS protocol/],
    [closes, /the server closed the connection|ECONNRESET/],
    [noPong, /no connection within 300 ms \(no PONG\)/],
    [dead, /ECONNREFUSED/],
  ] as const) {
    const p = probe(t, [address, nats.address], { dialTimeoutMs: 300 })
    await p.saw('up')
    const line = p.lines.find(({ reason }) => reason !== undefined)
    if (line !== undefined) t.match(line.reason, reason)
  }
  const all = probe(t, [silent, http, closes, noPong, dead], { dialTimeoutMs: 100 })
  await until(() => new Set(all.lines.map((line) => line.server)).size === 5, 'each was tried')
  await new Promise((resolve) => setTimeout(resolve, 1000))
  t.ok(all.lines.length <= 6, `${all.lines.length} lines of reasons that alternate`)
})

void t.test('announced servers: replaced, forgotten, and not used when we are told not to', async (t) => {
  const withdrawn = await freePort()
  let info = `INFO {"connect_urls":["127.0.0.1:${withdrawn}"]}\r\n`
  const sockets: Socket[] = []
  const address = await peer(t, (socket) => {
    sockets.push(socket)
    socket.write(info)
    socket.on('data', (bytes) => bytes.includes('PING') && socket.write('PONG\r\n'))
  })
  const p = probe(t, [address])
  await p.saw('up')
  // The cluster forgets one server and names another.
  const nats = await server(t)
  info = `INFO {"connect_urls":["${nats.address}"]}\r\n`
  sockets[0]!.write(info)
  await p.saw('changed')
  const off = probe(t, [address], { gossip: false })
  await off.saw('up')
  info = "-ERR 'go away'\r\n"
  for (const socket of sockets) socket.destroy()
  await p.saw('up', 2)
  t.equal(p.link?.server.port, nats.port)
  await off.saw('down')
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.same(off.told, ['up', 'down'])
  t.notOk(
    p.lines.some((line) => line.server === `127.0.0.1:${withdrawn}`),
    'the withdrawn one was not dialled',
  )
})

void t.test('a server that is about to stop is left for another one before it stops', async (t) => {
  const [a, b, c1, c2] = [await freePort(), await freePort(), await freePort(), await freePort()]
  const cluster = (own: number, other: number) =>
    `cluster { name: c, listen: "127.0.0.1:${own}", routes: ["nats://127.0.0.1:${other}"] }
     lame_duck_duration: "30s", lame_duck_grace_period: "10s"`
  const first = await server(t, { port: a, config: cluster(c1, c2) })
  const second = await server(t, { port: b, config: cluster(c2, c1) })
  const subscriber = await connectNats({ servers: second.address })
  t.teardown(() => subscriber.close())
  let got = 0
  const subscription = subscriber.subscribe('x', { callback: () => got++ })
  await subscriber.flush()
  t.ok(subscription)
  const p = probe(t, [first.address])
  await p.saw('up')
  await until(
    () => p.link?.info.connectUrls.some((url) => url.endsWith(`:${b}`)) === true,
    'the other is known',
  )
  let sent = 0
  for (; sent < 200; sent++) await p.publish('x', 'y')
  // SIGUSR2 asks a nats-server for lame duck mode.
  await first.kill('SIGUSR2')
  while (p.link?.server.port !== second.port) {
    if (p.link === undefined) await new Promise((resolve) => setTimeout(resolve, 1))
    else {
      await p.publish('x', 'y')
      sent++
    }
  }
  t.same(
    p.told.filter((word) => word !== 'changed'),
    ['up', 'down', 'up'],
  )
  await until(() => got === sent, `${sent} messages, got ${got}`)
  t.notOk(p.lines.some((line) => line.message.startsWith('connection to NATS lost')))
})

void t.test(
  'memory may be used again once it is written, also under back-pressure and when the link dies',
  async (t) => {
    const nats = await server(t, { maxPayload: 1 << 20 })
    const subscriber = await connectNats({ servers: nats.address })
    t.teardown(() => subscriber.close())
    const wrong: number[] = []
    let got = 0
    subscriber.subscribe('x', {
      callback: (_, message) => {
        const [first] = message.data
        if (message.data.some((byte) => byte !== first)) wrong.push(got)
        got++
      },
    })
    await subscriber.flush()
    const p = probe(t, [nats.address])
    await p.saw('up')
    const size = 64 << 10
    const head = Buffer.from(`PUB x ${size}\r\n`)
    const free: Buffer[] = Array.from({ length: 8 }, () => Buffer.alloc(head.length + size + 2))
    let waiting: (() => void) | undefined
    for (let i = 0; i < 2000; i++) {
      while (free.length === 0) {
        await new Promise<void>((resolve) => {
          waiting = resolve
        })
      }
      const frame = free.pop()!
      head.copy(frame)
      frame.fill(i & 0xff, head.length, head.length + size)
      frame.write('\r\n', head.length + size)
      p.link!.write(frame, () => {
        frame.fill(0xee)
        free.push(frame)
        waiting?.()
      })
    }
    await new Promise<void>((resolve) => p.link!.ping(resolve))
    await until(() => got === 2000, `got ${got}`)
    t.same(wrong, [])
    t.equal(free.length, 8)
    let returned = 0
    const { link } = p
    await nats.kill('SIGSTOP')
    for (let i = 0; i < 200; i++) link!.write(Buffer.alloc(size), () => returned++)
    await nats.kill('SIGKILL')
    await p.saw('down')
    await until(() => returned === 200, `${returned} of 200 came back`)
  },
)

void t.test('closed while dialling, while up, and twice', async (t) => {
  const silent = await peer(t, () => undefined)
  const dialling = new Probe([silent])
  await dialling.connection.close()
  const nats = await server(t)
  const up = new Probe([nats.address])
  await up.saw('up')
  await up.connection.close()
  await up.connection.close()
  t.same(up.told, ['up', 'down'])
})
