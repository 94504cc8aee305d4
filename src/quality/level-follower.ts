/** Follows a book of price levels by its `l2_updates`. */

import { LevelBook } from '../book/levels.ts'
import { isZero, priceKey } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import { Follower } from './follower.ts'
import type { LevelRows, ShotLine, UpdateLine } from './lines.ts'
import type { Cursor } from './report.ts'

/** The book of an L2 instrument. */
export class LevelFollower extends Follower {
  protected readonly book = new LevelBook()
  /** The levels that the image of a new hour must repeat, as text. */
  private before: string | null = null
  private text = ''
  private sequence: number | null = null
  private previous: number | null = null
  /** Null unless it came with an update: what comes apart is not in the events. */
  private checksum: number | null = null
  /** Whether the next update may still overlap the image. */
  private isFresh = false

  protected statsText(): string {
    return ''
  }

  override suspend(): void {
    super.suspend()
    this.before = null
  }

  private get state(): string {
    return this.book.top(false, Number.POSITIVE_INFINITY) + this.book.top(true, Number.POSITIVE_INFINITY)
  }

  /** Takes the next update; `text` is the line. */
  takeUpdate(line: UpdateLine, text: string, cursor: Cursor): void {
    if (text === this.text)
      return this.reporter.tell('duplicate_line', cursor.here, 'the line before stands here again')
    this.text = text
    const us = cursor.us ?? 0
    const { type } = line
    if (type === 'clear') {
      this.before = line.reason === 'hour' && this.stage === 'live' ? this.state : null
      this.clear(us, line.reason)
      this.book.clear()
    } else if (type === 'gap') this.gap(us, cursor)
    else if (this.stage === 'unknown') return
    else if (type === 'snapshot') this.takeImage(line, cursor)
    else if (this.stage === 'live') this.takeChange(line, cursor)
    else this.fail('missing_event', cursor, 'an update of a book that has no image')
  }

  private takeImage(line: UpdateLine, cursor: Cursor): void {
    if (this.stage !== 'image') return this.fail('missing_event', cursor, 'an image without the clear before it')
    this.put(line, cursor)
    this.stage = 'live'
    const { before } = this
    this.before = null
    if (before === null) {
      this.sequence = line.sequence
      this.previous = line.previous
      this.checksum = null
      this.isFresh = true
      return
    }
    if (before !== this.state)
      return this.fail('hour_image', cursor, 'the image is not the book as it was before the hour')
    if (line.sequence !== this.sequence || line.previous !== this.previous)
      this.fail('hour_image', cursor, `the image has number ${line.sequence}, the book had ${this.sequence}`)
  }

  private takeChange(line: UpdateLine, cursor: Cursor): void {
    const { sequence, previous } = line
    if (!this.isNext(sequence, previous)) {
      const expected = previous === null ? `number ${this.sequence} or more` : `an update after number ${this.sequence}`
      const found = previous === null ? `${sequence}` : `one after number ${previous}`
      return this.fail('sequence_break', cursor, `${expected} should stand here, but it is ${found}`)
    }
    this.isFresh = false
    this.sequence = sequence
    this.previous = previous
    this.checksum = line.checksum
    this.put(line, cursor)
    if (this.crossedUs !== null && !this.book.crossed) this.crossedUs = null
  }

  /** Where the exchange names the number before, they are a chain, which may overlap an image; else numbers never go back. */
  private isNext(sequence: number | null, previous: number | null): boolean {
    if (sequence === null || this.sequence === null) return true
    if (previous === null) return sequence >= this.sequence
    return previous === this.sequence || (this.isFresh && previous < this.sequence && sequence >= this.sequence)
  }

  private put(line: UpdateLine, cursor: Cursor): void {
    this.putSide(line.bids, false, cursor)
    this.putSide(line.asks, true, cursor)
  }

  private putSide(rows: LevelRows, isAsk: boolean, cursor: Cursor): void {
    for (let n = 0; n < rows.count; n++) {
      const price = rows.prices[n]!
      const size = rows.sizes[n]!
      const key = priceKey(price)
      if (isZero(size)) this.book.remove(isAsk, key)
      else this.book.set(isAsk, key, detached(price), detached(size), rows.orders[n]!)
      if (this.stage === 'live') this.touches.add(cursor, price, isAsk)
    }
  }

  protected numberFault({ sequence, previous, checksum }: ShotLine): string | undefined {
    if (sequence !== this.sequence) return `seqId is ${sequence}, that of the last update ${this.sequence}`
    if (previous !== this.previous) return `prevSeqId is ${previous}, that of the last update ${this.previous}`
    if (this.checksum === null || checksum === this.checksum) return undefined
    return `checksum is ${checksum}, that of the last update ${this.checksum}`
  }
}
