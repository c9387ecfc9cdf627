import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { checkTable } from '../src/cli/check.js'
import type { PreflightReport } from '../src/generated/contract.js'

const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))

function millrace(args: readonly string[], env: Record<string, string>) {
  const { PATH = '' } = process.env
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
    encoding: 'utf8',
    env: { PATH, ...env },
  })
  return { status, stdout, stderr }
}

t.test('a line for each finding, its cure below', async (t) => {
  const report: PreflightReport = {
    findings: [
      { name: 'socket', state: 'ok', why: 'opens: single', cure: '' },
      { name: 'rss', state: 'degraded', why: 'by addresses', cure: 'ethtool -N' },
    ],
    backend: 'socket',
  }
  t.equal(
    checkTable(report),
    'ok        socket  opens: single\ndegraded  rss     by addresses\n                  → ethtool -N\n',
  )
})

t.test('exit status and JSON', async (t) => {
  const holder = createSocket('udp4').bind(0, '127.0.0.1')
  await once(holder, 'listening')
  t.teardown(() => holder.close())
  const { port } = holder.address()
  const env = { MILLRACE_BACKEND: 'socket', MILLRACE_LISTEN: `127.0.0.1:${port}` }
  const taken = millrace(['check', '--json'], env)
  t.equal(taken.status, 3, taken.stderr)
  const report = JSON.parse(taken.stdout) as PreflightReport
  t.equal(report.backend, null)
  t.match(report.findings.find((f) => f.name === 'socket')?.why, `pid ${process.pid}`)

  const free = { ...env, MILLRACE_LISTEN: `127.0.0.1:${port === 65535 ? 65534 : port + 1}` }
  const well = millrace(['check'], free)
  t.equal(well.status, 0, well.stdout + well.stderr)
  t.match(well.stdout, /^ok +backend +socket, as configured$/m)
  t.equal(well.stderr, '')

  const wrong = millrace(['check'], { MILLRACE_LISTEN: 'nowhere' })
  t.equal(wrong.status, 2)
  t.match(wrong.stderr, /MILLRACE_LISTEN/)
})
