/** What a snapshot shows, judged by itself and against a book. */
import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import { difference, isZero, middle, priceKey } from '../core/decimal.ts'
import { type LevelRow, type SnapshotRecord, sidesOf } from '../core/records.ts'
import type { RuleId } from './finding.ts'

/** What is wrong, in words, and by which rule. */
export interface Fault {
  readonly rule: RuleId
  readonly message: string
}

/** How a snapshot differs from a book. */
export interface Difference extends Fault {
  /** The first price whose level differs, and its side; null where only sums differ. */
  readonly price: string | null
  readonly isAsk: boolean
  /** Whether the sums differ, too: then it is no slip of one level. */
  readonly isDeep: boolean
}

/** What is wrong with a snapshot by itself; undefined: nothing. */
export function faultOf(record: SnapshotRecord): Fault | undefined {
  const { depth, bids, asks } = sidesOf(record)
  return (
    sideFault('bid', bids, depth, false) ??
    sideFault('ask', asks, depth, true) ??
    bestFault('best_bid', record.best_bid, bids) ??
    bestFault('best_ask', record.best_ask, asks) ??
    sumFault(record)
  )
}

function sideFault(side: string, rows: readonly LevelRow[], depth: number, isAsk: boolean): Fault | undefined {
  if (rows.length > depth)
    return { rule: 'bad_record', message: `${rows.length} levels of ${side}s stand where at most ${depth} may` }
  for (const [n, [price, size]] of rows.entries()) {
    const before = rows[n - 1]?.[0]
    if (isZero(size)) return { rule: 'unsorted_levels', message: `the ${side} level ${price} has no size` }
    if (before === undefined) continue
    const step = priceKey(price) - priceKey(before)
    // NaN is no step either way.
    if (!(isAsk ? step > 0 : step < 0))
      return { rule: 'unsorted_levels', message: `the ${side} level ${price} stands behind ${before}` }
  }
  return undefined
}

function bestFault(key: string, best: string | null, rows: readonly LevelRow[]): Fault | undefined {
  const first = rows[0]?.[0] ?? null
  if (best === first) return undefined
  return { rule: 'wrong_best', message: `${key} is ${best}, the first level ${first}` }
}

function sumFault({ best_bid, best_ask, mid_price, stats }: SnapshotRecord): Fault | undefined {
  const isEmpty = best_bid === null || best_ask === null
  const mid = isEmpty ? null : middle(best_bid, best_ask)
  if (mid_price !== mid) return { rule: 'wrong_mid', message: `mid_price is ${mid_price}, the middle is ${mid}` }
  if (stats === undefined) return undefined
  const spread = isEmpty ? null : difference(best_ask, best_bid)
  if (stats.spread !== spread)
    return { rule: 'wrong_stats', message: `stats.spread is ${stats.spread}, the difference ${spread}` }
  const { total_orders, bid_count, ask_count } = stats
  if (total_orders === bid_count + ask_count) return undefined
  return { rule: 'wrong_stats', message: `stats.total_orders is ${total_orders}, not ${bid_count} + ${ask_count}` }
}

/** Whether the best bid is not below the best ask. */
export function isCrossed({ best_bid, best_ask }: SnapshotRecord): boolean {
  return best_bid !== null && best_ask !== null && priceKey(best_bid) >= priceKey(best_ask)
}

/** How a snapshot differs from the book that the events make; undefined: it does not. */
export function differenceOf(record: SnapshotRecord, book: OrderBook | LevelBook): Difference | undefined {
  const { depth, bids, asks } = sidesOf(record)
  const stats = statsFault(record, book)
  for (const isAsk of [false, true]) {
    const shown = isAsk ? asks : bids
    const rebuilt = JSON.parse(book.top(isAsk, depth)) as LevelRow[]
    const n = firstDifference(shown, rebuilt)
    if (n < 0) continue
    const [a, b] = [shown[n], rebuilt[n]]
    const message = `${isAsk ? 'ask' : 'bid'} level ${n + 1} is ${wordsOf(a)}, by the events ${wordsOf(b)}`
    // The better of the two prices is the one that stands on one side only.
    const isShown = b === undefined || (a !== undefined && priceKey(a[0]) < priceKey(b[0]) === isAsk)
    const price = (isShown ? a : b)![0]
    return { rule: 'snapshot_differs', message, price, isAsk, isDeep: stats !== undefined }
  }
  return stats && { ...stats, price: null, isAsk: false, isDeep: false }
}

function statsFault({ stats }: SnapshotRecord, book: OrderBook | LevelBook): Fault | undefined {
  if (stats === undefined || !('stats' in book)) return undefined
  const rebuilt = JSON.parse(book.stats()) as typeof stats
  for (const key of Object.keys(rebuilt) as (keyof typeof stats)[]) {
    if (stats[key] !== rebuilt[key])
      return { rule: 'wrong_stats', message: `stats.${key} is ${stats[key]}, by the events ${rebuilt[key]}` }
  }
  return undefined
}

function firstDifference(shown: readonly LevelRow[], rebuilt: readonly LevelRow[]): number {
  for (let n = 0; n < Math.max(shown.length, rebuilt.length); n++) {
    const [a, b] = [shown[n], rebuilt[n]]
    if (a === undefined || b === undefined || a[0] !== b[0] || a[1] !== b[1] || a[3] !== b[3]) return n
  }
  return -1
}

function wordsOf(row: LevelRow | undefined): string {
  return row === undefined ? 'missing' : `${row[0]} x ${row[1]}${row[3] === null ? '' : ` (${row[3]} orders)`}`
}
