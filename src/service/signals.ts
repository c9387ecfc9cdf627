import { constants } from 'node:os'

/** Why the service ends. */
export type Cause =
  | { readonly kind: 'signal'; readonly signal: 'SIGTERM' | 'SIGINT' }
  | { readonly kind: 'fatal'; readonly error: Error }
  | { readonly kind: 'uncaught'; readonly error: Error }

/** What is called at process events. */
interface ProcessListener {
  /** Called at the first SIGTERM or SIGINT, and at every uncaught exception. */
  end(cause: Cause): void
  /** Called at every later SIGTERM or SIGINT; `status` is 128 + the signal's number. */
  abort(signal: string, status: number): void
  /** Called at every SIGHUP. */
  hangup(): void
}

/** Listens to events of the process until the returned function is called. */
export function watchProcess(listener: ProcessListener): () => void {
  let signalled = false
  const onSignal = (signal: 'SIGTERM' | 'SIGINT') => () => {
    if (signalled) return listener.abort(signal, 128 + constants.signals[signal])
    signalled = true
    listener.end({ kind: 'signal', signal })
  }
  const handlers = {
    SIGTERM: onSignal('SIGTERM'),
    SIGINT: onSignal('SIGINT'),
    SIGHUP: () => listener.hangup(),
    // Unhandled rejections arrive here too.
    uncaughtException: (error: Error) => listener.end({ kind: 'uncaught', error }),
  }
  const events = Object.entries(handlers) as [string, () => void][]
  for (const [event, handle] of events) process.on(event, handle)
  return () => {
    for (const [event, handle] of events) process.off(event, handle)
  }
}
