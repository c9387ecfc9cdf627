import Table from 'cli-table3'
import { createLogUpdate } from 'log-update'

/** One reading of everything the demo shows. */
export interface Reading {
  readonly seconds: number
  readonly of: number
  readonly backend: string
  /** Datagrams a second that the subscriber got, by queue. */
  readonly queues: readonly number[]
  /** NATS messages a second. */
  readonly messages: number
  readonly received: number
  readonly drops: Readonly<Record<string, number>>
}

/** Where readings go. */
export interface Live {
  show(reading: Reading): void
  /** Leaves the last picture standing. */
  done(): void
}

export const number = (n: number) => Math.round(n).toLocaleString('en-US')

/** `a 1, b 2`, or `none`. */
export function reasons(drops: Readonly<Record<string, number>>): string {
  return (
    Object.entries(drops)
      .map(([reason, n]) => `${reason} ${number(n)}`)
      .join(', ') || 'none'
  )
}

/** A table that redraws itself on a terminal; a line every two seconds elsewhere. */
export function live(stream: NodeJS.WriteStream): Live {
  return stream.isTTY ? table(stream) : lines(stream)
}

function table(stream: NodeJS.WriteStream): Live {
  const update = createLogUpdate(stream)
  return {
    show(r) {
      const t = new Table({
        head: ['queue', 'datagrams/s', ''],
        colAligns: ['right', 'right', 'left'],
        style: { head: [], border: [] },
      })
      const most = Math.max(1, ...r.queues)
      for (const [q, rate] of r.queues.entries())
        t.push([q, number(rate), '█'.repeat(Math.round((rate / most) * 24))])
      const total = r.queues.reduce((a, b) => a + b, 0)
      t.push(['all', number(total), `${number(r.messages)} NATS messages/s`])
      const width = 40
      const filled = Math.min(width, Math.round((r.seconds / r.of) * width))
      const bar = '━'.repeat(filled) + '─'.repeat(width - filled)
      update(
        [
          `${bar} ${r.seconds.toFixed(0)} of ${r.of} s`,
          `backend ${r.backend}`,
          t.toString(),
          `with the subscriber ${number(r.received)} · dropped: ${reasons(r.drops)}`,
        ].join('\n'),
      )
    },
    done: () => update.done(),
  }
}

function lines(stream: NodeJS.WriteStream): Live {
  let last = -2
  return {
    show(r) {
      if (r.seconds - last < 2 && r.seconds < r.of) return
      last = r.seconds
      const queues = r.queues.map((rate, q) => `q${q} ${number(rate)}/s`).join(' ')
      stream.write(
        `${r.seconds.toFixed(0).padStart(4)} s  ${r.backend}  ${queues}  NATS ${number(r.messages)} msg/s  dropped: ${reasons(r.drops)}\n`,
      )
    },
    done() {},
  }
}
