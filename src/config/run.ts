import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { L3capError, messageOf } from '../core/errors.ts'
import type { Level } from '../core/instrument.ts'
import { parseDuration } from '../core/time.ts'
import type { Exchange } from '../exchanges/exchange.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import { environment } from './env.ts'

/** One exchange of a capture. */
export interface ExchangeRun {
  readonly exchange: Exchange
  readonly symbols: readonly string[]
  readonly level: Level
  readonly wsUrl: string
  readonly restUrl: string
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
  logDir: 'logs',
  logLevel: 'info'
} as const

/** What `run --simulate` captures when no symbol is named. */
const SIMULATED_SYMBOLS: Record<string, string[]> = { bitfinex: ['BTCUSD'], okx: ['BTC-USDT-SWAP'] }

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
const address = (name: string, schemes: RegExp) =>
  z.string().refine(text => schemes.test(text) && URL.canParse(text), `${name}: no such address`)

const SCHEMA = z.strictObject({
  vault: z.string().min(1, 'vault: empty'),
  level: level.optional(),
  depth: z.coerce
    .number()
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
  logDir: z.string().min(1, 'log-dir: empty'),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error'], {
    error: 'log-level: trace, debug, info, warn, or error is expected'
  }),
  exchanges: z
    .array(
      z.strictObject({
        exchange: z.string(),
        symbols: z.array(z.string().min(1)).min(1, 'symbol: at least one is needed'),
        level: level.optional(),
        wsUrl: address('ws-url', /^wss?:/).optional(),
        restUrl: address('rest-url', /^https?:/).optional()
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
  const exchanges = merged.exchanges
    .map(entry => readExchange(entry, merged.level, mistakes))
    .filter(e => e !== undefined)
  const ids = merged.exchanges.map(entry => entry.exchange)
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at)))
    mistakes.push(`exchange: ${id} is listed twice`)
  if (mistakes.length > 0 || !parsed.success) throw new L3capError('CONFIG', [...new Set(mistakes)].join('\n'))
  const {
    cadence,
    staleAfter,
    onChecksumMismatch,
    fsync,
    duration: runFor,
    exchanges: _,
    level: __,
    ...rest
  } = parsed.data
  return Object.freeze({
    ...rest,
    exchanges,
    cadenceMs: cadence,
    staleAfterMs: staleAfter ?? null,
    onMismatch: onChecksumMismatch ?? 'three',
    fsyncMs: fsync,
    durationMs: runFor ?? null
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

function readExchange(
  entry: Merged['exchanges'][number],
  common: unknown,
  mistakes: string[]
): ExchangeRun | undefined {
  const exchange = Object.hasOwn(EXCHANGES, entry?.exchange) ? EXCHANGES[entry.exchange] : undefined
  if (exchange === undefined) {
    mistakes.push(
      `exchange: ${JSON.stringify(entry?.exchange)} is unknown; known are ${Object.keys(EXCHANGES).join(', ')}`
    )
    return undefined
  }
  const wanted = entry.level ?? common
  if ((wanted === 'l3' || wanted === 'l2') && !exchange.levels.includes(wanted)) {
    mistakes.push(`level: ${exchange.id} does not offer ${wanted}, but ${exchange.levels.join(' and ')}`)
  }
  return {
    exchange,
    symbols: entry.symbols,
    level: wanted === 'l3' || wanted === 'l2' ? wanted : exchange.levels[0]!,
    wsUrl: entry.wsUrl ?? exchange.wsUrl,
    restUrl: entry.restUrl ?? exchange.restUrl
  }
}
