import crc32 from 'crc-32'
import { FAULT_KINDS, type Fault, type FaultKind } from './faults.ts'
import { listedInstruments, type OkxKind, okxListing, okxSpec } from './listing.ts'
import {
  diffLevels,
  type Level,
  levelsOf,
  Market,
  type MarketListener,
  type Order,
  plainText,
  type Side,
  type Trade
} from './market.ts'
import { createRandom, hashText } from './random.ts'
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

const WINDOW_LEVELS = 400
const CHECKSUM_ROWS = 25
const PUSH_MS = 100
const SILENCE_MS_MAX = 30_000
const RESTART_MS = 5000
const REQUESTS_PER_HOUR_MAX = 480
const HOUR_MS = 3_600_000
const KINDS: readonly string[] = ['SPOT', 'MARGIN', 'SWAP', 'FUTURES', 'OPTION']
/** Public channels that only push changes, of which the simulator has none: acknowledged, then silent. */
const QUIET_CHANNELS: readonly string[] = ['instruments', 'status']

type Argument = Record<string, unknown>

interface Refusal {
  readonly code: string
  readonly msg: string
}

/** What a connection asked for. */
interface Session {
  readonly connId: string
  /** When requests of the last hour came, milliseconds since the epoch. */
  requests: number[]
  /** By channel and instrument. */
  readonly subscriptions: Map<string, { subscription: Subscription; feed: Feed; channel: string }>
}

/** Fills of one taker at one price, told as one. */
interface MergedTrade {
  readonly trade: Trade
  lastId: number
  size: number
  count: number
  readonly sequence: number
}

/** The book as subscribers know it: what the last push left them with. */
interface Told {
  bid: Level[]
  ask: Level[]
  sequence: number
}

/** One instrument: its market, what was told of its book, and who follows it. */
class Feed implements MarketListener {
  readonly instId: string
  readonly market: Market
  readonly books = new Set<Subscription>()
  readonly tradeFollowers = new Set<Subscription>()
  private readonly settings: OkxSettings
  private told: Told
  /** What was told before that. */
  private before: Told
  /** The book before the newest subscription, for those who are to get an old one. */
  private old: Told
  private sequence: number
  private nextPushMs = 0
  private lastPushMs: number
  private executed: MergedTrade[] = []

  constructor(instId: string, settings: OkxSettings, nowMs: number) {
    this.instId = instId
    this.settings = settings
    this.market = new Market(okxSpec(instId), settings.seed, settings.eventsPerSecond, nowMs)
    this.market.listener = this
    this.sequence = 327_904_000_000 + ((hashText(instId) ^ settings.seed) >>> 12)
    this.lastPushMs = nowMs
    this.told = { ...this.window(), sequence: this.sequence }
    this.before = { ...this.told, sequence: this.sequence - 1 }
    this.old = this.before
  }

  /** A client begins to follow the book. */
  addBook(subscription: Subscription): void {
    this.books.add(subscription)
    this.old = this.before
  }

  changed(order: Order): void {
    // Numbers jump, as those of a matching engine that has more to count than our book.
    this.sequence += 1 + (order.id % 3)
  }

  traded(trade: Trade): void {
    this.sequence++
    const last = this.executed.at(-1)
    if (last && last.trade.takerId === trade.takerId && last.trade.price === trade.price) {
      last.lastId = trade.id
      last.size += trade.size
      last.count++
    } else {
      this.executed.push({ trade, lastId: trade.id, size: trade.size, count: 1, sequence: this.sequence })
    }
  }

  /** Lets the market move; tells trades at once and the book each 100 ms. */
  tick(elapsedMs: number, nowMs: number): void {
    this.market.advance(elapsedMs, nowMs)
    for (const merged of this.executed) this.pushTrade(merged, nowMs)
    this.executed = []
    if (nowMs < this.nextPushMs) return
    this.nextPushMs = nowMs + PUSH_MS - (nowMs % PUSH_MS)
    this.pushBook(nowMs)
  }

  /** Sends the whole book to one subscriber. */
  sendSnapshot(subscription: Subscription, nowMs: number): void {
    const text = this.bookText('snapshot', this.told, -1, this.told.sequence, this.checksum(), nowMs)
    subscription.connection.sendFrame(subscription, text, 'other', nowMs)
  }

  /** The book as REST shows it: the state of the last push, so that its number is one of the chain; or an old one. */
  restBook(depth: number, isOld: boolean, nowMs: number): Record<string, unknown> {
    const shown = isOld ? this.old : this.told
    const rows = (side: Side): string[][] => shown[side].slice(0, depth).map(level => this.row(level))
    return { asks: rows('ask'), bids: rows('bid'), ts: String(nowMs), seqId: shown.sequence }
  }

  private window(): { bid: Level[]; ask: Level[] } {
    return {
      bid: levelsOf(this.market.orders('bid'), WINDOW_LEVELS),
      ask: levelsOf(this.market.orders('ask'), WINDOW_LEVELS)
    }
  }

  private pushBook(nowMs: number): void {
    const previous = this.told
    const levels = this.window()
    const changes = (side: Side): Level[] => {
      const { gone, set } = diffLevels(side, previous[side], levels[side])
      return [...gone.map(({ price }) => ({ price, size: 0, count: 0 })), ...set].sort((a, b) =>
        side === 'bid' ? b.price - a.price : a.price - b.price
      )
    }
    const bid = changes('bid')
    const ask = changes('ask')
    const isChanged = bid.length + ask.length > 0
    if (!isChanged && nowMs - this.lastPushMs < this.settings.heartbeatMs) return
    this.lastPushMs = nowMs
    // A keep-alive repeats the number, whatever happened outside the window.
    this.told = { ...levels, sequence: isChanged ? this.sequence : previous.sequence }
    if (isChanged) this.before = previous
    const build = (checksum: number): string =>
      this.bookText('update', { bid, ask }, previous.sequence, this.told.sequence, checksum, nowMs)
    const checksum = this.checksum()
    const text = build(checksum)
    for (const subscription of this.books) {
      const isWrong = subscription.connection.takeFault('corrupt-checksum', this.instId)
      subscription.connection.sendFrame(subscription, isWrong ? build(~checksum) : text, 'update', nowMs)
    }
  }

  private pushTrade({ trade, lastId, size, count, sequence }: MergedTrade, nowMs: number): void {
    const { priceDecimals, sizeDecimals } = this.market.spec
    const data = {
      instId: this.instId,
      tradeId: String(lastId),
      px: plainText(trade.price, priceDecimals),
      sz: plainText(size, sizeDecimals),
      side: trade.side,
      ts: String(trade.atMs),
      count: String(count),
      source: '0',
      seqId: sequence
    }
    const text = JSON.stringify({ arg: { channel: 'trades', instId: this.instId }, data: [data] })
    for (const subscription of this.tradeFollowers) {
      subscription.connection.sendFrame(subscription, text, 'trade', nowMs)
    }
  }

  private bookText(
    action: 'snapshot' | 'update',
    levels: { bid: readonly Level[]; ask: readonly Level[] },
    prevSeqId: number,
    seqId: number,
    checksum: number,
    nowMs: number
  ): string {
    const asks = levels.ask.map(level => this.row(level))
    const bids = levels.bid.map(level => this.row(level))
    const data = [{ asks, bids, ts: String(nowMs), checksum, seqId, prevSeqId }]
    return JSON.stringify({ arg: { channel: 'books', instId: this.instId }, action, data })
  }

  private row({ price, size, count }: Level): string[] {
    const { priceDecimals, sizeDecimals } = this.market.spec
    return [plainText(price, priceDecimals), plainText(size, sizeDecimals), '0', String(count)]
  }

  /** The CRC of the best 25 levels of each side as told, or 0, which the exchange has sent since June 2026. */
  private checksum(): number {
    if (!this.settings.checksums) return 0
    const words: string[] = []
    for (let index = 0; index < CHECKSUM_ROWS; index++) {
      for (const level of [this.told.bid[index], this.told.ask[index]]) {
        if (level) words.push(...this.row(level).slice(0, 2))
      }
    }
    return crc32.str(words.join(':'))
  }
}

/** What the simulated OKX is made from. */
export interface OkxSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds without a change of a book after which an empty update is pushed. */
  readonly heartbeatMs: number
  /** 0 for no limit. */
  readonly connectsPerSecond: number
  /** True checksums instead of the exchange's zeros. */
  readonly checksums: boolean
  /** A subscription is not followed by an image of the book: updates come, and REST has the image. */
  readonly imageless: boolean
}

/** Simulates the public WebSocket v5 and REST API of OKX: `books`, `trades`, instruments, service upgrades. */
export class Okx implements Venue {
  readonly paths = ['/ws/v5/public']
  readonly faultKinds = FAULT_KINDS
  readonly connectLimit: ConnectLimit
  private readonly settings: OkxSettings
  private readonly listed: readonly string[]
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  private readonly random
  private server: SimulatorServer | undefined

  constructor(settings: OkxSettings) {
    this.settings = settings
    this.listed = listedInstruments('okx', settings.instruments)
    this.random = createRandom(settings.seed)
    this.connectLimit = { max: settings.connectsPerSecond || Number.POSITIVE_INFINITY, windowMs: 1000, blockMs: 0 }
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  opened(connection: Connection): void {
    const connId = this.random.integer(0x1_0000_0000).toString(16).padStart(8, '0')
    this.sessions.set(connection, { connId, requests: [], subscriptions: new Map() })
  }

  closed(connection: Connection): void {
    for (const key of this.sessions.get(connection)?.subscriptions.keys() ?? []) this.forget(connection, key)
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    if (!session) return
    if (text === 'ping') {
      connection.sendEvent('pong')
      return
    }
    const request = parseObject(text)
    const ident = isRequestId(request?.id) ? { id: request?.id } : {}
    const refuse = ({ code, msg }: Refusal): void => {
      connection.sendEvent(JSON.stringify({ ...ident, event: 'error', code, msg, connId: session.connId }))
    }
    const refusal = this.refusal(session, text, request)
    if (refusal) {
      refuse(refusal)
      return
    }
    const { op, args } = request as { op: 'subscribe' | 'unsubscribe'; args: unknown[] }
    for (const value of args) {
      const arg = typeof value === 'object' && value !== null ? (value as Argument) : {}
      const isRefused = op === 'subscribe' && arg.channel === 'books' && this.takeFault('refuse', arg)
      if (isRefused || !this.exists(arg)) {
        const advice = 'Please use the correct URL, channel and parameters referring to API document.'
        refuse({
          code: '60018',
          msg: `Wrong URL or channel:${arg.channel},instId:${arg.instId} doesn't exist. ${advice}`
        })
        continue
      }
      connection.sendEvent(JSON.stringify({ ...ident, event: op, arg, connId: session.connId }))
      if (op === 'subscribe') this.subscribe(connection, session, arg)
      else this.forget(connection, keyOf(arg))
    }
  }

  /** Why a request as a whole cannot be served; undefined if it can. */
  private refusal(session: Session, text: string, request: Argument | undefined): Refusal | undefined {
    if (!request || typeof request.op !== 'string' || ('id' in request && !isRequestId(request.id))) {
      return { code: '60012', msg: `Invalid request: ${text.slice(0, 200)}` }
    }
    if (!this.mayRequest(session)) return { code: '60014', msg: 'Requests too frequent' }
    if (request.op === 'login') return { code: '60028', msg: 'The current operation is not supported by this URL.' }
    if (request.op !== 'subscribe' && request.op !== 'unsubscribe')
      return { code: '60019', msg: `Invalid op: ${request.op}` }
    return Array.isArray(request.args) && request.args.length > 0 ? undefined : { code: '60013', msg: 'Invalid args' }
  }

  tick(elapsedMs: number, nowMs: number): void {
    for (const feed of this.feeds.values()) {
      if (feed.books.size > 0 || feed.tradeFollowers.size > 0) feed.tick(elapsedMs, nowMs)
    }
  }

  idleCode(connection: Connection, nowMs: number): number {
    return nowMs - Math.max(connection.lastReceivedMs, connection.lastSentMs) > SILENCE_MS_MAX ? 4004 : 0
  }

  /** OKX has one word for both: the connection will soon be closed. */
  announce(fault: Fault, server: SimulatorServer): void {
    const open = [...server.connections]
    for (const connection of open) {
      const msg = 'The connection will soon be closed for a service upgrade. Please reconnect.'
      const connId = this.sessions.get(connection)?.connId
      connection.sendEvent(JSON.stringify({ event: 'notice', code: '64008', msg, connId }))
    }
    server.later(fault.ms ?? RESTART_MS, () => {
      for (const connection of open) connection.close(1001)
    })
  }

  rest({ path, query }: RestRequest, nowMs: number): RestAnswer {
    const succeed = (data: unknown[]): RestAnswer => ({ status: 200, body: { code: '0', msg: '', data } })
    const fail = (status: number, code: string, msg: string): RestAnswer => ({ status, body: { code, msg, data: [] } })
    const instId = query.get('instId')
    if (path === '/api/v5/public/time') return succeed([{ ts: String(nowMs) }])
    if (path === '/api/v5/public/instruments') {
      const kind = query.get('instType')
      if (!kind) return fail(400, '50014', 'Parameter instType can not be empty.')
      if (!KINDS.includes(kind)) return fail(400, '51000', 'Parameter instType error')
      const fitting = this.listed.filter(name => okxListing(name).kind === kind && (instId === null || name === instId))
      if (instId !== null && fitting.length === 0) return fail(200, '51001', "Instrument ID doesn't exist.")
      return succeed(fitting.map(name => instrumentFacts(name, kind as OkxKind)))
    }
    if (path === '/api/v5/market/books') {
      if (instId === null || !this.listed.includes(instId)) return fail(200, '51001', "Instrument ID doesn't exist.")
      const error = this.server?.takeRestError(instId)
      if (error) {
        const [code, msg] = error.status === 429 ? ['50011', 'Too Many Requests'] : ['50001', 'Service unavailable']
        return { ...fail(error.status, code!, msg!), headers: error.headers }
      }
      const asked = Number.parseInt(query.get('sz') ?? '', 10)
      // Without a number it is the best level alone, but for those who ask for the source of the stream.
      const depth = asked > 0 ? Math.min(asked, WINDOW_LEVELS) : query.has('source') ? WINDOW_LEVELS : 1
      const isOld = this.server?.takeFault('stale-image', instId) ?? false
      return succeed([this.feed(instId).restBook(depth, isOld, nowMs)])
    }
    return fail(404, '404', 'Not Found')
  }

  private mayRequest(session: Session): boolean {
    const nowMs = exchangeNowMs()
    session.requests = session.requests.filter(atMs => atMs > nowMs - HOUR_MS)
    if (session.requests.length >= REQUESTS_PER_HOUR_MAX) return false
    session.requests.push(nowMs)
    return true
  }

  private exists({ channel, instId }: Argument): boolean {
    if (typeof channel !== 'string') return false
    if (QUIET_CHANNELS.includes(channel)) return true
    return (channel === 'books' || channel === 'trades') && typeof instId === 'string' && this.listed.includes(instId)
  }

  /** A second subscription to the same channel is no mistake: it is answered with a fresh snapshot. */
  private subscribe(connection: Connection, session: Session, arg: Argument): void {
    const channel = String(arg.channel)
    if (QUIET_CHANNELS.includes(channel)) return
    const key = keyOf(arg)
    this.forget(connection, key)
    const instrument = String(arg.instId)
    const isBook = channel === 'books'
    const subscription: Subscription = { connection, instrument, isBook, numbering: key, mutedUntilMs: 0 }
    const feed = this.feed(instrument)
    session.subscriptions.set(key, { subscription, feed, channel })
    if (!isBook) feed.tradeFollowers.add(subscription)
    else if (!this.takeFault('silent-ack', arg)) {
      feed.addBook(subscription)
      if (!this.settings.imageless) feed.sendSnapshot(subscription, exchangeNowMs())
    }
    this.server?.subscribed(subscription)
  }

  private takeFault(kind: FaultKind, { instId }: Argument): boolean {
    return this.server?.takeFault(kind, String(instId)) ?? false
  }

  private forget(connection: Connection, key: string): void {
    const subscriptions = this.sessions.get(connection)?.subscriptions
    const known = subscriptions?.get(key)
    if (!known) return
    subscriptions?.delete(key)
    known.feed.books.delete(known.subscription)
    known.feed.tradeFollowers.delete(known.subscription)
    connection.drop(known.subscription)
  }

  private feed(instId: string): Feed {
    const known = this.feeds.get(instId)
    if (known) return known
    const feed = new Feed(instId, this.settings, exchangeNowMs())
    this.feeds.set(instId, feed)
    return feed
  }
}

function isRequestId(id: unknown): id is string {
  return typeof id === 'string' && /^[A-Za-z0-9]{1,32}$/.test(id)
}

function keyOf({ channel, instId }: Argument): string {
  return `${channel}:${instId}`
}

/** An instrument as `/public/instruments` shows it: all values are strings, but for `instIdCode`. */
function instrumentFacts(instId: string, kind: OkxKind): Record<string, string | number> {
  const { base, quote, contractValue, isInverse, priceDecimals, sizeDecimals } = okxListing(instId)
  const isSpot = kind === 'SPOT'
  const parts = instId.split('-')
  const family = isSpot ? '' : `${base}-${quote}`
  const expiry = /^\d{6}$/.test(parts[2] ?? '') ? parts[2]! : ''
  const smallest = plainText(1, sizeDecimals)
  const [year, month, day] = (expiry.match(/\d\d/g) ?? []).map(digits => Number.parseInt(digits, 10))
  return {
    alias: '',
    auctionEndTime: '',
    baseCcy: isSpot ? base : '',
    category: '1',
    contTdSwTime: '',
    ctMult: isSpot ? '' : '1',
    ctType: isSpot ? '' : isInverse ? 'inverse' : 'linear',
    ctVal: contractValue === undefined ? '' : String(contractValue),
    ctValCcy: isSpot ? '' : isInverse && kind !== 'OPTION' ? 'USD' : base,
    // Contracts expire at 8:00 UTC.
    expTime: expiry === '' ? '' : String(Date.UTC(2000 + year!, month! - 1, day, 8)),
    instFamily: family,
    instId,
    instIdCode: 10_000 + (hashText(instId) % 90_000),
    instType: kind,
    lever: kind === 'OPTION' ? '' : isSpot ? '10' : '100',
    listTime: '1606468572000',
    lotSz: smallest,
    maxLmtSz: isSpot ? '9999999999' : '100000000',
    maxMktSz: isSpot ? '1000000' : '35000',
    minSz: isSpot ? plainText(10, Math.min(sizeDecimals, 6)) : smallest,
    optType: kind === 'OPTION' ? parts[4]! : '',
    quoteCcy: isSpot ? quote : '',
    ruleType: 'normal',
    settleCcy: isSpot ? '' : isInverse ? base : quote,
    state: 'live',
    stk: kind === 'OPTION' ? parts[3]! : '',
    tickSz: plainText(1, priceDecimals),
    uly: family
  }
}
