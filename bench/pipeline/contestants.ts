/** A program that receives UDP and publishes to NATS. */
export interface Contestant {
  readonly name: string
  /** How datagrams in its messages are counted: one each, by the careful baseline's frames, or by Millrace's envelopes. */
  readonly wire: 'raw' | 'framed' | 'envelope'
  /** Returns the script, relative to build/, with its arguments and its environment. */
  readonly command: (endpoints: Endpoints) => {
    script: string
    args: readonly string[]
    env: Record<string, string>
  }
}

/** The addresses at which a contestant receives and publishes. */
interface Endpoints {
  /** UDP port. */
  readonly port: number
  /** URL of the nats-server. */
  readonly server: string
  /** `HOST:PORT` for /metrics. */
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
      // These are 32 MiB, the default size of the ring of `packet`.
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

/** The contestant that every ratio compares with. */
export const REFERENCE = 'careful'
