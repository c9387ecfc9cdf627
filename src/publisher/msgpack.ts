/**
 * The parts of MessagePack that the encoders of this folder write by hand
 * (https://github.com/msgpack/msgpack/blob/master/spec.md). Numbers are big-endian.
 */
export const FIXMAP = 0x80
export const FIXARRAY = 0x90
const FIXSTR = 0xa0
export const BIN8 = 0xc4
export const BIN16 = 0xc5
export const BIN32 = 0xc6
export const UINT32 = 0xce
const ARRAY16 = 0xdc

/** Bytes before the first element of an `array 16`. */
export const ARRAY16_HEAD_BYTES = 3
/** Elements that an `array 16` can hold. */
export const ARRAY16_MAX_COUNT = 0xffff

/** Writes the head of an array of `count` elements to the three bytes at `at`. */
export function writeArray16Head(view: DataView, at: number, count: number): void {
  view.setUint8(at, ARRAY16)
  view.setUint16(at + 1, count)
}

/** Encodes a key of at most 31 ASCII characters. */
export function fixstr(text: string): Uint8Array {
  return Uint8Array.of(FIXSTR | text.length, ...Buffer.from(text))
}
