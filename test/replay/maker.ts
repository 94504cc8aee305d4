import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'
import { LineMaker, type OrderEventType } from '../../src/capture/lines.ts'
import type { Instrument } from '../../src/core/instrument.ts'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import { hourPath } from '../../src/vault/layout.ts'

/** The first moment of the hour in which made vaults begin, µs. */
export const START_US = 490_000 * HOUR_US
/** A moment so many seconds after it. */
export const at = (seconds: number): number => START_US + Math.round(seconds * 1_000_000)

const INSTRUMENT: Instrument = {
  exchange: 'bitfinex',
  instId: 'BTCUSD',
  market: 'spot',
  level: 'l3',
  channel: 'book-R0'
}
const NO_LEVELS = { bids: '[]', asks: '[]', sequence: null, previous: null, checksum: null, exchangeTime: null }

/** A vault whose lines are made by hand, by the maker of the capture. */
export class MadeVault {
  readonly path = mkdtempSync(join(tmpdir(), 'l3cap-made-'))
  private readonly instrument: Instrument
  private readonly lines: LineMaker
  private frame = 1

  constructor(instrument: Partial<Instrument> = {}) {
    this.instrument = { ...INSTRUMENT, ...instrument }
    this.lines = new LineMaker(this.instrument, 400)
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
  }

  file(feed: string, us: number): string {
    return hourPath(this.path, this.instrument.exchange, feed, this.instrument.instId, hourOf(us))
  }

  /** Adds a line to the hour file of its moment. */
  put(feed: string, us: number, line: string): this {
    mkdirSync(dirname(this.file(feed, us)), { recursive: true })
    appendFileSync(this.file(feed, us), line)
    return this
  }

  status(seconds: number, event: string, detail: Record<string, unknown> = {}): this {
    return this.put('status', at(seconds), this.lines.status(at(seconds), event, detail))
  }

  /** `started` and `synced`, with an image of two orders (ids 1 and 2, `size` of the first) or levels. */
  begin(seconds: number): this {
    return this.status(seconds, 'started', { run: 'r' }).image(seconds + 0.5)
  }

  image(seconds: number, reason = 'sync', size = '2'): this {
    if (reason === 'sync')
      this.status(seconds, 'synced', { conn: 'c-1', synced_at: new Date(at(seconds) / 1000).toISOString() })
    if (this.instrument.level === 'l2') return this.levels(seconds, reason)
    this.mark(seconds, 'clear', reason, false)
    return this.order(seconds, 'snapshot', '1', false, '100', size, false).order(
      seconds,
      'snapshot',
      '2',
      true,
      '101',
      '3'
    )
  }

  private levels(seconds: number, reason: string): this {
    const metadata = JSON.stringify({ reason })
    const whole = { ...NO_LEVELS, bids: '[["100","2","0","1"]]', asks: '[["101","3","0","1"]]', sequence: 5 }
    const us = at(seconds)
    this.put('l2_updates', us, this.lines.update(us, 'clear', NO_LEVELS, this.source(), metadata))
    return this.put('l2_updates', us, this.lines.update(us, 'snapshot', whole, this.source(), metadata))
  }

  update(seconds: number, bids: string, asks = '[]'): this {
    const us = at(seconds)
    this.frame++
    return this.put(
      'l2_updates',
      us,
      this.lines.update(us, 'update', { ...NO_LEVELS, bids, asks }, this.source(), '{}')
    )
  }

  /** An order event; the next one has another frame after `last`. */
  order(
    seconds: number,
    type: OrderEventType,
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    last = true
  ): this {
    const us = at(seconds)
    const line = this.lines.order(us, type, id, isAsk, price, size, this.frame, null, this.source(), last, '{}')
    if (last) this.frame++
    return this.put('l3_events', us, line)
  }

  mark(seconds: number, type: 'clear' | 'gap', reason: string, last = true): this {
    const us = at(seconds)
    const metadata = JSON.stringify({ reason, ...(type === 'gap' ? { expected: 1, received: 2 } : {}) })
    if (this.instrument.level === 'l2')
      return this.put('l2_updates', us, this.lines.update(us, type, NO_LEVELS, this.source(), metadata))
    return this.put('l3_events', us, this.lines.orderMark(us, type, this.source(), last, metadata))
  }

  /** A snapshot record of a book. */
  shot(seconds: number, book: OrderBook | LevelBook): this {
    const us = at(seconds)
    const facts = { checksum: null, sequence: null, previous: null, gap: false, syncedUs: us, source: this.source() }
    const sides = {
      bids: book.top(false, 400),
      asks: book.top(true, 400),
      bestBid: book.best(false),
      bestAsk: book.best(true)
    }
    const stats = book instanceof OrderBook ? book.stats() : null
    return this.put(`${this.instrument.level}_spot`, us, this.lines.snapshot(us, { ...facts, ...sides, stats }))
  }

  trade(seconds: number, id: string): this {
    const us = at(seconds)
    const trade = { id, isSell: false, price: '100', size: '1', exchangeTime: null, metadata: '{}' }
    return this.put('trades', us, this.lines.trade(us, trade, this.source()))
  }

  /** Compresses an hour; the plain file stays where `keep` says so. */
  compress(feed: string, us: number, keep = false): this {
    const path = this.file(feed, us)
    writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
    if (!keep) rmSync(path)
    return this
  }

  /** Changes the text of an hour file. */
  edit(feed: string, us: number, change: (lines: string[]) => string[]): this {
    const path = this.file(feed, us)
    writeFileSync(path, change(readFileSync(path, 'utf8').split('\n')).join('\n'))
    return this
  }

  private source(): string {
    return `"conn":"c-1","frame":${this.frame}`
  }
}
