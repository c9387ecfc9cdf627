import { isUtf8 } from 'node:buffer'
import { readFileSync } from 'node:fs'
import { MillraceError } from '../errors.js'

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
}

/**
 * The text of a rules file, without a byte order mark. The start, a reload and the command line all read rules with it.
 *
 * @param path path or file descriptor.
 * @param name what messages call the file.
 *
 * @throws MillraceError `MILLRACE_E_CONFIG` when it cannot be read, `MILLRACE_E_RULES` when it is not UTF-8.
 */
export function readRules<P extends string | number>(
  path: P,
  name: string,
  read: (path: P) => Buffer = readFileSync,
): string {
  let bytes: Buffer
  try {
    bytes = read(path)
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException
    const why = REASONS[code] ?? message
    throw new MillraceError('MILLRACE_E_CONFIG', `${name}: ${why}; expected a file of rules`, { cause })
  }
  if (isUtf8(bytes)) return new TextDecoder().decode(bytes)
  throw new MillraceError('MILLRACE_E_RULES', `${name}: line ${badLine(bytes)} is not UTF-8`)
}

/** What messages call the file that MILLRACE_RULES_FILE names. */
export function rulesFileName(path: string): string {
  return `MILLRACE_RULES_FILE ${path}`
}

/** Number, from 1, of the first line that is not UTF-8. Lines can be split before decoding: no longer character has a byte 0x0a. */
function badLine(bytes: Buffer): number {
  let line = 1
  for (let start = 0; start < bytes.length; line++) {
    const end = bytes.indexOf(10, start)
    const next = end < 0 ? bytes.length : end + 1
    if (!isUtf8(bytes.subarray(start, next))) return line
    start = next
  }
  return line
}
