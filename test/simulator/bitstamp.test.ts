import { afterEach, describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { Client } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 30_000 })

const ends: (() => unknown)[] = []

interface OrderData {
  id: number
  id_str: string
  order_type: 0 | 1
  order_subtype: number
  microtimestamp: string
  amount: number
  amount_str: string
  amount_traded: string
  amount_at_create: string
  price: number
  price_str: string
}

interface OrderFrame {
  data: OrderData
  event: 'order_created' | 'order_changed' | 'order_deleted'
  event_id: string
  pre_event_id: string
}

interface BookData {
  microtimestamp: string
  bids: string[][]
  asks: string[][]
}

interface TradeData {
  id: number
  amount_str: string
  price_str: string
  type: 0 | 1
  buy_order_id: number
  sell_order_id: number
}

interface Frame {
  event: string
  channel: string
  data: unknown
}

/** A client that reads each frame once, as it comes. */
class Reader extends Client {
  private readonly frames = new Map<string, Frame[]>()

  constructor(url: string) {
    super(url)
    this.onText(text => {
      const frame = JSON.parse(text) as Frame
      const key = frame.event.startsWith('bts:') ? frame.event : frame.channel
      const alike = this.frames.get(key) ?? []
      alike.push(frame)
      this.frames.set(key, alike)
    })
  }

  /** The data frames of a channel, or the answers of an event that begins with `bts:`. */
  of<T = Frame>(key: string): T[] {
    return (this.frames.get(key) ?? []) as T[]
  }

  subscribe(channel: string): void {
    this.send({ event: 'bts:subscribe', data: { channel } })
  }

  async subscribed(channel: string): Promise<void> {
    this.subscribe(channel)
    await this.until(() => this.of('bts:subscription_succeeded').some(answer => answer.channel === channel))
  }
}

type Order = { side: number; price: bigint; size: bigint }
type Book = Map<string, Order>

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  const simulator = await startSimulator({ exchange: 'bitstamp', eventsPerSecond: 2000, ...options })
  ends.push(() => simulator.close())
  return simulator
}

async function connect(simulator: Simulator): Promise<Reader> {
  const client = new Reader(simulator.wsUrl)
  ends.push(() => client.close())
  await client.opened()
  return client
}

async function getJson<T>(simulator: Simulator, path: string): Promise<T> {
  return (await fetch(`${simulator.restUrl}/api/v2/${path}`)).json() as Promise<T>
}

let nonce = 0
const getBook = (simulator: Simulator, group: number, pair = 'btcusd'): Promise<BookData> =>
  getJson(simulator, `order_book/${pair}/?group=${group}&_=${++nonce}`)

/** A decimal text as a whole number of 10 to the power of minus 8. */
function units(text: string): bigint {
  const [whole, fraction = ''] = text.split('.') as [string, string?]
  return BigInt(whole + fraction.padEnd(8, '0'))
}

function bookOf(image: BookData): Book {
  const rows = [...image.bids.map(row => [0, ...row] as const), ...image.asks.map(row => [1, ...row] as const)]
  return new Map(rows.map(([side, price, size, id]) => [id!, { side, price: units(price!), size: units(size!) }]))
}

const millisOf = ({ microtimestamp }: { microtimestamp: string }): number => Math.floor(Number(microtimestamp) / 1000)

function apply(book: Book, { event, data }: OrderFrame): void {
  if (event === 'order_deleted') book.delete(data.id_str)
  else book.set(data.id_str, { side: data.order_type, price: units(data.price_str), size: units(data.amount_str) })
}

function isCrossed(book: Book): boolean {
  let bid = -1n
  let ask = 1n << 100n
  for (const { side, price } of book.values()) {
    if (side === 0 && price > bid) bid = price
    if (side === 1 && price < ask) ask = price
  }
  return bid >= ask
}

/** An image whose millisecond has no event in it, and all events up to it. */
async function clearImage(simulator: Simulator, client: Reader): Promise<BookData> {
  const orders = client.of<OrderFrame>('live_orders_btcusd')
  for (;;) {
    const image = await getBook(simulator, 2)
    await client.until(() => millisOf(orders.at(-1)!.data) > millisOf(image))
    if (!orders.some(({ data }) => millisOf(data) === millisOf(image))) return image
  }
}

describe('bitstamp orders', () => {
  it('fits the image with ids, is chained, and shows orders that cross for a moment', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    client.subscribe('live_orders_btcusd')
    await client.until(() => client.of('live_orders_btcusd').length > 0)
    const orders = client.of<OrderFrame>('live_orders_btcusd')
    const image = await clearImage(simulator, client)
    const from = orders.length
    await client.until(() => orders.length > from + 4000)
    const later = await clearImage(simulator, client)
    const between = orders.filter(({ data }) => millisOf(data) > millisOf(image) && millisOf(data) <= millisOf(later))
    expect(between.length).toBeGreaterThan(3900)
    const book = bookOf(image)
    expect(isCrossed(book)).toBe(false)
    let crossed = 0
    let strange = 0
    for (const order of between) {
      const isKnown = book.has(order.data.id_str)
      if (isKnown === (order.event === 'order_created')) strange++
      apply(book, order)
      if (order.data.order_subtype !== 5 && isCrossed(book)) crossed++
    }
    expect([strange, isCrossed(book)]).toEqual([0, false])
    expect(crossed).toBeGreaterThan(10)
    expect(book).toEqual(bookOf(later))
    const breaks = orders.filter((order, index) => index > 0 && order.pre_event_id !== orders[index - 1]!.event_id)
    expect(breaks).toEqual([])
    expect(new Set(orders.map(order => order.event_id)).size).toBe(orders.length)
  })

  it('tells the life of a taker: created, changed with each fill, deleted, its makers in between', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    client.subscribe('live_orders_btcusd')
    client.subscribe('live_trades_btcusd')
    await client.until(() => client.of('live_trades_btcusd').length > 300)
    const orders = client.of<OrderFrame>('live_orders_btcusd')
    for (const { data } of orders) {
      expect(units(data.amount_str) + units(data.amount_traded)).toBe(units(data.amount_at_create))
      expect([data.id, data.amount, data.price]).toEqual([
        Number(data.id_str),
        Number(data.amount_str),
        Number(data.price_str)
      ])
      expect(data.microtimestamp).toMatch(/^\d{13}000$/)
    }
    const taker = orders.find(
      ({ data }, index) =>
        data.order_subtype === 2 &&
        orders.filter(({ data: { id }, event }) => id === data.id && event === 'order_changed').length > 1 &&
        index > 0
    )
    const life = orders.filter(({ data }) => data.id === taker!.data.id)
    expect(life.map(({ event }) => event.slice(6))).toEqual([
      'created',
      ...life.slice(2).map(() => 'changed'),
      'deleted'
    ])
    expect(['0', '9999999999']).toContain(life[0]!.data.price_str)
    expect(life.at(-1)!.data.amount_str).toBe('0')
    const fills = client
      .of<{ data: TradeData }>('live_trades_btcusd')
      .filter(({ data }) => [data.buy_order_id, data.sell_order_id].includes(taker!.data.id))
    const traded = fills.reduce((sum, { data }) => sum + units(data.amount_str), 0n)
    expect(traded).toBe(units(taker!.data.amount_at_create))
    const takers = fills.map(({ data }) => (data.type === 0 ? data.buy_order_id : data.sell_order_id))
    expect(new Set(takers)).toEqual(new Set([taker!.data.id]))
    // Every trade is one of the changes of its maker.
    const changes = new Set(orders.map(({ data: { id_str: id, amount_traded: sum } }) => `${id}:${sum}`))
    const sums = new Map<number, bigint>()
    for (const { data } of client.of<{ data: TradeData }>('live_trades_btcusd')) {
      const makerId = data.type === 0 ? data.sell_order_id : data.buy_order_id
      const sum = (sums.get(makerId) ?? 0n) + units(data.amount_str)
      sums.set(makerId, sum)
      const text = String(sum).padStart(9, '0')
      expect(changes).toContain(`${makerId}:${text.slice(0, -8)}.${text.slice(-8)}`)
    }
    const created = orders.filter(({ event }) => event === 'order_created').map(({ data: { id } }) => id)
    expect(new Set(created).size).toBe(created.length)
    const kinds = new Set(
      orders.map(({ event, data }) => `${event}:${data.order_subtype}:${units(data.amount_str) > 0n}`)
    )
    for (const kind of [
      'order_deleted:5:true',
      'order_deleted:5:false',
      'order_deleted:1:true',
      'order_changed:5:true'
    ]) {
      expect(kinds).toContain(kind)
    }
  })
})

describe('bitstamp books and trades', () => {
  it('keeps levels right by differences: each book of the best hundred is what they lead to', async () => {
    const simulator = await start({ keepLog: true })
    const client = await connect(simulator)
    for (const kind of ['diff_order_book', 'order_book', 'detail_order_book']) client.subscribe(`${kind}_btcusd`)
    await client.until(() => client.of('diff_order_book_btcusd').length > 0)
    const image = await getBook(simulator, 1)
    await client.until(() => client.of('order_book_btcusd').length > 15)
    const levels = {
      bids: new Map(image.bids as [string, string][]),
      asks: new Map(image.asks as [string, string][])
    }
    let compared = 0
    for (const text of client.texts) {
      const { channel, data, event } = JSON.parse(text) as Frame
      const frame = data as BookData
      if (event !== 'data' || BigInt(frame.microtimestamp) <= BigInt(image.microtimestamp)) continue
      for (const side of ['bids', 'asks'] as const) {
        const sign = side === 'bids' ? -1 : 1
        if (channel.startsWith('diff_')) {
          for (const [price, size] of frame[side] as [string, string][]) {
            if (units(size) > 0n) levels[side].set(price, size)
            else levels[side].delete(price)
          }
        } else if (channel.startsWith('order_book')) {
          const best = [...levels[side]].sort(([a], [b]) => Number(units(a) - units(b)) * sign).slice(0, 100)
          expect(frame[side]).toEqual(best)
          compared++
        } else {
          expect(frame[side]).toHaveLength(100)
          expect(frame[side].every(row => row.length === 3 && /^\d{16}$/.test(row[2]!))).toBe(true)
        }
      }
    }
    expect(compared).toBeGreaterThan(20)
    const times = client.of<{ data: BookData }>('diff_order_book_btcusd').map(({ data }) => Number(data.microtimestamp))
    expect(times.some(at => at % 1000 !== 0)).toBe(true)
    expect(times.every((at, index) => index < 2 || at - times[index - 2]! >= 80_000)).toBe(true)
  })

  it('shows the same trades by REST, the newest first', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    await client.subscribed('live_trades_btcusd')
    await client.until(() => client.of('live_trades_btcusd').length > 100)
    const trades = client.of<{ data: TradeData }>('live_trades_btcusd').map(({ data }) => data)
    expect(trades.every(({ id }, index) => index === 0 || id > trades[index - 1]!.id)).toBe(true)
    const rows = await getJson<Record<string, string>[]>(simulator, 'transactions/btcusd/?time=minute')
    const heard = trades[50]!
    expect(rows.find(({ tid }) => tid === String(heard.id))).toEqual({
      tid: String(heard.id),
      amount: heard.amount_str,
      price: heard.price_str,
      type: String(heard.type),
      date: expect.stringMatching(/^\d{10}$/)
    })
    expect(rows.every(({ tid }, index) => index === 0 || Number(tid) < Number(rows[index - 1]!.tid))).toBe(true)
    expect(await getJson(simulator, 'transactions/btcusd/?time=year')).toMatchObject({ status: 'error' })
    simulator.inject({ kind: 'drop-trade', instrument: 'btcusd' })
    await client.until(() => client.of('live_trades_btcusd').length > 200)
    const all = await getJson<Record<string, string>[]>(simulator, 'transactions/btcusd/')
    const ids = new Set(client.of<{ data: TradeData }>('live_trades_btcusd').map(({ data }) => String(data.id)))
    const told = all.filter(
      ({ tid }) => Number(tid) >= trades[0]!.id && Number(tid) <= Math.max(...[...ids].map(Number))
    )
    expect(told.filter(({ tid }) => !ids.has(tid!))).toHaveLength(1)
  })
})

describe('bitstamp subscriptions', () => {
  it('acknowledges one channel at a time, nonsense pairs too, and doubles nothing', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    client.subscribe('live_orders_nopeusd')
    client.subscribe('live_orders_btcusd')
    client.subscribe('live_orders_btcusd')
    await client.until(() => client.of('live_orders_btcusd').length > 200)
    expect(client.of('bts:subscription_succeeded')).toEqual(
      ['nopeusd', 'btcusd', 'btcusd'].map(pair => ({
        event: 'bts:subscription_succeeded',
        channel: `live_orders_${pair}`,
        data: {}
      }))
    )
    const ids = client.of<OrderFrame>('live_orders_btcusd').map(order => order.event_id)
    expect(new Set(ids).size).toBe(ids.length)
    expect(client.of('live_orders_nopeusd')).toEqual([])
    client.send({ event: 'bts:unsubscribe', data: { channel: 'live_orders_btcusd' } })
    client.send({ event: 'bts:heartbeat' })
    expect(await client.event({ event: 'bts:unsubscription_succeeded' })).toEqual({
      event: 'bts:unsubscription_succeeded',
      channel: 'live_orders_btcusd',
      data: {}
    })
    expect(await client.event({ event: 'bts:heartbeat' })).toEqual({
      event: 'bts:heartbeat',
      channel: '',
      data: { status: 'success' }
    })
    expect(client.texts.at(-1)).toContain('bts:heartbeat')
  })

  it('names its errors, but not the channel', async () => {
    const client = await connect(await start({ eventsPerSecond: 0 }))
    const answer = async (request: unknown): Promise<unknown> => {
      const before = client.of('bts:error').length
      client.send(request)
      return client.until(() => client.of('bts:error')[before])
    }
    const error = (message: string, code: number | null = null): Frame => ({
      event: 'bts:error',
      channel: '',
      data: { code, message }
    })
    const ask = (channel: unknown): Promise<unknown> => answer({ event: 'bts:subscribe', data: { channel } })
    expect(await answer('{"event":')).toEqual(error('Incorrect JSON format.'))
    expect(await ask('live_orders_BTCUSD')).toEqual(error('Invalid channel provided.'))
    expect(await ask('gossip_btcusd')).toEqual(error('Invalid channel provided.'))
    expect(await ask(undefined)).toEqual(error('Bad subscription string.'))
    expect(await answer({ event: 'bts:dance' })).toEqual(error('Bad subscription string.'))
    expect(await ask('private-my_orders_btcusd')).toEqual(error('Connection is unauthorized.', 4009))
  })

  it('closes on long frames, and on one channel too many', async () => {
    const simulator = await start({ eventsPerSecond: 0 })
    const client = await connect(simulator)
    const bare = JSON.stringify({ event: 'bts:heartbeat', data: '' }).length
    client.send({ event: 'bts:heartbeat', data: 'x'.repeat(512 - bare) })
    await client.event({ event: 'bts:heartbeat' })
    client.send({ event: 'bts:heartbeat', data: 'x'.repeat(513 - bare) })
    expect(await client.until(() => client.closeCode)).toBe(1009)
    const greedy = await connect(simulator)
    for (let count = 0; count < 1024; count++) greedy.subscribe(`live_trades_a${count}usd`)
    greedy.subscribe('live_trades_a0usd')
    await greedy.until(() => greedy.of('bts:subscription_succeeded').length === 1025)
    greedy.subscribe('live_trades_btcusd')
    await greedy.until(() => greedy.closeCode)
    expect(greedy.texts).toHaveLength(1025)
  })

  it('pings, and asks for a new connection before it ends the old one', async () => {
    const simulator = await start({ heartbeatMs: 100 })
    const socket = new WebSocket(simulator.wsUrl)
    ends.push(() => socket.terminate())
    await new Promise(resolve => socket.once('ping', resolve))
    const [old] = await Promise.all([connect(simulator), connect(simulator)])
    simulator.inject({ kind: 'restart-notice', ms: 100 })
    const request = await old.event({ event: 'bts:request_reconnect' })
    expect(request).toMatchObject({ channel: '' })
    expect([null, '', {}]).toContainEqual(request.data)
    const fresh = await connect(simulator)
    expect(await old.until(() => old.closeCode)).toBe(1001)
    fresh.send({ event: 'bts:heartbeat' })
    await fresh.event({ event: 'bts:heartbeat' })
    expect(fresh.of('bts:request_reconnect')).toEqual([])
  })
})

describe('bitstamp REST', () => {
  it('shows books of three groups, and the one of a moment ago without a nonce', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    await client.subscribed('live_orders_btcusd')
    const cached = await getJson<BookData>(simulator, 'order_book/btcusd/?group=2')
    await client.until(() => client.of('live_orders_btcusd').length > 50)
    expect(await getJson(simulator, 'order_book/btcusd/?group=2')).toEqual(cached)
    const fresh = await getBook(simulator, 2)
    expect(Number(fresh.microtimestamp)).toBeGreaterThan(Number(cached.microtimestamp))
    expect(fresh.microtimestamp).toMatch(/^\d{16}$/)
    const still = await start({ eventsPerSecond: 0 })
    const [bare, levels, orders, other] = await Promise.all([0, 1, 2, 3].map(group => getBook(still, group)))
    expect(bare!.bids).toEqual(orders!.bids.map(row => row.slice(0, 2)))
    expect(other!.bids).toEqual(levels!.bids)
    expect(orders!.asks[0]).toHaveLength(3)
    const sums = new Map<string, bigint>()
    for (const [price, size] of bare!.asks as [string, string][]) sums.set(price, (sums.get(price) ?? 0n) + units(size))
    expect(levels!.asks.map(([price, size]) => [price, units(size!)])).toEqual([...sums])
  })

  it('lists the markets', async () => {
    const simulator = await start({ instruments: ['ethbtc'] })
    const markets = await getJson<Record<string, unknown>[]>(simulator, 'markets/')
    expect(markets.map(({ market_symbol: symbol }) => symbol)).toEqual([
      'btcusd',
      'ethusd',
      'ltcusd',
      'xrpusd',
      'ethbtc'
    ])
    expect(markets[0]).toMatchObject({
      name: 'BTC/USD',
      base_currency: 'BTC',
      base_decimals: 8,
      counter_currency: 'USD',
      counter_decimals: 2,
      trading: 'Enabled',
      market_type: 'SPOT',
      contract_size: '1.00000000'
    })
    expect(markets[3]).toMatchObject({ name: 'XRP/USD', counter_decimals: 5 })
    expect(markets[4]).toMatchObject({ name: 'ETH/BTC' })
    expect(await getJson(simulator, 'trading-pairs-info/')).toContainEqual(
      expect.objectContaining({ url_symbol: 'btcusd', minimum_order: '10.0 USD', trading: 'Enabled' })
    )
    expect((await fetch(`${simulator.restUrl}/api/v2/order_book/nopeusd/`)).status).toBe(404)
  })
})

describe('bitstamp faults', () => {
  it('answers images with errors and old ones', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    client.subscribe('live_orders_btcusd')
    await client.until(() => client.of('live_orders_btcusd').length > 0)
    const [first] = client.of<OrderFrame>('live_orders_btcusd')
    simulator.inject({ kind: 'rest-error', status: 429, instrument: 'btcusd' })
    const url = `${simulator.restUrl}/api/v2/order_book/btcusd/?group=2&_=x`
    const answers = [await fetch(url), await fetch(url)]
    expect(answers.map(({ status }) => status)).toEqual([429, 200])
    expect(answers[0]!.headers.get('retry-after')).toBe('1')
    simulator.inject({ kind: 'stale-image' })
    expect(millisOf(await getBook(simulator, 2))).toBeLessThan(millisOf(first!.data) - 1000)
    expect(millisOf(await getBook(simulator, 2))).toBeGreaterThanOrEqual(millisOf(first!.data))
  })

  it('refuses, acknowledges and stays silent, and loses one event, which breaks the chain once', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    simulator.inject({ kind: 'refuse', instrument: 'btcusd' })
    simulator.inject({ kind: 'silent-ack', instrument: 'btcusd' })
    client.subscribe('live_orders_btcusd')
    await client.event({ event: 'bts:error' })
    await client.subscribed('live_orders_btcusd')
    // The other pair shows that time passes and that nothing comes of the first.
    client.subscribe('live_orders_ethusd')
    await client.until(() => client.of('live_orders_ethusd').length > 200)
    expect(client.of('live_orders_btcusd')).toEqual([])
    client.subscribe('live_orders_btcusd')
    await client.until(() => client.of('live_orders_btcusd').length > 0)
    const orders = client.of<OrderFrame>('live_orders_btcusd')
    const breaks = async (): Promise<number> => {
      const from = orders.length
      await client.until(() => orders.length > from + 200)
      return orders.filter((order, index) => index >= from && order.pre_event_id !== orders[index - 1]!.event_id).length
    }
    expect(await breaks()).toBe(0)
    simulator.inject({ kind: 'drop', instrument: 'btcusd' })
    expect(await breaks()).toBe(1)
    simulator.inject({ kind: 'duplicate', instrument: 'btcusd' })
    expect(await breaks()).toBe(1)
    simulator.inject({ kind: 'reorder', instrument: 'btcusd' })
    expect(await breaks()).toBe(3)
  })

  it('gives the same book for the same seed', async () => {
    const rows = async (seed: number): Promise<string[][]> => (await getBook(await start({ seed }), 2)).bids
    const [first, again, other] = await Promise.all([rows(3), rows(3), rows(4)])
    expect(again).toEqual(first)
    expect(other).not.toEqual(first)
  })
})
