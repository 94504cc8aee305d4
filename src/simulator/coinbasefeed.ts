import { levelsOf, Market, type MarketSpec, plainText, type Side, type Trade } from './market.ts'
import { type Fill, OrderFlow, type OrderFlowListener, type OrderState, paddedText, type Taker } from './orderflow.ts'
import { hashText } from './random.ts'
import type { FrameKind, Subscription } from './server.ts'

const BATCH_MS = 50
const TRADES_KEPT = 10_000
/** Numbers that passed between the old image and the start: messages that touched no book. */
const NUMBERS_BEFORE_START = 40
/** What the exchange sends where it has no time. */
const NO_TIME = '0001-01-01T00:00:00.000000Z'
/** REST shows trades with this many decimals, whatever the product's are. */
const REST_DECIMALS = 8

/** The channels of the simulator. `level2_50` is what the exchange calls `level2_batch` in its answers. */
export const CHANNELS = ['level3', 'full', 'level2', 'level2_50', 'matches', 'heartbeat'] as const
/** One of the channels. */
export type Channel = (typeof CHANNELS)[number]

/** The columns of the compact messages, by kind: what the schema frame of `level3` says. */
export const LEVEL3_SCHEMA = {
  change: ['type', 'product_id', 'sequence', 'order_id', 'price', 'size', 'time'],
  done: ['type', 'product_id', 'sequence', 'order_id', 'time'],
  match: ['type', 'product_id', 'sequence', 'maker_order_id', 'taker_order_id', 'price', 'size', 'time'],
  noop: ['type', 'product_id', 'sequence', 'time'],
  open: ['type', 'product_id', 'sequence', 'order_id', 'side', 'price', 'size', 'time']
} as const

type CompactKind = keyof typeof LEVEL3_SCHEMA

/** A message of the `full` channel without what all have in common. Prices and sizes are decimal texts. */
interface Message {
  readonly type: 'received' | 'open' | 'match' | 'done' | 'change'
  readonly order_id?: string
  readonly side?: 'buy' | 'sell'
  readonly price?: string | null
  readonly size?: string
  readonly [field: string]: string | number | null | undefined
}

/** A trade as REST tells it: `side` is the maker's, prices and sizes are texts of 8 decimals. */
export interface TradeRow {
  readonly time: string
  readonly trade_id: number
  readonly price: string
  readonly size: string
  readonly side: 'buy' | 'sell'
}

/** What a product is made from. */
export interface ProductSettings {
  readonly spec: MarketSpec
  readonly seed: number
  readonly eventsPerSecond: number
  /** Milliseconds between heartbeats. */
  readonly heartbeatMs: number
}

/** One product: its market, its numbering, and who follows which channel of it. */
export class Feed implements OrderFlowListener {
  readonly product: string
  private readonly followers: Record<Channel, Set<Subscription>> = {
    level3: new Set(),
    full: new Set(),
    level2: new Set(),
    level2_50: new Set(),
    matches: new Set(),
    heartbeat: new Set()
  }
  private readonly flow: OrderFlow
  private readonly settings: ProductSettings
  private readonly idSeed: number
  private readonly past: TradeRow[]
  /** The book before everything that anybody was told. */
  private readonly old: { sequence: number; bid: OrderState[]; ask: OrderState[] }
  private sequence: number
  private lastMatch: string
  private nowMs: number
  private stamp = { atMs: 0, micros: 0 }
  private nextBatchMs = 0
  private nextHeartbeatMs = 0

  constructor(settings: ProductSettings, nowMs: number) {
    const { spec, seed, eventsPerSecond } = settings
    this.product = spec.name
    this.settings = settings
    this.nowMs = nowMs
    this.idSeed = hashText(`${seed}:${spec.name}`)
    const market = new Market(spec, seed, eventsPerSecond, nowMs)
    this.flow = new OrderFlow(market, this)
    this.sequence = 134_905_860_000 + (this.idSeed % 900_000)
    this.past = market.trades.map(trade => this.tradeRow(trade, this.timeText(trade.atMs)))
    const newest = market.trades.at(-1)
    const made = newest && this.matchOf(newest, this.uuid(newest.takerId, 1))
    const common = { product_id: this.product, sequence: this.sequence, time: this.past.at(-1)?.time }
    this.lastMatch = made ? JSON.stringify({ ...made, ...common }) : ''
    this.old = { sequence: this.sequence, bid: this.flow.standing('bid'), ask: this.flow.standing('ask') }
    this.sequence += NUMBERS_BEFORE_START
  }

  get isFollowed(): boolean {
    return CHANNELS.some(channel => this.followers[channel].size > 0)
  }

  /** Begins a subscription: level 2 with the book, matches with the last of them, the others with whatever comes next. */
  join(channel: Channel, subscription: Subscription, nowMs: number): void {
    this.nowMs = nowMs
    if (channel === 'level2' || channel === 'level2_50') {
      // What the others have yet to hear of is in the snapshot already.
      this.pushBatch()
      this.send([subscription], this.snapshot(), 'other')
    }
    if (channel === 'matches' && this.lastMatch) {
      this.send([subscription], this.lastMatch.replace('"match"', '"last_match"'), 'other')
    }
    this.followers[channel].add(subscription)
  }

  /** Ends a subscription. */
  leave(channel: Channel, subscription: Subscription): void {
    this.followers[channel].delete(subscription)
  }

  /** Lets the market move; tells orders and matches at once, level 2 each 50 ms, heartbeats each second. */
  tick(elapsedMs: number, nowMs: number): void {
    this.nowMs = nowMs
    this.flow.advance(elapsedMs, nowMs)
    if (nowMs >= this.nextBatchMs) {
      this.nextBatchMs = nowMs + BATCH_MS - (nowMs % BATCH_MS)
      this.pushBatch()
    }
    if (nowMs < this.nextHeartbeatMs) return
    this.nextHeartbeatMs = nowMs + this.settings.heartbeatMs
    const { product, sequence } = this
    const lastTradeId = this.past.at(-1)?.trade_id ?? 0
    const time = this.timeText(nowMs)
    const beat = { type: 'heartbeat', last_trade_id: lastTradeId, product_id: product, sequence, time }
    this.send(this.followers.heartbeat, JSON.stringify(beat), 'other')
  }

  placed(order: OrderState): void {
    // Now and then somebody wants all or nothing at once, and gets nothing: such an order is never on the book.
    if (order.id % 16 === 0) this.tellVainOrder(order)
    const { side, price, size } = this.facts(order)
    const id = this.uuid(order.id)
    this.tell('noop', { type: 'received', order_id: id, order_type: 'limit', size, price, side })
    this.tell('open', { type: 'open', order_id: id, side, price, remaining_size: size })
  }

  cancelled(order: OrderState): void {
    const { side, price, size } = this.facts(order)
    const id = this.uuid(order.id)
    this.tell('done', { type: 'done', order_id: id, reason: 'canceled', side, price, remaining_size: size })
  }

  amended(before: OrderState, after: OrderState): void {
    const { side, price, size } = this.facts(after)
    const old = this.facts(before)
    const head = { type: 'change', order_id: this.uuid(after.id), side } as const
    const isSelfTrade = before.price === after.price && after.size < before.size && after.id % 2 === 0
    if (isSelfTrade) this.tell('change', { ...head, reason: 'STP', price, old_size: old.size, new_size: size })
    else {
      const prices = { old_price: old.price, new_price: price }
      this.tell('change', { ...head, reason: 'modify_order', old_size: old.size, new_size: size, ...prices })
    }
  }

  /** Takers are market orders by money or by size, or limit orders that cross, filled or with a rest that is withdrawn. */
  taken(taker: Taker): void {
    const { sizeDecimals } = this.settings.spec
    const id = this.uuid(taker.id)
    const side = taker.side === 'bid' ? 'buy' : 'sell'
    const kind = taker.id % 5
    const rest = kind === 4 ? taker.fills[0]!.trade.size : 0
    const size = plainText(taker.size + rest, sizeDecimals)
    const price = this.price(taker.fills.at(-1)!.trade.price)
    const head = { type: 'received', order_id: id, side } as const
    if (kind === 0) this.tellFundedOrder(taker, id, side)
    else if (kind === 1) this.tell('noop', { ...head, order_type: 'market', size })
    else this.tell('noop', { ...head, order_type: 'limit', size, price })
    for (const fill of taker.fills) this.tellFill(fill, id)
    const reason = rest > 0 ? 'canceled' : 'filled'
    const left = kind < 2 ? {} : { price, remaining_size: plainText(rest, sizeDecimals) }
    this.tell('done', { type: 'done', order_id: id, reason, side, ...left })
  }

  /** The book of REST: exactly the state after the message of its number. An `isOld` one is of before everything told. */
  orders(isOld: boolean, nowMs: number): Record<string, unknown> {
    const { old } = this
    const sequence = isOld ? old.sequence : this.sequence
    const rows = (side: Side): string[][] =>
      (isOld ? old[side] : this.flow.market.orders(side)).map(order => {
        const { price, size } = this.facts(order)
        return [price, size, this.uuid(order.id)]
      })
    return { bids: rows('bid'), asks: rows('ask'), ...this.bookFacts(sequence, nowMs) }
  }

  /** The best `depth` levels of each side as REST shows them. */
  levels(depth: number, nowMs: number): Record<string, unknown> {
    const { sizeDecimals } = this.settings.spec
    const rows = (side: Side): (string | number)[][] =>
      levelsOf(this.flow.market.orders(side), depth).map(({ price, size, count }) => [
        this.price(price),
        plainText(size, sizeDecimals),
        count
      ])
    return { bids: rows('bid'), asks: rows('ask'), ...this.bookFacts(this.sequence, nowMs) }
  }

  /**
   * Trades newer than the id `before` and older than the id `after`, newest first, at most `limit`: with `before` alone the
   * page next to it, else the newest.
   */
  trades(limit: number, before: number | undefined, after: number | undefined): TradeRow[] {
    const fitting = this.past.filter(
      ({ trade_id: id }) => (before === undefined || id > before) && (after === undefined || id < after)
    )
    const page = before !== undefined && after === undefined ? fitting.slice(0, limit) : fitting.slice(-limit)
    return page.reverse()
  }

  private bookFacts(sequence: number, nowMs: number): Record<string, unknown> {
    return { sequence, auction_mode: false, auction: null, time: this.timeText(nowMs) }
  }

  private snapshot(): string {
    const { priceDecimals, sizeDecimals } = this.settings.spec
    const rows = (side: Side): string[][] =>
      levelsOf(this.flow.market.orders(side), Number.POSITIVE_INFINITY).map(({ price, size }) => [
        paddedText(price, priceDecimals),
        paddedText(size, sizeDecimals)
      ])
    const book = { asks: rows('ask'), bids: rows('bid') }
    return JSON.stringify({ type: 'snapshot', product_id: this.product, ...book, time: NO_TIME })
  }

  private pushBatch(): void {
    const { priceDecimals, sizeDecimals } = this.settings.spec
    const changes: string[][] = []
    for (const side of ['bid', 'ask'] as const) {
      const name = side === 'bid' ? 'buy' : 'sell'
      for (const { price, before, size } of this.flow.takeTouched(side)) {
        if (size === before) continue
        changes.push([name, paddedText(price, priceDecimals), paddedText(size, sizeDecimals)])
      }
    }
    if (changes.length === 0) return
    const time = this.timeText(this.nowMs)
    const text = JSON.stringify({ type: 'l2update', product_id: this.product, changes, time })
    this.send([...this.followers.level2, ...this.followers.level2_50], text, 'update')
  }

  private tellVainOrder(order: OrderState): void {
    const { side, price, size } = this.facts(order)
    const id = this.uuid(order.id, 2)
    this.tell('noop', { type: 'received', order_id: id, order_type: 'limit', size, price, side })
    this.tell('done', { type: 'done', order_id: id, reason: 'canceled', side, price, remaining_size: size })
  }

  /** A market order by money, half of them cut down at first because they would have met an order of the same owner. */
  private tellFundedOrder(taker: Taker, id: string, side: 'buy' | 'sell'): void {
    const { priceDecimals, sizeDecimals } = this.settings.spec
    const spent = taker.fills.reduce((sum, { trade }) => sum + trade.price * trade.size, 0)
    const funds = (worth: number): string => plainText(worth, priceDecimals + sizeDecimals)
    const isCut = taker.id % 2 === 0
    const asked = isCut ? spent + taker.fills[0]!.trade.price : spent
    this.tell('noop', { type: 'received', order_id: id, order_type: 'market', funds: funds(asked), side })
    if (!isCut) return
    const cut = { old_funds: funds(asked), new_funds: funds(spent) }
    this.tell('noop', { type: 'change', order_id: id, reason: 'STP', side, price: null, ...cut })
  }

  private tellFill({ trade, maker, left }: Fill, takerId: string): void {
    const makerId = this.uuid(maker.id)
    const match = this.matchOf(trade, makerId)
    const text = this.tell('match', { ...match, taker_order_id: takerId })
    this.send(this.followers.matches, text, 'trade')
    this.lastMatch = text
    this.past.push(this.tradeRow(trade, this.timeText(this.nowMs, false)))
    if (this.past.length > TRADES_KEPT * 2) this.past.splice(0, TRADES_KEPT)
    if (left > 0) return
    const { side, price } = this.facts(maker)
    this.tell('done', { type: 'done', order_id: makerId, reason: 'filled', side, price, remaining_size: '0' })
  }

  private matchOf(trade: Trade, makerId: string): Message {
    return {
      type: 'match',
      trade_id: trade.id,
      maker_order_id: makerId,
      taker_order_id: this.uuid(trade.takerId),
      side: trade.side === 'buy' ? 'sell' : 'buy',
      size: plainText(trade.size, this.settings.spec.sizeDecimals),
      price: this.price(trade.price)
    }
  }

  private tradeRow({ id, price, size, side }: Trade, time: string): TradeRow {
    const { priceDecimals, sizeDecimals } = this.settings.spec
    return {
      time,
      trade_id: id,
      price: paddedText(price * 10 ** (REST_DECIMALS - priceDecimals), REST_DECIMALS),
      size: paddedText(size * 10 ** (REST_DECIMALS - sizeDecimals), REST_DECIMALS),
      side: side === 'buy' ? 'sell' : 'buy'
    }
  }

  /** Numbers a message and tells it on both channels: as an object, and as a compact row of the kind. Returns a match's object. */
  private tell(kind: CompactKind, message: Message): string {
    const sequence = ++this.sequence
    const time = this.timeText(this.nowMs)
    const { full, level3 } = this.followers
    const isHeard = full.size > 0 || kind === 'match'
    const text = isHeard ? JSON.stringify({ ...message, product_id: this.product, sequence, time }) : ''
    this.send(full, text, 'update')
    if (level3.size === 0) return text
    const values: Record<string, unknown> = {
      ...message,
      type: kind,
      product_id: this.product,
      sequence: String(sequence),
      price: message.new_price ?? message.price,
      size: message.new_size ?? message.remaining_size ?? message.size,
      time
    }
    this.send(level3, JSON.stringify(LEVEL3_SCHEMA[kind].map(column => values[column])), 'update')
    return text
  }

  private send(followers: Iterable<Subscription>, text: string, kind: FrameKind): void {
    for (const subscription of followers) subscription.connection.sendFrame(subscription, text, kind, this.nowMs)
  }

  private facts({ side, price, size }: OrderState): { side: 'buy' | 'sell'; price: string; size: string } {
    return {
      side: side === 'bid' ? 'buy' : 'sell',
      price: this.price(price),
      size: plainText(size, this.settings.spec.sizeDecimals)
    }
  }

  private price(ticks: number): string {
    return plainText(ticks, this.settings.spec.priceDecimals)
  }

  /** A moment with microseconds, which tell apart what happens in one millisecond; not `isNew`: the last one again. */
  private timeText(atMs: number, isNew = true): string {
    const { stamp } = this
    if (stamp.atMs !== atMs) this.stamp = { atMs, micros: this.sequence % 100 }
    else if (isNew) stamp.micros = Math.min(999, stamp.micros + 1)
    const micros = String(this.stamp.micros).padStart(3, '0')
    return `${new Date(atMs).toISOString().slice(0, -1)}${micros}Z`
  }

  /** The exchange's id of an order. Ids of one `kind` are never the same for different orders. */
  private uuid(id: number, kind = 0): string {
    // A product with an odd number takes no two words to one.
    const first = Math.imul(id ^ this.idSeed, 0x9e3779b1)
    const second = scramble(first ^ (this.idSeed + kind))
    const third = scramble(second)
    const [a, b, c, d] = [first, second, third, scramble(third)].map(hexWord) as [string, string, string, string]
    return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-${'89ab'[third & 3]}${c.slice(1, 4)}-${c.slice(4)}${d}`
  }
}

function scramble(word: number): number {
  const mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  return Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35) ^ 0x5bd1e995
}

function hexWord(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0')
}
