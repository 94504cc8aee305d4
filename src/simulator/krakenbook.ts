import crc32 from 'crc-32'
import type { Order, Side } from './market.ts'
import { hashText } from './random.ts'

const CHECKSUM_LEVELS = 10
const ID_LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const ID_LENGTH = 16

/** A resting order in its queue. `price` is in ticks, `size` in units. */
export interface QueuedOrder {
  readonly id: string
  price: number
  size: number
  /** When it came or was last changed, nanoseconds since the epoch as text. */
  timeNs: string
}

/** All orders of one price, the first in the queue first. */
export interface QueueLevel {
  /** In ticks. */
  readonly price: number
  /** The sum of the orders, in units. */
  size: number
  readonly orders: QueuedOrder[]
}

/** What happened to one order. Prices are in ticks, sizes in units. */
export interface OrderChange {
  readonly side: Side
  readonly orderId: string
  /** Its price before; undefined if it was not there. */
  readonly from: number | undefined
  /** Its price after; undefined if it is gone. */
  readonly to: number | undefined
  /** What remains of it, or what was left when it went: 0 if it was filled. */
  readonly size: number
  /** Nanoseconds since the epoch as text. */
  readonly timeNs: string
  /** The levels it touched, with their sizes afterwards: 0 for a level that is gone. */
  readonly levels: readonly (readonly [price: number, size: number])[]
}

/**
 * The book of one pair with its queues. A market sorts the orders of a price by age alone; here an order that moves to
 * another price goes to the back of the queue there, and one that changes its size keeps its place.
 */
export class QueueBook {
  private readonly pair: string
  private readonly sides: Record<Side, QueueLevel[]> = { bid: [], ask: [] }
  private readonly orders = new Map<number, QueuedOrder>()

  constructor(pair: string) {
    this.pair = pair
  }

  /** The levels of a side, best first. */
  levels(side: Side): readonly QueueLevel[] {
    return this.sides[side]
  }

  /** Where a price stands, or would stand, among the levels of its side. */
  place(side: Side, price: number): number {
    const levels = this.sides[side]
    let low = 0
    let high = levels.length
    while (low < high) {
      const at = (low + high) >>> 1
      if (isWithin(side, levels[at]!.price, price) && levels[at]!.price !== price) low = at + 1
      else high = at
    }
    return low
  }

  /** Takes over what an order of the market is now. */
  apply(order: Order, isGone: boolean, isFill: boolean, timeNs: string): OrderChange {
    const { side } = order
    const known = this.orders.get(order.id)
    const from = known?.price
    const queued = known ?? { id: orderIdText(this.pair, order.id), price: order.price, size: 0, timeNs }
    const levels: [number, number][] = []
    if (!isGone && from === order.price) {
      const level = this.sides[side][this.place(side, from)]!
      level.size += order.size - queued.size
      levels.push([level.price, level.size])
    } else if (from !== undefined) levels.push(this.remove(side, queued))
    const size = isGone ? (isFill ? 0 : queued.size) : order.size
    Object.assign(queued, { price: order.price, size, timeNs })
    if (isGone) this.orders.delete(order.id)
    else if (from !== order.price) levels.push(this.append(side, queued))
    if (!known) this.orders.set(order.id, queued)
    return { side, orderId: queued.id, from, to: isGone ? undefined : order.price, size, timeNs, levels }
  }

  private append(side: Side, order: QueuedOrder): [price: number, size: number] {
    const levels = this.sides[side]
    const at = this.place(side, order.price)
    if (levels[at]?.price !== order.price) levels.splice(at, 0, { price: order.price, size: 0, orders: [] })
    const level = levels[at]!
    level.orders.push(order)
    level.size += order.size
    return [level.price, level.size]
  }

  private remove(side: Side, order: QueuedOrder): [price: number, size: number] {
    const levels = this.sides[side]
    const at = this.place(side, order.price)
    const level = levels[at]!
    level.orders.splice(level.orders.indexOf(order), 1)
    level.size -= order.size
    if (level.orders.length === 0) levels.splice(at, 1)
    return [level.price, level.size]
  }
}

/** True if a price is as good as the edge of a window, or better; any price is if the window has no edge. */
export function isWithin(side: Side, price: number, edge: number | undefined): boolean {
  if (edge === undefined) return true
  return side === 'bid' ? price >= edge : price <= edge
}

/** The decimal text of a whole number of ticks or units at full precision: trailing zeros stay. */
export function fixedText(whole: number, decimals: number): string {
  if (decimals === 0) return String(whole)
  const digits = String(whole).padStart(decimals + 1, '0')
  return `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`
}

/** A price and a quantity as they stand on the wire. */
export type ChecksumRow = readonly [price: string, quantity: string]

/**
 * The unsigned CRC-32 of the rows: asks from low to high, then bids from high to low, each number without its point and
 * without leading zeros. A row is a level (`book`, the best 10 of a side) or an order (`level3`, all orders of the best
 * 10 levels in the order of their queues).
 */
export function krakenChecksum(asks: readonly ChecksumRow[], bids: readonly ChecksumRow[]): number {
  let text = ''
  for (const [price, quantity] of [...asks, ...bids]) text += digitsOf(price) + digitsOf(quantity)
  return crc32.str(text) >>> 0
}

/** The levels of a side that a checksum covers. */
export function checksumLevels(book: QueueBook, side: Side): readonly QueueLevel[] {
  return book.levels(side).slice(0, CHECKSUM_LEVELS)
}

function digitsOf(number: string): string {
  return number.replace('.', '').replace(/^0+/, '')
}

/** An id such as `O6ZQNQ-BXL4E-5WGINO`: it holds the number of the order, so that no two orders of a pair share one. */
function orderIdText(pair: string, id: number): string {
  let rest = id
  let letters = ''
  for (let hash = hashText(`${pair}:${id}`); letters.length < 6; hash >>>= 5) letters += ID_LETTERS[hash & 31]
  while (letters.length < ID_LENGTH) {
    letters += ID_LETTERS[rest % 32]
    rest = Math.floor(rest / 32)
  }
  return `O${letters.slice(0, 5)}-${letters.slice(5, 10)}-${letters.slice(10)}`
}
