import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import { asObject, detached } from '../core/json.ts'

/** Places in `BitstampReader.values`: members of the frame itself, then of its `data`. */
export const EVENT = 0
export const CHANNEL = 1
export const EVENT_ID = 2
export const PRE_EVENT_ID = 3
export const ID = 4
export const ID_STR = 5
export const TYPE = 6
export const MICROS = 7
export const AMOUNT = 8
export const AMOUNT_STR = 9
export const PRICE = 10
export const PRICE_STR = 11
export const BUY_ID = 12
export const SELL_ID = 13
export const CODE = 14
export const MESSAGE = 15
const VALUES = 16
/** Members that are no single text, and those that nobody asks for. */
const DATA = -1
const BIDS = -2
const ASKS = -3
const UNKNOWN = -4

const DEPTH_MAX = 100
const QUOTE = 34
const COMMA = 44
const COLON = 58
const OPEN_LIST = 91
const BACKSLASH = 92
const CLOSE_LIST = 93
const OPEN = 123
const CLOSE = 125
const ESCAPES = '"\\/bfnrt'
const HEX = /^[0-9a-fA-F]{4}$/

/** Larger prices are no prices but the way in which an order to buy at any price is shown. */
const PRICE_MAX = 1_000_000_000
/** A price that is too large to be held, written out. */
const HUGE_PRICE = /^\d{10,64}(?:\.\d{1,64})?$/

/**
 * The levels of one side: prices and sizes as places in `text` (begin and end of each), the key of the price, whether the
 * size is zero. `json` is the side as records show it.
 */
export class SideRows {
  text = ''
  readonly places: number[] = []
  readonly keys: number[] = []
  readonly zeros: boolean[] = []
  json = '[]'

  /** Starts anew. */
  clear(text: string): void {
    this.text = text
    this.places.length = this.keys.length = this.zeros.length = 0
    this.json = '[]'
  }

  /** Takes a parsed list of `[price, size, …]`, all texts. False when it is no such list, and the side is then of no use. */
  fill(list: unknown): boolean {
    this.clear('')
    if (!Array.isArray(list)) return false
    const levels: string[] = []
    for (const row of list) {
      if (!Array.isArray(row) || row.length < 2) return false
      const [price, size] = row
      if (typeof price !== 'string' || typeof size !== 'string') return false
      const key = priceKey(price)
      if (Number.isNaN(key) || !isDecimal(price) || !isDecimal(size)) return false
      // Nobody trades at a price of zero: such rows are a fault of the exchange.
      if (key === 0) continue
      for (const part of [price, size]) {
        this.places.push(this.text.length, this.text.length + part.length)
        this.text += part
      }
      this.keys.push(key)
      this.zeros.push(isZero(size))
      levels.push(`["${price}","${size}","0",null]`)
    }
    this.json = `[${levels.join(',')}]`
    return true
  }
}

/** Puts the levels of a side into a book; those of size zero are taken out. */
export function putSide(levels: LevelBook, isAsk: boolean, side: SideRows): void {
  const { text, places, keys, zeros } = side
  for (let n = 0; n < keys.length; n++) {
    const key = keys[n]!
    if (zeros[n]) {
      levels.remove(isAsk, key)
      continue
    }
    const at = n * 4
    const price = detached(text.slice(places[at]!, places[at + 1]!))
    levels.set(isAsk, key, price, detached(text.slice(places[at + 2]!, places[at + 3]!)), null)
  }
}

function topField(text: string, at: number, length: number): number {
  switch (length) {
    case 4:
      return text.startsWith('data', at) ? DATA : UNKNOWN
    case 5:
      return text.startsWith('event', at) ? EVENT : UNKNOWN
    case 7:
      return text.startsWith('channel', at) ? CHANNEL : UNKNOWN
    case 8:
      return text.startsWith('event_id', at) ? EVENT_ID : UNKNOWN
    case 12:
      return text.startsWith('pre_event_id', at) ? PRE_EVENT_ID : UNKNOWN
    default:
      return UNKNOWN
  }
}

function dataField(text: string, at: number, length: number): number {
  switch (length) {
    case 2:
      return text.startsWith('id', at) ? ID : UNKNOWN
    case 4:
      if (text.startsWith('bids', at)) return BIDS
      if (text.startsWith('asks', at)) return ASKS
      if (text.startsWith('type', at)) return TYPE
      return text.startsWith('code', at) ? CODE : UNKNOWN
    case 5:
      return text.startsWith('price', at) ? PRICE : UNKNOWN
    case 6:
      return text.startsWith('id_str', at) ? ID_STR : text.startsWith('amount', at) ? AMOUNT : UNKNOWN
    case 7:
      return text.startsWith('message', at) ? MESSAGE : UNKNOWN
    case 9:
      return text.startsWith('price_str', at) ? PRICE_STR : UNKNOWN
    case 10:
      return text.startsWith('amount_str', at) ? AMOUNT_STR : text.startsWith('order_type', at) ? TYPE : UNKNOWN
    case 12:
      return text.startsWith('buy_order_id', at) ? BUY_ID : UNKNOWN
    case 13:
      return text.startsWith('sell_order_id', at) ? SELL_ID : UNKNOWN
    case 14:
      return text.startsWith('microtimestamp', at) ? MICROS : UNKNOWN
    default:
      return UNKNOWN
  }
}

/**
 * Reads frames in any white space and order of members, without building values: numbers stay the text they were sent as,
 * so that ids beyond 2^53 and trailing zeros survive. Makes no difference between a text and a number of the same digits.
 */
export class BitstampReader {
  /** Texts of the members, by place; null where a member is absent or neither text nor number. */
  readonly values: (string | null)[] = Array.from({ length: VALUES }, () => null)
  readonly bids = new SideRows()
  readonly asks = new SideRows()
  /** Whether `data` has both sides of a book, each readable. */
  hasBook = false
  /** Whether the text is of one line, so that it may stand in a line as it is. */
  embeddable = false
  private text = ''
  private at = 0
  /** The string read last, without its quotes. */
  private start = 0
  private end = 0
  private escaped = false
  private hasBids = false
  private hasAsks = false

  /** Takes a frame. True exactly for JSON objects that are not nested deeper than lines may be. */
  read(text: string): boolean {
    this.text = text
    this.at = 0
    this.values.fill(null)
    this.hasBids = this.hasAsks = this.hasBook = false
    this.embeddable = true
    if (this.next() !== OPEN || !this.members(false, 1)) return false
    this.hasBook = this.hasBids && this.hasAsks
    return Number.isNaN(this.next())
  }

  /** The next code that is not white space, without going past it. NaN at the end. */
  private next(): number {
    let code = this.text.charCodeAt(this.at)
    while (code === 32 || code === 9 || code === 10 || code === 13) {
      if (code === 10 || code === 13) this.embeddable = false
      code = this.text.charCodeAt(++this.at)
    }
    return code
  }

  /** The members of an object, from its brace on. */
  private members(inData: boolean, depth: number): boolean {
    this.at++
    if (this.next() === CLOSE) {
      this.at++
      return true
    }
    for (;;) {
      if (this.next() !== QUOTE || !this.string()) return false
      const field = (inData ? dataField : topField)(this.text, this.start, this.end - this.start)
      if (this.next() !== COLON) return false
      this.at++
      if (!this.member(field, depth)) return false
      const after = this.next()
      this.at++
      if (after === CLOSE) return true
      if (after !== COMMA) return false
    }
  }

  private member(field: number, depth: number): boolean {
    const code = this.next()
    if (field === UNKNOWN) return this.skip(code, depth)
    if (field === DATA) return code === OPEN ? this.members(true, depth + 1) : this.skip(code, depth)
    if (field === BIDS) {
      this.hasBids = this.side(this.bids, depth)
      return this.hasBids || this.skip(code, depth)
    }
    if (field === ASKS) {
      this.hasAsks = this.side(this.asks, depth)
      return this.hasAsks || this.skip(code, depth)
    }
    const start = this.at
    if (!this.skip(code, depth)) return false
    // Of two members of one name the last counts, as everywhere in JSON.
    if (code === QUOTE) {
      this.values[field] = this.escaped
        ? (JSON.parse(this.text.slice(start, this.at)) as string)
        : this.text.slice(this.start, this.end)
    } else this.values[field] = code === 45 || (code >= 48 && code <= 57) ? this.text.slice(start, this.at) : null
    return true
  }

  /** The string whose opening quote is next. */
  private string(): boolean {
    const text = this.text
    let at = this.at + 1
    this.start = at
    this.escaped = false
    let code = text.charCodeAt(at)
    while (code !== QUOTE) {
      if (code === BACKSLASH) {
        this.escaped = true
        const sign = text.charAt(++at)
        if (sign === 'u') {
          if (!HEX.test(text.slice(at + 1, at + 5))) return false
          at += 4
        } else if (sign === '' || !ESCAPES.includes(sign)) return false
      } else if (!(code >= 32)) return false
      code = text.charCodeAt(++at)
    }
    this.end = at
    this.at = at + 1
    return true
  }

  /** Goes past a value of any kind, of which the first code is given. */
  private skip(code: number, depth: number): boolean {
    if (code === QUOTE) return this.string()
    if (code === OPEN || code === OPEN_LIST) return this.skipNested(code === OPEN, depth + 1)
    if (code === 116) return this.literal('true')
    if (code === 102) return this.literal('false')
    if (code === 110) return this.literal('null')
    return this.number()
  }

  private literal(word: string): boolean {
    if (!this.text.startsWith(word, this.at)) return false
    this.at += word.length
    return true
  }

  private skipNested(isObject: boolean, depth: number): boolean {
    if (depth > DEPTH_MAX) return false
    const close = isObject ? CLOSE : CLOSE_LIST
    this.at++
    if (this.next() === close) {
      this.at++
      return true
    }
    for (;;) {
      if (isObject) {
        if (this.next() !== QUOTE || !this.string() || this.next() !== COLON) return false
        this.at++
      }
      if (!this.skip(this.next(), depth)) return false
      const after = this.next()
      this.at++
      if (after === close) return true
      if (after !== COMMA) return false
    }
  }

  /** A JSON number. */
  private number(): boolean {
    const text = this.text
    let at = this.at
    let code = text.charCodeAt(at)
    if (code === 45) code = text.charCodeAt(++at)
    const first = at
    while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
    if (at === first || (text.charCodeAt(first) === 48 && at - first > 1)) return false
    if (code === 46) {
      const point = ++at
      code = text.charCodeAt(at)
      while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
      if (at === point) return false
    }
    if (code === 101 || code === 69) {
      code = text.charCodeAt(++at)
      if (code === 43 || code === 45) code = text.charCodeAt(++at)
      const exponent = at
      while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
      if (at === exponent) return false
    }
    this.at = at
    return true
  }

  /** A side of a book; false, and nowhere gone, when it is no such thing. */
  private side(side: SideRows, depth: number): boolean {
    const start = this.at
    if (this.plainSide(side)) return true
    this.at = start
    if (this.skip(this.next(), depth) && side.fill(JSON.parse(this.text.slice(start, this.at)))) return true
    this.at = start
    return false
  }

  /** The usual form, `[["price","size"],…]` without white space and with numbers of at most 15 digits. */
  private plainSide(side: SideRows): boolean {
    const text = this.text
    side.clear(text)
    let at = this.at
    if (text.charCodeAt(at) !== OPEN_LIST) return false
    at++
    if (text.charCodeAt(at) === CLOSE_LIST) {
      this.at = at + 1
      return true
    }
    let json = '['
    for (;;) {
      if (!text.startsWith('["', at)) return false
      const price = at + 2
      const priceEnd = scanDecimal(text, price)
      if (priceEnd < 0 || scanned === 0 || !text.startsWith('","', priceEnd)) return false
      const key = scanned
      const size = priceEnd + 3
      const sizeEnd = scanDecimal(text, size)
      if (sizeEnd < 0 || !text.startsWith('"]', sizeEnd)) return false
      side.keys.push(key)
      side.zeros.push(scanned === 0)
      side.places.push(price, priceEnd, size, sizeEnd)
      json += `${json.length > 1 ? ',' : ''}["${text.slice(price, sizeEnd)}","0",null]`
      const after = text.charCodeAt(sizeEnd + 2)
      at = sizeEnd + 3
      if (after === COMMA) continue
      side.json = `${json}]`
      this.at = at
      return after === CLOSE_LIST
    }
  }
}

/** Microseconds since the epoch of their decimal text; NaN when it is none. */
export function microsOf(text: string | null): number {
  if (text === null || text.length < 13 || text.length > 16) return Number.NaN
  let value = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 48 || code > 57) return Number.NaN
    value = value * 10 + code - 48
  }
  return value
}

/** Whether a text may stand in a line as an id: 1 to 64 of `A-Za-z0-9_-`. */
export function isId(text: string | null): text is string {
  return text !== null && /^[A-Za-z0-9_-]{1,64}$/.test(text)
}

const EVENT_ID_TIME = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-/

/** The milliseconds that an event id begins with, as 16 hexadecimal digits of microseconds; NaN when it is of another form. */
function momentOf(eventId: string): number {
  const match = EVENT_ID_TIME.exec(eventId)
  return match ? Math.floor(Number.parseInt(match[1]! + match[2]! + match[3]!, 16) / 1000) : Number.NaN
}

const ID_DIGITS = '[1-9][0-9]{0,20}'
const WHOLE = '[0-9]{1,20}'
const DECIMAL = '(?:0|[1-9][0-9]{0,12})(?:[.][0-9]{1,18})?'
const NUMBER = `${DECIMAL}(?:e-?[1-9][0-9]?)?`
const NAME = '[A-Za-z0-9_-]{1,64}'
/**
 * A frame of an order in its usual form: all members in the usual order, no white space. Nearly every one is, and a regular
 * expression goes through it in a third of the time that reading it member by member takes.
 */
const USUAL_ORDER = new RegExp(
  `^[{]"data":[{]"id":${ID_DIGITS},"id_str":"(${ID_DIGITS})","order_type":([01]),"order_subtype":[0-9],` +
    `"datetime":"${WHOLE}","microtimestamp":"([0-9]{16})","amount":${NUMBER},"amount_str":"(${DECIMAL})",` +
    `"amount_traded":"${DECIMAL}","amount_at_create":"${DECIMAL}","price":${NUMBER},"price_str":"(${DECIMAL})",` +
    `"is_liquidation":(?:false|true)},"channel":"(${NAME})","event":"order_(created|changed|deleted)",` +
    `"event_id":"(${NAME})","pre_event_id":"(${NAME})","order_source":"[a-z_]+"}$`
)

/** One event of one order. Reused for every frame. */
export class OrderEvent {
  kind: 'created' | 'changed' | 'deleted' = 'created'
  /** The name of the channel; set by `readUsual` alone. */
  channel = ''
  id = ''
  isAsk = false
  price = ''
  size = ''
  isZero = false
  /** `priceKey` of the price; NaN for an order without a price: zero, or absurdly high. */
  key = Number.NaN
  /** Milliseconds since the epoch, of the exchange's clock, and the text of its microseconds. */
  ms = 0
  micros = ''
  /** The links of the chain; both null where the exchange does not tell them. */
  eventId: string | null = null
  preEventId: string | null = null

  /** Reads a frame of the usual form. False for any other; the event is of no use then. */
  readUsual(text: string): boolean {
    const match = USUAL_ORDER.exec(text)
    if (match === null) return false
    const price = match[5]!
    const isAsk = match[2] === '1'
    const key = keyOf(price, isAsk)
    if (key === undefined) return false
    this.id = match[1]!
    this.isAsk = isAsk
    this.micros = match[3]!
    this.ms = Math.floor(Number(this.micros) / 1000)
    this.size = match[4]!
    this.isZero = isZero(this.size)
    this.price = price
    this.key = key
    this.channel = match[6]!
    this.kind = match[7] as OrderEvent['kind']
    this.eventId = match[8]!
    this.preEventId = match[9]!
    return true
  }

  /** Takes what a reader has read; false when something that an order needs is missing or no number. */
  fill(kind: OrderEvent['kind'], values: readonly (string | null)[]): boolean {
    const id = values[ID_STR] ?? values[ID]!
    const price = values[PRICE_STR] ?? values[PRICE]!
    const size = values[AMOUNT_STR] ?? values[AMOUNT]!
    const micros = values[MICROS]!
    const type = values[TYPE]
    const us = microsOf(micros)
    if (!isId(id) || price === null || size === null || Number.isNaN(us) || (type !== '0' && type !== '1')) return false
    const key = keyOf(price, type === '1')
    if (key === undefined || !isDecimal(size)) return false
    const [eventId, preEventId] = [values[EVENT_ID]!, values[PRE_EVENT_ID]!]
    const isChained = eventId !== null && preEventId !== null
    if (isChained && !(isId(eventId) && isId(preEventId))) return false
    this.kind = kind
    this.id = id
    this.isAsk = type === '1'
    this.price = price
    this.size = size
    this.isZero = isZero(size)
    this.key = key
    this.ms = Math.floor(us / 1000)
    this.micros = micros!
    this.eventId = isChained ? eventId : null
    this.preEventId = isChained ? preEventId : null
    return true
  }

  /** Time of the event before, ms, as far as ids begin with the time of their event; else the smallest number. */
  get beforeMs(): number {
    const { eventId, preEventId, ms } = this
    if (eventId === null || preEventId === null || momentOf(eventId) !== ms) return Number.NEGATIVE_INFINITY
    const before = momentOf(preEventId)
    return before <= ms ? before : Number.NEGATIVE_INFINITY
  }
}

/** The key of a price, NaN when it means no price; undefined when it is no number at all. */
function keyOf(price: string, isAsk: boolean): number | undefined {
  const key = priceKey(price)
  if (Number.isNaN(key) || !isDecimal(price)) return HUGE_PRICE.test(price) ? Number.NaN : undefined
  return key === 0 || (!isAsk && key >= PRICE_MAX) ? Number.NaN : key
}

/** An order of an image. */
export interface ImageOrder {
  readonly id: string
  readonly isAsk: boolean
  readonly price: string
  readonly size: string
  readonly key: number
}

/** The answer to a request for a book. */
export interface Image<Sides> {
  /** Microseconds since the epoch, and their text. */
  readonly us: number
  readonly micros: string
  readonly sides: Sides
}

/** The time of a book and its two lists; undefined when it has another form. */
function bookParts(value: unknown): { us: number; micros: string; bids: unknown[]; asks: unknown[] } | undefined {
  const { microtimestamp, bids, asks } = asObject(value) ?? {}
  if (typeof microtimestamp !== 'string' || !Array.isArray(bids) || !Array.isArray(asks)) return undefined
  const us = microsOf(microtimestamp)
  return Number.isNaN(us) ? undefined : { us, micros: microtimestamp, bids, asks }
}

/**
 * The answer of `order_book` with `group=2`: rows `[price, size, id]`, of which those without a price or a size are left
 * out. Undefined when it has another form; rows of two columns are levels, not orders.
 */
export function readOrders(value: unknown): Image<ImageOrder[]> | undefined {
  const parts = bookParts(value)
  if (parts === undefined) return undefined
  const sides: ImageOrder[] = []
  for (const [rows, isAsk] of [[parts.bids, false] as const, [parts.asks, true] as const]) {
    for (const row of rows) {
      if (!Array.isArray(row)) return undefined
      const [price, size, told] = row
      const id = typeof told === 'number' && Number.isSafeInteger(told) ? String(told) : told
      if (typeof price !== 'string' || typeof size !== 'string' || typeof id !== 'string' || !isId(id)) return undefined
      const key = keyOf(price, isAsk)
      if (key === undefined || !isDecimal(size)) return undefined
      if (!Number.isNaN(key) && !isZero(size)) sides.push({ id, isAsk, price, size, key })
    }
  }
  return { us: parts.us, micros: parts.micros, sides }
}

/** The answer of `order_book` with `group=1`: rows `[price, size]`. Undefined when it has another form. */
export function readLevels(value: unknown): Image<[bids: SideRows, asks: SideRows]> | undefined {
  const parts = bookParts(value)
  if (parts === undefined) return undefined
  const sides: [SideRows, SideRows] = [new SideRows(), new SideRows()]
  if (!sides[0].fill(parts.bids) || !sides[1].fill(parts.asks)) return undefined
  return { us: parts.us, micros: parts.micros, sides }
}
