/** One run at one offered rate. */
export interface Point {
  /** Datagrams a second asked for, and really sent. */
  readonly offered: number
  readonly achieved: number
  readonly sent: number
  readonly received: number
  /** Of those lost, how many the veth pair itself dropped between sender and receiver (its 256-slot ring was full). */
  readonly wireDropped: number
  /** CPU time of the contestant's process, µs per datagram received; kernel softirq work is nobody's and not in it. */
  readonly cpuMicros: number
  /** Peak resident set, bytes. */
  readonly peakRss: number
}

/** One climb of the ladder by one contestant. */
export interface Climb {
  readonly contestant: string
  readonly points: readonly Point[]
}

/** What the climbs of one contestant come to. */
export interface Summary {
  readonly contestant: string
  /** Highest rate really sent without losing one datagram: median of the climbs, datagrams a second. */
  readonly zeroLoss: number
  /** Highest rate received at any step: median of the climbs. */
  readonly saturation: number
  /** µs of its CPU per datagram at its zero-loss rate: median of the climbs. */
  readonly cpuMicros: number
  /** The first loss was the veth pair's in most climbs: the wire or the sender is the limit, not the contestant. */
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

/** The highest step before the first loss; a step above one that lost does not count, or luck would. */
export function zeroLossPoint(climb: Climb): Point | undefined {
  const firstLoss = climb.points.findIndex((p) => p.received < p.sent)
  const clean = firstLoss < 0 ? climb.points : climb.points.slice(0, firstLoss)
  return clean.at(-1)
}

/** True when the first step with a loss lost to the wire alone, or no step lost at all. */
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
