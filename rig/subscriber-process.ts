/**
 * A NATS subscriber in a process of its own, so that checking every byte does not slow down what is checked. The parent
 * sends a {@link SubscriberRequest}; the child sends a {@link SubscriberMessage} in answer, and its account twice a
 * second.
 */
import { connect } from 'nats'
import type { Format } from '../src/config/formats.js'
import { countDatagrams, decode } from '../src/decode.js'
import { type Account, Accounts, type Sent } from './account.js'

/** Parent to child. */
export type SubscriberRequest =
  | { readonly type: 'flush' }
  | { readonly type: 'compare'; readonly sent: Sent }
  | { readonly type: 'stop' }
/** Child to parent. */
export type SubscriberMessage =
  | { readonly type: 'subscribed' }
  | { readonly type: 'account'; readonly account: Account }
  | { readonly type: 'flushed'; readonly account: Account }
  | { readonly type: 'compared'; readonly account: Account }

/** The only argument of the process, as JSON. */
export interface SubscriberOptions {
  readonly url: string
  /** Prefix of the subjects: queue q publishes to `prefix.q`. */
  readonly prefix: string
  readonly format: Format
  readonly queues: number
  /** False: count only, for load that checking every byte could not keep up with. */
  readonly verify: boolean
}

const options = JSON.parse(process.argv[2]!) as SubscriberOptions
const accounts = new Accounts(options.queues, options.verify)
const send = (message: SubscriberMessage) => void process.send?.(message)

const nc = await connect({ servers: options.url, name: 'millrace-check' })
const queueAt = options.prefix.length + 1
nc.subscribe(`${options.prefix}.>`, {
  // A callback and not an iterator, whose queue would cost a promise for each message.
  callback(error, message) {
    if (error) throw error
    accounts.messages++
    const queue = Number(message.subject.slice(queueAt))
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
// The server answers in order, so the subscription is in place once it has answered the flush.
await nc.flush()
send({ type: 'subscribed' })
setInterval(() => send({ type: 'account', account: accounts.report() }), 500).unref()

process.on('message', async (request: SubscriberRequest) => {
  if (request.type === 'stop') process.exit(0)
  // The server answers in order: what it had when it was asked has been received when it answers.
  await nc.flush()
  if (request.type === 'flush') send({ type: 'flushed', account: accounts.report() })
  else send({ type: 'compared', account: accounts.against(request.sent) })
})
// The parent has ended without a request to stop.
process.on('disconnect', () => process.exit(0))
// Ctrl-C reaches the whole process group; the parent decides when this process stops.
process.on('SIGINT', () => {})
