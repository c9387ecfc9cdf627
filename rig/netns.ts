import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { onCleanup } from './cleanup.js'

/** IPv4 addresses of the sending and the receiving end; the same as the Rust rig's. */
export const V4 = ['192.0.2.1', '192.0.2.2'] as const
/** IPv6 addresses of the ends. */
export const V6 = ['2001:db8::1', '2001:db8::2'] as const
/** MAC addresses of the ends. */
const MAC = ['02:00:00:00:0a:01', '02:00:00:00:0b:01'] as const

/** Longest wait in milliseconds for an interface to be operational; it only ends a test that hangs. */
const LINK_UP_MS = 30_000

/** Returns true when namespaces can be made. Otherwise it skips the whole test, with the reason. */
export function privileged(t: { plan(n: number, reason: string): unknown }): boolean {
  if (process.geteuid?.() === 0) return true
  t.plan(0, 'needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) to make network namespaces')
  return false
}

/** Name of the network namespace that a command runs in; null for that of this process. */
export type Namespace = string | null

/** Puts `ip netns exec` before a command for a namespace. `ip` calls exec, so the pid will be the command's own. */
export function commandIn(ns: Namespace, command: readonly string[]): [string, string[]] {
  const [program, ...args] = ns === null ? command : ['ip', 'netns', 'exec', ns, ...command]
  return [program!, args]
}

/** Runs a command to its end and returns its stdout. @throws Error with its stderr when it fails. */
export function runIn(ns: Namespace, ...command: string[]): string {
  const [program, args] = commandIn(ns, command)
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/**
 * Starts a command. Clean-up kills it if it still runs; should this process die without clean-up, as by a test runner's
 * SIGKILL, the kernel kills it (PR_SET_PDEATHSIG, prctl(2)).
 */
export function spawnIn(ns: Namespace, command: readonly string[], options: SpawnOptions): ChildProcess {
  const [program, args] = commandIn(ns, ['setpriv', '--pdeathsig', 'KILL', ...command])
  const child = spawn(program, args, options)
  const forget = onCleanup(() => child.kill('SIGKILL'))
  child.once('exit', forget)
  return child
}

/** Removes namespaces whose process has ended without clean-up. */
function removeStale(): void {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const maker = /^mr(\d+)t\d+[ab]$/.exec(name)?.[1]
    if (maker !== undefined && !existsSync(`/proc/${maker}`)) runIn(null, 'ip', 'netns', 'del', name)
  }
}

let next = 0

/**
 * Two network namespaces and a veth pair between them: `va` in namespace `a` sends, `vb` in namespace `b` receives. Each
 * interface has `queues` queues, and a neighbour entry for the other, so that no ARP is on the wire.
 */
export class VethPair {
  readonly a: string
  readonly b: string
  /** Removes both namespaces, and with them the veth pair. */
  readonly close: () => void

  constructor(queues: number) {
    if (next === 0) removeStale()
    const id = `mr${process.pid}t${next++}`
    this.a = `${id}a`
    this.b = `${id}b`
    this.close = onCleanup(() => {
      for (const ns of [this.a, this.b]) {
        try {
          runIn(null, 'ip', 'netns', 'del', ns)
        } catch {
          // The namespace was never made, because the constructor failed before.
        }
      }
    })
    try {
      runIn(null, 'ip', 'netns', 'add', this.a)
      runIn(null, 'ip', 'netns', 'add', this.b)
      this.addInterfaces(queues)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Removes both interfaces, as when a NIC is unplugged. */
  removeInterfaces(): void {
    runIn(null, 'ip', '-n', this.b, 'link', 'del', 'vb')
  }

  /** Makes both interfaces: at the start, and again after {@link removeInterfaces}. */
  addInterfaces(queues: number): void {
    const ip = (...words: string[]) => runIn(null, 'ip', ...words.join(' ').split(' '))
    const many = `numtxqueues ${queues} numrxqueues ${queues}`
    ip(
      `link add va netns ${this.a} address ${MAC[0]} ${many} type veth`,
      `peer name vb netns ${this.b} address ${MAC[1]} ${many}`,
    )
    const ends = [
      { ns: this.a, dev: 'va', self: 0, peer: 1 },
      { ns: this.b, dev: 'vb', self: 1, peer: 0 },
    ] as const
    for (const { ns, dev, self } of ends) {
      // No duplicate address detection and no router solicitation: the only frames on the wire are the test's own.
      const quiet = ['accept_dad=0', 'router_solicitations=0', 'addr_gen_mode=1']
        .map((knob) => knob.split('='))
        .map(([name, value]) => `echo ${value} > /proc/sys/net/ipv6/conf/${dev}/${name}`)
      runIn(ns, 'sh', '-c', quiet.join(' && '))
      ip('-n', ns, `addr add ${V4[self]}/24 dev ${dev}`)
      ip('-n', ns, `addr add ${V6[self]}/64 dev ${dev} nodad`)
      ip('-n', ns, 'link set lo up')
      ip('-n', ns, `link set ${dev} up`)
    }
    for (const { ns, dev, peer } of ends) {
      for (const address of [V4[peer], V6[peer]]) {
        ip('-n', ns, `neigh replace ${address} lladdr ${MAC[peer]} dev ${dev}`)
      }
    }
    this.#waitUntilUp()
  }

  /**
   * Waits until both interfaces are operational. Before that they drop everything, because they have no queueing
   * discipline yet (linkwatch_do_dev in net/core/link_watch.c attaches it).
   */
  #waitUntilUp(): void {
    const deadline = Date.now() + LINK_UP_MS
    for (const [ns, dev] of [
      [this.a, 'va'],
      [this.b, 'vb'],
    ] as const) {
      for (;;) {
        const [link] = JSON.parse(runIn(null, 'ip', '-n', ns, '-j', 'link', 'show', dev))
        if (link.operstate === 'UP') break
        if (Date.now() > deadline)
          throw new Error(`${dev} in ${ns} is ${link.operstate} after ${LINK_UP_MS} ms, expected UP`)
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
      }
    }
  }

  /** True when an XDP program is attached to `vb`. */
  xdpAttached(): boolean {
    const [link] = JSON.parse(runIn(null, 'ip', '-n', this.b, '-j', 'link', 'show', 'vb'))
    return link.xdp !== undefined
  }
}
