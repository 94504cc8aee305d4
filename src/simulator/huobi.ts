import { gzipSync } from 'node:zlib'
import { COMMON_FAULT_KINDS, type Fault, type FaultKind } from './faults.ts'
import { huobiPrecision, huobiSpec, listedInstruments, splitName } from './listing.ts'
import { diffLevels, type Level, levelsOf, Market, type MarketListener, type Side, type Trade } from './market.ts'
import { createRandom, hashText, type Random } from './random.ts'
import type {
  Connection,
  ConnectLimit,
  RestAnswer,
  RestRequest,
  SimulatorServer,
  Subscription,
  Venue
} from './server.ts'
import { exchangeNowMs, parseObject } from './server.ts'

const PUSH_MS = 100
const REQUEST_SPACING_MS = 100
/** How long an image may be on its way; updates overtake it. */
const IMAGE_DELAY_MS_MAX = 250
const UNANSWERED_PINGS_MAX = 2
const HALT_MS = 10_000
const FIRST_TRADE_ID = 100_000_000_000
/** The digits that follow the number of a match in the long ids of trades. */
const TRADE_ID_TAIL = 255_757_000_000_000
const FRACTION_DIGITS_MAX = 18

/** The levels a side of the incremental books: those told each 100 ms, and those told at once. */
const PACED_DEPTHS: readonly string[] = ['150', '400']
const INSTANT_DEPTHS: readonly string[] = ['5', '20']
/** The only symbols whose books are told at once. */
const INSTANT_SYMBOLS: readonly string[] = [
  'btcusdt',
  'ethusdt',
  'xrpusdt',
  'eosusdt',
  'ltcusdt',
  'etcusdt',
  'adausdt',
  'dashusdt',
  'bsvusdt'
]

/** What a connection asked for. */
interface Session {
  readonly topics: Map<string, Follower>
  lastRequestMs: number
  lastPingMs: number
  /** The numbers of pings without an answer, oldest first. */
  readonly pings: number[]
}

/** One topic of a connection. */
interface Follower extends Subscription {
  readonly feed: Feed
  readonly view: BookView | undefined
  /** Acknowledged, and never told anything. */
  readonly isSilent: boolean
  /** The book before the subscription, for those who are to get an old one. */
  readonly old: Image
  wasAsked: boolean
}

/** A book at a moment, as far down as a topic shows it. */
interface Image {
  readonly bid: readonly Level[]
  readonly ask: readonly Level[]
  readonly sequence: number
}

/** One incremental book of a symbol: what its followers were left with. */
class BookView {
  readonly topic: string
  readonly isInstant: boolean
  readonly followers = new Set<Follower>()
  told: Image
  /** What was told before that. */
  old: Image
  private readonly feed: Feed
  private readonly depth: number

  constructor(feed: Feed, topic: string, depth: string) {
    this.feed = feed
    this.topic = topic
    this.depth = Number.parseInt(depth, 10)
    this.isInstant = INSTANT_DEPTHS.includes(depth)
    this.told = this.image()
    this.old = { ...this.told, sequence: this.told.sequence - 1 }
  }

  /** The book as it is now. */
  image(): Image {
    const { market, sequence } = this.feed
    return {
      bid: levelsOf(market.orders('bid'), this.depth),
      ask: levelsOf(market.orders('ask'), this.depth),
      sequence
    }
  }

  /** Starts from the book as it is, when nobody has listened so far. */
  catchUp(): void {
    if (this.followers.size > 0) return
    this.told = this.image()
    this.old = { ...this.told, sequence: this.told.sequence - 1 }
  }

  /** Tells what changed. Paced books tell that nothing did, too; the others leave out a side that stayed as it was. */
  tell(nowMs: number): void {
    const image = this.image()
    const asks = this.changes('ask', image)
    const bids = this.changes('bid', image)
    if (this.isInstant && asks.length + bids.length === 0) return
    const sides: string[] = []
    if (!this.isInstant || asks.length > 0) sides.push(`"asks":${this.feed.rows(asks)}`)
    if (!this.isInstant || bids.length > 0) sides.push(`"bids":${this.feed.rows(bids)}`)
    const numbers = `"seqNum":${image.sequence},"prevSeqNum":${this.told.sequence}`
    const text = `{"ch":"${this.topic}","ts":${nowMs},"tick":{${numbers},${sides.join()}}}`
    this.old = this.told
    this.told = image
    for (const follower of this.followers) follower.connection.sendFrame(follower, text, 'update', nowMs)
  }

  private changes(side: Side, image: Image): Level[] {
    const { gone, set } = diffLevels(side, this.told[side], image[side])
    const sign = side === 'bid' ? -1 : 1
    return [...gone.map(({ price }) => ({ price, size: 0, count: 0 })), ...set].sort(
      (a, b) => (a.price - b.price) * sign
    )
  }
}

/** One symbol: its market, its books and who follows its trades. */
class Feed implements MarketListener {
  readonly symbol: string
  readonly market: Market
  readonly views = new Map<string, BookView>()
  readonly tradeFollowers = new Set<Follower>()
  sequence: number
  private executed: Trade[] = []
  private nextPushMs = 0

  constructor(symbol: string, settings: HuobiSettings, nowMs: number) {
    this.symbol = symbol
    this.market = new Market(huobiSpec(symbol), settings.seed, settings.eventsPerSecond, nowMs)
    this.sequence = 129_803_000_000 + ((hashText(symbol) ^ settings.seed) >>> 12)
    this.market.listener = this
  }

  get isFollowed(): boolean {
    return this.tradeFollowers.size > 0 || [...this.views.values()].some(view => view.followers.size > 0)
  }

  /** The incremental book of so many levels, made at its first use. */
  view(topic: string, depth: string): BookView {
    const known = this.views.get(topic)
    if (known) return known
    const view = new BookView(this, topic, depth)
    this.views.set(topic, view)
    return view
  }

  changed(order: { id: number }): void {
    this.sequence += 1 + (order.id % 3)
    for (const view of this.views.values()) {
      if (view.isInstant && view.followers.size > 0) view.tell(exchangeNowMs())
    }
  }

  traded(trade: Trade): void {
    this.executed.push(trade)
  }

  /** Lets the market move, unless it is halted; tells trades at once and the paced books each 100 ms. */
  tick(elapsedMs: number, isHalted: boolean, nowMs: number): void {
    if (!isHalted) this.market.advance(elapsedMs, nowMs)
    for (const match of matchesOf(this.executed)) this.tellTrades(match, nowMs)
    this.executed = []
    if (nowMs < this.nextPushMs) return
    this.nextPushMs = nowMs + PUSH_MS - (nowMs % PUSH_MS)
    for (const view of this.views.values()) {
      if (view.isInstant || view.followers.size === 0) continue
      // The number moves on even when nothing else does.
      this.sequence++
      view.tell(nowMs)
    }
  }

  /** Sends the last match to a new follower, however old it is. */
  sendLastTrades(follower: Follower, nowMs: number): void {
    const last = matchesOf(this.market.trades).at(-1)
    if (last) follower.connection.sendFrame(follower, this.tradeText(last, last[0]!.atMs), 'other', nowMs)
  }

  /** Levels as JSON text. */
  rows(levels: readonly Level[]): string {
    return `[${levels.map(({ price, size }) => `[${this.price(price)},${this.amount(size, price)}]`).join()}]`
  }

  private tellTrades(match: readonly Trade[], nowMs: number): void {
    const text = this.tradeText(match, nowMs)
    for (const follower of this.tradeFollowers) follower.connection.sendFrame(follower, text, 'trade', nowMs)
  }

  private tradeText(match: readonly Trade[], atMs: number): string {
    const { takerId, atMs: doneMs } = match[0]!
    const rows = [...match].reverse().map(trade => this.tradeRow(trade))
    const tick = `{"id":${takerId},"ts":${doneMs},"data":[${rows.join()}]}`
    return `{"ch":"market.${this.symbol}.trade.detail","ts":${atMs},"tick":${tick}}`
  }

  private tradeRow({ id, takerId, atMs, size, price, side }: Trade): string {
    // Put together as text: no double holds so many digits.
    const longId = `${takerId}${TRADE_ID_TAIL + (hashText(String(id)) % 1_000_000_000)}`
    const numbers = `"amount":${this.amount(size, id)},"price":${this.price(price)}`
    return `{"id":${longId},"ts":${atMs},"tradeId":${FIRST_TRADE_ID + id},${numbers},"direction":"${side}"}`
  }

  private price(ticks: number): string {
    return numberText(String(ticks), this.market.spec.priceDecimals)
  }

  /**
   * The text of a size. Some are odd down to the 18th decimal, as those of orders in money terms are. Which, and how,
   * follows from the whole units and the salt alone, so that a size that has not changed is told in the same words.
   */
  private amount(units: number, salt: number): string {
    const { sizeDecimals } = this.market.spec
    const chance = hashText(`${units} ${salt}`)
    if (units === 0 || chance % 8 !== 0) return numberText(String(units), sizeDecimals)
    const length = FRACTION_DIGITS_MAX - sizeDecimals
    const tail = `${hashText(`${chance}`)}${hashText(`${chance} more`)}`.slice(0, length).padEnd(length, '7')
    return numberText(`${units}${tail}`, FRACTION_DIGITS_MAX)
  }
}

/** Fills of one taker belong together. */
function matchesOf(trades: readonly Trade[]): Trade[][] {
  const matches: Trade[][] = []
  for (const trade of trades) {
    const last = matches.at(-1)
    if (last && last[0]!.takerId === trade.takerId) last.push(trade)
    else matches.push([trade])
  }
  return matches
}

/**
 * The JSON number of a whole number of ticks or units, in the exchange's manner: at least one digit after the point,
 * and an exponent below a thousandth and from ten millions on, such as `0.0`, `188358.0`, `9.121E-7` or
 * `1.01748847777E7`.
 */
export function numberText(whole: string, decimals: number): string {
  const digits = whole.replace(/^0+/, '')
  if (digits === '') return '0.0'
  const exponent = digits.length - 1 - decimals
  const significant = digits.replace(/0+$/, '')
  if (exponent < -3 || exponent >= 7) {
    return `${significant[0]}.${significant.slice(1) || '0'}E${exponent}`
  }
  if (exponent < 0) return `0.${'0'.repeat(-exponent - 1)}${significant}`
  const integer = significant.slice(0, exponent + 1).padEnd(exponent + 1, '0')
  return `${integer}.${significant.slice(exponent + 1) || '0'}`
}

/** What the simulated HTX is made from. */
export interface HuobiSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds between two pings. */
  readonly heartbeatMs: number
}

/**
 * Simulates the market feeds of HTX (formerly Huobi) spot: incremental books by price on `/feed`, with images on
 * request, trades on `/ws`, symbols over REST. Every frame is gzip. Small numbers have exponents, some amounts 18
 * decimals. `rest-error` and `stale-image` concern the requests for images: no book is served over REST.
 */
export class Huobi implements Venue {
  readonly paths = ['/feed', '/ws']
  readonly connectLimit: ConnectLimit = { max: Number.POSITIVE_INFINITY, windowMs: 1000, blockMs: 0 }
  readonly faultKinds: readonly FaultKind[] = [
    ...COMMON_FAULT_KINDS.filter(kind => kind !== 'corrupt-checksum' && kind !== 'restart-notice'),
    'rest-error',
    'stale-image',
    'refuse',
    'silent-ack',
    'drop-trade'
  ]
  private readonly settings: HuobiSettings
  private readonly listed: readonly string[]
  private readonly random: Random
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  private server: SimulatorServer | undefined
  private haltedFromMs = 0
  private haltedUntilMs = 0

  constructor(settings: HuobiSettings) {
    this.settings = settings
    this.listed = listedInstruments('huobi', settings.instruments)
    this.random = createRandom(settings.seed)
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  encode(text: string): Buffer {
    return gzipSync(text, { level: 1 })
  }

  opened(connection: Connection): void {
    this.sessions.set(connection, {
      topics: new Map(),
      lastRequestMs: 0,
      lastPingMs: connection.openedMs,
      pings: []
    })
  }

  closed(connection: Connection): void {
    for (const topic of [...(this.sessions.get(connection)?.topics.keys() ?? [])]) this.forget(connection, topic)
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    const request = parseObject(text)
    if (!session) return
    if (!request) {
      this.fail(connection, {}, 'not json string')
      return
    }
    if (typeof request.pong === 'number') {
      const at = session.pings.indexOf(request.pong)
      session.pings.splice(0, at + 1)
      return
    }
    const ident = request.id === undefined ? {} : { id: request.id }
    if (typeof request.sub === 'string') this.subscribe(connection, session, request.sub, ident)
    else if (typeof request.unsub === 'string') this.unsubscribe(connection, session, request.unsub, ident)
    else if (typeof request.req === 'string') this.request(connection, session, request.req, ident)
    else this.fail(connection, ident, `invalid topic ${String(request.sub ?? request.unsub ?? request.req ?? '')}`)
  }

  tick(elapsedMs: number, nowMs: number): void {
    for (const feed of this.feeds.values()) {
      if (feed.isFollowed) feed.tick(elapsedMs, this.isHalted(nowMs), nowMs)
    }
  }

  keepHouse(nowMs: number): void {
    for (const [connection, session] of this.sessions) {
      if (nowMs - session.lastPingMs < this.settings.heartbeatMs || nowMs < connection.mutedUntilMs) continue
      session.lastPingMs = nowMs
      if (session.pings.length >= UNANSWERED_PINGS_MAX) {
        connection.close(1006)
        continue
      }
      session.pings.push(nowMs)
      connection.sendEvent(`{"ping":${nowMs}}`)
    }
  }

  idleCode(): number {
    return 0
  }

  /** Nothing is announced on the connections: a maintenance halts the markets, a restart just ends the connections. */
  announce(fault: Fault, server: SimulatorServer): void {
    if (fault.kind === 'maintenance') {
      this.haltedFromMs = exchangeNowMs()
      this.haltedUntilMs = this.haltedFromMs + (fault.ms ?? HALT_MS)
      return
    }
    for (const connection of server.connections) connection.close(1006)
  }

  rest({ path, query }: RestRequest, nowMs: number): RestAnswer {
    switch (path) {
      case '/v1/common/timestamp':
        return { status: 200, body: { status: 'ok', data: nowMs } }
      case '/v2/market-status':
        return { status: 200, body: { code: 200, message: 'success', data: this.marketStatus(nowMs) } }
      case '/v1/common/symbols':
        return answerList(this.listed.map(symbolFacts))
      case '/v2/settings/common/symbols':
        return answerList(this.listed.map(settingsFacts))
      case '/v1/settings/common/market-symbols': {
        const asked = query.get('symbols')?.split(',')
        return answerList(this.listed.filter(symbol => asked?.includes(symbol) ?? true).map(marketFacts))
      }
      default:
        return { status: 404, body: { status: 'error', 'err-code': 'not-found', 'err-msg': 'Not Found', data: null } }
    }
  }

  private isHalted(nowMs: number): boolean {
    return nowMs < this.haltedUntilMs
  }

  private marketStatus(nowMs: number): Record<string, unknown> {
    if (!this.isHalted(nowMs)) return { marketStatus: 1 }
    const { haltedFromMs: haltStartTime, haltedUntilMs: haltEndTime } = this
    return { marketStatus: 2, haltStartTime, haltEndTime, haltReason: 1, affectedSymbols: 'all' }
  }

  /** Why a topic cannot be had on a connection; undefined if it can. */
  private refusal(connection: Connection, topic: string): string | undefined {
    const wish = readTopic(topic)
    if (!wish || (wish.depth !== undefined) !== (connection.path === '/feed')) return `invalid topic ${topic}`
    const { symbol, depth } = wish
    const isInstant = depth !== undefined && INSTANT_DEPTHS.includes(depth)
    if (!this.listed.includes(symbol) || (isInstant && !INSTANT_SYMBOLS.includes(symbol))) {
      return depth === undefined ? `invalid symbol ${symbol}` : `invalid mbp.${depth}.symbol ${symbol}`
    }
    return undefined
  }

  private subscribe(connection: Connection, session: Session, topic: string, ident: Record<string, unknown>): void {
    const nowMs = exchangeNowMs()
    const refusal = this.refusal(connection, topic)
    const wish = readTopic(topic)
    if (refusal !== undefined || !wish) {
      this.fail(connection, ident, refusal ?? '')
      return
    }
    const { symbol, depth } = wish
    const isBook = depth !== undefined
    const server = this.server
    if (this.isHalted(nowMs) || (isBook && server?.takeFault('refuse', symbol))) {
      this.fail(connection, ident, 'symbol trade not open now')
      return
    }
    this.forget(connection, topic)
    const feed = this.feed(symbol)
    const view = isBook ? feed.view(topic, depth) : undefined
    view?.catchUp()
    const follower: Follower = {
      connection,
      instrument: symbol,
      isBook,
      numbering: topic,
      mutedUntilMs: 0,
      feed,
      view,
      isSilent: (isBook && server?.takeFault('silent-ack', symbol)) ?? false,
      old: view?.old ?? { bid: [], ask: [], sequence: 0 },
      wasAsked: false
    }
    session.topics.set(topic, follower)
    connection.sendEvent(JSON.stringify({ ...ident, status: 'ok', subbed: topic, ts: nowMs }))
    if (!isBook) feed.sendLastTrades(follower, nowMs)
    if (!follower.isSilent) (view?.followers ?? feed.tradeFollowers).add(follower)
    server?.subscribed(follower)
  }

  private unsubscribe(connection: Connection, session: Session, topic: string, ident: Record<string, unknown>): void {
    if (!session.topics.has(topic)) {
      this.fail(connection, ident, `unsub with not subbed topic ${topic}`)
      return
    }
    this.forget(connection, topic)
    connection.sendEvent(JSON.stringify({ ...ident, status: 'ok', unsubbed: topic, ts: exchangeNowMs() }))
  }

  /**
   * Answers with the image of a book, after a moment: what was told up to the request is in it, the rest follows it.
   */
  private request(connection: Connection, session: Session, topic: string, ident: Record<string, unknown>): void {
    const nowMs = exchangeNowMs()
    const isHasty = nowMs - session.lastRequestMs < REQUEST_SPACING_MS
    session.lastRequestMs = nowMs
    const wish = readTopic(topic)
    const refusal = isHasty ? '429 too many request' : this.refusal(connection, topic)
    if (refusal !== undefined || wish?.depth === undefined) {
      this.fail(connection, ident, refusal ?? `invalid topic ${topic}`)
      return
    }
    const error = this.server?.takeRestError(wish.symbol)
    if (error) {
      this.fail(connection, ident, error.status === 429 ? '429 too many request' : 'request timeout')
      return
    }
    const follower = session.topics.get(topic)
    if (follower?.isSilent) return
    const data = this.image(follower, wish.symbol, topic, wish.depth)
    const head = JSON.stringify({ ...ident, status: 'ok', ts: nowMs, rep: topic })
    const text = `${head.slice(0, -1)},"data":${data}}`
    this.server?.later(this.random.integer(IMAGE_DELAY_MS_MAX), () => {
      if (connection.socket.readyState === connection.socket.OPEN) connection.sendEvent(text)
    })
  }

  private image(follower: Follower | undefined, symbol: string, topic: string, depth: string): string {
    const feed = this.feed(symbol)
    const view = feed.view(topic, depth)
    // Asked over another connection than the updates come on, the numbers never meet.
    if (!follower) return imageText(feed, { ...view.image(), sequence: feed.sequence + 1 })
    const isFirst = !follower.wasAsked
    follower.wasAsked = true
    if (this.server?.takeFault('stale-image', symbol)) return imageText(feed, follower.old)
    // Right after a subscription there may be no image yet.
    return isFirst && this.random.next() < 0.3 ? 'null' : imageText(feed, view.told)
  }

  private fail(connection: Connection, ident: Record<string, unknown>, message: string): void {
    const answer = { ts: exchangeNowMs(), status: 'error', 'err-code': 'bad-request', 'err-msg': message, ...ident }
    connection.sendEvent(JSON.stringify(answer))
  }

  private forget(connection: Connection, topic: string): void {
    const topics = this.sessions.get(connection)?.topics
    const follower = topics?.get(topic)
    if (!follower) return
    topics?.delete(topic)
    follower.view?.followers.delete(follower)
    follower.feed.tradeFollowers.delete(follower)
    connection.drop(follower)
  }

  private feed(symbol: string): Feed {
    const known = this.feeds.get(symbol)
    if (known) return known
    const feed = new Feed(symbol, this.settings, exchangeNowMs())
    this.feeds.set(symbol, feed)
    return feed
  }
}

/** What a topic is about: a book of so many levels, or trades; undefined for everything else. */
function readTopic(topic: string): { symbol: string; depth: string | undefined } | undefined {
  const match = /^market\.(\w+)\.(?:mbp\.(\d+)|trade\.detail)$/.exec(topic)
  if (!match) return undefined
  const [, symbol, depth] = match
  const isKnown = depth === undefined || PACED_DEPTHS.includes(depth) || INSTANT_DEPTHS.includes(depth)
  return isKnown ? { symbol: symbol!, depth } : undefined
}

function imageText(feed: Feed, { bid, ask, sequence }: Image): string {
  return `{"bids":${feed.rows(bid)},"asks":${feed.rows(ask)},"seqNum":${sequence}}`
}

/** An answer with a list of facts, each of them JSON text already. */
function answerList(facts: readonly string[]): RestAnswer {
  return { status: 200, body: `{"status":"ok","data":[${facts.join()}],"ts":"${exchangeNowMs()}","full":1}` }
}

/** JSON text of an object, of which the values are JSON text already. */
function objectText(members: Record<string, string>): string {
  return `{${Object.entries(members)
    .map(([name, value]) => `"${name}":${value}`)
    .join()}}`
}

/** The facts of a symbol that all lists share, as JSON text. */
function factsOf(symbol: string): Record<'base' | 'quote' | 'price' | 'amount' | 'least' | 'most', string> {
  const [base, quote] = splitName(symbol).map(coin => JSON.stringify(coin.toLowerCase())) as [string, string]
  const { price, amount } = huobiPrecision(symbol)
  const [least, most] = [numberText('10', amount), numberText('1000000', 0)]
  return { base, quote, price: String(price), amount: String(amount), least, most }
}

/** A symbol as `/v1/common/symbols` shows it: JSON text. */
function symbolFacts(symbol: string): string {
  const { base, quote, price, amount, least, most } = factsOf(symbol)
  return objectText({
    'base-currency': base,
    'quote-currency': quote,
    'price-precision': price,
    'amount-precision': amount,
    'symbol-partition': '"main"',
    symbol: `"${symbol}"`,
    state: '"online"',
    'value-precision': '8',
    'min-order-amt': least,
    'max-order-amt': most,
    'min-order-value': '5',
    'limit-order-min-order-amt': least,
    'limit-order-max-order-amt': most,
    'sell-market-min-order-amt': least,
    'sell-market-max-order-amt': most,
    'api-trading': '"enabled"',
    tags: '""'
  })
}

/** A symbol as `/v2/settings/common/symbols` shows it: JSON text. */
function settingsFacts(symbol: string): string {
  const { base, quote, price, amount } = factsOf(symbol)
  return objectText({
    sc: `"${symbol}"`,
    bc: base,
    bcdn: base.toUpperCase(),
    qc: quote,
    qcdn: quote.toUpperCase(),
    state: '"online"',
    te: 'true',
    tpp: price,
    tap: amount,
    ttp: '8',
    tags: '""'
  })
}

/** A symbol as `/v1/settings/common/market-symbols` shows it: JSON text. */
function marketFacts(symbol: string): string {
  const { base, quote, price, amount, least, most } = factsOf(symbol)
  return objectText({
    symbol: `"${symbol}"`,
    bc: base,
    qc: quote,
    state: '"online"',
    pp: price,
    ap: amount,
    vp: '8',
    minoa: least,
    maxoa: most,
    minov: '5',
    lominoa: least,
    lomaxoa: most,
    at: '"enabled"'
  })
}
