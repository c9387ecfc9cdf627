/**
 * Holds the walls between the rooms of src/: every import, of types too, is compared with the table of rooms in
 * ARCHITECTURE.md, and no two files may import each other, directly or in a circle.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** One line of a file that imports another; both paths are below src/. */
type Import = Readonly<{ from: string; to: string; line: number; specifier: string }>

/** Rooms from the lowest up, each with the rooms it may import. */
type Rooms = ReadonlyMap<string, ReadonlySet<string>>

/** Reads the table between `<!-- rooms: typescript -->` and `<!-- /rooms -->`; a room may import only rooms of rows above it. */
function readRooms(page: string): Rooms {
  const table = page.split('<!-- rooms: typescript -->')[1]?.split('<!-- /rooms -->')[0] ?? ''
  const quoted = (cell = '') => cell.split('`').filter((_, index) => index % 2 === 1)
  const rooms = new Map<string, ReadonlySet<string>>()
  for (const row of table.split('\n').filter((line) => line.startsWith('| `'))) {
    const cells = row.split('|').slice(1, -1)
    const name = quoted(cells[0])[0] ?? ''
    const others = quoted(cells.at(-1))
    for (const other of others) {
      if (!rooms.has(other))
        throw new Error(`\`${name}\` may import \`${other}\`, which stands below it or not at all`)
    }
    rooms.set(name, new Set(others))
  }
  if (rooms.size < 2) throw new Error('the table of rooms has no rows')
  return rooms
}

/** The room of a file: the one with the longest name that is its path, or a folder it lies in. */
function roomOf(file: string, rooms: Rooms): string | undefined {
  const path = file.replace(/\.ts$/, '')
  const fits = [...rooms.keys()].filter((room) => path === room || path.startsWith(`${room}/`))
  return fits.sort((a, b) => b.length - a.length)[0]
}

/** Every relative import of the TypeScript files below `src`, as the compiler's own scanner finds them. */
function readImports(src: string): Import[] {
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  return files.sort().flatMap((from) => {
    const text = readFileSync(join(src, from), 'utf8')
    const { importedFiles } = ts.preProcessFile(text)
    return importedFiles.flatMap(({ fileName: specifier, pos }) => {
      if (!specifier.startsWith('.')) return []
      const to = normalize(join(dirname(from), specifier)).replace(/\.js$/, '.ts')
      return [{ from, to, specifier, line: text.slice(0, pos).split('\n').length }]
    })
  })
}

/** Everything that breaks a wall: the place, the import, and the rule it breaks. */
function brokenWalls(rooms: Rooms, imports: readonly Import[]): string[] {
  return imports.flatMap(({ from, to, line, specifier }) => {
    const [own, other] = [roomOf(from, rooms), roomOf(to, rooms)]
    if (own === undefined || other === undefined) {
      const homeless = own === undefined ? from : to
      return [`src/${homeless}: no room of the table in ARCHITECTURE.md has this file`]
    }
    const may = rooms.get(own) ?? new Set()
    if (own === other || may.has(other)) return []
    const allowed = [...may].join(', ')
    return [
      `src/${from}:${line}: '${specifier}' imports room ${other}, but ${own} may import only: ${allowed}`,
    ]
  })
}

/** What the table allows and no line needs. */
function unusedPermissions(rooms: Rooms, imports: readonly Import[]): string[] {
  const used = new Set(imports.map(({ from, to }) => `${roomOf(from, rooms)} ${roomOf(to, rooms)}`))
  return [...rooms].flatMap(([room, others]) =>
    [...others]
      .filter((other) => !used.has(`${room} ${other}`))
      .map((other) => `ARCHITECTURE.md lets ${room} import ${other}, which it does not`),
  )
}

/** The first circle found, as lines that each import the next file. */
function circle(imports: readonly Import[]): string[] {
  const edges = new Map<string, Import[]>()
  for (const i of imports) edges.set(i.from, [...(edges.get(i.from) ?? []), i])
  const done = new Set<string>()
  const visit = (file: string, path: readonly Import[]): string[] => {
    const start = path.findIndex(({ from }) => from === file)
    if (start >= 0) return path.slice(start).map((i) => `src/${i.from}:${i.line}: '${i.specifier}'`)
    if (done.has(file)) return []
    for (const next of edges.get(file) ?? []) {
      const found = visit(next.to, [...path, next])
      if (found.length > 0) return found
    }
    done.add(file)
    return []
  }
  for (const file of edges.keys()) {
    const found = visit(file, [])
    if (found.length > 0) return found
  }
  return []
}

/** Files that `file` pulls in, itself included. */
function reach(file: string, imports: readonly Import[]): Set<string> {
  const reached = new Set([file])
  for (const from of reached) for (const { to } of imports.filter((i) => i.from === from)) reached.add(to)
  return reached
}

const imports = readImports(join(ROOT, 'src'))
const architecture = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8')

void t.test('every import is one that the table of rooms allows', async (t) => {
  t.same(brokenWalls(readRooms(architecture), imports), [])
})

void t.test('the table of rooms allows nothing that no line needs', async (t) => {
  t.same(unusedPermissions(readRooms(architecture), imports), [])
})

void t.test('no files import each other in a circle', async (t) => {
  t.same(circle(imports), [])
})

void t.test('millrace/decode pulls in no worker, publisher or service', async (t) => {
  const rooms = readRooms(architecture)
  const pulled = new Set([...reach('decode.ts', imports)].map((file) => roomOf(file, rooms)))
  for (const room of ['worker', 'publisher', 'service', 'cli']) t.notOk(pulled.has(room), room)
})

void t.test('a wall that is broken is reported with its line and rule', async (t) => {
  const src = mkdtempSync(join(tmpdir(), 'millrace-rooms-'))
  t.teardown(() => rmSync(src, { recursive: true }))
  const file = (path: string, text: string) => {
    mkdirSync(dirname(join(src, path)), { recursive: true })
    writeFileSync(join(src, path), text)
  }
  file('low.ts', "// A page.\nimport type { Thing } from './high/thing.js'\nexport type Low = Thing\n")
  file('high/thing.ts', "export type { Low } from '../low.js'\nexport type Thing = 1\n")
  const table = (rows: string) =>
    `<!-- rooms: typescript -->\n| Room | Idea | May import |\n${rows}\n<!-- /rooms -->`
  const rooms = readRooms(table('| `low` | a | – |\n| `high` | b | `low` |'))
  const found = readImports(src)
  t.same(brokenWalls(rooms, found), [
    "src/low.ts:2: './high/thing.js' imports room high, but low may import only: ",
  ])
  t.same(circle(found), ["src/high/thing.ts:1: '../low.js'", "src/low.ts:2: './high/thing.js'"])
  t.same(
    unusedPermissions(
      readRooms(table('| `none` | c | – |\n| `low` | a | `none` |\n| `high` | b | – |')),
      found,
    ),
    ['ARCHITECTURE.md lets low import none, which it does not'],
  )
  t.same(brokenWalls(readRooms(table('| `low` | a | – |\n| `other` | b | – |')), found), [
    'src/high/thing.ts: no room of the table in ARCHITECTURE.md has this file',
    'src/high/thing.ts: no room of the table in ARCHITECTURE.md has this file',
  ])
  t.throws(
    () => readRooms(table('| `low` | a | `high` |\n| `high` | b | – |')),
    /stands below it or not at all/,
  )
})
