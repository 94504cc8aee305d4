import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

/** What WebSocket v1 and REST call the two coins that v2 names as everybody does. */
const OLD_NAMES: Record<string, string> = { BTC: 'XBT', DOGE: 'XDG' }
const NEW_NAMES: Record<string, string> = { XBT: 'BTC', XDG: 'DOGE' }
/** What pairs are priced in, the longer names first. */
const QUOTES =
  'PYUSD RLUSD USDT USDC USDG USDQ USDR EURC EURT EURQ EURR USD EUR GBP CAD AUD CHF JPY AED DAI XBT BTC ETH'
const QUOTE_LIST = QUOTES.split(' ')
/** The oldest pairs of REST: `XXBTZUSD`, `XETHXXBT`. */
const OLD_PAIR = /^[XZ]([A-Z]{3})[XZ]([A-Z]{3})$/

function newName(code: string): string {
  return Object.hasOwn(NEW_NAMES, code) ? NEW_NAMES[code]! : code
}

/** The v2 symbol of `BTC/USD`, `XBTUSD`, `XXBTZUSD`, `BTC-USD`, `xbt/usd`; what cannot be cut stays, in capitals. */
export function spellKraken(symbol: string): string {
  const upper = symbol.toUpperCase()
  const parts = upper.split(/[/\-_:]/)
  if (parts.length === 2) return parts.map(newName).join('/')
  const old = OLD_PAIR.exec(upper)
  if (old) return `${newName(old[1]!)}/${newName(old[2]!)}`
  const quote = QUOTE_LIST.find(each => upper.endsWith(each) && upper.length > each.length)
  return quote ? `${newName(upper.slice(0, -quote.length))}/${newName(quote)}` : upper
}

/** What REST calls the pair of a v2 symbol: `XBTUSD` of `BTC/USD`. */
export function restName(symbol: string): string {
  return symbol
    .split('/')
    .map(code => (Object.hasOwn(OLD_NAMES, code) ? OLD_NAMES[code]! : code))
    .join('')
}

/** A text that is not empty, as it is. */
function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

/** One unit of so many decimals: `0.00000001` of 8. */
function unit(decimals: unknown): string | null {
  if (!Number.isInteger(decimals)) return null
  const count = Number(decimals)
  if (count < 0 || count > 18) return null
  return count === 0 ? '1' : `0.${'0'.repeat(count - 1)}1`
}

/** What both sources say in the same words. Spot: no contract, and settled in the quote currency. */
function pair(
  symbol: string,
  facts: Pick<InstrumentInfo, 'tickSize' | 'lotSize' | 'minSize' | 'minNotional' | 'status' | 'raw'>
): InstrumentInfo {
  const [base = null, quote = null] = symbol.split('/')
  return {
    exchange: 'kraken',
    instId: symbol,
    market: 'spot',
    base,
    quote,
    settleCcy: quote,
    contractValue: null,
    contractValueCcy: null,
    multiplier: null,
    ...facts
  }
}

/**
 * An entry of the `instrument` channel. `row` has its numbers as text, `raw` is the same entry as parsed. Undefined without
 * a symbol.
 */
export function channelInfo(row: Record<string, unknown>, raw: unknown): InstrumentInfo | undefined {
  const symbol = text(row.symbol)
  if (symbol === null) return undefined
  return pair(symbol, {
    tickSize: text(row.price_increment) ?? text(row.tick_size),
    lotSize: text(row.qty_increment),
    minSize: text(row.qty_min),
    minNotional: text(row.cost_min),
    status: text(row.status),
    raw
  })
}

/** An entry of `AssetPairs`; undefined for dark pools, which have no name in WebSockets or one that ends with `.d`. */
function restInfo(row: Record<string, unknown>): InstrumentInfo | undefined {
  const name = text(row.wsname)
  if (name === null || name.endsWith('.d') || text(row.altname)?.endsWith('.d')) return undefined
  return pair(name.split('/').map(newName).join('/'), {
    tickSize: text(row.tick_size) ?? unit(row.pair_decimals),
    lotSize: unit(row.lot_decimals),
    minSize: text(row.ordermin),
    minNotional: text(row.costmin),
    status: text(row.status),
    raw: row
  })
}

/**
 * `GET /0/public/AssetPairs`. A name that it does not know makes the whole answer an error: that means no instrument here,
 * so that near names are looked for in the whole list.
 */
export const readKrakenCatalogue: Catalogue = {
  paths: symbols => {
    const names = symbols.map(restName).map(encodeURIComponent).join(',')
    return [`/0/public/AssetPairs${names === '' ? '' : `?pair=${names}`}`]
  },
  read(answers) {
    const answer = asObject(answers[0])
    const errors = answer?.error
    if (Array.isArray(errors) && errors.length > 0) {
      if (errors.every(error => error === 'EQuery:Unknown asset pair')) return []
      throw new TypeError(`answer ${JSON.stringify(errors)}`)
    }
    const result = asObject(answer?.result)
    if (result === undefined) throw new TypeError('no list of pairs in the answer')
    return Object.values(result)
      .map(asObject)
      .filter(row => row !== undefined)
      .map(restInfo)
      .filter(info => info !== undefined)
  }
}
