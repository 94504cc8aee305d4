import { afterEach, describe, expect, it, vi } from 'vitest'
import { COMMON_FAULT_KINDS, FAULT_KINDS } from '../../src/simulator/faults.ts'
import { binanceSpec, bitfinexSpec, huobiSpec, okxSpec, SIMULATED_EXCHANGES } from '../../src/simulator/listing.ts'
import { levelsOf, Market, plainText } from '../../src/simulator/market.ts'
import {
  type Fault,
  parseFault,
  randomFaults,
  type Simulator,
  type SimulatorOptions,
  simulatorFaultKinds,
  startSimulator
} from '../../src/simulator/simulator.ts'
import { BitfinexBook, Client, OkxBook } from './client.ts'

// On a busy machine the waiting takes longer; that is no failure.
vi.setConfig({ testTimeout: 20_000 })

const FLAGS = 229_376
const FAST = { eventsPerSecond: 2000, connectsPerMinute: 0, connectsPerSecond: 0 }
const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(options: SimulatorOptions): Promise<Simulator> {
  const simulator = await startSimulator(options)
  ends.push(() => simulator.close())
  return simulator
}

async function connect(simulator: Simulator): Promise<Client> {
  const client = new Client(simulator.wsUrl)
  ends.push(() => client.close())
  return client.opened()
}

/** Subscribes to the raw (or P0) book of BTCUSD, and follows it. */
async function follow(
  simulator: Simulator,
  precision: 'R0' | 'P0' = 'R0',
  len = '250'
): Promise<[Client, BitfinexBook]> {
  const client = await connect(simulator)
  const book = new BitfinexBook(client, precision)
  client.send({ event: 'conf', flags: FLAGS })
  client.send({ event: 'subscribe', channel: 'book', symbol: 'tBTCUSD', prec: precision, freq: 'F0', len, subId: 'x' })
  await client.until(() => book.isReady)
  return [client, book]
}

async function fetchJson(url: string): Promise<unknown> {
  return (await fetch(url)).json()
}

describe('market', () => {
  it('is deep, never crossed, in order and of the right numbers after much life', () => {
    for (const spec of [
      ...['BTCUSD', 'DOGE:USD', 'XRPBTC'].map(bitfinexSpec),
      ...['BTC-USDT', 'ETH-USDT-SWAP'].map(okxSpec),
      ...['BTCUSDT', 'LTCUSDT'].flatMap(name => [binanceSpec('spot', name), binanceSpec('usdm', name)]),
      ...['btcusdt', 'shibusdt'].map(huobiSpec)
    ]) {
      const market = new Market(spec, 7, 1000, 0)
      for (let step = 0; step < 40; step++) market.advance(500, step)
      const bids = market.orders('bid')
      const asks = market.orders('ask')
      expect(bids[0]!.price, spec.name).toBeLessThan(asks[0]!.price)
      for (const orders of [bids, asks]) {
        expect(orders.length, spec.name).toBeGreaterThan(spec.ordersPerSide * 0.8)
        expect(orders.length, spec.name).toBeLessThan(spec.ordersPerSide * 1.2)
        expect(orders.every(({ price, size }) => price > 0 && size > 0 && Number.isSafeInteger(size))).toBe(true)
        const isSorted = orders.every((order, index) => {
          const before = orders[index - 1]
          if (!before) return true
          const worse = order.side === 'bid' ? before.price - order.price : order.price - before.price
          return worse > 0 || (worse === 0 && before.id < order.id)
        })
        expect(isSorted, spec.name).toBe(true)
      }
      if (spec.name.includes('-')) expect(levelsOf(bids, 1000).length, spec.name).toBeGreaterThan(420)
      expect(market.trades.length).toBeGreaterThan(20)
    }
  })

  it('does the same for the same seed, whatever the rate', () => {
    const live = (seed: number, rate: number, ms: number): string => {
      const told: string[] = []
      const market = new Market(bitfinexSpec('BTCUSD'), seed, rate, 0)
      market.listener = {
        changed: (order, from, to) => void told.push(`${JSON.stringify(order)} ${from} ${to}`),
        traded: ({ id, price, size }) => void told.push(`${id} ${price} ${size}`)
      }
      for (let at = 0; at < ms; at += 20) market.advance(20, at)
      expect(told.length).toBeGreaterThan(500)
      return told.slice(0, 500).join('\n')
    }
    expect(live(5, 1000, 1000)).toBe(live(5, 200, 5000))
    expect(live(5, 1000, 1000)).not.toBe(live(6, 1000, 1000))
  })

  it('writes plain decimals', () => {
    expect([plainText(1, 8), plainText(120, 2), plainText(794_210, 1), plainText(7, 0)]).toEqual([
      '0.00000001',
      '1.2',
      '79421',
      '7'
    ])
  })
})

describe('bitfinex', () => {
  it('numbers every frame, keeps the window and sends right checksums, but for one that a fault falsifies', async () => {
    const simulator = await start({ exchange: 'bitfinex', heartbeatMs: 300, ...FAST })
    const [client, book] = await follow(simulator)
    const faults: Fault[] = [{ kind: 'corrupt-checksum', instrument: 'BTCUSD' }]
    const [otherClient, other] = await follow(await start({ exchange: 'bitfinex', ...FAST, faults }))
    client.send({ event: 'subscribe', channel: 'trades', symbol: 'tBTCUSD' })
    await client.until(() => book.checksums.length >= 2 && book.trades.tu > 5 && book.beats > 2)
    expect(book.mistakes).toEqual([])
    expect(book.holes).toEqual([])
    expect(book.checksums).not.toContain(false)
    expect(book.deepest).toBe(250)
    expect(book.updates).toBeGreaterThan(1000)
    expect(await client.event({ event: 'subscribed', channel: 'book' })).toMatchObject({
      symbol: 'tBTCUSD',
      prec: 'R0',
      freq: 'F0',
      len: '250',
      subId: 'x',
      pair: 'BTCUSD'
    })
    await otherClient.until(() => other.checksums.length >= 2)
    expect(other.checksums).toEqual([false, true])
    expect(other.holes).toEqual([])
  })

  it('serves levels and short windows', async () => {
    const simulator = await start({ exchange: 'bitfinex', ...FAST })
    const [levels, short] = await Promise.all([follow(simulator, 'P0', '25'), follow(simulator, 'R0', '1')])
    for (const [[client, book], depth] of [[levels, 25] as const, [short, 1] as const]) {
      await client.until(() => book.checksums.length >= 1 && book.updates > 50)
      expect(book.mistakes).toEqual([])
      expect(book.holes).toEqual([])
      expect(book.checksums).not.toContain(false)
      expect(book.deepest).toBe(depth)
    }
  })

  it('serves levels of prices so small that their numbers have exponents', async () => {
    const simulator = await start({ exchange: 'bitfinex', instruments: ['SHIB:USD'], ...FAST })
    const client = await connect(simulator)
    const book = new BitfinexBook(client, 'P0')
    client.send({ event: 'conf', flags: FLAGS })
    client.send({ event: 'subscribe', channel: 'book', symbol: 'tSHIB:USD', prec: 'P0', freq: 'F0', len: '25' })
    await client.until(() => book.checksums.length >= 1 && book.updates > 50)
    expect(book.rows.some(row => /^\[\d(?:\.\d)?e-7,/.test(row))).toBe(true)
    expect(book.mistakes).toEqual([])
    expect(book.checksums).not.toContain(false)
  })

  it('refuses a book, leaves one in silence, and loses a trade', async () => {
    const simulator = await start({ exchange: 'bitfinex', ...FAST })
    simulator.inject({ kind: 'refuse', instrument: 'BTCUSD' })
    simulator.inject({ kind: 'drop-trade' })
    const client = await connect(simulator)
    const book = new BitfinexBook(client, 'R0')
    client.send({ event: 'conf', flags: FLAGS })
    const wish = { event: 'subscribe', channel: 'book', symbol: 'tBTCUSD', prec: 'R0', len: '250' }
    client.send(wish)
    await client.event({ code: 10300 })
    simulator.inject({ kind: 'silent-ack', instrument: 'BTCUSD' })
    client.send(wish)
    const { chanId } = await client.event({ event: 'subscribed', channel: 'book' })
    client.send({ event: 'subscribe', channel: 'trades', symbol: 'tBTCUSD' })
    await client.until(() => book.trades.tu > 5)
    expect(book.isReady).toBe(false)
    expect(book.holes).toHaveLength(1)
    client.send({ event: 'unsubscribe', chanId })
    await client.event({ event: 'unsubscribed', chanId })
    client.send(wish)
    await client.until(() => book.isReady && book.updates > 50)
    expect(book.holes).toHaveLength(1)
  })

  it('loses, doubles and swaps exactly one frame', async () => {
    const simulator = await start({ exchange: 'bitfinex', ...FAST, keepLog: true })
    const [client, book] = await follow(simulator)
    const settle = async (): Promise<string[]> => {
      const from = book.updates
      await client.until(() => book.updates > from + 50)
      return book.holes.splice(0)
    }
    simulator.inject({ kind: 'drop', instrument: 'BTCUSD' })
    expect(await settle()).toHaveLength(1)
    simulator.inject({ kind: 'duplicate' })
    const doubled = await settle()
    expect(doubled).toHaveLength(1)
    expect(doubled[0]).toMatch(/^(\d+) -> \1$/)
    simulator.inject({ kind: 'reorder' })
    expect(await settle()).toHaveLength(3)
    simulator.inject({ kind: 'drop', instrument: 'ETHUSD' })
    expect(await settle()).toEqual([])
    // A swapped frame stands in the log where it was due, too.
    expect(simulator.log.filter(frame => !frame.sent).map(frame => frame.fault)).toEqual(['drop', 'reorder'])
  })

  it('refuses as the exchange does', async () => {
    const simulator = await start({ exchange: 'bitfinex', instruments: ['XRPBTC'], ...FAST })
    const client = await connect(simulator)
    expect(await client.event({ event: 'info' })).toMatchObject({ version: 2, platform: { status: 1 } })
    client.send('not json')
    client.send({ event: 'ping', cid: 1234 })
    expect(await client.event({ event: 'pong' })).toMatchObject({ cid: 1234, ts: expect.any(Number) })
    const wish = { event: 'subscribe', channel: 'book', prec: 'R0', len: '250', subId: 'a' }
    client.send({ ...wish, symbol: 'tNOPEF0:USTF0' })
    expect(await client.event({ code: 10300 })).toEqual({
      ...wish,
      symbol: 'tNOPEF0:USTF0',
      event: 'error',
      msg: 'symbol: invalid',
      code: 10300,
      pair: 'NOPEF0:USTF0'
    })
    client.send({ ...wish, symbol: 'tXRPBTC' })
    const { chanId } = await client.event({ event: 'subscribed' })
    client.send({ ...wish, symbol: 'tXRPBTC' })
    expect(await client.event({ code: 10301 })).toMatchObject({ chanId, msg: 'subscribe: dup' })
    client.send({ event: 'subscribe', channel: 'gossip', symbol: 'tBTCUSD' })
    expect(await client.event({ code: 10302 })).toMatchObject({ channel: 'gossip' })
    client.send({ event: 'unsubscribe', chanId })
    expect(await client.event({ event: 'unsubscribed' })).toEqual({ event: 'unsubscribed', status: 'OK', chanId })
    client.send({ event: 'unsubscribe', chanId })
    await client.event({ code: 10401 })
    client.send({ event: 'unsubscribe' })
    await client.event({ code: 10400 })
    client.send({ event: 'dance' })
    expect(await client.event({ code: 10000 })).toMatchObject({ msg: 'event: invalid (dance)' })
    for (const symbol of ['tBTCUSD', 'tETHUSD', 'tLTCUSD', 'tDOGE:USD']) {
      for (const prec of ['R0', 'P0']) {
        for (const len of ['1', '25', '100', '250']) client.send({ ...wish, symbol, prec, len })
      }
    }
    await client.event({ code: 10305 })
  })

  it('refuses the connection after 20 within a minute', async () => {
    const simulator = await start({ exchange: 'bitfinex' })
    await Promise.all(Array.from({ length: 20 }, () => connect(simulator)))
    await expect(connect(simulator)).rejects.toThrow('429')
  })

  it('announces maintenance and restarts, closes, and falls silent', async () => {
    const simulator = await start({ exchange: 'bitfinex', ...FAST })
    const [client, book] = await follow(simulator)
    simulator.inject({ kind: 'maintenance', ms: 400 })
    await client.event({ code: 20060 })
    expect(await fetchJson(`${simulator.restUrl}/v2/platform/status`)).toEqual([0])
    await client.event({ code: 20061 })
    const places = ['20060', '20061'].map(code => client.texts.findIndex(text => text.includes(`"code":${code}`)))
    expect(client.texts.slice(places[0], places[1])).toHaveLength(1)
    simulator.inject({ kind: 'mute', ms: 60, instrument: 'BTCUSD' })
    await client.until(() => book.holes.length === 1)
    simulator.inject({ kind: 'restart-notice', ms: 20 })
    await client.event({ code: 20051 })
    expect(await client.until(() => client.closeCode)).toBe(1012)
    const [other] = await follow(simulator)
    simulator.inject({ kind: 'close', instrument: 'BTCUSD' })
    expect(await other.until(() => other.closeCode)).toBe(1006)
  })

  it('answers REST', async () => {
    const { restUrl } = await start({ exchange: 'bitfinex', instruments: ['SOLUSD', 'ETHF0:USTF0'] })
    const keys = 'pub:list:pair:exchange,pub:list:pair:futures,pub:info:pair,pub:nonsense,pub:map:currency:sym'
    const [pairs, futures, info, unknown, symbols] = (await fetchJson(`${restUrl}/v2/conf/${keys}`)) as unknown[][]
    expect(pairs).toEqual(['BTCUSD', 'ETHUSD', 'LTCUSD', 'DOGE:USD', 'SOLUSD'])
    expect(futures).toEqual(['BTCF0:USTF0', 'ETHF0:USTF0'])
    const [pair, facts] = info![0] as [string, unknown[]]
    expect([pair, typeof facts[3], typeof facts[4], facts[8]]).toEqual(['BTCUSD', 'string', 'string', 0.2])
    expect(unknown).toEqual([])
    expect(symbols).toContainEqual(['UST', 'USDt'])
    expect(await fetchJson(`${restUrl}/v2/platform/status`)).toEqual([1])
  })

  it('gives the same market for the same seed', async () => {
    const rows = async (seed: number): Promise<string[]> => {
      const simulator = await start({ exchange: 'bitfinex', seed, ...FAST })
      const [client, book] = await follow(simulator)
      await client.until(() => book.rows.length >= 200)
      return book.rows.slice(0, 200)
    }
    const [first, again, other] = await Promise.all([rows(3), rows(3), rows(4)])
    expect(again).toEqual(first)
    expect(other).not.toEqual(first)
  })
})

describe('okx', () => {
  const subscribe = (client: Client, instId: string, channels = ['books']): void =>
    client.send({ id: '1512', op: 'subscribe', args: channels.map(channel => ({ channel, instId })) })

  it('chains its updates, keeps 400 levels, and its checksums are right', async () => {
    const simulator = await start({ exchange: 'okx', okxChecksums: true, ...FAST })
    const client = await connect(simulator)
    const book = new OkxBook(client, 'BTC-USDT-SWAP')
    subscribe(client, 'BTC-USDT-SWAP', ['books', 'trades'])
    await client.until(() => book.updates > 12 && book.trades > 5)
    expect(book.mistakes).toEqual([])
    expect(book.breaks).toEqual([])
    expect(book.checksums).not.toContain(false)
    expect(book.checksums.length).toBe(book.updates + 1)
    expect(book.removals).toBeGreaterThan(0)
    expect(book.deepest).toBe(400)
    expect(await client.event({ event: 'subscribe' })).toEqual({
      id: '1512',
      event: 'subscribe',
      arg: { channel: 'books', instId: 'BTC-USDT-SWAP' },
      connId: expect.stringMatching(/^[0-9a-f]{8}$/)
    })
    simulator.inject({ kind: 'drop' })
    simulator.inject({ kind: 'corrupt-checksum' })
    const count = book.updates
    await client.until(() => book.updates > count + 3)
    expect(book.breaks).toHaveLength(1)
  })

  it('says the same numbers on every connection, and zeros for checksums unless one is falsified', async () => {
    const simulator = await start({ exchange: 'okx', ...FAST })
    const clients = await Promise.all([connect(simulator), connect(simulator)])
    const books = clients.map(client => new OkxBook(client, 'BTC-USDT'))
    for (const client of clients) subscribe(client, 'BTC-USDT')
    await Promise.all(clients.map((client, index) => client.until(() => books[index]!.updates > 4)))
    // One may have joined a push later than the other.
    const common = books[0]!.links.filter(link => books[1]!.links.includes(link))
    expect(common.length).toBeGreaterThanOrEqual(3)
    expect(books[0]!.checksums).toEqual([])
    simulator.inject({ kind: 'corrupt-checksum', instrument: 'BTC-USDT' })
    await clients[0]!.until(() => books[0]!.checksums.length > 0)
    expect(books[0]!.checksums).toEqual([false])
    const answer = (await fetchJson(`${simulator.restUrl}/api/v5/market/books?instId=BTC-USDT&sz=400`)) as {
      data: { bids: string[][]; seqId: number }[]
    }
    expect(answer.data[0]!.bids).toHaveLength(400)
    await clients[0]!.until(() => books[0]!.links.some(link => link.startsWith(`${answer.data[0]!.seqId}>`)))
  })

  it('sends no first image when that is gone, and its REST images fit the stream', async () => {
    const simulator = await start({ exchange: 'okx', imageless: true, ...FAST })
    const client = await connect(simulator)
    const images = `${simulator.restUrl}/api/v5/market/books?sz=400&instId=`
    interface Data {
      bids: string[][]
      asks: string[][]
      seqId: number
      prevSeqId: number
    }
    const fetchBook = async (instId: string): Promise<Data> =>
      ((await fetchJson(images + instId)) as { data: Data[] }).data[0]!
    for (const instId of ['BTC-USDT', 'BTC-USDT-SWAP']) {
      subscribe(client, instId)
      const updates = (): Data[] => {
        const frames = client.texts.filter(text => text.includes('"action"') && text.includes(`"${instId}"`))
        return frames.map(text => (JSON.parse(text) as { data: Data[] }).data[0]!)
      }
      await client.until(() => updates().length > 2)
      expect(client.texts.some(text => text.includes('"action":"snapshot"'))).toBe(false)
      const first = updates()[0]!
      simulator.inject({ kind: 'stale-image', instrument: instId })
      expect((await fetchBook(instId)).seqId).toBeLessThan(first.prevSeqId)
      const image = await fetchBook(instId)
      const later = await client.until(() => {
        const after = updates().filter(({ seqId }) => seqId > image.seqId)
        return after.length > 5 && after
      })
      expect(later[0]!.prevSeqId).toBe(image.seqId)
      // Applied from the image on, the updates lead to a later image.
      const last = await fetchBook(instId)
      await client.until(() => updates().some(({ seqId }) => seqId === last.seqId))
      for (const side of ['bids', 'asks'] as const) {
        const rows = new Map(image[side].map(row => [row[0], row]))
        for (const update of updates()) {
          if (update.seqId <= image.seqId || update.seqId > last.seqId) continue
          for (const row of update[side]) row[1] === '0' ? rows.delete(row[0]) : rows.set(row[0], row)
        }
        const sign = side === 'bids' ? -1 : 1
        expect([...rows.values()].sort((a, b) => (Number(a[0]) - Number(b[0])) * sign)).toEqual(last[side])
      }
    }
  })

  it('refuses a book, leaves one in silence, and fails a request', async () => {
    const simulator = await start({ exchange: 'okx', ...FAST })
    const client = await connect(simulator)
    const book = new OkxBook(client, 'BTC-USDT')
    simulator.inject({ kind: 'refuse', instrument: 'BTC-USDT' })
    subscribe(client, 'BTC-USDT', ['trades', 'books'])
    await client.event({ code: '60018' })
    simulator.inject({ kind: 'silent-ack', instrument: 'BTC-USDT' })
    simulator.inject({ kind: 'drop-trade', instrument: 'BTC-USDT' })
    subscribe(client, 'BTC-USDT')
    await client.until(() => book.trades > 10)
    expect(book.updates).toBe(0)
    subscribe(client, 'BTC-USDT')
    await client.until(() => book.updates > 2)
    expect(book.mistakes).toEqual([])
    for (const [status, wait] of [[429, '1'] as const, [503, null] as const]) {
      simulator.inject({ kind: 'rest-error', status })
      const answer = await fetch(`${simulator.restUrl}/api/v5/market/books?instId=BTC-USDT&sz=400`)
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([status, wait])
    }
  })

  it('keeps a still book alive with empty updates', async () => {
    const simulator = await start({ exchange: 'okx', ...FAST, eventsPerSecond: 0, heartbeatMs: 150 })
    const client = await connect(simulator)
    const book = new OkxBook(client, 'ETH-USDT')
    subscribe(client, 'ETH-USDT')
    await client.until(() => book.keepAlives >= 2)
    expect([book.breaks, book.updates]).toEqual([[], book.keepAlives])
  })

  it('answers pings and refuses as the exchange does', async () => {
    const simulator = await start({ exchange: 'okx', ...FAST })
    const client = await connect(simulator)
    client.send('ping')
    await client.until(() => client.texts.includes('pong'))
    client.send('{"op":')
    expect(await client.event({ code: '60012' })).toMatchObject({ event: 'error', msg: 'Invalid request: {"op":' })
    subscribe(client, 'MATIC-USDT')
    const refusal = await client.event({ code: '60018' })
    expect(refusal).not.toHaveProperty('arg')
    expect(refusal).toMatchObject({
      id: '1512',
      msg: expect.stringContaining("channel:books,instId:MATIC-USDT doesn't exist")
    })
    const arg = { channel: 'books', instId: 'BTC-USD-SWAP' }
    subscribe(client, arg.instId)
    await client.event({ event: 'subscribe' })
    client.send({ op: 'unsubscribe', args: [arg] })
    expect(await client.event({ event: 'unsubscribe' })).toMatchObject({ arg })
    for (let count = 0; count < 480; count++) client.send({ op: 'unsubscribe', args: [arg] })
    await client.event({ code: '60014' })
    simulator.inject({ kind: 'restart-notice', ms: 20 })
    await client.event({ event: 'notice', code: '64008' })
    expect(await client.until(() => client.closeCode)).toBe(1001)
  })

  it('refuses more than three connections within a second', async () => {
    const simulator = await start({ exchange: 'okx' })
    const attempts = await Promise.allSettled(Array.from({ length: 8 }, () => connect(simulator)))
    const refused = attempts.filter(attempt => attempt.status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    expect(String(refused[0]?.reason)).toContain('429')
  })

  it('answers REST', async () => {
    const { restUrl } = await start({ exchange: 'okx', instruments: ['SOL-USDT', 'BTC-USD-270326'] })
    const list = async (query: string): Promise<Record<string, unknown>[]> =>
      ((await fetchJson(`${restUrl}/api/v5/public/instruments?${query}`)) as { data: Record<string, unknown>[] }).data
    expect((await list('instType=SPOT')).map(row => row.instId)).toEqual(['BTC-USDT', 'ETH-USDT', 'SOL-USDT'])
    expect(await list('instType=SWAP&instId=BTC-USDT-SWAP')).toMatchObject([
      {
        ctVal: '0.01',
        ctValCcy: 'BTC',
        ctMult: '1',
        ctType: 'linear',
        settleCcy: 'USDT',
        tickSz: '0.1',
        lotSz: '0.01',
        minSz: '0.01'
      }
    ])
    expect(await list('instType=SWAP&instId=BTC-USD-SWAP')).toMatchObject([
      { ctVal: '100', ctValCcy: 'USD', ctType: 'inverse', settleCcy: 'BTC', tickSz: '0.1', lotSz: '1', minSz: '1' }
    ])
    expect(await list('instType=SWAP&instId=ETH-USDT-SWAP')).toMatchObject([
      { ctVal: '0.1', tickSz: '0.01', lotSz: '0.01' }
    ])
    expect(await list('instType=FUTURES')).toMatchObject([
      { instId: 'BTC-USD-270326', expTime: String(Date.UTC(2027, 2, 26, 8)) }
    ])
    expect(await list('instType=SPOT&instId=NOPE-USDT')).toEqual([])
    expect(await fetchJson(`${restUrl}/api/v5/public/time`)).toMatchObject({
      code: '0',
      data: [{ ts: expect.stringMatching(/^\d{13}$/) }]
    })
  })
})

describe('faults', () => {
  it('are read from text', () => {
    expect(parseFault('drop@5s')).toEqual({ kind: 'drop', afterMs: 5000 })
    expect(parseFault('reorder')).toEqual({ kind: 'reorder' })
    expect(parseFault('mute@10s:20s')).toEqual({ kind: 'mute', afterMs: 10_000, ms: 20_000 })
    expect(parseFault('close@30s:1012/DOGE:USD')).toEqual({
      kind: 'close',
      afterMs: 30_000,
      code: 1012,
      instrument: 'DOGE:USD'
    })
    expect(parseFault('corrupt-checksum@12s/BTCUSD')).toEqual({
      kind: 'corrupt-checksum',
      afterMs: 12_000,
      instrument: 'BTCUSD'
    })
    expect(parseFault('rest-error@1s:429/BTC-USDT')).toEqual({
      kind: 'rest-error',
      afterMs: 1000,
      status: 429,
      instrument: 'BTC-USDT'
    })
    expect(parseFault('silent-ack')).toEqual({ kind: 'silent-ack' })
    for (const text of [
      '',
      'rest-error:200',
      'refuse:3s',
      'melt@5s',
      'drop@soon',
      'drop@5s:3s',
      'close:99',
      'close:1005',
      'mute:long',
      'drop@5s/',
      'constructor'
    ]) {
      expect(parseFault(text), text).toBeUndefined()
    }
  })

  it('are spread over a time, the same for the same seed', () => {
    const faults = randomFaults(9, 80, 60_000, ['BTCUSD'])
    expect(faults).toEqual(randomFaults(9, 80, 60_000, ['BTCUSD']))
    expect(faults).not.toEqual(randomFaults(10, 80, 60_000, ['BTCUSD']))
    expect(new Set(faults.map(fault => fault.kind)).size).toBe(8)
    faults.forEach((fault, index) => {
      expect(Math.floor(fault.afterMs! / 750)).toBe(index)
    })
    const all = randomFaults(9, 200, 60_000, ['BTCUSD'], FAULT_KINDS)
    expect(new Set(all.map(fault => fault.kind))).toEqual(new Set(FAULT_KINDS))
    expect(all.every(({ kind, status }) => (kind === 'rest-error') === (status !== undefined))).toBe(true)
  })

  it('are known by every exchange that they mean something to', () => {
    for (const exchange of SIMULATED_EXCHANGES) {
      const kinds = simulatorFaultKinds(exchange)
      expect(FAULT_KINDS, exchange).toEqual(expect.arrayContaining([...kinds]))
      expect(kinds, exchange).toEqual(expect.arrayContaining(['drop', 'mute', 'close', 'drop-trade']))
    }
    expect(simulatorFaultKinds('bitfinex')).not.toContain('rest-error')
    expect(simulatorFaultKinds('okx')).toEqual(FAULT_KINDS)
    expect(COMMON_FAULT_KINDS).toHaveLength(8)
  })
})
