import { gunzipSync } from 'node:zlib'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { numberText } from '../../src/simulator/huobi.ts'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { Client } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 20_000 })

const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  const simulator = await startSimulator({ exchange: 'huobi', eventsPerSecond: 2000, ...options })
  ends.push(() => simulator.close())
  return simulator
}

async function connect({ port }: Simulator, path = '/feed'): Promise<Client> {
  const client = new Client(`ws://127.0.0.1:${port}${path}`)
  ends.push(() => client.close())
  return client.opened()
}

async function fetchJson<T>(url: string): Promise<T> {
  return (await fetch(url)).json() as Promise<T>
}

/** A price and a size, as texts. */
type Row = [string, string]

interface Sides {
  bids: Row[] | undefined
  asks: Row[] | undefined
}

interface Update extends Sides {
  sequence: number
  previous: number
}

const NUMBER = String.raw`-?\d+(?:\.\d+)?(?:E-?\d+)?`

/** Reads the rows of a side without making numbers of them. */
function rowsOf(text: string, side: 'bids' | 'asks'): Row[] | undefined {
  const found = new RegExp(`"${side}":\\[((?:\\[${NUMBER},${NUMBER}\\],?)*)\\]`).exec(text)
  if (!found) return undefined
  return [...found[1]!.matchAll(new RegExp(`\\[(${NUMBER}),(${NUMBER})\\]`, 'g'))].map(row => [row[1]!, row[2]!])
}

function numberOf(text: string, name: string): number {
  return Number(new RegExp(`"${name}":(\\d+)`).exec(text)?.[1])
}

/** Rebuilds a book by the exchange's recipe, strictly: what does not fit is noted as a mistake. */
class Book {
  readonly mistakes: string[] = []
  readonly updates: Update[] = []
  readonly bids = new Map<string, string>()
  readonly asks = new Map<string, string>()
  readonly topic: string
  /** Images that were no use: null, or older than everything heard. */
  refused = { empty: 0, stale: 0 }
  deepest = 0
  applied = 0
  sequence: number | undefined
  private readonly client: Client
  private requests = 0

  constructor(client: Client, topic: string) {
    this.client = client
    this.topic = topic
    client.onText(text => {
      if (text.startsWith(`{"ch":"${topic}"`)) this.hear(text)
      else if (text.includes(`"rep":"${topic}"`)) this.image(text)
    })
  }

  /** Subscribes and asks for images until one fits. */
  async synchronise(): Promise<this> {
    this.client.send({ sub: this.topic, id: 'sub' })
    await this.client.event({ subbed: this.topic })
    while (this.sequence === undefined) await this.ask()
    return this
  }

  /** Asks for one image and waits for it. */
  async ask(): Promise<string> {
    const id = `req${++this.requests}`
    this.client.send({ req: this.topic, id })
    const answer = await this.client.until(() => this.client.texts.find(text => text.includes(`"id":"${id}"`)))
    await new Promise(resolve => setTimeout(resolve, 110))
    return answer
  }

  private hear(text: string): void {
    const [sequence, previous] = [numberOf(text, 'seqNum'), numberOf(text, 'prevSeqNum')]
    const update = { sequence, previous, bids: rowsOf(text, 'bids'), asks: rowsOf(text, 'asks') }
    this.updates.push(update)
    if (this.sequence !== undefined) this.follow(update)
  }

  private image(text: string): void {
    if (this.sequence !== undefined) return
    if (text.includes('"data":null')) {
      this.refused.empty++
      return
    }
    const sequence = numberOf(text, 'seqNum')
    if (this.updates.length > 0 && this.updates.every(({ previous }) => previous > sequence)) {
      this.refused.stale++
      return
    }
    this.sequence = sequence
    this.set({ bids: rowsOf(text, 'bids'), asks: rowsOf(text, 'asks') })
    for (const update of this.updates) if (update.previous >= sequence) this.follow(update)
  }

  private follow(update: Update): void {
    if (update.previous !== this.sequence) this.mistakes.push(`${this.sequence} is followed by ${update.previous}`)
    this.sequence = update.sequence
    this.applied++
    this.set(update)
  }

  private set({ bids, asks }: Sides): void {
    for (const [side, rows] of [[this.bids, bids] as const, [this.asks, asks] as const]) {
      for (const [price, size] of rows ?? []) {
        if (size !== '0.0') side.set(price, size)
        else if (!side.delete(price)) this.mistakes.push(`removal of an unknown level: ${price}`)
      }
    }
    this.deepest = Math.max(this.deepest, this.bids.size, this.asks.size)
  }

  /** The rows of both sides, best first, as an image has them. */
  rows(): Sides {
    const sorted = (side: Map<string, string>, sign: number): Row[] =>
      [...side].sort((a, b) => (Number(a[0]) - Number(b[0])) * sign)
    return { bids: sorted(this.bids, -1), asks: sorted(this.asks, 1) }
  }
}

/** Waits until a book has the number of an image that is asked for, and compares the two. */
async function compare(client: Client, book: Book): Promise<void> {
  const states = new Map<number, Sides>()
  client.onText(() => void states.set(book.sequence!, book.rows()))
  await client.until(() => states.size > 3)
  const image = await book.ask()
  const state = await client.until(() => states.get(numberOf(image, 'seqNum')))
  expect(state).toEqual({ bids: rowsOf(image, 'bids'), asks: rowsOf(image, 'asks') })
}

describe('numbers', () => {
  it('are written as the exchange writes them', () => {
    const cases: [string, number, string][] = [
      ['0', 4, '0.0'],
      ['9121', 10, '9.121E-7'],
      ['345', 6, '3.45E-4'],
      ['1', 3, '0.001'],
      ['29303', 6, '0.029303'],
      ['1', 4, '1.0E-4'],
      ['18835800', 2, '188358.0'],
      ['1010', 2, '10.1'],
      ['101748847777', 4, '1.01748847777E7'],
      ['9999999', 0, '9999999.0'],
      ['26755973959140651643', 18, '26.755973959140651643']
    ]
    for (const [whole, decimals, text] of cases) expect(numberText(whole, decimals)).toBe(text)
  })
})

describe('huobi', () => {
  it('chains paced updates from an image on the same connection', async () => {
    const simulator = await start()
    for (const [topic, depth] of [
      ['market.btcusdt.mbp.150', 150],
      ['market.ethusdt.mbp.400', 400]
    ] as const) {
      const client = await connect(simulator)
      const book = await new Book(client, topic).synchronise()
      const from = book.applied
      await client.until(() => book.applied > from + 10)
      await compare(client, book)
      expect(book.mistakes).toEqual([])
      expect(book.deepest).toBe(depth)
      expect(book.updates.every(({ bids, asks }) => bids && asks)).toBe(true)
      client.close()
    }
  })

  it('tells the shallow books at once, and leaves out a side that stayed as it was', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    const books = ['5', '20'].map(depth => new Book(client, `market.btcusdt.mbp.${depth}`))
    for (const book of books) {
      await book.synchronise()
      await client.until(() => book.applied > 100)
      await compare(client, book)
      expect(book.mistakes).toEqual([])
      expect(book.updates.some(({ bids }) => bids === undefined)).toBe(true)
      expect(book.updates.some(({ asks }) => asks === undefined)).toBe(true)
    }
    expect(books.map(book => book.deepest)).toEqual([5, 20])
  })

  it('goes on counting in a still market', async () => {
    const simulator = await start({ eventsPerSecond: 0 })
    const client = await connect(simulator)
    const book = await new Book(client, 'market.btcusdt.mbp.150').synchronise()
    await client.until(() => book.applied > 4)
    expect(book.mistakes).toEqual([])
    expect(book.updates.every(({ bids, asks }) => bids?.length === 0 && asks?.length === 0)).toBe(true)
    expect(book.updates.every(({ sequence, previous }) => sequence > previous)).toBe(true)
  })

  it('writes numbers in full: exponents, 18 decimals, ids that no double holds', async () => {
    const simulator = await start()
    const [client, trades] = await Promise.all([connect(simulator), connect(simulator, '/ws')])
    const book = await new Book(client, 'market.shibusdt.mbp.150').synchronise()
    const rows = [...book.bids, ...book.asks]
    expect(rows.every(([price]) => /^\d\.\d+E-7$/.test(price))).toBe(true)
    expect(rows.some(([, size]) => /^\d\.\d+E\d+$/.test(size))).toBe(true)
    const bitcoin = await new Book(client, 'market.btcusdt.mbp.150').synchronise()
    expect([...bitcoin.bids.values()].some(size => /^\d+\.\d{17,18}$/.test(size))).toBe(true)
    trades.send({ sub: 'market.btcusdt.trade.detail', id: 7 })
    const heard = await trades.until(() => {
      const texts = trades.texts.filter(text => text.startsWith('{"ch"'))
      return texts.length > 8 && texts
    })
    expect(heard[0]).toMatch(
      /^\{"ch":"market\.btcusdt\.trade\.detail","ts":\d{13},"tick":\{"id":\d{12},"ts":\d{13},"data":\[\{"id":\d{27},"ts":\d{13},"tradeId":\d{12},"amount":[\d.E-]+,"price":[\d.]+,"direction":"(?:buy|sell)"\}/
    )
    // The first is an old one; each frame is one match, the newest fill first.
    expect(numberOf(heard[0]!, 'ts')).toBeLessThan(numberOf(heard[1]!, 'ts'))
    const ids = heard.map(text => [...text.matchAll(/"tradeId":(\d+)/g)].map(match => Number(match[1])).reverse())
    const fresh = ids.slice(1).flat()
    expect(fresh.every((id, index) => index === 0 || id === fresh[index - 1]! + 1)).toBe(true)
    expect(ids[0]!.at(-1)).toBeLessThan(fresh[0]!)
  })

  it('refuses as the exchange does', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    const refused = async (message: unknown): Promise<unknown> => {
      const before = client.texts.length
      client.send(message)
      const text = await client.until(() => client.texts.slice(before).find(one => one.includes('"error"')))
      return JSON.parse(text)
    }
    expect(await refused({ sub: 'market.linkusdt.mbp.150', id: '2' })).toEqual({
      ts: expect.any(Number),
      status: 'error',
      'err-code': 'bad-request',
      'err-msg': 'invalid mbp.150.symbol linkusdt',
      id: '2'
    })
    expect(await refused({ sub: 'market.shibusdt.mbp.5' })).toMatchObject({
      'err-msg': 'invalid mbp.5.symbol shibusdt'
    })
    for (const topic of ['market.btcusdt.mbp.7', 'market.btcusdt.trade.detail', 'gossip']) {
      expect(await refused({ sub: topic, id: 1 })).toMatchObject({ 'err-msg': `invalid topic ${topic}`, id: 1 })
    }
    expect(await refused({ unsub: 'market.btcusdt.mbp.150' })).toMatchObject({
      'err-msg': 'unsub with not subbed topic market.btcusdt.mbp.150'
    })
    expect(await refused('hello')).toMatchObject({ 'err-msg': 'not json string' })
    client.send({ req: 'market.btcusdt.mbp.150', id: 'a' })
    expect(await refused({ req: 'market.btcusdt.mbp.150', id: 'b' })).toMatchObject({
      'err-msg': '429 too many request',
      id: 'b'
    })
    const other = await connect(simulator, '/ws')
    other.send({ sub: 'market.nopeusdt.trade.detail', id: 1 })
    expect(await other.event({ status: 'error' })).toMatchObject({ 'err-msg': 'invalid symbol nopeusdt' })
  })

  it('sends binary frames only, pings, and leaves who does not answer', async () => {
    const simulator = await start({ heartbeatMs: 150 })
    const [polite, rude] = await Promise.all([connect(simulator), connect(simulator, '/ws')])
    const binary: boolean[] = []
    polite.socket.on('message', (data, isBinary) => {
      binary.push(isBinary && gunzipSync(data as Buffer).length > 0)
    })
    polite.onText(text => {
      if (text.startsWith('{"ping"')) polite.send(text.replace('ping', 'pong'))
    })
    expect(await rude.until(() => rude.closeCode)).toBe(1006)
    expect(rude.texts.filter(text => /^\{"ping":\d{13}\}$/.test(text))).toHaveLength(2)
    await polite.until(() => polite.texts.length > 5)
    expect(polite.closeCode).toBeUndefined()
    expect(binary).not.toContain(false)
  })

  it('sometimes has no image right after a subscription', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    let empty = 0
    for (const symbol of ['btcusdt', 'ethusdt', 'solusdt', 'ltcusdt', 'shibusdt']) {
      for (const depth of ['150', '400']) {
        empty += (await new Book(client, `market.${symbol}.mbp.${depth}`).synchronise()).refused.empty
      }
    }
    expect(empty).toBeGreaterThan(0)
    expect(empty).toBeLessThan(10)
  })

  it('has numbers that do not meet on two connections', async () => {
    const simulator = await start()
    const [client, other] = await Promise.all([connect(simulator), connect(simulator)])
    const book = await new Book(client, 'market.btcusdt.mbp.150').synchronise()
    const image = numberOf(await new Book(other, 'market.btcusdt.mbp.150').ask(), 'seqNum')
    await client.until(() => book.sequence! > image)
    expect(book.updates.some(({ previous }) => previous === image)).toBe(false)
  })

  it('does what its faults say', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    const topic = 'market.btcusdt.mbp.150'
    const book = new Book(client, topic)
    simulator.inject({ kind: 'refuse', instrument: 'btcusdt' })
    client.send({ sub: topic, id: 1 })
    expect(await client.event({ id: 1 })).toMatchObject({ 'err-msg': 'symbol trade not open now' })
    simulator.inject({ kind: 'silent-ack', instrument: 'btcusdt' })
    client.send({ sub: topic, id: 2 })
    expect(await client.event({ id: 2 })).toMatchObject({ subbed: topic })
    await new Promise(resolve => setTimeout(resolve, 300))
    expect(book.updates).toEqual([])
    simulator.inject({ kind: 'rest-error', instrument: 'btcusdt' })
    simulator.inject({ kind: 'stale-image', instrument: 'btcusdt' })
    client.send({ sub: topic, id: 3 })
    await client.until(() => book.updates.length > 1)
    expect(await book.ask()).toContain('request timeout')
    await book.ask()
    expect(book.refused.stale).toBe(1)
    await book.synchronise()
    expect(book.mistakes).toEqual([])
    simulator.inject({ kind: 'drop', instrument: 'btcusdt' })
    await client.until(() => book.mistakes.some(mistake => mistake.includes('is followed by')))
  })

  it('halts its markets in a maintenance', async () => {
    const simulator = await start()
    const client = await connect(simulator)
    const book = await new Book(client, 'market.btcusdt.mbp.150').synchronise()
    simulator.inject({ kind: 'maintenance', ms: 600 })
    expect(await fetchJson(`${simulator.restUrl}/v2/market-status`)).toMatchObject({ data: { marketStatus: 2 } })
    client.send({ sub: 'market.ethusdt.mbp.150', id: 9 })
    expect(await client.event({ id: 9 })).toMatchObject({ 'err-msg': 'symbol trade not open now' })
    await client.until(() => book.updates.at(-1)?.bids?.length === 0)
    await client.until(() => book.updates.at(-1)!.bids!.length > 0)
    expect(await fetchJson(`${simulator.restUrl}/v2/market-status`)).toMatchObject({ data: { marketStatus: 1 } })
    expect(book.mistakes).toEqual([])
  })

  it('serves metadata', async () => {
    const { restUrl } = await start({ instruments: ['xrpusdt'] })
    const { data } = await fetchJson<{ data: Record<string, unknown>[] }>(`${restUrl}/v1/common/symbols`)
    expect(data.map(({ symbol }) => symbol)).toEqual([
      'btcusdt',
      'ethusdt',
      'solusdt',
      'ltcusdt',
      'shibusdt',
      'xrpusdt'
    ])
    expect(data[0]).toMatchObject({
      'base-currency': 'btc',
      'quote-currency': 'usdt',
      'price-precision': 2,
      'amount-precision': 6,
      state: 'online',
      'limit-order-min-order-amt': 0.00001,
      'min-order-value': 5
    })
    expect(await fetchJson(`${restUrl}/v2/settings/common/symbols`)).toMatchObject({
      data: expect.arrayContaining([expect.objectContaining({ sc: 'btcusdt', bc: 'btc', bcdn: 'BTC', tpp: 2, tap: 6 })])
    })
    expect(await fetchJson(`${restUrl}/v1/settings/common/market-symbols?symbols=ethusdt`)).toMatchObject({
      data: [{ symbol: 'ethusdt', bc: 'eth', pp: 2, ap: 4 }]
    })
    expect((await fetch(`${restUrl}/v1/common/gossip`)).status).toBe(404)
  })
})
