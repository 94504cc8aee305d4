import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import { asObject } from '../core/json.ts'
import { type ExchangeTime, isoOfMicros } from '../core/time.ts'
import type { L2Frame, Trade } from './exchange.ts'

const OPEN = 91
const CLOSE = 93
const QUOTE = 34
const COMMA = 44
const POINT = 46
/** Digits that the decimals of the book hold before and after the point. */
const WHOLE_DIGITS_MAX = 13
const FRACTION_DIGITS_MAX = 18
/** Times as large as this are microseconds: the address asked for them (`timeUnit=MICROSECOND`). */
const MICROS_MIN = 1e14
/** Longer slices of a text keep the whole of it alive. */
const SLICE_CHARS_MAX = 12

/** What ends a level in a record, in place of `"]`. */
const LEVEL_END = '","0",null]'

/** Numbers of a level in `SideRows.places`: where price and size begin and end. */
const PLACES = 4

/**
 * The levels of one side as they stand in `text`, all of them between `from` and `to`. The lists are reused from frame to
 * frame: `count` says how many of their members are meant.
 */
class SideRows {
  text = '[]'
  from = 0
  to = 2
  count = 0
  places = new Uint32Array(64 * PLACES)
  /** Keys of the prices, and whether the size is zero. */
  keys = new Float64Array(64)
  zeros = new Uint8Array(64)

  clear(text: string, from: number): void {
    this.text = text
    this.from = from
    this.count = 0
  }

  /** One more level. */
  add(price: number, priceEnd: number, key: number, size: number, sizeEnd: number, isZero: boolean): void {
    const { count } = this
    if (count === this.keys.length) this.grow()
    const { places } = this
    const at = count * PLACES
    places[at] = price
    places[at + 1] = priceEnd
    places[at + 2] = size
    places[at + 3] = sizeEnd
    this.keys[count] = key
    this.zeros[count] = isZero ? 1 : 0
    this.count = count + 1
  }

  private grow(): void {
    const { places, keys, zeros } = this
    this.places = new Uint32Array(places.length * 2)
    this.places.set(places)
    this.keys = new Float64Array(keys.length * 2)
    this.keys.set(keys)
    this.zeros = new Uint8Array(zeros.length * 2)
    this.zeros.set(zeros)
  }

  /** JSON text of the levels as records show them. */
  get recorded(): string {
    const { text, count, places } = this
    let recorded = ''
    let at = this.from
    for (let n = 0; n < count; n++) {
      const end = places[n * PLACES + 3]!
      recorded += text.slice(at, end) + LEVEL_END
      at = end + 2
    }
    return recorded + text.slice(at, this.to)
  }
}

/** A `depthUpdate` after reading. Reused for every frame; the text of its levels is made only when somebody wants it. */
export class DepthFrame implements L2Frame {
  symbol = ''
  /** First and last update number (`U`, `u`). */
  first = 0
  last = 0
  /** The last number of the event before (`pu`); null on spot, which does not tell it. */
  link: number | null = null
  /** The number before, as the record shows it. */
  previous: number | null = null
  readonly checksum = null
  exchangeTime: ExchangeTime = null
  readonly bidRows = new SideRows()
  readonly askRows = new SideRows()

  get sequence(): number {
    return this.last
  }

  get bids(): string {
    return this.bidRows.recorded
  }

  get asks(): string {
    return this.askRows.recorded
  }
}

const WRAPPED = '{"stream":"'
const WRAPPED_DATA = '","data":'
const HEAD = '{"e":"depthUpdate",'
/** Members of an event as bits. */
const EVENT_TIME = 1
const TRANSACTION_TIME = 2
const SYMBOL = 4
const FIRST = 8
const LAST = 16
const LINK = 32
const BIDS = 64
const ASKS = 128
const OTHER = 256
const NEEDED = EVENT_TIME + SYMBOL + FIRST + LAST + BIDS + ASKS

/**
 * Reads the usual form of depth events, raw and combined, without building values. Anything else makes `read` false.
 */
export class DepthReader {
  readonly frame = new DepthFrame()
  private text = ''
  private at = 0
  private value = 0
  private seen = 0
  private digits = 0
  private eventTime = 0
  private transactionTime = 0
  // Frames come in rows of one stream and one symbol: these need not be cut out and looked up each time.
  private recentStream = ''
  private streamSymbol = ''
  private recent = ''
  private readonly streams: ReadonlyMap<string, string>
  private readonly symbols: { has(symbol: string): boolean }

  /** `streams`: symbols by the names of their depth streams; `symbols`: those that may be read. */
  constructor(streams: ReadonlyMap<string, string>, symbols: { has(symbol: string): boolean }) {
    this.streams = streams
    this.symbols = symbols
  }

  /** Whether the text was an event of a known symbol; it is in `frame` then. */
  read(text: string): boolean {
    const { frame } = this
    this.text = text
    this.at = this.seen = 0
    frame.link = null
    let symbol: string | undefined
    if (this.skip(WRAPPED)) {
      symbol = this.stream()
      if (symbol === undefined || !this.skip(WRAPPED_DATA)) return false
    }
    if (!this.skip(HEAD)) return false
    for (;;) {
      const key = this.member()
      if (key === 0) return false
      // Of a key that comes twice the last one counts, as everywhere.
      this.seen |= key
      if (text.charCodeAt(this.at) !== COMMA) break
      this.at++
    }
    if (!this.skip(symbol === undefined ? '}' : '}}') || this.at !== text.length) return false
    if ((this.seen & NEEDED) !== NEEDED || frame.first > frame.last) return false
    if (symbol !== undefined && symbol !== frame.symbol) return false
    frame.exchangeTime = timeOf(this.seen & TRANSACTION_TIME ? this.transactionTime : this.eventTime)
    return true
  }

  private skip(expected: string): boolean {
    if (!this.text.startsWith(expected, this.at)) return false
    this.at += expected.length
    return true
  }

  /** The symbol of the stream that is named here. */
  private stream(): string | undefined {
    if (this.recentStream !== '' && this.text.startsWith(this.recentStream, this.at)) {
      const end = this.at + this.recentStream.length
      if (this.text.charCodeAt(end) === QUOTE) {
        this.at = end
        return this.streamSymbol
      }
    }
    const name = this.word()
    const symbol = this.streams.get(name)
    if (symbol !== undefined) {
      this.recentStream = name
      this.streamSymbol = symbol
    }
    return symbol
  }

  /** What stands before the next quote. */
  private word(): string {
    const end = this.text.indexOf('"', this.at)
    const word = end < 0 ? '' : this.text.slice(this.at, end)
    this.at = Math.max(this.at, end)
    return word
  }

  /** One member; a bit for its key, 0 when it is unknown or of another form. */
  private member(): number {
    const { frame } = this
    if (this.skip('"E":')) {
      if (!this.integer()) return 0
      this.eventTime = this.value
      return EVENT_TIME
    }
    if (this.skip('"s":"')) return this.symbol()
    if (this.skip('"U":')) {
      if (!this.integer()) return 0
      frame.first = this.value
      return FIRST
    }
    if (this.skip('"u":')) {
      if (!this.integer()) return 0
      frame.last = this.value
      return LAST
    }
    if (this.skip('"b":')) return this.levels(frame.bidRows) ? BIDS : 0
    if (this.skip('"a":')) return this.levels(frame.askRows) ? ASKS : 0
    if (this.skip('"pu":')) {
      if (!this.integer()) return 0
      frame.link = this.value
      return LINK
    }
    if (this.skip('"T":')) {
      if (!this.integer()) return 0
      this.transactionTime = this.value
      return TRANSACTION_TIME
    }
    if (this.skip('"st":')) return this.integer() ? OTHER : 0
    // The pair of a futures contract.
    return this.skip('"ps":"') && this.symbols.has(this.word()) && this.skip('"') ? OTHER : 0
  }

  private symbol(): number {
    const { recent, text, at } = this
    if (recent === '' || !text.startsWith(recent, at) || text.charCodeAt(at + recent.length) !== QUOTE) {
      const word = this.word()
      if (!this.symbols.has(word)) return 0
      this.recent = word
    } else this.at += recent.length
    this.frame.symbol = this.recent
    return this.skip('"') ? SYMBOL : 0
  }

  private integer(): boolean {
    const { text } = this
    const start = this.at
    let at = start
    let value = 0
    for (let code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(++at))
      value = value * 10 + code - 48
    if (at === start || (at - start > 1 && text.charCodeAt(start) === 48) || !Number.isSafeInteger(value)) return false
    this.at = at
    this.value = value
    return true
  }

  /** `[["price","size"],…]`. */
  private levels(side: SideRows): boolean {
    const { text } = this
    const start = this.at
    side.clear(text, start)
    let at = start + 1
    if (text.charCodeAt(start) !== OPEN) return false
    if (text.charCodeAt(at) === CLOSE) {
      side.to = this.at = at + 1
      return true
    }
    for (;;) {
      if (text.charCodeAt(at) !== OPEN || text.charCodeAt(at + 1) !== QUOTE) return false
      const price = at + 2
      const priceEnd = scanDecimal(text, price)
      if (priceEnd < 0 || text.charCodeAt(priceEnd) !== QUOTE) return false
      if (text.charCodeAt(priceEnd + 1) !== COMMA || text.charCodeAt(priceEnd + 2) !== QUOTE) return false
      const size = priceEnd + 3
      const sizeEnd = this.size(size)
      if (sizeEnd < 0 || text.charCodeAt(sizeEnd) !== QUOTE || text.charCodeAt(sizeEnd + 1) !== CLOSE) return false
      side.add(price, priceEnd, scanned, size, sizeEnd, this.digits === 0)
      at = sizeEnd + 3
      const after = text.charCodeAt(at - 1)
      if (after === COMMA) continue
      side.to = this.at = at
      return after === CLOSE
    }
  }

  /** Where the size at a place ends, -1 when there is none; `digits` is 0 when it is zero. */
  private size(start: number): number {
    const { text } = this
    let at = start
    let digits = 0
    let code = text.charCodeAt(at)
    for (; code >= 48 && code <= 57; code = text.charCodeAt(++at)) digits |= code - 48
    if (at === start || at - start > WHOLE_DIGITS_MAX) return -1
    if (code === POINT) {
      const point = ++at
      for (code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(++at)) digits |= code - 48
      if (at === point || at - point > FRACTION_DIGITS_MAX) return -1
    }
    this.digits = digits
    return at
  }
}

/** Milliseconds, or the ISO text of microseconds. */
function timeOf(value: number): ExchangeTime {
  return value < MICROS_MIN ? value : isoOfMicros(String(value))
}

function integerOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined
}

function anyTimeOf(transaction: unknown, event: unknown): ExchangeTime {
  const value = integerOf(transaction) ?? integerOf(event)
  return value === undefined ? null : timeOf(value)
}

/** Fills a frame from a parsed event; false when fields are missing or of another type. */
export function fillDepth(frame: DepthFrame, data: Record<string, unknown>): boolean {
  const first = integerOf(data.U)
  const last = integerOf(data.u)
  const link = data.pu === undefined ? null : integerOf(data.pu)
  if (data.e !== 'depthUpdate' || typeof data.s !== 'string') return false
  if (first === undefined || last === undefined || link === undefined || first > last || first < 0) return false
  if (!fillSide(frame.bidRows, data.b) || !fillSide(frame.askRows, data.a)) return false
  frame.symbol = data.s
  frame.first = first
  frame.last = last
  frame.link = link
  frame.exchangeTime = anyTimeOf(data.T, data.E)
  return true
}

/** Whether a parsed level is `[price, size, …]` of decimals that the book can hold. */
function isLevel(level: unknown): level is [price: string, size: string] {
  if (!Array.isArray(level)) return false
  const [price, size] = level as unknown[]
  if (typeof price !== 'string' || typeof size !== 'string') return false
  return !Number.isNaN(priceKey(price)) && isDecimal(price) && isDecimal(size)
}

function fillSide(side: SideRows, list: unknown): boolean {
  if (!Array.isArray(list) || !list.every(isLevel)) return false
  side.clear('', 0)
  let text = '['
  for (const [price, size] of list) {
    text += text.length > 1 ? ',["' : '["'
    const start = text.length
    const sizeStart = start + price.length + 3
    side.add(start, start + price.length, priceKey(price), sizeStart, sizeStart + size.length, isZero(size))
    text += `${price}","${size}"]`
  }
  side.text = `${text}]`
  side.to = side.text.length
  return true
}

/** A part of a frame that does not keep the frame alive. */
function cut(text: string, from: number, to: number): string {
  if (to - from <= SLICE_CHARS_MAX) return text.slice(from, to)
  return text.slice(from, from + SLICE_CHARS_MAX) + cut(text, from + SLICE_CHARS_MAX, to)
}

/** Puts the levels of an event into a book. */
export function putDepth(levels: LevelBook, frame: DepthFrame): void {
  putSide(levels, false, frame.bidRows)
  putSide(levels, true, frame.askRows)
}

/** Quantities are absolute; zero removes, whether the level is known or not. */
function putSide(levels: LevelBook, isAsk: boolean, side: SideRows): void {
  const { text, count, places, keys, zeros } = side
  for (let n = 0; n < count; n++) {
    const key = keys[n]!
    if (zeros[n] === 1) {
      levels.remove(isAsk, key)
      continue
    }
    const at = n * PLACES
    const price = cut(text, places[at]!, places[at + 1]!)
    levels.set(isAsk, key, price, cut(text, places[at + 2]!, places[at + 3]!), null)
  }
}

/** A book over REST. */
export interface DepthImage {
  readonly id: number
  readonly bids: readonly [price: string, size: string][]
  readonly asks: readonly [price: string, size: string][]
}

/** The book in an answer, `{"lastUpdateId":…,"bids":[["4.00000000","431.00000000"]],"asks":[…]}`; undefined when it is none. */
export function readImage(value: unknown): DepthImage | undefined {
  const { lastUpdateId, bids, asks } = asObject(value) ?? {}
  const id = integerOf(lastUpdateId)
  if (id === undefined || id < 0 || !Array.isArray(bids) || !Array.isArray(asks)) return undefined
  return bids.every(isLevel) && asks.every(isLevel) ? { id, bids, asks } : undefined
}

/** Puts an image into an empty book. */
export function putImage(levels: LevelBook, { bids, asks }: DepthImage): void {
  for (const [isAsk, rows] of [[false, bids] as const, [true, asks] as const]) {
    // From the worst to the best: then nothing has to be moved.
    for (const [price, size] of rows.toReversed()) {
      if (!isZero(size)) levels.set(isAsk, priceKey(price), price, size, null)
    }
  }
}

/** An id of the trade stream: with its trade, or without one where the id is no trade of the market. */
export interface Print {
  readonly id: number
  readonly trade: Trade | null
}

/** A `trade` event; undefined when fields are missing or of another type. Only what the market traded is a trade. */
export function readTrade(data: Record<string, unknown>): Print | undefined {
  const { t, p, q, m, X } = data
  return printOf(t, p, q, m, anyTimeOf(data.T, data.E), X === undefined || X === 'MARKET', '{}')
}

/** The trades of a history, ascending; undefined when it is none. */
export function readHistory(value: unknown): Trade[] | undefined {
  if (!Array.isArray(value)) return undefined
  const trades: Trade[] = []
  for (const entry of value) {
    const { id, price, qty, isBuyerMaker, time } = asObject(entry) ?? {}
    const print = printOf(id, price, qty, isBuyerMaker, anyTimeOf(time, null), true, '{"backfill":true}')
    if (print === undefined) return undefined
    if (print.trade) trades.push(print.trade)
  }
  return trades.sort((a, b) => Number(a.id) - Number(b.id))
}

function printOf(
  id: unknown,
  price: unknown,
  size: unknown,
  isSell: unknown,
  exchangeTime: ExchangeTime,
  isOfMarket: boolean,
  metadata: string
): Print | undefined {
  const number = integerOf(id)
  if (number === undefined || number < 0) return undefined
  if (!isOfMarket) return { id: number, trade: null }
  if (typeof price !== 'string' || typeof size !== 'string' || typeof isSell !== 'boolean') return undefined
  if (!isDecimal(price) || !isDecimal(size)) return undefined
  if (isZero(price) || isZero(size)) return { id: number, trade: null }
  return { id: number, trade: { id: String(number), isSell, price, size, exchangeTime, metadata } }
}
