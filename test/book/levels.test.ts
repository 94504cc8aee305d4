import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LevelBook } from '../../src/book/levels.ts'
import { priceKey } from '../../src/core/decimal.ts'

type Step =
  | { do: 'set'; isAsk: boolean; tenths: number; size: string; orders: string | null }
  | { do: 'remove'; isAsk: boolean; tenths: number }
  | { do: 'restore' }

const TENTHS = fc.integer({ min: 1, max: 60 })
const STEP: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('set' as const),
      isAsk: fc.boolean(),
      tenths: TENTHS,
      size: fc.constantFrom('1', '0.50', '1e-8', '12345.678'),
      orders: fc.constantFrom(null, '1', '17')
    })
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('remove' as const), isAsk: fc.boolean(), tenths: TENTHS }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restore' as const) }) }
)

type Cell = [size: string, orders: string | null]

function compare(book: LevelBook, oracle: readonly [Map<number, Cell>, Map<number, Cell>]): void {
  const sides = oracle.map((side, at) =>
    [...side].sort(([a], [b]) => (at === 1 ? a - b : b - a)).map(([tenths, [size, n]]) => [`${tenths}e-1`, size, n])
  )
  expect(book.state()).toEqual({ bids: sides[0], asks: sides[1] })
  for (const isAsk of [false, true]) {
    const side = sides[isAsk ? 1 : 0]!
    expect(book.count(isAsk)).toBe(side.length)
    expect(book.best(isAsk)).toBe(side[0]?.[0] ?? null)
    expect(JSON.parse(book.top(isAsk, 7))).toEqual(side.slice(0, 7).map(([price, size, n]) => [price, size, '0', n]))
    for (const n of [0, 3, side.length]) expect(book.at(isAsk, n)?.price).toBe(side[n]?.[0])
  }
  const [bid, ask] = [Math.max(...oracle[0].keys()), Math.min(...oracle[1].keys())]
  expect(book.crossed).toBe(bid >= ask)
}

describe('a book of levels', () => {
  it('does what two plain maps do', () => {
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 150 }), steps => {
        let book = new LevelBook()
        const oracle = [new Map<number, Cell>(), new Map<number, Cell>()] as const
        for (const step of steps) {
          if (step.do === 'set') {
            const price = `${step.tenths}e-1`
            book.set(step.isAsk, priceKey(price), price, step.size, step.orders)
            oracle[step.isAsk ? 1 : 0].set(step.tenths, [step.size, step.orders])
          } else if (step.do === 'remove') {
            const removed = book.remove(step.isAsk, priceKey(`${step.tenths}e-1`))
            expect(removed).toBe(oracle[step.isAsk ? 1 : 0].delete(step.tenths))
          } else {
            const state = JSON.parse(JSON.stringify(book.state())) as ReturnType<LevelBook['state']>
            book = new LevelBook()
            book.set(false, 999, '999', '1', null)
            book.restore(state)
          }
        }
        compare(book, oracle)
        book.clear()
        compare(book, [new Map(), new Map()])
      }),
      { numRuns: 200 }
    )
  })

  it('keeps the text that came last, and one level for two texts of a price', () => {
    const book = new LevelBook()
    book.set(true, priceKey('100'), '100', '1', '1')
    book.set(true, priceKey('100.0'), '100.0', '2.0', null)
    expect(book.top(true, 5)).toBe('[["100.0","2.0","0",null]]')
    expect(book.remove(true, priceKey('1e2'))).toBe(true)
    expect(book.count(true)).toBe(0)
  })
})
