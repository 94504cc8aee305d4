/**
 * OKX WebSocket v5, `books` (L2, 400 levels) and `trades`.
 *
 * Synchronisation (okx.com/docs-v5/en, order book channel; copy of 2026-07-07):
 *  1. Subscribe `books`; the first frame after the acknowledgement is the image (`action` snapshot, `prevSeqId` −1).
 *  2. An update continues the book when its `prevSeqId` is the last `seqId`; anything else is a gap. Numbers may jump,
 *     repeat (keep-alive: `prevSeqId` = `seqId`, no levels) and start again smaller; only the link counts.
 *  3. A size of zero removes a level; removing an absent one means nothing.
 *  4. `checksum` is the signed CRC-32 over 25 levels a side; constantly 0 since 2026-06-23: not provided. Recordings
 *     from before `seqId` existed have only the checksum.
 *  5. Renewing: unsubscribe, wait for the acknowledgement, subscribe.
 */
import crc32 from 'crc-32'
import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey, scanDecimal, scanned } from '../core/decimal.ts'
import type { Instrument, Market } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import type { Exchange, FrameForm, Host, Keeper, L2Frame, Limits, Selection, Session } from './exchange.ts'
import { readOkxCatalogue } from './okx-catalogue.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // A `books` channel without changes repeats its number about every 60 s.
  silenceMsMax: 90_000,
  pingMs: 20_000,
  ackMsMax: 10_000,
  connectsPerMinuteMax: 60,
  // Three a second are allowed.
  connectSpacingMs: 400,
  sendSpacingMs: 0,
  restWeightPerMinuteMax: 120,
  frameBytesMax: 16 * 1024 * 1024
}
const DEPTH = 400
const CHECKSUM_ROWS = 25
/** Too many requests, and a login trouble of the exchange's own: worth another try. Everything else is final. */
const LATER = new Set(['60014', '63999'])

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
class BookFrame implements L2Frame {
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
class BookReader {
  readonly frame = new BookFrame()
  private text = ''
  private at = 0
  private readonly known: ReadonlyMap<string, number>

  constructor(known: ReadonlyMap<string, number>) {
    this.known = known
  }

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

function isCount(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 48 || code > 57) return false
  }
  return text.length > 0
}

interface Chain {
  last: number | null
  previous: number | null
}

interface SessionState {
  pulse: PulseState
  requests: number
  asked: Record<string, number>
  chains: Chain[]
  leaving: boolean
  list: Subscription[]
}

class OkxSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly pulse: Pulse
  private readonly byName = new Map<string, number>()
  private readonly reader = new BookReader(this.byName)
  private isBookFrame = false
  private value: unknown
  private text = ''
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.pulse = new Pulse(host, LIMITS, () => host.send('ping'))
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => batch.forEach(s => this.request('subscribe', s)),
      s => this.request('unsubscribe', s)
    )
    for (const [index, keeper] of host.keepers.entries()) this.byName.set(keeper.instrument.instId, index)
    this.state_ = {
      pulse: this.pulse.state,
      requests: 0,
      asked: {},
      leaving: false,
      list: this.subscriptions.list,
      chains: host.keepers.map(() => ({ last: null, previous: null }))
    }
  }

  onOpen(): void {
    this.pulse.heard()
    this.subscriptions.start()
  }

  private request(op: 'subscribe' | 'unsubscribe', subscription: Subscription): void {
    const instId = this.host.keepers[subscription.index]!.instrument.instId
    const channel = subscription.kind === 'book' ? 'books' : 'trades'
    const id = String(++this.state_.requests)
    this.state_.asked[id] = this.subscriptions.list.indexOf(subscription)
    this.host.send(JSON.stringify({ id, op, args: [{ channel, instId }] }))
  }

  read(text: string): FrameForm {
    this.text = text
    this.isBookFrame = this.reader.read(text)
    if (this.isBookFrame) return 'msg'
    const parsed = parseFrame(text)
    this.value = parsed.value
    return parsed.embeddable ? 'msg' : 'text'
  }

  apply(): void {
    this.pulse.heard()
    if (this.isBookFrame) return this.onBook(this.reader.frame)
    const object = asObject(this.value)
    this.value = undefined
    if (object === undefined) {
      if (this.text !== 'pong') this.host.log('warn', 'Unreadable frame kept', { start: this.text.slice(0, 80) })
    } else if (typeof object.event === 'string') this.onEvent(object.event, object)
    else this.onData(object)
  }

  /** Frames of another form than the usual one: other white space, other order of keys, other fields. */
  private onData(object: Record<string, unknown>): void {
    const arg = asObject(object.arg)
    const index = this.byName.get(textOf(arg?.instId))
    if (arg === undefined || index === undefined) return
    const keeper = this.host.keepers[index]!
    if (arg.channel !== 'books' && arg.channel !== 'trades') return
    const data = object.data
    if (!Array.isArray(data) || data.length === 0) return keeper.malformed(this.text.slice(0, 200))
    if (arg.channel === 'trades') return this.onTrades(index, data)
    const frame = new BookFrame()
    for (const entry of data) {
      if (!fillFrame(frame, keeper.instrument.instId, object.action, asObject(entry))) {
        return keeper.malformed(this.text.slice(0, 200))
      }
      this.onBook(frame)
    }
  }

  private onBook(frame: BookFrame): void {
    const index = this.byName.get(frame.instId)
    if (index === undefined) return
    const subscription = this.subscriptions.of(index, 'book')
    const keeper = this.host.keepers[index]!
    // What still comes of a subscription that was left concerns nobody.
    if (subscription.stage === 'leaving' || subscription.stage === 'waiting') return
    subscription.dataUs = this.host.us
    if (frame.isSnapshot) this.onImage(subscription, keeper, frame)
    else if (keeper.live) this.onUpdate(keeper, frame, this.state_.chains[index]!)
  }

  /** Step 1. A further image of a live book is as good as the first, unless it is the same frame twice. */
  private onImage(subscription: Subscription, keeper: Keeper, frame: BookFrame): void {
    const chain = this.state_.chains[subscription.index]!
    const repeated = frame.sequence !== null && frame.sequence === chain.last && frame.previous === chain.previous
    if (keeper.live && repeated) return
    if (subscription.stage === 'asked') this.subscriptions.acked(subscription, null)
    this.subscriptions.data(subscription)
    keeper.beginImage(frame.sequence, frame.exchangeTime)
    putRows(keeper, frame)
    chain.last = frame.sequence
    chain.previous = frame.previous
    keeper.endImage(frame)
    keeper.verify(frame.checksum)
  }

  /** Steps 2 to 4. */
  private onUpdate(keeper: Keeper, frame: BookFrame, chain: Chain): void {
    if (frame.sequence === null && chain.last !== null) return keeper.malformed(this.text.slice(0, 200))
    if (frame.sequence !== null && frame.previous !== chain.last) {
      const repeated = frame.sequence === chain.last && frame.previous === chain.previous
      if (!repeated) keeper.lose('sequence', chain.last, frame.previous)
      return
    }
    chain.last = frame.sequence
    chain.previous = frame.previous
    putRows(keeper, frame)
    keeper.update(frame)
    keeper.verify(frame.checksum)
  }

  private onTrades(index: number, data: readonly unknown[]): void {
    const keeper = this.host.keepers[index]!
    const subscription = this.subscriptions.list.find(s => s.index === index && s.kind === 'trades')
    if (subscription === undefined) return
    subscription.dataUs = this.host.us
    for (const entry of data) {
      const row = asObject(entry)
      const { tradeId, px, sz, side, ts, count, source, seqId } = row ?? {}
      const readable =
        typeof tradeId === 'string' &&
        typeof px === 'string' &&
        typeof sz === 'string' &&
        isDecimal(px) &&
        isDecimal(sz)
      if (!readable || (side !== 'buy' && side !== 'sell')) {
        keeper.malformed(this.text.slice(0, 200), 'trades')
        continue
      }
      keeper.trade({
        id: tradeId,
        isSell: side === 'sell',
        price: px,
        size: sz,
        exchangeTime: typeof ts === 'string' && isCount(ts) ? Number(ts) : null,
        metadata: JSON.stringify({ count, source, seqId })
      })
    }
  }

  private onEvent(event: string, object: Record<string, unknown>): void {
    const arg = asObject(object.arg)
    const index = this.byName.get(textOf(arg?.instId))
    const kind = arg?.channel === 'books' ? 'book' : arg?.channel === 'trades' ? 'trades' : undefined
    const subscription =
      index !== undefined && kind ? this.subscriptions.list.find(s => s.index === index && s.kind === kind) : undefined
    const id = textOf(object.id)
    switch (event) {
      case 'subscribe':
        delete this.state_.asked[id]
        if (subscription?.stage === 'asked') this.subscriptions.acked(subscription, null)
        break
      case 'unsubscribe':
        delete this.state_.asked[id]
        if (subscription) this.subscriptions.left(subscription)
        break
      case 'error':
        this.onError(id, object, subscription)
        break
      case 'notice':
        if (object.code === '64008') this.onNotice(object)
    }
  }

  private onError(id: string, object: Record<string, unknown>, named: Subscription | undefined): void {
    const subscription =
      named ?? this.subscriptions.list[this.state_.asked[id] ?? -1] ?? this.inText(textOf(object.msg))
    delete this.state_.asked[id]
    const detail = { code: textOf(object.code), msg: textOf(object.msg).slice(0, 300) }
    if (subscription?.stage === 'leaving') this.subscriptions.left(subscription)
    else if (subscription?.stage === 'asked') {
      const final = !LATER.has(detail.code)
      this.subscriptions.refuse(subscription, final, detail)
      // What has no book has no trades either: their own refusal need not be waited for.
      const trades = this.subscriptions.list.find(s => s.index === subscription.index && s.kind === 'trades')
      if (final && subscription.kind === 'book' && trades?.stage === 'asked')
        this.subscriptions.refuse(trades, true, detail)
    } else this.host.log('warn', 'Error from the exchange', detail)
  }

  /** Code 60018 may name the subscription in its text only: `channel:books,instId:MATIC-USDT doesn't exist`. */
  private inText(text: string): Subscription | undefined {
    const match = /channel:([\w-]+),\s*instId:([^\s,]+)/.exec(text)
    const index = this.byName.get(match?.[2] ?? '')
    const kind = match?.[1] === 'books' ? 'book' : 'trades'
    return this.subscriptions.list.find(s => s.index === index && s.kind === kind)
  }

  /** The connection will be closed for a service upgrade. */
  private onNotice(object: Record<string, unknown>): void {
    for (const keeper of this.host.keepers)
      keeper.status('maintenance', { code: object.code, msg: textOf(object.msg).slice(0, 300) })
    if (!this.state_.leaving) this.host.replace('notice 64008')
    this.state_.leaving = true
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    const silenceUs = (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
    this.subscriptions.tick(s => (s.kind === 'book' ? silenceUs : Number.POSITIVE_INFINITY))
  }

  resync(index: number, reason: string): void {
    this.subscriptions.renew(this.subscriptions.of(index, 'book'), reason)
  }

  onFetched(): void {
    // Images come by the subscription: nothing is ever fetched.
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  state(): unknown {
    return { ...this.state_, list: this.subscriptions.list }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.subscriptions.list = this.state_.list
  }
}

function safeInteger(value: unknown): number | null | undefined {
  if (value === undefined || value === null) return null
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined
}

/** Fills a frame from a parsed data object; false when fields are missing or of another type. */
function fillFrame(
  frame: BookFrame,
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

/** Step 3. Text is cut out of the frame only where the book does not hold it yet. */
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

function putRows(keeper: Keeper, frame: BookFrame): void {
  putSide(keeper.levels, false, frame.bidRows)
  putSide(keeper.levels, true, frame.askRows)
}

/** Step 4: `price:size` of bid and ask in turn, text as sent, missing rows left out; signed. */
export function okxChecksum(keeper: Pick<Keeper, 'levels'>): number {
  let text = ''
  for (let row = 0; row < CHECKSUM_ROWS; row++) {
    const bid = keeper.levels.at(false, row)
    const ask = keeper.levels.at(true, row)
    if (bid) text += `${text ? ':' : ''}${bid.price}:${bid.size}`
    if (ask) text += `${text ? ':' : ''}${ask.price}:${ask.size}`
  }
  return crc32.str(text)
}

function marketOf(instId: string): Market {
  const parts = instId.split('-')
  if (parts.length <= 2) return 'spot'
  if (parts[2] === 'SWAP') return 'perp'
  return parts.length === 3 ? 'future' : 'option'
}

/** `BTC-USDT-SWAP` of `btc/usdt-swap`, `BTC_USDT_SWAP`; a name without dividers cannot be cut and stays. */
function spell(symbol: string): string {
  return symbol.toUpperCase().replace(/[/_:]/g, '-')
}

function describe(instId: string, { level }: Selection): Instrument {
  return { exchange: 'okx', instId, market: marketOf(instId), level, channel: 'books' }
}

/** OKX: see the head of this file. */
export const okx: Exchange = {
  id: 'okx',
  levels: ['l2'],
  proof: { l2: { sequence: 'instrument', checksum: false } },
  limits: LIMITS,
  choices: {},
  endpoints: () => ({
    restUrl: 'https://www.okx.com',
    routes: [{ url: 'wss://ws.okx.com:8443/ws/v5/public', feeds: ['book', 'trades'], instrumentsMax: 25 }]
  }),
  catalogue: () => readOkxCatalogue(marketOf),
  spell,
  describe,
  depthMax: () => DEPTH,
  open: host => new OkxSession(host),
  checksum: okxChecksum
}
