import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { L3capError, messageOf } from '../core/errors.ts'
import type { Level, Market } from '../core/instrument.ts'
import { parseDuration } from '../core/time.ts'
import type { Credentials, Endpoints, Exchange, Selection } from '../exchanges/exchange.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import { environment, variables } from './env.ts'

/** One exchange of a capture. */
export interface ExchangeRun {
  readonly exchange: Exchange
  readonly symbols: readonly string[]
  readonly selection: Selection
  readonly endpoints: Endpoints
  /** What the selection needs; null where it needs none. */
  readonly credentials: Credentials | null
  /** What was chosen for want of credentials, in words; null when nothing was. */
  readonly note: string | null
}

/** Where metrics are served. */
export interface MetricsAddress {
  readonly host: string
  /** 0: a free one. */
  readonly port: number
}

/** Everything `run` needs, validated. Durations in milliseconds. */
export interface RunConfig {
  readonly exchanges: readonly ExchangeRun[]
  readonly vault: string
  readonly depth: number
  readonly cadenceMs: number
  readonly frames: boolean
  readonly trades: boolean
  readonly staleAfterMs: number | null
  readonly onMismatch: 'three' | 'resync' | 'warn'
  /** Null: no syncing. */
  readonly fsyncMs: number | null
  readonly durationMs: number | null
  readonly simulate: boolean
  /** Null: nothing is served. */
  readonly metrics: MetricsAddress | null
  /** Begin a vault anew that was there before. */
  readonly create: boolean
  readonly logDir: string
  readonly logLevel: string
}

/** The flags of `run`, as commander gives them; a missing one is undefined. */
export interface RunFlags {
  readonly exchange?: string
  readonly symbol?: string[]
  readonly config?: string
  readonly wsUrl?: string
  readonly restUrl?: string
  readonly simulate?: boolean
  readonly [flag: string]: unknown
}

/** Names and defaults of what can be set by flag or in the file. */
export const RUN_DEFAULTS = {
  vault: './vault',
  depth: 400,
  cadence: '2s',
  frames: true,
  trades: true,
  fsync: '1s',
  create: false,
  logDir: 'logs',
  logLevel: 'info'
} as const

const PORT_MAX = 65_535

/** What `run --simulate` captures when no symbol is named. */
const SIMULATED_SYMBOLS: Record<string, string[]> = {
  bitfinex: ['BTCUSD'],
  okx: ['BTC-USDT-SWAP'],
  coinbase: ['BTC-USD'],
  bitstamp: ['btcusd'],
  kraken: ['BTC/USD'],
  binance: ['BTCUSDT'],
  huobi: ['btcusdt']
}

/** What `run --simulate` signs with: the simulated exchanges know it, no real one does. */
const SIMULATED_CREDENTIALS: Credentials = {
  key: 'simulated-key',
  secret: 'c2ltdWxhdGVkLXNlY3JldA==',
  passphrase: 'simulated-pass'
}

const duration = (name: string, minMs: number) =>
  z.string({ error: `${name}: a duration such as 500ms, 2s or 5m is expected` }).transform((text, context) => {
    const ms = parseDuration(text)
    if (ms !== undefined && ms >= minMs) return ms
    context.addIssue({
      code: 'custom',
      message: `${name}: ${JSON.stringify(text)} is no duration of at least ${minMs} ms, such as 500ms, 2s or 5m`
    })
    return z.NEVER
  })

const level = z.enum(['l3', 'l2'], { error: issue => `level: ${JSON.stringify(issue.input)} is neither l3 nor l2` })
const market = z.enum(['spot', 'perp', 'future', 'option'], {
  error: issue => `market: ${JSON.stringify(issue.input)} is none of spot, perp, future, option`
})
const word = (name: string) => z.string({ error: `${name}: a word is expected` })
/** What of the instruments is captured: for all exchanges, or for one. */
const SELECTION = {
  level: level.optional(),
  market: market.optional(),
  channel: word('channel').optional(),
  updateSpeed: word('update-speed').optional()
}
const address = (name: string, scheme: 'http' | 'ws') =>
  z
    .string({ error: `${name}: an address is expected` })
    .refine(text => isAddress(text, scheme), `${name}: no such address`)
/** `PORT`, for this host alone, or `HOST:PORT`; an IPv6 address in brackets. */
const metrics = z
  .union([z.string(), z.int()], { error: 'metrics: PORT or HOST:PORT is expected' })
  .transform((given, context): MetricsAddress => {
    const match = /^(?:(\[[0-9a-f:.]+\]|[A-Za-z0-9.-]+):)?(\d{1,5})$/i.exec(String(given))
    const port = Number(match?.[2])
    if (match !== null && port <= PORT_MAX) return { host: (match[1] ?? '127.0.0.1').replace(/[[\]]/g, ''), port }
    context.addIssue({ code: 'custom', message: `metrics: ${JSON.stringify(given)} is neither PORT nor HOST:PORT` })
    return z.NEVER
  })

const SCHEMA = z.strictObject({
  vault: z.string().min(1, 'vault: empty'),
  ...SELECTION,
  depth: z.coerce
    .number({ error: 'depth: a whole number of levels is expected' })
    .int('depth: a whole number of levels is expected')
    .min(1, 'depth: at least 1')
    .max(5000, 'depth: at most 5000'),
  cadence: duration('cadence', 50),
  frames: z.boolean(),
  trades: z.boolean(),
  staleAfter: duration('stale-after', 1000).optional(),
  onChecksumMismatch: z
    .enum(['warn', 'resync'], { error: 'on-checksum-mismatch: warn or resync is expected' })
    .optional(),
  fsync: z.union([z.literal('off').transform(() => null), duration('fsync', 100)]),
  duration: duration('duration', 1).optional(),
  simulate: z.boolean(),
  metrics: metrics.optional(),
  create: z.boolean(),
  logDir: z.string().min(1, 'log-dir: empty'),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error'], {
    error: 'log-level: trace, debug, info, warn, or error is expected'
  }),
  exchanges: z
    .array(
      z.strictObject({
        exchange: z.string(),
        symbols: z.array(z.string().min(1)).min(1, 'symbol: at least one is needed'),
        ...SELECTION,
        wsUrl: address('ws-url', 'ws').optional(),
        restUrl: address('rest-url', 'http').optional()
      })
    )
    .min(1, 'exchange: name one with --exchange and --symbol, or a file with --config')
})

type Merged = z.input<typeof SCHEMA>

/**
 * The configuration of a run: flags over environment over file over defaults. Throws `L3capError` CONFIG that lists
 * every mistake at once.
 */
export function readRunConfig(flags: RunFlags): RunConfig {
  const mistakes: string[] = []
  const merged = merge(flags, flags.config === undefined ? {} : readFile(flags.config), mistakes)
  const parsed = SCHEMA.safeParse(merged)
  if (!parsed.success) mistakes.push(...parsed.error.issues.map(explain))
  const exchanges = merged.exchanges.map(entry => readExchange(entry, merged, mistakes)).filter(e => e !== undefined)
  if (mistakes.length > 0 || !parsed.success) throw new L3capError('CONFIG', [...new Set(mistakes)].join('\n'))
  const {
    cadence,
    staleAfter,
    onChecksumMismatch,
    fsync,
    duration: runFor,
    metrics: served,
    exchanges: _,
    level: __,
    market: ___,
    channel: ____,
    updateSpeed: _____,
    ...rest
  } = parsed.data
  return Object.freeze({
    ...rest,
    exchanges,
    cadenceMs: cadence,
    staleAfterMs: staleAfter ?? null,
    onMismatch: onChecksumMismatch ?? 'three',
    fsyncMs: fsync,
    durationMs: runFor ?? null,
    metrics: served ?? null
  })
}

function readFile(path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
    throw new TypeError('a JSON object is expected')
  } catch (error) {
    throw new L3capError('CONFIG', `config: ${path}: ${messageOf(error)}`, { cause: error })
  }
}

function merge(flags: RunFlags, file: Record<string, unknown>, mistakes: string[]): Merged {
  const { exchange, symbol, config: _, wsUrl, restUrl, ...settings } = flags
  const set = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined))
  const simulate = (set.simulate ?? file.simulate ?? false) === true
  const vault = environment().vault
  // Simulated data must not reach the real vault by way of the environment or the file: only the flag names another.
  const vaultOfRun = simulate ? { vault: './vault-simulated' } : vault === undefined ? {} : { vault }
  const merged = {
    ...RUN_DEFAULTS,
    simulate,
    exchanges: [] as unknown,
    ...file,
    ...vaultOfRun,
    ...set
  } as Merged
  if (!Array.isArray(merged.exchanges)) merged.exchanges = []
  if (exchange !== undefined || symbol !== undefined || (simulate && merged.exchanges.length === 0)) {
    if (exchange === undefined && symbol !== undefined) mistakes.push('exchange: --symbol needs --exchange')
    const symbols = symbol ?? (simulate ? (SIMULATED_SYMBOLS[exchange ?? 'bitfinex'] ?? []) : [])
    merged.exchanges = [{ exchange: exchange ?? 'bitfinex', symbols }]
  }
  if (wsUrl !== undefined || restUrl !== undefined) {
    if (merged.exchanges.length !== 1)
      mistakes.push('ws-url, rest-url: only with one exchange; set them per exchange in the file')
    else {
      const only = merged.exchanges[0]!
      merged.exchanges = [
        { ...only, ...(wsUrl === undefined ? {} : { wsUrl }), ...(restUrl === undefined ? {} : { restUrl }) }
      ]
    }
  }
  return merged
}

function explain(issue: z.core.$ZodIssue): string {
  const place = issue.path.join('.')
  return issue.message.includes(':') && !issue.message.startsWith('Invalid')
    ? issue.message
    : `${place}: ${issue.message}`
}

function readExchange(entry: Merged['exchanges'][number], common: Merged, mistakes: string[]): ExchangeRun | undefined {
  const exchange = Object.hasOwn(EXCHANGES, entry?.exchange) ? EXCHANGES[entry.exchange] : undefined
  if (exchange === undefined) {
    mistakes.push(
      `exchange: ${JSON.stringify(entry?.exchange)} is unknown; known are ${Object.keys(EXCHANGES).join(', ')}`
    )
    return undefined
  }
  const { credentials, note, level } = chooseLevel(exchange, entry.level ?? common.level, common.simulate, mistakes)
  const selection: Selection = {
    level,
    market: chosen('market', exchange, entry.market ?? common.market, exchange.choices.markets, mistakes) as Market,
    channel: chosen('channel', exchange, entry.channel ?? common.channel, exchange.choices.channels?.[level], mistakes),
    updateSpeed: chosen(
      'update-speed',
      exchange,
      entry.updateSpeed ?? common.updateSpeed,
      exchange.choices.updateSpeeds,
      mistakes
    )
  }
  // What is no address is told by the schema.
  const wsUrl = isAddress(entry.wsUrl, 'ws') ? entry.wsUrl : undefined
  const endpoints = redirected(exchange.endpoints(selection), wsUrl, entry.restUrl)
  return { exchange, symbols: entry.symbols, selection, endpoints, credentials, note }
}

/** Whether a value is an address of a scheme (or its secure form), without a fragment. */
export function isAddress(value: unknown, scheme: 'http' | 'ws'): value is string {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, hash } = new URL(value)
  return (protocol === `${scheme}:` || protocol === `${scheme}s:`) && hash === '' && !value.endsWith('#')
}

/** What is captured of an exchange: what was said, else the finest level that can be had with the credentials there are. */
function chooseLevel(
  exchange: Exchange,
  wanted: unknown,
  simulate: boolean,
  mistakes: string[]
): { level: Level; credentials: Credentials | null; note: string | null } {
  const need = exchange.credentials
  const found = need === undefined ? null : simulate ? SIMULATED_CREDENTIALS : credentialsOf(need.variables)
  const needs = (level: Level) => need?.levels.includes(level) === true
  const best = exchange.levels[0]!
  if (wanted !== 'l3' && wanted !== 'l2') {
    const affordable = exchange.levels.find(level => !needs(level) || found !== null) ?? best
    const note = affordable === best ? null : `${best} needs ${need!.variables.join(', ')}; capturing ${affordable}`
    return { level: affordable, credentials: needs(affordable) ? found : null, note }
  }
  if (!exchange.levels.includes(wanted))
    mistakes.push(`level: ${exchange.id} does not offer ${wanted}, but ${exchange.levels.join(' and ')}`)
  else if (needs(wanted) && found === null) {
    const missing = need!.variables.join(', ')
    mistakes.push(`level: ${exchange.id} ${wanted} needs credentials in the environment: ${missing}; or use --level l2`)
  }
  return { level: wanted, credentials: needs(wanted) ? found : null, note: null }
}

function credentialsOf(names: readonly string[]): Credentials | null {
  const values = variables(names)
  if (values === null) return null
  const [key, secret, passphrase] = values
  return { key: key!, secret: secret!, passphrase: passphrase ?? '' }
}

function chosen(
  name: string,
  exchange: Exchange,
  value: unknown,
  offered: readonly string[] | undefined,
  mistakes: string[]
): string | null {
  if (typeof value !== 'string') return null
  if (offered?.includes(value)) return value
  mistakes.push(
    `${name}: ${exchange.id} ${offered ? `offers ${offered.join(', ')}` : 'has no such choice'}, not ${JSON.stringify(value)}`
  )
  return null
}

/** The endpoints with other addresses. A WebSocket address stands for the first route; the others keep their own path. */
function redirected(endpoints: Endpoints, wsUrl: string | undefined, restUrl: string | undefined): Endpoints {
  const routes = endpoints.routes.map((route, at) => {
    if (wsUrl === undefined) return route
    if (at === 0) return { ...route, url: wsUrl }
    const url = new URL(wsUrl)
    const own = new URL(route.url)
    url.pathname = own.pathname
    url.search = own.search
    return { ...route, url: url.href }
  })
  return { routes, restUrl: restUrl ?? endpoints.restUrl }
}
