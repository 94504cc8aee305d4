import type { MarketSpec } from './market.ts'
import { hashText } from './random.ts'

/** The exchanges that can be simulated. */
export const SIMULATED_EXCHANGES = ['bitfinex', 'okx', 'coinbase', 'bitstamp', 'kraken', 'binance', 'huobi'] as const
/** One of the exchanges that can be simulated. */
export type SimulatedExchange = (typeof SIMULATED_EXCHANGES)[number]

/**
 * What simulated exchanges accept as credentials, where the real ones ask for some. The secret is base64, as issued.
 */
export const SIMULATED_CREDENTIALS = {
  key: 'simulated-key',
  secret: 'c2ltdWxhdGVkLXNlY3JldA==',
  passphrase: 'simulated-pass'
} as const

const LISTED: Record<SimulatedExchange, readonly string[]> = {
  bitfinex: ['BTCUSD', 'ETHUSD', 'LTCUSD', 'DOGE:USD', 'BTCF0:USTF0'],
  okx: ['BTC-USDT', 'ETH-USDT', 'BTC-USDT-SWAP', 'ETH-USDT-SWAP', 'BTC-USD-SWAP'],
  coinbase: ['BTC-USD', 'ETH-USD', 'SOL-USD', 'LTC-USD'],
  bitstamp: ['btcusd', 'ethusd', 'ltcusd', 'xrpusd'],
  kraken: ['BTC/USD', 'ETH/USD', 'SOL/USD', 'DOGE/USD'],
  // Each name is a spot pair and a USD-M perpetual.
  binance: ['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'LTCUSDT'],
  huobi: ['btcusdt', 'ethusdt', 'solusdt', 'ltcusdt', 'shibusdt']
}

const NAMES: Record<SimulatedExchange, RegExp> = {
  bitfinex: /^(?:[A-Z0-9]{6}|[A-Z0-9]+:[A-Z0-9]+)$/,
  okx: /^[A-Z0-9]+-[A-Z0-9]+(?:-SWAP|-\d{6}(?:-\d+-[CP])?)?$/,
  coinbase: /^[A-Z0-9]+-[A-Z0-9]+$/,
  bitstamp: /^[a-z0-9]{4,}$/,
  kraken: /^[A-Z0-9.]+\/[A-Z0-9.]+$/,
  // Some coins have names that are not ASCII.
  binance: /^[\p{Lu}\p{Lo}\p{N}]{4,}(?:_\d{6})?$/u,
  huobi: /^[a-z0-9]{4,}$/
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
  XRP: 0.70113,
  SHIB: 9.121e-7
}

/** The USD price that a coin's markets wander around; made up from the name for coins that are not known. */
export function usdPrice(coin: string): number {
  return PRICES[coin] ?? (10 + (hashText(coin) % 900)) / 10 ** (hashText(coin) % 4)
}

/** The two halves of a Bitfinex pair, with the mark of perpetuals (`F0`) still on them. */
export function splitPair(pair: string): [base: string, quote: string] {
  const colon = pair.indexOf(':')
  return colon < 0 ? [pair.slice(0, 3), pair.slice(3)] : [pair.slice(0, colon), pair.slice(colon + 1)]
}

/**
 * A Bitfinex pair's market: prices of five digits and at most 8 decimals, sizes of at most 8, about 400 orders a side.
 */
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

const QUOTES = /^(.+?)(USDT|USDC|FDUSD|USD|EUR|TRY|BTC|ETH|BNB|HT)$/

/**
 * The two coins of a name without a separator, such as `BTCUSDT` or `btcusdt`, in capitals; the quote is `USDT` if in
 * doubt.
 */
export function splitName(name: string): [base: string, quote: string] {
  const pair = name.toUpperCase().replace(/_\d+$/, '')
  const match = QUOTES.exec(pair)
  return match ? [match[1]!, match[2]!] : [pair, 'USDT']
}

/** What one unit of a name's base costs in its quote. */
function priceOf(name: string): number {
  const [base, quote] = splitName(name)
  return usdPrice(base) / (quote in PRICES ? usdPrice(quote) : 1)
}

/** The two kinds of Binance markets: spot pairs, and futures with USD margin. */
export type BinanceKind = 'spot' | 'usdm'

/** The digits of a Binance instrument: how fine it is, and how many decimals its texts show (the rest are zeros). */
export interface BinanceListing {
  readonly priceDecimals: number
  readonly sizeDecimals: number
  readonly priceShown: number
  readonly sizeShown: number
}

/** The digits of a Binance instrument. Spot texts always show 8 decimals. */
export function binanceListing(kind: BinanceKind, symbol: string): BinanceListing {
  const price = priceOf(symbol)
  const magnitude = Math.floor(Math.log10(price))
  const priceDecimals = Math.min(8, Math.max(2, 4 - magnitude))
  if (kind === 'spot') {
    return { priceDecimals, sizeDecimals: Math.min(5, Math.max(0, 1 + magnitude)), priceShown: 8, sizeShown: 8 }
  }
  // The tick of the largest is ten times as wide as its texts are fine.
  const sizeDecimals = Math.min(3, Math.max(0, magnitude))
  return {
    priceDecimals: magnitude >= 4 ? 1 : priceDecimals,
    sizeDecimals,
    priceShown: priceDecimals,
    sizeShown: sizeDecimals
  }
}

/**
 * A Binance instrument's market: more levels a side than the usual image of 1000 shows, where the ticks are fine
 * enough.
 */
export function binanceSpec(kind: BinanceKind, symbol: string): MarketSpec {
  const price = priceOf(symbol)
  const { priceDecimals, sizeDecimals } = binanceListing(kind, symbol)
  const startTicks = Math.max(40, Math.round(price * 10 ** priceDecimals))
  const coins = 2000 / usdPrice(splitName(symbol)[0])
  return {
    name: kind === 'spot' ? symbol : `${symbol} ${kind}`,
    priceDecimals,
    startTicks,
    sizeDecimals,
    typicalSize: Math.max(3, Math.round(Math.min(1e14, coins * 10 ** sizeDecimals))),
    ordersPerSide: 2000,
    spanTicks: Math.min(1500, startTicks / 8)
  }
}

/** The decimals of an HTX pair's prices and amounts. */
export function huobiPrecision(symbol: string): { price: number; amount: number } {
  const magnitude = Math.floor(Math.log10(priceOf(symbol)))
  return { price: Math.min(10, Math.max(2, 3 - magnitude)), amount: magnitude >= 4 ? 6 : magnitude >= 0 ? 4 : 2 }
}

/** An HTX pair's market: well over 400 levels a side. */
export function huobiSpec(symbol: string): MarketSpec {
  const { price, amount } = huobiPrecision(symbol)
  const startTicks = Math.max(40, Math.round(priceOf(symbol) * 10 ** price))
  const coins = 2000 / usdPrice(splitName(symbol)[0])
  return {
    name: symbol,
    priceDecimals: price,
    startTicks,
    sizeDecimals: amount,
    typicalSize: Math.max(3, Math.round(Math.min(1e13, coins * 10 ** amount))),
    ordersPerSide: 1200,
    spanTicks: Math.min(700, startTicks / 8)
  }
}
