import { addressText } from '../queue/address-text.js'

/**
 * Addresses that are remembered, a power of two. Fewer: senders that share an entry are encoded again and again. More: the
 * cache does not fit the CPU's second-level cache any more.
 */
const SLOTS = 4096
/** Bytes of an entry: the longest address has 39 characters, and the fields before and after it have room in the rest. */
const SLOT_BYTES = 64

/**
 * Source addresses as the format `records` writes them. It is a direct-mapped cache of fixed size, so that a flood of spoofed
 * sources costs time and no memory. Each entry is at most 64 bytes that can be copied as they are: `before`, the address as
 * a msgpack string, `after`.
 */
export class AddressCache {
  /** All entries as words, to be copied four bytes at a time; entry `slot` begins at word `16 * slot`. */
  readonly words = new Uint32Array((SLOTS * SLOT_BYTES) / 4)
  /** Bytes of the entry in `slot`. */
  readonly lengths = new Uint8Array(SLOTS)
  readonly #keys = new Uint32Array(SLOTS * 4)
  readonly #before: Uint8Array
  readonly #after: Uint8Array

  constructor(before: Uint8Array, after: Uint8Array) {
    this.#before = before
    this.#after = after
  }

  /** The slot that has the address in the four words of `words` from `at` on, whose bytes are in network order. */
  slot(words: Uint32Array, at: number): number {
    const a = words[at]!
    const b = words[at + 1]!
    const c = words[at + 2]!
    const d = words[at + 3]!
    // Read little-endian, the last byte of an address, which varies most, is the highest. It must reach the low bits.
    let mixed = a ^ Math.imul(b, 31) ^ Math.imul(c, 0x9e3779b1) ^ d
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    const slot = (mixed ^ (mixed >>> 16)) & (SLOTS - 1)
    const keys = this.#keys
    const k = slot * 4
    if (
      this.lengths[slot] === 0 ||
      keys[k + 3] !== d ||
      keys[k + 2] !== c ||
      keys[k + 1] !== b ||
      keys[k] !== a
    ) {
      keys[k] = a
      keys[k + 1] = b
      keys[k + 2] = c
      keys[k + 3] = d
      this.#fill(slot)
    }
    return slot
  }

  #fill(slot: number): void {
    const text = addressText(new DataView(this.#keys.buffer, slot * 16, 16), 0)
    const entry = new Uint8Array(this.words.buffer, slot * SLOT_BYTES, SLOT_BYTES)
    let at = 0
    entry.set(this.#before, at)
    at += this.#before.length
    if (text.length > 31) entry[at++] = 0xd9
    entry[at++] = text.length > 31 ? text.length : 0xa0 | text.length
    for (let i = 0; i < text.length; i++) entry[at++] = text.charCodeAt(i)
    entry.set(this.#after, at)
    this.lengths[slot] = at + this.#after.length
  }
}
