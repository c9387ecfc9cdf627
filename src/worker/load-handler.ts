import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { MillraceError } from '../errors.js'
import type { Handler } from '../queue/handler.js'

/**
 * Loads a handler: `forward`, or an ESM module whose default export is what `defineHandler` returns, or a function.
 *
 * @throws MillraceError `MILLRACE_E_HANDLER` naming the path and what is wrong with it.
 */
export async function loadHandler(spec: string): Promise<Handler> {
  if (spec === 'forward') return (await import('./forward.js')).default
  const path = resolve(spec)
  if (!existsSync(path)) {
    throw handlerError(path, 'no such file', 'the path of an ESM module, or `forward`')
  }
  let module: { default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as { default?: unknown }
  } catch (cause) {
    const typescript = (cause as { code?: string }).code === 'ERR_UNKNOWN_FILE_EXTENSION'
    const expected = typescript
      ? `a built .js file: Node ${process.versions.node} does not run .ts (22.18 and newer do)`
      : 'a module that loads'
    throw handlerError(path, cause instanceof Error ? cause.message : String(cause), expected, cause)
  }
  const exported = module.default
  if (typeof exported === 'function') return { handle: exported as Handler['handle'] }
  if (typeof (exported as Handler | undefined)?.handle === 'function') return exported as Handler
  throw handlerError(path, `its default export is ${describe(exported)}`, '`export default defineHandler(…)`')
}

function handlerError(path: string, what: string, expected: string, cause?: unknown): MillraceError {
  const options = cause === undefined ? undefined : { cause }
  return new MillraceError(
    'MILLRACE_E_HANDLER',
    `MILLRACE_HANDLER ${path}: ${what}; expected ${expected}`,
    options,
  )
}

function describe(value: unknown): string {
  if (value === undefined) return 'missing'
  return value === null ? 'null' : `a ${typeof value} without a handle function`
}
