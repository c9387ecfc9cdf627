/** The pool of chunks. */
import t from 'tap'
import { ChunkPool, newChunk } from '../src/publisher/chunk.js'

void t.test('chunks', async (t) => {
  const pool = new ChunkPool(100, 1)
  const first = pool.acquire()
  const second = pool.acquire(50)
  t.equal(pool.acquire(101).bytes.length, 101)
  pool.release(first)
  pool.release(second)
  pool.release(newChunk(101))
  t.equal(pool.acquire(), first)
  t.not(pool.acquire(), second, 'it kept no more than one')
})
