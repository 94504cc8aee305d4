/**
 * Coinbase Exchange: `level3` or `full` (L3, authenticated), `level2_batch` (L2), `matches` and `heartbeat`.
 *
 * Synchronisation of L3 (docs.cdp.coinbase.com/exchange: websocket-feed/overview, /channels; REST get product book;
 * read 2026-11):
 *  1. Subscribe, and queue the messages of each product.
 *  2. `GET /products/X/book?level=3` is the whole book, as it was after message number `sequence` (N).
 *  3. Drop queued messages with a number of at most N; replay the rest.
 *  4. From then on, product by product: last + 1 is applied; a number of at most the last is ignored; a larger one is a
 *     gap: the book is invalid, queueing begins again and a new image is fetched (2).
 *  5. When the first queued number is larger than N + 1, the image is older than the queue: fetch again.
 *
 * `level3` numbers what does not touch the book as `noop`, so that every number comes. L2 has no numbers: the snapshot
 * comes by the subscription, and renewing is unsubscribe and subscribe.
 */
import type { LevelBook } from '../book/levels.ts'
import { difference } from '../core/decimal.ts'
import type { Instrument } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import type { ExchangeTime } from '../core/time.ts'
import { readCoinbaseCatalogue, spellCoinbase } from './coinbase-catalogue.ts'
import { Channels } from './coinbase-channels.ts'
import {
  type BookImage,
  CompactReader,
  FullReader,
  type Level3Schema,
  type LevelFrame,
  LevelReader,
  type OrderMessage,
  type Reading,
  readBookImage,
  readSchema,
  wholeNumber,
  worstFirst
} from './coinbase-reader.ts'
import { CoinbaseTrades, type CoinbaseTradesState } from './coinbase-trades.ts'
import type { Exchange, FetchAnswer, FrameForm, Host, Keeper, Limits, Selection, Session } from './exchange.ts'
import { Images, type ImagesState } from './images.ts'
import { Pulse, type PulseState } from './pulse.ts'
import type { Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // A heartbeat comes each second for each product.
  silenceMsMax: 30_000,
  // With a heartbeat each second, ten without anything are worth a question.
  pingMs: 10_000,
  ackMsMax: 15_000,
  connectsPerMinuteMax: 300,
  // Eight a second are allowed.
  connectSpacingMs: 130,
  // Ten a second are allowed by the strictest of the documents.
  sendSpacingMs: 110,
  restWeightPerMinuteMax: 300,
  frameBytesMax: 64 * 1024 * 1024
}
const PING_ANSWER_MS_MAX = 10_000
/** A book whose heartbeats are ahead of its messages for so long is mute. */
const MUTE_US = 10_000_000
/** Heartbeats count what level 2 does not show: so many numbers without a change are a mute level 2; of fewer, only a longer silence is. */
const LEVEL2_AHEAD_MIN = 20
const LEVEL2_PATIENCE = 3
/** Whoever polls whole books is blocked: sixty a minute at most, one at once. */
const IMAGE_WEIGHT = 5
/** With many connections an image waits for its turn in the budget that they share. */
const IMAGE_MS_MAX = 120_000
/** The image is asked for with the first message; a product without any is asked for after this. */
const QUIET_US = 2_000_000
/** So many old numbers in a row mean that the exchange has started to count anew; of repetitions it takes more. */
const OLD_IN_ROW_MAX = 64
const REPEATED_IN_ROW_MAX = 1000
/** A message whose number is further ahead of an image than this is not waited for; nor after so many images. */
const FLOOR_AHEAD_MAX = 100_000
const FLOOR_TRIES_MAX = 8
const INSTRUMENTS_MAX = { l3: 5, l2: 25 }

/** What is known of one product. */
interface ProductState {
  /** The number of the message applied last, or of the image; null without a book. */
  last: number | null
  /** Messages with old numbers since the last one that was applied. */
  old: number
  /** The number up to which messages or the image account for everything; null: that of the next heartbeat. */
  known: number | null
  /** By how many numbers the last heartbeat was ahead of that. */
  ahead: number
  beatUs: number
  /** The latest time that a message bore. */
  time: string | null
  /** The largest number that a message bore since the subscription began or the numbers began anew. */
  heard: number | null
  /** The number of a message that was dropped: the next image must contain it. */
  floor: number | null
  /** Images in a row that did not. */
  below: number
}

interface SessionState {
  pulse: PulseState
  images: ImagesState
  trades: CoinbaseTradesState
  schema: Level3Schema
  products: ProductState[]
  pending: number[][]
  list: Subscription[]
}

class CoinbaseSession implements Session {
  private readonly host: Host
  private readonly channels: Channels
  private readonly subscriptions: Subscriptions
  private readonly pulse: Pulse
  private readonly images: Images
  private readonly trades: CoinbaseTrades
  private readonly byName = new Map<string, number>()
  private readonly compact = new CompactReader(this.byName)
  private readonly full = new FullReader(this.byName)
  private readonly levels = new LevelReader(this.byName)
  private readonly channel: string
  private readonly isL3: boolean
  /** The book subscriptions by product. */
  private books: Subscription[] = []
  private text = ''
  /** What `read` found: an order message, an update of levels, or a parsed value. */
  private form: 'order' | 'levels' | 'value' = 'value'
  private reading: Reading = 'foreign'
  private message: OrderMessage = this.compact.message
  private value: unknown
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    const { channel, level } = host.keepers[0]!.instrument
    this.channel = channel
    this.isL3 = level === 'l3'
    for (const [index, keeper] of host.keepers.entries()) this.byName.set(keeper.instrument.instId, index)
    this.channels = new Channels(host, LIMITS, this.byName, {
      acknowledged: subscription => this.onAcknowledged(subscription),
      parted: index => this.forget(index)
    })
    this.subscriptions = this.channels.subscriptions
    // A list of subscriptions comes sooner than the snapshots of large books, which an acknowledgement may wait for.
    this.pulse = new Pulse(host, { ...LIMITS, ackMsMax: PING_ANSWER_MS_MAX }, () => this.channels.ping())
    this.images = new Images(host, (index, id) => this.askImage(index, id), {
      atOnceMax: 1,
      answerMsMax: IMAGE_MS_MAX
    })
    this.trades = new CoinbaseTrades(host, this.subscriptions, this.byName)
    this.state_ = {
      pulse: this.pulse.state,
      images: this.images.state,
      trades: this.trades.state,
      schema: this.compact.schema,
      products: host.keepers.map(() => ({
        last: null,
        old: 0,
        known: null,
        ahead: 0,
        beatUs: 0,
        time: null,
        heard: null,
        floor: null,
        below: 0
      })),
      pending: this.channels.pending,
      list: this.subscriptions.list
    }
    this.indexBooks()
  }

  private indexBooks(): void {
    this.books = this.host.keepers.map((_, index) => this.subscriptions.of(index, 'book'))
  }

  onOpen(): void {
    this.pulse.heard()
    this.subscriptions.start()
  }

  private nameOf(index: number): string {
    return this.host.keepers[index]!.instrument.instId
  }

  private onAcknowledged(subscription: Subscription): void {
    if (subscription.kind !== 'book') return
    this.state_.products[subscription.index]!.beatUs = this.host.us
    // The image comes apart from it: the subscription itself is at work.
    if (this.isL3) this.subscriptions.data(subscription)
  }

  /** Nothing that is known of the messages of a product holds for those of its next subscription. */
  private forget(index: number): void {
    this.images.reset(index)
    const product = this.state_.products[index]!
    product.last = product.known = product.time = product.heard = product.floor = null
    product.old = product.ahead = product.below = 0
  }

  read(text: string): FrameForm {
    this.text = text
    this.form = 'value'
    this.value = undefined
    if (this.channel === 'level3') {
      const cells = this.compact.cut(text)
      if (cells !== undefined) {
        this.form = 'order'
        this.message = this.compact.message
        this.reading = this.compact.fill(cells)
        return 'msg'
      }
    } else if (!this.isL3 && this.levels.read(text)) {
      this.form = 'levels'
      return 'msg'
    }
    const { value, embeddable } = parseFrame(text)
    this.value = value
    this.readValue(value)
    return embeddable ? 'msg' : 'text'
  }

  /** Order messages of another form than the usual one, and those of `full`. */
  private readValue(value: unknown): void {
    if (this.channel === 'level3' && Array.isArray(value)) {
      this.form = 'order'
      this.message = this.compact.message
      this.reading = this.compact.fill(value)
    } else if (this.channel === 'full') {
      const object = asObject(value)
      if (object === undefined) return
      this.message = this.full.message
      this.reading = this.full.fill(object)
      if (this.reading !== 'foreign') this.form = 'order'
    }
  }

  apply(): void {
    this.pulse.heard()
    if (this.form === 'levels') return this.onLevels(this.levels.frame)
    const { value } = this
    this.value = undefined
    if (this.form === 'order') {
      if (this.channel === 'full' && this.message.kind === 'match') this.trades.onMatch(asObject(value)!, this.text)
      return this.onOrder()
    }
    const object = asObject(value)
    if (object === undefined) this.host.unreadable(this.text)
    else this.onObject(object)
  }

  private onObject(object: Record<string, unknown>): void {
    switch (object.type) {
      case 'heartbeat':
        return this.onHeartbeat(object)
      case 'match':
        return this.trades.onMatch(object, this.text)
      case 'last_match':
        return this.trades.onLastMatch(object, this.limitUs)
      case 'snapshot':
      case 'l2update':
        if (!this.isL3) this.onOtherLevels(object)
        return
      case 'level3':
        return this.onSchema(object.schema)
      case 'subscriptions':
        return this.channels.onList(object.channels)
      case 'error':
        return this.channels.onError(textOf(object.message).slice(0, 300), textOf(object.reason).slice(0, 300))
    }
    // The exchange announces that new types will come: they are ignored.
  }

  /** Step 1, and step 4. */
  private onOrder(): void {
    const { message } = this
    if (this.reading === 'foreign') return
    const { index } = message
    const subscription = this.books[index]!
    const keeper = this.host.keepers[index]!
    const { stage } = subscription
    // What still comes of a subscription that was left concerns nobody.
    if (stage !== 'live' && stage !== 'asked') return
    if (stage === 'asked') this.channels.acknowledge(subscription, false)
    if (this.reading === 'broken') return keeper.malformed(this.text.slice(0, 200))
    const { sequence } = message
    subscription.dataUs = this.host.us
    if (sequence === null) return this.onUnnumbered(keeper, message)
    const product = this.state_.products[index]!
    product.known = Math.max(product.known ?? 0, sequence)
    const isNext = !keeper.live || this.isNext(keeper, product, message)
    product.heard = Math.max(product.heard ?? 0, sequence)
    if (!isNext) return
    noteTime(product, message)
    if (keeper.live) {
      product.last = sequence
      const clash = this.applyMessage(keeper, message)
      if (clash !== null) keeper.lose(clash, null, message.id)
    }
    if (keeper.live) return
    // Also what has just revealed a loss: it may be the first message of the new book.
    this.images.hold(index, this.text)
    this.images.want(index)
    // An image that is due is asked for as soon as time is seen to have passed.
    this.images.tick()
  }

  /** Step 4: false for an old number. After a gap the keeper is not live any more. */
  private isNext(keeper: Keeper, product: ProductState, message: OrderMessage): boolean {
    const sequence = message.sequence!
    const expected = product.last! + 1
    if (sequence === expected) {
      product.old = 0
      return true
    }
    // What is repeated is no younger than what came before. Numbers that start again smaller are.
    const oldMax = isLater(message.time, product.time) ? OLD_IN_ROW_MAX : REPEATED_IN_ROW_MAX
    // What the image was ahead of the messages by is caught up with: none of it comes twice.
    if (sequence < expected && product.heard !== null && sequence > product.heard) return false
    if (sequence < expected && ++product.old <= oldMax) return false
    product.known = product.heard = sequence
    keeper.lose('sequence', expected, sequence)
    return true
  }

  private onUnnumbered(keeper: Keeper, message: OrderMessage): void {
    if (!keeper.live) return
    const { id, isAsk, price, size, time, metadata } = message
    const sequence = this.state_.products[message.index]!.last
    keeper.noteOrder({ type: 'activate', id, isAsk, price, size, sequence, exchangeTime: time, metadata })
  }

  /** Applies a message whose turn it is. Gives what speaks against it: then the book is wrong. */
  private applyMessage(keeper: Keeper, message: OrderMessage): string | null {
    const { id, sequence, price, size, time, metadata } = message
    const order = message.kind === 'other' ? undefined : keeper.orders.get(id)
    switch (message.kind) {
      case 'open':
        // With the right image and every number in its turn an order is opened once.
        if (order !== undefined) return 'order_known'
        keeper.putOrder(id, message.isAsk!, price!, size!, sequence, time, metadata)
        return null
      case 'match':
        if (order !== undefined && difference(order.size, size!).startsWith('-')) return 'match_too_large'
        keeper.matchOrder(id, size!, sequence, time, metadata)
        return null
      case 'change':
        if (order === undefined) keeper.advance(sequence!)
        else keeper.putOrder(id, order.isAsk, price ?? order.level.price, size!, sequence, time, metadata)
        return null
      case 'done':
        if (order !== undefined) keeper.removeOrder(id, sequence, time, metadata)
        else if (this.channel === 'full') this.note(keeper, 'done', message)
        else keeper.advance(sequence!)
        return null
      case 'received':
        this.note(keeper, 'received', message)
        return null
      default:
        keeper.advance(sequence!)
        return null
    }
  }

  private note(keeper: Keeper, type: 'received' | 'done', message: OrderMessage): void {
    const { id, isAsk, price, size, sequence, time, metadata } = message
    keeper.noteOrder({ type, id, isAsk, price, size, sequence, exchangeTime: time, metadata })
  }

  /** Step 2. */
  private askImage(index: number, id: string): void {
    this.host.fetch({ id, path: `/products/${this.nameOf(index)}/book?level=3`, weight: IMAGE_WEIGHT })
  }

  onFetched(id: string, answer: FetchAnswer): void {
    if (this.trades.onFetched(id, answer)) return
    const index = this.images.answered(id)
    if (index === undefined) return
    const image = answer.status === 200 ? readBookImage(answer.value) : undefined
    if (image !== undefined && this.align(index, image)) {
      this.images.done(index)
      return this.images.tick()
    }
    const why = image ? 'it does not fit the messages' : answer.status === 200 ? 'it has another form' : 'no answer'
    const facts = { instId: this.nameOf(index), status: answer.status, sequence: image?.sequence ?? null, why }
    this.host.log('warn', 'Image of no use', facts)
    this.images.again(index)
    this.images.tick()
  }

  /** Steps 3 and 5. False when the image is of no use: the book stays without one. */
  private align(index: number, image: BookImage): boolean {
    const keeper = this.host.keepers[index]!
    const product = this.state_.products[index]!
    const backlog = this.images.backlog(index)
    let last = image.sequence
    if (product.floor !== null && last < product.floor && ++product.below < FLOOR_TRIES_MAX) return false
    product.floor = null
    product.below = 0
    for (const [place, text] of backlog.entries()) {
      const { sequence } = this.reread(text)
      if (sequence === null || sequence <= last) continue
      if (sequence !== last + 1) return this.keepFrom(index, place + 1, image.sequence)
      last = sequence
    }
    keeper.beginImage(image.sequence, image.time)
    for (const isAsk of [false, true]) {
      const rows = isAsk ? image.asks : image.bids
      for (const at of worstFirst(rows, isAsk)) {
        const row = rows[at]!
        keeper.imageOrder(row[2]!, isAsk, row[0]!, row[1]!)
      }
    }
    last = image.sequence
    for (const text of backlog) {
      const message = this.reread(text)
      if (message.sequence === null || message.sequence <= last) continue
      last = message.sequence
      const clash = this.applyMessage(keeper, message)
      if (clash === null) continue
      this.host.log('warn', 'A waiting message contradicts the image', { instId: this.nameOf(index), clash })
      // Ends the image; the keeper is not live, so that nothing else is lost.
      keeper.lose(clash, null, message.id, false)
      return false
    }
    product.last = last
    product.known = last
    product.old = product.ahead = product.below = 0
    keeper.endImage()
    return true
  }

  /**
   * Of what waits, only the messages after the one that the image does not reach are worth waiting with: the next image is
   * newer, and a number that no image will ever reach must not stand in the way of every one.
   */
  private keepFrom(index: number, place: number, imageSequence: number): false {
    const dropped = this.reread(this.images.backlog(index)[place - 1]!).sequence
    if (dropped !== null && dropped - imageSequence <= FLOOR_AHEAD_MAX) this.state_.products[index]!.floor = dropped
    const rest = this.images.backlog(index).slice(place)
    this.images.reset(index)
    for (const text of rest) this.images.hold(index, text)
    return false
  }

  /** Reads a message that waited; it was read before, and is of this product. */
  private reread(text: string): OrderMessage {
    this.read(text)
    this.value = undefined
    return this.message
  }

  private onSchema(value: unknown): void {
    const schema = readSchema(value)
    if (schema === undefined)
      return this.host.log('error', 'Schema of another form', { start: this.text.slice(0, 200) })
    if (JSON.stringify(schema) === JSON.stringify(this.compact.schema)) return
    this.compact.schema = this.state_.schema = schema
    // What waits was told by the columns of before.
    for (const [index, { stage }] of this.books.entries()) {
      if (stage !== 'live' || this.images.backlog(index).length === 0) continue
      this.images.reset(index)
      this.images.want(index)
    }
  }

  private onOtherLevels(object: Record<string, unknown>): void {
    const reading = this.levels.fill(object)
    if (reading === 'read') return this.onLevels(this.levels.frame)
    const index = this.byName.get(textOf(object.product_id))
    if (reading === 'foreign' || index === undefined) return
    const { stage } = this.books[index]!
    if (stage === 'live' || stage === 'acked' || stage === 'asked')
      this.host.keepers[index]!.malformed(this.text.slice(0, 200))
  }

  /** L2: a snapshot makes the book, also a further one; updates before it mean nothing. */
  private onLevels(frame: LevelFrame): void {
    const subscription = this.books[frame.index]!
    const keeper = this.host.keepers[frame.index]!
    const { stage } = subscription
    if (stage !== 'live' && stage !== 'acked' && stage !== 'asked') return
    this.state_.products[frame.index]!.known = null
    if (!frame.isSnapshot) {
      subscription.dataUs = this.host.us
      if (!keeper.live) return
      putChanges(keeper.levels, frame)
      return keeper.update(frame)
    }
    if (stage === 'asked') this.channels.acknowledge(subscription, false)
    this.subscriptions.data(subscription)
    keeper.beginImage(null, frame.exchangeTime)
    putChanges(keeper.levels, frame)
    keeper.endImage(frame)
  }

  /** How long a product may be silent, µs. */
  private get limitUs(): number {
    return (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
  }

  /**
   * Each second for each product. One that tells of nothing new is a sign of life of the book; one that is ahead of the
   * book is none: the messages it knows of have yet to come.
   */
  private onHeartbeat(object: Record<string, unknown>): void {
    const index = this.byName.get(textOf(object.product_id))
    if (index === undefined) return
    const product = this.state_.products[index]!
    const subscription = this.books[index]!
    const sequence = wholeNumber(object.sequence)
    const newest = wholeNumber(object.last_trade_id)
    product.beatUs = this.host.us
    if (sequence !== undefined && subscription.stage === 'live') {
      product.known ??= sequence
      product.ahead = Math.max(0, sequence - product.known)
      if (product.ahead === 0) subscription.dataUs = this.host.us
    }
    if (newest !== undefined) this.trades.onHeartbeat(index, newest, this.limitUs)
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    const { limitUs } = this
    this.images.tick()
    this.trades.tick()
    for (const subscription of this.books) {
      if (subscription.stage !== 'live') continue
      this.watchHeartbeat(subscription, limitUs)
      // A quiet market: nothing waits, and the image alone is the book.
      const isDue = this.host.us - subscription.sinceUs > QUIET_US
      if (this.isL3 && isDue && !this.host.keepers[subscription.index]!.live) this.images.want(subscription.index)
    }
    this.subscriptions.tick(s => (s.kind === 'book' ? this.silenceUs(s, limitUs) : Number.POSITIVE_INFINITY))
  }

  /** How long a book may be silent: no message, and no heartbeat that agrees with what is known. */
  private silenceUs({ index }: Subscription, limitUs: number): number {
    const { ahead, beatUs } = this.state_.products[index]!
    if (this.host.silenceMs !== null || this.host.us - beatUs > limitUs || ahead === 0) return limitUs
    return this.isL3 || ahead >= LEVEL2_AHEAD_MIN ? MUTE_US : limitUs * LEVEL2_PATIENCE
  }

  /** A heartbeat that is gone while data come is subscribed to again; without data the book is, with its heartbeat. */
  private watchHeartbeat({ index, dataUs }: Subscription, limitUs: number): void {
    const product = this.state_.products[index]!
    const { us } = this.host
    const silentUs = us - product.beatUs
    if (silentUs <= limitUs || us - dataUs > limitUs / 4) return
    this.host.keepers[index]!.status('stalled', { channel: 'heartbeat', silent_ms: Math.round(silentUs / 1000) })
    product.beatUs = us
    this.channels.renewHeartbeat(index)
  }

  resync(index: number, reason: string): void {
    if (!this.isL3) return this.subscriptions.renew(this.books[index]!, reason)
    const product = this.state_.products[index]!
    product.last = null
    product.old = 0
    this.images.renew(index, reason)
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    const { channels, subscriptions, trades } = this
    return { ...this.state_, trades: trades.state, pending: channels.pending, list: subscriptions.list }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.images.state = this.state_.images
    this.trades.state = this.state_.trades
    this.channels.pending = this.state_.pending
    this.subscriptions.list = this.state_.list
    this.compact.schema = this.state_.schema
    this.indexBooks()
  }
}

/** Times of one form are in the order of their text. */
function isLater(time: ExchangeTime, than: string | null): boolean {
  return typeof time === 'string' && than !== null && time.length === than.length && time > than
}

function noteTime(product: ProductState, { time }: OrderMessage): void {
  if (typeof time === 'string' && (product.time === null || isLater(time, product.time))) product.time = time
}

/** A numeric zero removes, however it is written; prices of one value are one level, whatever their zeros. */
function putChanges(levels: LevelBook, frame: LevelFrame): void {
  const { isAsk, keys, prices, sizes, zeros } = frame
  for (let at = 0; at < keys.length; at++) {
    if (zeros[at]) levels.remove(isAsk[at]!, keys[at]!)
    else levels.set(isAsk[at]!, keys[at]!, prices[at]!, sizes[at]!, null)
  }
}

function describe(instId: string, { level, channel }: Selection): Instrument {
  const usual = level === 'l3' ? 'level3' : 'level2_batch'
  return { exchange: 'coinbase', instId, market: 'spot', level, channel: channel ?? usual }
}

/** Coinbase Exchange: see the head of this file. */
export const coinbase: Exchange = {
  id: 'coinbase',
  levels: ['l3', 'l2'],
  proof: { l3: { sequence: 'instrument', checksum: false }, l2: { sequence: 'none', checksum: false } },
  limits: LIMITS,
  choices: { channels: { l3: ['level3', 'full'] } },
  credentials: {
    levels: ['l3'],
    variables: ['COINBASE_API_KEY', 'COINBASE_API_SECRET', 'COINBASE_API_PASSPHRASE']
  },
  endpoints: ({ level }) => ({
    restUrl: 'https://api.exchange.coinbase.com',
    routes: [
      {
        url: 'wss://ws-feed.exchange.coinbase.com',
        feeds: ['book', 'trades'],
        instrumentsMax: INSTRUMENTS_MAX[level]
      }
    ]
  }),
  catalogue: () => readCoinbaseCatalogue,
  spell: spellCoinbase,
  describe,
  depthMax: () => Number.POSITIVE_INFINITY,
  open: host => new CoinbaseSession(host)
}
