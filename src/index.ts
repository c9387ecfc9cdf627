export type { Batch } from './queue/batch.js'
export { DatagramFlag } from './queue/batch.js'
export type { Handler, HandlerContext, HandlerLog, Out } from './queue/handler.js'
export { defineHandler } from './queue/handler.js'
