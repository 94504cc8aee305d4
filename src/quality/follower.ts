/** Follows a book by its events and holds the snapshots against it; `OrderFollower` and `LevelFollower` know the events. */
import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import { middle } from '../core/decimal.ts'
import type { SnapshotRecord } from '../core/records.ts'
import { isoMs } from '../core/time.ts'
import type { RuleId } from './finding.ts'
import { ShotLine } from './lines.ts'
import { type Cursor, type Doubt, type Place, type Reporter, SETTLED_US } from './report.ts'
import { type Difference, differenceOf, faultOf, isCrossed } from './shots.ts'

/** `unknown`: the events do not tell it, or cannot be trusted, until the next `clear`. `lost`: after a `gap`. */
export type Stage = 'unknown' | 'image' | 'live' | 'lost'

/** How much later than its loss a flagged snapshot may be dated: it must not share its millisecond with another. */
const FLAG_US_MAX = 2000
/** A book may be crossed for 5 s, which is found at the next tick; a busy process is late for it. */
const CROSSED_US_MAX = 9_000_000
/** Lines between two snapshots that are remembered, to tell which one is to blame. */
const TOUCHES_MAX = 20_000

/** A snapshot that is not what the events make: which of the two is wrong, the next one tells. */
interface Suspicion {
  readonly place: Place
  readonly difference: Difference
}

/** A status that events must follow at the same moment. */
interface Told {
  readonly us: number
  readonly syncedAt: string
  readonly doubt: Doubt | null
}

/** Which lines have touched which prices since the last snapshot that was right. */
class Touches {
  private feed = ''
  private file = ''
  private us: number | null = null
  private lines: number[] = []
  private prices: string[] = []
  private sides: boolean[] = []

  clear(): void {
    this.lines = []
    this.prices = []
    this.sides = []
  }

  add(cursor: Cursor, price: string, isAsk: boolean): void {
    if (cursor.file !== this.file || this.lines.length === TOUCHES_MAX) this.clear()
    if (this.lines.length === 0) {
      this.feed = cursor.feed
      this.file = cursor.file
      this.us = cursor.us
    }
    this.lines.push(cursor.line)
    this.prices.push(price)
    this.sides.push(isAsk)
  }

  /** The last line that touched a price, else the first line; null when there was none. */
  suspect(price: string | null, isAsk: boolean): Place | null {
    let at = this.prices.length - 1
    while (at >= 0 && !(this.prices[at] === price && this.sides[at] === isAsk)) at--
    const line = this.lines[Math.max(0, at)]
    return line === undefined ? null : { feed: this.feed, file: this.file, line, us: this.us }
  }
}

/** The book of one instrument. */
export abstract class Follower {
  protected stage: Stage = 'unknown'
  protected readonly reporter: Reporter
  protected readonly touches = new Touches()
  /** When the book at hand may have been synchronised, as snapshots show it; empty while nothing is known. */
  private syncs: string[] = []
  private suspicion: Suspicion | null = null
  private gapUs = Number.NaN
  private flagDoubt: Doubt | null = null
  /** The book before a loss, where the next image came before the flagged snapshot. */
  private lostBody: string | null = null
  private lostStats = ''
  protected crossedUs: number | null = null
  private readonly shot = new ShotLine()
  private synced: Told | null = null
  private gapTold: Told | null = null
  /** The line at hand of the status and snapshot feeds; null while they tell nothing for sure. */
  statuses: Cursor | null = null
  shots: Cursor | null = null
  events: Cursor | null = null

  constructor(reporter: Reporter) {
    this.reporter = reporter
  }

  protected abstract readonly book: OrderBook | LevelBook

  /** Text of `stats` with its key, where there are any. */
  protected abstract statsText(): string

  /** What is wrong with the numbers of a snapshot of the book at hand; undefined: nothing. */
  protected abstract numberFault(shot: ShotLine, cursor: Cursor): string | undefined

  /** Events cannot be trusted until the next `clear`: what follows from that is not told. */
  suspend(): void {
    this.stage = 'unknown'
    this.suspicion = null
    this.lostBody = null
    this.crossedUs = null
    for (const told of [this.synced, this.gapTold]) told?.doubt?.drop()
    this.flagDoubt?.drop()
    this.flagDoubt = null
  }

  /** What is wrong with a snapshot is told already. */
  forgiveShot(): void {
    this.suspicion = null
  }

  /** Another process begins. `killedUs`: when the one before it wrote last, if it ended without a word, else null. */
  restart(killedUs: number | null): void {
    // What a killed process wrote last may be less than what it saw.
    if (killedUs !== null && killedUs - (this.suspicion?.place.us ?? 0) <= SETTLED_US) this.suspicion = null
    this.settleSuspicion()
    this.suspend()
    this.synced = this.gapTold = null
    this.syncs = []
  }

  /** Tells what is wrong with an event; the book cannot be followed any further. */
  protected fail(rule: RuleId, cursor: Cursor, message: string): void {
    this.reporter.tell(rule, cursor.here, message)
    this.suspend()
  }

  /** `synced` of status. */
  tellSynced(us: number, syncedAt: string): void {
    this.syncs = [syncedAt]
    this.synced = { us, syncedAt, doubt: this.expect(us, 'no clear follows where status tells that the book is whole') }
  }

  /** `gap` of status; of a book that was lost before, events may have one. */
  tellGap(us: number, isLost: boolean): void {
    const doubt = isLost ? null : this.expect(us, 'no gap event stands where status tells of a gap')
    this.gapTold = { us, syncedAt: '', doubt }
  }

  private expect(us: number, message: string): Doubt | null {
    return this.events && this.reporter.tellLater(us, 'missing_event', this.events.next, message)
  }

  /** `clear`: what comes next is an image. */
  protected clear(us: number, reason: unknown): void {
    this.settleSuspicion()
    if (reason === 'sync') {
      const { synced } = this
      const isTold = synced?.us === us
      if (isTold) synced?.doubt?.drop()
      else this.missStatus(us, 'no synced is told where a book is built from an image')
      this.syncs = isTold ? [isoMs(us), synced?.syncedAt ?? ''] : [isoMs(us)]
    }
    if (this.stage === 'lost' && this.flagDoubt !== null) {
      this.lostBody = this.body()
      this.lostStats = this.statsText()
    }
    this.stage = 'image'
    this.crossedUs = null
    this.touches.clear()
  }

  /** `gap`: the book is as it was before, and no more to be trusted. */
  protected gap(us: number, cursor: Cursor): void {
    if (this.gapTold?.us === us) this.gapTold.doubt?.drop()
    else this.missStatus(us, 'no gap is told where the events have one')
    if (this.stage === 'live' && this.shots !== null) {
      const message = `no flagged snapshot stands for the gap of ${cursor.file}:${cursor.line}`
      this.flagDoubt = this.reporter.tellLater(us, 'unflagged_gap', this.shots.next, message)
    }
    this.gapUs = us
    if (this.stage !== 'unknown') this.stage = 'lost'
  }

  private missStatus(us: number, message: string): void {
    if (this.statuses !== null) this.reporter.tellLater(us, 'missing_status', this.statuses.gapAt(us), message)
  }

  /** What a snapshot must show from its first level to its mid price. */
  private body(): string {
    const { book } = this
    const { depth } = this.shot
    const [bid, ask] = [book.best(false), book.best(true)]
    const quoted = (price: string | null) => (price === null ? 'null' : `"${price}"`)
    const mid = bid === null || ask === null ? null : middle(bid, ask)
    return (
      `":${book.top(false, depth)},"asks_top${depth}":${book.top(true, depth)},` +
      `"best_bid":${quoted(bid)},"best_ask":${quoted(ask)},"mid_price":${quoted(mid)}`
    )
  }

  /**
   * Takes a snapshot, as text and as its form has read it (null: it is unusual); `parse` gives the record, or undefined when
   * that is told to be wrong already. True when it is the regular snapshot of its slot, be it right or wrong.
   */
  takeShot(
    text: string,
    match: RegExpExecArray | null,
    cursor: Cursor,
    parse: () => SnapshotRecord | undefined
  ): boolean {
    const { shot } = this
    let difference: Difference | undefined
    if (match === null || !this.readShot(text, match)) {
      const record = parse()
      if (record === undefined) return false
      shot.fill(record)
      const fault = faultOf(record)
      if (fault !== undefined) {
        this.reporter.tell(fault.rule, cursor.here, fault.message)
        if (shot.isFlagged) this.takeFlag()
        return !shot.isFlagged
      }
      difference = this.compare(record)
    }
    if (shot.isFlagged) return this.judgeFlagged(difference, cursor)
    this.judgePlain(difference, cursor)
    return true
  }

  /** Whether the line is, to the letter, what the events make. */
  private readShot(text: string, match: RegExpExecArray): boolean {
    this.shot.begin(match)
    const isBefore = this.lostBody !== null
    if (!isBefore && this.stage !== 'live' && this.stage !== 'lost') return false
    const body = this.lostBody ?? this.body()
    const at = match[0].length
    if (!text.startsWith(body, at)) return false
    const end = this.shot.readMiddle(text, at + body.length)
    return end >= 0 && text.slice(end) === `${isBefore ? this.lostStats : this.statsText()}}`
  }

  private compare(record: SnapshotRecord): Difference | undefined {
    if (this.lostBody !== null && record.gap_detected) {
      const message = 'the book is not the one that was lost'
      return { rule: 'snapshot_differs', message, price: null, isAsk: false, isDeep: false }
    }
    if (this.stage !== 'live' && this.stage !== 'lost') return undefined
    const difference = differenceOf(record, this.book)
    if (difference === undefined || !isCrossed(record) || this.book.crossed) return difference
    const message = `best bid ${record.best_bid} and best ask ${record.best_ask} cross, by the events they do not`
    return { ...difference, rule: 'crossed_book', message }
  }

  /** The flagged snapshot of a gap is there. */
  private takeFlag(): void {
    this.flagDoubt?.drop()
    this.flagDoubt = null
    this.lostBody = null
  }

  /** Whether a flagged snapshot is a regular one that is flagged by mistake. */
  private judgeFlagged(difference: Difference | undefined, cursor: Cursor): boolean {
    const us = cursor.us ?? 0
    const isExplained = this.stage === 'unknown' || this.flagDoubt !== null || this.gapTold?.us === us
    const hadBook = this.lostBody !== null || this.stage !== 'image'
    this.takeFlag()
    if (!isExplained) {
      const message = 'gap_detected is true, but neither events nor status tell of a gap'
      this.reporter.tellLater(us, 'wrong_flag', cursor.here, message)
    } else if (difference !== undefined && hadBook) this.reporter.tell(difference.rule, cursor.here, difference.message)
    return !isExplained
  }

  private judgePlain(difference: Difference | undefined, cursor: Cursor): void {
    const us = cursor.us ?? 0
    const { shot } = this
    if (this.flagDoubt !== null && us - this.gapUs <= FLAG_US_MAX) {
      this.takeFlag()
      return this.reporter.tell('unflagged_gap', cursor.here, 'gap_detected is false, but continuity was lost here')
    }
    if (this.stage === 'lost') {
      const message = `a snapshot of a book that is lost since ${isoMs(this.gapUs)}`
      this.reporter.tell('unflagged_gap', cursor.here, message)
      return this.suspend()
    }
    if (this.stage === 'live' && !this.weigh(difference, cursor)) return
    const sync = this.syncFault()
    if (sync !== undefined) return this.reporter.tell('wrong_synced_at', cursor.here, sync)
    const number = this.stage === 'live' ? this.numberFault(shot, cursor) : undefined
    if (number !== undefined) return this.reporter.tell('wrong_number', cursor.here, number)
    if (this.stage === 'live' && this.book.crossed) {
      this.crossedUs ??= us
      if (us - this.crossedUs <= CROSSED_US_MAX) return
      const message = `the book is crossed since ${isoMs(this.crossedUs)}`
      this.reporter.tell('crossed_book', cursor.here, message)
      this.crossedUs = Number.POSITIVE_INFINITY
    }
  }

  private syncFault(): string | undefined {
    const { syncedAt } = this.shot
    if (this.syncs.length > 0 && !this.syncs.includes(syncedAt))
      return `synced_at is ${syncedAt}, but the book was built at ${this.syncs[0]}`
    this.syncs = [syncedAt]
    return undefined
  }

  /** Whether a snapshot is right. One that is not is held until the next one shows who is to blame. */
  private weigh(difference: Difference | undefined, cursor: Cursor): boolean {
    if (difference === undefined) {
      this.settleSuspicion()
      this.touches.clear()
      return true
    }
    const { suspicion } = this
    if (suspicion === null) this.suspicion = { place: cursor.here, difference }
    else {
      this.blameEvents(suspicion)
      this.suspend()
    }
    return false
  }

  /** No second snapshot bears the suspicion out. */
  protected settleSuspicion(): void {
    const { suspicion } = this
    this.suspicion = null
    if (suspicion === null) return
    if (suspicion.difference.isDeep) this.blameEvents(suspicion)
    else this.reporter.tell(...wordsOf(suspicion))
  }

  private blameEvents({ place, difference }: Suspicion): void {
    const { price, isAsk, message } = difference
    const suspect = this.touches.suspect(price, isAsk)
    if (suspect === null) return this.reporter.tell(difference.rule, place, message)
    this.reporter.tell(
      'book_differs',
      suspect,
      `from about here on the events do not make the book of ${place.file}:${place.line}: ${message}`
    )
  }
}

function wordsOf({ place, difference }: Suspicion): [RuleId, Place, string] {
  return [difference.rule, place, difference.message]
}
