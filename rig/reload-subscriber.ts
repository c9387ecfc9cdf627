/**
 * A subscriber that checks what the handler of reload-rules.ts publishes. It is a process of its own, because the
 * nats-server may be in another network namespace. It sends its parent a ReloadSummary twenty times a second, and in
 * answer to any message. Arguments: URL of the nats-server, number of queues.
 */
import { unpack } from 'msgpackr'
import { connect } from 'nats'
import { type Decision, judgedBy, type ReloadSummary } from './reload-rules.js'

const [url, queues] = process.argv.slice(2)
const seen = new Set<number>()
const bySet: [number, number] = [0, 0]
const faults: string[] = []
let highest = -1
const fault = (text: string) => faults.length < 5 && faults.push(text)

const nc = await connect({ servers: url!, name: 'millrace-check' })
nc.subscribe('t.>', {
  callback(error, message) {
    if (error) throw error
    for (const decision of unpack(message.data) as Decision[]) {
      const [n, queue, rule, key] = decision
      if (seen.has(n)) fault(`${n} came twice`)
      seen.add(n)
      highest = Math.max(highest, n)
      const set = judgedBy(decision, Number(queues))
      if (set < 0) fault(`${n} is of neither set: queue ${queue}, ${rule}, key ${key}`)
      else bySet[set]!++
    }
  },
})
// The server answers in order, so the subscription is in place once it has answered the flush.
await nc.flush()
const tell = (last: boolean) =>
  process.send?.({ seen: seen.size, highest, bySet, faults, last } satisfies ReloadSummary)
tell(false)
setInterval(() => tell(false), 50)
process.on('message', () => void nc.flush().then(() => tell(true)))
process.on('disconnect', () => process.exit(0))
process.on('SIGINT', () => {})
