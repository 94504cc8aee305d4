import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

/** Other names for the exchange's codes. */
const CODES: Record<string, string> = { xbt: 'btc', xdg: 'doge' }
const COUNTERS = ['usdt', 'usdc', 'usd', 'eur', 'gbp', 'btc', 'xbt', 'eth']

/** Whether an instrument is a perpetual. */
export function isPerpetual(instId: string): boolean {
  return instId.endsWith('-perp')
}

/** `btcusd` of `BTC/USD`, `BTC-USD`, `btc_usd`, `BTCUSD`, `XBT/USD`; `btcusd-perp` of `BTC/USD-PERP`, `BTCUSD_PERP`. */
export function spellBitstamp(symbol: string): string {
  const lower = symbol.trim().toLowerCase()
  const bare = lower.replace(/[/\-_: ]?perp(?:etual)?$/, '')
  const parts = bare.split(/[/\-_: ]+/).filter(part => part !== '')
  const counter =
    parts.length === 1 ? COUNTERS.find(name => bare.endsWith(name) && bare.length > name.length) : undefined
  const codes = counter ? [bare.slice(0, -counter.length), counter] : parts
  return codes.map(code => CODES[code] ?? code).join('') + (bare === lower ? '' : '-perp')
}

/** A value of the exchange as text; null where there is none. */
function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

/** The step of a number of decimals: `0.01` of 2. */
function step(decimals: unknown): string | null {
  if (typeof decimals !== 'number' || !Number.isInteger(decimals) || decimals < 0 || decimals > 18) return null
  return decimals === 0 ? '1' : `0.${'0'.repeat(decimals - 1)}1`
}

function info(row: Record<string, unknown>): InstrumentInfo[] {
  const instId = text(row.market_symbol) ?? text(row.url_symbol)
  if (instId === null) return []
  // Perpetuals are named `BTC/USD-PERP`.
  const [base, quote] = (text(row.name) ?? '').replace(/-PERP$/, '').split('/')
  const counter = text(row.counter_currency) ?? text(quote)
  const isPerp = isPerpetual(instId) || row.market_type === 'PERPETUAL'
  const [, minimum, minimumCcy] = /^(\d[\d.]*) (\w+)$/.exec(text(row.minimum_order) ?? '') ?? []
  return [
    {
      exchange: 'bitstamp',
      instId,
      market: isPerp ? 'perp' : 'spot',
      base: text(row.base_currency) ?? text(base),
      quote: counter,
      // What perpetuals are settled in is not told.
      settleCcy: isPerp ? null : counter,
      contractValue: isPerp ? text(row.contract_size) : null,
      contractValueCcy: null,
      multiplier: null,
      // No steps are told but numbers of decimals.
      tickSize: text(row.tick_size) ?? step(row.counter_decimals),
      lotSize: step(row.base_decimals),
      minSize: text(row.minimum_order_amount),
      minNotional: text(row.minimum_order_value) ?? (minimumCcy === counter ? text(minimum) : null),
      status: text(row.trading),
      raw: row
    }
  ]
}

/** `GET /api/v2/markets/`. Rows of the older `/api/v2/trading-pairs-info/` are read as well. */
export const readBitstampCatalogue: Catalogue = {
  paths: () => ['/api/v2/markets/'],
  read(answers) {
    const rows = answers[0]
    if (!Array.isArray(rows)) throw new TypeError('no list of markets in the answer')
    const infos = rows
      .map(asObject)
      .filter(row => row !== undefined)
      .flatMap(info)
    if (rows.length > 0 && infos.length === 0) throw new TypeError('no market has a symbol')
    return infos
  }
}
