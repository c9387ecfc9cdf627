import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** The nats-server that tests use where Debian's is too old, built from its Go module. */
const VERSION = '2.15.3'

const FOLDER = fileURLToPath(new URL(`../../node_modules/.cache/nats-server-${VERSION}`, import.meta.url))

/** Path of a newer nats-server than the one on PATH; built once, which takes a minute or two. */
export async function newestNats(): Promise<{ path: string } | { reason: string }> {
  const path = `${FOLDER}/nats-server`
  if (existsSync(path)) return { path }
  try {
    const env = { ...process.env, GOBIN: FOLDER, GOFLAGS: '-mod=mod' }
    const module = `github.com/nats-io/nats-server/v2@v${VERSION}`
    await promisify(execFile)('go', ['install', module], { env, timeout: 600_000 })
    return { path }
  } catch (error) {
    return { reason: `nats-server ${VERSION} cannot be built: ${(error as Error).message.split('\n')[0]}` }
  }
}
