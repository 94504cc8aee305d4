import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

/** The exchange's name for a symbol in any common spelling: `btcusdt` of `BTCUSDT`, `BTC/USDT`, `btc_usdt`, `XBT-USDT`. */
export function spellHuobi(symbol: string): string {
  return symbol
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '')
    .replace(/^xbt|xbt$/, 'btc')
}

/** The smallest step of so many decimals: `0.01` of 2. */
function step(decimals: unknown): string | null {
  if (typeof decimals !== 'number' || !Number.isInteger(decimals) || decimals < 0 || decimals > 30) return null
  return decimals === 0 ? '1' : `0.${'1'.padStart(decimals, '0')}`
}

function text(value: unknown): string | null {
  if (typeof value === 'string' && value !== '') return value
  return typeof value === 'number' ? String(value) : null
}

function info(row: Record<string, unknown>): InstrumentInfo {
  const quote = text(row['quote-currency'])
  return {
    exchange: 'huobi',
    instId: String(row.symbol),
    market: 'spot',
    base: text(row['base-currency']),
    quote,
    settleCcy: quote,
    // Spot: amounts are in units of the base.
    contractValue: null,
    contractValueCcy: null,
    multiplier: null,
    tickSize: step(row['price-precision']),
    lotSize: step(row['amount-precision']),
    minSize: text(row['limit-order-min-order-amt']) ?? text(row['min-order-amt']),
    minNotional: text(row['min-order-value']),
    status: text(row.state),
    raw: row
  }
}

/** `GET /v1/common/symbols`: all pairs at once. */
export const readHuobiCatalogue: Catalogue = {
  paths: () => ['/v1/common/symbols'],
  read(answers) {
    const object = asObject(answers[0])
    if (object?.status !== 'ok' || !Array.isArray(object.data))
      throw new TypeError(`answer ${String(object?.status)}: ${String(object?.['err-msg'])}`)
    return object.data
      .map(asObject)
      .filter(row => typeof row?.symbol === 'string')
      .map(row => info(row!))
  }
}
