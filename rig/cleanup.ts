/**
 * What was made must go away, whatever happens: normal end, exception, Ctrl-C. Steps run in reverse order and each at
 * most once. `process.on('exit')` allows only synchronous work, so steps are synchronous.
 */
type Step = () => void

const steps = new Set<Step>()
let hooked = false

/** Registers a synchronous clean-up step; the returned function runs it now and forgets it. */
export function onCleanup(step: Step): Step {
  hook()
  const once = () => {
    if (steps.delete(once)) step()
  }
  steps.add(once)
  return once
}

/** Runs everything registered, newest first. */
export function cleanUp(): void {
  for (const step of [...steps].reverse()) {
    try {
      step()
    } catch (error) {
      process.stderr.write(`clean-up: ${error instanceof Error ? error.message : error}\n`)
    }
  }
}

function hook(): void {
  if (hooked) return
  hooked = true
  process.once('exit', cleanUp)
  // 128 + signal number, as a shell reports it.
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(signal, () => process.exit(status))
  }
}
