import { median } from '../pipeline/summary.js'
import { BACKENDS, type Backend, type Scene, STAGES } from './contestants.js'
import type { Drain, Flow } from './run.js'

/** The figures of one contestant in the scene `apart`: medians of its runs. */
export interface FlowRow {
  readonly backend: Backend
  readonly contestant: string
  readonly receivedRate: number
  readonly cpuNanos: number
  /** Share of the sent datagrams that was received. */
  readonly share: number
  /**
   * Millrace's share ÷ this one's: the ratio of received rates at the same offered rate. The plain ratio of rates would
   * compare the sender with itself, whose rate changes from run to run by more than anything here.
   */
  readonly shareRatio: number
  /** Millrace's CPU per datagram ÷ this one's. */
  readonly cpuRatio: number
  /** Nearly everything was received, so that the sender limits the figure. */
  readonly senderLimited: boolean
}

/** Share of the sent datagrams from which on the sender is called the limit. */
const ALL = 0.98

/** The figures of one contestant in the scenes `oneCpu` and `merged`: medians of its runs. */
export interface RateRow {
  readonly backend: Backend
  readonly contestant: string
  readonly receivedRate: number
  readonly cpuNanos: number
  readonly share: number
  /** Millrace's rate ÷ this one's. */
  readonly rateRatio: number
}

/** Returns each contestant's runs in one scene, with the medians of their figures. */
function contestants(all: readonly Flow[], scene: Scene) {
  const flows = all.filter((f) => f.scene === scene)
  const names = [...new Set(flows.map((f) => `${f.backend} ${f.contestant}`))]
  return names.map((name) => {
    const own = flows.filter((f) => `${f.backend} ${f.contestant}` === name)
    const of = (figure: (f: Flow) => number) => median(own.map(figure))
    const { backend, contestant } = own[0]!
    const row = {
      backend,
      contestant,
      share: of((f) => f.received / f.sent),
      receivedRate: of((f) => f.receivedRate),
      cpuNanos: of((f) => f.cpuNanos),
    }
    return { own, row }
  })
}

/** Compares runs that followed each other, because the speed of a virtual machine changes over minutes. */
export function rateRows(all: readonly Flow[], scene: Scene): RateRow[] {
  const found = contestants(all, scene)
  return found.map(({ own, row }) => {
    const ours = found.find((c) => c.row.backend === row.backend && c.row.contestant === 'millrace')?.own
    const ratios = own.map((f, run) => (ours?.[run]?.receivedRate ?? Number.NaN) / f.receivedRate)
    return { ...row, rateRatio: median(ratios) }
  })
}

export function flowRows(all: readonly Flow[]): FlowRow[] {
  const rows = contestants(all, 'apart').map(({ row }) => row)
  return rows.map((row) => {
    const ours = rows.find((r) => r.backend === row.backend && r.contestant === 'millrace')
    return {
      ...row,
      shareRatio: (ours?.share ?? Number.NaN) / row.share,
      cpuRatio: (ours?.cpuNanos ?? Number.NaN) / row.cpuNanos,
      senderLimited: row.share >= ALL,
    }
  })
}

/** Nanoseconds of CPU for each part of the way of a datagram. */
export interface StageRow {
  readonly backend: Backend
  readonly rx: number
  readonly parse: number
  readonly rules: number
  readonly copy: number
  readonly publish: number
  readonly total: number
}

/** Subtracts: a stage costs the time by which a drain with it is longer than one without. */
export function stageRows(drains: readonly Drain[]): StageRow[] {
  return BACKENDS.filter((backend) => drains.some((d) => d.backend === backend)).map((backend) => {
    const own = drains.filter((d) => d.backend === backend)
    const nanos = STAGES.map((stage) => median(own.filter((d) => d.stage === stage).map((d) => d.cpuNanos)))
    const [rx, parse, rules, total] = nanos as [number, number, number, number]
    const publish = median(own.filter((d) => d.stage === 'lanes').map((d) => d.publishNanos))
    return {
      backend,
      rx,
      parse: parse - rx,
      rules: rules - parse,
      copy: total - rules - publish,
      publish,
      total,
    }
  })
}

/** A target: Millrace's received rate against that of another receiver, at the same offered rate. */
export interface Verdict {
  readonly target: string
  readonly needed: number
  readonly measured: number
  /** Millrace's CPU per datagram ÷ that of the same receiver. */
  readonly cpuRatio: number
  readonly met: boolean
  readonly senderLimited: boolean
}

/** Tolerance of a target: frames of other protocols, or still in a ring when a contestant was stopped. */
const COUNTING_ERROR = 0.005

const percent = (row: FlowRow) => Math.round(row.share * 100)

export function verdicts(rows: readonly FlowRow[]): Verdict[] {
  const verdict = (
    backend: Backend,
    others: readonly string[],
    needed: number,
    target: string,
  ): Verdict[] => {
    const best = rows
      .filter((r) => r.backend === backend && others.includes(r.contestant))
      .sort((a, b) => percent(b) - percent(a) || a.cpuNanos - b.cpuNanos)[0]
    if (best === undefined) return []
    const ours = rows.find((r) => r.backend === backend && r.contestant === 'millrace')
    const senderLimited = best.senderLimited && (ours?.senderLimited ?? false)
    return [
      {
        target,
        needed,
        measured: best.shareRatio,
        cpuRatio: best.cpuRatio,
        met: best.shareRatio >= needed - COUNTING_ERROR,
        senderLimited,
      },
    ]
  }
  return [
    ...verdict('xdp', ['count'], 0.9, 'xdp ≥ 0.9 × an AF_XDP loop that only counts'),
    ...verdict('packet', ['tcpdump', 'netsniff-ng'], 1, 'packet ≥ 1.0 × the better of tcpdump, netsniff-ng'),
    ...verdict('packet', ['count'], 0.9, 'packet ≥ 0.9 × a TPACKET_V3 loop that only counts'),
    ...verdict('socket', ['count'], 1, 'socket ≥ 1.0 × a plain recvmmsg loop'),
  ]
}
