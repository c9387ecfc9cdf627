// Subscriber of the bench: counts the datagrams in what arrives, and answers `count` over IPC.
import { connect } from 'nats'
import { countDatagrams } from '../../src/decode.js'

const [server, format] = process.argv.slice(2) as [string, string]
const nc = await connect({ servers: server })
let datagrams = 0
let messages = 0
const countOf: (message: Uint8Array) => number =
  format === 'raw'
    ? () => 1
    : format === 'framed'
      ? (m) => new DataView(m.buffer, m.byteOffset).getUint32(0, true)
      : countDatagrams
nc.subscribe('bench.>', {
  callback: (_error, message) => {
    datagrams += countOf(message.data)
    messages += 1
  },
})
await nc.flush()
process.on('message', (what) => {
  if (what === 'count') process.send?.({ datagrams, messages })
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
