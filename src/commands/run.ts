import { Command, Option } from 'commander'
import type { Logger } from 'pino'
import { type ExchangeRun, RUN_DEFAULTS, type RunConfig, type RunFlags, readRunConfig } from '../config/run.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import type { InstrumentInfo } from '../exchanges/exchange.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import type { SimulatedExchange } from '../simulator/listing.ts'
import type { Simulator } from '../simulator/simulator.ts'
import { Fetcher } from '../wire/fetcher.ts'
import { Capture, type Share } from './capture.ts'
import { openLog } from './log.ts'
import type { MetricsServer } from './metrics.ts'
import { Monitor } from './monitor.ts'
import { collect } from './options.ts'
import { areListed, fetchCatalogue, resolveSymbols } from './symbols.ts'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000
/** A list that takes longer is read later: one exchange that is down does not keep the others waiting. */
const LIST_MS_MAX = 10_000
const STOP_MS_MAX = 4500
const TIMER_MS_MAX = 2 ** 31 - 1

/** `l3cap run`: captures until it is stopped. Resolves after a clean stop. */
export function runCommand(): Command {
  const said = (text: string, value: unknown) => `${text} (default: ${String(value)})`
  return new Command('run')
    .summary('capture until stopped')
    .description('Captures the books, events and trades of instruments into a vault until SIGINT or SIGTERM.')
    .option('--exchange <id>', `exchange: ${Object.keys(EXCHANGES).join(', ')} (default: from --config)`)
    .addOption(
      new Option(
        '--symbol <name>',
        "instrument, in the exchange's or any common spelling; repeat or commas (default: from --config)"
      ).argParser(collect)
    )
    .option('--config <file>', 'JSON file with the same settings, for several exchanges (default: none)')
    .option(
      '--vault <dir>',
      said('vault directory; environment L3CAP_VAULT; with --simulate ./vault-simulated', RUN_DEFAULTS.vault)
    )
    .option(
      '--level <l3|l2>',
      'orders or price levels (default: l3 where the exchange has it, and credentials if it wants them; else l2)'
    )
    .option('--market <name>', 'spot, perp, …: where the name does not tell it, as on Binance (default: the usual one)')
    .option(
      '--channel <name>',
      "the exchange's book channel, where it has several: Coinbase level3, full; HTX mbp.400, mbp.150 (default: the first)"
    )
    .option(
      '--update-speed <duration>',
      'how often the exchange sends, where it lets choose: Binance 1000ms (default: 100ms)'
    )
    .option('--depth <n>', said('levels a side in snapshots', RUN_DEFAULTS.depth))
    .option('--cadence <duration>', said('time between snapshots, on multiples of it', RUN_DEFAULTS.cadence))
    .option('--no-frames', 'do not keep the wire frames; nothing can be rebuilt then (default: keep them)')
    .option('--no-trades', 'do not capture trades (default: capture them)')
    .option(
      '--stale-after <duration>',
      "silence of a book after which it is subscribed again (default: the exchange's limit)"
    )
    .addOption(
      new Option(
        '--on-checksum-mismatch <warn|resync>',
        'resync: the first one resynchronises; warn: none does (default: three in a row do)'
      )
    )
    .option('--fsync <duration|off>', said('time between syncs to the disk', RUN_DEFAULTS.fsync))
    .option('--ws-url <url>', "WebSocket address instead of the exchange's (default: the exchange's)")
    .option('--rest-url <url>', "REST address instead of the exchange's (default: the exchange's)")
    .option('--duration <duration>', 'stop cleanly after so long (default: never)')
    .option(
      '--create',
      'begin the vault anew although it was there before; without it a vault that is gone is refused (default: off)'
    )
    .option('--simulate', 'start a simulated exchange inside and capture from it (default: off)')
    .option(
      '--metrics <[host:]port>',
      'serve Prometheus metrics at /metrics and health at /health; a port alone: on 127.0.0.1 (default: serve nothing)'
    )
    .option('--log-level <level>', said('trace, debug, info, warn or error', RUN_DEFAULTS.logLevel))
    .option('--log-dir <dir>', said('directory of the rotated log files', RUN_DEFAULTS.logDir))
    .action((_options: unknown, command: Command) => run(explicit(command)))
}

/** Only what was said: commander invents `true` for the `--no-…` flags, which would win over the file. */
function explicit(command: Command): RunFlags {
  const flags: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(command.opts())) {
    if (command.getOptionValueSource(name) !== 'default') flags[name] = value
  }
  return flags
}

async function run(flags: RunFlags): Promise<void> {
  const config = readRunConfig(flags)
  const metrics = await serveMetrics(config)
  const simulators = config.simulate ? await startSimulators(config) : []
  try {
    await capture(simulators.length > 0 ? pointedAt(config, simulators) : config, metrics)
  } finally {
    metrics?.close()
    for (const simulator of simulators) await simulator.close()
  }
}

/** Listens before anything else is started: a port that cannot be had is a mistake of the configuration. */
async function serveMetrics({ metrics }: RunConfig): Promise<MetricsServer | null> {
  if (metrics === null) return null
  // Loaded only here: a capture without it need not carry it.
  const { MetricsServer } = await import('./metrics.ts')
  return await MetricsServer.listen(metrics)
}

async function startSimulators(config: RunConfig): Promise<Simulator[]> {
  // Loaded only here: a capture of the real thing need not carry it.
  const { startSimulator } = await import('../simulator/simulator.ts')
  return await Promise.all(
    config.exchanges.map(({ exchange, symbols }) =>
      startSimulator({ exchange: exchange.id as SimulatedExchange, instruments: symbols.map(exchange.spell) })
    )
  )
}

/** The configuration with every address on the simulators, which serve the exchanges' own paths. */
function pointedAt(config: RunConfig, simulators: readonly Simulator[]): RunConfig {
  const exchanges = config.exchanges.map((entry, at) => {
    const { port, restUrl } = simulators[at]!
    const routes = entry.endpoints.routes.map(route => {
      const { pathname, search } = new URL(route.url)
      return { ...route, url: `ws://127.0.0.1:${port}${pathname}${search}` }
    })
    return { ...entry, endpoints: { routes, restUrl } }
  })
  return { ...config, exchanges }
}

async function capture(config: RunConfig, metrics: MetricsServer | null): Promise<void> {
  const stopped = new AbortController()
  const reason = waitForStop(config.durationMs)
  // Also while lists are still being read.
  void reason.then(() => stopped.abort())
  const fetchers = fetchersOf(config.exchanges)
  const found = await allOf(config.exchanges.map((entry, at) => resolve(entry, fetchers[at]!, stopped.signal)))
  const log = await openLog(config.logLevel, config.logDir, true)
  const capturing = new Capture(config, log.logger)
  capturing.lock(found)
  await capturing.start(found)
  for (const { run, infos, warning } of found) {
    if (warning)
      log.logger.warn({ exchange: run.exchange.id, error: warning }, 'The list of instruments could not be read')
    if (run.note) log.logger.warn({ exchange: run.exchange.id }, run.note)
    for (const info of infos) capturing.storeMetadata(info)
  }
  const refresh = new Refresh(capturing, log.logger, stopped.signal)
  for (const each of found) refresh.schedule(each, each.warning === undefined ? DAY_MS : MINUTE_MS)
  const monitor = new Monitor(capturing, config, log.logger)
  log.beforeLine = () => monitor.makeRoom()
  monitor.start()
  if (metrics) {
    metrics.attach(monitor.vitals)
    log.logger.info({ url: `${metrics.url}/metrics` }, 'Serving metrics')
  }
  const why = await reason
  log.logger.info({ reason: why }, 'Stopping')
  // A disk that does not answer must not keep a process that was told to stop.
  const deadline = setTimeout(() => process.kill(process.pid, 'SIGKILL'), STOP_MS_MAX)
  monitor.stop()
  await capturing.stop(why)
  clearTimeout(deadline)
  metrics?.close()
  await monitor.finish()
  log.logger.info('Stopped')
  log.end()
}

/** What all of them give, or every unknown symbol at once. */
async function allOf<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(promises)
  const failures = results.filter(result => result.status === 'rejected').map(({ reason }) => reason as unknown)
  const unknown = failures.filter(error => error instanceof L3capError && error.code === 'SYMBOL_UNKNOWN')
  if (unknown.length > 0 && unknown.length === failures.length)
    throw new L3capError('SYMBOL_UNKNOWN', unknown.map(messageOf).join('\n'))
  if (failures.length > 0) throw failures[0]
  return results.filter(result => result.status === 'fulfilled').map(({ value }) => value)
}

interface Resolved extends Share {
  readonly infos: readonly InstrumentInfo[]
  readonly warning: string | undefined
}

/** Looks the symbols up in the exchange's list; where that cannot be read, takes them as they are spelled. */
async function resolve(run: ExchangeRun, fetcher: Fetcher, signal: AbortSignal): Promise<Resolved> {
  const { exchange, symbols, selection } = run
  const { market } = selection
  const limited = AbortSignal.any([signal, AbortSignal.timeout(LIST_MS_MAX)])
  let infos: InstrumentInfo[]
  try {
    infos = await fetchCatalogue(exchange, market, fetcher, symbols, limited)
  } catch (error) {
    if (!(error instanceof L3capError)) throw error
    const names = [...new Set(symbols.map(exchange.spell))]
    const instruments = names.map(name => exchange.describe(name, selection))
    return { run, fetcher, infos: [], instruments, warning: messageOf(error) }
  }
  // A mistyped name may look like another kind of market: near names are looked for among all kinds.
  const chosen = areListed(exchange, symbols, infos)
    ? resolveSymbols(exchange, symbols, infos)
    : resolveSymbols(exchange, symbols, await fetchCatalogue(exchange, market, fetcher, [], limited).catch(() => infos))
  const instruments = chosen.map(info => exchange.describe(info.instId, selection))
  return { run, fetcher, infos: chosen, instruments, warning: undefined }
}

/** One fetcher for each REST address: what shares a budget shares it here. */
function fetchersOf(runs: readonly ExchangeRun[]): Fetcher[] {
  const byUrl = new Map<string, Fetcher>()
  return runs.map(({ exchange, endpoints }) => {
    const known = byUrl.get(endpoints.restUrl)
    const fetcher = known ?? new Fetcher(endpoints.restUrl, exchange.limits.restWeightPerMinuteMax)
    byUrl.set(endpoints.restUrl, fetcher)
    return fetcher
  })
}

/** Reads the lists of instruments again: once a day, and each minute where that failed. Metadata are stored as they change. */
class Refresh {
  private readonly capturing: Capture
  private readonly logger: Logger
  private readonly signal: AbortSignal
  private readonly timers = new Set<NodeJS.Timeout>()

  constructor(capturing: Capture, logger: Logger, signal: AbortSignal) {
    this.capturing = capturing
    this.logger = logger
    this.signal = signal
    const end = () => {
      for (const timer of this.timers) clearTimeout(timer)
    }
    signal.addEventListener('abort', end, { once: true })
  }

  /** Reads the list of an exchange after a while, and again and again. */
  schedule(found: Resolved, afterMs: number): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      void this.refresh(found)
    }, afterMs)
    this.timers.add(timer)
  }

  private async refresh(found: Resolved): Promise<void> {
    const { run, fetcher, instruments } = found
    let waitMs = DAY_MS
    try {
      const names = instruments.map(({ instId }) => instId)
      const infos = await fetchCatalogue(run.exchange, run.selection.market, fetcher, names, this.signal)
      for (const info of infos) if (names.includes(info.instId)) this.capturing.storeMetadata(info)
    } catch (error) {
      const facts = { exchange: run.exchange.id, error: messageOf(error) }
      if (!this.signal.aborted) this.logger.warn(facts, 'The list of instruments could not be read')
      waitMs = MINUTE_MS
    }
    if (!this.signal.aborted) this.schedule(found, waitMs)
  }
}

/** Resolves to the reason when the capture shall stop. A second signal ends the process at once. */
function waitForStop(durationMs: number | null): Promise<string> {
  return new Promise(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        resolve(signal)
        process.once(signal, () => process.kill(process.pid, 'SIGKILL'))
      })
    }
    if (durationMs !== null) after(durationMs, () => resolve('duration'))
  })
}

/** A timer for any length of time: those of Node fire at once beyond 24.8 days. */
function after(ms: number, action: () => void): void {
  if (ms <= TIMER_MS_MAX) setTimeout(action, ms)
  else setTimeout(() => after(ms - TIMER_MS_MAX, action), TIMER_MS_MAX)
}
