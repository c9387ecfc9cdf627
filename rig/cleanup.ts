/**
 * Clean-up of processes, directories and namespaces, which must go away however this process ends: normally, by an
 * exception, or by Ctrl-C. Steps run in reverse order of registration, each at most once. They are synchronous, because
 * `process.on('exit')` allows nothing else.
 */
type Step = () => void

const steps = new Set<Step>()
let hooked = false

/** Registers a clean-up step. The returned function runs the step now and unregisters it. */
export function onCleanup(step: Step): Step {
  hook()
  const once = () => {
    if (steps.delete(once)) step()
  }
  steps.add(once)
  return once
}

/** Runs all registered steps, the newest first. A step that fails does not keep the others from running. */
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
  // The exit status is 128 + signal number, as a shell reports it.
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(signal, () => process.exit(status))
  }
}
