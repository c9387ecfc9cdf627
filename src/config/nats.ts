import type { NatsConfig } from './config.js'
import type { Validation } from './validate.js'

/** How to reach NATS. Credentials that contradict each other, and files that are missing, are reported. */
export function natsConfig(validation: Validation): NatsConfig {
  const { values: v } = validation
  const url = v.NATS_URL
  validation.exclusive('NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY')
  if (url.user !== null || url.token !== null) {
    for (const name of ['NATS_USER', 'NATS_TOKEN', 'NATS_CREDS', 'NATS_NKEY'] as const) {
      if (validation.isSet(name)) {
        validation.fail(name, 'no value while NATS_URL has credentials', ['NATS_URL'])
      }
    }
  }
  needs(validation, 'NATS_PASSWORD', 'NATS_USER')
  needs(validation, 'NATS_CERT', 'NATS_KEY')
  needs(validation, 'NATS_KEY', 'NATS_CERT')
  const ca = validation.existingFile('NATS_CA')
  const cert = validation.existingFile('NATS_CERT')
  const key = validation.existingFile('NATS_KEY')
  return {
    servers: url.servers,
    user: v.NATS_USER ?? url.user,
    password: v.NATS_PASSWORD ?? url.password,
    token: v.NATS_TOKEN ?? url.token,
    creds: validation.existingFile('NATS_CREDS'),
    nkeySeed: nkeySeed(validation),
    tls: url.tls || ca || cert ? { ca, cert, key } : null,
  }
}

type NatsVariable = 'NATS_PASSWORD' | 'NATS_USER' | 'NATS_CERT' | 'NATS_KEY'

function needs(validation: Validation, name: NatsVariable, other: NatsVariable): void {
  if (validation.isSet(name) && !validation.isSet(other)) validation.fail(name, `${other} beside it`)
}

/** An nkey seed is `S`, a letter for its role, and 56 more characters of base32 (nats-io/nkeys, README). */
const SEED = /^S[UACNO][A-Z2-7]{56}$/

/** The seed that NATS_NKEY is, or that stands in the file it names. */
function nkeySeed(validation: Validation): string | null {
  const given = validation.values.NATS_NKEY
  if (given === undefined || SEED.test(given)) return given ?? null
  const file = validation.readText('NATS_NKEY')
  const seed = file?.match(/\bS[UACNO][A-Z2-7]{56}\b/)?.[0] ?? null
  if (file !== null && seed === null) {
    validation.fail('NATS_NKEY', 'a file with an nkey seed, S and 57 characters')
  }
  return seed
}
