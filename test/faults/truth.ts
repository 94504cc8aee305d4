/**
 * The true book: what a client of a simulated exchange has that never misses a frame.
 *
 * Nothing here comes from the program. The books are plain maps that are sorted when somebody asks, the numbers are
 * integers of 10⁻³⁰, and every exchange's rules are written down anew from its description of the wire format.
 */

/** One level of a book: price and size as plain or exponential decimals, and how many orders it has, where told. */
export type TrueLevel = [price: string, size: string, orders: string | null]

/** The book of one instrument as one connection tells it. A new connection needs a new one. */
export interface Truth {
  /**
   * Takes the next frame of the connection: every one, in the order of the wire, answers included, whether or not it
   * reached the client. True when it was data of this book (an image, a change, a repetition of one), false for
   * answers, heartbeats, checksums, trades and other instruments. A frame that comes twice is applied once; a hole in
   * the numbers of the exchange, which a complete log does not have, leaves no book until the next image.
   */
  apply(text: string): boolean
  /**
   * Takes the body of a REST answer, where the image of the book comes that way. Most do not tell their instrument: the
   * caller sees to it that it is one of this (see `isImageUrl`), or gives the URL of the request, and answers to others
   * are of no effect. One that is too old for what came before it is of no effect either, as is one that shows no book.
   */
  image?(text: string, url?: string): void
  /** The best `n` levels of a side, best first; null when there is no book, or no whole one yet. */
  top(isAsk: boolean, n: number): TrueLevel[] | null
}

const DECIMALS = 30
const UNIT = 10n ** BigInt(DECIMALS)

/** A decimal text, exponents allowed, as an integer of 10⁻³⁰. Throws when it is no number or finer than that. */
export function unitsOf(text: string): bigint {
  const match = /^([+-]?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (!match) throw new Error(`not a number: ${text}`)
  const [, sign, whole, fraction = '', exponent = '0'] = match
  const shift = DECIMALS - fraction.length + Number(exponent)
  const digits = BigInt(whole! + fraction)
  const cut = shift < 0 ? 10n ** BigInt(-shift) : 1n
  if (digits % cut !== 0n) throw new Error(`too fine: ${text}`)
  const units = shift < 0 ? digits / cut : digits * 10n ** BigInt(shift)
  return sign === '-' ? -units : units
}

/** An integer of 10⁻³⁰ as a plain decimal without zeros at its end. */
export function plainOf(units: bigint): string {
  const size = units < 0n ? -units : units
  const fraction = String(size % UNIT)
    .padStart(DECIMALS, '0')
    .replace(/0+$/, '')
  return `${units < 0n ? '-' : ''}${size / UNIT}${fraction ? `.${fraction}` : ''}`
}

type Json = string | boolean | null | Json[] | { [key: string]: Json }
type Fields = Record<string, Json | undefined>
/** Where a side of a book begins, in `bids` and `asks` of an image. */
type Rows = readonly (readonly string[])[]

const STRING_OR_NUMBER = /("(?:[^"\\]|\\.)*")|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g
let lastText = ''
let lastValue: Json | undefined

/** Reads JSON with every number as the text it is written as; undefined when it is not JSON. */
function read(text: string): Json | undefined {
  // Each instrument of a connection has a truth that reads the same frame.
  if (text === lastText) return lastValue
  lastText = text
  try {
    lastValue = JSON.parse(text.replace(STRING_OR_NUMBER, (found, string) => string ?? `"${found}"`)) as Json
  } catch {
    lastValue = undefined
  }
  return lastValue
}

function fieldsOf(value: Json | undefined): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}

function listOf(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : []
}

function rowsOf(value: Json | undefined): string[][] {
  return listOf(value) as string[][]
}

function bestFirst(isAsk: boolean): (a: readonly [bigint, ...unknown[]], b: readonly [bigint, ...unknown[]]) => number {
  return ([a], [b]) => (a === b ? 0 : a < b === isAsk ? -1 : 1)
}

interface Book {
  clear(): void
  top(isAsk: boolean, n: number): TrueLevel[]
}

interface Order {
  readonly isAsk: boolean
  readonly price: string
  readonly size: bigint
}

/** All orders of one price: the text of the price, the sum of their sizes. */
interface OrderLevel {
  readonly text: string
  size: bigint
  readonly ids: Set<string>
}

/** A book of orders. */
class OrderBook implements Book {
  private readonly orders = new Map<string, Order>()
  private readonly sides = { bid: new Map<bigint, OrderLevel>(), ask: new Map<bigint, OrderLevel>() }

  clear(): void {
    this.orders.clear()
    this.sides.bid.clear()
    this.sides.ask.clear()
  }

  get(id: string): Order | undefined {
    return this.orders.get(id)
  }

  /** Puts an order, or replaces the one of this id. */
  set(id: string, isAsk: boolean, price: string, size: bigint): void {
    this.remove(id)
    const side = this.side(isAsk)
    const level = side.get(unitsOf(price)) ?? { text: price, size: 0n, ids: new Set() }
    level.size += size
    level.ids.add(id)
    side.set(unitsOf(price), level)
    this.orders.set(id, { isAsk, price, size })
  }

  remove(id: string): void {
    const order = this.orders.get(id)
    if (!order) return
    this.orders.delete(id)
    const side = this.side(order.isAsk)
    const level = side.get(unitsOf(order.price))!
    level.size -= order.size
    level.ids.delete(id)
    if (level.ids.size === 0) side.delete(unitsOf(order.price))
  }

  top(isAsk: boolean, n: number): TrueLevel[] {
    return this.sorted(isAsk)
      .slice(0, n)
      .map(([, { text, size, ids }]) => [text, plainOf(size), String(ids.size)])
  }

  /** The prices of a side, in no order. */
  prices(isAsk: boolean): Iterable<bigint> {
    return this.side(isAsk).keys()
  }

  /** Forgets the orders of all levels of both sides but the best `depth`. */
  cut(depth: number): void {
    for (const isAsk of [false, true]) {
      if (this.side(isAsk).size <= depth) continue
      for (const [, { ids }] of this.sorted(isAsk).slice(depth)) for (const id of [...ids]) this.remove(id)
    }
  }

  private side(isAsk: boolean): Map<bigint, OrderLevel> {
    return isAsk ? this.sides.ask : this.sides.bid
  }

  private sorted(isAsk: boolean): [bigint, OrderLevel][] {
    return [...this.side(isAsk)].sort(bestFirst(isAsk))
  }
}

/** A book of price levels. */
class LevelBook implements Book {
  private readonly sides = { bid: new Map<bigint, TrueLevel>(), ask: new Map<bigint, TrueLevel>() }

  clear(): void {
    this.sides.bid.clear()
    this.sides.ask.clear()
  }

  /** Sets a level; a size of nothing removes it. */
  set(isAsk: boolean, price: string, size: string, orders: string | null): void {
    const side = this.side(isAsk)
    if (unitsOf(size) === 0n) side.delete(unitsOf(price))
    else side.set(unitsOf(price), [price, size, orders])
  }

  /** Sets the levels `[price, size, …]` of both sides. */
  setAll(bids: Json | undefined, asks: Json | undefined): void {
    for (const [price, size] of rowsOf(bids)) this.set(false, price!, size!, null)
    for (const [price, size] of rowsOf(asks)) this.set(true, price!, size!, null)
  }

  top(isAsk: boolean, n: number): TrueLevel[] {
    return this.sorted(isAsk)
      .slice(0, n)
      .map(([, level]) => level)
  }

  /** Forgets all levels of both sides but the best `depth`. */
  cut(depth: number): void {
    for (const isAsk of [false, true]) {
      if (this.side(isAsk).size <= depth) continue
      for (const [price] of this.sorted(isAsk).slice(depth)) this.side(isAsk).delete(price)
    }
  }

  private side(isAsk: boolean): Map<bigint, TrueLevel> {
    return isAsk ? this.sides.ask : this.sides.bid
  }

  private sorted(isAsk: boolean): [bigint, TrueLevel][] {
    return [...this.side(isAsk)].sort(bestFirst(isAsk))
  }
}

/**
 * Bitfinex. Frames `[channel, payload, sequence?, time?]` by the flags of the `conf` answer. The channel is that of the
 * newest `subscribed` of the book; its first rows are the image. One counter goes through all channels.
 */
class BitfinexTruth implements Truth {
  private readonly pair: string
  private hasSequence = false
  private hasTime = false
  private sequence = 0
  private channel: string | null = null
  private isImaged = false
  private readonly orders = new OrderBook()
  private readonly levels = new LevelBook()
  private isRaw = false

  constructor(instId: string) {
    this.pair = instId
  }

  apply(text: string): boolean {
    const frame = read(text)
    if (!Array.isArray(frame)) {
      this.answer(fieldsOf(frame))
      return false
    }
    const [channel, payload] = frame
    const isData = channel === this.channel && Array.isArray(payload)
    const isNext = !this.hasSequence || this.isNext(Number(frame.at(this.hasTime ? -2 : -1)))
    if (!isData || !isNext) return isData
    if (this.isImaged) this.row(payload as string[])
    else {
      for (const row of rowsOf(payload)) this.row(row)
      this.isImaged = true
    }
    return true
  }

  top(isAsk: boolean, n: number): TrueLevel[] | null {
    if (!this.isImaged) return null
    return this.isRaw ? this.orders.top(isAsk, n) : this.levels.top(isAsk, n)
  }

  private answer({ event, flags, channel, chanId, symbol, prec }: Fields): void {
    if (event === 'conf') {
      this.hasTime = (Number(flags) & 32_768) !== 0
      this.hasSequence = (Number(flags) & 65_536) !== 0
    }
    if (event === 'subscribed' && channel === 'book' && symbol === `t${this.pair}`) {
      this.forget()
      this.channel = chanId as string
      this.isRaw = prec === 'R0'
    }
    if (event === 'unsubscribed' && chanId === this.channel) this.forget()
  }

  private forget(): void {
    this.channel = null
    this.isImaged = false
    this.orders.clear()
    this.levels.clear()
  }

  /** False for a frame that came before, and for one that comes after a hole, which ends the book. */
  private isNext(sequence: number): boolean {
    if (sequence <= this.sequence) return false
    const isHole = sequence > this.sequence + 1
    if (isHole) this.forget()
    this.sequence = sequence
    return !isHole
  }

  private row([key, second, third]: readonly string[]): void {
    const isAsk = third!.startsWith('-')
    const size = third!.replace(/^-/, '')
    // R0: order, price, amount, and no price when it is gone. P0: price, count, amount, and no count then.
    const isGone = unitsOf(second!) === 0n
    if (!this.isRaw) this.levels.set(isAsk, key!, isGone ? '0' : size, second!)
    else if (isGone) this.orders.remove(key!)
    else this.orders.set(key!, isAsk, second!, unitsOf(size))
  }
}

/** One change of a book that is numbered: the numbers from `first` to `last`, after `previous` where that is told. */
interface Change {
  readonly previous: bigint | null
  readonly first: bigint
  readonly last: bigint
  apply(): void
}

/** How many changes are remembered for an image that comes after them. */
const CHANGES_MAX = 10_000
/** How far back a repetition may lie: a doubled frame follows the first, a swapped one comes after the next. */
const REPEAT_DISTANCE = 8

/**
 * A book whose changes are numbered and whose image comes besides them, with a number too, earlier or later than they.
 * Changes are remembered, so that an image may come long after them, and again.
 */
abstract class NumberedTruth implements Truth {
  protected abstract readonly book: Book
  private changes: Change[] = []
  /** The number of the image; null while there is none. */
  private imageNumber: bigint | null = null
  /** Whether a change was applied to the image. */
  private isBridged = false
  /** Stands for the image that the subscription began with. */
  private beginning: Change | null = null

  abstract apply(text: string): boolean

  top(isAsk: boolean, n: number): TrueLevel[] | null {
    return this.imageNumber === null ? null : this.book.top(isAsk, n)
  }

  /** Whether a change comes right after the one before. */
  protected abstract follows(before: Change, change: Change): boolean
  /** Whether the first change that an image of this number does not contain can be applied to it. */
  protected abstract bridges(change: Change, imageNumber: bigint): boolean
  /** Whether an image of this number contains the change. */
  protected contains(imageNumber: bigint, change: Change): boolean {
    return change.last <= imageNumber
  }

  /** The subscription is new, or over. */
  protected forget(): void {
    this.changes = []
    this.beginning = null
    this.dropImage()
  }

  protected dropImage(): void {
    this.imageNumber = null
    this.isBridged = false
    this.book.clear()
  }

  /** The subscription itself begins with the image. */
  protected begin(number: bigint, fill: () => void): void {
    this.forget()
    fill()
    this.imageNumber = number
    this.isBridged = true
    this.beginning = { previous: null, first: number, last: number, apply: () => undefined }
    this.changes.push(this.beginning)
  }

  protected change(change: Change): void {
    const isKnown = this.changes
      .slice(-REPEAT_DISTANCE)
      .some(
        ({ previous, first, last }) => previous === change.previous && first === change.first && last === change.last
      )
    if (isKnown) return
    const before = this.changes.at(-1)
    if (before && !this.follows(before, change)) this.forget()
    this.changes.push(change)
    if (this.changes.length > 2 * CHANGES_MAX) this.changes = this.changes.slice(-CHANGES_MAX)
    this.advance(change)
  }

  /** An image that came besides the changes: what it does not contain is applied to it. */
  protected take(number: bigint, fill: () => void): void {
    const next = this.changes.find(change => !this.contains(number, change))
    if (next && (next === this.beginning || !this.bridges(next, number))) return
    this.dropImage()
    fill()
    this.imageNumber = number
    for (const change of this.changes) this.advance(change)
  }

  private advance(change: Change): void {
    if (this.imageNumber === null || (!this.isBridged && this.contains(this.imageNumber, change))) return
    if (!this.isBridged && !this.bridges(change, this.imageNumber)) {
      this.dropImage()
      return
    }
    this.isBridged = true
    change.apply()
  }
}

/**
 * OKX `books`: `snapshot` replaces, `update` sets levels `[price, size, "0", orders]`, each with the number of the one
 * before. Numbers may go down; only `prevSeqId` counts. Where no snapshot comes, REST has it.
 */
class OkxTruth extends NumberedTruth {
  protected readonly book = new LevelBook()
  private readonly instId: string

  constructor(instId: string) {
    super()
    this.instId = instId
  }

  apply(text: string): boolean {
    const { event, arg, action, data } = fieldsOf(read(text))
    const { channel, instId } = fieldsOf(arg)
    if (channel !== 'books' || instId !== this.instId) return false
    if (event !== undefined) {
      if (event === 'subscribe' || event === 'unsubscribe') this.forget()
      return false
    }
    for (const part of listOf(data)) {
      const { seqId, prevSeqId, bids, asks } = fieldsOf(part)
      const last = BigInt(seqId as string)
      const set = (): void => this.set(rowsOf(bids), rowsOf(asks))
      if (action === 'snapshot') this.begin(last, set)
      else this.change({ previous: BigInt(prevSeqId as string), first: last, last, apply: set })
    }
    return true
  }

  image(text: string): void {
    const { seqId, bids, asks } = fieldsOf(listOf(fieldsOf(read(text)).data)[0])
    if (typeof seqId === 'string') this.take(BigInt(seqId), () => this.set(rowsOf(bids), rowsOf(asks)))
  }

  protected follows(before: Change, { previous }: Change): boolean {
    return previous === before.last
  }

  protected bridges({ previous }: Change, imageNumber: bigint): boolean {
    return previous! <= imageNumber
  }

  private set(bids: Rows, asks: Rows): void {
    for (const [price, size, , orders] of bids) this.book.set(false, price!, size!, orders!)
    for (const [price, size, , orders] of asks) this.book.set(true, price!, size!, orders!)
  }
}

/** Several truths of one instrument, of which the subscription makes one true. */
class EitherTruth implements Truth {
  private readonly instId: string
  private readonly parts: readonly Truth[]

  constructor(instId: string, parts: readonly Truth[]) {
    this.instId = instId
    this.parts = parts
  }

  apply(text: string): boolean {
    return this.parts.map(part => part.apply(text)).includes(true)
  }

  image(text: string, url?: string): void {
    if (url !== undefined && !isImageUrl(url, this.instId)) return
    for (const part of this.parts) part.image?.(text)
  }

  top(isAsk: boolean, n: number): TrueLevel[] | null {
    for (const part of this.parts) {
      const levels = part.top(isAsk, n)
      if (levels !== null) return levels
    }
    return null
  }
}

/** Knows the repetitions of frames without numbers: the same text again, at once or after the next ones. */
class Repetitions {
  private readonly texts: string[] = []

  has(text: string): boolean {
    if (this.texts.includes(text)) return true
    this.texts.push(text)
    if (this.texts.length > REPEAT_DISTANCE / 2) this.texts.shift()
    return false
  }
}

/**
 * Coinbase `level3` and `full`: each message has the next number of its product, also those that concern no book. REST
 * has the image, as it was after the message of its number.
 */
class CoinbaseOrders extends NumberedTruth {
  protected readonly book = new OrderBook()
  private readonly product: string
  /** The columns of the compact messages, by type. */
  private schema: Fields = {}
  /** Which channels the product is subscribed to; the objects of others, such as `matches`, are not of this book. */
  private isCompact = false
  private isFull = false

  constructor(instId: string) {
    super()
    this.product = instId
  }

  apply(text: string): boolean {
    const frame = read(text)
    const fields = Array.isArray(frame) ? this.named(frame) : fieldsOf(frame)
    if (fields.type === 'level3') this.schema = fieldsOf(fields.schema)
    if (fields.type === 'subscriptions') {
      this.isCompact = isListed(fields, /^level3$/, this.product)
      this.isFull = isListed(fields, /^full$/, this.product)
      if (!this.isCompact && !this.isFull) this.forget()
    }
    if (fields.product_id !== this.product || !(Array.isArray(frame) ? this.isCompact : this.isFull)) return false
    if (!['received', 'open', 'match', 'done', 'change', 'noop'].includes(String(fields.type))) return false
    const number = BigInt(fields.sequence as string)
    const message = fields as Record<string, string | undefined>
    this.change({ previous: null, first: number, last: number, apply: () => this.put(message) })
    return true
  }

  image(text: string): void {
    const { sequence, bids, asks } = fieldsOf(read(text))
    if (typeof sequence !== 'string' || !(this.isCompact || this.isFull)) return
    this.take(BigInt(sequence), () => {
      for (const [price, size, id] of rowsOf(bids)) this.book.set(id!, false, price!, unitsOf(size!))
      for (const [price, size, id] of rowsOf(asks)) this.book.set(id!, true, price!, unitsOf(size!))
    })
  }

  protected follows(before: Change, change: Change): boolean {
    return change.first === before.last + 1n
  }

  protected bridges(change: Change, imageNumber: bigint): boolean {
    return change.first === imageNumber + 1n
  }

  private named(row: readonly Json[]): Fields {
    const columns = listOf(this.schema[String(row[0])]) as string[]
    return Object.fromEntries(columns.map((name, at) => [name, row[at]]))
  }

  private put(message: Record<string, string | undefined>): void {
    const { type, order_id: id = '', side, price, size } = message
    if (type === 'open') this.book.set(id, side === 'sell', price!, unitsOf((message.remaining_size ?? size)!))
    if (type === 'done') this.book.remove(id)
    const changed = this.book.get(id)
    if (type === 'change' && changed) {
      this.book.set(id, changed.isAsk, (message.new_price ?? price)!, unitsOf((message.new_size ?? size)!))
    }
    const makerId = message.maker_order_id ?? ''
    const maker = this.book.get(makerId)
    if (type !== 'match' || !maker) return
    const left = maker.size - unitsOf(size!)
    if (left > 0n) this.book.set(makerId, maker.isAsk, maker.price, left)
    else this.book.remove(makerId)
  }
}

/** Whether a `subscriptions` frame of Coinbase lists a product under such a channel. */
function isListed({ channels }: Fields, name: RegExp, product: string): boolean {
  return listOf(channels)
    .map(fieldsOf)
    .some(channel => name.test(String(channel.name)) && listOf(channel.product_ids).includes(product))
}

/** Coinbase `level2` and `level2_batch`: a snapshot, then changes `[side, price, size]`. */
class CoinbaseLevels implements Truth {
  private readonly book = new LevelBook()
  private readonly product: string
  private readonly repetitions = new Repetitions()
  private isImaged = false

  constructor(instId: string) {
    this.product = instId
  }

  apply(text: string): boolean {
    const fields = fieldsOf(read(text))
    const { type, product_id: product } = fields
    if (type === 'subscriptions' && !isListed(fields, /^level2/, this.product)) this.isImaged = false
    if (product !== this.product || (type !== 'snapshot' && type !== 'l2update')) return false
    if (this.repetitions.has(text)) return true
    if (type === 'snapshot') {
      this.book.clear()
      this.isImaged = true
      this.book.setAll(fields.bids, fields.asks)
    } else if (this.isImaged) {
      for (const [side, price, size] of rowsOf(fields.changes)) this.book.set(side === 'sell', price!, size!, null)
    }
    return true
  }

  top(isAsk: boolean, n: number): TrueLevel[] | null {
    return this.isImaged ? this.book.top(isAsk, n) : null
  }
}

/**
 * Kraken `book` and `level3`: a snapshot, then updates without numbers. After each message either side is cut to the
 * depth of the subscription: what falls out is not told.
 */
class KrakenTruth implements Truth {
  private readonly symbol: string
  private readonly channel: 'book' | 'level3'
  private readonly levels = new LevelBook()
  private readonly orders = new OrderBook()
  private readonly repetitions = new Repetitions()
  private depth: number
  private isImaged = false

  constructor(symbol: string, channel: 'book' | 'level3', depth: number) {
    this.symbol = symbol
    this.channel = channel
    // The snapshot may come before the answer that tells the depth.
    const depths = channel === 'book' ? [10, 25, 100, 500] : [10, 100]
    this.depth = depths.find(offered => offered >= depth) ?? 1000
  }

  apply(text: string): boolean {
    const { method, success, result, channel, type, data } = fieldsOf(read(text))
    const answer = fieldsOf(result)
    if (success === true && answer.channel === this.channel && answer.symbol === this.symbol) {
      if (method === 'subscribe' && answer.depth !== undefined) this.depth = Number(answer.depth)
      if (method === 'unsubscribe') this.isImaged = false
      return false
    }
    const parts = listOf(data)
      .map(fieldsOf)
      .filter(({ symbol }) => symbol === this.symbol)
    if (channel !== this.channel || parts.length === 0) return false
    if (this.repetitions.has(text)) return true
    for (const { bids, asks } of parts) {
      if (type === 'snapshot') {
        this.levels.clear()
        this.orders.clear()
        this.isImaged = true
      }
      if (!this.isImaged) continue
      for (const row of listOf(bids)) this.put(false, fieldsOf(row) as Record<string, string>)
      for (const row of listOf(asks)) this.put(true, fieldsOf(row) as Record<string, string>)
      this.levels.cut(this.depth)
      this.orders.cut(this.depth)
    }
    return true
  }

  top(isAsk: boolean, n: number): TrueLevel[] | null {
    if (!this.isImaged) return null
    return this.channel === 'book' ? this.levels.top(isAsk, n) : this.orders.top(isAsk, n)
  }

  private put(isAsk: boolean, row: Record<string, string>): void {
    const { event = 'add', order_id: id = '', limit_price: price = '', order_qty: size = '' } = row
    if (this.channel === 'book') this.levels.set(isAsk, row.price!, row.qty!, null)
    else if (event === 'delete') this.orders.remove(id)
    // A change of what fell out is none of this book.
    else if (event === 'add' || this.orders.get(id)) this.orders.set(id, isAsk, price, unitsOf(size))
  }
}

/**
 * Binance diff depth. Spot: an event has the numbers `U` to `u` and follows the one whose `u` is `U` − 1. Futures: it
 * names the one before in `pu`. REST has the image, with the number of its last change.
 */
class BinanceTruth extends NumberedTruth {
  protected readonly book = new LevelBook()
  private readonly symbol: string

  constructor(instId: string) {
    super()
    this.symbol = instId
  }

  apply(text: string): boolean {
    const frame = fieldsOf(read(text))
    const { e, s, U, u, pu, b, a } = frame.stream === undefined ? frame : fieldsOf(frame.data)
    if (e !== 'depthUpdate' || s !== this.symbol) return false
    this.change({
      previous: typeof pu === 'string' ? BigInt(pu) : null,
      first: BigInt(U as string),
      last: BigInt(u as string),
      apply: () => this.book.setAll(b, a)
    })
    return true
  }

  image(text: string): void {
    const { lastUpdateId, bids, asks } = fieldsOf(read(text))
    if (typeof lastUpdateId === 'string') this.take(BigInt(lastUpdateId), () => this.book.setAll(bids, asks))
  }

  protected follows(before: Change, { previous, first }: Change): boolean {
    return previous === null ? first === before.last + 1n : previous === before.last
  }

  protected override contains(imageNumber: bigint, { previous, last }: Change): boolean {
    return previous === null ? last <= imageNumber : last < imageNumber
  }

  protected bridges({ previous, first }: Change, imageNumber: bigint): boolean {
    // Where nothing happened since the image, the next event of a future names it as the one before.
    return previous === null ? first <= imageNumber + 1n : first <= imageNumber || previous === imageNumber
  }
}

/**
 * HTX `mbp`: messages `prevSeqNum` to `seqNum`; the image is the answer to a `req` on the same connection. The message
 * with its number as `prevSeqNum` continues it.
 */
class HuobiTruth extends NumberedTruth {
  protected readonly book = new LevelBook()
  private readonly isTopic: RegExp

  constructor(instId: string) {
    super()
    this.isTopic = new RegExp(`^market\\.${instId}\\.mbp\\.\\d+$`)
  }

  apply(text: string): boolean {
    const { ch, tick, rep, data, subbed, unsubbed } = fieldsOf(read(text))
    if (this.isTopic.test(String(subbed ?? unsubbed))) this.forget()
    if (!this.isTopic.test(String(ch ?? rep))) return false
    const { seqNum, prevSeqNum, bids, asks } = fieldsOf(tick ?? data)
    if (typeof seqNum !== 'string') return false
    const last = BigInt(seqNum)
    const set = (): void => this.book.setAll(bids, asks)
    if (rep !== undefined) this.take(last, set)
    else this.change({ previous: BigInt(prevSeqNum as string), first: last, last, apply: set })
    return true
  }

  protected follows(before: Change, { previous }: Change): boolean {
    return previous === before.last
  }

  protected override contains(imageNumber: bigint, { previous }: Change): boolean {
    return previous! < imageNumber
  }

  protected bridges({ previous }: Change, imageNumber: bigint): boolean {
    return previous === imageNumber
  }
}

/** Larger prices are no prices, but the way in which an order to buy at any price is shown. */
const PRICE_MAX = unitsOf('1000000000')

/**
 * Bitstamp `live_orders`: events chained by their ids, in milliseconds; the image of REST is in microseconds and has all
 * events of earlier milliseconds. Those of its own are applied by id, whether it has them or not.
 *
 * Orders that trade at once are told like others, but never rest. Those that would cross the book are kept apart, until
 * it is told what is left of them or the next moment begins, and they do not cross any more.
 */
class BitstampOrders extends NumberedTruth {
  protected readonly book = new OrderBook()
  private readonly apart = new Map<string, { isAsk: boolean; price: string; size: string }>()
  private readonly channel: string
  private momentMs = 0n

  constructor(instId: string) {
    super()
    this.channel = `live_orders_${instId}`
  }

  apply(text: string): boolean {
    const { event, channel, data, event_id: id, pre_event_id: previous } = fieldsOf(read(text))
    if (channel !== this.channel) return false
    if (/^bts:(?:un)?subscription_succeeded$/.test(String(event))) this.forget()
    if (!/^order_/.test(String(event)) || typeof id !== 'string') return false
    const order = fieldsOf(data) as Record<string, string>
    const last = idNumber(id)
    const atMs = BigInt(order.microtimestamp!) / 1000n
    const put = (): void => this.put(String(event), order, atMs)
    this.change({ previous: idNumber(previous as string), first: last, last, apply: put })
    return true
  }

  image(text: string): void {
    const { microtimestamp, bids, asks } = fieldsOf(read(text))
    const rows = [...rowsOf(bids), ...rowsOf(asks)]
    // Later ones are only compared with the book, and may be ahead of its events.
    if (typeof microtimestamp !== 'string' || rows.some(row => row.length < 3) || this.top(false, 1) !== null) return
    this.take(BigInt(microtimestamp), () => {
      this.apart.clear()
      for (const [price, size, id] of rowsOf(bids)) this.book.set(id!, false, price!, unitsOf(size!))
      for (const [price, size, id] of rowsOf(asks)) this.book.set(id!, true, price!, unitsOf(size!))
    })
  }

  protected follows(before: Change, { previous }: Change): boolean {
    return previous === before.last
  }

  protected override contains(imageMicros: bigint, change: Change): boolean {
    return microsOf(change.last) / 1000n < imageMicros / 1000n
  }

  protected bridges({ previous }: Change, imageMicros: bigint): boolean {
    return microsOf(previous!) <= imageMicros
  }

  private put(event: string, order: Record<string, string>, atMs: bigint): void {
    const { id_str: id = '', order_type: type, price_str: price = '', amount_str: size = '' } = order
    const isAsk = type === '1'
    const isApart = this.apart.has(id)
    if (atMs > this.momentMs) this.settle(id)
    this.momentMs = atMs
    if (event === 'order_deleted' || unitsOf(size) === 0n) {
      this.book.remove(id)
      this.apart.delete(id)
      return
    }
    // What was never created was gone before the image.
    if (event === 'order_changed' && !isApart && !this.book.get(id)) return
    const rests = this.hasRoom(isAsk, price) && (!isApart || event === 'order_changed')
    this.apart.delete(id)
    if (rests) this.book.set(id, isAsk, price, unitsOf(size))
    else {
      this.book.remove(id)
      this.apart.set(id, { isAsk, price, size })
    }
  }

  /** A new moment: what is left of the orders of the last one rests, but for the order that is told of. */
  private settle(exceptId: string): void {
    for (const [id, { isAsk, price, size }] of this.apart) {
      if (id === exceptId || !this.hasRoom(isAsk, price)) continue
      this.apart.delete(id)
      this.book.set(id, isAsk, price, unitsOf(size))
    }
  }

  /** Whether an order would cross nothing. One at no price, or at any, never rests. */
  private hasRoom(isAsk: boolean, price: string): boolean {
    const units = unitsOf(price)
    if (units === 0n || units > PRICE_MAX) return false
    for (const other of this.book.prices(!isAsk)) if (isAsk ? other >= units : other <= units) return false
    return true
  }
}

/** An event id of Bitstamp as a number: it begins with its microseconds, in 16 hexadecimal digits of 32. */
function idNumber(id: string): bigint {
  return BigInt(`0x${id.replaceAll('-', '')}`)
}

function microsOf(idNumber: bigint): bigint {
  return idNumber >> 64n
}

/** Bitstamp `diff_order_book`: frames in the order of their microseconds; REST has the image. */
class BitstampLevels extends NumberedTruth {
  protected readonly book = new LevelBook()
  private readonly channel: string
  /** The time of the last frame, or of an image that was there before the first. */
  private newest: bigint | null = null

  constructor(instId: string) {
    super()
    this.channel = `diff_order_book_${instId}`
  }

  apply(text: string): boolean {
    const { event, channel, data } = fieldsOf(read(text))
    if (channel !== this.channel) return false
    if (/^bts:(?:un)?subscription_succeeded$/.test(String(event))) {
      this.forget()
      this.newest = null
    }
    const { microtimestamp, bids, asks } = fieldsOf(data)
    if (event !== 'data' || typeof microtimestamp !== 'string') return false
    const last = BigInt(microtimestamp)
    if (this.newest !== null && last <= this.newest) return true
    this.change({ previous: this.newest, first: last, last, apply: () => this.book.setAll(bids, asks) })
    this.newest = last
    return true
  }

  image(text: string): void {
    const { microtimestamp, bids, asks } = fieldsOf(read(text))
    const rows = [...rowsOf(bids), ...rowsOf(asks)]
    if (typeof microtimestamp !== 'string' || rows.some(row => row.length > 2) || this.top(false, 1) !== null) return
    this.take(BigInt(microtimestamp), () => this.book.setAll(bids, asks))
    this.newest ??= BigInt(microtimestamp)
  }

  protected follows(before: Change, { first }: Change): boolean {
    return first > before.last
  }

  /** An image from before the first frame may have a hole behind it. */
  protected bridges({ previous }: Change): boolean {
    return previous !== null
  }
}

const TRUTHS: Record<string, (instId: string, depth: number) => Truth[]> = {
  bitfinex: instId => [new BitfinexTruth(instId)],
  coinbase: instId => [new CoinbaseOrders(instId), new CoinbaseLevels(instId)],
  bitstamp: instId => [new BitstampOrders(instId), new BitstampLevels(instId)],
  kraken: (instId, depth) => [new KrakenTruth(instId, 'level3', depth), new KrakenTruth(instId, 'book', depth)],
  okx: instId => [new OkxTruth(instId)],
  binance: instId => [new BinanceTruth(instId)],
  huobi: instId => [new HuobiTruth(instId)]
}

/**
 * The true book of an instrument (the exchange's own name; Bitfinex's without `t`) on one connection. What kind of book
 * it is, is seen from the answers to the subscription. `depth`: levels that the subscription keeps a side, where the
 * client has to cut them off and no answer tells. Throws when the exchange is not known.
 */
export function makeTruth(exchange: string, instId: string, depth: number): Truth {
  const make = TRUTHS[exchange]
  if (!make) throw new Error(`no truth about ${exchange}`)
  return new EitherTruth(instId, make(instId, depth))
}

/** Whether a REST request asks for the image of this instrument's book, so that its answer is one for `Truth.image`. */
export function isImageUrl(url: string, instId: string): boolean {
  const { pathname, searchParams } = new URL(url, 'http://127.0.0.1')
  const names = [...pathname.split('/'), ...searchParams.values()].map(decodeURIComponent)
  return /\/(?:books?|depth|order_book)(?:\/|$)/.test(pathname) && names.includes(instId)
}
