import { difference, priceKey } from '../core/decimal.ts'
import type { ImageOrder, SideRows } from './bitstamp-reader.ts'
import type { Host, Keeper } from './exchange.ts'

/**
 * The comparison of one book with the exchange's own. Plain data.
 *
 * `idle` until `dueUs`; `listening`: changes are noted before the book is asked for, as an answer may lag behind the stream;
 * `asked`; `comparing`: changes that the answer has may still be under way.
 */
export interface AuditState {
  stage: 'idle' | 'listening' | 'asked' | 'comparing'
  sinceUs: number
  /** When the next one begins, µs; null: the book is not live. */
  dueUs: number | null
  /** The request under way; null: none. */
  id: string | null
  /** Time of the exchange, in the book's own unit, that the answer must have reached. */
  fromTime: number
  /** Because nothing came for long: then all of the book is compared. */
  isSilent: boolean
  /** What changed meanwhile: ids of orders, or keys of levels. It is left out of the comparison. */
  touched: string[]
  shown: Shown | null
  /** Disagreements in a row. */
  mismatches: number
}

/** The part of an answer that is compared: rows `[price, size, id]`, or `[price, size, key of the level]`. Plain data. */
export interface Shown {
  bids: [price: string, size: string, name: string][]
  asks: [price: string, size: string, name: string][]
  /** Whether a side holds all that there is, not only the best of it. */
  allBids: boolean
  allAsks: boolean
}

/** What the exchange has and what the book has in its place. */
export interface Disagreement {
  readonly expected: string
  readonly received: string
}

const PERIOD_US = 600_000_000
/** A first disagreement is looked at again so soon; so is a comparison that could not be made. */
const AGAIN_US = 30_000_000
const LISTEN_US = 2_000_000
const ANSWER_US_MAX = 30_000_000
const TOUCHED_MAX = 20_000
const LEVELS = 20

/** The state of a book that is never compared. */
export function noAudit(): AuditState {
  return {
    stage: 'idle',
    sinceUs: 0,
    dueUs: null,
    id: null,
    fromTime: 0,
    isSilent: false,
    touched: [],
    shown: null,
    mismatches: 0
  }
}

/** What `touched` calls a level. */
export function levelName(isAsk: boolean, key: number): string {
  return isAsk ? `-${key}` : `${key}`
}

/**
 * Compares books now and then with what REST shows, as the streams cannot prove that they are whole (L2), or only where
 * they say so (L3). Levels and orders that change around the request are left out, so that an answer of any age above
 * `fromTime` is good: what is wrong in a book stays wrong, and is found a little later.
 */
export class Audits {
  list: AuditState[]
  requests = 0
  private readonly host: Host
  private readonly ask: (index: number, id: string) => void

  /** `ask` requests the book of an instrument; the answer must bear the id. */
  constructor(host: Host, ask: (index: number, id: string) => void) {
    this.host = host
    this.ask = ask
    this.list = host.keepers.map(noAudit)
  }

  /** The book is live: it is compared some time from now. */
  schedule(index: number): void {
    this.list[index] = { ...noAudit(), dueUs: this.host.us + PERIOD_US }
  }

  /** The book is lost. */
  cancel(index: number): void {
    this.list[index] = noAudit()
  }

  /** Something changes; the caller has looked whether anybody notes it (`stage` is not idle). */
  touch(index: number, name: string): void {
    const audit = this.list[index]!
    audit.touched.push(name)
    if (audit.touched.length > TOUCHED_MAX) this.rest(audit, PERIOD_US)
  }

  /** Nothing came for long: is the market quiet, or the subscription mute? `time` is that of the newest frame. */
  suspect(index: number, time: number): void {
    const audit = this.list[index]!
    if (audit.stage !== 'idle') return
    this.begin(audit, time)
    audit.isSilent = true
    this.request(index, audit)
  }

  private begin(audit: AuditState, time: number): void {
    audit.stage = 'listening'
    audit.sinceUs = this.host.us
    audit.fromTime = time
    audit.isSilent = false
    audit.touched = []
  }

  private request(index: number, audit: AuditState): void {
    audit.stage = 'asked'
    audit.sinceUs = this.host.us
    audit.id = `audit-${index}-${++this.requests}`
    this.ask(index, audit.id)
  }

  private rest(audit: AuditState, us: number): void {
    audit.stage = 'idle'
    audit.id = audit.shown = null
    audit.touched = []
    audit.dueUs = this.host.us + us
  }

  /** The instrument whose comparison an answer is for; undefined when nobody waits for it any more. */
  answered(id: string): number | undefined {
    const index = this.list.findIndex(audit => audit.id === id)
    if (index < 0) return undefined
    this.list[index]!.id = null
    return index
  }

  /** The answer, undefined when it was none, with its time. It is compared when what it knows has surely come. */
  show(index: number, shown: Shown | undefined, time: number): void {
    const audit = this.list[index]!
    if (shown === undefined || time < audit.fromTime) return this.rest(audit, AGAIN_US)
    audit.stage = 'comparing'
    audit.sinceUs = this.host.us
    audit.shown = shown
  }

  /**
   * Time passes; `time` is that of the newest frame. Gives what disagrees when that is certain: twice in a row, or once
   * where nothing came at all. `apart` are orders that are known and not in the book.
   */
  tick(
    index: number,
    keeper: Keeper,
    time: number,
    isSilent: boolean,
    apart: readonly { readonly id: string }[]
  ): Disagreement | undefined {
    const audit = this.list[index]!
    const us = this.host.us
    const ageUs = us - audit.sinceUs
    if (audit.stage === 'idle') {
      if (audit.dueUs !== null && us >= audit.dueUs) this.begin(audit, time)
    } else if (audit.stage === 'listening') {
      if (ageUs >= LISTEN_US) this.request(index, audit)
    } else if (audit.stage === 'asked') {
      if (ageUs > ANSWER_US_MAX) this.rest(audit, AGAIN_US)
    } else if (ageUs >= LISTEN_US) return this.judge(audit, keeper, isSilent, apart)
    return undefined
  }

  private judge(
    audit: AuditState,
    keeper: Keeper,
    isSilent: boolean,
    apart: readonly { readonly id: string }[]
  ): Disagreement | undefined {
    const found = compare(keeper, audit.shown!, new Set([...audit.touched, ...apart.map(({ id }) => id)]))
    const isCertain = audit.isSilent && isSilent
    this.rest(audit, found === undefined ? PERIOD_US : AGAIN_US)
    if (found === undefined) {
      audit.mismatches = 0
      return undefined
    }
    audit.mismatches++
    const { instId } = keeper.instrument
    this.host.log('warn', 'Book disagrees with REST', { instId, in_row: audit.mismatches, ...found })
    return isCertain || audit.mismatches >= 2 ? found : undefined
  }
}

/** The best of an answer's orders, all of the best levels; `isWhole`: all. */
export function showOrders(orders: readonly ImageOrder[], isWhole: boolean): Shown {
  const side = (isAsk: boolean) =>
    best(
      orders
        .filter(order => order.isAsk === isAsk)
        .map(({ price, size, id, key }): Row => ({ key, row: [price, size, id] })),
      isAsk,
      isWhole
    )
  return shownOf(side(false), side(true))
}

/** The same of an answer's levels. */
export function showLevels(bids: SideRows, asks: SideRows, isWhole: boolean): Shown {
  const side = ({ text, places, keys, zeros }: SideRows, isAsk: boolean) => {
    const rows: Row[] = []
    for (const [n, key] of keys.entries()) {
      if (zeros[n]) continue
      const cut = (at: number) => text.slice(places[n * 4 + at]!, places[n * 4 + at + 1]!)
      rows.push({ key, row: [cut(0), cut(2), levelName(isAsk, key)] })
    }
    return best(rows, isAsk, isWhole)
  }
  return shownOf(side(bids, false), side(asks, true))
}

interface Row {
  readonly key: number
  readonly row: [string, string, string]
}

interface ShownSide {
  readonly rows: [string, string, string][]
  readonly isAll: boolean
}

function shownOf(bids: ShownSide, asks: ShownSide): Shown {
  return { bids: bids.rows, asks: asks.rows, allBids: bids.isAll, allAsks: asks.isAll }
}

function best(rows: Row[], isAsk: boolean, isWhole: boolean): ShownSide {
  const better = isAsk ? 1 : -1
  rows.sort((a, b) => (a.key - b.key) * better)
  let levels = 0
  let end = 0
  for (; end < rows.length; end++) {
    if (end > 0 && rows[end]!.key === rows[end - 1]!.key) continue
    if (++levels > LEVELS && !isWhole) break
  }
  return { rows: rows.slice(0, end).map(({ row }) => row), isAll: end === rows.length }
}

/** The first thing that disagrees, of what is not in `touched`. */
function compare(keeper: Keeper, shown: Shown, touched: ReadonlySet<string>): Disagreement | undefined {
  return (
    compareSide(keeper, false, shown.bids, shown.allBids, touched) ??
    compareSide(keeper, true, shown.asks, shown.allAsks, touched)
  )
}

function compareSide(
  keeper: Keeper,
  isAsk: boolean,
  rows: Shown['bids'],
  isAll: boolean,
  touched: ReadonlySet<string>
): Disagreement | undefined {
  const ours = ownRows(keeper, isAsk, isAll ? Number.POSITIVE_INFINITY : rows.length + touched.size + 1)
  const byName = new Map(ours.map(row => [row[2], row]))
  const side = isAsk ? 'ask' : 'bid'
  const isL3 = keeper.instrument.level === 'l3'
  const tell = (row: Shown['bids'][number] | undefined) =>
    row === undefined ? 'none' : `${side} ${row[0]} ${row[1]}${isL3 ? ` ${row[2]}` : ''}`
  for (const row of rows) {
    const [price, size, name] = row
    if (touched.has(name)) continue
    const own = byName.get(name)
    const agrees = own && priceKey(own[0]) === priceKey(price) && difference(own[1], size) === '0'
    if (!agrees) return { expected: tell(row), received: tell(own) }
  }
  const worst = isAll ? undefined : rows.at(-1)
  const names = new Set(rows.map(row => row[2]))
  for (const own of ours) {
    if (worst && (priceKey(own[0]) - priceKey(worst[0])) * (isAsk ? 1 : -1) > 0) break
    if (!names.has(own[2]) && !touched.has(own[2])) return { expected: 'none', received: tell(own) }
  }
  return undefined
}

/** The `count` best rows of a side of the book, in the form of `Shown`. */
function ownRows(keeper: Keeper, isAsk: boolean, count: number): Shown['bids'] {
  if (keeper.instrument.level === 'l3') {
    return keeper.orders.firstOrders(isAsk, count).map(({ id, size, level }) => [level.price, size, id])
  }
  const rows: Shown['bids'] = []
  for (let n = 0; n < Math.min(count, keeper.levels.count(isAsk)); n++) {
    const { price, size } = keeper.levels.at(isAsk, n)!
    rows.push([price, size, levelName(isAsk, priceKey(price))])
  }
  return rows
}
