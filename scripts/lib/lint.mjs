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
  // What ships. The check above turns on the feature `testing`, which uses items that the addon may not use; resolver 3 leaves the
  // features of dev-dependencies out of a build of the addon alone.
  ['cargo clippy of what ships', ['cargo', 'clippy', '-p', 'millrace-node', '--', '-D', 'warnings']],
  // Links in comments that lead nowhere. All items are documented, so a public one may link a private one.
  [
    'cargo doc',
    [
      'env',
      'RUSTDOCFLAGS=-D warnings -A rustdoc::private_intra_doc_links',
      ...['cargo', 'doc', '--workspace', '--no-deps', '--document-private-items', '--all-features'],
    ],
  ],
]
