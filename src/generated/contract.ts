// Printed from the serde types of crates/millrace-core by `npm run generate`; see its src/contract.rs.

/** Everything the engine needs to know. */
export type EngineConfig = {
  /** Backend to open. */
  readonly backend: BackendChoice
  /**
   * Interface for xdp and packet; absent: that of the default route, but `auto` then opens sockets. For every backend
   * it is also the interface of multicast groups and link-local addresses that name none.
   */
  readonly interface: string | null
  /** Addresses and ports, at least one. */
  readonly listen: readonly Listen[]
  /** Multicast groups to join. */
  readonly multicast: readonly Multicast[]
  /** Queues, each with one worker, 1..=256. */
  readonly queues: number
  /** Receive threads of packet and socket, 1..=256; xdp has one per rx queue instead. */
  readonly rxThreads: number
  /** CPUs for receive threads, in thread order, repeated when short; empty: not pinned. */
  readonly rxCpus: readonly number[]
  /** SCHED_FIFO priority of receive threads, 1..=99 (sched(7)); absent: they are scheduled as the process is. */
  readonly rxPriority: number | null
  /** Text of the rule set; `docs/rules.md` describes the language. */
  readonly rules: string
  /** How receive threads wait. */
  readonly busyPoll: BusyPoll
  /** Sleep between two passes with `adaptive` while traffic flows, µs, 1..=1_000_000. */
  readonly busyPollUs: number
  /** Descriptors per lane, a power of two, 64..=1_048_576. */
  readonly laneSlots: number
  /** Payload bytes per lane, a power of two, 65_536..=1 GiB. */
  readonly laneBytes: number
  /** A sleeping worker is woken when this many datagrams are pending in a lane, 1..=1_048_576. */
  readonly wakeMin: number
  /** A sleeping worker is woken when the oldest pending datagram has waited this long, µs, 1..=1_000_000. */
  readonly wakeMaxUs: number
  /** XDP attach mode. */
  readonly xdpMode: XdpMode
  /** UMEM frames per rx queue (2 KiB each), a power of two, 512..=1_048_576. The rings hold half of that. */
  readonly xdpFrames: number
  /** Zero-copy of AF_XDP. */
  readonly xdpZerocopy: ZeroCopy
  /** Whether to request preferred busy-polling of AF_XDP sockets (SO_PREFER_BUSY_POLL). */
  readonly xdpPreferBusyPoll: boolean
  /** `napi_defer_hard_irqs` of the interface while xdp runs; absent: left alone. */
  readonly napiDeferHardIrqs: number | null
  /** `gro_flush_timeout` of the interface while xdp runs, ns; absent: left alone. */
  readonly groFlushTimeout: number | null
  /** Ring block size in bytes, a power of two, 131_072..=4 MiB. */
  readonly packetBlockBytes: number
  /** Blocks per ring, 4..=4096. */
  readonly packetBlocks: number
  /** Whether xdp and packet drop datagrams with a wrong UDP checksum; with socket the stack always does. */
  readonly verifyChecksum: boolean
  /** Layout of the packet rings. */
  readonly tpacket: Tpacket
  /**
   * Bytes of a TPACKET_V2 slot, headers included, a multiple of 16, 2048..=131_072. The default of 66 KiB holds any
   * datagram and any super-packet; what is longer than a slot is counted as truncated.
   */
  readonly packetSlotBytes: number
  /** Fanout mode of the packet rings. `rules` also steers between the sockets of a SO_REUSEPORT group. */
  readonly fanout: FanoutMode
  /** Fanout flags; those the kernel does not know are left out and reported. */
  readonly fanoutFlags: readonly FanoutFlag[]
  /** Times of the socket backend; packet always has the kernel's, and xdp that of the receive pass. */
  readonly socketTimestamps: Timestamps
  /** SO_RCVBUF to request, per socket and of the guard's sockets too, bytes, 4096..=1 GiB. */
  readonly socketRcvbuf: number
}

/** Which backend to open. */
export type BackendChoice = 'auto' | 'xdp' | 'packet' | 'socket'

/** One address and port to receive on. */
export type Listen = {
  /** The address; absent: every address of both families. */
  readonly address: string | null
  /** Name or number of the interface that a link-local address is on (RFC 4007). Absent: `EngineConfig::interface`. */
  readonly scope?: string | null
  /** UDP port, 1..=65535. */
  readonly port: number
}

/** A multicast group to join, on every port that can receive it. */
export type Multicast = {
  /** The group. */
  readonly group: string
  /**
   * Interface to join on. Absent: that of the rings, else `EngineConfig::interface`, else the one the kernel's routes
   * name.
   */
  readonly interface: string | null
  /** Only datagrams from this source (source-specific multicast); socket backend only. */
  readonly source: string | null
}

/** How a receive thread waits. */
export type BusyPoll = 'adaptive' | 'always' | 'off'

/** XDP attach mode. */
export type XdpMode = 'auto' | 'native' | 'generic'

/** Whether the driver writes frames straight into the packet memory of AF_XDP. */
export type ZeroCopy = 'off' | 'on' | 'auto'

/** Layout of the packet rings (packet_mmap.rst). */
export type Tpacket = 'v3' | 'v2'

/**
 * How the kernel spreads frames over the members of a fanout group (`PACKET_FANOUT_*`, packet(7)). All results are
 * taken modulo the number of members.
 */
export type FanoutMode = 'rules' | 'hash' | 'lb' | 'cpu' | 'rollover' | 'rnd' | 'qm' | 'cbpf' | 'ebpf'

/** A flag of a fanout group, beside its mode (`PACKET_FANOUT_FLAG_*`). */
export type FanoutFlag = 'rollover' | 'defrag' | 'uniqueid' | 'ignore_outgoing'

/** Which time a datagram of the socket backend carries. */
export type Timestamps = 'pass' | 'kernel'

/** The TypeScript side reads this to allocate memory and to report the start. */
export type EngineDescription = {
  /** Bytes of memory that each queue needs. */
  readonly queueBytes: number
  /** Number of queues. */
  readonly queues: number
  /** Number of receive threads, the guard's included. */
  readonly threads: number
  /** The backend that was opened. */
  readonly backend: BackendInfo
  /** Backends that `auto` could not open. */
  readonly refused: readonly RefusedBackend[]
  /** Rule names by index. */
  readonly rules: readonly string[]
}

/** The options and limits that the kernel granted, for the log, `/metrics` and the demo. */
export type BackendInfo = {
  /** Name of the backend. */
  readonly backend: 'xdp' | 'packet' | 'socket'
  /** How it receives, e.g. `native copy`, `generic copy`, `tpacket_v3 fanout cbpf`, `reuseport`. */
  readonly mode: string
  /** Interface it is bound to; none for sockets. */
  readonly interface: string | null
  /** `(what, value)`, read back from the kernel: ring sizes, SO_RCVBUF, busy-poll, … */
  readonly granted: readonly (readonly [string, string])[]
  /** Requests that were not granted, one sentence each. */
  readonly degraded: readonly string[]
}

/** A backend that `auto` could not open. */
export type RefusedBackend = {
  /** Name of the backend. */
  readonly backend: 'xdp' | 'packet'
  /** Code of the error in its stable text form, `MILLRACE_E_…`. */
  readonly code: string
  /** Message of the error. */
  readonly message: string
}

/** The layout of one queue's memory. */
export type QueueLayout = {
  /** Bytes to allocate: what is laid out plus room to align it, because a SharedArrayBuffer is only 16-byte aligned. */
  readonly bytes: number
  /** Offset of the queue control block. */
  readonly controlOffset: number
  /** One lane per receive thread, in thread order. */
  readonly lanes: readonly LaneLayout[]
}

/** The layout of one lane inside its queue's memory; all offsets and sizes in bytes. */
export type LaneLayout = {
  /** Index of the receive thread that fills this lane. */
  readonly thread: number
  /** Offset of the lane control block. */
  readonly controlOffset: number
  /** Offset of the descriptor ring. */
  readonly descriptorsOffset: number
  /** Descriptors in the ring, a power of two. */
  readonly slots: number
  /** Offset of the payload slab. */
  readonly payloadOffset: number
  /** Bytes in the slab, a power of two and at most 2^30. */
  readonly payloadBytes: number
}

/** The description of a rule set before it is in force. */
export type CompiledRules = {
  /** Rule names by index. */
  readonly names: readonly string[]
  /** Warnings about rules that are allowed but probably not meant, one sentence each. */
  readonly warnings: readonly string[]
}

/**
 * The data plane's half of the books. All counts are since the engine opened.
 * Counters are read one after the other while threads count, so sums agree exactly only while no datagram arrives.
 */
export type EngineStats = {
  /** The open backend, with what is granted now. */
  readonly backend: BackendInfo
  /** Backends that `auto` could not open. */
  readonly refused: readonly RefusedBackend[]
  /** Receive threads in index order; the guard's, where there is one, is the last. */
  readonly threads: readonly ThreadStats[]
  /** Queues in index order. */
  readonly queues: readonly QueueStats[]
  /** The rules in force, in their order. */
  readonly rules: readonly RuleStats[]
  /** 1 for the rules of the start, one more with each reload. */
  readonly rulesGeneration: number
  /** Reloads refused: the rules did not compile, or the kernel would not replace the XDP program. */
  readonly rulesRefused: number
  /**
   * Datagrams that rules dropped in the XDP program, before any thread received them. The books count them as received
   * and dropped; no thread counts them.
   */
  readonly earlyDropped: number
  /** Drops that the interface counted; none when no interface is known. */
  readonly interface: InterfaceStats | null
}

/**
 * One receive thread's counts, in datagrams where nothing else is said. `received = scattered + dropped.rule +
 * dropped.queueFull`.
 */
export type ThreadStats = {
  /** Index of the thread. */
  readonly index: number
  /** Whether it reads the backend's receivers or the guard. */
  readonly kind: 'receive' | 'guard'
  /** CPU it is pinned to, if it is. */
  readonly cpu: number | null
  /** Its SCHED_FIFO priority, if it has one. */
  readonly priority: number | null
  /** The rx queue, ring member or socket index it reads, the first one of several; 0 for the guard. */
  readonly rxQueue: number
  /** Datagrams for this process. */
  readonly received: number
  /** Their payload bytes. */
  readonly receivedBytes: number
  /** Datagrams put into a lane. */
  readonly scattered: number
  /**
   * The part of `scattered` that went to queues this receive thread owns (queue number modulo receive threads): all of
   * it when the kernel steers by the rules as well. 0 for the guard.
   */
  readonly steeredLocal: number
  /** Datagrams received and given to no queue, by reason. */
  readonly dropped: Dropped
  /** Frames that are not a datagram for this process, by reason (`FrameDrop`). They are not in `received`. */
  readonly frames: Readonly<Record<string, number>>
  /**
   * Datagrams or frames that the kernel lost before the thread could read them, by reason; the sum is the loss. They are
   * not in `received`.
   */
  readonly kernelLost: Readonly<Record<string, number>>
  /** Kernel counters that may overlap; for diagnosis only. */
  readonly kernelNotes: Readonly<Record<string, number>>
  /** Wake-ups this thread sent to workers. */
  readonly wakeups: number
  /** Times this thread slept or waited for frames. A wait may end at once. */
  readonly sleeps: number
  /** Why the thread ended early. */
  readonly error: string | null
  /** Why there is nothing to receive from while the thread goes on: its interface was removed. */
  readonly away: string | null
}

/**
 * Datagrams that a thread received and gave to no queue, by reason. These are all reasons there are: a thread's
 * `received` is `scattered` plus the fields here.
 */
export type Dropped = {
  /** Datagrams that a `drop` or `sample` action dropped. */
  readonly rule: number
  /** Datagrams lost because the lane was full. */
  readonly queueFull: number
}

/** One queue's counts, in datagrams. */
export type QueueStats = {
  /** Index of the queue. */
  readonly index: number
  /** Datagrams put into its lanes. */
  readonly scattered: number
  /** Datagrams for which the rules chose this queue and that were lost because its lane was full. */
  readonly queueFull: number
  /** Datagrams in its lanes now. */
  readonly depth: number
  /** Datagrams its lanes can hold. */
  readonly capacity: number
}

/** One rule's counts since the start; they go on over reloads by the rule's name. The unit is datagrams. */
export type RuleStats = {
  /** Name given in the rule text; otherwise `rule1`, `rule2`, … or, of the implicit last rule, `default`. */
  readonly name: string
  /** The rule in its canonical form. */
  readonly text: string
  /** Datagrams that the rule decided: those put into lanes, `queue_full` and `dropped`. */
  readonly matched: number
  /** Dropped by a `drop` or `sample` action, early drops in the XDP program included. */
  readonly dropped: number
  /** Lost because the lane was full. */
  readonly queueFull: number
  /**
   * `(queue, datagrams put into its lane)`, without queues that got none. Empty where rules × queues exceed 4,096
   * (`MAX_CELLS`), or did in an earlier generation that had a rule of this name.
   */
  readonly queues: readonly (readonly [number, number])[]
}

/**
 * Drops that the interface counted since the engine opened (`rtnl_link_stats64`). They may include frames that were not
 * for this process, and with XDP on some drivers (veth) frames that the XSK counters have too, so they are for diagnosis
 * and not part of the books.
 */
export type InterfaceStats = {
  /** `rx_dropped`. */
  readonly rxDropped: number
  /** `rx_missed_errors`. */
  readonly rxMissed: number
  /** `rx_fifo_errors`. */
  readonly rxFifo: number
  /** `rx_over_errors`. */
  readonly rxOver: number
}

/** The result of `millrace check`. */
export type PreflightReport = {
  /** The lines, in the order in which things were tried. */
  readonly findings: readonly Finding[]
  /** Backend that would be opened now: the configured one, or the choice of `auto`. None when there is none. */
  readonly backend: 'xdp' | 'packet' | 'socket' | null
}

/** One line of the report. */
export type Finding = {
  /** The backend or kernel feature that the check tried. */
  readonly name: string
  /** The outcome. */
  readonly state: CheckStatus
  /** The reason. */
  readonly why: string
  /** The remedy; empty when none is needed. */
  readonly cure: string
}

/** The outcome of one check. */
export type CheckStatus = 'ok' | 'degraded' | 'missing'

/** The result of compiling a rule set: `millrace rules check`. */
export type RulesReport = {
  /** How many rules, from the first on, the XDP program drops by itself. */
  readonly earlyDrops: number
  readonly rules: readonly RuleText[]
  readonly targets: Translations
  readonly warnings: readonly string[]
}

/** Name and canonical text of a rule. */
export type RuleText = {
  readonly name: string
  readonly text: string
}

/** Whether each kind of kernel program can be made. */
export type Translations = {
  /** eBPF for a fanout group. */
  readonly ebpf: Translation
  /** Classic BPF for a fanout group. */
  readonly fanout: Translation
  /** Classic BPF for a SO_REUSEPORT group of one socket for each queue. */
  readonly reuseport: Translation
}

/** The result of one translation. */
export type Translation = { readonly instructions: number } | { readonly rule: string; readonly why: string }

/** The decision about one datagram, and its reasons: `millrace rules explain --hex`. */
export type Explanation = {
  /** The rules that were tried, in order; the last of them decided. */
  readonly trials: readonly RuleTrace[]
  /** The decision. */
  readonly verdict: ExplainedVerdict
}

/** A verdict, without the rule, which is the last of `Explanation::trials`. */
export type ExplainedVerdict =
  | { readonly key: number; readonly queue: number; readonly spill: readonly [number, number] | null }
  | { readonly drop: boolean }

/** One rule that was tried on a datagram, with its outcome. */
export type RuleTrace = {
  /** Name of the rule. */
  readonly name: string
  /** The outcome. */
  readonly outcome: Outcome
  /** Index of the rule. */
  readonly rule: number
  /** Canonical text of the rule. */
  readonly text: string
  /** The value that the rule read last, on which its outcome depends; empty where it reads nothing. */
  readonly why: string
}

/** The outcome of one rule. */
export type Outcome = 'matched' | 'false' | 'beyond' | 'kept'

/**
 * The decisions of a rule set about the packets of a capture. It serializes to the JSON of `millrace rules explain --pcap
 * --json`.
 */
export type CaptureSummary = {
  readonly packets: number
  readonly datagrams: number
  /** Packets that are not a whole UDP datagram, by reason. */
  readonly frames: Readonly<Record<string, number>>
  /** Datagrams by queue. */
  readonly queues: readonly number[]
  readonly rules: readonly RuleCount[]
  /** The datagrams of the fullest queue, as a multiple of the mean of all queues; 0 without datagrams. */
  readonly skew: number
  /** The keys with the most datagrams, in falling order. */
  readonly heaviest: readonly KeyCount[]
  /** Number of different keys; a lower bound when `keysCut`. */
  readonly keys: number
  /** There were more keys than are counted. */
  readonly keysCut: boolean
  /** The file ends in the middle of a packet. */
  readonly truncated: boolean
}

/** Datagrams of one rule. */
export type RuleCount = {
  readonly name: string
  readonly text: string
  readonly matched: number
  readonly dropped: number
}

/** Datagrams of one key: the number that `mod` reduces (its lower 32 bits) or the hash. */
export type KeyCount = {
  readonly rule: string
  readonly key: number
  readonly queue: number
  readonly datagrams: number
}
