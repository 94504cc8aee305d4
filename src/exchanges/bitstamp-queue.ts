import type { Host } from './exchange.ts'
import type { Subscription, Subscriptions } from './subscriptions.ts'

/** A message that waits for its turn, or for its answer. Plain data. */
export interface Asked {
  /** Place of the subscription in the list. */
  readonly at: number
  readonly op: 'subscribe' | 'unsubscribe'
}

/**
 * What is asked of Bitstamp, one channel at a time: its errors name no channel, so that only one may be unanswered. Books
 * come before trades, which need nothing after their acknowledgement.
 */
export class RequestQueue {
  /** The first one was sent. */
  state: Asked[] = []
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly channelOf: (subscription: Subscription) => string

  constructor(host: Host, subscriptions: Subscriptions, channelOf: (subscription: Subscription) => string) {
    this.host = host
    this.subscriptions = subscriptions
    this.channelOf = channelOf
  }

  /** Asks for channels when their turn comes. */
  subscribe(batch: readonly Subscription[]): void {
    for (const kind of ['book', 'trades']) {
      for (const subscription of batch) if (subscription.kind === kind) this.add(subscription, 'subscribe')
    }
  }

  /** Leaves a channel when its turn comes. */
  unsubscribe(subscription: Subscription): void {
    this.add(subscription, 'unsubscribe')
  }

  private add(subscription: Subscription, op: Asked['op']): void {
    this.state.push({ at: this.subscriptions.list.indexOf(subscription), op })
    if (this.state.length === 1) this.transmit()
  }

  private transmit(): void {
    const first = this.state[0]
    if (first === undefined) return
    const subscription = this.subscriptions.list[first.at]!
    subscription.sinceUs = this.host.us
    const channel = this.channelOf(subscription)
    this.host.send(JSON.stringify({ event: `bts:${first.op}`, data: { channel } }))
  }

  /** The subscription that an answer without a name is about; undefined when none is awaited. */
  first(): Subscription | undefined {
    return this.subscriptions.list[this.state[0]?.at ?? -1]
  }

  /** Whether a subscription waits for its turn. */
  holds(subscription: Subscription): boolean {
    return this.state.slice(1).some(({ at }) => this.subscriptions.list[at] === subscription)
  }

  /** An answer has come, or is needed no more: whatever waits for it is done with. */
  settle(subscription: Subscription): void {
    const at = this.subscriptions.list.indexOf(subscription)
    const wasFirst = this.state[0]?.at === at
    this.state = this.state.filter(asked => asked.at !== at)
    if (wasFirst) this.transmit()
  }

  /** Time passes: what waits for its turn waits for no answer yet. */
  tick(): void {
    for (const { at } of this.state.slice(1)) this.subscriptions.list[at]!.sinceUs = this.host.us
  }
}
