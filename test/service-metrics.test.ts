import t from 'tap'
import { generatedPart } from '../rig/generated-part.js'
import { FAMILIES } from '../src/service/families.js'
import { Metrics, metricsMarkdown, PREFIX } from '../src/service/metrics.js'
import { snapshot } from './service-fake.test.js'

interface Series {
  readonly name: string
  readonly labels: Record<string, string>
  readonly value: number
}

/** A parser of the Prometheus text format, as strict as a test needs: throws on any line it does not understand. */
function parse(text: string): { series: Series[]; types: Map<string, string>; helped: Set<string> } {
  const series: Series[] = []
  const types = new Map<string, string>()
  const helped = new Set<string>()
  for (const line of text.split('\n')) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)$/.exec(line)
    if (comment?.[1] === 'HELP') helped.add(comment[2]!)
    else if (comment) types.set(comment[2]!, comment[3]!)
    else {
      const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
      if (!sample) throw new Error(`not a sample: ${line}`)
      const labels: Record<string, string> = {}
      let rest = sample[2] ?? ''
      while (rest) {
        const label = /^([a-zA-Z_]\w*)="((?:[^"\\]|\\[\\"n])*)",?/.exec(rest)
        if (!label) throw new Error(`not labels: ${line}`)
        labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, c: string) => (c === 'n' ? '\n' : c))
        rest = rest.slice(label[0].length)
      }
      const value = Number(sample[3])
      // The mean lag of an event loop that has not turned yet; Go's parser takes any case.
      if (Number.isNaN(value) && !/^nan$/i.test(sample[3]!)) throw new Error(`not a number: ${line}`)
      series.push({ name: sample[1]!, labels, value })
    }
  }
  return { series, types, helped }
}

const metrics = new Metrics()

t.test('the text parses and agrees with the snapshot', async (t) => {
  const snap = snapshot()
  const { series, types, helped } = parse(await metrics.scrape(snap))
  for (const { name, type, labels, read } of FAMILIES) {
    t.equal(types.get(PREFIX + name), type, name)
    t.ok(helped.has(PREFIX + name))
    const mine = series.filter((s) => s.name === PREFIX + name)
    const expected = read(snap).map(([values, value]) => ({
      labels: Object.fromEntries(Object.entries(values).map(([k, v]) => [k, String(v)])),
      value,
    }))
    t.same(
      mine.map((s) => ({ labels: s.labels, value: s.value })),
      expected,
      `${name}: ${expected.length} series`,
    )
    t.ok(expected.length > 0, `${name} has series`)
    for (const s of mine) t.same(Object.keys(s.labels).sort(), [...labels].sort())
  }
  const value = (name: string, labels: Record<string, string> = {}) =>
    series.find((s) => {
      return s.name === PREFIX + name && Object.entries(labels).every(([k, v]) => s.labels[k] === v)
    })?.value
  t.equal(value('received_datagrams_total', { thread: '0' }), 100)
  t.equal(value('dropped_datagrams_total', { thread: '1', reason: 'rule' }), 2)
  t.equal(value('dropped_datagrams_total', { thread: '1', reason: 'queue_full' }), 1)
  t.equal(value('queue_scattered_datagrams_total', { queue: '1' }), 37)
  t.equal(value('rule_dropped_datagrams_total', { rule: 'noise' }), 16)
  t.equal(value('handled_datagrams_total', { queue: '0' }), 79)
  t.equal(value('handler_seconds_total', { queue: '0' }), 2.5)
  t.equal(value('dropped_results_total', { queue: '0', reason: 'disconnected' }), 2)
  t.equal(value('worker_heartbeat_age_seconds', { queue: '0' }), 0.003)
  t.equal(value('interface_dropped_frames_total', { reason: 'rx_over' }), 4)
  t.equal(value('mode_info', { backend: 'packet', mode: 'tpacket_v3 fanout "hash"\\', interface: 'eth0' }), 1)
  t.equal(value('backend_refused_info', { backend: 'xdp', code: 'MILLRACE_E_PERMISSION' }), 1)
  t.equal(value('books_balanced'), 1)
  t.equal(value('build_info', { node: process.version }), 1)
  t.ok(value('process_resident_memory_bytes')! > 0, 'the process is there')
  t.ok(types.has('millrace_nodejs_eventloop_lag_seconds'), 'the event loop is there')
})

t.test('a scrape shows the reading it was given, not a sum of readings', async (t) => {
  const snap = snapshot()
  snap.engine.threads.pop()
  snap.engine.threads[0]!.received = 95
  const once = parse(await metrics.scrape(snap)).series.filter(
    (s) => s.name === 'millrace_received_datagrams_total',
  )
  t.same(
    once.map((s) => s.value),
    [95],
  )
  const { series } = parse(await metrics.scrape(null))
  const left = series.filter((s) => FAMILIES.some((f) => PREFIX + f.name === s.name))
  t.same(left, [], 'without a snapshot only the process is shown')
  t.ok(series.length > 0)
})

t.test('names', async (t) => {
  for (const { name, type } of FAMILIES) {
    t.match(name, /^[a-z][a-z_]*$/)
    t.equal(
      type === 'counter',
      name.endsWith('_total'),
      `${name} ends with _total exactly when it is a counter`,
    )
    t.notMatch(name, /nanos|micros|millis|_ms$|_us$/, 'base units')
  }
})

t.test('docs/metrics.md and the registry agree', async (t) => {
  generatedPart(t, 'metrics.md', 'metrics', metricsMarkdown(metrics))
  t.equal(new Set(FAMILIES.map((f) => f.name)).size, FAMILIES.length)
})
