/** The pool of chunks. */
import t from 'tap'
import { ChunkPool, newChunk } from '../src/publisher/chunk.js'

void t.test('chunks', async (t) => {
  const pool = new ChunkPool(100, 1)
  const first = pool.acquire()
  const second = pool.acquire(50)
  t.equal(pool.acquire(101).bytes.length, 101)
  pool.finish(first)
  pool.finish(second)
  pool.finish(newChunk(101))
  t.equal(pool.acquire(), first)
  t.not(pool.acquire(), second, 'it kept no more than one')
})

void t.test('a chunk is reused when it is complete and none of its extents is referred to', async (t) => {
  const pool = new ChunkPool(100, 1)
  const chunk = pool.acquire()
  chunk.extents = 2
  pool.done(chunk)
  t.not(pool.acquire(), chunk, 'an extent is left')
  pool.finish(chunk)
  t.not(pool.acquire(), chunk, 'complete, and an extent is left')
  pool.done(chunk)
  t.equal(pool.acquire(), chunk)
  t.equal(chunk.complete, false)
  chunk.extents = 1
  pool.done(chunk)
  t.not(pool.acquire(), chunk, 'no extent is left, but it is not complete')
})
