import { LevelBook, type LevelBookState } from '../book/levels.ts'
import { OrderBook, type OrderBookState } from '../book/orders.ts'
import { difference, isZero } from '../core/decimal.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import type { ExchangeTime } from '../core/time.ts'
import type { Exchange, Keeper, L2Frame, OrderNote, Trade } from '../exchanges/exchange.ts'
import type { EngineConfig, HeldBook, Subject } from './subject.ts'

/** How long a book may be crossed, or deeper than subscribed, before it counts as wrong. */
const WRONG_US_MAX = 5_000_000

/** A keeper as plain data. */
export interface KeeperState {
  stage: 'empty' | 'live' | 'broken'
  primary: boolean
  syncedUs: number
  sequence: number | null
  previous: number | null
  checksum: number | null
  mismatchesInRow: number
  hasChecked: boolean
  fresh: boolean
  crossedUs: number | null
  deepUs: number | null
  book: OrderBookState | LevelBookState
}

/** An event of an order that waits to be written. */
interface HeldEvent {
  readonly type: 'open' | 'change' | 'match' | 'done' | 'note'
  readonly id: string
  readonly isAsk: boolean
  readonly price: string
  readonly size: string
  readonly sequence: number | null
  readonly exchangeTime: ExchangeTime
  readonly metadata: string
  readonly note: OrderNote | null
}

const NOTE = {
  type: 'note',
  id: '',
  isAsk: false,
  price: '',
  size: '',
  sequence: null,
  exchangeTime: null,
  metadata: ''
} as const

/** What a keeper needs of its connection. */
export interface Home {
  readonly name: string
  readonly exchange: Exchange
  readonly config: EngineConfig
  readonly keepers: readonly BookKeeper[]
  readonly isReplaced: boolean
  /** Receive time and number of the line at hand, and `"conn":…,"frame":…` of it. */
  readonly us: number
  readonly frame: number
  readonly source: string
  sourceOf(frame: number): string
  resync(index: number, reason: string): void
  allFailing(): boolean
  stopVerifying(keepers: readonly BookKeeper[], reason: string): void
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void
}

/** The book of one instrument on one connection: applies, verifies, and writes what it did where it is primary. */
export class BookKeeper implements Keeper, HeldBook {
  readonly orders = new OrderBook()
  readonly levels = new LevelBook()
  readonly subject: Subject
  private readonly connection: Home
  private readonly index: number
  private stage: KeeperState['stage'] = 'empty'
  syncedUs = 0
  sequence: number | null = null
  previous: number | null = null
  checksum: number | null = null
  private mismatchesInRow = 0
  /** Whether a checksum of this book has been compared on this connection. */
  hasChecked = false
  private fresh = false
  private crossedUs: number | null = null
  private deepUs: number | null = null
  /** The line that changed the book last; a flagged snapshot reflects it, or the line before the one that tells of the loss. */
  private changedFrame = 0
  /** Between `beginImage` and `endImage`: what happens is part of the image. */
  private building = false
  private batching = false
  /** The last event of a batch so far: whether another follows is not known yet. */
  private held: HeldEvent | null = null

  constructor(connection: Home, index: number, subject: Subject) {
    this.connection = connection
    this.index = index
    this.subject = subject
  }

  get instrument(): Instrument {
    return this.subject.instrument
  }

  get live(): boolean {
    return this.stage === 'live'
  }

  /** The name of the connection that feeds this book. */
  get connectionName(): string {
    return this.connection.name
  }

  /** Whether a checksum of this book has failed twice or more without a right one since. */
  get failing(): boolean {
    return this.mismatchesInRow >= 2
  }

  private get isPrimary(): boolean {
    return this.subject.primary === this
  }

  /** Whether what happens to the book is written. */
  private get writes(): boolean {
    return !this.building && this.isPrimary
  }

  get lastTradeId(): number | null {
    return this.subject.lastTradeId
  }

  get tradeHoles(): [from: number, to: number][] {
    return this.subject.tradeHoles
  }

  private get isL3(): boolean {
    return this.instrument.level === 'l3'
  }

  beginImage(sequence: number | null, _exchangeTime: ExchangeTime): void {
    this.building = true
    this.orders.clear()
    this.levels.clear()
    this.sequence = sequence
    this.previous = null
    this.checksum = null
    this.crossedUs = this.deepUs = null
    this.fresh = true
  }

  imageOrder(id: string, isAsk: boolean, price: string, size: string): void {
    this.orders.set(id, isAsk, price, size)
  }

  endImage(image?: L2Frame): void {
    const { us, source } = this.connection
    this.building = false
    this.stage = 'live'
    this.changedFrame = this.connection.frame
    this.syncedUs = this.subject.lastEventUs = us
    if (image) this.note(image)
    const current = this.subject.primary
    // A connection that is being left does not take an instrument back from the one that replaces it.
    if (current !== null && current !== this && current.live && this.connection.isReplaced) return
    this.subject.synced(us, this)
    this.writeImage('sync', us, source)
  }

  /** Takes the instrument over from a connection that ends, without a gap: this book is live. */
  promote(us: number): void {
    this.subject.synced(us, this)
    this.writeImage('sync', us, this.connection.source)
  }

  private note(frame: L2Frame): void {
    this.sequence = frame.sequence
    this.previous = frame.previous
    // Where checksums come in frames of their own, an update without one does not make the last one forgotten.
    if (frame.checksum !== null) this.checksum = frame.checksum
  }

  /** `clear` and the whole book. */
  private writeImage(reason: 'sync' | 'hour', us: number, source: string): void {
    const { lines, events } = this.subject
    const metadata = `{"reason":"${reason}"}`
    if (!this.isL3) {
      const empty = { bids: '[]', asks: '[]', sequence: null, previous: null, checksum: null, exchangeTime: null }
      const { sequence, previous, checksum } = this
      const bids = this.levels.top(false, Number.POSITIVE_INFINITY)
      const asks = this.levels.top(true, Number.POSITIVE_INFINITY)
      events.append(us, lines.update(us, 'clear', empty, source, metadata))
      events.append(
        us,
        lines.update(us, 'snapshot', { ...empty, bids, asks, sequence, previous, checksum }, source, metadata)
      )
      return
    }
    let left = this.orders.size
    events.append(us, lines.orderMark(us, 'clear', source, left === 0, metadata))
    this.orders.forEach(order => {
      left--
      const { id, isAsk, size, level } = order
      events.append(
        us,
        lines.order(us, 'snapshot', id, isAsk, level.price, size, this.sequence, null, source, left === 0, '{}')
      )
    })
  }

  beginBatch(): void {
    this.batching = true
  }

  endBatch(): void {
    this.batching = false
    this.release(true)
  }

  /** Writes the event that was held back for the next one of its frame. */
  private release(last: boolean): void {
    const { held } = this
    if (held === null) return
    this.held = null
    this.writeEvent(held, last)
  }

  private writeEvent(event: HeldEvent, last: boolean): void {
    const { us, source } = this.connection
    const { lines, events } = this.subject
    const { type, id, isAsk, price, size, sequence, exchangeTime, metadata } = event
    events.append(
      us,
      type === 'note'
        ? lines.note(us, event.note!, source, last)
        : lines.order(us, type, id, isAsk, price, size, sequence, exchangeTime, source, last, metadata)
    )
  }

  /** Writes an event of one order; in a batch, when the next one comes. */
  private emit(
    type: 'open' | 'change' | 'match' | 'done',
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    sequence: number | null,
    exchangeTime: ExchangeTime,
    metadata: string
  ): void {
    const { us, source } = this.connection
    if (this.batching) {
      this.release(false)
      this.held = { type, id, isAsk, price, size, sequence, exchangeTime, metadata, note: null }
      return
    }
    const { lines, events } = this.subject
    events.append(us, lines.order(us, type, id, isAsk, price, size, sequence, exchangeTime, source, true, metadata))
  }

  putOrder(
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    sequence: number | null,
    exchangeTime: ExchangeTime,
    metadata = '{}'
  ): void {
    const known = this.orders.set(id, isAsk, price, size)
    this.advance(sequence)
    if (exchangeTime !== null) this.timed(exchangeTime)
    if (this.writes) this.emit(known ? 'change' : 'open', id, isAsk, price, size, sequence, exchangeTime, metadata)
  }

  removeOrder(id: string, sequence: number | null, exchangeTime: ExchangeTime, metadata = '{}'): boolean {
    const order = this.orders.remove(id)
    this.advance(sequence)
    if (exchangeTime !== null) this.timed(exchangeTime)
    if (order === undefined) this.subject.absentDeletes++
    else if (this.writes) {
      this.emit('done', id, order.isAsk, order.level.price, order.size, sequence, exchangeTime, metadata)
    }
    return order !== undefined
  }

  matchOrder(id: string, size: string, sequence: number | null, exchangeTime: ExchangeTime, metadata = '{}'): boolean {
    const order = this.orders.get(id)
    this.advance(sequence)
    if (exchangeTime !== null) this.timed(exchangeTime)
    if (order === undefined) return false
    const rest = difference(order.size, size)
    if (rest.startsWith('-')) {
      this.lose('match_too_large', order.size, size)
      return true
    }
    const { isAsk, level } = order
    if (this.writes) this.emit('match', id, isAsk, level.price, size, sequence, exchangeTime, metadata)
    if (isZero(rest)) this.orders.remove(id)
    else this.orders.resize(order, rest)
    return true
  }

  noteOrder(note: OrderNote): void {
    this.advance(note.sequence)
    if (!this.writes) return
    const { us, source } = this.connection
    if (!this.batching) {
      this.subject.events.append(us, this.subject.lines.note(us, note, source, true))
      return
    }
    this.release(false)
    this.held = { ...NOTE, note }
  }

  advance(sequence: number | null): void {
    this.sequence = sequence
    this.changed()
  }

  update(frame: L2Frame): void {
    this.note(frame)
    this.changed()
    if (frame.exchangeTime !== null) this.timed(frame.exchangeTime)
    if (!this.writes) return
    const { us, source } = this.connection
    this.subject.events.append(us, this.subject.lines.update(us, 'update', frame, source, '{}'))
  }

  /** The exchange told when: now and then that shows how far behind it the events come in. */
  private timed(exchangeTime: NonNullable<ExchangeTime>): void {
    const { lag } = this.subject
    const { us } = this.connection
    // What comes as a part of an image happened whenever it did.
    if (us >= lag.dueUs && !this.building) lag.note(us, exchangeTime)
  }

  private changed(): void {
    this.changedFrame = this.connection.frame
    this.subject.lastEventUs = this.connection.us
    if (this.crossedUs !== null && !this.book.crossed) this.crossedUs = null
  }

  private get book(): OrderBook | LevelBook {
    return this.isL3 ? this.orders : this.levels
  }

  verify(expected: number | null): void {
    this.checksum = expected === 0 ? null : expected
    const recipe = this.connection.exchange.checksum
    if (this.checksum === null || this.subject.checksumOff || !recipe || !this.live) return
    this.changedFrame = this.connection.frame
    const computed = recipe(this)
    this.hasChecked = true
    if (computed === this.checksum) {
      this.mismatchesInRow = 0
      this.subject.freshFailures = 0
      this.fresh = false
    } else this.mismatch(this.checksum, computed)
  }

  private mismatch(expected: number, computed: number): void {
    const { subject, connection } = this
    const { instId } = this.instrument
    this.mismatchesInRow++
    subject.mismatches++
    if (this.fresh) subject.freshFailures++
    this.fresh = false
    const facts = { expected, computed, in_row: this.mismatchesInRow, count: subject.mismatches }
    if (this.isPrimary) subject.status(connection.us, 'checksum_mismatch', facts)
    connection.log('warn', 'Checksum mismatch', { instId, ...facts })
    if (subject.freshFailures >= 3) return connection.stopVerifying([this], 'three fresh images in a row failed')
    if (connection.allFailing()) return connection.stopVerifying(connection.keepers, 'every instrument fails at once')
    const { onMismatch } = connection.config
    if (onMismatch === 'resync' || (onMismatch === 'three' && this.mismatchesInRow >= 3)) {
      this.lose('checksum', expected, computed)
    }
  }

  lose(reason: string, expected: number | string | null, received: number | string | null, recover = true): void {
    this.building = this.batching = false
    this.release(true)
    if (!this.live) return
    const { connection, subject } = this
    const { us } = connection
    if (this.isPrimary) {
      const reflected = this.changedFrame === connection.frame ? connection.frame : connection.frame - 1
      const detail = { reason, expected, received }
      subject.gaps++
      subject.gapUs = us
      subject.flag(us, this, connection.sourceOf(reflected))
      this.writeGap(us, JSON.stringify(detail))
      subject.status(us, 'gap', { ...detail, cause: reason, conn: connection.name })
      connection.log('warn', 'GAP DETECTED', { instId: this.instrument.instId, ...detail })
    }
    this.stage = 'broken'
    this.orders.clear()
    this.levels.clear()
    this.crossedUs = this.deepUs = null
    if (recover) connection.resync(this.index, reason)
  }

  private writeGap(us: number, metadata: string): void {
    const { lines, events } = this.subject
    const { source } = this.connection
    const none = { bids: '[]', asks: '[]', sequence: null, previous: null, checksum: null, exchangeTime: null }
    events.append(
      us,
      this.isL3 ? lines.orderMark(us, 'gap', source, true, metadata) : lines.update(us, 'gap', none, source, metadata)
    )
  }

  trade(trade: Trade): void {
    this.subject.trade(this.connection.us, trade, this.connection.source)
  }

  status(event: string, detail: Record<string, unknown>): void {
    if (event === 'refused' && detail.channel === 'book') this.subject.refusedUs = this.connection.us
    const proof = event === 'subscribed' ? { proof: this.connection.exchange.proof[this.instrument.level] } : {}
    this.subject.status(this.connection.us, event, { conn: this.connection.name, ...detail, ...proof })
  }

  malformed(what: string, kind: FeedKind = 'book'): void {
    this.connection.log('error', 'BUILD_FAIL: Missing required fields', {
      instId: this.instrument.instId,
      kind,
      frame: what
    })
    if (kind === 'book') this.lose('build_fail', null, null)
  }

  /** At a tick: invariants, then the snapshot. `source` names the line before the tick. */
  tick(source: string): void {
    if (!this.live) return
    const { us } = this.connection
    const depthMax = this.connection.exchange.depthMax(this.instrument)
    const size = (isAsk: boolean) => (this.isL3 ? this.orders.count(isAsk) : this.levels.count(isAsk))
    this.crossedUs = this.book.crossed ? (this.crossedUs ?? us) : null
    this.deepUs = size(false) > depthMax || size(true) > depthMax ? (this.deepUs ?? us) : null
    if (this.crossedUs !== null && us - this.crossedUs > WRONG_US_MAX) {
      return this.lose('crossed', null, `${this.book.best(false)} >= ${this.book.best(true)}`)
    }
    if (this.deepUs !== null && us - this.deepUs > WRONG_US_MAX) {
      return this.lose('too_deep', depthMax, Math.max(size(false), size(true)))
    }
    if (this.isPrimary && this.subject.sample(us, this, source)) {
      this.connection.log('debug', 'Snapshot written', { instId: this.instrument.instId })
    }
  }

  /** A new hour has begun: its files open with the whole book. */
  hour(us: number, source: string): void {
    if (this.live && this.isPrimary) this.writeImage('hour', us, source)
  }

  /** The keeper as plain data. */
  state(): KeeperState {
    const { stage, syncedUs, sequence, previous, checksum, mismatchesInRow, hasChecked, fresh, crossedUs, deepUs } =
      this
    return {
      stage,
      primary: this.isPrimary,
      syncedUs,
      sequence,
      previous,
      checksum,
      mismatchesInRow,
      hasChecked,
      fresh,
      crossedUs,
      deepUs,
      book: this.book.state()
    }
  }

  /** Takes what `state` gave. */
  restore(state: KeeperState): void {
    const { book, primary, stage, ...rest } = state
    Object.assign(this, rest)
    this.stage = stage
    if (primary) this.subject.primary = this
    if (this.isL3) this.orders.restore(book as OrderBookState)
    else this.levels.restore(book as LevelBookState)
  }
}
