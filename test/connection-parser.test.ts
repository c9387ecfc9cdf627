/** The parser of the server's side of the NATS protocol: every operation, cut anywhere, and hostile bytes. */
import t from 'tap'
import {
  MAX_CONTROL_LINE,
  MAX_LINE,
  MAX_MESSAGE,
  ProtocolError,
  ServerParser,
} from '../src/publisher/connection/parser.js'

const bytes = (text: string) => new TextEncoder().encode(text)
const decode = (view: Uint8Array | undefined) =>
  view === undefined ? '-' : new TextDecoder('latin1').decode(view)

/** A parser that writes down what it finds. */
function recorder(): { parser: ServerParser; found: string[] } {
  const found: string[] = []
  const parser = new ServerParser({
    info: (json) => found.push(`info ${json.trim()}`),
    ping: () => found.push('ping'),
    pong: () => found.push('pong'),
    error: (text) => found.push(`error ${text}`),
    message: (subject, headers, payload) =>
      found.push(`message ${decode(subject)} ${decode(headers)} ${decode(payload)}`),
  })
  return { parser, found }
}

const CONVERSATION = [
  'INFO {"server_id":"A","max_payload":1048576}\r\n',
  'PING\r\n',
  'pong\r\n',
  '+OK\r\n',
  "-ERR 'Authorization Violation'\r\n",
  'MSG _INBOX.x.1 1 5\r\nhello\r\n',
  'MSG a.b\t1  reply 0\r\n\r\n',
  'HMSG s 9 12 14\r\nNATS/1.0\r\n\r\nhi\r\n',
  'HMSG s 9 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n',
  'MSG cr 1 4\r\n\r\n\r\n\r\n',
  'PONG\r\n',
].join('')
const FOUND = [
  'info {"server_id":"A","max_payload":1048576}',
  'ping',
  'pong',
  'error Authorization Violation',
  'message _INBOX.x.1 - hello',
  'message a.b - ',
  'message s NATS/1.0\r\n\r\n hi',
  'message s NATS/1.0 503\r\n\r\n ',
  'message cr - \r\n\r\n',
  'pong',
]

void t.test('every operation, in one piece and in pieces of every size', async (t) => {
  const all = bytes(CONVERSATION)
  // A Buffer too, as sockets give it: its own slice() is a view.
  for (const copy of [(view: Uint8Array) => view.slice(), (view: Uint8Array) => Buffer.from(view)]) {
    for (const size of [all.length, 1, 2, 3, 5, 7, 11, 19, 23, 64]) {
      const { parser, found } = recorder()
      for (let at = 0; at < all.length; at += size) {
        // The caller's memory is its own again after the call.
        const piece = copy(all.subarray(at, at + size))
        parser.feed(piece)
        piece.fill(0x58)
      }
      t.same(found, FOUND, `pieces of ${size}`)
      t.equal(parser.heldBytes, 0)
    }
  }
  const { parser, found } = recorder()
  const first = Buffer.from('MSG _INBOX.a 1 5\r\nhe')
  parser.feed(first)
  first.fill(0x58)
  parser.feed(Buffer.from('llo\r\n'))
  t.same(found, ['message _INBOX.a - hello'], 'the subject is ours when the payload comes')
})

void t.test('what is no NATS protocol ends in an error that names it', async (t) => {
  const cases: [string, RegExp][] = [
    ['HTTP/1.1 400 Bad Request\r\n', /unknown operation "HTTP/],
    ['\r\n', /unknown operation ""/],
    ['PINGS\r\n', /unknown operation/],
    ['MSG a 1\r\n', /MSG with 2 fields/],
    ['MSG a 1 r x 5\r\n', /MSG with 5 fields/],
    ['MSG a 1 x\r\n', /size that is no number/],
    ['MSG a 1 9999999999\r\n', /too many digits/],
    [`MSG a 1 ${MAX_MESSAGE + 1}\r\n`, /a message of/],
    ['HMSG a 1 5 4\r\n', /headers longer/],
    ['MSG a 1 2\r\nabcd\r\n', /longer than its line/],
    ['PING\rPONG\r\n', /CR alone/],
    [`MSG${' a'.repeat(2000)}\r\n`, /MSG with 5 fields/],
    ['MSGa 1 1\r\n', /MSG without a space/],
    ['x'.repeat(MAX_CONTROL_LINE + 1), /a line is longer than 4096/],
    [`-ERR '${'x'.repeat(MAX_CONTROL_LINE)}'\r\n`, /a line is longer than 4096/],
    [`INFO ${'x'.repeat(MAX_LINE)}`, /a line is longer than 1048576/],
  ]
  for (const [text, message] of cases) {
    t.throws(() => recorder().parser.feed(bytes(text)), { name: 'ProtocolError', message }, text.slice(0, 30))
  }
  const { parser } = recorder()
  t.throws(
    () => {
      parser.feed(bytes('INFO '))
      for (let i = 0; i <= MAX_LINE / 1024; i++) parser.feed(new Uint8Array(1024).fill(0x61))
    },
    ProtocolError,
    'in pieces too',
  )
  const { parser: long, found } = recorder()
  long.feed(bytes(`INFO ${'x'.repeat(MAX_LINE - 5)}\r\n`))
  t.equal(found.length, 1, 'an INFO of a large cluster')
})

void t.test('random conversations, cut at random, come out whole', async (t) => {
  let seed = 1
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return Math.floor((seed / 2 ** 32) * n)
  }
  const operations = CONVERSATION.match(/[\s\S]*?\r\n/gu)!.length
  t.ok(operations > 10)
  for (let round = 0; round < 3000; round++) {
    const wanted: string[] = []
    let text = ''
    for (let i = random(12); i >= 0; i--) {
      const payload = 'x\r\nMSG '.repeat(random(30)).slice(0, random(200))
      const headers = `NATS/1.0\r\nA: ${random(99)}\r\n\r\n`
      switch (random(4)) {
        case 0:
          text += 'PING\r\n'
          wanted.push('ping')
          break
        case 1:
          text += `MSG s.${i} 1 ${payload.length}\r\n${payload}\r\n`
          wanted.push(`message s.${i} - ${payload}`)
          break
        case 2:
          text += `HMSG s 1 ${headers.length} ${headers.length + payload.length}\r\n${headers}${payload}\r\n`
          wanted.push(`message s ${headers} ${payload}`)
          break
        default:
          text += `-ERR '${i}'\r\n`
          wanted.push(`error ${i}`)
      }
    }
    const all = bytes(text)
    const { parser, found } = recorder()
    for (let at = 0; at < all.length; ) {
      const end = Math.min(all.length, at + 1 + random(random(4) === 0 ? 4 : 300))
      parser.feed(all.slice(at, end))
      at = end
    }
    if (JSON.stringify(found) !== JSON.stringify(wanted) || parser.heldBytes !== 0) {
      t.same(found, wanted, `round ${round}`)
      return
    }
  }
})

void t.test('hostile bytes end in an error or in nothing, and never in another exception', async (t) => {
  let seed = 7
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * n)
  }
  const words = [
    'MSG',
    'HMSG',
    'INFO',
    'PING',
    '-ERR',
    '+OK',
    ' ',
    '\r\n',
    '\r',
    '\n',
    '1',
    '99',
    'a.b',
    '\t',
    '{}',
  ]
  let errors = 0
  for (let round = 0; round < 20_000; round++) {
    const { parser } = recorder()
    try {
      for (let i = random(6); i >= 0; i--) {
        const piece = Array.from({ length: random(8) }, () =>
          random(8) === 0 ? String.fromCharCode(random(256)) : words[random(words.length)],
        ).join('')
        parser.feed(Buffer.from(piece, 'latin1'))
      }
    } catch (error) {
      errors++
      if (!(error instanceof ProtocolError)) throw error
    }
  }
  t.ok(errors > 1000, `${errors} of 20,000 refused`)
})
