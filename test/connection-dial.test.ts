/** Dials that fail: the reason is the true one, and nothing waits longer than its limit. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import { makeAuthority } from '../rig/certificates.js'
import { directory, info, NOBODY, peer, probe, server, talk, tls, until } from '../rig/connection-probe.js'
import { Connection } from '../src/publisher/connection/connection.js'
import { upgradeTls } from '../src/publisher/connection/dial.js'
import { TimeLimit } from '../src/publisher/connection/time-limit.js'

t.setTimeout(300_000)

/** A stopped process whose queue of connections is full: the kernel answers no SYN. */
async function blackHole(t: Test): Promise<string> {
  const listen = 'const s = require("net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }'
  const child = spawn(process.execPath, ['-e', `${listen}, () => console.log(s.address().port))`])
  t.teardown(() => child.kill('SIGKILL'))
  const [line] = await once(child.stdout, 'data')
  const port = Number(String(line))
  child.kill('SIGSTOP')
  const sockets = Array.from({ length: 6 }, () => connect(port, '127.0.0.1').on('error', () => undefined))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  await new Promise((resolve) => setTimeout(resolve, 200))
  return `127.0.0.1:${port}`
}

void t.test('the limit of TCP holds while garbage is collected', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const address = await blackHole(t)
  const timer = setInterval(gc, 50)
  t.teardown(() => clearInterval(timer))
  const line = await probe(t, [address], { dialTimeoutMs: 60_000 }).reason()
  t.equal(line.reason, 'no TCP connection within 2000 ms')
  const short = await probe(t, [address], { dialTimeoutMs: 300 }).reason()
  t.equal(short.reason, 'no connection within 300 ms (no TCP connection)', 'the limit that fired')
})

void t.test('a file that does not answer is named, and does not hang the dial', async (t) => {
  const path = join(tmpdir(), `millrace-fifo-${process.pid}`)
  execFileSync('mkfifo', [path])
  let dials = 0
  const address = await peer(t, (socket) => {
    dials++
    talk()(socket)
  })
  const never = [
    { credentials: { ...NOBODY, tokenFile: path } },
    { credentials: { ...NOBODY, creds: path } },
    { tls: tls({ ca: path }) },
  ]
  for (const config of never) {
    const p = probe(t, [address], { ...config, dialTimeoutMs: 100 })
    t.equal((await p.reason()).reason, `no connection within 100 ms (waiting for ${path})`)
  }
  t.equal(dials, 0)
  // Whoever reads gets an end of file: the threads that wait are set free.
  execFileSync('sh', ['-c', 'timeout 5 sh -c ": > $0"; rm -f "$0"', path])
})

void t.test('a server that says INFO and nothing more, at each step', async (t) => {
  const silent = await peer(t, (socket) => socket.write(info({ tls_available: true })))
  const cases = [
    [{}, 'no PONG'],
    [{ tls: tls({}) }, 'no TLS'],
    [{ tls: tls({ handshakeFirst: true }) }, 'wrong version number'],
  ] as const
  for (const [config, reason] of cases) {
    const p = probe(t, [silent], { ...config, dialTimeoutMs: 200 })
    t.match((await p.reason()).reason, reason)
  }
})

void t.test('what a server does between INFO and TLS is the reason', async (t) => {
  const says = info({ tls_required: true })
  const cases: [string, (socket: Socket) => void, RegExp, string][] = [
    [
      'says so in a packet of its own',
      (socket) => {
        socket.setNoDelay(true)
        socket.write(says)
        setTimeout(() => socket.end("-ERR 'maximum connections exceeded'\r\n"), 5)
      },
      /^maximum connections exceeded$/,
      'MILLRACE_E_NATS_CONNECT',
    ],
    ['closes', (socket) => socket.end(says), /the server closed the connection/, 'MILLRACE_E_NATS_CONNECT'],
    [
      'resets',
      (socket) => socket.write(says, () => setImmediate(() => socket.resetAndDestroy())),
      /the server closed the connection|ECONNRESET/,
      'MILLRACE_E_NATS_CONNECT',
    ],
    [
      'resets inside the handshake',
      (socket) => {
        socket.write(says)
        socket.once('data', () => socket.resetAndDestroy())
      },
      /ECONNRESET/,
      'MILLRACE_E_NATS_TLS',
    ],
    [
      'closes inside the handshake',
      (socket) => {
        socket.write(says)
        socket.once('data', () => socket.end())
      },
      /disconnected before secure TLS/,
      'MILLRACE_E_NATS_TLS',
    ],
  ]
  for (const [name, script, reason, code] of cases) {
    await t.test(name, async (t) => {
      const p = probe(t, [await peer(t, script)], { dialTimeoutMs: 60_000 })
      // Where this process is held up, a dial may begin its handshake before the word has come; the next one does not.
      await until(() => p.lines.some((line) => reason.test(String(line.reason)) && line.code === code), name)
    })
  }
})

void t.test('TLS on a socket that is gone does not wait', async (t) => {
  const address = await peer(t, () => undefined)
  const socket = connect(Number(address.split(':')[1]), '127.0.0.1')
  await once(socket, 'connect')
  socket.destroy()
  const limit = new TimeLimit(60_000, (missing) => missing)
  t.teardown(() => limit.clear())
  const host = { host: 'localhost', port: 1, tlsName: undefined }
  await t.rejects(upgradeTls(socket, host, {}, limit), { message: 'the server closed the connection' })
})

void t.test('certificates', async (t) => {
  const authority = makeAuthority()
  t.teardown(() => authority.remove())
  const { ca } = authority
  const own = authority.sign('ip', 'IP:127.0.0.1')
  await t.test(
    'a client certificate that is missing is a TLS failure, also with a secret in a file',
    async (t) => {
      const file = directory(t)('token', 't')
      const config = `tls { cert_file: "${own.cert}", key_file: "${own.key}", ca_file: "${ca}", verify: true, timeout: 10 }`
      const nats = await server(t, { config })
      for (let i = 0; i < 5; i++) {
        const credentials = { ...NOBODY, tokenFile: file }
        const line = await probe(t, [nats.address], { tls: tls({ ca }), credentials }).reason()
        t.match(line, { code: 'MILLRACE_E_NATS_TLS', reason: /certificate/ })
      }
    },
  )
  await t.test('the final dot of a name is not sent', async (t) => {
    const { cert, key } = authority.sign('localhost', 'DNS:localhost')
    const names: string[] = []
    const listener = createTlsServer({
      cert: readFileSync(cert),
      key: readFileSync(key),
      SNICallback: (name, done) => {
        names.push(name)
        done(null)
      },
    })
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
    t.teardown(() => listener.close())
    const socket = connect((listener.address() as { port: number }).port, '127.0.0.1')
    await once(socket, 'connect')
    const limit = new TimeLimit(60_000, (missing) => missing)
    t.teardown(() => limit.clear())
    const host = { host: 'localhost.', port: 1, tlsName: undefined }
    const secure = await upgradeTls(socket, host, { ca: readFileSync(ca) }, limit)
    secure.destroy()
    t.same(names, ['localhost'])
  })
})

void t.test('a file of ours that is bad is named, and no server is asked', async (t) => {
  const junk = directory(t)('junk', 'nothing here')
  let dials = 0
  const address = await peer(t, (socket) => {
    dials++
    talk({ nonce: 'n' })(socket)
  })
  const cases = [
    { creds: junk },
    { nkeyFile: junk },
    { creds: tmpdir() },
    { tokenFile: '/nonexistent/token' },
  ]
  for (const files of cases) {
    const [path] = Object.values(files) as [string]
    const p = probe(t, [address], { credentials: { ...NOBODY, ...files } })
    const line = await p.reason()
    t.equal(line.code, 'MILLRACE_E_NATS_AUTH')
    t.ok(String(line.reason).includes(path), String(line.reason))
    t.match(line.message, /our own file with the credentials/)
  }
  t.equal(dials, 0)
})

void t.test('every server is tried before a pause', async (t) => {
  const counts = [0, 0, 0]
  const bad = (index: number) => (socket: Socket) => {
    counts[index]!++
    socket.destroy()
  }
  const servers = [await peer(t, bad(0)), await peer(t, bad(1)), await peer(t, bad(2))]
  const seen: string[] = []
  const pauses = t.capture(Math, 'random', () => {
    seen.push(counts.join())
    return 0
  })
  probe(t, servers)
  await until(() => counts.every((count) => count >= 3), 'three rounds')
  pauses.restore()
  // Two draws are for the order; each other one is for a pause.
  for (const at of seen.slice(2)) {
    const [a, b, c] = at.split(',')
    t.ok(a === b && b === c, at)
  }
  t.ok(seen.length >= 4)
})

void t.test('what throws in the owner is not put down to the server', async (t) => {
  const sockets: Socket[] = []
  const listener = createServer((socket) => {
    sockets.push(socket)
    talk()(socket)
  })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  const p = probe(t, [`127.0.0.1:${(listener.address() as { port: number }).port}`])
  await p.saw('up')
  const thrown = new Promise<Error>((resolve) => {
    process.setUncaughtExceptionCaptureCallback(resolve)
  })
  p.link!.ping(() => {
    throw new TypeError('a fault of the owner')
  })
  t.equal((await thrown).message, 'a fault of the owner')
  process.setUncaughtExceptionCaptureCallback(null)
  t.same(p.told, ['up'])
  t.same(p.said('connection to NATS lost'), [])
})

void t.test('an owner that throws at `up` is logged, and ends the worker', async (t) => {
  const address = await peer(t, talk())
  const logged: object[] = []
  const thrown = new Promise<Error>((resolve) => {
    process.setUncaughtExceptionCaptureCallback(resolve)
  })
  const { config } = probe(t, [address])
  const nothing = () => undefined
  const connection = new Connection(
    config,
    {
      up: () => {
        throw new TypeError('a fault of the owner')
      },
      down: nothing,
      leave: () => Promise.resolve(),
      changed: nothing,
      refused: nothing,
      message: nothing,
    },
    { debug: nothing, info: nothing, warn: nothing, error: (line: object) => logged.push(line) } as never,
  )
  t.equal((await thrown).message, 'a fault of the owner')
  process.setUncaughtExceptionCaptureCallback(null)
  t.equal(logged.length, 1)
  connection.link?.destroy()
  await connection.close()
})
