import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import { difference } from '../core/decimal.ts'
import type { Host, Keeper, L2Frame } from './exchange.ts'
import { DELETE, type KrakenBookFrame, type KrakenRows, krakenOrdersChecksum, MODIFY } from './kraken-reader.ts'

const CUT = '{"reason":"depth"}'

/** Steps 2 and 4 for `book`: the snapshot is the book, as deep as it was subscribed. */
export function putLevelImage(keeper: Keeper, frame: KrakenBookFrame, depth: number): void {
  keeper.beginImage(null, frame.time)
  for (const isAsk of [false, true]) {
    putLevels(keeper.levels, isAsk, isAsk ? frame.asks : frame.bids)
    cutLevels(keeper.levels, isAsk, depth)
  }
  keeper.endImage({ ...NO_LEVELS, checksum: frame.checksum, exchangeTime: frame.time })
}

/** Whether an image of `book` has the levels that are held, in the same text. */
export function hasSameLevels({ levels }: Keeper, frame: KrakenBookFrame): boolean {
  return [false, true].every(isAsk => {
    const { length, keys, prices, sizes } = isAsk ? frame.asks : frame.bids
    if (length !== levels.count(isAsk)) return false
    for (let n = 0; n < length; n++) {
      const held = levels.get(isAsk, keys[n]!)
      if (held === undefined || held.price !== prices[n] || held.size !== sizes[n]) return false
    }
    return true
  })
}

/** The same of an image of `level3` and its orders. */
export function hasSameOrders({ orders }: Keeper, frame: KrakenBookFrame): boolean {
  return [false, true].every(isAsk => {
    const { length, ids, prices, sizes } = isAsk ? frame.asks : frame.bids
    if (length !== orders.count(isAsk)) return false
    for (let n = 0; n < length; n++) {
      const held = orders.get(ids[n]!)
      if (held === undefined || held.isAsk !== isAsk) return false
      if (held.level.price !== prices[n] || held.size !== sizes[n]) return false
    }
    return true
  })
}

const NO_LEVELS: L2Frame = {
  bids: '[]',
  asks: '[]',
  sequence: null,
  previous: null,
  checksum: null,
  exchangeTime: null
}
const update: L2Frame = { ...NO_LEVELS }

/** Steps 3 and 4 for `book`. What is cut off stands in the record as removed, so that a reader needs to know no depth. */
export function updateLevels(keeper: Keeper, frame: KrakenBookFrame, depth: number): void {
  const { levels } = keeper
  putLevels(levels, false, frame.bids)
  putLevels(levels, true, frame.asks)
  update.bids = listOf(levelTexts(frame.bids) + cutLevels(levels, false, depth))
  update.asks = listOf(levelTexts(frame.asks) + cutLevels(levels, true, depth))
  update.checksum = frame.checksum
  update.exchangeTime = frame.time
  keeper.update(update)
}

function putLevels(levels: LevelBook, isAsk: boolean, { length, keys, prices, sizes, zeros }: KrakenRows): void {
  for (let n = 0; n < length; n++) {
    if (zeros[n]) levels.remove(isAsk, keys[n]!)
    else levels.set(isAsk, keys[n]!, prices[n]!, sizes[n]!, null)
  }
}

/** Levels as they stand in records, each with a comma before it. */
function levelTexts({ length, prices, sizes }: KrakenRows): string {
  let text = ''
  for (let n = 0; n < length; n++) text += `,["${prices[n]}","${sizes[n]}","0",null]`
  return text
}

function listOf(texts: string): string {
  return texts === '' ? '[]' : `[${texts.slice(1)}]`
}

/** Step 4: removes what is deeper than subscribed; it comes back as removals in the form of records. */
function cutLevels(levels: LevelBook, isAsk: boolean, depth: number): string {
  let text = ''
  for (let count = levels.count(isAsk); count > depth; count--) {
    const { key, price } = levels.at(isAsk, count - 1)!
    levels.remove(isAsk, isAsk ? -key : key)
    text += `,["${price}","0","0",null]`
  }
  return text
}

/** An order that was changed without leaving its price. */
interface ChangedOrder {
  readonly id: string
  readonly hasGrown: boolean
}

/** Applies snapshots and updates of `level3`. */
export class OrderFrames {
  /** Whether the queues of a book are in doubt, by instrument. Plain data. */
  doubts: boolean[]
  private readonly host: Host
  private readonly changed: ChangedOrder[] = []

  constructor(host: Host) {
    this.host = host
    this.doubts = host.keepers.map(() => false)
  }

  /** Steps 2 and 4. */
  image(index: number, frame: KrakenBookFrame, depth: number): void {
    const keeper = this.host.keepers[index]!
    this.doubts[index] = false
    keeper.beginImage(null, frame.time)
    for (const isAsk of [false, true]) {
      const { length, ids, prices, sizes } = isAsk ? frame.asks : frame.bids
      for (let n = 0; n < length; n++) keeper.imageOrder(ids[n]!, isAsk, prices[n]!, sizes[n]!)
      cutOrders(keeper, isAsk, depth, frame.time)
    }
    keeper.endImage()
  }

  /** Steps 3 and 4. What is cut off is told as done, in the same batch. */
  update(index: number, frame: KrakenBookFrame, depth: number): void {
    const keeper = this.host.keepers[index]!
    this.changed.length = 0
    keeper.beginBatch()
    this.put(keeper, false, frame.bids)
    this.put(keeper, true, frame.asks)
    cutOrders(keeper, false, depth, frame.time)
    cutOrders(keeper, true, depth, frame.time)
    keeper.endBatch()
    if (this.changed.length > 0 && frame.checksum) this.settle(index, keeper, frame.checksum)
  }

  private put(
    keeper: Keeper,
    isAsk: boolean,
    { length, keys, events, ids, prices, sizes, zeros, times }: KrakenRows
  ): void {
    for (let n = 0; n < length; n++) {
      const id = ids[n]!
      // An order of no size is none.
      if (events[n] === DELETE || zeros[n]) {
        keeper.removeOrder(id, null, times[n]!)
        continue
      }
      if (events[n] === MODIFY) this.note(keeper.orders, id, isAsk, keys[n]!, sizes[n]!)
      keeper.putOrder(id, isAsk, prices[n]!, sizes[n]!, null, times[n]!)
    }
  }

  private note(orders: OrderBook, id: string, isAsk: boolean, priceKey: number, size: string): void {
    const known = orders.get(id)
    if (known === undefined || known.isAsk !== isAsk || known.level.key !== (isAsk ? -priceKey : priceKey)) return
    this.changed.push({ id, hasGrown: !difference(size, known.size).startsWith('-') })
  }

  /** Orders that have changed at their price keep their place, unless the checksum says that they stand at the back. */
  private settle(index: number, keeper: Keeper, checksum: number): void {
    const { orders, instrument } = keeper
    if (krakenOrdersChecksum(orders) === checksum) {
      this.doubts[index] = false
      return
    }
    // A book that was wrong before says nothing about this frame.
    if (this.doubts[index]) return
    const grown = this.changed.filter(({ hasGrown }) => hasGrown)
    const facts = { instId: instrument.instId, orders: this.changed.length, grown: grown.length }
    for (const some of [grown, this.changed]) {
      const behind = new Set(some.map(({ id }) => id))
      if (behind.size === 0 || krakenOrdersChecksum(orders, behind) !== checksum) continue
      for (const id of behind) moveBack(orders, id)
      this.host.log('info', 'Orders have lost their place in the queue', { ...facts, moved: behind.size })
      return
    }
    this.doubts[index] = true
    this.host.log('warn', 'The place in the queue of changed orders is in doubt', facts)
  }
}

/** Puts an order behind all others of its price. No event: no record tells of queues. */
function moveBack(orders: OrderBook, id: string): void {
  const order = orders.get(id)
  if (order === undefined) return
  const { isAsk, size, level } = order
  const { price } = level
  orders.remove(id)
  orders.set(id, isAsk, price, size)
}

/** Step 4: the orders of price levels beyond the window are gone, though nobody says so. */
function cutOrders(keeper: Keeper, isAsk: boolean, depth: number, time: string | null): void {
  const { orders } = keeper
  for (let count = orders.levelCount(isAsk); count > depth; count = orders.levelCount(isAsk)) {
    keeper.removeOrder(orders.level(isAsk, count - 1)!.first!.id, null, time, CUT)
  }
}
