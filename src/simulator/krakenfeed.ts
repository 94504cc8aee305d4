import {
  type ChecksumRow,
  checksumLevels,
  fixedText,
  isWithin,
  krakenChecksum,
  type OrderChange,
  QueueBook,
  type QueuedOrder,
  type QueueLevel
} from './krakenbook.ts'
import type { KrakenPair } from './krakenpairs.ts'
import { Market, type MarketListener, type Order, type Side, type Trade } from './market.ts'
import { createRandom, hashText, type Random } from './random.ts'
import type { Subscription } from './server.ts'

const SIDES = ['bid', 'ask'] as const
const TRADES_IN_SNAPSHOT = 50
const TRADES_KEPT = 20_000
const REST_TRADES_MAX = 1000
/** Prices in REST have at least this many decimals, whatever the pair has. */
const REST_PRICE_DECIMALS = 5
/** How often a message holds one event alone. */
const SINGLE_EVENT_CHANCE = 0.6

/** The two channels that show a book. */
export type BookChannel = 'book' | 'level3'

/** A fill with what the exchange adds to it. `timeNs` is in nanoseconds since the epoch, as text. */
interface PrintedTrade extends Trade {
  readonly timeNs: string
  readonly isLimit: boolean
}

/** Gives every event a moment of its own, in nanoseconds since the epoch, later than the one before. */
class Clock {
  private ms = 0
  private ns = 0
  private readonly random: Random

  constructor(random: Random) {
    this.random = random
  }

  next(nowMs: number): string {
    if (nowMs > this.ms) {
      this.ms = nowMs
      this.ns = 0
    }
    // More than a microsecond apart, because some channels tell no less.
    this.ns += 1000 + this.random.integer(2000)
    if (this.ns >= 1_000_000) {
      this.ms++
      this.ns -= 1_000_000
    }
    return `${this.ms}${String(this.ns).padStart(6, '0')}`
  }
}

/** The RFC 3339 text of a moment (nanoseconds since the epoch as text) with 6 or 9 decimals. */
export function momentText(timeNs: string, decimals: 6 | 9): string {
  const whole = new Date(Number(timeNs.slice(0, -6))).toISOString().slice(0, -1)
  return `${whole}${timeNs.slice(-6).slice(0, decimals - 3)}Z`
}

/** What a window on a book is made from. */
interface ViewSettings {
  readonly pair: KrakenPair
  readonly book: QueueBook
  readonly depth: number
  readonly random: Random
}

/**
 * A window on a book: its best `depth` levels, shared by all who see it. What happens up to the last level that readers
 * know is told event by event. If fewer levels than `depth` are left of those, the next ones are told whole; if there are
 * more, readers drop the worst without being told.
 */
abstract class View {
  abstract readonly channel: BookChannel
  readonly followers = new Set<Subscription>()
  readonly depth: number
  protected readonly pair: KrakenPair
  protected readonly book: QueueBook
  protected readonly random: Random
  /** The price of the last level that readers know; undefined while they know the whole side. */
  private readonly edges: Record<Side, number | undefined>

  constructor({ pair, book, depth, random }: ViewSettings) {
    this.depth = depth
    this.pair = pair
    this.book = book
    this.random = random
    this.edges = { bid: book.levels('bid')[depth - 1]?.price, ask: book.levels('ask')[depth - 1]?.price }
  }

  /** The data of the snapshot, without the braces. */
  snapshot(timeNs: string): (checksum: number) => string {
    const rows = (side: Side): string =>
      this.book
        .levels(side)
        .slice(0, this.depth)
        .flatMap(level => this.whole(level, undefined))
        .join()
    return this.frame('snapshot', rows('bid'), rows('ask'), timeNs)
  }

  /** The update that tells the changes; undefined if they were all outside the window. */
  update(changes: readonly OrderChange[], timeNs: string): ((checksum: number) => string) | undefined {
    const rows: Record<Side, string[]> = { bid: [], ask: [] }
    for (const change of changes) rows[change.side].push(...this.told(change, this.edges[change.side]))
    for (const side of SIDES) {
      const levels = this.book.levels(side)
      const edge = this.edges[side]
      if (edge !== undefined) {
        const at = this.book.place(side, edge)
        const known = levels[at]?.price === edge ? at + 1 : at
        for (const level of levels.slice(known, this.depth)) rows[side].push(...this.whole(level, 'add'))
      }
      this.edges[side] = levels[this.depth - 1]?.price
    }
    if (rows.bid.length + rows.ask.length === 0) return undefined
    return this.frame('update', rows.bid.join(), rows.ask.join(), timeNs)
  }

  /** What a checksum of this channel is taken of. */
  abstract checksumRows(level: QueueLevel): ChecksumRow[]
  /** The entries of a change, given the price of the last level that readers know. */
  protected abstract told(change: OrderChange, edge: number | undefined): string[]
  /** The entries of a whole level; `event` is undefined in a snapshot. */
  protected abstract whole(level: QueueLevel, event: 'add' | undefined): string[]
  protected abstract moment(timeNs: string): string

  private frame(type: string, bids: string, asks: string, timeNs: string): (checksum: number) => string {
    const head = `{"channel":"${this.channel}","type":"${type}","data":[{"symbol":"${this.pair.symbol}"`
    const time = this.moment(timeNs)
    return checksum => `${head},"bids":[${bids}],"asks":[${asks}],"checksum":${checksum},"timestamp":"${time}"}]}`
  }

  protected price(ticks: number): string {
    return priceText(this.pair, ticks)
  }

  protected qty(units: number): string {
    return qtyText(this.pair, units)
  }
}

/** `book`: price levels. */
class LevelView extends View {
  readonly channel = 'book'

  checksumRows({ price, size }: QueueLevel): ChecksumRow[] {
    return [[this.price(price), this.qty(size)]]
  }

  protected told({ side, levels }: OrderChange, edge: number | undefined): string[] {
    return levels.filter(([price]) => isWithin(side, price, edge)).map(([price, size]) => this.row(price, size))
  }

  protected whole({ price, size }: QueueLevel): string[] {
    return [this.row(price, size)]
  }

  protected moment(timeNs: string): string {
    return momentText(timeNs, 6)
  }

  private row(price: number, size: number): string {
    return `{"price":${this.price(price)},"qty":${this.qty(size)}}`
  }
}

/** `level3`: order by order. */
class OrderView extends View {
  readonly channel = 'level3'

  checksumRows({ price, orders }: QueueLevel): ChecksumRow[] {
    const text = this.price(price)
    return orders.map(({ size }) => [text, this.qty(size)])
  }

  protected told(change: OrderChange, edge: number | undefined): string[] {
    const { side, from, to, orderId: id, size, timeNs } = change
    const wasKnown = from !== undefined && isWithin(side, from, edge)
    if (to !== undefined && isWithin(side, to, edge))
      return [this.row({ id, price: to, size, timeNs }, wasKnown ? 'modify' : 'add')]
    return wasKnown ? [this.row({ id, price: from, size, timeNs }, 'delete')] : []
  }

  protected whole({ orders }: QueueLevel, event: 'add' | undefined): string[] {
    return orders.map(order => this.row(order, event))
  }

  protected moment(timeNs: string): string {
    return momentText(timeNs, 9)
  }

  private row({ id, price, size, timeNs }: QueuedOrder, event: 'add' | 'modify' | 'delete' | undefined): string {
    const head = event ? `"event":"${event}",` : ''
    // Readers must not count on the quantity of an order that goes.
    const qty = event === 'delete' && this.random.next() < 0.1 ? '' : `,"order_qty":${this.qty(size)}`
    return `{${head}"order_id":"${id}","limit_price":${this.price(price)}${qty},"timestamp":"${momentText(timeNs, 9)}"}`
  }
}

/** One pair: its market, its book with the queues, its trades, and who follows them. */
export class KrakenFeed implements MarketListener {
  readonly pair: KrakenPair
  private readonly market: Market
  private readonly book: QueueBook
  private readonly random: Random
  private readonly clock: Clock
  private readonly views = new Map<string, View>()
  private readonly tradeFollowers = new Set<Subscription>()
  /** Oldest first. */
  private trades: PrintedTrade[]
  /** What the next messages will tell. */
  private changes: OrderChange[] = []
  private fills: PrintedTrade[] = []
  /** The fill whose change of the resting order is still to come. */
  private isFill = false
  private nowMs: number

  /** `eventsPerSecond` 0 makes a market that never moves; `nowMs` is since the epoch. */
  constructor(pair: KrakenPair, seed: number, eventsPerSecond: number, nowMs: number) {
    this.pair = pair
    this.nowMs = nowMs
    this.random = createRandom(hashText(pair.symbol) ^ seed)
    this.clock = new Clock(this.random)
    this.market = new Market(pair.spec, seed, eventsPerSecond, nowMs)
    this.market.listener = this
    this.book = new QueueBook(pair.symbol)
    const past = new Clock(this.random)
    this.trades = this.market.trades.map(trade => ({ ...trade, timeNs: past.next(trade.atMs), isLimit: false }))
    const resting = SIDES.flatMap(side => this.market.orders(side)).sort((a, b) => a.id - b.id)
    const ages = new Clock(this.random)
    resting.forEach((order, index) => {
      this.book.apply(order, false, false, ages.next(nowMs - (resting.length - index) * 100))
    })
  }

  get isFollowed(): boolean {
    return this.views.size > 0 || this.tradeFollowers.size > 0
  }

  /** Lets the market move and tells the followers. */
  tick(elapsedMs: number, nowMs: number): void {
    this.nowMs = nowMs
    this.market.advance(elapsedMs, nowMs)
    this.flush()
  }

  traded(trade: Trade): void {
    const last = this.fills.at(-1)
    if (last?.takerId !== trade.takerId) this.flush()
    const isLimit = this.fills[0]?.isLimit ?? this.random.next() < 0.6
    this.fills.push({ ...trade, isLimit, timeNs: this.clock.next(this.nowMs) })
    this.isFill = true
  }

  changed(order: Order, _from: number, to: number): void {
    const { isFill } = this
    this.isFill = false
    // What one taker does stands in one message; other events share one now and then.
    if (!isFill && (this.fills.length > 0 || this.random.next() < SINGLE_EVENT_CHANCE)) this.flush()
    this.changes.push(this.book.apply(order, to < 0, isFill, this.clock.next(this.nowMs)))
  }

  /** Sends the book as it is to one subscriber. */
  sendBook(subscription: Subscription, channel: BookChannel, depth: number, nowMs: number): void {
    const view = this.views.get(`${channel}:${depth}`) ?? this.createView(channel, depth)
    const build = view.snapshot(this.clock.next(nowMs))
    this.send(subscription, build, this.checksum(view), 'other', nowMs)
  }

  /** Sends the newest trades to one subscriber. */
  sendTrades(subscription: Subscription, nowMs: number): void {
    const text = this.tradeText('snapshot', this.trades.slice(-TRADES_IN_SNAPSHOT))
    subscription.connection.sendFrame(subscription, text, 'other', nowMs)
  }

  /** Tells a subscriber what happens from now on. */
  followBook(subscription: Subscription, channel: BookChannel, depth: number): void {
    const key = `${channel}:${depth}`
    const view = this.views.get(key) ?? this.createView(channel, depth)
    this.views.set(key, view)
    view.followers.add(subscription)
  }

  /** Tells a subscriber of the trades from now on. */
  followTrades(subscription: Subscription): void {
    this.tradeFollowers.add(subscription)
  }

  forget(subscription: Subscription): void {
    this.tradeFollowers.delete(subscription)
    for (const [key, view] of this.views) {
      if (view.followers.delete(subscription) && view.followers.size === 0) this.views.delete(key)
    }
  }

  /**
   * The trades after a moment (nanoseconds since the epoch as text), oldest first, as REST shows them; the newest ones
   * without it. `last` is the moment to ask for next.
   */
  restTrades(sinceNs: string | undefined, count: number): { rows: unknown[][]; last: string } {
    const max = Math.max(1, Math.min(count, REST_TRADES_MAX))
    const trades =
      sinceNs === undefined
        ? this.trades.slice(-max)
        : this.trades.filter(({ timeNs }) => BigInt(timeNs) > BigInt(sinceNs)).slice(0, max)
    const { spec, priceDecimals } = this.pair
    const decimals = Math.max(REST_PRICE_DECIMALS, priceDecimals)
    const rows = trades.map(({ id, side, price, size, timeNs, isLimit }) => [
      fixedText(price * 10 ** (decimals - spec.priceDecimals), decimals),
      qtyText(this.pair, size),
      Number(`${timeNs.slice(0, -9)}.${timeNs.slice(-9, -2)}`),
      side === 'buy' ? 'b' : 's',
      isLimit ? 'l' : 'm',
      '',
      id
    ])
    return { rows, last: trades.at(-1)?.timeNs ?? sinceNs ?? `${this.nowMs}000000` }
  }

  private createView(channel: BookChannel, depth: number): View {
    const settings = { pair: this.pair, book: this.book, depth, random: this.random }
    return channel === 'book' ? new LevelView(settings) : new OrderView(settings)
  }

  /** Tells the trades and changes collected so far: in one message each. */
  private flush(): void {
    const { fills, changes } = this
    this.fills = []
    this.changes = []
    if (fills.length > 0) this.print(fills)
    const timeNs = changes.at(-1)?.timeNs
    if (timeNs === undefined) return
    const checksums: Partial<Record<BookChannel, number>> = {}
    for (const view of this.views.values()) {
      const build = view.update(changes, timeNs)
      if (!build) continue
      checksums[view.channel] ??= this.checksum(view)
      for (const follower of view.followers) {
        this.send(follower, build, checksums[view.channel]!, 'update', this.nowMs)
      }
    }
  }

  private print(fills: PrintedTrade[]): void {
    this.trades.push(...fills)
    if (this.trades.length > TRADES_KEPT * 1.1) this.trades = this.trades.slice(-TRADES_KEPT)
    if (this.tradeFollowers.size === 0) return
    const text = this.tradeText('update', fills)
    for (const follower of this.tradeFollowers) follower.connection.sendFrame(follower, text, 'trade', this.nowMs)
  }

  private send(
    subscription: Subscription,
    build: (checksum: number) => string,
    checksum: number,
    kind: 'update' | 'other',
    nowMs: number
  ): void {
    const isWrong = subscription.connection.takeFault('corrupt-checksum', this.pair.symbol)
    subscription.connection.sendFrame(subscription, build(isWrong ? ~checksum >>> 0 : checksum), kind, nowMs)
  }

  /** All windows of a channel have the same: none is smaller than what a checksum covers. */
  private checksum(view: View): number {
    const rows = (side: Side): ChecksumRow[] =>
      checksumLevels(this.book, side).flatMap(level => view.checksumRows(level))
    return krakenChecksum(rows('ask'), rows('bid'))
  }

  private tradeText(type: string, trades: readonly PrintedTrade[]): string {
    const rows = trades.map(
      ({ id, side, price, size, timeNs, isLimit }) =>
        `{"symbol":"${this.pair.symbol}","side":"${side}","price":${priceText(this.pair, price)},` +
        `"qty":${qtyText(this.pair, size)},"ord_type":"${isLimit ? 'limit' : 'market'}","trade_id":${id},` +
        `"timestamp":"${momentText(timeNs, 6)}"}`
    )
    return `{"channel":"trade","type":"${type}","data":[${rows.join()}]}`
  }
}

function priceText({ priceDecimals, spec }: KrakenPair, ticks: number): string {
  return fixedText(ticks * 10 ** (priceDecimals - spec.priceDecimals), priceDecimals)
}

function qtyText({ qtyDecimals, spec }: KrakenPair, units: number): string {
  return fixedText(units * 10 ** (qtyDecimals - spec.sizeDecimals), qtyDecimals)
}
