import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { MillraceError } from '../src/errors.js'
import type { Log } from '../src/log.js'
import { RulesFile } from '../src/service/rules-file.js'

/** What was applied, what was logged, how many reloads had no text. */
function watched(path: string, text: string, failures: Error[] = []) {
  const applied: string[] = []
  const lines: string[] = []
  const count = { refused: 0 }
  const note = (level: string) => (fields: { code?: string; reason?: string }, message: string) =>
    lines.push([level, message, fields.code, fields.reason].filter(Boolean).join(': '))
  const log = { info: note('info'), warn: note('warn'), error: note('error') } as unknown as Log
  const apply = (rules: string) => {
    const failure = failures.shift()
    if (failure) throw failure
    if (rules.includes('wrong')) throw new MillraceError('MILLRACE_E_RULES', 'no such action')
    return applied.push(rules)
  }
  const sink = { apply, refused: () => count.refused++ }
  return { file: new RulesFile(path, text, sink, log), applied, lines, count }
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
    'error: rules not reloaded: the old ones stay in force: MILLRACE_E_RULES: no such action',
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

t.test('a file that cannot be read, and one that is not UTF-8', async (t) => {
  const dir = t.testdir({ rules: 'queue(0)' })
  const path = join(dir, 'rules')
  const { file, applied, lines, count } = watched(path, 'queue(0)')
  t.teardown(() => file.close())
  const refused = (n: number) => until(`${n} refused`, () => lines.length === n)
  rmSync(path)
  await refused(1)
  // Whatever else happens in the directory, there is nothing new to say.
  writeFileSync(join(dir, 'other'), 'x')
  await sleep(400)
  t.equal(lines.length, 1)
  file.reload()
  t.equal(lines.length, 2, 'on request it is tried again')
  mkdirSync(path)
  await refused(3)
  rmSync(path, { recursive: true })
  writeFileSync(join(dir, 'new'), Uint8Array.of(0x71, 0xff))
  renameSync(join(dir, 'new'), path)
  await refused(4)
  const kept = 'error: rules not reloaded: the old ones stay in force'
  const unread = (why: string) =>
    `${kept}: MILLRACE_E_CONFIG: MILLRACE_RULES_FILE ${path}: ${why}; expected a file of rules`
  t.same(lines, [
    unread('no such file'),
    unread('no such file'),
    unread('it is a directory'),
    `${kept}: MILLRACE_E_RULES: MILLRACE_RULES_FILE ${path}: line 1 is not UTF-8`,
  ])
  t.equal(count.refused, 4)
  t.same(applied, [])
  // It comes back as it was.
  writeFileSync(path, 'queue(0)')
  await until('the old text', () => applied.length === 1)
})

t.test('what changed between the start and the watch is found', async (t) => {
  const dir = t.testdir({ rules: '\ufeffqueue(1)', same: '\ufeffqueue(0)' })
  const { file, applied } = watched(join(dir, 'rules'), 'queue(0)')
  const unchanged = watched(join(dir, 'same'), 'queue(0)')
  t.teardown(() => [file, unchanged.file].map((f) => f.close()))
  await until('the look', () => applied.length === 1)
  t.same(applied, ['queue(1)'])
  t.same(unchanged.lines, [])
})

t.test('a text that the kernel refused is tried again at the next event', async (t) => {
  const dir = t.testdir({ rules: 'queue(1)' })
  const kernel = new MillraceError('MILLRACE_E_KERNEL', 'no memory')
  const { file, applied, lines } = watched(join(dir, 'rules'), 'queue(0)', [kernel])
  t.teardown(() => file.close())
  await until('the refusal', () => lines.length === 1)
  t.same(applied, [])
  writeFileSync(join(dir, 'other'), 'x')
  await until('the second time', () => applied.length === 1)
  t.same(applied, ['queue(1)'])
  t.same(lines, [
    'error: rules not reloaded: the old ones stay in force: MILLRACE_E_KERNEL: no memory',
    'info: rules reloaded',
  ])
})

t.test('a directory that cannot be watched', async (t) => {
  const lost = watched('/nonexistent/rules', 'queue(0)')
  t.teardown(() => lost.file.close())
  t.match(lost.lines, [/^warn: the rules file cannot be watched; SIGHUP reads it/])
})
