import { defineHandler } from '../queue/handler.js'

/** The default handler: it forwards every datagram in the configured format. */
export default defineHandler({
  name: 'forward',
  handle(batch, out) {
    out.forward(batch)
  },
})
