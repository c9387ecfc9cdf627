import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onCleanup } from './cleanup.js'

/** Paths of PEM files. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

/** A certificate authority that lives in a directory of its own, made by openssl(1). */
export interface Authority {
  /** Path of its own certificate. */
  readonly ca: string
  /** Signs a certificate for these subject alternative names, such as `DNS:localhost` or `IP:127.0.0.1`. */
  sign(name: string, subjectAltName: string): Certificate
  remove(): void
}

/** Makes a certificate authority. */
export function makeAuthority(): Authority {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-ca-'))
  const forget = onCleanup(() => rmSync(directory, { recursive: true, force: true }))
  const at = (file: string) => join(directory, file)
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl(
    'req',
    '-x509',
    ...KEY,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-subj',
    '/CN=Test CA',
    '-days',
    '2',
  )
  return {
    ca: at('ca.pem'),
    sign(name, subjectAltName) {
      const [cert, key, request, extensions] = ['pem', 'key', 'csr', 'ext'].map((end) => at(`${name}.${end}`))
      openssl('req', ...KEY, '-keyout', key!, '-out', request!, '-subj', `/CN=${name}`)
      writeFileSync(extensions!, `subjectAltName=${subjectAltName}\n`)
      const signer = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2']
      openssl('x509', '-req', '-in', request!, ...signer, '-extfile', extensions!, '-out', cert!)
      return { cert: cert!, key: key! }
    },
    remove() {
      rmSync(directory, { recursive: true, force: true })
      forget()
    },
  }
}
