import type { Market } from '../core/instrument.ts'
import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

/** The filters of a symbol by their type. */
function filtersOf(row: Record<string, unknown>): Map<unknown, Record<string, unknown>> {
  const list = Array.isArray(row.filters) ? row.filters : []
  const filters = list.map(asObject).filter(filter => filter !== undefined)
  return new Map(filters.map(filter => [filter.filterType, filter]))
}

function info(row: Record<string, unknown>, market: Market): InstrumentInfo {
  const filters = filtersOf(row)
  const lot = filters.get('LOT_SIZE')
  const notional = filters.get('NOTIONAL') ?? filters.get('MIN_NOTIONAL')
  const isSpot = market === 'spot'
  const base = text(row.baseAsset)
  return {
    exchange: 'binance',
    instId: String(row.symbol),
    market,
    base,
    quote: text(row.quoteAsset),
    settleCcy: text(isSpot ? row.quoteAsset : row.marginAsset),
    // Quantities of futures are in units of the base: a contract is one of them.
    contractValue: isSpot ? null : '1',
    contractValueCcy: isSpot ? null : base,
    multiplier: null,
    // `pricePrecision` and `quantityPrecision` are neither tick nor step.
    tickSize: text(filters.get('PRICE_FILTER')?.tickSize),
    lotSize: text(lot?.stepSize),
    minSize: text(lot?.minQty),
    minNotional: text(isSpot ? notional?.minNotional : notional?.notional),
    status: text(row.status),
    raw: row
  }
}

/**
 * `GET /api/v3/exchangeInfo` or, for perpetuals, `/fapi/v1/exchangeInfo`: always the whole list, as a request for several
 * symbols fails as a whole for an unknown one. Contracts with a date are left out.
 */
export function readBinanceCatalogue(market: Market, weight: number): Catalogue {
  return {
    weight,
    paths: () => [market === 'spot' ? '/api/v3/exchangeInfo' : '/fapi/v1/exchangeInfo'],
    read(answers) {
      return answers.flatMap(answer => {
        const symbols = asObject(answer)?.symbols
        if (!Array.isArray(symbols)) throw new TypeError('no list of symbols in the answer')
        return symbols
          .map(asObject)
          .filter(row => row !== undefined)
          .filter(row => typeof row.symbol === 'string')
          .filter(row => market === 'spot' || String(row.contractType).endsWith('PERPETUAL'))
          .map(row => info(row, market))
      })
    }
  }
}

/** `BTCUSDT` of `BTC/USDT`, `BTC-USDT`, `btc_usdt`, `btcusdt`, `XBT/USDT`. */
export function spellBinance(symbol: string): string {
  return symbol
    .toUpperCase()
    .replace(/[/\-_\s]/g, '')
    .replace(/^XBT/, 'BTC')
}
