import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import { asObject } from '../core/json.ts'
import type { L2Frame } from './exchange.ts'

/** The levels of one side of a frame: text as sent, the key of each price, whether the size is zero. */
export class HuobiSide {
  readonly prices: string[] = []
  readonly sizes: string[] = []
  readonly keys: number[] = []
  readonly zeros: boolean[] = []

  /** Makes room for another frame. */
  clear(): void {
    this.prices.length = this.sizes.length = this.keys.length = this.zeros.length = 0
  }

  /** Adds a level; false when its text is no decimal that a book can hold. */
  add(price: string, size: string): boolean {
    const key = priceKey(price)
    if (Number.isNaN(key) || !isDecimal(price) || !isDecimal(size)) return false
    this.prices.push(price)
    this.sizes.push(size)
    this.keys.push(key)
    this.zeros.push(isZero(size))
    return true
  }

  /** The side as records show it: `[["9138.61","0.033785","0",null],…]`. */
  json(): string {
    const { prices, sizes } = this
    let text = '['
    for (let n = 0; n < prices.length; n++) text += `${n > 0 ? ',["' : '["'}${prices[n]!}","${sizes[n]!}","0",null]`
    return `${text}]`
  }

  /** Puts the side into a book. */
  putInto(levels: LevelBook, isAsk: boolean): void {
    const { prices, sizes, keys, zeros } = this
    for (let n = 0; n < keys.length; n++) {
      if (zeros[n]) levels.remove(isAsk, keys[n]!)
      else levels.set(isAsk, keys[n]!, prices[n]!, sizes[n]!, null)
    }
  }
}

/** A frame of a book, or an image of it, after reading. `previous` of an image means nothing. */
export class HuobiBookFrame implements L2Frame {
  /** `market.btcusdt.mbp.400`. */
  topic = ''
  readonly bidSide = new HuobiSide()
  readonly askSide = new HuobiSide()
  sequence = 0
  previous = 0
  readonly checksum = null
  exchangeTime: number | null = null

  /** JSON text of the bids, made when it is asked for. */
  get bids(): string {
    return this.bidSide.json()
  }

  /** JSON text of the asks, made when it is asked for. */
  get asks(): string {
    return this.askSide.json()
  }

  /** Puts the levels into a book: a size of zero removes. */
  putInto(levels: LevelBook): void {
    this.bidSide.putInto(levels, false)
    this.askSide.putInto(levels, true)
  }
}

const OPEN = 91
const CLOSE = 93
const COMMA = 44
const HEAD = '{"ch":"'
const TIME = '","ts":'
const TICK = ',"tick":{'
const END = '}}'
const KEYS_MAX = 4096

/** Where the JSON number that starts at a place ends; -1 when there is none without a sign. */
function numberEnd(text: string, start: number): number {
  let at = start
  let code = text.charCodeAt(at)
  while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
  if (at === start || (text.charCodeAt(start) === 48 && at - start > 1)) return -1
  if (code === 46) {
    const point = ++at
    code = text.charCodeAt(at)
    while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
    if (at === point) return -1
  }
  if (code === 101 || code === 69) {
    code = text.charCodeAt(++at)
    if (code === 43 || code === 45) code = text.charCodeAt(++at)
    const exponent = at
    while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
    if (at === exponent) return -1
  }
  return at
}

/**
 * Reads the usual form of book updates without building values:
 * `{"ch":"market.btcusdt.mbp.400","ts":…,"tick":{"seqNum":…,"prevSeqNum":…,"asks":[[9138.61,0.033785],…],"bids":[…]}}`,
 * the members of `tick` in any order. Anything else makes `read` false.
 */
export class HuobiBookReader {
  readonly frame = new HuobiBookFrame()
  private text = ''
  private at = 0
  private readonly known: ReadonlyMap<string, unknown>
  /** Keys of the prices that were read lately and are slow to read. */
  private readonly keys = new Map<string, number>()

  /** `known` are the topics that it reads. */
  constructor(known: ReadonlyMap<string, unknown>) {
    this.known = known
  }

  /** Reads a frame into `frame`. */
  read(text: string): boolean {
    if (!text.startsWith(HEAD)) return false
    const topicEnd = text.indexOf('"', HEAD.length)
    const topic = text.slice(HEAD.length, topicEnd)
    if (!this.known.has(topic)) return false
    this.text = text
    this.at = topicEnd
    if (!this.skip(TIME)) return false
    const time = this.integer()
    if (time < 0 || !this.skip(TICK)) return false
    let seen = 0
    for (;;) {
      const key = this.member()
      if (key === 0) return false
      seen |= key
      if (this.skip(',')) continue
      if (!this.skip(END) || this.at !== text.length) return false
      break
    }
    this.frame.topic = topic
    this.frame.exchangeTime = time
    return seen === 15
  }

  private skip(expected: string): boolean {
    if (!this.text.startsWith(expected, this.at)) return false
    this.at += expected.length
    return true
  }

  /** One member of the tick; a bit for its key, 0 when it is unknown or of another form. */
  private member(): number {
    const { frame } = this
    if (this.skip('"asks":')) return this.levels(frame.askSide) ? 1 : 0
    if (this.skip('"bids":')) return this.levels(frame.bidSide) ? 2 : 0
    if (this.skip('"seqNum":')) {
      frame.sequence = this.integer()
      return frame.sequence < 0 ? 0 : 4
    }
    if (this.skip('"prevSeqNum":')) {
      frame.previous = this.integer()
      return frame.previous < 0 ? 0 : 8
    }
    return 0
  }

  /** `[[price,size],…]`. */
  private levels(side: HuobiSide): boolean {
    const text = this.text
    side.clear()
    let at = this.at
    if (text.charCodeAt(at) !== OPEN) return false
    if (text.charCodeAt(++at) === CLOSE) {
      this.at = at + 1
      return true
    }
    for (;;) {
      if (text.charCodeAt(at) !== OPEN) return false
      at = this.level(side, at + 1)
      if (at < 0) return false
      const after = text.charCodeAt(at)
      at++
      if (after === COMMA) continue
      this.at = at
      return after === CLOSE
    }
  }

  /** `price,size]`; gives where it ends, -1 when it is of another form. */
  private level(side: HuobiSide, start: number): number {
    const text = this.text
    const priceEnd = scanDecimal(text, start)
    const key = scanned
    if (priceEnd < 0 || text.charCodeAt(priceEnd) !== COMMA) return this.unusualLevel(side, start)
    const sizeEnd = scanDecimal(text, priceEnd + 1)
    if (sizeEnd < 0 || text.charCodeAt(sizeEnd) !== CLOSE) return this.unusualLevel(side, start)
    side.zeros.push(scanned === 0)
    side.keys.push(key)
    side.prices.push(text.slice(start, priceEnd))
    side.sizes.push(text.slice(priceEnd + 1, sizeEnd))
    return sizeEnd + 1
  }

  /** The same with exponents (`9.121E-7`) or many digits (`26.755973959140651643`). */
  private unusualLevel(side: HuobiSide, start: number): number {
    const text = this.text
    const priceEnd = numberEnd(text, start)
    if (priceEnd < 0 || text.charCodeAt(priceEnd) !== COMMA) return -1
    const price = text.slice(start, priceEnd)
    const key = this.keyOf(price)
    let sizeEnd = scanDecimal(text, priceEnd + 1)
    let isNothing = scanned === 0
    const isPlain = sizeEnd >= 0 && text.charCodeAt(sizeEnd) === CLOSE
    if (!isPlain) sizeEnd = numberEnd(text, priceEnd + 1)
    if (sizeEnd < 0 || text.charCodeAt(sizeEnd) !== CLOSE || Number.isNaN(key)) return -1
    const size = text.slice(priceEnd + 1, sizeEnd)
    if (!isPlain) {
      if (!isDecimal(size)) return -1
      isNothing = isZero(size)
    }
    side.prices.push(price)
    side.sizes.push(size)
    side.keys.push(key)
    side.zeros.push(isNothing)
    return sizeEnd + 1
  }

  /** The key of a price, NaN when no book can hold it. Prices come again and again, and exponents are slow to read. */
  private keyOf(price: string): number {
    const known = this.keys.get(price)
    if (known !== undefined) return known
    const key = isDecimal(price) ? priceKey(price) : Number.NaN
    if (this.keys.size >= KEYS_MAX) this.keys.clear()
    this.keys.set(price, key)
    return key
  }

  /** A whole number of at most 15 digits; -1 when there is none. */
  private integer(): number {
    const text = this.text
    let at = this.at
    let value = 0
    for (let code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(++at))
      value = value * 10 + code - 48
    const length = at - this.at
    if (length === 0 || length > 15 || (length > 1 && text.charCodeAt(this.at) === 48)) return -1
    this.at = at
    return value
  }
}

/** The value of a JSON text, which must be valid, with every number as the text it was sent as. */
export function parseTexts(text: string): unknown {
  let quoted = ''
  let from = 0
  let inString = false
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (inString) {
      if (code === 92) at++
      else if (code === 34) inString = false
    } else if (code === 34) inString = true
    else if (code === 45 || (code >= 48 && code <= 57)) {
      const start = at
      while (isNumberCode(text.charCodeAt(at + 1))) at++
      quoted += `${text.slice(from, start)}"${text.slice(start, at + 1)}"`
      from = at + 1
    }
  }
  return JSON.parse(quoted + text.slice(from))
}

/** Digits, point, signs, and the mark of an exponent. */
function isNumberCode(code: number): boolean {
  return (code >= 48 && code <= 57) || code === 46 || code === 43 || code === 45 || code === 69 || code === 101
}

/** A whole number of at most `digits` digits as sent; undefined when it is none. */
export function wholeText(value: unknown, digits = 20): string | undefined {
  return typeof value === 'string' && value.length <= digits && /^(?:0|[1-9]\d*)$/.test(value) ? value : undefined
}

/** The same as a number that is exact. */
export function wholeNumber(value: unknown): number | undefined {
  const number = Number(wholeText(value) ?? Number.NaN)
  return Number.isSafeInteger(number) ? number : undefined
}

/**
 * Fills a frame from the `tick` of an update, or from the `data` of an image, whose numbers are texts; false when members
 * are missing or of another type. An update has both sides, and a number before its own.
 */
export function fillHuobiFrame(
  frame: HuobiBookFrame,
  topic: string,
  time: unknown,
  source: unknown,
  isUpdate: boolean
): boolean {
  const { seqNum, prevSeqNum, bids, asks } = asObject(source) ?? {}
  const sequence = wholeNumber(seqNum)
  const previous = isUpdate ? wholeNumber(prevSeqNum) : 0
  if (sequence === undefined || previous === undefined) return false
  if (!fillSide(frame.bidSide, bids) || !fillSide(frame.askSide, asks)) return false
  frame.topic = topic
  frame.sequence = sequence
  frame.previous = previous
  frame.exchangeTime = wholeNumber(time) ?? null
  return true
}

function fillSide(side: HuobiSide, list: unknown): boolean {
  side.clear()
  if (!Array.isArray(list)) return false
  for (const level of list) {
    if (!Array.isArray(level) || level.length < 2) return false
    const [price, size] = level
    if (typeof price !== 'string' || typeof size !== 'string' || !side.add(price, size)) return false
  }
  return true
}
