/**
 * Reads lines of `l3_events` without parsing JSON, several times as fast: the capture writes all of them in one layout (see
 * `capture/lines.ts`). What is written otherwise is left to `JSON.parse`.
 */
import { detached } from '../core/json.ts'
import type { EventRecord } from '../core/records.ts'

/** What an event does to a book: the part of an `EventRecord` that `applyEvent` needs. */
export type BookEvent = Pick<EventRecord, 'event_type' | 'order_id' | 'side' | 'price' | 'size'>

/**
 * An event as read from its line, keys as in the record. Strings may be pieces of the line and keep all of it in memory: who
 * keeps one for longer takes `detached` of it.
 */
export interface EventLine {
  recv_us: number
  /** What stands between the receive time and the type, the same in all lines of a file: `,"exchange":…,"event_type":"`. */
  head: string
  event_type: EventRecord['event_type']
  order_id: string | null
  side: 'bid' | 'ask' | null
  price: string | null
  size: string | null
  sequence: number | null
  exchange_time: string | null
  conn: string
  frame: number
  last: boolean
  /** JSON text of the object: not looked into. */
  metadata: string
}

const TIME_KEY = '{"timestamp_utc":"'
const RECV_KEY = '","recv_us":'
const RECV_AT = '{"timestamp_utc":"2023-12-14T15:30:46.001Z'.length
const HEAD =
  /,"exchange":"[^"\\]*","market":"(?:spot|perp|future|option)","channel":"[^"\\]*","instId":"[^"\\]*","event_type":"/y
const TYPES = ['open', 'change', 'done', 'match', 'snapshot', 'clear', 'gap', 'received', 'activate'] as const
const TYPE_TEXTS = TYPES.map(type => `${type}","order_id":`)
const BACKSLASH = '\\'
const QUOTE = 34
const DIGITS_MAX = 15

const found: EventLine = {
  recv_us: 0,
  head: '',
  event_type: 'clear',
  order_id: null,
  side: null,
  price: null,
  size: null,
  sequence: null,
  exchange_time: null,
  conn: '',
  frame: 0,
  last: false,
  metadata: ''
}

// Where the reading of the line at hand stands; -1 after a surprise.
let line = ''
let at = 0

/**
 * The event of a line (without its line end), in an object that the next call uses again; undefined where the line is not
 * exactly as the capture writes it, which says nothing about its being JSON. Texts are cut out, not judged: whether
 * prices are decimals, and the time in words the one in digits, is for the caller to ask.
 */
export function readEventLine(text: string): EventLine | undefined {
  // Nothing that an exchange names needs an escape; with none about, the next quote ends a string.
  if (!text.startsWith(TIME_KEY) || text.includes(BACKSLASH)) return undefined
  line = text
  at = RECV_AT
  skip(RECV_KEY)
  found.recv_us = digits(DIGITS_MAX + 1)
  readHead()
  found.event_type = readType()
  found.order_id = textOrNull()
  skip(',"side":')
  found.side = readSide()
  skip(',"price":')
  found.price = textOrNull()
  skip(',"size":')
  found.size = textOrNull()
  skip(',"sequence":')
  found.sequence = isNull() ? null : digits(DIGITS_MAX)
  skip(',"exchange_time":')
  found.exchange_time = textOrNull()
  skip(',"conn":"')
  found.conn = rest()
  skip(',"frame":')
  found.frame = digits(DIGITS_MAX)
  skip(',"last":')
  found.last = readFlag()
  skip(',"metadata":{')
  if (at < 0 || !text.endsWith('}}')) return undefined
  found.metadata = text.slice(at - 1, -1)
  return found
}

/**
 * The event of a line in any other layout, in the same object; undefined where it is no JSON of an event. Slower by far: for
 * the lines that surprise `readEventLine`, such as those in which an exchange's own text has an escape.
 */
export function parseEventLine(text: string): EventLine | undefined {
  try {
    const { recv_us, event_type, order_id, side, price, size, metadata, ...more } = JSON.parse(text) as EventRecord
    const { sequence, exchange_time, conn, frame, last } = more
    const isOrder = [order_id, price, size, exchange_time].every(each => each === null || typeof each === 'string')
    const isSource = typeof conn === 'string' && Number.isSafeInteger(frame) && Number.isSafeInteger(recv_us)
    if (!isOrder || !isSource || !TYPES.includes(event_type) || ![null, 'bid', 'ask'].includes(side)) return undefined
    if (typeof last !== 'boolean' || typeof metadata !== 'object') return undefined
    Object.assign(found, { recv_us, head: '', event_type, order_id, side, price, size, sequence, exchange_time, conn })
    return Object.assign(found, { frame, last, metadata: JSON.stringify(metadata) })
  } catch {
    return undefined
  }
}

function skip(expected: string): void {
  if (at >= 0) at = line.startsWith(expected, at) ? at + expected.length : -1
}

/** A whole number without sign. */
function digits(max: number): number {
  if (at < 0) return 0
  const start = at
  let value = 0
  for (let code = line.charCodeAt(at); code >= 48 && code <= 57; code = line.charCodeAt(++at))
    value = value * 10 + code - 48
  if (at === start || at - start > max || (at - start > 1 && line.charCodeAt(start) === 48)) at = -1
  return value
}

function readHead(): void {
  if (at < 0) return
  if (found.head !== '' && line.startsWith(found.head, at)) {
    at += found.head.length
    return
  }
  HEAD.lastIndex = at
  const match = HEAD.exec(line)
  found.head = match === null ? '' : detached(match[0])
  at = match === null ? -1 : at + match[0].length
}

function readType(): EventRecord['event_type'] {
  for (let n = 0; n < TYPES.length && at >= 0; n++) {
    if (!line.startsWith(TYPE_TEXTS[n]!, at)) continue
    at += TYPE_TEXTS[n]!.length
    return TYPES[n]!
  }
  at = -1
  return 'gap'
}

function isNull(): boolean {
  if (at < 0 || !line.startsWith('null', at)) return false
  at += 4
  return true
}

/** What is left of a string whose first quote is passed. */
function rest(): string {
  const end = at < 0 ? -1 : line.indexOf('"', at)
  const text = end < 0 ? '' : line.slice(at, end)
  at = end < 0 ? -1 : end + 1
  return text
}

function textOrNull(): string | null {
  if (at < 0 || isNull()) return null
  at = line.charCodeAt(at) === QUOTE ? at + 1 : -1
  return rest()
}

function readSide(): 'bid' | 'ask' | null {
  if (at < 0 || isNull()) return null
  const isAsk = line.startsWith('"ask"', at)
  if (!isAsk) skip('"bid"')
  else at += 5
  return isAsk ? 'ask' : 'bid'
}

function readFlag(): boolean {
  const isTrue = at >= 0 && line.startsWith('true', at)
  if (isTrue) at += 4
  else skip('false')
  return isTrue
}
