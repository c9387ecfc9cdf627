import type { NatsConfig } from './config.js'
import type { Check } from './validate.js'

/** How to reach NATS; checks that credentials do not contradict each other. */
export function natsConfig(check: Check): NatsConfig {
  const { values: v } = check
  const url = v.NATS_URL
  check.exclusive('NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY')
  if (url.user !== null || url.token !== null) {
    for (const name of ['NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY'] as const) {
      if (check.isSet(name)) check.fail(name, 'no value while NATS_URL has credentials', ['NATS_URL'])
    }
  }
  if (check.isSet('NATS_PASSWORD') && !check.isSet('NATS_USER')) {
    check.fail('NATS_PASSWORD', 'NATS_USER beside it')
  }
  if (check.isSet('NATS_CERT') && !check.isSet('NATS_KEY')) check.fail('NATS_CERT', 'NATS_KEY beside it')
  if (check.isSet('NATS_KEY') && !check.isSet('NATS_CERT')) check.fail('NATS_KEY', 'NATS_CERT beside it')
  const [ca, cert, key] = [check.file('NATS_CA'), check.file('NATS_CERT'), check.file('NATS_KEY')]
  return {
    servers: url.servers,
    user: v.NATS_USER ?? url.user,
    password: v.NATS_PASSWORD ?? url.password,
    token: v.NATS_TOKEN ?? url.token,
    creds: check.file('NATS_CREDS'),
    nkeySeed: nkeySeed(check),
    tls: url.tls || ca || cert ? { ca, cert, key } : null,
  }
}

/** Seeds are `S`, a kind, and 56 more characters of base32. */
const SEED = /^S[UACNO][A-Z2-7]{56}$/

function nkeySeed(check: Check): string | null {
  const given = check.values.NATS_NKEY
  if (given === undefined || SEED.test(given)) return given ?? null
  const file = check.text('NATS_NKEY')
  const seed = file?.match(/\bS[UACNO][A-Z2-7]{56}\b/)?.[0] ?? null
  if (file !== null && seed === null) check.fail('NATS_NKEY', 'a file with an nkey seed, S and 57 characters')
  return seed
}
