/**
 * Checks what {@link HANDLER} publishes, in a process of its own: NATS may be in another network namespace. Tells its
 * parent what it found twenty times a second, and when it is asked. Arguments: NATS's URL, number of queues.
 */
import { unpack } from 'msgpackr'
import { connect } from 'nats'
import { type Fate, type Fates, judgedBy } from './reload-sets.js'

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
    for (const fate of unpack(message.data) as Fate[]) {
      const [n, queue, rule, key] = fate
      if (seen.has(n)) fault(`${n} came twice`)
      seen.add(n)
      highest = Math.max(highest, n)
      const set = judgedBy(fate, Number(queues))
      if (set < 0) fault(`${n} is of neither set: queue ${queue}, ${rule}, key ${key}`)
      else bySet[set]!++
    }
  },
})
// The server has the subscription once it has answered what came after it.
await nc.flush()
const tell = (last: boolean) =>
  process.send?.({ seen: seen.size, highest, bySet, faults, last } satisfies Fates)
tell(false)
setInterval(() => tell(false), 50)
process.on('message', () => void nc.flush().then(() => tell(true)))
process.on('disconnect', () => process.exit(0))
process.on('SIGINT', () => {})
