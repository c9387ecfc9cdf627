/** Holds the pages to the tree: links lead somewhere, and the files, variables and codes that they name exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** Folders that a page may leave out of a path, as docs/traps.md does with `rx/packet/cutover.rs`. */
const BASES = ['', 'src', 'crates/millrace-core', 'crates/millrace-core/src', 'crates/millrace-core/tests']

/** Endings of files of this repository. Files of the kernel, which pages name too, end otherwise. */
const ENDING = /\.(rs|ts|mjs|md|toml|json|ya?ml|svg)$/

/** Folders that tools make. */
const NOT_OURS = /^(\..*|node_modules|target|build)$/

/** A variable or an error code. */
const VARIABLE = /\bMILLRACE_[A-Z0-9_]*[A-Z0-9]\b/g

type Missing = Readonly<{ page: string; line: number; what: string }>

/** Code blocks are kept as empty lines, because what they show may be a reader's own file. */
function withoutCodeBlocks(text: string): string {
  return text.replace(/^```.*?^```/gms, (block) => block.replace(/[^\n]/g, ''))
}

/** A heading's anchor, as GitHub makes it. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

function anchors(page: string): ReadonlySet<string> {
  const text = withoutCodeBlocks(readFileSync(page, 'utf8'))
  return new Set([...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchor(heading)))
}

/** Whether a link leads to a file, and to a heading of it where it has an anchor. */
function leadsSomewhere(page: string, link: string): boolean {
  const [path = '', heading] = link.split('#')
  const file = path === '' ? page : join(dirname(page), path)
  if (!existsSync(join(ROOT, file))) return false
  return heading === undefined || !file.endsWith('.md') || anchors(join(ROOT, file)).has(heading)
}

/** Whether a text in backquotes names a file or folder of this repository. */
function isPath(span: string, folders: ReadonlySet<string>): boolean {
  if (!/^[\w.-]+(\/[\w.-]+)*\/?$/.test(span) || span.startsWith('./')) return false
  if (span.endsWith('.test.ts')) return true
  const [first = '', ...rest] = span.split('/')
  return rest.length > 0 && (ENDING.test(span) || span.endsWith('/') || folders.has(first))
}

/** Whether a path exists below one of the folders it may be meant in. */
function exists(page: string, path: string): boolean {
  return [...BASES, dirname(page), 'test'].some((base) => existsSync(join(ROOT, base, path)))
}

/** Every link and every path of a page that leads nowhere. */
function missing(page: string, text: string, folders: ReadonlySet<string>): Missing[] {
  const found: Missing[] = []
  for (const [index, line] of withoutCodeBlocks(text).split('\n').entries()) {
    const links = [...line.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link)
    const dead = links.filter((link) => !/^[a-z]+:/.test(link) && !leadsSomewhere(page, link))
    const paths = [...line.matchAll(/`([^`]+)`/g)].map(([, span = '']) => span)
    const gone = paths.filter((path) => isPath(path, folders) && !exists(page, path))
    for (const what of [...dead, ...gone]) found.push({ page, line: index + 1, what })
  }
  return found
}

/** Files of this repository that `wanted` accepts, by their path below the root. */
function* filesBelow(folder: string, wanted: (file: string) => boolean): Generator<string> {
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory() && !NOT_OURS.test(entry.name)) yield* filesBelow(path, wanted)
    else if (entry.isFile() && wanted(path)) yield path
  }
}

const pages = [...filesBelow('', (file) => file.endsWith('.md'))].sort()
const topFolders = new Set(
  readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !NOT_OURS.test(entry.name))
    .map((entry) => entry.name),
)

t.test('links and paths of all pages exist', async (t) => {
  t.ok(pages.length >= 12, `${pages.length} pages`)
  const paths = pages.flatMap((page) => missing(page, readFileSync(join(ROOT, page), 'utf8'), topFolders))
  t.same(
    paths.map(({ page, line, what }) => `${page}:${line}: ${what} does not exist`),
    [],
  )
})

t.test('pages name only variables that exist', async (t) => {
  const source = (file: string) => /\.(ts|mjs|rs)$/.test(file) && !file.endsWith('docs.test.ts')
  const files = [...filesBelow('', source)].map((file) => readFileSync(join(ROOT, file), 'utf8'))
  const known = new Set(files.flatMap((text) => text.match(VARIABLE) ?? []))
  // CONTRIBUTING.md shows how a variable is added that does not exist yet.
  const others = pages.filter((page) => page !== 'CONTRIBUTING.md')
  const unknown = others.flatMap((page) => {
    const names = readFileSync(join(ROOT, page), 'utf8').match(VARIABLE) ?? []
    return names.filter((name) => !known.has(name)).map((name) => `${page}: ${name}`)
  })
  t.same(unknown, [])
})

t.test('ARCHITECTURE.md gives a reason for each dependency', async (t) => {
  const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
  const { dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<string, object>
  const section = read('Cargo.toml').split('[workspace.dependencies]')[1]?.split('\n[')[0] ?? ''
  const crates = [...section.matchAll(/^([\w-]+) =/gm)].map(([, crate = '']) => crate)
  const present = [
    ...Object.keys({ ...dependencies, ...devDependencies }),
    ...crates.filter((crate) => crate !== 'millrace-core'),
    // fuzz/ is a workspace of its own.
    'libfuzzer-sys',
  ]
  const rows = read('ARCHITECTURE.md').split('## Dependencies')[1] ?? ''
  const first = [...rows.matchAll(/^\| (`[^|]*) \|/gm)].map(([, cell = '']) => cell)
  const named = first.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name))
  t.same(named.sort(), present.sort())
})

t.test('each test file is in the table of its folder', async (t) => {
  const typescript = readFileSync(join(ROOT, 'test/README.md'), 'utf8')
  const tests = readdirSync(join(ROOT, 'test')).filter((file) => file.endsWith('.test.ts'))
  t.same(
    tests.filter((file) => !typescript.includes(`\n| \`${file.replace('.test.ts', '')}\` `)),
    [],
  )
  const folder = 'crates/millrace-core/tests'
  const rust = readFileSync(join(ROOT, folder, 'README.md'), 'utf8')
  const files = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.rs') && !/^(rig|support)\/|\/support\/|main\.rs$/.test(file),
  )
  t.ok(files.length > 40, `${files.length} files`)
  t.same(
    files.filter((file) => !rust.includes(`\n| ${file.includes('/') ? basename(file) : `**${file}**`} |`)),
    [],
  )
})

t.test('what does not exist is found', async (t) => {
  const text = [
    'See `rx/packet/cutover.rs`, `net/core/dev.c`, `config/` and [the rules](rules.md).',
    'See `rx/packet/cut.rs`, `scripts/no-such.mjs`, `no-such.test.ts` and [another](no-such.md#heading).',
    '```',
    'my/handler.ts',
    '```',
    '[the memory](performance.md#no-such-heading), `bench/no-such`, `millrace/decode`, `./build/my-handler.js`',
  ].join('\n')
  t.same(
    missing('docs/page.md', text, topFolders).map(({ line, what }) => [line, what]),
    [
      [2, 'no-such.md#heading'],
      [2, 'rx/packet/cut.rs'],
      [2, 'scripts/no-such.mjs'],
      [2, 'no-such.test.ts'],
      [6, 'performance.md#no-such-heading'],
      [6, 'bench/no-such'],
    ],
  )
})
