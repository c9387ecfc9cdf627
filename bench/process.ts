import { readFileSync } from 'node:fs'

/** Clock ticks per second in /proc: USER_HZ, which is 100 on every architecture that Node supports. */
const TICKS_PER_SECOND = 100

/**
 * Returns the user and system time of a process with all its threads in microseconds, in steps of 10 ms (fields 14 and 15
 * of proc_pid_stat(5)).
 */
export function cpuMicros(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return ((Number(fields[11]) + Number(fields[12])) * 1e6) / TICKS_PER_SECOND
}
