import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onCleanup } from './cleanup.js'
import { type Namespace, spawnIn } from './netns.js'
import { freePort } from './ports.js'

/** Longest wait in milliseconds for a server to be ready; it only ends a test that hangs. */
const LIMIT_MS = 60_000

/** How to start a nats-server. */
export interface NatsOptions {
  /** Network namespace to run in. Default: that of this process. */
  ns?: Namespace
  /** TCP port to listen on. Default: a free one. */
  port?: number
  token?: string
  user?: string
  password?: string
  /** max_payload in bytes. */
  maxPayload?: number
  /** Lines for the server's configuration file. */
  config?: string
  /** Further arguments of the command line. */
  args?: readonly string[]
  /** Path or name of the server. Default `nats-server`. */
  binary?: string
}

/** A running nats-server. */
export interface NatsServer {
  readonly port: number
  readonly url: string
  readonly pid: number | undefined
  /** Sends a signal. Waits for the end of the process after SIGKILL or SIGTERM, and after SIGSTOP until it is stopped. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Starts the server again, on the same port, after a kill. */
  start(): Promise<void>
  /** Ends the server, also when it is stopped, and removes its directory. */
  stop(): Promise<void>
}

/** Starts a nats-server on the loopback interface of a namespace, and returns when it is ready. */
export async function startNats(options: NatsOptions = {}): Promise<NatsServer> {
  const port = options.port ?? (await freePort())
  const directory = mkdtempSync(join(tmpdir(), 'millrace-nats-'))
  const forget = onCleanup(() => rmSync(directory, { recursive: true, force: true }))
  const log = join(directory, 'log')
  const args = ['-a', '127.0.0.1', '-p', String(port), '-l', log, ...(options.args ?? [])]
  if (options.token !== undefined) args.push('--auth', options.token)
  if (options.user !== undefined) args.push('--user', options.user, '--pass', options.password ?? '')
  const lines = options.maxPayload === undefined ? [] : [`max_payload: ${options.maxPayload}`]
  if (options.config !== undefined) lines.push(options.config)
  if (lines.length > 0) {
    const file = join(directory, 'conf')
    writeFileSync(file, lines.join('\n'))
    args.push('-c', file)
  }
  let child: ChildProcess | undefined

  async function start(): Promise<void> {
    rmSync(log, { force: true })
    const started = spawnIn(options.ns ?? null, [options.binary ?? 'nats-server', ...args], {
      stdio: 'ignore',
    })
    child = started
    const deadline = Date.now() + LIMIT_MS
    while (!(existsSync(log) && readFileSync(log, 'utf8').includes('Server is ready'))) {
      // setpriv and ip exit with 127 and 255 when there is no such program.
      if (started.exitCode === 127 || started.exitCode === 255) throw notInstalled()
      const output = existsSync(log) ? readFileSync(log, 'utf8') : ''
      if (started.exitCode !== null || started.signalCode !== null)
        throw new Error(`nats-server ended: ${output}`)
      if (Date.now() > deadline) {
        started.kill('SIGKILL')
        throw new Error(`nats-server is not ready after ${LIMIT_MS} ms: ${output}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  async function kill(signal: NodeJS.Signals): Promise<void> {
    const target = child
    if (target === undefined || target.exitCode !== null || target.signalCode !== null) return
    const exit = signal === 'SIGKILL' || signal === 'SIGTERM' ? once(target, 'exit') : undefined
    target.kill(signal)
    await exit
    if (signal === 'SIGSTOP')
      while (!stopped(target.pid!)) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  async function stop(): Promise<void> {
    await kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
    forget()
  }

  try {
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    port,
    url: `nats://127.0.0.1:${port}`,
    get pid() {
      return child?.pid
    },
    kill,
    start,
    stop,
  }
}

/** Whether every thread of a process is stopped (state T of proc_pid_stat(5)), which comes some time after the signal. */
function stopped(pid: number): boolean {
  const tasks = `/proc/${pid}/task`
  return readdirSync(tasks).every((task) => /\) T /u.test(readFileSync(`${tasks}/${task}/stat`, 'latin1')))
}

function notInstalled(): Error {
  return new Error(
    'nats-server is not installed: `apt-get install nats-server`, or put its binary on the PATH',
  )
}
