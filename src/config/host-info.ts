import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, hostname } from 'node:os'
import { cpuList } from './value-types.js'

/** What the configuration depends on besides the environment. */
export interface Facts {
  /** CPUs this process may run on. */
  readonly cpus: readonly number[]
  readonly hostname: string
  /** How many threads it makes sense to run at once, where a quota makes that fewer than `cpus`. */
  readonly parallelism?: number
  /** What a file holds; throws when it cannot be read. Default: the file system. */
  readonly readFile?: (path: string) => Buffer
  /** True when a file exists. Default: the file system. */
  readonly exists?: (path: string) => boolean
}

/** The facts of this process and machine. */
export function readFacts(): Facts {
  return { cpus: allowedCpus(), hostname: hostname(), parallelism: availableParallelism() }
}

/** The affinity mask, not the number of CPUs of the machine: in a container the first is often a part of the second. */
function allowedCpus(): readonly number[] {
  const fallback = Array.from({ length: availableParallelism() }, (_, i) => i)
  if (!existsSync('/proc/self/status')) return fallback
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return (list && cpuList.parse(list)) || fallback
}
