import type { MarketSpec } from './market.ts'
import { hashText } from './random.ts'

/** The exchanges that can be simulated. */
export const SIMULATED_EXCHANGES = ['bitfinex', 'okx'] as const
/** One of the exchanges that can be simulated. */
export type SimulatedExchange = (typeof SIMULATED_EXCHANGES)[number]

const LISTED: Record<SimulatedExchange, readonly string[]> = {
  bitfinex: ['BTCUSD', 'ETHUSD', 'LTCUSD', 'DOGE:USD', 'BTCF0:USTF0'],
  okx: ['BTC-USDT', 'ETH-USDT', 'BTC-USDT-SWAP', 'ETH-USDT-SWAP', 'BTC-USD-SWAP']
}

const NAMES: Record<SimulatedExchange, RegExp> = {
  bitfinex: /^(?:[A-Z0-9]{6}|[A-Z0-9]+:[A-Z0-9]+)$/,
  okx: /^[A-Z0-9]+-[A-Z0-9]+(?:-SWAP|-\d{6}(?:-\d+-[CP])?)?$/
}

/** True when a name is written as the exchange writes its instruments (Bitfinex's without the leading `t`). */
export function isInstrumentName(exchange: SimulatedExchange, name: string): boolean {
  return NAMES[exchange].test(name)
}

/** Everything a simulated exchange lists: its usual instruments and the extra ones, each once. */
export function listedInstruments(exchange: SimulatedExchange, extra: readonly string[]): string[] {
  return [...new Set([...LISTED[exchange], ...extra])]
}

/** USD prices the coins of the simulated markets wander around. */
const PRICES: Record<string, number> = {
  BTC: 79421,
  ETH: 2512.3,
  LTC: 86.512,
  DOGE: 0.17231,
  SOL: 148.27,
  XRP: 0.70113
}

function usdPrice(coin: string): number {
  return PRICES[coin] ?? (10 + (hashText(coin) % 900)) / 10 ** (hashText(coin) % 4)
}

/** The two halves of a Bitfinex pair, with the mark of perpetuals (`F0`) still on them. */
export function splitPair(pair: string): [base: string, quote: string] {
  const colon = pair.indexOf(':')
  return colon < 0 ? [pair.slice(0, 3), pair.slice(3)] : [pair.slice(0, colon), pair.slice(colon + 1)]
}

/** A Bitfinex pair's market: prices of five digits and at most 8 decimals, sizes of at most 8, about 400 orders a side. */
export function bitfinexSpec(pair: string): MarketSpec {
  const [base, quote] = splitPair(pair).map(code => code.replace(/F0$/, '')) as [string, string]
  const usd = usdPrice(base)
  const price = quote in PRICES ? usd / usdPrice(quote) : usd
  const priceDecimals = Math.min(8, Math.max(0, 4 - Math.floor(Math.log10(price))))
  const startTicks = Math.max(40, Math.round(price * 10 ** priceDecimals))
  return {
    name: pair,
    priceDecimals,
    startTicks,
    sizeDecimals: 8,
    typicalSize: Math.round(Math.min(1e14, (2000 / usd) * 1e8)),
    ordersPerSide: 400,
    spanTicks: Math.min(120, startTicks / 6)
  }
}

/** The kind of an OKX instrument, as `instType` says it. */
export type OkxKind = 'SPOT' | 'SWAP' | 'FUTURES' | 'OPTION'

/** The facts of an OKX instrument that the REST answer and the market share. */
export interface OkxListing {
  readonly kind: OkxKind
  readonly base: string
  readonly quote: string
  /** One contract's worth in `base`, or in USD if inverse; undefined for spot. */
  readonly contractValue: number | undefined
  readonly isInverse: boolean
  readonly priceDecimals: number
  readonly sizeDecimals: number
}

function okxKind(parts: readonly string[]): OkxKind {
  if (parts.length === 2) return 'SPOT'
  if (parts.length > 3) return 'OPTION'
  return parts[2] === 'SWAP' ? 'SWAP' : 'FUTURES'
}

/** What an OKX instrument's name tells about it; values of the known coins are the exchange's own. */
export function okxListing(instId: string): OkxListing {
  const parts = instId.split('-')
  const [base, quote] = parts as [string, string]
  const kind = okxKind(parts)
  const isInverse = kind !== 'SPOT' && quote === 'USD'
  const usd = usdPrice(base)
  const linearValue = usd > 10_000 ? 0.01 : usd > 1000 ? 0.1 : usd > 1 ? 1 : 1000
  const inverseValue = base === 'BTC' ? 100 : 10
  const derivedValue = isInverse && kind !== 'OPTION' ? inverseValue : linearValue
  const spotDecimals = usd > 10_000 ? 8 : usd > 1 ? 6 : 2
  return {
    kind,
    base,
    quote,
    contractValue: kind === 'SPOT' ? undefined : derivedValue,
    isInverse,
    // A tick is about a millionth of the price: the books are as fine as the exchange's and many levels deep.
    priceDecimals: Math.max(0, 5 - Math.floor(Math.log10(usd))),
    sizeDecimals: kind === 'SPOT' ? spotDecimals : isInverse ? 0 : 2
  }
}

/** An OKX instrument's market: well over 400 levels a side. */
export function okxSpec(instId: string): MarketSpec {
  const { kind, isInverse, base, contractValue, priceDecimals, sizeDecimals } = okxListing(instId)
  const usd = usdPrice(base)
  // An order of some thousand USD, in coins or in contracts.
  const coins = 2000 / usd
  const isInUsd = isInverse && kind !== 'OPTION'
  const size = contractValue === undefined ? coins : (isInUsd ? 5000 : coins) / contractValue
  return {
    name: instId,
    priceDecimals,
    startTicks: Math.round(usd * 10 ** priceDecimals),
    sizeDecimals,
    typicalSize: Math.max(3, Math.round(size * 10 ** sizeDecimals)),
    ordersPerSide: 1200,
    spanTicks: 700
  }
}
