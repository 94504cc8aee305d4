import { createHmac } from 'node:crypto'
import { CHANNELS, type Channel, Feed, LEVEL3_SCHEMA } from './coinbasefeed.ts'
import type { Fault, FaultKind } from './faults.ts'
import { listedInstruments, SIMULATED_CREDENTIALS, usdPrice } from './listing.ts'
import { type MarketSpec, plainText } from './market.ts'
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

const FIRST_SUBSCRIBE_MS_MAX = 5000
const SILENCE_MS_MAX = 100_000
const SIGNATURE_AGE_MS_MAX = 30_000
const MESSAGES_PER_SECOND_MAX = 100
const SUBSCRIPTIONS_MAX = 10
const TRADES_PER_PAGE_MAX = 1000
/** Channels that only an authenticated client may have. */
const GUARDED: readonly string[] = ['level3', 'full', 'level2'] satisfies Channel[]
const BOOK_CHANNELS: readonly string[] = ['level3', 'full', 'level2', 'level2_50'] satisfies Channel[]
const NEEDS_LOGIN =
  'level2, level3, and full channels now require authentication. https://docs.cloud.coinbase.com/exchange/docs/websocket-auth'

type Request = Record<string, unknown>

/** One channel of one product that a client names. */
interface Wish {
  readonly channel: string
  /** Undefined where the client names none: all of them, for an unsubscribe. */
  readonly product: string | undefined
}

interface Refusal {
  readonly message: string
  readonly reason?: string
}

/** What a connection asked for. */
interface Session {
  hasSubscribed: boolean
  readonly messages: RateLimit
  /** By channel, then product, in the order of their asking; undefined for one that is acknowledged and stays silent. */
  readonly channels: Map<Channel, Map<string, Subscription | undefined>>
}

/** What the simulated Coinbase Exchange is made from. */
export interface CoinbaseSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds between the heartbeats of a product. @default 1000 */
  readonly heartbeatMs?: number
  /** Connections allowed in a second, with bursts of two and a half times as many; 0 for any number. @default 8 */
  readonly connectsPerSecond?: number
  /** About how many orders rest on each side of each book; 50,000 make images as big as the real ones. @default 600 */
  readonly bookOrders?: number
}

/**
 * Simulates the WebSocket feed and REST API of Coinbase Exchange: `level3`, `full`, `level2`, `level2_batch`, `matches` and
 * `heartbeat`, books of three levels, trades and products.
 */
export class Coinbase implements Venue {
  readonly paths = ['/']
  readonly connectLimit: ConnectLimit
  readonly faultKinds: readonly FaultKind[] = [
    'drop',
    'duplicate',
    'reorder',
    'mute',
    'close',
    'rest-error',
    'stale-image',
    'refuse',
    'silent-ack',
    'drop-trade'
  ]
  private readonly settings: CoinbaseSettings
  private readonly listed: readonly string[]
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  /** Ten requests a second, fifteen in a burst. */
  private readonly requests = new RateLimit(15, 1500)
  private server: SimulatorServer | undefined

  constructor(settings: CoinbaseSettings) {
    this.settings = settings
    this.listed = listedInstruments('coinbase', settings.instruments)
    const { connectsPerSecond = 8 } = settings
    this.connectLimit = {
      max: connectsPerSecond * 2.5 || Number.POSITIVE_INFINITY,
      windowMs: 2500,
      blockMs: 0
    }
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  opened(connection: Connection): void {
    const messages = new RateLimit(MESSAGES_PER_SECOND_MAX, 1000)
    this.sessions.set(connection, { hasSubscribed: false, messages, channels: new Map() })
  }

  closed(connection: Connection): void {
    for (const [channel, products] of this.sessions.get(connection)?.channels ?? []) {
      for (const product of products.keys()) this.forget(connection, channel, product)
    }
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    if (!session) return
    const request = parseObject(text)
    const refusal = this.refusal(session, request)
    if (refusal || !request) {
      connection.sendEvent(JSON.stringify({ type: 'error', ...refusal }))
      return
    }
    if (request.type === 'subscribe') this.subscribe(connection, session, request)
    else this.unsubscribe(connection, session, request)
  }

  tick(elapsedMs: number, nowMs: number): void {
    for (const feed of this.feeds.values()) if (feed.isFollowed) feed.tick(elapsedMs, nowMs)
  }

  idleCode(connection: Connection, nowMs: number): number {
    const session = this.sessions.get(connection)
    if (!session?.hasSubscribed && nowMs - connection.openedMs > FIRST_SUBSCRIBE_MS_MAX) return 1000
    return nowMs - Math.max(connection.lastReceivedMs, connection.lastSentMs) > SILENCE_MS_MAX ? 1006 : 0
  }

  /** Coinbase announces nothing: at a deploy it ends the connections. */
  announce(_fault: Fault, server: SimulatorServer): void {
    for (const connection of server.connections) connection.close(1006)
  }

  rest({ path, query }: RestRequest, nowMs: number): RestAnswer {
    const missing: RestAnswer = { status: 404, body: { message: 'NotFound' } }
    if (!this.requests.admits(nowMs)) return { status: 429, body: { message: 'Public rate limit exceeded' } }
    if (path === '/time') return { status: 200, body: { iso: new Date(nowMs).toISOString(), epoch: nowMs / 1000 } }
    if (path === '/products') return { status: 200, body: this.listed.map(product => this.productFacts(product)) }
    const [, product, rest] = /^\/products\/([^/]+)(?:\/(book|trades))?$/.exec(path) ?? []
    if (product === undefined || !this.listed.includes(product)) return missing
    if (rest === undefined) return { status: 200, body: this.productFacts(product) }
    return rest === 'book' ? this.restBook(product, query, nowMs) : this.restTrades(product, query, nowMs)
  }

  private restBook(product: string, query: URLSearchParams, nowMs: number): RestAnswer {
    const error = this.server?.takeRestError(product)
    if (error)
      return { ...error, body: { message: error.status === 429 ? 'Public rate limit exceeded' : 'Internal error' } }
    const feed = this.feed(product, nowMs)
    switch (query.get('level') ?? '1') {
      case '1':
        return { status: 200, body: feed.levels(1, nowMs) }
      case '2':
        return { status: 200, body: feed.levels(Number.POSITIVE_INFINITY, nowMs) }
      case '3':
        return { status: 200, body: feed.orders(this.server?.takeFault('stale-image', product) ?? false, nowMs) }
      default:
        return { status: 400, body: { message: 'Invalid level' } }
    }
  }

  private restTrades(product: string, query: URLSearchParams, nowMs: number): RestAnswer {
    const read = (name: string): number | undefined => {
      const text = query.get(name)
      return text === null ? undefined : /^\d+$/.test(text) ? Number.parseInt(text, 10) : Number.NaN
    }
    const [limit = TRADES_PER_PAGE_MAX, before, after] = ['limit', 'before', 'after'].map(read)
    if ([limit, before, after].some(Number.isNaN) || limit < 1 || limit > TRADES_PER_PAGE_MAX) {
      return { status: 400, body: { message: 'Invalid pagination parameter' } }
    }
    const trades = this.feed(product, nowMs).trades(limit, before, after)
    const [first, last] = [trades[0], trades.at(-1)]
    const headers = first && last ? { 'cb-before': String(first.trade_id), 'cb-after': String(last.trade_id) } : {}
    return { status: 200, body: trades, headers }
  }

  private subscribe(connection: Connection, session: Session, request: Request): void {
    const nowMs = exchangeNowMs()
    const fresh: { channel: Channel; subscription: Subscription }[] = []
    for (const { channel, product } of readWishes(request) as { channel: Channel; product: string }[]) {
      const products = session.channels.get(channel) ?? new Map<string, Subscription | undefined>()
      session.channels.set(channel, products)
      // A second subscription changes nothing, and brings no second snapshot.
      if (products.get(product)) continue
      const isBook = BOOK_CHANNELS.includes(channel)
      const isSilent = isBook && this.server?.takeFault('silent-ack', product)
      const numbering = `${channel}:${product}`
      const subscription: Subscription = { connection, instrument: product, isBook, numbering, mutedUntilMs: 0 }
      products.set(product, isSilent ? undefined : subscription)
      if (!isSilent) fresh.push({ channel, subscription })
    }
    this.tellSubscriptions(connection, session)
    if (fresh.some(({ channel }) => channel === 'level3')) {
      connection.sendEvent(JSON.stringify({ type: 'level3', schema: LEVEL3_SCHEMA }))
    }
    for (const { channel, subscription } of fresh) {
      this.feed(subscription.instrument, nowMs).join(channel, subscription, nowMs)
      this.server?.subscribed(subscription)
    }
  }

  private unsubscribe(connection: Connection, session: Session, request: Request): void {
    for (const { channel, product } of readWishes(request)) {
      const products = session.channels.get(channel as Channel)
      const concerned = product === undefined ? [...(products?.keys() ?? [])] : [product]
      for (const name of concerned) this.forget(connection, channel as Channel, name)
    }
    this.tellSubscriptions(connection, session)
  }

  private forget(connection: Connection, channel: Channel, product: string): void {
    const channels = this.sessions.get(connection)?.channels
    const products = channels?.get(channel)
    const subscription = products?.get(product)
    products?.delete(product)
    if (products?.size === 0) channels?.delete(channel)
    if (!subscription) return
    this.feeds.get(product)?.leave(channel, subscription)
    connection.drop(subscription)
  }

  /** Answers with everything that is in force. */
  private tellSubscriptions(connection: Connection, session: Session): void {
    const channels = [...session.channels].map(([name, products]) => ({
      name,
      product_ids: [...products.keys()],
      account_ids: null
    }))
    connection.sendEvent(JSON.stringify({ type: 'subscriptions', channels }))
  }

  /** Why a message cannot be served; undefined if it can. One bad part spoils the whole of it. */
  private refusal(session: Session, request: Request | undefined): Refusal | undefined {
    if (!request) return { message: 'Malformed JSON' }
    const nowMs = exchangeNowMs()
    if (!session.messages.admits(nowMs)) return { message: 'Rate limit exceeded' }
    if (request.type === 'subscribe') session.hasSubscribed = true
    else if (request.type !== 'unsubscribe') return { message: 'Type has to be either subscribe or unsubscribe' }
    const refuse = (reason: string): Refusal => ({ message: 'Failed to subscribe', reason })
    const wishes = readWishes(request)
    if (wishes.length === 0) return refuse('No channels provided')
    const unknown = wishes.find(({ channel }) => !(CHANNELS as readonly string[]).includes(channel))
    if (unknown) return refuse(`${unknown.channel} is not a valid channel`)
    if (request.type === 'unsubscribe') return undefined
    const isSigned = request.signature !== undefined || request.key !== undefined
    if (!isSigned && wishes.some(({ channel }) => GUARDED.includes(channel))) return refuse(NEEDS_LOGIN)
    const mistake = isSigned ? signatureMistake(request, nowMs) : undefined
    if (mistake) return { message: 'Sorry, you could not be authenticated: Unauthorized', reason: mistake }
    const missing = wishes.find(({ product = '' }) => !this.listed.includes(product))
    if (missing) return refuse(`${missing.product ?? ''} is not a valid product`)
    const full = wishes.find(wish => this.isFull(session, wish))
    if (full)
      return refuse(`${full.product}: no more than ${SUBSCRIPTIONS_MAX} subscriptions to ${full.channel} allowed`)
    const unlucky = wishes.find(
      ({ channel, product = '' }) => BOOK_CHANNELS.includes(channel) && this.server?.takeFault('refuse', product)
    )
    return unlucky && refuse(`${unlucky.product} is not a valid product`)
  }

  /** True if all connections together have as many subscriptions of this as one account may have. */
  private isFull(own: Session, { channel, product = '' }: Wish): boolean {
    const holders = [...this.sessions.values()].filter(({ channels }) => channels.get(channel as Channel)?.has(product))
    return !holders.includes(own) && holders.length >= SUBSCRIPTIONS_MAX
  }

  private feed(product: string, nowMs: number): Feed {
    const known = this.feeds.get(product)
    if (known) return known
    const { seed, eventsPerSecond, heartbeatMs = 1000, bookOrders } = this.settings
    const feed = new Feed({ spec: coinbaseSpec(product, bookOrders), seed, eventsPerSecond, heartbeatMs }, nowMs)
    this.feeds.set(product, feed)
    return feed
  }

  private productFacts(product: string): Record<string, string | boolean> {
    const { priceDecimals, sizeDecimals } = coinbaseSpec(product)
    const [base, quote] = product.split('-') as [string, string]
    return {
      id: product,
      base_currency: base,
      quote_currency: quote,
      quote_increment: plainText(1, priceDecimals),
      base_increment: plainText(1, sizeDecimals),
      display_name: `${base}-${quote}`,
      min_market_funds: '1',
      margin_enabled: false,
      post_only: false,
      limit_only: false,
      cancel_only: false,
      status: 'online',
      status_message: '',
      trading_disabled: false,
      fx_stablecoin: false,
      max_slippage_percentage: '0.02000000',
      auction_mode: false,
      high_bid_limit_percentage: ''
    }
  }
}

/** Every channel of every product that a request names: products of its own level and of the channel's count alike. */
function readWishes(request: Request): Wish[] {
  const names = (value: unknown): string[] =>
    Array.isArray(value) ? value.filter(name => typeof name === 'string') : []
  const wishes = new Map<string, Wish>()
  for (const value of Array.isArray(request.channels) ? (request.channels as unknown[]) : []) {
    const entry = typeof value === 'object' && value !== null ? (value as Request) : { name: value }
    // The batched channel goes by another name in the answers.
    const channel = entry.name === 'level2_batch' ? 'level2_50' : String(entry.name)
    const products = [...names(request.product_ids), ...names(entry.product_ids)]
    for (const product of products.length > 0 ? products : [undefined]) {
      wishes.set(`${channel}:${product}`, { channel, product })
    }
  }
  return [...wishes.values()]
}

/** What is wrong with the signature of a request; undefined if nothing is. */
function signatureMistake({ key, passphrase, signature, timestamp }: Request, nowMs: number): string | undefined {
  if (key !== SIMULATED_CREDENTIALS.key) return 'invalid api key'
  if (passphrase !== SIMULATED_CREDENTIALS.passphrase) return 'invalid passphrase'
  const signedMs = Number(timestamp) * 1000
  // Written so that a timestamp that is no number fails, too.
  if (!(Math.abs(nowMs - signedMs) <= SIGNATURE_AGE_MS_MAX)) return 'request timestamp expired'
  const secret = Buffer.from(SIMULATED_CREDENTIALS.secret, 'base64')
  const wanted = createHmac('sha256', secret).update(`${timestamp}GET/users/self/verify`).digest('base64')
  return signature === wanted ? undefined : 'invalid signature'
}

/** A product's market. Prices have the cents of the quote currency, or more decimals where a coin is worth little. */
function coinbaseSpec(product: string, bookOrders = 600): MarketSpec {
  const [base, quote] = product.split('-') as [string, string]
  const usd = usdPrice(base)
  const price = quote === 'BTC' || quote === 'ETH' ? usd / usdPrice(quote) : usd
  const priceDecimals = Math.min(8, Math.max(2, 3 - Math.floor(Math.log10(price))))
  const startTicks = Math.max(40, Math.round(price * 10 ** priceDecimals))
  return {
    name: product,
    priceDecimals,
    startTicks,
    sizeDecimals: 8,
    typicalSize: Math.round(Math.min(1e14, (2000 / usd) * 1e8)),
    ordersPerSide: bookOrders,
    // Big books are wide, too: a level holds a few orders, not thousands.
    spanTicks: Math.min(Math.max(1500, bookOrders), startTicks / 6)
  }
}
