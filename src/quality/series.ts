/**
 * What an instrument looked like over time, for charts: spread, mid, depth, rates and sizes in buckets. The lines of its feeds
 * stream through; what is held follows the number of buckets. Figures are doubles: good for pictures, not for sums.
 */
import { atto, nano, readDecimal, whole } from '../core/decimal.ts'
import { asObject } from '../core/json.ts'

/** The size that rests within some basis points of the mid, by bucket, in units of the instrument's sizes. */
export interface DepthSeries {
  readonly bps: number
  readonly bids: readonly (number | null)[]
  readonly asks: readonly (number | null)[]
  /** The share of the looked-at books whose stored levels end before that distance: there the figures are too low. */
  readonly cutShare: number
}

/** How many sizes lie from `fromSize` up to four to the decade. */
export interface SizeBin {
  readonly fromSize: number
  readonly orders: number
  readonly trades: number
}

/** The series of one instrument. All arrays have one entry a bucket; null where nothing was captured. */
export interface InstrumentSeries {
  readonly exchange: string
  /** The folder name of the instrument. */
  readonly name: string
  /** Where the first bucket begins, µs; a multiple of `bucketUs`. */
  readonly fromUs: number
  readonly bucketUs: number
  /** Best ask minus best bid, in price units: the median, and the largest of all snapshots. */
  readonly spread: readonly (number | null)[]
  readonly spreadMax: readonly (number | null)[]
  /** The middle of the last best prices of the bucket. */
  readonly mid: readonly (number | null)[]
  readonly depths: readonly DepthSeries[]
  /** Changes of the book (orders or updates; not those of full images), per second. */
  readonly eventsPerSecond: readonly (number | null)[]
  readonly tradesPerSecond: readonly (number | null)[]
  /** The sum of traded sizes. */
  readonly volume: readonly (number | null)[]
  /** From the smallest to the largest that occurred, without holes. Orders: those that were opened (L3 only). */
  readonly sizes: readonly SizeBin[]
}

const SECOND_US = 1_000_000
const BUCKETS_MAX = 1500
const BUCKETS_S = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400]
const DEPTHS_BPS = [10, 50]
/** Snapshots of a bucket whose levels are read, which takes long. */
const DEPTH_SAMPLES = 3
/** Spreads of a bucket that its median is taken from. */
const SPREAD_SAMPLES = 60
const BINS_PER_DECADE = 4
/** Keeps round sizes such as 0.001 in the bin that begins with them. */
const LOG_SLACK = 1e-9
const EVENT_TYPE = '"event_type":"'
const SIZE = '"size":"'
const BEST_PRICES = /"best_bid":"([^"]+)","best_ask":"([^"]+)"/y
/** Lines of a full image, and marks, say nothing of how busy a market is. */
const UNCOUNTED = ['snapshot', 'clear', 'gap']

/** The nearest double of a decimal as it stands in a record; NaN when it is none. */
function numberOf(text: string): number {
  return readDecimal(text) ? whole + nano / 1e9 + atto / 1e18 : Number.NaN
}

/** The length of the buckets for a range, µs: a round time that gives at most about 1500 of them. */
function bucketFor(rangeUs: number): number {
  const day = BUCKETS_S.at(-1)!
  const seconds = rangeUs / SECOND_US / BUCKETS_MAX
  return (BUCKETS_S.find(each => each >= seconds) ?? Math.ceil(seconds / day) * day) * SECOND_US
}

/** What is known of one distance from the mid. */
class Depth {
  readonly bps: number
  readonly bids: Float64Array
  readonly asks: Float64Array
  readonly samples: Uint8Array
  private cut = 0
  private count = 0

  constructor(bps: number, buckets: number) {
    this.bps = bps
    this.bids = new Float64Array(buckets)
    this.asks = new Float64Array(buckets)
    this.samples = new Uint8Array(buckets)
  }

  /** Adds one book, levels from the best on. */
  add(bucket: number, bids: readonly PriceLevel[], asks: readonly PriceLevel[], mid: number): void {
    const reach = (mid * this.bps) / 10_000
    const within = (levels: readonly PriceLevel[]) => levels.filter(([price]) => Math.abs(price - mid) <= reach)
    const [bid, ask] = [within(bids), within(asks)]
    this.bids[bucket]! += sumOf(bid)
    this.asks[bucket]! += sumOf(ask)
    this.samples[bucket]!++
    this.count++
    // Where not all of a side lies within the reach, that side was seen to its end there.
    if (bid.length === bids.length || ask.length === asks.length) this.cut++
  }

  /** The means of the buckets. */
  finish(): DepthSeries {
    const mean = (sums: Float64Array) => Array.from(sums, (sum, at) => rounded(sum / this.samples[at]!))
    const cutShare = this.count === 0 ? 0 : this.cut / this.count
    return { bps: this.bps, bids: mean(this.bids), asks: mean(this.asks), cutShare }
  }
}

type PriceLevel = readonly [price: number, size: number]

function sumOf(levels: readonly PriceLevel[]): number {
  return levels.reduce((sum, [, size]) => sum + size, 0)
}

/** As many digits as a picture can show, so that the page stays small; null for what is no number. */
function rounded(value: number, digits = 5): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(digits)) : null
}

/** The levels of a side as `[price, size]`; undefined when one of them is no level. */
function levelsOf(side: unknown): PriceLevel[] | undefined {
  if (!Array.isArray(side)) return undefined
  const levels = side.map((level: unknown): PriceLevel => {
    const [price, size] = Array.isArray(level) ? (level as unknown[]) : []
    return [numberOf(String(price)), numberOf(String(size))]
  })
  return levels.some(([price, size]) => Number.isNaN(price + size)) ? undefined : levels
}

/** Builds the series of an instrument from the lines of its feeds: feeds in any order, each in its own order. */
export class SeriesBuilder {
  private readonly exchange: string
  private readonly name: string
  private readonly fromUs: number
  private readonly bucketUs: number
  private readonly buckets: number
  private readonly mid: Float64Array
  private readonly spread: Float64Array
  private readonly spreadMax: Float64Array
  private readonly events: Uint32Array
  private readonly trades: Uint32Array
  private readonly volume: Float64Array
  private readonly depths: readonly Depth[]
  private readonly bins = new Map<number, { orders: number; trades: number }>()
  /** `l3` or `l2`: where an instrument was captured at both, the one that comes first is shown. */
  private level = ''
  private bucket = -1
  private spreads: number[] = []
  private spreadSlot = -1
  private depthSlot = -1

  /** Times are µs; lines outside the range are passed over. */
  constructor(exchange: string, name: string, range: { readonly fromUs: number; readonly toUs: number }) {
    this.exchange = exchange
    this.name = name
    this.bucketUs = bucketFor(range.toUs - range.fromUs)
    this.fromUs = range.fromUs - (range.fromUs % this.bucketUs)
    const buckets = Math.max(1, Math.ceil((range.toUs - this.fromUs) / this.bucketUs))
    this.buckets = buckets
    this.mid = new Float64Array(buckets).fill(Number.NaN)
    this.spread = new Float64Array(buckets).fill(Number.NaN)
    this.spreadMax = new Float64Array(buckets).fill(Number.NaN)
    this.events = new Uint32Array(buckets)
    this.trades = new Uint32Array(buckets)
    this.volume = new Float64Array(buckets)
    this.depths = DEPTHS_BPS.map(bps => new Depth(bps, buckets))
  }

  /** Takes a line of a feed, with its receive time. Lines that are damaged, and feeds that say nothing here, are passed over. */
  take(feed: string, us: number, line: string): void {
    const bucket = Math.floor((us - this.fromUs) / this.bucketUs)
    if (!(bucket >= 0 && bucket < this.buckets)) return
    if (feed === 'trades') this.takeTrade(bucket, line)
    else if (feed.startsWith('l')) {
      this.level ||= feed.slice(0, 2)
      if (!feed.startsWith(this.level)) return
      if (feed === 'l3_events' || feed === 'l2_updates') this.takeEvent(bucket, line)
      else this.takeSnapshot(bucket, us, line)
    }
  }

  private takeTrade(bucket: number, line: string): void {
    // History is no trade of the moment at which it came.
    if (line.includes('"backfill":true')) return
    this.trades[bucket]!++
    const size = this.countSize(line, 'trades')
    if (!Number.isNaN(size)) this.volume[bucket]! += size
  }

  private takeEvent(bucket: number, line: string): void {
    const at = line.indexOf(EVENT_TYPE) + EVENT_TYPE.length
    if (at < EVENT_TYPE.length || UNCOUNTED.some(type => line.startsWith(type, at))) return
    this.events[bucket]!++
    if (line.startsWith('open"', at)) this.countSize(line, 'orders')
  }

  /** Puts the size of a line into its bin, and gives it; NaN when there is none. */
  private countSize(line: string, kind: 'orders' | 'trades'): number {
    const at = line.indexOf(SIZE) + SIZE.length
    const size = at < SIZE.length ? Number.NaN : numberOf(line.slice(at, line.indexOf('"', at)))
    if (!(size > 0)) return Number.NaN
    const key = Math.floor(Math.log10(size) * BINS_PER_DECADE + LOG_SLACK)
    const bin = this.bins.get(key) ?? { orders: 0, trades: 0 }
    bin[kind]++
    this.bins.set(key, bin)
    return size
  }

  private takeSnapshot(bucket: number, us: number, line: string): void {
    // A flagged one shows what was lost; a time that runs back comes from damage.
    BEST_PRICES.lastIndex = Math.max(0, line.lastIndexOf('"best_bid":'))
    if (bucket < this.bucket || line.includes('"gap_detected":true', BEST_PRICES.lastIndex)) return
    if (bucket > this.bucket) this.closeBucket(bucket)
    const best = BEST_PRICES.exec(line)
    if (!best) return
    const [bid, ask] = [numberOf(best[1]!), numberOf(best[2]!)]
    const mid = (bid + ask) / 2
    if (Number.isNaN(mid)) return
    this.mid[bucket] = mid
    const largest = this.spreadMax[bucket]!
    if (!(largest >= ask - bid)) this.spreadMax[bucket] = ask - bid
    const slotOf = (samples: number) => Math.floor((us / this.bucketUs) * samples)
    if (slotOf(SPREAD_SAMPLES) !== this.spreadSlot) this.spreads.push(ask - bid)
    if (slotOf(DEPTH_SAMPLES) !== this.depthSlot) this.takeDepth(bucket, mid, line)
    this.spreadSlot = slotOf(SPREAD_SAMPLES)
    this.depthSlot = slotOf(DEPTH_SAMPLES)
  }

  private takeDepth(bucket: number, mid: number, line: string): void {
    let record: Record<string, unknown>
    try {
      record = asObject(JSON.parse(line)) ?? {}
    } catch {
      // Damage is told by others; a picture does without this sample.
      return
    }
    const sideOf = (prefix: string) => levelsOf(Object.entries(record).find(([key]) => key.startsWith(prefix))?.[1])
    const [bids, asks] = [sideOf('bids_top'), sideOf('asks_top')]
    if (bids && asks) for (const depth of this.depths) depth.add(bucket, bids, asks, mid)
  }

  private closeBucket(next: number): void {
    const sorted = this.spreads.sort((a, b) => a - b)
    if (sorted.length > 0) {
      const half = (sorted.length - 1) / 2
      this.spread[this.bucket] = (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2
    }
    this.spreads = []
    this.bucket = next
  }

  /** The series, once all lines are taken. */
  finish(): InstrumentSeries {
    this.closeBucket(this.buckets)
    const isCaptured = (at: number) => !Number.isNaN(this.mid[at]!) || this.events[at]! > 0 || this.trades[at]! > 0
    const perSecond = (counts: Uint32Array) =>
      Array.from(counts, (count, at) => (isCaptured(at) ? rounded((count * SECOND_US) / this.bucketUs) : null))
    return {
      exchange: this.exchange,
      name: this.name,
      fromUs: this.fromUs,
      bucketUs: this.bucketUs,
      spread: Array.from(this.spread, value => rounded(value)),
      spreadMax: Array.from(this.spreadMax, value => rounded(value)),
      mid: Array.from(this.mid, value => rounded(value, 10)),
      depths: this.depths.map(depth => depth.finish()),
      eventsPerSecond: perSecond(this.events),
      tradesPerSecond: perSecond(this.trades),
      volume: Array.from(this.volume, (sum, at) => (isCaptured(at) ? rounded(sum) : null)),
      sizes: this.sizes()
    }
  }

  private sizes(): SizeBin[] {
    const keys = [...this.bins.keys()]
    if (keys.length === 0) return []
    const first = Math.min(...keys)
    return Array.from({ length: Math.max(...keys) - first + 1 }, (_, at) => {
      const { orders, trades } = this.bins.get(first + at) ?? { orders: 0, trades: 0 }
      return { fromSize: rounded(10 ** ((first + at) / BINS_PER_DECADE), 4)!, orders, trades }
    })
  }
}
