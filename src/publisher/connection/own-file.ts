import { readFile } from 'node:fs/promises'
import { DialError, type FailureKind } from './failure.js'
import { SharedCalls } from './shared-calls.js'
import type { TimeLimit } from './time-limit.js'

const reads = new SharedCalls<Buffer>()

/**
 * Reads a secret or a PEM file, anew at each dial because they are rotated in place.
 * @throws DialError of `kind` that names the path, or of the limit when the file does not answer (a FIFO, a dead NFS server).
 */
export async function readOwnFile(path: string, kind: FailureKind, limit: TimeLimit): Promise<Buffer> {
  const read = reads
    .run(path, () => readFile(path))
    .catch((error: Error) => {
      throw ownFileError(path, kind, error)
    })
  return await limit.wait(`waiting for ${path}`, read)
}

/** A file of ours cannot be used. Some messages of the system name the path (ENOENT) and some do not (EISDIR). */
export function ownFileError(path: string, kind: FailureKind, { message }: Error): DialError {
  return new DialError(kind, message.includes(path) ? message : `${path}: ${message}`, true)
}
