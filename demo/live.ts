import Table from 'cli-table3'
import { createLogUpdate } from 'log-update'

/** One reading of everything that the demo shows. */
export interface Reading {
  /** Seconds since the sender started, and seconds that it runs. */
  readonly seconds: number
  readonly of: number
  readonly backend: string
  /** Datagrams per second that the subscriber received, by queue. */
  readonly queues: readonly number[]
  /** NATS messages per second. */
  readonly messages: number
  /** Datagrams that the subscriber has received so far. */
  readonly received: number
  /** Drops so far, by reason. */
  readonly drops: Readonly<Record<string, number>>
}

/** A display of readings. */
export interface Live {
  show(reading: Reading): void
  /** Ends the display; the last reading stays on the screen. */
  done(): void
}

/** Formats a number with thousands separators. */
export const number = (n: number) => Math.round(n).toLocaleString('en-US')

/** Formats counts by reason as `a 1, b 2`, or as `none`. */
export function reasons(drops: Readonly<Record<string, number>>): string {
  return (
    Object.entries(drops)
      .map(([reason, n]) => `${reason} ${number(n)}`)
      .join(', ') || 'none'
  )
}

/** Returns a table that is redrawn on a terminal, and a line every two seconds elsewhere. */
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
