import { get } from 'node:http'

/** One sample of a Prometheus text page. */
export interface Sample {
  readonly name: string
  readonly labels: { readonly reason?: string; readonly [name: string]: string | undefined }
  readonly value: number
}

/** Parses the Prometheus text format as Millrace writes it, that is without time stamps. */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = []
  for (const line of text.split('\n')) {
    const [, name, labels = '', value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    if (name === undefined) continue
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, k, v]) => [k!, v!] as const)
    samples.push({ name, labels: Object.fromEntries(pairs), value: Number(value) })
  }
  return samples
}

/** The counters of lost datagrams and results, with the prefix that distinguishes their reasons. */
const DROPS: Readonly<Record<string, string>> = {
  millrace_dropped_datagrams_total: '',
  millrace_kernel_lost_datagrams_total: 'kernel_',
  millrace_dropped_results_total: 'nats_',
}

/** Returns drops by reason, with the names that the closing books use (rig/books.ts). */
export function dropsOf(samples: readonly Sample[]): Record<string, number> {
  const drops: Record<string, number> = {}
  for (const { name, labels, value } of samples) {
    const prefix = DROPS[name]
    if (prefix === undefined || value === 0) continue
    const reason = `${prefix}${labels.reason}`
    drops[reason] = (drops[reason] ?? 0) + value
  }
  return drops
}

/** Fetches a page. Resolves to null when there is no answer within 2 s, or one other than 200. */
export function fetchText(url: string): Promise<string | null> {
  return new Promise((resolve) => {
    const request = get(url, { timeout: 2000 }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part) => {
        text += part
      })
      response.on('end', () => resolve(response.statusCode === 200 ? text : null))
    })
    request.once('timeout', () => request.destroy())
    request.once('error', () => resolve(null))
  })
}
