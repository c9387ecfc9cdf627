import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { VARIABLES } from '../src/config/variables.js'

const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))

function millrace(args: readonly string[], env: Record<string, string> = {}) {
  const { PATH = '' } = process.env
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
    encoding: 'utf8',
    env: { PATH, ...env },
  })
  return { status, stdout, stderr }
}

t.test('config', async (t) => {
  const { status, stdout, stderr } = millrace(['config'], { MILLRACE_BATCH: '77', NATS_TOKEN: 'hunter2' })
  t.equal(status, 0)
  t.equal(stderr, '')
  t.match(stdout, /^MILLRACE_BATCH +\* 77$/m)
  t.match(stdout, /^MILLRACE_FORMAT +records$/m)
  t.match(stdout, /^NATS_TOKEN +\* \[redacted\]$/m)
  for (const name of Object.keys(VARIABLES)) t.match(stdout, new RegExp(`^${name} `, 'm'))
})

t.test('config --json', async (t) => {
  const { status, stdout } = millrace(['config', '--json'], {
    MILLRACE_LISTEN: '7,[::1]:8',
    NATS_TOKEN: 'hunter2',
  })
  t.equal(status, 0)
  t.match(JSON.parse(stdout), {
    engine: {
      listen: [
        { address: null, port: 7 },
        { address: '::1', port: 8 },
      ],
    },
    publisher: { nats: { token: '[redacted]', password: null } },
    settings: { MILLRACE_LISTEN: { value: '7,[::1]:8', source: 'environment' } },
  })
  t.notMatch(stdout, 'hunter2')
})

for (const args of [['config'], ['run'], []]) {
  t.test(`millrace ${args.join(' ')} with a bad environment`, async (t) => {
    const { status, stdout, stderr } = millrace(args, { MILLRACE_BATCH: 'x', MILLRACE_QEUES: '1' })
    t.equal(status, 2)
    t.equal(stdout, '')
    t.equal(
      stderr,
      'MILLRACE_E_CONFIG: MILLRACE_BATCH="x": expected a whole number 1..65536\n' +
        'MILLRACE_E_CONFIG: MILLRACE_QEUES="1": expected a name Millrace knows; did you mean MILLRACE_QUEUES?\n',
    )
  })
}

t.test('help, version, usage', async (t) => {
  const help = millrace(['--help'])
  t.equal(help.status, 0)
  for (const name of Object.keys(VARIABLES)) t.match(help.stdout, `    ${name}`)
  t.match(help.stdout, /Exit status:\n\n {4}0 {2}Drained/)
  t.match(millrace(['config', '--help']).stdout, 'MILLRACE_LISTEN')
  const version = millrace(['--version'])
  t.equal(version.status, 0)
  t.match(version.stdout, /^\d+\.\d+\.\d+\n$/)
  t.equal(millrace(['--nonsense']).status, 2)
  t.equal(millrace(['nonsense']).status, 2)
})
