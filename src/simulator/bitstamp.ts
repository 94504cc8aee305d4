import { CHANNELS, type Channel, Feed } from './bitstampfeed.ts'
import type { Fault, FaultKind } from './faults.ts'
import { listedInstruments, usdPrice } from './listing.ts'
import type { MarketSpec } from './market.ts'
import { RateLimit } from './ratelimit.ts'
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

const FRAME_BYTES_MAX = 512
const CHANNELS_MAX = 1024
const CONNECTION_MS_MAX = 90 * 86_400_000
const PING_MS = 54_000
const RECONNECT_MS = 5000
const CACHE_MS = 1000
const COUNTERS = ['usdt', 'usdc', 'usd', 'eur', 'gbp', 'btc', 'eth']
/** Seconds that the names of `transactions` stand for. */
const SPANS: Record<string, number> = { minute: 60, hour: 3600, day: 86_400 }
/** A channel's name: its kind and a pair in lower case. */
const CHANNEL_NAME = /^([a-z_]+)_([a-z0-9]+(?:-perp)?)$/

interface Refusal {
  readonly code: number | null
  readonly message: string
}

/** What a connection asked for. */
interface Session {
  nextPingMs: number
  /** By the channel's name; undefined for those that were acknowledged and stay silent. */
  readonly channels: Map<string, { subscription: Subscription; feed: Feed; channel: Channel } | undefined>
}

/** What the simulated Bitstamp is made from. */
export interface BitstampSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds between the pings that the server sends. @default 54000 */
  readonly heartbeatMs?: number
  /** About how many orders rest on each side of each book. @default 600 */
  readonly bookOrders?: number
}

/**
 * Simulates the WebSocket v2 and REST v2 API of Bitstamp: orders, books of three kinds, trades; books, transactions and
 * markets by REST.
 */
export class Bitstamp implements Venue {
  readonly paths = ['/']
  readonly connectLimit: ConnectLimit = { max: Number.POSITIVE_INFINITY, windowMs: 1000, blockMs: 0 }
  readonly faultKinds: readonly FaultKind[] = [
    'drop',
    'duplicate',
    'reorder',
    'mute',
    'close',
    'maintenance',
    'restart-notice',
    'rest-error',
    'stale-image',
    'refuse',
    'silent-ack',
    'drop-trade'
  ]
  private readonly settings: BitstampSettings
  private readonly listed: readonly string[]
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  private readonly requests = new RateLimit(400, 1000)
  /** What the edge of the exchange's network answers without asking the exchange again. */
  private readonly cached = new Map<string, { untilMs: number; body: string }>()
  private server: SimulatorServer | undefined

  constructor(settings: BitstampSettings) {
    this.settings = settings
    this.listed = listedInstruments('bitstamp', settings.instruments)
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  opened(connection: Connection): void {
    this.sessions.set(connection, { nextPingMs: connection.openedMs + this.pingMs, channels: new Map() })
  }

  closed(connection: Connection): void {
    for (const name of this.sessions.get(connection)?.channels.keys() ?? []) this.forget(connection, name)
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    if (!session) return
    if (Buffer.byteLength(text) > FRAME_BYTES_MAX) {
      connection.close(1009, 'read limited at 513 bytes')
      return
    }
    const request = parseObject(text)
    if (request?.event === 'bts:heartbeat') {
      tell(connection, 'bts:heartbeat', '', { status: 'success' })
      return
    }
    const name = channelOf(request)
    const refusal = this.refusal(request, name)
    if (refusal) tell(connection, 'bts:error', '', refusal)
    else if (request?.event === 'bts:subscribe') this.subscribe(connection, session, name)
    else {
      this.forget(connection, name)
      tell(connection, 'bts:unsubscription_succeeded', name, {})
    }
  }

  tick(elapsedMs: number, nowMs: number): void {
    for (const feed of this.feeds.values()) if (feed.isFollowed) feed.tick(elapsedMs, nowMs)
  }

  keepHouse(nowMs: number): void {
    for (const [connection, session] of this.sessions) {
      if (nowMs < session.nextPingMs) continue
      session.nextPingMs = nowMs + this.pingMs
      // A mute silences the server's pings, too.
      if (nowMs >= connection.mutedUntilMs) connection.socket.ping()
    }
  }

  idleCode(connection: Connection, nowMs: number): number {
    return nowMs - connection.openedMs > CONNECTION_MS_MAX ? 1000 : 0
  }

  /** Bitstamp has one word for both: it asks for a new connection, and ends the old ones a little later. */
  announce(fault: Fault, server: SimulatorServer): void {
    const open = [...server.connections]
    // All of these have been seen.
    for (const connection of open) tell(connection, 'bts:request_reconnect', '', [null, '', {}][connection.number % 3])
    server.later(fault.ms ?? RECONNECT_MS, () => {
      for (const connection of open) connection.close(1001)
    })
  }

  rest({ path, query }: RestRequest, nowMs: number): RestAnswer {
    if (!this.requests.admits(nowMs)) {
      return { status: 400, body: { status: 'error', reason: 'Request rate limit exceeded.', code: '400.002' } }
    }
    if (/^\/api\/v2\/markets\/?$/.test(path)) return { status: 200, body: this.listed.map(marketFacts) }
    if (/^\/api\/v2\/trading-pairs-info\/?$/.test(path)) return { status: 200, body: this.listed.map(pairFacts) }
    const [, what, pair = ''] = /^\/api\/v2\/(order_book|transactions)\/([^/]+)\/?$/.exec(path) ?? []
    if (what === undefined || !this.listed.includes(pair)) {
      return { status: 404, body: { status: 'error', reason: 'Not found.', code: 'API0006' } }
    }
    if (what === 'order_book') return this.restBook(pair, query, nowMs)
    const seconds = SPANS[query.get('time') ?? 'hour']
    if (seconds === undefined) {
      return { status: 400, body: { status: 'error', reason: { time: ['Invalid time interval.'] }, code: 'API0020' } }
    }
    return { status: 200, body: this.feed(pair, nowMs).transactions(seconds, nowMs) }
  }

  /** A book; the one of up to a second ago unless a nonce says that it is another request. */
  private restBook(pair: string, query: URLSearchParams, nowMs: number): RestAnswer {
    const error = this.server?.takeRestError(pair)
    if (error) return { ...error, body: { status: 'error', reason: 'Request failed.', code: `${error.status}.001` } }
    const group = query.get('group') ?? '1'
    const key = `${pair}:${group}`
    const hasNonce = query.has('_')
    const known = this.cached.get(key)
    if (!hasNonce && known && nowMs < known.untilMs) return { status: 200, body: known.body }
    const isOld = this.server?.takeFault('stale-image', pair) ?? false
    const body = JSON.stringify(this.feed(pair, nowMs).book(group, isOld))
    if (!hasNonce) this.cached.set(key, { untilMs: nowMs + CACHE_MS, body })
    return { status: 200, body }
  }

  /** Acknowledges a subscription again if it is there already. Of a pair that does not exist, nothing ever comes. */
  private subscribe(connection: Connection, session: Session, name: string): void {
    const isNew = !session.channels.has(name)
    if (isNew && session.channels.size >= CHANNELS_MAX) {
      connection.close(1006)
      return
    }
    tell(connection, 'bts:subscription_succeeded', name, {})
    if (session.channels.get(name)) return
    const [channel, pair] = splitChannel(name)!
    const isBook = channel !== 'live_trades'
    const isSilent = isBook && this.server?.takeFault('silent-ack', pair)
    if (isSilent || !this.listed.includes(pair)) {
      session.channels.set(name, undefined)
      return
    }
    const subscription: Subscription = { connection, instrument: pair, isBook, numbering: name, mutedUntilMs: 0 }
    const feed = this.feed(pair, exchangeNowMs())
    session.channels.set(name, { subscription, feed, channel })
    feed.join(channel, subscription)
    this.server?.subscribed(subscription)
  }

  private forget(connection: Connection, name: string): void {
    const channels = this.sessions.get(connection)?.channels
    const known = channels?.get(name)
    channels?.delete(name)
    if (!known) return
    known.feed.leave(known.channel, known.subscription)
    connection.drop(known.subscription)
  }

  /** Why a request cannot be served; undefined if it can. */
  private refusal(request: Record<string, unknown> | undefined, name: string): Refusal | undefined {
    if (!request) return { code: null, message: 'Incorrect JSON format.' }
    const isSubscribe = request.event === 'bts:subscribe'
    if ((!isSubscribe && request.event !== 'bts:unsubscribe') || name === '') {
      return { code: null, message: 'Bad subscription string.' }
    }
    if (name.startsWith('private-')) return { code: 4009, message: 'Connection is unauthorized.' }
    const parts = splitChannel(name)
    if (!parts) return { code: null, message: 'Invalid channel provided.' }
    const [channel, pair] = parts
    const isRefused = isSubscribe && channel !== 'live_trades' && this.server?.takeFault('refuse', pair)
    return isRefused ? { code: null, message: 'Bad subscription string.' } : undefined
  }

  private get pingMs(): number {
    return this.settings.heartbeatMs ?? PING_MS
  }

  private feed(pair: string, nowMs: number): Feed {
    const known = this.feeds.get(pair)
    if (known) return known
    const { seed, eventsPerSecond, bookOrders } = this.settings
    const feed = new Feed({ spec: bitstampSpec(pair, bookOrders), seed, eventsPerSecond }, nowMs)
    this.feeds.set(pair, feed)
    return feed
  }
}

function tell(connection: Connection, event: string, channel: string, data: unknown): void {
  connection.sendEvent(JSON.stringify({ event, channel, data }))
}

/** The channel that a request names; empty if it names none. */
function channelOf(request: Record<string, unknown> | undefined): string {
  const data = request?.data
  const channel = typeof data === 'object' && data !== null ? (data as Record<string, unknown>).channel : undefined
  return typeof channel === 'string' ? channel : ''
}

/** The kind and the pair of a channel's name; undefined if there is no such kind, or the pair is not in lower case. */
function splitChannel(name: string): [channel: Channel, pair: string] | undefined {
  const [, channel = '', pair = ''] = CHANNEL_NAME.exec(name) ?? []
  return (CHANNELS as readonly string[]).includes(channel) ? [channel as Channel, pair] : undefined
}

/** The base and the counter currency of a pair, in capitals. */
function splitPair(pair: string): [base: string, counter: string] {
  const known = COUNTERS.find(name => pair.endsWith(name) && pair.length > name.length)
  const at = pair.length - (known?.length ?? 3)
  return [pair.slice(0, at).toUpperCase(), pair.slice(at).toUpperCase()]
}

/** A pair's market. Prices have two decimals, and five where a coin is worth little. */
function bitstampSpec(pair: string, bookOrders = 600): MarketSpec {
  const [base, counter] = splitPair(pair)
  const usd = usdPrice(base)
  const price = counter === 'BTC' || counter === 'ETH' ? usd / usdPrice(counter) : usd
  const priceDecimals = price >= 10 ? 2 : price >= 0.01 ? 5 : 8
  const startTicks = Math.max(40, Math.round(price * 10 ** priceDecimals))
  return {
    name: pair,
    priceDecimals,
    startTicks,
    sizeDecimals: 8,
    typicalSize: Math.round(Math.min(1e14, (2000 / usd) * 1e8)),
    ordersPerSide: bookOrders,
    // Big books are wide, too: a level holds a few orders, not thousands.
    spanTicks: Math.min(Math.max(1500, bookOrders), startTicks / 6)
  }
}

/** A market as `/markets/` shows it. */
function marketFacts(pair: string): Record<string, string | number> {
  const [base, counter] = splitPair(pair)
  const { priceDecimals, sizeDecimals } = bitstampSpec(pair)
  return {
    name: `${base}/${counter}`,
    market_symbol: pair,
    base_currency: base,
    base_decimals: sizeDecimals,
    counter_currency: counter,
    counter_decimals: priceDecimals,
    minimum_order_value: '10',
    trading: 'Enabled',
    instant_order_counter_decimals: priceDecimals,
    instant_and_market_orders: 'Enabled',
    market_type: 'SPOT',
    contract_size: '1.00000000',
    payoff_type: 'LINEAR',
    description: `${base} / ${counter}`
  }
}

/** A market as the older `/trading-pairs-info/` shows it. */
function pairFacts(pair: string): Record<string, string | number> {
  const [base, counter] = splitPair(pair)
  const { priceDecimals, sizeDecimals } = bitstampSpec(pair)
  return {
    name: `${base}/${counter}`,
    url_symbol: pair,
    base_decimals: sizeDecimals,
    counter_decimals: priceDecimals,
    instant_order_counter_decimals: priceDecimals,
    minimum_order: `10.0 ${counter}`,
    trading: 'Enabled',
    instant_and_market_orders: 'Enabled',
    description: `${base} / ${counter}`
  }
}
