/** Subject templates, and what is no subject to publish to. */
import t from 'tap'
import { checkSubject, expandSubject, SubjectCache, subjectToken } from '../src/publisher/subject.js'

void t.test('subjects', async (t) => {
  const values = { port: 9000, queue: 2, node: 'host.example' }
  t.equal(expandSubject('udp.{node}.{port}.{queue}', values), 'udp.host_example.9000.2')
  t.throws(() => expandSubject('udp.{nope}', values), { code: 'MILLRACE_E_SUBJECT' })
  t.equal(subjectToken('a b\t*.>\u0000'), 'a_b_____')
  t.equal(subjectToken(''), '_')
  for (const good of ['a', 'a.b-c_d', '$X.1', 'ä.ö', 'a*b']) t.equal(checkSubject(good), good)
  for (const wrong of [
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    'a b',
    'a.*',
    '>',
    'a\r\nPUB',
    'a\u0000',
    '{x}',
    'x'.repeat(2000),
  ]) {
    t.throws(() => checkSubject(wrong), { code: 'MILLRACE_E_SUBJECT' }, JSON.stringify(wrong.slice(0, 9)))
  }
  const cache = new SubjectCache()
  t.equal(cache.head('a.b').subject, 'a.b')
  t.equal(cache.head('a.b').subject, 'a.b')
  t.throws(() => cache.head('a b'), { code: 'MILLRACE_E_SUBJECT' })
})
