export type { Handler, HandlerContext, HandlerLog, Out } from './handler.js'
export { defineHandler } from './handler.js'
export type { Batch } from './worker/batch.js'
export { DatagramFlag } from './worker/batch.js'
