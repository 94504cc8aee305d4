import { createHash, createHmac } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Fault } from '../../src/simulator/faults.ts'
import { Kraken, type KrakenSettings } from '../../src/simulator/kraken.ts'
import { type ChecksumRow, fixedText, krakenChecksum } from '../../src/simulator/krakenbook.ts'
import { krakenPairs } from '../../src/simulator/krakenpairs.ts'
import { krakenSignature } from '../../src/simulator/krakentoken.ts'
import { SIMULATED_CREDENTIALS } from '../../src/simulator/listing.ts'
import { levelsOf, Market } from '../../src/simulator/market.ts'
import { exchangeNowMs, SimulatorServer } from '../../src/simulator/server.ts'
import { simulatorFaultKinds, startSimulator } from '../../src/simulator/simulator.ts'
import { Client } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 30_000 })

const TOKEN_PATH = '/0/private/GetWebSocketsToken'
const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

interface Running {
  readonly venue: Kraken
  readonly server: SimulatorServer
  readonly restUrl: string
  inject(fault: Fault): void
  connect(): Promise<Client>
}

async function start(settings: Partial<KrakenSettings> = {}): Promise<Running> {
  const venue = new Kraken({ seed: 7, instruments: [], eventsPerSecond: 1000, ...settings })
  const server = new SimulatorServer(venue, true)
  venue.attach(server)
  ends.push(() => server.close())
  const port = await server.listen(0)
  const connect = (): Promise<Client> => {
    const client = new Client(`ws://127.0.0.1:${port}/v2`)
    ends.push(() => client.close())
    return client.opened()
  }
  return { venue, server, restUrl: `http://127.0.0.1:${port}`, inject: fault => server.inject(fault), connect }
}

let lastNonce = 0

/** Asks for a token the way the exchange documents it; `change` spoils the request. */
async function askToken(
  restUrl: string,
  change: { key?: string; sign?: string; nonce?: number } = {}
): Promise<{ error: string[]; result?: { token: string; expires: number } }> {
  lastNonce += 1
  const nonce = String(change.nonce ?? lastNonce)
  const body = `nonce=${nonce}`
  const digest = createHash('sha256')
    .update(nonce + body)
    .digest()
  const sign = createHmac('sha512', Buffer.from(SIMULATED_CREDENTIALS.secret, 'base64'))
    .update(Buffer.concat([Buffer.from(TOKEN_PATH), digest]))
    .digest('base64')
  const headers = {
    'API-Key': change.key ?? SIMULATED_CREDENTIALS.key,
    'API-Sign': change.sign ?? sign,
    'Content-Type': 'application/x-www-form-urlencoded'
  }
  const response = await fetch(restUrl + TOKEN_PATH, { method: 'POST', headers, body })
  return (await response.json()) as { error: string[]; result?: { token: string; expires: number } }
}

async function tokenOf(restUrl: string): Promise<string> {
  return (await askToken(restUrl)).result!.token
}

async function fetchResult(url: string): Promise<Record<string, unknown>> {
  const { error, result } = (await (await fetch(url)).json()) as { error: string[]; result: Record<string, unknown> }
  expect(error).toEqual([])
  return result
}

interface Entry {
  readonly event?: 'add' | 'modify' | 'delete'
  readonly order_id?: string
  readonly price?: string
  readonly qty?: string
  readonly limit_price?: string
  readonly order_qty?: string
  readonly timestamp?: string
}

interface BookData {
  readonly symbol: string
  readonly bids: Entry[]
  readonly asks: Entry[]
  readonly checksum: number
  readonly timestamp: string
}

interface Frame {
  readonly channel?: string
  readonly type?: string
  readonly data?: BookData[]
}

/** Parses a frame and leaves prices and quantities as the text they are. */
function parseFrame(text: string): Frame {
  if (!text.startsWith('{')) return {}
  return JSON.parse(text.replace(/"(price|qty|limit_price|order_qty)":([^,}\]]+)/g, '"$1":"$2"')) as Frame
}

type Row = [price: string, quantity: string, id: string]

/** Rebuilds one book by the exchange's recipe, strictly: what does not fit is noted as a mistake. */
class Rebuilt {
  readonly mistakes: string[] = []
  readonly checksums: boolean[] = []
  readonly seen = { updates: 0, several: 0, repeated: 0, cut: 0, events: new Set<string>(), deepest: 0, images: 0 }
  timestamp = ''
  private readonly channel: string
  private readonly symbol: string
  private readonly depth: number
  private readonly decimals: readonly [price: number, qty: number]
  /** Levels best first, each with its orders in the order of the queue. */
  private readonly sides: { bids: Row[][]; asks: Row[][] } = { bids: [], asks: [] }

  constructor(channel: string, depth: number, symbol = 'BTC/USD', decimals: readonly [number, number] = [1, 8]) {
    this.channel = channel
    this.symbol = symbol
    this.depth = depth
    this.decimals = decimals
  }

  follow(client: Client): this {
    client.onText(text => this.hear(text))
    return this
  }

  hear(text: string): void {
    const { channel, type, data } = parseFrame(text)
    if (channel !== this.channel) return
    const [book] = data ?? []
    if (book?.symbol !== this.symbol) return
    const entries = [...book.bids, ...book.asks]
    if (type === 'snapshot') {
      this.seen.images++
      this.sides.bids = []
      this.sides.asks = []
    } else {
      this.seen.updates++
      if (entries.length === 0) this.mistakes.push('empty update')
      if (entries.length > 1) this.seen.several++
      const keys = entries.map(entry => entry.order_id ?? entry.price)
      if (new Set(keys).size < keys.length) this.seen.repeated++
    }
    if (book.timestamp <= this.timestamp) this.mistakes.push(`time ran back: ${book.timestamp}`)
    this.timestamp = book.timestamp
    for (const side of ['bids', 'asks'] as const) {
      for (const entry of book[side]) this.apply(side, entry, type === 'snapshot')
      const cut = this.sides[side].splice(this.depth)
      this.seen.cut += cut.length
      this.seen.deepest = Math.max(this.seen.deepest, this.sides[side].length)
    }
    this.checksums.push(book.checksum === this.checksum())
    const [bid, ask] = [this.sides.bids[0]?.[0], this.sides.asks[0]?.[0]]
    if (bid && ask && Number(bid[0]) >= Number(ask[0])) this.mistakes.push('crossed')
  }

  image(): string {
    return JSON.stringify(this.sides)
  }

  private apply(side: 'bids' | 'asks', entry: Entry, isImage: boolean): void {
    const isOrder = this.channel === 'level3'
    const price = (isOrder ? entry.limit_price : entry.price) ?? ''
    const qty = isOrder ? entry.order_qty : entry.qty
    if (price.split('.')[1]?.length !== this.decimals[0]) this.mistakes.push(`price ${price}`)
    if (qty === undefined ? entry.event !== 'delete' : qty.split('.')[1]?.length !== this.decimals[1])
      this.mistakes.push(`quantity ${qty}`)
    if (!isOrder) {
      this.applyLevel(side, price, qty!)
      return
    }
    this.seen.events.add(entry.event ?? 'none')
    if ((entry.event === undefined) !== isImage) this.mistakes.push(`event ${entry.event}`)
    if (!/^O[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{6}$/.test(entry.order_id!)) this.mistakes.push(`id ${entry.order_id}`)
    if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/.test(entry.timestamp!))
      this.mistakes.push(`time ${entry.timestamp}`)
    this.applyOrder(side, entry.event ?? 'add', [price, qty ?? '', entry.order_id!])
  }

  private applyLevel(side: 'bids' | 'asks', price: string, qty: string): void {
    const at = this.place(side, price)
    const level = this.sides[side][at]
    const isThere = level?.[0]?.[0] === price
    if (Number(qty) === 0) {
      if (isThere) this.sides[side].splice(at, 1)
    } else if (isThere) level[0]![1] = qty
    else this.sides[side].splice(at, 0, [[price, qty, '']])
  }

  private applyOrder(side: 'bids' | 'asks', event: string, row: Row): void {
    const levels = this.sides[side]
    const [price, qty, id] = row
    const level = levels.find(rows => rows.some(other => other[2] === id))
    const known = level?.find(other => other[2] === id)
    if ((known === undefined) !== (event === 'add')) this.mistakes.push(`${event} of ${id}`)
    if (event === 'modify' && known?.[0] === price) {
      known[1] = qty
      return
    }
    if (level && known) {
      level.splice(level.indexOf(known), 1)
      if (level.length === 0) levels.splice(levels.indexOf(level), 1)
    }
    if (event === 'delete') return
    const at = this.place(side, price)
    if (levels[at]?.[0]?.[0] !== price) levels.splice(at, 0, [])
    levels[at]!.push(row)
  }

  private place(side: 'bids' | 'asks', price: string): number {
    const sign = side === 'bids' ? -1 : 1
    const at = this.sides[side].findIndex(([row]) => (Number(row![0]) - Number(price)) * sign >= 0)
    return at < 0 ? this.sides[side].length : at
  }

  private checksum(): number {
    const rows = (side: 'bids' | 'asks'): ChecksumRow[] =>
      this.sides[side].slice(0, 10).flatMap(level => level.map(([price, qty]): ChecksumRow => [price, qty]))
    return krakenChecksum(rows('asks'), rows('bids'))
  }
}

function subscription(channel: string, symbol: string[], more: Record<string, unknown> = {}): object {
  return { method: 'subscribe', params: { channel, symbol, ...more } }
}

/** Follows one book on a connection of its own. */
async function follow(running: Running, channel: string, depth: number, more: object = {}): Promise<[Client, Rebuilt]> {
  const client = await running.connect()
  const book = new Rebuilt(channel, depth).follow(client)
  const token = channel === 'level3' ? { token: await tokenOf(running.restUrl) } : {}
  client.send(subscription(channel, ['BTC/USD'], { depth, ...token, ...more }))
  await client.until(() => book.seen.images > 0)
  return [client, book]
}

/** The book that a client's frames up to a moment make. */
function rebuildUntil(client: Client, channel: string, depth: number, moment: string): string {
  const book = new Rebuilt(channel, depth)
  for (const text of textsOf(client, channel)) {
    if (parseFrame(text).data![0]!.timestamp <= moment) book.hear(text)
  }
  return book.image()
}

const parsed = new WeakMap<Client, Frame[]>()

/** The frames of a client; each is parsed once, however often it is asked for. */
function framesOf(client: Client): readonly Frame[] {
  const frames = parsed.get(client) ?? []
  parsed.set(client, frames)
  for (const text of client.texts.slice(frames.length)) frames.push(parseFrame(text))
  return frames
}

function textsOf(client: Client, channel: string, type?: string): string[] {
  const frames = framesOf(client)
  return client.texts.filter(
    (_, index) => frames[index]!.channel === channel && (type === undefined || frames[index]!.type === type)
  )
}

describe('the checksum of kraken', () => {
  const flat = (levels: [string, string[]][]): ChecksumRow[] =>
    levels.flatMap(([price, quantities]) => quantities.map((quantity): ChecksumRow => [price, quantity]))

  it('is that of the published books', () => {
    const v1 = (from: number, step: number, skipped: number[] = []): ChecksumRow[] =>
      Array.from({ length: 11 }, (_, index) => from + step * index)
        .filter(price => !skipped.includes(price))
        .slice(0, 10)
        .map(price => [fixedText(price, 5), '0.00000500'])
    expect(krakenChecksum(v1(5005, 5), v1(5000, -5, [4985]))).toBe(974947235)
    const thinAsks: ChecksumRow[] = [
      ['0.01300', '850.00000000'],
      ['0.01400', '323483.99590510'],
      ['0.01500', '100287.34442717'],
      ['0.01600', '67995.78441017'],
      ['0.01700', '41776.38397740'],
      ['0.01800', '11785.76177777'],
      ['0.01900', '23700.00000000'],
      ['0.02000', '3941.17000000'],
      ['0.02100', '16598.69173066'],
      ['0.02200', '17572.51572836']
    ]
    const thinBids: ChecksumRow[] = [
      ['0.01200', '14220.66466572'],
      ['0.01100', '160223.61546438'],
      ['0.01000', '63083.48958963'],
      ['0.00900', '6750.00000000'],
      ['0.00800', '213059.49706376'],
      ['0.00700', '1000.00000000'],
      ['0.00600', '4000.00000000'],
      ['0.00100', '245000.00000000']
    ]
    expect(krakenChecksum(thinAsks, thinBids)).toBe(69619317)
  })

  it('is that of the published book of v2', () => {
    const asks: ChecksumRow[] = [
      ['45285.2', '0.00100000'],
      ['45286.4', '1.54571953'],
      ['45286.6', '1.54571109'],
      ['45289.6', '1.54560911'],
      ['45290.2', '0.15890660'],
      ['45291.8', '1.54553491'],
      ['45294.7', '0.04454749'],
      ['45296.1', '0.35380000'],
      ['45297.5', '0.09945542'],
      ['45299.5', '0.18772827']
    ]
    const bids: ChecksumRow[] = [
      ['45283.5', '0.10000000'],
      ['45283.4', '1.54582015'],
      ['45282.1', '0.10000000'],
      ['45281.0', '0.10000000'],
      ['45280.3', '1.54592586'],
      ['45279.0', '0.07990000'],
      ['45277.6', '0.03310103'],
      ['45277.5', '0.30000000'],
      ['45277.3', '1.54602737'],
      ['45276.6', '0.15445238']
    ]
    expect(krakenChecksum(asks, bids)).toBe(3310070434)
  })

  it('is that of the published orders of level3', () => {
    const asks = flat([
      ['44939.5', ['4.52308393', '0.00111261', '0.00100000', '0.01000000']],
      ['44950.0', ['0.10334926']],
      ['44953.0', ['0.00064537']],
      ['44955.0', ['0.00250000']],
      ['44959.6', ['0.35630000', '0.35630000']],
      ['44960.1', ['0.00338072']],
      ['44960.2', ['0.88967575']],
      ['44967.0', ['3.14392283']],
      ['44978.5', ['0.06778960']],
      ['44979.2', ['0.35630000']]
    ])
    const best = '0.88968699 0.45210000 0.10000000 0.14296323 0.25000000 0.10292988 0.33880000 1.28140860'
    const bids = flat([
      ['44939.4', best.split(' ')],
      ['44937.1', ['0.03346877']],
      ['44934.7', ['0.35630000']],
      ['44930.2', ['0.22734299', '0.01000000', '0.05550000', '0.70000000', '0.15000000']],
      ['44928.0', ['0.00105240']],
      ['44919.6', ['0.33870000']],
      ['44919.5', ['0.07610000']],
      ['44912.0', ['0.35630000']],
      ['44909.7', ['0.06690000']],
      ['44901.9', ['0.00088982']]
    ])
    expect(krakenChecksum(asks, bids)).toBe(1063832831)
  })

  it('reads numbers of full precision', () => {
    expect([fixedText(5, 8), fixedText(1_000_000, 5), fixedText(794_210, 1), fixedText(7, 0)]).toEqual([
      '0.00000005',
      '10.00000',
      '79421.0',
      '7'
    ])
  })
})

describe('the books of kraken', () => {
  it.each([10, 25, 100, 500, 1000])('keeps the window of %i levels, with right checksums', async depth => {
    const running = await start({ eventsPerSecond: depth > 100 ? 400 : 2000 })
    const [client, book] = await follow(running, 'book', depth)
    await client.until(() => book.seen.updates > (depth > 100 ? 500 : 2000))
    const other = await running.connect()
    other.send(subscription('book', ['BTC/USD'], { depth }))
    const [image] = await other.until(() => textsOf(other, 'book', 'snapshot').length > 0 && textsOf(other, 'book'))
    const moment = parseFrame(image!).data![0]!.timestamp
    await client.until(() => book.timestamp > moment)
    expect(rebuildUntil(client, 'book', depth, moment)).toBe(rebuildUntil(other, 'book', depth, moment))
    expect(book.mistakes).toEqual([])
    expect(book.checksums).not.toContain(false)
    expect(book.seen.deepest).toBe(depth)
    expect(book.seen.several).toBeGreaterThan(20)
    expect(textsOf(client, 'heartbeat')).toEqual([])
    if (depth > 100) return
    // Levels went out of the window unsaid, and a price stood twice in one message.
    expect(book.seen.cut).toBeGreaterThan(5)
    expect(book.seen.repeated).toBeGreaterThan(5)
  })

  it.each([10, 100, 1000])('keeps the orders of %i levels in their queues', async depth => {
    const running = await start({ eventsPerSecond: depth > 100 ? 300 : 1500 })
    const [client, book] = await follow(running, 'level3', depth)
    await client.until(() => book.seen.updates > (depth > 100 ? 400 : 1500))
    const other = await running.connect()
    const token = await tokenOf(running.restUrl)
    other.send(subscription('level3', ['BTC/USD'], { depth, token }))
    const [image] = await other.until(() => textsOf(other, 'level3', 'snapshot').length > 0 && textsOf(other, 'level3'))
    const moment = parseFrame(image!).data![0]!.timestamp
    await client.until(() => book.timestamp > moment)
    expect(rebuildUntil(client, 'level3', depth, moment)).toBe(rebuildUntil(other, 'level3', depth, moment))
    expect(book.mistakes).toEqual([])
    expect(book.checksums).not.toContain(false)
    expect(book.seen.deepest).toBe(depth)
    expect([...book.seen.events].sort()).toEqual(['add', 'delete', 'modify', 'none'])
    expect(book.seen.several).toBeGreaterThan(20)
    if (depth < 1000) expect(book.seen.cut).toBeGreaterThan(5)
  })

  it('have more than 1000 levels a side in every pair, after much life too', () => {
    for (const { symbol, spec } of krakenPairs(['XRP/EUR', 'ETH/BTC', 'SHIB/USD']).values()) {
      const market = new Market(spec, 7, 1000, 0)
      for (let step = 0; step < 100; step++) market.advance(1000, step)
      for (const side of ['bid', 'ask'] as const) {
        expect(levelsOf(market.orders(side), 2000).length, symbol).toBeGreaterThan(1200)
      }
    }
  })

  it('writes moments with 6 decimals in book and with 9 in level3', async () => {
    const running = await start()
    const [[books], [orders]] = await Promise.all([follow(running, 'book', 10), follow(running, 'level3', 10)])
    const momentsOf = (client: Client, channel: string): string =>
      parseFrame(textsOf(client, channel)[0]!).data![0]!.timestamp
    expect(momentsOf(books, 'book')).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    expect(momentsOf(orders, 'level3')).toMatch(/\.\d{9}Z$/)
  })
})

interface TradeData {
  readonly side: string
  readonly price: string
  readonly qty: string
  readonly ord_type: string
  readonly trade_id: number
  readonly timestamp: string
}

function tradesOf(client: Client, type?: string): TradeData[] {
  return textsOf(client, 'trade', type).flatMap(text => parseFrame(text).data as unknown as TradeData[])
}

describe('the trades of kraken', () => {
  it('have consecutive ids, the taker’s side, and a history in the snapshot and in REST', async () => {
    const running = await start({ eventsPerSecond: 2000 })
    const client = await running.connect()
    client.send(subscription('trade', ['BTC/USD']))
    client.send(subscription('book', ['BTC/USD']))
    await client.until(() => tradesOf(client).length > 200)
    const trades = tradesOf(client)
    expect(textsOf(client, 'trade', 'snapshot')).toEqual([])
    expect(textsOf(client, 'trade').some(text => parseFrame(text).data!.length > 1)).toBe(true)
    expect(trades.map(trade => trade.trade_id)).toEqual(trades.map((_, index) => trades[0]!.trade_id + index))
    expect(new Set(trades.map(trade => trade.side))).toEqual(new Set(['buy', 'sell']))
    expect(new Set(trades.map(trade => trade.ord_type))).toEqual(new Set(['limit', 'market']))
    expect(trades.every(({ price, qty }) => /^\d+\.\d$/.test(price) && /^\d+\.\d{8}$/.test(qty))).toBe(true)

    const other = await running.connect()
    other.send(subscription('trade', ['BTC/USD'], { snapshot: true }))
    await other.until(() => tradesOf(other, 'update').length > 20)
    expect(tradesOf(other, 'snapshot')).toHaveLength(50)
    const ids = tradesOf(other).map(trade => trade.trade_id)
    expect(ids).toEqual(ids.map((_, index) => ids[0]! + index))

    // Page by page from before the first trade.
    type TradeRow = [string, string, number, string, string, string, number]
    const found: TradeRow[] = []
    let since = String(BigInt(Date.parse(trades[0]!.timestamp) - 1) * 1_000_000n)
    for (;;) {
      const url = `${running.restUrl}/0/public/Trades?pair=XBTUSD&since=${since}&count=70`
      const { XXBTZUSD, last } = await fetchResult(url)
      if ((XXBTZUSD as TradeRow[]).length === 0 || found.length > 400) break
      found.push(...(XXBTZUSD as TradeRow[]))
      since = last as string
    }
    for (const trade of trades) {
      const row = found.find(([, , , , , , id]) => id === trade.trade_id)!
      expect(Number(row[0])).toBe(Number(trade.price))
      expect(row.slice(1, 6)).toEqual([trade.qty, row[2], trade.side[0], trade.ord_type[0], ''])
      expect(new Date(row[2] * 1000).toISOString().slice(0, 19)).toBe(trade.timestamp.slice(0, 19))
    }
    expect(found.map(row => row[6])).toEqual(found.map((_, index) => found[0]![6] + index))
  })

  it('lose a frame when told to', async () => {
    const running = await start({ eventsPerSecond: 2000 })
    const client = await running.connect()
    client.send(subscription('trade', ['BTC/USD']))
    await client.until(() => tradesOf(client).length > 5)
    running.inject({ kind: 'drop-trade', instrument: 'BTC/USD' })
    const lost = await client.until(() => running.server.log.find(({ fault }) => fault === 'drop-trade'))
    const after = tradesOf(client).length
    await client.until(() => tradesOf(client).length > after + 5)
    const ids = tradesOf(client).map(trade => trade.trade_id)
    const holes = ids.filter((id, index) => index > 0 && id !== ids[index - 1]! + 1)
    expect(holes).toHaveLength(1)
    expect((parseFrame(lost.text).data as unknown as TradeData[]).at(-1)!.trade_id).toBe(holes[0]! - 1)
  })
})

describe('the requests to kraken', () => {
  const quiet = { eventsPerSecond: 0 }

  it('are acknowledged per symbol, with a snapshot that is sometimes faster', async () => {
    const running = await start(quiet)
    const orders = new Set<string>()
    for (let round = 0; round < 12; round++) {
      const client = await running.connect()
      client.send({ ...subscription('book', ['BTC/USD', 'ETH/USD'], { depth: 25 }), req_id: 5 })
      await client.until(() => client.texts.length >= 5)
      const [, ...frames] = client.texts.map(text => JSON.parse(text) as Record<string, unknown>)
      const acks = frames.filter(frame => frame.method === 'subscribe')
      expect(acks.map(({ time_in: _in, time_out: _out, ...ack }) => ack)).toEqual(
        ['BTC/USD', 'ETH/USD'].map(symbol => ({
          method: 'subscribe',
          req_id: 5,
          result: { channel: 'book', depth: 25, snapshot: true, symbol },
          success: true
        }))
      )
      orders.add(frames.map(frame => (frame.method ? 'ack' : 'image')).join(' '))
      client.close()
    }
    expect(orders.size).toBeGreaterThan(1)
    expect(orders).toContain('ack image ack image')
  })

  it('are refused as the exchange does', async () => {
    const running = await start(quiet)
    const client = await running.connect()
    const ask = async (req_id: number, request: object): Promise<Record<string, unknown>> => {
      client.send({ ...request, req_id })
      const { time_in, time_out, ...answer } = await client.event({ req_id })
      expect([time_in, time_out].every(time => /\.\d{6}Z$/.test(String(time)))).toBe(true)
      return answer
    }
    const refusal = (req_id: number, error: string, symbol?: string, method = 'subscribe'): object => ({
      error,
      method,
      req_id,
      success: false,
      ...(symbol === undefined ? {} : { symbol })
    })
    const token = await tokenOf(running.restUrl)
    const cases: [object, string, string | undefined][] = [
      [subscription('book', ['XBT/USD']), 'Currency pair not supported XBT/USD', 'XBT/USD'],
      [subscription('book', ['BTC/USD'], { depth: 50 }), 'Subscription depth not supported', 'BTC/USD'],
      [subscription('level3', ['BTC/USD'], { depth: 25, token }), 'Subscription depth not supported', 'BTC/USD'],
      [subscription('level3', ['BTC/USD']), 'ESession:Invalid session', undefined],
      [subscription('level3', ['BTC/USD'], { token: 'made-up' }), 'ESession:Invalid session', undefined],
      [subscription('nonsense', ['BTC/USD']), 'Channel not supported', undefined],
      [subscription('book', []), 'Symbol field must be an array', undefined]
    ]
    for (const [index, [request, error, symbol]] of cases.entries()) {
      expect(await ask(index, request)).toEqual(refusal(index, error, symbol))
    }
    expect(await ask(20, subscription('book', ['BTC/USD']))).toMatchObject({ success: true })
    expect(await ask(21, subscription('book', ['BTC/USD'], { depth: 100 }))).toEqual(
      refusal(21, 'Already subscribed', 'BTC/USD')
    )
    const leave = (depth: number): object => ({
      method: 'unsubscribe',
      params: { channel: 'book', symbol: ['BTC/USD'], depth }
    })
    expect(await ask(22, leave(100))).toEqual(refusal(22, 'Subscription Not Found', 'BTC/USD', 'unsubscribe'))
    expect(await ask(23, leave(10))).toEqual({
      method: 'unsubscribe',
      req_id: 23,
      result: { channel: 'book', depth: 10, symbol: 'BTC/USD' },
      success: true
    })
    expect(await ask(24, subscription('book', ['BTC/USD'], { depth: 100, snapshot: false }))).toMatchObject({
      result: { channel: 'book', depth: 100, snapshot: false, symbol: 'BTC/USD' }
    })
    client.send('nonsense')
    await client.event({ error: 'Malformed request' })
    expect(textsOf(client, 'book')).toHaveLength(1)
  })

  it('are too many at some point', async () => {
    const running = await start(quiet)
    const client = await running.connect()
    for (let req_id = 1; req_id <= 25; req_id++) client.send({ method: 'ping', req_id })
    await client.until(() => client.texts.length === 26)
    const answers = client.texts.slice(1).map(text => JSON.parse(text) as Record<string, unknown>)
    expect(answers.filter(answer => answer.method === 'pong' && 'req_id' in answer)).toHaveLength(20)
    expect(answers[20]).toMatchObject({ error: 'Exceeded msg rate', success: false, req_id: 21 })
    const free = await start({ ...quiet, requestsPerSecond: 0 })
    const [other] = await follow(free, 'book', 10)
    for (let req_id = 1; req_id <= 50; req_id++) other.send({ method: 'ping', req_id })
    await other.event({ method: 'pong', req_id: 50 })
    expect(other.texts.some(text => text.includes('Exceeded'))).toBe(false)
  })

  it('of level3 cost more for deeper books', async () => {
    const running = await start(quiet)
    const client = await running.connect()
    const token = await tokenOf(running.restUrl)
    const symbol = ['BTC/USD', 'ETH/USD', 'SOL/USD']
    client.send(subscription('level3', symbol, { depth: 1000, token }))
    expect(await client.event({ success: false })).toMatchObject({ error: 'Exceeded msg rate', symbol: 'SOL/USD' })
    expect(textsOf(client, 'level3', 'snapshot')).toHaveLength(2)
  })

  it('start with the status and are followed by heartbeats', async () => {
    const running = await start({ ...quiet, heartbeatMs: 50 })
    const client = await running.connect()
    const status = await client.until(() => client.texts[0])
    const facts = '"version":"2.0.10","system":"online","api_version":"v2"'
    const [head, connectionId] = status.split(',"connection_id":')
    expect(head).toBe(`{"channel":"status","type":"update","data":[{${facts}`)
    expect(connectionId).toMatch(/^[1-9]\d{18}}]}$/)
    client.send({ method: 'ping', req_id: 42 })
    const pong = await client.event({ method: 'pong' })
    expect(Object.keys(pong)).toEqual(['method', 'req_id', 'time_in', 'time_out'])
    expect(textsOf(client, 'heartbeat')).toEqual([])
    client.send(subscription('trade', ['BTC/USD']))
    await client.until(() => textsOf(client, 'heartbeat').length > 3)
    expect(textsOf(client, 'heartbeat')[0]).toBe('{"channel":"heartbeat"}')
  })

  it('keep a connection alive that is subscribed to nothing', async () => {
    const running = await start(quiet)
    await running.connect()
    const [connection] = running.server.connections
    const nowMs = exchangeNowMs()
    expect(running.venue.idleCode(connection!, nowMs + 59_000)).toBe(0)
    expect(running.venue.idleCode(connection!, nowMs + 62_000)).toBe(1000)
  })
})

interface InstrumentData {
  readonly assets: { id: string }[]
  readonly pairs: Record<string, unknown>[]
}

function instrumentsOf(client: Client, type: string): InstrumentData[] {
  return textsOf(client, 'instrument', type).map(text => JSON.parse(text).data as InstrumentData)
}

describe('the pairs of kraken', () => {
  it('are told by the instrument channel, and again when their precision changes', async () => {
    const running = await start({ precisionChangeMs: 600 })
    const [client, book] = await follow(running, 'book', 10)
    client.send({ method: 'subscribe', params: { channel: 'instrument', snapshot: true } })
    const [image] = await client.until(
      () => instrumentsOf(client, 'snapshot').length > 0 && instrumentsOf(client, 'snapshot')
    )
    expect(image!.assets.map(({ id }) => id)).toEqual(['BTC', 'USD', 'ETH', 'SOL', 'DOGE'])
    expect(image!.pairs.map(pair => pair.symbol)).toEqual(['BTC/USD', 'ETH/USD', 'SOL/USD', 'DOGE/USD'])
    const facts = { base: 'BTC', quote: 'USD', status: 'online', price_precision: 1, price_increment: 0.1 }
    expect(image!.pairs[0]).toMatchObject({ ...facts, qty_precision: 8, qty_increment: 1e-8, qty_min: 0.00006 })
    expect(client.texts.some(text => text.includes('"qty_increment":0.00000001,'))).toBe(true)

    const [update] = await client.until(
      () => instrumentsOf(client, 'update').length > 0 && instrumentsOf(client, 'update')
    )
    expect(update).toEqual({ assets: [], pairs: [{ ...image!.pairs[0], qty_precision: 9, qty_increment: 1e-9 }] })
    const before = new Rebuilt('book', 10)
    for (const text of client.texts.slice(0, client.texts.indexOf(textsOf(client, 'instrument', 'update')[0]!))) {
      before.hear(text)
    }
    expect(before.checksums).not.toContain(false)
    // A book that was built from the old digits is of no use any more; a new image is.
    await client.until(() => book.checksums.includes(false))
    const other = await running.connect()
    const fresh = new Rebuilt('book', 10, 'BTC/USD', [1, 9]).follow(other)
    other.send(subscription('book', ['BTC/USD']))
    await other.until(() => fresh.seen.updates > 50)
    expect(fresh.mistakes).toEqual([])
    expect(fresh.checksums).not.toContain(false)

    running.venue.changePrecision('ETH/USD', { price: 3 })
    await client.until(() => instrumentsOf(client, 'update').length > 1)
    expect(instrumentsOf(client, 'update')[1]!.pairs[0]).toMatchObject({ symbol: 'ETH/USD', price_increment: 0.001 })
    expect(() => running.venue.changePrecision('ETH/USD', { price: 1 })).toThrow(RangeError)
    expect(() => running.venue.changePrecision('XBT/USD', { price: 3 })).toThrow(RangeError)
  })

  it('are listed by REST under their old names', async () => {
    const { restUrl } = await start({ eventsPerSecond: 0, instruments: ['ETH/BTC'] })
    const all = (await fetchResult(`${restUrl}/0/public/AssetPairs`)) as Record<string, Record<string, unknown>>
    expect(Object.keys(all)).toEqual(['XXBTZUSD', 'XETHZUSD', 'SOLUSD', 'XDGUSD', 'XETHXXBT', 'XXBTZUSD.d'])
    expect(all.XXBTZUSD).toMatchObject({
      altname: 'XBTUSD',
      wsname: 'XBT/USD',
      base: 'XXBT',
      quote: 'ZUSD',
      pair_decimals: 1,
      lot_decimals: 8,
      ordermin: '0.00006',
      costmin: '0.5',
      tick_size: '0.1',
      status: 'online'
    })
    expect(all.XDGUSD).toMatchObject({ wsname: 'XDG/USD', base: 'XXDG', pair_decimals: 7, tick_size: '0.0000001' })
    expect(all['XXBTZUSD.d']).not.toHaveProperty('wsname')
    for (const name of ['XBTUSD', 'XXBTZUSD', 'XBT/USD', 'BTC/USD']) {
      expect(Object.keys(await fetchResult(`${restUrl}/0/public/AssetPairs?pair=${name}`))).toEqual(['XXBTZUSD'])
    }
    for (const path of ['AssetPairs?pair=XBTUSD,NOPE', 'Trades?pair=NOPE', 'Trades']) {
      expect(await (await fetch(`${restUrl}/0/public/${path}`)).json()).toEqual({
        error: ['EQuery:Unknown asset pair']
      })
    }
    expect(await fetchResult(`${restUrl}/0/public/SystemStatus`)).toMatchObject({ status: 'online' })
    expect(await (await fetch(`${restUrl}/0/public/Nothing`)).json()).toEqual({ error: ['EGeneral:Unknown method'] })
  })
})

describe('the tokens of kraken', () => {
  it('are signed for as published', () => {
    const body = 'nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25'
    const secret = 'kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=='
    expect(krakenSignature(secret, '/0/private/AddOrder', '1616492376594', body)).toBe(
      '4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=='
    )
  })

  it('are issued to the right key, signature and nonce alone', async () => {
    const { restUrl } = await start({ eventsPerSecond: 0 })
    expect(await askToken(restUrl, { key: 'another' })).toEqual({ error: ['EAPI:Invalid key'] })
    expect(await askToken(restUrl, { sign: 'bm8=' })).toEqual({ error: ['EAPI:Invalid signature'] })
    const first = await askToken(restUrl)
    expect(first.error).toEqual([])
    expect(first.result).toMatchObject({ expires: 900, token: expect.stringMatching(/^[A-Za-z0-9]{43}$/) })
    for (const nonce of [lastNonce, lastNonce - 1]) {
      expect(await askToken(restUrl, { nonce })).toEqual({ error: ['EAPI:Invalid nonce'] })
    }
    expect((await askToken(restUrl)).result!.token).not.toBe(first.result!.token)
  })

  it('end, but not the subscriptions they opened', async () => {
    const running = await start({ tokenMs: 300 })
    const token = await tokenOf(running.restUrl)
    const client = await running.connect()
    const book = new Rebuilt('level3', 10).follow(client)
    client.send(subscription('level3', ['BTC/USD'], { token }))
    await client.until(() => book.seen.updates > 10)
    for (let req_id = 1; !client.texts.some(text => text.includes('ESession:Invalid session')); req_id++) {
      const from = book.seen.updates
      client.send({ ...subscription('level3', ['NONE/USD'], { token }), req_id })
      await client.event({ req_id })
      await client.until(() => book.seen.updates > from + 20)
    }
    const from = book.seen.updates
    await client.until(() => book.seen.updates > from + 100)
    expect(book.checksums).not.toContain(false)
  })

  it('are refused by a fault', async () => {
    const running = await start({ eventsPerSecond: 0 })
    running.inject({ kind: 'rest-error', status: 429, instrument: 'ETH/USD' })
    const answers = []
    for (let round = 0; round < 2; round++) {
      const body = 'nonce=1'
      const response = await fetch(running.restUrl + TOKEN_PATH, { method: 'POST', body })
      answers.push([response.status, response.headers.get('retry-after')])
    }
    expect(answers).toEqual([
      [429, '1'],
      [200, null]
    ])
  })
})

describe('the faults of kraken', () => {
  it('are known to the simulator', async () => {
    expect(simulatorFaultKinds('kraken')).toEqual(
      expect.arrayContaining(['drop', 'corrupt-checksum', 'maintenance', 'refuse', 'silent-ack', 'drop-trade'])
    )
    const simulator = await startSimulator({ exchange: 'kraken', eventsPerSecond: 500 })
    ends.push(() => simulator.close())
    const client = await new Client(simulator.wsUrl).opened()
    ends.push(() => client.close())
    const book = new Rebuilt('book', 10).follow(client)
    client.send(subscription('book', ['BTC/USD']))
    await client.until(() => book.seen.updates > 50)
    expect(book.checksums).not.toContain(false)
  })

  it.each(['book', 'level3'])('falsify one checksum of %s', async channel => {
    const running = await start()
    const [client, book] = await follow(running, channel, 10)
    running.inject({ kind: 'corrupt-checksum', instrument: 'BTC/USD' })
    await client.until(() => book.checksums.includes(false))
    const from = book.checksums.length
    await client.until(() => book.checksums.length > from + 50)
    expect(book.checksums.filter(isRight => !isRight)).toHaveLength(1)
    expect(book.mistakes).toEqual([])
  })

  it('lose an update, which the checksum shows', async () => {
    const running = await start({ eventsPerSecond: 2000 })
    const [client, book] = await follow(running, 'level3', 10)
    const isSettled = (): boolean => running.server.log.some(({ fault }) => fault === 'drop')
    running.inject({ kind: 'drop', instrument: 'BTC/USD' })
    await client.until(isSettled)
    await client.until(() => book.checksums.includes(false))
    // Unsubscribing and subscribing again heals it.
    const token = await tokenOf(running.restUrl)
    const params = { channel: 'level3', symbol: ['BTC/USD'], depth: 10, token }
    client.send({ method: 'unsubscribe', params })
    client.send({ method: 'subscribe', params })
    await client.until(() => book.seen.images === 2)
    book.checksums.length = 0
    await client.until(() => book.checksums.length > 100)
    expect(book.checksums).not.toContain(false)
  })

  it('refuse a subscription, or acknowledge it and stay silent', async () => {
    const running = await start()
    const client = await running.connect()
    const book = new Rebuilt('book', 10).follow(client)
    running.inject({ kind: 'refuse', instrument: 'BTC/USD' })
    running.inject({ kind: 'silent-ack', instrument: 'BTC/USD' })
    client.send({ ...subscription('book', ['BTC/USD', 'ETH/USD']), req_id: 1 })
    expect(await client.event({ success: false })).toMatchObject({ error: 'EService:Unavailable', symbol: 'BTC/USD' })
    await client.until(() => textsOf(client, 'book').length > 20)
    client.send({ ...subscription('book', ['BTC/USD']), req_id: 2 })
    expect(await client.event({ req_id: 2 })).toMatchObject({ success: true })
    const from = textsOf(client, 'book').length
    await client.until(() => textsOf(client, 'book').length > from + 50)
    expect(book.seen.images).toBe(0)
    const params = { channel: 'book', symbol: ['BTC/USD'] }
    client.send({ method: 'unsubscribe', params })
    client.send({ method: 'subscribe', params })
    await client.until(() => book.seen.updates > 10)
    expect(book.checksums).not.toContain(false)
  })

  it.each(['maintenance', 'restart-notice'] as const)(
    'announce a %s, end the connections and refuse new ones',
    async kind => {
      const running = await start()
      const [client] = await follow(running, 'book', 10)
      client.send({ method: 'subscribe', params: { channel: 'instrument' } })
      await client.until(() => instrumentsOf(client, 'snapshot').length > 0)
      running.inject({ kind, ms: kind === 'maintenance' ? 2500 : 500 })
      await client.until(() => client.texts.some(text => text.includes('"system":"maintenance"')))
      await client.until(() =>
        instrumentsOf(client, 'update')[0]?.pairs.every(({ status }) => status === 'maintenance')
      )
      const during = await fetchResult(`${running.restUrl}/0/public/SystemStatus`)
      expect(during.status).toBe('maintenance')
      await client.until(() => client.closeCode)
      expect(client.closeCode).toBe(1001)
      await expect(running.connect()).rejects.toThrow('429')
      expect(await askToken(running.restUrl)).toEqual({ error: ['EService:Unavailable'] })
      const again = await vi.waitFor(() => running.connect(), { timeout: 10_000, interval: 50 })
      expect(await again.until(() => again.texts[0])).toContain('"system":"online"')
      const book = new Rebuilt('book', 10).follow(again)
      again.send(subscription('book', ['BTC/USD']))
      await again.until(() => book.seen.updates > 10)
    }
  )
})
