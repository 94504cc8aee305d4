/**
 * OKX WebSocket v5, `books` (L2, 400 levels) and `trades`.
 *
 * Synchronisation (okx.com/docs-v5/en, order book channel; copy of 2026-07-07):
 *  1. Subscribe `books`; the first frame after the acknowledgement is the image (`action` snapshot, `prevSeqId` −1): path A.
 *     An announcement of 2026-02-12 wants to leave that frame out. When an update comes first, or nothing, it is path B, for
 *     the rest of the connection:
 *     B1. Subscribe, keep the updates, note `prevSeqId` of the first.
 *     B2. `GET /api/v5/market/books`: the image has a `seqId`, too.
 *     B3. If that is smaller than the noted `prevSeqId`, fetch again: REST has several caches, not all of them fresh.
 *     B4. Drop the updates with `seqId` ≤ that of the image; the first one kept must have `prevSeqId` ≤ it < `seqId`.
 *     B5. Apply, and go on with step 2.
 *     An image that comes by the subscription nevertheless is as good as any, and makes the one of REST needless.
 *  2. An update continues the book when its `prevSeqId` is the last `seqId`; anything else is a gap. Numbers may jump,
 *     repeat (keep-alive: `prevSeqId` = `seqId`, no levels) and start again smaller; only the link counts.
 *  3. A size of zero removes a level; removing an absent one means nothing.
 *  4. `checksum` is the signed CRC-32 over 25 levels a side; constantly 0 since 2026-06-23: not provided. Recordings
 *     from before `seqId` existed have only the checksum.
 *  5. Renewing: unsubscribe, wait for the acknowledgement, subscribe.
 */
import crc32 from 'crc-32'
import { isDecimal } from '../core/decimal.ts'
import type { Instrument, Market } from '../core/instrument.ts'
import { asObject, parseFrame, textOf } from '../core/json.ts'
import type { Exchange, FetchAnswer, FrameForm, Host, Keeper, Limits, Selection, Session } from './exchange.ts'
import { Images, type ImagesState } from './images.ts'
import { readOkxCatalogue } from './okx-catalogue.ts'
import { fillOkxFrame, isCount, OkxBookFrame, OkxBookReader, okxFrameText, putRows } from './okx-reader.ts'
import { Pulse, type PulseState } from './pulse.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

const LIMITS: Limits = {
  // A `books` channel without changes repeats its number about every 60 s.
  silenceMsMax: 90_000,
  pingMs: 20_000,
  ackMsMax: 10_000,
  connectsPerMinuteMax: 60,
  // Three a second are allowed.
  connectSpacingMs: 400,
  sendSpacingMs: 0,
  restWeightPerMinuteMax: 120,
  frameBytesMax: 16 * 1024 * 1024
}
const DEPTH = 400
const CHECKSUM_ROWS = 25
/** Too many requests, and a login trouble of the exchange's own: worth another try. Everything else is final. */
const LATER = new Set(['60014', '63999'])

/** How long updates may be older than an image of REST before they are no longer believed to lead to it. */
const JOIN_US_MAX = 10_000_000

interface Chain {
  last: number | null
  previous: number | null
  /** Path B: no update has continued the image yet, and until when one must; null: the chain is whole. */
  joinUntilUs: number | null
}

/** The numbers of an update. */
interface Link {
  readonly previous: number
  readonly sequence: number
}

interface SessionState {
  pulse: PulseState
  requests: number
  asked: Record<string, number>
  chains: Chain[]
  /** Path B. */
  byRest: boolean
  /** By instrument: nothing at all has followed the last acknowledgement. */
  mute: boolean[]
  images: ImagesState
  leaving: boolean
  list: Subscription[]
}

class OkxSession implements Session {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly images: Images
  private readonly pulse: Pulse
  private readonly byName = new Map<string, number>()
  private readonly reader = new OkxBookReader(this.byName)
  private isBookFrame = false
  private value: unknown
  private text = ''
  private state_: SessionState

  constructor(host: Host) {
    this.host = host
    this.pulse = new Pulse(host, LIMITS, () => host.send('ping'))
    this.subscriptions = new Subscriptions(
      host,
      LIMITS,
      batch => {
        for (const s of batch) this.request('subscribe', s)
      },
      s => this.leave(s)
    )
    this.subscriptions.acksApart = true
    // Step B2.
    this.images = new Images(host, (index, id) => {
      const instId = encodeURIComponent(host.keepers[index]!.instrument.instId)
      host.fetch({ id, path: `/api/v5/market/books?instId=${instId}&sz=${DEPTH}&source=0` })
    })
    for (const [index, keeper] of host.keepers.entries()) this.byName.set(keeper.instrument.instId, index)
    this.state_ = {
      pulse: this.pulse.state,
      requests: 0,
      asked: {},
      leaving: false,
      list: this.subscriptions.list,
      chains: host.keepers.map(() => ({ last: null, previous: null, joinUntilUs: null })),
      byRest: false,
      mute: host.keepers.map(() => false),
      images: this.images.state
    }
  }

  onOpen(): void {
    this.pulse.heard()
    this.subscriptions.start()
  }

  private leave(subscription: Subscription): void {
    if (subscription.kind === 'book') this.images.reset(subscription.index)
    this.request('unsubscribe', subscription)
  }

  private request(op: 'subscribe' | 'unsubscribe', subscription: Subscription): void {
    const instId = this.host.keepers[subscription.index]!.instrument.instId
    const channel = subscription.kind === 'book' ? 'books' : 'trades'
    const id = String(++this.state_.requests)
    this.state_.asked[id] = this.subscriptions.list.indexOf(subscription)
    this.host.send(JSON.stringify({ id, op, args: [{ channel, instId }] }))
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
    if (this.isBookFrame) return this.onBook(this.reader.frame)
    const object = asObject(this.value)
    this.value = undefined
    if (object === undefined) {
      if (this.text !== 'pong') this.host.unreadable(this.text)
    } else if (typeof object.event === 'string') this.onEvent(object.event, object)
    else this.onData(object)
  }

  /** Frames of another form than the usual one: other white space, other order of keys, other fields. */
  private onData(object: Record<string, unknown>): void {
    const arg = asObject(object.arg)
    const index = this.byName.get(textOf(arg?.instId))
    if (arg === undefined || index === undefined) return
    const keeper = this.host.keepers[index]!
    if (arg.channel !== 'books' && arg.channel !== 'trades') return
    const data = object.data
    const kind = arg.channel === 'books' ? 'book' : 'trades'
    if (!Array.isArray(data) || data.length === 0) return keeper.malformed(this.text.slice(0, 200), kind)
    if (kind === 'trades') return this.onTrades(index, data)
    const frame = new OkxBookFrame()
    for (const entry of data) {
      if (!fillOkxFrame(frame, keeper.instrument.instId, object.action, asObject(entry))) {
        return keeper.malformed(this.text.slice(0, 200))
      }
      this.onBook(frame)
    }
  }

  private onBook(frame: OkxBookFrame): void {
    const index = this.byName.get(frame.instId)
    if (index === undefined) return
    const subscription = this.subscriptions.of(index, 'book')
    const keeper = this.host.keepers[index]!
    // What still comes of a subscription that was left concerns nobody.
    if (subscription.stage === 'leaving' || subscription.stage === 'waiting') return
    subscription.dataUs = this.host.us
    if (frame.isSnapshot) this.onImage(subscription, keeper, frame)
    else if (keeper.live) this.onUpdate(keeper, frame, this.state_.chains[index]!)
    else this.onEarly(subscription, frame)
  }

  /** Step B1: an update before any image. One without numbers can be joined to none. */
  private onEarly(subscription: Subscription, frame: OkxBookFrame): void {
    const { stage, index } = subscription
    if (frame.sequence === null || (stage !== 'acked' && stage !== 'live')) return
    this.startRest()
    this.images.hold(index, this.isBookFrame ? this.text : okxFrameText(frame))
    this.wantImage(subscription)
  }

  private startRest(): void {
    if (!this.state_.byRest) this.host.log('info', 'Books come without an image: it is fetched over REST', {})
    this.state_.byRest = true
    this.subscriptions.imagesApart = true
  }

  /** Step B2. The subscription itself works, or will be found silent. */
  private wantImage(subscription: Subscription): void {
    this.subscriptions.data(subscription)
    this.images.want(subscription.index)
  }

  /** Step 1. A further image of a live book is as good as the first, unless it is the same frame twice. */
  private onImage(subscription: Subscription, keeper: Keeper, frame: OkxBookFrame): void {
    const chain = this.state_.chains[subscription.index]!
    const repeated = frame.sequence !== null && frame.sequence === chain.last && frame.previous === chain.previous
    if (keeper.live && repeated) return
    if (subscription.stage === 'asked') this.subscriptions.acked(subscription, null)
    this.subscriptions.data(subscription)
    keeper.beginImage(frame.sequence, frame.exchangeTime)
    putRows(keeper, frame)
    chain.last = frame.sequence
    chain.previous = frame.previous
    chain.joinUntilUs = null
    this.images.reset(subscription.index)
    this.state_.mute[subscription.index] = false
    keeper.endImage(frame)
    keeper.verify(frame.checksum)
  }

  /** Steps 2 to 4. */
  private onUpdate(keeper: Keeper, frame: OkxBookFrame, chain: Chain): void {
    if (frame.sequence === null && chain.last !== null) return keeper.malformed(this.text.slice(0, 200))
    if (frame.sequence !== null && frame.previous !== chain.last) {
      const repeated = frame.sequence === chain.last && frame.previous === chain.previous
      if (repeated || this.isContained(frame, chain)) return
      if (!joins(frame, chain)) return keeper.lose('sequence', chain.last, frame.previous)
    }
    chain.joinUntilUs = null
    chain.last = frame.sequence
    chain.previous = frame.previous
    putRows(keeper, frame)
    keeper.update(frame)
    keeper.verify(frame.checksum)
  }

  /** Step B4, once the book is live: whether the image has what an update says. They cannot stay behind it for long. */
  private isContained(frame: OkxBookFrame, chain: Chain): boolean {
    if (chain.joinUntilUs === null || frame.sequence! > chain.last! || this.host.us > chain.joinUntilUs) return false
    if (frame.sequence === chain.last) {
      chain.previous = frame.previous
      chain.joinUntilUs = null
    }
    return true
  }

  private onTrades(index: number, data: readonly unknown[]): void {
    const keeper = this.host.keepers[index]!
    const subscription = this.subscriptions.list.find(s => s.index === index && s.kind === 'trades')
    if (subscription === undefined) return
    if (subscription.stage === 'asked') this.subscriptions.acked(subscription, null)
    subscription.dataUs = this.host.us
    for (const entry of data) {
      const row = asObject(entry)
      const { tradeId, px, sz, side, ts, count, source, seqId } = row ?? {}
      const readable =
        typeof tradeId === 'string' &&
        typeof px === 'string' &&
        typeof sz === 'string' &&
        isDecimal(px) &&
        isDecimal(sz)
      if (!readable || (side !== 'buy' && side !== 'sell')) {
        keeper.malformed(this.text.slice(0, 200), 'trades')
        continue
      }
      keeper.trade({
        id: tradeId,
        isSell: side === 'sell',
        price: px,
        size: sz,
        exchangeTime: typeof ts === 'string' && isCount(ts) ? Number(ts) : null,
        metadata: JSON.stringify({ count, source, seqId: Number.isSafeInteger(seqId) ? seqId : undefined })
      })
    }
  }

  private onEvent(event: string, object: Record<string, unknown>): void {
    const arg = asObject(object.arg)
    const index = this.byName.get(textOf(arg?.instId))
    const kind = arg?.channel === 'books' ? 'book' : arg?.channel === 'trades' ? 'trades' : undefined
    const subscription =
      index !== undefined && kind ? this.subscriptions.list.find(s => s.index === index && s.kind === kind) : undefined
    const id = textOf(object.id)
    switch (event) {
      case 'subscribe':
        delete this.state_.asked[id]
        if (subscription?.stage === 'asked') this.onAcknowledged(subscription)
        break
      case 'unsubscribe':
        delete this.state_.asked[id]
        if (subscription) this.subscriptions.left(subscription)
        break
      case 'error':
        this.onError(id, object, subscription)
        break
      case 'notice':
        if (object.code === '64008') this.onNotice(object)
    }
  }

  /** Where nothing followed the last time there is no update to wait for: the market may just be quiet. */
  private onAcknowledged(subscription: Subscription): void {
    this.subscriptions.acked(subscription, null)
    if (subscription.kind === 'book' && this.state_.mute[subscription.index]) this.wantImage(subscription)
  }

  private onError(id: string, object: Record<string, unknown>, named: Subscription | undefined): void {
    const subscription =
      named ?? this.subscriptions.list[this.state_.asked[id] ?? -1] ?? this.inText(textOf(object.msg))
    delete this.state_.asked[id]
    const detail = { code: textOf(object.code), msg: textOf(object.msg).slice(0, 300) }
    if (subscription?.stage === 'leaving') this.subscriptions.left(subscription)
    else if (subscription?.stage === 'asked') {
      const final = !LATER.has(detail.code)
      this.subscriptions.refuse(subscription, final, detail)
      // What has no book has no trades either: their own refusal need not be waited for.
      const trades = this.subscriptions.list.find(s => s.index === subscription.index && s.kind === 'trades')
      if (final && subscription.kind === 'book' && trades?.stage === 'asked')
        this.subscriptions.refuse(trades, true, detail)
    } else this.host.log('warn', 'Error from the exchange', detail)
  }

  /** Code 60018 may name the subscription in its text only: `channel:books,instId:MATIC-USDT doesn't exist`. */
  private inText(text: string): Subscription | undefined {
    const match = /channel:([\w-]+),\s*instId:([^\s,]+)/.exec(text)
    const index = this.byName.get(match?.[2] ?? '')
    const kind = match?.[1] === 'books' ? 'book' : 'trades'
    return this.subscriptions.list.find(s => s.index === index && s.kind === kind)
  }

  /** The connection will be closed for a service upgrade. */
  private onNotice(object: Record<string, unknown>): void {
    for (const keeper of this.host.keepers)
      keeper.status('maintenance', { code: object.code, msg: textOf(object.msg).slice(0, 300) })
    if (!this.state_.leaving) this.host.replace('notice 64008')
    this.state_.leaving = true
  }

  onTick(): void {
    if (!this.pulse.tick()) return
    this.images.tick()
    const mute = this.subscriptions.list.filter(
      s => s.kind === 'book' && s.stage === 'acked' && this.host.us - s.sinceUs > LIMITS.ackMsMax * 1000
    )
    for (const subscription of mute) {
      this.state_.mute[subscription.index] = true
      if (this.state_.byRest) this.wantImage(subscription)
    }
    const silenceUs = (this.host.silenceMs ?? LIMITS.silenceMsMax) * 1000
    this.subscriptions.tick(s => (s.kind === 'book' ? silenceUs : Number.POSITIVE_INFINITY))
    // Neither image nor update: they were subscribed anew just now, and then take the image that can be had.
    if (mute.length > 0) this.startRest()
  }

  resync(index: number, reason: string): void {
    this.subscriptions.renew(this.subscriptions.of(index, 'book'), reason)
  }

  /** The image of path B. */
  onFetched(id: string, { status, value }: FetchAnswer): void {
    const index = this.images.answered(id)
    if (index === undefined) return
    const { instId } = this.host.keepers[index]!.instrument
    const image = status === 200 ? readRestImage(instId, value) : undefined
    if (image !== undefined) return this.join(index, image)
    const { code, msg } = asObject(value) ?? {}
    this.host.log('warn', 'No image', { instId, status, code: textOf(code), msg: textOf(msg).slice(0, 300) })
    this.images.again(index)
  }

  /** Steps B3 to B5. What waited becomes a part of the image. */
  private join(index: number, image: OkxBookFrame): void {
    const keeper = this.host.keepers[index]!
    const chain = this.state_.chains[index]!
    const backlog = this.images.backlog(index)
    const links = backlog.map(text => {
      const { previous, sequence } = this.reread(text)
      return { previous: previous!, sequence: sequence! }
    })
    const first = firstAfter(links, image.sequence!)
    if (first === undefined) return this.images.again(index)
    keeper.beginImage(image.sequence, image.exchangeTime)
    putRows(keeper, image)
    let end = image
    for (let at = first; at < backlog.length; at++) {
      end = this.reread(backlog[at]!)
      putRows(keeper, end)
    }
    chain.last = end.sequence
    chain.previous = end.previous
    const isJoined = end !== image || links.some(({ sequence }) => sequence === image.sequence)
    chain.joinUntilUs = isJoined ? null : this.host.us + JOIN_US_MAX
    this.state_.mute[index] = false
    this.images.done(index)
    keeper.endImage(end)
    keeper.verify(end.checksum)
  }

  /** An update that waited; it was read before. */
  private reread(text: string): OkxBookFrame {
    const { frame } = this.reader
    if (this.reader.read(text)) return frame
    const { arg, action, data } = asObject(parseFrame(text).value)!
    fillOkxFrame(frame, textOf(asObject(arg)?.instId), action, asObject((data as unknown[])[0]))
    return frame
  }

  refused(index: number): boolean {
    return this.subscriptions.refused(index)
  }

  tradesReady(): boolean {
    return this.subscriptions.tradesReady()
  }

  state(): unknown {
    return { ...this.state_, list: this.subscriptions.list, images: this.images.state }
  }

  restore(state: unknown): void {
    this.state_ = structuredClone(state) as SessionState
    this.pulse.state = this.state_.pulse
    this.subscriptions.list = this.state_.list
    this.subscriptions.imagesApart = this.state_.byRest
    this.images.state = this.state_.images
  }
}

/** Step B4, once the book is live: whether an update leads from before the image to behind it. */
function joins(frame: OkxBookFrame, chain: Chain): boolean {
  return chain.joinUntilUs !== null && frame.previous! < chain.last! && chain.last! < frame.sequence!
}

/** Step B2: the body of the answer; undefined when it is no image with a number. */
function readRestImage(instId: string, value: unknown): OkxBookFrame | undefined {
  const body = asObject(value)
  const data = body?.code === '0' && Array.isArray(body.data) ? asObject(body.data[0]) : undefined
  const image = new OkxBookFrame()
  if (data === undefined || !fillOkxFrame(image, instId, 'snapshot', { ...data, prevSeqId: -1 })) return undefined
  image.previous = image.checksum = null
  return image.sequence === null ? undefined : image
}

/**
 * Steps B3 and B4: which of the updates that waited is the first to apply; undefined when the image is too old for them, or
 * for what comes behind a hole between them. Numbers may start anew: a link that fits exactly is worth more than order.
 */
function firstAfter(links: readonly Link[], sequence: number): number | undefined {
  let first = links.findIndex(({ previous }) => previous === sequence)
  if (first < 0) {
    const end = links.findIndex(link => link.sequence === sequence)
    // The update after one that ends with the image would have been found above.
    if (end >= 0) return links.slice(end).every(link => link.sequence === sequence) ? links.length : undefined
    if (links.length > 0 && sequence < links[0]!.previous) return undefined
    first = links.findIndex(link => link.sequence > sequence)
    if (first < 0) return links.length
    if (links[first]!.previous > sequence) return undefined
  }
  for (let at = first + 1; at < links.length; at++) {
    const [before, link] = [links[at - 1]!, links[at]!]
    const repeated = link.sequence === before.sequence && link.previous === before.previous
    if (link.previous !== before.sequence && !repeated) return undefined
  }
  return first
}

/** Step 4: `price:size` of bid and ask in turn, text as sent, missing rows left out; signed. */
export function okxChecksum(keeper: Pick<Keeper, 'levels'>): number {
  let text = ''
  for (let row = 0; row < CHECKSUM_ROWS; row++) {
    const bid = keeper.levels.at(false, row)
    const ask = keeper.levels.at(true, row)
    if (bid) text += `${text ? ':' : ''}${bid.price}:${bid.size}`
    if (ask) text += `${text ? ':' : ''}${ask.price}:${ask.size}`
  }
  return crc32.str(text)
}

function marketOf(instId: string): Market {
  const parts = instId.split('-')
  if (parts.length <= 2) return 'spot'
  if (parts[2] === 'SWAP') return 'perp'
  return parts.length === 3 ? 'future' : 'option'
}

/** `BTC-USDT-SWAP` of `btc/usdt-swap`, `BTC_USDT_SWAP`; a name without dividers cannot be cut and stays. */
function spell(symbol: string): string {
  return symbol.toUpperCase().replace(/[/_:]/g, '-')
}

function describe(instId: string, { level }: Selection): Instrument {
  return { exchange: 'okx', instId, market: marketOf(instId), level, channel: 'books' }
}

/** OKX: see the head of this file. */
export const okx: Exchange = {
  id: 'okx',
  levels: ['l2'],
  proof: { l2: { sequence: 'instrument', checksum: false } },
  limits: LIMITS,
  choices: {},
  endpoints: () => ({
    restUrl: 'https://www.okx.com',
    routes: [{ url: 'wss://ws.okx.com:8443/ws/v5/public', feeds: ['book', 'trades'], instrumentsMax: 25 }]
  }),
  catalogue: () => readOkxCatalogue(marketOf),
  spell,
  describe,
  depthMax: () => DEPTH,
  open: host => new OkxSession(host),
  checksum: okxChecksum
}
