import { resolve } from 'node:path'
import type { NatsConfig } from './config.js'
import type { Validation } from './validate.js'

/** How to reach NATS. Credentials that contradict each other, and files that are missing, are reported. */
export function natsConfig(validation: Validation): NatsConfig {
  const { values: v } = validation
  const url = v.NATS_URL
  validation.exclusive('NATS_USER', 'NATS_TOKEN', 'NATS_TOKEN_FILE', 'NATS_CREDS', 'NATS_NKEY')
  validation.exclusive('NATS_PASSWORD', 'NATS_PASSWORD_FILE')
  if (url.user !== null || url.token !== null) {
    for (const name of CREDENTIALS) {
      if (validation.isSet(name)) {
        validation.fail(name, 'no value while NATS_URL has credentials', ['NATS_URL'])
      }
    }
  }
  needs(validation, 'NATS_PASSWORD', 'NATS_USER')
  needs(validation, 'NATS_PASSWORD_FILE', 'NATS_USER')
  needs(validation, 'NATS_CERT', 'NATS_KEY')
  needs(validation, 'NATS_KEY', 'NATS_CERT')
  const handshakeFirst = v.NATS_TLS_FIRST === 'on'
  const ca = validation.existingFile('NATS_CA')
  const cert = validation.existingFile('NATS_CERT')
  const key = validation.existingFile('NATS_KEY')
  return {
    servers: url.servers,
    user: v.NATS_USER ?? url.user,
    password: v.NATS_PASSWORD ?? url.password,
    token: v.NATS_TOKEN ?? url.token,
    passwordFile: validation.existingFile('NATS_PASSWORD_FILE'),
    tokenFile: validation.existingFile('NATS_TOKEN_FILE'),
    creds: validation.existingFile('NATS_CREDS'),
    ...nkey(validation),
    tls: url.tls || ca || cert || handshakeFirst ? { ca, cert, key, handshakeFirst } : null,
    gossip: v.MILLRACE_NATS_GOSSIP === 'on',
    pingMs: v.MILLRACE_NATS_PING_MS,
    deadMs: v.MILLRACE_NATS_DEAD_MS,
  }
}

/** Variables of which one alone may say who we are. */
const CREDENTIALS = ['NATS_USER', 'NATS_TOKEN', 'NATS_TOKEN_FILE', 'NATS_CREDS', 'NATS_NKEY'] as const

type NatsVariable = 'NATS_PASSWORD' | 'NATS_PASSWORD_FILE' | 'NATS_USER' | 'NATS_CERT' | 'NATS_KEY'

function needs(validation: Validation, name: NatsVariable, other: NatsVariable): void {
  if (validation.isSet(name) && !validation.isSet(other)) validation.fail(name, `${other} beside it`)
}

/** An nkey seed is `S`, a letter for its role, and 56 more characters of base32 (nats-io/nkeys, README). */
const SEED = /^S[UACNO][A-Z2-7]{56}$/

/** The seed that NATS_NKEY is, or the file it names, which must hold one. */
function nkey(validation: Validation): Pick<NatsConfig, 'nkeySeed' | 'nkeyFile'> {
  const given = validation.values.NATS_NKEY?.trim()
  if (given === undefined) return { nkeySeed: null, nkeyFile: null }
  if (SEED.test(given)) return { nkeySeed: given, nkeyFile: null }
  const text = validation.readText('NATS_NKEY')
  if (text !== null && !/\bS[UACNO][A-Z2-7]{56}\b/.test(text)) {
    validation.fail('NATS_NKEY', 'a file with an nkey seed, S and 57 characters')
  }
  return { nkeySeed: null, nkeyFile: resolve(given) }
}
