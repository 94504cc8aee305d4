/**
 * Judges the derived feeds of one instrument, line by line.
 *
 * How to call it: `startFile` before the first line of each file, `take` for each line, the half line at the end of a file included
 * (unless a running process is about to write the rest); `lose` where lines of a feed cannot be read; `tick` for the `tick` lines of
 * the connections that feed it, where there are frames; `finish` at the end. Lines of all feeds come merged by receive time; at equal
 * times status, then events, trades and snapshots; files of a feed in order. A line without a time comes right after the
 * one before it, one whose time is later than that of the line after it no later than that one.
 */
import { MARKETS, snapshotFeed } from '../core/instrument.ts'
import {
  type EventRecord,
  recordFault,
  type SnapshotRecord,
  type StatusRecord,
  type TradeRecord,
  type UpdateRecord
} from '../core/records.ts'
import { HOUR_US, hourOf, isoMs } from '../core/time.ts'
import { SlotJudge } from './cadence.ts'
import type { Finding } from './finding.ts'
import { LevelFollower } from './level-follower.ts'
import { EventLine, Form, TradeLine, UpdateLine } from './lines.ts'
import { OrderFollower } from './order-follower.ts'
import { Cursor, Reporter } from './report.ts'
import type { RunMark } from './runs.ts'
import { Timeline } from './timeline.ts'
import { TradeJudge } from './trades.ts'

/** What is judged, and who is told. */
export interface JudgeOptions {
  readonly exchange: string
  /** The folder name of the instrument. */
  readonly name: string
  readonly report: (finding: Finding) => void
  /** Where it is known for all that is read; else it is inferred, process by process. */
  readonly cadenceMs?: number | undefined
  /** Nothing is expected from here on, µs: now, or the end of the range. */
  readonly endUs: number
}

/** Any line that has the head of a record. */
interface AnyRecord {
  readonly timestamp_utc: string
  readonly recv_us: number
  readonly exchange: string
  readonly market: string
  readonly channel: string
  readonly instId: string
}

/** What an exchange is late by, or ahead, is no finding up to this. */
const FAR_MS = 60_000
/** After so much silence at the end a capture has ended, or its book is lost for long. */
const END_US_MIN = 60_000_000
const NAME_CHARS_MAX = 199
const TIME_AT = '{"timestamp_utc":"'.length
const MINUTE_CHARS = '2023-12-14T15:30'.length
/** Their order events bear the time of the order, not of what happened to it. */
const TELL_ORDER_TIMES = new Set(['kraken'])
const BOOK_STATUSES = new Set(['started', 'synced', 'gap', 'stopped'])

/** More are not remembered. */
const MARKS_MAX = 10_000

/** One feed as it is read. */
class Feed extends Cursor {
  readonly form: Form
  /** The receive time before the last one. */
  beforeUs = Number.NEGATIVE_INFINITY
  /** The last line of a row that stands behind younger ones; infinite where there is none. */
  rowUs = Number.POSITIVE_INFINITY
  /** The line before, in status. */
  recent = ''
  /** Whether the line at hand is older than the one before. */
  isBack = false
  far = 0
  farMs = 0
  farLine = 0

  constructor(feed: string) {
    super(feed)
    this.form = new Form(feed)
  }
}

/** The judge of one instrument. Memory is bounded by its book. */
export class InstrumentJudge {
  private readonly options: JudgeOptions
  private readonly reporter: Reporter
  private readonly feeds = new Map<string, Feed>()
  private feed = new Feed('')
  private readonly eventLine = new EventLine()
  private readonly updateLine = new UpdateLine()
  private readonly tradeLine = new TradeLine()
  private readonly orders: OrderFollower
  private readonly levels: LevelFollower
  private readonly slots: SlotJudge
  private readonly trades: TradeJudge
  private readonly timeline = new Timeline()
  private readonly tellsOrderTimes: boolean
  private lastUs = 0
  /** When the line before was received. */
  private takenUs = 0
  /** When the process wrote last before the status line at hand. */
  private writtenUs = 0
  private lastShotMs = Number.NaN
  /** Connections that were told since the process began; null where its beginning is not known. */
  private connected: Set<string> | null = null
  /** What status tells of processes; null where it cannot be read as it was written. */
  marks: RunMark[] | null = []

  constructor(options: JudgeOptions) {
    this.options = options
    this.tellsOrderTimes = TELL_ORDER_TIMES.has(options.exchange)
    this.reporter = new Reporter(options.exchange, options.name, options.report)
    this.orders = new OrderFollower(this.reporter)
    this.levels = new LevelFollower(this.reporter)
    this.slots = new SlotJudge(this.reporter, options.cadenceMs)
    this.trades = new TradeJudge(this.reporter)
  }

  /** The lines of a file come next; `file` as findings name it, `hour` as its path says. */
  startFile(feed: string, file: string, hour: number): void {
    let known = this.feeds.get(feed)
    if (known === undefined) {
      known = new Feed(feed)
      this.feeds.set(feed, known)
    }
    this.tellFar(known)
    known.start(file, hour)
    if (feed === 'status') this.orders.statuses = this.levels.statuses = known
    else if (feed === 'l3_events') this.orders.events = known
    else if (feed === 'l2_updates') this.levels.events = known
    else if (feed.startsWith('l3_')) this.orders.shots = known
    else if (feed.startsWith('l2_')) this.levels.shots = known
  }

  /** One line of the file that was started last in its feed; lines are counted from 1. */
  take(feed: string, file: string, line: number, text: string): void {
    if (this.feed.feed !== feed) {
      const known = this.feeds.get(feed)
      if (known === undefined) throw new Error(`${feed} was not started`)
      this.feed = known
    }
    const at = this.feed
    at.file = file
    at.line = line
    if (feed === 'l3_events') this.takeEvent(at, text)
    else if (feed === 'l2_updates') this.takeUpdate(at, text)
    else if (feed === 'trades') this.takeTrade(at, text)
    else if (feed === 'status') this.takeStatus(at, text)
    else this.takeShot(at, text)
  }

  /** Lines of a feed cannot be read, which is told elsewhere: what follows from that is not told. */
  lose(feed: string): void {
    if (feed === 'l3_events') this.orders.suspend()
    else if (feed === 'l2_updates') this.levels.suspend()
    else if (feed === 'status') this.connected = this.orders.statuses = this.levels.statuses = this.marks = null
    else if (feed !== 'trades') this.slots.forgive(this.lastUs)
  }

  /** A `tick` line of a connection that feeds the instrument, µs. */
  tick(us: number): void {
    this.slots.tick(us)
  }

  /** Nothing comes any more. */
  finish(): void {
    const { lastUs, timeline } = this
    const { periodUs } = this.slots
    for (const feed of this.feeds.values()) this.tellFar(feed)
    const isOff = timeline.state === 'off'
    for (const follower of [this.orders, this.levels]) follower.restart(isOff ? null : lastUs)
    this.slots.restart()
    this.reporter.settle(isOff ? Number.POSITIVE_INFINITY : lastUs)
    const statuses = this.feeds.get('status')
    const silentUs = this.options.endUs - lastUs
    if (statuses === undefined || timeline.state === 'unknown' || isOff) return
    if (silentUs > END_US_MIN + 3 * periodUs) {
      const message = `nothing was written after ${isoMs(lastUs)}, and the capture was not stopped`
      this.reporter.tell('unended', statuses.here, message)
    } else if (timeline.state === 'waiting' && this.options.endUs - timeline.sinceUs > END_US_MIN) {
      const message = `there is no book since ${isoMs(timeline.sinceUs)}: ${timeline.cause}`
      this.reporter.tell('unhealed_gap', statuses.here, message)
    }
  }

  /** Parses a line that is unusual; undefined when it is told to be wrong. */
  private parse<Row>(feed: Feed, text: string): Row | undefined {
    const record = this.parseAny(feed, text)
    if (record === undefined) {
      this.lose(feed.feed)
      return undefined
    }
    feed.form.learn(record)
    if (record.timestamp_utc === isoMs(record.recv_us)) return record as Row
    const message = `timestamp_utc is ${record.timestamp_utc}, recv_us is that of ${isoMs(record.recv_us)}`
    this.reporter.tell('time_mismatch', feed.here, message)
    feed.form.us = Number.NaN
    return record as Row
  }

  private parseAny(feed: Feed, text: string): AnyRecord | undefined {
    let record: unknown
    try {
      record = JSON.parse(text)
    } catch (error) {
      const isTorn = !text.endsWith('}') || text.includes('\0')
      const why = error instanceof Error ? error.message : String(error)
      const message = isTorn ? 'the line is cut or was not written whole' : `the line is no JSON: ${why}`
      this.reporter.tell(isTorn ? 'torn_line' : 'bad_json', feed.here, message)
      return undefined
    }
    if (!text.startsWith('{') || !text.endsWith('}')) {
      this.reporter.tell('bad_json', feed.here, 'something stands before or behind the object')
      return undefined
    }
    const fault = recordFault(feed.feed, record) ?? this.placeFault(feed.feed, record as AnyRecord)
    if (fault === undefined) return record as AnyRecord
    this.reporter.tell('bad_record', feed.here, fault)
    return undefined
  }

  /** What a record says that the path of its file does not. */
  private placeFault(feed: string, { exchange, market, channel, instId }: AnyRecord): string | undefined {
    const { options } = this
    if (exchange !== options.exchange) return `exchange is ${exchange}, the folder that of ${options.exchange}`
    // Names that some file system does not take are changed further, at their end.
    const bare = (name: string) => name.replace(/[^A-Za-z0-9._-]/g, '-').replace(/[.-]+$/, '')
    if (instId.length <= NAME_CHARS_MAX && !options.name.includes('-.') && bare(instId) !== bare(options.name))
      return `instId is ${instId}, the folder that of ${options.name}`
    if (feed === 'trades' && channel !== 'trades') return `channel is ${channel}, not trades`
    const isShot = !['l3_events', 'l2_updates', 'trades', 'status'].includes(feed)
    const expected = MARKETS.find(each => feed === snapshotFeed(feed.startsWith('l3') ? 'l3' : 'l2', each))
    if (isShot && expected !== market) return `market is ${market}, the feed ${feed}`
    return undefined
  }

  /** Whether the line stands at its time. What is wrong with that is told. */
  private isTimely(feed: Feed): boolean {
    const { us } = feed.form
    feed.isBack = false
    if (Number.isNaN(us)) return false
    if (hourOf(us) !== feed.hour) {
      const message = `${isoMs(us)} does not lie in the hour of ${isoMs(feed.hour * HOUR_US)}`
      this.reporter.tell('wrong_hour', feed.here, message)
      return false
    }
    const last = feed.us
    const { beforeUs } = feed
    feed.us = Math.max(us, last ?? us)
    if (us !== last || feed.line === 1) feed.since = feed.line
    feed.beforeUs = last ?? us
    // The last line of a block that stands twice has the time of the line before the block.
    const isInRow = us === last && feed.rowUs < Number.POSITIVE_INFINITY
    if (last === null || (us >= last && !isInRow)) {
      feed.rowUs = Number.POSITIVE_INFINITY
      this.writtenUs = this.lastUs
      this.lastUs = Math.max(this.lastUs, us)
      // A status may tell that the process had ended.
      if (feed.feed !== 'status') this.reporter.settle(Math.min(us, this.takenUs))
      // One line that stands too early does not make the others late.
      this.takenUs = us
      return true
    }
    feed.isBack = true
    const isRow = us >= feed.rowUs
    feed.rowUs = us
    // Lines that stand here once more, or too late, are told by the first of their row.
    if (isRow) return false
    // The one that fits neither the line before nor the one after it is wrong.
    const isThis = us < beforeUs || feed.line === 1
    const place = isThis ? { ...feed.here, us } : { ...feed.here, line: feed.line - 1 }
    this.reporter.tell('time_back', place, `${isoMs(us)} follows ${isoMs(last)}`)
    if (isThis) return false
    feed.us = feed.beforeUs = us
    feed.rowUs = Number.POSITIVE_INFINITY
    return false
  }

  private takeEvent(feed: Feed, text: string): void {
    const line = this.eventLine
    const match = feed.form.read(text)
    if (match === null || !line.take(match)) {
      const record = this.parse<EventRecord>(feed, text)
      if (record === undefined) return
      line.fill(record)
      this.orders.tellsAbsent = record.channel === 'full'
    }
    const time = this.tellsOrderTimes ? null : line.exchangeTime
    if (this.arrive(feed, text, time) && this.startEvents(feed, line.type, line.reason, this.orders))
      this.orders.takeEvent(line, text, feed)
  }

  private takeUpdate(feed: Feed, text: string): void {
    const line = this.updateLine
    const match = feed.form.read(text)
    if (match === null || !line.take(match)) {
      const record = this.parse<UpdateRecord>(feed, text)
      if (record === undefined) return
      line.fill(record)
    }
    if (this.arrive(feed, text, line.exchangeTime) && this.startEvents(feed, line.type, line.reason, this.levels))
      this.levels.takeUpdate(line, text, feed)
  }

  /** Sees to the times of an event or a trade; false when it came out of its order. */
  private arrive(feed: Feed, text: string, exchangeTime: string | null): boolean {
    const isTimely = this.isTimely(feed)
    if (isTimely) this.slots.seen(feed.form.us)
    if (isTimely && exchangeTime !== null && !text.startsWith(exchangeTime.slice(0, MINUTE_CHARS), TIME_AT))
      this.noteFar(feed, exchangeTime)
    if (!isTimely && feed.isBack) this.lose(feed.feed)
    return isTimely || !feed.isBack
  }

  /** The first line of an hour, and what begins and ends a book; false when the events cannot be followed. */
  private startEvents(feed: Feed, type: string, reason: unknown, follower: OrderFollower | LevelFollower): boolean {
    const us = feed.us ?? 0
    if (type === 'gap') this.slots.lost(us, follower.shots?.next ?? feed.here)
    else if (type === 'clear' && reason === 'sync') this.slots.live(us)
    if (feed.line !== 1 || feed.isSecond || type === 'clear') return true
    this.reporter.tell('hour_image', feed.here, `the hour begins with ${type}, not with a clear and the whole book`)
    follower.suspend()
    return false
  }

  private noteFar(feed: Feed, exchangeTime: string): void {
    const lateMs = (feed.us ?? Number.NaN) / 1000 - Date.parse(exchangeTime)
    if (!(Math.abs(lateMs) > FAR_MS)) return
    feed.far++
    if (Math.abs(lateMs) <= Math.abs(feed.farMs)) return
    feed.farMs = lateMs
    feed.farLine = feed.line
  }

  /** Once for each file: how many times of the exchange were far off, and the worst. */
  private tellFar(feed: Feed): void {
    const { far, farMs, farLine } = feed
    if (far === 0) return
    const seconds = Math.round(Math.abs(farMs) / 1000)
    const message = `exchange_time is ${seconds} s ${farMs > 0 ? 'before' : 'after'} the receive time; ${far} such in this file`
    this.reporter.tell('far_exchange_time', { ...feed.here, line: farLine }, message)
    feed.far = feed.farMs = 0
  }

  private takeTrade(feed: Feed, text: string): void {
    const line = this.tradeLine
    const match = feed.form.read(text)
    if (match === null || !line.take(match)) {
      const record = this.parse<TradeRecord>(feed, text)
      if (record === undefined) return
      line.fill(record)
    }
    if (this.arrive(feed, text, line.isBackfill ? null : line.exchangeTime)) this.trades.take(line, feed)
  }

  private takeShot(feed: Feed, text: string): void {
    const follower = feed.feed.startsWith('l3') ? this.orders : this.levels
    // The hour has no events: that is told elsewhere, and the book is not the one of the hour before.
    if (follower.events?.hour !== feed.hour) follower.suspend()
    const parse = (): SnapshotRecord | undefined => this.parse<SnapshotRecord>(feed, text)
    const match = feed.form.read(text)
    const record = match === null ? parse() : undefined
    if (match === null && record === undefined) return
    if (!this.isTimely(feed)) {
      // It may be the one before that stands too early, and was held against the wrong book.
      follower.forgiveShot()
      return this.slots.forgive(this.lastUs)
    }
    const us = feed.form.us
    const ms = Math.floor(us / 1000)
    if (ms === this.lastShotMs)
      return this.reporter.tell('duplicate_snapshot', feed.here, `the second snapshot of ${isoMs(us)}`)
    this.lastShotMs = ms
    if (follower.takeShot(text, match, feed, () => record ?? parse())) this.slots.shot(us, feed.here)
  }

  private takeStatus(feed: Feed, text: string): void {
    if (text === feed.recent)
      return this.reporter.tell('duplicate_line', feed.here, 'the line before stands here again')
    feed.recent = text
    const record = this.parse<StatusRecord>(feed, text)
    if (record === undefined || !this.isTimely(feed)) return this.lose('status')
    const { event } = record
    const detail = record.detail as Record<string, unknown>
    const us = record.recv_us
    const state = this.timeline.state
    if (BOOK_STATUSES.has(event)) this.orders.statuses = this.levels.statuses = feed
    if (event === 'started' || event === 'stopped' || event === 'connected') this.mark(feed, us, event, detail.run)
    if (event === 'started') this.start(feed, us)
    else if (state === 'off' && (event === 'connected' || event === 'synced'))
      this.missStatus(feed, 'started', `${event} of a capture that has not started`)
    else if (event === 'connected') this.connected?.add(String(detail.conn))
    else if (event === 'synced') this.sync(feed, us, detail)
    else if (event === 'gap' && detail.channel !== 'trades') {
      for (const follower of [this.orders, this.levels]) {
        if (follower.shots !== null) this.slots.lost(us, follower.shots.next)
        follower.tellGap(us, state === 'waiting')
      }
    } else if (event === 'clock_step' || event.startsWith('writer_')) this.slots.excuse(us, event === 'writer_paused')
    this.timeline.take(us, event, detail)
    this.reporter.settle(us)
  }

  private mark({ file, line }: Feed, us: number, event: RunMark['event'], run: unknown): void {
    if (this.marks !== null && this.marks.length < MARKS_MAX)
      this.marks.push({ event, run: typeof run === 'string' ? run : '', us, file, line })
  }

  private start(feed: Feed, us: number): void {
    const { timeline, writtenUs } = this
    const isKilled = timeline.state === 'live' || timeline.state === 'waiting'
    if (isKilled) {
      timeline.seen(writtenUs)
      const seconds = ((us - writtenUs) / 1e6).toFixed(1)
      const message = `the process before ended without a word: nothing is known of the ${seconds} s after ${isoMs(writtenUs)}`
      this.reporter.tell('killed', feed.here, message)
    }
    this.reporter.settle(writtenUs)
    this.reporter.forgive()
    for (const follower of [this.orders, this.levels]) follower.restart(timeline.state === 'off' ? null : writtenUs)
    this.slots.restart()
    this.connected = new Set()
  }

  private sync(feed: Feed, us: number, detail: Record<string, unknown>): void {
    this.slots.live(us)
    for (const follower of [this.orders, this.levels]) follower.tellSynced(us, String(detail.synced_at))
    if (this.connected?.has(String(detail.conn)) === false)
      this.missStatus(feed, 'connected', `${String(detail.conn)} has a book and was never connected`)
  }

  private missStatus(feed: Feed, missing: string, message: string): void {
    this.reporter.tell('missing_status', feed.here, `no ${missing} stands before this line: ${message}`)
    this.connected = null
  }
}
