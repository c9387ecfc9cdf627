import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))

function rules(args: readonly string[]) {
  const { PATH = '' } = process.env
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'rules', ...args], {
    encoding: 'utf8',
    env: { PATH, MILLRACE_QUEUES: '4' },
  })
  return { status, stdout, stderr }
}

const good = (dir: string) => file(dir, 'drop', 'good')

function file(dir: string, text: string | Uint8Array, name = 'rules'): string {
  const path = join(dir, name)
  writeFileSync(path, text)
  return path
}

t.test('check', async (t) => {
  const dir = t.testdir({})
  const good = file(dir, 'noise: len < 4 => drop\nkey: mod(u32[0])\n')
  const { status, stdout } = rules(['check', good])
  t.equal(status, 0)
  t.match(stdout, '3 rules for 4 queues')
  t.match(stdout, 'noise    len < 4 => drop')
  t.match(stdout, /^classic BPF, packet fanout: yes, \d+ instructions$/m)
  t.match(stdout, 'XDP, early drop: the first rule')
  t.match(JSON.parse(rules(['check', good, '--json', '--queues', '7']).stdout), {
    queues: 7,
    rules: [{ name: 'noise' }, { name: 'key' }, { name: 'default' }],
    earlyDrops: 1,
  })
})

t.test('check shows every mistake and exits 2', async (t) => {
  const dir = t.testdir({})
  const { status, stdout, stderr } = rules([
    'check',
    file(dir, 'a: len > 3 => que(0)\nb: u8[0] == 256 => drop\n'),
  ])
  t.equal(status, 2)
  t.equal(stdout, '')
  t.match(stderr, 'MILLRACE_E_RULES: 2 errors in the rules')
  t.match(stderr, 'did you mean `queue`?')
  const latin = file(dir, Uint8Array.of(0x23, 10, 0xff), 'latin')
  t.match(rules(['check', latin]), { status: 2, stderr: `MILLRACE_E_RULES: ${latin}: line 2 is not UTF-8\n` })
  const none = 'MILLRACE_E_CONFIG: /nonexistent: no such file; expected a file of rules\n'
  t.match(rules(['check', '/nonexistent']), { status: 2, stderr: none })
  t.match(rules(['check', dir]), { status: 2, stderr: /it is a directory/ })
  t.match(rules(['check', file(dir, '', 'empty')]), { status: 2, stderr: /there are no rules; expected/ })
  t.match(rules(['check', good(dir), '--queues', '0']), { status: 2, stderr: /from 1 to 65535/ })
  const { stderr: line } = rules(['check', file(dir, `len == 1${' or lon == 1'.repeat(9_000)} => drop`, 'l')])
  t.ok(line.length < 500, `${line.length} characters about a line of 100 KB`)
})

t.test('check --dump', async (t) => {
  const dir = t.testdir({})
  const path = file(dir, 'mod(u32[0])')
  t.match(rules(['check', path, '--dump', 'cbpf']).stdout, /^\(000\) ld +\[0xfffff000\]$/m)
  t.match(rules(['check', path, '--dump', 'program']).stdout, 'Do {')
  t.match(rules(['check', path, '--dump', 'ebpf']).stdout, /^ +0: mov64 r6, r1\n +1: ja goto \d+$/m)
  t.match(rules(['check', path, '--dump', 'wasm']), { status: 2, stderr: /expected program, cbpf/ })
  const refused = rules(['check', file(dir, 'round_robin', 'rr'), '--dump', 'cbpf'])
  t.match(refused, { status: 3, stderr: /MILLRACE_E_UNSUPPORTED: rule `rule1`: `round_robin` takes turns/ })
})

t.test('explain --hex', async (t) => {
  const dir = t.testdir({})
  const path = file(dir, 'beat: u8[0] == 1 => queue(0)\nfar: u8[9] == 1 => drop\nkey: mod(u32[0])')
  const { status, stdout } = rules(['explain', path, '--hex', '00 00:00 07'])
  t.equal(status, 0)
  t.match(stdout, 'beat  does not match: u8[0] is 0\n')
  t.match(stdout, 'far   does not match: u8[9] is beyond the 4 bytes\n')
  t.match(stdout, '⇒ queue 3, key 7 (0x00000007)')
  t.match(JSON.parse(rules(['explain', path, '--hex', '', '--json']).stdout), {
    trials: [{ outcome: 'beyond' }, { outcome: 'beyond' }, { outcome: 'beyond' }, { name: 'default' }],
  })
  t.match(rules(['explain', path, '--hex', '0g']), { status: 2, stderr: /pairs of hexadecimal digits/ })
  t.match(rules(['explain', path, '--hex', '00', '--from', 'x']), { status: 2, stderr: /address:port/ })
  t.match(rules(['explain', path]), { status: 2, stderr: /either --hex or --pcap/ })
})

t.test('explain --pcap', async (t) => {
  const dir = t.testdir({})
  const path = file(dir, 'short: len < 4 => drop\nkey: mod(u32[0])')
  const capture = file(dir, pcap([...[1, 1, 1, 2, 3].map((n) => [0, 0, 0, n]), [9]]), 'a.pcap')
  const { status, stdout } = rules(['explain', path, '--pcap', capture])
  t.equal(status, 0)
  t.match(stdout, '6 packets, 6 datagrams\n')
  t.match(stdout, /^queue 1 +3 +50\.0 % █{40}$/m)
  t.match(stdout, /^dropped 1; the fullest queue has 2\.40 times the mean$/m)
  t.match(stdout, /^1 \(0x00000001\) +3 +50\.0 % █{40} key → queue 1$/m)
  t.match(stdout, /^the first alone has more than a queue's even share of 25\.0 %/m)
  t.match(JSON.parse(rules(['explain', path, '--pcap', capture, '--json']).stdout), {
    queues: [0, 3, 1, 1],
    rules: [{ dropped: 1 }, { matched: 5 }, {}],
  })
  t.match(rules(['explain', path, '--pcap', path]), { status: 2, stderr: /neither pcap nor pcapng/ })
})

t.test('sets that are large', async (t) => {
  const dir = t.testdir({})
  const many = Array.from({ length: 10_000 }, (_, i) => `r${i}: u32[0] == ${i} => queue(${i % 4})`).join('\n')
  const path = file(dir, many)
  const explained = rules(['explain', path, '--hex', '00000fff']).stdout.split('\n')
  t.ok(explained.length < 100, 'the trials in between are counted')
  t.match(explained.join('\n'), /^… 4056 rules more that did not decide$/m)
  t.equal(explained.at(-2), '⇒ queue 3')
  const capture = file(dir, pcap([1, 1, 7].map((n) => [0, 0, 0, n])), 'a.pcap')
  const { stdout } = rules(['explain', path, '--pcap', capture, '--queues', '100'])
  t.match(stdout, /^r1 +2 +66\.7 % █{40} u32\[0\] == 1 => queue\(1\)$/m)
  t.match(stdout, /^… and 9981 more rules with 0 together$/m)
  t.match(stdout, /^… and 36 more queues with 0 together$/m)
  t.match(stdout, /^no key +2 .* r1 → queue 1$/m)
  t.match(JSON.parse(rules(['explain', path, '--pcap', capture, '--json']).stdout).rules.length, 10_001)
  const long = rules(['check', file(dir, `len == 1${' or len == 1'.repeat(9_000)} => drop`)])
  t.equal(long.status, 0)
  t.ok(long.stdout.length < 2000, `${long.stdout.length} characters`)
})

t.test('captures that are not', async (t) => {
  const dir = t.testdir({})
  const path = file(dir, 'mod(u32[0])')
  const whole = pcap([
    [0, 0, 0, 1],
    [0, 0, 0, 2],
  ])
  const said = (bytes: Uint8Array) => rules(['explain', path, '--pcap', file(dir, bytes, 'c')])
  t.match(said(whole.subarray(0, 0)), { status: 2, stderr: /it is empty; expected pcap or pcapng/ })
  t.match(said(whole.subarray(0, 10)), { status: 2, stderr: /it ends within the header/ })
  t.match(said(whole.subarray(0, 24)), { status: 0, stdout: '0 packets, 0 datagrams\n' })
  t.match(
    said(whole.subarray(0, -3)).stdout,
    /^1 packet, 1 datagram\nthe file ends in the middle of a packet\n/,
  )
})

t.test('a set that drops everything is said so', async (t) => {
  const dir = t.testdir({})
  const { stdout } = rules(['check', file(dir, 'len < 4 => drop\nlen >= 4 => drop')])
  t.match(stdout, /^warning: these rules drop every datagram$/m)
})

/** A capture of raw IPv4 (link type 101): UDP datagrams with these payloads. */
function pcap(payloads: readonly (readonly number[])[]): Uint8Array {
  const header = Buffer.alloc(24)
  header.writeUInt32LE(0xa1b2c3d4, 0)
  header.writeUInt16LE(2, 4)
  header.writeUInt16LE(4, 6)
  header.writeUInt32LE(65_535, 16)
  header.writeUInt32LE(101, 20)
  const packets = payloads.map((payload) => {
    const packet = Buffer.alloc(16 + 28)
    packet.writeUInt32LE(28 + payload.length, 8)
    packet.writeUInt32LE(28 + payload.length, 12)
    packet[16] = 0x45
    packet.writeUInt16BE(28 + payload.length, 18)
    packet[25] = 17
    packet.writeUInt16BE(8 + payload.length, 40)
    return Buffer.concat([packet, Uint8Array.from(payload)])
  })
  return Buffer.concat([header, ...packets])
}
