/** The result of one step: one contestant at one offered load. */
export interface Point {
  /** Datagrams per second that were requested, and that were sent. */
  readonly offered: number
  readonly achieved: number
  readonly sent: number
  readonly received: number
  /** Lost datagrams that the veth pair dropped between sender and receiver, because its ring was full. */
  readonly wireDropped: number
  /** CPU time of the contestant's process in µs per datagram received, without what the kernel does in softirqs. */
  readonly cpuMicros: number
  /** Peak resident set, bytes. */
  readonly peakRss: number
}

/** One climb of one contestant: its steps in order of load. */
export interface Climb {
  readonly contestant: string
  readonly points: readonly Point[]
}

/** The figures of one contestant over all its climbs. */
export interface Summary {
  readonly contestant: string
  /** Highest rate sent without losing a datagram, in datagrams per second: median of the climbs. */
  readonly zeroLoss: number
  /** Highest rate received at any step, in datagrams per second: median of the climbs. */
  readonly saturation: number
  /** µs of its CPU per datagram at its zero-loss rate: median of the climbs. NaN when every step lost something. */
  readonly cpuMicros: number
  /** In most climbs the first loss was the veth pair's, so that the wire or the sender is the limit. */
  readonly wireLimited: boolean
  readonly zeroLossRatio: number
  readonly cpuRatio: number
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Returns the highest step before the first loss. A step above one that lost does not count, or luck would decide. */
export function zeroLossPoint(climb: Climb): Point | undefined {
  const firstLoss = climb.points.findIndex((p) => p.received < p.sent)
  const clean = firstLoss < 0 ? climb.points : climb.points.slice(0, firstLoss)
  return clean.at(-1)
}

/** Returns whether the first step with a loss lost to the wire alone, or no step lost at all. */
function lostOnTheWire(climb: Climb): boolean {
  const first = climb.points.find((p) => p.received < p.sent)
  return first === undefined || first.sent - first.received <= first.wireDropped
}

export function summarise(climbs: readonly Climb[], reference: string): Summary[] {
  const names = [...new Set(climbs.map((c) => c.contestant))]
  const figures = names.map((contestant) => {
    const own = climbs.filter((c) => c.contestant === contestant)
    const clean = own.map(zeroLossPoint)
    return {
      contestant,
      zeroLoss: median(clean.map((p) => p?.achieved ?? 0)),
      saturation: median(
        own.map((c) => Math.max(...c.points.map((p) => (p.received / p.sent) * p.achieved))),
      ),
      cpuMicros: median(clean.flatMap((p) => (p ? [p.cpuMicros] : []))),
      wireLimited: 2 * own.filter(lostOnTheWire).length > own.length,
    }
  })
  const base = figures.find((f) => f.contestant === reference)
  return figures.map((f) => ({
    ...f,
    zeroLossRatio: f.zeroLoss / (base?.zeroLoss ?? Number.NaN),
    cpuRatio: f.cpuMicros / (base?.cpuMicros ?? Number.NaN),
  }))
}
