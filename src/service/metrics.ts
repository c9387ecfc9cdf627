import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { VERSION } from '../version.js'
import { FAMILIES } from './families.js'
import type { Family } from './metric-family.js'
import type { Snapshot } from './statistics.js'

/** Prefix of the names of all metrics, also those of the process and of its event loop. */
export const PREFIX = 'millrace_'

/**
 * Interval of the event loop's lag measurement, milliseconds. prom-client's default of 10 means 100 timer events a second in
 * a main thread that is otherwise asleep; a longer one misses short stalls.
 */
const EVENT_LOOP_PRECISION_MS = 100

/** The registry behind `/metrics`. */
export class Metrics {
  readonly registry = new Registry()
  #snapshot: Snapshot | null = null

  constructor() {
    new Gauge({
      name: `${PREFIX}build_info`,
      help: 'Version of Millrace and of Node; always 1.',
      labelNames: ['version', 'node', 'arch'],
      registers: [this.registry],
    }).set({ version: VERSION, node: process.version, arch: process.arch }, 1)
    for (const family of FAMILIES) this.#register(family)
    collectDefaultMetrics({
      register: this.registry,
      prefix: PREFIX,
      eventLoopMonitoringPrecision: EVENT_LOOP_PRECISION_MS,
    })
  }

  /** One snapshot in the Prometheus text format, version 0.0.4; without a snapshot only the process's metrics are in it. */
  async scrape(snapshot: Snapshot | null): Promise<string> {
    this.#snapshot = snapshot
    return await this.registry.metrics()
  }

  #register({ name, type, help, labels, read }: Family): void {
    const samples = () => (this.#snapshot ? read(this.#snapshot) : [])
    const options = { name: PREFIX + name, help, labelNames: labels, registers: [this.registry] }
    // The data plane keeps the counts. Each scrape replaces all samples, so that a series that is gone disappears.
    if (type === 'counter') {
      new Counter({
        ...options,
        collect() {
          clear(this, labels)
          // A driver that resets its counters can make a difference negative, for which prom-client would fail the whole scrape.
          for (const [sampleLabels, value] of samples()) this.inc(sampleLabels, Math.max(0, value))
        },
      })
    } else {
      new Gauge({
        ...options,
        collect() {
          clear(this, labels)
          for (const [sampleLabels, value] of samples()) this.set(sampleLabels, value)
        },
      })
    }
  }
}

/** Removes all samples. `reset()` alone leaves a zero behind in a metric without labels. */
function clear(metric: Counter | Gauge, labels: readonly string[]): void {
  metric.reset()
  if (labels.length === 0) metric.remove()
}

/** The generated part of docs/metrics.md. */
export function metricsMarkdown(metrics: Metrics): string {
  const rows = metrics.registry.getMetricsAsArray().map((metric) => {
    const { name, help, type, labelNames } = metric as typeof metric & { labelNames?: string[] }
    const labels = (labelNames ?? []).map((label) => `\`${label}\``).join(', ')
    return `| \`${name}\` | ${String(type)} | ${labels} | ${help.replaceAll('|', '\\|')} |`
  })
  return ['| Metric | Type | Labels | Meaning |', '| --- | --- | --- | --- |', ...rows].join('\n')
}
