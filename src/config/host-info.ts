import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, hostname } from 'node:os'
import { cpuList } from './value-types.js'

/** What the configuration depends on besides the environment: the machine, and the files that variables name. */
export interface HostInfo {
  /** Numbers of the CPUs in this process's affinity mask, in ascending order. */
  readonly cpus: readonly number[]
  readonly hostname: string
  /** Threads that it makes sense to run at once, where Node knows of a limit below the number of {@link cpus}. */
  readonly parallelism?: number
  /** The bytes of a file; throws when it cannot be read. Default: the file system. */
  readonly readFile?: (path: string) => Buffer
  /** True when a file exists. Default: the file system. */
  readonly exists?: (path: string) => boolean
}

/** The host as this process sees it. */
export function readHostInfo(): HostInfo {
  return { cpus: allowedCpus(), hostname: hostname(), parallelism: availableParallelism() }
}

/**
 * The affinity mask (Cpus_allowed_list in proc_pid_status(5)), not the CPUs of the machine: in a container the mask often
 * holds only some of them, and pinning to another is refused.
 */
function allowedCpus(): readonly number[] {
  const fallback = Array.from({ length: availableParallelism() }, (_, i) => i)
  if (!existsSync('/proc/self/status')) return fallback
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return (list && cpuList.parse(list)) || fallback
}
