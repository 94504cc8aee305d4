import type { Market, MarketListener, Order, Side, Trade } from './market.ts'

/** A resting order as it stood at one moment. `price` in ticks, `size` in units. */
export interface OrderState {
  readonly id: number
  readonly side: Side
  readonly price: number
  readonly size: number
}

/** One fill of a taker: the resting order as it stood before, and what is left of it, in units. */
export interface Fill {
  readonly trade: Trade
  readonly maker: OrderState
  readonly left: number
}

/** An order that met resting orders at once, with all its fills; `size` is their sum in units. */
export interface Taker {
  readonly id: number
  readonly side: Side
  readonly size: number
  readonly fills: readonly Fill[]
}

/** A price whose size changed. `before` and `size` in units, 0 where there was or is nothing. */
export interface TouchedLevel {
  readonly price: number
  readonly before: number
  readonly size: number
}

/** Who hears the story of the orders, one at a time and each with all that an order-by-order feed tells about it. */
export interface OrderFlowListener {
  placed(order: OrderState): void
  cancelled(order: OrderState): void
  amended(before: OrderState, after: OrderState): void
  taken(taker: Taker): void
}

/**
 * What happens in a market, told as the lives of its orders: fills are gathered under the order that took, and changes
 * come with the state before. It also keeps the sum of every price level.
 */
export class OrderFlow implements MarketListener {
  readonly market: Market
  private readonly listener: OrderFlowListener
  /** By id. A state is never changed, only replaced. */
  private readonly states = new Map<number, OrderState>()
  /** Units by price, for the prices that have orders. */
  private readonly sums: Record<Side, Map<number, number>> = { bid: new Map(), ask: new Map() }
  /** What the prices had before they were first touched since the last `takeTouched`. */
  private readonly touched: Record<Side, Map<number, number>> = { bid: new Map(), ask: new Map() }
  private filling: Trade | undefined
  private taker: { id: number; side: Side; size: number; fills: Fill[] } | undefined

  constructor(market: Market, listener: OrderFlowListener) {
    this.market = market
    this.listener = listener
    for (const side of ['bid', 'ask'] as const) {
      for (const order of market.orders(side)) this.replace(undefined, order)
      this.touched[side].clear()
    }
    market.listener = this
  }

  /** Lets `elapsedMs` milliseconds pass, up to the moment `nowMs` since the epoch. */
  advance(elapsedMs: number, nowMs: number): void {
    this.market.advance(elapsedMs, nowMs)
    this.finishTaker()
  }

  /** The orders of a side as they stand, best first. The list stays as it is, whatever happens later. */
  standing(side: Side): OrderState[] {
    return this.market.orders(side).map(({ id }) => this.states.get(id)!)
  }

  /** The prices of a side that orders came to or left since the last call, best first. */
  takeTouched(side: Side): TouchedLevel[] {
    const sign = side === 'bid' ? -1 : 1
    const levels = [...this.touched[side]].map(([price, before]) => ({
      price,
      before,
      size: this.sums[side].get(price) ?? 0
    }))
    this.touched[side].clear()
    return levels.sort((a, b) => (a.price - b.price) * sign)
  }

  changed(order: Order, from: number, to: number): void {
    const before = this.states.get(order.id)
    const trade = this.filling
    this.filling = undefined
    if (trade && before && this.taker) {
      const left = before.size - trade.size
      this.replace(before, to < 0 ? undefined : order)
      this.taker.fills.push({ trade, maker: before, left })
      this.taker.size += trade.size
      return
    }
    this.finishTaker()
    const after = this.replace(before, to < 0 ? undefined : order)
    if (from < 0) this.listener.placed(after!)
    else if (to < 0) this.listener.cancelled(before!)
    else this.listener.amended(before!, after!)
  }

  traded(trade: Trade): void {
    if (this.taker?.id !== trade.takerId) {
      this.finishTaker()
      this.taker = { id: trade.takerId, side: trade.side === 'buy' ? 'bid' : 'ask', size: 0, fills: [] }
    }
    this.filling = trade
  }

  /** Nothing says that a taker is done but that something else happens, or nothing more. */
  private finishTaker(): void {
    const { taker } = this
    this.taker = undefined
    if (taker) this.listener.taken(taker)
  }

  private replace(before: OrderState | undefined, order: Order | undefined): OrderState | undefined {
    if (before) this.add(before.side, before.price, -before.size)
    if (!order) {
      if (before) this.states.delete(before.id)
      return undefined
    }
    const { id, side, price, size } = order
    const after = { id, side, price, size }
    this.states.set(id, after)
    this.add(side, price, size)
    return after
  }

  private add(side: Side, price: number, size: number): void {
    const before = this.sums[side].get(price) ?? 0
    if (!this.touched[side].has(price)) this.touched[side].set(price, before)
    if (before + size === 0) this.sums[side].delete(price)
    else this.sums[side].set(price, before + size)
  }
}

/** The decimal text of a whole number of ticks or units with all its decimals, trailing zeros too. */
export function paddedText(whole: number, decimals: number): string {
  if (decimals === 0) return String(whole)
  const digits = String(whole).padStart(decimals + 1, '0')
  return `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`
}
