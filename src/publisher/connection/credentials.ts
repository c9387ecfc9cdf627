import { credsAuthenticator, nkeyAuthenticator } from 'nats'
import { ownFileError, readOwnFile } from './own-file.js'
import type { TimeLimit } from './time-limit.js'

/** How a connection proves who it is: of each secret either the value, or the path of a file with it. */
export interface Credentials {
  readonly user: string | null
  readonly password: string | null
  readonly passwordFile: string | null
  readonly token: string | null
  readonly tokenFile: string | null
  /** Path of a `.creds` file: JWT and seed. */
  readonly creds: string | null
  /** An nkey seed (`SU…`). */
  readonly nkeySeed: string | null
  readonly nkeyFile: string | null
}

/** What was read from {@link Credentials}: everything except what the server's nonce decides. */
export interface Secrets {
  readonly user: string | undefined
  readonly password: string | undefined
  readonly token: string | undefined
  /** One for each of creds and nkey: signs the server's nonce. */
  readonly signers: readonly ((nonce: string) => ConnectCredentials)[]
}

/** The fields of CONNECT that prove it. */
export interface ConnectCredentials {
  user?: string
  pass?: string
  auth_token?: string
  jwt?: string
  nkey?: string
  sig?: string
}

/** An nkey seed: `S`, a kind, and 56 more characters of base32. */
const SEED = /\bS[UACNO][A-Z2-7]{56}\b/u

/**
 * Reads files anew at each call, because it is called at each dial and secrets are rotated in place. White space around a
 * secret is removed: a file usually ends with a line end that is not part of it.
 *
 * @throws DialError naming the file that cannot be read or holds no seed.
 */
export async function readSecrets(from: Credentials, limit: TimeLimit): Promise<Secrets> {
  const secret = async (value: string | null, path: string | null) =>
    path === null ? value?.trim() : (await readOwnFile(path, 'auth', limit)).toString('utf8').trim()
  const signers: Secrets['signers'][number][] = []
  /** A signer that fails without a nonce fails with every nonce: the fault is in the file, and no server is asked. */
  const addSigner = (name: string, make: () => (nonce?: string) => unknown) => {
    try {
      const sign = make() as (nonce: string) => ConnectCredentials
      sign('')
      signers.push(sign)
    } catch (error) {
      throw ownFileError(name, 'auth', error as Error)
    }
  }
  const password = await secret(from.password, from.passwordFile)
  const token = await secret(from.token, from.tokenFile)
  if (from.creds !== null) {
    const creds = await readOwnFile(from.creds, 'auth', limit)
    addSigner(from.creds, () => credsAuthenticator(creds))
  }
  const seed = await secret(from.nkeySeed, from.nkeyFile)
  if (seed !== undefined) {
    addSigner(from.nkeyFile ?? 'nkey', () => {
      const found = SEED.exec(seed)?.[0]
      if (found === undefined) throw new Error('expected an nkey seed, S and 57 characters')
      return nkeyAuthenticator(new TextEncoder().encode(found))
    })
  }
  return { user: from.user?.trim(), password, token, signers }
}

/** @param nonce what the server wants signed; empty when it sent none. */
export function connectCredentials({ user, password, token, signers }: Secrets, nonce: string) {
  const fields: ConnectCredentials = {}
  if (user !== undefined) fields.user = user
  if (password !== undefined) fields.pass = password
  if (token !== undefined) fields.auth_token = token
  for (const sign of signers) Object.assign(fields, sign(nonce))
  return fields
}
