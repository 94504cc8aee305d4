/**
 * Bitfinex WebSocket v2: raw books (L3), books of the finest precision (L2), trades.
 *
 * Synchronisation (docs.bitfinex.com/docs/ws-general, /reference/ws-public-raw-books, /reference/ws-public-books,
 * /docs/ws-websocket-checksum; read 2026-11):
 *  1. Send `conf` with TIMESTAMP, SEQ_ALL and OB_CHECKSUM before any subscription.
 *  2. Subscribe `book` with prec R0 (L3) or P0 (L2), freq F0, len 250; the acknowledgement names the channel id.
 *  3. The first data frame of a channel is the image; what follows are single rows. Of R0 they are orders,
 *     `[id, price, amount]`: price 0 deletes, anything else inserts or replaces. Of P0 they are levels,
 *     `[price, count, amount]`: count 0 deletes, amount ±1 then shows the side only.
 *  4. Every channel frame of the connection (hb and cs too) has a number, one more than the one before. A missing
 *     number concerns every book of the connection.
 *  5. `cs` is the signed CRC-32 of the 25 best rows a side as they are at that moment, `id:amount` or `price:amount` joined
 *     by `:`, text as received.
 *  6. Renewing: unsubscribe, wait for the acknowledgement, subscribe.
 */
import crc32 from 'crc-32'
import type { LevelBook } from '../book/levels.ts'
import { isDecimal, isZero, priceKey } from '../core/decimal.ts'
import type { Instrument, Level } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import { readBitfinexCatalogue, spellBitfinex } from './bitfinex-catalogue.ts'
import { ChannelReader, isId, isPrice, isWhole } from './bitfinex-reader.ts'
import type { Exchange, FrameForm, Host, Keeper, L2Frame, Limits, Selection, Session } from './exchange.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const FLAG_TIMESTAMP = 32_768
const FLAG_SEQUENCE = 65_536
const FLAG_CHECKSUM = 131_072
const FLAGS = FLAG_TIMESTAMP + FLAG_SEQUENCE + FLAG_CHECKSUM
const HELD_FRAMES_MAX = 256
const HELD_CHARS_MAX = 4 * 1024 * 1024
/** A maintenance without an end counts as ended after this. */
const MAINTENANCE_US_MAX = 180_000_000
/** So many old numbers in a row mean that the exchange has started to count anew. */
const OLD_FRAMES_MAX = 64
const CHECKSUM_ROWS = 25

const LIMITS: Limits = {
  silenceMsMax: 45_000,
  pingMs: 20_000,
  ackMsMax: 10_000,
  connectsPerMinuteMax: 20,
  connectSpacingMs: 100,
  sendSpacingMs: 0,
  restWeightPerMinuteMax: 10,
  frameBytesMax: 16 * 1024 * 1024
}
/** Orders or levels a side. */
const DEPTH = 250
/** The precision of the book channel. */
const PRECISIONS: Record<Level, string> = { l3: 'R0', l2: 'P0' }

interface SessionState {
  flags: number
  sequence: number | null
  serverMs: number
  old: number
  openedUs: number
  /** Since when the exchange is in maintenance, µs. */
  pausedUs: number | null
  pulse: PulseState
  pings: number
  leaving: boolean
  held: [number, string][]
  closed: number[]
  list: Subscription[]
}

class BitfinexSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly pulse: Pulse
  private readonly reader = new ChannelReader()
  private readonly channels = new Map<number, Subscription>()
  private readonly precision: string
  private readonly isL2: boolean
  /** The update at hand; used again for every frame. */
  private readonly update: L2Frame = {
    bids: '[]',
    asks: '[]',
    sequence: null,
    previous: null,
    checksum: null,
    exchangeTime: null
  }
  private isChannelFrame = false
  private event: Record<string, unknown> | undefined
  private text = ''
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    // All instruments of a capture have one level.
    this.isL2 = host.keepers[0]?.instrument.level === 'l2'
    this.precision = PRECISIONS[this.isL2 ? 'l2' : 'l3']
    this.pulse = new Pulse(host, LIMITS, () => host.send(JSON.stringify({ event: 'ping', cid: ++this.state_.pings })))
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => {
        for (const s of batch) this.ask(s)
      },
      s => this.leave(s)
    )
    this.state_ = {
      flags: 0,
      sequence: null,
      serverMs: 0,
      old: 0,
      openedUs: 0,
      pausedUs: null,
      pulse: this.pulse.state,
      pings: 0,
      leaving: false,
      held: [],
      closed: [],
      list: this.subscriptions.list
    }
  }

  onOpen(): void {
    this.state_.openedUs = this.host.us
    this.pulse.heard()
    this.host.send(JSON.stringify({ event: 'conf', flags: FLAGS }))
  }

  private ask(subscription: Subscription): void {
    const symbol = `t${this.host.keepers[subscription.index]!.instrument.instId}`
    const what =
      subscription.kind === 'book'
        ? { event: 'subscribe', channel: 'book', symbol, prec: this.precision, freq: 'F0', len: String(DEPTH) }
        : { event: 'subscribe', channel: 'trades', symbol }
    this.host.send(JSON.stringify(what))
  }

  private leave(subscription: Subscription): void {
    this.host.send(JSON.stringify({ event: 'unsubscribe', chanId: subscription.handle }))
  }

  read(text: string): FrameForm {
    this.text = text
    this.event = undefined
    this.isChannelFrame = this.reader.read(text)
    if (this.isChannelFrame) return text.includes('\n') || text.includes('\r') ? 'text' : 'msg'
    const parsed = parseFrame(text)
    this.event = asObject(parsed.value)
    return parsed.embeddable ? 'msg' : 'text'
  }

  apply(): void {
    this.pulse.heard()
    if (this.isChannelFrame) this.onChannelFrame()
    else if (this.event !== undefined) this.onEvent(this.event)
    else this.onUnread()
  }

  /** An array that is no channel frame as we know them: of one of our channels, its format has changed. */
  private onUnread(): void {
    const match = /^\s*\[\s*(\d+)\s*,/.exec(this.text)
    const subscription = match ? this.channels.get(Number(match[1])) : undefined
    const tail = /,\s*(\d+)\s*,\s*(\d+)\s*\]\s*$/.exec(this.text)
    if (subscription && tail && !this.inSequence(Number(tail[1]), Number(tail[2]))) return
    if (subscription) this.host.keepers[subscription.index]!.malformed(this.text.slice(0, 200), subscription.kind)
    else this.host.unreadable(this.text)
  }

  private onChannelFrame(): void {
    const { frame } = this.reader
    const tail = frame.tail
    const time = this.state_.flags & FLAG_TIMESTAMP ? (tail.pop() ?? null) : null
    if (this.state_.flags & FLAG_SEQUENCE) {
      const sequence = tail.pop()
      if (sequence === undefined) return this.onUnread()
      if (!this.inSequence(sequence, time)) return
    }
    if (time !== null && time > this.state_.serverMs) this.state_.serverMs = time
    const subscription = this.channels.get(frame.channel)
    if (subscription === undefined) return this.hold(frame.channel)
    this.onData(subscription, time)
  }

  /** Step 4. False: the frame is a repeated or late one and must not be applied. */
  private inSequence(sequence: number, time: number | null): boolean {
    const state = this.state_
    const last = state.sequence
    if (last === null || sequence === last + 1) {
      state.sequence = sequence
      state.old = 0
      return true
    }
    // A number of the past with a time of the past is a repetition. With a newer time, or in long rows, the exchange
    // has begun to count anew, and what lies between is unknown.
    const restarted = sequence <= last && ((time !== null && time > state.serverMs) || ++state.old > OLD_FRAMES_MAX)
    if (sequence <= last && !restarted) return false
    state.old = 0
    state.sequence = sequence
    if (state.held.length > 0 || !this.channels.has(this.reader.frame.channel)) this.spoilHeld()
    for (const subscription of this.subscriptions.list) {
      if (subscription.kind === 'book') this.host.keepers[subscription.index]!.lose('sequence', last + 1, sequence)
      this.subscriptions.renew(subscription, 'sequence')
    }
    // Whatever this frame says belongs to a subscription that has just been left.
    return false
  }

  /** Data may come before the acknowledgement that names its channel: it waits for it. */
  private hold(channel: number): void {
    const { closed, held } = this.state_
    if (closed.includes(channel) || !this.subscriptions.list.some(s => s.stage === 'asked')) return
    held.push([channel, this.text])
    const chars = held.reduce((sum, [, text]) => sum + text.length, 0)
    if (held.length > HELD_FRAMES_MAX || chars > HELD_CHARS_MAX) this.spoilHeld()
  }

  /** Something that waits for its acknowledgement is incomplete. */
  private spoilHeld(): void {
    this.state_.held = []
    this.subscriptions.spoil()
  }

  private onData(subscription: Subscription, time: number | null): void {
    const { frame } = this.reader
    if (subscription.stage !== 'live' && subscription.stage !== 'acked') return
    if (frame.tag === 'hb') {
      if (subscription.stage === 'live') this.subscriptions.data(subscription)
      return
    }
    if (subscription.kind === 'trades') return this.onTrades(subscription, time)
    const keeper = this.host.keepers[subscription.index]!
    if (frame.tag === 'cs') {
      // A checksum is no image: one that comes first says nothing yet.
      if (subscription.stage === 'live') this.subscriptions.data(subscription)
      const expected = frame.tail[0]
      if (keeper.live) keeper.verify(expected === undefined ? null : expected | 0)
      return
    }
    if (
      frame.tag !== '' ||
      !(this.isL2 ? this.validLevels() : this.validOrders()) ||
      frame.nested !== (subscription.stage === 'acked')
    ) {
      return keeper.malformed(this.text.slice(0, 200))
    }
    if (subscription.stage === 'acked') this.onImage(subscription, keeper, time)
    else if (this.isL2) this.onLevel(subscription, keeper, time)
    else this.onOrder(subscription, keeper, time)
  }

  /** Checks the number text of all rows, so that a frame is applied whole or not at all. */
  private validOrders(): boolean {
    const { cells, width, rows } = this.reader.frame
    // The exchange reserves the right to add elements: those that are known come first.
    if (rows > 0 && width < 3) return false
    for (let at = 0; at < cells.length; at += width) {
      const amount = cells[at + 2]!
      if (!isId(cells[at]!) || !isPrice(cells[at + 1]!)) return false
      if (!isDecimal(amount.charCodeAt(0) === 45 ? amount.slice(1) : amount)) return false
    }
    return true
  }

  /** The same of a book of levels. */
  private validLevels(): boolean {
    const { cells, width, rows } = this.reader.frame
    if (rows > 0 && width < 3) return false
    for (let at = 0; at < cells.length; at += width) {
      const amount = cells[at + 2]!
      if (!isPrice(cells[at]!) || !isWhole(cells[at + 1]!)) return false
      if (!isDecimal(amount.charCodeAt(0) === 45 ? amount.slice(1) : amount)) return false
    }
    return true
  }

  /** Step 3, the image. */
  private onImage(subscription: Subscription, keeper: Keeper, time: number | null): void {
    const { cells, rows, width } = this.reader.frame
    this.subscriptions.data(subscription)
    keeper.beginImage(this.state_.sequence, time)
    if (this.isL2) {
      for (let row = 0; row < rows; row++) this.putLevel(keeper.levels, row * width)
      return keeper.endImage(this.numbered(time))
    }
    for (let row = 0; row < rows; row++) {
      const amount = cells[row * width + 2]!
      const isAsk = amount.charCodeAt(0) === 45
      const size = isAsk ? amount.slice(1) : amount
      keeper.imageOrder(cells[row * width]!, isAsk, cells[row * width + 1]!, size)
    }
    keeper.endImage()
  }

  /** Step 3, one order. */
  private onOrder(subscription: Subscription, keeper: Keeper, time: number | null): void {
    const cells = this.reader.frame.cells
    subscription.dataUs = this.host.us
    if (!keeper.live || cells.length === 0) return
    const price = cells[1]!
    const amount = cells[2]!
    if (priceKey(price) === 0) keeper.removeOrder(cells[0]!, this.state_.sequence, time)
    else {
      const isAsk = amount.charCodeAt(0) === 45
      keeper.putOrder(cells[0]!, isAsk, price, isAsk ? amount.slice(1) : amount, this.state_.sequence, time)
    }
  }

  /** Step 3, one level. */
  private onLevel(subscription: Subscription, keeper: Keeper, time: number | null): void {
    subscription.dataUs = this.host.us
    if (!keeper.live || this.reader.frame.cells.length === 0) return
    const { update } = this
    const text = this.putLevel(keeper.levels, 0)
    const isAsk = this.reader.frame.cells[2]!.charCodeAt(0) === 45
    update.bids = isAsk ? '[]' : text
    update.asks = isAsk ? text : '[]'
    keeper.update(this.numbered(time))
  }

  /** Puts the level at a place of the cells into a book, and gives it as records show it. A deleted one has size 0. */
  private putLevel(levels: LevelBook, at: number): string {
    const { cells } = this.reader.frame
    const price = cells[at]!
    const orders = cells[at + 1]!
    const amount = cells[at + 2]!
    const isAsk = amount.charCodeAt(0) === 45
    const size = isAsk ? amount.slice(1) : amount
    if (orders === '0' || isZero(size)) {
      levels.remove(isAsk, priceKey(price))
      return `[["${price}","0","0","0"]]`
    }
    levels.set(isAsk, priceKey(price), price, size, orders)
    return `[["${price}","${size}","0","${orders}"]]`
  }

  private numbered(time: number | null): L2Frame {
    this.update.sequence = this.state_.sequence
    this.update.exchangeTime = time
    return this.update
  }

  /** History (newest first) after the acknowledgement; `te` at execution, `tu` later with the same id. */
  private onTrades(subscription: Subscription, _time: number | null): void {
    const { cells, width, rows, tag } = this.reader.frame
    const keeper = this.host.keepers[subscription.index]!
    this.subscriptions.data(subscription)
    const live = tag === 'te' || tag === 'tu'
    if ((tag !== '' && !live) || (rows > 0 && width < 4)) return keeper.malformed(this.text.slice(0, 200), 'trades')
    for (let row = rows - 1; row >= 0; row--) {
      const amount = cells[row * width + 2]!
      const isSell = amount.charCodeAt(0) === 45
      const size = isSell ? amount.slice(1) : amount
      const price = cells[row * width + 3]!
      if (!isDecimal(size) || !isPrice(price) || !isId(cells[row * width]!)) {
        keeper.malformed(this.text.slice(0, 200), 'trades')
        continue
      }
      keeper.trade({
        id: cells[row * width]!,
        isSell,
        price,
        size,
        exchangeTime: Number(cells[row * width + 1]),
        metadata: live ? '{}' : '{"backfill":true}'
      })
    }
  }

  private onEvent(event: Record<string, unknown>): void {
    switch (event.event) {
      case 'conf':
        this.state_.flags = typeof event.flags === 'number' ? event.flags : 0
        // Step 2 begins when step 1 is confirmed: without numbers nothing could be verified.
        if ((this.state_.flags & FLAGS) === FLAGS) this.subscriptions.start()
        else this.host.hangup(`configuration flags refused: ${textOf(event.flags)}`)
        break
      case 'info':
        this.onInfo(event.code)
        break
      case 'subscribed':
        this.onSubscribed(event)
        break
      case 'unsubscribed':
        this.onUnsubscribed(event.chanId)
        break
      case 'error':
        this.onError(event)
    }
  }

  private matching(event: Record<string, unknown>): Subscription | undefined {
    return this.subscriptions.list.find(
      s =>
        s.kind === event.channel &&
        `t${this.host.keepers[s.index]!.instrument.instId}` === event.symbol &&
        (s.kind !== 'book' || event.prec === undefined || event.prec === this.precision)
    )
  }

  private onSubscribed(event: Record<string, unknown>): void {
    const subscription = this.matching(event)
    const channel = event.chanId
    if (subscription?.stage !== 'asked' || typeof channel !== 'number') return
    const former = this.channels.get(channel)
    if (former) this.subscriptions.left(former)
    this.state_.closed = this.state_.closed.filter(id => id !== channel)
    this.subscriptions.acked(subscription, channel)
    // They come one by one: of 24 that were asked for at once the last was acknowledged 10.6 s later (seen 2021-04-05). As
    // long as some come, the others are on their way.
    for (const other of this.subscriptions.list) if (other.stage === 'asked') other.sinceUs = this.host.us
    this.indexChannels()
    const early = this.state_.held.filter(([id]) => id === channel)
    this.state_.held = this.state_.held.filter(([id]) => id !== channel)
    for (const [, text] of early) {
      this.reader.read(text)
      this.text = text
      const time = this.state_.flags & FLAG_TIMESTAMP ? (this.reader.frame.tail.pop() ?? null) : null
      if (this.state_.flags & FLAG_SEQUENCE) this.reader.frame.tail.pop()
      this.onData(subscription, time)
    }
  }

  private onUnsubscribed(channel: unknown): void {
    if (typeof channel !== 'number') return
    const subscription = this.channels.get(channel)
    // Frames that were under way for a channel we left belong to nobody.
    if (this.state_.closed.push(channel) > HELD_FRAMES_MAX) this.state_.closed.shift()
    if (subscription) this.subscriptions.left(subscription)
    this.indexChannels()
  }

  /** The channel ids in use, anew from the subscriptions: they are what a state line keeps. */
  private indexChannels(): void {
    this.channels.clear()
    for (const subscription of this.subscriptions.list) {
      if (subscription.handle !== null) this.channels.set(subscription.handle, subscription)
    }
  }

  private onError(event: Record<string, unknown>): void {
    const code = event.code
    if (code === 10400 || code === 10401) return this.onUnsubscribed(event.chanId)
    const subscription = this.matching(event)
    if (subscription?.stage !== 'asked') {
      this.host.log('warn', 'Error from the exchange', { code, msg: textOf(event.msg) })
      return
    }
    // 10301 names the channel of the first subscription, whose acknowledgement is still under way.
    if (code === 10301) return
    const later = code === 10305 || code === 11000
    this.subscriptions.refuse(subscription, !later, { code, msg: textOf(event.msg) })
  }

  /** 20051: restart, connect anew. 20060: frozen for a while. 20061: thawed, every channel needs a fresh image. */
  private onInfo(code: unknown): void {
    if (code !== 20051 && code !== 20060 && code !== 20061) return
    const reason = code === 20051 ? 'restart' : code === 20060 ? 'maintenance' : 'maintenance ended'
    for (const keeper of this.host.keepers) keeper.status('maintenance', { code, reason })
    if (code === 20051) {
      if (!this.state_.leaving) this.host.replace('maintenance')
      this.state_.leaving = true
    } else if (code === 20060) {
      this.state_.pausedUs = this.host.us
      for (const keeper of this.host.keepers) keeper.lose('maintenance', null, null, false)
    } else {
      this.state_.pausedUs = null
      for (const subscription of this.subscriptions.list) this.subscriptions.renew(subscription, 'maintenance')
    }
  }

  onTick(): void {
    const state = this.state_
    if ((state.flags & FLAGS) !== FLAGS && this.host.us - state.openedUs > LIMITS.ackMsMax * 1000) {
      return this.host.hangup(`no answer to conf within ${LIMITS.ackMsMax} ms`)
    }
    if (!this.pulse.tick()) return
    const silenceUs = (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
    // Trades have heartbeats of their own, but only the book is worth a resubscription so soon. A maintenance freezes
    // everything: it may last four times as long as a healthy silence.
    if (state.pausedUs !== null && this.host.us - state.pausedUs > MAINTENANCE_US_MAX) state.pausedUs = null
    const paused = state.pausedUs !== null
    this.subscriptions.tick(s => silenceUs * (paused ? 4 : s.kind === 'book' ? 1 : 3), paused)
  }

  resync(index: number, reason: string): void {
    this.subscriptions.renew(this.subscriptions.of(index, 'book'), reason)
  }

  onFetched(): void {
    // Images come by the subscription: nothing is ever fetched.
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    return { ...this.state_, list: this.subscriptions.list }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.subscriptions.list = this.state_.list
    this.indexChannels()
  }
}

/** Step 5: `orderId:amount`, asks negative, bid and ask in turn, missing rows left out; signed. */
export function bitfinexChecksum(keeper: Pick<Keeper, 'orders'>): number {
  const bids = keeper.orders.firstOrders(false, CHECKSUM_ROWS)
  const asks = keeper.orders.firstOrders(true, CHECKSUM_ROWS)
  const parts: string[] = []
  for (let row = 0; row < CHECKSUM_ROWS; row++) {
    const bid = bids[row]
    const ask = asks[row]
    if (bid) parts.push(bid.id, bid.size)
    if (ask) parts.push(ask.id, `-${ask.size}`)
  }
  return crc32.str(parts.join(':'))
}

/** Step 5 of a book of levels: `price:amount`. */
export function bitfinexLevelChecksum(keeper: Pick<Keeper, 'levels'>): number {
  let text = ''
  for (let row = 0; row < CHECKSUM_ROWS; row++) {
    const bid = keeper.levels.at(false, row)
    const ask = keeper.levels.at(true, row)
    if (bid) text += `${text ? ':' : ''}${bid.price}:${bid.size}`
    if (ask) text += `${text ? ':' : ''}${ask.price}:-${ask.size}`
  }
  return crc32.str(text)
}

function describe(instId: string, { level }: Selection): Instrument {
  const market = /F0:/.test(instId) ? 'perp' : 'spot'
  return { exchange: 'bitfinex', instId, market, level, channel: `book-${PRECISIONS[level]}` }
}

/** Bitfinex: see the head of this file. */
export const bitfinex: Exchange = {
  id: 'bitfinex',
  levels: ['l3', 'l2'],
  proof: {
    l3: { sequence: 'connection', checksum: true },
    l2: { sequence: 'connection', checksum: true }
  },
  limits: LIMITS,
  choices: {},
  endpoints: () => ({
    restUrl: 'https://api-pub.bitfinex.com',
    // 25 channels a connection: book and trades of 12.
    routes: [{ url: 'wss://api-pub.bitfinex.com/ws/2', feeds: ['book', 'trades'], instrumentsMax: 12 }]
  }),
  catalogue: () => readBitfinexCatalogue,
  spell: spellBitfinex,
  describe,
  depthMax: () => DEPTH,
  open: host => new BitfinexSession(host),
  checksum: keeper => (keeper.instrument.level === 'l2' ? bitfinexLevelChecksum(keeper) : bitfinexChecksum(keeper))
}
