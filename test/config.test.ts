import t from 'tap'
import { type Config, ConfigError, loadConfig, redactedConfig, settingsTable } from '../src/config/index.js'
import { readRules, rulesFileName } from '../src/config/rules-text.js'
import { distance, isServiceLink } from '../src/config/unknown-variables.js'
import { VARIABLES, type VariableName } from '../src/config/variables.js'
import { exitStatus, fromNative, MillraceError } from '../src/errors.js'

const SEED = `SU${'A'.repeat(56)}`
const FILES: Record<string, string | Buffer> = {
  '/rules': 'u8[0] == 1 => queue(0)',
  '/rules.bom': '\ufeffqueue(0)',
  '/rules.latin': Buffer.from('queue(0)\n# für alle', 'latin1'),
  '/seed': `-----BEGIN SEED-----\n${SEED}\n`,
  '/noseed': 'nothing here',
}
const FACTS = {
  cpus: [0, 1, 2, 3],
  hostname: 'box.example',
  exists: (path: string) => path.startsWith('/'),
  readFile: (path: string) => {
    const content = FILES[path]
    if (content === undefined) throw Object.assign(new Error('no'), { code: 'ENOENT' })
    return Buffer.from(content as string)
  },
}

function load(env: Record<string, string | undefined>, cpus = FACTS.cpus): Config {
  return loadConfig(env, { ...FACTS, cpus, exists: (path) => !path.includes('missing') })
}

function problems(env: Record<string, string>, cpus = FACTS.cpus): ConfigError {
  try {
    load(env, cpus)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error(`accepted ${JSON.stringify(env)}`)
}

t.test('defaults', async (t) => {
  t.match(load({}), {
    node: 'box.example',
    engine: {
      backend: 'auto',
      interface: null,
      listen: [{ address: null, port: 9000 }],
      multicast: [],
      queues: 4,
      rxThreads: 4,
      rxCpus: [0, 1, 2, 3],
      rxPriority: null,
      rules: 'else => hash(flow)',
      busyPoll: 'adaptive',
      busyPollUs: 100,
      laneSlots: 16384,
      laneBytes: 8 << 20,
      wakeMin: 64,
      wakeMaxUs: 200,
      xdpMode: 'auto',
      xdpFrames: 4096,
      xdpZerocopy: 'off',
      xdpPreferBusyPoll: false,
      napiDeferHardIrqs: null,
      groFlushTimeout: null,
      packetBlockBytes: 256 << 10,
      packetBlocks: 128,
      verifyChecksum: false,
      tpacket: 'v3',
      packetSlotBytes: 66 << 10,
      fanout: 'rules',
      fanoutFlags: ['defrag', 'uniqueid', 'ignore_outgoing'],
      socketTimestamps: 'pass',
      socketRcvbuf: 8 << 20,
    },
    workers: { queues: 4, cpus: [0, 1, 2, 3], handler: 'forward', batch: 1024, debugPoison: false },
    publisher: {
      format: 'records',
      subject: 'millrace.box_example.{port}.{queue}',
      windowBytes: 4 << 20,
      envelopeBytes: 16 << 10,
      envelopeMs: 5,
      natsDown: 'hold',
      nats: {
        servers: ['127.0.0.1:4222'],
        user: null,
        token: null,
        creds: null,
        nkeySeed: null,
        nkeyFile: null,
        tls: null,
        gossip: true,
        pingMs: 2000,
        deadMs: 6000,
      },
    },
    http: { host: '127.0.0.1', port: 9180 },
    log: { level: 'info' },
    drainMs: 20000,
    serviceLinks: [],
  })
})

t.test('the engine part has exactly the fields of the Rust EngineConfig', async (t) => {
  const { readFileSync } = await import('node:fs')
  const rust = readFileSync(new URL('../../crates/millrace-core/src/config.rs', import.meta.url), 'utf8')
  const body = /pub struct EngineConfig \{([\s\S]*?)\n\}/.exec(rust)![1]!
  const fields = [...body.matchAll(/pub (\w+):/g)].map(([, name]) =>
    name!.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
  )
  t.same(Object.keys(load({}).engine).sort(), fields.sort())
})

t.test('frozen all the way down', async (t) => {
  const config = load({})
  const walk = (value: unknown, where: string): void => {
    if (typeof value !== 'object' || value === null) return
    if (!Object.isFrozen(value)) t.fail(`${where} is not frozen`)
    for (const [key, inner] of Object.entries(value)) walk(inner, `${where}.${key}`)
  }
  walk(config, 'config')
  t.throws(() => Object.assign(config.engine, { queues: 9 }), TypeError)
})

type Read = (config: Config) => unknown
/** For each variable: a text that is accepted with what it becomes, and texts that are not. */
const CASES: Record<VariableName, { good: [string, Read, unknown][]; bad: string[] }> = {
  MILLRACE_BACKEND: { good: [['xdp', (c) => c.engine.backend, 'xdp']], bad: ['dpdk', 'XDP'] },
  MILLRACE_INTERFACE: {
    good: [['eth0', (c) => c.engine.interface, 'eth0']],
    bad: ['a/b', 'sixteen-letters0', 'a b'],
  },
  MILLRACE_LISTEN: {
    good: [
      ['0.0.0.0:9000', (c) => c.engine.listen, [{ address: '0.0.0.0', port: 9000 }]],
      [
        '9000-9001,192.0.2.2:9000, [2001:db8::2]:9000',
        (c) => c.engine.listen,
        [
          { address: null, port: 9000 },
          { address: null, port: 9001 },
          { address: '192.0.2.2', port: 9000 },
          { address: '2001:db8::2', port: 9000 },
        ],
      ],
      [
        '[fe80::1%eth0]:514,[FE80::1%2]:514,[fe80::1]:514,[ff02::1%eth0]:514',
        (c) => c.engine.listen,
        [
          { address: 'fe80::1', scope: 'eth0', port: 514 },
          { address: 'FE80::1', scope: '2', port: 514 },
          { address: 'fe80::1', port: 514 },
          { address: 'ff02::1', scope: 'eth0', port: 514 },
        ],
      ],
    ],
    bad: [
      '0',
      '65536',
      '9001-9000',
      '9000,',
      '1.2.3:9',
      '2001:db8::2:9000',
      '[1.2.3.4]:9',
      'host:9',
      '9000,9000',
      '1-2000',
      '[2001:db8::2%eth0]:9',
      '[fe80::1%]:9',
      '[fe80::1%a/b]:9',
      '[fe80::1%eth0]:9,[fe80::1%eth0]:9',
      '127.0.0.1%lo:9',
    ],
  },
  MILLRACE_MULTICAST: {
    good: [
      [
        '239.1.2.3, ff15::1%eth0,192.0.2.1@232.1.1.1%a.b',
        (c) => c.engine.multicast,
        [
          { group: '239.1.2.3', interface: null, source: null },
          { group: 'ff15::1', interface: 'eth0', source: null },
          { group: '232.1.1.1', interface: 'a.b', source: '192.0.2.1' },
        ],
      ],
    ],
    bad: ['192.0.2.1', 'fe80::1', '::1@232.1.1.1', '239.1.2.3%', '239.1.2.3@239.1.2.4', 'group'],
  },
  MILLRACE_BUSY_POLL: { good: [['off', (c) => c.engine.busyPoll, 'off']], bad: ['on'] },
  MILLRACE_BUSY_POLL_US: { good: [['1', (c) => c.engine.busyPollUs, 1]], bad: ['0', '-1', '1000001', '5ms'] },
  MILLRACE_QUEUES: { good: [['1', (c) => c.workers.queues, 1]], bad: ['0', '257', '2.5', '0x2', '1e1'] },
  MILLRACE_OVERSUBSCRIBE: { good: [['1', (c) => c.engine.queues, 4]], bad: ['yes', 'TRUE'] },
  MILLRACE_RX_THREADS: { good: [['2', (c) => c.engine.rxThreads, 2]], bad: ['0', '257'] },
  MILLRACE_PIN: { good: [['off', (c) => [c.engine.rxCpus, c.workers.cpus], [[], []]]], bad: ['maybe'] },
  MILLRACE_RX_CPUS: {
    good: [['0,2-3', (c) => c.engine.rxCpus, [0, 2, 3, 0]]],
    bad: ['a', '3-2', '1,1', '9', ','],
  },
  MILLRACE_WORKER_CPUS: { good: [['3', (c) => c.workers.cpus, [3, 3, 3, 3]]], bad: ['0-4', '-1'] },
  MILLRACE_RULES: { good: [['else => drop', (c) => c.engine.rules, 'else => drop']], bad: [' '] },
  MILLRACE_RULES_FILE: {
    good: [
      ['/rules', (c) => c.engine.rules, FILES['/rules']],
      ['/rules.bom', (c) => c.engine.rules, 'queue(0)'],
    ],
    bad: ['/missing', '/rules.latin'],
  },
  MILLRACE_HANDLER: { good: [['/h.js', (c) => c.workers.handler, '/h.js']], bad: ['/missing.js'] },
  MILLRACE_BATCH: { good: [['256', (c) => c.workers.batch, 256]], bad: ['0', '65537'] },
  MILLRACE_FORMAT: { good: [['columns', (c) => c.publisher.format, 'columns']], bad: ['json'] },
  MILLRACE_SUBJECT: {
    good: [['udp.{port}.q{queue}', (c) => c.publisher.subject, 'udp.{port}.q{queue}']],
    bad: ['a..b', 'a.*', 'a.>', 'a b', '.a', '{que}', 'a.{port'],
  },
  MILLRACE_NODE: {
    good: [['n.1', (c) => [c.node, c.publisher.subject], ['n.1', 'millrace.n_1.{port}.{queue}']]],
    bad: ['a b'],
  },
  MILLRACE_WINDOW_BYTES: {
    good: [['8M', (c) => c.publisher.windowBytes, 8 << 20]],
    bad: ['1KiB', '2GiB', '8MB', '1.5M'],
  },
  MILLRACE_ENVELOPE_BYTES: {
    good: [['32Ki', (c) => c.publisher.envelopeBytes, 32768]],
    bad: ['511', '2MiB', 'x'],
  },
  MILLRACE_ENVELOPE_MS: { good: [['20', (c) => c.publisher.envelopeMs, 20]], bad: ['0', '20ms'] },
  MILLRACE_NATS_DOWN: { good: [['drop', (c) => c.publisher.natsDown, 'drop']], bad: ['wait'] },
  NATS_URL: {
    good: [
      ['a,nats://b:1', (c) => c.publisher.nats.servers, ['a:4222', 'b:1']],
      [
        'tls://[::1]:7',
        (c) => c.publisher.nats,
        { servers: ['[::1]:7'], tls: { ca: null, cert: null, key: null } },
      ],
      [
        'nats://u:p%40@h',
        (c) => c.publisher.nats,
        { servers: ['h:4222'], user: 'u', password: 'p@', token: null },
      ],
      ['nats://t0k@h', (c) => c.publisher.nats, { user: null, token: 't0k' }],
    ],
    bad: [
      'http://x',
      'nats://',
      'a,,b',
      'nats://h/path',
      'nats://u:p@a,nats://b',
      'nats://%zz@h',
      'nats://h:0',
    ],
  },
  NATS_USER: { good: [['u', (c) => c.publisher.nats.user, 'u']], bad: [] },
  NATS_PASSWORD: { good: [], bad: ['without a user'] },
  NATS_TOKEN: { good: [['t', (c) => c.publisher.nats.token, 't']], bad: [] },
  NATS_CREDS: { good: [['/c', (c) => c.publisher.nats.creds, '/c']], bad: ['/missing'] },
  NATS_NKEY: {
    good: [
      ['/seed', (c) => c.publisher.nats, { nkeyFile: '/seed', nkeySeed: null }],
      [SEED, (c) => c.publisher.nats.nkeySeed, SEED],
    ],
    bad: ['/missing', '/noseed'],
  },
  NATS_CA: {
    good: [['/ca', (c) => c.publisher.nats.tls, { ca: '/ca', cert: null, key: null }]],
    bad: ['/missing'],
  },
  NATS_PASSWORD_FILE: { good: [], bad: ['/c'] },
  NATS_TOKEN_FILE: { good: [['/c', (c) => c.publisher.nats.tokenFile, '/c']], bad: ['/missing'] },
  NATS_TLS_FIRST: {
    good: [['on', (c) => c.publisher.nats.tls, { ca: null, handshakeFirst: true }]],
    bad: ['true'],
  },
  MILLRACE_NATS_GOSSIP: { good: [['off', (c) => c.publisher.nats.gossip, false]], bad: ['false'] },
  MILLRACE_NATS_PING_MS: { good: [['500', (c) => c.publisher.nats.pingMs, 500]], bad: ['99', '60001'] },
  MILLRACE_NATS_DEAD_MS: { good: [['1500', (c) => c.publisher.nats.deadMs, 1500]], bad: ['199', 'never'] },
  NATS_CERT: { good: [], bad: ['/cert-without-key'] },
  NATS_KEY: { good: [], bad: ['/key-without-cert'] },
  MILLRACE_LANE_SLOTS: { good: [['64', (c) => c.engine.laneSlots, 64]], bad: ['63', '100', '2097152'] },
  MILLRACE_LANE_BYTES: { good: [['65536', (c) => c.engine.laneBytes, 65536]], bad: ['64KB', '3MiB', '2GiB'] },
  MILLRACE_WAKE_MIN: { good: [['1', (c) => c.engine.wakeMin, 1]], bad: ['0', '1048577'] },
  MILLRACE_WAKE_MAX_US: { good: [['1', (c) => c.engine.wakeMaxUs, 1]], bad: ['0', '1000001'] },
  MILLRACE_XDP_MODE: { good: [['native', (c) => c.engine.xdpMode, 'native']], bad: ['skb'] },
  MILLRACE_RX_PRIORITY: { good: [['99', (c) => c.engine.rxPriority, 99]], bad: ['0', '100', 'high'] },
  MILLRACE_XDP_FRAMES: { good: [['512', (c) => c.engine.xdpFrames, 512]], bad: ['256', '513'] },
  MILLRACE_XDP_ZEROCOPY: { good: [['auto', (c) => c.engine.xdpZerocopy, 'auto']], bad: ['true'] },
  MILLRACE_XDP_PREFER_BUSY_POLL: {
    good: [['true', (c) => c.engine.xdpPreferBusyPoll, true]],
    bad: ['auto'],
  },
  MILLRACE_NAPI_DEFER_HARD_IRQS: {
    good: [['0', (c) => c.engine.napiDeferHardIrqs, 0]],
    bad: ['-1', '2147483648'],
  },
  MILLRACE_GRO_FLUSH_TIMEOUT: {
    good: [['200000', (c) => c.engine.groFlushTimeout, 200000]],
    bad: ['200us', '2147483648'],
  },
  MILLRACE_PACKET_BLOCK_BYTES: {
    good: [['128KiB', (c) => c.engine.packetBlockBytes, 131072]],
    bad: ['64KiB', '8MiB'],
  },
  MILLRACE_PACKET_BLOCKS: { good: [['4', (c) => c.engine.packetBlocks, 4]], bad: ['3', '4097'] },
  MILLRACE_VERIFY_CHECKSUM: { good: [['1', (c) => c.engine.verifyChecksum, true]], bad: ['yes'] },
  MILLRACE_TPACKET: { good: [['v2', (c) => c.engine.tpacket, 'v2']], bad: ['2', 'v1'] },
  MILLRACE_PACKET_SLOT_BYTES: {
    good: [['2KiB', (c) => c.engine.packetSlotBytes, 2048]],
    bad: ['1KiB', '256KiB', '2049'],
  },
  MILLRACE_FANOUT: { good: [['qm', (c) => c.engine.fanout, 'qm']], bad: ['HASH', 'random'] },
  MILLRACE_FANOUT_FLAGS: {
    good: [
      ['none', (c) => c.engine.fanoutFlags, []],
      ['defrag, rollover', (c) => c.engine.fanoutFlags, ['defrag', 'rollover']],
    ],
    bad: ['defrag,defrag', 'unique', 'defrag,'],
  },
  MILLRACE_SOCKET_TIMESTAMPS: {
    good: [['kernel', (c) => c.engine.socketTimestamps, 'kernel']],
    bad: ['on'],
  },
  MILLRACE_SOCKET_RCVBUF: { good: [['4096b', (c) => c.engine.socketRcvbuf, 4096]], bad: ['4095', '2G'] },
  MILLRACE_HTTP: {
    good: [
      ['off', (c) => c.http, null],
      ['[::1]:0', (c) => c.http, { host: '::1', port: 0 }],
    ],
    bad: ['9180', ':9180', '1.2.3.4', '::1:80', '1.2.3.4:65536'],
  },
  MILLRACE_LOG_LEVEL: { good: [['debug', (c) => c.log.level, 'debug']], bad: ['verbose'] },
  MILLRACE_DRAIN_MS: { good: [['0', (c) => c.drainMs, 0]], bad: ['600001', '20s'] },
  MILLRACE_DEBUG_POISON: { good: [['true', (c) => c.workers.debugPoison, true]], bad: ['on'] },
}

for (const [name, { good, bad }] of Object.entries(CASES)) {
  t.test(name, async (t) => {
    for (const [value, read, expected] of good) t.match(read(load({ [name]: value })), expected, value)
    for (const value of bad) {
      const error = problems({ [name]: value })
      t.equal(error.problems.length, 1, `${value} is one problem`)
      t.equal(error.problems[0]!.name, name)
      t.match(error.toString(), new RegExp(`^MILLRACE_E_[A-Z]+: ${name}(=".*": expected .| /)`), value)
      t.notMatch(error.toString(), '\n')
      t.equal(exitStatus(error), 2)
    }
    // What the help recommends must work.
    const { example, secret } = VARIABLES[name as VariableName] as { example: string; secret?: true }
    const beside = {
      NATS_PASSWORD: { NATS_USER: 'u' },
      NATS_PASSWORD_FILE: { NATS_USER: 'u' },
      NATS_CERT: { NATS_KEY: '/k' },
      NATS_KEY: { NATS_CERT: '/c' },
    }
    const more = (beside as Record<string, object>)[name] ?? {}
    if (!secret && name !== 'MILLRACE_RULES_FILE') {
      // The example of worker CPUs is of a larger machine.
      t.doesNotThrow(() => load({ [name]: example, ...more }, [0, 1, 2, 3, 4, 5, 6, 7]), `example ${example}`)
    }
  })
}

t.test('queues above the CPU count', async (t) => {
  const error = problems({ MILLRACE_QUEUES: '5' })
  t.equal(error.code, 'MILLRACE_E_QUEUES')
  t.equal(
    error.toString(),
    'MILLRACE_E_QUEUES: MILLRACE_QUEUES="5": expected at most 4, the CPUs this process may use, unless MILLRACE_OVERSUBSCRIBE=true',
  )
  const config = load({ MILLRACE_QUEUES: '5', MILLRACE_OVERSUBSCRIBE: 'true' })
  t.equal(config.engine.queues, 5)
  t.same([config.engine.rxCpus, config.workers.cpus], [[], []], 'auto does not pin more workers than CPUs')
  const pinned = load({ MILLRACE_QUEUES: '5', MILLRACE_OVERSUBSCRIBE: '1', MILLRACE_PIN: 'on' })
  t.same(pinned.engine.rxCpus, [0, 1, 2, 3, 0])
  t.equal(pinned.workers.cpus.length, 5)
})

t.test('CPUs are those of the process', async (t) => {
  const config = load({ MILLRACE_QUEUES: '2', MILLRACE_RX_THREADS: '1' }, [4, 6, 9])
  t.same(
    [config.engine.rxCpus, config.workers.cpus],
    [[4], [6, 9]],
    'no two threads share a CPU when there is room',
  )
  t.match(problems({ MILLRACE_RX_CPUS: '5-6' }, [4, 6]).toString(), 'CPUs this process may use, 4,6, not 5')
  t.match(
    problems({ MILLRACE_RX_CPUS: '0', MILLRACE_PIN: 'off' }).toString(),
    'no value while MILLRACE_PIN=off',
  )
  t.equal(loadConfig({}, { ...FACTS, parallelism: 2 }).engine.queues, 2, 'a quota lowers the default')
})

t.test(
  'a rules file that is refused has one message, at the start, at a reload and on the command line',
  async (t) => {
    const refused = (path: string) => problems({ MILLRACE_RULES_FILE: path, MILLRACE_BATCH: 'x' }).toString()
    t.match(refused('/rules.latin').split('\n'), [
      /^MILLRACE_E_CONFIG: MILLRACE_BATCH="x": /,
      'MILLRACE_E_RULES: MILLRACE_RULES_FILE /rules.latin: line 2 is not UTF-8',
    ])
    t.match(
      refused('/missing'),
      'MILLRACE_E_CONFIG: MILLRACE_RULES_FILE /missing: no such file; expected a file of rules',
    )
    const real = t.testdir({ latin: FILES['/rules.latin']! })
    const said = (f: () => unknown) => {
      try {
        return f()
      } catch (error) {
        return String(error)
      }
    }
    t.equal(
      said(() => loadConfig({ MILLRACE_RULES_FILE: `${real}/latin` }, { cpus: [0], hostname: 'x' })),
      said(() => readRules(`${real}/latin`, rulesFileName(`${real}/latin`))),
    )
  },
)

t.test('variables that exclude or need each other', async (t) => {
  const cases: [Record<string, string>, string][] = [
    [{ MILLRACE_RULES: 'a', MILLRACE_RULES_FILE: '/rules' }, 'MILLRACE_RULES_FILE'],
    [{ NATS_USER: 'u', NATS_TOKEN: 't' }, 'NATS_TOKEN'],
    [{ NATS_URL: 'nats://t@h', NATS_CREDS: '/c' }, 'NATS_CREDS'],
    [{ NATS_CERT: '/c' }, 'NATS_CERT'],
    [{ MILLRACE_ENVELOPE_BYTES: '1MiB', MILLRACE_WINDOW_BYTES: '64KiB' }, 'MILLRACE_ENVELOPE_BYTES'],
  ]
  for (const [env, name] of cases) {
    const error = problems(env)
    t.same(
      error.problems.map((p) => p.name),
      [name],
      Object.keys(env).join(' '),
    )
  }
})

t.test('what an unset interface means depends on the backend', async (t) => {
  const shown = (backend: string) =>
    load({ MILLRACE_BACKEND: backend }).settings.find(({ name }) => name === 'MILLRACE_INTERFACE')?.value
  t.same(['auto', 'xdp', 'packet', 'socket'].map(shown), [
    '(none: auto takes sockets)',
    '(default route)',
    '(default route)',
    '(none)',
  ])
})

t.test('an empty variable counts as unset', async (t) => {
  t.equal(load({ MILLRACE_BATCH: '', MILLRACE_QEUES: '', NODE_NAME: '' }).workers.batch, 1024)
  t.equal(load({ NODE_NAME: 'node-7' }).node, 'node-7')
})

t.test('every problem of one start is reported, once', async (t) => {
  const error = problems({
    MILLRACE_QUEUES: 'many',
    MILLRACE_LISTEN: 'x',
    MILLRACE_QEUES: '4',
    MILLRACE_RULES: 'a',
    MILLRACE_RULES_FILE: '/rules',
    MILLRACE_PIN: 'perhaps',
    MILLRACE_RX_CPUS: '0',
  })
  const names = error.problems.map((p) => p.name).sort()
  t.same(names, [
    'MILLRACE_LISTEN',
    'MILLRACE_PIN',
    'MILLRACE_QEUES',
    'MILLRACE_QUEUES',
    'MILLRACE_RULES_FILE',
  ])
  t.equal(error.toString().split('\n').length, 5)
})

t.test('suggestions', async (t) => {
  const suggests: [string, string | undefined][] = [
    ['MILLRACE_QEUES', 'MILLRACE_QUEUES'],
    ['MILLRACE_BACKENDS', 'MILLRACE_BACKEND'],
    ['MILLRACE_RXTHREADS', 'MILLRACE_RX_THREADS'],
    ['MILLRACE_HTTP_PORT', 'MILLRACE_HTTP'],
    ['MILLRACE_NATS_URL', 'NATS_URL'],
    ['MILLRACE_LANE', 'MILLRACE_LANE_SLOTS'],
    ['MILLRACE_ZYXWVUTSRQPONMLKJ', undefined],
  ]
  for (const [name, suggestion] of suggests) {
    const text = problems({ [name]: 'v' }).toString()
    t.match(text, suggestion ? `did you mean ${suggestion}?` : 'see millrace --help', name)
  }
  t.equal(distance('abc', 'acb'), 1)
  t.equal(distance('kitten', 'sitting'), 3)
  t.equal(distance('', 'abc'), 3)
  t.doesNotThrow(() => load({ MILLRACE_SKIP_LOG: '/tmp/x' }), 'names of tools are left alone')
})

t.test('what Kubernetes injects for a Service is ignored', async (t) => {
  const links = {
    MILLRACE_SERVICE_HOST: '10.0.0.7',
    MILLRACE_SERVICE_PORT: '9180',
    MILLRACE_SERVICE_PORT_METRICS: '9180',
    MILLRACE_PORT: 'tcp://10.0.0.7:9180',
    MILLRACE_PORT_9180_TCP: 'tcp://10.0.0.7:9180',
    MILLRACE_PORT_9180_TCP_PROTO: 'tcp',
    MILLRACE_PORT_9180_TCP_PORT: '9180',
    MILLRACE_PORT_9180_TCP_ADDR: '10.0.0.7',
    MILLRACE_METRICS_SERVICE_HOST: 'fd00::7',
    MILLRACE_METRICS_PORT: 'udp://[fd00::7]:9000',
  }
  t.same(load(links).serviceLinks, Object.keys(links))
  t.notOk(isServiceLink('MILLRACE_HTTP_PORT', '9180'), 'the value must fit too')
  t.notOk(isServiceLink('MILLRACE_SERVICE_HOST', 'somewhere'))
  t.match(problems({ MILLRACE_PORT: '9000' }).toString(), 'MILLRACE_PORT="9000"')
})

t.test('secrets appear nowhere', async (t) => {
  const secret = 'hunter2'
  const config = load({ NATS_USER: 'u', NATS_PASSWORD: secret })
  t.equal(config.publisher.nats.password, secret)
  const url = load({ NATS_URL: `nats://u:${secret}@h:1,nats://u:${secret}@i` })
  t.equal(url.publisher.nats.password, secret)
  const texts = [config, url].flatMap((c) => [
    settingsTable(c),
    JSON.stringify(redactedConfig(c)),
    JSON.stringify(c.settings),
  ])
  texts.push(
    problems({ NATS_URL: `nats://u:${secret}@h h` }).toString(),
    problems({ NATS_URL: `nats://u:x/@${secret}@h/p,http://${secret}@h` }).toString(),
    problems({ NATS_PASSWORD: secret }).toString(),
    problems({ NATS_TOKEN: secret, NATS_USER: 'u' }).toString(),
    problems({ NATS_NKEY: `/${secret}` }).toString(),
    problems({ MILLRACE_PASSWORD: secret }).toString(),
  )
  for (const text of texts) t.notMatch(text, secret)
  t.match(settingsTable(url), 'nats://[redacted]@h:1,nats://[redacted]@i')
})

t.test('errors of the addon', async (t) => {
  const native = fromNative(new Error('MILLRACE_E_PORT: 9000: taken'))
  t.match(native, { code: 'MILLRACE_E_PORT', message: '9000: taken' })
  t.equal(String(native), 'MILLRACE_E_PORT: 9000: taken')
  t.equal(exitStatus(native), 3)
  t.equal(fromNative(native), native)
  t.equal(fromNative(new Error('MILLRACE_E_RULES: line 1\n  ^ here')).message, 'line 1\n  ^ here')
  t.equal(fromNative(new Error('MILLRACE_E_NEVERHEARD: x')).code, 'MILLRACE_E_UNEXPECTED')
  t.equal(fromNative('text').code, 'MILLRACE_E_UNEXPECTED')
  t.equal(fromNative(null).code, 'MILLRACE_E_UNEXPECTED')
  t.equal(fromNative(Object.assign(new Error('x'), { code: 'MILLRACE_E_WORKER' })).code, 'MILLRACE_E_WORKER')
  t.equal(exitStatus(new MillraceError('MILLRACE_E_HANDLER', 'x')), 2)
  t.equal(exitStatus(new MillraceError('MILLRACE_E_RANGE', 'x')), 1, 'not meant to end a process')
})
