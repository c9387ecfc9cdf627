/** Names of NATS servers are looked up as every program of the host does: /etc/hosts counts, and all addresses are tried. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { startNats } from '../rig/nats.js'
import { privileged } from '../rig/netns.js'

const DIAL = fileURLToPath(new URL('../rig/dial-once.js', import.meta.url))

void t.test('/etc/hosts', async (t) => {
  if (!privileged(t)) return
  const nats = await startNats()
  t.teardown(() => nats.stop())
  const directory = mkdtempSync(join(tmpdir(), 'millrace-hosts-'))
  t.teardown(() => rmSync(directory, { recursive: true }))

  /** What dialling `host` comes to when /etc/hosts has these lines; the file is replaced in a mount namespace. */
  async function dial(hosts: readonly string[], host: string): Promise<string> {
    const file = join(directory, 'hosts')
    writeFileSync(file, `${hosts.join('\n')}\n`)
    const script = 'mount --bind "$1" /etc/hosts && exec "$2" "$3" "$4"'
    const args = ['-m', 'sh', '-c', script, 'sh', file, process.execPath, DIAL, `${host}:${nats.port}`]
    const { stdout } = await promisify(execFile)('unshare', args)
    return stdout.trim()
  }

  t.equal(await dial(['127.0.0.1 nats.millrace.test'], 'nats.millrace.test'), 'ok')
  // The server listens on 127.0.0.1 alone.
  const several = ['::1 both.millrace.test', '127.0.0.2 both.millrace.test', '127.0.0.1 both.millrace.test']
  t.equal(await dial(several, 'both.millrace.test'), 'ok', 'the address that answers is found')
  t.match(await dial(['127.0.0.2 dead.millrace.test'], 'dead.millrace.test'), /ECONNREFUSED 127\.0\.0\.2/)
  t.match(await dial([], 'nowhere.millrace.test'), /nowhere\.millrace\.test/)
})
