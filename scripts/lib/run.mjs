// Runs one command with its whole output in a log file, so that a person sees one line and not ten thousand.
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const LOGS = join(ROOT, 'build', 'log')

/**
 * @param {string} name of the log file
 * @param {readonly string[]} command
 * @param {{ env?: Record<string, string>, onLine?: (line: string) => void, cwd?: string }} [options] `onLine` gets
 *   every line of stdout
 * @returns {Promise<{ code: number, log: string, tail: string[] }>} the exit status (128 + n for a signal), the log
 *   file's path, and the last lines of output
 */
export function run(name, command, options = {}) {
  mkdirSync(LOGS, { recursive: true })
  const log = join(LOGS, `${name}.log`)
  const file = createWriteStream(log)
  const tail = []
  return new Promise((resolve) => {
    const [program, ...args] = command
    const child = spawn(program, args, {
      cwd: options.cwd ?? ROOT,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const stop = (signal) => child.kill(signal)
    process.on('SIGINT', stop).on('SIGTERM', stop)
    for (const stream of [child.stdout, child.stderr]) {
      let rest = ''
      stream.setEncoding('utf8').on('data', (text) => {
        file.write(text)
        const lines = (rest + text).split('\n')
        rest = lines.pop()
        for (const line of lines) see(line, stream)
      })
      stream.on('end', () => rest !== '' && see(rest, stream))
    }
    const see = (line, stream) => {
      if (stream === child.stdout) options.onLine?.(line)
      tail.push(line)
      if (tail.length > 25) tail.shift()
    }
    const done = (code) => {
      process.off('SIGINT', stop).off('SIGTERM', stop)
      file.end(() => resolve({ code, log, tail }))
    }
    child.once('error', (error) => {
      see(`${program}: ${error.message}`, null)
      done(127)
    })
    child.once('close', (code, signal) => done(code ?? 128 + (signal === 'SIGINT' ? 2 : 15)))
  })
}
