import type { Wire } from './driver.ts'

/** An order of a scripted Bitfinex book: id, price, amount (negative: ask), as JSON text. */
export type OrderText = readonly [id: number, price: string, amount: string]

/** The far end of one scripted Bitfinex connection: acknowledges and numbers as Bitfinex does. */
export class BitfinexPeer {
  sequence = 0
  nextChannel = 100
  flags = 229_376
  /** `book:tBTCUSD` to the channel that was acknowledged last. */
  readonly channels = new Map<string, number>()
  private readonly wire: Wire
  private readonly name: string
  private answered: number

  /** Answers requests from the `answered`-th on: those before it belong to an earlier life of the name. */
  constructor(wire: Wire, name: string, answered = 0) {
    this.wire = wire
    this.name = name
    this.answered = answered
  }

  /** Requests that were not answered yet. */
  requests(): Record<string, unknown>[] {
    const fresh = this.wire.sent.slice(this.answered)
    this.answered = this.wire.sent.length
    return fresh
      .filter(({ connection }) => connection === this.name)
      .map(({ text }) => JSON.parse(text) as Record<string, unknown>)
  }

  /** Confirms the flags, and nothing else: what is asked then waits for `answer`. */
  confirm(): void {
    for (const request of this.requests()) if (request.event === 'conf') this.event(this.answerTo(request))
  }

  /** Answers everything that was asked, and what is asked because of it. */
  answer(): void {
    for (let batch = this.requests(); batch.length > 0; batch = this.requests()) {
      for (const request of batch) this.event(this.answerTo(request))
    }
  }

  /** Answers one request. */
  reply(request: Record<string, unknown>): void {
    this.event(this.answerTo(request))
  }

  private answerTo(request: Record<string, unknown>): Record<string, unknown> {
    const { event, channel, symbol, chanId } = request
    if (event === 'conf') return { event: 'conf', status: 'OK', flags: this.flags }
    if (event === 'ping') return { event: 'pong', ts: Math.floor(this.wire.us / 1000), cid: request.cid }
    if (event === 'unsubscribe') return { event: 'unsubscribed', status: 'OK', chanId }
    const id = this.nextChannel++
    this.channels.set(`${channel}:${symbol}`, id)
    const pair = String(symbol).slice(1)
    return { ...request, event: 'subscribed', chanId: id, pair }
  }

  event(event: Record<string, unknown>): void {
    this.wire.in(this.name, JSON.stringify(event))
  }

  /** The channel of a subscription. */
  channel(kind: 'book' | 'trades' = 'book', symbol = 'tBTCUSD'): number {
    const channel = this.channels.get(`${kind}:${symbol}`)
    if (channel === undefined) throw new Error(`${kind} of ${symbol} was never asked for`)
    return channel
  }

  /** A numbered frame, not yet said. */
  frame(channel: number, payload: string): string {
    return `[${channel},${payload},${++this.sequence},${Math.floor(this.wire.us / 1000)}]`
  }

  say(channel: number, payload: string): unknown {
    return this.wire.in(this.name, this.frame(channel, payload))
  }

  image(orders: readonly OrderText[], symbol?: string): unknown {
    return this.say(this.channel('book', symbol), `[${orders.map(order => `[${order.join(',')}]`).join(',')}]`)
  }

  order(order: OrderText, symbol?: string): unknown {
    return this.say(this.channel('book', symbol), `[${order.join(',')}]`)
  }

  beat(kind: 'book' | 'trades' = 'book', symbol?: string): unknown {
    return this.say(this.channel(kind, symbol), '"hb"')
  }

  trade(tag: 'te' | 'tu', id: number, amount: string, price: string, symbol?: string): unknown {
    const ms = Math.floor(this.wire.us / 1000)
    return this.say(this.channel('trades', symbol), `"${tag}",[${id},${ms},${amount},${price}]`)
  }
}

/** A level of a scripted OKX book: price, size, number of orders. */
export type LevelText = readonly [price: string, size: string, orders: string]

/** The far end of one scripted OKX connection. */
export class OkxPeer {
  /** The last `seqId` of each instrument. */
  readonly numbers = new Map<string, number>()
  private readonly wire: Wire
  private readonly name: string
  private answered: number

  /** Answers requests from the `answered`-th on: those before it belong to an earlier life of the name. */
  constructor(wire: Wire, name: string, answered = 0) {
    this.wire = wire
    this.name = name
    this.answered = answered
  }

  /** Answers everything that was asked, and what is asked because of it. */
  answer(): void {
    while (this.answered < this.wire.sent.length) {
      const { connection, text } = this.wire.sent[this.answered++]!
      if (connection !== this.name) continue
      if (text === 'ping') this.wire.in(this.name, 'pong')
      else {
        const { id, op, args } = JSON.parse(text) as { id: string; op: string; args: unknown[] }
        for (const arg of args) this.event({ id, event: op, arg, connId: 'a4d3ae55' })
      }
    }
  }

  event(event: Record<string, unknown>): void {
    this.wire.in(this.name, JSON.stringify(event))
  }

  /** A book frame, not yet said. */
  frame(
    action: 'snapshot' | 'update',
    bids: readonly LevelText[],
    asks: readonly LevelText[],
    numbers: { prevSeqId: number; seqId: number },
    instId = 'BTC-USDT',
    checksum = 0
  ): string {
    const levels = (rows: readonly LevelText[]) => JSON.stringify(rows.map(([p, s, n]) => [p, s, '0', n]))
    return (
      `{"arg":{"channel":"books","instId":"${instId}"},"action":"${action}","data":[{"asks":${levels(asks)},` +
      `"bids":${levels(bids)},"ts":"${Math.floor(this.wire.us / 1000)}","checksum":${checksum},` +
      `"prevSeqId":${numbers.prevSeqId},"seqId":${numbers.seqId}}]}`
    )
  }

  image(bids: readonly LevelText[], asks: readonly LevelText[], instId = 'BTC-USDT', seqId = 1000): unknown {
    this.numbers.set(instId, seqId)
    return this.wire.in(this.name, this.frame('snapshot', bids, asks, { prevSeqId: -1, seqId }, instId))
  }

  /** The next frame of the chain, not yet said. */
  next(bids: readonly LevelText[], asks: readonly LevelText[], instId = 'BTC-USDT', step = 3): string {
    const prevSeqId = this.numbers.get(instId) ?? 0
    const seqId = prevSeqId + step
    this.numbers.set(instId, seqId)
    return this.frame('update', bids, asks, { prevSeqId, seqId }, instId)
  }

  update(bids: readonly LevelText[], asks: readonly LevelText[], instId?: string, step?: number): unknown {
    return this.wire.in(this.name, this.next(bids, asks, instId, step))
  }

  trade(tradeId: string, side: string, px: string, sz: string, instId = 'BTC-USDT'): unknown {
    const ts = String(Math.floor(this.wire.us / 1000))
    const data = [{ instId, tradeId, px, sz, side, ts, count: '1', source: '0', seqId: 5 }]
    return this.wire.in(this.name, JSON.stringify({ arg: { channel: 'trades', instId }, data }))
  }
}

/** A small Bitfinex book: two orders of one price, one more bid, two asks. */
export const ORDERS: readonly OrderText[] = [
  [11, '79419', '0.023'],
  [12, '79419', '0.5'],
  [13, '79418', '0.00022'],
  [21, '79421', '-1.5'],
  [22, '79424', '-0.25']
]
/** A small OKX book. */
export const BIDS: readonly LevelText[] = [
  ['62009.9', '4.49', '3'],
  ['62009', '10', '1']
]
export const ASKS: readonly LevelText[] = [
  ['62010', '190.13', '10'],
  ['62010.1', '0.02', '1']
]
