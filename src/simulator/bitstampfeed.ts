import { levelsOf, Market, type MarketSpec, type Side, scaled, type Trade } from './market.ts'
import {
  type Fill,
  OrderFlow,
  type OrderFlowListener,
  type OrderState,
  paddedText,
  type Taker,
  type TouchedLevel
} from './orderflow.ts'
import type { Subscription } from './server.ts'

const PUSH_MS = 100
const TOP_ROWS = 100
const TRADES_KEPT = 20_000
/** How long before the start the old image is said to be of. */
const OLD_IMAGE_US = 60_000_000
/** What an order to buy at any price is shown at, in the counter currency. */
const ANY_PRICE = 9_999_999_999
/** The exchange's subtypes of orders as far as they are used: plain limit orders, and those that rest never. */
const SUBTYPES = { limit: 5, market: 2, immediate: 1 } as const

/** The channels of the simulator. */
export const CHANNELS = ['live_orders', 'diff_order_book', 'order_book', 'detail_order_book', 'live_trades'] as const
/** One of the channels. */
export type Channel = (typeof CHANNELS)[number]

/** What the exchange knows of an order besides the market. Sizes in units. */
interface OrderFacts {
  readonly id: number
  readonly sizeAtCreate: number
  readonly traded: number
}

/** One thing that is told of an order. */
interface OrderEvent extends OrderFacts {
  readonly event: 'order_created' | 'order_changed' | 'order_deleted'
  readonly side: Side
  readonly subtype: number
  /** In ticks. */
  readonly price: number
  /** What remains of it, in units. */
  readonly size: number
}

/** A trade as REST tells it, all texts: `date` in seconds, `type` 0 when the buyer took and 1 when the seller did. */
export interface Transaction {
  readonly date: string
  readonly tid: string
  readonly amount: string
  readonly type: '0' | '1'
  readonly price: string
}

/** What a pair is made from. */
export interface PairSettings {
  readonly spec: MarketSpec
  readonly seed: number
  readonly eventsPerSecond: number
}

/** The exchange's clock in microseconds since the epoch; it runs as `exchangeNowMs` does. */
export function exchangeNowUs(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * 1000)
}

/** One pair: its market, its chain of events, and who follows which channel of it. */
export class Feed implements OrderFlowListener {
  readonly pair: string
  private readonly followers: Record<Channel, Set<Subscription>> = {
    live_orders: new Set(),
    diff_order_book: new Set(),
    order_book: new Set(),
    detail_order_book: new Set(),
    live_trades: new Set()
  }
  private readonly spec: MarketSpec
  private readonly flow: OrderFlow
  /** By the market's id of the order; one that is not here is as it was created. */
  private readonly facts = new Map<number, OrderFacts>()
  private readonly past: Transaction[]
  /** The rows of the book before everything that anybody was told. */
  private readonly old: { atUs: number; bid: OrderState[]; ask: OrderState[] }
  private nowMs: number
  private lastEventId: string
  private eventsOfMs = 0
  private lastEventMs = 0
  private nextPushMs = 0
  /** True if somebody got an image since the last push, which may show a level as it was only in between. */
  private hasShown = false

  constructor({ spec, seed, eventsPerSecond }: PairSettings, nowMs: number) {
    this.pair = spec.name
    this.spec = spec
    this.nowMs = nowMs
    const market = new Market(spec, seed, eventsPerSecond, nowMs)
    this.flow = new OrderFlow(market, this)
    this.lastEventId = this.nextEventId()
    this.past = market.trades.map(trade => this.transaction(trade))
    this.old = { atUs: exchangeNowUs() - OLD_IMAGE_US, bid: this.flow.standing('bid'), ask: this.flow.standing('ask') }
  }

  get isFollowed(): boolean {
    return CHANNELS.some(channel => this.followers[channel].size > 0)
  }

  /** Begins a subscription. Nothing is sent: the first data are the next change. */
  join(channel: Channel, subscription: Subscription): void {
    this.followers[channel].add(subscription)
  }

  /** Ends a subscription. */
  leave(channel: Channel, subscription: Subscription): void {
    this.followers[channel].delete(subscription)
  }

  /** Lets the market move; tells orders and trades at once, and books each 100 ms. */
  tick(elapsedMs: number, nowMs: number): void {
    this.nowMs = nowMs
    this.flow.advance(elapsedMs, nowMs)
    if (nowMs < this.nextPushMs) return
    this.nextPushMs = nowMs + PUSH_MS - (nowMs % PUSH_MS)
    this.pushBooks()
  }

  placed(order: OrderState): void {
    this.tell({ event: 'order_created', ...this.resting(order) })
  }

  cancelled(order: OrderState): void {
    this.tell({ event: 'order_deleted', ...this.resting(order) })
    this.facts.delete(order.id)
  }

  /**
   * Nobody can change an order here but by replacing it, which gives it another id; only the exchange itself makes one
   * smaller, instead of letting its owner trade with himself. Some moves to another price keep the id all the same.
   */
  amended(before: OrderState, after: OrderState): void {
    const known = this.factsOf(before)
    const isReplaced = after.size > before.size || (after.price !== before.price && after.id % 2 === 0)
    if (!isReplaced) {
      this.facts.set(after.id, { ...known, sizeAtCreate: after.size + known.traded })
      this.tell({ event: 'order_changed', ...this.resting(after) })
      return
    }
    this.tell({ event: 'order_deleted', ...this.resting(before) })
    this.facts.set(after.id, { id: known.id + 1, sizeAtCreate: after.size, traded: 0 })
    this.tell({ event: 'order_created', ...this.resting(after) })
  }

  /** Shows an order that crosses as the exchange does: created, changed with every fill, deleted; no image ever has it. */
  taken(taker: Taker): void {
    const kind = (['market', 'immediate', 'limit'] as const)[taker.id % 3]!
    const worst = taker.fills.at(-1)!.trade.price
    const isBuy = taker.side === 'bid'
    // What an immediate order cannot have is withdrawn.
    const rest = kind === 'immediate' ? taker.fills[0]!.trade.size : 0
    const common = {
      id: exchangeId(taker.id),
      sizeAtCreate: taker.size + rest,
      side: taker.side,
      subtype: SUBTYPES[kind],
      price: kind !== 'market' ? worst : isBuy ? ANY_PRICE * 10 ** this.spec.priceDecimals : 0
    }
    let traded = 0
    this.tell({ event: 'order_created', ...common, traded, size: common.sizeAtCreate })
    taker.fills.forEach((fill, index) => {
      const makerId = this.tellMaker(fill)
      traded += fill.trade.size
      const size = common.sizeAtCreate - traded
      const isLast = index === taker.fills.length - 1
      if (!isLast || rest > 0) this.tell({ event: 'order_changed', ...common, traded, size })
      this.tellTrade(fill.trade, makerId)
    })
    this.tell({ event: 'order_deleted', ...common, traded, size: rest })
  }

  /** The book of REST. `group` 2 has the orders with their ids, 0 without, anything else levels. */
  book(group: string, isOld: boolean): Record<string, unknown> {
    this.hasShown = true
    const atUs = isOld ? this.old.atUs : exchangeNowUs()
    const orders = (side: Side): readonly OrderState[] => (isOld ? this.old[side] : this.flow.market.orders(side))
    const rows = (side: Side): string[][] => {
      if (group !== '2' && group !== '0') return this.levels(orders(side), Number.POSITIVE_INFINITY)
      return orders(side).map(order => this.orderRow(order, group === '2'))
    }
    return { ...timesOf(atUs), bids: rows('bid'), asks: rows('ask') }
  }

  /** The trades of the last `seconds`, newest first. */
  transactions(seconds: number, nowMs: number): Transaction[] {
    const from = Math.floor(nowMs / 1000) - seconds
    return this.past.filter(({ date }) => Number(date) >= from).reverse()
  }

  /** Tells what a fill left of the resting order; returns its id. */
  private tellMaker({ maker, left, trade }: Fill): number {
    const known = this.factsOf(maker)
    this.facts.set(maker.id, { ...known, traded: known.traded + trade.size })
    const event = left > 0 ? 'order_changed' : 'order_deleted'
    this.tell({ event, ...this.resting({ ...maker, size: left }) })
    if (left === 0) this.facts.delete(maker.id)
    return known.id
  }

  private tellTrade(trade: Trade, makerId: number): void {
    const transaction = this.transaction(trade)
    const { tid, amount, price, date } = transaction
    this.past.push(transaction)
    if (this.past.length > TRADES_KEPT * 2) this.past.splice(0, TRADES_KEPT)
    const takerId = exchangeId(trade.takerId)
    const isBuy = trade.side === 'buy'
    const data = {
      id: Number(tid),
      timestamp: date,
      amount: scaled(trade.size, this.spec.sizeDecimals),
      amount_str: amount,
      price: scaled(trade.price, this.spec.priceDecimals),
      price_str: price,
      type: isBuy ? 0 : 1,
      microtimestamp: `${this.nowMs}000`,
      buy_order_id: isBuy ? takerId : makerId,
      sell_order_id: isBuy ? makerId : takerId
    }
    this.send('live_trades', { data, channel: `live_trades_${this.pair}`, event: 'trade' })
  }

  /** Tells one event of an order and links it to the one before, whether or not anybody hears it. */
  private tell({ event, id, side, subtype, price, size, traded, sizeAtCreate }: OrderEvent): void {
    const before = this.lastEventId
    this.lastEventId = this.nextEventId()
    if (this.followers.live_orders.size === 0) return
    const { priceDecimals, sizeDecimals } = this.spec
    const amount = (units: number): string => (units === 0 ? '0' : paddedText(units, sizeDecimals))
    const data = {
      id,
      id_str: String(id),
      order_type: side === 'bid' ? 0 : 1,
      order_subtype: subtype,
      datetime: String(Math.floor(this.nowMs / 1000)),
      microtimestamp: `${this.nowMs}000`,
      amount: scaled(size, sizeDecimals),
      amount_str: amount(size),
      amount_traded: amount(traded),
      amount_at_create: amount(sizeAtCreate),
      price: scaled(price, priceDecimals),
      price_str: this.price(price),
      is_liquidation: false
    }
    const channel = `live_orders_${this.pair}`
    const chain = { event_id: this.lastEventId, pre_event_id: before, order_source: 'orderbook' }
    this.send('live_orders', { data, channel, event, ...chain })
  }

  /** Ids hold the microseconds of the event, and its place among those of the same moment. */
  private nextEventId(): string {
    this.eventsOfMs = this.lastEventMs === this.nowMs ? this.eventsOfMs + 1 : 0
    this.lastEventMs = this.nowMs
    const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
    const moment = hex(this.nowMs * 1000, 16)
    const place = `${hex(1 + (this.eventsOfMs >>> 8), 4)}${hex(this.eventsOfMs & 0xff, 2)}`
    return `${moment.slice(0, 8)}-${moment.slice(8, 12)}-${moment.slice(12)}-0000-${place}000020`
  }

  private pushBooks(): void {
    const isNews = ({ before, size }: TouchedLevel): boolean => this.hasShown || before !== size
    const changed = {
      bid: this.flow.takeTouched('bid').filter(isNews),
      ask: this.flow.takeTouched('ask').filter(isNews)
    }
    this.hasShown = false
    if (changed.bid.length + changed.ask.length === 0) return
    const { market } = this.flow
    const top = (side: Side): string[][] => this.levels(market.orders(side), TOP_ROWS)
    const orders = (side: Side): string[][] =>
      market
        .orders(side)
        .slice(0, TOP_ROWS)
        .map(order => this.orderRow(order, true))
    this.sendBook('diff_order_book', side => changed[side].map(level => this.levelRow(level)))
    this.sendBook('order_book', top)
    this.sendBook('detail_order_book', orders)
  }

  private sendBook(channel: Channel, rows: (side: Side) => string[][]): void {
    if (this.followers[channel].size === 0) return
    const data = { ...timesOf(exchangeNowUs()), bids: rows('bid'), asks: rows('ask') }
    this.send(channel, { data, channel: `${channel}_${this.pair}`, event: 'data' })
  }

  private send(channel: Channel, frame: Record<string, unknown>): void {
    const text = JSON.stringify(frame)
    const kind = channel === 'live_trades' ? 'trade' : 'update'
    for (const subscription of this.followers[channel]) {
      subscription.connection.sendFrame(subscription, text, kind, this.nowMs)
    }
  }

  private resting(order: OrderState): Omit<OrderEvent, 'event'> {
    const { side, price, size } = order
    return { ...this.factsOf(order), side, price, size, subtype: SUBTYPES.limit }
  }

  private factsOf({ id, size }: OrderState): OrderFacts {
    return this.facts.get(id) ?? { id: exchangeId(id), sizeAtCreate: size, traded: 0 }
  }

  private levels(orders: readonly OrderState[], limit: number): string[][] {
    return levelsOf(orders, limit).map(level => this.levelRow(level))
  }

  private levelRow({ price, size }: Pick<TouchedLevel, 'price' | 'size'>): string[] {
    return [paddedText(price, this.spec.priceDecimals), paddedText(size, this.spec.sizeDecimals)]
  }

  private orderRow(order: OrderState, hasId: boolean): string[] {
    return hasId ? [...this.levelRow(order), String(this.factsOf(order).id)] : this.levelRow(order)
  }

  /** Events write whole prices without decimals, all others with all of them. */
  private price(ticks: number): string {
    return paddedText(ticks, this.spec.priceDecimals).replace(/\.0+$/, '')
  }

  private transaction(trade: Trade): Transaction {
    return {
      date: String(Math.floor(trade.atMs / 1000)),
      tid: String(exchangeTradeId(trade.id)),
      amount: paddedText(trade.size, this.spec.sizeDecimals),
      type: trade.side === 'buy' ? '0' : '1',
      price: this.price(trade.price)
    }
  }
}

/** The exchange's id of an order of the market: of 16 digits, with room for those that replace it. */
function exchangeId(id: number): number {
  return 1_803_000_000_000_000 + id * 1000
}

/** The exchange counts the trades of all pairs together, so those of one pair jump. */
function exchangeTradeId(id: number): number {
  return (id - 1_900_000_000) * 8 + (id % 7)
}

function timesOf(atUs: number): { timestamp: string; microtimestamp: string } {
  return { timestamp: String(Math.floor(atUs / 1_000_000)), microtimestamp: String(atUs) }
}
