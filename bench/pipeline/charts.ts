import { writeFileSync } from 'node:fs'
import { lines, svg } from '../chart.js'
import { type Climb, median, type Point } from './summary.js'

/** Draws two charts into a folder: loss and CPU over offered load, as medians of the climbs at each step. */
export async function drawCharts(climbs: readonly Climb[], folder: string): Promise<void> {
  const x = 'offered load, thousand datagrams a second'
  const draw = async (name: string, title: string, y: string, value: (p: Point) => number) => {
    const values = medians(climbs, value)
    writeFileSync(`${folder}/pipeline-${name}.svg`, await svg(lines(title, values, { x, y, logX: true })))
  }
  await draw('loss', 'Loss', 'lost, %', (p) => (1 - p.received / p.sent) * 100)
  await draw('cpu', 'CPU of the receiver', 'µs per datagram', (p) => p.cpuMicros)
}

function medians(climbs: readonly Climb[], value: (p: Point) => number) {
  const groups = new Map<string, { series: string; x: number; values: number[] }>()
  for (const { contestant, points } of climbs) {
    for (const point of points) {
      const key = `${contestant} ${point.offered}`
      const group = groups.get(key) ?? { series: contestant, x: point.offered / 1000, values: [] }
      group.values.push(value(point))
      groups.set(key, group)
    }
  }
  return [...groups.values()].map(({ series, x, values }) => ({ series, x, y: median(values) }))
}
