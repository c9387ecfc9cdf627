/**
 * The parser of what a NATS server sends (docs.nats.io, "Client Protocol"): `INFO`, `MSG`, `HMSG`, `PING`, `PONG`, `+OK`,
 * `-ERR`, each ended by CR LF. Bytes may be cut anywhere; memory is bounded; anything else is an error that ends the
 * connection, because after it nobody can say where the next operation begins.
 */

/** Longest INFO line, bytes. An INFO with the addresses of a hundred servers has about 6 KiB; too low, and a large cluster cannot
 * be used; too high, and a peer that is no NATS server makes us hold that much. */
export const MAX_LINE = 1 << 20

/**
 * Longest line of any other operation, bytes. Servers themselves take no longer one from a client by default
 * (`max_control_line`); too low, and an acknowledgement of a long subject ends the connection; too high, and a peer can
 * make us log and hold long words.
 */
export const MAX_CONTROL_LINE = 4096

/** Largest message, headers included, bytes. We subscribe to acknowledgements alone, which have some hundred bytes. */
export const MAX_MESSAGE = 1 << 20

const CR = 13
const LF = 10
const SPACE = 32
const TAB = 9

/** What the parser finds. Views are valid until the call returns. */
export interface ServerOperations {
  /** The server's JSON. */
  info(json: string): void
  ping(): void
  pong(): void
  /** `-ERR`, without its quotes. */
  error(text: string): void
  /** A message for one of our subscriptions: its subject, its headers (`undefined` without any) and its payload. */
  message(subject: Uint8Array, headers: Uint8Array | undefined, payload: Uint8Array): void
}

/** The peer does not speak NATS. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** A MSG or HMSG line whose payload comes next. */
interface Announced {
  /** A view of the line; a copy once the line's memory is given up before the payload has come whole. */
  subject: Uint8Array
  copied: boolean
  /** Bytes of the headers; -1 without any. */
  readonly headerBytes: number
  /** Bytes of headers and payload. */
  readonly bytes: number
}

/** Parses one connection's bytes. */
export class ServerParser {
  readonly #operations: ServerOperations
  /** Bytes of an operation whose end has not come; grows by doubling and is kept. */
  #held = new Uint8Array(0)
  #heldBytes = 0
  /** Held bytes that were searched for the end of a line already: a long line in small pieces is looked at once. */
  #searched = 0
  #announced: Announced | undefined

  constructor(operations: ServerOperations) {
    this.#operations = operations
  }

  /** Bytes held for the next call. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  /**
   * Takes the next bytes, which are not kept.
   * @throws ProtocolError when they are no NATS protocol, or a line or message is longer than the bounds.
   */
  feed(bytes: Uint8Array): void {
    if (this.#heldBytes === 0) {
      const used = this.#parse(bytes)
      if (used < bytes.length) this.#hold(bytes.subarray(used))
      return
    }
    this.#hold(bytes)
    const all = this.#held.subarray(0, this.#heldBytes)
    const used = this.#parse(all)
    if (used === 0) return
    this.#held.copyWithin(0, used, this.#heldBytes)
    this.#heldBytes -= used
  }

  #hold(bytes: Uint8Array): void {
    const need = this.#heldBytes + bytes.length
    if (need > this.#held.length) {
      const grown = new Uint8Array(Math.max(1024, 2 * need))
      grown.set(this.#held.subarray(0, this.#heldBytes))
      this.#held = grown
    }
    this.#held.set(bytes, this.#heldBytes)
    this.#heldBytes = need
  }

  /** Parses whole operations and returns how many bytes they were. */
  #parse(bytes: Uint8Array): number {
    let at = 0
    for (;;) {
      if (this.#announced !== undefined) {
        const announced = this.#announced
        const { headerBytes, bytes: size } = announced
        if (bytes.length - at < size + 2) {
          if (!announced.copied) announced.subject = copy(announced.subject)
          announced.copied = true
          return at
        }
        if (bytes[at + size] !== CR || bytes[at + size + 1] !== LF) {
          throw new ProtocolError('a message is longer than its line says')
        }
        this.#announced = undefined
        const split = at + Math.max(0, headerBytes)
        const headers = headerBytes < 0 ? undefined : bytes.subarray(at, split)
        this.#operations.message(announced.subject, headers, bytes.subarray(split, at + size))
        at += size + 2
        continue
      }
      const end = bytes.indexOf(CR, at + this.#searched)
      const complete = end >= 0 && end + 1 < bytes.length
      const limit = begin(bytes, at) === INFO ? MAX_LINE : MAX_CONTROL_LINE
      if ((complete ? end : bytes.length) - at > limit) {
        throw new ProtocolError(`a line is longer than ${limit} bytes`)
      }
      if (!complete) {
        this.#searched = (end < 0 ? bytes.length : end) - at
        return at
      }
      if (bytes[end + 1] !== LF) throw new ProtocolError('a line ends with CR alone')
      this.#searched = 0
      this.#line(bytes.subarray(at, end))
      at = end + 2
    }
  }

  #line(line: Uint8Array): void {
    const { length } = line
    const start = begin(line, 0)
    if (start === 0x6d73 && is(line, 'MSG', 3)) this.#announce(line, 'MSG')
    else if (start === 0x686d && is(line, 'HMSG', 4)) this.#announce(line, 'HMSG')
    else if (start === 0x706f && is(line, 'PONG', length)) this.#operations.pong()
    else if (start === 0x7069 && is(line, 'PING', length)) this.#operations.ping()
    else if (start === INFO && is(line, 'INFO', 4)) this.#operations.info(text(line.subarray(4)))
    // `-` and `+` have that bit already.
    else if (start === 0x2d65 && is(line, '-ERR', 4)) this.#operations.error(unquoted(text(line.subarray(4))))
    else if (!(start === 0x2b6f && is(line, '+OK', length))) {
      throw new ProtocolError(`unknown operation ${JSON.stringify(text(line.subarray(0, 32)))}`)
    }
  }

  /** `MSG <subject> <sid> [reply-to] <#bytes>` and `HMSG <subject> <sid> [reply-to] <#header bytes> <#bytes>`. */
  #announce(line: Uint8Array, operation: 'MSG' | 'HMSG'): void {
    const fields: Uint8Array[] = []
    const gap = line[operation.length]
    if (gap !== SPACE && gap !== TAB) throw new ProtocolError(`${operation} without a space behind it`)
    const numbers = operation === 'MSG' ? 1 : 2
    // One field too many is enough to refuse the line.
    for (let from = operation.length, at = from; at <= line.length && fields.length <= 3 + numbers; at++) {
      const byte = line[at]
      if (at < line.length && byte !== SPACE && byte !== TAB) continue
      if (at > from) fields.push(line.subarray(from, at))
      from = at + 1
    }
    const [subject] = fields
    if (subject === undefined || fields.length < 2 + numbers || fields.length > 3 + numbers) {
      throw new ProtocolError(`${operation} with ${fields.length} fields`)
    }
    const bytes = number(fields.at(-1)!)
    const headerBytes = numbers === 2 ? number(fields.at(-2)!) : -1
    if (bytes > MAX_MESSAGE) throw new ProtocolError(`a message of ${bytes} bytes`)
    if (headerBytes > bytes) throw new ProtocolError('headers longer than their message')
    this.#announced = { subject, copied: false, headerBytes, bytes }
  }
}

/** What {@link begin} gives for INFO. */
const INFO = 0x696e

/** The first two letters of a line, without their case: they tell the operations apart. */
function begin(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0) | 0x2020
}

/** A copy also of a Buffer, whose own `slice` is a view. */
function copy(bytes: Uint8Array): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes)
}

/** Whether the line's first `length` bytes are the word, with letters in either case, as the server itself reads them. */
function is(line: Uint8Array, word: string, length: number): boolean {
  if (length !== word.length) return false
  for (let i = 0; i < length; i++) {
    const letter = line[i]!
    if (letter !== word.charCodeAt(i) && letter !== (word.charCodeAt(i) | 0x20)) return false
  }
  return true
}

function number(digits: Uint8Array): number {
  let value = 0
  if (digits.length === 0 || digits.length > 9) throw new ProtocolError('a size of no or too many digits')
  for (const digit of digits) {
    if (digit < 48 || digit > 57) throw new ProtocolError('a size that is no number')
    value = value * 10 + digit - 48
  }
  return value
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
}

function unquoted(said: string): string {
  return said.trim().replace(/^'(.*)'$/u, '$1')
}
