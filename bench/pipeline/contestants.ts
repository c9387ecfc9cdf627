/** Something that takes UDP and publishes to NATS. */
export interface Contestant {
  readonly name: string
  /** How its messages are counted: one each, the careful baseline's frames, or Millrace's envelopes. */
  readonly wire: 'raw' | 'framed' | 'envelope'
  /** Script below build/ and its arguments, and the environment. */
  readonly command: (place: Place) => { script: string; args: readonly string[]; env: Record<string, string> }
}

/** Where it receives and publishes. */
export interface Place {
  readonly port: number
  readonly server: string
  readonly http: string
}

const baseline = (name: string, wire: Contestant['wire']): Contestant => ({
  name,
  wire,
  command: ({ port, server }) => ({
    script: `bench/baselines/${name}.js`,
    args: [String(port), server, 'bench.baseline'],
    env: {},
  }),
})

const millrace = (backend: string, format: string): Contestant => ({
  name: `${backend} ${format}`,
  wire: format === 'raw' ? 'raw' : 'envelope',
  command: ({ port, server, http }) => ({
    script: 'src/cli/main.js',
    args: [],
    env: {
      MILLRACE_BACKEND: backend,
      MILLRACE_INTERFACE: 'vb',
      MILLRACE_LISTEN: String(port),
      MILLRACE_QUEUES: '1',
      MILLRACE_RX_THREADS: '1',
      // 32 MiB, as the ring of `packet` has by default.
      MILLRACE_XDP_FRAMES: '16384',
      MILLRACE_FORMAT: format,
      MILLRACE_SUBJECT: 'bench.{port}.{queue}',
      MILLRACE_HTTP: http,
      MILLRACE_LOG_LEVEL: 'info',
      NATS_URL: server,
    },
  }),
})

/** The two baselines, then every backend with every format. One queue and one receive thread, as on one core. */
export const CONTESTANTS: readonly Contestant[] = [
  baseline('naive', 'raw'),
  baseline('careful', 'framed'),
  ...['socket', 'packet', 'xdp'].flatMap((backend) =>
    ['raw', 'records', 'columns'].map((format) => millrace(backend, format)),
  ),
]

/** The contestant every ratio is against. */
export const REFERENCE = 'careful'
