import type { Market } from '../core/instrument.ts'
import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

const TYPES: Record<Market, string> = { spot: 'SPOT', perp: 'SWAP', future: 'FUTURES', option: 'OPTION' }
const MARKETS: Record<string, Market> = { SPOT: 'spot', SWAP: 'perp', FUTURES: 'future', OPTION: 'option' }

/** OKX writes an empty string where a field has no meaning. */
function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

function info(row: Record<string, unknown>): InstrumentInfo {
  const instId = String(row.instId)
  const parts = instId.split('-')
  return {
    exchange: 'okx',
    instId,
    market: MARKETS[String(row.instType)] ?? 'spot',
    base: text(row.baseCcy) ?? parts[0] ?? null,
    quote: text(row.quoteCcy) ?? parts[1] ?? null,
    settleCcy: text(row.settleCcy),
    contractValue: text(row.ctVal),
    contractValueCcy: text(row.ctValCcy),
    multiplier: text(row.ctMult),
    tickSize: text(row.tickSz),
    lotSize: text(row.lotSz),
    minSize: text(row.minSz),
    minNotional: null,
    status: text(row.state),
    raw: row
  }
}

/** `GET /api/v5/public/instruments`: one request for each kind of market; options are asked for by family. */
export function readOkxCatalogue(marketOf: (instId: string) => Market): Catalogue {
  return {
    paths(symbols) {
      const base = '/api/v5/public/instruments?instType='
      if (symbols.length === 0) return ['SPOT', 'SWAP', 'FUTURES'].map(type => base + type)
      const paths = symbols.map(symbol => {
        const market = marketOf(symbol)
        const family =
          market === 'option' ? `&instFamily=${encodeURIComponent(symbol.split('-').slice(0, 2).join('-'))}` : ''
        return base + TYPES[market] + family
      })
      return [...new Set(paths)]
    },
    read(answers) {
      return answers.flatMap(answer => {
        const object = asObject(answer)
        if (object?.code !== '0' || !Array.isArray(object.data))
          throw new TypeError(`answer ${String(object?.code)}: ${String(object?.msg)}`)
        return object.data
          .map(asObject)
          .filter(row => row !== undefined)
          .map(info)
      })
    }
  }
}
