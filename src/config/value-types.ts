/** How one kind of value is read from text. */
export interface Kind<T> {
  /** What a valid value looks like, to follow "expected" in a message and to stand in the documentation. */
  readonly expected: string
  /** The value, or throws {@link Unfit} where a more exact expectation can be given, or returns undefined. */
  readonly parse: (text: string) => T | undefined
}

/** Thrown by a parser that can say more exactly what was expected. */
export class Unfit extends Error {
  override readonly name = 'Unfit'
}

/** A whole number in a range, both ends included. */
export function integer(low: number, high: number, unit = ''): Kind<number> {
  return {
    expected: `a whole number ${low}..${high}${unit && ` ${unit}`}`,
    parse: (text) => (/^\d+$/.test(text) ? within(Number(text), low, high) : undefined),
  }
}

/** A power of two in a range. */
export function powerOfTwo(low: number, high: number): Kind<number> {
  return {
    expected: `a power of two ${low}..${high}`,
    parse: (text) => (/^\d+$/.test(text) ? doubled(within(Number(text), low, high)) : undefined),
  }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/** Bytes: `4096`, `64KiB`, `8M`. Units are binary; `MB` is refused because half of its readers mean 10^6. */
export function size(low: number, high: number, power: 'any' | 'power of two' = 'any'): Kind<number> {
  const what = power === 'any' ? 'bytes' : 'a power of two in bytes'
  return {
    expected: `${what} ${sizeText(low)}..${sizeText(high)}, such as 4096, 64KiB or 8M`,
    parse: (text) => {
      const match = /^(\d+)(?:([kmg])(?:i?b?)?|b)?$/i.exec(text)
      if (!match || /[kmg]b$/i.test(text)) return undefined
      const bytes = within(Number(match[1]) * UNITS[(match[2] ?? '').toLowerCase()]!, low, high)
      return power === 'any' ? bytes : doubled(bytes)
    },
  }
}

/** Text of a byte count in the largest unit that leaves a whole number. */
export function sizeText(bytes: number): string {
  for (const [unit, factor] of [
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${unit}`
  }
  return String(bytes)
}

/** One of a few words. */
export function choice<const W extends string>(words: readonly W[]): Kind<W> {
  return { expected: `one of ${words.join(', ')}`, parse: (text) => words.find((word) => word === text) }
}

/** Some of a few words, each once, separated by commas; `none` for the empty list. */
export function choices<const W extends string>(words: readonly W[]): Kind<readonly W[]> {
  return {
    expected: `none, or some of ${words.join(', ')}, each once, separated by commas`,
    parse: (text) => {
      if (text === 'none') return []
      const chosen = text.split(',').map((part) => words.find((word) => word === part.trim()))
      return chosen.includes(undefined) || new Set(chosen).size !== chosen.length
        ? undefined
        : (chosen as W[])
    },
  }
}

/** `true`, `false`, `1`, `0`. */
export const boolean: Kind<boolean> = {
  expected: 'true, false, 1 or 0',
  parse: (text) => ({ true: true, '1': true, false: false, '0': false })[text],
}

/** Any text that is not empty. */
export function text(expected: string, valid: RegExp = /./s): Kind<string> {
  return { expected, parse: (value) => (valid.test(value) ? value : undefined) }
}

/** CPU numbers: `0,2-3`. */
export const cpuList: Kind<readonly number[]> = {
  expected: 'CPU numbers such as 0,2-3, each once',
  parse: (list) => {
    const cpus = list.split(',').flatMap((part) => range(part, 0, 65_535))
    const unique = new Set(cpus)
    return cpus.includes(undefined) || unique.size !== cpus.length ? undefined : (cpus as number[])
  },
}

/** The shortest text {@link cpuList} reads back as the same CPUs. */
export function cpuText(cpus: readonly number[]): string {
  const runs: [number, number][] = []
  for (const cpu of [...cpus].sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last && last[1] === cpu - 1) last[1] = cpu
    else runs.push([cpu, cpu])
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',')
}

/** `n` or `low-high` as the numbers in it, or `[undefined]`. */
export function range(part: string, low: number, high: number): (number | undefined)[] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim())
  if (!match) return [undefined]
  const from = within(Number(match[1]), low, high)
  const to = match[2] === undefined ? from : within(Number(match[2]), low, high)
  if (from === undefined || to === undefined || to < from) return [undefined]
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

/** The value when it lies in the range, both ends included. */
export function within(value: number, low: number, high: number): number | undefined {
  return value >= low && value <= high ? value : undefined
}

function doubled(value: number | undefined): number | undefined {
  return value !== undefined && Number.isInteger(Math.log2(value)) ? value : undefined
}
