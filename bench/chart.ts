import { parse, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'

/** Renders a vega-lite specification as SVG text. */
export async function svg(spec: TopLevelSpec): Promise<string> {
  return new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG()
}

/** Returns the specification of a line chart, with one line per series. */
export function lines(
  title: string,
  values: readonly { series: string; x: number; y: number }[],
  axes: { x: string; y: string; logX?: boolean },
): TopLevelSpec {
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title,
    width: 640,
    height: 360,
    background: 'white',
    data: { values: [...values] },
    mark: { type: 'line', point: true },
    encoding: {
      x: {
        field: 'x',
        type: 'quantitative',
        title: axes.x,
        scale: { type: axes.logX ? 'log' : 'linear', nice: false },
      },
      y: { field: 'y', type: 'quantitative', title: axes.y },
      color: { field: 'series', type: 'nominal', title: null, sort: null, scale: { scheme: 'category20' } },
    },
  }
}
