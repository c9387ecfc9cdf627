import type { Config } from './config.js'

/** The effective configuration as an aligned table: variable, a star where the environment sets it, value. */
export function settingsTable(config: Config): string {
  const name = Math.max(...config.settings.map((s) => s.name.length))
  const rows = config.settings.map((s) => {
    const value = s.value.replaceAll('\n', '\\n') || '(unset)'
    return `${s.name.padEnd(name)}  ${s.source === 'environment' ? '*' : ' '} ${value}`
  })
  return [...rows, '', '* set in the environment; everything else is a default'].join('\n')
}

/** The effective configuration as plain data without secrets, for `millrace config --json`. */
export function redactedConfig(config: Config): object {
  const hide = (value: string | null) => (value === null ? null : '[redacted]')
  const { nats } = config.publisher
  return {
    ...config,
    settings: Object.fromEntries(config.settings.map((s) => [s.name, { value: s.value, source: s.source }])),
    publisher: {
      ...config.publisher,
      nats: {
        ...nats,
        password: hide(nats.password),
        token: hide(nats.token),
        nkeySeed: hide(nats.nkeySeed),
      },
    },
  }
}
