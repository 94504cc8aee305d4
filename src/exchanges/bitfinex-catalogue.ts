import { asObject } from '../core/json.ts'
import type { Catalogue, InstrumentInfo } from './exchange.ts'

/** Bitfinex's codes for common currencies (`pub:map:currency:sym`): `USDT` is `UST` there. */
const CODES: Record<string, string> = { USDT: 'UST', USDC: 'UDC' }
const QUOTES = ['USD', 'UST', 'USDT', 'EUR', 'BTC', 'ETH', 'GBP', 'JPY', 'UDC', 'USDC']

/**
 * The pair name of `BTCUSD`, `tBTCUSD`, `BTC/USD`, `BTC-USD`, `DOGE:USD`, `BTC-USDT`; of perpetuals `BTCF0:USTF0`,
 * `tBTCF0:USTF0`, `BTC-PERP`, `BTC-USDT-PERP`, `BTC/USDT:USDT`.
 */
export function spellBitfinex(symbol: string): string {
  const bare = /^t[A-Z0-9]/.test(symbol) ? symbol.slice(1) : symbol
  const upper = bare.toUpperCase()
  const perpetual = /^(.+?)[/\-_:]?PERP$/.exec(upper)?.[1]
  const parts = cut(perpetual ?? upper)
  // `BTC/USDT:USDT` names what the contract is settled in.
  if (perpetual !== undefined || (parts.length === 3 && parts[1] === parts[2])) return ofPerpetual(parts)
  if (parts.length === 2) return joined(parts[0]!, parts[1]!)
  if (upper.length <= 6) return upper
  const futures = /^([A-Z0-9]+F0)([A-Z0-9]+F0)$/.exec(upper)
  if (futures) return joined(futures[1]!, futures[2]!)
  const quote = quoteOf(upper)
  return quote ? joined(upper.slice(0, -quote.length), CODES[quote] ?? quote) : upper
}

function cut(name: string): string[] {
  return name.split(/[/\-_:]/).map(part => CODES[part] ?? part)
}

function quoteOf(name: string): string | undefined {
  return QUOTES.find(quote => name.length > quote.length && name.endsWith(quote))
}

/** Perpetuals are settled in USDT unless they say otherwise. */
function ofPerpetual([base, quote]: readonly string[]): string {
  const end = quote === undefined ? quoteOf(base!) : undefined
  const settled = quote ?? end ?? 'UST'
  return `${end ? base!.slice(0, -end.length) : base}F0:${CODES[settled] ?? settled}F0`
}

/** A colon divides a pair where one of its codes is longer than three letters. */
function joined(base: string, quote: string): string {
  return base.length > 3 || quote.length > 3 ? `${base}:${quote}` : base + quote
}

function info(pair: string, market: 'spot' | 'perp', details: unknown): InstrumentInfo {
  const [base, quote] = pair.includes(':') ? pair.split(':') : [pair.slice(0, 3), pair.slice(3)]
  const fields = Array.isArray(details) ? details : []
  return {
    exchange: 'bitfinex',
    instId: pair,
    market,
    base: base ?? null,
    quote: quote ?? null,
    settleCcy: quote ?? null,
    // Amounts are in units of the base, perpetuals too; no tick or lot is published: 5 significant digits, 8 decimals.
    contractValue: null,
    contractValueCcy: null,
    multiplier: null,
    tickSize: null,
    lotSize: '0.00000001',
    minSize: fields[3] === undefined || fields[3] === null ? null : String(fields[3]),
    minNotional: null,
    status: 'live',
    raw: [pair, details ?? null]
  }
}

/** `/v2/conf` answers a list for each key asked for. */
export const readBitfinexCatalogue: Catalogue = {
  paths: () => ['/v2/conf/pub:list:pair:exchange,pub:list:pair:futures,pub:info:pair,pub:info:pair:futures'],
  read(answers) {
    const answer = answers[0]
    if (!Array.isArray(answer) || !Array.isArray(answer[0])) throw new TypeError('no list of pairs in the answer')
    const details = new Map<string, unknown>()
    for (const list of [answer[2], answer[3]]) {
      for (const entry of Array.isArray(list) ? list : []) {
        if (Array.isArray(entry) && asObject(entry) === undefined) details.set(String(entry[0]), entry[1])
      }
    }
    const rows = (list: unknown, market: 'spot' | 'perp') =>
      (Array.isArray(list) ? list : []).map(pair => info(String(pair), market, details.get(String(pair))))
    return [...rows(answer[0], 'spot'), ...rows(answer[1], 'perp')]
  }
}
