import { middle } from '../core/decimal.ts'
import type { Instrument } from '../core/instrument.ts'
import { type ExchangeTime, isoMs, usText } from '../core/time.ts'
import type { L2Frame, OrderNote, Trade } from '../exchanges/exchange.ts'

/** The events that concern one order. */
export type OrderEventType = 'snapshot' | 'open' | 'change' | 'match' | 'done'

// Text that every event shares stands ready in one piece: fewer pieces make a line in less time.
const BID = '","side":"bid","price":"'
const ASK = '","side":"ask","price":"'
const LAST = ',"last":true,"metadata":'
/** The year 10000, which ISO 8601 has no four digits for. */
const TIME_MS_END = 253_402_300_800_000
const NOT_LAST = ',"last":false,"metadata":'

/**
 * Builds the lines of the contract's records as text, keys in its order, each ending in a line break. Text that the
 * exchange sent as JSON is passed through, not parsed and printed again.
 */
export class LineMaker {
  /** What lies between the receive time and the record's own keys; of books and of trades. */
  private readonly bookHead: string
  private readonly tradeHead: string
  private readonly orderHeads: Readonly<Record<OrderEventType, string>>
  private headUs = -1
  private head = ''
  private time_: ExchangeTime = Number.NaN
  private time = ''
  private readonly depth: number

  constructor(instrument: Instrument, depth: number) {
    const head = (channel: string) =>
      `,"exchange":${JSON.stringify(instrument.exchange)},"market":"${instrument.market}",` +
      `"channel":${JSON.stringify(channel)},"instId":${JSON.stringify(instrument.instId)}`
    this.bookHead = head(instrument.channel)
    this.tradeHead = head('trades')
    const orderHead = (type: OrderEventType) => `${this.bookHead},"event_type":"${type}","order_id":"`
    this.orderHeads = {
      snapshot: orderHead('snapshot'),
      open: orderHead('open'),
      change: orderHead('change'),
      match: orderHead('match'),
      done: orderHead('done')
    }
    this.depth = depth
  }

  private common(us: number): string {
    if (us !== this.headUs) {
      this.headUs = us
      this.head = `{"timestamp_utc":"${isoMs(us)}","recv_us":${usText(us)}`
    }
    return this.head
  }

  /** `"exchange_time":…`. */
  private exchangeTime(time: ExchangeTime): string {
    if (time !== this.time_) {
      this.time_ = time
      if (typeof time === 'string') this.time = `"exchange_time":"${time}"`
      else {
        const known = time !== null && time >= 0 && time < TIME_MS_END
        this.time = known ? `"exchange_time":"${isoMs(time * 1000)}"` : '"exchange_time":null'
      }
    }
    return this.time
  }

  /** An order event. `metadata` is JSON text. */
  order(
    us: number,
    type: OrderEventType,
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    sequence: number | null,
    exchangeTime: ExchangeTime,
    source: string,
    last: boolean,
    metadata: string
  ): string {
    return (
      `${this.common(us)}${this.orderHeads[type]}${id}${isAsk ? ASK : BID}${price}","size":"${size}","sequence":${sequence},` +
      `${this.exchangeTime(exchangeTime)},${source}${last ? LAST : NOT_LAST}${metadata}}\n`
    )
  }

  /** An order event without effect on the book. */
  note(us: number, note: OrderNote, source: string, last: boolean): string {
    const { type, id, isAsk, price, size, sequence, exchangeTime, metadata } = note
    const side = isAsk === null ? 'null' : isAsk ? '"ask"' : '"bid"'
    return (
      `${this.common(us)}${this.bookHead},"event_type":"${type}","order_id":"${id}","side":${side},` +
      `"price":${price === null ? 'null' : `"${price}"`},"size":${size === null ? 'null' : `"${size}"`},"sequence":${sequence},` +
      `${this.exchangeTime(exchangeTime)},${source}${last ? LAST : NOT_LAST}${metadata}}\n`
    )
  }

  /** A `clear` or `gap` of an L3 instrument. */
  orderMark(us: number, type: 'clear' | 'gap', source: string, last: boolean, metadata: string): string {
    return (
      `${this.common(us)}${this.bookHead},"event_type":"${type}","order_id":null,"side":null,"price":null,"size":null,` +
      `"sequence":null,"exchange_time":null,${source},"last":${last},"metadata":${metadata}}\n`
    )
  }

  /** A line of `l2_updates`. */
  update(
    us: number,
    type: 'clear' | 'gap' | 'snapshot' | 'update',
    frame: L2Frame,
    source: string,
    metadata: string
  ): string {
    return (
      `${this.common(us)}${this.bookHead},"event_type":"${type}","bids":${frame.bids},"asks":${frame.asks},` +
      `"seqId":${frame.sequence},"prevSeqId":${frame.previous},"checksum":${frame.checksum},` +
      `${this.exchangeTime(frame.exchangeTime)},${source},"metadata":${metadata}}\n`
    )
  }

  /** A line of `trades`. */
  trade(us: number, trade: Trade, source: string): string {
    return (
      `${this.common(us)}${this.tradeHead},"trade_id":${JSON.stringify(trade.id)},"side":"${trade.isSell ? 'sell' : 'buy'}",` +
      `"price":"${trade.price}","size":"${trade.size}",${this.exchangeTime(trade.exchangeTime)},${source},` +
      `"metadata":${trade.metadata}}\n`
    )
  }

  /** A line of `status`. */
  status(us: number, event: string, detail: unknown): string {
    return `${this.common(us)}${this.bookHead},"event":"${event}","detail":${JSON.stringify(detail)}}\n`
  }

  /** A snapshot record. `stats` is JSON text, null for L2. */
  snapshot(us: number, shot: SnapshotParts): string {
    const { bestBid, bestAsk } = shot
    const mid = bestBid === null || bestAsk === null ? 'null' : `"${middle(bestBid, bestAsk)}"`
    return (
      `${this.common(us)}${this.bookHead},"bids_top${this.depth}":${shot.bids},"asks_top${this.depth}":${shot.asks},` +
      `"best_bid":${bestBid === null ? 'null' : `"${bestBid}"`},"best_ask":${bestAsk === null ? 'null' : `"${bestAsk}"`},` +
      `"mid_price":${mid},"checksum":${shot.checksum},"seqId":${shot.sequence},"prevSeqId":${shot.previous},` +
      `"gap_detected":${shot.gap},"synced_at":"${isoMs(shot.syncedUs)}",${shot.source}` +
      `${shot.stats === null ? '' : `,"stats":${shot.stats}`}}\n`
    )
  }
}

/** What a snapshot record is made of; `bids`, `asks` and `stats` are JSON text. */
export interface SnapshotParts {
  bids: string
  asks: string
  bestBid: string | null
  bestAsk: string | null
  checksum: number | null
  sequence: number | null
  previous: number | null
  gap: boolean
  syncedUs: number
  /** `"conn":…,"frame":…`. */
  source: string
  stats: string | null
}
