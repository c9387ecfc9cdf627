import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

/** The repository; this file runs from build/test. */
const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
/** The addon's declarations as napi-rs prints them from crates/millrace-node. */
const PRINTED = join(ROOT, 'build/native.d.ts')

/** Compiles unless some function is on one side only, or has other parameters or another result. */
const COMPARISON = `
import type * as printed from '../build/native.js'
import type { Native } from '../src/native.js'

type Signatures<T> = { [K in keyof T]: T[K] extends (...args: infer A) => infer R ? [A, R] : never }
type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
type Different<A, B> = {
  [K in keyof A | keyof B]: K extends keyof A & keyof B
    ? Equal<Signatures<A>[K], Signatures<B>[K]> extends true ? never : K
    : K
}[keyof A | keyof B]
export const none: { [K in Different<Native, typeof printed>]: never } = {}
`

/** The compiler's messages about files in the test folder with these texts. */
function diagnose(...texts: string[]): string[] {
  const files = new Map(texts.map((text, i) => [join(ROOT, `test/contract-${i}.ts`), text]))
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, ROOT)
  // Without the types of Node, which take most of the time: only messages about the files given here count.
  const host = ts.createCompilerHost({ ...options, types: [] })
  const { readFile, fileExists } = host
  host.readFile = (path) => files.get(path) ?? readFile(path)
  host.fileExists = (path) => files.has(path) || fileExists(path)
  host.getSourceFile = (path, target) => {
    const source = host.readFile(path)
    return source === undefined ? undefined : ts.createSourceFile(path, source, target)
  }
  const program = ts.createProgram([...files.keys()], { ...options, types: [], noEmit: true }, host)
  return [...files.keys()].map((file) =>
    ts.formatDiagnostics(program.getSemanticDiagnostics(program.getSourceFile(file)), host),
  )
}

t.test('src/native.ts declares what the addon exports, and differences are named', async (t) => {
  t.ok(existsSync(PRINTED), `${PRINTED} is there: run npm run build:native`)
  const changed = `
    type Changed = Omit<Native, 'layout' | 'pinThread'> & { pinThread(cpu: number, strict: boolean): void }
    export const some: { [K in Different<Native, Changed>]: never } = {}
  `
  const [same, different] = diagnose(COMPARISON, COMPARISON + changed)
  t.equal(same, '')
  t.match(different, /missing the following properties from type '{ layout: never; pinThread: never; }'/)
})
