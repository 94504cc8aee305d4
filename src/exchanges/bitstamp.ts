/**
 * Bitstamp WebSocket v2: `live_orders` (L3), `diff_order_book` (L2) and `live_trades`.
 *
 * Synchronisation (bitstamp.net/websocket/v2, bitstamp.net/api; event ids, the cache and the limits from public reports of
 * measurements of 2026-09-15; read 2026-11):
 *  1. Subscribe, one channel a message; nothing comes but the acknowledgement until something changes. Frames are queued.
 *  2. `GET /api/v2/order_book/<pair>/?group=2` (orders with ids; L2: `group=1`, levels) with a nonce, as a cache may answer
 *     what is a second old. A row of two columns is no order; a row with the price 0 is none at all.
 *  3. The image has microseconds, events have milliseconds: an event of an earlier millisecond is in the image already; those
 *     of the image's own millisecond may be or not, and are applied, by id: created for an order that is there replaces it,
 *     changed or deleted for one that is not there is ignored. (L2: both have microseconds; up to the image's, dropped.)
 *  4. An image older than the first queued frame has a hole behind it: ask again.
 *  5. Then frame by frame. L3: `pre_event_id` is the `event_id` of the event before; anything else is a gap. Events without
 *     these fields cannot show a loss. Compared within one subscription only; the first event's link leads to an event that
 *     the image must have, as far as ids tell their time. L2: no numbers; a frame whose time is not
 *     after the last one's is a repetition, or else came late, and what it changed is lost.
 *  6. `amount` is what is left: created adds at the back of its price, changed sets it (and the price), deleted removes.
 *     Orders that trade at once are shown, too, but never rest: see `bitstamp-orders.ts`.
 *  7. Nothing else proves the books (L2: nothing at all), so each is compared with REST now and then: `bitstamp-audit.ts`.
 *     This also tells a quiet market from a subscription that was acknowledged and stays mute.
 */
import { isDecimal } from '../core/decimal.ts'
import type { Instrument } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import { isoOfMicros } from '../core/time.ts'
import { type AuditState, Audits, type Disagreement, levelName, showLevels, showOrders } from './bitstamp-audit.ts'
import { isPerpetual, readBitstampCatalogue, spellBitstamp } from './bitstamp-catalogue.ts'
import { applyOrder, type HeldState, overdue, putImage, settleHeld } from './bitstamp-orders.ts'
import { type Asked, RequestQueue } from './bitstamp-queue.ts'
import {
  AMOUNT,
  AMOUNT_STR,
  BitstampReader,
  BUY_ID,
  CHANNEL,
  CODE,
  EVENT,
  ID,
  ID_STR,
  isId,
  MESSAGE,
  MICROS,
  microsOf,
  OrderEvent,
  PRICE,
  PRICE_STR,
  putSide,
  readLevels,
  readOrders,
  SELL_ID,
  TYPE
} from './bitstamp-reader.ts'
import type { Exchange, FetchAnswer, FrameForm, Host, Keeper, L2Frame, Limits, Selection, Session } from './exchange.ts'
import { Images, type ImagesState } from './images.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // Pairs may be quiet for hours: after so long the book is compared with the exchange's.
  silenceMsMax: 60_000,
  // Without data and without an answer for 30 s together the connection is dead.
  pingMs: 15_000,
  ackMsMax: 15_000,
  connectsPerMinuteMax: 20,
  connectSpacingMs: 200,
  // What is asked for waits for the answer to what was asked before.
  sendSpacingMs: 0,
  // 8,000 in ten minutes are allowed.
  restWeightPerMinuteMax: 600,
  frameBytesMax: 16 * 1024 * 1024
}
/** 1024 channels a connection; one more ends it without a word. Two are needed for an instrument. */
const INSTRUMENTS_MAX = 200
/** Connections are closed after 90 days. */
const AGE_US_MAX = 89 * 86_400_000_000
/** Ids (L3) or times (L2) of the last frames, to know a repeated one by. */
const RECENT_MAX = 64
/** Between two events of one match pass less. */
const MATCH_US_MAX = 100_000
/** The exchange's clock is never so far ahead. */
const AHEAD_US_MAX = 86_400_000_000
/** So many times in a row there is no such book: the pair does not exist. */
const MISSING_MAX = 3
/** So many images in a row are older than the frames that wait. */
const OLD_MAX = 8
const REFUSALS = ['Bad subscription string.', 'Invalid channel provided.', 'Incorrect JSON format.']
const UNAUTHORIZED = '4009'
const KINDS: Record<string, OrderEvent['kind']> = Object.assign(Object.create(null), {
  order_created: 'created',
  order_changed: 'changed',
  order_deleted: 'deleted'
})

/** What is known of one book besides the book. Times are the exchange's own: ms (L3) or µs (L2). */
interface BookState {
  /** The `event_id` of the newest event; null: none, or the exchange does not tell. */
  last: string | null
  recent: string[]
  recentAt: number
  /** Times of the image and of the newest frame applied. */
  imageTime: number
  time: number
  /** Time of the newest frame, applied or waiting (L2). */
  newest: number
  /** An image must be of this time at least: one behind every known hole. */
  needed: number
  /** Answers in a row that there is no such book. */
  missing: number
  /** Images in a row that were too old. */
  old: number
  /** It was told that events bear no ids. */
  isUnchained: boolean
  held: HeldState
}

interface SessionState {
  openedUs: number
  leaving: boolean
  pulse: PulseState
  queue: Asked[]
  books: BookState[]
  audits: AuditState[]
  auditRequests: number
  images: ImagesState
  list: Subscription[]
}

function emptyBook(): BookState {
  return {
    last: null,
    recent: [],
    recentAt: 0,
    imageTime: 0,
    time: 0,
    newest: 0,
    needed: 0,
    missing: 0,
    old: 0,
    isUnchained: false,
    held: { list: [], ms: 0 }
  }
}

class BitstampSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly queue: RequestQueue
  private readonly images: Images
  private readonly audits: Audits
  private readonly pulse: Pulse
  private readonly byChannel = new Map<string, Subscription>()
  private readonly reader = new BitstampReader()
  private readonly event = new OrderEvent()
  private readonly frame: L2Frame & { exchangeTime: string | null } = {
    bids: '[]',
    asks: '[]',
    sequence: null,
    previous: null,
    checksum: null,
    exchangeTime: null
  }
  /** How the frame at hand was read: as an order event of the usual form, or by the reader. */
  private isUsual = false
  private isRead = false
  private text = ''
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.pulse = new Pulse(host, LIMITS, () => host.send('{"event":"bts:heartbeat"}'))
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => this.queue.subscribe(batch),
      s => this.leave(s)
    )
    this.subscriptions.imagesApart = true
    this.queue = new RequestQueue(host, this.subscriptions, s => this.channelOf(s))
    this.images = new Images(host, (index, id) => this.fetchBook(index, id))
    this.audits = new Audits(host, (index, id) => this.fetchBook(index, id))
    this.state_ = {
      openedUs: 0,
      leaving: false,
      pulse: this.pulse.state,
      queue: this.queue.state,
      books: host.keepers.map(emptyBook),
      audits: this.audits.list,
      auditRequests: 0,
      images: this.images.state,
      list: this.subscriptions.list
    }
    this.indexChannels()
  }

  private indexChannels(): void {
    this.byChannel.clear()
    for (const subscription of this.subscriptions.list) this.byChannel.set(this.channelOf(subscription), subscription)
  }

  private channelOf({ index, kind }: Subscription): string {
    const { instId, channel } = this.host.keepers[index]!.instrument
    return `${kind === 'trades' ? 'live_trades' : channel}_${instId}`
  }

  onOpen(): void {
    this.state_.openedUs = this.host.us
    this.pulse.heard()
    this.subscriptions.start()
  }

  private leave(subscription: Subscription): void {
    if (subscription.kind === 'book') this.forgetBook(subscription.index)
    this.queue.unsubscribe(subscription)
  }

  /** Step 2. */
  private fetchBook(index: number, id: string): void {
    const { instId, level } = this.host.keepers[index]!.instrument
    const query = `group=${level === 'l3' ? 2 : 1}&_=${Math.floor(this.host.us / 1000)}`
    this.host.fetch({ id, path: `/api/v2/order_book/${encodeURIComponent(instId)}/?${query}` })
  }

  read(text: string): FrameForm {
    this.text = text
    this.isUsual = this.event.readUsual(text)
    if (this.isUsual) return 'msg'
    this.isRead = this.reader.read(text)
    return (this.isRead ? this.reader.embeddable : parseFrame(text).embeddable) ? 'msg' : 'text'
  }

  apply(): void {
    this.pulse.heard()
    if (this.isUsual) {
      const book = this.byChannel.get(this.event.channel)
      if (book?.kind === 'book' && this.isL3(book.index) && this.receives(book)) this.onOrder(book, true)
      return
    }
    if (!this.isRead) return this.onUnread()
    const { values } = this.reader
    const event = values[EVENT] ?? ''
    const subscription = this.byChannel.get(values[CHANNEL] ?? '')
    const kind = KINDS[event]
    if (kind !== undefined || event === 'data' || event === 'trade') {
      if (subscription !== undefined && this.receives(subscription)) this.onData(subscription, event, kind)
    } else if (event === 'bts:subscription_succeeded') this.onAcknowledged(subscription)
    else if (event === 'bts:unsubscription_succeeded') this.onLeft(subscription)
    else if (event === 'bts:error') this.onError(subscription)
    else if (event === 'bts:request_reconnect') this.onReconnect('the exchange asked for it')
  }

  /** What is no JSON may still say which book it was of. */
  private onUnread(): void {
    const named = /"channel"\s*:\s*"([^"\\]{1,100})"/.exec(this.text)
    const subscription = this.byChannel.get(named?.[1] ?? '')
    if (subscription && /"event"\s*:\s*"(?:order_|data|trade)/.test(this.text)) this.unreadable(subscription)
    else this.onCut()
  }

  /** Whether data of a subscription counts: what still comes of one that was left concerns nobody. */
  private receives(subscription: Subscription): boolean {
    const { stage } = subscription
    if (stage !== 'live' && stage !== 'acked' && stage !== 'asked') return false
    subscription.dataUs = this.host.us
    return true
  }

  private onData(subscription: Subscription, event: string, kind: OrderEvent['kind'] | undefined): void {
    if (subscription.kind === 'trades') {
      if (event === 'trade') this.onTrade(subscription)
      return
    }
    const isL3 = this.isL3(subscription.index)
    if (isL3 && kind !== undefined) this.onOrder(subscription, this.event.fill(kind, this.reader.values))
    else if (!isL3 && event === 'data') this.onDiff(subscription)
  }

  /** What is no JSON may have been an update that was cut. */
  private onCut(): void {
    this.host.unreadable(this.text)
    if (/^\s*[[{]/.test(this.text)) this.onLost()
  }

  private isL3(index: number): boolean {
    return this.host.keepers[index]!.instrument.level === 'l3'
  }

  /** A frame of ours that lacks what it needs. An image asked for before cannot be known to hold what it said. */
  private unreadable(subscription: Subscription): void {
    const { index, kind, stage } = subscription
    const keeper = this.host.keepers[index]!
    const wasLive = keeper.live
    keeper.malformed(this.text.slice(0, 200), kind)
    if (kind !== 'book' || wasLive || (stage !== 'live' && stage !== 'asked')) return
    this.dropWaiting(index)
    if (stage === 'live') this.images.again(index)
  }

  /** What waits is incomplete and goes: an image must have it. */
  private dropWaiting(index: number): void {
    const book = this.state_.books[index]!
    const newest = this.images.backlog(index).at(-1)
    if (!this.isL3(index)) book.needed = Math.max(book.needed, book.newest)
    else if (newest !== undefined && this.reread(newest)) book.needed = Math.max(book.needed, this.event.ms + 1)
    this.images.reset(index)
  }

  /** Steps 3, 5 and 6, L3. */
  private onOrder(subscription: Subscription, isWhole: boolean): void {
    const { index } = subscription
    const { event, host } = this
    const book = this.state_.books[index]!
    const keeper = host.keepers[index]!
    if (!isWhole || event.ms * 1000 > host.us + AHEAD_US_MAX) return this.unreadable(subscription)
    const { last } = book
    // What came before the first event of a subscription must be in the image.
    const isLinked = last === null ? !keeper.live || event.beforeMs < book.imageTime : event.preEventId === last
    if (!isLinked && event.eventId !== null && book.recent.includes(event.eventId)) return
    book.last = event.eventId
    if (event.eventId === null) this.tellUnchained(book, keeper)
    else remember(book, event.eventId)
    if (keeper.live && !isLinked) keeper.lose('sequence', last, event.preEventId)
    if (keeper.live) return this.applyEvent(index, book, keeper)
    // What was lost may be of the same millisecond: only an image of a later one has it for sure.
    if (!isLinked) book.needed = Math.max(book.needed, event.ms + 1)
    this.hold(index, book, event.ms + 1)
  }

  /** Applies the event at hand, unless the image has it (step 3). */
  private applyEvent(index: number, book: BookState, keeper: Keeper): void {
    const { event } = this
    if (event.ms < book.imageTime) return
    if (event.ms > book.time) book.time = event.ms
    if (this.audits.list[index]!.stage !== 'idle') this.audits.touch(index, event.id)
    applyOrder(keeper, book.held, event, this.host.us)
  }

  /** Step 1, and the frame that revealed a loss: it may be the first of the book that heals it. */
  private hold(index: number, book: BookState, neededNow: number): void {
    const before = this.images.backlog(index).length
    this.images.hold(index, this.text)
    // Of too many the oldest went: an image must have them.
    if (this.images.backlog(index).length <= before) book.needed = Math.max(book.needed, neededNow)
  }

  private tellUnchained(book: BookState, keeper: Keeper): void {
    if (book.isUnchained) return
    book.isUnchained = true
    this.host.log('warn', 'Events bear no ids: losses cannot be noticed', { instId: keeper.instrument.instId })
  }

  /** Steps 3 and 5, L2. */
  private onDiff(subscription: Subscription): void {
    const { index } = subscription
    const { values, hasBook } = this.reader
    const book = this.state_.books[index]!
    const keeper = this.host.keepers[index]!
    const micros = values[MICROS]!
    const us = microsOf(micros)
    if (!hasBook || micros === null || Number.isNaN(us) || us > this.host.us + AHEAD_US_MAX) {
      return this.unreadable(subscription)
    }
    if (book.recent.includes(micros) || (keeper.live && us <= book.imageTime)) return
    remember(book, micros)
    const isLate = us < book.newest
    if (keeper.live && isLate) keeper.lose('order', book.newest, us)
    if (isLate) book.needed = Math.max(book.needed, book.newest)
    else book.newest = us
    if (keeper.live) this.applyDiff(index, book, keeper, us, micros)
    else this.hold(index, book, us)
  }

  private applyDiff(index: number, book: BookState, keeper: Keeper, us: number, micros: string): void {
    const { bids, asks } = this.reader
    const { frame } = this
    book.time = us
    if (this.audits.list[index]!.stage !== 'idle') {
      for (const key of bids.keys) this.audits.touch(index, levelName(false, key))
      for (const key of asks.keys) this.audits.touch(index, levelName(true, key))
    }
    putSide(keeper.levels, false, bids)
    putSide(keeper.levels, true, asks)
    frame.bids = bids.json
    frame.asks = asks.json
    frame.exchangeTime = isoOfMicros(micros)
    keeper.update(frame)
  }

  private onTrade(subscription: Subscription): void {
    const { values } = this.reader
    const id = values[ID_STR] ?? values[ID]!
    const price = values[PRICE_STR] ?? values[PRICE]!
    const size = values[AMOUNT_STR] ?? values[AMOUNT]!
    const type = values[TYPE]
    const readable = isId(id) && price !== null && size !== null && isDecimal(price) && isDecimal(size)
    if (!readable || (type !== '0' && type !== '1')) return this.unreadable(subscription)
    const [buyId, sellId] = [values[BUY_ID]!, values[SELL_ID]!]
    const isSell = type === '1'
    const metadata =
      isId(buyId) && isId(sellId)
        ? `{"buy_order_id":"${buyId}","sell_order_id":"${sellId}",` +
          `"maker_order_id":"${isSell ? buyId : sellId}","taker_order_id":"${isSell ? sellId : buyId}"}`
        : '{}'
    const keeper = this.host.keepers[subscription.index]!
    keeper.trade({ id, isSell, price, size, exchangeTime: isoOfMicros(values[MICROS]), metadata })
  }

  private onAcknowledged(subscription: Subscription | undefined): void {
    if (subscription?.stage !== 'asked') return
    this.queue.settle(subscription)
    this.subscriptions.acked(subscription, null)
    if (subscription.kind !== 'book') return
    // The image does not come by itself, and data may not come for long: the subscription works.
    this.subscriptions.data(subscription)
    this.images.want(subscription.index)
  }

  private onLeft(subscription: Subscription | undefined): void {
    if (subscription === undefined) return
    this.queue.settle(subscription)
    const { stage, kind, index } = subscription
    if (kind === 'book' && (stage === 'live' || stage === 'acked')) this.forgetBook(index)
    this.subscriptions.left(subscription)
  }

  /** An error names no channel: it is about what was asked last and not answered. */
  private onError(named: Subscription | undefined): void {
    const { values } = this.reader
    const detail = { code: values[CODE] ?? null, msg: (values[MESSAGE] ?? '').slice(0, 300) }
    const subscription = named ?? this.queue.first()
    if (subscription?.stage === 'leaving') {
      this.queue.settle(subscription)
      this.subscriptions.left(subscription)
    } else if (subscription?.stage === 'asked') {
      this.refuse(subscription, REFUSALS.includes(detail.msg) || detail.code === UNAUTHORIZED, detail)
      this.queue.settle(subscription)
    } else this.host.log('warn', 'Error from the exchange', detail)
  }

  private refuse(subscription: Subscription, final: boolean, detail: Record<string, unknown>): void {
    const { index, kind } = subscription
    this.subscriptions.refuse(subscription, final, detail)
    if (kind !== 'book') return
    this.forgetBook(index)
    // What has no book has no trades either: unless they were asked for already, they need not be.
    const trades = this.subscriptions.find(index, 'trades')
    if (!final || trades === undefined || !this.queue.holds(trades)) return
    this.queue.settle(trades)
    this.subscriptions.refuse(trades, true, detail)
  }

  private onReconnect(reason: string): void {
    if (this.state_.leaving) return
    this.state_.leaving = true
    for (const keeper of this.host.keepers) keeper.status('maintenance', { reason })
    this.host.replace(reason)
  }

  onFetched(id: string, answer: FetchAnswer): void {
    const audited = this.audits.answered(id)
    if (audited !== undefined) return this.onAudit(audited, answer)
    const index = this.images.answered(id)
    if (index === undefined) return
    const book = this.state_.books[index]!
    book.missing = answer.status === 404 ? book.missing + 1 : 0
    if (answer.status === 200) this.onImage(index, book, answer.value)
    else if (book.missing < MISSING_MAX) this.images.again(index)
    else {
      // A pair that does not exist is acknowledged like any other, and stays silent.
      this.refuse(this.subscriptions.of(index, 'book'), true, { code: 404, msg: 'no such order book' })
    }
  }

  private onImage(index: number, book: BookState, value: unknown): void {
    const fits = this.isL3(index) ? this.alignOrders(index, book, value) : this.alignLevels(index, book, value)
    if (!fits) return this.images.again(index)
    book.old = 0
    this.images.done(index)
    this.audits.schedule(index)
  }

  /** Steps 2 to 4, L3. False when the image is of no use. */
  private alignOrders(index: number, book: BookState, value: unknown): boolean {
    const keeper = this.host.keepers[index]!
    const { event, host } = this
    const image = readOrders(value)
    if (image === undefined) return this.unreadableImage(keeper, value)
    const imageMs = Math.floor(image.us / 1000)
    const backlog = this.images.backlog(index)
    const firstMs = backlog[0] !== undefined && this.reread(backlog[0]) ? Math.max(event.ms, event.beforeMs + 1) : 0
    // An event of the image's own millisecond that was applied before may be missing in it, and is no longer at hand.
    if (imageMs < Math.max(firstMs, book.time + 1, book.needed)) return this.tooOld(index, book)
    keeper.beginImage(null, isoOfMicros(image.micros))
    putImage(keeper, book.held, image.sides, host.us)
    book.imageTime = book.time = imageMs
    for (const text of backlog) if (this.reread(text)) this.applyEvent(index, book, keeper)
    keeper.endImage()
    return true
  }

  /** Reads an event that waited. */
  private reread(text: string): boolean {
    const { reader, event } = this
    if (event.readUsual(text)) return true
    const kind = reader.read(text) ? KINDS[reader.values[EVENT] ?? ''] : undefined
    return kind !== undefined && event.fill(kind, reader.values)
  }

  /** Steps 2 to 4, L2. False when the image is of no use. */
  private alignLevels(index: number, book: BookState, value: unknown): boolean {
    const keeper = this.host.keepers[index]!
    const { reader } = this
    const image = readLevels(value)
    if (image === undefined) return this.unreadableImage(keeper, value)
    const backlog = this.images.backlog(index)
    const firstUs = backlog[0] !== undefined && reader.read(backlog[0]) ? microsOf(reader.values[MICROS]!) : 0
    if (image.us < Math.max(firstUs, book.time, book.needed)) return this.tooOld(index, book)
    keeper.beginImage(null, isoOfMicros(image.micros))
    const [bids, asks] = image.sides
    putSide(keeper.levels, false, bids)
    putSide(keeper.levels, true, asks)
    book.imageTime = book.time = image.us
    for (const text of backlog) {
      reader.read(text)
      const micros = reader.values[MICROS]!
      const us = microsOf(micros)
      if (us > image.us) this.applyDiff(index, book, keeper, us, micros)
    }
    keeper.endImage()
    return true
  }

  /** Step 4. When it goes on for minutes, it is the queue or what was applied that has a wrong time: it is given up. */
  private tooOld(index: number, book: BookState): false {
    if (++book.old < OLD_MAX) return false
    book.old = book.time = book.needed = book.newest = 0
    // The next event's link is held against the image: what is dropped here must not count as seen.
    book.last = null
    this.images.reset(index)
    return false
  }

  private unreadableImage(keeper: Keeper, value: unknown): false {
    keeper.malformed(`order_book of another form: ${startOf(value)}`)
    return false
  }

  /** Step 7, the answer. */
  private onAudit(index: number, answer: FetchAnswer): void {
    const { isSilent } = this.audits.list[index]!
    const value = answer.status === 200 ? answer.value : undefined
    if (this.isL3(index)) {
      const image = readOrders(value)
      this.audits.show(index, image && showOrders(image.sides, isSilent), image ? Math.floor(image.us / 1000) : 0)
    } else {
      const image = readLevels(value)
      this.audits.show(index, image && showLevels(...image.sides, isSilent), image?.us ?? 0)
    }
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    if (this.host.us - this.state_.openedUs > AGE_US_MAX) this.onReconnect('age')
    this.queue.tick()
    this.subscriptions.tick(() => Number.POSITIVE_INFINITY)
    this.images.tick()
    for (const subscription of this.subscriptions.list) {
      const { kind, stage, index } = subscription
      if (kind === 'book' && stage === 'live' && this.host.keepers[index]!.live) this.watch(subscription)
    }
  }

  /** Orders that were held apart, and the comparison with REST. */
  private watch(subscription: Subscription): void {
    const { index, dataUs } = subscription
    const { us } = this.host
    const book = this.state_.books[index]!
    const keeper = this.host.keepers[index]!
    if (us - dataUs > MATCH_US_MAX) settleHeld(keeper, book.held)
    const crossing = overdue(keeper, book.held, us)
    if (crossing) {
      const { isAsk, price } = crossing
      const best = keeper.orders.best(!isAsk)
      return keeper.lose('crossed', null, isAsk ? `${best} >= ${price}` : `${price} >= ${best}`)
    }
    const silenceUs = (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
    const isSilent = us - dataUs > silenceUs
    const disagreement = this.audits.tick(index, keeper, book.time, isSilent, book.held.list)
    if (disagreement) return this.onDisagreement(subscription, isSilent, disagreement)
    if (isSilent && us - this.audits.list[index]!.sinceUs > silenceUs) this.audits.suspect(index, book.time)
  }

  private onDisagreement(subscription: Subscription, isSilent: boolean, { expected, received }: Disagreement): void {
    const { index, dataUs } = subscription
    const keeper = this.host.keepers[index]!
    if (!isSilent) return keeper.lose('image_mismatch', expected, received)
    // The market moves and nothing is said of it: the subscription is mute.
    keeper.status('stalled', { channel: 'book', silent_ms: Math.round((this.host.us - dataUs) / 1000) })
    this.subscriptions.renew(subscription, 'silence')
  }

  /** The book of a subscription that is left: what is known of the exchange's time stays known. */
  private forgetBook(index: number): void {
    const { isUnchained, time, needed } = this.state_.books[index]!
    this.state_.books[index] = { ...emptyBook(), isUnchained, time, needed }
    this.images.reset(index)
    this.audits.cancel(index)
  }

  resync(index: number, reason: string): void {
    const book = this.state_.books[index]!
    book.held = { list: [], ms: 0 }
    this.audits.cancel(index)
    // Nobody knows how many events were not kept.
    if (reason === 'overload' || reason === 'damaged') book.last = null
    if (this.subscriptions.find(index, 'book')?.stage === 'live') this.images.renew(index, reason)
  }

  /** Without numbers nothing shows that a waiting frame is missing: the image must be of later than now. */
  onLost(): void {
    for (const { index, kind, stage } of this.subscriptions.list) {
      if (kind !== 'book' || this.host.keepers[index]!.live || (stage !== 'live' && stage !== 'asked')) continue
      this.dropWaiting(index)
      if (stage === 'live') this.images.again(index)
    }
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    const { list, requests } = this.audits
    const { subscriptions, queue, images } = this
    return {
      ...this.state_,
      list: subscriptions.list,
      queue: queue.state,
      images: images.state,
      audits: list,
      auditRequests: requests
    }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.subscriptions.list = this.state_.list
    this.queue.state = this.state_.queue
    this.images.state = this.state_.images
    this.audits.list = this.state_.audits
    this.audits.requests = this.state_.auditRequests
    this.indexChannels()
  }
}

function remember(book: BookState, name: string): void {
  book.recent[book.recentAt] = name
  book.recentAt = (book.recentAt + 1) % RECENT_MAX
}

/** The first row of an answer that is not what it should be, for the log. */
function startOf(value: unknown): string {
  const bids = asObject(value)?.bids
  return textOf(Array.isArray(bids) ? bids[0] : bids).slice(0, 200)
}

function describe(instId: string, { level }: Selection): Instrument {
  const channel = level === 'l3' ? 'live_orders' : 'diff_order_book'
  return { exchange: 'bitstamp', instId, market: isPerpetual(instId) ? 'perp' : 'spot', level, channel }
}

/** Bitstamp: see the head of this file. */
export const bitstamp: Exchange = {
  id: 'bitstamp',
  levels: ['l3', 'l2'],
  proof: {
    // By `event_id` and `pre_event_id`, which are in events since 2026: where they are absent nothing is proved.
    l3: { sequence: 'instrument', checksum: false },
    l2: { sequence: 'none', checksum: false }
  },
  limits: LIMITS,
  choices: {},
  endpoints: () => ({
    restUrl: 'https://www.bitstamp.net',
    routes: [{ url: 'wss://ws.bitstamp.net', feeds: ['book', 'trades'], instrumentsMax: INSTRUMENTS_MAX }]
  }),
  catalogue: () => readBitstampCatalogue,
  spell: spellBitstamp,
  describe,
  depthMax: () => Number.POSITIVE_INFINITY,
  open: host => new BitstampSession(host)
}
