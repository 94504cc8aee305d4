import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { beforeEach, describe, expect, it } from 'vitest'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { Selection } from '../../src/exchanges/exchange.ts'
import { huobi } from '../../src/exchanges/huobi.ts'
import { Driver, hasRecordings, loadFrames, NEEDS_RECORDINGS, play, RECORDINGS, type Row } from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'
import { expectResumable, type Step } from '../helpers/resumed.ts'

/** A level as JSON text: price and size. */
type LevelText = readonly [price: string, size: string]

interface Message {
  readonly sub?: string
  readonly unsub?: string
  readonly req?: string
  readonly pong?: number
  readonly id: string
}

const L2: Selection = { level: 'l2', market: null, channel: null, updateSpeed: null }
const BOOK = 'market.btcusdt.mbp.400'
const TRADES = 'market.btcusdt.trade.detail'
const BIDS: readonly LevelText[] = [
  ['9137.67', '4.683547'],
  ['9137.35', '0.0089']
]
const ASKS: readonly LevelText[] = [
  ['9137.68', '0.190075'],
  ['9138.0', '1.0']
]

let driver: Driver
/** Messages of the capture that were answered. */
let answered: number

const rows = (levels: readonly LevelText[]) => `[${levels.map(([price, size]) => `[${price},${size}]`).join(',')}]`
const ms = () => Math.floor(driver.us / 1000)

/** An update that leads from one number to another. */
function update(previous: number, sequence: number, bids: readonly LevelText[] = [], asks: readonly LevelText[] = []) {
  const numbers = `"seqNum":${sequence},"prevSeqNum":${previous}`
  return `{"ch":"${BOOK}","ts":1573199608679,"tick":{${numbers},"asks":${rows(asks)},"bids":${rows(bids)}}}`
}

function image(id: string, sequence: number, bids = BIDS, asks = ASKS): string {
  const data = `{"seqNum":${sequence},"bids":${rows(bids)},"asks":${rows(asks)}}`
  return `{"id":"${id}","rep":"${BOOK}","status":"ok","ts":1573199608700,"data":${data}}`
}

const error = (id: string, message: string) =>
  JSON.stringify({ ts: 1, status: 'error', 'err-code': 'bad-request', 'err-msg': message, id })

function fresh(name = 'a'): Message[] {
  const all = driver.asked(name) as Message[]
  const messages = all.slice(answered)
  answered = all.length
  return messages
}

/** Acknowledges what was subscribed and left, and what is asked because of it. Images are left unanswered. */
function acknowledge(): void {
  for (let batch = fresh(); batch.length > 0; batch = fresh()) {
    for (const { sub, unsub, id } of batch) {
      if (sub) driver.in('a', JSON.stringify({ id, status: 'ok', subbed: sub, ts: ms() }))
      if (unsub) driver.in('a', JSON.stringify({ id, status: 'ok', unsubbed: unsub, ts: ms() }))
    }
  }
}

function connect(
  config: Partial<EngineConfig> = {},
  instIds = ['btcusdt'],
  feeds: ('book' | 'trades')[] = ['book']
): void {
  driver = new Driver(huobi, config)
  answered = 0
  driver.open('a', instIds, L2, null, feeds)
}

/** A connection whose book is live with the numbers 120 and 128. */
function goLive(config: Partial<EngineConfig> = {}): void {
  connect(config)
  acknowledge()
  driver.in('a', update(115, 120))
  driver.in('a', update(120, 128))
  driver.in('a', image('image-0-1', 120))
}

const asked = (what: 'sub' | 'unsub' | 'req' | 'pong') =>
  (driver.asked('a') as Message[]).filter(message => message[what] !== undefined)
/** The id of the newest request of an image; one that has to wait for its turn is let out. */
function imageAsked(): string {
  driver.pass('a', 1000, 500)
  return asked('req').at(-1)!.id
}
const updates = () => driver.sink.records('l2_updates', 'btcusdt')
const types = () => updates().map(row => row.event_type)
const details = (event: string) => driver.sink.statuses(event).map(row => row.detail as Row)
const shots = () => driver.sink.records('l2_spot')
const trades = () => driver.sink.records('trades')

/** Lets time pass on a connection that pings every 5 s and tells each second that its book is alive. */
function wait(seconds: number, number = 128): void {
  for (let second = 0; second < seconds; second++) {
    driver.pass('a', 1000)
    driver.in('a', update(number, number))
    if (second % 5 === 0) driver.in('a', `{"ping":${ms()}}`)
  }
}

beforeEach(() => goLive())

describe('the exchange', () => {
  it('has a route for books and one for trades', () => {
    const { routes, restUrl } = huobi.endpoints(L2)
    expect(routes.map(({ url, feeds }) => [url, feeds])).toEqual([
      ['wss://api.huobi.pro/feed', ['book']],
      ['wss://api.huobi.pro/ws', ['trades']]
    ])
    expect(restUrl).toBe('https://api.huobi.pro')
    expect(huobi.compression).toBe('gzip')
    expect(huobi.limits.sendSpacingMs).toBe(100)
    expect(huobi.proof).toEqual({ l2: { sequence: 'instrument', checksum: false } })
  })

  it.each([
    [null, 'mbp.400', 400],
    ['mbp.400', 'mbp.400', 400],
    ['mbp.150', 'mbp.150', 150]
  ])('channel %s is %s, %i levels deep', (channel, expected, depth) => {
    const instrument = huobi.describe('btcusdt', { ...L2, channel })
    expect(instrument).toEqual({ exchange: 'huobi', instId: 'btcusdt', market: 'spot', level: 'l2', channel: expected })
    expect(huobi.depthMax(instrument)).toBe(depth)
    driver = new Driver(huobi)
    driver.open('a', ['btcusdt'], { ...L2, channel }, null, ['book'])
    expect(driver.asked('a')).toEqual([{ sub: `market.btcusdt.${expected}`, id: 'sub-1' }])
  })

  it.each(['btcusdt', 'BTCUSDT', 'BTC/USDT', 'BTC-USDT', 'btc_usdt', 'Btc:Usdt', 'XBTUSDT', 'xbt-usdt'])(
    '%s is btcusdt',
    symbol => {
      expect(huobi.spell(symbol)).toBe('btcusdt')
    }
  )

  it('other names stay', () => {
    expect(huobi.spell('ETH/BTC')).toBe('ethbtc')
    expect(huobi.spell('ETH-XBT')).toBe('ethbtc')
    expect(huobi.spell('1inchusdt')).toBe('1inchusdt')
  })

  it('metadata', () => {
    const catalogue = huobi.catalogue(null)
    expect(catalogue.paths([])).toEqual(['/v1/common/symbols'])
    expect(catalogue.paths(['btcusdt', 'ethusdt'])).toEqual(['/v1/common/symbols'])
    const row = {
      'base-currency': 'btc',
      'quote-currency': 'usdt',
      'price-precision': 2,
      'amount-precision': 6,
      'min-order-amt': 1e-4,
      'limit-order-min-order-amt': 1e-5,
      'min-order-value': 5,
      symbol: 'btcusdt',
      state: 'online'
    }
    const other = { symbol: 'shibusdt', 'price-precision': 10, 'amount-precision': 0, 'min-order-amt': '12.50' }
    const infos = catalogue.read([{ status: 'ok', data: [row, other, { 'base-currency': 'x' }, null] }])
    expect(infos[0]).toEqual({
      exchange: 'huobi',
      instId: 'btcusdt',
      market: 'spot',
      base: 'btc',
      quote: 'usdt',
      settleCcy: 'usdt',
      contractValue: null,
      contractValueCcy: null,
      multiplier: null,
      tickSize: '0.01',
      lotSize: '0.000001',
      minSize: '0.00001',
      minNotional: '5',
      status: 'online',
      raw: row
    })
    expect(infos[1]).toMatchObject({ tickSize: '0.0000000001', lotSize: '1', minSize: '12.50', minNotional: null })
    expect(infos).toHaveLength(2)
    expect(() => catalogue.read([{ status: 'error', 'err-msg': 'x' }])).toThrow(TypeError)
    expect(() => catalogue.read([[]])).toThrow(TypeError)
  })
})

describe('step 1: subscribing', () => {
  it('one topic in a message, and the image is asked for on the same connection', () => {
    connect({}, ['btcusdt', 'ethusdt'])
    expect(driver.asked('a')).toEqual([
      { sub: 'market.btcusdt.mbp.400', id: 'sub-1' },
      { sub: 'market.ethusdt.mbp.400', id: 'sub-2' }
    ])
    driver.in('a', '{"id":"sub-2","status":"ok","subbed":"market.ethusdt.mbp.400","ts":1}')
    expect(driver.asked('a').slice(2)).toEqual([{ req: 'market.ethusdt.mbp.400', id: 'image-1-1' }])
    expect(driver.fetches('a')).toEqual([])
    expect(details('subscribed')).toMatchObject([
      { channel: 'mbp.400', proof: { sequence: 'instrument', checksum: false } }
    ])
  })

  it('a connection for trades asks for no book', () => {
    connect({}, ['btcusdt'], ['trades'])
    acknowledge()
    expect(driver.asked('a')).toEqual([{ sub: TRADES, id: 'sub-1' }])
  })

  it('updates that come before the acknowledgement are kept', () => {
    connect()
    driver.in('a', update(115, 120))
    driver.in('a', update(120, 128, [['9000', '7.5']]))
    acknowledge()
    expect(asked('req')).toHaveLength(1)
    driver.in('a', image('image-0-1', 115))
    expect(updates().at(-1)).toMatchObject({ seqId: 128, bids: [...book(BIDS), ['9000', '7.5', '0', null]] })
    expect(details('subscribed')).toHaveLength(1)
  })

  it('what comes while nothing is subscribed is no part of the next book', () => {
    connect()
    driver.in('a', error('sub-1', '429 too many request'))
    driver.in('a', update(120, 128))
    for (let n = 0; n < 61; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":1}')
    }
    acknowledge()
    driver.in('a', image('image-0-1', 120))
    expect(updates()).toEqual([])
    driver.in('a', update(120, 130))
    expect(updates().at(-1)).toMatchObject({ seqId: 130 })
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    for (let n = 0; n < 3; n++) {
      driver.pass('a', 3000)
      driver.in('a', '{"ping":1}')
    }
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 2000)
    expect(driver.requests.hangups[0]!.reason).toContain('acknowledgement')
  })

  it('a book that is acknowledged and says nothing is subscribed again', () => {
    connect()
    acknowledge()
    driver.in('a', image('image-0-1', 115))
    for (let n = 0; n < 11; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":1}')
    }
    expect(details('resubscribed')).toEqual([{ conn: 'a', reason: 'no updates', attempt: 1 }])
    acknowledge()
    expect(asked('sub')).toHaveLength(2)
    driver.in('a', update(200, 201))
    // The image of the subscription that was left is nobody's any more.
    driver.in('a', image('image-0-1', 200))
    expect(updates()).toEqual([])
    driver.in('a', image('image-0-3', 200))
    expect(types()).toEqual(['clear', 'snapshot'])
  })
})

/** Levels as records show them. */
const book = (levels: readonly LevelText[]) => levels.map(([price, size]) => [price, size, '0', null])

describe('step 3: the image', () => {
  it("the documentation's example: S = 120, two dropped, 120→128 applied, the next must have 128", () => {
    connect()
    acknowledge()
    driver.in('a', update(110, 115, [['1', '1']]))
    driver.in('a', update(115, 120, [['2', '2']]))
    driver.in('a', update(120, 128, [['9137.35', '0.0']], [['9138.0', '2.5']]))
    expect(updates()).toEqual([])
    driver.in('a', image('image-0-1', 120))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      bids: [['9137.67', '4.683547', '0', null]],
      asks: [
        ['9137.68', '0.190075', '0', null],
        ['9138.0', '2.5', '0', null]
      ],
      seqId: 128,
      prevSeqId: 120,
      checksum: null,
      frame: 6
    })
    expect(driver.requests.settledNames).toEqual(['a'])
    driver.in('a', update(128, 131, [['9137.35', '1.5']]))
    expect(updates()[2]).toMatchObject({
      event_type: 'update',
      bids: [['9137.35', '1.5', '0', null]],
      asks: [],
      seqId: 131,
      prevSeqId: 128,
      exchange_time: '2019-11-08T07:53:28.679Z'
    })
    expect(details('gap')).toEqual([])
  })

  it('too old: asked for again, not sooner than 100 ms later', () => {
    connect()
    acknowledge()
    driver.in('a', update(115, 120))
    driver.in('a', image('image-0-1', 110))
    expect(asked('req')).toHaveLength(1)
    driver.in('a', update(120, 128))
    expect(asked('req')).toHaveLength(1)
    driver.us += 500_000
    driver.in('a', update(128, 131))
    expect(asked('req').map(({ id }) => id)).toEqual(['image-0-1', 'image-0-2'])
    driver.in('a', image('image-0-2', 128))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 131 })
    expect(details('gap')).toEqual([])
  })

  it('all that waits is older: the image waits for the message that continues it', () => {
    connect()
    acknowledge()
    driver.in('a', update(110, 115))
    driver.in('a', image('image-0-1', 128))
    driver.in('a', update(115, 120))
    driver.in('a', update(120, 128))
    expect(updates()).toEqual([])
    driver.in('a', update(128, 131, [], [['9140.0', '3.0']]))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      seqId: 131,
      prevSeqId: 128,
      asks: [...book(ASKS), ['9140.0', '3.0', '0', null]]
    })
    expect(asked('req')).toHaveLength(1)
  })

  it('nothing waits yet: the same', () => {
    connect()
    acknowledge()
    driver.in('a', image('image-0-1', 128))
    expect(updates()).toEqual([])
    driver.in('a', update(128, 128))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 128 })
  })

  it('an image that waits turns out too old', () => {
    connect()
    acknowledge()
    driver.in('a', image('image-0-1', 118))
    driver.in('a', update(115, 120))
    driver.in('a', update(120, 128))
    driver.pass('a', 1000)
    expect(asked('req')).toHaveLength(2)
    driver.in('a', image('image-0-2', 120))
    expect(updates().at(-1)).toMatchObject({ seqId: 128 })
  })

  it('an image waits for 5 s and no longer', () => {
    connect()
    acknowledge()
    driver.in('a', image('image-0-1', 500))
    for (let n = 0; n < 4; n++) {
      driver.pass('a', 1000)
      driver.in('a', update(100 + n, 101 + n))
    }
    expect(asked('req')).toHaveLength(1)
    driver.pass('a', 3000)
    expect(asked('req')).toHaveLength(2)
    driver.in('a', update(500, 501))
    expect(updates()).toEqual([])
  })

  it('data that is null right after a subscription: asked for again', () => {
    connect()
    acknowledge()
    driver.in('a', `{"id":"image-0-1","rep":"${BOOK}","status":"ok","ts":1,"data":null}`)
    expect(asked('req')).toHaveLength(1)
    driver.pass('a', 1000)
    expect(asked('req')).toHaveLength(2)
    expect(driver.requests.logs).toEqual([])
  })

  it.each([
    ['an image without a number', (text: string) => text.replace('seqNum', 'seq')],
    ['an image without asks', (text: string) => text.replace('"asks"', '"offers"')],
    ['an image of another topic', (text: string) => text.replace('btcusdt', 'ethusdt')],
    ['an image with words', (text: string) => text.replace('9137.67', '"abc"')],
    ['an image that is no object', (text: string) => text.replace(/"data":.*$/, '"data":[1]}')]
  ])('%s: kept, and asked for again', (_, change) => {
    connect()
    acknowledge()
    driver.in('a', update(115, 120))
    const text = image('image-0-1', 115)
    expect(change(text)).not.toBe(text)
    driver.in('a', change(text))
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
    driver.pass('a', 1000)
    driver.in('a', image('image-0-2', 115))
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it.each(['429 too many request', 'request timeout'])('%s: asked for again', message => {
    connect()
    acknowledge()
    driver.in('a', error('image-0-1', message))
    expect(details('refused')).toEqual([])
    driver.pass('a', 1000)
    expect(asked('req').map(({ id }) => id)).toEqual(['image-0-1', 'image-0-2'])
  })

  it('no answer at all: asked for again after 30 s', () => {
    connect()
    acknowledge()
    wait(29)
    expect(asked('req')).toHaveLength(1)
    wait(3)
    expect(asked('req')).toHaveLength(2)
    // The late answer to the first request means nothing.
    driver.in('a', image('image-0-1', 128))
    expect(updates()).toEqual([])
  })

  it('a hole between what waits: only an image from behind it will do', () => {
    connect()
    acknowledge()
    driver.in('a', update(110, 115))
    driver.in('a', update(115, 120))
    driver.in('a', update(128, 131))
    driver.in('a', image('image-0-1', 115))
    expect(updates()).toEqual([])
    driver.pass('a', 1000)
    driver.in('a', image('image-0-2', 128))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 131 })
    expect(details('gap')).toEqual([])
  })

  it('what came twice while it waited counts once', () => {
    connect()
    acknowledge()
    for (const text of [update(115, 120), update(115, 120), update(120, 128), update(120, 128)]) driver.in('a', text)
    driver.in('a', image('image-0-1', 115))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 128, prevSeqId: 120 })
  })

  it('what waits is bounded: the oldest goes, and then an image must be newer', () => {
    connect()
    acknowledge()
    for (let n = 0; n <= 20_000; n++) driver.in('a', update(n, n + 1))
    driver.in('a', image('image-0-1', 5000))
    expect(updates()).toEqual([])
    driver.us += 600_000
    driver.in('a', update(20_001, 20_002))
    driver.in('a', image(imageAsked(), 19_000))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 20_002 })
  })
})

describe('step 4: the chain', () => {
  it('messages without levels move the number on', () => {
    driver.in('a', update(128, 131))
    driver.in('a', update(131, 131))
    driver.in('a', update(131, 140, [['9000.5', '1.0']]))
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update', 'update'])
    expect(updates()[2]).toMatchObject({ bids: [], asks: [], seqId: 131, prevSeqId: 128 })
    expect(details('gap')).toEqual([])
  })

  it('a broken link is one gap, heals with a new image, and asks for it once', () => {
    driver.pass('a', 2000)
    driver.in('a', update(131, 140, [['9000.0', '1.0']]))
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 128, received: 131 }])
    expect(types().at(-1)).toBe('gap')
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, seqId: 128 })
    for (let n = 0; n < 5; n++) driver.in('a', update(140 + n, 141 + n))
    driver.pass('a', 2000)
    expect(asked('req')).toHaveLength(2)
    expect(asked('unsub')).toEqual([])
    // The message that revealed the gap may be the first of the new book.
    driver.in('a', image('image-0-2', 131))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 145 })
    expect(updates().at(-1)!.bids).toContainEqual(['9000.0', '1.0', '0', null])
    expect(details('gap')).toHaveLength(1)
    expect(details('synced')).toHaveLength(2)
    expect(details('synced')[1]).toMatchObject({ down_ms: expect.any(Number) })
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['GAP DETECTED', 'Forced resubscribe'])
  })

  it('a gap concerns its own instrument', () => {
    connect({}, ['btcusdt', 'ethusdt'])
    acknowledge()
    const eth = (text: string) => text.replaceAll('btcusdt', 'ethusdt')
    driver.in('a', update(120, 128))
    driver.in('a', eth(update(5, 6)))
    driver.in('a', image('image-0-1', 120))
    driver.in('a', eth(image('image-1-2', 5)))
    driver.in('a', update(131, 140))
    driver.in('a', eth(update(6, 7)))
    expect(driver.sink.statuses('gap').map(row => row.instId)).toEqual(['btcusdt'])
    expect(driver.sink.records('l2_updates', 'ethusdt').at(-1)).toMatchObject({ event_type: 'update', seqId: 7 })
  })

  it('the same message twice is applied once', () => {
    driver.in('a', update(128, 131, [['9000.0', '1.0']]))
    driver.in('a', update(128, 131, [['9000.0', '1.0']]))
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it('two messages in the wrong order are one gap, and what came is enough for the new image', () => {
    driver.in('a', update(131, 140))
    driver.in('a', update(128, 131))
    driver.in('a', update(140, 150))
    expect(details('gap')).toHaveLength(1)
    driver.in('a', image(imageAsked(), 140))
    // 128→131 stands behind 131→140 in what waited: it is older than the image and dropped.
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 150 })
  })

  it('numbers may jump, and start again smaller, as long as the link holds', () => {
    driver.in('a', update(128, 1_000_000))
    driver.in('a', update(1_000_000, 3))
    driver.in('a', update(3, 5))
    expect(details('gap')).toEqual([])
    expect(updates().at(-1)).toMatchObject({ seqId: 5 })
  })

  it('zero removes however it is written, and removing what is not there means nothing', () => {
    driver.in(
      'a',
      update(
        128,
        131,
        [['9137.67', '0']],
        [
          ['9137.68', '0.000000'],
          ['99999.0', '0.0']
        ]
      )
    )
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '9137.35', best_ask: '9138.0', mid_price: '9137.675' })
    expect(updates().at(-1)!.bids).toEqual([['9137.67', '0', '0', null]])
  })

  it.each([
    ['9.13767E3', '0.0'],
    ['9.13767E3', '0.000000000000000000'],
    ['9137.67', '0.000000000000000000'],
    ['9137.67', '0.0E1']
  ])('%s of %s is gone', (price, size) => {
    driver.in('a', update(128, 131, [[price, size]]))
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '9137.35' })
    expect(updates().at(-1)!.bids).toEqual([[price, size, '0', null]])
  })

  it('a price counts by its value, whatever its text', () => {
    driver.in('a', update(128, 131, [['9137.670', '1.5']]))
    driver.pass('a', 2000)
    expect((shots().at(-1)!.bids_top400 as unknown[])[0]).toEqual(['9137.670', '1.5', '0', null])
    driver.in('a', update(131, 132, [['9.13767E3', '0E0']]))
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '9137.35' })
  })

  it('exponents and long fractions stay as they were sent, and count exactly', () => {
    connect()
    acknowledge()
    driver.in('a', update(1, 2, [['9.121E-7', '92730.24']], [['9.486E-7', '26.755973959140651643']]))
    driver.in('a', image('image-0-1', 1, [['9.12E-7', '1.01748847777E7']], [['0.00000095', '1.98E-4']]))
    driver.in('a', update(2, 3, [['9.1205e-7', '0.123456789012345678']]))
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({
      bids_top400: [
        ['9.121E-7', '92730.24', '0', null],
        ['9.1205e-7', '0.123456789012345678', '0', null],
        ['9.12E-7', '1.01748847777E7', '0', null]
      ],
      asks_top400: [
        ['9.486E-7', '26.755973959140651643', '0', null],
        ['0.00000095', '1.98E-4', '0', null]
      ],
      mid_price: '0.00000093035'
    })
    driver.in('a', update(3, 4, [['0.0000009121', '0.0']]))
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '9.1205e-7' })
    expect(details('gap')).toEqual([])
  })
})

describe('frames of another form', () => {
  const usual = update(128, 131, [['9000.5', '1.5E-4']], [['9200.0', '0.25']])
  it.each([
    ['white space', (text: string) => text.replaceAll(',', ' , '), 'msg'],
    ['line breaks', (text: string) => text.replaceAll(',', ',\n'), 'text'],
    [
      'another order of the tick',
      (text: string) => text.replace(/("seqNum":131,"prevSeqNum":128),(.*)\}\}/, '$2,$1}}'),
      'msg'
    ],
    ['another order', (text: string) => text.replace(/^\{("ch":"[^"]+"),("ts":\d+),(.*)\}$/, '{$3,$2,$1}'), 'msg'],
    ['other members', (text: string) => text.replace('"tick":{', '"version":1,"tick":{"new":{"a":[-1]},'), 'msg'],
    ['a third cell', (text: string) => text.replace('0.25]', '0.25,7]'), 'msg'],
    ['numbers in quotes', (text: string) => text.replace('[9200.0,0.25]', '["9200.0","0.25"]'), 'msg']
  ])('%s: the same record', (_, change, form) => {
    expect(change(usual)).not.toBe(usual)
    expect(driver.in('a', change(usual))).toBe(form)
    expect(updates().at(-1)).toMatchObject({
      event_type: 'update',
      bids: [['9000.5', '1.5E-4', '0', null]],
      asks: [['9200.0', '0.25', '0', null]],
      seqId: 131,
      exchange_time: '2019-11-08T07:53:28.679Z'
    })
    driver.in('a', update(131, 132))
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['no bids', (text: string) => text.replace('"bids"', '"bidz"')],
    ['no tick', (text: string) => text.replace('"tick"', '"tock"')],
    ['a tick that is null', (text: string) => text.replace(/"tick":.*$/, '"tick":null}')],
    ['a side that is null', (text: string) => text.replace(/"bids":.*$/, '"bids":null}}')],
    ['no number', (text: string) => text.replace('"seqNum":131,', '')],
    ['no number before', (text: string) => text.replace('"prevSeqNum":128,', '')],
    ['a number with a fraction', (text: string) => text.replace(':131,', ':131.5,')],
    ['a number beyond what is exact', (text: string) => text.replace(':131,', ':9007199254740993,')],
    ['a negative number', (text: string) => text.replace(':131,', ':-131,')],
    ['a negative size', (text: string) => text.replace('0.25', '-0.25')],
    ['a negative price', (text: string) => text.replace('9200.0', '-9200.0')],
    ['a price of too many digits', (text: string) => text.replace('9200.0', '1234567.8901234567')],
    ['a size of too many digits', (text: string) => text.replace('0.25', '0.1234567890123456789')],
    ['words', (text: string) => text.replace('0.25', '"x"')],
    ['null', (text: string) => text.replace('0.25', 'null')],
    ['too few cells', (text: string) => text.replace(',0.25', '')],
    ['levels that are objects', (text: string) => text.replace('[9200.0,0.25]', '{"price":1}')]
  ])('%s: kept, and a gap', (_, change) => {
    expect(change(usual)).not.toBe(usual)
    driver.in('a', change(usual))
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(types().at(-1)).toBe('gap')
    expect(imageAsked()).toBe('image-0-2')
  })

  it.each([
    'not JSON',
    '{"ch":',
    '[]',
    'null',
    '7',
    '{}',
    '{"ch":null}',
    '{"ch":"market.btcusdt.depth.step0","ts":1,"tick":{"bids":[[1,2]],"asks":[]}}',
    '{"ch":"market.ethusdt.mbp.400","ts":1,"tick":{"seqNum":2,"prevSeqNum":1,"asks":[],"bids":[]}}',
    '{"ch":"market.btcusdt.mbp.150","ts":1,"tick":{"seqNum":2,"prevSeqNum":1,"asks":[],"bids":[]}}',
    '{"ch":"market.btcusdt.trade.detail","ts":1,"tick":null}',
    '{"rep":"market.btcusdt.mbp.400","id":"image-0-9","data":null}',
    '{"subbed":"__proto__"}',
    '{"unsubbed":"constructor"}',
    '{"status":"error","id":"__proto__"}',
    `{"__proto__":{"ping":1}}`,
    '['.repeat(200)
  ])('%s belongs to no book', text => {
    driver.in('a', text)
    expect(details('gap')).toEqual([])
    expect(asked('pong')).toEqual([])
    driver.in('a', update(128, 131))
    expect(types().at(-1)).toBe('update')
  })
})

describe('trades', () => {
  const detail = (rowsText: string) =>
    `{"ch":"${TRADES}","ts":1618678027942,"tick":{"id":100182534526,"ts":1618678027940,"data":[${rowsText}]}}`
  const row = (tradeId: string, time: number, changes = '"amount":20995.88,"price":9.2E-7,"direction":"buy"') =>
    `{"id":100182534526255757567432481,"ts":${time},"tradeId":${tradeId},${changes}}`

  beforeEach(() => {
    connect({}, ['btcusdt'], ['trades'])
    acknowledge()
  })

  it('the text of numbers as sent, the id by tradeId, the side of the taker', () => {
    driver.in('a', detail(row('100045088885', ms())))
    driver.in('a', detail(row('100045088886', ms(), '"amount":1.98E-4,"price":58911.07,"direction":"sell"')))
    expect(trades()).toMatchObject([
      {
        channel: 'trades',
        trade_id: '100045088885',
        side: 'buy',
        price: '9.2E-7',
        size: '20995.88',
        metadata: { id: '100182534526255757567432481' }
      },
      { trade_id: '100045088886', side: 'sell', price: '58911.07', size: '1.98E-4' }
    ])
    expect(trades()[0]!.metadata).toEqual({ id: '100182534526255757567432481' })
  })

  it('several fills of one frame, which come newest first, and each id once', () => {
    const frame = detail([row('12', ms()), row('11', ms()), row('10', ms())].join(','))
    driver.in('a', frame)
    driver.in('a', frame)
    expect(trades().map(trade => trade.trade_id)).toEqual(['10', '11', '12'])
  })

  it('what is older than the subscription is history', () => {
    driver.in('a', detail(row('1', ms() - 42_000)))
    driver.in('a', detail(row('2', ms())))
    expect(trades().map(trade => (trade.metadata as Row).backfill)).toEqual([true, undefined])
  })

  it('the subscription begins when the exchange says so, by its own clock', () => {
    connect({}, ['btcusdt'], ['trades'])
    const minuteAgo = ms() - 60_000
    driver.in('a', `{"id":"sub-1","status":"ok","subbed":"${TRADES}","ts":${minuteAgo}}`)
    driver.in('a', detail(row('1', minuteAgo - 1)))
    driver.in('a', detail(row('2', minuteAgo)))
    expect(trades().map(trade => (trade.metadata as Row).backfill)).toEqual([true, undefined])
  })

  it('data may come before its acknowledgement', () => {
    connect({}, ['btcusdt'], ['trades'])
    driver.in('a', detail(row('1', ms() - 9000)))
    acknowledge()
    driver.in('a', detail(row('2', ms())))
    expect(trades().map(trade => (trade.metadata as Row).backfill)).toEqual([true, undefined])
    expect(details('refused')).toEqual([])
  })

  it.each([
    ['no tradeId', row('1', 5).replace('tradeId', 'trade')],
    ['a tradeId with a fraction', row('1.5', 5)],
    ['a tradeId with signs', row('"a\\"b"', 5)],
    ['no time', row('1', 5).replace('"ts"', '"time"')],
    ['no taker', row('1', 5, '"amount":1,"price":2')],
    ['another taker', row('1', 5, '"amount":1,"price":2,"direction":"hold"')],
    ['a negative amount', row('1', 5, '"amount":-1,"price":2,"direction":"buy"')],
    ['a price that is a word', row('1', 5, '"amount":1,"price":"x","direction":"buy"')],
    ['no object', '7'],
    ['null', 'null']
  ])('%s: the whole frame is kept and left out, and the book is none the worse', (_, bad) => {
    driver.in('a', detail(`${row('9', ms())},${bad}`))
    expect(trades()).toEqual([])
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([
      { conn: 'a', channel: 'trades', cause: 'build_fail', expected: null, received: null }
    ])
    driver.in('a', detail(row('10', ms())))
    expect(trades()).toHaveLength(1)
  })

  it('may be silent for ever', () => {
    for (let n = 0; n < 100; n++) {
      driver.pass('a', 5000)
      driver.in('a', `{"ping":${n}}`)
    }
    expect(asked('unsub')).toEqual([])
    expect(driver.requests.hangups).toEqual([])
  })
})

describe('keep-alives and silence', () => {
  it.each(['1492420473027', '9007199254740993', '123456789012345678901234567890'])(
    'ping %s is answered at once',
    number => {
      driver.in('a', `{"ping":${number}}`)
      expect(driver.sent.at(-1)!.text).toBe(`{"pong":${number}}`)
    }
  )

  it('white space does not matter, and what is no number has no answer', () => {
    driver.in('a', '{ "ping" : 77 }')
    expect(driver.sent.at(-1)!.text).toBe('{"pong":77}')
    const before = driver.sent.length
    for (const text of ['{"ping":"x"}', '{"ping":null}', '{"ping":{"a":1}}', '{"ping":-1}']) driver.in('a', text)
    expect(driver.sent).toHaveLength(before)
  })

  it('no frame for more than 15 s: the connection is left', () => {
    driver.pass('a', 15_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 1000)
    expect(driver.requests.hangups[0]!.reason).toContain('15000 ms')
  })

  it('a mute book is subscribed again, once, though the connection pings', () => {
    for (let n = 0; n < 32; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":5}')
    }
    expect(details('stalled')).toMatchObject([{ channel: 'book' }])
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(asked('unsub')).toEqual([{ unsub: BOOK, id: 'unsub-2' }])
    // What is still on its way of the old subscription is nobody's.
    driver.in('a', update(128, 131))
    acknowledge()
    expect(asked('sub')).toHaveLength(2)
    driver.in('a', update(200, 201))
    driver.in('a', image(imageAsked(), 200))
    expect(types().slice(-2)).toEqual(['clear', 'snapshot'])
    expect(details('gap')).toHaveLength(1)
  })

  it('--stale-after decides, and messages without levels are life', () => {
    goLive({ silenceMs: 3000 })
    wait(60)
    expect(details('stalled')).toEqual([])
    for (let n = 0; n < 4; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":5}')
    }
    expect(details('stalled')).toHaveLength(1)
  })
})

describe('refusals', () => {
  it.each([
    ['invalid mbp.400.symbol btcusdt', true],
    ['invalid symbol btcusdt', true],
    ['invalid topic market.btcusdt.mbp.400', true],
    ['429 too many request', false],
    ['symbol trade not open now', false],
    ['something new', false]
  ])('%s: final %s, and nobody else is concerned', (message, final) => {
    connect({}, ['btcusdt', 'ethusdt'])
    driver.in('a', error('sub-1', message))
    expect(driver.sink.statuses('refused').map(row => [row.instId, row.detail])).toEqual([
      ['btcusdt', { conn: 'a', channel: 'book', final, code: 'bad-request', msg: message }]
    ])
    answered = 0
    driver.in('a', '{"id":"sub-2","status":"ok","subbed":"market.ethusdt.mbp.400","ts":1}')
    driver.in('a', update(1, 2).replaceAll('btcusdt', 'ethusdt'))
    driver.in('a', image('image-1-1', 1).replaceAll('btcusdt', 'ethusdt'))
    expect(driver.requests.settledNames).toEqual(final ? ['a'] : [])
    const pass = (seconds: number) => {
      for (let n = 0; n < seconds; n++) {
        driver.pass('a', 1000)
        driver.in('a', '{"ping":5}')
      }
    }
    pass(59)
    expect(asked('sub').filter(({ sub }) => sub === BOOK)).toHaveLength(1)
    pass(2)
    expect(asked('sub').filter(({ sub }) => sub === BOOK)).toHaveLength(final ? 1 : 2)
  })

  it('an id that comes back as a number, or not at all', () => {
    connect({}, ['btcusdt', 'ethusdt'])
    driver.in('a', '{"ts":1,"status":"error","err-code":"bad-request","err-msg":"invalid mbp.400.symbol ethusdt"}')
    expect(driver.sink.statuses('refused').map(row => row.instId)).toEqual(['ethusdt'])
    driver.in('a', '{"ts":1,"status":"error","code":1008,"err-msg":"invalid symbol dogeusdt","id":7}')
    expect(details('refused')).toHaveLength(1)
    expect(driver.requests.logs.at(-1)).toMatchObject({
      message: 'Error from the exchange',
      facts: { code: '1008', msg: 'invalid symbol dogeusdt' }
    })
  })

  it('quotes and numbers in words are words', () => {
    const text = '{"status":"error","err-msg":"not \\"5 -7e2\\\\","id":"x"}'
    expect(driver.in('a', text)).toBe('msg')
    expect(driver.requests.logs.at(-1)).toMatchObject({ facts: { msg: 'not "5 -7e2\\' } })
  })

  it('leaving what is not subscribed is as good as leaving', () => {
    for (let n = 0; n < 32; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":5}')
    }
    driver.in('a', error(asked('unsub')[0]!.id, `unsub with not subbed topic ${BOOK}`))
    expect(asked('sub')).toHaveLength(2)
  })

  it('neither an image under way nor what waits outlives its subscription', () => {
    connect()
    acknowledge()
    driver.in('a', update(115, 120))
    driver.in('a', `{"id":"x","status":"ok","unsubbed":"${BOOK}","ts":1}`)
    driver.in('a', image('image-0-1', 115))
    acknowledge()
    driver.in('a', image(imageAsked(), 115))
    expect(updates()).toEqual([])
    connect()
    acknowledge()
    driver.in('a', update(115, 120))
    for (let n = 0; n < 31; n++) {
      driver.pass('a', 1000)
      driver.in('a', '{"ping":5}')
    }
    expect(asked('unsub')).toHaveLength(1)
    const { id } = asked('req').at(-1)!
    driver.in('a', image(id, 115))
    expect(updates()).toEqual([])
  })

  it('a subscription that the exchange ends is a gap, and asked for again', () => {
    driver.in('a', `{"id":"x","status":"ok","unsubbed":"${BOOK}","ts":1}`)
    expect(details('gap')).toMatchObject([{ reason: 'unsubscribed' }])
    expect(asked('sub')).toHaveLength(2)
    driver.in('a', `{"id":"sub-2","status":"ok","subbed":"${BOOK}","ts":1}`)
    driver.in('a', update(200, 201))
    driver.in('a', image(imageAsked(), 200))
    expect(details('synced')).toHaveLength(2)
  })
})

describe('books that are wrong', () => {
  it('crossed for longer than 5 s: the image is asked for again', () => {
    driver.in('a', update(128, 131, [['9200.0', '1.0']]))
    driver.pass('a', 4000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 3000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    driver.in('a', update(131, 132))
    driver.in('a', image(imageAsked(), 131))
    expect(details('synced')).toHaveLength(2)
  })

  it('overload is a gap, and what comes after it waits for a new image', () => {
    driver.engine.skip(driver.us + 1, 'a', 1000, 17)
    driver.in('a', update(140, 150))
    driver.in('a', image(imageAsked(), 140))
    expect(types()).toEqual(['clear', 'snapshot', 'gap', 'clear', 'snapshot'])
  })
})

describe('state', () => {
  const pingsAndUpdates: Step[] = [
    '{"id":"sub-1","status":"ok","subbed":"market.btcusdt.mbp.400","ts":1}',
    update(110, 115),
    `{"id":"image-0-1","rep":"${BOOK}","status":"ok","ts":1,"data":null}`,
    { passMs: 600 },
    update(115, 120, [['9000.5', '1E-8']]),
    // Too old.
    image('image-0-2', 100),
    { passMs: 1200 },
    // It waits for what continues it.
    image('image-0-3', 128),
    update(120, 128),
    update(128, 131, [['9001.5', '2.0']]),
    update(131, 133, [], [['9137.68', '0.0']]),
    update(131, 133, [], [['9137.68', '0.0']]),
    '{"ping":9007199254740993}',
    { passMs: 2000 },
    // A gap.
    update(140, 150, [['9002.5', '3.0']]),
    update(150, 151),
    { passMs: 2000 },
    image('image-0-4', 140),
    update(151, 152),
    { passMs: 5000 },
    // It waits in vain.
    update(160, 170),
    { passMs: 9000 },
    image('image-0-5', 500),
    { passMs: 6000 },
    { passMs: 14_000 },
    update(170, 171),
    image('image-0-6', 170),
    update(171, 172),
    { passMs: 12_000 },
    '{"ping":1}',
    { passMs: 12_000 },
    '{"ping":2}',
    { passMs: 12_000 },
    '{"id":"unsub-2","status":"ok","unsubbed":"market.btcusdt.mbp.400","ts":1}',
    '{"id":"sub-3","status":"ok","subbed":"market.btcusdt.mbp.400","ts":1}',
    update(172, 173),
    image('image-0-7', 172),
    update(173, 174),
    { passMs: 2000 }
  ]

  it('a book goes on from its state at any moment', () => {
    const sink = expectResumable({
      exchange: huobi,
      selected: L2,
      instIds: ['btcusdt', 'ethusdt'],
      feeds: ['book'],
      steps: pingsAndUpdates
    })
    expect(sink.statuses('synced', 'btcusdt')).toHaveLength(4)
    expect(sink.statuses('gap', 'btcusdt').map(row => (row.detail as Row).reason)).toEqual([
      'sequence',
      'sequence',
      'silence'
    ])
  })

  it('trades go on from their state at any moment', () => {
    const sent = 1_600_000_000_000
    const trade = (id: number, time: number) =>
      `{"ch":"${TRADES}","ts":1,"tick":{"id":1,"ts":1,"data":[{"id":1,"ts":${time},"tradeId":${id},"amount":1.0,"price":2.0,"direction":"buy"}]}}`
    const sink = expectResumable({
      exchange: huobi,
      selected: L2,
      instIds: ['ethusdt', 'btcusdt'],
      feeds: ['trades'],
      steps: [
        '{"id":"sub-1","status":"error","err-msg":"429 too many request"}',
        `{"id":"sub-2","status":"ok","subbed":"${TRADES}","ts":${sent}}`,
        trade(1, sent - 1),
        trade(2, sent),
        trade(2, sent),
        { passMs: 9000 },
        '{"ping":1}',
        trade(3, sent + 1)
      ]
    })
    expect(sink.records('trades').map(row => row.metadata)).toEqual([
      { backfill: true, id: '1' },
      { id: '1' },
      { id: '1' }
    ])
  })
})

describe('mutated frames', () => {
  it('never throw, and whatever is taken as JSON is JSON', () => {
    const seed = 11_212_026
    const random = seeded(seed)
    let kept = 0
    let lost = 0
    for (let n = 0; n < 5000; n++) {
      if (n % 25 === 0) {
        connect({}, ['btcusdt', 'ethusdt'], ['book', 'trades'])
        driver.in('a', `{"id":"sub-1","status":"ok","subbed":"${BOOK}","ts":1}`)
        driver.in('a', update(120, 128))
        driver.in('a', image('image-0-1', 120))
      }
      const base = [
        update(128, 128, [['9000.5', '1.5E-4']]),
        update(128, 128, [], [['9200.25', '0.123456789012345678']]),
        image('image-1-2', 7).replaceAll('btcusdt', 'ethusdt'),
        `{"ch":"${TRADES}","ts":1,"tick":{"id":1,"ts":1,"data":[{"id":100182534526255757567432481,"ts":5,"tradeId":${n},"amount":1.0,"price":2.0E-7,"direction":"buy"}]}}`,
        '{"id":"sub-2","status":"ok","subbed":"market.ethusdt.mbp.400","ts":1}',
        error('sub-2', 'invalid symbol ethusdt'),
        '{"ping":1492420473027}'
      ]
      const text = mutate(base[n % base.length]!, random)
      const where = `seed ${seed}, frame ${n}: ${text}`
      if (takesHostile(driver, 'a', text, where)) kept++
      driver.tick('a')
      if (n % 25 !== 24) continue
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
      for (const { text: sent } of driver.sent) expect(() => JSON.parse(sent), where).not.toThrow()
      lost += details('gap').length
    }
    expect(kept).toBeGreaterThan(500)
    expect(kept).toBeLessThan(4500)
    expect(lost).toBeGreaterThan(50)
  })
})

describe.skipIf(!hasRecordings)(`recordings${NEEDS_RECORDINGS}`, () => {
  it('huobi-mbp150-excerpt: the image joins, its one link holds, and the hole that the source left is one gap', () => {
    const frames = loadFrames('huobi-mbp150-excerpt')
    driver = new Driver(huobi, {}, frames[0]!.us - 1000)
    driver.open('a', ['btcusdt'], { ...L2, channel: 'mbp.150' }, null, ['book'])
    driver.in('a', '{"id":"sub-1","status":"ok","subbed":"market.btcusdt.mbp.150","ts":1}')
    // The refresh answers a request that the recorder named 1.
    play(
      driver,
      'a',
      frames.map(({ us, text }) => ({ us, text: text.replace('"id":"1"', '"id":"image-0-1"') }))
    )
    expect(types()).toEqual(['clear', 'snapshot', 'gap'])
    // S = 109409288160: two messages are contained in it, 109409288160→204 and 204→226 are applied.
    expect(updates()[1]).toMatchObject({ seqId: 109_409_288_226, prevSeqId: 109_409_288_204, channel: 'mbp.150' })
    expect(updates()[1]!.asks).toContainEqual(['9138.67', '0.042194', '0', null])
    expect(updates()[1]!.bids).toContainEqual(['9135.96', '0.0622', '0', null])
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 109_409_288_226, received: 109_409_288_500 }])
    expect(imageAsked()).toBe('image-0-2')
  })

  it('huobi-mbp150-excerpt: 3 links right, the 4th is the gap', () => {
    const frames = loadFrames('huobi-mbp150-excerpt').filter(({ text }) => !text.includes('"rep"'))
    driver = new Driver(huobi, {}, frames[0]!.us - 1000)
    driver.open('a', ['btcusdt'], { ...L2, channel: 'mbp.150' }, null, ['book'])
    driver.in('a', '{"id":"sub-1","status":"ok","subbed":"market.btcusdt.mbp.150","ts":1}')
    const data = '{"seqNum":109409288078,"bids":[],"asks":[]}'
    driver.in('a', `{"id":"image-0-1","rep":"market.btcusdt.mbp.150","status":"ok","ts":1,"data":${data}}`)
    play(driver, 'a', frames)
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update', 'update', 'gap'])
    expect(details('gap')).toHaveLength(1)
  })

  it('huobi-depth-step0-1: trades of 10 pairs, the old ones as history; other topics mean nothing', () => {
    const frames = loadFrames('huobi-depth-step0-1')
    const pairs = [
      ...new Set(frames.map(({ text }) => /"market\.(\w+)\.trade/.exec(text)?.[1]).filter(Boolean))
    ] as string[]
    expect(pairs).toHaveLength(10)
    driver = new Driver(huobi, {}, frames[0]!.us - 1000)
    driver.open('a', pairs, L2, null, ['trades'])
    play(driver, 'a', frames)
    const sent = frames.flatMap(({ text }) =>
      [...text.matchAll(/"tradeId":(\d+),"amount":([^,]+),"price":([^,]+),"direction":"(\w+)"/g)].map(match =>
        match.slice(1)
      )
    )
    expect(sent).toHaveLength(73)
    const written = trades().map(row => [row.trade_id, row.size, row.price, row.side])
    expect(written.toSorted()).toEqual(sent.toSorted())
    expect(written.filter(([, size, price]) => `${size}${price}`.includes('E')).length).toBeGreaterThan(50)
    // The first message of each pair is old; that of zeneth has two fills.
    expect(trades().filter(row => (row.metadata as Row).backfill)).toHaveLength(11)
    for (const pair of pairs) {
      const ids = driver.sink.records('trades', pair).map(row => Number(row.trade_id))
      expect(ids).toEqual(ids.toSorted((a, b) => a - b))
    }
    expect(asked('pong').map(({ pong }) => pong)).toEqual([
      1618678073643, 1618678078643, 1618678083643, 1618678088643, 1618678093643, 1618678098643
    ])
    expect(driver.requests.logs).toEqual([])
    expect(details('gap')).toEqual([])
  })

  it('huobi-depth-step0-1: what was on the wire is gzip of the text', () => {
    const lines = gunzipSync(readFileSync(`${RECORDINGS}huobi-depth-step0-1.jsonl.gz`))
      .toString()
      .split('\n')
      .filter(Boolean)
    const binary = lines.map(line => JSON.parse(line) as Row).filter(line => line.enc === 'gzip')
    expect(binary).toHaveLength(362)
    for (const { bin, msg } of binary) expect(gunzipSync(Buffer.from(String(bin), 'base64')).toString()).toBe(msg)
  })

  it('single frames, whatever they are, lead to no error; those of our trades are trades', () => {
    const lines = gunzipSync(readFileSync(`${RECORDINGS}single-frames-1.jsonl.gz`))
      .toString()
      .split('\n')
      .filter(Boolean)
    const texts = lines
      .map(line => JSON.parse(line) as Row)
      .filter(line => line.exchange === 'huobi' && line.dir === 'in')
    expect(texts).toHaveLength(46)
    connect({}, ['btcusdt'], ['book', 'trades'])
    for (const { msg } of texts) expect(driver.in('a', String(msg))).toBe('msg')
    expect(trades()).toMatchObject([{ trade_id: '102357140867', size: '1.98E-4', price: '58911.07', side: 'sell' }])
    expect(driver.requests.logs).toEqual([])
  })
})
