import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

/** Common names of currencies that have another one here. */
const CODES: Record<string, string> = { XBT: 'BTC' }
/** Quote currencies, longer ones before those that they end in. */
const QUOTES = ['USDC', 'USDT', 'EURC', 'USD', 'EUR', 'GBP', 'DAI', 'BTC', 'XBT', 'ETH']

/** `BTC-USD` of `BTCUSD`, `btc_usd`, `BTC/USD`, `XBT-USD`; a name that cannot be cut stays. */
export function spellCoinbase(symbol: string): string {
  const upper = symbol.trim().toUpperCase().replace(/[/_:]/g, '-')
  const quote = QUOTES.find(name => upper.length > name.length + 1 && upper.endsWith(name))
  const cut = upper.includes('-') || quote === undefined ? upper : `${upper.slice(0, -quote.length)}-${quote}`
  return cut
    .split('-')
    .map(part => CODES[part] ?? part)
    .join('-')
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

function info(row: Record<string, unknown>): InstrumentInfo {
  const base = text(row.base_currency)
  const quote = text(row.quote_currency)
  const lot = text(row.base_increment)
  return {
    exchange: 'coinbase',
    instId: String(row.id),
    market: 'spot',
    base,
    quote,
    settleCcy: quote,
    // One contract is one unit of the base currency; the exchange does not tell, as it has nothing else.
    contractValue: '1',
    contractValueCcy: base,
    multiplier: null,
    tickSize: text(row.quote_increment),
    lotSize: lot,
    // A minimum of its own was dropped on 2022-06-30: the increment and the minimum of funds are what is left.
    minSize: text(row.base_min_size) ?? lot,
    minNotional: text(row.min_market_funds),
    status: text(row.status),
    raw: row
  }
}

/** `GET /products`: the whole list in one answer. */
export const readCoinbaseCatalogue: Catalogue = {
  paths: () => ['/products'],
  read(answers) {
    const list = answers[0]
    if (!Array.isArray(list)) throw new TypeError('no list of products in the answer')
    return list
      .map(asObject)
      .filter(row => row !== undefined)
      .map(info)
  }
}
