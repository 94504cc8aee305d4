import { COMMON_FAULT_KINDS, type Fault } from './faults.ts'
import { type BookChannel, KrakenFeed, momentText } from './krakenfeed.ts'
import { assetPairs, instrumentFrame, type KrakenPair, krakenPairs, pairsNamed } from './krakenpairs.ts'
import { TokenDesk } from './krakentoken.ts'
import { createRandom, type Random } from './random.ts'
import {
  type Connection,
  type ConnectLimit,
  exchangeNowMs,
  parseObject,
  type RestAnswer,
  type RestRequest,
  type SimulatorServer,
  type Subscription,
  type Venue
} from './server.ts'

const DEPTHS: Record<BookChannel, readonly number[]> = { book: [10, 25, 100, 500, 1000], level3: [10, 100, 1000] }
const DEFAULT_DEPTH = 10
const LEVEL3_SYMBOLS_MAX = 200
/** What a `level3` subscription of a depth costs of the allowance of a second. */
const LEVEL3_COSTS: Record<number, number> = { 10: 5, 100: 25, 1000: 100 }
const WINDOW_MS = 1000
const CONNECT_WINDOW_MS = 600_000
const IDLE_MS_MAX = 60_000
const NOTICE_MS = 500
const MAINTENANCE_MS = 10_000
const RESTART_NOTICE_MS = 3000
const RESTART_MS = 1000
/** How often a snapshot is faster than the acknowledgement of its subscription. */
const EARLY_SNAPSHOT_CHANCE = 0.2
const INSTRUMENTS = 'instrument'

/** A subscription and how it ends. */
interface Followed {
  readonly subscription: Subscription
  readonly channel: string
  /** Undefined for channels without a book. */
  readonly depth: number | undefined
  readonly end: () => void
}

/** What a connection asked for. */
interface Session {
  readonly connectionId: string
  readonly requests: Allowance
  lastHeartbeatMs: number
  /** By channel and symbol. */
  readonly followed: Map<string, Followed>
}

/** A request, as far as its answers are concerned. */
interface Call {
  readonly connection: Connection
  readonly session: Session
  readonly method: string
  /** `req_id`, if there was one. */
  readonly ident: { readonly req_id?: unknown }
  readonly timeIn: string
  readonly nowMs: number
}

/** What the simulated Kraken is made from. */
export interface KrakenSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds of silence on a connection after which a heartbeat is sent. @default 1000 */
  readonly heartbeatMs?: number
  /** Requests a connection may send in a second; 0 for any number. @default 20 */
  readonly requestsPerSecond?: number
  /** What all `level3` subscriptions of a second may cost; 0 for no limit. @default 200 */
  readonly level3CostPerSecond?: number
  /** Connections allowed in ten minutes; 0 for any number. @default 150 */
  readonly connectsPerTenMinutes?: number
  /** How long a token can be used, in milliseconds. @default 900000 */
  readonly tokenMs?: number
  /** Milliseconds after which the quantities of the first pair get another decimal; never if absent. */
  readonly precisionChangeMs?: number
}

/**
 * Simulates Kraken's spot WebSocket v2 (`book`, `level3`, `trade`, `instrument`, status, heartbeats) and REST API. The
 * real exchange serves `level3` from another host; here one path serves all. `rest-error` concerns the request for a
 * token: there is no book image in REST.
 */
export class Kraken implements Venue {
  readonly paths = ['/v2']
  readonly faultKinds = [...COMMON_FAULT_KINDS, 'rest-error', 'refuse', 'silent-ack', 'drop-trade'] as const
  private readonly settings: KrakenSettings
  private readonly pairs: ReadonlyMap<string, KrakenPair>
  private readonly feeds = new Map<string, KrakenFeed>()
  private readonly sessions = new Map<Connection, Session>()
  private readonly instrumentFollowers = new Set<Subscription>()
  private readonly random: Random
  private readonly tokens: TokenDesk
  private readonly level3Costs: Allowance
  private server: SimulatorServer | undefined
  private maintenanceUntilMs = 0
  private closedUntilMs = 0

  constructor(settings: KrakenSettings) {
    this.settings = settings
    this.pairs = krakenPairs(settings.instruments)
    this.random = createRandom(settings.seed)
    this.tokens = new TokenDesk(createRandom(settings.seed ^ 0x2545f491), settings.tokenMs ?? 900_000)
    this.level3Costs = new Allowance(settings.level3CostPerSecond ?? 200)
  }

  /** Nobody may connect while the exchange is closed. */
  get connectLimit(): ConnectLimit {
    if (exchangeNowMs() < this.closedUntilMs) return { max: 0, windowMs: CONNECT_WINDOW_MS, blockMs: 0 }
    const max = (this.settings.connectsPerTenMinutes ?? 150) || Number.POSITIVE_INFINITY
    return { max, windowMs: CONNECT_WINDOW_MS, blockMs: CONNECT_WINDOW_MS }
  }

  attach(server: SimulatorServer): void {
    this.server = server
    const { precisionChangeMs } = this.settings
    const [first] = this.pairs.values()
    if (precisionChangeMs === undefined || !first) return
    server.later(precisionChangeMs, () => this.changePrecision(first.symbol, { qty: first.qtyDecimals + 1 }))
  }

  /**
   * Changes how many decimals the prices and quantities of a pair have on the wire, and tells it. Throws a `RangeError`
   * for a pair that is not listed, and for fewer decimals than the market's own.
   */
  changePrecision(symbol: string, { price, qty }: { price?: number; qty?: number }): void {
    const pair = this.pairs.get(symbol)
    if (!pair) throw new RangeError(`no pair is named ${symbol}`)
    const { priceDecimals = 0, sizeDecimals = 0 } = pair.spec
    if ((price ?? priceDecimals) < priceDecimals || (qty ?? sizeDecimals) < sizeDecimals)
      throw new RangeError(`the market of ${symbol} needs ${priceDecimals} and ${sizeDecimals} decimals`)
    pair.priceDecimals = price ?? pair.priceDecimals
    pair.qtyDecimals = qty ?? pair.qtyDecimals
    this.tellInstruments([pair])
  }

  opened(connection: Connection): void {
    // The ids do not fit into the whole numbers of JavaScript.
    let connectionId = String(1 + this.random.integer(9))
    while (connectionId.length < 19) connectionId += this.random.integer(10)
    const requests = new Allowance(this.settings.requestsPerSecond ?? 20)
    this.sessions.set(connection, { connectionId, requests, lastHeartbeatMs: 0, followed: new Map() })
    this.sendStatus(connection)
  }

  closed(connection: Connection): void {
    for (const { end } of this.sessions.get(connection)?.followed.values() ?? []) end()
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    if (!session) return
    const request = parseObject(text)
    const method = typeof request?.method === 'string' ? request.method : ''
    const ident = Number.isSafeInteger(request?.req_id) ? { req_id: request?.req_id } : {}
    const call: Call = { connection, session, method, ident, timeIn: momentNow(), nowMs: exchangeNowMs() }
    const params = typeof request?.params === 'object' && request.params !== null ? request.params : {}
    if (!session.requests.take(call.nowMs, 1)) this.fail(call, 'Exceeded msg rate')
    else if (!request) this.fail(call, 'Malformed request')
    else if (method === 'ping') this.pong(call)
    else if (method === 'subscribe') this.subscribe(call, params as Record<string, unknown>)
    else if (method === 'unsubscribe') this.unsubscribe(call, params as Record<string, unknown>)
    else this.fail(call, 'Unsupported method')
  }

  tick(elapsedMs: number, nowMs: number): void {
    if (nowMs >= this.closedUntilMs) {
      for (const feed of this.feeds.values()) if (feed.isFollowed) feed.tick(elapsedMs, nowMs)
    }
    const heartbeatMs = this.settings.heartbeatMs ?? 1000
    for (const [connection, session] of this.sessions) {
      const lastMs = Math.max(connection.lastSentMs, session.lastHeartbeatMs)
      if (session.followed.size === 0 || nowMs - lastMs < heartbeatMs) continue
      session.lastHeartbeatMs = nowMs
      connection.sendEvent('{"channel":"heartbeat"}')
    }
  }

  idleCode(connection: Connection, nowMs: number): number {
    const heardMs = this.sessions.get(connection)?.lastHeartbeatMs ?? 0
    const lastMs = Math.max(connection.lastReceivedMs, connection.lastSentMs, heardMs)
    return nowMs - lastMs > IDLE_MS_MAX ? 1000 : 0
  }

  /** A maintenance comes at short notice, a restart is told a while before and soon over; both end all connections. */
  announce(fault: Fault, server: SimulatorServer): void {
    const isRestart = fault.kind === 'restart-notice'
    const pauseMs = isRestart ? RESTART_MS : (fault.ms ?? MAINTENANCE_MS)
    const noticeMs = isRestart ? (fault.ms ?? RESTART_NOTICE_MS) : Math.min(NOTICE_MS, pauseMs / 2)
    const endMs = exchangeNowMs() + pauseMs + (isRestart ? noticeMs : 0)
    this.maintenanceUntilMs = Math.max(this.maintenanceUntilMs, endMs)
    for (const connection of server.connections) this.sendStatus(connection)
    this.tellInstruments([...this.pairs.values()])
    server.later(noticeMs, () => {
      this.closedUntilMs = Math.max(this.closedUntilMs, endMs)
      for (const connection of server.connections) connection.close(1001)
    })
  }

  rest(request: RestRequest, nowMs: number): RestAnswer {
    const { method, path, query } = request
    const answer = (body: unknown): RestAnswer => ({ status: 200, body })
    const fail = (error: string): RestAnswer => answer({ error: [error] })
    const succeed = (result: unknown): RestAnswer => answer({ error: [], result })
    const status = this.isOnline ? 'online' : 'maintenance'
    if (path === '/0/public/SystemStatus') {
      return succeed({ status, timestamp: `${new Date(nowMs).toISOString().slice(0, 19)}Z` })
    }
    if (path === '/0/public/AssetPairs') {
      const listed = assetPairs(this.pairs.values(), query.get('pair'), status)
      return listed ? succeed(listed) : fail('EQuery:Unknown asset pair')
    }
    if (nowMs < this.closedUntilMs) return fail('EService:Unavailable')
    if (path === '/0/public/Trades') {
      const [pair] = pairsNamed(this.pairs.values(), query.get('pair') ?? '') ?? []
      return pair ? this.restTrades(pair, query, succeed, fail) : fail('EQuery:Unknown asset pair')
    }
    if (path === '/0/private/GetWebSocketsToken' && method === 'POST') {
      for (const symbol of this.pairs.keys()) {
        const error = this.server?.takeRestError(symbol)
        if (error) return { ...error, body: { error: ['EGeneral:Internal error'] } }
      }
      return answer(this.tokens.issue(request, nowMs))
    }
    return fail('EGeneral:Unknown method')
  }

  private restTrades(
    pair: KrakenPair,
    query: URLSearchParams,
    succeed: (result: unknown) => RestAnswer,
    fail: (error: string) => RestAnswer
  ): RestAnswer {
    const since = query.get('since') ?? ''
    const count = query.get('count') ?? '1000'
    if (!/^\d{0,19}$/.test(since) || !/^\d+$/.test(count)) return fail('EGeneral:Invalid arguments')
    // Seconds are understood as well.
    const sinceNs = since === '' ? undefined : since.padEnd(since.length >= 10 ? 19 : 1, '0')
    const { rows, last } = this.feed(pair).restTrades(sinceNs, Number.parseInt(count, 10))
    return succeed({ [pair.restId]: rows, last })
  }

  private get isOnline(): boolean {
    return exchangeNowMs() >= this.maintenanceUntilMs
  }

  private sendStatus(connection: Connection): void {
    const system = this.isOnline ? 'online' : 'maintenance'
    const facts = `"version":"2.0.10","system":"${system}","api_version":"v2"`
    const id = this.sessions.get(connection)?.connectionId ?? '0'
    connection.sendEvent(`{"channel":"status","type":"update","data":[{${facts},"connection_id":${id}}]}`)
  }

  private tellInstruments(pairs: readonly KrakenPair[]): void {
    const text = instrumentFrame('update', pairs, this.isOnline)
    for (const follower of this.instrumentFollowers) {
      follower.connection.sendFrame(follower, text, 'other', exchangeNowMs())
    }
  }

  private pong({ connection, ident, timeIn }: Call): void {
    connection.sendEvent(JSON.stringify({ method: 'pong', ...ident, time_in: timeIn, time_out: momentNow() }))
  }

  private succeed({ connection, method, ident, timeIn }: Call, result: Record<string, unknown>): void {
    const times = { time_in: timeIn, time_out: momentNow() }
    connection.sendEvent(JSON.stringify({ method, ...ident, result, success: true, ...times }))
  }

  private fail({ connection, method, ident, timeIn }: Call, error: string, symbol?: string): void {
    const times = { time_in: timeIn, time_out: momentNow() }
    const concerned = symbol === undefined ? {} : { symbol }
    connection.sendEvent(JSON.stringify({ error, method, ...ident, success: false, ...concerned, ...times }))
  }

  private subscribe(call: Call, params: Record<string, unknown>): void {
    const wish = this.readWish(call, params)
    if (!wish) return
    if (wish.channel === INSTRUMENTS) {
      this.openInstruments(call, params.snapshot !== false)
      return
    }
    for (const symbol of wish.symbols) {
      const pair = this.pairs.get(symbol)
      const refusal = pair ? this.refusal(call, wish, symbol) : `Currency pair not supported ${symbol}`
      if (!pair || refusal !== undefined) this.fail(call, refusal ?? '', symbol)
      else this.open(call, wish, pair)
    }
  }

  private unsubscribe(call: Call, params: Record<string, unknown>): void {
    const wish = this.readWish(call, params)
    if (!wish) return
    const { channel, depth } = wish
    for (const symbol of channel === INSTRUMENTS ? [undefined] : wish.symbols) {
      const key = keyOf(channel, symbol)
      const followed = call.session.followed.get(key)
      if (!followed || followed.depth !== depth) {
        this.fail(call, 'Subscription Not Found', symbol)
        continue
      }
      call.session.followed.delete(key)
      followed.end()
      call.connection.drop(followed.subscription)
      this.succeed(call, { channel, ...(depth === undefined ? {} : { depth }), ...(symbol ? { symbol } : {}) })
    }
  }

  /** Reads what a request is about; answers it and gives nothing back if that cannot be known. */
  private readWish(call: Call, params: Record<string, unknown>): Wish | undefined {
    const { channel, symbol } = params
    if (channel === INSTRUMENTS)
      return { channel, symbols: [], depth: undefined, hasSnapshot: params.snapshot !== false }
    const isBook = isBookChannel(channel)
    if (!isBook && channel !== 'trade') {
      this.fail(call, 'Channel not supported')
      return undefined
    }
    // Words of a request as a whole name no symbol: only `req_id` says what they are about.
    if (channel === 'level3' && !this.tokens.isValid(params.token, call.nowMs)) {
      this.fail(call, 'ESession:Invalid session')
      return undefined
    }
    if (!Array.isArray(symbol) || symbol.length === 0 || !symbol.every(name => typeof name === 'string')) {
      this.fail(call, 'Symbol field must be an array')
      return undefined
    }
    const { snapshot = isBook, depth = DEFAULT_DEPTH } = params
    return { channel, symbols: symbol, depth: isBook ? Number(depth) : undefined, hasSnapshot: snapshot === true }
  }

  /** Why a symbol cannot be subscribed to; undefined if it can. */
  private refusal({ session, nowMs }: Call, { channel, depth = 0 }: Wish, symbol: string): string | undefined {
    if (isBookChannel(channel) && !DEPTHS[channel].includes(depth)) return 'Subscription depth not supported'
    // Another depth of the same book is the same subscription to the exchange.
    if (session.followed.has(keyOf(channel, symbol))) return 'Already subscribed'
    if (channel === 'level3') {
      const symbols = [...session.followed.values()].filter(followed => followed.channel === channel)
      if (symbols.length >= LEVEL3_SYMBOLS_MAX) return 'Exceeded maximum number of symbols'
      if (!this.level3Costs.take(nowMs, LEVEL3_COSTS[depth]!)) return 'Exceeded msg rate'
    }
    return isBookChannel(channel) && this.server?.takeFault('refuse', symbol) ? 'EService:Unavailable' : undefined
  }

  private open(call: Call, { channel, depth, hasSnapshot }: Wish, pair: KrakenPair): void {
    const { connection, session, nowMs } = call
    const { symbol } = pair
    const isBook = isBookChannel(channel)
    const key = keyOf(channel, symbol)
    const subscription: Subscription = { connection, instrument: symbol, isBook, numbering: key, mutedUntilMs: 0 }
    const feed = this.feed(pair)
    const end = (): void => feed.forget(subscription)
    session.followed.set(key, { subscription, channel, depth, end })
    const depthFact = depth === undefined ? {} : { depth }
    const acknowledge = (): void => this.succeed(call, { channel, ...depthFact, snapshot: hasSnapshot, symbol })
    if (isBook && this.server?.takeFault('silent-ack', symbol)) {
      acknowledge()
    } else {
      const isEarly = this.random.next() < EARLY_SNAPSHOT_CHANCE
      if (!isEarly) acknowledge()
      if (hasSnapshot && isBook) feed.sendBook(subscription, channel, depth!, nowMs)
      else if (hasSnapshot) feed.sendTrades(subscription, nowMs)
      if (isEarly) acknowledge()
      if (isBook) feed.followBook(subscription, channel, depth!)
      else feed.followTrades(subscription)
    }
    this.server?.subscribed(subscription)
  }

  private openInstruments(call: Call, hasSnapshot: boolean): void {
    const { connection, session, nowMs } = call
    if (session.followed.has(INSTRUMENTS)) {
      this.fail(call, 'Already subscribed')
      return
    }
    const subscription: Subscription = {
      connection,
      instrument: '',
      isBook: false,
      numbering: INSTRUMENTS,
      mutedUntilMs: 0
    }
    const end = (): void => void this.instrumentFollowers.delete(subscription)
    session.followed.set(INSTRUMENTS, { subscription, channel: INSTRUMENTS, depth: undefined, end })
    const warnings = ['tick_size is deprecated, use price_increment']
    this.succeed(call, { channel: INSTRUMENTS, snapshot: hasSnapshot, warnings })
    if (hasSnapshot) {
      const text = instrumentFrame('snapshot', [...this.pairs.values()], this.isOnline)
      connection.sendFrame(subscription, text, 'other', nowMs)
    }
    this.instrumentFollowers.add(subscription)
    this.server?.subscribed(subscription)
  }

  private feed(pair: KrakenPair): KrakenFeed {
    const known = this.feeds.get(pair.symbol)
    if (known) return known
    const feed = new KrakenFeed(pair, this.settings.seed, this.settings.eventsPerSecond, exchangeNowMs())
    this.feeds.set(pair.symbol, feed)
    return feed
  }
}

/** What a request wants. */
interface Wish {
  readonly channel: string
  readonly symbols: readonly string[]
  /** Undefined for channels without a book. */
  readonly depth: number | undefined
  readonly hasSnapshot: boolean
}

/** How much may be taken within any second. */
class Allowance {
  private readonly max: number
  private taken: { atMs: number; cost: number }[] = []

  /** 0 for any amount. */
  constructor(max: number) {
    this.max = max || Number.POSITIVE_INFINITY
  }

  /** Takes some of it; false if that would be too much. */
  take(nowMs: number, cost: number): boolean {
    this.taken = this.taken.filter(({ atMs }) => atMs > nowMs - WINDOW_MS)
    if (this.taken.reduce((sum, each) => sum + each.cost, cost) > this.max) return false
    this.taken.push({ atMs: nowMs, cost })
    return true
  }
}

function isBookChannel(channel: unknown): channel is BookChannel {
  return channel === 'book' || channel === 'level3'
}

function keyOf(channel: string, symbol: string | undefined): string {
  return symbol === undefined ? channel : `${channel}:${symbol}`
}

/** The exchange's clock to the microsecond. */
function momentNow(): string {
  const us = Math.floor((performance.timeOrigin + performance.now()) * 1000)
  return momentText(`${us}000`, 6)
}
