import type { Config } from './config.js'
import type { Facts } from './host-info.js'
import { natsConfig } from './nats.js'
import { ConfigError, redacted, shown } from './problems.js'
import { readValues } from './schema.js'
import { strangers } from './unknown-variables.js'
import { Check } from './validate.js'
import { cpuText } from './value-types.js'
import { ENTRIES, type VariableName } from './variables.js'

const DEFAULT_RULES = 'else => hash(flow)'
const MOST_QUEUES = 256
/** Names we do not know that may still hold what nobody should read. */
const SECRETIVE = /PASS|TOKEN|SECRET|KEY|SEED|CRED|AUTH|URL/

/**
 * The configuration that an environment means. Depends on nothing but its arguments (and on the files it names, through
 * `facts`). An empty variable counts as unset, because that is what templates leave behind.
 *
 * @throws {@link ConfigError} with every problem at once.
 */
export function loadConfig(environment: Readonly<Record<string, string | undefined>>, facts: Facts): Config {
  const env = Object.fromEntries(
    Object.entries(environment).filter((pair): pair is [string, string] => !!pair[1]),
  )
  const { unknown, serviceLinks } = strangers(env)
  const { values, problems } = readValues(env)
  for (const { name, suggestion } of unknown) {
    problems.push({
      code: 'MILLRACE_E_CONFIG',
      name,
      given: SECRETIVE.test(name) ? '"[redacted]"' : shown(name, env[name]!),
      expected: `a name Millrace knows${suggestion ? `; did you mean ${suggestion}?` : ', see millrace --help'}`,
    })
  }
  const check = new Check(env, values, facts, problems)
  const config = assemble(check)
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze({ ...config, settings: settings(check, config), serviceLinks })
}

type Assembled = Omit<Config, 'settings' | 'serviceLinks'>

function assemble(check: Check): Assembled {
  const { values: v, facts } = check
  const { NODE_NAME } = check.env
  const node = v.MILLRACE_NODE ?? NODE_NAME ?? facts.hostname
  const queues = queueCount(check)
  const rxThreads = v.MILLRACE_RX_THREADS ?? queues
  const cpus = pinning(check, queues, rxThreads)
  if (v.MILLRACE_ENVELOPE_BYTES > v.MILLRACE_WINDOW_BYTES) {
    check.fail('MILLRACE_ENVELOPE_BYTES', `no more than MILLRACE_WINDOW_BYTES, ${v.MILLRACE_WINDOW_BYTES}`, [
      'MILLRACE_WINDOW_BYTES',
    ])
  }
  if (v.MILLRACE_FANOUT === 'rollover' && v.MILLRACE_FANOUT_FLAGS?.includes('rollover')) {
    check.fail('MILLRACE_FANOUT_FLAGS', 'no rollover while MILLRACE_FANOUT=rollover', ['MILLRACE_FANOUT'])
  }
  if (
    v.MILLRACE_PACKET_SLOT_BYTES % 16 !== 0 ||
    v.MILLRACE_PACKET_SLOT_BYTES > v.MILLRACE_PACKET_BLOCK_BYTES
  ) {
    check.fail('MILLRACE_PACKET_SLOT_BYTES', 'a multiple of 16, at most MILLRACE_PACKET_BLOCK_BYTES')
  }
  return {
    node,
    engine: {
      backend: v.MILLRACE_BACKEND,
      interface: v.MILLRACE_INTERFACE ?? null,
      listen: v.MILLRACE_LISTEN,
      multicast: v.MILLRACE_MULTICAST ?? [],
      queues,
      rxThreads,
      rxCpus: cpus.rx,
      rxPriority: v.MILLRACE_RX_PRIORITY ?? null,
      rules: rules(check),
      busyPoll: v.MILLRACE_BUSY_POLL,
      busyPollUs: v.MILLRACE_BUSY_POLL_US,
      laneSlots: v.MILLRACE_LANE_SLOTS,
      laneBytes: v.MILLRACE_LANE_BYTES,
      wakeMin: v.MILLRACE_WAKE_MIN,
      wakeMaxUs: v.MILLRACE_WAKE_MAX_US,
      xdpMode: v.MILLRACE_XDP_MODE,
      xdpFrames: v.MILLRACE_XDP_FRAMES,
      xdpZerocopy: v.MILLRACE_XDP_ZEROCOPY,
      xdpPreferBusyPoll: v.MILLRACE_XDP_PREFER_BUSY_POLL,
      napiDeferHardIrqs: v.MILLRACE_NAPI_DEFER_HARD_IRQS ?? null,
      groFlushTimeout: v.MILLRACE_GRO_FLUSH_TIMEOUT ?? null,
      packetBlockBytes: v.MILLRACE_PACKET_BLOCK_BYTES,
      packetBlocks: v.MILLRACE_PACKET_BLOCKS,
      verifyChecksum: v.MILLRACE_VERIFY_CHECKSUM,
      tpacket: v.MILLRACE_TPACKET,
      packetSlotBytes: v.MILLRACE_PACKET_SLOT_BYTES,
      fanout: v.MILLRACE_FANOUT,
      fanoutFlags: v.MILLRACE_FANOUT_FLAGS,
      socketTimestamps: v.MILLRACE_SOCKET_TIMESTAMPS,
      socketRcvbuf: v.MILLRACE_SOCKET_RCVBUF,
    },
    workers: {
      queues,
      cpus: cpus.workers,
      handler:
        v.MILLRACE_HANDLER === 'forward' ? 'forward' : check.file('MILLRACE_HANDLER', 'MILLRACE_E_HANDLER')!,
      batch: v.MILLRACE_BATCH,
      debugPoison: v.MILLRACE_DEBUG_POISON,
    },
    publisher: {
      format: v.MILLRACE_FORMAT,
      // A host name with dots must not become several tokens of the subject.
      subject: v.MILLRACE_SUBJECT.replaceAll('{node}', node.replace(/[^A-Za-z0-9_-]/g, '_')),
      windowBytes: v.MILLRACE_WINDOW_BYTES,
      envelopeBytes: v.MILLRACE_ENVELOPE_BYTES,
      envelopeMs: v.MILLRACE_ENVELOPE_MS,
      natsDown: v.MILLRACE_NATS_DOWN,
      nats: natsConfig(check),
    },
    http: v.MILLRACE_HTTP,
    log: { level: v.MILLRACE_LOG_LEVEL },
    drainMs: v.MILLRACE_DRAIN_MS,
  }
}

function queueCount(check: Check): number {
  const { values, facts } = check
  const cpus = facts.cpus.length
  const queues = values.MILLRACE_QUEUES ?? Math.min(facts.parallelism ?? cpus, cpus, MOST_QUEUES)
  if (queues > cpus && !values.MILLRACE_OVERSUBSCRIBE) {
    check.fail(
      'MILLRACE_QUEUES',
      `at most ${cpus}, the CPUs this process may use, unless MILLRACE_OVERSUBSCRIBE=true`,
      ['MILLRACE_OVERSUBSCRIBE'],
      'MILLRACE_E_QUEUES',
    )
  }
  return queues
}

/** CPUs of receive threads and workers; empty lists where nothing is pinned. */
function pinning(check: Check, queues: number, rxThreads: number): { rx: number[]; workers: number[] } {
  const { values, facts } = check
  const pick = (
    name: 'MILLRACE_RX_CPUS' | 'MILLRACE_WORKER_CPUS',
    first: number,
    count: number,
  ): number[] => {
    const asked = values[name]
    const foreign = asked?.filter((cpu) => !facts.cpus.includes(cpu)) ?? []
    if (foreign.length > 0) {
      check.fail(name, `CPUs this process may use, ${cpuText(facts.cpus)}, not ${cpuText(foreign)}`)
    }
    if (asked && values.MILLRACE_PIN === 'off') {
      check.fail(name, 'no value while MILLRACE_PIN=off', ['MILLRACE_PIN'])
    }
    const pin =
      values.MILLRACE_PIN === 'on' || (values.MILLRACE_PIN === 'auto' && facts.cpus.length >= queues)
    const from = asked ?? (pin ? facts.cpus : [])
    if (from.length === 0) return []
    const offset = asked ? 0 : first
    return Array.from({ length: count }, (_, i) => from[(offset + i) % from.length]!)
  }
  return {
    rx: pick('MILLRACE_RX_CPUS', 0, rxThreads),
    // After the receive threads, so that on a host with room for both no two share a CPU.
    workers: pick('MILLRACE_WORKER_CPUS', rxThreads, queues),
  }
}

function rules(check: Check): string {
  check.exclusive('MILLRACE_RULES', 'MILLRACE_RULES_FILE')
  return check.values.MILLRACE_RULES ?? check.rules() ?? DEFAULT_RULES
}

/** What every variable came to, for `millrace config`. */
function settings(check: Check, config: Assembled): Config['settings'] {
  const computed: Partial<Record<VariableName, string>> = {
    MILLRACE_QUEUES: String(config.engine.queues),
    MILLRACE_RX_THREADS: String(config.engine.rxThreads),
    MILLRACE_RX_CPUS: config.engine.rxCpus.join(',') || '(not pinned)',
    MILLRACE_WORKER_CPUS: config.workers.cpus.join(',') || '(not pinned)',
    MILLRACE_NODE: config.node,
    MILLRACE_INTERFACE: '(default route)',
    ...(check.isSet('MILLRACE_RULES_FILE') ? {} : { MILLRACE_RULES: config.engine.rules }),
  }
  return ENTRIES.map(([name, variable]) => {
    const given = check.env[name]
    return given === undefined
      ? { name, value: computed[name] ?? variable.default ?? '', source: 'default' }
      : { name, value: redacted(name, given), source: 'environment' }
  })
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    Object.values(value).forEach(deepFreeze)
  }
  return value
}
