import type { LevelBook } from '../book/levels.ts'
import type { Order, OrderBook } from '../book/orders.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import { asObject } from '../core/json.ts'
import { isoText } from '../core/time.ts'
import type { Keeper } from './exchange.ts'

/** What an entry of `level3` does. Entries of a snapshot, and of `book`, do nothing but stand there. */
export const STANDS = 0
export const ADD = 1
export const MODIFY = 2
export const DELETE = 3

const EVENTS: ReadonlyMap<unknown, number> = new Map([
  ['add', ADD],
  ['modify', MODIFY],
  ['delete', DELETE]
])
const CHECKSUM_LEVELS = 10
const CHECKSUM_MAX = 0xffff_ffff
/** Digits before and after the point that a size may have. */
const WHOLE_DIGITS_MAX = 13
const BACK_DIGITS_MAX = 18
const ID_CHARS_MAX = 64
const NANOSECONDS = 9

/** The entries of one side of a frame, in the order of the frame. The lists are reused; `length` says how far they hold. */
export class KrakenRows {
  length = 0
  readonly keys: number[] = []
  readonly prices: string[] = []
  readonly sizes: string[] = []
  readonly zeros: boolean[] = []
  /** `level3`: what happened, to which order, and when (ISO text; null where it is not told). */
  readonly events: number[] = []
  readonly ids: string[] = []
  readonly times: (string | null)[] = []
}

/** One instrument's part of a frame of `book` or `level3`. */
export class KrakenBookFrame {
  symbol = ''
  isImage = false
  readonly bids = new KrakenRows()
  readonly asks = new KrakenRows()
  /** Null: not provided. */
  checksum: number | null = null
  time: string | null = null
}

const QUOTE = 34
const COMMA = 44
const POINT = 46
const ZERO = 48
const NINE = 57
const CLOSE = 93
const END = 125
const SYMBOL = 1
const BIDS = 2
const ASKS = 4
const CHECKSUM = 8
const TIME = 16

/** Reads the usual form of book frames of one instrument without building values. Anything else makes `read` false. */
export class KrakenBookReader {
  readonly frame = new KrakenBookFrame()
  private text = ''
  private at = 0
  private isZeroSize = false
  private readonly known: ReadonlyMap<string, number>
  private readonly isOrders: boolean
  private readonly head: string

  /** `known`: the symbols of the connection. `channel`: `book` or `level3`. */
  constructor(known: ReadonlyMap<string, number>, channel: string) {
    this.known = known
    this.isOrders = channel === 'level3'
    this.head = `{"channel":"${channel}","type":"`
  }

  /** Whether the text is such a frame; it is in `frame` then. */
  read(text: string): boolean {
    if (!text.startsWith(this.head)) return false
    const { frame } = this
    this.text = text
    this.at = this.head.length
    if (this.skip('update"')) frame.isImage = false
    else if (this.skip('snapshot"')) frame.isImage = true
    else return false
    if (!this.skip(',"data":[{')) return false
    frame.checksum = frame.time = null
    let seen = 0
    for (;;) {
      const key = this.member()
      if (key === 0 || seen & key) return false
      seen |= key
      if (text.charCodeAt(this.at) === COMMA) this.at++
      else break
    }
    return (seen & 7) === 7 && this.skip('}]}') && this.at === text.length
  }

  private skip(expected: string): boolean {
    if (!this.text.startsWith(expected, this.at)) return false
    this.at += expected.length
    return true
  }

  /** One member of the data object; a bit for its key, 0 when it is unknown or of another form. */
  private member(): number {
    const { frame } = this
    if (this.skip('"bids":[')) return this.rows(frame.bids) ? BIDS : 0
    if (this.skip('"asks":[')) return this.rows(frame.asks) ? ASKS : 0
    if (this.skip('"checksum":')) return this.checksum() ? CHECKSUM : 0
    if (this.skip('"symbol":"')) {
      const end = this.text.indexOf('"', this.at)
      if (end < 0 || end - this.at > ID_CHARS_MAX) return 0
      frame.symbol = this.text.slice(this.at, end)
      this.at = end + 1
      return this.known.has(frame.symbol) ? SYMBOL : 0
    }
    if (this.skip('"timestamp":"')) {
      const time = this.time()
      frame.time = time ?? null
      return time === undefined ? 0 : TIME
    }
    return 0
  }

  private rows(rows: KrakenRows): boolean {
    const { text } = this
    rows.length = 0
    if (text.charCodeAt(this.at) === CLOSE) {
      this.at++
      return true
    }
    for (;;) {
      if (!(this.isOrders ? this.order(rows) : this.level(rows))) return false
      const after = text.charCodeAt(this.at++)
      if (after === COMMA) continue
      return after === CLOSE
    }
  }

  /** `{"price":105944.20,"qty":0.250}`. */
  private level(rows: KrakenRows): boolean {
    if (!this.skip('{"price":') || !this.price(rows) || !this.skip(',"qty":') || !this.size(rows)) return false
    if (this.text.charCodeAt(this.at) !== END) return false
    this.at++
    rows.length++
    return true
  }

  /** `{"event":"add","order_id":"O6ZQNQ-BXL4E-5WGINO","limit_price":44939.4,"order_qty":0.25,"timestamp":"…"}`. */
  private order(rows: KrakenRows): boolean {
    const { text } = this
    const { isImage } = this.frame
    if (!this.skip('{')) return false
    const event = isImage ? STANDS : this.event()
    if (event < 0 || !this.skip('"order_id":"')) return false
    const end = idEnd(text, this.at)
    if (end < 0) return false
    rows.events[rows.length] = event
    rows.ids[rows.length] = text.slice(this.at, end)
    this.at = end
    if (!this.skip('","limit_price":') || !this.price(rows)) return false
    if (this.skip(',"order_qty":')) {
      if (!this.size(rows)) return false
    } else if (event === DELETE) rows.sizes[rows.length] = '0'
    else return false
    if (!this.skip(',"timestamp":"')) return false
    const time = this.time()
    if (time === undefined) return false
    rows.times[rows.length] = time
    if (text.charCodeAt(this.at) !== END) return false
    this.at++
    rows.length++
    return true
  }

  private event(): number {
    if (this.skip('"event":"add",')) return ADD
    if (this.skip('"event":"modify",')) return MODIFY
    return this.skip('"event":"delete",') ? DELETE : -1
  }

  private price(rows: KrakenRows): boolean {
    const end = scanDecimal(this.text, this.at)
    if (end < 0) return false
    rows.keys[rows.length] = scanned
    rows.prices[rows.length] = this.text.slice(this.at, end)
    this.at = end
    return true
  }

  private size(rows: KrakenRows): boolean {
    const end = this.sizeEnd()
    if (end < 0) return false
    rows.sizes[rows.length] = this.text.slice(this.at, end)
    rows.zeros[rows.length] = this.isZeroSize
    this.at = end
    return true
  }

  /** Where a size ends, which may have more digits than a price; -1 when there is none. */
  private sizeEnd(): number {
    const { text } = this
    const first = this.at
    let at = first
    let digits = 0
    let code = text.charCodeAt(at)
    for (; code >= ZERO && code <= NINE; code = text.charCodeAt(++at)) digits |= code - ZERO
    const front = at - first
    if (front === 0 || front > WHOLE_DIGITS_MAX || (front > 1 && text.charCodeAt(first) === ZERO)) return -1
    if (code === POINT) {
      const point = ++at
      code = text.charCodeAt(at)
      for (; code >= ZERO && code <= NINE; code = text.charCodeAt(++at)) digits |= code - ZERO
      if (at === point || at - point > BACK_DIGITS_MAX) return -1
    }
    this.isZeroSize = digits === 0
    return at
  }

  private checksum(): boolean {
    const { text } = this
    const first = this.at
    let value = 0
    let code = text.charCodeAt(this.at)
    for (; code >= ZERO && code <= NINE; code = text.charCodeAt(++this.at)) value = value * 10 + code - ZERO
    this.frame.checksum = value
    return this.at > first && value <= CHECKSUM_MAX && (text.charCodeAt(first) !== ZERO || this.at === first + 1)
  }

  /** `2023-10-06T17:35:55.440295Z"`: digits but for the signs between them. Undefined: of another form. */
  private time(): string | undefined {
    const { text, at } = this
    if (text.charCodeAt(at + 4) !== 45 || text.charCodeAt(at + 7) !== 45 || text.charCodeAt(at + 10) !== 84) {
      return undefined
    }
    if (text.charCodeAt(at + 13) !== 58 || text.charCodeAt(at + 16) !== 58) return undefined
    let end = at + 19
    if (text.charCodeAt(end) === POINT) {
      const point = ++end
      while (isDigit(text.charCodeAt(end))) end++
      if (end === point || end - point > NANOSECONDS) return undefined
    }
    if (text.charCodeAt(end) !== 90 || text.charCodeAt(end + 1) !== QUOTE) return undefined
    for (const place of TIME_DIGITS) if (!isDigit(text.charCodeAt(at + place))) return undefined
    this.at = end + 2
    return text.slice(at, end + 1)
  }
}

const TIME_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE
}

/** Where an order id that begins at a place ends; -1 when there is none. */
function idEnd(text: string, start: number): number {
  let at = start
  for (let code = text.charCodeAt(at); code !== QUOTE; code = text.charCodeAt(++at)) {
    const isWord =
      isDigit(code) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) || code === 45 || code === 95
    if (!isWord || at - start >= ID_CHARS_MAX) return -1
  }
  return at > start ? at : -1
}

// Written so that a string of megabytes takes no step of the stack for each character.
const NUMBER_OR_STRING = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g

/** The value of a JSON text with every number as its text. The text must be JSON. */
export function parseNumbersAsText(text: string): unknown {
  return JSON.parse(text.replace(NUMBER_OR_STRING, found => (found.startsWith('"') ? found : `"${found}"`)))
}

/**
 * Reads one instrument's part of a book frame of any form: other white space, other order of keys, other fields, numbers
 * with exponents. `data` has its numbers as text. Undefined when a field is missing or of another type.
 */
export function readBookData(channel: string, isImage: boolean, data: unknown): KrakenBookFrame | undefined {
  const object = asObject(data)
  if (object === undefined || typeof object.symbol !== 'string') return undefined
  const frame = new KrakenBookFrame()
  frame.symbol = object.symbol
  frame.isImage = isImage
  frame.time = isoText(object.timestamp)
  const isOrders = channel === 'level3'
  if (!fillRows(frame.bids, object.bids, isOrders, isImage)) return undefined
  if (!fillRows(frame.asks, object.asks, isOrders, isImage)) return undefined
  const { checksum } = object
  if (checksum === undefined || checksum === null) return frame
  if (typeof checksum !== 'string' || !/^(?:0|[1-9]\d{0,9})$/.test(checksum)) return undefined
  frame.checksum = Number(checksum)
  return frame.checksum <= CHECKSUM_MAX ? frame : undefined
}

function fillRows(rows: KrakenRows, list: unknown, isOrders: boolean, isImage: boolean): boolean {
  if (!Array.isArray(list)) return false
  for (const entry of list) {
    const object = asObject(entry)
    if (object === undefined || !(isOrders ? fillOrder(rows, object, isImage) : fillLevel(rows, object))) return false
    rows.length++
  }
  return true
}

function fillLevel(rows: KrakenRows, { price, qty }: Record<string, unknown>): boolean {
  return fillPrice(rows, price) && fillSize(rows, qty)
}

function fillOrder(rows: KrakenRows, object: Record<string, unknown>, isImage: boolean): boolean {
  const { event, order_id: id, limit_price: price, order_qty: size, timestamp } = object
  const kind = isImage ? STANDS : EVENTS.get(event)
  if (kind === undefined || typeof id !== 'string' || !/^[\w-]{1,64}$/.test(id)) return false
  rows.events[rows.length] = kind
  rows.ids[rows.length] = id
  rows.times[rows.length] = isoText(timestamp)
  // Of an order that goes only the id counts.
  return kind === DELETE || (fillPrice(rows, price) && fillSize(rows, size))
}

function fillPrice(rows: KrakenRows, price: unknown): boolean {
  if (typeof price !== 'string' || !isDecimal(price)) return false
  const key = priceKey(price)
  rows.keys[rows.length] = key
  rows.prices[rows.length] = price
  return !Number.isNaN(key)
}

function fillSize(rows: KrakenRows, size: unknown): boolean {
  if (typeof size !== 'string' || !isDecimal(size)) return false
  rows.sizes[rows.length] = size
  rows.zeros[rows.length] = isZero(size)
  return true
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1
  return crc
})

/** Takes the digits of a number into a CRC-32: without its point and without leading zeros, trailing ones as sent. */
function addDigits(before: number, text: string): number {
  let crc = before
  let isLeading = true
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === POINT || (isLeading && code === ZERO)) continue
    if (code < ZERO || code > NINE) return addDigits(before, withoutExponent(text))
    isLeading = false
    crc = (crc >>> 8) ^ TABLE[(crc ^ code) & 255]!
  }
  return crc
}

/** The digits of `1e-05`, which the exchange writes where a number is small; where the point stands does not matter. */
function withoutExponent(text: string): string {
  const [mantissa = '', exponent = '0'] = text.split(/[eE]/)
  const [front = '', back = ''] = mantissa.split('.')
  return (front + back).replace(/\D/g, '') + '0'.repeat(Math.min(100, Math.max(0, Number(exponent) - back.length)))
}

/** Step 6 for `book`: price and size of the 10 best asks, then of the 10 best bids. Unsigned. */
export function krakenLevelsChecksum(levels: LevelBook): number {
  let crc = -1
  for (const isAsk of [true, false]) {
    for (let n = 0; n < CHECKSUM_LEVELS; n++) {
      const level = levels.at(isAsk, n)
      if (level === undefined) break
      crc = addDigits(addDigits(crc, level.price), level.size)
    }
  }
  return (crc ^ -1) >>> 0
}

/**
 * Step 6 for `level3`: price and size of every order of the 10 best price levels of asks, then of bids, in queue order.
 * Unsigned. `behind`: ids of orders that count as the last ones of their price.
 */
export function krakenOrdersChecksum(orders: OrderBook, behind?: ReadonlySet<string>): number {
  let crc = -1
  for (const isAsk of [true, false]) {
    for (let n = 0; n < CHECKSUM_LEVELS; n++) {
      const level = orders.level(isAsk, n)
      if (level === undefined) break
      crc = addQueue(crc, level.price, level.first, behind)
    }
  }
  return (crc ^ -1) >>> 0
}

function addQueue(before: number, price: string, first: Order | null, behind: ReadonlySet<string> | undefined): number {
  let crc = before
  let hasMoved = false
  for (let order = first; order !== null; order = order.after) {
    if (behind?.has(order.id)) hasMoved = true
    else crc = addDigits(addDigits(crc, price), order.size)
  }
  if (!hasMoved || behind === undefined) return crc
  for (const id of behind) {
    for (let order = first; order !== null; order = order.after) {
      if (order.id === id) crc = addDigits(addDigits(crc, price), order.size)
    }
  }
  return crc
}

/** The checksum of a book at its level. */
export function krakenChecksum({
  instrument,
  orders,
  levels
}: Pick<Keeper, 'instrument' | 'orders' | 'levels'>): number {
  return instrument.level === 'l3' ? krakenOrdersChecksum(orders) : krakenLevelsChecksum(levels)
}
