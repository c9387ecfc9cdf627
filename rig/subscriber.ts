import { fileURLToPath } from 'node:url'
import type { Account, Sent } from './account.js'
import { type Namespace, spawnIn } from './netns.js'
import type { SubscriberMessage, SubscriberOptions, SubscriberRequest } from './subscriber-process.js'

const SCRIPT = fileURLToPath(new URL('./subscriber-process.js', import.meta.url))

/** The parent's end of a subscriber process. */
export interface Subscriber {
  /** What it had received at most half a second ago; null before its first message. */
  readonly account: Account | null
  /**
   * Waits until `enough` datagrams have come, or none for `quietMs` milliseconds. Too short a quiet time ends the wait
   * while a busy machine still delivers; too long a one only delays a test in which something was lost.
   */
  settled(enough: number, quietMs?: number): Promise<Account>
  /** Returns the account when it includes everything that the nats-server had at the time of the call. */
  flushed(): Promise<Account>
  /** As {@link flushed}, compared with what was sent. */
  against(sent: Sent): Promise<Account>
  stop(): Promise<void>
}

/** Starts a subscriber process; its subscription is in place when this returns. */
export async function subscribe(ns: Namespace, options: SubscriberOptions): Promise<Subscriber> {
  const child = spawnIn(ns, [process.execPath, SCRIPT, JSON.stringify(options)], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  })
  let errors = ''
  child.stderr!.on('data', (text) => {
    errors = (errors + text).slice(-4000)
  })
  let account: Account | null = null
  type Waiting = { resolve(message: SubscriberMessage): void; reject(error: Error): void }
  const waiting = new Map<SubscriberMessage['type'], Waiting>()
  child.on('message', (message: SubscriberMessage) => {
    if (message.type !== 'subscribed') account = message.account
    waiting.get(message.type)?.resolve(message)
    waiting.delete(message.type)
  })
  const exited = new Promise<void>((resolve) =>
    child.once('exit', (code) => {
      for (const { reject } of waiting.values()) reject(new Error(`subscriber ended (${code}): ${errors}`))
      waiting.clear()
      resolve()
    }),
  )
  const next = (type: SubscriberMessage['type']) =>
    new Promise<SubscriberMessage>((resolve, reject) => {
      if (child.exitCode !== null) reject(new Error(`subscriber ended (${child.exitCode}): ${errors}`))
      waiting.set(type, { resolve, reject })
    })
  const request = (what: SubscriberRequest) => void child.send(what)

  await next('subscribed')
  return {
    get account() {
      return account
    },
    async settled(enough, quietMs = 20_000) {
      let last = -1
      let since = Date.now()
      for (;;) {
        await next('account')
        const { received } = account!
        if (received !== last) [last, since] = [received, Date.now()]
        if (received >= enough || Date.now() - since >= quietMs) return account!
      }
    },
    async flushed() {
      const flushed = next('flushed')
      request({ type: 'flush' })
      await flushed
      return account!
    },
    async against(sent) {
      const compared = next('compared')
      request({ type: 'compare', sent })
      await compared
      return account!
    },
    async stop() {
      if (child.exitCode === null && child.connected) request({ type: 'stop' })
      await exited
    },
  }
}
