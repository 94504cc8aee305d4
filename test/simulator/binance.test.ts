import { afterEach, describe, expect, it, vi } from 'vitest'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { Client } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 20_000 })

const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  const simulator = await startSimulator({ exchange: 'binance', eventsPerSecond: 2000, ...options })
  ends.push(() => simulator.close())
  return simulator
}

async function connect({ port }: Simulator, target: string, options = {}): Promise<Client> {
  const client = new Client(`ws://127.0.0.1:${port}${target}`, options)
  ends.push(() => client.close())
  return client.opened()
}

async function fetchJson<T>(url: string): Promise<T> {
  return (await fetch(url)).json() as Promise<T>
}

type Row = [string, string]

interface Image {
  lastUpdateId: number
  bids: Row[]
  asks: Row[]
}

interface DepthEvent {
  e: string
  E: number
  s: string
  U: number
  u: number
  pu?: number
  b: Row[]
  a: Row[]
}

interface TradeEvent {
  e: string
  t: number
  p: string
  q: string
  X?: string
}

/** Rebuilds a book by the exchange's recipe, strictly: what does not fit is noted as a mistake. */
class Book {
  readonly mistakes: string[] = []
  readonly events: DepthEvent[] = []
  readonly trades: TradeEvent[] = []
  readonly bids = new Map<string, string>()
  readonly asks = new Map<string, string>()
  applied = 0
  id = 0
  private readonly isFutures: boolean

  constructor(client: Client, isFutures: boolean) {
    this.isFutures = isFutures
    client.onText(text => {
      const value = JSON.parse(text) as { data?: DepthEvent | TradeEvent; e?: string }
      const event = (value.data ?? value) as DepthEvent | TradeEvent
      if (event.e === 'trade') this.trades.push(event as TradeEvent)
      if (event.e !== 'depthUpdate') return
      this.events.push(event as DepthEvent)
      if (this.id > 0) this.follow(event as DepthEvent)
    })
  }

  /** True when the image is not older than what was heard first. */
  fits(image: Image): boolean {
    return this.events.length > 0 && image.lastUpdateId >= this.events[0]!.U
  }

  begin(image: Image): void {
    for (const [side, rows] of [[this.bids, image.bids] as const, [this.asks, image.asks] as const]) {
      side.clear()
      for (const [price, size] of rows) side.set(price, size)
    }
    this.id = image.lastUpdateId
    this.applied = 0
    for (const event of this.events) this.follow(event)
  }

  private follow(event: DepthEvent): void {
    const isOld = this.isFutures && this.applied === 0 ? event.u < this.id : event.u <= this.id
    if (isOld) return
    const isNext = this.isFutures && this.applied > 0 ? event.pu === this.id : event.U <= this.id + 1
    if (!isNext) this.mistakes.push(`${this.id} is followed by ${event.pu} ${event.U} ${event.u}`)
    if (this.isFutures && this.applied === 0 && event.U > this.id) this.mistakes.push(`no bridge to ${event.U}`)
    this.id = event.u
    this.applied++
    for (const [side, rows] of [[this.bids, event.b] as const, [this.asks, event.a] as const]) {
      for (const [price, size] of rows) {
        if (/^0(?:\.0+)?$/.test(size)) side.delete(price)
        else side.set(price, size)
      }
    }
  }

  /** The best rows of both sides, as an image has them. */
  best(limit: number): { bids: Row[]; asks: Row[] } {
    const rows = (side: Map<string, string>, sign: number): Row[] =>
      [...side].sort((a, b) => (Number(a[0]) - Number(b[0])) * sign).slice(0, limit)
    return { bids: rows(this.bids, -1), asks: rows(this.asks, 1) }
  }
}

/** Reads images until one is not older than the stream. */
async function synchronise(client: Client, book: Book, url: string): Promise<void> {
  await client.until(() => book.events.length > 0)
  for (;;) {
    const image = await fetchJson<Image>(url)
    if (!book.fits(image)) continue
    book.begin(image)
    return
  }
}

/** Follows a book for a while, then compares it with images until one of the same number comes by. */
async function compare(client: Client, book: Book, url: string, limit: number, events: number): Promise<void> {
  const from = book.applied
  await client.until(() => book.applied >= from + events)
  expect(book.mistakes).toEqual([])
  const image = await fetchJson<Image>(url)
  const reached = await client.until(() => book.events.find(event => event.u >= image.lastUpdateId))
  expect(reached.U).toBeLessThanOrEqual(image.lastUpdateId + 1)
  // A second book begins from the newer image: both must be one.
  const other = new Book(client, url.includes('fapi'))
  other.events.push(...book.events)
  other.begin(image)
  const applied = book.applied
  await client.until(() => book.applied > applied && other.id === book.id)
  expect(other.mistakes).toEqual([])
  expect(other.best(limit)).toEqual(book.best(limit))
}

const DEPTH = '/api/v3/depth?symbol=BTCUSDT&limit=1000'

describe('binance spot', () => {
  it('tells a book by its changes that fit its images', async () => {
    const simulator = await start()
    const client = await connect(simulator, '/ws')
    const book = new Book(client, false)
    client.send({ method: 'SUBSCRIBE', params: ['btcusdt@depth@100ms', 'btcusdt@trade'], id: 1 })
    expect(await client.event({ id: 1 })).toEqual({ result: null, id: 1 })
    await synchronise(client, book, simulator.restUrl + DEPTH)
    await compare(client, book, simulator.restUrl + DEPTH, 300, 15)
    const chain = book.events.map((event, index) => index === 0 || event.U === book.events[index - 1]!.u + 1)
    expect(chain).not.toContain(false)
    expect(book.events[0]).toEqual({
      e: 'depthUpdate',
      E: expect.any(Number),
      s: 'BTCUSDT',
      U: expect.any(Number),
      u: expect.any(Number),
      b: expect.any(Array),
      a: expect.any(Array)
    })
    expect(book.events.flatMap(event => [...event.b, ...event.a]).every(row => /^\d+\.\d{8}$/.test(row[0]!))).toBe(true)
    expect(book.bids.size).toBeGreaterThan(1000)
    const steps = book.trades.map(({ t }, index) => t - (book.trades[index - 1]?.t ?? t - 1))
    expect(steps.length).toBeGreaterThan(20)
    expect(new Set(steps)).toEqual(new Set([1]))
    expect(client.texts.find(text => text.includes('"e":"trade"'))).toMatch(
      /^\{"e":"trade","E":\d+,"s":"BTCUSDT","t":\d+,"p":"\d+\.\d{8}","q":"\d+\.\d{8}","T":\d+,"m":(?:true|false),"M":true\}$/
    )
  })

  it('leads on from images that were read between two events', async () => {
    const simulator = await start({ eventsPerSecond: 5000 })
    const client = await connect(simulator, '/ws/btcusdt@depth')
    const books = [new Book(client, false), new Book(client, false), new Book(client, false)]
    await client.until(() => books[0]!.events.length > 0)
    for (const book of books) {
      book.begin(await fetchJson<Image>(simulator.restUrl + DEPTH.replace('1000', '5000')))
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    await client.until(() => books.every(book => book.applied > 1))
    for (const book of books) {
      expect(book.mistakes).toEqual([])
      expect(book.best(2000)).toEqual(books[0]!.best(2000))
    }
  })

  it('takes streams from the address, wraps them on request, and is silent about what does not exist', async () => {
    const simulator = await start()
    const client = await connect(
      simulator,
      '/stream?streams=ethusdt@depth/ethusdt@trade/nopeusdt@depth&timeUnit=MICROSECOND'
    )
    const frame = await client.until(() => client.texts.find(text => text.includes('depthUpdate')))
    expect(frame).toMatch(/^\{"stream":"ethusdt@depth","data":\{"e":"depthUpdate","E":\d{16},"s":"ETHUSDT"/)
    client.send({ method: 'SUBSCRIBE', params: ['BTCUSDT@depth', 'btcusdt@depth@77ms'], id: 'a' })
    expect(await client.event({ id: 'a' })).toEqual({ result: null, id: 'a' })
    client.send({ method: 'LIST_SUBSCRIPTIONS', id: 3 })
    expect(await client.event({ id: 3 })).toEqual({ result: ['ethusdt@depth', 'ethusdt@trade'], id: 3 })
    client.send({ method: 'SET_PROPERTY', params: ['combined', false], id: 4 })
    await client.until(() => client.texts.at(-1)?.startsWith('{"e":'))
    client.send({ method: 'UNSUBSCRIBE', params: ['ethusdt@depth', 'ethusdt@trade'], id: 5 })
    await client.event({ id: 5 })
    const single = await connect(simulator, '/ws/btcusdt@trade')
    expect(await single.event({ e: 'trade' })).toMatchObject({ s: 'BTCUSDT' })
    await expect(connect(simulator, '/elsewhere')).rejects.toThrow('404')
  })

  it('refuses as the exchange does, and throws out who talks too much', async () => {
    const simulator = await start()
    const client = await connect(simulator, '/ws')
    client.send('not json')
    expect(await client.event({ code: 3 })).toMatchObject({ msg: expect.stringContaining('Invalid JSON') })
    client.send({ method: 'DANCE', id: 2 })
    expect(await client.event({ id: 2 })).toMatchObject({ code: 2, msg: expect.stringContaining('unknown variant') })
    client.send({ method: 'SET_PROPERTY', params: ['colour', true], id: 3 })
    expect(await client.event({ id: 3 })).toMatchObject({ code: 0 })
    client.send({ method: 'SET_PROPERTY', params: ['combined', 'yes'], id: 4 })
    expect(await client.event({ id: 4 })).toMatchObject({ code: 1 })
    client.socket.ping()
    client.socket.pong()
    expect(await client.until(() => client.closeCode)).toBe(1008)
  })

  it('pings, and ends a connection that does not answer or is too old', async () => {
    const simulator = await start({ heartbeatMs: 400, lifetimeMs: 4000 })
    const [polite, rude] = await Promise.all([
      connect(simulator, '/ws'),
      connect(simulator, '/ws', { autoPong: false })
    ])
    // A pong that nobody asked for keeps nothing alive.
    rude.socket.pong('hello')
    expect(await rude.until(() => rude.closeCode)).toBe(1008)
    expect(polite.closeCode).toBeUndefined()
    expect(await polite.until(() => polite.closeCode)).toBe(1001)
    expect(polite.pings.length).toBeGreaterThan(5)
    expect(polite.pings[0]).toMatch(/^\d{13}$/)
  })

  it('announces its shutdown in the form of the connection', async () => {
    const simulator = await start()
    const [raw, combined] = await Promise.all([connect(simulator, '/ws'), connect(simulator, '/stream')])
    simulator.inject({ kind: 'restart-notice', ms: 50 })
    await raw.event({ e: 'serverShutdown' })
    expect(await combined.event({ stream: '!serverShutdown' })).toMatchObject({
      data: { e: 'serverShutdown', E: expect.any(Number) }
    })
    expect(await raw.until(() => raw.closeCode)).toBe(1001)
    expect(await combined.until(() => combined.closeCode)).toBe(1001)
  })

  it('counts the weight of requests, then refuses them, then bans', async () => {
    const { restUrl } = await start()
    const ask = (limit: number): Promise<Response> => fetch(`${restUrl}/api/v3/depth?symbol=ETHUSDT&limit=${limit}`)
    expect((await ask(100)).headers.get('X-MBX-USED-WEIGHT-1M')).toBe('5')
    expect((await ask(500)).headers.get('X-MBX-USED-WEIGHT-1M')).toBe('30')
    // A minute may end meanwhile, and the count with it.
    let answer = await ask(5000)
    for (let count = 0; answer.status === 200 && count < 60; count++) answer = await ask(5000)
    expect(answer.status).toBe(429)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await answer.json()).toMatchObject({ code: -1003 })
    for (let count = 0; answer.status === 429 && count < 20; count++) answer = await ask(5)
    expect(answer.status).toBe(418)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(100)
  })

  it('serves metadata and trades', async () => {
    const simulator = await start({ instruments: ['DOGEUSDT'] })
    const { restUrl } = simulator
    const info = await fetchJson<{ symbols: Record<string, unknown>[] }>(
      `${restUrl}/api/v3/exchangeInfo?symbol=BTCUSDT`
    )
    expect(info.symbols).toHaveLength(1)
    expect(info.symbols[0]).toMatchObject({ status: 'TRADING', baseAsset: 'BTC', quoteAsset: 'USDT' })
    expect(info.symbols[0]!.filters).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ filterType: 'PRICE_FILTER', tickSize: '0.01000000' }),
        expect.objectContaining({ filterType: 'LOT_SIZE', stepSize: '0.00001000', minQty: '0.00001000' }),
        expect.objectContaining({ filterType: 'NOTIONAL', minNotional: '5.00000000' })
      ])
    )
    const all = await fetchJson<{ symbols: { symbol: string }[] }>(`${restUrl}/api/v3/exchangeInfo`)
    expect(all.symbols.map(({ symbol }) => symbol)).toContain('DOGEUSDT')
    expect(await fetchJson(`${restUrl}/api/v3/exchangeInfo?symbol=NOPE`)).toEqual({
      code: -1121,
      msg: 'Invalid symbol.'
    })
    expect(await fetchJson(`${restUrl}/api/v3/depth`)).toMatchObject({ code: -1102 })
    expect((await fetch(`${restUrl}/api/v3/gossip`)).status).toBe(404)
    const client = await connect(simulator, '/ws/btcusdt@trade')
    const book = new Book(client, false)
    simulator.inject({ kind: 'drop-trade', instrument: 'BTCUSDT' })
    await client.until(() => book.trades.length > 10)
    const gap = book.trades.findIndex(({ t }, index) => index > 0 && t !== book.trades[index - 1]!.t + 1)
    const from = gap > 0 ? book.trades[gap - 1]!.t + 1 : book.trades[0]!.t - 1
    const [lost] = await fetchJson<Record<string, unknown>[]>(
      `${restUrl}/api/v3/historicalTrades?symbol=BTCUSDT&fromId=${from}&limit=1`
    )
    expect(lost).toMatchObject({ id: from, price: expect.any(String), isBuyerMaker: expect.any(Boolean) })
    const recent = await fetchJson<unknown[]>(`${restUrl}/api/v3/trades?symbol=BTCUSDT&limit=5`)
    expect(recent).toHaveLength(5)
  })

  it('does what its faults say', async () => {
    const simulator = await start()
    const { restUrl } = simulator
    simulator.inject({ kind: 'refuse', instrument: 'BTCUSDT' })
    const client = await connect(simulator, '/ws')
    const book = new Book(client, false)
    const subscribe = (id: number): void =>
      client.send({ method: 'SUBSCRIBE', params: ['btcusdt@depth@100ms', 'btcusdt@trade'], id })
    subscribe(1)
    expect(await client.event({ id: 1 })).toMatchObject({ code: 2 })
    simulator.inject({ kind: 'silent-ack', instrument: 'BTCUSDT' })
    subscribe(2)
    expect(await client.event({ id: 2 })).toEqual({ result: null, id: 2 })
    await client.until(() => book.trades.length > 30)
    expect(book.events).toEqual([])
    subscribe(3)
    await client.until(() => book.events.length > 2)
    simulator.inject({ kind: 'rest-error', status: 429 })
    const busy = await fetch(restUrl + DEPTH)
    expect([busy.status, busy.headers.get('retry-after')]).toEqual([429, '1'])
    simulator.inject({ kind: 'rest-error' })
    expect((await fetch(restUrl + DEPTH)).status).toBe(500)
    simulator.inject({ kind: 'stale-image' })
    const old = await fetchJson<Image>(restUrl + DEPTH)
    expect(old.lastUpdateId).toBeLessThan(book.events[0]!.U)
    book.begin(await fetchJson<Image>(restUrl + DEPTH))
    await client.until(() => book.applied > 1)
    expect(book.mistakes).toEqual([])
    simulator.inject({ kind: 'drop', instrument: 'BTCUSDT' })
    await client.until(() => book.mistakes.length > 0)
    expect(book.mistakes).toHaveLength(1)
  })
})

describe('binance usd-m futures', () => {
  const depth = '/fapi/v1/depth?symbol=BTCUSDT&limit=1000'

  it('chains its events by the number before', async () => {
    const simulator = await start()
    const client = await connect(simulator, '/public/ws')
    const book = new Book(client, true)
    client.send({ method: 'SUBSCRIBE', params: ['btcusdt@depth@100ms', 'btcusdt@trade'], id: 1 })
    await synchronise(client, book, simulator.restUrl + depth)
    await compare(client, book, simulator.restUrl + depth, 300, 15)
    expect(book.events.some((event, index) => index > 0 && event.U > book.events[index - 1]!.u + 1)).toBe(true)
    expect(client.texts.find(text => text.includes('depthUpdate'))).toMatch(
      /^\{"e":"depthUpdate","E":\d+,"T":\d+,"s":"BTCUSDT","ps":"BTCUSDT","st":1,"U":\d+,"u":\d+,"pu":\d+,"b":\[\["\d+\.\d\d","\d+\.\d{3}"\]/
    )
  })

  it('has prints that are no trades, and yet count', async () => {
    const simulator = await start({ eventsPerSecond: 5000 })
    const client = await connect(simulator, '/public/stream?streams=btcusdt@trade')
    const book = new Book(client, true)
    await client.until(() => ['MARKET', 'INSURANCE_FUND', 'NA'].every(kind => book.trades.some(({ X }) => X === kind)))
    const steps = book.trades.map(({ t }, index) => t - (book.trades[index - 1]?.t ?? t - 1))
    expect(new Set(steps)).toEqual(new Set([1]))
    expect(book.trades.find(({ X }) => X === 'NA')).toMatchObject({ p: '0.00', q: '0.000' })
    const recent = await fetchJson<{ id: number }[]>(`${simulator.restUrl}/fapi/v1/trades?symbol=BTCUSDT&limit=1000`)
    expect(recent.length).toBeGreaterThan(100)
    expect(recent[0]).toEqual({
      id: expect.any(Number),
      price: expect.stringMatching(/^\d+\.\d\d$/),
      qty: expect.stringMatching(/^\d+\.\d{3}$/),
      quoteQty: expect.stringMatching(/^\d+\.\d\d$/),
      time: expect.any(Number),
      isBuyerMaker: expect.any(Boolean)
    })
  })

  it('acknowledges on the wrong route and stays silent', async () => {
    const simulator = await start()
    const [wrong, right] = await Promise.all([connect(simulator, '/market/ws'), connect(simulator, '/public/ws')])
    for (const client of [wrong, right]) {
      client.send({ method: 'SUBSCRIBE', params: ['ethusdt@depth@500ms', 'ethusdt@depth'], id: 1 })
      expect(await client.event({ id: 1 })).toEqual({ result: null, id: 1 })
    }
    await right.until(() => right.texts.length > 4)
    expect(wrong.texts).toHaveLength(1)
  })

  it('serves metadata', async () => {
    const { restUrl } = await start()
    const { symbols } = await fetchJson<{ symbols: Record<string, unknown>[] }>(
      `${restUrl}/fapi/v1/exchangeInfo?symbol=BTCUSDT`
    )
    expect(symbols.map(({ symbol }) => symbol)).toEqual(['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'LTCUSDT'])
    expect(symbols[0]).toMatchObject({ contractType: 'PERPETUAL', marginAsset: 'USDT', pricePrecision: 2 })
    expect(symbols[0]!.filters).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ filterType: 'PRICE_FILTER', tickSize: '0.10' }),
        expect.objectContaining({ filterType: 'LOT_SIZE', stepSize: '0.001' }),
        expect.objectContaining({ filterType: 'MIN_NOTIONAL', notional: '50' })
      ])
    )
    expect(await fetchJson(`${restUrl}/fapi/v1/depth?symbol=BTCUSDT&limit=7`)).toMatchObject({ code: -4021 })
    expect(await fetchJson(`${restUrl}/fapi/v1/depth?symbol=BTCUSDT&limit=5`)).toMatchObject({
      lastUpdateId: expect.any(Number),
      E: expect.any(Number),
      T: expect.any(Number)
    })
  })
})
