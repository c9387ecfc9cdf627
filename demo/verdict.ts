import Table from 'cli-table3'
import type { Account } from '../rig/account.js'
import type { BlastReport } from '../rig/blast.js'
import { sumOf, type Totals } from '../rig/books.js'
import { number } from './live.js'

/** The demo's result, which `--json` prints. */
export interface Verdict {
  readonly backend: string
  readonly mode: string
  readonly sent: number
  /** Datagrams the service received. */
  readonly received: number
  readonly dropped: Readonly<Record<string, number>>
  /** Datagrams the NATS subscriber received. */
  readonly nats_received: number
  readonly balanced: boolean
  readonly seconds: number
  readonly rate: number
}

/** Closes the books: they balance when every datagram sent was received by the subscriber or dropped for a reason. */
export function verdict(
  report: BlastReport,
  account: Account,
  totals: Totals,
  asked: { readonly seconds: number; readonly rate: number },
): Verdict {
  const wire = report.interface_tx_dropped
  const dropped = { ...totals.dropped, ...(wire > 0 ? { wire } : {}) }
  const good = account.duplicates + account.corrupt + account.misplaced + account.split === 0
  return {
    backend: totals.backend,
    mode: totals.mode,
    sent: report.sent,
    received: totals.received,
    dropped,
    nats_received: account.received,
    balanced: good && report.sent === account.received + sumOf(dropped),
    ...asked,
  }
}

/** Formats the books as a table for people. */
export function booksText(v: Verdict, account: Account): string {
  const t = new Table({
    head: ['the books', 'datagrams'],
    colAligns: ['left', 'right'],
    style: { head: [], border: [] },
  })
  t.push(['sent', number(v.sent)], ['received by the NATS subscriber', number(v.nats_received)])
  for (const [reason, n] of Object.entries(v.dropped)) t.push([`dropped: ${reason}`, number(n)])
  const open = v.sent - v.nats_received - sumOf(v.dropped)
  t.push(['unaccounted for', number(open)])
  const checked = `${number(account.received)} checked byte for byte: ${account.corrupt} corrupt, ${account.misplaced} on a wrong queue, ${account.duplicates} twice`
  return [t.toString(), checked, ...shortfall(v)].join('\n')
}

/** Share of the requested datagrams above which the sender is said to have kept its rate. */
const KEPT = 0.98

/** Explains that the sender was slower than requested, if it was. */
function shortfall(v: Verdict): string[] {
  const asked = v.rate * v.seconds
  if (v.sent >= asked * KEPT) return []
  const pace = `${number(Math.round(v.sent / v.seconds))} datagrams a second of the ${number(v.rate)} asked for`
  return [`The sender managed ${pace}: this machine is busy, or that is its limit.`]
}
