/** One instrument's book, replayed from the lines of one hour. */
import { applyEvent, applyUpdate } from '../book/apply.ts'
import { type BookEvent, type EventLine, parseEventLine, readEventLine } from '../book/event-line.ts'
import { LevelBook } from '../book/levels.ts'
import { OrderBook } from '../book/orders.ts'
import { isDecimal, priceKey } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import type { LevelRow, UpdateRecord } from '../core/records.ts'

/** What the lines say against the book they gave. `cause`: of a gap. `us`: since when, µs. */
export interface LineDoubt {
  readonly kind: 'no_image' | 'gap' | 'damaged'
  readonly cause: string
  readonly us: number | null
  /** `file:line`, where the reason stands in one. */
  readonly place: string
}

/** The last frame that was applied. */
export interface LastFrame {
  us: number
  conn: string
  frame: number
  seqId: number | null
}

const NO_IMAGE: LineDoubt = { kind: 'no_image', cause: '', us: null, place: '' }

/**
 * Replays lines in order, frames whole or not at all. `book` is what they gave; `doubt` says why it is not to be trusted,
 * null where nothing in the lines speaks against it.
 */
export abstract class BookReplay {
  doubt: LineDoubt | null = NO_IMAGE
  /** The last frame; null before the first image is whole. */
  last: LastFrame | null = null
  /** The last image: when it was received, whether it was a fresh one, and where it stands. */
  image: { readonly us: number; readonly reason: string; readonly place: string } | null = null
  /** Lines that were applied since the image. */
  count = 0

  /** Takes the next line; `us` is its receive time. */
  take(line: string, us: number, place: string): void {
    if (!this.apply(line, us, place)) this.damage(place, us)
  }

  /** From here on lines are missing: the next image makes up for them, and one that was begun is none. */
  damage(place: string, us: number | null): void {
    this.abandon()
    if (this.doubt === null || this.doubt === NO_IMAGE) this.doubt = { kind: 'damaged', cause: '', us, place }
  }

  /** Forgets what is not whole yet. */
  protected abstract abandon(): void

  /** False for a line that is none of its feed, or does not fit. */
  protected abstract apply(line: string, us: number, place: string): boolean

  protected imaged(us: number, reason: string, place: string): void {
    this.image = { us, reason, place }
    this.last = this.doubt = null
    this.count = 0
  }

  protected lost(us: number, cause: string, place: string): void {
    if (this.doubt === null) this.doubt = { kind: 'gap', cause, us, place }
  }

  protected applied(us: number, conn: string, frame: number, seqId: number | null): void {
    this.last = { us, conn, frame, seqId }
  }
}

/** An image that is not whole yet. */
interface Building<Book> {
  readonly book: Book
  readonly reason: string
  readonly place: string
  count: number
}

/** Replays `l3_events`. */
export class OrderReplay extends BookReplay {
  book = new OrderBook()
  private building: Building<OrderBook> | null = null
  /** Events of a frame whose last one has not come yet, and that frame. */
  private pending: BookEvent[] = []
  private frame = ''

  protected abandon(): void {
    this.building = null
    this.pending = []
  }

  protected apply(line: string, us: number, place: string): boolean {
    const event = readEventLine(line) ?? parseEventLine(line)
    if (event === undefined || !hasNumbers(event)) return false
    const { event_type: type, last } = event
    if (type === 'clear') {
      // What came before of a frame or an image without an end was cut off when its process died.
      this.pending = []
      this.building = { book: new OrderBook(), reason: reasonOf(event.metadata), place, count: 0 }
    } else if (this.building !== null && type === 'snapshot') {
      applyEvent(this.building.book, event)
      this.building.count++
    } else if (this.building !== null || type === 'snapshot') return false
    else if (!this.change(event)) return false
    if (type === 'gap') this.lost(us, reasonOf(event.metadata), place)
    if (!last || type === 'gap') return true
    if (this.building !== null) this.finish(this.building, us)
    this.note(event)
    return true
  }

  private finish(building: Building<OrderBook>, us: number): void {
    this.book = building.book
    this.building = null
    this.imaged(us, building.reason, building.place)
    this.count = building.count
  }

  /** Applies a frame once it is whole; false where the end of the one before is missing, or an event does not fit. */
  private change(event: EventLine): boolean {
    const { pending } = this
    // A file begins with an image: one that does not has lost its first lines.
    if (this.image === null) return false
    this.count++
    if (pending.length === 0 && event.last) return applyEvent(this.book, event) === null
    const frame = `${event.conn} ${event.frame}`
    const isWhole = pending.length === 0 || frame === this.frame
    const { event_type, order_id, side, price, size } = event
    pending.push({ event_type, order_id, side, price, size } as BookEvent)
    this.frame = frame
    if (!event.last && isWhole) return true
    this.pending = []
    const misfits = pending.filter(each => applyEvent(this.book, each) !== null)
    return isWhole && misfits.length === 0
  }

  private note({ recv_us, conn, frame, sequence }: EventLine): void {
    this.applied(recv_us, detached(conn), frame, sequence ?? this.last?.seqId ?? null)
  }
}

/** Replays `l2_updates`. */
export class LevelReplay extends BookReplay {
  book = new LevelBook()
  private building: Building<LevelBook> | null = null

  protected abandon(): void {
    this.building = null
  }

  protected apply(line: string, us: number, place: string): boolean {
    const update = parseUpdate(line)
    if (update === undefined) return false
    const { event_type: type, conn, frame } = update
    if (type === 'clear') {
      this.building = { book: new LevelBook(), reason: update.metadata.reason, place, count: 0 }
      return true
    }
    const { building } = this
    this.building = null
    if ((building === null) === (type === 'snapshot') || (building ?? this.image) === null) return false
    if (building !== null) {
      this.book = building.book
      this.imaged(us, building.reason, building.place)
    }
    if (type === 'gap') {
      this.lost(us, update.metadata.reason, place)
      return true
    }
    applyUpdate(this.book, update)
    this.count++
    this.applied(us, conn, frame, update.seqId ?? this.last?.seqId ?? null)
    return true
  }
}

function hasNumbers({ price, size }: EventLine): boolean {
  return (size === null || isDecimal(size)) && (price === null || !Number.isNaN(priceKey(price)))
}

function reasonOf(metadata: string): string {
  return /^\{"reason":"([^"]*)"/.exec(metadata)?.[1] ?? 'unknown'
}

function parseUpdate(line: string): UpdateRecord | undefined {
  try {
    const update = JSON.parse(line) as UpdateRecord
    const { event_type: type, bids, asks, conn, frame, metadata } = update
    const isKnown = ['clear', 'snapshot', 'update', 'gap'].includes(type)
    const isSource = typeof conn === 'string' && Number.isSafeInteger(frame) && typeof metadata === 'object'
    return isKnown && isSource && bids.every(isLevel) && asks.every(isLevel) ? update : undefined
  } catch {
    return undefined
  }
}

function isLevel(level: LevelRow): boolean {
  return !Number.isNaN(priceKey(level[0])) && isDecimal(level[1])
}
