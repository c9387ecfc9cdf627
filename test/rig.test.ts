import { existsSync } from 'node:fs'
import t from 'tap'
import { Accounts } from '../rig/account.js'
import { startNats } from '../rig/nats.js'
import { privileged, runIn, spawnIn, V4, V6, VethPair } from '../rig/netns.js'
import { isPayload, payload } from '../rig/payload.js'

void t.test('the payload is the one millrace-blast pins in its own tests', (t) => {
  const bytes = payload(1, 20)
  t.same([...bytes.subarray(0, 4)], [0, 0, 0, 1])
  // SplitMix64's finaliser in BigInt, the plain way.
  const M = (1n << 64n) - 1n
  const STEP = 0x9e3779b97f4a7c15n
  const mix = (n: bigint) => {
    let z = (n + STEP) & M
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & M
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & M
    return z ^ (z >> 31n)
  }
  t.equal(mix(1234567n), 6457827717110365317n, 'the published test value')
  for (const n of [0, 1, 2, 99_999, 0x7fffffff, 0x80000000, 0xffffffff, 0xdeadbeef]) {
    const got = payload(n, 1472)
    const want = Buffer.alloc(1472)
    for (let i = 0; i < 184; i++) want.writeBigUInt64LE((mix(BigInt(n)) + BigInt(i) * STEP) & M, 8 * i)
    want.writeUInt32BE(n, 0)
    t.ok(want.equals(got), `datagram ${n}`)
    for (const size of [4, 5, 7, 8, 9, 12, 13, 16, 1471, 1472]) {
      const part = want.subarray(0, size)
      t.ok(isPayload(part, n), `${n}: ${size} bytes`)
      const bad = Buffer.from(part)
      bad[size - 1]! ^= 1
      t.notOk(isPayload(bad, n), `${n}: ${size} bytes, last one changed`)
    }
  }
  t.end()
})

void t.test('the account finds every kind of fault', (t) => {
  const sent = { count: 100, low: 0, high: 9 }
  const size = (n: number) => n % 10
  const all = () => {
    const accounts = new Accounts(4)
    const take = (n: number, queue = n % 4) => {
      const short = size(n) < 4
      accounts.take(short ? 1 : queue, payload(n, size(n)), short ? 'flow' : undefined)
    }
    return { accounts, take }
  }
  const good = all()
  for (let n = 0; n < 100; n++) good.take(n)
  t.match(good.accounts.against(sent), {
    received: 100,
    missing: 0,
    duplicates: 0,
    corrupt: 0,
    misplaced: 0,
    split: 0,
    faults: [],
  })

  const bad = all()
  for (let n = 0; n < 100; n++) if (n !== 55 && n !== 60) bad.take(n)
  bad.take(44)
  bad.take(99, 0)
  bad.accounts.take(0, Buffer.from('what is this'))
  bad.accounts.take(2, payload(70, 0), 'flow')
  const verdict = bad.accounts.against(sent)
  t.match(verdict, { received: 102, missing: 1, duplicates: 2, corrupt: 1, misplaced: 1, split: 1 })
  t.ok(verdict.faults.some((f) => f.includes('datagram 55')))
  t.end()
})

void t.test('a pair carries datagrams both families, and goes away', async (t) => {
  if (!privileged(t)) return
  const pair = new VethPair(4)
  t.teardown(() => pair.close())
  t.match(runIn(pair.b, 'ethtool', '-l', 'vb'), /RX:\s+4/)
  t.notOk(pair.xdpAttached())
  const script = `
    const s = require('dgram').createSocket('udp6')
    let n = 0
    s.on('message', (m) => { if (++n === 2) process.exit(0) })
    s.bind(9000, () => console.log('up'))`
  const receiver = spawnIn(pair.b, [process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => receiver.once('exit', resolve))
  await new Promise((resolve) => receiver.stdout!.once('data', resolve))
  for (const [family, address] of [
    ['udp4', V4[1]],
    ['udp6', V6[1]],
  ] as const) {
    const send = `
      const s = require('dgram').createSocket('${family}')
      s.send('ping', 9000, '${address}', () => s.close())`
    runIn(pair.a, process.execPath, '-e', send)
  }
  t.equal(await ended, 0)
  pair.close()
  t.notOk(existsSync(`/run/netns/${pair.b}`))
})

void t.test('a nats-server that is not there says how to get it', async (t) => {
  await t.rejects(startNats({ binary: 'no-such-nats-server' }), /apt-get install nats-server/u)
})
