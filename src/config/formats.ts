/** The publisher's formats: what a forwarded datagram becomes. docs/formats.md describes them. */
export const FORMATS = ['raw', 'records', 'columns'] as const

/** One of {@link FORMATS}. */
export type Format = (typeof FORMATS)[number]
