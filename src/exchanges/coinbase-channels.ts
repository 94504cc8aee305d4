import { createHmac } from 'node:crypto'
import type { FeedKind } from '../core/instrument.ts'
import { asObject, textOf } from '../core/json.ts'
import type { Host, Limits } from './exchange.ts'
import { type Subscription, Subscriptions } from './subscriptions.ts'

/** How the answers may call the channels of L2. */
const LEVEL2 = ['level2_batch', 'level2_50', 'level2']
/** The exchange is about to cut off a reader that is too slow. */
const SLOW = /ErrSlow/i
/** Refused for now: too much of something, or a clock that is wrong. */
const LATER =
  /rate.?limit|too many|no more than|exceed|maximum|timestamp|try again|temporar|timeout|unavailable|internal/i
/** Refused for want of the right credentials: no product would fare better. */
const UNAUTHENTICATED = /authenticat|unauthori[sz]ed|signature|passphrase|api.?key|permission|forbidden/i

/** What a session does when something happens to its book subscriptions. */
export interface ChannelEvents {
  /** The exchange has taken a subscription. */
  acknowledged(subscription: Subscription): void
  /** A book subscription is left, or gone: what is known of its messages is of no use. */
  parted(index: number): void
}

/**
 * Asking for channels, and what the exchange answers. Answers bear no id of a request: a list of everything in force
 * follows each change, an error belongs to the oldest message that has no answer yet, or to the product it names.
 */
export class Channels {
  readonly subscriptions: Subscriptions
  /** Messages that were not answered yet: the subscriptions of each, by their place in the list. */
  pending: number[][] = []
  private readonly host: Host
  private readonly channel: string
  private readonly isSigned: boolean
  private readonly events: ChannelEvents
  private readonly byName: ReadonlyMap<string, number>

  /** `channel` is that of the books; `byName` has the indexes of the products. */
  constructor(host: Host, limits: Limits, byName: ReadonlyMap<string, number>, events: ChannelEvents) {
    const { channel, level } = host.keepers[0]!.instrument
    this.host = host
    this.byName = byName
    this.channel = channel
    this.isSigned = level === 'l3'
    this.events = events
    this.subscriptions = new Subscriptions(
      host,
      limits,
      batch => this.ask(batch),
      s => this.leave(s)
    )
    this.subscriptions.imagesApart = level === 'l3'
    // The `full` channel tells the matches itself, in the same words: subscribed twice, nobody could tell them apart.
    if (channel === 'full') this.subscriptions.list = this.subscriptions.list.filter(({ kind }) => kind === 'book')
  }

  private nameOf(index: number): string {
    return this.host.keepers[index]!.instrument.instId
  }

  /** One message for all products that want the same channels. */
  private ask(batch: readonly Subscription[]): void {
    const wanted = new Map<number, FeedKind[]>()
    for (const { index, kind } of batch) wanted.set(index, [...(wanted.get(index) ?? []), kind])
    const groups = new Map<string, number[]>()
    for (const [index, kinds] of wanted) {
      const key = kinds.sort().join()
      groups.set(key, [...(groups.get(key) ?? []), index])
    }
    for (const [key, indexes] of groups) this.subscribe(indexes, key.split(',') as FeedKind[])
  }

  private subscribe(indexes: readonly number[], kinds: readonly FeedKind[]): void {
    const { list } = this.subscriptions
    this.pending.push(list.flatMap((s, place) => (indexes.includes(s.index) && kinds.includes(s.kind) ? [place] : [])))
    const channels = [...kinds.map(kind => (kind === 'book' ? this.channel : 'matches')), 'heartbeat']
    const request = { type: 'subscribe', product_ids: indexes.map(index => this.nameOf(index)), channels }
    if (!this.isSigned || !kinds.includes('book')) return this.host.send(JSON.stringify(request))
    const timestamp = String(Math.floor(this.host.us / 1_000_000))
    // In a rebuild nothing is sent: any signature will do.
    const { key, passphrase, secret } = this.host.credentials ?? { key: '', passphrase: '', secret: '' }
    const signature = signCoinbase(secret, timestamp)
    this.host.send(
      JSON.stringify({ ...request, signature, key, passphrase, timestamp }),
      JSON.stringify({ ...request, signature: '***', key: '***', passphrase: '***', timestamp })
    )
  }

  /** The heartbeat goes with its book: it may be what has died. */
  private leave({ index, kind }: Subscription): void {
    if (kind === 'trades') return this.tell('unsubscribe', [index], ['matches'])
    this.events.parted(index)
    this.tell('unsubscribe', [index], [this.channel, 'heartbeat'])
  }

  private tell(type: 'subscribe' | 'unsubscribe', indexes: readonly number[], channels: readonly string[]): void {
    this.host.send(JSON.stringify({ type, product_ids: indexes.map(index => this.nameOf(index)), channels }))
  }

  /** There is no ping: subscribing to the heartbeats that are subscribed to changes nothing, and is answered. */
  ping(): void {
    const all = [...this.host.keepers.keys()]
    const served = all.filter(index => !this.subscriptions.refused(index))
    this.tell('subscribe', served.length > 0 ? served : all, ['heartbeat'])
  }

  /** Subscribes to the heartbeat of a product anew. */
  renewHeartbeat(index: number): void {
    this.tell('unsubscribe', [index], ['heartbeat'])
    this.tell('subscribe', [index], ['heartbeat'])
  }

  /** `subscriptions`: the list of everything that is in force. */
  onList(channels: unknown): void {
    if (!Array.isArray(channels)) return
    const inForce = new Set<string>()
    for (const entry of channels) {
      const { name, product_ids } = asObject(entry) ?? {}
      const kind = name === 'matches' ? 'trades' : this.isBookChannel(name) ? 'book' : undefined
      if (kind === undefined || !Array.isArray(product_ids)) continue
      for (const product of product_ids) inForce.add(`${kind} ${textOf(product)}`)
    }
    const { list } = this.subscriptions
    for (const subscription of list) {
      this.compare(subscription, inForce.has(`${subscription.kind} ${this.nameOf(subscription.index)}`))
    }
    this.pending = this.pending.filter(request => request.some(place => list[place]!.stage === 'asked'))
  }

  private isBookChannel(name: unknown): boolean {
    return name === this.channel || (!this.isSigned && LEVEL2.includes(textOf(name)))
  }

  private compare(subscription: Subscription, isInForce: boolean): void {
    const { stage, kind, index } = subscription
    // An error names no request: what it was laid to may be in force nevertheless.
    const isUnsettled = stage === 'asked' || stage === 'waiting' || stage === 'refused'
    if (isUnsettled && isInForce) this.acknowledge(subscription, true)
    else if (stage === 'leaving' && !isInForce) this.subscriptions.left(subscription)
    else if (stage === 'live' || stage === 'acked') {
      // Data may overtake the list: only what has been in one can be gone from it.
      if (isInForce) subscription.handle = 1
      else if (subscription.handle !== null) {
        if (kind === 'book') this.events.parted(index)
        this.subscriptions.left(subscription)
      }
    }
  }

  /** Takes a subscription for acknowledged. Its handle is 1 when it was in a list, null when only its data came. */
  acknowledge(subscription: Subscription, isListed: boolean): void {
    this.subscriptions.acked(subscription, isListed ? 1 : null)
    this.events.acknowledged(subscription)
  }

  /** `error`. One bad product spoils a whole message, and it may name just one: they are asked for one by one. */
  onError(message: string, reason: string): void {
    const said = `${message} ${reason}`
    const detail = { message, reason }
    if (SLOW.test(said)) {
      this.host.log('error', 'Error from the exchange', detail)
      return this.host.hangup(`too slow for the exchange: ${message}`)
    }
    const named = said.split(/[^\w-]+/).flatMap(word => this.byName.get(word) ?? [])
    const request = this.concerned(named)
    const asked = request?.map(place => this.subscriptions.list[place]!).filter(({ stage }) => stage === 'asked') ?? []
    if (asked.length === 0) return this.host.log('warn', 'Error from the exchange', detail)
    this.pending = this.pending.filter(other => other !== request)
    const indexes = [...new Set(asked.map(({ index }) => index))]
    const isLater = LATER.test(said)
    const isUnauthenticated = UNAUTHENTICATED.test(said)
    if (isUnauthenticated) this.host.log('error', 'The exchange does not accept the credentials', detail)
    if (isUnauthenticated || indexes.length === 1 || (isLater && named.length === 0)) {
      for (const subscription of asked) this.subscriptions.refuse(subscription, !isLater, detail)
    } else this.askOneByOne(indexes, asked)
  }

  /** The message that an error answers: of those that name a product of it the oldest, else the oldest of all. */
  private concerned(named: readonly number[]): readonly number[] | undefined {
    if (named.length === 0) return this.pending[0]
    const { list } = this.subscriptions
    return this.pending.find(request => request.some(place => named.includes(list[place]!.index)))
  }

  private askOneByOne(indexes: readonly number[], asked: readonly Subscription[]): void {
    for (const index of indexes) {
      const own = asked.filter(subscription => subscription.index === index)
      for (const subscription of own) subscription.sinceUs = this.host.us
      this.ask(own)
    }
  }
}

/**
 * The signature of a subscription: HMAC-SHA256 of `timestamp + "GET" + "/users/self/verify"`, base64. `secret` is
 * base64, `timestamp` the seconds of the epoch (docs.cdp.coinbase.com/exchange/websocket-feed/authentication, 2026-11).
 */
export function signCoinbase(secret: string, timestamp: string): string {
  return createHmac('sha256', Buffer.from(secret, 'base64'))
    .update(`${timestamp}GET/users/self/verify`)
    .digest('base64')
}
