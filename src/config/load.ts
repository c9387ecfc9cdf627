import type { Config } from './config.js'
import type { HostInfo } from './host-info.js'
import { natsConfig } from './nats.js'
import { ConfigError, redacted, shown } from './problems.js'
import { readValues } from './schema.js'
import { unknownVariables } from './unknown-variables.js'
import { Validation } from './validate.js'
import { cpuText } from './value-types.js'
import { ENTRIES, type Values, type VariableName } from './variables.js'

const DEFAULT_RULES = 'else => hash(flow)'
/** Queues that the engine takes (EngineConfig::queues); a machine with more CPUs starts with so many. */
const MAX_QUEUES = 256
/** Parts of names that Millrace does not know whose values may still be secrets. */
const SECRET_NAME = /PASS|TOKEN|SECRET|KEY|SEED|CRED|AUTH|URL/

/**
 * The configuration that an environment means. It depends on the arguments alone, and on the files that variables name,
 * which are read through `host`. An empty variable counts as unset, because templates leave such variables behind.
 *
 * @throws {@link ConfigError} with every problem at once.
 */
export function loadConfig(
  environment: Readonly<Record<string, string | undefined>>,
  host: HostInfo,
): Config {
  const env = Object.fromEntries(
    Object.entries(environment).filter((pair): pair is [string, string] => !!pair[1]),
  )
  const { unknown, serviceLinks } = unknownVariables(env)
  const { values, problems } = readValues(env)
  for (const { name, suggestion } of unknown) {
    problems.push({
      code: 'MILLRACE_E_CONFIG',
      name,
      given: SECRET_NAME.test(name) ? '"[redacted]"' : shown(name, env[name]!),
      expected: `a name Millrace knows${suggestion ? `; did you mean ${suggestion}?` : ', see millrace --help'}`,
    })
  }
  const validation = new Validation(env, values, host, problems)
  const config = assemble(validation)
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze({ ...config, settings: settings(validation, config), serviceLinks })
}

type Assembled = Omit<Config, 'settings' | 'serviceLinks'>

function assemble(validation: Validation): Assembled {
  const { values: v, host } = validation
  const { NODE_NAME } = validation.env
  const node = v.MILLRACE_NODE ?? NODE_NAME ?? host.hostname
  const queues = queueCount(validation)
  const rxThreads = v.MILLRACE_RX_THREADS ?? queues
  const cpus = assignCpus(validation, queues, rxThreads)
  validateSizes(validation)
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
      rules: rules(validation),
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
        v.MILLRACE_HANDLER === 'forward'
          ? 'forward'
          : validation.existingFile('MILLRACE_HANDLER', 'MILLRACE_E_HANDLER')!,
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
      nats: natsConfig(validation),
    },
    http: v.MILLRACE_HTTP,
    log: { level: v.MILLRACE_LOG_LEVEL },
    drainMs: v.MILLRACE_DRAIN_MS,
  }
}

/** Reports sizes and flags that are valid alone and not together. */
function validateSizes(validation: Validation): void {
  const { values: v } = validation
  if (v.MILLRACE_ENVELOPE_BYTES > v.MILLRACE_WINDOW_BYTES) {
    validation.fail(
      'MILLRACE_ENVELOPE_BYTES',
      `no more than MILLRACE_WINDOW_BYTES, ${v.MILLRACE_WINDOW_BYTES}`,
      ['MILLRACE_WINDOW_BYTES'],
    )
  }
  if (v.MILLRACE_FANOUT === 'rollover' && v.MILLRACE_FANOUT_FLAGS?.includes('rollover')) {
    validation.fail('MILLRACE_FANOUT_FLAGS', 'no rollover while MILLRACE_FANOUT=rollover', [
      'MILLRACE_FANOUT',
    ])
  }
  if (
    v.MILLRACE_PACKET_SLOT_BYTES % 16 !== 0 ||
    v.MILLRACE_PACKET_SLOT_BYTES > v.MILLRACE_PACKET_BLOCK_BYTES
  ) {
    validation.fail('MILLRACE_PACKET_SLOT_BYTES', 'a multiple of 16, at most MILLRACE_PACKET_BLOCK_BYTES')
  }
}

function queueCount(validation: Validation): number {
  const { values, host } = validation
  const cpus = host.cpus.length
  const queues = values.MILLRACE_QUEUES ?? Math.min(host.parallelism ?? cpus, cpus, MAX_QUEUES)
  if (queues > cpus && !values.MILLRACE_OVERSUBSCRIBE) {
    validation.fail(
      'MILLRACE_QUEUES',
      `at most ${cpus}, the CPUs this process may use, unless MILLRACE_OVERSUBSCRIBE=true`,
      ['MILLRACE_OVERSUBSCRIBE'],
      'MILLRACE_E_QUEUES',
    )
  }
  return queues
}

/** The CPU of each receive thread and of each worker; the lists are empty where nothing is pinned. */
function assignCpus(
  validation: Validation,
  queues: number,
  rxThreads: number,
): { rx: number[]; workers: number[] } {
  const { values, host } = validation
  const pin = values.MILLRACE_PIN === 'on' || (values.MILLRACE_PIN === 'auto' && host.cpus.length >= queues)
  const assign = (
    name: 'MILLRACE_RX_CPUS' | 'MILLRACE_WORKER_CPUS',
    first: number,
    count: number,
  ): number[] => {
    const given = values[name]
    const foreign = given?.filter((cpu) => !host.cpus.includes(cpu)) ?? []
    if (foreign.length > 0) {
      validation.fail(name, `CPUs this process may use, ${cpuText(host.cpus)}, not ${cpuText(foreign)}`)
    }
    if (given && values.MILLRACE_PIN === 'off') {
      validation.fail(name, 'no value while MILLRACE_PIN=off', ['MILLRACE_PIN'])
    }
    const from = given ?? (pin ? host.cpus : [])
    if (from.length === 0) return []
    const offset = given ? 0 : first
    return Array.from({ length: count }, (_, i) => from[(offset + i) % from.length]!)
  }
  return {
    rx: assign('MILLRACE_RX_CPUS', 0, rxThreads),
    // Workers follow the receive threads, so that no two threads share a CPU where there are enough for all.
    workers: assign('MILLRACE_WORKER_CPUS', rxThreads, queues),
  }
}

function rules(validation: Validation): string {
  validation.exclusive('MILLRACE_RULES', 'MILLRACE_RULES_FILE')
  return validation.values.MILLRACE_RULES ?? validation.readRulesFile() ?? DEFAULT_RULES
}

/** The value of every variable as `millrace config` shows it. */
function settings(validation: Validation, config: Assembled): Config['settings'] {
  const computed: Partial<Record<VariableName, string>> = {
    MILLRACE_QUEUES: String(config.engine.queues),
    MILLRACE_RX_THREADS: String(config.engine.rxThreads),
    MILLRACE_RX_CPUS: config.engine.rxCpus.join(',') || '(not pinned)',
    MILLRACE_WORKER_CPUS: config.workers.cpus.join(',') || '(not pinned)',
    MILLRACE_NODE: config.node,
    MILLRACE_INTERFACE: UNSET_INTERFACE[config.engine.backend],
    ...(validation.isSet('MILLRACE_RULES_FILE') ? {} : { MILLRACE_RULES: config.engine.rules }),
  }
  return ENTRIES.map(([name, variable]) => {
    const given = validation.env[name]
    return given === undefined
      ? { name, value: computed[name] ?? variable.default ?? '', source: 'default' }
      : { name, value: redacted(name, given), source: 'environment' }
  })
}

/** What each backend does without MILLRACE_INTERFACE (rx/ladder.rs, and the `open` of each backend). */
const UNSET_INTERFACE: Readonly<Record<Values['MILLRACE_BACKEND'], string>> = {
  auto: '(none: auto takes sockets)',
  xdp: '(default route)',
  packet: '(default route)',
  socket: '(none)',
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    Object.values(value).forEach(deepFreeze)
  }
  return value
}
