/** The contract's table: what a reader of `l3_events` or `l2_updates` does to its book. */
import { difference, isZero, priceKey } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import type { UpdateRecord } from '../core/records.ts'
import type { BookEvent } from './event-line.ts'
import type { LevelBook } from './levels.ts'
import type { OrderBook } from './orders.ts'

/**
 * How an event does not fit the book it is applied to, which then lacks something: an order that is opened twice, changed
 * or matched without being there, or matched for more than it has.
 */
export type Misfit = 'known_order' | 'unknown_order' | 'match_too_large'

/** What an update does to a book: the part of an `UpdateRecord` that `applyUpdate` needs. */
export type BookUpdate = Pick<UpdateRecord, 'event_type' | 'bids' | 'asks'>

/**
 * Applies one event of `l3_events`; null when it fits. One that does not is applied as far as it can be. The book is
 * consistent after the last event of a frame (`last`). A `gap` leaves it as it is, to be distrusted until the next `clear`.
 */
export function applyEvent(book: OrderBook, event: BookEvent): Misfit | null {
  const { event_type: type, order_id: id, side, price, size } = event
  if (type === 'clear') book.clear()
  if (id === null || type === 'received' || type === 'activate') return null
  if (type === 'done') {
    // It may be gone already: what a match took whole is done afterwards.
    book.remove(id)
    return null
  }
  if (type === 'match') return size === null ? null : reduce(book, id, size)
  if (side === null || price === null || size === null) return null
  const isKnown = book.set(detached(id), side === 'ask', detached(price), detached(size))
  if (type === 'change') return isKnown ? null : 'unknown_order'
  return isKnown ? 'known_order' : null
}

function reduce(book: OrderBook, id: string, size: string): Misfit | null {
  const order = book.get(id)
  if (order === undefined) return 'unknown_order'
  const left = difference(order.size, size)
  const isTooLarge = left.startsWith('-')
  if (isTooLarge || isZero(left)) book.remove(id)
  else book.resize(order, left)
  return isTooLarge ? 'match_too_large' : null
}

/** Applies one line of `l2_updates`. A `gap` leaves the book as it is, to be distrusted until the next `clear`. */
export function applyUpdate(book: LevelBook, update: BookUpdate): void {
  if (update.event_type === 'gap') return
  if (update.event_type !== 'update') book.clear()
  for (const isAsk of [false, true]) {
    for (const [price, size, , orders] of isAsk ? update.asks : update.bids) {
      if (isZero(size)) book.remove(isAsk, priceKey(price))
      else book.set(isAsk, priceKey(price), price, size, orders)
    }
  }
}
