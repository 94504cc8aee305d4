import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import type { Keeper, L2Frame } from './exchange.ts'

/**
 * The levels of one side, as places in `text`: where price, size and orders of each begin and end, in `places`; the key
 * of its price; whether its size is zero.
 */
class SideRows {
  text = ''
  readonly places: number[] = []
  readonly keys: number[] = []
  readonly zeros: boolean[] = []
}

/** A book frame after reading. Reused for every frame. */
export class OkxBookFrame implements L2Frame {
  instId = ''
  isSnapshot = false
  readonly bidRows = new SideRows()
  readonly askRows = new SideRows()
  bids = '[]'
  asks = '[]'
  sequence: number | null = null
  previous: number | null = null
  checksum: number | null = null
  exchangeTime: number | null = null
}

const OPEN = 91
const CLOSE = 93
const QUOTE = 34
const COMMA = 44
/** What lies between size and number of orders: the dead field. */
const DEAD = '","0","'
const HEAD = '{"arg":{"channel":"books","instId":"'

/** Reads the usual form of book frames without building values. Anything else makes `read` false. */
export class OkxBookReader {
  readonly frame = new OkxBookFrame()
  private text = ''
  private at = 0
  private readonly known: ReadonlyMap<string, number>

  /** `known` has the instruments that it reads. */
  constructor(known: ReadonlyMap<string, number>) {
    this.known = known
  }

  /** Reads a frame into `frame`. */
  read(text: string): boolean {
    if (!text.startsWith(HEAD)) return false
    const frame = this.frame
    this.text = text
    const idEnd = text.indexOf('"', HEAD.length)
    frame.instId = text.slice(HEAD.length, idEnd)
    if (!this.known.has(frame.instId)) return false
    this.at = idEnd
    if (this.skip('"},"action":"snapshot","data":[{')) frame.isSnapshot = true
    else if (this.skip('"},"action":"update","data":[{')) frame.isSnapshot = false
    else return false
    frame.sequence = frame.previous = frame.checksum = frame.exchangeTime = null
    let seen = 0
    for (;;) {
      const key = this.member()
      if (key === 0 || seen & key) return false
      seen |= key
      if (this.skip(',')) continue
      if (!this.skip('}]}') || this.at !== text.length) return false
      break
    }
    return (seen & 7) === 7 && (frame.sequence === null) === (frame.previous === null)
  }

  private skip(expected: string): boolean {
    if (!this.text.startsWith(expected, this.at)) return false
    this.at += expected.length
    return true
  }

  /** One member of the data object; a bit for its key, 0 when it is unknown or of another form. */
  private member(): number {
    const frame = this.frame
    const start = this.at
    if (this.skip('"asks":')) {
      if (!this.levels(frame.askRows)) return 0
      frame.asks = this.text.slice(start + 7, this.at)
      return 1
    }
    if (this.skip('"bids":')) {
      if (!this.levels(frame.bidRows)) return 0
      frame.bids = this.text.slice(start + 7, this.at)
      return 2
    }
    if (this.skip('"ts":"')) {
      const value = this.integer()
      if (value === undefined || !this.skip('"')) return 0
      frame.exchangeTime = value
      return 4
    }
    if (this.skip('"checksum":')) {
      const value = this.integer()
      if (value === undefined) return 0
      frame.checksum = value === 0 ? null : value
      return 8
    }
    if (this.skip('"prevSeqId":')) {
      const value = this.integer()
      if (value === undefined) return 0
      frame.previous = value
      return 16
    }
    if (this.skip('"seqId":')) {
      const value = this.integer()
      if (value === undefined) return 0
      frame.sequence = value
      return 32
    }
    return 0
  }

  /** `[["price","size","0","orders"],…]`, each part ended by the first quote. */
  private levels(side: SideRows): boolean {
    const text = this.text
    side.text = text
    side.places.length = side.keys.length = side.zeros.length = 0
    let at = this.at
    if (text.charCodeAt(at) !== OPEN) return false
    at++
    if (text.charCodeAt(at) === CLOSE) {
      this.at = at + 1
      return true
    }
    for (;;) {
      if (text.charCodeAt(at) !== OPEN || text.charCodeAt(at + 1) !== QUOTE) return false
      const price = at + 2
      const priceEnd = scanDecimal(text, price)
      if (priceEnd < 0 || !text.startsWith('","', priceEnd)) return false
      side.keys.push(scanned)
      const size = priceEnd + 3
      const sizeEnd = scanDecimal(text, size)
      if (sizeEnd < 0 || !text.startsWith(DEAD, sizeEnd)) return false
      side.zeros.push(scanned === 0)
      const orders = sizeEnd + DEAD.length
      let end = orders
      for (let code = text.charCodeAt(end); code >= 48 && code <= 57; code = text.charCodeAt(end)) end++
      if (end === orders || text.charCodeAt(end) !== QUOTE || text.charCodeAt(end + 1) !== CLOSE) return false
      side.places.push(price, priceEnd, size, sizeEnd, orders, end)
      const after = text.charCodeAt(end + 2)
      at = end + 3
      if (after === COMMA) continue
      this.at = at
      return after === CLOSE
    }
  }

  private integer(): number | undefined {
    const text = this.text
    let at = this.at
    const negative = text.charCodeAt(at) === 45
    if (negative) at++
    const first = at
    let value = 0
    for (let code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(++at))
      value = value * 10 + code - 48
    if (at === first || (at - first > 1 && text.charCodeAt(first) === 48) || !Number.isSafeInteger(value))
      return undefined
    this.at = at
    return negative ? -value : value
  }
}

/** Whether a text is a whole number without a sign. */
export function isCount(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 48 || code > 57) return false
  }
  return text.length > 0
}

function safeInteger(value: unknown): number | null | undefined {
  if (value === undefined || value === null) return null
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined
}

/** Fills a frame from a parsed data object; false when fields are missing or of another type. */
export function fillOkxFrame(
  frame: OkxBookFrame,
  instId: string,
  action: unknown,
  data: Record<string, unknown> | undefined
): boolean {
  if (data === undefined || (action !== 'snapshot' && action !== 'update')) return false
  const bids = fillSide(frame.bidRows, data.bids)
  const asks = fillSide(frame.askRows, data.asks)
  const sequence = safeInteger(data.seqId)
  const previous = safeInteger(data.prevSeqId)
  const checksum = safeInteger(data.checksum)
  if (bids === undefined || asks === undefined) return false
  if (sequence === undefined || previous === undefined || checksum === undefined) return false
  if ((sequence === null) !== (previous === null)) return false
  frame.instId = instId
  frame.isSnapshot = action === 'snapshot'
  frame.bids = bids
  frame.asks = asks
  frame.sequence = sequence
  frame.previous = previous
  frame.checksum = checksum === 0 ? null : checksum
  frame.exchangeTime = typeof data.ts === 'string' && isCount(data.ts) ? Number(data.ts) : null
  return true
}

/** Fills a side from a parsed list of levels; its JSON text with four parts a level, undefined when it is no such list. */
function fillSide(side: SideRows, list: unknown): string | undefined {
  if (!Array.isArray(list)) return undefined
  side.text = ''
  side.places.length = side.keys.length = side.zeros.length = 0
  const levels: string[][] = []
  for (const level of list) {
    if (!Array.isArray(level) || level.length < 4) return undefined
    const [price, size, , orders] = level
    if (typeof price !== 'string' || typeof size !== 'string' || typeof orders !== 'string') return undefined
    const key = priceKey(price)
    if (Number.isNaN(key) || !isDecimal(price) || !isDecimal(size) || !isCount(orders)) return undefined
    for (const part of [price, size, orders]) {
      side.places.push(side.text.length, side.text.length + part.length)
      side.text += part
    }
    side.keys.push(key)
    side.zeros.push(isZero(size))
    levels.push([price, size, '0', orders])
  }
  return JSON.stringify(levels)
}

/** A size of zero removes. Text is cut out of the frame only where the book does not hold it yet. */
function putSide(levels: LevelBook, isAsk: boolean, side: SideRows): void {
  const { text, places, keys, zeros } = side
  for (let n = 0; n < keys.length; n++) {
    const key = keys[n]!
    if (zeros[n]) {
      levels.remove(isAsk, key)
      continue
    }
    const at = n * 6
    const size = text.slice(places[at + 2]!, places[at + 3]!)
    const orders = text.slice(places[at + 4]!, places[at + 5]!)
    const known = levels.get(isAsk, key)
    const length = places[at + 1]! - places[at]!
    if (known === undefined) levels.set(isAsk, key, text.slice(places[at]!, places[at + 1]!), size, orders)
    else {
      if (known.price.length !== length) known.price = text.slice(places[at]!, places[at + 1]!)
      known.size = size
      known.orders = orders
    }
  }
}

/** Puts the levels of a frame into the book. */
export function putRows(keeper: Keeper, frame: OkxBookFrame): void {
  putSide(keeper.levels, false, frame.bidRows)
  putSide(keeper.levels, true, frame.askRows)
}

/** The text of one update as the exchange would have sent it, for a frame that held several or had another form. */
export function okxFrameText(frame: OkxBookFrame): string {
  const { instId, isSnapshot, asks, bids, exchangeTime, previous, sequence } = frame
  const time = exchangeTime === null ? '' : `"ts":"${exchangeTime}",`
  return (
    `${HEAD}${instId}"},"action":"${isSnapshot ? 'snapshot' : 'update'}","data":[{"asks":${asks},"bids":${bids},${time}` +
    `"prevSeqId":${previous},"seqId":${sequence}}]}`
  )
}
