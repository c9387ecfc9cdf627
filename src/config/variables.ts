import { httpAddress, listenList, multicastList } from './addresses.js'
import { FORMATS } from './formats.js'
import { natsServers, subject } from './nats-values.js'
import {
  boolean,
  choice,
  choices,
  cpuList,
  integer,
  powerOfTwo,
  size,
  text,
  type ValueType,
} from './value-types.js'

/** Headings of the reference, in its order. */
export const GROUPS = {
  receive: 'Receiving',
  queues: 'Queues and CPUs',
  rules: 'Rules and handler',
  publish: 'Publishing',
  nats: 'NATS connection',
  lanes: 'Lanes and wake-up',
  backends: 'Backends',
  service: 'Service',
} as const

/** One environment variable, as the schema, the help and docs/configuration.md describe it. */
export interface Variable<T = unknown> {
  readonly group: keyof typeof GROUPS
  readonly type: ValueType<T>
  /** The value when the variable is unset, as a user would write it. */
  readonly default?: string
  /** A description of the default, where it depends on the machine or on other variables. */
  readonly computed?: string
  /** What the variable does; the documentation shows it as it is. */
  readonly help: string
  /** An example of a valid value. */
  readonly example: string
  /** True for a value that must never appear in a message, a log or a listing. */
  readonly secret?: true
}

type Description = Omit<Variable, 'type' | 'default'>

/** A variable with a default. */
function withDefault<T>(
  type: ValueType<T>,
  fallback: string,
  description: Description,
): Variable<T> & { readonly default: string } {
  return { type, default: fallback, ...description }
}

/** A variable without a literal default. */
function optional<T>(
  type: ValueType<T>,
  description: Description,
): Variable<T> & { readonly default?: never } {
  return { type, ...description }
}

const path = text('a path of a readable file')
const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

/** Every environment variable that Millrace reads: names, ranges, defaults and help text stand here and nowhere else. */
export const VARIABLES = {
  MILLRACE_BACKEND: withDefault(choice(['auto', 'xdp', 'packet', 'socket']), 'auto', {
    group: 'receive',
    help: 'How datagrams are received. auto tries xdp, packet and socket in this order and logs why one was refused; a named backend works or fails with the reason.',
    example: 'packet',
  }),
  MILLRACE_INTERFACE: optional(text('an interface name of 1..15 characters', /^[^\s/]{1,15}$/), {
    group: 'receive',
    computed: 'none for auto and socket, else the interface of the default route',
    help: 'Interface for xdp and packet, and for multicast groups and link-local addresses that name none; otherwise socket ignores it. Without it auto uses sockets: attaching XDP can bounce a link, and a ring on one interface hears nothing of the others.',
    example: 'eth0',
  }),
  MILLRACE_LISTEN: withDefault(listenList, '9000', {
    group: 'receive',
    help: 'Addresses and ports to receive on, separated by commas. A port alone, or [::], means both families; 0.0.0.0 means IPv4 only. A link-local address needs its interface, by name or number, as in [fe80::1%eth0]:514, or else MILLRACE_INTERFACE.',
    example: '9000-9003,192.0.2.2:5000,[2001:db8::2]:5000',
  }),
  MILLRACE_MULTICAST: optional(multicastList, {
    group: 'receive',
    computed: 'no group',
    help: 'Multicast groups to join, separated by commas, on every port that has no address (or that listens on the group itself). %interface names the interface to join on; without it MILLRACE_INTERFACE, and when that is not set the routes decide (the start line says which). source@ takes that sender alone and needs the socket backend, which auto then takes.',
    example: '239.1.2.3%eth0,ff15::1%eth0,192.0.2.1@232.1.1.1',
  }),
  MILLRACE_BUSY_POLL: withDefault(choice(['adaptive', 'always', 'off']), 'adaptive', {
    group: 'receive',
    help: 'How a receive thread waits: adaptive looks at a steady pace while traffic flows and blocks when there is none, always never sleeps (one whole CPU a thread), off blocks whenever there is nothing to read.',
    example: 'always',
  }),
  MILLRACE_BUSY_POLL_US: withDefault(integer(1, 1_000_000, 'µs'), '100', {
    group: 'receive',
    help: 'Pace of adaptive in microseconds: how often a receive thread looks while traffic flows.',
    example: '50',
  }),

  MILLRACE_QUEUES: optional(integer(1, 256), {
    group: 'queues',
    computed: 'the number of CPUs this process may use, at most 256',
    help: 'Queues, and so workers. More than there are CPUs is MILLRACE_E_QUEUES unless MILLRACE_OVERSUBSCRIBE is true.',
    example: '4',
  }),
  MILLRACE_OVERSUBSCRIBE: withDefault(boolean, 'false', {
    group: 'queues',
    help: 'Allows more queues than CPUs.',
    example: 'true',
  }),
  MILLRACE_RX_THREADS: optional(integer(1, 256), {
    group: 'queues',
    computed: 'as many as queues',
    help: 'Receive threads of packet and socket; xdp always has one for each rx queue the interface has at the start; queues it gets later are shared out among them.',
    example: '2',
  }),
  MILLRACE_PIN: withDefault(choice(['auto', 'on', 'off']), 'auto', {
    group: 'queues',
    help: 'Pins threads to CPUs. auto pins when there are at least as many CPUs as workers. Receive threads take the CPUs from the first on, workers those after them, round and round.',
    example: 'off',
  }),
  MILLRACE_RX_CPUS: optional(cpuList, {
    group: 'queues',
    computed: 'by MILLRACE_PIN',
    help: 'CPUs of the receive threads, in thread order, repeated when there are fewer than threads.',
    example: '0,2-3',
  }),
  MILLRACE_RX_PRIORITY: optional(integer(1, 99), {
    group: 'queues',
    computed: 'normal scheduling',
    help: 'Real-time priority (SCHED_FIFO) of the receive threads: they then run before everything without one. Needs CAP_SYS_NICE or RLIMIT_RTPRIO; where it is refused they run normally and the log of the start says so. With MILLRACE_BUSY_POLL=always such a thread takes its CPU whole: workers, softirqs and the kernel’s own threads starve there, save for the 5 % of sched_rt_runtime_us; otherwise it pauses for 100 µs after 10 ms without sleep, which helps only where no second such thread shares the CPU (the log of the start says so). Give it a CPU of its own (MILLRACE_RX_CPUS), or leave busy-polling adaptive.',
    example: '10',
  }),
  MILLRACE_WORKER_CPUS: optional(cpuList, {
    group: 'queues',
    computed: 'by MILLRACE_PIN',
    help: 'CPUs of the workers, in queue order, repeated when there are fewer than queues.',
    example: '4-7',
  }),

  MILLRACE_RULES: optional(text('rules; see docs/rules.md', /\S/), {
    group: 'rules',
    computed: '`else => hash(flow)`',
    help: 'The rule set as text, rules separated by ; or line ends. Not together with MILLRACE_RULES_FILE.',
    example: 'u8[0] == 1 => queue(0); else => hash(flow)',
  }),
  MILLRACE_RULES_FILE: optional(path, {
    group: 'rules',
    help: 'File with the rule set, UTF-8. It is read again when it changes and on SIGHUP. Not together with MILLRACE_RULES.',
    example: '/etc/millrace/rules',
  }),
  MILLRACE_HANDLER: withDefault(text('forward, or the path of a handler module', /\S/), 'forward', {
    group: 'rules',
    help: 'Handler module (ESM, a path relative to the working directory), or forward.',
    example: './build/my-handler.js',
  }),
  MILLRACE_BATCH: withDefault(integer(1, 65_536), '1024', {
    group: 'rules',
    help: 'Most datagrams a handler gets in one batch.',
    example: '256',
  }),

  MILLRACE_FORMAT: withDefault(choice(FORMATS), 'records', {
    group: 'publish',
    help: 'What a forwarded datagram becomes: raw is one message each, records a msgpack array of records, columns a columnar envelope.',
    example: 'columns',
  }),
  MILLRACE_SUBJECT: withDefault(subject, 'millrace.{node}.{port}.{queue}', {
    group: 'publish',
    help: 'Subject to publish to. {node} is MILLRACE_NODE with everything but letters, digits, - and _ replaced by _; {port} is the destination port.',
    example: 'udp.{port}',
  }),
  MILLRACE_NODE: optional(text('a name without white space', /^[^\s\p{Cc}]+$/u), {
    group: 'publish',
    computed: 'NODE_NAME, else the host name',
    help: 'Name of this node in subjects and logs.',
    example: 'edge-1',
  }),
  MILLRACE_WINDOW_BYTES: withDefault(size(64 * KiB, GiB), '4MiB', {
    group: 'publish',
    help: 'Bytes unconfirmed by the NATS server at which a worker stops draining its queue; what it has in hand then, a batch and open envelopes, still goes out.',
    example: '16MiB',
  }),
  MILLRACE_ENVELOPE_BYTES: withDefault(size(512, MiB), '16KiB', {
    group: 'publish',
    help: 'An envelope of records or columns is sent when it has this many bytes …',
    example: '32KiB',
  }),
  MILLRACE_ENVELOPE_MS: withDefault(integer(1, 60_000, 'ms'), '5', {
    group: 'publish',
    help: '… or when its first datagram is this old, in milliseconds. While the server has confirmed everything before, it is sent sooner, after each turn of the worker, but not more often than every millisecond.',
    example: '20',
  }),
  MILLRACE_NATS_DOWN: withDefault(choice(['hold', 'drop']), 'hold', {
    group: 'publish',
    help: 'While NATS is away: hold stops draining, so that queues fill (then counted queue_full); drop drops results (counted disconnected).',
    example: 'drop',
  }),

  NATS_URL: withDefault(natsServers, 'nats://127.0.0.1:4222', {
    group: 'nats',
    help: 'Servers, separated by commas. tls:// demands TLS; user:password@ or token@ may stand before the host.',
    example: 'nats://nats-0:4222,nats://nats-1:4222',
  }),
  NATS_USER: optional(text('a user name'), { group: 'nats', help: 'User name.', example: 'edge' }),
  NATS_PASSWORD: optional(text('a password'), {
    group: 'nats',
    help: 'Password of NATS_USER.',
    example: '…',
    secret: true,
  }),
  NATS_TOKEN: optional(text('a token'), { group: 'nats', help: 'Token.', example: '…', secret: true }),
  NATS_CREDS: optional(path, {
    group: 'nats',
    help: 'Credentials file (JWT and seed).',
    example: '/etc/nats/edge.creds',
  }),
  NATS_NKEY: optional(text('an nkey seed, or a path of a file with one'), {
    group: 'nats',
    help: 'File with an nkey seed, or the seed itself.',
    example: '/etc/nats/edge.nk',
    secret: true,
  }),
  NATS_CA: optional(path, {
    group: 'nats',
    help: 'File with the certificate authority (PEM) that signed the server’s certificate; turns TLS on.',
    example: '/etc/nats/ca.pem',
  }),
  NATS_CERT: optional(path, {
    group: 'nats',
    help: 'File with the client certificate (PEM); needs NATS_KEY; turns TLS on.',
    example: '/etc/nats/tls.crt',
  }),
  NATS_KEY: optional(path, {
    group: 'nats',
    help: 'File with the key (PEM) of NATS_CERT.',
    example: '/etc/nats/tls.key',
  }),

  MILLRACE_LANE_SLOTS: withDefault(powerOfTwo(64, 1 << 20), '16384', {
    group: 'lanes',
    help: 'Datagrams a lane holds; there is one lane for each receive thread, the guard’s included, and queue.',
    example: '65536',
  }),
  MILLRACE_LANE_BYTES: withDefault(size(64 * KiB, GiB, 'power of two'), '8MiB', {
    group: 'lanes',
    help: 'Payload bytes a lane holds.',
    example: '32MiB',
  }),
  MILLRACE_WAKE_MIN: withDefault(integer(1, 1 << 20), '64', {
    group: 'lanes',
    help: 'A sleeping worker is woken when this many datagrams are pending in a lane …',
    example: '1',
  }),
  MILLRACE_WAKE_MAX_US: withDefault(integer(1, 1_000_000, 'µs'), '200', {
    group: 'lanes',
    help: '… or when the oldest has waited this long, in microseconds.',
    example: '1000',
  }),

  MILLRACE_XDP_MODE: withDefault(choice(['auto', 'native', 'generic']), 'auto', {
    group: 'backends',
    help: 'XDP attach mode: in the driver (native), after skb allocation (generic), or the first that works.',
    example: 'native',
  }),
  MILLRACE_XDP_FRAMES: withDefault(powerOfTwo(512, 1 << 20), '4096', {
    group: 'backends',
    help: 'UMEM frames (2 KiB each) for each rx queue; the rings hold half as many.',
    example: '16384',
  }),
  MILLRACE_XDP_ZEROCOPY: withDefault(choice(['off', 'on', 'auto']), 'off', {
    group: 'backends',
    help: 'Zero-copy of AF_XDP: on works or fails with the reason, auto tries it with drivers and kernels known to be sound (mlx5_core from Linux 6.1) and copies otherwise, off copies. The start line says what the kernel granted. Drivers may reset the link on it.',
    example: 'auto',
  }),
  MILLRACE_XDP_PREFER_BUSY_POLL: withDefault(boolean, 'false', {
    group: 'backends',
    help: 'Asks for preferred busy-polling of AF_XDP sockets (64 µs, 64 frames, at most every 5 µs), driven by the receive thread. Reported as active only when the kernel names the NAPI of the rx queue. Useful with MILLRACE_BUSY_POLL=always, the thread on the CPU of the interrupt, and MILLRACE_NAPI_DEFER_HARD_IRQS and MILLRACE_GRO_FLUSH_TIMEOUT.',
    example: 'true',
  }),
  MILLRACE_NAPI_DEFER_HARD_IRQS: optional(integer(0, 2_147_483_647), {
    group: 'backends',
    computed: 'left alone',
    help: 'With xdp: napi_defer_hard_irqs of the interface while the service runs, how often an idle poll leaves the interrupt masked. It is put back at the end, unless somebody else has changed it meanwhile; a process that is killed (kill -9) leaves it set, and the start line says what it was (granted). Where /sys is read-only the log of the start says so, and nothing else happens.',
    example: '100',
  }),
  MILLRACE_GRO_FLUSH_TIMEOUT: optional(integer(0, 2_147_483_647, 'ns'), {
    group: 'backends',
    computed: 'left alone',
    help: 'The same for gro_flush_timeout, in nanoseconds: for how long the interrupt stays masked. It must be longer than the longest pause between two polls of the receive thread, else the interrupt takes the queue back.',
    example: '200000',
  }),
  MILLRACE_PACKET_BLOCK_BYTES: withDefault(size(128 * KiB, 4 * MiB, 'power of two'), '256KiB', {
    group: 'backends',
    help: 'Size of a ring block.',
    example: '1MiB',
  }),
  MILLRACE_PACKET_BLOCKS: withDefault(integer(4, 4096), '128', {
    group: 'backends',
    help: 'Blocks in each ring. With v3 the kernel closes a block every millisecond, however little is in it: n blocks bridge a pause of n ms.',
    example: '512',
  }),
  MILLRACE_VERIFY_CHECKSUM: withDefault(boolean, 'false', {
    group: 'backends',
    help: 'Drops datagrams with a wrong UDP checksum (counted bad_checksum) on xdp and packet, which read below the stack; socket always does. Checksums that are not ready, of senders on this host, are let through: packet is told by the kernel, xdp knows them by their value.',
    example: 'true',
  }),
  MILLRACE_TPACKET: withDefault(choice(['v3', 'v2']), 'v3', {
    group: 'backends',
    help: 'Ring layout of packet. v3 hands over blocks of frames, at the latest after a millisecond; v2 hands over each frame at once, for low latency at low rates, and holds a fixed number of frames.',
    example: 'v2',
  }),
  MILLRACE_PACKET_SLOT_BYTES: withDefault(size(2 * KiB, 128 * KiB), '66KiB', {
    group: 'backends',
    help: 'With v2: bytes of a slot, a multiple of 16. The default holds any datagram and any merged burst; 2KiB makes many more slots where every frame fits one of 1,500 bytes. Longer ones are counted as truncated.',
    example: '2KiB',
  }),
  MILLRACE_FANOUT: withDefault(
    choice(['rules', 'hash', 'lb', 'cpu', 'rollover', 'rnd', 'qm', 'cbpf', 'ebpf']),
    'rules',
    {
      group: 'backends',
      help: 'How the kernel spreads frames over the rings of packet: rules runs the rules in the kernel, so that a datagram comes by the receive thread with the number of its queue (modulo threads; also between the sockets of socket), and spreads by hash(flow) where the kernel cannot run them; cbpf and ebpf are the same, but in classic BPF or in eBPF for certain; hash by flow, lb round robin, cpu by the receiving CPU, rollover the next ring when one is full, rnd at random, qm by rx queue. Which thread receives a datagram never changes what becomes of it.',
      example: 'cpu',
    },
  ),
  MILLRACE_FANOUT_FLAGS: withDefault(
    choices(['rollover', 'defrag', 'uniqueid', 'ignore_outgoing']),
    'defrag,uniqueid,ignore_outgoing',
    {
      group: 'backends',
      help: 'Flags of the fanout group, or none. rollover: a frame whose ring is full goes to another, out of order. defrag: IPv4 fragments are put together for the rings; all groups with it in one network namespace share one reassembly queue, so that one started later (another Millrace, Suricata) takes the fragments of the first. Without it the guard socket delivers fragmented datagrams as the kernel put them together, which no other group can take away, and reads a second copy of every IPv4 datagram to find them. uniqueid: the kernel picks a group id nobody uses. ignore_outgoing: frames this host sends do not enter. What the kernel does not know is left out and the log of the start says so.',
      example: 'defrag,uniqueid,ignore_outgoing,rollover',
    },
  ),
  MILLRACE_SOCKET_TIMESTAMPS: withDefault(choice(['pass', 'kernel']), 'pass', {
    group: 'backends',
    help: 'Time of arrival with socket: pass is one clock reading for all a thread finds at once, kernel the kernel’s own for each datagram, which makes the host stamp every packet (some 15 % dearer). packet always has the kernel’s, xdp that of the pass.',
    example: 'kernel',
  }),
  MILLRACE_SOCKET_RCVBUF: withDefault(size(4096, GiB), '8MiB', {
    group: 'backends',
    help: 'Receive buffer asked for on each socket; the start line says what the kernel granted.',
    example: '32MiB',
  }),

  MILLRACE_HTTP: withDefault(httpAddress, '127.0.0.1:9180', {
    group: 'service',
    help: 'Where /metrics, /healthz and /readyz are served, or off. Port 0 lets the kernel choose; the log says which.',
    example: '0.0.0.0:9180',
  }),
  MILLRACE_LOG_LEVEL: withDefault(
    choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    'info',
    {
      group: 'service',
      help: 'Least severe log lines to write.',
      example: 'debug',
    },
  ),
  MILLRACE_DRAIN_MS: withDefault(integer(0, 600_000, 'ms'), '20000', {
    group: 'service',
    help: 'Deadline of the drain, after SIGTERM for example, in milliseconds. Keep it below terminationGracePeriodSeconds.',
    example: '25000',
  }),
  MILLRACE_DEBUG_POISON: withDefault(boolean, 'false', {
    group: 'service',
    help: 'Overwrites released batch memory so that a handler that keeps a view sees it. Costs speed; for tests.',
    example: 'true',
  }),
} as const

/** Name of a variable that Millrace reads. */
export type VariableName = keyof typeof VARIABLES

/** The parsed values by variable name; a variable without a literal default may be undefined. */
export type Values = {
  readonly [N in VariableName]: (typeof VARIABLES)[N] extends Variable<infer T> & { readonly default: string }
    ? T
    : (typeof VARIABLES)[N] extends Variable<infer T>
      ? T | undefined
      : never
}

/** Names and variables in the order of the table. */
export const ENTRIES = Object.entries(VARIABLES) as [VariableName, Variable][]
