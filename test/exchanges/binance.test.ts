import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { beforeEach, describe, expect, it } from 'vitest'
import { Engine, STATE_VERSION, type StateDetail } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { binance } from '../../src/exchanges/binance.ts'
import type { FetchAnswer, Selection } from '../../src/exchanges/exchange.ts'
import {
  Driver,
  described,
  hasRecordings,
  MemorySink,
  NEEDS_RECORDINGS,
  RECORDINGS,
  RecordedRequests,
  type Row,
  START_US
} from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'

type LevelText = readonly [price: string, size: string]
type Market = 'spot' | 'perp'

const BIDS: readonly LevelText[] = [
  ['99.00000000', '1.50000000'],
  ['98.50000000', '2.00000000']
]
const ASKS: readonly LevelText[] = [
  ['101.00000000', '0.75000000'],
  ['102.00000000', '4.00000000']
]
const selectionOf = (market: Market | null, updateSpeed: string | null = null): Selection => ({
  level: 'l2',
  market,
  channel: null,
  updateSpeed
})

let driver: Driver
let market: Market

/** A connection that is open; nothing was answered. */
function connect(
  of: Market = 'spot',
  instIds: readonly string[] = ['BTCUSDT'],
  config: Partial<EngineConfig> = {}
): void {
  market = of
  driver = new Driver(binance, config)
  answered.clear()
  driver.open('a', instIds, selectionOf(of))
}

interface Request {
  method: string
  params?: string[]
  id: number
}

const requests = (name = 'a') => driver.asked(name) as Request[]
const sentBy = (method: string, name = 'a') => requests(name).filter(request => request.method === method)
const say = (value: unknown, name = 'a') => driver.in(name, JSON.stringify(value))
/** How many messages of a connection were answered. */
const answered = new Map<string, number>()

/** Answers everything that was asked, and what is asked because of it. */
function answer(name = 'a'): void {
  for (let at = answered.get(name) ?? 0; at < requests(name).length; at++) {
    answered.set(name, at + 1)
    const { method, id } = requests(name)[at]!
    say({ result: method === 'LIST_SUBSCRIPTIONS' ? streamsOf(name) : null, id }, name)
  }
}

/** What is subscribed by the messages so far. */
function streamsOf(name: string): string[] {
  const streams = new Set<string>()
  for (const { method, params } of requests(name)) {
    for (const stream of params ?? []) method === 'SUBSCRIBE' ? streams.add(stream) : streams.delete(stream)
  }
  return [...streams]
}

/** A depth event of the market. `link` is `pu` on futures. */
function depth(
  first: number,
  last: number,
  bids: readonly LevelText[] = [],
  asks: readonly LevelText[] = [],
  { symbol = 'BTCUSDT', link = first - 1 }: { symbol?: string; link?: number } = {}
): string {
  const time = '"E":1672515782136,'
  const numbers = `"U":${first},"u":${last},`
  const levels = `"b":${JSON.stringify(bids)},"a":${JSON.stringify(asks)}}`
  return market === 'spot'
    ? `{"e":"depthUpdate",${time}"s":"${symbol}",${numbers}${levels}`
    : `{"e":"depthUpdate",${time}"T":1672515782130,"s":"${symbol}","ps":"${symbol}","st":1,${numbers}"pu":${link},${levels}`
}

const event = (...of: Parameters<typeof depth>) => driver.in('a', depth(...of))
const wrapped = (stream: string, text: string) => `{"stream":"${stream}","data":${text}}`
const bid = (price: string, size = '1.00000000'): LevelText[] => [[price, size]]

const book = (lastUpdateId: number, bids: readonly LevelText[] = BIDS, asks: readonly LevelText[] = ASKS) => ({
  lastUpdateId,
  bids,
  asks
})

/** A small image, whose number is wanted alone. */
const isProbe = (path: string) => path.endsWith('&limit=5')

/** Answers the newest image request of a symbol. */
function image(
  lastUpdateId: number,
  symbol = 'BTCUSDT',
  status = 200,
  value: unknown = book(lastUpdateId),
  name = 'a'
): void {
  const { request } = driver.requests.fetches.findLast(
    ({ connection, request: { path } }) =>
      connection === name && path.includes(`/depth?symbol=${encodeURIComponent(symbol)}&`) && !isProbe(path)
  )!
  driver.fetched(name, status, value, request.id)
}

/** Answers the newest question whether the book of a symbol is quiet. */
function probed(lastUpdateId: number, symbol = 'BTCUSDT', status = 200, value: unknown = book(lastUpdateId)): void {
  const { request } = driver.requests.fetches.findLast(
    ({ request: { path } }) => isProbe(path) && path.includes(`=${symbol}&`)
  )!
  driver.fetched('a', status, value, request.id)
}

/** The same with books that are live at number 100. */
function goLive(
  of: Market = 'spot',
  instIds: readonly string[] = ['BTCUSDT'],
  config: Partial<EngineConfig> = {}
): void {
  connect(of, instIds, config)
  answer()
  for (const symbol of instIds) {
    event(95, 100, [], [], { symbol })
    image(100, symbol)
    if (of === 'perp') event(96, 100, [], [], { symbol })
  }
}

const updates = (name = 'BTCUSDT') => driver.sink.records('l2_updates', name)
const types = (name?: string) => updates(name).map(row => row.event_type)
const sequences = () => updates().map(row => [row.event_type, row.seqId, row.prevSeqId])
const details = (event_: string, name?: string) => driver.sink.statuses(event_, name).map(row => row.detail as Row)
const shots = () => driver.sink.records(market === 'spot' ? 'l2_spot' : 'l2_perps')
const images = () => driver.fetches('a').filter(path => path.includes('/depth?') && !isProbe(path))
const probes = () => driver.fetches('a').filter(isProbe)
const trades = () => driver.sink.records('trades').map(row => row.trade_id)
const logged = () => driver.requests.logs.map(({ message }) => message)

/** Lets time pass on a connection that answers, so that its own questions end nothing. */
function wait(seconds: number): void {
  for (let second = 0; second < seconds; second++) {
    driver.pass('a', 1000)
    answer()
  }
}

/** The same while events of a symbol come that change nothing. */
function waitWith(seconds: number, symbol: string): void {
  for (let second = 0; second < seconds; second++) {
    driver.pass('a', 1000)
    answer()
    event(1, 1, [], [], { symbol, link: 0 })
  }
}

beforeEach(() => goLive())

describe('subscribing', () => {
  it('asks for all streams in one message, and says what it can prove', () => {
    goLive('spot', ['BTCUSDT', 'ETHUSDT'])
    expect(requests()).toEqual([
      {
        method: 'SUBSCRIBE',
        params: ['btcusdt@depth@100ms', 'btcusdt@trade', 'ethusdt@depth@100ms', 'ethusdt@trade'],
        id: 1
      }
    ])
    expect(details('subscribed', 'BTCUSDT')).toEqual([
      { conn: 'a', channel: 'depth@100ms', proof: { sequence: 'instrument', checksum: false } }
    ])
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('puts at most 200 streams into a message', () => {
    const names = Array.from({ length: 150 }, (_, n) => `C${n}USDT`)
    connect('spot', names)
    expect(requests().map(({ params }) => params!.length)).toEqual([200, 100])
    expect(new Set(requests().flatMap(({ params }) => params)).size).toBe(300)
  })

  it('takes the slow stream when it is selected, and books alone', () => {
    driver = new Driver(binance)
    driver.open('a', ['BTCUSDT'], selectionOf('spot', '1000ms'), null, ['book'])
    expect(requests()[0]!.params).toEqual(['btcusdt@depth'])
  })

  it('names that are not ASCII are lower-cased by no language, and escaped in addresses', () => {
    goLive('spot', ['币安人生USDT'])
    expect(requests()[0]!.params).toEqual(['币安人生usdt@depth@100ms', '币安人生usdt@trade'])
    expect('TITAN'.toLocaleLowerCase('tr')).not.toBe('titan')
    connect('spot', ['TITANUSDT', 'ÖUSDT'])
    expect(requests()[0]!.params).toContain('titanusdt@trade')
    answer()
    event(1, 2, [], [], { symbol: 'ÖUSDT' })
    expect(images()).toEqual(['/api/v3/depth?symbol=%C3%96USDT&limit=5000'])
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    driver.pass('a', 10_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 1000)
    expect(driver.requests.hangups).toMatchObject([{ reason: 'no acknowledgement within 10000 ms' }])
  })

  it('data that come before the acknowledgement are one', () => {
    connect()
    event(95, 98)
    image(98)
    event(99, 99, bid('99.5'))
    answer()
    driver.pass('a', 11_000)
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('subscribed')).toHaveLength(1)
    expect(driver.requests.hangups).toEqual([])
  })

  it('an acknowledgement of nothing that was asked means nothing', () => {
    connect()
    for (const id of [77, 0, -1, 1.5, '1', null, '__proto__']) say({ result: null, id })
    expect(details('subscribed')).toEqual([])
    expect(logged()).toEqual([])
  })
})

describe('refusals', () => {
  const names = Array.from({ length: 32 }, (_, n) => `C${n}USDT`)
  const isBad = (stream: string) => stream.startsWith('c7usdt@depth') || stream.startsWith('c20usdt@')

  /** Answers as an exchange that refuses a whole message for one bad stream. */
  function judgeAll(code = 2): void {
    for (let at = answered.get('a') ?? 0; at < requests().length; at++) {
      answered.set('a', at + 1)
      const { params = [], id } = requests()[at]!
      const bad = params.find(isBad)
      say(bad === undefined ? { result: null, id } : { code, msg: `Invalid request: ${bad}`, id })
      // A long way: what waits for its turn must not count as overdue.
      driver.pass('a', 1500)
    }
  }

  it('one bad stream has no other one refused', () => {
    connect('spot', names)
    judgeAll()
    expect(driver.requests.hangups).toEqual([])
    const refused = driver.sink.statuses('refused').map(row => [row.instId, (row.detail as Row).channel])
    expect(refused.sort()).toEqual([
      ['C20USDT', 'book'],
      ['C20USDT', 'trades'],
      ['C7USDT', 'book']
    ])
    expect(details('refused', 'C7USDT')[0]).toMatchObject({
      final: true,
      code: 2,
      msg: 'Invalid request: c7usdt@depth@100ms'
    })
    expect(new Set(driver.sink.statuses('subscribed').map(row => row.instId)).size).toBe(30)
    for (const [n, symbol] of names.entries()) {
      event(95, 100, [], [], { symbol })
      if (n === 7 || n === 20) continue
      driver.pass('a', 1000)
      image(100, symbol)
    }
    expect(images().some(path => path.includes('C7USDT'))).toBe(false)
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('parts are asked for one after the other', () => {
    connect('spot', names)
    const { id } = requests()[0]!
    say({ code: 2, msg: 'x', id })
    expect(requests()).toHaveLength(2)
    driver.pass('a', 5000)
    expect(requests()).toHaveLength(2)
    say({ result: null, id: requests()[1]!.id })
    expect(requests()).toHaveLength(3)
    expect(
      new Set(
        requests()
          .slice(1)
          .flatMap(({ params }) => params)
      ).size
    ).toBe(64)
  })

  it('other answers in between ask for no other part', () => {
    connect(
      'spot',
      Array.from({ length: 150 }, (_, n) => `C${n}USDT`)
    )
    const [first, second] = requests()
    say({ code: 2, msg: 'x', id: first!.id })
    expect(requests()).toHaveLength(3)
    say({ code: 2, msg: 'x', id: second!.id })
    expect(requests()).toHaveLength(3)
    say({ result: null, id: requests()[2]!.id })
    expect(requests()).toHaveLength(4)
  })

  it.each([
    [{ code: -1, msg: 'Internal error' }, false],
    [{ error: { code: 2, msg: 'Invalid request' } }, true],
    [{ code: 'x', msg: 7 }, false]
  ])('%j, for good: %s', (error, final) => {
    driver = new Driver(binance)
    answered.clear()
    driver.open('a', ['BTCUSDT'], selectionOf('spot'), null, ['book'])
    say({ ...error, id: 1 })
    expect(details('refused')).toMatchObject([{ final, channel: 'book' }])
    wait(59)
    expect(sentBy('SUBSCRIBE')).toHaveLength(1)
    wait(3)
    expect(sentBy('SUBSCRIBE')).toHaveLength(final ? 1 : 2)
  })

  it('what already sends data is not refused', () => {
    connect()
    event(95, 100)
    say({ code: 2, msg: 'x', id: 1 })
    image(100)
    expect(driver.sink.statuses('refused').map(row => (row.detail as Row).channel)).toEqual(['trades'])
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it.each([{ id: null }, { id: 'x' }, {}])('an error of %j belongs to nothing', error => {
    say({ code: 3, msg: 'Invalid JSON: expected value at line 1 column 1', ...error })
    expect(details('refused')).toEqual([])
    expect(driver.requests.logs).toMatchObject([{ level: 'warn', facts: { code: 3 } }])
  })
})

describe('the recipe, spot', () => {
  beforeEach(() => {
    connect()
    answer()
  })

  it('step 1: the image is asked for with the first event', () => {
    wait(3)
    expect(images()).toEqual([])
    event(95, 98)
    event(99, 99)
    // Step 2.
    expect(driver.requests.fetches.map(({ request: { path, weight } }) => [path, weight])).toEqual([
      ['/api/v3/depth?symbol=BTCUSDT&limit=5000', 250]
    ])
    expect(updates()).toEqual([])
  })

  it('the worked example: 95-98 drops, 99-103 and 104 apply, 107 is a gap', () => {
    event(95, 98, bid('1'))
    event(99, 103, bid('97'), [['101.00000000', '0.00000000']])
    image(100)
    expect(updates()).toMatchObject([
      { event_type: 'clear' },
      {
        event_type: 'snapshot',
        seqId: 103,
        prevSeqId: 100,
        bids: [
          ['99.00000000', '1.50000000', '0', null],
          ['98.50000000', '2.00000000', '0', null],
          ['97', '1.00000000', '0', null]
        ],
        asks: [['102.00000000', '4.00000000', '0', null]]
      }
    ])
    event(104, 104, bid('97', '3'))
    expect(updates().at(-1)).toMatchObject({
      event_type: 'update',
      seqId: 104,
      prevSeqId: 103,
      bids: [['97', '3', '0', null]],
      asks: [],
      exchange_time: '2022-12-31T19:43:02.136Z'
    })
    event(107, 109)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 105, received: 107 }])
  })

  it('step 3: an image older than the first event is fetched again, however little older', () => {
    event(101, 103)
    image(99)
    expect(updates()).toEqual([])
    // Even the event that continues it: strictly older is too old.
    driver.pass('a', 1000)
    image(100)
    expect(updates()).toEqual([])
    wait(1)
    expect(images()).toHaveLength(3)
    image(101)
    expect(sequences()).toEqual([
      ['clear', null, null],
      ['snapshot', 103, 101]
    ])
  })

  it('step 4: events up to the image are dropped, the one that starts right behind it is kept', () => {
    event(95, 100, bid('1'))
    event(101, 102, bid('97'))
    image(100)
    expect(updates()[1]).toMatchObject({ seqId: 102, prevSeqId: 100 })
    expect((updates()[1]!.bids as unknown[]).length).toBe(3)
  })

  it('step 4: an image newer than all events is taken as it is', () => {
    event(95, 98, bid('1'))
    image(100)
    expect(updates()[1]).toMatchObject({ event_type: 'snapshot', seqId: 100, prevSeqId: null })
    event(99, 100, bid('2'))
    event(99, 101, bid('3'))
    expect(sequences().slice(2)).toEqual([['update', 101, 100]])
  })

  it('step 4: a hole behind the image makes it fetch another', () => {
    event(95, 98)
    event(102, 103)
    image(100)
    expect(updates()).toEqual([])
    expect(details('gap')).toEqual([])
    wait(1)
    image(102)
    expect(updates()[1]).toMatchObject({ seqId: 103, prevSeqId: 102 })
  })

  it('step 5: old events are ignored, those that overlap are applied', () => {
    event(95, 100)
    image(100)
    event(99, 100, bid('1'))
    event(98, 102, bid('2'))
    event(103, 103, bid('3'))
    event(103, 103, bid('4'))
    expect(sequences().slice(2)).toEqual([
      ['update', 102, 100],
      ['update', 103, 102]
    ])
    event(105, 105)
    expect(details('gap')).toMatchObject([{ expected: 104, received: 105 }])
  })
})

describe('the recipe, futures', () => {
  beforeEach(() => {
    connect('perp')
    answer()
  })

  it('asks at another address, whose budget is smaller', () => {
    event(95, 98)
    expect(driver.requests.fetches.map(({ request: { path, weight } }) => [path, weight])).toEqual([
      ['/fapi/v1/depth?symbol=BTCUSDT&limit=1000', 50]
    ])
    expect((2400 * 20) / 50).toBeLessThan(binance.limits.restWeightPerMinuteMax)
    expect(binance.limits.restWeightPerMinuteMax * (20 / 50)).toBeLessThanOrEqual(2400)
  })

  it('the first event that is applied contains the number of the image', () => {
    event(90, 95, bid('1'))
    event(97, 103, bid('97'), [], { link: 95 })
    image(100)
    expect(updates()[1]).toMatchObject({ event_type: 'snapshot', market: 'perp', seqId: 103, prevSeqId: 95 })
    expect((updates()[1]!.bids as unknown[]).length).toBe(3)
    // Then `pu` counts, and `U` does not.
    event(150, 160, bid('96'), [], { link: 103 })
    expect(updates().at(-1)).toMatchObject({
      event_type: 'update',
      seqId: 160,
      prevSeqId: 103,
      exchange_time: '2022-12-31T19:43:02.130Z'
    })
    event(161, 170, [], [], { link: 159 })
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 160, received: 159 }])
  })

  it('an event that ends with the image is the first one, not an old one', () => {
    event(95, 100, bid('97'))
    image(100)
    expect(updates()[1]).toMatchObject({ seqId: 100, prevSeqId: 94 })
    event(105, 110, [], [], { link: 100 })
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', seqId: 110, prevSeqId: 100 })
  })

  it('an image newer than all events is taken; the next event must contain it', () => {
    event(90, 95)
    image(100)
    expect(updates()[1]).toMatchObject({ seqId: 100, prevSeqId: null })
    event(96, 99, bid('1'), [], { link: 95 })
    event(99, 104, bid('2'), [], { link: 99 })
    event(105, 106, bid('3'), [], { link: 104 })
    expect(sequences().slice(2)).toEqual([
      ['update', 104, 99],
      ['update', 106, 104]
    ])
  })

  it('an event behind the image that does not contain it is a gap', () => {
    event(90, 95)
    image(100)
    event(101, 104, [], [], { link: 100 })
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 100, received: 101 }])
  })

  it('an image before the first event, or with a hole behind it, is fetched again', () => {
    event(101, 105)
    image(100)
    expect(updates()).toEqual([])
    wait(1)
    event(120, 130, [], [], { link: 119 })
    image(103)
    expect(updates()).toEqual([])
    wait(2)
    image(125)
    expect(updates()[1]).toMatchObject({ seqId: 130, prevSeqId: 119 })
  })

  it('the same event twice is applied once', () => {
    event(95, 100)
    image(100)
    event(101, 105, bid('97'), [], { link: 100 })
    event(101, 105, bid('97'), [], { link: 100 })
    event(95, 100)
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it('an event without `pu` cannot be read', () => {
    event(95, 100)
    image(100)
    driver.in('a', depth(101, 105).replace(/"pu":\d+,/, ''))
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
  })
})

describe('gaps', () => {
  it('concern one instrument, ask once for an image, and heal without a new subscription', () => {
    goLive('spot', ['BTCUSDT', 'ETHUSDT'])
    wait(61)
    const before = images().length
    event(102, 103, bid('97'))
    event(104, 104, bid('96'))
    event(110, 111, bid('95'))
    event(101, 101, bid('97.5'), [], { symbol: 'ETHUSDT' })
    expect(driver.sink.statuses('gap').map(row => row.instId)).toEqual(['BTCUSDT'])
    expect(types('ETHUSDT').at(-1)).toBe('update')
    expect(images()).toHaveLength(before + 1)
    expect(sentBy('UNSUBSCRIBE')).toEqual([])
    expect(details('resubscribed')).toEqual([{ conn: 'a', reason: 'sequence', attempt: 1 }])
    expect(logged()).toEqual(['GAP DETECTED', 'Forced resubscribe'])
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, seqId: 100, best_bid: '99.00000000' })
    // A book without a number that the events continue: 104 to 110 is missing, too.
    image(103)
    expect(types().at(-1)).toBe('gap')
    wait(1)
    image(111, 'BTCUSDT', 200, book(111, bid('94'), []))
    expect(updates().at(-1)).toMatchObject({
      event_type: 'snapshot',
      seqId: 111,
      bids: [['94', '1.00000000', '0', null]]
    })
    expect(details('synced', 'BTCUSDT').at(-1)).toMatchObject({ down_ms: expect.any(Number) })
    expect(details('gap')).toHaveLength(1)
    event(112, 112)
    expect(types().at(-1)).toBe('update')
  })

  it('the event that revealed the gap is the first one of the new book', () => {
    wait(61)
    event(105, 107, bid('97'))
    image(106)
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 107, prevSeqId: 106 })
    expect(updates().at(-1)!.bids).toContainEqual(['97', '1.00000000', '0', null])
  })

  it('a book that is lost again soon waits before it asks', () => {
    event(102, 103)
    expect(images()).toHaveLength(1)
    wait(2)
    expect(images()).toHaveLength(2)
    expect(details('resubscribed')).toMatchObject([{ attempt: 2 }])
  })

  it('two events in the wrong order are one gap', () => {
    event(102, 102)
    event(101, 101)
    event(103, 103)
    expect(details('gap')).toHaveLength(1)
    wait(1)
    image(102)
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 103, prevSeqId: 102 })
  })

  it('numbers that start anew are noticed, a stream that lags behind is not taken for that', () => {
    for (let n = 0; n < 600; n++) event(50, 60)
    expect(details('gap')).toEqual([])
    event(50, 60)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 101, received: 50 }])
    wait(1)
    image(61)
    event(61, 62)
    expect(types().at(-1)).toBe('update')
    goLive()
    for (let n = 0; n < 1300; n++) {
      event(50, 60)
      if (n % 500 === 499) event(101 + Math.floor(n / 500), 101 + Math.floor(n / 500))
    }
    expect(details('gap')).toEqual([])
  })

  it('frames that could not be kept are a gap, which an image heals', () => {
    wait(61)
    driver.us += 1000
    driver.engine.skip(driver.us, 'a', 9000, 5)
    const ofBook = details('gap').filter(({ channel }) => channel !== 'trades')
    expect(ofBook).toMatchObject([{ reason: 'overload', received: 5 }])
    expect(images()).toHaveLength(2)
    image(120)
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 120 })
    event(121, 125, bid('97'))
    expect(sequences().at(-1)).toEqual(['update', 125, 120])
    // An image that is older than what was lost does not stand for long.
    driver.engine.skip(driver.us, 'a', 9000, 5)
    wait(2)
    image(127)
    event(131, 132)
    expect(details('gap').at(-1)).toMatchObject({ reason: 'sequence', expected: 128, received: 131 })
  })

  it('a crossed book is asked for anew', () => {
    event(101, 101, bid('101.50000000'))
    for (let second = 0; second < 8; second++) driver.pass('a', 1000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    event(102, 102)
    image(102)
    expect(types().at(-1)).toBe('snapshot')
  })

  it('a book deeper than an image is not wrong', () => {
    const many = Array.from({ length: 6000 }, (_, n): LevelText => [(50 - n / 1000).toFixed(3), '1'])
    event(101, 101, many)
    for (let second = 0; second < 10; second++) driver.pass('a', 1000)
    expect(details('gap')).toEqual([])
  })
})

describe('images', () => {
  beforeEach(() => {
    connect()
    answer()
    event(95, 98)
  })

  it.each([
    [500, {}],
    [500, book(100)],
    [429, { code: -1003, msg: 'Too much request weight used' }],
    [418, { code: -1003, msg: 'banned' }],
    [0, undefined],
    [200, null],
    [200, []],
    [200, { lastUpdateId: 100 }],
    [200, { lastUpdateId: '100', bids: [], asks: [] }],
    [200, { lastUpdateId: 1e300, bids: [], asks: [] }],
    [
      200,
      {
        lastUpdateId: 100,
        bids: [
          ['1', '2'],
          ['x', '1']
        ],
        asks: []
      }
    ],
    [200, { lastUpdateId: 100, bids: [['1', '2']], asks: [['3', '-1']] }],
    [200, { lastUpdateId: 100, bids: [[1, 2]], asks: [] }]
  ])('status %i with %j is asked for again', (status, value) => {
    image(100, 'BTCUSDT', status, value)
    expect(updates()).toEqual([])
    expect(logged()).toEqual(['Image not to be had'])
    wait(1)
    expect(images()).toHaveLength(2)
    image(100)
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it('again and again it waits longer', () => {
    const times: number[] = []
    for (let n = 0; n < 9; n++) {
      const count = images().length
      image(0, 'BTCUSDT', 500, {})
      const from = driver.us
      while (images().length === count) wait(1)
      times.push(Math.round((driver.us - from) / 1e6))
      event(99 + n, 99 + n)
    }
    expect(times).toEqual([1, 1, 2, 4, 8, 16, 32, 60, 60])
  })

  it('an answer may take as long as the budget lets it wait', () => {
    waitWith(3590, 'ETHUSDT')
    expect(images()).toHaveLength(1)
    image(100)
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it('at most four are under way, so that none waits for the budget in vain', () => {
    const names = Array.from({ length: 10 }, (_, n) => `C${n}USDT`)
    connect('spot', names)
    answer()
    for (const symbol of names) event(95, 98, [], [], { symbol })
    expect(images()).toHaveLength(4)
    wait(20)
    expect(images()).toHaveLength(4)
    for (let n = 0; n < 10; n++) {
      image(100, names[n]!)
      wait(1)
    }
    expect(images()).toHaveLength(10)
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('of an image that is not asked for yet only few frames wait', () => {
    const names = Array.from({ length: 5 }, (_, n) => `C${n}USDT`)
    connect('spot', names)
    answer()
    for (let n = 1; n <= 1000; n++) for (const symbol of names) event(n, n, [], [], { symbol })
    const { list } = (driver.engine.connectionState('a').session as { images: { list: { backlog: string[] }[] } })
      .images
    expect(list.map(({ backlog }) => backlog.length > 50)).toEqual([true, true, true, true, false])
    image(1000, 'C0USDT')
    wait(1)
    // Older than what is left of the frames, though newer than the first that came.
    image(900, 'C4USDT')
    expect(updates('C4USDT')).toEqual([])
    wait(2)
    image(1000, 'C4USDT')
    expect(types('C4USDT')).toEqual(['clear', 'snapshot'])
  })

  it('a subscription that is renewed has no use for the image under way', () => {
    goLive('spot')
    event(105, 106)
    driver.pass('a', 2000)
    expect(images()).toHaveLength(2)
    const { request } = driver.requests.fetches.at(-1)!
    driver.pass('a', 29_000)
    say({ result: [], id: sentBy('LIST_SUBSCRIPTIONS')[0]!.id })
    expect(sentBy('SUBSCRIBE')).toHaveLength(2)
    driver.fetched('a', 200, book(106), request.id)
    expect(types().at(-1)).toBe('gap')
    answer()
    driver.fetched('a', 200, book(106), request.id)
    expect(types().at(-1)).toBe('gap')
    event(120, 121)
    image(121)
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 121 })
  })

  it('levels of no size are no levels', () => {
    image(
      100,
      'BTCUSDT',
      200,
      book(
        100,
        [
          ['99', '1'],
          ['98', '0.00000000']
        ],
        []
      )
    )
    expect(updates().at(-1)).toMatchObject({ bids: [['99', '1', '0', null]], asks: [] })
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '99', best_ask: null, mid_price: null })
  })
})

describe('levels', () => {
  it('zero removes, in every way a zero is written; what is not there is removed for nothing', () => {
    event(
      101,
      101,
      [
        ['99.00000000', '0.00000000'],
        ['42.00000000', '0.00000000']
      ],
      [['101.00000000', '0']]
    )
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({
      bids_top400: [['98.50000000', '2.00000000', '0', null]],
      asks_top400: [['102.00000000', '4.00000000', '0', null]],
      seqId: 101,
      prevSeqId: 100,
      checksum: null
    })
    expect(updates().at(-1)).toMatchObject({
      bids: [
        ['99.00000000', '0.00000000', '0', null],
        ['42.00000000', '0.00000000', '0', null]
      ],
      asks: [['101.00000000', '0', '0', null]]
    })
  })

  it.each([
    ['61837.63000000', '1523456789.00000000'],
    ['0.00000637', '12345678901.12345678'],
    ['1600000000.00000000', '0.00000001'],
    ['1e-7', '5E2'],
    ['99.0', '1.123456789012345678']
  ])('%s and %s are written as sent', (price, size) => {
    event(101, 101, [[price, size]])
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [[price, size, '0', null]] })
    driver.pass('a', 2000)
    expect(shots().at(-1)!.bids_top400).toContainEqual([price, size, '0', null])
  })

  it('many levels in one event', () => {
    const many = Array.from({ length: 500 }, (_, n): LevelText => [`${(90 - n / 100).toFixed(8)}`, `${n + 1}.00000000`])
    event(101, 101, many, [])
    expect(updates().at(-1)!.bids).toEqual(many.map(([price, size]) => [price, size, '0', null]))
    event(102, 102, bid('97'))
    expect(updates().at(-1)!.bids).toEqual([['97', '1.00000000', '0', null]])
  })
})

describe('frames of another form', () => {
  const base = () => depth(101, 102, [['97.5', '1e-7']], [['103', '0.5']])
  const stream = 'btcusdt@depth@100ms'

  it.each([
    ['combined', (text: string) => wrapped(stream, text), 'msg'],
    ['combined, the slow stream', (text: string) => wrapped('btcusdt@depth', text), 'msg'],
    ['combined, a pace of later', (text: string) => wrapped('btcusdt@depth@20ms', text), 'msg'],
    [
      'combined with white space',
      (text: string) => JSON.stringify(JSON.parse(wrapped(stream, text)), null, 1).replaceAll('\n', ' '),
      'msg'
    ],
    ['combined the other way round', (text: string) => `{"data":${text},"stream":"${stream}"}`, 'msg'],
    ['white space', (text: string) => JSON.stringify(JSON.parse(text), null, 1).replaceAll('\n', ' '), 'msg'],
    ['line breaks', (text: string) => JSON.stringify(JSON.parse(text), null, 1), 'text'],
    ['other fields', (text: string) => text.replace('"U"', '"new":{"a":[1]},"U"'), 'msg'],
    ['another order', (text: string) => text.replace(/^\{("e":"depthUpdate"),(.*)\}$/, '{$2,$1}'), 'msg'],
    ['a third cell', (text: string) => text.replaceAll('"]', '",[]]'), 'msg'],
    ['levels first', (text: string) => text.replace(/("U":.*?)("b":.*)\}$/, '$2,$1').replace(/,$/, '}'), 'msg']
  ])('%s: the same record', (_, change, form) => {
    const text = change(base())
    expect(text).not.toBe(base())
    expect(driver.in('a', text)).toBe(form)
    expect(updates().at(-1)).toMatchObject({
      event_type: 'update',
      bids: [['97.5', '1e-7', '0', null]],
      asks: [['103', '0.5', '0', null]],
      seqId: 102,
      prevSeqId: 100,
      exchange_time: '2022-12-31T19:43:02.136Z'
    })
    event(103, 103)
    expect(types().at(-1)).toBe('update')
  })

  it('what came in another form waits for the image like the rest', () => {
    connect()
    answer()
    driver.in('a', wrapped(stream, depth(95, 98)))
    driver.in('a', JSON.stringify(JSON.parse(wrapped('btcusdt@depth@20ms', depth(99, 103, bid('97')))), null, 1))
    driver.in('a', JSON.stringify(JSON.parse(depth(104, 104, bid('96'))), null, 1))
    image(100)
    expect(updates()[1]).toMatchObject({ event_type: 'snapshot', seqId: 104, prevSeqId: 103 })
    expect((updates()[1]!.bids as unknown[]).length).toBe(4)
  })

  it('times in microseconds', () => {
    driver.in('a', base().replace('1672515782136', '1672515782136789'))
    expect(updates().at(-1)).toMatchObject({ exchange_time: '2022-12-31T19:43:02.136789Z' })
  })

  it.each([
    ['no bids', (text: string) => text.replace('"b"', '"bb"')],
    ['no asks at all', (text: string) => text.replace(/,"a":.*\]\]/, '')],
    ['a size of too many digits', (text: string) => text.replace('"0.5"', '"12345678901234"')],
    ['a size too fine', (text: string) => text.replace('"0.5"', '"0.1234567890123456789"')],
    ['a size without end', (text: string) => text.replace('"0.5"', '"5."')],
    ['no numbers', (text: string) => text.replace(/"U":\d+,/, '')],
    ['numbers as text', (text: string) => text.replace(/"u":(\d+)/, '"u":"$1"')],
    ['a fractional number', (text: string) => text.replace(/"u":(\d+)/, '"u":$1.5')],
    ['a huge number', (text: string) => text.replace(/"u":(\d+)/, '"u":1e30')],
    ['the last before the first', (text: string) => text.replace(/"u":(\d+)/, '"u":7')],
    ['a negative number', (text: string) => text.replace(/"U":(\d+)/, '"U":-5')],
    ['levels that are none', (text: string) => text.replace('[["103","0.5"]]', '[null]')],
    ['a negative size', (text: string) => text.replace('"0.5"', '"-0.5"')],
    ['a size that is no number', (text: string) => text.replace('"0.5"', '""')],
    ['a price of too many digits', (text: string) => text.replace('"103"', '"1234567.8901234567"')],
    ['numbers instead of text', (text: string) => text.replace('"103"', '103')],
    ['a level without a size', (text: string) => text.replace(',"0.5"', '')],
    ['the bids are null', (text: string) => text.replace(/"b":\[\[.*?\]\]/, '"b":null')]
  ])('%s: kept, a gap, and nothing of it applied', (_, change) => {
    // Both readers must find it: the one of the usual form, which the price with an exponent keeps off, and the other.
    for (const price of ['97.5', '975e-1']) {
      goLive()
      refuseMalformed(change, base().replace('97.5', price).replace('1e-7', '0.2'))
      goLive()
      refuseMalformed(text => wrapped(stream, change(text)), base().replace('97.5', price).replace('1e-7', '0.2'))
    }
  })

  function refuseMalformed(change: (text: string) => string, good: string): void {
    const text = change(good)
    expect(text).not.toBe(good)
    driver.in('a', text)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(types()).toEqual(['clear', 'snapshot', 'gap'])
    expect(logged()[0]).toBe('BUILD_FAIL: Missing required fields')
    event(103, 104)
    wait(1)
    image(104)
    expect(types().at(-1)).toBe('snapshot')
  }

  it('another symbol of ours in the stream of one', () => {
    goLive('spot', ['BTCUSDT', 'ETHUSDT'])
    driver.in('a', wrapped(stream, depth(101, 101, bid('97'), [], { symbol: 'ETHUSDT' })))
    expect(driver.sink.statuses('gap').map(row => row.instId)).toEqual(['BTCUSDT'])
    expect(types('ETHUSDT')).toEqual(['clear', 'snapshot'])
  })

  it.each([
    ['another symbol in our stream', () => wrapped(stream, depth(101, 101, [], [], { symbol: 'ETHUSDT' }))],
    ['nothing in our stream', () => wrapped(stream, 'null')],
    ['a trade in our stream', () => wrapped(stream, '{"e":"trade","s":"BTCUSDT"}')]
  ])('%s is ours, and wrong', (_, text) => {
    driver.in('a', text())
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
  })

  it.each([
    wrapped(
      'btcusdt@bookTicker',
      '{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.7","a":"61837.64","A":"1"}'
    ),
    '{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}',
    '{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}',
    wrapped('btcusdt@depth20', '{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":900,"pu":5,"b":[],"a":[]}'),
    wrapped('btcusdt@rpiDepth@500ms', '{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":900,"pu":5,"b":[],"a":[]}'),
    wrapped(
      'btcusdt@aggTrade',
      '{"e":"aggTrade","E":1,"s":"BTCUSDT","a":5,"p":"1","q":"1","f":1,"l":2,"T":1,"m":true}'
    ),
    wrapped('ethusdt@depth@100ms', '{"e":"depthUpdate","E":1,"s":"ETHUSDT","U":1,"u":900,"b":[],"a":[]}'),
    wrapped('!ticker@arr', '[{"e":"24hrTicker","s":"BTCUSDT"}]'),
    '{"e":"depthUpdate","E":1,"s":"__proto__","U":1,"u":2,"b":[],"a":[]}',
    '{"e":"depthUpdate","E":1,"s":["BTCUSDT"],"U":1,"u":2,"b":[],"a":[]}',
    '{"e":["depthUpdate"],"s":"BTCUSDT"}',
    '{"stream":"constructor@trade","data":{}}',
    '{"stream":7,"data":{}}',
    '{}'
  ])('%s concerns nobody', text => {
    driver.in('a', text)
    expect(details('gap')).toEqual([])
    expect(logged()).toEqual([])
    event(101, 101)
    expect(sequences().slice(1)).toEqual([
      ['snapshot', 100, null],
      ['update', 101, 100]
    ])
    expect(trades()).toEqual([])
  })

  it.each(['x', '}', ' {}', '\n{'])('an event with %j behind it is none', end => {
    expect(driver.in('a', depth(101, 101) + end)).toBe('text')
    expect(logged()).toEqual(['Unreadable frame kept'])
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it.each(['not JSON', '{"e":"depthUpdate"', '[]', 'null', '7', '['.repeat(200)])('%s is kept, and told', text => {
    driver.in('a', text)
    expect(logged()).toEqual(['Unreadable frame kept'])
    expect(details('gap')).toEqual([])
  })
})

/** A `trade` event. */
function trade(id: number, extra: Row = {}, symbol = 'BTCUSDT'): Row {
  const common = {
    e: 'trade',
    E: 1672515782137,
    s: symbol,
    t: id,
    p: '0.00100000',
    q: '100.00000000',
    T: 1672515782136,
    m: true
  }
  return { ...common, ...(market === 'spot' ? { M: true } : { X: 'MARKET' }), ...extra }
}
const history = (...ids: number[]) =>
  ids.map(id => ({
    id,
    price: '0.5',
    qty: '2',
    quoteQty: '1',
    time: 1672515782000,
    isBuyerMaker: id % 2 === 0,
    isBestMatch: true
  }))
const histories = () => driver.fetches('a').filter(path => path.includes('rades?'))
const tradeGaps = () => details('gap').filter(({ channel }) => channel === 'trades')

describe('trades, spot', () => {
  it('are written once; `m` says that the taker sold', () => {
    say(trade(12345))
    say(trade(12345))
    driver.in('a', wrapped('btcusdt@trade', JSON.stringify(trade(12346, { m: false, p: '1e-7' }))))
    expect(driver.sink.records('trades')).toMatchObject([
      {
        channel: 'trades',
        trade_id: '12345',
        side: 'sell',
        price: '0.00100000',
        size: '100.00000000',
        exchange_time: '2022-12-31T19:43:02.136Z',
        metadata: {}
      },
      { trade_id: '12346', side: 'buy', price: '1e-7' }
    ])
    expect(histories()).toEqual([])
  })

  it('missing ids are filled from the history, and marked', () => {
    say(trade(10))
    say(trade(14))
    const { request } = driver.requests.fetches.at(-1)!
    expect([request.path, request.weight]).toEqual(['/api/v3/historicalTrades?symbol=BTCUSDT&fromId=11&limit=1000', 25])
    driver.fetched('a', 200, history(11, 12, 13, 14, 15))
    say(trade(15))
    expect(trades()).toEqual(['10', '14', '11', '12', '13', '15'])
    expect(driver.sink.records('trades')[2]).toMatchObject({
      side: 'buy',
      price: '0.5',
      size: '2',
      exchange_time: '2022-12-31T19:43:02.000Z',
      metadata: { backfill: true }
    })
    expect(tradeGaps()).toEqual([])
    expect(histories()).toHaveLength(1)
  })

  it('a history the other way round', () => {
    say(trade(10))
    say(trade(14))
    driver.fetched('a', 200, history(13, 12, 11))
    expect(trades()).toEqual(['10', '14', '11', '12', '13'])
    expect(tradeGaps()).toEqual([])
  })

  it('also what passed between two connections', () => {
    say(trade(10))
    driver.close('a', 'lost', 1006)
    driver.open('a', ['BTCUSDT'], selectionOf('spot'))
    answered.clear()
    say(trade(12))
    driver.fetched('a', 200, history(11))
    expect(trades()).toEqual(['10', '12', '11'])
  })

  it.each([
    [500, {}],
    [200, { code: -1 }],
    [200, [{ id: 11 }]],
    [0, undefined]
  ])('a history that cannot be had (%i, %j) is asked for five times, and told', (status, value) => {
    say(trade(10))
    say(trade(12))
    for (let n = 0; n < 5; n++) {
      driver.fetched('a', status, value)
      wait(3)
    }
    expect(histories()).toHaveLength(5)
    expect(tradeGaps()).toMatchObject([{ expected: 11, received: 12 }])
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it.each([
    { m: 1 },
    { p: '-1' },
    { q: 5 },
    { t: '12' },
    { t: -1 },
    { t: 1.5 },
    { t: 1e300 },
    { p: null },
    { s: 'ETHUSDT' }
  ])('that cannot be read do not cost the book: %j', extra => {
    driver.in('a', wrapped('btcusdt@trade', JSON.stringify(trade(12, extra))))
    expect(trades()).toEqual([])
    expect(logged()).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([])
  })

  it('may be silent for ever, and are not captured when nobody wants them', () => {
    driver = new Driver(binance)
    answered.clear()
    driver.open('a', ['BTCUSDT'], selectionOf('spot'), null, ['book'])
    say(trade(1))
    expect(trades()).toEqual([])
    expect(logged()).toEqual([])
  })
})

describe('trades, futures', () => {
  beforeEach(() => goLive('perp'))

  it('keep what the market traded; the others have their places in the chain', () => {
    say(trade(10))
    say(trade(11, { X: 'INSURANCE_FUND', p: '99' }))
    say(trade(12, { X: 'NA', p: '0', q: '0' }))
    say(trade(13, { p: '0', q: '0.000' }))
    say(trade(14, { X: undefined }))
    say(trade(15))
    expect(trades()).toEqual(['10', '14', '15'])
    expect(histories()).toEqual([])
    expect(tradeGaps()).toEqual([])
    expect(logged()).toEqual([])
  })

  it('a hole behind one that is no trade is found', () => {
    say(trade(10))
    say(trade(11, { X: 'NA' }))
    say(trade(13))
    const { request } = driver.requests.fetches.at(-1)!
    expect([request.path, request.weight]).toEqual(['/fapi/v1/trades?symbol=BTCUSDT&limit=1000', 13])
    driver.fetched('a', 200, history(9, 10, 12, 13))
    expect(trades()).toEqual(['10', '13', '12'])
    expect(tradeGaps()).toEqual([])
  })

  it('a hole that one of no trade reveals is filled, and what the history leaves out between its trades is none', () => {
    say(trade(10))
    say(trade(16, { X: 'NA' }))
    expect(histories()).toHaveLength(1)
    // 11, 13 and 15 were no trades.
    driver.fetched('a', 200, history(8, 10, 12, 14, 17))
    expect(trades()).toEqual(['10', '12', '14'])
    say(trade(17))
    expect(histories()).toHaveLength(1)
    expect(tradeGaps()).toEqual([])
  })

  it('what lies before the newest thousand is told', () => {
    say(trade(10))
    say(trade(20))
    driver.fetched('a', 200, history(15, 18, 20, 21))
    expect(trades()).toEqual(['10', '20', '15', '18'])
    expect(tradeGaps()).toMatchObject([{ expected: 11, received: 15, why: 'not in the history' }])
    expect(histories()).toHaveLength(1)
    say(trade(21))
    say(trade(30))
    driver.fetched('a', 200, history(40, 41))
    expect(tradeGaps()).toMatchObject([{ expected: 11 }, { expected: 22, received: 30 }])
    expect(histories()).toHaveLength(2)
  })

  it('a history that lags behind is asked for again', () => {
    say(trade(10))
    say(trade(13))
    driver.fetched('a', 200, history(9, 10, 11))
    expect(histories()).toHaveLength(2)
    driver.fetched('a', 200, history(9, 10, 11))
    expect(histories()).toHaveLength(2)
    wait(3)
    driver.fetched('a', 200, history(10, 11, 12, 13))
    expect(trades()).toEqual(['10', '13', '11', '12'])
    expect(tradeGaps()).toEqual([])
  })
})

describe('quiet', () => {
  it('after 30 s the list of streams is asked for; the answer is life enough', () => {
    wait(29)
    expect(sentBy('LIST_SUBSCRIPTIONS')).toEqual([])
    wait(2)
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(1)
    wait(100)
    expect(driver.requests.hangups).toEqual([])
    expect(sentBy('LIST_SUBSCRIPTIONS').length).toBeGreaterThan(2)
    expect(details('gap')).toEqual([])
  })

  it('no answer ends the connection', () => {
    driver.pass('a', 31_000)
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(1)
    driver.pass('a', 9000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 3000)
    expect(driver.requests.hangups[0]?.reason).toContain('ping')
  })

  it('a stream that is not in the list is subscribed again, the book as a gap', () => {
    goLive('spot', ['BTCUSDT', 'ETHUSDT'])
    driver.pass('a', 32_000)
    const { id } = sentBy('LIST_SUBSCRIPTIONS')[0]!
    say({ result: ['ethusdt@depth@100ms', 'ethusdt@trade', 'other@trade', 7, null], id })
    expect(
      sentBy('SUBSCRIBE')
        .map(({ params }) => params)
        .slice(1)
    ).toEqual([['btcusdt@depth@100ms', 'btcusdt@trade']])
    expect(driver.sink.statuses('gap').map(row => [row.instId, (row.detail as Row).reason])).toEqual([
      ['BTCUSDT', 'unsubscribed']
    ])
    answer()
    event(200, 201)
    image(201)
    expect(types().at(-1)).toBe('snapshot')
  })

  it('what was asked for after the question cannot be in the answer', () => {
    goLive('spot', ['BTCUSDT'], { silenceMs: 25_000 })
    driver.pass('a', 26_000)
    probed(200)
    driver.pass('a', 5000)
    const { id } = sentBy('LIST_SUBSCRIPTIONS')[0]!
    driver.pass('a', 6000)
    expect(sentBy('UNSUBSCRIBE')).toHaveLength(1)
    say({ result: null, id: sentBy('UNSUBSCRIBE')[0]!.id })
    say({ result: null, id: sentBy('SUBSCRIBE').at(-1)!.id })
    const before = requests().length
    say({ result: ['btcusdt@trade'], id })
    expect(requests()).toHaveLength(before)
  })

  it('an image under way is of no use to a book that is not subscribed', () => {
    for (let n = 0; n < 4; n++) {
      event(200, 201)
      driver.pass('a', 31_000)
      say({ result: ['btcusdt@trade'], id: sentBy('LIST_SUBSCRIPTIONS').at(-1)!.id })
      if (n < 3) say({ result: null, id: sentBy('SUBSCRIBE').at(-1)!.id })
    }
    // The fourth time it waits before it is asked for again.
    expect(sentBy('SUBSCRIBE')).toHaveLength(4)
    image(201)
    expect(types().at(-1)).toBe('gap')
    driver.pass('a', 3000)
    expect(sentBy('SUBSCRIBE')).toHaveLength(5)
  })

  it.each([null, {}, 'x'])('an answer %j to the question changes nothing', result => {
    driver.pass('a', 31_000)
    say({ result, id: sentBy('LIST_SUBSCRIPTIONS')[0]!.id })
    expect(details('gap')).toEqual([])
    expect(sentBy('SUBSCRIBE')).toHaveLength(1)
  })

  it('a busy connection is asked for its list, too, and streams of trades that are not in it are subscribed again', () => {
    say(trade(1))
    waitWith(119, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toEqual([])
    for (let second = 0; second < 2; second++) {
      driver.pass('a', 1000)
      event(99, 100)
    }
    say({ result: ['btcusdt@depth@100ms'], id: sentBy('LIST_SUBSCRIPTIONS')[0]!.id })
    expect(sentBy('SUBSCRIBE').at(-1)!.params).toEqual(['btcusdt@trade'])
    expect(details('gap')).toEqual([])
    answered.set('a', requests().length - 1)
    answer()
    say(trade(2))
    waitWith(117, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(1)
    waitWith(4, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(2)
  })

  it('a stream without a first event within a minute: the list is asked for, once', () => {
    goLive('spot', ['BTCUSDT', 'NONEUSDT'])
    say(trade(1))
    waitWith(59, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toEqual([])
    waitWith(3, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(1)
    waitWith(115, 'BTCUSDT')
    expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(1)
    // What is listed is left alone.
    expect(sentBy('SUBSCRIBE')).toHaveLength(1)
    expect(sentBy('UNSUBSCRIBE')).toEqual([])
    expect(driver.sink.statuses('resubscribed')).toEqual([])
  })

  it('a stream that is acknowledged and not listed is subscribed again and again', () => {
    connect('spot', ['BTCUSDT', 'VOIDUSDT'])
    answer()
    const list = () => {
      const { id } = sentBy('LIST_SUBSCRIPTIONS').at(-1)!
      answered.set('a', requests().length)
      say({ result: ['btcusdt@depth@100ms', 'btcusdt@trade'], id })
    }
    for (let n = 1; n <= 3; n++) {
      for (let second = 0; second < 62; second++) {
        driver.pass('a', 1000)
        event(99, 100)
      }
      expect(sentBy('LIST_SUBSCRIPTIONS')).toHaveLength(n)
      list()
      expect(sentBy('SUBSCRIBE').at(-1)!.params).toEqual(['voidusdt@depth@100ms', 'voidusdt@trade'])
      expect(sentBy('SUBSCRIBE')).toHaveLength(n + 1)
      answer()
    }
    expect(logged()).toContain('Subscription missing')
    expect(driver.requests.hangups).toEqual([])
  })
})

describe('a book that says nothing', () => {
  it.each(['spot', 'perp'] as const)('%s: its image is asked for after 5 s, and makes it live', of => {
    connect(of)
    answer()
    wait(4)
    expect(images()).toEqual([])
    wait(2)
    expect(images()).toHaveLength(1)
    wait(20)
    expect(images()).toHaveLength(1)
    image(100)
    expect(sequences()).toEqual([
      ['clear', null, null],
      ['snapshot', 100, null]
    ])
    expect(driver.requests.settledNames).toEqual(['a'])
    wait(250)
    expect(images()).toHaveLength(1)
    expect(driver.sink.statuses('resubscribed')).toEqual([])
    // The first event continues it.
    if (of === 'spot') event(101, 103, bid('97'))
    else event(99, 103, bid('97'), [], { link: 98 })
    expect(sequences().at(-1)).toEqual(['update', 103, of === 'spot' ? 100 : 98])
    expect(details('gap')).toEqual([])
  })

  it.each(['spot', 'perp'] as const)('%s: a first event that does not continue the image is a gap', of => {
    connect(of)
    answer()
    wait(6)
    image(100)
    event(102, 103, [], [], { link: 101 })
    expect(details('gap')).toMatchObject([{ reason: 'sequence', received: 102 }])
    wait(1)
    image(103)
    expect(types().at(-1)).toBe('snapshot')
  })

  it('an event that comes before the answer counts as ever', () => {
    connect()
    answer()
    wait(6)
    event(101, 102)
    image(99)
    expect(updates()).toEqual([])
    wait(1)
    image(101)
    expect(updates()[1]).toMatchObject({ event_type: 'snapshot', seqId: 102, prevSeqId: 101 })
  })

  it('an image that is not to be had is asked for again', () => {
    connect()
    answer()
    wait(6)
    image(100, 'BTCUSDT', 500, {})
    expect(updates()).toEqual([])
    wait(1)
    image(100)
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it.each([
    ['spot', '/api/v3/depth?symbol=BTCUSDT&limit=5', 5],
    ['perp', '/fapi/v1/depth?symbol=BTCUSDT&limit=5', 5]
  ] as const)('%s: a quiet one is left alone, and asked about every five minutes', (of, path, weight) => {
    goLive(of)
    wait(299)
    expect(probes()).toEqual([])
    wait(3)
    expect(probes()).toEqual([path])
    expect(driver.requests.fetches.at(-1)!.request.weight).toBe(weight)
    wait(20)
    expect(probes()).toHaveLength(1)
    const lines = driver.sink.lines.filter(({ feed }) => feed === 'l2_updates' || feed === 'status').length
    probed(100)
    wait(299)
    expect(probes()).toHaveLength(1)
    wait(3)
    expect(probes()).toHaveLength(2)
    probed(99)
    wait(20)
    expect(driver.sink.lines.filter(({ feed }) => feed === 'l2_updates' || feed === 'status')).toHaveLength(lines)
    expect(sentBy('UNSUBSCRIBE')).toEqual([])
  })

  it('a mute one is subscribed anew, once, though others speak', () => {
    goLive('spot', ['BTCUSDT', 'ETHUSDT'])
    waitWith(302, 'ETHUSDT')
    expect(probes()).toHaveLength(1)
    probed(101)
    waitWith(9, 'ETHUSDT')
    expect(details('stalled')).toEqual([])
    waitWith(3, 'ETHUSDT')
    expect(driver.sink.statuses('stalled').map(row => row.instId)).toEqual(['BTCUSDT'])
    expect(details('stalled')).toMatchObject([{ channel: 'book', silent_ms: expect.any(Number) }])
    expect(details('stalled')[0]!.silent_ms).toBeGreaterThan(310_000)
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(sentBy('UNSUBSCRIBE').map(({ params }) => params)).toEqual([['btcusdt@depth@100ms']])
    expect(sentBy('SUBSCRIBE')).toHaveLength(2)
    event(300, 301)
    image(301)
    expect(details('synced', 'BTCUSDT')).toHaveLength(2)
    waitWith(100, 'ETHUSDT')
    expect(details('stalled')).toHaveLength(1)
  })

  it('one whose stream was only behind is left alone', () => {
    wait(302)
    probed(103)
    wait(5)
    event(101, 102)
    wait(3)
    event(103, 104)
    wait(20)
    expect(details('stalled')).toEqual([])
    expect(types().at(-1)).toBe('update')
    wait(285)
    expect(probes()).toHaveLength(2)
  })

  it('one that is lost meanwhile needs its image, and nothing else', () => {
    wait(302)
    probed(103)
    event(110, 111)
    wait(20)
    expect(details('gap')).toMatchObject([{ reason: 'sequence' }])
    expect(details('stalled')).toEqual([])
    wait(302)
    expect(probes()).toHaveLength(1)
    image(111)
    expect(types().at(-1)).toBe('snapshot')
    wait(2)
    expect(probes()).toHaveLength(2)
    // Lost while the answer is under way: it says nothing about the book to come.
    event(120, 121)
    probed(130)
    image(121)
    wait(12)
    expect(details('stalled')).toEqual([])
  })

  it.each([
    [500, {}],
    [429, { code: -1003, msg: 'Too much request weight used' }],
    [0, undefined],
    [200, { lastUpdateId: 'x' }]
  ])('an answer %i with %j is no answer: the question is put again after 30 s', (status, value) => {
    wait(302)
    probed(0, 'BTCUSDT', status, value)
    expect(logged()).toEqual(['Image not to be had'])
    wait(28)
    expect(probes()).toHaveLength(1)
    wait(3)
    expect(probes()).toHaveLength(2)
    probed(100)
    wait(100)
    expect(probes()).toHaveLength(2)
    expect(details('stalled')).toEqual([])
  })

  it('at most four are asked about at once, after the limit of the configuration', () => {
    const names = Array.from({ length: 6 }, (_, n) => `C${n}USDT`)
    goLive('spot', names, { silenceMs: 10_000 })
    wait(12)
    expect(probes()).toHaveLength(4)
    probed(100, 'C0USDT')
    wait(1)
    expect(probes()).toHaveLength(5)
    expect(new Set(probes()).size).toBe(5)
    for (const symbol of ['C1USDT', 'C2USDT']) probed(100, symbol)
    wait(1)
    expect(new Set(probes()).size).toBe(6)
  })

  it('an answer to a question about a subscription that was left is of no use', () => {
    goLive('spot', ['BTCUSDT'], { silenceMs: 25_000 })
    driver.pass('a', 31_000)
    expect(probes()).toHaveLength(1)
    say({ result: [], id: sentBy('LIST_SUBSCRIPTIONS')[0]!.id })
    answered.set('a', requests().length - 1)
    answer()
    event(150, 151)
    image(151)
    probed(900)
    wait(15)
    expect(details('stalled')).toEqual([])
    expect(types().at(-1)).toBe('snapshot')
  })
})

describe('leaving', () => {
  it('frames of a subscription that is being left are ignored', () => {
    goLive('spot', ['BTCUSDT'], { silenceMs: 5000 })
    driver.pass('a', 7000)
    probed(200)
    driver.pass('a', 11_000)
    expect(sentBy('UNSUBSCRIBE')).toHaveLength(1)
    const before = images().length
    event(101, 101)
    driver.in('a', '{"e":"depthUpdate","s":"BTCUSDT"}')
    expect(images()).toHaveLength(before)
    expect(logged().filter(message => message.startsWith('BUILD_FAIL'))).toEqual([])
    say({ code: 2, msg: 'x', id: sentBy('UNSUBSCRIBE')[0]!.id })
    expect(sentBy('SUBSCRIBE')).toHaveLength(2)
  })
})

describe('planned changes', () => {
  const HOUR_MS = 3_600_000
  /** Lets hours pass in few ticks, with life in them. */
  const live = (ms: number, stepMs = 9000) => {
    const endUs = driver.us + ms * 1000
    for (let n = 1; driver.us < endUs; n++) {
      driver.pass('a', Math.min(stepMs, (endUs - driver.us) / 1000), stepMs)
      say({ result: null, id: 1e9 + n })
      event(99, 100)
    }
  }

  it('a connection is replaced before its 24 hours are over, at its own time', () => {
    const ages: number[] = []
    for (const instId of ['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'BTCUSDT']) {
      connect('spot', [instId], { silenceMs: 10 ** 9 })
      answer()
      const openedUs = driver.us
      driver.pass('a', 21 * HOUR_MS - 1000, 21 * HOUR_MS)
      expect(driver.requests.replacements).toEqual([])
      for (let n = 0; n < 810 && driver.requests.replacements.length === 0; n++) {
        driver.us += 9_000_000
        driver.tick('a')
        answer()
      }
      expect(driver.requests.replacements).toEqual(['a'])
      ages.push((driver.us - openedUs) / 1e6)
    }
    expect(ages[0]).toBe(ages[3])
    expect(new Set(ages).size).toBe(3)
    for (const age of ages) {
      expect(age).toBeGreaterThanOrEqual(21 * 3600)
      expect(age).toBeLessThan(23 * 3600 + 15)
    }
  })

  it('overlapping, without a gap, and once', () => {
    goLive('spot', ['BTCUSDT'])
    driver.us += 20.8 * HOUR_MS * 1000
    event(99, 100)
    live(2.3 * HOUR_MS, 60_000)
    expect(driver.requests.replacements).toEqual(['a'])
    expect(driver.requests.hangups).toEqual([])
    takeOver()
  })

  /** The second connection comes to life, and the first one ends. */
  function takeOver(): void {
    driver.open('b', ['BTCUSDT'], selectionOf('spot'), 'a')
    answer('b')
    event(101, 101, bid('97'))
    say(trade(10))
    expect(driver.requests.leaves).toEqual([])
    driver.in('b', depth(101, 101, bid('97')))
    say(trade(10), 'b')
    image(101, 'BTCUSDT', 200, book(101), 'b')
    expect(driver.requests.leaves).toEqual(['a'])
    for (const name of ['a', 'b']) driver.in(name, depth(102, 102, bid('96')))
    driver.close('a', 'replaced')
    driver.in('b', depth(103, 103, bid('95')))
    expect(details('gap')).toEqual([])
    expect(trades()).toEqual(['10'])
    expect(details('synced').map(({ conn, planned }) => [conn, planned])).toEqual([
      ['a', undefined],
      ['b', true]
    ])
    expect(
      updates()
        .filter(row => row.event_type === 'update')
        .map(row => [row.conn, row.seqId])
    ).toEqual([
      ['a', 101],
      ['b', 102],
      ['b', 103]
    ])
  }

  it.each([
    ['raw', '{"e":"serverShutdown","E":1770123456789}'],
    ['combined', wrapped('!serverShutdown', '{"e":"serverShutdown","E":1770123456789}')]
  ])('an announced shutdown, %s', (_, notice) => {
    driver.in('a', notice)
    driver.in('a', notice)
    expect(driver.requests.replacements).toEqual(['a'])
    expect(details('maintenance')[0]).toEqual({ conn: 'a', event: 'serverShutdown', time: 1770123456789 })
    takeOver()
  })
})

describe('addresses and metadata', () => {
  it('spot and perpetuals', () => {
    expect(binance.endpoints(selectionOf(null))).toEqual({
      restUrl: 'https://api.binance.com',
      routes: [{ url: 'wss://stream.binance.com:9443/ws', feeds: ['book', 'trades'], instrumentsMax: 200 }]
    })
    expect(binance.endpoints(selectionOf('perp'))).toMatchObject({
      restUrl: 'https://fapi.binance.com',
      routes: [{ url: 'wss://fstream.binance.com/public/ws' }]
    })
    expect(described(binance, ['BTCUSDT'], selectionOf('perp', '1000ms'))).toEqual([
      { exchange: 'binance', instId: 'BTCUSDT', market: 'perp', level: 'l2', channel: 'depth' }
    ])
    expect(described(binance, ['BTCUSDT'], 'l2')).toMatchObject([{ market: 'spot', channel: 'depth@100ms' }])
    expect(binance.choices).toEqual({ markets: ['spot', 'perp'], updateSpeeds: ['100ms', '1000ms'] })
    expect(binance.limits).toMatchObject({ sendSpacingMs: 250, restWeightPerMinuteMax: 4000, pingMs: 30_000 })
  })

  it.each(['BTC/USDT', 'BTC-USDT', 'btcusdt', 'BTCUSDT', 'btc_usdt', 'XBT/USDT'])('%s is BTCUSDT', symbol => {
    expect(binance.spell(symbol)).toBe('BTCUSDT')
  })

  const filters = [
    { filterType: 'PRICE_FILTER', minPrice: '0.01000000', maxPrice: '1000000.00000000', tickSize: '0.01000000' },
    { filterType: 'LOT_SIZE', minQty: '0.00002000', maxQty: '9000.00000000', stepSize: '0.00001000' },
    null,
    'x'
  ]
  const names = { symbol: 'BTCUSDT', status: 'TRADING', baseAsset: 'BTC', quoteAsset: 'USDT' }

  it.each([
    [{ filterType: 'NOTIONAL', minNotional: '5.00000000' }],
    [{ filterType: 'MIN_NOTIONAL', minNotional: '5.00000000' }]
  ])('spot, %j', notional => {
    const catalogue = binance.catalogue(null)
    expect(catalogue.weight).toBe(20)
    expect(catalogue.paths(['BTCUSDT', 'NONEUSDT'])).toEqual(['/api/v3/exchangeInfo'])
    const row = { ...names, filters: [...filters, notional] }
    expect(catalogue.read([{ timezone: 'UTC', symbols: [row, null, { symbol: 7 }] }])).toEqual([
      {
        exchange: 'binance',
        instId: 'BTCUSDT',
        market: 'spot',
        base: 'BTC',
        quote: 'USDT',
        settleCcy: 'USDT',
        contractValue: null,
        contractValueCcy: null,
        multiplier: null,
        tickSize: '0.01000000',
        lotSize: '0.00001000',
        minSize: '0.00002000',
        minNotional: '5.00000000',
        status: 'TRADING',
        raw: row
      }
    ])
  })

  it('perpetuals, without contracts that end', () => {
    const catalogue = binance.catalogue('perp')
    expect(catalogue.paths([])).toEqual(['/fapi/v1/exchangeInfo'])
    const notional = { filterType: 'MIN_NOTIONAL', notional: '50' }
    const row = { ...names, contractType: 'PERPETUAL', marginAsset: 'USDT', filters: [...filters, notional] }
    const dated = { ...row, symbol: 'BTCUSDT_260925', contractType: 'CURRENT_QUARTER' }
    const infos = catalogue.read([{ symbols: [row, dated] }])
    expect(infos).toMatchObject([
      {
        instId: 'BTCUSDT',
        market: 'perp',
        settleCcy: 'USDT',
        contractValue: '1',
        contractValueCcy: 'BTC',
        minNotional: '50',
        tickSize: '0.01000000'
      }
    ])
    expect(infos).toHaveLength(1)
  })

  it.each([[{}], [null], [{ code: -1003, msg: 'x' }]])('another format is an error: %j', value => {
    expect(() => binance.catalogue('spot').read([value])).toThrow(TypeError)
  })
})

/** A line of a scenario. */
type Line =
  | { readonly kind: 'in'; readonly text: string }
  | { readonly kind: 'http'; readonly id: string; readonly answer: FetchAnswer }
  | { readonly kind: 'tick'; readonly ms: number }

const CONFIG: EngineConfig = { depth: 400, cadenceMs: 2000, onMismatch: 'three', silenceMs: null }

/** An engine that is driven with the lines of a scenario, from their beginning or from a state. */
class Player {
  readonly sink = new MemorySink()
  readonly requests = new RecordedRequests()
  readonly engine = new Engine(binance, this.sink, this.requests)
  private readonly detail
  us = START_US
  frame = 0

  constructor(instIds: readonly string[]) {
    const instruments = described(binance, instIds, selectionOf(market))
    this.detail = { v: STATE_VERSION, config: CONFIG, instruments, feeds: ['book', 'trades'] as const, replaces: null }
  }

  open(): void {
    this.engine.open(this.us, 'a', ++this.frame, this.detail)
  }

  state(): string {
    const subjects = this.engine.subjectStates(this.detail.instruments)
    return JSON.stringify({ ...this.detail, subjects, connection: this.engine.connectionState('a') })
  }

  restore(state: string, us: number, frame: number): void {
    this.us = us
    this.frame = frame
    this.engine.hour(us, 'a', frame, JSON.parse(state) as StateDetail)
    this.sink.lines.length = 0
  }

  play(line: Line): void {
    this.us += line.kind === 'tick' ? line.ms * 1000 : 1000
    const frame = ++this.frame
    if (line.kind === 'tick') this.engine.tick(this.us, 'a', frame)
    else if (line.kind === 'http') this.engine.fetched(this.us, 'a', frame, line.id, line.answer)
    else {
      this.engine.read('a', line.text)
      this.engine.apply(this.us, 'a', frame)
    }
  }

  /** Everything written and asked for from some place on. */
  since([lines, sent, fetched, hung]: readonly number[]): unknown {
    const { requests: r } = this
    return {
      lines: this.sink.lines.slice(lines).map(({ feed, name, text }) => `${feed} ${name} ${text}`),
      sent: r.sent.slice(sent).map(({ text }) => text),
      fetched: r.fetches.slice(fetched).map(({ request }) => request),
      hung: [...r.hangups.slice(hung).map(({ reason }) => reason), r.replacements.length > 0]
    }
  }

  get place(): number[] {
    const { sent, fetches, hangups } = this.requests
    return [this.sink.lines.length, sent.length, fetches.length, hangups.length]
  }
}

describe('a state in the middle of everything', () => {
  const ok = (value: unknown): FetchAnswer => ({ status: 200, value })
  const frame = (text: string): Line => ({ kind: 'in', text })
  const http = (id: string, answerOf: FetchAnswer): Line => ({ kind: 'http', id, answer: answerOf })
  const tick = (ms: number): Line => ({ kind: 'tick', ms })
  const json = (value: unknown) => frame(JSON.stringify(value))

  const ALL = ['btcusdt', 'ethusdt'].flatMap(name => [`${name}@depth@100ms`, `${name}@trade`])

  function scenario(): Line[] {
    const eth = { symbol: 'ETHUSDT' }
    return [
      // A refused message in parts, the first event before its acknowledgement.
      json({ code: 2, msg: 'x', id: 1 }),
      json({ result: null, id: 2 }),
      frame(depth(93, 94)),
      json({ code: 2, msg: 'x', id: 3 }),
      frame(depth(95, 98, bid('97'), [], { link: 94 })),
      frame(depth(99, 103, bid('97.5'), [], { link: 98 })),
      json({ result: null, id: 4 }),
      json({ code: -1, msg: 'x', id: 5 }),
      // An image that fails, one that is too old, one that fits.
      http('image-0-1', { status: 429, value: {} }),
      tick(1000),
      http('image-0-2', ok(book(50))),
      tick(1500),
      frame(depth(104, 105, bid('96'), [], { link: 103 })),
      http('image-0-3', ok(book(100))),
      frame(depth(106, 107, bid('95'), [], { link: 105 })),
      frame(depth(106, 107, bid('95'), [], { link: 105 })),
      frame(depth(5, 6, [], [], eth)),
      // Trades with a hole, and one that is none.
      json(trade(10)),
      json(trade(11, { X: 'NA' })),
      json(trade(14)),
      tick(1000),
      http('trades-0-1', ok(history(10, 11, 12, 15))),
      http('trades-0-2', ok(history(13, 14))),
      // A gap, soon after the image.
      frame(depth(110, 111, bid('94'), [], { link: 109 })),
      frame(depth(112, 113, bid('93'), [], { link: 111 })),
      tick(2500),
      http('image-1-4', ok(book(6))),
      http('image-0-5', ok(book(112))),
      http('image-0-4', ok(book(112))),
      http('image-1-5', ok(book(6))),
      frame(depth(114, 115, bid('92'), [], { link: 113 })),
      json({ e: 'depthUpdate', s: 'BTCUSDT' }),
      frame(depth(116, 117, [], [], { link: 115 })),
      tick(31_000),
      http('image-0-6', ok(book(117))),
      tick(1000),
      json({ result: ['btcusdt@depth@100ms', 'ethusdt@depth@100ms'], id: 6 }),
      json({ result: null, id: 7 }),
      tick(29_000),
      tick(1000),
      json({ result: null, id: 8 }),
      // Silence: one book is mute, the other one quiet, which an answer tells only the second time.
      tick(200_000),
      json({ result: ALL, id: 9 }),
      tick(100_000),
      json({ result: ALL, id: 10 }),
      http('probe-0-1', ok(book(400))),
      http('probe-1-2', { status: 500, value: {} }),
      tick(6000),
      tick(6000),
      json({ result: null, id: 11 }),
      json({ result: null, id: 12 }),
      tick(6000),
      http('image-0-7', ok(book(401))),
      tick(15_000),
      http('probe-1-3', ok(book(6))),
      frame(depth(401, 402, bid('91'), [], { link: 400 })),
      tick(1000),
      tick(23.1 * 3_600_000),
      tick(2000),
      json({ e: 'serverShutdown', E: 1 }),
      json({ result: ALL, id: 13 }),
      tick(2000),
      tick(15_000)
    ]
  }

  it.each(['spot', 'perp'] as const)('%s: goes on as if nothing had been', of => {
    market = of
    const names = ['BTCUSDT', 'ETHUSDT']
    const lines = scenario()
    const whole = new Player(names)
    whole.open()
    const marks: { state: string; us: number; frame: number; place: number[]; replaced: number }[] = []
    for (const line of lines) {
      marks.push({
        state: whole.state(),
        us: whole.us,
        frame: whole.frame,
        place: whole.place,
        replaced: whole.requests.replacements.length
      })
      whole.play(line)
    }
    // The scenario must show what it is meant to show.
    expect(whole.sink.statuses('gap').length).toBeGreaterThan(2)
    expect(whole.sink.statuses('synced').length).toBeGreaterThan(1)
    expect(whole.sink.records('trades').length).toBeGreaterThan(2)
    expect(whole.requests.replacements).toHaveLength(1)
    expect(whole.sink.statuses('stalled')).toHaveLength(1)
    expect(whole.requests.fetches.filter(({ request }) => isProbe(request.path))).toHaveLength(5)
    for (const [at, { state, us, frame: number, place, replaced }] of marks.entries()) {
      const other = new Player(names)
      other.restore(state, us, number)
      for (const line of lines.slice(at)) other.play(line)
      const expected = whole.since(place) as { hung: unknown[] }
      expected.hung[expected.hung.length - 1] = replaced === 0
      expect(other.since([0, 0, 0, 0]), `from line ${at}`).toEqual(expected)
      expect(other.state(), `state from line ${at}`).toBe(whole.state())
    }
  })
})

describe('mutated frames', () => {
  it('never throw, and whatever is taken as JSON is JSON', () => {
    const seed = 11_212_026
    const random = seeded(seed)
    let kept = 0
    let lost = 0
    for (let n = 0; n < 6000; n++) {
      if (n % 25 === 0) goLive(n % 50 === 0 ? 'spot' : 'perp', ['BTCUSDT', 'ETHUSDT'])
      const base = [
        depth(101, 101, [['97.00000000', '1.00000000']], [['103.1', '0.000']], { link: 100 }),
        wrapped('btcusdt@depth@100ms', depth(101, 101, [['97.00000000', '1e-7']], [], { link: 100 })),
        depth(101, 105, [], [], { symbol: 'ETHUSDT', link: 100 }),
        JSON.stringify(trade(n)),
        wrapped('btcusdt@trade', JSON.stringify(trade(n))),
        '{"result":null,"id":1}',
        '{"code":2,"msg":"Invalid request","id":1}',
        '{"result":["btcusdt@depth@100ms"],"id":2}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'
      ]
      const text = mutate(base[n % base.length]!, random)
      const where = `seed ${seed}, frame ${n}: ${text}`
      if (takesHostile(driver, 'a', text, where)) kept++
      driver.tick('a')
      if (n % 25 !== 24) continue
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
      lost += details('gap').length
    }
    expect(kept).toBeGreaterThan(500)
    expect(kept).toBeLessThan(5500)
    expect(lost).toBeGreaterThan(50)
  })

  it('mutated answers never throw, and what is no book becomes none', () => {
    const random = seeded(77)
    let taken = 0
    for (let n = 0; n < 800; n++) {
      connect(n % 2 === 0 ? 'spot' : 'perp')
      answer()
      event(90, 100, bid('97'))
      say(trade(1))
      say(trade(3))
      for (const [path, value] of [
        ['/depth?', book(100)],
        ['rades?', history(1, 2, 3)]
      ] as const) {
        let hostile: unknown
        try {
          hostile = JSON.parse(mutate(JSON.stringify(value), random))
        } catch {
          hostile = undefined
        }
        const { request } = driver.requests.fetches.find(({ request: r }) => r.path.includes(path))!
        expect(() => driver.fetched('a', 200, hostile, request.id)).not.toThrow()
      }
      driver.pass('a', 2000)
      expect(logged()).not.toContain('Assertion failed in a session')
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text)).not.toThrow()
      if (types().includes('snapshot')) taken++
    }
    expect(taken).toBeGreaterThan(50)
    expect(taken).toBeLessThan(750)
  })
})

/** A recorded line: a frame, or a book over REST with its symbol. */
interface Recorded {
  readonly us: number
  readonly symbol: string
  readonly text: string
  readonly isHttp: boolean
  readonly isDepth: boolean
}

function load(name: string): Recorded[] {
  const text = gunzipSync(readFileSync(`${RECORDINGS}${name}.jsonl.gz`)).toString()
  let lastUs = 0
  return text
    .split('\n')
    .slice(1)
    .filter(Boolean)
    .map(line => JSON.parse(line) as { t: string; dir: string; url?: string; msg: string })
    .filter(({ dir }) => dir === 'in' || dir === 'http')
    .map(({ t, dir, url = '', msg }) => {
      lastUs = Math.max(lastUs + 1, Number(BigInt(t) / 1000n))
      const isHttp = dir === 'http'
      const stream = isHttp ? '' : /^\{"stream":"([^"]+)"/.exec(msg)![1]!
      return {
        us: lastUs,
        symbol: isHttp ? /symbol=(\w+)/.exec(url)![1]! : stream.split('@')[0]!.toUpperCase(),
        text: msg,
        isHttp,
        isDepth: /@depth/.test(stream)
      }
    })
}

/** Plays a recording: frames in their order, and each recorded book as the answer to the request of its symbol. */
function playAll(lines: readonly Recorded[], of: Market, ticks = false): Driver {
  market = of
  driver = new Driver(binance, { cadenceMs: 500 }, lines[0]!.us - 10)
  driver.stepUs = 1
  driver.open('a', [...new Set(lines.map(({ symbol }) => symbol))], selectionOf(of))
  answered.clear()
  answer()
  driver.stepUs = 0
  let tickUs = driver.us
  for (const { us, symbol, text, isHttp } of lines) {
    for (; ticks && tickUs + 500_000 < us; tickUs += 500_000) {
      driver.us = Math.max(driver.us, tickUs)
      driver.tick('a')
    }
    driver.us = Math.max(driver.us, us)
    if (isHttp) image(0, symbol, 200, JSON.parse(text))
    else driver.in('a', text)
  }
  return driver
}

/** A book by the recipe, from the recording alone: price text by price, without any code of the project. */
function independent(
  lines: readonly Recorded[],
  symbol: string
): { bids: unknown[]; asks: unknown[]; applied: number } {
  const own = lines.filter(line => line.symbol === symbol)
  const rest = JSON.parse(own.find(({ isHttp }) => isHttp)!.text) as Record<string, LevelText[]> & {
    lastUpdateId: number
  }
  const sides = { b: new Map<number, LevelText>(), a: new Map<number, LevelText>() }
  for (const [price, size] of rest.bids!) sides.b.set(Number(price), [price, size])
  for (const [price, size] of rest.asks!) sides.a.set(Number(price), [price, size])
  let applied = 0
  for (const { text } of own.filter(({ isDepth }) => isDepth)) {
    const { data } = JSON.parse(text) as { data: Record<'a' | 'b', LevelText[]> & { u: number } }
    if (data.u <= rest.lastUpdateId) continue
    applied++
    for (const side of ['b', 'a'] as const) {
      for (const [price, size] of data[side]) {
        if (Number(size) === 0) sides[side].delete(Number(price))
        else sides[side].set(Number(price), [price, size])
      }
    }
  }
  const rows = (side: 'a' | 'b', sign: number) =>
    [...sides[side].entries()].sort((x, y) => sign * (x[0] - y[0])).map(([, [price, size]]) => [price, size, '0', null])
  return { bids: rows('b', -1), asks: rows('a', 1), applied }
}

const RECORDED = [
  { name: 'binance-spot-btcusdt-1', of: 'spot', depthFrames: 3451, older: 2, trades: 9757, samples: 10 },
  { name: 'binance-spot-2', of: 'spot', depthFrames: 177, older: 5, trades: 0, samples: 1000 },
  { name: 'binance-usdm-btcusdt-1', of: 'perp', depthFrames: 6551, older: 4, trades: 21_313, samples: 8 }
] as const

describe.skipIf(!hasRecordings).each(RECORDED)(
  `$name${NEEDS_RECORDINGS}`,
  ({ name, of, depthFrames, older, trades: count, samples }) => {
    const lines = hasRecordings ? load(name) : []
    const books = lines.filter(({ isDepth, isHttp }) => isDepth || isHttp)
    const symbols = [...new Set(books.map(({ symbol }) => symbol))]
    /** Depth frames that are newer than the image of their symbol and come behind it, with another one behind them. */
    const places = books.flatMap(({ isDepth, symbol, text }, at) => {
      const imageAt = books.findIndex(line => line.isHttp && line.symbol === symbol)
      if (!isDepth || imageAt > at) return []
      const { lastUpdateId } = JSON.parse(books[imageAt]!.text) as { lastUpdateId: number }
      if ((JSON.parse(text) as { data: { u: number } }).data.u <= lastUpdateId) return []
      return books.some((line, later) => later > at && line.isDepth && line.symbol === symbol) ? [at] : []
    })
    const sample = places.filter((_, n) => n % Math.max(1, Math.floor(places.length / samples)) === 0)

    it('every step is right, every bridge too, and the book is the one of an independent builder', () => {
      playAll(lines, of, true)
      expect(driver.sink.statuses('gap')).toEqual([])
      expect(driver.requests.logs).toEqual([])
      expect(driver.requests.settledNames).toEqual(['a'])
      expect(details('synced')).toHaveLength(symbols.length)
      expect(images()).toHaveLength(symbols.length)
      expect(histories()).toEqual([])
      let applied = 0
      for (const symbol of symbols) {
        const own = independent(books, symbol)
        applied += own.applied
        const last = driver.sink.records('l2_updates', symbol)
        // The state of the engine has the whole book.
        const keeper = driver.engine.connectionState('a').keepers[symbols.indexOf(symbol)]!
        const state = keeper.book as { bids: [string, string, null][]; asks: [string, string, null][] }
        const rows = (side: [string, string, null][]) => side.map(([price, size, orders]) => [price, size, '0', orders])
        expect(rows(state.bids)).toEqual(own.bids)
        expect(rows(state.asks)).toEqual(own.asks)
        // Each record continues the one before.
        for (const [n, row] of last.entries()) if (n > 1) expect(row.prevSeqId).toBe(last[n - 1]!.seqId)
      }
      expect(books.filter(({ isDepth }) => isDepth)).toHaveLength(depthFrames)
      expect(applied).toBe(depthFrames - older)
      const written = driver.sink.records('trades')
      expect(written).toHaveLength(count)
      for (const [n, row] of written.entries()) {
        if (n > 0) expect(Number(row.trade_id)).toBe(Number(written[n - 1]!.trade_id) + 1)
      }
    })

    it('any lost frame is exactly one gap, after which nothing is applied', () => {
      for (const at of sample) {
        playAll([...books.slice(0, at), ...books.slice(at + 1)], of)
        expect(details('gap'), `without ${at}`).toMatchObject([{ reason: 'sequence', cause: 'sequence' }])
        expect(driver.sink.statuses('gap')[0]!.instId).toBe(books[at]!.symbol)
        expect(types(books[at]!.symbol).at(-1)).toBe('gap')
        expect(shots().filter(row => row.gap_detected)).toHaveLength(1)
      }
      expect(sample.length).toBeGreaterThan(5)
    })

    it('any doubled frame is applied once; two in the wrong order are one gap', () => {
      const some = books.slice(0, 800)
      const text = () => driver.sink.text().replace(/"frame":\d+/g, '')
      playAll(some, of)
      const clean = text()
      const behind = (at: number) =>
        at >= some.length
          ? -1
          : some.findIndex((line, later) => later > at && line.isDepth && line.symbol === some[at]!.symbol)
      const tried = places.filter((at, n) => n % 60 === 5 && behind(at) >= 0)
      for (const at of tried) {
        playAll([...some.slice(0, at), some[at]!, ...some.slice(at)], of)
        expect(text() === clean, `frame ${at} doubled`).toBe(true)
        const next = behind(at)
        const swapped = [...some]
        swapped[at] = { ...some[next]!, us: some[at]!.us }
        swapped[next] = { ...some[at]!, us: some[next]!.us }
        playAll(swapped, of)
        expect(details('gap'), `frame ${at} behind ${next}`).toHaveLength(1)
      }
      expect(tried.length).toBeGreaterThan(1)
    })

    it('a gap heals with an image, and the book is right again', () => {
      const at = sample.at(-1)!
      const { symbol } = books[at]!
      const own = books.filter(line => line.symbol === symbol)
      const mine = own.indexOf(books[at]!)
      playAll([...own.slice(0, mine), ...own.slice(mine + 1, mine + 2)], of)
      expect(details('gap')).toHaveLength(1)
      driver.stepUs = 1000
      wait(1)
      const { bids, asks } = independent(own.slice(0, mine + 2), symbol)
      const { u } = (JSON.parse(own[mine + 1]!.text) as { data: { u: number } }).data
      image(u, symbol, 200, { lastUpdateId: u, bids, asks })
      for (const { text } of own.slice(mine + 2)) driver.in('a', text)
      expect(details('gap')).toHaveLength(1)
      const state = driver.engine.connectionState('a').keepers[0]!.book as {
        bids: [string, string, null][]
        asks: [string, string, null][]
      }
      expect(state.bids.map(([price, size]) => [price, size, '0', null])).toEqual(independent(own, symbol).bids)
    })
  }
)
