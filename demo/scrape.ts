/**
 * Reads the service's /metrics once a second and sends the drops to the parent. It is a process of its own, because the
 * service listens on the loopback interface of its network namespace, which only a process in that namespace can reach.
 */
import { dropsOf, fetchText, parseMetrics } from './metrics.js'

/** The message to the parent. */
export interface Scraped {
  readonly drops: Readonly<Record<string, number>>
}

const url = process.argv[2]!

async function scrape(): Promise<void> {
  const text = await fetchText(url)
  if (text !== null) process.send?.({ drops: dropsOf(parseMetrics(text)) } satisfies Scraped)
}

setInterval(() => void scrape(), 1000)
process.on('disconnect', () => process.exit(0))
process.on('SIGINT', () => {})
