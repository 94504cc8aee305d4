/**
 * Kraken spot, WebSocket v2: `book` (L2), `level3` (L3), `trade`, `instrument`.
 *
 * Synchronisation (docs.kraken.com: websocket-v2 book and level3, guides book-checksum-v2 and l3-checksum-v2; read 2026-11):
 *  1. Subscribe with a depth; `level3` on a host of its own, with a token got by a signed request. Each symbol is acknowledged
 *     or refused by itself, and its snapshot may come before its acknowledgement.
 *  2. The snapshot is the book. Updates before it are ignored.
 *  3. The entries of an update are applied in their order. `book` may name a price more than once, a size of zero removes it,
 *     and removing what is not there means nothing. `level3`: `add` puts an order at the back of its price; `modify` sets
 *     price and size, at the same price in the same place of the queue, at another price at the back; `delete` removes.
 *  4. After each message either side is cut to the subscribed number of price levels: what falls out is not told. A level
 *     that comes back is sent again, whole.
 *  5. Numbers are text, with the zeros they are sent with.
 *  6. `checksum`, in the snapshot and in every update, is the unsigned CRC-32 over the 10 best levels (`level3`: over each of
 *     their orders, in queue order), asks first. There is no sequence number: the checksum is the only proof.
 *  7. Renewing: unsubscribe, subscribe, ignore updates until the snapshot.
 *  8. A book that is silent for long is renewed while it still counts, as a quiet market sends nothing. A snapshot that shows
 *     another book says that the subscription was mute: that is a gap. One that shows the same book is its new image.
 *
 * Whether an order keeps its place when its size changes at its price is not documented for every case. If the checksum says
 * that it did not, it is moved to the back. A change of a pair's precision changes the text of all its numbers: its book is
 * renewed (on `level3` connections, which have no `instrument` channel, the checksum shows it).
 */
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import type { Exchange, FetchAnswer, FrameForm, Host, Keeper, Limits, Selection, Session } from './exchange.ts'
import { hasSameLevels, hasSameOrders, OrderFrames, putLevelImage, updateLevels } from './kraken-books.ts'
import { channelInfo, readKrakenCatalogue, spellKraken } from './kraken-catalogue.ts'
import {
  type KrakenBookFrame,
  KrakenBookReader,
  krakenChecksum,
  parseNumbersAsText,
  readBookData
} from './kraken-reader.ts'
import { KrakenToken, type KrakenTokenState } from './kraken-token.ts'
import { KrakenTrades, type KrakenTradesState } from './kraken-trades.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // Channels have no heartbeats of their own, and small pairs may rest for minutes.
  silenceMsMax: 180_000,
  // The exchange says something each second, and ends a connection after a minute of silence.
  pingMs: 10_000,
  ackMsMax: 10_000,
  // 150 in ten minutes; more, and the address is shut out for ten.
  connectsPerMinuteMax: 14,
  connectSpacingMs: 100,
  // No number is published; bursts are answered with `Exceeded msg rate`.
  sendSpacingMs: 100,
  restWeightPerMinuteMax: 40,
  frameBytesMax: 16 * 1024 * 1024
}
const DEPTHS = { book: [10, 25, 100, 500, 1000], level3: [10, 100, 1000] } as const
const SYMBOLS_PER_MESSAGE_MAX = 50
/** What a subscription to `level3` costs, by depth, of what may be spent in a second. */
const LEVEL3_COSTS: Record<number, number> = { 10: 5, 100: 25, 1000: 100 }
const LEVEL3_COST_MAX = 200
const LEVEL3_WINDOW_US = 1_100_000
/** What of an error makes it final; anything else may pass. */
const FINAL = /not supported|not in ISO 4217|unknown symbol|invalid symbol/i
const ALREADY = /already subscribed/i
const TOO_MUCH = /rate|exceeded/i
const PAUSE_US_MIN = 5_000_000
const PAUSE_US_MAX = 600_000_000
/** When the instrument list is asked for again that was neither acknowledged nor refused. */
const INSTRUMENTS_US_MAX = 60_000_000
const REQUESTS_MAX = 64

type Method = 'subscribe' | 'unsubscribe'
const METHODS: readonly Method[] = ['unsubscribe', 'subscribe']
const KINDS: readonly FeedKind[] = ['book', 'trades']

/** A message that was sent, and the places in the list of subscriptions it is not answered for. */
interface Asked {
  readonly id: number
  readonly method: Method
  left: number[]
}

/** What waits to be sent: for the end of the line at hand, for a token, or for its turn. */
interface Waiting {
  readonly at: number
  readonly method: Method
}

interface SessionState {
  pulse: PulseState
  requests: number
  asked: Asked[]
  queue: Waiting[]
  /** When `level3` was subscribed last, and what was spent without a second's pause since. */
  spentUs: number
  spent: number
  /** What the exchange says of itself; null before it did. */
  system: string | null
  /** The request for the instrument list, and when to repeat it. */
  instruments: { id: number; dueUs: number | null }
  /** What was told of each instrument last, as JSON text, and how fine its numbers are. */
  infos: (string | null)[]
  precisions: (string | null)[]
  /** The last frame of each book. */
  last: string[]
  doubts: boolean[]
  token: KrakenTokenState
  trades: KrakenTradesState
  list: Subscription[]
}

class KrakenSession implements Session {
  private readonly host: Host
  private readonly channel: 'book' | 'level3'
  private readonly depth: number
  private readonly subscriptions: Subscriptions
  private readonly pulse: Pulse
  private readonly token: KrakenToken
  private readonly trades: KrakenTrades
  private readonly byName = new Map<string, number>()
  private readonly reader: KrakenBookReader
  private readonly orders: OrderFrames
  private readonly bookPlace: number
  private readonly tradesPlace: number
  private isBookFrame = false
  private value: unknown
  private text = ''
  /** While a line is handled, what is to be sent is collected. */
  private isBusy = false
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.channel = host.keepers[0]?.instrument.level === 'l3' ? 'level3' : 'book'
    this.depth = depthFor(this.channel, host.depth)
    this.pulse = new Pulse(host, LIMITS, () => this.send({ method: 'ping' }))
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => {
        for (const subscription of batch) this.want('subscribe', subscription)
      },
      s => this.want('unsubscribe', s)
    )
    this.token = new KrakenToken(host)
    this.trades = new KrakenTrades(host)
    this.reader = new KrakenBookReader(this.byName, this.channel)
    this.orders = new OrderFrames(host)
    this.bookPlace = host.feeds.indexOf('book')
    this.tradesPlace = host.feeds.indexOf('trades')
    for (const [index, keeper] of host.keepers.entries()) this.byName.set(keeper.instrument.instId, index)
    this.state_ = {
      pulse: this.pulse.state,
      requests: 0,
      asked: [],
      queue: [],
      spentUs: 0,
      spent: 0,
      system: null,
      instruments: { id: 0, dueUs: null },
      infos: host.keepers.map(() => null),
      precisions: host.keepers.map(() => null),
      last: host.keepers.map(() => ''),
      doubts: this.orders.doubts,
      token: this.token.state,
      trades: this.trades.state,
      list: this.subscriptions.list
    }
  }

  onOpen(): void {
    this.pulse.heard()
    this.isBusy = true
    this.subscriptions.start()
    this.isBusy = false
    this.flush()
    // The host of `level3` serves nothing else.
    if (this.channel === 'book' || this.tradesPlace >= 0) this.askInstruments()
  }

  /** The subscription of an instrument's channel; the list is made instrument by instrument. */
  private at(index: number, place: number): Subscription | undefined {
    return place < 0 ? undefined : this.subscriptions.list[index * this.host.feeds.length + place]
  }

  private nameOf(subscription: Subscription): string {
    return this.host.keepers[subscription.index]!.instrument.instId
  }

  /** Sends a message with a number of its own, and gives it back. */
  private send(message: Record<string, unknown>, secret?: string): number {
    const id = ++this.state_.requests
    const text = JSON.stringify({ ...message, req_id: id })
    if (secret === undefined) this.host.send(text)
    else
      this.host.send(
        text,
        text.replace(JSON.stringify(secret), () => '"***"')
      )
    return id
  }

  private askInstruments(): void {
    const id = this.send({ method: 'subscribe', params: { channel: 'instrument', snapshot: true } })
    this.state_.instruments = { id, dueUs: this.host.us + INSTRUMENTS_US_MAX }
  }

  private want(method: Method, subscription: Subscription): void {
    const at = this.subscriptions.list.indexOf(subscription)
    this.state_.queue = this.state_.queue.filter(waiting => waiting.at !== at)
    this.state_.queue.push({ at, method })
    if (!this.isBusy) this.flush()
  }

  /** Steps 1 and 7: everything that waits and may go, as many symbols in one message as it takes. */
  private flush(): void {
    if (this.state_.queue.length === 0) return
    for (const method of METHODS) {
      for (const kind of KINDS) {
        const list = this.state_.queue
          .filter(waiting => waiting.method === method && this.subscriptions.list[waiting.at]!.kind === kind)
          .map(({ at }) => at)
        if (list.length > 0) this.sendAll(method, kind, list)
      }
    }
  }

  private sendAll(method: Method, kind: FeedKind, list: readonly number[]): void {
    const isLevel3 = kind === 'book' && this.channel === 'level3'
    if (isLevel3 && !this.token.isFresh) return this.token.want()
    const count = isLevel3 && method === 'subscribe' ? this.takeTurn(list.length) : list.length
    for (let from = 0; from < count; from += SYMBOLS_PER_MESSAGE_MAX) {
      const some = list.slice(from, Math.min(count, from + SYMBOLS_PER_MESSAGE_MAX))
      this.state_.queue = this.state_.queue.filter(({ at }) => !some.includes(at))
      const symbol = some.map(at => this.nameOf(this.subscriptions.list[at]!))
      const channel = kind === 'book' ? this.channel : 'trade'
      const secret = isLevel3 ? this.token.texts.sent : undefined
      const params = {
        channel,
        symbol,
        ...(kind === 'book' ? { depth: this.depth } : {}),
        ...(method === 'subscribe' ? { snapshot: kind === 'book' } : {}),
        ...(secret === undefined ? {} : { token: secret })
      }
      const id = this.send({ method, params }, secret)
      if (this.state_.asked.push({ id, method, left: some }) > REQUESTS_MAX) this.state_.asked.shift()
    }
  }

  /** How many of so many subscriptions to `level3` may be sent now; the others wait for the next tick. */
  private takeTurn(wanted: number): number {
    const state = this.state_
    const cost = LEVEL3_COSTS[this.depth]!
    if (this.host.us - state.spentUs >= LEVEL3_WINDOW_US) state.spent = 0
    const count = Math.min(wanted, Math.floor((LEVEL3_COST_MAX - state.spent) / cost))
    if (count === 0) return 0
    state.spent += count * cost
    state.spentUs = this.host.us
    return count
  }

  read(text: string): FrameForm {
    this.text = text
    this.isBookFrame = this.reader.read(text)
    if (this.isBookFrame) return 'msg'
    const parsed = parseFrame(text)
    this.value = parsed.value
    return parsed.embeddable ? 'msg' : 'text'
  }

  apply(): void {
    this.pulse.heard()
    this.isBusy = true
    if (this.isBookFrame) this.onBook(this.reader.frame, this.text)
    else this.onValue()
    this.isBusy = false
    this.flush()
  }

  private onValue(): void {
    const object = asObject(this.value)
    this.value = undefined
    if (object === undefined) return this.onCut()
    if (typeof object.method === 'string') return this.onAnswer(object)
    if (object.success === false || typeof object.error === 'string')
      return this.onAnswer({ ...object, method: 'subscribe' })
    switch (object.channel) {
      case this.channel:
        return this.onBooks(object.type)
      case 'trade':
        return this.onTrades(object.type)
      case 'instrument':
        return this.onInstruments(object)
      case 'status':
        return this.onStatus(object.data)
    }
  }

  private unreadable(): void {
    this.host.unreadable(this.text)
  }

  /** The data of the frame at hand with its numbers as text; empty when there are none. */
  private data(): unknown[] {
    const data = asObject(parseNumbersAsText(this.text))?.data
    return Array.isArray(data) ? data : []
  }

  /** Frames of another form than the usual one. */
  private onBooks(type: unknown): void {
    const data = this.data()
    const isOurs = (entry: unknown) => {
      const symbol = asObject(entry)?.symbol
      return typeof symbol !== 'string' || this.byName.has(symbol)
    }
    const ours = data.filter(isOurs)
    const frames = ours.map(entry => readBookData(this.channel, type === 'snapshot', entry))
    const isWhole = data.length > 0 && (type === 'snapshot' || type === 'update')
    if (!isWhole || frames.includes(undefined)) return this.malformed(ours, 'book')
    for (const [n, frame] of frames.entries()) this.onBook(frame!, n === 0 ? this.text : `${n} ${this.text}`)
  }

  /** A frame that cannot be applied whole is not applied at all: whoever is named in it has lost something. */
  private malformed(entries: readonly unknown[], kind: FeedKind): void {
    const indexes = new Set(entries.map(entry => this.byName.get(textOf(asObject(entry)?.symbol))))
    indexes.delete(undefined)
    if (indexes.size === 0) this.unreadable()
    for (const index of indexes) this.host.keepers[index!]!.malformed(this.text.slice(0, 200), kind)
  }

  /** `key` tells the frame from every other one. */
  private onBook(frame: KrakenBookFrame, key: string): void {
    const index = this.byName.get(frame.symbol)
    const subscription = index === undefined ? undefined : this.at(index, this.bookPlace)
    if (index === undefined || subscription === undefined) return
    const { stage } = subscription
    const keeper = this.host.keepers[index]!
    // What still comes of a subscription that was left concerns nobody, unless its book still counts (step 8). A snapshot may be
    // faster than its acknowledgement.
    const isOver = stage === 'leaving' && keeper.live && !frame.isImage
    if (stage !== 'live' && stage !== 'acked' && stage !== 'asked' && !isOver) return
    const last = frame.isImage ? `image ${key.length} ${frame.checksum} ${frame.time}` : key
    subscription.dataUs = this.host.us
    const isAwaited = frame.isImage && stage !== 'live'
    if (keeper.live && !isAwaited && this.state_.last[index] === last) return
    this.state_.last[index] = last
    if (frame.isImage) {
      if (isAwaited && keeper.live) this.compare(keeper, frame)
      if (stage === 'asked') this.subscriptions.acked(subscription, null)
      this.subscriptions.data(subscription)
      if (this.channel === 'level3') this.orders.image(index, frame, this.depth)
      else putLevelImage(keeper, frame, this.depth)
    } else if (!keeper.live) return
    else if (this.channel === 'level3') this.orders.update(index, frame, this.depth)
    else updateLevels(keeper, frame, this.depth)
    keeper.verify(frame.checksum)
  }

  /** Step 8: an image of a book that was silent, and that still counts. */
  private compare(keeper: Keeper, frame: KrakenBookFrame): void {
    if (this.channel === 'level3' ? hasSameOrders(keeper, frame) : hasSameLevels(keeper, frame)) return
    keeper.status('stalled', { channel: 'book', silent_ms: this.silenceMs })
    keeper.lose('silence', null, null, false)
    keeper.status('resubscribed', { reason: 'silence', attempt: 1 })
    this.host.log('warn', 'Forced resubscribe', { instId: keeper.instrument.instId, reason: 'silence', attempt: 1 })
  }

  private get silenceMs(): number {
    return this.host.silenceMs ?? LIMITS.silenceMsMax
  }

  private onTrades(type: unknown): void {
    for (const entry of this.data()) {
      const row = asObject(entry)
      const index = this.byName.get(textOf(row?.symbol))
      const subscription = index === undefined ? undefined : this.at(index, this.tradesPlace)
      if (row === undefined || index === undefined || subscription === undefined) continue
      subscription.dataUs = this.host.us
      if (!this.trades.take(index, row, type === 'snapshot')) {
        this.host.keepers[index]!.malformed(this.text.slice(0, 200), 'trades')
      }
    }
  }

  /** Metadata of all pairs, and what changes of them later. */
  private onInstruments(object: Record<string, unknown>): void {
    const rows = asObject(asObject(parseNumbersAsText(this.text))?.data)?.pairs
    const raws = asObject(object.data)?.pairs
    if (!Array.isArray(rows) || !Array.isArray(raws)) return this.unreadable()
    for (const [n, entry] of rows.entries()) {
      const row = asObject(entry)
      const index = this.byName.get(textOf(row?.symbol))
      const info = row === undefined || index === undefined ? undefined : channelInfo(row, raws[n])
      if (row === undefined || index === undefined || info === undefined) continue
      const told = JSON.stringify(info)
      if (told === this.state_.infos[index]) continue
      this.state_.infos[index] = told
      this.host.metadata(info)
      this.checkPrecision(index, row)
    }
  }

  /** Step 5: with another precision every number is another text. */
  private checkPrecision(index: number, { price_precision: price, qty_precision: qty }: Record<string, unknown>): void {
    if (typeof price !== 'string' || typeof qty !== 'string') return
    const before = this.state_.precisions[index]!
    const precision = `${price.slice(0, 20)}/${qty.slice(0, 20)}`
    this.state_.precisions[index] = precision
    const book = this.at(index, this.bookPlace)
    if (before === null || before === precision || book === undefined) return
    this.host.keepers[index]!.lose('precision', before, precision, false)
    this.subscriptions.renew(book, 'precision')
  }

  /** `system` is online, maintenance, cancel_only or post_only. */
  private onStatus(data: unknown): void {
    const system = asObject(Array.isArray(data) ? data[0] : undefined)?.system
    const before = this.state_.system
    if (typeof system !== 'string' || system.slice(0, 100) === before) return
    this.state_.system = system.slice(0, 100)
    if (before === null && system === 'online') return
    for (const keeper of this.host.keepers) keeper.status('maintenance', { system: this.state_.system })
    // What was silent meanwhile had nothing to say.
    if (system === 'online') for (const s of this.subscriptions.list) s.dataUs = this.host.us
  }

  /** Acknowledgements and refusals, one for each symbol; a refusal may concern a message as a whole. */
  private onAnswer(object: Record<string, unknown>): void {
    const { method, success, req_id } = object
    const result = asObject(object.result)
    if (method === 'subscribe' || method === 'unsubscribe') {
      const { instruments } = this.state_
      if (result?.channel === 'instrument' || (typeof req_id === 'number' && req_id === instruments.id)) {
        const isThere = success === true || ALREADY.test(textOf(object.error))
        if (isThere) instruments.dueUs = null
        else this.host.log('warn', 'Instrument list refused', { error: textOf(object.error).slice(0, 300) })
      } else if (success === true) this.onAck(method, result?.channel, textOf(result?.symbol), req_id)
      else this.onRefusal(method, object)
    } else if (success === false) {
      this.host.log('warn', 'Error from the exchange', { method, error: textOf(object.error).slice(0, 300) })
    }
  }

  private onAck(method: Method, channel: unknown, symbol: string, id: unknown): void {
    const place = channel === this.channel ? this.bookPlace : channel === 'trade' ? this.tradesPlace : -1
    const index = this.byName.get(symbol)
    const subscription = index === undefined ? undefined : this.at(index, place)
    if (subscription === undefined) return
    this.forget(id, [subscription])
    if (method === 'unsubscribe') this.subscriptions.left(subscription)
    // One that waits was taken for refused, with a message that was refused as a whole.
    else if (subscription.stage === 'asked' || subscription.stage === 'waiting' || subscription.stage === 'refused')
      this.subscriptions.acked(subscription, null)
  }

  /** What a message was asked for and is answered now. */
  private forget(id: unknown, answered: readonly Subscription[]): void {
    const asked = this.state_.asked.find(each => each.id === id)
    if (asked === undefined) return
    asked.left = asked.left.filter(at => !answered.includes(this.subscriptions.list[at]!))
    if (asked.left.length === 0) this.state_.asked = this.state_.asked.filter(each => each !== asked)
  }

  private onRefusal(method: Method, object: Record<string, unknown>): void {
    const error = textOf(object.error).slice(0, 300)
    const refused = this.refusedBy(method, object.req_id, object.symbol)
    if (refused.length === 0) return this.host.log('warn', 'Error from the exchange', { method, error })
    this.forget(object.req_id, refused)
    for (const subscription of refused) {
      const isLevel3 = subscription.kind === 'book' && this.channel === 'level3'
      if (isLevel3 && !FINAL.test(error) && !TOO_MUCH.test(error) && !ALREADY.test(error)) this.token.drop()
      // Whether it was left or never there: it is asked for again. If it is still there, that shows then.
      if (subscription.stage === 'leaving') this.subscriptions.left(subscription)
      else if (ALREADY.test(error)) this.subscriptions.acked(subscription, null)
      else if (FINAL.test(error)) this.subscriptions.refuse(subscription, true, { error })
      else this.postpone(subscription, { error })
    }
  }

  /** Whom a refusal concerns: a symbol of a message, a whole message, or everything that is not answered yet. */
  private refusedBy(method: Method, id: unknown, symbol: unknown): Subscription[] {
    const { asked, queue } = this.state_
    const { list } = this.subscriptions
    const message = asked.find(each => each.id === id)
    const open = (message ? message.left : [...list.keys()])
      .filter(at => !queue.some(waiting => waiting.at === at))
      .map(at => list[at]!)
      .filter(({ stage }) => stage === (method === 'subscribe' ? 'asked' : 'leaving'))
    if (typeof symbol !== 'string') return open
    const named = open.filter(subscription => this.nameOf(subscription) === symbol)
    return message ? named : named.slice(0, 1)
  }

  /** Refused for now: asked for again after a pause, which grows from time to time. */
  private postpone(subscription: Subscription, detail: Record<string, unknown>): void {
    this.subscriptions.refuse(subscription, false, detail)
    subscription.dueUs = this.host.us + Math.min(PAUSE_US_MAX, PAUSE_US_MIN * 2 ** subscription.tries)
    subscription.tries++
  }

  /** Without a token nothing of `level3` can be asked for or left. */
  private onTokenTrouble(error: string): void {
    const { list } = this.subscriptions
    const without = this.state_.queue.filter(({ at }) => list[at]!.kind === 'book')
    this.state_.queue = this.state_.queue.filter(({ at }) => list[at]!.kind !== 'book')
    for (const { at } of without) this.postpone(list[at]!, { error })
  }

  /** What is no JSON. Of a message of books that was cut, the checksum shows the ten best levels only. */
  private onCut(): void {
    this.unreadable()
    if (!this.text.startsWith(`{"channel":"${this.channel}"`)) return
    const named = this.host.keepers.filter(k => this.text.includes(JSON.stringify(k.instrument.instId)))
    for (const keeper of named.length > 0 ? named : this.host.keepers) keeper.lose('unreadable', null, null)
  }

  /** Nobody knows what the lost frames said, and the checksum shows the ten best levels only. */
  onLost(): void {
    for (const keeper of this.host.keepers) keeper.lose('unreadable', null, null)
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    const { instruments, queue, system } = this.state_
    this.isBusy = true
    // What could not be sent yet cannot be overdue.
    for (const { at } of queue) this.subscriptions.list[at]!.sinceUs = this.host.us
    if (this.token.tick()) this.onTokenTrouble('no WebSocket token: no answer')
    if (instruments.dueUs !== null && this.host.us >= instruments.dueUs) this.askInstruments()
    // Silence alone proves nothing: `compare` finds out what it means.
    this.subscriptions.tick(() => Number.POSITIVE_INFINITY)
    if (system === null || system === 'online') {
      for (const s of this.subscriptions.list) {
        const isSilent = this.host.us - s.dataUs > this.silenceMs * 1000
        if (s.kind === 'book' && isSilent && this.host.keepers[s.index]!.live) this.subscriptions.refresh(s)
      }
    }
    if (this.tradesPlace >= 0) this.trades.tick()
    this.isBusy = false
    this.flush()
  }

  onFetched(id: string, answer: FetchAnswer): void {
    this.isBusy = true
    if (id === this.token.state.id) {
      const trouble = this.token.answered(answer)
      if (trouble !== undefined) this.onTokenTrouble(trouble)
    } else this.trades.answered(id, answer)
    this.isBusy = false
    this.flush()
  }

  resync(index: number, reason: string): void {
    this.subscriptions.renew(this.subscriptions.of(index, 'book'), reason)
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    return { ...this.state_, list: this.subscriptions.list, trades: this.trades.state }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.token.state = this.state_.token
    this.trades.state = this.state_.trades
    this.orders.doubts = this.state_.doubts
    this.subscriptions.list = this.state_.list
  }
}

/** Step 1: the smallest depth that shows enough levels; the largest when none does. */
function depthFor(channel: 'book' | 'level3', wanted: number): number {
  return DEPTHS[channel].find(depth => depth >= wanted) ?? DEPTHS[channel].at(-1)!
}

function describe(instId: string, { level }: Selection): Instrument {
  return { exchange: 'kraken', instId, market: 'spot', level, channel: level === 'l3' ? 'level3' : 'book' }
}

const PUBLIC_URL = 'wss://ws.kraken.com/v2'
const LEVEL3_URL = 'wss://ws-l3.kraken.com/v2'

/** Kraken: see the head of this file. */
export const kraken: Exchange = {
  id: 'kraken',
  levels: ['l3', 'l2'],
  proof: { l3: { sequence: 'none', checksum: true }, l2: { sequence: 'none', checksum: true } },
  limits: LIMITS,
  choices: {},
  credentials: { levels: ['l3'], variables: ['KRAKEN_API_KEY', 'KRAKEN_API_SECRET'] },
  endpoints: ({ level }) => ({
    restUrl: 'https://api.kraken.com',
    routes:
      level === 'l3'
        ? [
            // 200 symbols are allowed; subscribing to so many deep books would take minutes.
            { url: LEVEL3_URL, feeds: ['book'], instrumentsMax: 50 },
            { url: PUBLIC_URL, feeds: ['trades'], instrumentsMax: 100 }
          ]
        : [{ url: PUBLIC_URL, feeds: ['book', 'trades'], instrumentsMax: 50 }]
  }),
  catalogue: () => readKrakenCatalogue,
  spell: spellKraken,
  describe,
  depthMax: ({ level }) => (level === 'l3' ? Number.POSITIVE_INFINITY : DEPTHS.book.at(-1)!),
  open: host => new KrakenSession(host),
  checksum: krakenChecksum
}
