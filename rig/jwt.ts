import { createHash } from 'node:crypto'
import { nkeys } from 'nats'

type KeyPair = ReturnType<typeof nkeys.createUser>

/** An operator, an account and a user of NATS's decentralised authentication (docs.nats.io, "JWT"). */
export interface JwtAccounts {
  /** Lines for a server's configuration. */
  readonly config: string
  /** Text of a user's `.creds` file; each call makes another user. */
  creds(): string
}

/** Makes an operator with one account. */
export function makeAccounts(): JwtAccounts {
  const operator = nkeys.createOperator()
  const account = nkeys.createAccount()
  const operatorJwt = sign(operator, operator, 'operator', { type: 'operator', version: 2 })
  const unlimited = {
    subs: -1,
    data: -1,
    payload: -1,
    conn: -1,
    leaf: -1,
    imports: -1,
    exports: -1,
    wildcards: true,
  }
  const accountJwt = sign(operator, account, 'account', { type: 'account', version: 2, limits: unlimited })
  const id = account.getPublicKey()
  return {
    config: [
      `operator: ${operatorJwt}`,
      'resolver: MEMORY',
      `resolver_preload: { ${id}: ${accountJwt} }`,
    ].join('\n'),
    creds() {
      const user = nkeys.createUser()
      const jwt = sign(account, user, 'user', { type: 'user', version: 2, subs: -1, data: -1, payload: -1 })
      const seed = new TextDecoder().decode(user.getSeed())
      return [
        `-----BEGIN NATS USER JWT-----\n${jwt}\n------END NATS USER JWT------\n`,
        `-----BEGIN USER NKEY SEED-----\n${seed}\n------END USER NKEY SEED------\n`,
      ].join('\n')
    },
  }
}

function sign(issuer: KeyPair, subject: KeyPair, name: string, nats: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = {
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    name,
    sub: subject.getPublicKey(),
    nats,
  }
  const jti = createHash('sha256').update(JSON.stringify(claims)).digest('base64url')
  const text = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part({ jti, ...claims })}`
  return `${text}.${Buffer.from(issuer.sign(new TextEncoder().encode(text))).toString('base64url')}`
}
