/** The markets of the contract; `FEED_MARKETS` are their names in the snapshot feeds. */
export type Market = 'spot' | 'perp' | 'future' | 'option'
/** Order-by-order, or price levels. */
export type Level = 'l3' | 'l2'

/** What a connection may be for. */
export type FeedKind = 'book' | 'trades'

/** One thing that is traded on one exchange, captured at one level. */
export interface Instrument {
  readonly exchange: string
  /** The exchange's own name, without Bitfinex's leading `t`. */
  readonly instId: string
  readonly market: Market
  readonly level: Level
  /** The exchange's name of the book channel, as records show it. */
  readonly channel: string
}

const FEED_MARKETS: Record<Market, string> = { spot: 'spot', perp: 'perps', future: 'futures', option: 'options' }

/** Every market, and every level. */
export const MARKETS: readonly Market[] = ['spot', 'perp', 'future', 'option']
export const LEVELS: readonly Level[] = ['l3', 'l2']

/** The snapshot feed of an instrument, such as `l3_spot` or `l2_perps`. */
export function snapshotFeed(level: Level, market: Market): string {
  return `${level}_${FEED_MARKETS[market]}`
}

/** Every feed a vault may hold. */
export const FEEDS: readonly string[] = [
  'frames',
  'l3_events',
  'l2_updates',
  'trades',
  'status',
  ...LEVELS.flatMap(level => MARKETS.map(market => snapshotFeed(level, market)))
]
