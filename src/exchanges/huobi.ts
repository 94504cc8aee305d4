/**
 * HTX (Huobi) spot: market by price in steps of 100 ms (`mbp.150`, `mbp.400`; L2) on `/feed`, trades on `/ws`.
 *
 * Synchronisation (huobiapi.github.io/docs/spot/v1/en, market by price; htx.com/support 900000047626, 900001078223; read
 * 2026-11):
 *  1. On `/feed`: subscribe; keep what comes.
 *  2. On the same connection `req` the same topic, with the same number of levels: the numbers of another connection never
 *     meet those of this one.
 *  3. The image has `seqNum` S. Messages with `prevSeqNum` < S are contained in it and dropped. Looked for is the message with
 *     `prevSeqNum` = S: if every one kept is beyond S the image is too old, and is asked for again, at least 100 ms later; if
 *     every one is before S, it is still to come. `data` may be null right after a subscription: ask again.
 *  4. That message and those after it are applied, each with `prevSeqNum` = the `seqNum` before it. Anything else is a gap:
 *     the image is asked for again. Messages without levels move the number on.
 *
 * Prices and sizes are JSON numbers, with up to 18 decimals or with exponents (`9.121E-7`): their text is never turned into a
 * number and back. Sizes are absolute, 0 removes. There is no checksum.
 *
 * A message shows the difference of two books of 150 or of 400 levels. What a book is described by is its channel alone:
 * `mbp.400`, unless `mbp.150` is chosen, which is enough for snapshots of at most 150 levels.
 */

import { isDecimal, priceKey } from '../core/decimal.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import type { Exchange, FrameForm, Host, Keeper, Limits, Selection, Session, Trade } from './exchange.ts'
import { readHuobiCatalogue, spellHuobi } from './huobi-catalogue.ts'
import { fillHuobiFrame, HuobiBookFrame, HuobiBookReader, parseTexts, wholeNumber, wholeText } from './huobi-reader.ts'
import { Images, type ImagesState } from './images.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // A book tells each 100 ms that it is alive, changed or not.
  silenceMsMax: 30_000,
  // The exchange asks, each 5 s; a connection that is silent for three times as long is dead.
  pingMs: 15_000,
  ackMsMax: 10_000,
  connectsPerMinuteMax: 60,
  connectSpacingMs: 200,
  // Between two requests of images; an answer to a ping waits no longer than its turn.
  sendSpacingMs: 100,
  restWeightPerMinuteMax: 600,
  frameBytesMax: 16 * 1024 * 1024
}
const CHANNELS = ['mbp.150', 'mbp.400']
const CHANNEL = 'mbp.400'
const TRADES = 'trade.detail'
/** How long an image may wait for the message that continues it. */
const WAIT_US_MAX = 5_000_000
/** The long id of a trade has some 30 digits. */
const LONG_ID_DIGITS_MAX = 64

interface Chain {
  last: number
  previous: number
}

/** An image that came before the message that continues it. */
interface WaitingImage {
  readonly text: string
  readonly sequence: number
  readonly untilUs: number
}

interface SessionState {
  /** When something came last, µs. */
  heardUs: number
  requests: number
  /** For each subscription the id of the request without an answer. */
  asked: (string | null)[]
  /** For each subscription since when it is one, ms of the exchange's clock as far as that is known. */
  sinceMs: number[]
  chains: Chain[]
  waiting: (WaitingImage | null)[]
  images: ImagesState
  list: Subscription[]
}

/** What a topic is about. */
interface Topic {
  readonly index: number
  readonly kind: FeedKind
}

class HuobiSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly images: Images
  private readonly topics = new Map<string, Topic>()
  private readonly reader: HuobiBookReader
  private isBookFrame = false
  private object: Record<string, unknown> | undefined
  private text = ''
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => {
        for (const s of batch) this.ask(s)
      },
      s => this.leave(s)
    )
    this.subscriptions.acksApart = true
    this.subscriptions.imagesApart = true
    // Step 2.
    this.images = new Images(host, (index, id) => host.send(JSON.stringify({ req: this.topic(index, 'book'), id })))
    const books = new Map<string, Topic>()
    for (const index of host.keepers.keys()) {
      for (const kind of host.feeds) {
        this.topics.set(this.topic(index, kind), { index, kind })
        if (kind === 'book') books.set(this.topic(index, kind), { index, kind })
      }
    }
    this.reader = new HuobiBookReader(books)
    const { list } = this.subscriptions
    this.state_ = {
      heardUs: 0,
      requests: 0,
      asked: list.map(() => null),
      sinceMs: list.map(() => 0),
      chains: host.keepers.map(() => ({ last: 0, previous: 0 })),
      waiting: host.keepers.map(() => null),
      images: this.images.state,
      list
    }
  }

  private topic(index: number, kind: FeedKind): string {
    const { instId, channel } = this.host.keepers[index]!.instrument
    return `market.${instId}.${kind === 'book' ? channel : TRADES}`
  }

  onOpen(): void {
    this.state_.heardUs = this.host.us
    this.subscriptions.start()
  }

  /** Step 1. */
  private ask(subscription: Subscription): void {
    this.state_.sinceMs[this.placeOf(subscription)] = Math.floor(this.host.us / 1000)
    this.request('sub', subscription)
  }

  private leave(subscription: Subscription): void {
    if (subscription.kind === 'book') this.forgetImage(subscription.index)
    this.request('unsub', subscription)
  }

  private forgetImage(index: number): void {
    this.images.reset(index)
    this.state_.waiting[index] = null
  }

  private placeOf(subscription: Subscription): number {
    return this.subscriptions.list.indexOf(subscription)
  }

  private request(what: 'sub' | 'unsub', subscription: Subscription): void {
    const id = `${what}-${++this.state_.requests}`
    this.state_.asked[this.placeOf(subscription)] = id
    this.host.send(JSON.stringify({ [what]: this.topic(subscription.index, subscription.kind), id }))
  }

  read(text: string): FrameForm {
    this.text = text
    this.object = undefined
    this.isBookFrame = this.reader.read(text)
    if (this.isBookFrame) return 'msg'
    const parsed = parseFrame(text)
    if (asObject(parsed.value) !== undefined) this.object = asObject(parseTexts(text))
    return parsed.embeddable ? 'msg' : 'text'
  }

  apply(): void {
    this.state_.heardUs = this.host.us
    if (this.isBookFrame) this.onBook(this.reader.frame)
    else if (this.object !== undefined) this.onObject(this.object)
    else this.host.unreadable(this.text)
  }

  /** Everything but book updates of the usual form. Numbers are texts here. */
  private onObject(object: Record<string, unknown>): void {
    if ('ping' in object) this.onPing(object.ping)
    else if (object.status === 'error') this.onError(object)
    else if ('subbed' in object) this.onSubscribed(textOf(object.subbed), object.ts)
    else if ('unsubbed' in object) this.onUnsubscribed(textOf(object.unsubbed))
    else if ('rep' in object) this.onImage(object)
    else if ('ch' in object) this.onData(textOf(object.ch), object)
  }

  /** The answer has the very number that was sent, which may be beyond what a double holds. */
  private onPing(number: unknown): void {
    const text = wholeText(number, LONG_ID_DIGITS_MAX)
    if (text !== undefined) this.host.send(`{"pong":${text}}`)
  }

  /** Frames of another form than the usual one, and trades. */
  private onData(name: string, object: Record<string, unknown>): void {
    const topic = this.topics.get(name)
    if (topic === undefined) return
    if (topic.kind === 'trades') return this.onTrades(topic.index, object)
    const frame = new HuobiBookFrame()
    if (fillHuobiFrame(frame, name, object.ts, object.tick, true)) this.onBook(frame)
    else this.host.keepers[topic.index]!.malformed(this.text.slice(0, 200))
  }

  /** The subscription that data belongs to; undefined when it belongs to nobody any more. */
  private receiver(index: number, kind: FeedKind): Subscription | undefined {
    const subscription = this.subscriptions.of(index, kind)
    // What comes first may come before its acknowledgement.
    if (subscription.stage === 'asked') this.accept(subscription)
    if (subscription.stage !== 'acked' && subscription.stage !== 'live') return undefined
    subscription.dataUs = this.host.us
    return subscription
  }

  private accept(subscription: Subscription): void {
    this.state_.asked[this.placeOf(subscription)] = null
    this.subscriptions.acked(subscription, null)
    if (subscription.kind === 'book') this.images.want(subscription.index)
  }

  private onBook(frame: HuobiBookFrame): void {
    const { index } = this.topics.get(frame.topic)!
    const subscription = this.receiver(index, 'book')
    if (subscription === undefined) return
    this.subscriptions.data(subscription)
    const keeper = this.host.keepers[index]!
    if (keeper.live) this.onUpdate(index, keeper, frame)
    else this.onEarly(index, frame)
  }

  /** Step 4. */
  private onUpdate(index: number, keeper: Keeper, frame: HuobiBookFrame): void {
    const chain = this.state_.chains[index]!
    if (frame.previous !== chain.last) {
      if (frame.sequence === chain.last && frame.previous === chain.previous) return
      keeper.lose('sequence', chain.last, frame.previous)
      // It may be the first one of the next book.
      this.images.hold(index, this.text)
      return
    }
    chain.last = frame.sequence
    chain.previous = frame.previous
    frame.putInto(keeper.levels)
    keeper.update(frame)
  }

  /** Step 1, and the end of step 3 where the image was there first. */
  private onEarly(index: number, frame: HuobiBookFrame): void {
    const waiting = this.state_.waiting[index]!
    this.images.hold(index, this.text)
    // An image that is due is not left to the next tick: these frames come each 100 ms.
    if (waiting === null) this.images.tick()
    if (waiting === null || frame.previous < waiting.sequence) return
    this.state_.waiting[index] = null
    this.join(index, waiting.text)
  }

  /** Step 3. */
  private onImage(object: Record<string, unknown>): void {
    const index = this.images.answered(textOf(object.id))
    if (index === undefined) return
    if (object.data === null) this.images.again(index)
    else this.join(index, this.text)
  }

  /** Steps 3 and 4: puts an image and what waits for it together, asks for another image, or waits for more. */
  private join(index: number, text: string): void {
    const keeper = this.host.keepers[index]!
    const image = new HuobiBookFrame()
    const { rep, ts, data } = asObject(parseTexts(text))!
    if (rep !== this.topic(index, 'book') || !fillHuobiFrame(image, rep, ts, data, false)) {
      keeper.malformed(text.slice(0, 200))
      return this.images.again(index)
    }
    const backlog = this.images.backlog(index)
    const first = this.firstAfter(backlog, image.sequence)
    if (first === 'too old') return this.images.again(index)
    if (first === 'to come') {
      const { sequence } = image
      this.state_.waiting[index] = { text, sequence, untilUs: this.host.us + WAIT_US_MAX }
      return
    }
    const chain = this.state_.chains[index]!
    chain.last = image.sequence
    keeper.beginImage(image.sequence, image.exchangeTime)
    image.putInto(keeper.levels)
    let end = image
    for (let at = first; at < backlog.length; at++) {
      const frame = this.reread(backlog[at]!)
      chain.last = frame.sequence
      chain.previous = frame.previous
      frame.putInto(keeper.levels)
      end = frame
    }
    keeper.endImage(end)
    this.images.done(index)
  }

  /**
   * Step 3: the place of the message with `prevSeqNum` = S. `too old`: an image is needed from behind a message that waits, or
   * from behind a hole between two of them. `to come`: there is none yet.
   */
  private firstAfter(backlog: readonly string[], sequence: number): number | 'too old' | 'to come' {
    let found = -1
    let last = 0
    let previous = 0
    for (let at = 0; at < backlog.length; at++) {
      const frame = this.reread(backlog[at]!)
      if (found < 0) {
        if (frame.previous < sequence) continue
        if (frame.previous > sequence) return 'too old'
        found = at
      } else if (frame.previous !== last) {
        if (frame.sequence === last && frame.previous === previous) continue
        return 'too old'
      }
      last = frame.sequence
      previous = frame.previous
    }
    return found < 0 ? 'to come' : found
  }

  /** A frame that waited; it was read before. */
  private reread(text: string): HuobiBookFrame {
    const { frame } = this.reader
    if (this.reader.read(text)) return frame
    const { ch, ts, tick } = asObject(parseTexts(text))!
    fillHuobiFrame(frame, textOf(ch), ts, tick, true)
    return frame
  }

  /** One match: several fills, newest first. The first message after a subscription may be an old one. */
  private onTrades(index: number, object: Record<string, unknown>): void {
    const subscription = this.receiver(index, 'trades')
    if (subscription === undefined) return
    const keeper = this.host.keepers[index]!
    const data = asObject(object.tick)?.data
    const sinceMs = this.state_.sinceMs[this.placeOf(subscription)]!
    const trades = Array.isArray(data) ? data.map(row => readTrade(asObject(row), sinceMs)) : [undefined]
    if (trades.includes(undefined)) {
      keeper.malformed(this.text.slice(0, 200), 'trades')
      keeper.status('gap', { channel: 'trades', cause: 'build_fail', expected: null, received: null })
      return
    }
    for (const trade of trades.toReversed()) keeper.trade(trade!)
  }

  private onSubscribed(name: string, ts: unknown): void {
    const topic = this.topics.get(name)
    const subscription = topic && this.subscriptions.of(topic.index, topic.kind)
    if (subscription === undefined) return
    const place = this.placeOf(subscription)
    this.state_.asked[place] = null
    this.state_.sinceMs[place] = wholeNumber(ts) ?? this.state_.sinceMs[place]!
    if (subscription.stage === 'asked') this.accept(subscription)
  }

  private onUnsubscribed(name: string): void {
    const topic = this.topics.get(name)
    if (topic === undefined) return
    if (topic.kind === 'book') this.forgetImage(topic.index)
    this.left(this.subscriptions.of(topic.index, topic.kind))
  }

  private left(subscription: Subscription): void {
    this.state_.asked[this.placeOf(subscription)] = null
    this.subscriptions.left(subscription)
  }

  /** A symbol that is refused concerns itself alone. What is not called invalid may be had later. */
  private onError(object: Record<string, unknown>): void {
    const id = textOf(object.id)
    const detail = { code: textOf(object['err-code'] ?? object.code), msg: textOf(object['err-msg']).slice(0, 300) }
    const image = this.images.answered(id)
    if (image !== undefined) {
      this.host.log('warn', 'No image', { instId: this.host.keepers[image]!.instrument.instId, ...detail })
      return this.images.again(image)
    }
    const place = this.state_.asked.indexOf(id)
    const subscription = place < 0 ? this.named(detail.msg) : this.subscriptions.list[place]
    if (subscription?.stage === 'leaving') this.left(subscription)
    else if (subscription?.stage === 'asked') {
      this.state_.asked[this.placeOf(subscription)] = null
      this.subscriptions.refuse(subscription, /^invalid\b/i.test(detail.msg), detail)
    } else this.host.log('warn', 'Error from the exchange', detail)
  }

  /** An error without an id names the symbol or the topic in its text: `invalid mbp.150.symbol linkusdt`. */
  private named(message: string): Subscription | undefined {
    const words = new Set(message.split(/[^A-Za-z0-9]+/))
    return this.subscriptions.list.find(
      s => (s.stage === 'asked' || s.stage === 'leaving') && words.has(this.host.keepers[s.index]!.instrument.instId)
    )
  }

  onTick(): void {
    const { us } = this.host
    if (us - this.state_.heardUs > LIMITS.pingMs * 1000) return this.host.hangup(`no frame within ${LIMITS.pingMs} ms`)
    for (const [index, waiting] of this.state_.waiting.entries()) {
      if (waiting === null || us < waiting.untilUs) continue
      this.state_.waiting[index] = null
      this.images.again(index)
    }
    this.images.tick()
    // A book speaks each 100 ms: one that was acknowledged and says nothing is mute.
    for (const subscription of this.subscriptions.list) {
      const mute = subscription.stage === 'acked' && us - subscription.sinceUs > LIMITS.ackMsMax * 1000
      if (mute) this.subscriptions.renew(subscription, 'no updates')
    }
    const silenceUs = (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
    this.subscriptions.tick(s => (s.kind === 'book' ? silenceUs : Number.POSITIVE_INFINITY))
  }

  resync(index: number, reason: string): void {
    this.images.renew(index, reason)
  }

  onFetched(): void {
    // Images come over the connection: nothing is ever fetched.
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    return { ...this.state_, images: this.images.state, list: this.subscriptions.list }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.images.state = this.state_.images
    this.subscriptions.list = this.state_.list
  }
}

/** A trade of which all numbers are texts; undefined when it cannot be read. `direction` is the taker's. */
function readTrade(row: Record<string, unknown> | undefined, sinceMs: number): Trade | undefined {
  const { id, tradeId, ts, amount, price, direction } = row ?? {}
  const tradeText = wholeText(tradeId)
  const timeMs = wholeNumber(ts)
  if (tradeText === undefined || timeMs === undefined || typeof price !== 'string' || typeof amount !== 'string')
    return undefined
  if (!isDecimal(amount) || !isDecimal(price) || Number.isNaN(priceKey(price))) return undefined
  if (direction !== 'buy' && direction !== 'sell') return undefined
  const backfill = timeMs < sinceMs ? { backfill: true } : {}
  return {
    id: tradeText,
    isSell: direction === 'sell',
    price,
    size: amount,
    exchangeTime: timeMs,
    metadata: JSON.stringify({ ...backfill, id: wholeText(id, LONG_ID_DIGITS_MAX) })
  }
}

/** `channel` is the topic's: `mbp.400` unless chosen, whatever the depth of snapshots, which is not known here. */
function describe(instId: string, { level, channel }: Selection): Instrument {
  return { exchange: 'huobi', instId, market: 'spot', level, channel: channel ?? CHANNEL }
}

/** HTX (Huobi) spot: see the head of this file. */
export const huobi: Exchange = {
  id: 'huobi',
  levels: ['l2'],
  proof: { l2: { sequence: 'instrument', checksum: false } },
  limits: LIMITS,
  choices: { channels: { l2: CHANNELS } },
  compression: 'gzip',
  endpoints: () => ({
    restUrl: 'https://api.huobi.pro',
    // All that a new connection asks for must be sent before the exchange misses the answer to its second ping.
    routes: [
      { url: 'wss://api.huobi.pro/feed', feeds: ['book'], instrumentsMax: 20 },
      { url: 'wss://api.huobi.pro/ws', feeds: ['trades'], instrumentsMax: 50 }
    ]
  }),
  catalogue: () => readHuobiCatalogue,
  spell: spellHuobi,
  describe,
  depthMax: ({ channel }) => (channel === 'mbp.150' ? 150 : 400),
  open: host => new HuobiSession(host)
}
