import { EXIT_MEANING } from '../errors.js'
import type { Config } from './config.js'
import { ENTRIES, GROUPS, type Variable } from './variables.js'

type Group = keyof typeof GROUPS

function grouped(): [title: string, members: [string, Variable][]][] {
  return (Object.keys(GROUPS) as Group[]).map((group) => [
    GROUPS[group],
    ENTRIES.filter(([, variable]) => variable.group === group),
  ])
}

/** The generated part of docs/configuration.md: one table for each group. */
export function referenceMarkdown(): string {
  const cell = (text: string) => text.replaceAll('|', '\\|')
  return grouped()
    .map(([title, members]) => {
      const rows = members.map(([name, v]) => {
        const fallback = v.default === undefined ? (v.computed ?? 'unset') : `\`${v.default}\``
        const help = v.secret ? `${v.help} Never shown.` : v.help
        return `| \`${name}\` | ${cell(v.kind.expected)} | ${cell(fallback)} | ${cell(help)} | \`${cell(v.example)}\` |`
      })
      const head = ['| Variable | Value | Default | Meaning | Example |', '| --- | --- | --- | --- | --- |']
      return [`### ${title}`, '', ...head, ...rows].join('\n')
    })
    .join('\n\n')
}

/** The part of `millrace --help` that lists variables and exit statuses. */
export function helpText(width = 100): string {
  const lines = ['Environment:']
  for (const [title, members] of grouped()) {
    lines.push('', `  ${title}`)
    for (const [name, v] of members) {
      const fallback = v.default ?? v.computed?.replaceAll('`', '')
      lines.push(`    ${name}${fallback === undefined ? '' : ` (default: ${fallback})`}`)
      lines.push(...wrap(`${v.help} Value: ${v.kind.expected}.`, width - 8).map((line) => `        ${line}`))
    }
  }
  lines.push('', 'Exit status:', '')
  for (const [status, meaning] of EXIT_MEANING) lines.push(`  ${status.padStart(3)}  ${meaning}`)
  return lines.join('\n')
}

/** The effective configuration as an aligned table: variable, value, where it came from. */
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

function wrap(text: string, width: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!
    if (line && line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = line ? `${line} ${word}` : word
  }
  return lines
}
