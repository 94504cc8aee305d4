import { describe, expect, it } from 'vitest'
import { applyEvent, applyUpdate, type BookUpdate } from '../../src/book/apply.ts'
import type { BookEvent } from '../../src/book/event-line.ts'
import { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'

type Order = [id: string, side: 'bid' | 'ask', price: string, size: string]

function event(type: string, order: Order | null = null): BookEvent {
  const [order_id, side, price, size] = order ?? [null, null, null, null]
  return { event_type: type, order_id, side, price, size } as BookEvent
}

function bookOf(...orders: Order[]): OrderBook {
  const book = new OrderBook()
  for (const order of orders) applyEvent(book, event('snapshot', order))
  return book
}

describe('an event', () => {
  const start: Order[] = [
    ['1', 'bid', '100', '2'],
    ['2', 'ask', '101', '3']
  ]
  it.each<[string, Order | null, string[][], string | null]>([
    [
      'open',
      ['3', 'bid', '100', '1'],
      [
        ['1', '100', '2'],
        ['3', '100', '1'],
        ['2', '101', '3']
      ],
      null
    ],
    [
      'open',
      ['1', 'bid', '99', '1'],
      [
        ['1', '99', '1'],
        ['2', '101', '3']
      ],
      'known_order'
    ],
    [
      'change',
      ['1', 'bid', '99', '1'],
      [
        ['1', '99', '1'],
        ['2', '101', '3']
      ],
      null
    ],
    [
      'change',
      ['3', 'bid', '99', '1'],
      [
        ['1', '100', '2'],
        ['3', '99', '1'],
        ['2', '101', '3']
      ],
      'unknown_order'
    ],
    [
      'match',
      ['2', 'ask', '101', '0.5'],
      [
        ['1', '100', '2'],
        ['2', '101', '2.5']
      ],
      null
    ],
    ['match', ['2', 'ask', '101', '3.0'], [['1', '100', '2']], null],
    ['match', ['2', 'ask', '101', '3.1'], [['1', '100', '2']], 'match_too_large'],
    [
      'match',
      ['3', 'ask', '101', '3'],
      [
        ['1', '100', '2'],
        ['2', '101', '3']
      ],
      'unknown_order'
    ],
    ['done', ['1', 'bid', '100', '2'], [['2', '101', '3']], null],
    [
      'done',
      ['3', 'bid', '100', '2'],
      [
        ['1', '100', '2'],
        ['2', '101', '3']
      ],
      null
    ],
    [
      'received',
      ['3', 'bid', '100', '2'],
      [
        ['1', '100', '2'],
        ['2', '101', '3']
      ],
      null
    ],
    [
      'activate',
      ['3', 'bid', '100', '2'],
      [
        ['1', '100', '2'],
        ['2', '101', '3']
      ],
      null
    ],
    [
      'gap',
      null,
      [
        ['1', '100', '2'],
        ['2', '101', '3']
      ],
      null
    ],
    ['clear', null, [], null]
  ])('%s %j', (type, order, orders, misfit) => {
    const book = bookOf(...start)
    expect(applyEvent(book, event(type, order))).toBe(misfit)
    const { bids, asks } = book.state()
    expect([...bids, ...asks]).toEqual(orders)
  })
})

describe('an update', () => {
  const update = (event_type: string, bids: unknown[], asks: unknown[] = []) =>
    ({ event_type, bids, asks }) as BookUpdate

  it('sets levels, and removes those of no size', () => {
    const book = new LevelBook()
    applyUpdate(book, update('snapshot', [['100', '1', '0', '2']], [['101', '1', '0', null]]))
    applyUpdate(
      book,
      update(
        'update',
        [
          ['100.0', '0.000', '0', '0'],
          ['99', '4', '0', '1']
        ],
        [['101.0', '5', '0', null]]
      )
    )
    expect(book.state()).toEqual({ bids: [['99', '4', '1']], asks: [['101.0', '5', null]] })
    applyUpdate(book, update('gap', []))
    expect(book.count(true)).toBe(1)
    applyUpdate(book, update('clear', []))
    expect(book.count(true) + book.count(false)).toBe(0)
  })
})
