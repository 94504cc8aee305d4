import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { OrderBook } from '../../src/book/orders.ts'

/** An order as the oracle keeps it: numbers are exact, as sizes are thousandths and prices whole tenths. */
interface Held {
  readonly id: string
  isAsk: boolean
  tenths: number
  thousandths: number
  /** When it came to its place in the queue. */
  arrived: number
}

type Step =
  | { do: 'set'; id: string; isAsk: boolean; tenths: number; thousandths: number }
  | { do: 'resize'; id: string; thousandths: number }
  | { do: 'remove'; id: string }
  | { do: 'restore' }

const ID = fc.integer({ min: 95, max: 130 }).map(String)
const STEP: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('set' as const),
      id: ID,
      isAsk: fc.boolean(),
      tenths: fc.integer({ min: 1, max: 30 }),
      thousandths: fc.integer({ min: 1, max: 5000 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('resize' as const),
      id: ID,
      thousandths: fc.integer({ min: 1, max: 5000 })
    })
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('remove' as const), id: ID }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restore' as const) }) }
)

/** Every other price is written with an exponent: the same price has one text here, so that texts can be compared. */
function priceText(tenths: number): string {
  return tenths % 2 === 0 ? `${tenths}e-1` : plain(tenths * 100)
}

/** Thousandths as a plain decimal. */
function plain(thousandths: number): string {
  const front = Math.floor(thousandths / 1000)
  const back = String(thousandths % 1000)
    .padStart(3, '0')
    .replace(/0+$/, '')
  return back ? `${front}.${back}` : String(front)
}

class Oracle {
  readonly orders = new Map<string, Held>()
  private moment = 0

  set(id: string, isAsk: boolean, tenths: number, thousandths: number): boolean {
    const old = this.orders.get(id)
    const stays = old !== undefined && old.isAsk === isAsk && old.tenths === tenths
    this.orders.set(id, { id, isAsk, tenths, thousandths, arrived: stays ? old.arrived : ++this.moment })
    return old !== undefined
  }

  /** A side best first, in queue order. */
  side(isAsk: boolean): Held[] {
    const better = isAsk ? 1 : -1
    return [...this.orders.values()]
      .filter(order => order.isAsk === isAsk)
      .sort((a, b) => (a.tenths - b.tenths) * better || a.arrived - b.arrived)
  }

  top(isAsk: boolean, depth: number): [string, string, string, string][] {
    const levels = new Map<number, Held[]>()
    for (const order of this.side(isAsk)) levels.set(order.tenths, [...(levels.get(order.tenths) ?? []), order])
    return [...levels]
      .slice(0, depth)
      .map(([tenths, held]) => [priceText(tenths), plain(total(held)), '0', String(held.length)])
  }

  queues(isAsk: boolean): [string, string[]][] {
    const levels = new Map<number, string[]>()
    for (const { id, tenths } of this.side(isAsk)) levels.set(tenths, [...(levels.get(tenths) ?? []), id])
    return [...levels].map(([tenths, ids]) => [priceText(tenths), ids])
  }

  stats(): unknown {
    const [bids, asks] = [this.side(false), this.side(true)]
    const tenths = bids[0] && asks[0] ? asks[0].tenths - bids[0].tenths : undefined
    const spread = tenths === undefined ? null : `${tenths < 0 ? '-' : ''}${plain(Math.abs(tenths) * 100)}`
    return {
      total_orders: this.orders.size,
      bid_count: bids.length,
      ask_count: asks.length,
      total_bid_volume: plain(total(bids)),
      total_ask_volume: plain(total(asks)),
      spread
    }
  }

  /** By price, then by number. */
  first(isAsk: boolean, count: number): string[] {
    const better = isAsk ? 1 : -1
    return this.side(isAsk)
      .sort((a, b) => (a.tenths - b.tenths) * better || Number(a.id) - Number(b.id))
      .slice(0, count)
      .map(({ id }) => id)
  }
}

function total(orders: readonly Held[]): number {
  return orders.reduce((sum, order) => sum + order.thousandths, 0)
}

/** Every price level of a side, best first, with the ids of its queue. */
function queues(book: OrderBook, isAsk: boolean): [string, string[]][] {
  expect(book.level(isAsk, book.levelCount(isAsk))).toBeUndefined()
  return Array.from({ length: book.levelCount(isAsk) }, (_, n) => {
    const level = book.level(isAsk, n)!
    const ids: string[] = []
    for (let order = level.first; order !== null; order = order.after) ids.push(order.id)
    expect(level.count).toBe(ids.length)
    return [level.price, ids]
  })
}

function compare(book: OrderBook, oracle: Oracle): void {
  expect(book.size).toBe(oracle.orders.size)
  expect(JSON.parse(book.stats())).toEqual(oracle.stats())
  for (const isAsk of [false, true]) {
    expect(JSON.parse(book.top(isAsk, 3))).toEqual(oracle.top(isAsk, 3))
    expect(JSON.parse(book.top(isAsk, 400))).toEqual(oracle.top(isAsk, 400))
    expect(book.count(isAsk)).toBe(oracle.side(isAsk).length)
    expect(book.best(isAsk)).toBe(oracle.top(isAsk, 1)[0]?.[0] ?? null)
    expect(book.firstOrders(isAsk, 5).map(({ id }) => id)).toEqual(oracle.first(isAsk, 5))
    expect(queues(book, isAsk)).toEqual(oracle.queues(isAsk))
  }
  const [bid, ask] = [oracle.side(false)[0], oracle.side(true)[0]]
  expect(book.crossed).toBe(bid !== undefined && ask !== undefined && bid.tenths >= ask.tenths)
  const rows = (isAsk: boolean) => oracle.side(isAsk).map(o => [o.id, priceText(o.tenths), plain(o.thousandths)])
  expect(book.state()).toEqual({ bids: rows(false), asks: rows(true) })
}

describe('an order book', () => {
  it('does what a plain list of orders does', () => {
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 120 }), steps => {
        let book = new OrderBook()
        const oracle = new Oracle()
        for (const step of steps) {
          if (step.do === 'set') {
            const { id, isAsk, tenths, thousandths } = step
            const known = book.set(id, isAsk, priceText(tenths), plain(thousandths))
            expect(known).toBe(oracle.set(id, isAsk, tenths, thousandths))
          } else if (step.do === 'resize') {
            const order = book.get(step.id)
            const held = oracle.orders.get(step.id)
            expect(order?.id).toBe(held?.id)
            if (order && held) {
              book.resize(order, plain(step.thousandths))
              held.thousandths = step.thousandths
            }
          } else if (step.do === 'remove') {
            const held = oracle.orders.get(step.id)
            expect(book.remove(step.id)?.size).toBe(held && plain(held.thousandths))
            oracle.orders.delete(step.id)
          } else {
            const state = JSON.parse(JSON.stringify(book.state())) as ReturnType<OrderBook['state']>
            book = new OrderBook()
            book.set('1', true, '7', '7')
            book.restore(state)
          }
        }
        compare(book, oracle)
        book.clear()
        compare(book, new Oracle())
      }),
      { numRuns: 200 }
    )
  })

  it('sorts ids as numbers, also those that are too long for one', () => {
    const book = new OrderBook()
    for (const id of ['9', '10', '99999999999999999999', '100000000000000000000', '2']) book.set(id, false, '5', '1')
    expect(book.firstOrders(false, 25).map(({ id }) => id)).toEqual([
      '2',
      '9',
      '10',
      '99999999999999999999',
      '100000000000000000000'
    ])
  })

  it('takes two texts of one price as one level', () => {
    const book = new OrderBook()
    book.set('1', false, '0.0000001', '1')
    book.set('2', false, '1e-7', '0.5')
    expect(book.top(false, 5)).toBe('[["0.0000001","1.5","0","2"]]')
    book.remove('1')
    book.remove('2')
    expect(book.best(false)).toBeNull()
  })
})
