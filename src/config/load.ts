import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { ErrorCode } from '../errors.js'
import type { Config, NatsConfig } from './config.js'
import type { Facts } from './facts.js'
import { cpuText } from './kinds.js'
import { strangers } from './names.js'
import { ConfigError, type Problem, redacted, shown } from './problems.js'
import { readValues } from './schema.js'
import { ENTRIES, type Values, type VariableName } from './variables.js'

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

/** The inputs of one load, and the place where problems gather. */
class Check {
  readonly #faulty: ReadonlySet<string>
  readonly #exists: (path: string) => boolean
  readonly #readText: (path: string) => string

  constructor(
    readonly env: Readonly<Record<string, string>>,
    readonly values: Values,
    readonly facts: Facts,
    readonly problems: Problem[],
  ) {
    this.#faulty = new Set(problems.map((p) => p.name))
    this.#exists = facts.exists ?? existsSync
    this.#readText = facts.readText ?? ((path) => readFileSync(path, 'utf8'))
  }

  isSet(name: VariableName): boolean {
    return this.env[name] !== undefined
  }

  /** Reports that `name` is not `expected`; silent where one of the variables involved is already reported. */
  fail(
    name: VariableName,
    expected: string,
    also: readonly VariableName[] = [],
    code: ErrorCode = 'MILLRACE_E_CONFIG',
  ): void {
    if ([name, ...also].some((n) => this.#faulty.has(n))) return
    const given = this.env[name] === undefined ? '(unset)' : shown(name, this.env[name])
    this.problems.push({ code, name, given, expected })
  }

  /** At most one of several variables may be set. */
  exclusive(...names: VariableName[]): void {
    const given = names.filter((name) => this.isSet(name))
    for (const name of given.slice(1)) this.fail(name, `no value while ${given[0]} is set`, [given[0]!])
  }

  /** The absolute path of a file that exists, or null where the variable is unset. */
  file(name: VariableName, code: ErrorCode = 'MILLRACE_E_CONFIG'): string | null {
    const value = this.env[name]
    if (value === undefined) return null
    const path = resolve(value)
    if (!this.#exists(path)) this.fail(name, `a file that exists; ${path} does not`, [], code)
    return path
  }

  /** The text of a file, or null where the variable is unset or the file cannot be read. */
  text(name: VariableName): string | null {
    const value = this.env[name]
    if (value === undefined) return null
    try {
      return this.#readText(resolve(value))
    } catch (error) {
      // Node's message repeats the path; the code alone keeps a mistyped secret out of the line.
      this.fail(name, `a file that can be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`)
      return null
    }
  }
}

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
  return {
    node,
    engine: {
      backend: v.MILLRACE_BACKEND,
      interface: v.MILLRACE_INTERFACE ?? null,
      listen: v.MILLRACE_LISTEN,
      queues,
      rxThreads,
      rxCpus: cpus.rx,
      rules: rules(check),
      busyPoll: v.MILLRACE_BUSY_POLL,
      busyPollUs: v.MILLRACE_BUSY_POLL_US,
      laneSlots: v.MILLRACE_LANE_SLOTS,
      laneBytes: v.MILLRACE_LANE_BYTES,
      wakeMin: v.MILLRACE_WAKE_MIN,
      wakeMaxUs: v.MILLRACE_WAKE_MAX_US,
      xdpMode: v.MILLRACE_XDP_MODE,
      xdpFrames: v.MILLRACE_XDP_FRAMES,
      packetBlockBytes: v.MILLRACE_PACKET_BLOCK_BYTES,
      packetBlocks: v.MILLRACE_PACKET_BLOCKS,
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
      nats: nats(check),
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
  return check.values.MILLRACE_RULES ?? check.text('MILLRACE_RULES_FILE') ?? DEFAULT_RULES
}

function nats(check: Check): NatsConfig {
  const { values: v } = check
  const url = v.NATS_URL
  check.exclusive('NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY')
  if (url.user !== null || url.token !== null) {
    for (const name of ['NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY'] as const) {
      if (check.isSet(name)) check.fail(name, 'no value while NATS_URL has credentials', ['NATS_URL'])
    }
  }
  if (check.isSet('NATS_PASSWORD') && !check.isSet('NATS_USER')) {
    check.fail('NATS_PASSWORD', 'NATS_USER beside it')
  }
  if (check.isSet('NATS_CERT') && !check.isSet('NATS_KEY')) check.fail('NATS_CERT', 'NATS_KEY beside it')
  if (check.isSet('NATS_KEY') && !check.isSet('NATS_CERT')) check.fail('NATS_KEY', 'NATS_CERT beside it')
  const [ca, cert, key] = [check.file('NATS_CA'), check.file('NATS_CERT'), check.file('NATS_KEY')]
  return {
    servers: url.servers,
    user: v.NATS_USER ?? url.user,
    password: v.NATS_PASSWORD ?? url.password,
    token: v.NATS_TOKEN ?? url.token,
    creds: check.file('NATS_CREDS'),
    nkeySeed: nkeySeed(check),
    tls: url.tls || ca || cert ? { ca, cert, key } : null,
  }
}

/** Seeds are `S`, a kind, and 56 more characters of base32. */
const SEED = /^S[UACNO][A-Z2-7]{56}$/

function nkeySeed(check: Check): string | null {
  const given = check.values.NATS_NKEY
  if (given === undefined || SEED.test(given)) return given ?? null
  const file = check.text('NATS_NKEY')
  const seed = file?.match(/\bS[UACNO][A-Z2-7]{56}\b/)?.[0] ?? null
  if (file !== null && seed === null)
    check.fail('NATS_NKEY', 'a file with an nkey seed (S and 57 characters)')
  return seed
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
