import { assert } from '../core/errors.ts'
import type { FeedKind } from '../core/instrument.ts'
import type { Host, Limits } from './exchange.ts'

/** Where a subscription stands. `acked` waits for its first data; `waiting` asks again at `dueUs`. */
export type Stage = 'idle' | 'asked' | 'acked' | 'live' | 'leaving' | 'waiting' | 'refused'

/** One channel of one instrument on one connection. Plain data: it is written to the state line as it is. */
export interface Subscription {
  readonly index: number
  readonly kind: FeedKind
  stage: Stage
  /** The exchange's handle for it (a channel id), if it has one. */
  handle: number | null
  /** When the stage was entered, and when data last came, µs. */
  sinceUs: number
  dataUs: number
  dueUs: number
  /** Times it was asked for again since it last worked for a minute. */
  tries: number
  /** Something of it was lost before its acknowledgement: it must be asked for again. */
  spoiled: boolean
}

const STEADY_US = 60_000_000
const FREE_TRIES = 3
const RETRY_MS_MAX = 60_000
/** What was refused for good may be listed again, or was refused by mistake: nobody should have to start the capture anew. */
const REFUSED_US = 600_000_000

/**
 * The life of the subscriptions of one connection: asking, acknowledgement, silence, asking again with growing pauses.
 * How to ask and to leave is the exchange's; when, is decided here.
 */
export class Subscriptions {
  list: Subscription[] = []
  private readonly host: Host
  private readonly limits: Limits
  /** Set where the image of a book does not come by itself: then its lack is no fault of the subscription. */
  imagesApart = false
  /** Set where each subscription is acknowledged by itself: one that is not, while others work, concerns itself alone. */
  acksApart = false
  private readonly ask: (batch: readonly Subscription[]) => void
  private readonly leave: (subscription: Subscription) => void

  /** `ask` gets all that is asked for at once, so that an exchange with room for many in one message can use it. */
  constructor(
    host: Host,
    limits: Limits,
    ask: (batch: readonly Subscription[]) => void,
    leave: (s: Subscription) => void
  ) {
    this.host = host
    this.limits = limits
    this.ask = ask
    this.leave = leave
    this.list = host.keepers.flatMap((_, index) =>
      host.feeds.map(kind => ({
        index,
        kind,
        stage: 'idle' as Stage,
        handle: null,
        sinceUs: 0,
        dataUs: 0,
        dueUs: 0,
        tries: 0,
        spoiled: false
      }))
    )
  }

  /** The subscription of an instrument's channel. */
  of(index: number, kind: FeedKind): Subscription {
    const found = this.find(index, kind)
    assert(found, `no ${kind} subscription of instrument ${index}`)
    return found
  }

  /** The same; undefined when this connection does not have it. */
  find(index: number, kind: FeedKind): Subscription | undefined {
    return this.list.find(s => s.index === index && s.kind === kind)
  }

  /** Whether the book of an instrument was refused for good. */
  refused(index: number): boolean {
    return this.find(index, 'book')?.stage === 'refused'
  }

  /** Whether every subscription of trades works, or was refused. */
  tradesReady(): boolean {
    return this.list.every(({ kind, stage }) => kind === 'book' || stage === 'live' || stage === 'refused')
  }

  /** Asks for everything that is idle. */
  start(): void {
    this.request(this.list.filter(({ stage }) => stage === 'idle'))
  }

  private enter(subscription: Subscription, stage: Stage): void {
    subscription.stage = stage
    subscription.sinceUs = this.host.us
  }

  private request(batch: readonly Subscription[]): void {
    for (const subscription of batch) {
      this.enter(subscription, 'asked')
      subscription.handle = null
      subscription.spoiled = false
    }
    if (batch.length > 0) this.ask(batch)
  }

  /** The exchange has acknowledged a subscription. */
  acked(subscription: Subscription, handle: number | null): void {
    const keeper = this.host.keepers[subscription.index]!
    this.enter(subscription, subscription.kind === 'book' ? 'acked' : 'live')
    subscription.handle = handle
    subscription.dataUs = this.host.us
    if (subscription.kind === 'book') keeper.status('subscribed', { channel: keeper.instrument.channel })
    if (subscription.spoiled) this.renew(subscription, 'lost before the acknowledgement')
  }

  /** Data has come. The first of a book is its image: from there on it is live. */
  data(subscription: Subscription): void {
    subscription.dataUs = this.host.us
    if (subscription.stage === 'acked') {
      this.enter(subscription, 'live')
    }
  }

  /** Needs fresh data: leaves and asks again, once, however often it is called meanwhile. */
  renew(subscription: Subscription, reason: string): void {
    if (subscription.stage !== 'live' && subscription.stage !== 'acked') return
    if (subscription.stage === 'live' && this.host.us - subscription.sinceUs > STEADY_US) subscription.tries = 0
    subscription.tries++
    if (subscription.kind === 'book') {
      const keeper = this.host.keepers[subscription.index]!
      // From here on its frames are dropped: a book that still counts as live would be wrong in silence.
      keeper.lose(reason, null, null, false)
      this.host.log('warn', 'Forced resubscribe', {
        instId: keeper.instrument.instId,
        reason,
        attempt: subscription.tries
      })
      keeper.status('resubscribed', { reason, attempt: subscription.tries })
    }
    this.enter(subscription, 'leaving')
    this.leave(subscription)
  }

  /**
   * Asks for an image anew while the book still counts: silence alone does not tell a quiet market from a mute subscription,
   * but the image does. Whoever calls this compares the two.
   */
  refresh(subscription: Subscription): void {
    if (subscription.stage !== 'live') return
    if (this.host.us - subscription.sinceUs > STEADY_US) subscription.tries = 0
    this.enter(subscription, 'leaving')
    this.leave(subscription)
  }

  /** Whatever comes for a subscription that is still being asked for can no longer be trusted to be whole. */
  spoil(): void {
    for (const subscription of this.list) if (subscription.stage === 'asked') subscription.spoiled = true
  }

  /** The exchange says that a subscription has ended (or that it never was), asked to or not. */
  left(subscription: Subscription): void {
    subscription.handle = null
    if (subscription.stage === 'live' || subscription.stage === 'acked') {
      if (subscription.kind === 'book') this.host.keepers[subscription.index]!.lose('unsubscribed', null, null, false)
      subscription.tries++
    } else if (subscription.stage !== 'leaving') return
    if (subscription.tries <= FREE_TRIES) this.request([subscription])
    else this.wait(subscription, Math.min(RETRY_MS_MAX, 1000 * 2 ** (subscription.tries - FREE_TRIES)))
  }

  private wait(subscription: Subscription, ms: number): void {
    this.enter(subscription, 'waiting')
    subscription.dueUs = this.host.us + ms * 1000
  }

  /** The exchange has refused a subscription: for good (asked for again each ten minutes), or for now. */
  refuse(subscription: Subscription, final: boolean, detail: Record<string, unknown>): void {
    const keeper = this.host.keepers[subscription.index]!
    this.host.log('error', 'Subscription refused', {
      instId: keeper.instrument.instId,
      kind: subscription.kind,
      ...detail
    })
    keeper.status('refused', { channel: subscription.kind, final, ...detail })
    // Of a book that was only looked at again nothing will come any more.
    if (subscription.kind === 'book') keeper.lose('refused', null, null, false)
    if (final) this.enter(subscription, 'refused')
    else this.wait(subscription, RETRY_MS_MAX)
  }

  /** Whatever is overdue: acknowledgements end the connection, missing images and silence renew the subscription. */
  tick(silenceUs: (subscription: Subscription) => number, paused = false): void {
    const ackUs = this.limits.ackMsMax * 1000
    for (const subscription of this.list) {
      const age = this.host.us - subscription.sinceUs
      switch (subscription.stage) {
        case 'asked':
        case 'leaving':
          if (age <= ackUs) break
          if (!this.acksApart || subscription.stage !== 'asked' || !this.list.some(({ stage }) => stage === 'live'))
            return this.host.hangup(`no acknowledgement within ${this.limits.ackMsMax} ms`)
          this.refuse(subscription, false, { msg: `no acknowledgement within ${this.limits.ackMsMax} ms` })
          break
        case 'acked':
          if (!this.imagesApart && age > ackUs) this.renew(subscription, 'no image')
          break
        case 'waiting':
          if (this.host.us >= subscription.dueUs) this.request([subscription])
          break
        case 'refused':
          if (age > REFUSED_US) this.request([subscription])
          break
        case 'live':
          if (!paused && !this.imagesApart && age > ackUs && this.lacksBook(subscription))
            this.renew(subscription, 'no image')
          else this.watch(subscription, silenceUs(subscription))
      }
    }
  }

  private lacksBook(subscription: Subscription): boolean {
    return subscription.kind === 'book' && !this.host.keepers[subscription.index]!.live
  }

  private watch(subscription: Subscription, limitUs: number): void {
    const silentUs = this.host.us - subscription.dataUs
    if (silentUs <= limitUs) return
    const keeper = this.host.keepers[subscription.index]!
    keeper.status('stalled', { channel: subscription.kind, silent_ms: Math.round(silentUs / 1000) })
    this.renew(subscription, 'silence')
  }
}
