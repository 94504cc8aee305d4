import crc32 from 'crc-32'
import {
  diffLevels,
  type Level,
  levelsOf,
  type Market,
  type MarketListener,
  type Order,
  type Side,
  scaled,
  type Trade
} from './market.ts'
import type { FrameKind, Subscription } from './server.ts'

const CHECKSUM_ROWS = 25
const CHECKSUM_MS = 2500
/** `tu` follows `te` when the trade is in the exchange's database. */
const TRADE_STORED_MS = 150
const TRADES_IN_SNAPSHOT = 30

/** A subscription; `key` is what makes a second one of it a duplicate. */
export interface Channel extends Subscription {
  readonly id: number
  readonly key: string
  readonly feed: Feed
  readonly view: BookView | undefined
  nextHeartbeatMs: number
}

/** Hands the payload of a channel frame, such as `[1,2,3]` or `"te",[…]`, to subscribers. */
export type Publish = (channels: Iterable<Channel>, payload: string, kind: FrameKind) => void

/** One window on a book (R0: the best `length` orders a side, P0: levels), shared by all who see it. */
export abstract class BookView {
  readonly channels = new Set<Channel>()
  protected readonly market: Market
  protected readonly length: number
  protected readonly publish: Publish
  private isChanged = false
  private nextChecksumMs = 0

  constructor(market: Market, length: number, publish: Publish) {
    this.market = market
    this.length = length
    this.publish = publish
  }

  abstract snapshot(): string
  /** Tells what an event did to the window. */
  abstract changed(order: Order, from: number, to: number): void
  /** Tells what the events of a tick did to the window. */
  abstract flush(): void
  /** The key (order id or price) and the size of the best rows of a side, as numbers of the wire. */
  protected abstract best(side: Side): [key: number, size: number][]

  protected update(row: string): void {
    this.isChanged = true
    this.publish(this.channels, row, 'update')
  }

  /** The CRC of the best 25 rows of each side, when one is due: the book changed, and the last was a while ago. */
  dueChecksum(nowMs: number): number | undefined {
    if (!this.isChanged || nowMs < this.nextChecksumMs) return undefined
    this.isChanged = false
    this.nextChecksumMs = nowMs + CHECKSUM_MS
    const bids = this.best('bid')
    const asks = this.best('ask')
    const words: number[] = []
    for (let index = 0; index < CHECKSUM_ROWS; index++) {
      const bid = bids[index]
      const ask = asks[index]
      if (bid) words.push(bid[0], bid[1])
      if (ask) words.push(ask[0], -ask[1])
    }
    return crc32.str(words.join(':'))
  }
}

/** The raw book: order by order, at once. */
class OrderView extends BookView {
  snapshot(): string {
    const rows = (['bid', 'ask'] as const).flatMap(side => this.market.orders(side).slice(0, this.length))
    return `[${rows.map(order => this.row(order)).join()}]`
  }

  changed(order: Order, from: number, to: number): void {
    const { length } = this
    const orders = this.market.orders(order.side)
    const wasInside = from >= 0 && from < length
    const isInside = to >= 0 && to < length
    // Deletes go first: not even for a moment is a reader's book deeper than the window.
    if (wasInside && isInside) {
      this.update(this.row(order))
    } else if (wasInside) {
      this.update(this.deletion(order))
      const next = orders[length - 1]
      if (next) this.update(this.row(next))
    } else if (isInside) {
      const last = orders[length]
      if (last) this.update(this.deletion(last))
      this.update(this.row(order))
    }
  }

  flush(): void {
    // Everything was told at once.
  }

  protected best(side: Side): [number, number][] {
    const orders = this.market.orders(side).slice(0, Math.min(CHECKSUM_ROWS, this.length))
    return orders.map(({ id, size }) => [id, scaled(size, this.market.spec.sizeDecimals)])
  }

  private row({ id, side, price, size }: Order): string {
    const { priceDecimals, sizeDecimals } = this.market.spec
    const sign = side === 'bid' ? '' : '-'
    return `[${id},${scaled(price, priceDecimals)},${sign}${scaled(size, sizeDecimals)}]`
  }

  private deletion({ id, side }: Order): string {
    return `[${id},0,${side === 'bid' ? 1 : -1}]`
  }
}

/** The finest price book: levels, each row once per tick. */
class LevelView extends BookView {
  private told: Record<Side, Level[]>

  constructor(market: Market, length: number, publish: Publish) {
    super(market, length, publish)
    this.told = { bid: levelsOf(market.orders('bid'), length), ask: levelsOf(market.orders('ask'), length) }
  }

  snapshot(): string {
    const rows = (['bid', 'ask'] as const).flatMap(side => this.told[side].map(level => this.row(side, level)))
    return `[${rows.join()}]`
  }

  changed(): void {
    // The tick's end tells it.
  }

  flush(): void {
    for (const side of ['bid', 'ask'] as const) {
      const levels = levelsOf(this.market.orders(side), this.length)
      const { gone, set } = diffLevels(side, this.told[side], levels)
      this.told[side] = levels
      for (const { price } of gone) this.update(`[${this.price(price)},0,${side === 'bid' ? 1 : -1}]`)
      for (const level of set) this.update(this.row(side, level))
    }
  }

  protected best(side: Side): [number, number][] {
    const levels = this.told[side].slice(0, CHECKSUM_ROWS)
    return levels.map(({ price, size }) => [this.price(price), scaled(size, this.market.spec.sizeDecimals)])
  }

  private price(ticks: number): number {
    return scaled(ticks, this.market.spec.priceDecimals)
  }

  private row(side: Side, { price, size, count }: Level): string {
    const sign = side === 'bid' ? '' : '-'
    return `[${this.price(price)},${count},${sign}${scaled(size, this.market.spec.sizeDecimals)}]`
  }
}

/** One instrument: its market, the windows on its book, and who follows its trades. */
export class Feed implements MarketListener {
  readonly market: Market
  readonly views = new Map<string, BookView>()
  readonly tradeChannels = new Set<Channel>()
  private readonly publish: Publish
  private executed: Trade[] = []

  constructor(market: Market, publish: Publish) {
    this.market = market
    this.publish = publish
    market.listener = this
  }

  /** The window of a precision and length, made at its first use. */
  view(precision: string, length: string): BookView {
    const key = `${precision}:${length}`
    const known = this.views.get(key)
    if (known) return known
    const View = precision === 'R0' ? OrderView : LevelView
    const view = new View(this.market, Number.parseInt(length, 10), this.publish)
    this.views.set(key, view)
    return view
  }

  get isFollowed(): boolean {
    return this.views.size > 0 || this.tradeChannels.size > 0
  }

  forget(channel: Channel): void {
    this.tradeChannels.delete(channel)
    if (!channel.view?.channels.delete(channel) || channel.view.channels.size > 0) return
    for (const [key, view] of this.views) if (view === channel.view) this.views.delete(key)
  }

  changed(order: Order, from: number, to: number): void {
    for (const view of this.views.values()) view.changed(order, from, to)
  }

  traded(trade: Trade): void {
    this.publish(this.tradeChannels, `"te",${this.tradeRow(trade)}`, 'trade')
    this.executed.push(trade)
  }

  /** Tells the trades that have been stored meanwhile. */
  flushTrades(nowMs: number): void {
    let count = 0
    for (const trade of this.executed) {
      if (trade.atMs > nowMs - TRADE_STORED_MS) break
      this.publish(this.tradeChannels, `"tu",${this.tradeRow(trade)}`, 'other')
      count++
    }
    if (count > 0) this.executed = this.executed.slice(count)
  }

  tradeSnapshot(): string {
    const newest = this.market.trades.slice(-TRADES_IN_SNAPSHOT).reverse()
    return `[${newest.map(trade => this.tradeRow(trade)).join()}]`
  }

  private tradeRow({ id, atMs, side, size, price }: Trade): string {
    const { priceDecimals, sizeDecimals } = this.market.spec
    const sign = side === 'buy' ? '' : '-'
    return `[${id},${atMs},${sign}${scaled(size, sizeDecimals)},${scaled(price, priceDecimals)}]`
  }
}
