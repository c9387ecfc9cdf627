import type { Socket } from 'node:net'
import { CLOSED } from './dial.js'
import { DialError } from './failure.js'
import { ProtocolError, ServerParser } from './parser.js'
import { parseInfo, type ServerInfo } from './server-info.js'

/**
 * Time between INFO and the TLS handshake in which a server that refuses us says so or closes, ms: it sends INFO first and
 * its refusal (`maximum connections exceeded`) right behind. Too low, and the refusal is read as a broken handshake; too high,
 * and every dial with TLS takes that much longer.
 */
const REFUSAL_MS = 20

/**
 * Reads the INFO with which a server begins. Nothing may follow it: before TLS, anyone on the path could have put those bytes
 * there, and after it they would be taken for the server's. An error of the server, or its end, is the reason of the failure.
 * The socket is paused afterwards.
 *
 * @param upgrades whether TLS follows this INFO.
 */
export function firstInfo(socket: Socket, upgrades: (info: ServerInfo) => boolean): Promise<ServerInfo> {
  return new Promise((resolve, reject) => {
    let info: ServerInfo | undefined
    let timer: NodeJS.Timeout | undefined
    const refuse = (what: string) => () => {
      throw new ProtocolError(info === undefined ? `${what} before its INFO` : `${what} before our CONNECT`)
    }
    const parser = new ServerParser({
      info: (json) => {
        if (info !== undefined) throw new ProtocolError('bytes behind INFO, before TLS or CONNECT')
        info = parseInfo(json)
      },
      ping: refuse('PING'),
      pong: refuse('PONG'),
      error: (text) => finish(new Error(text)),
      message: refuse('a message'),
    })
    const onData = (bytes: Buffer) => {
      try {
        parser.feed(bytes)
      } catch (error) {
        finish(new DialError('connect', `not the NATS protocol: ${(error as Error).message}`))
        return
      }
      if (info === undefined || timer !== undefined) return
      if (upgrades(info)) timer = setTimeout(onQuiet, REFUSAL_MS)
      else onQuiet()
    }
    const onQuiet = () => {
      if (parser.heldBytes === 0) finish()
      else finish(new DialError('connect', 'bytes behind INFO, before TLS or CONNECT'))
    }
    const onEnd = () => finish(socket.errored ?? new DialError('connect', CLOSED))
    function finish(error?: Error): void {
      clearTimeout(timer)
      socket.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', finish)
      socket.pause()
      if (error !== undefined) reject(error)
      else resolve(info!)
    }
    socket.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', finish)
    if (socket.destroyed) onEnd()
    else socket.resume()
  })
}
