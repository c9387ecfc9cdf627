import { EXIT_MEANING } from '../errors.js'
import { ENTRIES, GROUPS, type Variable } from './variables.js'

type Group = keyof typeof GROUPS

function grouped(): [title: string, members: [string, Variable][]][] {
  return (Object.keys(GROUPS) as Group[]).map((group) => [
    GROUPS[group],
    ENTRIES.filter(([, variable]) => variable.group === group),
  ])
}

/** The generated part of docs/configuration.md: one table for each group of variables. */
export function referenceMarkdown(): string {
  const cell = (text: string) => text.replaceAll('|', '\\|')
  return grouped()
    .map(([title, members]) => {
      const rows = members.map(([name, v]) => {
        const fallback = v.default === undefined ? (v.computed ?? 'unset') : `\`${v.default}\``
        const help = v.secret ? `${v.help} Never shown.` : v.help
        return `| \`${name}\` | ${cell(v.type.expected)} | ${cell(fallback)} | ${cell(help)} | \`${cell(v.example)}\` |`
      })
      const head = ['| Variable | Value | Default | Meaning | Example |', '| --- | --- | --- | --- | --- |']
      return [`### ${title}`, '', ...head, ...rows].join('\n')
    })
    .join('\n\n')
}

/** The part of `millrace --help` that lists variables and exit statuses; descriptions are wrapped at `width` characters. */
export function helpText(width = 100): string {
  const lines = ['Environment:']
  for (const [title, members] of grouped()) {
    lines.push('', `  ${title}`)
    for (const [name, v] of members) {
      const fallback = v.default ?? v.computed?.replaceAll('`', '')
      lines.push(`    ${name}${fallback === undefined ? '' : ` (default: ${fallback})`}`)
      lines.push(...wrap(`${v.help} Value: ${v.type.expected}.`, width - 8).map((line) => `        ${line}`))
    }
  }
  lines.push('', 'Exit status:', '')
  for (const [status, meaning] of EXIT_MEANING) lines.push(`  ${status.padStart(3)}  ${meaning}`)
  return lines.join('\n')
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
