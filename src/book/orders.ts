import { difference, priceKey, readDecimal, Sum } from '../core/decimal.ts'
import { Ladder } from './ladder.ts'

/** One resting order: text as sent. Orders of a price are linked in the order of their arrival. */
export interface Order {
  id: string
  isAsk: boolean
  size: string
  level: PriceLevel
  before: Order | null
  after: Order | null
}

/** All orders of one price. */
export interface PriceLevel {
  key: number
  price: string
  readonly sum: Sum
  count: number
  first: Order | null
  last: Order | null
}

const SPARE_MAX = 1000

/** What `OrderBook.state` gives: orders best first, `[id, price, size]`. */
export interface OrderBookState {
  bids: [string, string, string][]
  asks: [string, string, string][]
}

class Side {
  readonly ladder = new Ladder<PriceLevel>()
  readonly total = new Sum()
  count = 0
}

/**
 * An order-by-order book: orders by id, price levels with exact sums. Prices and sizes must be valid decimals
 * (`core/decimal.ts`); callers check the text of a whole frame before they apply any of it.
 */
export class OrderBook {
  private readonly orders = new Map<string, Order>()
  private readonly bids = new Side()
  private readonly asks = new Side()
  // Orders live for moments only: what is removed is used again, as garbage that outlives a moment is dear.
  private readonly spareOrders: Order[] = []
  private readonly spareLevels: PriceLevel[] = []

  /** Number of orders held. */
  get size(): number {
    return this.orders.size
  }

  /** Number of orders of a side. */
  count(isAsk: boolean): number {
    return (isAsk ? this.asks : this.bids).count
  }

  /** The order of an id; undefined when it is not in the book. */
  get(id: string): Order | undefined {
    return this.orders.get(id)
  }

  /** Inserts an order, or sets side, price and size of the one with this id. True when it was there before. */
  set(id: string, isAsk: boolean, price: string, size: string): boolean {
    const old = this.orders.get(id)
    const key = isAsk ? -priceKey(price) : priceKey(price)
    if (old !== undefined && old.isAsk === isAsk && old.level.key === key) {
      this.resize(old, size)
      return true
    }
    if (old !== undefined) this.unlink(old)
    const side = isAsk ? this.asks : this.bids
    let level = side.ladder.seek(key)
    if (level === undefined) {
      level = this.makeLevel(key, price)
      side.ladder.insert(level)
    }
    const order = this.makeOrder(id, isAsk, size, level)
    if (level.last === null) level.first = order
    else level.last.after = order
    level.last = order
    level.count++
    side.count++
    readDecimal(size)
    level.sum.addRead()
    side.total.addRead()
    this.orders.set(id, order)
    return old !== undefined
  }

  private makeLevel(key: number, price: string): PriceLevel {
    const level = this.spareLevels.pop()
    if (level === undefined) return { key, price, sum: new Sum(), count: 0, first: null, last: null }
    level.key = key
    level.price = price
    level.sum.clear()
    return level
  }

  private makeOrder(id: string, isAsk: boolean, size: string, level: PriceLevel): Order {
    const order = this.spareOrders.pop()
    if (order === undefined) return { id, isAsk, size, level, before: level.last, after: null }
    order.id = id
    order.isAsk = isAsk
    order.size = size
    order.level = level
    order.before = level.last
    order.after = null
    return order
  }

  /** Sets the size of an order that is in the book; its place in the queue stays. */
  resize(order: Order, size: string): void {
    const total = (order.isAsk ? this.asks : this.bids).total
    readDecimal(order.size)
    order.level.sum.subtractRead()
    total.subtractRead()
    readDecimal(size)
    order.level.sum.addRead()
    total.addRead()
    order.size = size
  }

  /** Removes an order and gives it back, good until the next `set`; undefined when the id is unknown. */
  remove(id: string): Order | undefined {
    const order = this.orders.get(id)
    if (order !== undefined) {
      this.unlink(order)
      this.orders.delete(id)
    }
    return order
  }

  private unlink(order: Order): void {
    const side = order.isAsk ? this.asks : this.bids
    const level = order.level
    if (order.before === null) level.first = order.after
    else order.before.after = order.after
    if (order.after === null) level.last = order.before
    else order.after.before = order.before
    side.count--
    readDecimal(order.size)
    side.total.subtractRead()
    if (--level.count > 0) level.sum.subtractRead()
    else {
      side.ladder.seek(level.key)
      side.ladder.remove()
      level.first = level.last = null
      if (this.spareLevels.length < SPARE_MAX) this.spareLevels.push(level)
    }
    if (this.spareOrders.length < SPARE_MAX) this.spareOrders.push(order)
  }

  /** Empties the book. */
  clear(): void {
    this.orders.clear()
    for (const side of [this.bids, this.asks]) {
      side.ladder.clear()
      side.count = 0
      side.total.clear()
    }
  }

  /** The best price of a side as sent; null when the side is empty. */
  best(isAsk: boolean): string | null {
    return (isAsk ? this.asks : this.bids).ladder.best()?.price ?? null
  }

  /** Whether the best bid is at or above the best ask. */
  get crossed(): boolean {
    const bid = this.bids.ladder.best()
    const ask = this.asks.ladder.best()
    return bid !== undefined && ask !== undefined && bid.key >= -ask.key
  }

  /** The `depth` best levels of a side as JSON text: `[["91018","0.175","0","2"],…]`. */
  top(isAsk: boolean, depth: number): string {
    let text = '['
    const add = (level: PriceLevel) => {
      text += `${text.length > 1 ? ',' : ''}["${level.price}","${level.sum.toString()}","0","${level.count}"]`
    }
    ;(isAsk ? this.asks : this.bids).ladder.forEach(add, depth)
    return `${text}]`
  }

  /** Number of price levels of a side. */
  levelCount(isAsk: boolean): number {
    return (isAsk ? this.asks : this.bids).ladder.count
  }

  /** The n-th best price level of a side, from 0, good until the next change; its orders are linked in queue order. */
  level(isAsk: boolean, n: number): PriceLevel | undefined {
    return (isAsk ? this.asks : this.bids).ladder.at(n)
  }

  /** The `count` best orders of a side: by price, then by ascending numeric id (shorter ids are smaller). */
  firstOrders(isAsk: boolean, count: number): Order[] {
    const { ladder } = isAsk ? this.asks : this.bids
    const found: Order[] = []
    for (let n = 0; n < ladder.count && found.length < count; n++) {
      const start = found.length
      for (let order = ladder.at(n)!.first; order !== null; order = order.after) found.push(order)
      if (found.length - start > 1) found.push(...found.splice(start).sort(byId))
    }
    return found.slice(0, count)
  }

  /** The `stats` object of a snapshot record, as JSON text. */
  stats(): string {
    const bid = this.best(false)
    const ask = this.best(true)
    const spread = bid === null || ask === null ? 'null' : `"${difference(ask, bid)}"`
    return (
      `{"total_orders":${this.orders.size},"bid_count":${this.bids.count},"ask_count":${this.asks.count},` +
      `"total_bid_volume":"${this.bids.total.toString()}","total_ask_volume":"${this.asks.total.toString()}","spread":${spread}}`
    )
  }

  /** Calls back for every order, bids first, best first, in queue order. */
  forEach(visit: (order: Order) => void): void {
    for (const side of [this.bids, this.asks]) {
      side.ladder.forEach(level => {
        for (let order = level.first; order !== null; order = order.after) visit(order)
      })
    }
  }

  /** The whole book as plain data. */
  state(): OrderBookState {
    const state: OrderBookState = { bids: [], asks: [] }
    this.forEach(order => {
      const side = order.isAsk ? state.asks : state.bids
      side.push([order.id, order.level.price, order.size])
    })
    return state
  }

  /** Replaces the book by what `state` gave. */
  restore(state: OrderBookState): void {
    this.clear()
    for (const [id, price, size] of state.bids) this.set(id, false, price, size)
    for (const [id, price, size] of state.asks) this.set(id, true, price, size)
  }
}

function byId(a: Order, b: Order): number {
  return a.id.length - b.id.length || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}
