/** Follows an order-by-order book by its `l3_events`. */

import { OrderBook } from '../book/orders.ts'
import { difference, isZero } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import { Follower } from './follower.ts'
import type { EventLine, ShotLine } from './lines.ts'
import type { Cursor, Doubt, Place } from './report.ts'

/** A snapshot whose number the next event must reach. */
interface Numbered {
  readonly place: Place
  readonly sequence: number
  readonly doubt: Doubt | null
}

/** The book of an L3 instrument. */
export class OrderFollower extends Follower {
  protected book = new OrderBook()
  /** The book that the image of a new hour must repeat. */
  private before: OrderBook | null = null
  private isBeforeTrusted = true
  private source = ''
  private wasLast = true
  private text = ''
  private sequence: number | null = null
  private sequenceBefore: number | null = null
  private numberFile = ''
  private numberLine = 0
  private numbered: Numbered | null = null

  protected statsText(): string {
    return `,"stats":${this.book.stats()}`
  }

  override suspend(): void {
    super.suspend()
    this.before = null
    this.wasLast = true
    this.numbered?.doubt?.drop()
    this.numbered = null
    this.sequence = this.sequenceBefore = null
  }

  /** Takes the next event; `text` is the line. */
  takeEvent(line: EventLine, text: string, cursor: Cursor): void {
    const isSameFrame = line.source === this.source
    if (isSameFrame && text === this.text)
      return this.reporter.tell('duplicate_line', cursor.here, 'the line before stands here again')
    this.text = text
    if (!this.wasLast && !isSameFrame && this.stage !== 'unknown')
      this.fail('missing_event', cursor, 'the events before this line end without the last one of their frame')
    this.source = line.source
    this.wasLast = line.last
    const us = cursor.us ?? 0
    if (line.type === 'clear') this.begin(us, line, cursor)
    else if (line.type === 'gap') this.gap(us, cursor)
    else if (this.stage === 'image') this.takeImage(line, cursor)
    else if (this.stage === 'lost')
      this.fail('missing_event', cursor, `${line.type} of a book that is lost: a clear is missing`)
    else if (this.stage === 'live') {
      if (line.type === 'snapshot')
        return this.fail('missing_event', cursor, 'an order of an image without the clear before it')
      this.number(line, cursor)
      this.apply(line, cursor)
      if (this.crossedUs !== null && line.last && !this.book.crossed) this.crossedUs = null
    }
  }

  private begin(us: number, line: EventLine, cursor: Cursor): void {
    this.before = null
    if (line.reason === 'hour' && this.stage === 'live') {
      this.before = this.book
      this.isBeforeTrusted = true
    } else this.sequence = this.sequenceBefore = this.numbered = null
    this.clear(us, line.reason)
    if (this.before === null) this.book.clear()
    else this.book = new OrderBook()
    if (line.last) this.endImage(cursor.here)
  }

  private takeImage(line: EventLine, cursor: Cursor): void {
    if (line.type !== 'snapshot') return this.fail('missing_event', cursor, `${line.type} before the end of an image`)
    const { id, price, size } = line
    const isAsk = line.side === 'ask'
    if (this.book.get(id!) !== undefined)
      return this.fail('known_order', cursor, `order ${id} stands twice in the image`)
    const old = this.before?.get(id!)
    const isSame = old?.isAsk === isAsk && old.level.price === price && old.size === size
    if (this.before !== null && !isSame && this.isBeforeTrusted) {
      const was = old === undefined ? 'was not in the book' : `was ${wordsOf(old.isAsk, old.level.price, old.size)}`
      this.reporter.tell(
        'hour_image',
        cursor.here,
        `order ${id} is ${wordsOf(isAsk, price!, size!)}, and ${was} before the hour`
      )
      this.isBeforeTrusted = false
    }
    this.put(line)
    if (line.last) this.endImage(cursor.here)
  }

  private endImage(here: Place): void {
    const { before, book } = this
    this.before = null
    this.stage = 'live'
    if (before === null) return
    const missing = before.size - book.size
    if (this.isBeforeTrusted && missing === 0) return
    if (this.isBeforeTrusted)
      this.reporter.tell(
        'hour_image',
        here,
        `the image has ${book.size} orders, the book had ${before.size} before the hour`
      )
    // One damaged line is told once: the book goes on as it was.
    this.book = before
  }

  private number({ sequence }: EventLine, cursor: Cursor): void {
    if (sequence === null) return
    const { numbered } = this
    if (this.sequence !== null && sequence < this.sequence) {
      // The one that fits neither the line before nor the one after it is wrong.
      const isThis = this.sequenceBefore !== null && sequence < this.sequenceBefore
      const place = isThis ? cursor.here : { ...cursor.here, file: this.numberFile, line: this.numberLine }
      numbered?.doubt?.drop()
      this.reporter.tell('sequence_break', place, `number ${this.sequence} is followed by ${sequence}`)
    } else if (numbered !== null && numbered.sequence > sequence) {
      numbered.doubt?.drop()
      this.reporter.tell(
        'wrong_number',
        numbered.place,
        `seqId is ${numbered.sequence}, but the next event is number ${sequence}`
      )
    }
    this.numbered = null
    this.sequenceBefore = this.sequence
    this.sequence = sequence
    this.numberFile = cursor.file
    this.numberLine = cursor.line
  }

  protected numberFault({ sequence, previous }: ShotLine, cursor: Cursor): string | undefined {
    const { numbered } = this
    if (previous !== null) return `prevSeqId is ${previous}, and no exchange tells it with orders`
    if (this.sequence === null) return undefined
    if (sequence === null) return `seqId is null after number ${this.sequence}`
    const least = Math.max(this.sequence, numbered?.sequence ?? 0)
    let doubt: Doubt | null = null
    if (sequence < least) {
      if (numbered !== null && numbered.sequence > this.sequence && numbered.doubt === null) {
        // Numbers may go on without events: of the two snapshots the first one may be wrong as well.
        this.reporter.tell(
          'wrong_number',
          numbered.place,
          `seqId is ${numbered.sequence}, that of the next snapshot ${sequence}`
        )
      } else {
        const message = `seqId is ${sequence}, but number ${this.sequence} has come already`
        doubt = this.reporter.tellLater(cursor.us ?? 0, 'wrong_number', cursor.here, message)
      }
    }
    this.numbered = { place: cursor.here, sequence, doubt }
    return undefined
  }

  /** What a book holds may stay there for hours, and must not keep the lines in memory that it comes from. */
  private put({ id, side, price, size }: EventLine): void {
    this.book.set(detached(id!), side === 'ask', detached(price!), detached(size!))
  }

  private apply(line: EventLine, cursor: Cursor): void {
    const { type, id, price, size } = line
    const { book } = this
    if (type === 'received' || type === 'activate') return
    const order = book.get(id!)
    if (type === 'open') {
      if (order !== undefined)
        return this.fail('known_order', cursor, `order ${id} is opened, but it is in the book already`)
      this.touches.add(cursor, price!, line.side === 'ask')
      this.put(line)
      return
    }
    if (order === undefined) {
      // An order that never rested, or that a match took whole.
      if (type === 'done' && this.tellsAbsent) return
      return this.fail('unknown_order', cursor, `${type} of order ${id}, which is not in the book`)
    }
    if (type === 'change') {
      this.touches.add(cursor, price!, line.side === 'ask')
      this.put(line)
      return
    }
    const { isAsk, level } = order
    const isDone = type === 'done'
    const isSame =
      line.side === (isAsk ? 'ask' : 'bid') && line.price === level.price && (!isDone || size === order.size)
    const rest = isDone || !isSame ? '' : difference(order.size, size!)
    if (!isSame || rest.startsWith('-')) {
      const had = `the book has ${wordsOf(isAsk, level.price, order.size)}`
      return this.fail(
        'wrong_order',
        cursor,
        `${type} of order ${id} tells ${line.side} ${price} x ${size}, but ${had}`
      )
    }
    this.touches.add(cursor, level.price, isAsk)
    if (isDone || isZero(rest)) book.remove(id!)
    else book.resize(order, rest)
  }

  /** Whether `done` is told of orders that are not in the book: Coinbase's `full`. */
  tellsAbsent = false
}

function wordsOf(isAsk: boolean, price: string, size: string): string {
  return `${isAsk ? 'ask' : 'bid'} ${price} x ${size}`
}
