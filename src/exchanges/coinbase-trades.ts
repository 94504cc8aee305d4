import { asObject, textOf } from '../core/json.ts'
import { type ReadTrade, readTrade, wholeNumber } from './coinbase-reader.ts'
import type { FetchAnswer, Host } from './exchange.ts'
import type { Subscriptions } from './subscriptions.ts'
import { TradeChain, type TradeChainState, type TradeHole } from './trade-chain.ts'

/** The largest page of a history. */
const PAGE = 1000

/** The trades of a connection as plain data. */
export interface CoinbaseTradesState {
  chain: TradeChainState
  list: {
    /** The newest trade by the heartbeat before: it may be under way for another second. */
    told: number | null
    /** The newest trade that was missed and asked for. */
    chased: number
  }[]
}

/** Trades of `matches` or `full`, and those that they miss: `matches` may drop some, and heartbeats show it. */
export class CoinbaseTrades {
  private readonly host: Host
  private readonly subscriptions: Subscriptions
  private readonly byName: ReadonlyMap<string, number>
  private readonly chain: TradeChain
  private readonly isWanted: boolean
  private list: CoinbaseTradesState['list']

  /** `byName` has the indexes of the products. */
  constructor(host: Host, subscriptions: Subscriptions, byName: ReadonlyMap<string, number>) {
    this.host = host
    this.subscriptions = subscriptions
    this.byName = byName
    this.isWanted = host.feeds.includes('trades')
    this.chain = new TradeChain(host, (index, from, _to, id) => this.ask(index, from, id))
    this.list = host.keepers.map(() => ({ told: null, chased: 0 }))
  }

  /** Plain data of it; the session keeps it in its own state. */
  get state(): CoinbaseTradesState {
    return { chain: this.chain.state, list: this.list }
  }

  set state(state: CoinbaseTradesState) {
    this.chain.state = state.chain
    this.list = state.list
  }

  /** A `match` as it happens; `text` is its frame. */
  onMatch(object: Record<string, unknown>, text: string): void {
    const index = this.byName.get(textOf(object.product_id))
    if (index === undefined || !this.isWanted) return
    const subscription = this.subscriptions.find(index, 'trades')
    if (subscription !== undefined) subscription.dataUs = this.host.us
    const read = readTrade(object, false)
    if (read === undefined) this.host.keepers[index]!.malformed(text.slice(0, 200), 'trades')
    else this.chain.live(index, read.id, read.trade)
  }

  /** `last_match`: the newest trade of before the subscription, written already or missed. It is no live trade. */
  onLastMatch(object: Record<string, unknown>, limitUs: number): void {
    const index = this.byName.get(textOf(object.product_id))
    const id = wholeNumber(object.trade_id)
    if (index !== undefined && id !== undefined) this.chase(index, id, limitUs)
  }

  /** The newest trade by a heartbeat. One that is only under way has a second. */
  onHeartbeat(index: number, newest: number, limitUs: number): void {
    const product = this.list[index]!
    if (product.told !== null) this.chase(index, product.told, limitUs)
    product.told = newest
  }

  /** Fetches the trades up to the newest, once. A channel that was silent for longer than the limit is subscribed anew. */
  private chase(index: number, id: number, limitUs: number): void {
    const product = this.list[index]!
    if (!this.isWanted || id <= product.chased || id <= (this.host.keepers[index]!.lastTradeId ?? id)) return
    // One at a time: what is being asked for may bring this one, too, and the next heartbeat comes in a second.
    if (this.chain.state.holes.some(hole => hole.index === index)) return
    product.chased = id
    this.chain.newest(index, id)
    const subscription = this.subscriptions.find(index, 'trades')
    if (subscription && this.host.us - subscription.dataUs > limitUs) this.subscriptions.renew(subscription, 'silence')
  }

  /** Ids are contiguous: the page that ends a page's length after the first one wanted begins with it. */
  private ask(index: number, from: number, id: string): void {
    const { instId } = this.host.keepers[index]!.instrument
    this.host.fetch({ id, path: `/products/${instId}/trades?limit=${PAGE}&after=${from + PAGE}` })
  }

  /** Takes the answer to a request for a history; false when it is none. */
  onFetched(id: string, { status, value }: FetchAnswer): boolean {
    const hole = this.chain.hole(id)
    if (hole !== undefined) this.fill(hole, status === 200 && Array.isArray(value) ? value : [])
    return hole !== undefined
  }

  private fill(hole: TradeHole, rows: readonly unknown[]): void {
    const found: ReadTrade[] = []
    let unreadable: string | undefined
    for (const row of rows) {
      const read = readTrade(asObject(row), true)
      if (read === undefined) unreadable ??= textOf(row)
      else found.push(read)
    }
    if (unreadable !== undefined) this.host.keepers[hole.index]!.malformed(unreadable.slice(0, 200), 'trades')
    // The newest come first.
    found.sort((a, b) => a.id - b.id)
    this.chain.fill(
      hole,
      found.map(({ trade }) => trade)
    )
  }

  /** Time passes. */
  tick(): void {
    this.chain.tick()
  }
}
