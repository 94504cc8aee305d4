/**
 * Binance market streams, spot and USD-M perpetuals: `<symbol>@depth@100ms` or `@depth` (L2) and `@trade`.
 *
 * Synchronisation (github.com/binance/binance-spot-api-docs, web-socket-streams.md, "How to manage a local order book
 * correctly", copy of 2026-07-21; developers.binance.com, USDS-margined futures, "How to manage a local order book
 * correctly"):
 *  1. Open the stream, buffer its events; note `U` of the first one.
 *  2. `GET /api/v3/depth?symbol=…&limit=5000` (futures: `/fapi/v1/depth`, limit 1000): the image, with `lastUpdateId` N.
 *  3. N < first `U`, strictly: fetch again.
 *  4. Drop buffered events with `u` ≤ N. The first kept one contains N or starts at N+1: `U` ≤ N+1 ≤ `u`.
 *     Futures: drop `u` < N; the first event that is applied has `U` ≤ N ≤ `u`.
 *  5. Book := image, id := N. For each event: `u` ≤ id: ignore; `U` > id+1: gap, start over; else apply, id := `u`.
 *     Futures: after the first event, `pu` is the `u` of the event before; else start over.
 * Quantities are absolute, zero removes, also a level that is not known. There is no checksum and no count of orders.
 *
 * What the feed cannot show: an image has 5000 levels a side (futures 1000). Levels beyond them are unknown until they
 * change; a change of such a level adds it, so that the far end of a book has holes.
 *
 * Starting over needs no new subscription: only the image is fetched again. A stream without changes sends nothing, not
 * even a sign of life:
 *  - A book without a first event gets its image all the same; the first event must then continue it by step 5.
 *  - Whether a stream is subscribed the list of streams tells: it is asked for after a time of quiet, when a first event
 *    does not come, and now and then besides.
 *  - Whether a silent book is quiet or its stream mute, the number of its image over REST tells.
 * Pings of the protocol are answered by the socket. Connections end after 24 hours: another one is opened before.
 */
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import { readBinanceCatalogue, spellBinance } from './binance-catalogue.ts'
import {
  DepthFrame,
  DepthReader,
  fillDepth,
  putDepth,
  putImage,
  readHistory,
  readImage,
  readTrade
} from './binance-reader.ts'
import type {
  Endpoints,
  Exchange,
  FetchAnswer,
  FrameForm,
  Host,
  Keeper,
  Limits,
  Selection,
  Session
} from './exchange.ts'
import { Images, type ImagesState } from './images.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'
import { TradeChain, type TradeChainState, type TradeHole } from './trade-chain.ts'

const LIMITS: Limits = {
  // A stream without changes sends nothing: after so much silence REST is asked whether there were any.
  silenceMsMax: 300_000,
  pingMs: 30_000,
  ackMsMax: 10_000,
  // 300 in 5 minutes are allowed.
  connectsPerMinuteMax: 50,
  connectSpacingMs: 250,
  // Five messages a second are allowed, pongs counted.
  sendSpacingMs: 250,
  // Of 6000: other programs at the same address need some, too.
  restWeightPerMinuteMax: 4000,
  frameBytesMax: 16 * 1024 * 1024
}
/** A futures address has 2400 a minute: weights count so many times there, so that 4000 of ours are 1600 of them. */
const FUTURES_WEIGHT = 2.5

/** Of 1024 streams, so that the images of one connection do not eat the budget. */
const INSTRUMENTS_MAX = 200
const PARAMS_MAX = 200
/** An acknowledged book without an event for so long is quiet: its image is asked for without one. */
const QUIET_US = 5_000_000
/** A stream without a first event for so long may not be subscribed: the list of streams tells. */
const FIRST_EVENT_US_MAX = 60_000_000
/** So often the list of streams is asked for besides: silence would not tell of a stream that was lost. */
const LIST_US = 120_000_000
/** A book that has not reached the number of REST after so long is mute. */
const MUTE_US = 10_000_000
/** After so long a silent book is asked about again when REST did not answer. */
const PROBE_RETRY_US = 30_000_000
const PROBES_AT_ONCE_MAX = 4
/** So many old events in a row mean that the exchange has started to count anew. */
const OLD_EVENTS_MAX = 600
/**
 * The exchange ends a connection after 24 hours, and the next one must be whole before: a handover of 200 instruments needs
 * 12 minutes of the budget for images, and several connections share that budget.
 */
const LIFE_US = 21 * 3_600_000_000
/** Connections that were opened together must not be opened anew together: so long has one handover after the other. */
const STAGGER_S_MAX = 2 * 3600
/** Refusals that name a mistake in the request (0 to 3): another try would be refused, too. */
const MISTAKE_MAX = 3
/**
 * Images cost much and wait for their budget: few at once, and no frames for those that are far from their turn. A request
 * is always answered in the end: asking again sooner would only put a second costly one behind the first.
 */
const IMAGES = { atOnceMax: 4, answerMsMax: 3_600_000, idleFramesMax: 50 }
/** The paces that a depth stream may have, after `@depth`. */
const PACES = ['', '@0ms', '@100ms', '@250ms', '@500ms', '@1000ms']
const DEPTH_CHANNEL = /^depth(?:@\d+ms)?$/

/** What differs between the markets. */
interface MarketRest {
  image(symbol: string): { path: string; weight: number }
  /** The smallest image: its number is wanted alone. */
  probe(symbol: string): { path: string; weight: number }
  history(symbol: string, from: number): { path: string; weight: number }
}

const SPOT: MarketRest = {
  image: symbol => ({ path: `/api/v3/depth?symbol=${symbol}&limit=5000`, weight: 250 }),
  probe: symbol => ({ path: `/api/v3/depth?symbol=${symbol}&limit=5`, weight: 5 }),
  history: (symbol, from) => ({
    path: `/api/v3/historicalTrades?symbol=${symbol}&fromId=${from}&limit=1000`,
    weight: 25
  })
}
/** The history from an id on needs a key here: the newest trades are the best that can be had. */
const FUTURES: MarketRest = {
  image: symbol => ({ path: `/fapi/v1/depth?symbol=${symbol}&limit=1000`, weight: 20 * FUTURES_WEIGHT }),
  probe: symbol => ({ path: `/fapi/v1/depth?symbol=${symbol}&limit=5`, weight: 2 * FUTURES_WEIGHT }),
  history: symbol => ({ path: `/fapi/v1/trades?symbol=${symbol}&limit=1000`, weight: Math.ceil(5 * FUTURES_WEIGHT) })
}

/** Where the update numbers of a book stand. */
interface Chain {
  /** The last number in the book; null without one. */
  last: number | null
  /** Whether no event was applied since the image. */
  isFresh: boolean
  /** Old events in a row. */
  old: number
}

type Method = 'SUBSCRIBE' | 'UNSUBSCRIBE' | 'LIST_SUBSCRIPTIONS'

/** A message that was not answered yet: for which subscriptions (places in the list), and when it was sent. */
interface Asked {
  readonly method: Method
  readonly places: number[]
  readonly us: number
}

/** What is known of a silent book: whether it is quiet, or its stream mute. */
interface Probe {
  /** The request under way; null: none. */
  id: string | null
  /** Not to be asked about before, µs. */
  dueUs: number
  /** The number of REST that the book has not reached yet, and since when it is known, µs; null: none. */
  target: number | null
  targetUs: number
}

interface SessionState {
  pulse: PulseState
  images: ImagesState
  trades: TradeChainState
  list: Subscription[]
  chains: Chain[]
  requests: number
  asked: Record<string, Asked>
  /** Parts of refused messages that are to be asked for by themselves, one after the other; the one under way. */
  parts: number[][]
  part: number | null
  openedUs: number
  leaving: boolean
  /** By instrument. */
  probes: Probe[]
  probesAsked: number
  /** By place in the list: since when a stream was asked for that has not brought anything; null: it has. */
  eventlessUs: (number | null)[]
  /** When the list of streams was asked for last, µs. */
  listUs: number
}

class BinanceSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly pulse: Pulse
  private readonly images: Images
  private readonly trades: TradeChain
  private readonly byName = new Map<string, number>()
  /** Symbols by the names of their depth streams, and instruments by the lower-case names that streams begin with. */
  private readonly depthStreams = new Map<string, string>()
  private readonly byStreamName = new Map<string, number>()
  private readonly reader = new DepthReader(this.depthStreams, this.byName)
  private readonly slowFrame = new DepthFrame()
  private isDepth = false
  private value: unknown
  private text = ''
  /** What the line at hand wants to be asked and left: it goes out in few messages at the end of the line. */
  private asking: Subscription[] = []
  private leavingNow: Subscription[] = []
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.pulse = new Pulse(host, LIMITS, () => void this.send('LIST_SUBSCRIPTIONS', []))
    this.images = new Images(host, (index, id) => this.askImage(index, id), IMAGES)
    this.trades = new TradeChain(host, (index, from, _to, id) => {
      host.fetch({ id, ...restOf(this.instrument(index)).history(this.encoded(index), from) })
    })
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => this.ask(batch),
      s => this.leave(s)
    )
    this.subscriptions.imagesApart = true
    for (const [index, { instrument }] of host.keepers.entries()) {
      const name = lowerCase(instrument.instId)
      this.byName.set(instrument.instId, index)
      this.byStreamName.set(name, index)
      for (const pace of PACES) this.depthStreams.set(`${name}@depth${pace}`, instrument.instId)
    }
    this.state_ = {
      pulse: this.pulse.state,
      images: this.images.state,
      trades: this.trades.state,
      list: this.subscriptions.list,
      chains: host.keepers.map(() => ({ last: null, isFresh: true, old: 0 })),
      requests: 0,
      asked: {},
      parts: [],
      part: null,
      openedUs: 0,
      leaving: false,
      probes: host.keepers.map(() => ({ id: null, dueUs: 0, target: null, targetUs: 0 })),
      probesAsked: 0,
      eventlessUs: this.subscriptions.list.map(() => null),
      listUs: 0
    }
  }

  private instrument(index: number): Instrument {
    return this.host.keepers[index]!.instrument
  }

  private encoded(index: number): string {
    return encodeURIComponent(this.instrument(index).instId)
  }

  onOpen(): void {
    this.state_.openedUs = this.state_.listUs = this.host.us
    this.pulse.heard()
    this.subscriptions.start()
    this.flush()
  }

  private ask(batch: readonly Subscription[]): void {
    for (const subscription of batch) {
      if (subscription.kind === 'book') this.forget(subscription.index)
      this.state_.eventlessUs[this.placeOf(subscription)] = this.host.us
    }
    this.asking.push(...batch)
  }

  private leave(subscription: Subscription): void {
    if (subscription.kind === 'book') this.forget(subscription.index)
    this.leavingNow.push(subscription)
  }

  /** Neither an image nor a probe under way is of use to a subscription that begins or ends. */
  private forget(index: number): void {
    this.images.reset(index)
    this.forgetProbe(index)
  }

  private forgetProbe(index: number): void {
    this.state_.probes[index] = { id: null, dueUs: 0, target: null, targetUs: 0 }
  }

  /** Sends what the line at hand has collected. */
  private flush(): void {
    const { leavingNow, asking } = this
    if (leavingNow.length > 0) {
      this.leavingNow = []
      for (const places of this.packed(leavingNow)) this.send('UNSUBSCRIBE', places)
    }
    if (asking.length > 0) {
      this.asking = []
      for (const places of this.packed(asking)) this.send('SUBSCRIBE', places)
    }
  }

  /** Places in the list, so many that they fit one message. */
  private packed(subscriptions: readonly Subscription[]): number[][] {
    const places = subscriptions.map(s => this.placeOf(s))
    return Array.from({ length: Math.ceil(places.length / PARAMS_MAX) }, (_, n) =>
      places.slice(n * PARAMS_MAX, (n + 1) * PARAMS_MAX)
    )
  }

  /** The list has the feeds of one instrument after those of another: no frame needs to look through it. */
  private placeOf({ index, kind }: Pick<Subscription, 'index' | 'kind'>): number {
    const { feeds } = this.host
    return index * feeds.length + feeds.indexOf(kind)
  }

  private send(method: Method, places: number[]): number {
    const id = ++this.state_.requests
    if (method === 'LIST_SUBSCRIPTIONS') this.state_.listUs = this.host.us
    this.state_.asked[id] = { method, places, us: this.host.us }
    const params = places.map(place => this.streamOf(this.subscriptions.list[place]!))
    this.host.send(JSON.stringify(method === 'LIST_SUBSCRIPTIONS' ? { method, id } : { method, params, id }))
    return id
  }

  private streamOf({ index, kind }: Subscription): string {
    const { instId, channel } = this.instrument(index)
    return `${lowerCase(instId)}@${kind === 'book' ? channel : 'trade'}`
  }

  read(text: string): FrameForm {
    this.text = text
    this.isDepth = this.reader.read(text)
    if (this.isDepth) return 'msg'
    const parsed = parseFrame(text)
    this.value = parsed.value
    return parsed.embeddable ? 'msg' : 'text'
  }

  apply(): void {
    this.pulse.heard()
    if (this.isDepth) this.onDepth(this.byName.get(this.reader.frame.symbol)!, this.reader.frame)
    else {
      const object = asObject(this.value)
      this.value = undefined
      if (object) this.onObject(object)
      else this.host.unreadable(this.text)
    }
    this.flush()
  }

  /** Whatever is no depth event of the usual form. Other streams may be on the connection by its address: not ours. */
  private onObject(object: Record<string, unknown>): void {
    const { stream } = object
    if (typeof stream === 'string') return this.onStream(stream, asObject(object.data) ?? {})
    if (object.e === 'serverShutdown') return this.onShutdown(object)
    const isDepth = object.e === 'depthUpdate'
    if (isDepth || object.e === 'trade') {
      const index = typeof object.s === 'string' ? this.byName.get(object.s) : undefined
      if (index !== undefined) this.onEvent(index, isDepth, object)
    } else if (typeof object.id === 'number') this.onAnswer(object.id, object)
    else if (object.code !== undefined || object.error !== undefined) {
      this.host.log('warn', 'Error from the exchange', failureOf(object))
    }
  }

  /** A combined frame. What the name of the stream says counts: other depth streams have events of the same form. */
  private onStream(stream: string, data: Record<string, unknown>): void {
    if (stream === '!serverShutdown') return this.onShutdown(data)
    const at = stream.indexOf('@')
    const channel = stream.slice(at + 1)
    const index = at < 0 ? undefined : this.byStreamName.get(stream.slice(0, at))
    const isDepth = DEPTH_CHANNEL.test(channel)
    if (index !== undefined && (isDepth || channel === 'trade')) this.onEvent(index, isDepth, data)
  }

  private onEvent(index: number, isDepth: boolean, data: Record<string, unknown>): void {
    const { slowFrame } = this
    if (!isDepth) this.onTrade(index, data)
    else if (!fillDepth(slowFrame, data) || slowFrame.symbol !== this.instrument(index).instId) this.onMalformed(index)
    else this.onDepth(index, slowFrame)
  }

  private onMalformed(index: number): void {
    const subscription = this.subscriptionOf(index, 'book')
    if (subscription && isOn(subscription)) this.host.keepers[index]!.malformed(this.text.slice(0, 200))
  }

  private onDepth(index: number, frame: DepthFrame): void {
    const subscription = this.subscriptionOf(index, 'book')
    const keeper = this.host.keepers[index]!
    // What still comes of a subscription that was left concerns nobody.
    if (subscription === undefined || !isOn(subscription)) return
    if (frame.link === null && keeper.instrument.market !== 'spot') return this.onMalformed(index)
    this.heard(subscription)
    this.subscriptions.data(subscription)
    if (keeper.live) this.onUpdate(index, keeper, frame)
    else this.hold(index)
  }

  private subscriptionOf(index: number, kind: FeedKind): Subscription | undefined {
    return this.host.feeds.includes(kind) ? this.subscriptions.list[this.placeOf({ index, kind })] : undefined
  }

  /** Something has come of a stream that was asked for. */
  private heard(subscription: Subscription): void {
    if (subscription.stage === 'asked') this.subscriptions.acked(subscription, null)
    this.state_.eventlessUs[this.placeOf(subscription)] = null
  }

  /** Step 1. The first event of a subscription is what the image is asked for, unless it does not come. */
  private hold(index: number): void {
    this.images.hold(index, this.text)
    this.images.want(index)
  }

  /** Step 2. */
  private askImage(index: number, id: string): void {
    this.host.fetch({ id, ...restOf(this.instrument(index)).image(this.encoded(index)) })
  }

  /** Step 5. */
  private onUpdate(index: number, keeper: Keeper, frame: DepthFrame): void {
    const chain = this.state_.chains[index]!
    const verdict = judge(chain, frame, keeper.instrument)
    if (verdict === 'old') {
      if (++chain.old > OLD_EVENTS_MAX) this.lose(index, keeper, frame, chain)
    } else if (verdict === 'gap') this.lose(index, keeper, frame, chain)
    else {
      frame.previous = previousOf(chain, frame, keeper.instrument)
      advance(chain, frame)
      putDepth(keeper.levels, frame)
      keeper.update(frame)
    }
  }

  /** Starts over. What revealed the gap is the first event of the new buffer. */
  private lose(index: number, keeper: Keeper, frame: DepthFrame, chain: Chain): void {
    const isSpot = keeper.instrument.market === 'spot'
    const received = isSpot || chain.isFresh ? frame.first : frame.link
    keeper.lose('sequence', isSpot ? chain.last! + 1 : chain.last, received)
    this.hold(index)
  }

  resync(index: number, reason: string): void {
    this.images.renew(index, reason)
  }

  onFetched(id: string, answer: FetchAnswer): void {
    const hole = this.trades.hole(id)
    if (hole) return this.onHistory(hole, answer)
    const probed = this.state_.probes.findIndex(probe => probe.id === id)
    if (probed >= 0) return this.onProbed(probed, answer)
    const index = this.images.answered(id)
    if (index === undefined) return
    const image = answer.status === 200 ? readImage(answer.value) : undefined
    if (image === undefined) {
      const { instId } = this.instrument(index)
      this.host.log('warn', 'Image not to be had', { instId, status: answer.status, ...failureOf(answer.value) })
      return this.images.again(index)
    }
    const backlog = this.images.backlog(index)
    const keeper = this.host.keepers[index]!
    const chain: Chain = { last: image.id, isFresh: true, old: 0 }
    if (!this.fits(chain, backlog, keeper.instrument)) return this.images.again(index)
    this.state_.chains[index] = chain
    keeper.beginImage(image.id, null)
    putImage(keeper.levels, image)
    this.bridge(keeper, chain, backlog)
    this.images.done(index)
    // A quiet book lives from its image on; that the image is no older than the stream the first event must show.
    const subscription = this.subscriptionOf(index, 'book')
    if (subscription?.stage === 'acked') this.subscriptions.data(subscription)
  }

  /** Steps 3 to 5, by the numbers alone: whether the events that waited continue an image. */
  private fits(image: Chain, backlog: readonly string[], instrument: Instrument): boolean {
    const chain = { ...image }
    for (const [n, text] of backlog.entries()) {
      const frame = this.held(text)
      // Step 3.
      if (n === 0 && image.last! < frame.first) return false
      const verdict = judge(chain, frame, instrument)
      if (verdict === 'gap') return false
      if (verdict === 'next') advance(chain, frame)
    }
    return true
  }

  /** Steps 4 and 5: the events that waited become a part of the image. */
  private bridge(keeper: Keeper, chain: Chain, backlog: readonly string[]): void {
    const image = { bids: '', asks: '', checksum: null, exchangeTime: null }
    let previous: number | null = null
    for (const text of backlog) {
      const frame = this.held(text)
      if (judge(chain, frame, keeper.instrument) !== 'next') continue
      previous = previousOf(chain, frame, keeper.instrument)
      advance(chain, frame)
      putDepth(keeper.levels, frame)
    }
    keeper.endImage({ ...image, sequence: chain.last, previous })
  }

  /** A waiting event once more. It was read before it was held. */
  private held(text: string): DepthFrame {
    if (this.reader.read(text)) return this.reader.frame
    const object = asObject(parseFrame(text).value) ?? {}
    fillDepth(this.slowFrame, asObject(object.data) ?? object)
    return this.slowFrame
  }

  private onTrade(index: number, data: Record<string, unknown>): void {
    const subscription = this.subscriptionOf(index, 'trades')
    if (subscription === undefined || !isOn(subscription)) return
    this.heard(subscription)
    subscription.dataUs = this.host.us
    const keeper = this.host.keepers[index]!
    const print = readTrade(data)
    if (data.e !== 'trade' || data.s !== keeper.instrument.instId || print === undefined) {
      keeper.malformed(this.text.slice(0, 200), 'trades')
    } else if (print.trade) this.trades.live(index, print.id, print.trade)
    else this.trades.pass(index, print.id)
  }

  private onHistory(hole: TradeHole, answer: FetchAnswer): void {
    const trades = answer.status === 200 ? readHistory(answer.value) : undefined
    if (trades === undefined) {
      const { instId } = this.instrument(hole.index)
      this.host.log('warn', 'Trades not to be had', { instId, status: answer.status, ...failureOf(answer.value) })
    }
    // The history of futures leaves out what is no trade of the market.
    this.trades.fill(hole, trades ?? [], this.instrument(hole.index).market !== 'spot')
  }

  private onAnswer(id: number, object: Record<string, unknown>): void {
    const asked = Object.hasOwn(this.state_.asked, id) ? this.state_.asked[id] : undefined
    if (asked === undefined) return
    delete this.state_.asked[id]
    const isError = object.code !== undefined || object.error !== undefined
    const subscriptions = asked.places.map(place => this.subscriptions.list[place]!)
    if (asked.method === 'LIST_SUBSCRIPTIONS') this.onList(asked, object.result)
    else if (asked.method === 'UNSUBSCRIBE') {
      // An error means that there was nothing to be left.
      for (const s of subscriptions) if (s.stage === 'leaving') this.subscriptions.left(s)
    } else if (isError) this.onRefusal(asked.places, failureOf(object))
    else for (const s of subscriptions) if (s.stage === 'asked') this.subscriptions.acked(s, null)
    if (this.state_.part === id) this.state_.part = null
    if (this.state_.part === null) this.askPart()
  }

  /** One bad stream has the whole message refused: it is halved until the bad ones stand alone. */
  private onRefusal(places: readonly number[], detail: { code: unknown; msg: string }): void {
    const waiting = places.filter(place => this.subscriptions.list[place]!.stage === 'asked')
    if (waiting.length === 1) {
      const isMistake = typeof detail.code === 'number' && detail.code >= 0 && detail.code <= MISTAKE_MAX
      this.subscriptions.refuse(this.subscriptions.list[waiting[0]!]!, isMistake, detail)
    } else if (waiting.length > 1) {
      const middle = Math.ceil(waiting.length / 2)
      this.state_.parts.push(waiting.slice(middle), waiting.slice(0, middle))
    }
  }

  /** Asks for the next part of what was refused. Those that wait for their turn are not overdue. */
  private askPart(): void {
    const { parts } = this.state_
    const isAsked = (place: number) => this.subscriptions.list[place]!.stage === 'asked'
    while (parts.length > 0) {
      for (const place of parts.flat().filter(isAsked)) this.subscriptions.list[place]!.sinceUs = this.host.us
      const places = parts.pop()!.filter(isAsked)
      if (places.length === 0) continue
      this.state_.part = this.send('SUBSCRIBE', places)
      return
    }
  }

  /** What the exchange says is subscribed, against what should be. What was acknowledged later cannot be in it. */
  private onList(asked: Asked, result: unknown): void {
    if (!Array.isArray(result)) return
    const listed = new Set<unknown>(result)
    for (const s of this.subscriptions.list) {
      if ((s.stage !== 'live' && s.stage !== 'acked') || s.sinceUs > asked.us) continue
      const stream = this.streamOf(s)
      if (listed.has(stream)) continue
      this.host.log('warn', 'Subscription missing', { instId: this.instrument(s.index).instId, stream })
      if (s.kind === 'book') this.forget(s.index)
      this.subscriptions.left(s)
    }
  }

  /** The connection will be closed soon. */
  private onShutdown(notice: Record<string, unknown>): void {
    const time = typeof notice.E === 'number' ? notice.E : null
    for (const keeper of this.host.keepers) keeper.status('maintenance', { event: 'serverShutdown', time })
    this.replace('serverShutdown')
  }

  private replace(reason: string): void {
    if (!this.state_.leaving) this.host.replace(reason)
    this.state_.leaving = true
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    const { us } = this.host
    if (us - this.state_.openedUs >= LIFE_US + this.staggerUs) this.replace('24 hours')
    // Silence alone proves nothing: `watch` finds out what it means.
    this.subscriptions.tick(() => Number.POSITIVE_INFINITY)
    for (const s of this.subscriptions.list) if (s.kind === 'book') this.watch(s)
    if (this.isListDue()) this.send('LIST_SUBSCRIPTIONS', [])
    this.images.tick()
    this.trades.tick()
    this.flush()
  }

  /** A book that says nothing: before its first event it needs its image, later it is quiet or mute. */
  private watch(subscription: Subscription): void {
    const { us, silenceMs, keepers } = this.host
    const { index, stage, sinceUs, dataUs } = subscription
    if (stage === 'acked' && us - sinceUs >= QUIET_US) this.images.want(index)
    if (stage !== 'live') return
    // Without a book there is nothing to compare; its image is being asked for.
    if (!keepers[index]!.live) return this.forgetProbe(index)
    const probe = this.state_.probes[index]!
    if (probe.target !== null) this.compare(subscription, probe, probe.target)
    else if (us - dataUs > (silenceMs ?? LIMITS.silenceMsMax) * 1000) this.askProbe(index, probe)
  }

  /** Whether a book has got to the number that REST has told, or its stream is mute. */
  private compare(subscription: Subscription, probe: Probe, target: number): void {
    const { us, keepers } = this.host
    const { index, dataUs } = subscription
    if (this.state_.chains[index]!.last! >= target) this.forgetProbe(index)
    else if (us - probe.targetUs >= MUTE_US) {
      keepers[index]!.status('stalled', { channel: 'book', silent_ms: Math.round((us - dataUs) / 1000) })
      this.subscriptions.renew(subscription, 'silence')
    }
  }

  private askProbe(index: number, probe: Probe): void {
    const { us } = this.host
    if (probe.id !== null || us < probe.dueUs) return
    if (this.state_.probes.filter(({ id }) => id !== null).length >= PROBES_AT_ONCE_MAX) return
    probe.id = `probe-${index}-${++this.state_.probesAsked}`
    this.host.fetch({ id: probe.id, ...restOf(this.instrument(index)).probe(this.encoded(index)) })
  }

  private onProbed(index: number, answer: FetchAnswer): void {
    const { us, keepers } = this.host
    const probe = this.state_.probes[index]!
    probe.id = null
    const image = answer.status === 200 ? readImage(answer.value) : undefined
    if (image === undefined) {
      const { instId } = this.instrument(index)
      const facts = { instId, probe: true, status: answer.status, ...failureOf(answer.value) }
      this.host.log('warn', 'Image not to be had', facts)
      probe.dueUs = us + PROBE_RETRY_US
    } else if (!keepers[index]!.live) this.forgetProbe(index)
    else if (image.id <= this.state_.chains[index]!.last!) {
      // Merely quiet: nothing has changed that the book does not have.
      this.subscriptions.of(index, 'book').dataUs = us
    } else {
      probe.target = image.id
      probe.targetUs = us
    }
  }

  /** Whether to ask for the list of streams: for a first event that does not come, once, and now and then besides. */
  private isListDue(): boolean {
    const { us } = this.host
    const { listUs, eventlessUs } = this.state_
    if (us - listUs >= LIST_US) return true
    return this.subscriptions.list.some(({ stage }, place) => {
      const sinceUs = eventlessUs[place]
      if (typeof sinceUs !== 'number' || (stage !== 'acked' && stage !== 'live')) return false
      const dueUs = sinceUs + FIRST_EVENT_US_MAX
      return us >= dueUs && listUs < dueUs
    })
  }

  /** The same for the same connection, whenever it is opened. */
  private get staggerUs(): number {
    let hash = 0
    for (const character of this.host.keepers[0]?.instrument.instId ?? '')
      hash = (hash * 31 + character.codePointAt(0)!) % STAGGER_S_MAX
    return hash * 1_000_000
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    return this.state_
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.images.state = this.state_.images
    this.trades.state = this.state_.trades
    this.subscriptions.list = this.state_.list
  }
}

/** Whether what comes of a subscription concerns somebody. */
function isOn({ stage }: Subscription): boolean {
  return stage === 'live' || stage === 'acked' || stage === 'asked'
}

/** Steps 4 and 5: whether an event continues a book, is older than it, or leaves something out. */
function judge({ last, isFresh }: Chain, frame: DepthFrame, { market }: Instrument): 'next' | 'old' | 'gap' {
  const id = last!
  if (market === 'spot') {
    if (frame.last <= id) return 'old'
    return frame.first > id + 1 ? 'gap' : 'next'
  }
  if (isFresh) {
    if (frame.last < id) return 'old'
    return frame.first > id ? 'gap' : 'next'
  }
  if (frame.link === id) return 'next'
  return frame.last <= id ? 'old' : 'gap'
}

/** The number before an event's own: futures tell it, on spot it is the one that the book has. */
function previousOf({ last }: Chain, { link }: DepthFrame, { market }: Instrument): number | null {
  return market === 'spot' ? last : link
}

function advance(chain: Chain, frame: DepthFrame): void {
  chain.last = frame.last
  chain.isFresh = false
  chain.old = 0
}

/** `{"code":2,"msg":"…","id":…}`, or the same under `error`. */
function failureOf(value: unknown): { code: unknown; msg: string } {
  const object = asObject(value) ?? {}
  const { code, msg } = asObject(object.error) ?? object
  return { code: typeof code === 'number' ? code : textOf(code), msg: textOf(msg).slice(0, 300) }
}

/** Stream names are in lower case, by no language's rules. */
function lowerCase(instId: string): string {
  return instId.toLowerCase()
}

function restOf({ market }: Instrument): MarketRest {
  return market === 'spot' ? SPOT : FUTURES
}

function endpoints({ market }: Selection): Endpoints {
  const isSpot = market !== 'perp'
  return {
    restUrl: isSpot ? 'https://api.binance.com' : 'https://fapi.binance.com',
    routes: [
      {
        url: isSpot ? 'wss://stream.binance.com:9443/ws' : 'wss://fstream.binance.com/public/ws',
        feeds: ['book', 'trades'],
        instrumentsMax: INSTRUMENTS_MAX
      }
    ]
  }
}

/** The slow stream is told every second on spot, every 250 ms on futures. */
function describe(instId: string, { level, market, updateSpeed }: Selection): Instrument {
  const channel = updateSpeed === '1000ms' ? 'depth' : 'depth@100ms'
  return { exchange: 'binance', instId, market: market === 'perp' ? 'perp' : 'spot', level, channel }
}

/** Binance: see the head of this file. */
export const binance: Exchange = {
  id: 'binance',
  levels: ['l2'],
  proof: { l2: { sequence: 'instrument', checksum: false } },
  limits: LIMITS,
  choices: { markets: ['spot', 'perp'], updateSpeeds: ['100ms', '1000ms'] },
  endpoints,
  catalogue: market =>
    market === 'perp' ? readBinanceCatalogue('perp', Math.ceil(FUTURES_WEIGHT)) : readBinanceCatalogue('spot', 20),
  spell: spellBinance,
  describe,
  depthMax: () => Number.POSITIVE_INFINITY,
  open: host => new BinanceSession(host)
}
