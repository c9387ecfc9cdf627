import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { onCleanup } from './cleanup.js'
import { type Namespace, spawnIn } from './netns.js'

/** A running nats-server. */
export interface NatsServer {
  readonly port: number
  readonly url: string
  readonly pid: number
  stop(): Promise<void>
}

/** True when nats-server is installed. */
export function natsInstalled(): boolean {
  try {
    execFileSync('nats-server', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Starts nats-server on 127.0.0.1 of a namespace; port -1 lets the kernel choose. Ready when it returns. */
export async function startNats(ns: Namespace = null, port = -1): Promise<NatsServer> {
  const home = mkdtempSync(join(tmpdir(), 'millrace-nats-'))
  const forget = onCleanup(() => rmSync(home, { recursive: true, force: true }))
  // A big pending limit and a long write deadline: on two busy cores a subscriber may lag for a second, and a server
  // that then cuts it off ("slow consumer") would look like loss of ours.
  const config = join(home, 'nats.conf')
  writeFileSync(
    config,
    `listen: "127.0.0.1:${port}"\nmax_pending: 1GB\nwrite_deadline: "60s"\nmax_payload: 1MB\n`,
  )
  const child = spawnIn(ns, ['nats-server', '-c', config], { stdio: ['ignore', 'ignore', 'pipe'] })
  const log: string[] = []
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const ready = new Promise<number>((resolve, reject) => {
    let found = port
    child.once('error', reject)
    child.once('exit', () => reject(new Error(`nats-server ended at start:\n${log.join('\n')}`)))
    setTimeout(
      () => reject(new Error(`nats-server not ready after 10 s:\n${log.join('\n')}`)),
      10_000,
    ).unref()
    createInterface(child.stderr!).on('line', (line) => {
      if (log.length < 100) log.push(line)
      const listening = /client connections on 127\.0\.0\.1:(\d+)/.exec(line)
      if (listening) found = Number(listening[1])
      if (line.includes('Server is ready')) resolve(found)
    })
  })
  const chosen = await ready
  return {
    port: chosen,
    url: `nats://127.0.0.1:${chosen}`,
    pid: child.pid!,
    async stop() {
      child.kill('SIGTERM')
      await exited
      forget()
    },
  }
}
