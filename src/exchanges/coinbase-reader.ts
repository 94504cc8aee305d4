import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import { asObject, textOf } from '../core/json.ts'
import { type ExchangeTime, isoOfMicros, isoText } from '../core/time.ts'
import type { L2Frame, Trade } from './exchange.ts'

/** What reading one message gave: not of ours, ours but unreadable, or read into the message. */
export type Reading = 'foreign' | 'broken' | 'read'

/** What an order message says; `other` moves the sequence on and concerns no order. */
export type MessageKind = 'received' | 'open' | 'match' | 'done' | 'change' | 'activate' | 'other'

/** A message of `level3` or `full` after reading: text as sent, null where it tells none. Reused for every frame. */
export class OrderMessage {
  index = -1
  kind: MessageKind = 'other'
  /** Null for private messages, which are not numbered. */
  sequence: number | null = null
  /** The order it concerns: of a match the maker. */
  id = ''
  isAsk: boolean | null = null
  price: string | null = null
  size: string | null = null
  time: ExchangeTime = null
  /** JSON text of an object. */
  metadata = '{}'
}

/** The columns of the compact messages, kind by kind, as the schema frame tells them. */
export type Level3Schema = readonly (readonly [kind: string, columns: readonly string[]])[]

/** What the schema frame says at this time; for messages that come before it. */
const USUAL_SCHEMA: Level3Schema = [
  ['change', ['type', 'product_id', 'sequence', 'order_id', 'price', 'size', 'time']],
  ['done', ['type', 'product_id', 'sequence', 'order_id', 'time']],
  ['match', ['type', 'product_id', 'sequence', 'maker_order_id', 'taker_order_id', 'price', 'size', 'time']],
  ['noop', ['type', 'product_id', 'sequence', 'time']],
  ['open', ['type', 'product_id', 'sequence', 'order_id', 'side', 'price', 'size', 'time']]
]
const KINDS_MAX = 50
const COLUMNS_MAX = 50

/** Channels whose messages bear numbers of the product without being numbered themselves. */
const UNNUMBERED = new Set(['ticker', 'last_match', 'heartbeat', 'auction', 'rfq_match', 'snapshot', 'l2update'])

const QUOTE = 34
const COMMA = 44
const OPEN = 91
const CLOSE = 93
const BACKSLASH = 92

/** Where the parts of one kind of compact message stand; -1: it has none. */
interface Columns {
  readonly product: number
  readonly sequence: number
  readonly id: number
  readonly taker: number
  readonly side: number
  readonly price: number
  readonly size: number
  readonly time: number
}

/** An id that may stand in a line as it is. */
function isId(value: unknown): value is string {
  if (typeof value !== 'string' || value.length === 0 || value.length > 64) return false
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at)
    const fine = (code >= 48 && code <= 57) || ((code | 32) >= 97 && (code | 32) <= 122) || code === 45 || code === 95
    if (!fine) return false
  }
  return true
}

function isPrice(value: unknown): value is string {
  return typeof value === 'string' && !Number.isNaN(priceKey(value)) && isDecimal(value)
}

function isSize(value: unknown): value is string {
  return typeof value === 'string' && isDecimal(value)
}

/** A whole number of at most 53 bits; numbers and the digits of them alike. Undefined when it is none. */
export function wholeNumber(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,16}$/.test(value) ? Number(value) : value
  return typeof number === 'number' && Number.isSafeInteger(number) && number >= 0 ? number : undefined
}

/** The members of an object that are text, numbers or truth values, as JSON text. */
function factsOf(object: Record<string, unknown>, names: readonly string[]): string {
  const facts: Record<string, unknown> = {}
  for (const name of names) {
    const value = object[name]
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') facts[name] = value
  }
  return JSON.stringify(facts)
}

/** The columns of a schema frame as plain data; undefined when it is none. */
export function readSchema(value: unknown): Level3Schema | undefined {
  const object = asObject(value)
  if (object === undefined) return undefined
  const kinds = Object.entries(object)
  if (kinds.length === 0 || kinds.length > KINDS_MAX) return undefined
  const schema: [string, string[]][] = []
  for (const [kind, columns] of kinds) {
    if (!Array.isArray(columns) || columns.length > COLUMNS_MAX) return undefined
    if (!columns.every(column => typeof column === 'string' && column.length <= 64)) return undefined
    schema.push([kind, columns as string[]])
  }
  return schema
}

/** Reads the compact messages of `level3` by the columns of the schema. */
export class CompactReader {
  readonly message = new OrderMessage()
  private readonly cells: string[] = []
  private readonly columns = new Map<string, Columns>()
  private readonly known: ReadonlyMap<string, number>
  private schema_: Level3Schema = USUAL_SCHEMA

  /** `known` has the indexes of the products. */
  constructor(known: ReadonlyMap<string, number>) {
    this.known = known
    this.schema = USUAL_SCHEMA
  }

  get schema(): Level3Schema {
    return this.schema_
  }

  set schema(schema: Level3Schema) {
    this.schema_ = schema
    this.columns.clear()
    for (const [kind, names] of schema) {
      this.columns.set(kind, {
        product: names.indexOf('product_id'),
        sequence: names.indexOf('sequence'),
        id: names.indexOf(kind === 'match' ? 'maker_order_id' : 'order_id'),
        taker: names.indexOf('taker_order_id'),
        side: names.indexOf('side'),
        price: names.indexOf('price'),
        size: names.indexOf('size'),
        time: names.indexOf('time')
      })
    }
  }

  /** Cuts the usual form, a list of texts without white space, into cells; undefined for any other. */
  cut(text: string): readonly string[] | undefined {
    const { cells } = this
    cells.length = 0
    if (text.charCodeAt(0) !== OPEN) return undefined
    let at = 1
    for (;;) {
      if (text.charCodeAt(at) !== QUOTE) return undefined
      const start = ++at
      let code = text.charCodeAt(at)
      // Escapes and what must not stand in JSON text are for the slow way.
      while (code !== QUOTE && code >= 32 && code !== BACKSLASH) code = text.charCodeAt(++at)
      if (code !== QUOTE) return undefined
      cells.push(text.slice(start, at))
      const after = text.charCodeAt(at + 1)
      at += 2
      if (after === COMMA) continue
      return after === CLOSE && at === text.length ? cells : undefined
    }
  }

  /** Reads the cells of a message. */
  fill(cells: readonly unknown[]): Reading {
    const kind = cells[0]
    const columns = typeof kind === 'string' ? this.columns.get(kind) : undefined
    if (columns === undefined) return 'foreign'
    const { message } = this
    const product = cells[columns.product]
    const index = typeof product === 'string' ? this.known.get(product) : undefined
    if (index === undefined) return this.astray(columns, cells)
    message.index = index
    const sequence = wholeNumber(cells[columns.sequence])
    if (sequence === undefined) return 'broken'
    message.sequence = sequence
    message.time = isoText(cells[columns.time])
    message.metadata = '{}'
    message.isAsk = message.price = message.size = null
    switch (kind) {
      case 'open':
      case 'change':
      case 'match':
      case 'done':
        message.kind = kind
        return this.fillOrder(cells, columns)
      default:
        // `noop`, and whatever else the exchange may number some day.
        message.kind = 'other'
        return 'read'
    }
  }

  /** A schema without a product: the cells may still show whose message it is. */
  private astray(columns: Columns, cells: readonly unknown[]): Reading {
    if (columns.product >= 0) return 'foreign'
    const product = cells.find(cell => typeof cell === 'string' && this.known.has(cell))
    if (product === undefined) return 'foreign'
    this.message.index = this.known.get(product as string)!
    return 'broken'
  }

  private fillOrder(cells: readonly unknown[], columns: Columns): Reading {
    const { message } = this
    const id = cells[columns.id]
    if (!isId(id)) return 'broken'
    message.id = id
    if (message.kind === 'done') return 'read'
    const price = cells[columns.price]
    const size = cells[columns.size]
    if (!isSize(size)) return 'broken'
    message.size = size
    if (message.kind === 'match') {
      const taker = cells[columns.taker]
      if (!isId(taker)) return 'broken'
      message.metadata = `{"taker_order_id":"${taker}"}`
      return 'read'
    }
    if (!isPrice(price)) return 'broken'
    message.price = price
    if (message.kind === 'change') return 'read'
    const side = cells[columns.side]
    message.isAsk = side === 'sell'
    return side === 'buy' || side === 'sell' ? 'read' : 'broken'
  }
}

/** Reads the objects of the `full` channel. */
export class FullReader {
  readonly message = new OrderMessage()
  private readonly known: ReadonlyMap<string, number>

  /** `known` has the indexes of the products. */
  constructor(known: ReadonlyMap<string, number>) {
    this.known = known
  }

  /** Reads a parsed message. */
  fill(object: Record<string, unknown>): Reading {
    const { message } = this
    const { type, product_id } = object
    const index = typeof product_id === 'string' ? this.known.get(product_id) : undefined
    if (index === undefined || typeof type !== 'string' || UNNUMBERED.has(type)) return 'foreign'
    message.index = index
    message.time = isoText(object.time)
    message.metadata = '{}'
    message.isAsk = message.price = message.size = null
    if (type === 'activate') return this.fillActivate(object)
    const sequence = wholeNumber(object.sequence)
    message.sequence = sequence ?? null
    switch (type) {
      case 'received':
      case 'open':
      case 'match':
      case 'done':
      case 'change':
        message.kind = type
        return sequence !== undefined && this.fillOrder(type, object) ? 'read' : 'broken'
      default:
        // The exchange announces that new types will come; those that are numbered count.
        message.kind = 'other'
        return sequence === undefined ? 'foreign' : 'read'
    }
  }

  private fillOrder(type: string, object: Record<string, unknown>): boolean {
    const { message } = this
    const { side } = object
    const id = type === 'match' ? object.maker_order_id : object.order_id
    if (!isId(id) || (side !== 'buy' && side !== 'sell')) return false
    message.id = id
    message.isAsk = side === 'sell'
    switch (type) {
      case 'received':
        message.metadata = factsOf(object, ['order_type', 'funds', 'client_oid'])
        return this.amounts(object.price, object.size, false)
      case 'open':
        return this.amounts(object.price, object.remaining_size, true)
      case 'done':
        message.metadata = factsOf(object, ['reason'])
        return this.amounts(object.price, object.remaining_size, false)
      case 'match': {
        const { taker_order_id: taker, trade_id } = object
        const trade = wholeNumber(trade_id)
        if (!isId(taker) || trade === undefined) return false
        message.metadata = `{"trade_id":"${trade}","taker_order_id":"${taker}"}`
        return this.amounts(object.price, object.size, true)
      }
      default:
        return this.fillChange(object)
    }
  }

  /** Of a market order, or of funds alone, a change tells no size: it is on no book. */
  private fillChange(object: Record<string, unknown>): boolean {
    const { message } = this
    message.metadata = factsOf(object, ['reason', 'old_size', 'old_price', 'old_funds', 'new_funds'])
    if (object.new_size === undefined || object.new_size === null) {
      message.kind = 'other'
      return true
    }
    return isSize(object.new_size) && this.amounts(object.new_price ?? object.price, object.new_size, false)
  }

  /** Takes price and size; false when one is unreadable, or missing where both are `required`. */
  private amounts(price: unknown, size: unknown, required: boolean): boolean {
    const { message } = this
    const [lacksPrice, lacksSize] = [price === undefined || price === null, size === undefined || size === null]
    if (lacksPrice ? required : !isPrice(price)) return false
    if (lacksSize ? required : !isSize(size)) return false
    message.price = lacksPrice ? null : (price as string)
    message.size = lacksSize ? null : (size as string)
    return true
  }

  /** A stop order of the account's own: private, not numbered, its time in seconds. */
  private fillActivate(object: Record<string, unknown>): Reading {
    const { message } = this
    const { order_id, side, size, timestamp } = object
    if (!isId(order_id) || (size !== undefined && size !== null && !isSize(size))) return 'foreign'
    message.kind = 'activate'
    message.sequence = null
    message.id = order_id
    message.isAsk = side === 'sell' ? true : side === 'buy' ? false : null
    message.size = typeof size === 'string' ? size : null
    const seconds = textOf(timestamp)
    if (/^\d{10}\.\d{6}$/.test(seconds)) message.time = isoOfMicros(seconds.replace('.', ''))
    message.metadata = factsOf(object, ['stop_type', 'stop_price', 'funds', 'taker_fee_rate'])
    return 'read'
  }
}

/** A trade of `matches`, of `full` or of REST, and its id as a number. */
export interface ReadTrade {
  readonly id: number
  readonly trade: Trade
}

/**
 * Reads a trade; undefined when fields are missing. What the exchange tells is the side of the maker: the taker's is the
 * other one.
 */
export function readTrade(object: Record<string, unknown> | undefined, isHistory: boolean): ReadTrade | undefined {
  if (object === undefined) return undefined
  const { trade_id, side, price, size, time } = object
  const id = wholeNumber(trade_id)
  if (id === undefined || !isPrice(price) || !isSize(size) || (side !== 'buy' && side !== 'sell')) return undefined
  const metadata = isHistory ? '{"backfill":true}' : factsOf(object, ['maker_order_id', 'taker_order_id', 'sequence'])
  return { id, trade: { id: String(id), isSell: side === 'buy', price, size, exchangeTime: isoText(time), metadata } }
}

/** A book of REST, whole: each row `[price, size, order id]`. */
export interface BookImage {
  readonly sequence: number
  readonly time: ExchangeTime
  readonly bids: readonly (readonly string[])[]
  readonly asks: readonly (readonly string[])[]
}

/** Checks a level 3 book of REST, every row of it; undefined when anything in it is unreadable. */
export function readBookImage(value: unknown): BookImage | undefined {
  const object = asObject(value)
  const sequence = wholeNumber(object?.sequence)
  if (object === undefined || sequence === undefined) return undefined
  const { bids, asks } = object
  const isRow = (row: unknown) => Array.isArray(row) && isPrice(row[0]) && isSize(row[1]) && isId(row[2])
  if (!Array.isArray(bids) || !Array.isArray(asks) || !bids.every(isRow) || !asks.every(isRow)) return undefined
  return { sequence, time: isoText(object.time), bids, asks }
}

/**
 * The places of rows, worst price first, those of one price in their order. Books are built from the worst price on:
 * there, each next price is put at the end of its side, and nothing is moved.
 */
export function worstFirst(rows: readonly (readonly string[])[], isAsk: boolean): number[] {
  const keys = rows.map(row => (isAsk ? -1 : 1) * priceKey(row[0]!))
  return Array.from(keys, (_, at) => at).sort((a, b) => keys[a]! - keys[b]!)
}

/** A snapshot or an update of `level2` after reading: its changes in their order. Reused for every frame. */
export class LevelFrame implements L2Frame {
  index = -1
  isSnapshot = false
  readonly isAsk: boolean[] = []
  readonly keys: number[] = []
  readonly prices: string[] = []
  readonly sizes: string[] = []
  readonly zeros: boolean[] = []
  /** The text of the levels; a snapshot's is made from the book. */
  bids = '[]'
  asks = '[]'
  readonly sequence = null
  readonly previous = null
  readonly checksum = null
  exchangeTime: ExchangeTime = null
}

const UPDATE_HEAD = '{"type":"l2update","product_id":"'
const UPDATE_CHANGES = '","changes":['
const UPDATE_TIME = '],"time":"'
/** What the exchange sends where it has no time. */
const NO_TIME = /^0001-01-01T00:00:00(?:\.0+)?Z$/
const BUY = '["buy","'
const SELL = '["sell","'

/** Reads frames of `level2`: updates of the usual form without building values, all others parsed. */
export class LevelReader {
  readonly frame = new LevelFrame()
  private readonly known: ReadonlyMap<string, number>

  /** `known` has the indexes of the products. */
  constructor(known: ReadonlyMap<string, number>) {
    this.known = known
  }

  /** Reads an update of the usual form; false for anything else. */
  read(text: string): boolean {
    if (!text.startsWith(UPDATE_HEAD)) return false
    const idEnd = text.indexOf('"', UPDATE_HEAD.length)
    const index = this.known.get(text.slice(UPDATE_HEAD.length, idEnd))
    if (index === undefined || !text.startsWith(UPDATE_CHANGES, idEnd)) return false
    this.begin(index, false)
    const end = this.changes(text, idEnd + UPDATE_CHANGES.length)
    if (end < 0 || !text.startsWith(UPDATE_TIME, end)) return false
    const start = end + UPDATE_TIME.length
    const time = text.slice(start, -2)
    if (!text.endsWith('"}') || time.length > 30) return false
    this.frame.exchangeTime = isoText(time)
    if (this.frame.exchangeTime === null && !NO_TIME.test(time)) return false
    this.tell()
    return true
  }

  private begin(index: number, isSnapshot: boolean): void {
    const { frame } = this
    frame.index = index
    frame.isSnapshot = isSnapshot
    frame.isAsk.length = frame.keys.length = frame.prices.length = frame.sizes.length = frame.zeros.length = 0
    frame.bids = frame.asks = '[]'
  }

  /** `["buy","22356.27","0.5"],…`; gives the place after the last of them, or -1. */
  private changes(text: string, start: number): number {
    const { frame } = this
    let at = start
    for (;;) {
      const isAsk = text.startsWith(SELL, at)
      if (!isAsk && !text.startsWith(BUY, at)) return -1
      const price = at + (isAsk ? SELL.length : BUY.length)
      const priceEnd = scanDecimal(text, price)
      const key = scanned
      if (priceEnd < 0 || !text.startsWith('","', priceEnd)) return -1
      const size = priceEnd + 3
      const sizeEnd = scanDecimal(text, size)
      if (sizeEnd < 0 || !text.startsWith('"]', sizeEnd)) return -1
      frame.isAsk.push(isAsk)
      frame.keys.push(key)
      frame.prices.push(text.slice(price, priceEnd))
      frame.sizes.push(text.slice(size, sizeEnd))
      frame.zeros.push(scanned === 0)
      at = sizeEnd + 2
      if (text.charCodeAt(at) !== COMMA) return at
      at++
    }
  }

  /** Reads a parsed `snapshot` or `l2update`. */
  fill(object: Record<string, unknown>): Reading {
    const { product_id, changes, bids, asks } = object
    const index = typeof product_id === 'string' ? this.known.get(product_id) : undefined
    if (index === undefined) return 'foreign'
    const isSnapshot = object.type === 'snapshot'
    this.begin(index, isSnapshot)
    this.frame.exchangeTime = isoText(object.time)
    if (isSnapshot) return this.side(bids, false) && this.side(asks, true) ? 'read' : 'broken'
    if (!Array.isArray(changes)) return 'broken'
    for (const change of changes) {
      if (!Array.isArray(change) || (change[0] !== 'buy' && change[0] !== 'sell')) return 'broken'
      if (!this.level(change[0] === 'sell', change[1], change[2])) return 'broken'
    }
    this.tell()
    return 'read'
  }

  private side(rows: unknown, isAsk: boolean): boolean {
    if (!Array.isArray(rows)) return false
    if (!rows.every(row => Array.isArray(row) && isPrice(row[0]) && isSize(row[1]))) return false
    for (const at of worstFirst(rows as string[][], isAsk)) this.level(isAsk, rows[at][0], rows[at][1])
    return true
  }

  private level(isAsk: boolean, price: unknown, size: unknown): boolean {
    if (!isPrice(price) || !isSize(size)) return false
    const { frame } = this
    frame.isAsk.push(isAsk)
    frame.keys.push(priceKey(price))
    frame.prices.push(price)
    frame.sizes.push(size)
    frame.zeros.push(isZero(size))
    return true
  }

  /** The text of an update's levels, side by side. */
  private tell(): void {
    const { frame } = this
    let bids = ''
    let asks = ''
    for (let at = 0; at < frame.keys.length; at++) {
      const row = `["${frame.prices[at]}","${frame.sizes[at]}","0",null]`
      if (frame.isAsk[at]) asks += asks === '' ? row : `,${row}`
      else bids += bids === '' ? row : `,${row}`
    }
    frame.bids = `[${bids}]`
    frame.asks = `[${asks}]`
  }
}
