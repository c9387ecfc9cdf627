import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface NatsOptions {
  /** Port to listen on; default a free one. */
  port?: number
  token?: string
  user?: string
  password?: string
  maxPayload?: number
  /** Lines for the server's configuration file. */
  config?: string
  /** Further arguments of the command line. */
  args?: readonly string[]
  /** Path or name of the server. Default `nats-server`. */
  binary?: string
}

export interface NatsServer {
  readonly port: number
  readonly url: string
  readonly pid: number | undefined
  /** Sends a signal to the server; waits until it is gone after SIGKILL or SIGTERM, until it stands still after SIGSTOP. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Starts it again, on the same port, after a kill. */
  start(): Promise<void>
  /** Ends it, whatever state it is in, and removes its directory. */
  stop(): Promise<void>
}

/**
 * A shell that waits for the end of its standard input, which only this process holds open, and then ends the server:
 * so it ends with the test even when that is killed and no teardown runs.
 */
function guard(server: ChildProcess): void {
  const script = 'read _; kill -9 "$0"'
  const guardian = spawn('sh', ['-c', script, String(server.pid)], { stdio: ['pipe', 'ignore', 'ignore'] })
  // Neither process nor pipe is to keep the test waiting.
  guardian.unref()
  ;(guardian.stdin as unknown as { unref(): void }).unref()
  guardian.stdin?.on('error', () => undefined)
  // SIGKILL before the pipe closes: the server's pid may be another process's by then.
  server.once('exit', () => guardian.kill('SIGKILL'))
}

/** A port nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

/** Starts a nats-server on the loopback and returns once it greets. */
export async function startNats(options: NatsOptions = {}): Promise<NatsServer> {
  const port = options.port ?? (await freePort())
  const directory = mkdtempSync(join(tmpdir(), 'millrace-nats-'))
  const args = ['-a', '127.0.0.1', '-p', String(port), '-l', join(directory, 'log'), ...(options.args ?? [])]
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
    const started = spawn(options.binary ?? 'nats-server', args, { stdio: 'ignore' })
    let ended = false
    const failed = new Promise<never>((_, reject) => {
      started.once('error', (error: NodeJS.ErrnoException) => {
        reject(error.code === 'ENOENT' ? notInstalled() : error)
      })
      started.once('exit', (code, signal) =>
        reject(new Error(`nats-server ended at once: ${code ?? signal}`)),
      )
    })
    failed.catch(() => {
      ended = true
    })
    if (started.pid !== undefined) guard(started)
    child = started
    try {
      await Promise.race([greets(port, () => ended), failed])
    } catch (error) {
      started.kill('SIGKILL')
      throw error
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

/** Whether every thread of a process stands still: the signal has been sent long before they do. */
function stopped(pid: number): boolean {
  const tasks = `/proc/${pid}/task`
  return readdirSync(tasks).every((task) => /\) T /u.test(readFileSync(`${tasks}/${task}/stat`, 'latin1')))
}

function notInstalled(): Error {
  return new Error(
    'nats-server is not installed: `apt-get install nats-server`, `brew install nats-server`, or a binary from ' +
      'https://github.com/nats-io/nats-server/releases on the PATH',
  )
}

/** Resolves when something on the port sends INFO, or there is no use in waiting. */
async function greets(port: number, ended: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 400 && !ended(); attempt++) {
    const socket = connect(port, '127.0.0.1')
    try {
      const greeted = await new Promise<boolean>((resolve) => {
        socket.once('data', (data) => resolve(data.toString('latin1').startsWith('INFO')))
        socket.once('error', () => resolve(false))
        socket.once('close', () => resolve(false))
      })
      if (greeted) return
    } finally {
      socket.destroy()
    }
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  if (!ended()) throw new Error(`nats-server does not greet on port ${port} within 10 s`)
}
