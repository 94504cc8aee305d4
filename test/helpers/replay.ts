import { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'
import { difference, isZero, priceKey } from '../../src/core/decimal.ts'
import type { MemorySink, Row } from './driver.ts'

type Level = [price: string, size: string, dead: string, orders: string | null]

/** A book as a reader of the vault would have it: built from `l3_events` or `l2_updates` alone. */
class ReadersBook {
  private readonly orders = new OrderBook()
  private readonly levels = new LevelBook()
  private isL3 = false

  apply(feed: string, row: Row): void {
    this.isL3 = feed === 'l3_events'
    if (row.event_type === 'clear') {
      this.orders.clear()
      this.levels.clear()
    } else if (this.isL3) this.applyOrder(row)
    else if (row.event_type !== 'gap') this.applyLevels(row)
  }

  private applyOrder(row: Row): void {
    const { event_type: type, order_id: id, side, price, size } = row as Record<string, string>
    if (type === 'snapshot' || type === 'open' || type === 'change') {
      this.orders.set(id!, side === 'ask', price!, size!)
    } else if (type === 'done') this.orders.remove(id!)
    else if (type === 'match') {
      const order = this.orders.get(id!)
      if (order === undefined) throw new TypeError(`a match of an order that is not in the book: ${id}`)
      const rest = difference(order.size, size!)
      if (isZero(rest)) this.orders.remove(id!)
      else this.orders.resize(order, rest)
    }
  }

  private applyLevels(row: Row): void {
    for (const [isAsk, rows] of [
      [false, row.bids as Level[]],
      [true, row.asks as Level[]]
    ] as const) {
      for (const [price, size, , orders] of rows) {
        if (isZero(size)) this.levels.remove(isAsk, priceKey(price))
        else this.levels.set(isAsk, priceKey(price), price, size, orders)
      }
    }
  }

  /** Price and size of the best levels. */
  top(isAsk: boolean, depth: number): string[][] {
    const levels = JSON.parse((this.isL3 ? this.orders : this.levels).top(isAsk, depth)) as Level[]
    return levels.map(([price, size]) => [String(priceKey(price)), size])
  }
}

/** What is wrong with the snapshots of a capture, by its own events: nothing, or the first difference. */
export function snapshotDifference(sink: MemorySink, depth: number): string | null {
  const books = new Map<string, ReadersBook>()
  for (const { feed, name, text } of sink.lines) {
    let book = books.get(name)
    if (book === undefined) {
      book = new ReadersBook()
      books.set(name, book)
    }
    if (feed === 'l3_events' || feed === 'l2_updates') book.apply(feed, JSON.parse(text) as Row)
    if (!/^l[23]_(?:spot|perps)$/.test(feed)) continue
    const row = JSON.parse(text) as Row
    for (const [isAsk, key] of [
      [false, `bids_top${depth}`],
      [true, `asks_top${depth}`]
    ] as const) {
      const shown = (row[key] as Level[]).map(([price, size]) => [String(priceKey(price)), size])
      const read = book.top(isAsk, depth)
      if (JSON.stringify(shown) !== JSON.stringify(read)) {
        const at = shown.findIndex((level, n) => JSON.stringify(level) !== JSON.stringify(read[n]))
        return `${name} ${String(row.timestamp_utc)} ${key}: level ${at} of ${shown.length} is ${shown[at]}, by the events ${read[at]}`
      }
    }
  }
  return null
}
