/** An IPv4 address as a number, from 16 bytes at `at` in network order that hold it IPv4-mapped (RFC 4291, 2.5.5.2); else -1. */
export function ipv4Number(view: DataView, at: number): number {
  const mapped = view.getUint32(at) === 0 && view.getUint32(at + 4) === 0 && view.getUint32(at + 8) === 0xffff
  return mapped ? view.getUint32(at + 12) : -1
}

/** An IPv4 address, given as a number from 0 to 2^32 - 1, in dotted form. */
export function ipv4Text(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`
}

/** The address in 16 bytes at `at` in network order: dotted when it is IPv4-mapped, else as RFC 5952 writes it. */
export function addressText(view: DataView, at: number): string {
  const v4 = ipv4Number(view, at)
  if (v4 >= 0) return ipv4Text(v4)
  const groups = Array.from({ length: 8 }, (_, g) => view.getUint16(at + 2 * g))
  // RFC 5952, 4.2: '::' stands for the longest run of two or more groups of zeros, the first one of equal length.
  let best = { start: 0, length: 0 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const hex = (part: number[]) => part.map((g) => g.toString(16)).join(':')
  if (best.length < 2) return hex(groups)
  return `${hex(groups.slice(0, best.start))}::${hex(groups.slice(best.start + best.length))}`
}
