// `npm run lint`: every check of scripts/lib/lint.mjs, with its own output; exit status 1 when any of them complains.
import { spawnSync } from 'node:child_process'
import { LINTS } from './lib/lint.mjs'
import { ROOT } from './lib/run.mjs'
import { PATH } from './lib/tools.mjs'

for (const [name, [program, ...args]] of LINTS) {
  console.error(`lint: ${name}`)
  const { status } = spawnSync(program, args, { cwd: ROOT, stdio: 'inherit', env: { ...process.env, PATH } })
  if (status !== 0) process.exitCode = 1
}
