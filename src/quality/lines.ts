/**
 * Reads lines of the derived feeds as the capture writes them: one regular expression for the whole of a line takes a quarter of the
 * time of a parser. What it does not know is for `recordFault`.
 */
import type { EventRecord, SnapshotRecord, TradeRecord, UpdateRecord } from '../core/records.ts'
import { sidesOf } from '../core/records.ts'
import { isoMs } from '../core/time.ts'

// The milliseconds stand in both times. Groups 1 to 4: text of the second, milliseconds, seconds, rest of the microseconds.
const HEAD = String.raw`^\{"timestamp_utc":"([^"]{19})\.(\d{3})Z","recv_us":(\d{10})\2(\d{3}),`
const FIRST_GROUP = 5
const WORD = String.raw`"([^"\\\0-\x1f]+)"`
const DECIMAL = String.raw`"(\d+(?:\.\d+)?)"`
const NUMBER = String.raw`(null|0|-?[1-9]\d{0,14})`
const TIME = String.raw`(?:"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)"|null)`
const SOURCE = String.raw`("conn":"[^"\\\0-\x1f]+","frame":[1-9]\d{0,14})`
const METADATA = String.raw`"metadata":(\{.*\})\}$`
const orNull = (pattern: string) => `(?:${pattern}|null)`
const LEVELS = String.raw`(\[[^a-mo-tv-z{}]*\])`

const EVENT = new RegExp(
  `"event_type":"([a-z]+)","order_id":${orNull(WORD)},"side":(?:"(bid|ask)"|null),"price":${orNull(DECIMAL)},` +
    `"size":${orNull(DECIMAL)},"sequence":${NUMBER},"exchange_time":${TIME},${SOURCE},"last":(true|false),${METADATA}`
).source
const UPDATE = new RegExp(
  `"event_type":"(update|snapshot)","bids":${LEVELS},"asks":${LEVELS},"seqId":${NUMBER},"prevSeqId":${NUMBER},` +
    `"checksum":${NUMBER},"exchange_time":${TIME},${SOURCE},${METADATA}`
).source
const TRADE = new RegExp(
  `"trade_id":${WORD},"side":"(?:buy|sell)","price":${DECIMAL},"size":${DECIMAL},"exchange_time":${TIME},${SOURCE},${METADATA}`
).source
const SHOT = String.raw`"bids_top([1-9]\d{0,4})`
const SHOT_MIDDLE = new RegExp(
  `,"checksum":${NUMBER},"seqId":${NUMBER},"prevSeqId":${NUMBER},"gap_detected":(true|false),` +
    String.raw`"synced_at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)",${SOURCE}`,
  'y'
)
const LEVEL = new RegExp(String.raw`\[${DECIMAL},${DECIMAL},"0",(?:"(\d+)"|null)\]([,\]])`, 'y')

const EVENT_TYPES = new Set(['snapshot', 'open', 'change', 'match', 'done', 'received', 'activate'])
const MAY_LACK = new Set(['done', 'received', 'activate'])

/** What a line has in common with all others of its file, and how the rest of it looks. */
export class Form {
  /** Receive time of the line read last, µs. */
  us = Number.NaN
  private readonly tail: string
  private pattern: RegExp | null = null
  private secondText = ''
  private second = ''
  private secondUs = 0

  /** `feed`: whose lines they are. */
  constructor(feed: string) {
    this.tail = feed === 'l3_events' ? EVENT : feed === 'l2_updates' ? UPDATE : feed === 'trades' ? TRADE : SHOT
  }

  /** Reads a line; null when it is not as the one that was learned from, or its two times differ. */
  read(text: string): RegExpExecArray | null {
    const match = this.pattern?.exec(text) ?? null
    if (match === null) return null
    const [, secondText, ms, second, rest] = match
    if (second !== this.second || secondText !== this.secondText) {
      const us = Number(second) * 1_000_000
      if (isoMs(us).slice(0, 19) !== secondText) return null
      this.second = second!
      this.secondText = secondText
      this.secondUs = us
    }
    this.us = this.secondUs + Number(ms) * 1000 + Number(rest)
    return match
  }

  /** Takes the keys of a record that was found to be right by a parser. */
  learn(record: { recv_us: number; exchange: string; market: string; channel: string; instId: string }): void {
    const { recv_us, exchange, market, channel, instId } = record
    const shared = JSON.stringify({ exchange, market, channel, instId }).slice(1, -1)
    this.us = recv_us
    this.pattern = new RegExp(`${HEAD}${shared.replace(/[.*+?^${}()|[\]\\/-]/g, String.raw`\$&`)},${this.tail}`)
  }
}

function numberOf(text: string): number | null {
  return text === 'null' ? null : Number(text)
}

/** The object of a text; undefined when it is none. */
function objectOf(text: string): Record<string, unknown> | undefined {
  if (text === '{}') return NOTHING
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    // The parser of the whole line will say what is wrong.
    return undefined
  }
}

const NOTHING: Record<string, unknown> = {}

/** A line of `l3_events`; reused. */
export class EventLine {
  type = ''
  id: string | null = null
  side: string | null = null
  price: string | null = null
  size: string | null = null
  sequence: number | null = null
  exchangeTime: string | null = null
  /** `"conn":…,"frame":…`. */
  source = ''
  last = false
  reason: unknown = null

  /** Takes what a form has read; false when it is unusual. */
  take(match: RegExpExecArray): boolean {
    const [type, id, side, price, size, sequence, time, source, last, metadata] = match.slice(FIRST_GROUP)
    if (!EVENT_TYPES.has(type!) || id === undefined || (type === 'snapshot' && time !== undefined)) return false
    const isWhole = side !== undefined && price !== undefined && size !== undefined
    if ((!isWhole && !MAY_LACK.has(type!)) || objectOf(metadata!) === undefined) return false
    this.type = type!
    this.id = id
    this.side = side ?? null
    this.price = price ?? null
    this.size = size ?? null
    this.sequence = numberOf(sequence!)
    this.exchangeTime = time ?? null
    this.source = source!
    this.last = last === 'true'
    this.reason = null
    return true
  }

  /** Takes a parsed record. */
  fill(record: EventRecord): void {
    this.type = record.event_type
    this.id = record.order_id
    this.side = record.side
    this.price = record.price
    this.size = record.size
    this.sequence = record.sequence
    this.exchangeTime = record.exchange_time
    this.source = sourceOf(record)
    this.last = record.last
    this.reason = (record.metadata as Record<string, unknown>).reason
  }
}

function sourceOf({ conn, frame }: { conn: string; frame: number }): string {
  return `"conn":${JSON.stringify(conn)},"frame":${frame}`
}

/** Rows of levels as they stand in a line; reused. */
export class LevelRows {
  readonly prices: string[] = []
  readonly sizes: string[] = []
  readonly orders: (string | null)[] = []
  count = 0

  /** Reads `[["43250.5","100","0","5"],…]`; false when it is unusual. */
  read(text: string): boolean {
    this.count = 0
    if (text === '[]') return true
    LEVEL.lastIndex = 1
    for (let match = LEVEL.exec(text); match !== null; match = LEVEL.exec(text)) {
      this.add(match[1]!, match[2]!, match[3] ?? null)
      if (match[4] === ']') return LEVEL.lastIndex === text.length
    }
    return false
  }

  /** Takes one more row. */
  add(price: string, size: string, orders: string | null): void {
    const n = this.count++
    this.prices[n] = price
    this.sizes[n] = size
    this.orders[n] = orders
  }
}

/** A line of `l2_updates`; reused. */
export class UpdateLine {
  type = ''
  readonly bids = new LevelRows()
  readonly asks = new LevelRows()
  sequence: number | null = null
  previous: number | null = null
  checksum: number | null = null
  exchangeTime: string | null = null
  reason: unknown = null

  /** Takes what a form has read; false when it is unusual. */
  take(match: RegExpExecArray): boolean {
    const [type, bids, asks, sequence, previous, checksum, time, , metadata] = match.slice(FIRST_GROUP)
    if (type !== 'update' || metadata !== '{}' || !this.bids.read(bids!) || !this.asks.read(asks!)) return false
    this.type = type
    this.sequence = numberOf(sequence!)
    this.previous = numberOf(previous!)
    this.checksum = numberOf(checksum!)
    this.exchangeTime = time ?? null
    this.reason = null
    return true
  }

  /** Takes a parsed record. */
  fill(record: UpdateRecord): void {
    this.type = record.event_type
    this.bids.count = this.asks.count = 0
    for (const [price, size, , orders] of record.bids) this.bids.add(price, size, orders)
    for (const [price, size, , orders] of record.asks) this.asks.add(price, size, orders)
    this.sequence = record.seqId
    this.previous = record.prevSeqId
    this.checksum = record.checksum
    this.exchangeTime = record.exchange_time
    this.reason = (record.metadata as Record<string, unknown>).reason
  }
}

/** A line of `trades`; reused. */
export class TradeLine {
  id = ''
  price = ''
  size = ''
  exchangeTime: string | null = null
  isBackfill = false

  /** Takes what a form has read; false when it is unusual. */
  take(match: RegExpExecArray): boolean {
    const [id, price, size, time, , metadata] = match.slice(FIRST_GROUP)
    const facts = objectOf(metadata!)
    if (facts === undefined) return false
    this.id = id!
    this.price = price!
    this.size = size!
    this.exchangeTime = time ?? null
    this.isBackfill = facts.backfill === true
    return true
  }

  /** Takes a parsed record. */
  fill(record: TradeRecord): void {
    this.id = record.trade_id
    this.price = record.price
    this.size = record.size
    this.exchangeTime = record.exchange_time
    this.isBackfill = (record.metadata as Record<string, unknown>).backfill === true
  }
}

/** What a snapshot tells besides its levels; reused. */
export class ShotLine {
  depth = 0
  checksum: number | null = null
  sequence: number | null = null
  previous: number | null = null
  isFlagged = false
  syncedAt = ''

  /** Takes the depth from what a form has read. */
  begin(match: RegExpExecArray): void {
    this.depth = Number(match[FIRST_GROUP])
  }

  /** Reads what stands between `mid_price` and `stats`, from a place of the line on. Gives where it ends; -1 when it is unusual. */
  readMiddle(text: string, at: number): number {
    SHOT_MIDDLE.lastIndex = at
    const match = SHOT_MIDDLE.exec(text)
    if (match === null) return -1
    const [, checksum, sequence, previous, isFlagged, syncedAt] = match
    this.checksum = numberOf(checksum!)
    this.sequence = numberOf(sequence!)
    this.previous = numberOf(previous!)
    this.isFlagged = isFlagged === 'true'
    this.syncedAt = syncedAt!
    return SHOT_MIDDLE.lastIndex
  }

  /** Takes a parsed record. */
  fill(record: SnapshotRecord): void {
    this.depth = sidesOf(record).depth
    this.checksum = record.checksum
    this.sequence = record.seqId
    this.previous = record.prevSeqId
    this.isFlagged = record.gap_detected
    this.syncedAt = record.synced_at
  }
}
