import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { MillraceError } from '../src/errors.js'
import type { Log } from '../src/log.js'
import { RulesFile } from '../src/service/rules-file.js'

/** What was applied, what was logged. */
function watched(path: string, text: string) {
  const applied: string[] = []
  const lines: string[] = []
  const note = (level: string) => (fields: { reason?: string }, message: string) =>
    lines.push([level, message, ...(fields.reason ? [fields.reason] : [])].join(': '))
  const log = { info: note('info'), warn: note('warn'), error: note('error') } as unknown as Log
  const apply = (rules: string) => {
    if (rules.includes('wrong')) throw new MillraceError('MILLRACE_E_RULES', 'no such action')
    return applied.push(rules)
  }
  return { file: new RulesFile(path, text, apply, log), applied, lines }
}

async function until(what: string, done: () => boolean): Promise<void> {
  const end = Date.now() + 10_000
  while (!done()) {
    if (Date.now() > end) throw new Error(`not within 10 s: ${what}`)
    await sleep(10)
  }
}

t.test('a file that is written, or replaced as an editor does', async (t) => {
  const dir = t.testdir({ rules: 'queue(0)' })
  const path = join(dir, 'rules')
  const { file, applied, lines } = watched(path, 'queue(0)')
  t.teardown(() => file.close())
  writeFileSync(path, 'queue(1)')
  await until('the first', () => applied.length === 1)
  writeFileSync(join(dir, 'new'), 'queue(2)')
  renameSync(join(dir, 'new'), path)
  await until('the second', () => applied.length === 2)
  writeFileSync(path, 'wrong')
  await until('the error', () => lines.length === 3)
  // Neighbours, and the same text again, mean nothing.
  writeFileSync(join(dir, 'other'), 'x')
  writeFileSync(path, 'wrong')
  await sleep(400)
  t.same(applied, ['queue(1)', 'queue(2)'])
  t.same(lines, [
    'info: rules reloaded',
    'info: rules reloaded',
    'error: rules not reloaded: the old ones stay in force: no such action',
  ])
  file.reload()
  t.equal(lines.length, 4, 'on request the text is tried again')
})

t.test('a ConfigMap: the link beside the file is replaced', async (t) => {
  const dir = t.testdir({})
  const version = (name: string, rules: string) => {
    mkdirSync(join(dir, name))
    writeFileSync(join(dir, name, 'rules'), rules)
    symlinkSync(name, join(dir, '..data_tmp'))
    renameSync(join(dir, '..data_tmp'), join(dir, '..data'))
  }
  version('..1', 'queue(0)')
  symlinkSync('..data/rules', join(dir, 'rules'))
  const { file, applied } = watched(join(dir, 'rules'), 'queue(0)')
  t.teardown(() => file.close())
  version('..2', 'queue(1)')
  await until('the swap', () => applied.length === 1)
  t.same(applied, ['queue(1)'])
})

t.test('a file that cannot be read', async (t) => {
  const { file, applied, lines } = watched(join(t.testdir({}), 'rules'), 'queue(0)')
  t.teardown(() => file.close())
  file.reload()
  t.match(lines, [/^error: rules not reloaded: the old ones stay in force: .*ENOENT/])
  t.same(applied, [])
  const lost = watched('/nonexistent/rules', 'queue(0)')
  t.match(lost.lines, [/^warn: the rules file cannot be watched; SIGHUP reads it/])
  lost.file.close()
})
