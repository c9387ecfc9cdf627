export type { Handler, HandlerContext, HandlerLog, Out } from './handler.js'
export { defineHandler } from './handler.js'
export type { Batch } from './queue/batch.js'
export { DatagramFlag } from './queue/batch.js'
