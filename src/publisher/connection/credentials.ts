import { readFile } from 'node:fs/promises'
import { credsAuthenticator, nkeyAuthenticator } from 'nats'

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
 * @param nonce what the server wants signed; empty when it sent none.
 * @throws Error naming the file that cannot be read or holds no seed.
 */
export async function connectCredentials(from: Credentials, nonce: string): Promise<ConnectCredentials> {
  const secret = async (value: string | null, path: string | null) =>
    path === null ? value?.trim() : (await readFile(path, 'utf8')).trim()
  const fields: ConnectCredentials = {}
  if (from.user !== null) fields.user = from.user.trim()
  const password = await secret(from.password, from.passwordFile)
  if (password !== undefined) fields.pass = password
  const token = await secret(from.token, from.tokenFile)
  if (token !== undefined) fields.auth_token = token
  if (from.creds !== null) Object.assign(fields, credsAuthenticator(await readFile(from.creds))(nonce))
  const seed = await secret(from.nkeySeed, from.nkeyFile)
  if (seed !== undefined) {
    const found = SEED.exec(seed)?.[0]
    if (found === undefined)
      throw new Error(`${from.nkeyFile ?? 'nkey'}: expected an nkey seed, S and 57 characters`)
    Object.assign(fields, nkeyAuthenticator(new TextEncoder().encode(found))(nonce))
  }
  return fields
}
