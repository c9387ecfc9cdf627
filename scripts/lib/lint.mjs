// The formatters, linters and type checks of both languages: what `npm run lint` runs, and `npm test` counts one by one.

/** Name and command of each check, in the order in which they fail fastest. */
export const LINTS = [
  ['biome', ['npx', 'biome', 'check', '.']],
  ['tsc', ['npx', 'tsc', '--noEmit']],
  ['cargo fmt', ['cargo', 'fmt', '--check']],
  [
    'cargo clippy',
    ['cargo', 'clippy', '--workspace', '--all-targets', '--all-features', '--', '-D', 'warnings'],
  ],
]
