import { createHmac } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Coinbase, type CoinbaseSettings } from '../../src/simulator/coinbase.ts'
import { SIMULATED_CREDENTIALS } from '../../src/simulator/listing.ts'
import { exchangeNowMs, SimulatorServer } from '../../src/simulator/server.ts'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { Client } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 30_000 })

const FAST = { exchange: 'coinbase', eventsPerSecond: 2000 } as const
const PRODUCT = 'BTC-USD'
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const ends: (() => unknown)[] = []

type Message = Record<string, unknown>
type Book = Map<string, { side: string; price: string; size: bigint }>

interface Image {
  bids: string[][]
  asks: string[][]
  sequence: number
}

interface TradeRow {
  trade_id: number
  price: string
  size: string
  side: string
  time: string
}

/** A client that reads each frame once, as it comes. */
class Reader extends Client {
  /** What is numbered: the messages of `level3` as objects, read by the schema, and those of `full` as they are. */
  readonly numbered: Message[] = []
  /** Rows of `level3` that the schema does not fit. */
  readonly misfits: string[] = []
  private readonly byType = new Map<string, Message[]>()
  private schema: Record<string, string[]> = {}

  constructor(url: string) {
    super(url)
    this.onText(text => this.read(JSON.parse(text) as Message | string[], text))
  }

  /** The messages of a type that came as objects. */
  of(type: string): Message[] {
    return this.byType.get(type) ?? []
  }

  get lastSequence(): number {
    return sequenceOf(this.numbered.at(-1))
  }

  private read(value: Message | string[], text: string): void {
    if (Array.isArray(value)) {
      const columns = this.schema[value[0]!]
      if (columns?.length !== value.length || value.some(cell => typeof cell !== 'string')) this.misfits.push(text)
      this.numbered.push(Object.fromEntries((columns ?? []).map((column, index) => [column, value[index]])))
      return
    }
    const type = String(value.type)
    const alike = this.of(type)
    alike.push(value)
    this.byType.set(type, alike)
    if (type === 'level3') this.schema = value.schema as Record<string, string[]>
    if (['received', 'open', 'match', 'done', 'change'].includes(type)) this.numbered.push(value)
  }
}

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  const simulator = await startSimulator({ ...FAST, ...options })
  ends.push(() => simulator.close())
  return simulator
}

/** A server of one Coinbase, for what only its own settings and methods show. */
async function serve(
  settings: Partial<CoinbaseSettings>
): Promise<{ venue: Coinbase; server: SimulatorServer; port: number }> {
  const venue = new Coinbase({ seed: 1, instruments: [], eventsPerSecond: 2000, ...settings })
  const server = new SimulatorServer(venue, false)
  venue.attach(server)
  ends.push(() => server.close())
  return { venue, server, port: await server.listen(0) }
}

async function connect(url: string): Promise<Reader> {
  const client = new Reader(url)
  ends.push(() => client.close())
  return client.opened()
}

/** What signs a message, by the recipe of the exchange. */
function signed(timestamp: string | number = exchangeNowMs() / 1000): Message {
  const { key, secret, passphrase } = SIMULATED_CREDENTIALS
  const hmac = createHmac('sha256', Buffer.from(secret, 'base64')).update(`${timestamp}GET/users/self/verify`)
  return { key, passphrase, timestamp, signature: hmac.digest('base64') }
}

function subscribe(client: Reader, channels: unknown[], products = [PRODUCT], more: Message = signed()): void {
  client.send({ type: 'subscribe', product_ids: products, channels, ...more })
}

async function getJson<T>(simulator: { restUrl: string }, path: string): Promise<T> {
  return (await fetch(`${simulator.restUrl}${path}`)).json() as Promise<T>
}

const getImage = (simulator: { restUrl: string }, product = PRODUCT): Promise<Image> =>
  getJson(simulator, `/products/${product}/book?level=3`)

/** A decimal text as a whole number of 10 to the power of minus 10. */
function units(text: string): bigint {
  const [whole, fraction = ''] = text.split('.') as [string, string?]
  return BigInt(whole + fraction.padEnd(10, '0'))
}

function bookOf(image: Image): Book {
  const rows = [...image.bids.map(row => ['buy', ...row]), ...image.asks.map(row => ['sell', ...row])]
  return new Map(rows.map(([side, price, size, id]) => [id!, { side: side!, price: price!, size: units(size!) }]))
}

function sequenceOf(message: Message | undefined): number {
  return Number(message?.sequence ?? 0)
}

/** Follows the recipe: an image, then every message after it up to the number of another; notes what does not fit. */
function rebuild(image: Image, messages: Message[], until: number): { book: Book; mistakes: string[] } {
  const book = bookOf(image)
  const mistakes: string[] = []
  let last = image.sequence
  for (const message of messages) {
    const sequence = sequenceOf(message)
    if (sequence <= image.sequence || sequence > until) continue
    if (sequence !== last + 1) mistakes.push(`${last} -> ${sequence}`)
    last = sequence
    if (!apply(book, message)) mistakes.push(JSON.stringify(message))
  }
  if (last !== until) mistakes.push(`ends at ${last}`)
  return { book, mistakes }
}

function apply(book: Book, message: Message): boolean {
  const text = (name: string): string => message[name] as string
  const known = book.get(text(message.type === 'match' ? 'maker_order_id' : 'order_id'))
  switch (message.type) {
    case 'open':
      book.set(text('order_id'), {
        side: text('side'),
        price: text('price'),
        size: units(text('remaining_size') ?? text('size'))
      })
      return !known
    case 'match':
      if (!known || known.price !== text('price')) return false
      known.size -= units(text('size'))
      return known.size >= 0n
    case 'change':
      if (!known) return text('price') === null
      known.size = units(text('new_size') ?? text('size'))
      known.price = text('new_price') ?? text('price')
      return true
    case 'done':
      // Takers are done, too, and were never on the book.
      book.delete(text('order_id'))
      return true
    default:
      return true
  }
}

describe('coinbase orders', () => {
  it('fits the level 3 image exactly, on both channels, one numbering for both', async () => {
    const simulator = await start()
    const clients = await Promise.all([connect(simulator.wsUrl), connect(simulator.wsUrl)])
    const [compact, full] = clients as [Reader, Reader]
    subscribe(compact, ['level3'])
    subscribe(full, [{ name: 'full', product_ids: [PRODUCT] }], [])
    await Promise.all(clients.map(client => client.until(() => client.numbered.length > 0)))
    const image = await getImage(simulator)
    for (let round = 1; round <= 5; round++) {
      await compact.until(() => compact.lastSequence > image.sequence + 1000 * round)
      const later = await getImage(simulator)
      await Promise.all(clients.map(client => client.until(() => client.lastSequence >= later.sequence)))
      for (const client of clients) {
        const { book, mistakes } = rebuild(image, client.numbered, later.sequence)
        expect(mistakes).toEqual([])
        expect(book).toEqual(bookOf(later))
      }
    }
    const kinds = new Map(full.numbered.map(message => [sequenceOf(message), message.type]))
    for (const { sequence, type } of compact.numbered) {
      const kind = kinds.get(Number(sequence))
      if (kind !== undefined && type === 'noop') expect(['received', 'change']).toContain(kind)
      else if (kind !== undefined) expect(type).toBe(kind)
    }
  })

  it('looks like the feed: every kind of message, with the fields of its kind', async () => {
    const simulator = await start()
    const client = await connect(simulator.wsUrl)
    subscribe(client, ['full', 'level3'])
    const find = (wanted: Message): Promise<Message> =>
      client.until(() =>
        client.numbered.find(message => Object.entries(wanted).every(([key, value]) => message[key] === value))
      )
    const common = { product_id: PRODUCT, sequence: expect.any(Number), time: expect.stringMatching(/\.\d{6}Z$/) }
    const decimal = expect.stringMatching(/^\d+(\.\d*[1-9])?$/)
    const id = expect.stringMatching(UUID)
    const side = expect.stringMatching(/^(buy|sell)$/)
    const order = { ...common, order_id: id, side }
    expect(await find({ type: 'received', order_type: 'limit' })).toEqual({
      ...order,
      type: 'received',
      order_type: 'limit',
      size: decimal,
      price: decimal
    })
    const funded = await client.until(() => client.of('received').find(message => 'funds' in message))
    expect(funded).toEqual({ ...order, type: 'received', order_type: 'market', funds: decimal })
    const done = await client.until(() => client.of('done').find(({ order_id: done }) => done === funded.order_id))
    expect(done).toEqual({ ...order, type: 'done', reason: 'filled' })
    expect(await find({ type: 'done', reason: 'canceled' })).toEqual({
      ...order,
      type: 'done',
      reason: 'canceled',
      price: decimal,
      remaining_size: decimal
    })
    expect(await find({ type: 'change', reason: 'STP', price: null })).toMatchObject({
      old_funds: decimal,
      new_funds: decimal
    })
    expect(await client.until(() => client.of('change').find(({ old_price: old }) => old))).toEqual({
      ...order,
      type: 'change',
      reason: 'modify_order',
      old_size: decimal,
      new_size: decimal,
      old_price: decimal,
      new_price: decimal
    })
    const shrunk = await client.until(() => client.of('change').find(({ reason, price }) => reason === 'STP' && price))
    expect(units(shrunk.new_size as string)).toBeLessThan(units(shrunk.old_size as string))
    expect(client.misfits).toEqual([])
    const received = new Set(client.of('received').map(({ order_id: id }) => id))
    const opened = new Set(client.of('open').map(({ order_id: id }) => id))
    expect(client.of('done').some(({ order_id: id }) => received.has(id) && !opened.has(id))).toBe(true)
  })

  it('makes images as big as the real ones', async () => {
    const { port } = await serve({ bookOrders: 50_000 })
    const simulator = { restUrl: `http://127.0.0.1:${port}` }
    const client = await connect(`ws://127.0.0.1:${port}/`)
    subscribe(client, ['level3'])
    await client.until(() => client.numbered.length > 0)
    const image = await getImage(simulator)
    await client.until(() => client.lastSequence > image.sequence + 200)
    const later = await getImage(simulator)
    await client.until(() => client.lastSequence >= later.sequence)
    const { book, mistakes } = rebuild(image, client.numbered, later.sequence)
    expect(mistakes).toEqual([])
    expect(book.size).toBeGreaterThan(90_000)
    const wanted = bookOf(later)
    expect(book.size).toBe(wanted.size)
    const differing = [...wanted].filter(([id, { price, size }]) => {
      const own = book.get(id)
      return own?.price !== price || own.size !== size
    })
    expect(differing).toEqual([])
  })
})

describe('coinbase level 2, matches and heartbeats', () => {
  it('keeps level 2 right without credentials: updates lead to the next snapshot', async () => {
    const simulator = await start({ keepLog: true })
    const first = await connect(simulator.wsUrl)
    subscribe(first, ['level2_batch'], [PRODUCT], {})
    await first.until(() => first.of('l2update').length > 25)
    const times = first.of('l2update').map(({ time }) => Date.parse(String(time)))
    const trades = await connect(simulator.wsUrl)
    subscribe(trades, ['matches'], [PRODUCT], {})
    for (let count = 0; count < 6; count++) {
      // Those who come later do so in the middle of a batch: something has happened since the last one.
      const sent = String(first.of('l2update').at(-1)!.time)
      await trades.until(() => String(trades.of('match').at(-1)?.time ?? '') > sent)
      const later = await connect(simulator.wsUrl)
      subscribe(later, ['level2_batch'], [PRODUCT], {})
      await later.until(() => later.of('l2update').length > 0)
    }
    const levels = new Map<string, string>()
    let absent = 0
    let compared = 0
    for (const { connection, text } of simulator.log) {
      const frame = JSON.parse(text) as Message
      if (frame.type === 'snapshot') {
        const rows = (['bids', 'asks'] as const).flatMap(side =>
          (frame[side] as string[][]).map(([price, size]) => [`${side}:${price}`, size!] as const)
        )
        if (connection > 1) {
          expect(new Map([...levels].sort())).toEqual(new Map(rows.sort()))
          compared++
        }
        for (const [key, size] of rows) levels.set(key, size)
      } else if (frame.type === 'l2update' && connection === 1) {
        for (const [side, price, size] of frame.changes as string[][]) {
          const key = `${side === 'buy' ? 'bids' : 'asks'}:${price}`
          if (size !== '0.00000000') levels.set(key, size!)
          else if (!levels.delete(key)) absent++
        }
      }
    }
    expect(compared).toBe(6)
    expect(absent).toBe(0)
    // Fifty milliseconds each: never more than two in one of them.
    expect(times.every((at, index) => index < 2 || at - times[index - 2]! >= 40)).toBe(true)
  })

  it('tells matches with consecutive ids after the last of them, and REST pages through the same trades', async () => {
    const simulator = await start()
    const client = await connect(simulator.wsUrl)
    subscribe(client, ['matches'], [PRODUCT], {})
    const matches = await client.until(() => {
      const found = client.of('match')
      return found.length > 200 && found
    })
    const [last] = client.of('last_match')
    expect(client.texts.findIndex(text => text.includes('last_match'))).toBe(1)
    expect(last).toMatchObject({ product_id: PRODUCT, maker_order_id: expect.stringMatching(UUID) })
    const ids = [last, ...matches].map(match => match!.trade_id as number)
    expect(ids.every((id, index) => index === 0 || id === ids[index - 1]! + 1)).toBe(true)
    const page = async (query: string): Promise<[TradeRow[], Headers]> => {
      const answer = await fetch(`${simulator.restUrl}/products/${PRODUCT}/trades?${query}`)
      return [(await answer.json()) as TradeRow[], answer.headers]
    }
    const newest = matches[99]!
    const [older, headers] = await page(`limit=50&after=${Number(newest.trade_id) + 1}`)
    expect(older.map(({ trade_id: id }) => id)).toEqual(
      Array.from({ length: 50 }, (_, index) => Number(newest.trade_id) - index)
    )
    expect(older[0]).toMatchObject({ time: newest.time, side: newest.side })
    expect(units(older[0]!.price)).toBe(units(newest.price as string))
    expect(units(older[0]!.size)).toBe(units(newest.size as string))
    expect(headers.get('cb-before')).toBe(String(newest.trade_id))
    expect(headers.get('cb-after')).toBe(String(older.at(-1)!.trade_id))
    const [next] = await page(`limit=50&after=${headers.get('cb-after')}`)
    expect(next[0]!.trade_id).toBe(older.at(-1)!.trade_id - 1)
    const [newer] = await page(`limit=5&before=${newest.trade_id}`)
    expect(newer.map(({ trade_id: id }) => id - Number(newest.trade_id))).toEqual([5, 4, 3, 2, 1])
    expect((await page('limit=5000'))[0]).toEqual({ message: 'Invalid pagination parameter' })
    simulator.inject({ kind: 'drop-trade', instrument: PRODUCT })
    await client.until(() => client.of('match').length > 300)
    const heard = client.of('match').map(match => match.trade_id as number)
    expect(heard.filter((id, index) => index > 0 && id !== heard[index - 1]! + 1)).toHaveLength(1)
  })

  it('sends heartbeats of the product, with its numbers', async () => {
    const simulator = await start({ heartbeatMs: 100 })
    const client = await connect(simulator.wsUrl)
    subscribe(client, ['heartbeat', 'full', 'matches'], ['BTC-USD'])
    await client.until(() => client.of('heartbeat').length > 5)
    let sequence = 0
    let trade = 0
    for (const text of client.texts) {
      const frame = JSON.parse(text) as Message
      if (frame.type === 'heartbeat') {
        if (sequence > 0) expect(frame.sequence).toBe(sequence)
        if (trade > 0) expect(frame.last_trade_id).toBe(trade)
      } else if (typeof frame.sequence === 'number') sequence = frame.sequence
      if (typeof frame.trade_id === 'number') trade = frame.trade_id
    }
    expect(sequence).toBeGreaterThan(0)
  })
})

describe('coinbase subscriptions', () => {
  it('lists all that is in force, and sends no second snapshot', async () => {
    const simulator = await start({ eventsPerSecond: 50 })
    const client = await connect(simulator.wsUrl)
    const answers = (): unknown[] => client.of('subscriptions').map(({ channels }) => channels)
    const entry = (name: string, products: string[]): Message => ({ name, product_ids: products, account_ids: null })
    subscribe(client, ['level2_batch', { name: 'matches', product_ids: ['ETH-USD'] }], ['BTC-USD'], {})
    await client.until(() => answers().length === 1)
    expect(answers()[0]).toEqual([entry('level2_50', ['BTC-USD']), entry('matches', ['BTC-USD', 'ETH-USD'])])
    subscribe(client, ['level2_batch', 'level3'])
    await client.until(() => client.of('level3').length === 1)
    subscribe(client, ['level2_batch', 'level3', 'matches'])
    client.send({ type: 'unsubscribe', product_ids: ['BTC-USD'], channels: ['matches'] })
    client.send({ type: 'unsubscribe', channels: ['level3'] })
    client.send({ type: 'unsubscribe', channels: ['level2_batch', 'matches'] })
    await client.until(() => answers().length === 6)
    expect(answers().slice(3)).toEqual([
      [entry('level2_50', ['BTC-USD']), entry('matches', ['ETH-USD']), entry('level3', ['BTC-USD'])],
      [entry('level2_50', ['BTC-USD']), entry('matches', ['ETH-USD'])],
      []
    ])
    expect(client.of('snapshot')).toHaveLength(1)
    expect(client.of('level3')).toHaveLength(1)
    subscribe(client, ['level2_batch'], [PRODUCT], {})
    await client.until(() => client.of('snapshot').length === 2)
  })

  it('wants a signature for orders and for level 2 at once, and checks it', async () => {
    const simulator = await start()
    const client = await connect(simulator.wsUrl)
    const refusal = async (channel: string, more: Message): Promise<Message> => {
      const before = client.of('error').length
      subscribe(client, [channel, 'heartbeat'], [PRODUCT], more)
      return client.until(() => client.of('error')[before])
    }
    for (const channel of ['level3', 'full', 'level2']) {
      expect(await refusal(channel, {})).toMatchObject({
        message: 'Failed to subscribe',
        reason: expect.stringMatching(/^level2, level3, and full channels now require authentication\. /)
      })
    }
    const good = signed()
    const nowS = exchangeNowMs() / 1000
    const cases: [string, Message][] = [
      ['invalid signature', { ...good, signature: 'b09vcHM=' }],
      ['invalid signature', { ...good, timestamp: nowS + 1 }],
      ['invalid api key', { ...good, key: 'another' }],
      ['invalid passphrase', { ...good, passphrase: 'another' }],
      ['request timestamp expired', signed(nowS - 40)],
      ['request timestamp expired', signed(nowS + 40)],
      ['request timestamp expired', { ...good, timestamp: 'now' }]
    ]
    for (const [reason, more] of cases) {
      expect(await refusal('level3', more)).toEqual({
        type: 'error',
        message: 'Sorry, you could not be authenticated: Unauthorized',
        reason
      })
    }
    expect(client.of('subscriptions')).toEqual([])
    for (const timestamp of [nowS - 20, String(nowS), Math.floor(nowS)]) {
      const before = client.of('subscriptions').length
      subscribe(client, ['level2'], [PRODUCT], signed(timestamp))
      await client.until(() => client.of('subscriptions').length > before)
    }
    await client.until(() => client.of('snapshot').length > 0)
  })

  it('refuses what does not exist, and more than ten of one kind', async () => {
    const simulator = await start({ eventsPerSecond: 0 })
    const client = await connect(simulator.wsUrl)
    const answer = async (text: string): Promise<Message> => {
      const before = client.of('error').length
      client.send(text)
      return client.until(() => client.of('error')[before])
    }
    const ask = (channels: unknown, products: unknown): Promise<Message> =>
      answer(JSON.stringify({ type: 'subscribe', channels, product_ids: products }))
    const failed = { type: 'error', message: 'Failed to subscribe' }
    expect(await ask(['matches'], ['BTC-USD', 'NOPE-USD'])).toEqual({
      ...failed,
      reason: 'NOPE-USD is not a valid product'
    })
    expect(await ask(['matches'], ['btc-usd'])).toEqual({ ...failed, reason: 'btc-usd is not a valid product' })
    expect(await ask(['matches'], [])).toEqual({ ...failed, reason: ' is not a valid product' })
    expect(await ask(['gossip'], ['BTC-USD'])).toEqual({ ...failed, reason: 'gossip is not a valid channel' })
    expect(await ask([], ['BTC-USD'])).toEqual({ ...failed, reason: 'No channels provided' })
    expect(await answer('{"type":')).toEqual({ type: 'error', message: 'Malformed JSON' })
    expect(await answer('{"type":"dance"}')).toMatchObject({ type: 'error' })
    expect(client.of('subscriptions')).toEqual([])
    const others = await Promise.all(Array.from({ length: 10 }, () => connect(simulator.wsUrl)))
    for (const other of others) subscribe(other, ['matches'], [PRODUCT], {})
    await Promise.all(others.map(other => other.until(() => other.of('subscriptions').length > 0)))
    expect(await ask(['matches'], [PRODUCT])).toMatchObject({ reason: expect.stringContaining('no more than 10') })
    others[0]!.close()
    await client.until(() => {
      subscribe(client, ['matches'], [PRODUCT], {})
      return client.of('subscriptions').length > 0
    })
    for (let count = 0; count < 101; count++) client.send({ type: 'unsubscribe', channels: ['matches'] })
    await client.event({ type: 'error', message: 'Rate limit exceeded' })
  })

  it('closes a connection that asks for nothing, or is as good as dead', async () => {
    const { venue, server, port } = await serve({})
    const client = await connect(`ws://127.0.0.1:${port}/`)
    const [connection] = server.connections
    const { openedMs } = connection!
    expect(venue.idleCode(connection!, openedMs + 4900)).toBe(0)
    expect(venue.idleCode(connection!, openedMs + 5100)).toBe(1000)
    subscribe(client, ['heartbeat'], [PRODUCT], {})
    await client.until(() => client.of('subscriptions').length > 0)
    expect(venue.idleCode(connection!, openedMs + 5100)).toBe(0)
    expect(venue.idleCode(connection!, openedMs + 200_000)).toBe(1006)
  })

  it('lets only so many connect at once', async () => {
    const { wsUrl } = await start()
    const attempts = await Promise.allSettled(Array.from({ length: 30 }, () => connect(wsUrl)))
    const refused = attempts.filter(attempt => attempt.status === 'rejected')
    expect(refused).toHaveLength(10)
    expect(String(refused[0]!.reason)).toContain('429')
  })
})

describe('coinbase REST', () => {
  it('shows products, books of three levels and the time', async () => {
    const simulator = await start({ instruments: ['ETH-BTC', 'DOGE-USD'], eventsPerSecond: 0 })
    const products = await getJson<Message[]>(simulator, '/products')
    expect(products.map(({ id }) => id)).toEqual(['BTC-USD', 'ETH-USD', 'SOL-USD', 'LTC-USD', 'ETH-BTC', 'DOGE-USD'])
    expect(await getJson(simulator, '/products/BTC-USD')).toMatchObject({
      base_currency: 'BTC',
      quote_currency: 'USD',
      quote_increment: '0.01',
      base_increment: '0.00000001',
      status: 'online',
      min_market_funds: '1',
      trading_disabled: false
    })
    expect(products[4]).toMatchObject({ quote_currency: 'BTC', quote_increment: '0.00001' })
    const orders = await getImage(simulator)
    const levels = await getJson<{ bids: [string, string, number][]; asks: [string, string, number][] }>(
      simulator,
      '/products/BTC-USD/book?level=2'
    )
    const sums = new Map<string, [bigint, number]>()
    for (const [price, size] of orders.bids as [string, string][]) {
      const [sum, count] = sums.get(price) ?? [0n, 0]
      sums.set(price, [sum + units(size), count + 1])
    }
    expect(levels.bids.map(([price, size, count]) => [price, [units(size), count]])).toEqual([...sums])
    const best = await getJson<{ bids: unknown[]; asks: unknown[]; sequence: number }>(
      simulator,
      '/products/BTC-USD/book'
    )
    expect([best.bids, best.asks]).toEqual([[levels.bids[0]], [levels.asks[0]]])
    expect(best.sequence).toBe(orders.sequence)
    expect(await getJson(simulator, '/time')).toEqual({ iso: expect.any(String), epoch: expect.any(Number) })
    expect(await getJson(simulator, '/products/NOPE-USD')).toEqual({ message: 'NotFound' })
    const answers = await Promise.all(Array.from({ length: 16 }, () => fetch(`${simulator.restUrl}/time`)))
    expect(answers.map(({ status }) => status)).toContain(429)
  })

  it('gives the same books for the same seed', async () => {
    const rows = async (seed: number): Promise<string[][]> => (await getImage(await start({ seed }))).bids
    const [first, again, other] = await Promise.all([rows(3), rows(3), rows(4)])
    expect(again).toEqual(first)
    expect(other).not.toEqual(first)
  })
})

describe('coinbase faults', () => {
  it('answers images with errors and old ones', async () => {
    const simulator = await start()
    const client = await connect(simulator.wsUrl)
    subscribe(client, ['level3'])
    const [first] = await client.until(() => client.numbered.length > 0 && client.numbered)
    simulator.inject({ kind: 'rest-error', status: 429, instrument: PRODUCT })
    simulator.inject({ kind: 'rest-error' })
    const url = `${simulator.restUrl}/products/${PRODUCT}/book?level=3`
    const answers = [await fetch(url), await fetch(url), await fetch(url)]
    expect(answers.map(({ status }) => status)).toEqual([429, 500, 200])
    expect(answers[0]!.headers.get('retry-after')).toBe('1')
    simulator.inject({ kind: 'stale-image', instrument: PRODUCT })
    expect((await getImage(simulator)).sequence).toBeLessThan(sequenceOf(first) - 1)
    expect((await getImage(simulator)).sequence).toBeGreaterThanOrEqual(sequenceOf(first))
  })

  it('refuses, acknowledges and stays silent, loses, doubles and swaps', async () => {
    const simulator = await start({ keepLog: true })
    const client = await connect(simulator.wsUrl)
    simulator.inject({ kind: 'refuse', instrument: PRODUCT })
    simulator.inject({ kind: 'silent-ack', instrument: PRODUCT })
    subscribe(client, ['level3'])
    expect(await client.event({ type: 'error' })).toMatchObject({ message: 'Failed to subscribe' })
    subscribe(client, ['level3'])
    await client.until(() => client.of('subscriptions').length === 1)
    // The other product shows that time passes and that nothing comes of the first.
    subscribe(client, ['level3'], ['ETH-USD'])
    await client.until(() => client.numbered.length > 300)
    expect(client.numbered.filter(({ product_id: product }) => product === PRODUCT)).toEqual([])
    subscribe(client, ['level3'])
    const own: number[] = []
    client.onText(text => {
      const [, product, sequence] = text.startsWith('[') ? (JSON.parse(text) as string[]) : []
      if (product === PRODUCT) own.push(Number(sequence))
    })
    const holes = async (): Promise<number[]> => {
      const from = own.length
      await client.until(() => own.length > from + 200)
      return own
        .map((sequence, index) => sequence - (own[index - 1] ?? sequence - 1))
        .slice(from)
        .filter(step => step !== 1)
    }
    expect(await holes()).toEqual([])
    simulator.inject({ kind: 'drop', instrument: PRODUCT })
    expect(await holes()).toEqual([2])
    simulator.inject({ kind: 'duplicate', instrument: PRODUCT })
    expect(await holes()).toEqual([0])
    simulator.inject({ kind: 'reorder', instrument: PRODUCT })
    expect(await holes()).toEqual([2, -1, 2])
  })

  it('ends connections without a word', async () => {
    const simulator = await start()
    const client = await connect(simulator.wsUrl)
    subscribe(client, ['matches'], [PRODUCT], {})
    await client.until(() => client.of('subscriptions').length > 0)
    simulator.inject({ kind: 'restart-notice' })
    expect(await client.until(() => client.closeCode)).toBe(1006)
  })
})
