import { type BookView, type Channel, Feed } from './bitfinexfeed.ts'
import { COMMON_FAULT_KINDS, type Fault } from './faults.ts'
import { bitfinexSpec, listedInstruments, splitPair } from './listing.ts'
import { Market, scaled } from './market.ts'
import { createRandom } from './random.ts'
import type { Connection, ConnectLimit, FrameKind, RestAnswer, RestRequest, SimulatorServer, Venue } from './server.ts'
import { exchangeNowMs, parseObject } from './server.ts'

const FLAG_TIME = 32768
const FLAG_SEQUENCE = 65536
const FLAG_CHECKSUM = 131072

const LENGTHS = ['1', '25', '100', '250']
const CHANNELS_MAX = 25
const RESTART_MS = 3000
const MAINTENANCE_MS = 10_000
const UNUSED_SOCKET_MS = 60_000

/** What a connection asked for and where it stands. */
interface Session {
  flags: number
  /** The number of the last channel frame. */
  sequence: number
  readonly channels: Map<number, Channel>
}

/** What the simulated Bitfinex is made from. */
export interface BitfinexSettings {
  readonly seed: number
  readonly instruments: readonly string[]
  readonly eventsPerSecond: number
  /** Milliseconds between the heartbeats of a channel. */
  readonly heartbeatMs: number
  /** 0 for no limit. */
  readonly connectsPerMinute: number
}

/** Simulates the public WebSocket v2 and REST API of Bitfinex: raw and P0 books, trades, checksums, maintenance. */
export class Bitfinex implements Venue {
  readonly paths = ['/ws/2']
  readonly faultKinds = [...COMMON_FAULT_KINDS, 'refuse', 'silent-ack', 'drop-trade'] as const
  readonly connectLimit: ConnectLimit
  private readonly settings: BitfinexSettings
  private readonly pairs: readonly string[]
  private readonly feeds = new Map<string, Feed>()
  private readonly sessions = new Map<Connection, Session>()
  private readonly serverId: string
  private server: SimulatorServer | undefined
  private lastChannelId = 0
  private isInMaintenance = false
  private nowMs = exchangeNowMs()

  constructor(settings: BitfinexSettings) {
    this.settings = settings
    this.pairs = listedInstruments('bitfinex', settings.instruments)
    const random = createRandom(settings.seed)
    const hex = (digits: number): string =>
      Array.from({ length: digits }, () => random.integer(16).toString(16)).join('')
    this.serverId = [8, 4, 4, 4, 12].map(hex).join('-')
    this.lastChannelId = random.integer(100_000)
    const max = settings.connectsPerMinute || Number.POSITIVE_INFINITY
    this.connectLimit = { max, windowMs: 60_000, blockMs: 60_000 }
  }

  attach(server: SimulatorServer): void {
    this.server = server
  }

  opened(connection: Connection): void {
    this.sessions.set(connection, { flags: 0, sequence: 0, channels: new Map() })
    const platform = { status: this.isInMaintenance ? 0 : 1 }
    this.tell(connection, { event: 'info', version: 2, serverId: this.serverId, platform })
  }

  closed(connection: Connection): void {
    for (const channel of this.sessions.get(connection)?.channels.values() ?? []) channel.feed.forget(channel)
    this.sessions.delete(connection)
  }

  received(connection: Connection, text: string): void {
    const session = this.sessions.get(connection)
    const request = parseObject(text)
    if (!session || !request) return
    this.nowMs = exchangeNowMs()
    switch (request.event) {
      case 'conf':
        session.flags = typeof request.flags === 'number' ? request.flags : 0
        this.tell(connection, { event: 'conf', status: 'OK', flags: session.flags })
        break
      case 'ping':
        this.tell(connection, { event: 'pong', ts: this.nowMs, cid: request.cid })
        break
      case 'subscribe':
        this.subscribe(connection, session, request)
        break
      case 'unsubscribe':
        this.unsubscribe(connection, session, request)
        break
      default:
        this.tell(connection, { event: 'error', msg: `event: invalid (${String(request.event)})`, code: 10000 })
    }
  }

  tick(elapsedMs: number, nowMs: number): void {
    if (this.isInMaintenance) return
    this.nowMs = nowMs
    for (const feed of this.feeds.values()) {
      if (!feed.isFollowed) continue
      feed.market.advance(elapsedMs, nowMs)
      feed.flushTrades(nowMs)
      for (const view of feed.views.values()) {
        view.flush()
        const checksum = view.dueChecksum(nowMs)
        if (checksum !== undefined) this.sendChecksum(view, checksum)
      }
    }
    for (const session of this.sessions.values()) {
      for (const channel of session.channels.values()) {
        if (nowMs < channel.nextHeartbeatMs) continue
        channel.nextHeartbeatMs = nowMs + this.settings.heartbeatMs
        this.send(channel, '"hb"', 'other')
      }
    }
  }

  idleCode(connection: Connection, nowMs: number): number {
    return connection.subscriptions.size === 0 && nowMs - connection.lastReceivedMs > UNUSED_SOCKET_MS ? 1006 : 0
  }

  announce(fault: Fault, server: SimulatorServer): void {
    const open = [...server.connections]
    if (fault.kind === 'restart-notice') {
      for (const connection of open)
        this.tell(connection, { event: 'info', code: 20051, msg: 'Stopping. Please try to reconnect' })
      server.later(fault.ms ?? RESTART_MS, () => {
        for (const connection of open) connection.close(1012)
      })
      return
    }
    // Trading stands still meanwhile, so a maintenance alone makes no book wrong.
    this.isInMaintenance = true
    for (const connection of open)
      this.tell(connection, { event: 'info', code: 20060, msg: 'Entering maintenance mode' })
    server.later(fault.ms ?? MAINTENANCE_MS, () => {
      this.isInMaintenance = false
      for (const connection of server.connections) {
        this.tell(connection, {
          event: 'info',
          code: 20061,
          msg: 'Maintenance ended. Please resubscribe to all channels'
        })
      }
    })
  }

  rest({ path }: RestRequest): RestAnswer {
    if (path === '/v2/platform/status') return { status: 200, body: [this.isInMaintenance ? 0 : 1] }
    if (this.isInMaintenance) return { status: 503, body: ['error', 20060, 'maintenance'] }
    const keys = /^\/v2\/conf\/(.+)$/.exec(path)?.[1]
    if (keys === undefined) return { status: 404, body: ['error', 10020, 'not found'] }
    return { status: 200, body: keys.split(',').map(key => this.configuration(key)) }
  }

  private configuration(key: string): unknown[] {
    const isFuture = (pair: string): boolean => pair.includes('F0')
    const futures = this.pairs.filter(isFuture)
    const spot = this.pairs.filter(pair => !isFuture(pair))
    const info = (pair: string): unknown => {
      const { typicalSize } = bitfinexSpec(pair)
      const smallest = String(scaled(Math.max(1, Math.round(typicalSize / 500)), 8))
      const largest = (scaled(typicalSize, 8) * 10_000).toFixed(1)
      return [
        pair,
        [
          null,
          null,
          null,
          smallest,
          largest,
          null,
          null,
          null,
          isFuture(pair) ? 0.01 : 0.2,
          isFuture(pair) ? 0.005 : 0.1
        ]
      ]
    }
    switch (key) {
      case 'pub:list:pair:exchange':
      case 'pub:list:pair:margin':
        return spot
      case 'pub:list:pair:futures':
        return futures
      case 'pub:list:currency':
        return [...new Set([...this.pairs.flatMap(splitPair), 'UST', 'UDC'])]
      case 'pub:info:pair':
        return spot.map(info)
      case 'pub:info:pair:futures':
        return futures.map(info)
      case 'pub:map:currency:sym':
        return [
          ['BTCF0', 'BTC'],
          ['ETHF0', 'ETH'],
          ['UDC', 'USDC'],
          ['UST', 'USDt'],
          ['USTF0', 'USDt']
        ]
      default:
        return []
    }
  }

  private subscribe(connection: Connection, session: Session, request: Record<string, unknown>): void {
    // A status key that does not exist gets no answer at all; the simulator has none.
    if (request.channel === 'status') return
    const wish = readWish(request)
    const refusal = this.refusal(session, wish)
    if (refusal) {
      const { event: _, ...asked } = request
      this.tell(connection, { ...asked, event: 'error', ...refusal, pair: wish.pair })
      return
    }
    const { channel, pair, book } = wish
    const feed = this.feed(pair)
    const view = channel === 'book' ? feed.view(book.prec!, book.len!) : undefined
    const opened: Channel = {
      id: ++this.lastChannelId,
      key: keyOf(wish),
      connection,
      instrument: pair,
      isBook: view !== undefined,
      // One counter for the whole connection, whatever the channel.
      numbering: '',
      mutedUntilMs: 0,
      feed,
      view,
      nextHeartbeatMs: this.nowMs + this.settings.heartbeatMs
    }
    session.channels.set(opened.id, opened)
    const subId = 'subId' in request ? { subId: request.subId } : {}
    this.tell(connection, {
      event: 'subscribed',
      channel,
      chanId: opened.id,
      symbol: `t${pair}`,
      ...book,
      ...subId,
      pair
    })
    if (view && this.server?.takeFault('silent-ack', pair)) {
      opened.nextHeartbeatMs = Number.POSITIVE_INFINITY
    } else {
      this.send(opened, view ? view.snapshot() : feed.tradeSnapshot(), 'other')
      // Only now: events must not reach the channel before its snapshot.
      const followers = view ? view.channels : feed.tradeChannels
      followers.add(opened)
    }
    this.server?.subscribed(opened)
  }

  /** Why a subscription cannot be had; undefined if it can. */
  private refusal(session: Session, wish: Wish): { msg: string; code: number; chanId?: number } | undefined {
    const { channel, pair, book } = wish
    if (channel !== 'book' && channel !== 'trades') return { msg: 'channel: unknown', code: 10302 }
    if (!this.pairs.includes(pair)) return { msg: 'symbol: invalid', code: 10300 }
    if (channel === 'book') {
      if (book.prec !== 'R0' && book.prec !== 'P0') return { msg: 'precision: invalid', code: 10300 }
      if (book.freq !== 'F0') return { msg: 'frequency: invalid', code: 10300 }
      if (!LENGTHS.includes(book.len!)) return { msg: 'length: invalid', code: 10300 }
    }
    if (channel === 'book' && this.server?.takeFault('refuse', pair)) return { msg: 'symbol: invalid', code: 10300 }
    const key = keyOf(wish)
    const twin = [...session.channels.values()].find(other => other.key === key)
    if (twin) return { msg: 'subscribe: dup', code: 10301, chanId: twin.id }
    return session.channels.size >= CHANNELS_MAX ? { msg: 'subscribe: limit', code: 10305 } : undefined
  }

  private unsubscribe(connection: Connection, session: Session, { chanId }: Record<string, unknown>): void {
    const channel = typeof chanId === 'number' ? session.channels.get(chanId) : undefined
    if (!channel) {
      const trouble =
        typeof chanId === 'number'
          ? { msg: 'not subscribed', code: 10401 }
          : { msg: 'unsubscribe: invalid', code: 10400 }
      this.tell(connection, { event: 'error', ...trouble, chanId })
      return
    }
    session.channels.delete(channel.id)
    channel.feed.forget(channel)
    connection.drop(channel)
    this.tell(connection, { event: 'unsubscribed', status: 'OK', chanId })
  }

  private feed(pair: string): Feed {
    const known = this.feeds.get(pair)
    if (known) return known
    const market = new Market(bitfinexSpec(pair), this.settings.seed, this.settings.eventsPerSecond, this.nowMs)
    const feed = new Feed(market, (channels, payload, kind) => {
      for (const channel of channels) this.send(channel, payload, kind)
    })
    this.feeds.set(pair, feed)
    return feed
  }

  private sendChecksum(view: BookView, checksum: number): void {
    for (const channel of view.channels) {
      if (!((this.sessions.get(channel.connection)?.flags ?? 0) & FLAG_CHECKSUM)) continue
      const isWrong = channel.connection.takeFault('corrupt-checksum', channel.instrument)
      this.send(channel, `"cs",${isWrong ? ~checksum : checksum}`, 'other')
    }
  }

  /** Every channel frame is numbered, whether or not the connection wants to see the numbers. */
  private send(channel: Channel, payload: string, kind: FrameKind): void {
    const session = this.sessions.get(channel.connection)
    if (!session) return
    const { flags } = session
    let text = `[${channel.id},${payload}`
    session.sequence++
    if (flags & FLAG_SEQUENCE) text += `,${session.sequence}`
    if (flags & FLAG_TIME) text += `,${this.nowMs}`
    channel.connection.sendFrame(channel, `${text}]`, kind, this.nowMs)
  }

  private tell(connection: Connection, event: Record<string, unknown>): void {
    connection.sendEvent(JSON.stringify(event))
  }
}

/** A wished-for subscription; `book` is empty for other channels. */
interface Wish {
  readonly channel: unknown
  readonly pair: string
  readonly book: { readonly prec?: string; readonly freq?: string; readonly len?: string }
}

/** Reads a request with the defaults filled in. A symbol without its `t` is understood. */
function readWish(request: Record<string, unknown>): Wish {
  const named = request.symbol ?? request.pair
  const pair = typeof named === 'string' ? named.replace(/^t(?=[A-Z0-9])/, '') : ''
  const { channel, prec = 'P0', freq = 'F0', len = '25' } = request
  return { channel, pair, book: channel === 'book' ? { prec: String(prec), freq: String(freq), len: String(len) } : {} }
}

function keyOf(wish: Wish): string {
  return JSON.stringify(wish)
}
