import { priceKey } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import { type ExchangeTime, isoOfMicros } from '../core/time.ts'
import type { ImageOrder, OrderEvent } from './bitstamp-reader.ts'
import type { Keeper } from './exchange.ts'

/**
 * An order that is not in the book: it has no price, or the price would cross the other side. Plain data.
 *
 * Bitstamp shows orders that trade at once (market, immediate, crossing limit orders) like any other: created, changed with
 * each fill, deleted. They never rest, so neither a book nor a file of events may show them as if they did.
 */
export interface HeldOrder {
  readonly id: string
  isAsk: boolean
  price: string
  size: string
  /** `priceKey` of the price; null for an order without a price. */
  key: number | null
  /** Since when it is held, µs. */
  readonly sinceUs: number
}

/** The orders held apart from one book. Plain data. */
export interface HeldState {
  list: HeldOrder[]
  /** Time of the newest event, ms: all that one match does bears one time. */
  ms: number
}

/** How long a crossing order may cross: as long as a book may be crossed. */
const CROSSED_US_MAX = 5_000_000
/** An order without a price that was never told to be gone is forgotten. */
const HELD_MAX = 5000

/** Whether an order of this price key (NaN or null: no price) cannot rest in the book. */
function cannotRest(keeper: Keeper, isAsk: boolean, key: number | null): boolean {
  if (key === null || Number.isNaN(key)) return true
  const best = keeper.orders.best(!isAsk)
  if (best === null) return false
  return isAsk ? key <= priceKey(best) : key >= priceKey(best)
}

function metadataOf(eventId: string | null, rest = ''): string {
  if (eventId === null) return rest === '' ? '{}' : `{${rest}}`
  return `{"event_id":"${eventId}"${rest === '' ? '' : `,${rest}`}}`
}

/**
 * Applies one event to the book and to what is held apart from it; `us` is the receive time. Events of orders that are
 * neither here nor there are ignored, so that events which the image knows already do no harm.
 */
export function applyOrder(keeper: Keeper, held: HeldState, event: OrderEvent, us: number): void {
  const isNewMoment = event.ms > held.ms
  if (isNewMoment) held.ms = event.ms
  if (held.list.length === 0) return applyEvent(keeper, held, event, us)
  keeper.beginBatch()
  // What a match leaves is known when the next moment begins: between its events the book may have room for an order that
  // is filled already. Of the order itself the event at hand tells more.
  if (isNewMoment) release(keeper, held, event.id, event.eventId, isoOfMicros(event.micros))
  if (!applyToHeld(keeper, held, event)) applyEvent(keeper, held, event, us)
  keeper.endBatch()
}

function applyEvent(keeper: Keeper, held: HeldState, event: OrderEvent, us: number): void {
  const { id, isAsk, price, eventId } = event
  const time = isoOfMicros(event.micros)
  const known = keeper.orders.get(id)
  if (event.kind === 'deleted') {
    // While an image is put together it is no news that an order is gone.
    if (known === undefined && !keeper.live) return
    keeper.removeOrder(id, null, time, metadataOf(eventId, event.isZero ? '"reason":"filled"' : '"reason":"canceled"'))
    return
  }
  if (event.kind === 'changed' && known === undefined) return
  if (event.isZero) {
    // Nothing is left of it: its deletion is still to come.
    if (known !== undefined) keeper.removeOrder(id, null, time, metadataOf(eventId, '"reason":"filled"'))
    return
  }
  const size = detached(event.size)
  if (!cannotRest(keeper, isAsk, event.key)) {
    keeper.putOrder(detached(id), isAsk, detached(price), size, null, time, metadataOf(eventId))
    return
  }
  if (known !== undefined) keeper.removeOrder(id, null, time, metadataOf(eventId, '"reason":"repriced"'))
  hold(held, id, isAsk, price, size, event.key, us)
}

function hold(held: HeldState, id: string, isAsk: boolean, price: string, size: string, key: number, us: number): void {
  held.list.push({
    id: detached(id),
    isAsk,
    price: detached(price),
    size,
    key: Number.isNaN(key) ? null : key,
    sinceUs: us
  })
  if (held.list.length <= HELD_MAX) return
  // Those without a price say least about the book.
  const priceless = held.list.findIndex(order => order.key === null)
  held.list.splice(Math.max(0, priceless), 1)
}

/** Whether the event was of an order that is held apart, and is done with. */
function applyToHeld(keeper: Keeper, held: HeldState, event: OrderEvent): boolean {
  const at = held.list.findIndex(({ id }) => id === event.id)
  if (at < 0) return false
  const order = held.list[at]!
  if (event.kind === 'deleted' || event.isZero) {
    held.list.splice(at, 1)
    return true
  }
  order.isAsk = event.isAsk
  order.price = detached(event.price)
  order.size = detached(event.size)
  order.key = Number.isNaN(event.key) ? null : event.key
  // It was told what is left of it: nothing of this order is under way any more.
  if (event.kind === 'changed' && !cannotRest(keeper, order.isAsk, order.key)) {
    held.list.splice(at, 1)
    open(keeper, order, event.eventId, isoOfMicros(event.micros))
  }
  return true
}

function open(keeper: Keeper, order: HeldOrder, eventId: string | null, time: ExchangeTime): void {
  keeper.putOrder(order.id, order.isAsk, order.price, order.size, null, time, metadataOf(eventId, '"held":true'))
}

/** Puts those orders into the book that have room there now, but for one. */
function release(keeper: Keeper, held: HeldState, exceptId: string, eventId: string | null, time: ExchangeTime): void {
  // In the order of their arrival: one that is put may keep another out.
  held.list = held.list.filter(order => {
    if (order.id === exceptId || cannotRest(keeper, order.isAsk, order.key)) return true
    open(keeper, order, eventId, time)
    return false
  })
}

/** Time passes and nothing is under way: releases what has room. */
export function settleHeld(keeper: Keeper, held: HeldState): void {
  if (held.list.length === 0) return
  keeper.beginBatch()
  release(keeper, held, '', null, null)
  keeper.endBatch()
}

/**
 * An order that crosses for so long that the book must be wrong; undefined when there is none. Orders without a price say
 * nothing about the book.
 */
export function overdue(keeper: Keeper, held: HeldState, us: number): HeldOrder | undefined {
  if (held.list.length === 0) return undefined
  return held.list.find(
    ({ isAsk, key, sinceUs }) => key !== null && us - sinceUs > CROSSED_US_MAX && cannotRest(keeper, isAsk, key)
  )
}

/**
 * Fills the book with the orders of an image. An image taken in the middle of a match may be crossed: of the orders that
 * cross each other the newest, those of the largest ids, are held apart.
 */
export function putImage(keeper: Keeper, held: HeldState, orders: readonly ImageOrder[], us: number): void {
  held.list = []
  held.ms = 0
  let bestBid = Number.NEGATIVE_INFINITY
  let bestAsk = Number.POSITIVE_INFINITY
  for (const { isAsk, key } of orders) {
    if (isAsk) bestAsk = Math.min(bestAsk, key)
    else bestBid = Math.max(bestBid, key)
  }
  const crossing: ImageOrder[] = []
  for (const order of orders) {
    const { id, isAsk, price, size, key } = order
    if (isAsk ? key <= bestBid : key >= bestAsk) crossing.push(order)
    else keeper.imageOrder(id, isAsk, price, size)
  }
  crossing.sort((a, b) => a.id.length - b.id.length || (a.id < b.id ? -1 : 1))
  for (const { id, isAsk, price, size, key } of crossing) {
    if (cannotRest(keeper, isAsk, key)) hold(held, id, isAsk, price, size, key, us)
    else keeper.imageOrder(id, isAsk, price, size)
  }
}
