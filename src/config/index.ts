export { addressPort, type HttpAddress, type Listen } from './addresses.js'
export type {
  Config,
  EngineConfigJson,
  NatsConfig,
  PublisherConfig,
  Setting,
  WorkersConfig,
} from './config.js'
export { type Facts, readFacts } from './host-info.js'
export { loadConfig } from './load.js'
export { ConfigError, type Problem } from './problems.js'
export { helpText, redactedConfig, referenceMarkdown, settingsTable } from './reference.js'
