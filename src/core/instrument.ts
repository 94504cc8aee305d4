/** The markets of the contract; `FEED_MARKETS` are their names in the snapshot feeds. */
export type Market = 'spot' | 'perp' | 'future' | 'option'
/** Order-by-order, or price levels. */
export type Level = 'l3' | 'l2'

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
  ...(['l3', 'l2'] as const).flatMap(level => (Object.keys(FEED_MARKETS) as Market[]).map(m => snapshotFeed(level, m)))
]
