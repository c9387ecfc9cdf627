/**
 * A NATS subscriber in a process of its own, so that checking every byte does not slow what it checks.
 * Parent to child: {@link Ask}. Child to parent: {@link Told}, twice a second by itself and in answer to an ask.
 */
import { connect } from 'nats'
import { countDatagrams, decode } from '../src/decode.js'
import { type Account, Accounts, type Sent } from './account.js'

/** What the parent asks. */
export type Ask = { readonly ask: 'against'; readonly sent: Sent } | { readonly ask: 'stop' }
/** What the child tells. */
export type Told =
  | { readonly told: 'subscribed' }
  | { readonly told: 'account'; readonly account: Account }
  | { readonly told: 'verdict'; readonly account: Account }

/** Its only argument, as JSON. */
export interface SubscriberOptions {
  readonly url: string
  /** The subject's prefix: queue q publishes to `prefix.q`. */
  readonly prefix: string
  readonly format: 'raw' | 'records' | 'columns'
  readonly queues: number
  readonly verify: boolean
}

const options = JSON.parse(process.argv[2]!) as SubscriberOptions
const accounts = new Accounts(options.queues, options.verify)
const tell = (told: Told) => void process.send?.(told)

const nc = await connect({ servers: options.url, name: 'millrace-check' })
const at = options.prefix.length + 1
nc.subscribe(`${options.prefix}.>`, {
  // A callback, not an iterator: the iterator's queue costs a promise per message.
  callback(error, message) {
    if (error) throw error
    accounts.messages++
    const queue = Number(message.subject.slice(at))
    if (options.format === 'raw') {
      accounts.take(queue, message.data)
      return
    }
    if (!options.verify) {
      accounts.count(queue, countDatagrams(message.data))
      return
    }
    for (const d of decode(message.data)) {
      accounts.take(queue, d.payload, d.payload.length < 4 ? `${d.src} ${d.sport}` : undefined)
    }
  },
})
// The server has the subscription once it has answered what came after it.
await nc.flush()
tell({ told: 'subscribed' })
setInterval(() => tell({ told: 'account', account: accounts.report() }), 500).unref()

process.on('message', (ask: Ask) => {
  if (ask.ask === 'against') tell({ told: 'verdict', account: accounts.against(ask.sent) })
  else process.exit(0)
})
// The parent is gone: nobody is left to tell.
process.on('disconnect', () => process.exit(0))
// Ctrl-C reaches the whole process group; the parent decides when we stop.
process.on('SIGINT', () => {})
