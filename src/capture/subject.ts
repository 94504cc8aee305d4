import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import type { Instrument } from '../core/instrument.ts'
import { snapshotFeed } from '../core/instrument.ts'
import { hourOf, isoMs } from '../core/time.ts'
import type { Trade } from '../exchanges/exchange.ts'
import { Lag } from './lag.ts'
import { LineMaker } from './lines.ts'
import { TradeIds, type TradeIdsState } from './trade-ids.ts'

/** Where the lines of one feed of one instrument (or connection) go. */
export interface Stream {
  append(us: number, line: string): void
}

/** Where frames go: a line is made of what stands before the frame, the frame, and what stands after it. */
export interface FrameStream extends Stream {
  appendAround(us: number, before: string, frame: string, after: string): void
}

/** Opens streams by feed and name. */
export interface Sink {
  stream(feed: string, name: string): Stream
}

/** How often snapshots are taken, how deep, and what a mismatch leads to. Part of every `open` and `state` line. */
export interface EngineConfig {
  readonly depth: number
  readonly cadenceMs: number
  readonly onMismatch: 'three' | 'resync' | 'warn'
  /** Overrides the exchange's limit of silence; null leaves it. */
  readonly silenceMs: number | null
}

/** A book as a subject sees it. */
export interface HeldBook {
  readonly live: boolean
  readonly orders: OrderBook
  readonly levels: LevelBook
  readonly checksum: number | null
  readonly sequence: number | null
  readonly previous: number | null
  readonly syncedUs: number
  readonly connectionName: string
}

/** What of a subject must outlive its connections. */
export interface SubjectState {
  instId: string
  lastShotMs: number
  lastSlot: number
  gapUs: number | null
  gaps: number
  mismatches: number
  absentDeletes: number
  freshFailures: number
  checksumOff: boolean
  lastTradeId: number | null
  tradeHoles: [from: number, to: number][]
  tradeHour: number
  tradeIds: TradeIdsState[]
}

/**
 * One instrument, whatever connection serves it. Of all its keepers one is `primary`: what that one does is written,
 * what the others do is not. Outlives connections.
 */
export class Subject {
  readonly instrument: Instrument
  readonly lines: LineMaker
  readonly events: Stream
  private readonly shots: Stream
  private readonly trades: Stream
  private readonly statuses: Stream
  private readonly config: EngineConfig
  primary: HeldBook | null = null
  lastShotMs = 0
  lastSlot = 0
  gapUs: number | null = null
  gaps = 0
  mismatches = 0
  /** Deletes of orders that are not in the book. */
  absentDeletes = 0
  freshFailures = 0
  checksumOff = false
  /** For those who watch, µs since the epoch, 0 before the first: since when the book is live, the last change, the last trade. */
  liveUs = 0
  lastEventUs = 0
  lastTradeUs = 0
  /** When the exchange refused the book; null unless that is how it stands. */
  refusedUs: number | null = null
  readonly lag = new Lag()
  /** The largest numeric id of a trade that was written. */
  lastTradeId: number | null = null
  /** Trades that are missing and still being looked for: a connection takes them over from the one before. */
  tradeHoles: [from: number, to: number][] = []
  private tradeHour = 0
  private readonly tradeIds = new TradeIds()

  constructor(instrument: Instrument, config: EngineConfig, sink: Sink) {
    this.instrument = instrument
    this.config = config
    this.lines = new LineMaker(instrument, config.depth)
    this.events = sink.stream(instrument.level === 'l3' ? 'l3_events' : 'l2_updates', instrument.instId)
    this.shots = sink.stream(snapshotFeed(instrument.level, instrument.market), instrument.instId)
    this.trades = sink.stream('trades', instrument.instId)
    this.statuses = sink.stream('status', instrument.instId)
  }

  /** Writes a status record. */
  status(us: number, event: string, detail: unknown): void {
    this.statuses.append(us, this.lines.status(us, event, detail))
  }

  /** Remembers ids of trades that earlier runs have written in this and the last hour. */
  knowTrades(hour: number, ids: Iterable<string>): void {
    this.tradeHour = hour
    for (const id of ids) {
      this.tradeIds.add(id)
      this.noteTradeId(id)
    }
  }

  /** Writes a trade unless its id was written in this or the last hour. */
  trade(us: number, trade: Trade, source: string): void {
    const hour = hourOf(us)
    if (hour !== this.tradeHour) {
      this.tradeIds.rotate()
      this.tradeHour = hour
    }
    if (!this.tradeIds.add(trade.id)) return
    this.lastTradeUs = us
    this.noteTradeId(trade.id)
    this.trades.append(us, this.lines.trade(us, trade, source))
  }

  private noteTradeId(text: string): void {
    const id = Number(text)
    if (Number.isSafeInteger(id) && (this.lastTradeId === null || id > this.lastTradeId)) this.lastTradeId = id
  }

  /** A regular snapshot at a tick: once a slot of the cadence, never twice in a millisecond. True when it was written. */
  sample(us: number, keeper: HeldBook, source: string): boolean {
    const slot = Math.floor(us / (this.config.cadenceMs * 1000))
    const ms = Math.floor(us / 1000)
    if (slot === this.lastSlot || ms <= this.lastShotMs) return false
    this.lastSlot = slot
    this.write(us, keeper, source, false)
    return true
  }

  /** The flagged snapshot of a loss. It must not share its millisecond with the snapshot before it. */
  flag(us: number, keeper: HeldBook, source: string): void {
    this.write(Math.max(us, (this.lastShotMs + 1) * 1000), keeper, source, true)
  }

  private write(us: number, keeper: HeldBook, source: string, gap: boolean): void {
    const isL3 = this.instrument.level === 'l3'
    const book = isL3 ? keeper.orders : keeper.levels
    this.lastShotMs = Math.floor(us / 1000)
    this.shots.append(
      us,
      this.lines.snapshot(us, {
        bids: book.top(false, this.config.depth),
        asks: book.top(true, this.config.depth),
        bestBid: book.best(false),
        bestAsk: book.best(true),
        checksum: keeper.checksum,
        sequence: keeper.sequence,
        previous: keeper.previous,
        gap,
        syncedUs: keeper.syncedUs,
        source,
        stats: isL3 ? keeper.orders.stats() : null
      })
    )
  }

  /** A keeper has a whole book: it becomes primary, and the healed gap is told. */
  synced(us: number, keeper: HeldBook): void {
    const planned = this.primary !== null && this.primary !== keeper && this.primary.live
    const detail: Record<string, unknown> = { conn: keeper.connectionName, synced_at: isoMs(keeper.syncedUs) }
    if (planned) detail.planned = true
    if (this.gapUs !== null) detail.down_ms = Math.round((us - this.gapUs) / 1000)
    if (this.gapUs !== null || this.liveUs === 0) this.liveUs = us
    this.primary = keeper
    this.gapUs = this.refusedUs = null
    this.status(us, 'synced', detail)
  }

  /** What must outlive connections, as plain data. */
  state(): SubjectState {
    const { lastShotMs, lastSlot, gapUs, gaps, mismatches, absentDeletes, freshFailures, checksumOff } = this
    const { lastTradeId, tradeHoles, tradeHour } = this
    return {
      instId: this.instrument.instId,
      lastShotMs,
      lastSlot,
      gapUs,
      gaps,
      mismatches,
      absentDeletes,
      freshFailures,
      checksumOff,
      lastTradeId,
      tradeHoles,
      tradeHour,
      tradeIds: this.tradeIds.state()
    }
  }

  /** Takes what `state` gave. */
  restore(state: SubjectState): void {
    const { tradeIds, instId: _, tradeHour, ...rest } = state
    Object.assign(this, rest)
    this.tradeHour = tradeHour
    this.tradeIds.restore(tradeIds)
  }
}
