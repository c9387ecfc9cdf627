/** Moves away from a server that is about to stop, and ends of links, played by scripted peers. */
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { info, peer, probe, talk, until } from '../rig/connection-probe.js'
import { freePort } from '../rig/ports.js'

t.setTimeout(300_000)

/** A server of its own name that keeps its sockets. */
async function named(t: Test, fields: object = {}) {
  const sockets: Socket[] = []
  const address = await peer(t, (socket) => {
    sockets.push(socket)
    talk({ server_name: `n${sockets.length}`, ...fields })(socket)
  })
  return { address, port: Number(address.split(':')[1]), sockets }
}

const stop = (fields: object = {}) => info({ ...fields, ldm: true })

void t.test('a dead server does not keep us from the next one', async (t) => {
  const other = await named(t)
  const dead = `127.0.0.1:${await freePort()}`
  const urls = { connect_urls: [dead, other.address] }
  const first = await named(t, urls)
  const p = probe(t, [first.address])
  await p.saw('up')
  first.sockets[0]!.write(stop(urls))
  await p.saw('up', 2)
  t.equal(p.link?.server.port, other.port)
  t.same(p.moving, [true])
})

void t.test('the same name is dialled again, and another server behind it is taken', async (t) => {
  let id = 'A'
  const sockets: Socket[] = []
  const address = await peer(t, (socket) => {
    sockets.push(socket)
    talk({ server_id: id, server_name: 'n' })(socket)
  })
  const p = probe(t, [address])
  await p.saw('up')
  sockets[0]!.write(stop({ server_id: id }))
  await until(() => sockets.length >= 4, 'dialled again and again')
  t.same(p.moving, [], 'the same server is not taken')
  id = 'B'
  await p.saw('up', 2)
  t.equal(p.link?.info.serverId, 'B')
  t.same(p.moving, [true])
})

void t.test('what the server says before its first PONG counts too', async (t) => {
  const other = await named(t)
  const address = await peer(t, (socket) => talk({ ldm: true, connect_urls: [other.address] })(socket))
  const p = probe(t, [address])
  await p.saw('up', 2)
  t.equal(p.link?.server.port, other.port)
})

for (const end of ['dies', 'stays silent']) {
  void t.test(`an old link that ${end} while it is left: on we go, to a link that is ready`, async (t) => {
    const other = await named(t)
    let pings = 0
    const sockets: Socket[] = []
    const urls = { connect_urls: [other.address] }
    const address = await peer(t, (socket) => {
      sockets.push(socket)
      socket.write(info(urls))
      socket.on('data', (bytes) => bytes.includes('PING') && pings++ === 0 && socket.write('PONG\r\n'))
    })
    const p = probe(t, [address], { pingIntervalMs: 60_000, deadAfterMs: 120_000 })
    await p.saw('up')
    sockets[0]!.write(stop(urls))
    await until(() => p.leaves === 1, 'the owner leaves')
    if (end === 'dies') sockets[0]!.destroy()
    await p.saw('up', 2)
    t.same(p.moving, [true])
    t.equal(p.link?.server.port, other.port)
    t.equal(other.sockets.length, 1, 'the link that was ready')
    // What the old server had not confirmed may be lost, which the log says once.
    const said = [...p.said('connection to NATS lost'), ...p.said('the NATS server that is about to stop')]
    t.equal(said.length, 1)
  })
}

void t.test('a link that ends while no other is ready is an outage', async (t) => {
  const only = await named(t, { server_id: 'A' })
  const p = probe(t, [only.address])
  await p.saw('up')
  only.sockets[0]!.write(stop({ server_id: 'A' }))
  await until(() => only.sockets.length >= 2, 'a search')
  only.sockets[0]!.destroy()
  await p.saw('down')
  t.same(p.moving, [false])
  await p.saw('up', 2)
})

void t.test('servers that send us to each other: a pause between moves, and few lines', async (t) => {
  const urls: string[] = []
  let moves = 0
  const script = (name: string) => (socket: Socket) => {
    talk({ server_name: name, connect_urls: urls })(socket)
    socket.on('data', (bytes) => {
      if (!bytes.includes('CONNECT')) return
      moves++
      setTimeout(() => socket.write(stop({ server_name: name, connect_urls: urls })), 20)
    })
  }
  urls.push(await peer(t, script('a')), await peer(t, script('b')))
  const p = probe(t, [urls[0]!])
  await p.saw('up', 6)
  t.ok(p.moving.every(Boolean))
  t.ok(moves <= 8, `${moves} dials for 5 moves`)
  t.equal(p.said('NATS server is about to stop').length, 2, 'one for each server')
  t.equal(p.said('moving to another').length, 2)
  t.equal(p.said('connected').length, 2)
})

void t.test('a server that takes us and throws us out does not keep us from the others', async (t) => {
  let thrown = 0
  const bad = await peer(t, (socket) => {
    thrown++
    socket.write(info())
    socket.on('data', (bytes) => bytes.includes('PING') && socket.end('PONG\r\n'))
  })
  const good = await named(t)
  const p = probe(t, [bad, good.address])
  await until(() => p.link?.server.port === good.port, 'the good one')
  t.ok(thrown <= 1, `${thrown} dials of the bad one`)
})

void t.test('a server that throws us out again and again is said once', async (t) => {
  const address = await peer(t, (socket) => {
    talk()(socket)
    setTimeout(() => socket.end("-ERR 'Slow Consumer'\r\n"), 50)
  })
  const p = probe(t, [address])
  await p.saw('up', 6)
  t.equal(p.said('connection to NATS lost').length, 1)
  t.equal(p.said('connected to NATS').length, 2, 'once at first, and once after the loss that was logged')
})

void t.test('a peer that closes its side only is left', async (t) => {
  const address = await peer(t, (socket) => {
    socket.write(info())
    socket.once('data', () => {
      socket.write('PONG\r\n')
      socket.pause()
      setTimeout(() => socket.end(), 50)
    })
  })
  const p = probe(t, [address], { pingIntervalMs: 60_000, deadAfterMs: 120_000 })
  await p.saw('up')
  let returned = 0
  for (let i = 0; i < 200; i++) p.link!.write(Buffer.alloc(65_536), () => returned++)
  await p.saw('down')
  await until(() => returned === 200, 'all memory is back')
  t.match((await p.reason()).reason, /the server closed the connection/)
})

void t.test('an error that the server lets pass is no reason for a later end', async (t) => {
  const sockets: Socket[] = []
  const address = await peer(t, (socket) => {
    sockets.push(socket)
    talk()(socket)
  })
  const p = probe(t, [address])
  await p.saw('up')
  sockets[0]!.write("-ERR 'Invalid Publish Subject'\r\n")
  await new Promise((resolve) => setTimeout(resolve, 2500))
  sockets[0]!.destroy()
  t.match((await p.reason()).reason, /the server closed the connection|ECONNRESET/)
})

void t.test('refusals of every wording are told with their subject', async (t) => {
  const sockets: Socket[] = []
  const address = await peer(t, (socket) => {
    sockets.push(socket)
    talk()(socket)
  })
  const p = probe(t, [address])
  await p.saw('up')
  for (const words of ['Publish to "a"', 'Publish with Reply of "b"', 'Publish "c"', 'Subscription to "d"']) {
    sockets[0]!.write(`-ERR 'Permissions Violation for ${words}'\r\n`)
  }
  await p.saw('refused c')
  sockets[0]!.destroy()
  await p.saw('down')
  t.same(
    p.told.filter((word) => word.startsWith('refused')),
    ['refused a', 'refused b', 'refused c'],
  )
  t.equal(p.lines.filter((line) => line.code === 'MILLRACE_E_NATS_PERMISSION').length, 1)
  t.ok(p.lines.every((line) => !/Permissions/u.test(String(line.reason))))
})

void t.test('a flood of PINGs from a peer that reads nothing takes no memory', async (t) => {
  const address = await peer(t, (socket) => {
    socket.write(info())
    socket.once('data', () => {
      socket.pause()
      socket.write('PONG\r\n')
      socket.write('PING\r\n'.repeat(1_000_000))
      setTimeout(() => socket.write('-ERR \'Permissions Violation for Publish to "x"\'\r\n'), 1)
    })
  })
  const p = probe(t, [address], { pingIntervalMs: 60_000, deadAfterMs: 120_000 })
  await p.saw('up')
  // Fills what the kernel takes, so that every PONG would wait here.
  for (let i = 0; i < 200; i++) p.link!.write(Buffer.alloc(65_536), () => undefined)
  await p.saw('refused x')
  t.ok(p.link!.backlogBytes <= 200 * 65_536 + 12, `${p.link!.backlogBytes} bytes`)
})

void t.test('a flush that is not answered is noticed also where idle PINGs are rare', async (t) => {
  const address = await peer(t, (socket) => {
    socket.write(info())
    socket.once('data', () => socket.write('PONG\r\n'))
  })
  // Watched at the interval of PINGs, it would be noticed after five minutes.
  const p = probe(t, [address], { pingIntervalMs: 300_000, deadAfterMs: 200 })
  await p.saw('up')
  p.link!.ping(() => undefined)
  await p.saw('down')
  t.match((await p.reason()).reason, /has not answered/)
})
