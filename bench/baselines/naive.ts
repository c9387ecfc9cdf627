// What one writes first: a datagram comes in, a message goes out.
import { createSocket } from 'node:dgram'
import { connect } from 'nats'

const [port, server, subject] = process.argv.slice(2) as [string, string, string]
const nc = await connect({ servers: server })
const socket = createSocket('udp4')
socket.on('message', (payload) => nc.publish(subject, payload))
socket.bind(Number(port), () => process.send?.('ready'))
process.on('SIGTERM', () => {
  socket.close()
  void nc.drain().then(() => process.disconnect?.())
})
