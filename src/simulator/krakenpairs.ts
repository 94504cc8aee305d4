import { listedInstruments, usdPrice } from './listing.ts'
import { type MarketSpec, plainText } from './market.ts'

/** What counts as one USD, as far as the simulated markets care. */
const CURRENCIES = ['USD', 'EUR', 'GBP', 'JPY', 'CAD', 'AUD', 'CHF', 'USDT', 'USDC', 'DAI']
/** The exchange's own precision of the prices in a currency. */
const PRICE_DECIMALS: Record<string, number> = { BTC: 1, ETH: 2, SOL: 2, DOGE: 7, LTC: 2, XRP: 5 }
const QTY_DECIMALS = 8
const COST_DECIMALS = 5
const ORDER_USD = 2000
const SMALLEST_ORDER_USD = 5
/** Names of v1 and REST that differ from those of v2. */
const OLD_NAMES: Record<string, string> = { BTC: 'XBT', DOGE: 'XDG' }
/** Assets of the first years have a letter in front of their REST name. */
const OLD_COINS = ['XBT', 'XDG', 'ETH', 'LTC', 'XRP', 'XLM', 'XMR', 'ZEC', 'ETC', 'REP', 'MLN']
const OLD_CURRENCIES = ['USD', 'EUR', 'GBP', 'JPY', 'CAD', 'AUD']

/** A pair of the simulated Kraken under its many names. */
export interface KrakenPair {
  /** The name in v2: `BTC/USD`. */
  readonly symbol: string
  readonly base: string
  readonly quote: string
  /** The key in REST answers: `XXBTZUSD`. */
  readonly restId: string
  /** `XBTUSD` */
  readonly altname: string
  /** The name in v1: `XBT/USD`. */
  readonly wsname: string
  /** The REST names of the assets: `XXBT` and `ZUSD`. */
  readonly restBase: string
  readonly restQuote: string
  readonly spec: MarketSpec
  /** The smallest order, in base currency. */
  readonly smallest: string
  /** Decimals of the prices on the wire: at least those of the market. */
  priceDecimals: number
  /** Decimals of the quantities on the wire: at least those of the market. */
  qtyDecimals: number
}

/** The pairs of the simulated Kraken, the usual ones and the extra ones, by their names in v2. */
export function krakenPairs(extra: readonly string[]): Map<string, KrakenPair> {
  return new Map(listedInstruments('kraken', extra).map(symbol => [symbol, krakenPair(symbol)]))
}

function krakenPair(symbol: string): KrakenPair {
  const [base = '', quote = 'USD'] = symbol.split('/')
  const [oldBase, oldQuote] = [OLD_NAMES[base] ?? base, OLD_NAMES[quote] ?? quote]
  const altname = oldBase + oldQuote
  const [restBase, restQuote] = [restAsset(oldBase), restAsset(oldQuote)]
  // The key of dogecoin is as short as that of a young coin.
  const isOld = restBase !== oldBase && restQuote !== oldQuote && oldBase !== 'XDG'
  const spec = krakenSpec(symbol, base, quote)
  return {
    symbol,
    base,
    quote,
    restId: isOld ? restBase + restQuote : altname,
    altname,
    wsname: `${oldBase}/${oldQuote}`,
    restBase,
    restQuote,
    spec,
    smallest: smallestOrder(base),
    priceDecimals: spec.priceDecimals,
    qtyDecimals: spec.sizeDecimals
  }
}

/** A Kraken pair's market: queues at the best prices, and more levels a side than the deepest window has. */
function krakenSpec(symbol: string, base: string, quote: string): MarketSpec {
  const usd = usdPrice(base)
  const isPricedInCurrency = CURRENCIES.includes(quote)
  const price = isPricedInCurrency ? usd : usd / usdPrice(quote)
  const fine = Math.min(10, Math.max(0, 5 - Math.floor(Math.log10(price))))
  const priceDecimals = (isPricedInCurrency ? PRICE_DECIMALS[base] : undefined) ?? fine
  // Room for all levels above zero.
  const startTicks = Math.max(6000, Math.round(price * 10 ** priceDecimals))
  return {
    name: symbol,
    priceDecimals,
    startTicks,
    sizeDecimals: QTY_DECIMALS,
    typicalSize: Math.round(Math.min(1e13, (ORDER_USD / usd) * 10 ** QTY_DECIMALS)),
    ordersPerSide: 3000,
    spanTicks: 600
  }
}

/** Rounded to one digit, as the exchange's limits are. */
function smallestOrder(base: string): string {
  const units = (SMALLEST_ORDER_USD / usdPrice(base)) * 10 ** QTY_DECIMALS
  const step = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(1, units))))
  return plainText(Math.max(1, Math.round(units / step)) * step, QTY_DECIMALS)
}

function restAsset(name: string): string {
  if (OLD_COINS.includes(name)) return `X${name}`
  return OLD_CURRENCIES.includes(name) ? `Z${name}` : name
}

/** The pairs that a REST request names, all if it names none; undefined if one of the names is unknown. */
export function pairsNamed(pairs: Iterable<KrakenPair>, names: string | null): KrakenPair[] | undefined {
  const all = [...pairs]
  if (names === null) return all
  const named = names
    .split(',')
    .map(name =>
      all.find(({ restId, altname, wsname, symbol }) => [restId, altname, wsname, symbol].includes(name.trim()))
    )
  return named.every(pair => pair !== undefined) ? named : undefined
}

/** What `/0/public/AssetPairs` shows of the pairs that a request names; undefined if one of the names is unknown. */
export function assetPairs(
  pairs: Iterable<KrakenPair>,
  names: string | null,
  status: string
): Record<string, unknown> | undefined {
  const named = pairsNamed(pairs, names)
  if (!named) return undefined
  const listed = Object.fromEntries(named.map(pair => [pair.restId, assetPair(pair, status)]))
  const [first] = named
  if (names !== null || !first) return listed
  // The dark twin of a pair is no pair of the WebSockets and has no name there.
  const { wsname: _, ...facts } = assetPair(first, status)
  return { ...listed, [`${first.restId}.d`]: { ...facts, altname: `${first.altname}.d` } }
}

function assetPair(pair: KrakenPair, status: string): Record<string, unknown> {
  return {
    altname: pair.altname,
    wsname: pair.wsname,
    aclass_base: 'currency',
    base: pair.restBase,
    aclass_quote: 'currency',
    quote: pair.restQuote,
    lot: 'unit',
    cost_decimals: COST_DECIMALS,
    pair_decimals: pair.priceDecimals,
    lot_decimals: pair.qtyDecimals,
    lot_multiplier: 1,
    leverage_buy: [2, 3],
    leverage_sell: [2, 3],
    fees: [
      [0, 0.4],
      [10_000, 0.35]
    ],
    fees_maker: [
      [0, 0.25],
      [10_000, 0.2]
    ],
    fee_volume_currency: 'ZUSD',
    margin_call: 80,
    margin_stop: 40,
    ordermin: pair.smallest,
    costmin: '0.5',
    tick_size: plainText(1, pair.priceDecimals),
    status,
    long_position_limit: 250,
    short_position_limit: 200
  }
}

/** A frame of the `instrument` channel: a snapshot also has the assets, an update has the pairs that changed. */
export function instrumentFrame(type: 'snapshot' | 'update', pairs: readonly KrakenPair[], isOnline: boolean): string {
  const assets = type === 'snapshot' ? [...new Set(pairs.flatMap(({ base, quote }) => [base, quote]))] : []
  const status = isOnline ? 'online' : 'maintenance'
  const [assetTexts, pairTexts] = [assets.map(assetText), pairs.map(pair => pairText(pair, status))]
  const data = `{"assets":[${assetTexts.join()}],"pairs":[${pairTexts.join()}]}`
  return `{"channel":"instrument","type":"${type}","data":${data}}`
}

function assetText(id: string): string {
  const [precision, display] = OLD_CURRENCIES.includes(id) ? [4, 2] : [10, 5]
  const facts = [
    `"id":"${id}","status":"enabled","precision":${precision},"precision_display":${display}`,
    '"borrowable":true,"collateral_value":1.00,"margin_rate":0.020000,"class":"currency","multiplier":1'
  ]
  return `{${facts.join()}}`
}

/** Written by hand: increments are plain decimals, which `JSON.stringify` would write with exponents. */
function pairText(pair: KrakenPair, status: string): string {
  const { symbol, base, quote, priceDecimals, qtyDecimals, smallest } = pair
  const tick = plainText(1, priceDecimals)
  const facts = [
    `"symbol":"${symbol}","base":"${base}","quote":"${quote}","status":"${status}"`,
    `"qty_precision":${qtyDecimals},"qty_increment":${plainText(1, qtyDecimals)},"price_precision":${priceDecimals}`,
    `"cost_precision":${COST_DECIMALS},"marginable":true,"has_index":true,"cost_min":0.50,"margin_initial":0.20`,
    `"position_limit_long":250,"position_limit_short":200,"tick_size":${tick},"price_increment":${tick}`,
    `"qty_min":${smallest},"ws_display_price_precision":${priceDecimals}`
  ]
  return `{${facts.join()}}`
}
