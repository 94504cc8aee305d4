import { createRandom, hashText, type Random } from './random.ts'

/** What a market is like. Prices are whole ticks, sizes whole units; both are powers of ten. */
export interface MarketSpec {
  /** The exchange's own name of the instrument. */
  readonly name: string
  /** A tick is 10 to the power of minus this. */
  readonly priceDecimals: number
  /** The price the market wanders around, in ticks. */
  readonly startTicks: number
  /** A unit of size is 10 to the power of minus this. */
  readonly sizeDecimals: number
  /** The usual size of an order, in units. */
  readonly typicalSize: number
  /** About how many orders rest on each side. */
  readonly ordersPerSide: number
  /** The mean distance of a resting order from the middle, in ticks. */
  readonly spanTicks: number
}

/** A side of the book. */
export type Side = 'bid' | 'ask'

/** A resting order. `price` is in ticks, `size` in units (what remains of it). */
export interface Order {
  readonly id: number
  readonly side: Side
  price: number
  size: number
}

/** One fill: a taker met one resting order. `side` is the taker's, `price` in ticks, `size` in units, `atMs` since the epoch. */
export interface Trade {
  readonly id: number
  readonly takerId: number
  readonly side: 'buy' | 'sell'
  readonly price: number
  readonly size: number
  readonly atMs: number
}

/** All orders of one price. `price` in ticks, `size` in units. */
export interface Level {
  readonly price: number
  size: number
  count: number
}

/** Who hears what happens, at the moment it happened. */
export interface MarketListener {
  /**
   * An order came, changed or went. `from` and `to` are its places in its side, 0 for the best, before and after;
   * -1 where it was not there. The book already shows the state after it.
   */
  changed(order: Order, from: number, to: number): void
  /** A fill; the change of the resting order follows it. */
  traded(trade: Trade): void
}

const FIRST_ORDER_ID = 243_628_000_000
const FIRST_TRADE_ID = 1_970_136_000
const WARM_UP_STEPS = 300
const TRADES_KEPT = 60
/** The part of an empty event loop second that is caught up after a stall; more would arrive as one useless burst. */
const CATCH_UP_MS_MAX = 1000

/**
 * A made-up market of one instrument: a middle price that walks, limit orders that come, change and go, and market orders
 * that eat resting ones. It holds the true book of orders. What happens depends on the seed and the number of events
 * alone; the clock decides only when.
 */
export class Market {
  readonly spec: MarketSpec
  /** The newest trades, oldest first. */
  readonly trades: Trade[] = []
  listener: MarketListener | undefined
  private readonly sides: Record<Side, Order[]> = { bid: [], ask: [] }
  private readonly random: Random
  /** Apart from `random`, so that the rate does not change what happens. */
  private readonly waits: Random
  private readonly meanWaitMs: number
  private middle: number
  private lastOrderId: number
  private lastTradeId: number
  private waitMs: number
  private nowMs: number

  /** Fills the book and lets it live a while. `eventsPerSecond` 0 makes a market that never moves; `nowMs` is since the epoch. */
  constructor(spec: MarketSpec, seed: number, eventsPerSecond: number, nowMs: number) {
    this.spec = spec
    const own = (hashText(spec.name) ^ Math.imul(seed, 0x9e3779b1)) >>> 0
    this.random = createRandom(own)
    this.waits = createRandom(own ^ 0x5bd1e995)
    this.meanWaitMs = eventsPerSecond > 0 ? 1000 / eventsPerSecond : Number.POSITIVE_INFINITY
    this.middle = spec.startTicks
    this.lastOrderId = FIRST_ORDER_ID + (own % 900_000)
    this.lastTradeId = FIRST_TRADE_ID + (own % 90_000)
    this.nowMs = nowMs
    for (let index = 0; index < spec.ordersPerSide; index++) {
      this.place('bid', this.distantPrice('bid'))
      this.place('ask', this.distantPrice('ask'))
    }
    for (let step = WARM_UP_STEPS; step > 0; step--) {
      this.nowMs = nowMs - step * 100
      this.step()
    }
    this.waitMs = this.nextWait()
  }

  /** The orders of a side, best first, the older first within a price. */
  orders(side: Side): readonly Order[] {
    return this.sides[side]
  }

  /** Lets `elapsedMs` milliseconds pass, up to the moment `nowMs` since the epoch. */
  advance(elapsedMs: number, nowMs: number): void {
    this.nowMs = nowMs
    this.waitMs -= Math.min(elapsedMs, CATCH_UP_MS_MAX)
    while (this.waitMs <= 0) {
      this.step()
      this.waitMs += this.nextWait()
    }
  }

  private nextWait(): number {
    return Number.isFinite(this.meanWaitMs) ? this.waits.exponential(this.meanWaitMs) : Number.POSITIVE_INFINITY
  }

  /** One event: the middle moves a little and somebody acts. */
  private step(): void {
    const { spec, random } = this
    const pull = (spec.startTicks - this.middle) * 0.0005
    this.middle += (random.next() + random.next() - 1) * spec.spanTicks * 0.01 + pull
    const slack = spec.spanTicks * 0.02
    const bestBid = this.sides.bid[0]
    const bestAsk = this.sides.ask[0]
    const choice = random.next()
    // Orders that the middle has run over attract takers, so the book follows the price.
    if (bestAsk && bestAsk.price < this.middle - slack && choice < 0.5) this.take('buy')
    else if (bestBid && bestBid.price > this.middle + slack && choice < 0.5) this.take('sell')
    else if (choice < 0.05) this.take(random.next() < 0.5 ? 'buy' : 'sell')
    else this.quote(random.next() < 0.5 ? 'bid' : 'ask')
  }

  /** Somebody changes, places or withdraws an order, so that the number of orders stays about the same. */
  private quote(side: Side): void {
    const missing = 1 - this.sides[side].length / this.spec.ordersPerSide
    if (this.random.next() < 0.2) this.amend(side)
    else if (this.random.next() < 0.5 + missing * 4) this.place(side)
    else this.cancel(side)
  }

  private place(side: Side, price = this.limitPrice(side)): void {
    this.lastOrderId += 1 + this.random.integer(60)
    const order: Order = { id: this.lastOrderId, side, price, size: this.orderSize() }
    const to = this.insert(order)
    this.listener?.changed(order, -1, to)
  }

  private cancel(side: Side): void {
    const orders = this.sides[side]
    if (orders.length === 0) return
    const from = this.pickPlace(orders)
    const [order] = orders.splice(from, 1)
    this.listener?.changed(order!, from, -1)
  }

  /** Changes the size of an order, or moves it to another price under its old id. */
  private amend(side: Side): void {
    const orders = this.sides[side]
    if (orders.length === 0) return
    const from = this.pickPlace(orders)
    const order = orders[from]!
    if (this.random.next() < 0.7) {
      order.size = this.orderSize()
      this.listener?.changed(order, from, from)
      return
    }
    orders.splice(from, 1)
    order.price = this.limitPrice(side)
    const to = this.insert(order)
    this.listener?.changed(order, from, to)
  }

  /** A market order: it eats resting orders from the best on, until it is filled. */
  private take(side: 'buy' | 'sell'): void {
    const orders = this.sides[side === 'buy' ? 'ask' : 'bid']
    this.lastOrderId += 1 + this.random.integer(60)
    const takerId = this.lastOrderId
    let remaining = Math.max(1, Math.round(this.random.exponential(this.spec.typicalSize * 2)))
    // Half of the book always stays, whatever the sizes are.
    while (remaining > 0 && orders.length > this.spec.ordersPerSide / 2) {
      const maker = orders[0]!
      const size = Math.min(remaining, maker.size)
      remaining -= size
      this.print({ id: ++this.lastTradeId, takerId, side, price: maker.price, size, atMs: this.nowMs })
      if (size === maker.size) {
        orders.shift()
        this.listener?.changed(maker, 0, -1)
      } else {
        maker.size -= size
        this.listener?.changed(maker, 0, 0)
      }
    }
  }

  private print(trade: Trade): void {
    this.trades.push(trade)
    if (this.trades.length > TRADES_KEPT) this.trades.shift()
    this.listener?.traded(trade)
  }

  /** A price that does not cross: often near the best, else at some distance from the middle. */
  private limitPrice(side: Side): number {
    const { random } = this
    const sign = side === 'bid' ? -1 : 1
    const own = this.sides[side][0]
    const other = this.sides[side === 'bid' ? 'ask' : 'bid'][0]
    let price = this.distantPrice(side)
    // Makers keep the spread tight and queue at the best prices.
    const place = random.next()
    if (place < 0.15) price = Math.round(this.middle + sign * (0.5 + random.exponential(2)))
    else if (own && place < 0.3) price = own.price + sign * random.integer(4)
    if (other && (price - other.price) * sign <= 0) price = other.price + sign
    return Math.max(1, price)
  }

  private distantPrice(side: Side): number {
    const distance = 0.5 + this.random.exponential(this.spec.spanTicks)
    return Math.max(1, Math.round(this.middle + (side === 'bid' ? -distance : distance)))
  }

  /** Round sizes, odd sizes and, now and then, dust, as real books have them. */
  private orderSize(): number {
    const { random, spec } = this
    const kind = random.next()
    if (kind < 0.01) return 1 + random.integer(Math.max(1, Math.min(90, spec.typicalSize)))
    const size = Math.max(1, Math.round(random.exponential(spec.typicalSize)))
    if (kind < 0.4) return size
    const step = 10 ** Math.max(0, Math.floor(Math.log10(size)) - (kind < 0.7 ? 0 : 1))
    return Math.ceil(size / step) * step
  }

  /** Most of what happens, happens near the best price. */
  private pickPlace(orders: readonly Order[]): number {
    return Math.floor(orders.length * this.random.next() ** 1.5)
  }

  private insert(order: Order): number {
    const orders = this.sides[order.side]
    const sign = order.side === 'bid' ? -1 : 1
    let low = 0
    let high = orders.length
    while (low < high) {
      const at = (low + high) >>> 1
      const other = orders[at]!
      const distance = (other.price - order.price) * sign
      if (distance < 0 || (distance === 0 && other.id < order.id)) low = at + 1
      else high = at
    }
    orders.splice(low, 0, order)
    return low
  }
}

/** The best `limit` levels of a side's orders, which stand best first. */
export function levelsOf(orders: readonly Order[], limit: number): Level[] {
  const levels: Level[] = []
  let last: Level | undefined
  for (const order of orders) {
    if (last && last.price === order.price) {
      last.size += order.size
      last.count++
      continue
    }
    if (levels.length === limit) break
    last = { price: order.price, size: order.size, count: 1 }
    levels.push(last)
  }
  return levels
}

/** What turns the levels `before` into those `after` (both best first): levels that went, and levels that are new or differ. */
export function diffLevels(
  side: Side,
  before: readonly Level[],
  after: readonly Level[]
): { gone: Level[]; set: Level[] } {
  const gone: Level[] = []
  const set: Level[] = []
  const sign = side === 'bid' ? -1 : 1
  let index = 0
  for (const level of after) {
    let old = before[index]
    while (old && (old.price - level.price) * sign < 0) {
      gone.push(old)
      old = before[++index]
    }
    if (old?.price !== level.price) {
      set.push(level)
      continue
    }
    if (old.size !== level.size || old.count !== level.count) set.push(level)
    index++
  }
  for (; index < before.length; index++) gone.push(before[index]!)
  return { gone, set }
}

/** The number that a whole number of ticks or units stands for, exactly as its decimal text would be read. */
export function scaled(whole: number, decimals: number): number {
  return whole / 10 ** decimals
}

/** The plain decimal text of a whole number of ticks or units: no exponent, no trailing zeros. */
export function plainText(whole: number, decimals: number): string {
  if (decimals === 0) return String(whole)
  const digits = String(whole).padStart(decimals + 1, '0')
  const fraction = digits.slice(-decimals).replace(/0+$/, '')
  const integer = digits.slice(0, -decimals)
  return fraction === '' ? integer : `${integer}.${fraction}`
}
