/** How the values of one type are read from the text of an environment variable. */
export interface ValueType<T> {
  /** What a valid value looks like. It follows "expected" in a message and stands in the documentation. */
  readonly expected: string
  /**
   * The value of `text`, or undefined where `text` is not {@link expected}.
   *
   * @throws {@link InvalidValue} where the message can be more exact than {@link expected}.
   */
  readonly parse: (text: string) => T | undefined
}

/** Thrown by a parser that can say more exactly than {@link ValueType.expected} what it expected: that is the message. */
export class InvalidValue extends Error {
  override readonly name = 'InvalidValue'
}

/** A whole number from `low` to `high`, both included. */
export function integer(low: number, high: number, unit = ''): ValueType<number> {
  return {
    expected: `a whole number ${low}..${high}${unit && ` ${unit}`}`,
    parse: (text) => (/^\d+$/.test(text) ? inRange(Number(text), low, high) : undefined),
  }
}

/** A power of two from `low` to `high`, both included. */
export function powerOfTwo(low: number, high: number): ValueType<number> {
  return {
    expected: `a power of two ${low}..${high}`,
    parse: (text) => (/^\d+$/.test(text) ? ifPowerOfTwo(inRange(Number(text), low, high)) : undefined),
  }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/**
 * A number of bytes from `low` to `high`, both included, such as `4096`, `64KiB` or `8M`. Units are powers of 1,024; `MB`
 * is refused, because half of its readers take it for 10^6.
 */
export function size(low: number, high: number, power: 'any' | 'power of two' = 'any'): ValueType<number> {
  const what = power === 'any' ? 'bytes' : 'a power of two in bytes'
  return {
    expected: `${what} ${sizeText(low)}..${sizeText(high)}, such as 4096, 64KiB or 8M`,
    parse: (text) => {
      const match = /^(\d+)(?:([kmg])(?:i?b?)?|b)?$/i.exec(text)
      if (!match || /[kmg]b$/i.test(text)) return undefined
      const bytes = inRange(Number(match[1]) * UNITS[(match[2] ?? '').toLowerCase()]!, low, high)
      return power === 'any' ? bytes : ifPowerOfTwo(bytes)
    },
  }
}

/** A number of bytes in the largest unit that leaves a whole number. */
function sizeText(bytes: number): string {
  for (const [unit, factor] of [
    ['GiB', 1024 ** 3],
    ['MiB', 1024 ** 2],
    ['KiB', 1024],
  ] as const) {
    if (bytes >= factor && bytes % factor === 0) return `${bytes / factor}${unit}`
  }
  return String(bytes)
}

/** Exactly one of the given words. */
export function choice<const W extends string>(words: readonly W[]): ValueType<W> {
  return { expected: `one of ${words.join(', ')}`, parse: (text) => words.find((word) => word === text) }
}

/** Some of the given words, each at most once, separated by commas; `none` is the empty list. */
export function choices<const W extends string>(words: readonly W[]): ValueType<readonly W[]> {
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

/** `true`, `false`, `1` or `0`. */
export const boolean: ValueType<boolean> = {
  expected: 'true, false, 1 or 0',
  parse: (text) => ({ true: true, '1': true, false: false, '0': false })[text],
}

/** Text that `valid` matches; by default any text that is not empty. */
export function text(expected: string, valid: RegExp = /./s): ValueType<string> {
  return { expected, parse: (value) => (valid.test(value) ? value : undefined) }
}

/** CPU numbers as the kernel writes lists of them, such as `0,2-3` (cpuset(7), "List format"). */
export const cpuList: ValueType<readonly number[]> = {
  expected: 'CPU numbers such as 0,2-3, each once',
  parse: (list) => {
    const cpus = list.split(',').flatMap((part) => numberRange(part, 0, 65_535))
    const unique = new Set(cpus)
    return cpus.includes(undefined) || unique.size !== cpus.length ? undefined : (cpus as number[])
  },
}

/** The shortest text that {@link cpuList} reads as these CPUs. */
export function cpuText(cpus: readonly number[]): string {
  const runs: [number, number][] = []
  for (const cpu of [...cpus].sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last && last[1] === cpu - 1) last[1] = cpu
    else runs.push([cpu, cpu])
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',')
}

/** The numbers that `n` or `first-last` means, each from `low` to `high`, or `[undefined]` where the text is neither. */
export function numberRange(part: string, low: number, high: number): (number | undefined)[] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim())
  if (!match) return [undefined]
  const from = inRange(Number(match[1]), low, high)
  const to = match[2] === undefined ? from : inRange(Number(match[2]), low, high)
  if (from === undefined || to === undefined || to < from) return [undefined]
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

/** The value when it lies from `low` to `high`, both included. */
export function inRange(value: number, low: number, high: number): number | undefined {
  return value >= low && value <= high ? value : undefined
}

function ifPowerOfTwo(value: number | undefined): number | undefined {
  return value !== undefined && Number.isInteger(Math.log2(value)) ? value : undefined
}
