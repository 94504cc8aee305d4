import { priceKey } from '../core/decimal.ts'
import { Ladder } from './ladder.ts'

/** One price of an L2 book: text as sent; `orders` is null where the exchange does not tell a count. */
export interface Level2 {
  readonly key: number
  price: string
  size: string
  orders: string | null
}

/** What `LevelBook.state` gives: levels best first, `[price, size, orders]`. */
export interface LevelBookState {
  bids: [string, string, string | null][]
  asks: [string, string, string | null][]
}

/**
 * A book of price levels. Prices and sizes must be valid decimals; callers check a whole frame before applying it, and
 * hand over the `priceKey` they found.
 */
export class LevelBook {
  private readonly bids = new Ladder<Level2>()
  private readonly asks = new Ladder<Level2>()

  /** Sets a level; `priceKey` is that of `price`. */
  set(isAsk: boolean, priceKey: number, price: string, size: string, orders: string | null): void {
    const side = isAsk ? this.asks : this.bids
    const key = isAsk ? -priceKey : priceKey
    const level = side.seek(key)
    if (level === undefined) side.insert({ key, price, size, orders })
    else {
      level.price = price
      level.size = size
      level.orders = orders
    }
  }

  /** The level of a price, to be changed in place; undefined when there is none. */
  get(isAsk: boolean, priceKey: number): Level2 | undefined {
    return (isAsk ? this.asks : this.bids).seek(isAsk ? -priceKey : priceKey)
  }

  /** Removes a level; false when there is none at the price. */
  remove(isAsk: boolean, priceKey: number): boolean {
    const side = isAsk ? this.asks : this.bids
    if (side.seek(isAsk ? -priceKey : priceKey) === undefined) return false
    side.remove()
    return true
  }

  /** Number of levels of a side. */
  count(isAsk: boolean): number {
    return (isAsk ? this.asks : this.bids).count
  }

  /** Empties the book. */
  clear(): void {
    this.bids.clear()
    this.asks.clear()
  }

  /** The best price of a side as sent; null when the side is empty. */
  best(isAsk: boolean): string | null {
    return (isAsk ? this.asks : this.bids).best()?.price ?? null
  }

  /** Whether the best bid is at or above the best ask. */
  get crossed(): boolean {
    const bid = this.bids.best()
    const ask = this.asks.best()
    return bid !== undefined && ask !== undefined && bid.key >= -ask.key
  }

  /** The `depth` best levels of a side as JSON text: `[["43250.5","100","0","5"],…]`; `orders` may be null. */
  top(isAsk: boolean, depth: number): string {
    let text = '['
    const add = (level: Level2) => {
      const orders = level.orders === null ? 'null' : `"${level.orders}"`
      text += `${text.length > 1 ? ',' : ''}["${level.price}","${level.size}","0",${orders}]`
    }
    ;(isAsk ? this.asks : this.bids).forEach(add, depth)
    return `${text}]`
  }

  /** The n-th best level of a side, from 0. */
  at(isAsk: boolean, n: number): Level2 | undefined {
    return (isAsk ? this.asks : this.bids).at(n)
  }

  /** The whole book as plain data. */
  state(): LevelBookState {
    const rows = (side: Ladder<Level2>) => {
      const list: [string, string, string | null][] = []
      side.forEach(({ price, size, orders }) => void list.push([price, size, orders]))
      return list
    }
    return { bids: rows(this.bids), asks: rows(this.asks) }
  }

  /** Replaces the book by what `state` gave. */
  restore(state: LevelBookState): void {
    this.clear()
    for (const [price, size, orders] of state.bids.toReversed()) this.set(false, priceKey(price), price, size, orders)
    for (const [price, size, orders] of state.asks.toReversed()) this.set(true, priceKey(price), price, size, orders)
  }
}
