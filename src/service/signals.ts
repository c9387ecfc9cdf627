import { constants } from 'node:os'

/** Why the service ends. */
export type Cause =
  | { readonly kind: 'signal'; readonly signal: 'SIGTERM' | 'SIGINT' }
  | { readonly kind: 'fatal'; readonly error: Error }
  | { readonly kind: 'uncaught'; readonly error: Error }

/** What process events lead to. */
export interface Reactions {
  /** The first SIGTERM, SIGINT or uncaught exception. */
  end(cause: Cause): void
  /** A second SIGTERM or SIGINT; `status` is 128 + the signal's number. Does not return. */
  abort(signal: string, status: number): void
  /** SIGHUP. */
  hangup(): void
}

/** Listens to the process until the returned function is called. */
export function watchProcess(reactions: Reactions): () => void {
  let signalled = false
  const onSignal = (signal: 'SIGTERM' | 'SIGINT') => () => {
    if (signalled) return reactions.abort(signal, 128 + constants.signals[signal])
    signalled = true
    reactions.end({ kind: 'signal', signal })
  }
  const listeners = {
    SIGTERM: onSignal('SIGTERM'),
    SIGINT: onSignal('SIGINT'),
    SIGHUP: () => reactions.hangup(),
    // Unhandled rejections arrive here too.
    uncaughtException: (error: Error) => reactions.end({ kind: 'uncaught', error }),
  }
  const events = Object.entries(listeners) as [string, () => void][]
  for (const [event, listener] of events) process.on(event, listener)
  return () => {
    for (const [event, listener] of events) process.off(event, listener)
  }
}
