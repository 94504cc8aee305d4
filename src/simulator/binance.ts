import { COMMON_FAULT_KINDS, type Fault, type FaultKind } from './faults.ts'
import {
  type BinanceKind,
  type BinanceListing,
  binanceListing,
  binanceSpec,
  listedInstruments,
  splitName
} from './listing.ts'
import { diffLevels, type Level, levelsOf, Market, type MarketListener, type Side, type Trade } from './market.ts'
import { hashText } from './random.ts'
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

/** Milliseconds between the events of a depth stream, by what its name says. */
const PACES: Record<BinanceKind, Readonly<Record<string, number>>> = {
  spot: { '': 1000, '100ms': 100 },
  usdm: { '': 250, '500ms': 500, '100ms': 100 }
}
const MESSAGES_PER_SECOND_MAX: Record<BinanceKind, number> = { spot: 5, usdm: 10 }
const STREAMS_MAX = 1024
/** Spot connections are pinged every 20 s and must answer within 60 s, futures every 3 min and within 10 min. */
const PING_EVERY: Record<BinanceKind, number> = { spot: 1, usdm: 9 }
const PONG_WITHIN: Record<BinanceKind, number> = { spot: 3, usdm: 30 }
const SHUTDOWN_MS = 5000
const TRADES_KEPT = 5000
/** One of about so many takers of a futures market is preceded by a print that is no trade of the market. */
const OUTLIER_EVERY = 60

const WEIGHT_MAX: Record<BinanceKind, number> = { spot: 6000, usdm: 2400 }
const MINUTE_MS = 60_000
/** Requests after a 429 that end in a ban. */
const DEFIANT_REQUESTS_MAX = 5
const BAN_MS = 120_000
const FUTURES_LIMITS: readonly number[] = [5, 10, 20, 50, 100, 500, 1000]

const METHODS: readonly string[] = ['SUBSCRIBE', 'UNSUBSCRIBE', 'LIST_SUBSCRIPTIONS', 'SET_PROPERTY', 'GET_PROPERTY']

/** What a connection asked for. */
interface Session {
  readonly kind: BinanceKind
  /** `/market` is another route, on which neither books nor trades are served. */
  readonly isServed: boolean
  /** Times in microseconds, because the address asked for them. */
  readonly inMicroseconds: boolean
  isCombined: boolean
  /** When the messages of the last second came, pings and pongs included. */
  messages: number[]
  readonly streams: Map<string, Follower>
  lastPingMs: number
  /** The newest ping, and since when one is unanswered. */
  pinged: string
  unansweredMs: number | undefined
}

/** One stream of a connection. */
interface Follower extends Subscription {
  readonly stream: string
  readonly session: Session
  /** Where it is told from; undefined when it is acknowledged and silent. */
  readonly followers: Set<Follower> | undefined
}

/** A print as the streams and REST show it. */
interface Print {
  readonly id: number
  readonly price: number
  readonly size: number
  readonly atMs: number
  readonly isBuyerMaker: boolean
  readonly kind: 'MARKET' | 'INSURANCE_FUND' | 'NA'
}

/** A book at a moment: the number of its last change. */
interface Image {
  readonly bid: readonly Level[]
  readonly ask: readonly Level[]
  readonly id: number
}

/** The events of one pace, and what they left their followers with. */
interface Pace {
  readonly ms: number
  readonly followers: Set<Follower>
  told: Image
  /** What REST has shown since then: an event must lead on from there as well. */
  shown: Image[]
  /** The first change after what was told. */
  firstId: number | undefined
  nextMs: number
}

/** One instrument: its market, what was told of its book at each pace, and who follows it. */
class Feed implements MarketListener {
  readonly symbol: string
  readonly kind: BinanceKind
  readonly listing: BinanceListing
  readonly market: Market
  readonly prints: Print[] = []
  readonly tradeFollowers = new Set<Follower>()
  readonly paces = new Map<string, Pace>()
  private readonly old: Image
  private id: number
  private lastPrintId: number
  private untold: Print[] = []

  constructor(kind: BinanceKind, symbol: string, settings: BinanceSettings, nowMs: number) {
    this.kind = kind
    this.symbol = symbol
    this.listing = binanceListing(kind, symbol)
    this.market = new Market(binanceSpec(kind, symbol), settings.seed, settings.eventsPerSecond, nowMs)
    this.id = (kind === 'spot' ? 50_093_000_000 : 5_123_107_000_000) + ((hashText(symbol) ^ settings.seed) >>> 12)
    this.lastPrintId = this.market.trades[0] ? this.market.trades[0].id - 1 : 0
    this.old = { ...this.image(), id: this.id - 1 }
    for (const trade of this.market.trades) this.print(trade)
    this.untold = []
    this.market.listener = this
  }

  get isFollowed(): boolean {
    return this.tradeFollowers.size > 0 || [...this.paces.values()].some(pace => pace.followers.size > 0)
  }

  changed(order: { id: number }): void {
    // Futures markets share their numbers, so those of one jump.
    this.id += this.kind === 'spot' ? 1 : 1 + (order.id % 60)
    for (const pace of this.paces.values()) pace.firstId ??= this.id
  }

  traded(trade: Trade): void {
    if (this.kind === 'usdm' && trade.takerId % OUTLIER_EVERY === 0) this.printOutlier(trade)
    this.print(trade)
  }

  /** Who hears of the book at a pace. Nobody may have listened so far, then it starts from the book as it is now. */
  depthFollowers(name: string, ms: number): Set<Follower> {
    let pace = this.paces.get(name)
    if (!pace) {
      pace = { ms, followers: new Set(), told: this.image(), shown: [], firstId: undefined, nextMs: 0 }
      this.paces.set(name, pace)
    } else if (pace.followers.size === 0) {
      pace.told = this.image()
      pace.shown = []
      pace.firstId = undefined
    }
    return pace.followers
  }

  /** Lets the market move; tells trades at once and the book at each pace. */
  tick(elapsedMs: number, nowMs: number): void {
    this.market.advance(elapsedMs, nowMs)
    for (const print of this.untold) this.tellPrint(print, nowMs)
    this.untold = []
    for (const pace of this.paces.values()) {
      if (nowMs < pace.nextMs) continue
      pace.nextMs = nowMs + pace.ms - (nowMs % pace.ms)
      if (pace.followers.size > 0) this.tellChanges(pace, nowMs)
    }
  }

  /** The JSON text of the book as it is now, or of an old one. */
  imageText(limit: number, isOld: boolean, nowMs: number): string {
    const image = isOld ? this.old : this.image()
    if (!isOld) for (const pace of this.paces.values()) if (pace.followers.size > 0) pace.shown.push(image)
    const rows = (side: Side): string => this.rows(image[side].slice(0, limit))
    const times = this.kind === 'spot' ? '' : `"E":${nowMs},"T":${nowMs},`
    return `{"lastUpdateId":${image.id},${times}"bids":${rows('bid')},"asks":${rows('ask')}}`
  }

  /** The row of a print as REST shows it. */
  printRow({ id, price, size, atMs, isBuyerMaker }: Print): Record<string, unknown> {
    const { priceDecimals, sizeDecimals, priceShown } = this.listing
    const quote = shownText(BigInt(price) * BigInt(size), priceDecimals + sizeDecimals, Math.max(priceShown, 2))
    const row = { id, price: this.price(price), qty: this.size(size), quoteQty: quote, time: atMs, isBuyerMaker }
    return this.kind === 'spot' ? { ...row, isBestMatch: true } : row
  }

  private image(): Image {
    const side = (name: Side): Level[] => levelsOf(this.market.orders(name), Number.POSITIVE_INFINITY)
    return { bid: side('bid'), ask: side('ask'), id: this.id }
  }

  private print(trade: Trade): void {
    const { price, size, atMs, side } = trade
    this.keep({ id: ++this.lastPrintId, price, size, atMs, isBuyerMaker: side === 'sell', kind: 'MARKET' })
  }

  /** A print that takes a number and is no trade of the market: of no size, or far from the market. */
  private printOutlier({ price, size, atMs, takerId }: Trade): void {
    const id = ++this.lastPrintId
    if (takerId % (2 * OUTLIER_EVERY) === 0) this.keep({ id, price: 0, size: 0, atMs, isBuyerMaker: false, kind: 'NA' })
    else this.keep({ id, price: price * 2, size, atMs, isBuyerMaker: true, kind: 'INSURANCE_FUND' })
  }

  private keep(print: Print): void {
    this.prints.push(print)
    this.untold.push(print)
    if (this.prints.length > TRADES_KEPT) this.prints.splice(0, TRADES_KEPT / 10)
  }

  private tellPrint({ id, price, size, atMs, isBuyerMaker, kind }: Print, nowMs: number): void {
    const body = `"t":${id},"p":"${this.price(price)}","q":"${this.size(size)}"`
    const build = (scale: number): string => {
      const [told, done] = [nowMs * scale, atMs * scale]
      return this.kind === 'spot'
        ? `{"e":"trade","E":${told},"s":"${this.symbol}",${body},"T":${done},"m":${isBuyerMaker},"M":true}`
        : `{"e":"trade","E":${told},"T":${done},"s":"${this.symbol}",${body},"X":"${kind}","m":${isBuyerMaker}}`
    }
    tell(this.tradeFollowers, 'trade', build, nowMs)
  }

  private tellChanges(pace: Pace, nowMs: number): void {
    const { told, firstId } = pace
    if (firstId === undefined) return
    const image = this.image()
    const bids = changes('bid', [told, ...pace.shown], image)
    const asks = changes('ask', [told, ...pace.shown], image)
    // What came and went in between is nothing to tell; its numbers belong to the next event.
    if (bids.length + asks.length === 0) return
    pace.told = image
    pace.shown = []
    pace.firstId = undefined
    const { symbol } = this
    const ids = `"U":${firstId},"u":${image.id}`
    const levels = `"b":${this.rows(bids)},"a":${this.rows(asks)}`
    const build = (scale: number): string => {
      const at = nowMs * scale
      if (this.kind === 'spot') return `{"e":"depthUpdate","E":${at},"s":"${symbol}",${ids},${levels}}`
      const own = `"T":${at - scale},"s":"${symbol}","ps":"${symbol}","st":1`
      return `{"e":"depthUpdate","E":${at},${own},${ids},"pu":${told.id},${levels}}`
    }
    tell(pace.followers, 'update', build, nowMs)
  }

  private rows(levels: readonly Level[]): string {
    return `[${levels.map(({ price, size }) => `["${this.price(price)}","${this.size(size)}"]`).join()}]`
  }

  private price(ticks: number): string {
    return shownText(BigInt(ticks), this.listing.priceDecimals, this.listing.priceShown)
  }

  private size(units: number): string {
    return shownText(BigInt(units), this.listing.sizeDecimals, this.listing.sizeShown)
  }
}

/**
 * The levels of `after` that differ from those of one of the images before, best first; those that went have no size.
 */
function changes(side: Side, before: readonly Image[], after: Image): Level[] {
  const changed = new Map<number, Level>()
  for (const image of before) {
    const { gone, set } = diffLevels(side, image[side], after[side])
    for (const { price } of gone) changed.set(price, { price, size: 0, count: 0 })
    for (const level of set) changed.set(level.price, level)
  }
  const sign = side === 'bid' ? -1 : 1
  return [...changed.values()].sort((a, b) => (a.price - b.price) * sign)
}

/** Sends one event to all who follow it, each in the form its connection wants. */
function tell(
  followers: Iterable<Follower>,
  frameKind: 'update' | 'trade',
  build: (scale: number) => string,
  nowMs: number
): void {
  const texts = new Map<number, string>()
  for (const follower of followers) {
    const { connection, session, stream } = follower
    const scale = session.inMicroseconds ? 1000 : 1
    const text = texts.get(scale) ?? build(scale)
    texts.set(scale, text)
    connection.sendFrame(
      follower,
      session.isCombined ? `{"stream":"${stream}","data":${text}}` : text,
      frameKind,
      nowMs
    )
  }
}

/** The text of a whole number of ticks or units with exactly so many decimals shown; what is finer is cut off. */
function shownText(whole: bigint, decimals: number, shown: number): string {
  const digits = String(whole).padStart(decimals + 1, '0')
  const integer = decimals === 0 ? digits : digits.slice(0, -decimals)
  const fraction = decimals === 0 ? '' : digits.slice(-decimals)
  return shown === 0 ? integer : `${integer}.${fraction.slice(0, shown).padEnd(shown, '0')}`
}

/** The weight that requests have used up within a minute, and what comes of using too much. */
class Budget {
  private readonly max: number
  private minute = -1
  private used = 0
  private defiant = 0
  private bannedUntilMs = 0

  constructor(max: number) {
    this.max = max
  }

  /** Counts a request. Gives the headers of its answer, and the refusal if there is one. */
  spend(weight: number, nowMs: number): { headers: Record<string, string>; refusal: RestAnswer | undefined } {
    const minute = Math.floor(nowMs / MINUTE_MS)
    if (minute !== this.minute) {
      this.minute = minute
      this.used = this.defiant = 0
    }
    this.used += weight
    const headers = { 'x-mbx-used-weight': String(this.used), 'x-mbx-used-weight-1m': String(this.used) }
    if (nowMs >= this.bannedUntilMs && this.used <= this.max) return { headers, refusal: undefined }
    if (nowMs >= this.bannedUntilMs && ++this.defiant > DEFIANT_REQUESTS_MAX) this.bannedUntilMs = nowMs + BAN_MS
    const isBanned = nowMs < this.bannedUntilMs
    const waitMs = isBanned ? this.bannedUntilMs - nowMs : MINUTE_MS - (nowMs % MINUTE_MS)
    const most = this.max
    const advice = 'Please use WebSocket Streams for live updates to avoid'
    const msg = isBanned
      ? `Way too much request weight used; IP banned until ${this.bannedUntilMs}. ${advice} bans.`
      : `Too much request weight used; current limit is ${most} request weight per 1 MINUTE. ${advice} polling the API.`
    const refused = { ...headers, 'retry-after': String(Math.ceil(waitMs / 1000)) }
    return { headers, refusal: { ...failure(isBanned ? 418 : 429, -1003, msg), headers: refused } }
  }
}

function failure(status: number, code: number, msg: string): RestAnswer {
  return { status, body: { code, msg } }
}

/** The weight of a request; 0 for what does not exist. */
function weightOf(kind: BinanceKind, method: string, limit: number): number {
  const isSpot = kind === 'spot'
  switch (method) {
    case 'ping':
    case 'time':
      return 1
    case 'exchangeInfo':
      return isSpot ? 20 : 1
    case 'trades':
      return isSpot ? 25 : 5
    case 'historicalTrades':
      return isSpot ? 25 : 0
    case 'depth':
      if (isSpot) return limit <= 100 ? 5 : limit <= 500 ? 25 : limit <= 1000 ? 50 : 250
      return limit <= 50 ? 2 : limit <= 100 ? 5 : limit <= 500 ? 10 : 20
    default:
      return 0
  }
}

/** What the simulated Binance is made from. */
export interface BinanceSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds between two pings to a spot connection; futures have nine times as much. */
  readonly heartbeatMs: number
  /** Milliseconds after which a connection is ended, whatever it does. */
  readonly lifetimeMs: number
}

/**
 * Simulates the market streams and REST API of Binance, spot (`/ws`, `/stream`) and USD-M futures (`/public/…`): books
 * by their changes, trades, request weights, pings, announced shutdowns. Each listed name is one market of each kind; a
 * fault that names it concerns both.
 */
export class Binance implements Venue {
  readonly paths = [
    '/ws',
    '/stream',
    '/ws/*',
    ...['public', 'market'].flatMap(route => [`/${route}/ws`, `/${route}/stream`, `/${route}/ws/*`])
  ]
  readonly connectLimit: ConnectLimit = { max: 300, windowMs: 300_000, blockMs: 0 }
  readonly faultKinds: readonly FaultKind[] = [
    ...COMMON_FAULT_KINDS.filter(kind => kind !== 'corrupt-checksum'),
    'rest-error',
    'stale-image',
    'refuse',
    'silent-ack',
    'drop-trade'
  ]
  private readonly settings: BinanceSettings
  private readonly listed: readonly string[]
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  private readonly budgets: Record<BinanceKind, Budget> = {
    spot: new Budget(WEIGHT_MAX.spot),
    usdm: new Budget(WEIGHT_MAX.usdm)
  }
  private server: SimulatorServer | undefined

  constructor(settings: BinanceSettings) {
    this.settings = settings
    this.listed = listedInstruments('binance', settings.instruments)
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  opened(connection: Connection): void {
    const { path, query } = connection
    const session: Session = {
      kind: /^\/(?:public|market)\//.test(path) ? 'usdm' : 'spot',
      isServed: !path.startsWith('/market/'),
      inMicroseconds: /^microsecond$/i.test(query.get('timeUnit') ?? ''),
      isCombined: path.endsWith('/stream'),
      messages: [],
      streams: new Map(),
      lastPingMs: connection.openedMs,
      pinged: '',
      unansweredMs: undefined
    }
    this.sessions.set(connection, session)
    const asked = path.includes('/ws/') ? path.slice(path.indexOf('/ws/') + 4) : (query.get('streams') ?? '')
    for (const stream of asked.split('/').filter(Boolean)) this.subscribe(connection, session, stream)
  }

  closed(connection: Connection): void {
    const session = this.sessions.get(connection)
    for (const follower of session?.streams.values() ?? []) follower.followers?.delete(follower)
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    if (!session || !this.mayTalk(connection, session)) return
    const request = parseObject(text)
    if (!request) {
      connection.sendEvent(JSON.stringify({ code: 3, msg: 'Invalid JSON: expected value at line 1 column 1' }))
      return
    }
    const answer = this.answer(connection, session, request)
    connection.sendEvent(JSON.stringify({ ...answer, id: request.id ?? null }))
  }

  controlled(connection: Connection, kind: 'ping' | 'pong', payload: Buffer): void {
    const session = this.sessions.get(connection)
    if (!session || !this.mayTalk(connection, session)) return
    // A pong that was not asked for is allowed, and keeps no connection alive.
    if (kind === 'pong' && payload.toString() === session.pinged) session.unansweredMs = undefined
  }

  tick(elapsedMs: number, nowMs: number): void {
    for (const feed of this.feeds.values()) if (feed.isFollowed) feed.tick(elapsedMs, nowMs)
  }

  keepHouse(nowMs: number): void {
    for (const [connection, session] of this.sessions) {
      const everyMs = this.settings.heartbeatMs * PING_EVERY[session.kind]
      if (nowMs - session.lastPingMs < everyMs || nowMs < connection.mutedUntilMs) continue
      if (connection.socket.readyState !== connection.socket.OPEN) continue
      session.lastPingMs = nowMs
      session.pinged = String(nowMs)
      session.unansweredMs ??= nowMs
      connection.socket.ping(session.pinged)
    }
  }

  idleCode(connection: Connection, nowMs: number): number {
    const session = this.sessions.get(connection)
    if (nowMs - connection.openedMs >= this.settings.lifetimeMs) return 1001
    if (session?.unansweredMs === undefined) return 0
    return nowMs - session.unansweredMs > this.settings.heartbeatMs * PONG_WITHIN[session.kind] ? 1008 : 0
  }

  /** Binance has one word for both: the server shuts down. */
  announce(fault: Fault, server: SimulatorServer): void {
    const open = [...server.connections]
    for (const connection of open) {
      const session = this.sessions.get(connection)
      const notice = { e: 'serverShutdown', E: exchangeNowMs() * (session?.inMicroseconds ? 1000 : 1) }
      connection.sendEvent(JSON.stringify(session?.isCombined ? { stream: '!serverShutdown', data: notice } : notice))
    }
    server.later(fault.ms ?? SHUTDOWN_MS, () => {
      for (const connection of open) connection.close(1001)
    })
  }

  rest({ path, query }: RestRequest, nowMs: number): RestAnswer {
    const match = /^\/(api\/v3|fapi\/v1)\/(\w+)$/.exec(path)
    const kind: BinanceKind = match?.[1] === 'fapi/v1' ? 'usdm' : 'spot'
    const method = match?.[2] ?? ''
    const asked = query.get('limit')
    const limit = asked === null ? defaultLimit(kind, method) : Number.parseInt(asked, 10)
    const weight = weightOf(kind, method, limit)
    if (weight === 0) return { status: 404, body: '<html><body><h2>404 Not found</h2></body></html>' }
    const { headers, refusal } = this.budgets[kind].spend(weight, nowMs)
    if (refusal) return refusal
    if (asked !== null && !/^\d{1,20}$/.test(asked)) {
      const msg = "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'."
      return { ...failure(400, -1100, msg), headers }
    }
    const answer = this.serve(kind, method, query, limit, nowMs)
    return { ...answer, headers: { ...headers, ...answer.headers } }
  }

  private serve(kind: BinanceKind, method: string, query: URLSearchParams, limit: number, nowMs: number): RestAnswer {
    if (method === 'ping') return { status: 200, body: {} }
    if (method === 'time') return { status: 200, body: { serverTime: nowMs } }
    if (method === 'exchangeInfo') return this.exchangeInfo(kind, query, nowMs)
    const symbol = query.get('symbol')
    if (!symbol) return failure(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if (!this.listed.includes(symbol)) return failure(400, -1121, 'Invalid symbol.')
    if (method !== 'depth') return this.trades(this.feed(kind, symbol), query, limit)
    const error = this.server?.takeRestError(symbol)
    if (error) {
      const isBusy = error.status === 429 || error.status === 418
      const msg = isBusy ? 'Too many requests.' : 'Internal error; unable to process your request. Please try again.'
      return { ...failure(error.status, isBusy ? -1003 : -1001, msg), headers: error.headers }
    }
    if (kind === 'usdm' && !FUTURES_LIMITS.includes(limit)) {
      return failure(400, -4021, `'${limit}' is invalid depth limit. Use one of ${FUTURES_LIMITS.join(', ')}`)
    }
    const isOld = this.server?.takeFault('stale-image', symbol) ?? false
    return { status: 200, body: this.feed(kind, symbol).imageText(Math.min(limit, 5000), isOld, nowMs) }
  }

  /** The newest trades, or those from a number on; the older first. */
  private trades(feed: Feed, query: URLSearchParams, limit: number): RestAnswer {
    const from = Number.parseInt(query.get('fromId') ?? '', 10)
    // A print that is no trade of the market has its place in the numbers only.
    const prints = feed.prints.filter(print => print.kind === 'MARKET')
    const count = Math.min(limit, 1000)
    const found = from >= 0 ? prints.filter(({ id }) => id >= from).slice(0, count) : prints.slice(-count)
    return { status: 200, body: found.map(print => feed.printRow(print)) }
  }

  private exchangeInfo(kind: BinanceKind, query: URLSearchParams, nowMs: number): RestAnswer {
    const asked = kind === 'spot' ? askedSymbols(query) : []
    if (asked.some(symbol => !this.listed.includes(symbol))) return failure(400, -1121, 'Invalid symbol.')
    const symbols = asked.length > 0 ? asked : this.listed
    const facts = kind === 'spot' ? spotFacts : futuresFacts
    const limit = { rateLimitType: 'REQUEST_WEIGHT', interval: 'MINUTE', intervalNum: 1, limit: WEIGHT_MAX[kind] }
    const head = { timezone: 'UTC', serverTime: nowMs, rateLimits: [limit], exchangeFilters: [] }
    return { status: 200, body: { ...head, symbols: symbols.map(facts) } }
  }

  /** Every message counts, whatever it says; who talks too much is thrown out. */
  private mayTalk(connection: Connection, session: Session): boolean {
    const nowMs = exchangeNowMs()
    session.messages = session.messages.filter(atMs => atMs > nowMs - 1000)
    session.messages.push(nowMs)
    if (session.messages.length <= MESSAGES_PER_SECOND_MAX[session.kind]) return true
    connection.close(1008, 'Too many requests')
    return false
  }

  private answer(connection: Connection, session: Session, request: Record<string, unknown>): Record<string, unknown> {
    const { method, params, id } = request
    const invalid = (why: string): Record<string, unknown> => ({ code: 2, msg: `Invalid request: ${why}` })
    if (!isRequestId(id)) return invalid('request ID must be an unsigned integer')
    if (method === undefined) return invalid('missing field `method` at line 1 column 2')
    if (typeof method !== 'string' || !METHODS.includes(method)) {
      const variants = METHODS.map(name => `\`${name}\``).join(', ')
      return invalid(`unknown variant \`${String(method)}\`, expected one of ${variants} at line 1 column 2`)
    }
    if (method === 'LIST_SUBSCRIPTIONS') return { result: [...session.streams.keys()] }
    if (!Array.isArray(params)) return invalid('missing field `params`')
    if (method.endsWith('PROPERTY')) return answerProperty(session, method, params)
    const streams = params.filter((stream): stream is string => typeof stream === 'string')
    if (streams.length < params.length) return invalid('params must be strings')
    if (method === 'UNSUBSCRIBE') {
      for (const stream of streams) this.unsubscribe(connection, session, stream)
      return { result: null }
    }
    const refused = streams.find(stream => this.isRefused(session, stream))
    if (refused !== undefined) return invalid(`stream ${refused} cannot be subscribed`)
    if (new Set([...session.streams.keys(), ...streams]).size > STREAMS_MAX) return invalid('too many parameters')
    for (const stream of streams) this.subscribe(connection, session, stream)
    return { result: null }
  }

  private isRefused(session: Session, stream: string): boolean {
    const wish = this.readStream(session, stream)
    return (wish?.isBook && this.server?.takeFault('refuse', wish.symbol)) ?? false
  }

  /** What a stream name asks for; undefined for what does not exist, or not at this address. */
  private readStream(
    { kind, isServed }: Session,
    stream: string
  ): { symbol: string; isBook: boolean; pace: string } | undefined {
    const match = /^([^@]+)@(depth|trade)(?:@(\w+))?$/.exec(stream)
    if (!match || !isServed) return undefined
    const [, name, channel, pace = ''] = match
    const symbol = this.listed.find(listed => listed.toLowerCase() === name)
    if (symbol === undefined) return undefined
    const isBook = channel === 'depth'
    if (isBook ? !Object.hasOwn(PACES[kind], pace) : pace !== '') return undefined
    return { symbol, isBook, pace }
  }

  /** A stream that does not exist is no mistake: it is passed over in silence. */
  private subscribe(connection: Connection, session: Session, stream: string): void {
    const wish = this.readStream(session, stream)
    const known = session.streams.get(stream)
    if (!wish || known?.followers) return
    if (known) this.unsubscribe(connection, session, stream)
    const { symbol, isBook, pace } = wish
    const feed = this.feed(session.kind, symbol)
    const isSilent = isBook && (this.server?.takeFault('silent-ack', symbol) ?? false)
    const heard = isBook ? feed.depthFollowers(pace, PACES[session.kind][pace]!) : feed.tradeFollowers
    const followers = isSilent ? undefined : heard
    const follower: Follower = {
      connection,
      instrument: symbol,
      isBook,
      numbering: stream,
      mutedUntilMs: 0,
      stream,
      session,
      followers
    }
    session.streams.set(stream, follower)
    followers?.add(follower)
    this.server?.subscribed(follower)
  }

  private unsubscribe(connection: Connection, session: Session, stream: string): void {
    const follower = session.streams.get(stream)
    if (!follower) return
    session.streams.delete(stream)
    follower.followers?.delete(follower)
    connection.drop(follower)
  }

  private feed(kind: BinanceKind, symbol: string): Feed {
    const key = `${kind} ${symbol}`
    const known = this.feeds.get(key)
    if (known) return known
    const feed = new Feed(kind, symbol, this.settings, exchangeNowMs())
    this.feeds.set(key, feed)
    return feed
  }
}

/** `combined` is the one property there is. */
function answerProperty(session: Session, method: string, params: unknown[]): Record<string, unknown> {
  if (params[0] !== 'combined') return { code: 0, msg: 'Unknown property' }
  if (method === 'GET_PROPERTY') return { result: session.isCombined }
  if (typeof params[1] !== 'boolean') return { code: 1, msg: 'Invalid value type: expected Boolean' }
  session.isCombined = params[1]
  return { result: null }
}

/** A number, a short name, or nothing. */
function isRequestId(id: unknown): boolean {
  if (id === undefined || id === null) return true
  return typeof id === 'number' ? Number.isInteger(id) : typeof id === 'string' && /^[A-Za-z0-9_-]{1,36}$/.test(id)
}

function defaultLimit(kind: BinanceKind, method: string): number {
  return method === 'depth' && kind === 'spot' ? 100 : 500
}

/** The symbols that spot metadata are asked for: `symbol=A` or `symbols=["A","B"]`. */
function askedSymbols(query: URLSearchParams): string[] {
  const one = query.get('symbol')
  if (one !== null) return [one]
  return [...(query.get('symbols') ?? '').matchAll(/"([^"]*)"/g)].map(match => match[1]!)
}

/** The filters that both kinds of markets have, with texts as the exchange shows them. */
function commonFilters(kind: BinanceKind, symbol: string): Record<string, string>[] {
  const { priceDecimals, sizeDecimals, priceShown, sizeShown } = binanceListing(kind, symbol)
  const tickSize = shownText(1n, priceDecimals, priceShown)
  const stepSize = shownText(1n, sizeDecimals, sizeShown)
  const most = shownText(9000n, 0, sizeShown)
  return [
    { filterType: 'PRICE_FILTER', minPrice: tickSize, maxPrice: shownText(1_000_000n, 0, priceShown), tickSize },
    { filterType: 'LOT_SIZE', minQty: stepSize, maxQty: most, stepSize },
    { filterType: 'MARKET_LOT_SIZE', minQty: shownText(0n, 0, sizeShown), maxQty: most, stepSize }
  ]
}

/** A spot pair as `/api/v3/exchangeInfo` shows it. */
function spotFacts(symbol: string): Record<string, unknown> {
  const [baseAsset, quoteAsset] = splitName(symbol)
  return {
    symbol,
    status: 'TRADING',
    baseAsset,
    baseAssetPrecision: 8,
    quoteAsset,
    quotePrecision: 8,
    quoteAssetPrecision: 8,
    orderTypes: ['LIMIT', 'LIMIT_MAKER', 'MARKET', 'STOP_LOSS_LIMIT', 'TAKE_PROFIT_LIMIT'],
    icebergAllowed: true,
    isSpotTradingAllowed: true,
    isMarginTradingAllowed: true,
    filters: [
      ...commonFilters('spot', symbol),
      {
        filterType: 'NOTIONAL',
        minNotional: '5.00000000',
        applyMinToMarket: true,
        maxNotional: '9000000.00000000',
        applyMaxToMarket: false,
        avgPriceMins: 5
      }
    ],
    permissions: []
  }
}

/** A futures contract as `/fapi/v1/exchangeInfo` shows it. */
function futuresFacts(symbol: string): Record<string, unknown> {
  const [name, date] = symbol.split('_') as [string, string | undefined]
  const [baseAsset, quoteAsset] = splitName(name)
  const { priceShown, sizeShown, priceDecimals } = binanceListing('usdm', symbol)
  const [year, month, day] = (date?.match(/\d\d/g) ?? []).map(digits => Number.parseInt(digits, 10))
  return {
    symbol,
    pair: name,
    contractType: date === undefined ? 'PERPETUAL' : 'CURRENT_QUARTER',
    // Contracts without an end have one in the year 2100, those with a date end at 8:00 UTC.
    deliveryDate: date === undefined ? 4_133_404_800_000 : Date.UTC(2000 + year!, month! - 1, day, 8),
    onboardDate: 1_569_398_400_000,
    status: 'TRADING',
    baseAsset,
    quoteAsset,
    marginAsset: quoteAsset,
    pricePrecision: priceShown,
    quantityPrecision: sizeShown,
    baseAssetPrecision: 8,
    quotePrecision: 8,
    underlyingType: 'COIN',
    filters: [
      ...commonFilters('usdm', symbol),
      { filterType: 'MIN_NOTIONAL', notional: priceDecimals === 1 ? '50' : '5' },
      { filterType: 'PERCENT_PRICE', multiplierUp: '1.0500', multiplierDown: '0.9500', multiplierDecimal: '4' }
    ],
    orderTypes: ['LIMIT', 'MARKET', 'STOP', 'STOP_MARKET', 'TAKE_PROFIT', 'TAKE_PROFIT_MARKET'],
    timeInForce: ['GTC', 'IOC', 'FOK', 'GTX', 'GTD']
  }
}
