import { fileURLToPath } from 'node:url'
import type { Account, Sent } from './account.js'
import { type Namespace, spawnIn } from './netns.js'
import type { Ask, SubscriberOptions, Told } from './subscriber.js'

const SCRIPT = fileURLToPath(new URL('./subscriber.js', import.meta.url))

/** The parent's end of a subscriber process. */
export interface Subscriber {
  /** What it had seen half a second ago at most. */
  readonly account: Account | null
  /** Waits until nothing came for `quietMs`, or `enough` datagrams did. */
  settled(enough: number, quietMs?: number, timeoutMs?: number): Promise<Account>
  /** Its account against what was sent. */
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
  const waiting = new Map<Told['told'], { resolve(told: Told): void; reject(error: Error): void }>()
  child.on('message', (told: Told) => {
    if (told.told !== 'subscribed') account = told.account
    waiting.get(told.told)?.resolve(told)
    waiting.delete(told.told)
  })
  const exited = new Promise<void>((resolve) =>
    child.once('exit', (code) => {
      for (const { reject } of waiting.values()) reject(new Error(`subscriber ended (${code}): ${errors}`))
      waiting.clear()
      resolve()
    }),
  )
  const wait = (told: Told['told']) =>
    new Promise<Told>((resolve, reject) => {
      if (child.exitCode !== null) reject(new Error(`subscriber ended (${child.exitCode}): ${errors}`))
      waiting.set(told, { resolve, reject })
    })
  const ask = (what: Ask) => void child.send(what)

  await wait('subscribed')
  return {
    get account() {
      return account
    },
    async settled(enough, quietMs = 2000, timeoutMs = 60_000) {
      const deadline = Date.now() + timeoutMs
      let last = -1
      let since = Date.now()
      for (;;) {
        await wait('account')
        const { received } = account!
        if (received !== last) [last, since] = [received, Date.now()]
        if (received >= enough || Date.now() - since >= quietMs || Date.now() > deadline) return account!
      }
    },
    async against(sent) {
      const verdict = wait('verdict')
      ask({ ask: 'against', sent })
      await verdict
      return account!
    },
    async stop() {
      if (child.exitCode === null && child.connected) ask({ ask: 'stop' })
      await exited
    },
  }
}
