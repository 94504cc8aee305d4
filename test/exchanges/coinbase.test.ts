import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { beforeEach, describe, expect, it } from 'vitest'
import { Engine, STATE_VERSION, type StateDetail } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { FeedKind } from '../../src/core/instrument.ts'
import { coinbase } from '../../src/exchanges/coinbase.ts'
import { signCoinbase } from '../../src/exchanges/coinbase-channels.ts'
import { worstFirst } from '../../src/exchanges/coinbase-reader.ts'
import type { Credentials, Selection } from '../../src/exchanges/exchange.ts'
import {
  Driver,
  described,
  hasRecordings,
  loadFrames,
  MemorySink,
  NEEDS_RECORDINGS,
  play,
  RecordedRequests,
  type Row,
  START_US
} from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'

// Every frame here is made by hand; real ones are those of the recordings.

const LEVEL3: Selection = { level: 'l3', market: null, channel: null, updateSpeed: null }
const FULL: Selection = { ...LEVEL3, channel: 'full' }
const LEVEL2: Selection = { ...LEVEL3, level: 'l2' }
const CREDENTIALS: Credentials = {
  key: 'the-key',
  secret: 'c2VjcmV0LWtleS1mb3ItdGVzdHM=',
  passphrase: 'the-passphrase'
}
const TIME = '2026-11-20T10:15:00.123456Z'
const NO_TIME = '0001-01-01T00:00:00.000000Z'
const BTC = 'BTC-USD'
const ETH = 'ETH-USD'

const SCHEMA = {
  change: ['type', 'product_id', 'sequence', 'order_id', 'price', 'size', 'time'],
  done: ['type', 'product_id', 'sequence', 'order_id', 'time'],
  match: ['type', 'product_id', 'sequence', 'maker_order_id', 'taker_order_id', 'price', 'size', 'time'],
  noop: ['type', 'product_id', 'sequence', 'time'],
  open: ['type', 'product_id', 'sequence', 'order_id', 'side', 'price', 'size', 'time']
}

/** A small book of REST: two orders of one bid price, one more bid, two asks. */
const BIDS = [
  ['100.00', '1.5', 'bid-1'],
  ['100.00', '2', 'bid-2'],
  ['99.5', '3', 'bid-3']
]
const ASKS = [
  ['101.00', '1', 'ask-1'],
  ['102.5', '4', 'ask-2']
]
const book = (sequence: number, bids: unknown = BIDS, asks: unknown = ASKS) => ({
  bids,
  asks,
  sequence,
  auction_mode: false,
  auction: null,
  time: TIME
})

interface Request {
  type: string
  product_ids: string[]
  channels: string[]
  signature?: string
  key?: string
  passphrase?: string
  timestamp?: string
}

let driver: Driver
let answered: number
/** What the exchange has in force on the connection: `channel product`. */
let inForce: Set<string>

/** A connection that is open; nothing was answered. */
function connect(
  selection: Selection = LEVEL3,
  instIds: readonly string[] = [BTC],
  config: Partial<EngineConfig> = {},
  feeds: readonly FeedKind[] = ['book', 'trades']
): void {
  driver = new Driver(coinbase, config, START_US, CREDENTIALS)
  answered = 0
  inForce = new Set()
  driver.open('a', instIds, selection, null, feeds)
}

const say = (value: unknown) => driver.in('a', JSON.stringify(value))
const asked = () => driver.asked('a') as Request[]
const requests = (type: string, channel: string) =>
  asked().filter(request => request.type === type && request.channels.includes(channel))

function list(): unknown {
  const channels = new Map<string, string[]>()
  for (const entry of inForce) {
    const [name, product] = entry.split(' ') as [string, string]
    channels.set(name, [...(channels.get(name) ?? []), product])
  }
  return {
    type: 'subscriptions',
    channels: [...channels].map(([name, product_ids]) => ({ name, product_ids, account_ids: null }))
  }
}

/** Answers what was asked, as the exchange does; `only` so many messages. */
function answer(only = Number.POSITIVE_INFINITY): void {
  for (let count = 0; answered < driver.sent.length && count < only; count++) {
    const { type, product_ids, channels } = JSON.parse(driver.sent[answered++]!.text) as Request
    for (const channel of channels) {
      for (const product of product_ids) {
        if (type === 'subscribe') inForce.add(`${channel} ${product}`)
        else inForce.delete(`${channel} ${product}`)
      }
    }
    say(list())
    if (type === 'subscribe' && channels.includes('level3')) say({ type: 'level3', schema: SCHEMA })
  }
}

const micros = () => new Date(driver.us / 1000).toISOString().replace('Z', '000Z')
/** Compact messages. */
const noop = (sequence: number, product = BTC) => say(['noop', product, String(sequence), micros()])
const open = (sequence: number, id: string, side: string, price: string, size: string, product = BTC) =>
  say(['open', product, String(sequence), id, side, price, size, micros()])
const done = (sequence: number, id: string, product = BTC) => say(['done', product, String(sequence), id, micros()])
const match = (sequence: number, maker: string, size: string, price = '100.00') =>
  say(['match', BTC, String(sequence), maker, 'taker-1', price, size, micros()])
const change = (sequence: number, id: string, price: string, size: string) =>
  say(['change', BTC, String(sequence), id, price, size, micros()])
/** A message of `full`. */
const full = (sequence: number, type: string, fields: Row, product = BTC) =>
  say({ type, product_id: product, sequence, time: micros(), ...fields })
const heartbeat = (sequence: number, lastTradeId = 20, product = BTC) =>
  say({ type: 'heartbeat', sequence, last_trade_id: lastTradeId, product_id: product, time: micros() })
const trade = (id: unknown, side = 'sell', fields: Row = {}) =>
  say({
    type: 'match',
    trade_id: id,
    maker_order_id: 'maker-1',
    taker_order_id: 'taker-1',
    side,
    size: '0.5',
    price: '101.00',
    product_id: BTC,
    sequence: 50,
    time: micros(),
    ...fields
  })

/** The products whose image was asked for, oldest first. */
const imagesAsked = () =>
  driver
    .fetches('a')
    .filter(path => path.includes('/book'))
    .map(path => /products\/([^/]+)\/book\?level=3$/.exec(path)?.[1])
const image = (sequence: number, status = 200) => driver.fetched('a', status, book(sequence))

/** A connection whose books are live at number 100, after a first message. */
function goLive(
  selection: Selection = LEVEL3,
  instIds: readonly string[] = [BTC],
  config: Partial<EngineConfig> = {},
  feeds: readonly FeedKind[] = ['book', 'trades']
): void {
  connect(selection, instIds, config, feeds)
  answer()
  for (const product of instIds) {
    if (selection.level === 'l2') snapshot(product)
    else {
      if (selection.channel === 'full') full(100, 'received', RECEIVED, product)
      else noop(100, product)
      driver.fetched('a', 200, book(100))
    }
  }
}

const RECEIVED = { order_id: 'received-1', order_type: 'limit', size: '1', price: '90', side: 'buy' }
const snapshot = (product = BTC) =>
  say({
    type: 'snapshot',
    product_id: product,
    asks: ASKS.map(row => row.slice(0, 2)),
    bids: [
      ['100.00', '3.5'],
      ['99.5', '3']
    ],
    time: TIME
  })
const l2update = (changes: readonly string[][], product = BTC, time = TIME) =>
  say({ type: 'l2update', product_id: product, changes, time })

const events = (name = BTC) => driver.sink.records('l3_events', name)
const updates = (name = BTC) => driver.sink.records('l2_updates', name)
const types = (name = BTC) => [...events(name), ...updates(name)].map(row => row.event_type)
const details = (event: string, name?: string) => driver.sink.statuses(event, name).map(row => row.detail as Row)
const shots = (name = BTC) => [...driver.sink.records('l3_spot', name), ...driver.sink.records('l2_spot', name)]
const trades = () => driver.sink.records('trades')
const logs = () => driver.requests.logs.map(({ message }) => message)
/** The levels that a snapshot shows now. */
function shown(name = BTC): { bids: unknown; asks: unknown; seqId: unknown } {
  driver.pass('a', 2000)
  const { bids_top400: bids, asks_top400: asks, seqId } = shots(name).at(-1)!
  return { bids, asks, seqId }
}
const since = (count: number) => events().slice(count)
const START_EVENTS = ['clear', ...BIDS.map(() => 'snapshot'), ...ASKS.map(() => 'snapshot')]

beforeEach(() => goLive())

describe('subscribing', () => {
  it('asks for all products of a connection in one message, signed', () => {
    connect(LEVEL3, [BTC, ETH])
    const timestamp = String(Math.floor(driver.us / 1_000_000))
    const signature = createHmac('sha256', Buffer.from(CREDENTIALS.secret, 'base64'))
      .update(`${timestamp}GET/users/self/verify`)
      .digest('base64')
    expect(asked()).toEqual([
      {
        type: 'subscribe',
        product_ids: [BTC, ETH],
        channels: ['level3', 'matches', 'heartbeat'],
        signature,
        key: 'the-key',
        passphrase: 'the-passphrase',
        timestamp
      }
    ])
  })

  it('signs as the documented example does', () => {
    expect(signCoinbase('c2VjcmV0LWtleS1mb3ItdGVzdHM=', '1700000000')).toBe(
      'oOrqpgGmEQdfLMOzUGoh415ktBSu9q7sOnYvsg1oBVc='
    )
  })

  it('records no secret, but that there were some', () => {
    const { recorded, text } = driver.requests.sent[0]!
    expect(recorded).toContain('"signature":"***","key":"***","passphrase":"***","timestamp":"')
    expect({ ...JSON.parse(text), signature: '***', key: '***', passphrase: '***' }).toEqual(JSON.parse(recorded))
    for (const secret of [...Object.values(CREDENTIALS), asked()[0]!.signature!]) {
      expect(recorded).not.toContain(secret)
      for (const line of driver.sink.lines) expect(line.text).not.toContain(secret)
      expect(JSON.stringify(driver.requests.logs)).not.toContain(secret)
    }
  })

  it.each([
    [FULL, ['book', 'trades'], ['full', 'heartbeat']],
    [FULL, ['book'], ['full', 'heartbeat']],
    [LEVEL3, ['book'], ['level3', 'heartbeat']],
    [LEVEL2, ['book', 'trades'], ['level2_batch', 'matches', 'heartbeat']],
    [LEVEL2, ['book'], ['level2_batch', 'heartbeat']]
  ] as const)('%j for %j: channels %j', (selection, feeds, channels) => {
    connect(selection, [BTC], {}, feeds)
    expect(asked()).toHaveLength(1)
    expect(asked()[0]).toMatchObject({ type: 'subscribe', channels })
    expect(asked()[0]!.signature === undefined).toBe(selection.level === 'l2')
  })

  it('tells what it can prove', () => {
    expect(details('subscribed')).toEqual([
      { conn: 'a', channel: 'level3', proof: { sequence: 'instrument', checksum: false } }
    ])
    goLive(LEVEL2)
    expect(details('subscribed')).toEqual([
      { conn: 'a', channel: 'level2_batch', proof: { sequence: 'none', checksum: false } }
    ])
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('data that come before the list acknowledge it, and a list without it takes nothing back', () => {
    connect()
    noop(100)
    expect(details('subscribed')).toHaveLength(1)
    say({ type: 'subscriptions', channels: [{ name: 'heartbeat', product_ids: [BTC] }] })
    image(100)
    answer()
    open(101, 'bid-9', 'buy', '90', '1')
    expect(details('subscribed')).toHaveLength(1)
    expect(types()).toEqual([...START_EVENTS, 'open'])
    expect(details('gap')).toEqual([])
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    driver.pass('a', 9000)
    heartbeat(100)
    driver.pass('a', 5900)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 1000)
    expect(driver.requests.hangups).toEqual([{ connection: 'a', reason: 'no acknowledgement within 15000 ms' }])
  })

  it('an image that was asked for before the subscription ended is none', () => {
    connect()
    answer()
    noop(100)
    inForce.delete(`level3 ${BTC}`)
    say(list())
    image(100)
    expect(events()).toEqual([])
    answer()
    noop(200)
    image(200)
    expect(types()).toEqual(START_EVENTS)
  })

  it('a subscription that the exchange ends is a gap, and asked for again', () => {
    inForce.delete(`level3 ${BTC}`)
    say(list())
    expect(details('gap')).toMatchObject([{ reason: 'unsubscribed' }])
    expect(requests('subscribe', 'level3')).toHaveLength(2)
    answer()
    noop(200)
    image(200)
    expect(details('synced')).toHaveLength(2)
  })
})

describe('the recipe', () => {
  it('step 1: messages are queued, and the image asked for with the first of them', () => {
    connect()
    answer()
    expect(imagesAsked()).toEqual([])
    noop(99)
    expect(imagesAsked()).toEqual([BTC])
    open(100, 'bid-9', 'buy', '90', '1')
    open(101, 'bid-10', 'buy', '90', '1')
    expect(imagesAsked()).toEqual([BTC])
    expect(events()).toEqual([])
  })

  it('step 1: a quiet market gets its image without a message', () => {
    connect()
    answer()
    driver.pass('a', 1900)
    expect(imagesAsked()).toEqual([])
    driver.pass('a', 1000)
    expect(imagesAsked()).toEqual([BTC])
    image(100)
    open(101, 'bid-9', 'buy', '90', '1')
    expect(types()).toEqual([...START_EVENTS, 'open'])
  })

  it('step 2: the image is the book, in the order of the queue', () => {
    expect(events().map(row => [row.event_type, row.side, row.order_id, row.price, row.size, row.sequence])).toEqual([
      ['clear', null, null, null, null, null],
      ['snapshot', 'bid', 'bid-1', '100.00', '1.5', 100],
      ['snapshot', 'bid', 'bid-2', '100.00', '2', 100],
      ['snapshot', 'bid', 'bid-3', '99.5', '3', 100],
      ['snapshot', 'ask', 'ask-1', '101.00', '1', 100],
      ['snapshot', 'ask', 'ask-2', '102.5', '4', 100]
    ])
    expect(shown()).toEqual({
      bids: [
        ['100.00', '3.5', '0', '2'],
        ['99.5', '3', '0', '1']
      ],
      asks: [
        ['101.00', '1', '0', '1'],
        ['102.5', '4', '0', '1']
      ],
      seqId: 100
    })
    expect(shots()[0]).toMatchObject({ prevSeqId: null, checksum: null, stats: { total_orders: 5, spread: '1' } })
  })

  it('steps 3 and 4: the documented example', () => {
    connect()
    answer()
    // With 99 and 100 the image would be another one: it has them already.
    open(99, 'bid-1', 'buy', '100.00', '1.5')
    done(100, 'bid-3')
    open(101, 'bid-9', 'buy', '98', '1')
    match(102, 'bid-1', '0.5')
    image(100)
    expect(events().map(row => [row.event_type, row.order_id, row.size, row.last])).toEqual([
      ['clear', null, null, false],
      ['snapshot', 'bid-1', '1', false],
      ['snapshot', 'bid-2', '2', false],
      ['snapshot', 'bid-3', '3', false],
      ['snapshot', 'bid-9', '1', false],
      ['snapshot', 'ask-1', '1', false],
      ['snapshot', 'ask-2', '4', true]
    ])
    match(102, 'bid-1', '0.5')
    expect(events()).toHaveLength(7)
    expect(shown().seqId).toBe(102)
    expect(details('gap')).toEqual([])
    noop(104)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 103, received: 104 }])
    expect(types().at(-1)).toBe('gap')
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, seqId: 102 })
  })

  it('step 5: an image older than the queue is fetched again', () => {
    connect()
    answer()
    open(102, 'bid-9', 'buy', '98', '1')
    open(103, 'bid-10', 'buy', '98', '1')
    image(100)
    expect(events()).toEqual([])
    expect(driver.requests.logs).toMatchObject([
      { level: 'warn', facts: { sequence: 100, why: 'it does not fit the messages' } }
    ])
    driver.pass('a', 1000)
    expect(imagesAsked()).toEqual([BTC, BTC])
    image(103)
    expect(types()).toEqual(START_EVENTS)
    noop(104)
    expect(shown().seqId).toBe(104)
    expect(details('gap')).toEqual([])
  })

  it('step 5: an image that ends where the queue begins fits', () => {
    connect()
    answer()
    open(101, 'bid-9', 'buy', '98', '1')
    image(100)
    expect(types()).toEqual([...START_EVENTS, 'snapshot'])
  })

  it('a hole in what waits needs an image that is newer', () => {
    connect()
    answer()
    noop(101)
    noop(103)
    noop(104)
    image(100)
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    image(103)
    expect(types()).toEqual(START_EVENTS)
    expect(details('gap')).toEqual([])
  })

  it('what waits is applied once, however often it came', () => {
    connect()
    answer()
    open(101, 'bid-9', 'buy', '98', '1')
    open(101, 'bid-9', 'buy', '98', '1')
    match(102, 'bid-9', '0.5')
    match(102, 'bid-9', '0.5')
    image(100)
    expect(events().find(row => row.order_id === 'bid-9')).toMatchObject({ size: '0.5' })
    expect(details('gap')).toEqual([])
  })

  it('a number that no image will ever reach does not stand in the way', () => {
    noop(9_000_000_000_000_000)
    expect(details('gap')).toHaveLength(1)
    noop(101)
    driver.pass('a', 1000)
    image(101)
    expect(details('synced')).toHaveLength(1)
    driver.pass('a', 2000)
    image(101)
    expect(details('synced')).toHaveLength(2)
    noop(102)
    expect(shown().seqId).toBe(102)
  })

  it('a message that contradicts the image makes it useless, without a gap', () => {
    connect()
    answer()
    open(101, 'bid-1', 'buy', '98', '1')
    image(100)
    expect(events()).toEqual([])
    expect(logs()).toEqual(['A waiting message contradicts the image', 'Image of no use'])
    driver.pass('a', 1000)
    image(101)
    expect(types()).toEqual(START_EVENTS)
    expect(details('gap')).toEqual([])
    connect()
    answer()
    match(101, 'bid-1', '1.6')
    image(100)
    expect(events()).toEqual([])
  })

  it('one image at once, and the next one as soon as it is there', () => {
    connect(LEVEL3, [BTC, ETH])
    answer()
    noop(100)
    noop(500, ETH)
    expect(imagesAsked()).toEqual([BTC])
    image(100)
    expect(imagesAsked()).toEqual([BTC, ETH])
    image(500)
    expect(types(ETH)).toEqual(START_EVENTS)
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('an image that comes in no useful order of its rows is the same book', () => {
    connect()
    answer()
    noop(100)
    driver.fetched('a', 200, book(100, [BIDS[2], BIDS[0], BIDS[1]], [ASKS[1], ASKS[0]]))
    expect(events().map(row => row.order_id)).toEqual([null, 'bid-1', 'bid-2', 'bid-3', 'ask-1', 'ask-2'])
  })

  it('is built from the worst price on, so that nothing is moved', () => {
    const rows = ['5', '7', '5.0', '6', '7.00'].map(price => [price])
    expect(worstFirst(rows, false)).toEqual([0, 2, 3, 1, 4])
    expect(worstFirst(rows, true)).toEqual([1, 4, 3, 0, 2])
  })

  it('an empty book is a book', () => {
    connect()
    answer()
    noop(100)
    driver.fetched('a', 200, book(100, [], []))
    expect(types()).toEqual(['clear'])
    open(101, 'bid-1', 'buy', '1', '1')
    expect(shown()).toEqual({ bids: [['1', '1', '0', '1']], asks: [], seqId: 101 })
  })
})

describe('images that fail', () => {
  it.each([429, 500, 0, 404])('status %d: asked for again, later each time', status => {
    connect()
    answer()
    noop(100)
    const times: number[] = []
    for (let n = 0; n < 5; n++) {
      const before = imagesAsked().length
      driver.fetched('a', status, { message: 'x' })
      const startUs = driver.us
      while (imagesAsked().length === before) driver.pass('a', 500, 500)
      times.push((driver.us - startUs) / 1e6)
    }
    expect(times).toEqual([0.5, 1, 2, 4, 8].map(seconds => expect.closeTo(seconds, 1)))
    noop(101)
    image(100)
    expect(types()).toEqual(START_EVENTS)
    expect(details('gap')).toEqual([])
  })

  it('an image that is due is asked for with the next message', () => {
    connect()
    answer()
    noop(100)
    driver.fetched('a', 500, undefined)
    driver.us += 600_000
    expect(imagesAsked()).toHaveLength(1)
    noop(101)
    expect(imagesAsked()).toHaveLength(2)
  })

  it('one that never comes is asked for again', () => {
    connect()
    answer()
    noop(100)
    for (let n = 0; n < 125; n++) {
      heartbeat(100)
      driver.pass('a', 1000)
    }
    expect(imagesAsked()).toHaveLength(2)
  })

  it.each([
    ['no JSON', undefined],
    ['null', null],
    ['a list', []],
    ['no bids', { ...book(100), bids: undefined }],
    ['no sequence', { ...book(100), sequence: undefined }],
    ['a sequence that is no whole number', book(1.5)],
    ['a row that is none', book(100, [7])],
    ['a row of level 2', book(100, [['100', '1', 3]])],
    ['a price that is a number', book(100, [[100, '1', 'bid-1']])],
    ['a price that is none', book(100, [['1x', '1', 'bid-1']])],
    ['a price of too many digits', book(100, [['1234567.8901234567', '1', 'bid-1']])],
    ['a negative size', book(100, [['1', '-1', 'bid-1']])],
    ['an id that must not stand in a line', book(100, [['1', '1', 'a"b']])],
    ['an id of 65 letters', book(100, [['1', '1', 'a'.repeat(65)]])],
    ['a broken last row', book(100, BIDS, [...ASKS, ['1', '', 'x']])]
  ])('%s: of no use', (_, value) => {
    connect()
    answer()
    noop(100)
    driver.fetched('a', 200, value)
    expect(events()).toEqual([])
    expect(driver.requests.logs).toMatchObject([{ facts: { why: 'it has another form' } }])
    driver.pass('a', 1000)
    expect(imagesAsked()).toHaveLength(2)
    image(100)
    expect(types()).toEqual(START_EVENTS)
  })

  it('an answer nobody waits for means nothing', () => {
    driver.fetched('a', 200, book(7), 'image-0-1')
    driver.fetched('a', 200, book(7), 'image-9-9')
    driver.fetched('a', 200, book(7), '__proto__')
    expect(types()).toEqual(START_EVENTS)
  })

  it('more than 20,000 waiting messages: the oldest go, and only a newer image fits', () => {
    connect()
    answer()
    driver.stepUs = 10
    for (let sequence = 101; sequence <= 20_102; sequence++) noop(sequence)
    image(100)
    expect(events()).toEqual([])
    driver.stepUs = 1000
    driver.pass('a', 1000)
    image(20_100)
    expect(types()).toEqual(START_EVENTS)
    expect(shown().seqId).toBe(20_102)
  })

  it('50,000 orders take no time worth mentioning', () => {
    const side = (sign: number) =>
      Array.from({ length: 25_000 }, (_, n) => [String(50_000 + sign * (n + 1)), '0.1', `order-${sign}-${n}`])
    connect()
    answer()
    noop(100)
    const began = performance.now()
    driver.fetched('a', 200, book(100, side(-1), side(1)))
    // About 0.2 s; a sorted insertion from the wrong end alone takes longer than this.
    expect(performance.now() - began).toBeLessThan(5000)
    expect(events()).toHaveLength(50_001)
    expect(shown().seqId).toBe(100)
  })
})

describe('numbers', () => {
  it('a gap heals with a new image, without subscribing again, and asks once', () => {
    noop(101)
    noop(103)
    open(104, 'bid-9', 'buy', '98', '1')
    noop(106)
    noop(105)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 102, received: 103 }])
    expect(details('resubscribed')).toHaveLength(1)
    driver.pass('a', 1000)
    expect(imagesAsked()).toHaveLength(2)
    image(106)
    expect(asked()).toHaveLength(1)
    expect(details('synced').at(-1)).toMatchObject({ conn: 'a', down_ms: expect.any(Number) })
    expect(details('gap')).toHaveLength(1)
    noop(107)
    expect(shown().seqId).toBe(107)
  })

  it('the message that revealed the gap is the first one of the new book', () => {
    open(102, 'bid-9', 'buy', '98', '1')
    driver.pass('a', 1000)
    image(101)
    expect(events().slice(-2)[0]).toMatchObject({ event_type: 'snapshot' })
    expect(shown()).toMatchObject({ seqId: 102, bids: expect.arrayContaining([['98', '1', '0', '1']]) })
  })

  it('the second gap within a minute waits, and the pause grows', () => {
    let sequence = 100
    const pauses: number[] = []
    for (let n = 0; n < 4; n++) {
      sequence += 2
      const before = imagesAsked().length
      noop(sequence)
      const startUs = driver.us
      while (imagesAsked().length === before) driver.pass('a', 500, 500)
      pauses.push((driver.us - startUs) / 1e6)
      image(sequence)
    }
    expect(pauses).toEqual([0.5, 1, 2, 4].map(seconds => expect.closeTo(seconds, 1)))
    expect(details('gap')).toHaveLength(4)
    expect(details('synced')).toHaveLength(5)
  })

  it('a gap concerns its product alone', () => {
    goLive(LEVEL3, [BTC, ETH])
    noop(102)
    open(101, 'bid-9', 'buy', '98', '1', ETH)
    expect(details('gap', ETH)).toEqual([])
    expect(details('gap', BTC)).toHaveLength(1)
    expect(types(ETH)).toEqual([...START_EVENTS, 'open'])
  })

  it('old numbers are ignored', () => {
    open(101, 'bid-9', 'buy', '98', '1')
    open(101, 'bid-9', 'buy', '98', '1')
    done(100, 'bid-1')
    match(99, 'bid-1', '1')
    expect(types()).toEqual([...START_EVENTS, 'open'])
    expect(details('gap')).toEqual([])
  })

  it('noop moves the number on, and nothing else', () => {
    noop(101)
    noop(102)
    expect(types()).toEqual(START_EVENTS)
    expect(shown().seqId).toBe(102)
  })

  it('numbers that start anew are a gap, not silence', () => {
    noop(101)
    for (let sequence = 5; sequence <= 68; sequence++) noop(sequence)
    expect(details('gap')).toEqual([])
    noop(69)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 102, received: 69 }])
    driver.pass('a', 1000)
    noop(70)
    image(69)
    noop(71)
    expect(shown().seqId).toBe(71)
  })

  it('without times a long row of old numbers shows it', () => {
    const old = () => say(['noop', BTC, '5', NO_TIME])
    for (let n = 0; n < 1000; n++) old()
    expect(details('gap')).toEqual([])
    old()
    expect(details('gap')).toHaveLength(1)
  })

  it('a large number of repetitions is none', () => {
    const text = JSON.stringify(['noop', BTC, '101', micros()])
    for (let n = 0; n < 500; n++) driver.in('a', text)
    noop(102)
    for (let n = 0; n < 900; n++) driver.in('a', text)
    noop(103)
    expect(details('gap')).toEqual([])
  })

  it('an order opened twice is a book that is wrong', () => {
    open(101, 'bid-1', 'buy', '98', '1')
    expect(details('gap')).toMatchObject([{ reason: 'order_known', received: 'bid-1' }])
    driver.pass('a', 1000)
    image(101)
    expect(details('synced')).toHaveLength(2)
  })

  it('so is a match larger than the order', () => {
    match(101, 'bid-1', '1.6')
    expect(details('gap')).toMatchObject([{ reason: 'match_too_large' }])
  })
})

describe('events of level3', () => {
  const row = (event: Row) => [
    event.event_type,
    event.side,
    event.order_id,
    event.price,
    event.size,
    event.sequence,
    event.metadata
  ]

  it('open, change, match, done', () => {
    open(101, 'ask-9', 'sell', '101.00', '7')
    change(102, 'ask-9', '101.00', '5.5')
    match(103, 'ask-9', '0.5', '101.00')
    change(104, 'ask-1', '101.50', '1')
    done(105, 'ask-9')
    match(106, 'bid-1', '1.5')
    done(107, 'bid-1')
    expect(since(6).map(row)).toEqual([
      ['open', 'ask', 'ask-9', '101.00', '7', 101, {}],
      ['change', 'ask', 'ask-9', '101.00', '5.5', 102, {}],
      ['match', 'ask', 'ask-9', '101.00', '0.5', 103, { taker_order_id: 'taker-1' }],
      ['change', 'ask', 'ask-1', '101.50', '1', 104, {}],
      ['done', 'ask', 'ask-9', '101.00', '5', 105, {}],
      ['match', 'bid', 'bid-1', '100.00', '1.5', 106, { taker_order_id: 'taker-1' }]
    ])
    expect(shown()).toMatchObject({
      bids: [
        ['100.00', '2', '0', '1'],
        ['99.5', '3', '0', '1']
      ],
      asks: [
        ['101.50', '1', '0', '1'],
        ['102.5', '4', '0', '1']
      ],
      seqId: 107
    })
    expect(events().every(event => event.exchange_time !== undefined)).toBe(true)
    expect(since(6).every(event => event.last === true)).toBe(true)
  })

  it('orders that are not on the book concern nobody', () => {
    match(101, 'other-1', '1')
    done(102, 'other-1')
    change(103, 'other-1', '100', '1')
    expect(since(6)).toEqual([])
    expect(shown().seqId).toBe(103)
    expect(details('gap')).toEqual([])
  })

  it('the time is as precise as sent, and the year 1 means unknown', () => {
    say(['open', BTC, '101', 'bid-9', 'buy', '98', '1', TIME])
    say(['done', BTC, '102', 'bid-9', NO_TIME])
    expect(since(6).map(event => event.exchange_time)).toEqual([TIME, null])
  })

  it('an order that keeps its price keeps its place, another one goes to the back', () => {
    change(101, 'bid-1', '100.00', '1')
    change(102, 'bid-3', '100.00', '3')
    change(103, 'bid-2', '99', '2')
    change(104, 'bid-2', '100.00', '2')
    driver.engine.hour(driver.us, 'a', 999)
    const hour = events().slice(events().findLastIndex(({ event_type }) => event_type === 'clear'))
    expect(hour.map(event => event.order_id)).toEqual([null, 'bid-1', 'bid-3', 'bid-2', 'ask-1', 'ask-2'])
  })
})

describe('the schema', () => {
  it('names the columns: another order of them is read by it', () => {
    say({
      type: 'level3',
      schema: {
        ...SCHEMA,
        open: ['type', 'time', 'size', 'price', 'side', 'order_id', 'extra', 'sequence', 'product_id']
      }
    })
    say(['open', TIME, '7', '98', 'buy', 'bid-9', 'x', '101', BTC])
    expect(since(6)).toMatchObject([
      { event_type: 'open', side: 'bid', price: '98', size: '7', order_id: 'bid-9', exchange_time: TIME }
    ])
    noop(102)
    expect(details('gap')).toEqual([])
  })

  it('what waits by the old columns is dropped with them', () => {
    connect()
    answer()
    open(101, 'bid-9', 'buy', '98', '1')
    say({ type: 'level3', schema: { ...SCHEMA, noop: ['type', 'sequence', 'product_id'] } })
    say(['noop', '102', BTC])
    image(100)
    // The image of the first request belongs to what was dropped.
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    image(102)
    expect(types()).toEqual(START_EVENTS)
  })

  it('kinds that nobody knows are numbered like the others', () => {
    say({ type: 'level3', schema: { ...SCHEMA, pause: ['type', 'product_id', 'sequence'] } })
    say(['pause', BTC, '101'])
    noop(102)
    expect(details('gap')).toEqual([])
    expect(shown().seqId).toBe(102)
  })

  it('a column that is gone makes the messages unreadable, loudly', () => {
    say({
      type: 'level3',
      schema: { ...SCHEMA, open: ['type', 'product_id', 'sequence', 'order_id', 'price', 'size'] }
    })
    say(['open', BTC, '101', 'bid-9', '98', '1'])
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
  })

  it('so does one without products', () => {
    say({ type: 'level3', schema: { ...SCHEMA, noop: ['type', 'sequence'] } })
    say(['noop', '101', ETH])
    expect(details('gap')).toEqual([])
    say(['noop', '101', BTC])
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
  })

  it.each([null, 7, [], {}, { open: 'x' }, { open: [7] }, { open: ['x'.repeat(65)] }])('%j is none', schema => {
    say({ type: 'level3', schema })
    expect(logs()).toEqual(['Schema of another form'])
    open(101, 'bid-9', 'buy', '98', '1')
    expect(types().at(-1)).toBe('open')
  })

  it('messages before it are read by the usual columns', () => {
    connect()
    say({ type: 'subscriptions', channels: [{ name: 'level3', product_ids: [BTC] }] })
    open(101, 'bid-9', 'buy', '98', '1')
    image(100)
    expect(types()).toEqual([...START_EVENTS, 'snapshot'])
  })
})

describe('events of full', () => {
  beforeEach(() => goLive(FULL))
  const row = (event: Row) => [
    event.event_type,
    event.side,
    event.order_id,
    event.price,
    event.size,
    event.sequence,
    event.metadata
  ]

  it('received: limit, market by size, market by funds', () => {
    full(101, 'received', { ...RECEIVED, order_id: 'r-1' })
    full(102, 'received', { order_id: 'r-2', order_type: 'market', size: '3', side: 'sell' })
    full(103, 'received', { order_id: 'r-3', order_type: 'market', funds: '3000.234', side: 'buy', price: null })
    expect(since(6).map(row)).toEqual([
      ['received', 'bid', 'r-1', '90', '1', 101, { order_type: 'limit' }],
      ['received', 'ask', 'r-2', null, '3', 102, { order_type: 'market' }],
      ['received', 'bid', 'r-3', null, null, 103, { order_type: 'market', funds: '3000.234' }]
    ])
  })

  it('open, match and done of orders on the book', () => {
    full(101, 'open', { order_id: 'ask-9', side: 'sell', price: '103', remaining_size: '1.00' })
    full(102, 'match', {
      trade_id: 74,
      maker_order_id: 'ask-9',
      taker_order_id: 'taker-1',
      side: 'sell',
      price: '103',
      size: '0.25'
    })
    full(103, 'done', { order_id: 'ask-9', side: 'sell', reason: 'canceled', price: '103', remaining_size: '0.75' })
    expect(since(6).map(row)).toEqual([
      ['open', 'ask', 'ask-9', '103', '1.00', 101, {}],
      ['match', 'ask', 'ask-9', '103', '0.25', 102, { trade_id: '74', taker_order_id: 'taker-1' }],
      ['done', 'ask', 'ask-9', '103', '0.75', 103, { reason: 'canceled' }]
    ])
  })

  it('done is told of orders that a match has taken away, and of such as never rested', () => {
    full(101, 'match', {
      trade_id: 74,
      maker_order_id: 'ask-1',
      taker_order_id: 'taker-1',
      side: 'sell',
      price: '101.00',
      size: '1'
    })
    full(102, 'done', { order_id: 'ask-1', side: 'sell', reason: 'filled', price: '101.00', remaining_size: '0' })
    full(103, 'done', { order_id: 'taker-1', side: 'buy', reason: 'filled' })
    expect(since(6).map(row)).toEqual([
      ['match', 'ask', 'ask-1', '101.00', '1', 101, { trade_id: '74', taker_order_id: 'taker-1' }],
      ['done', 'ask', 'ask-1', '101.00', '0', 102, { reason: 'filled' }],
      ['done', 'bid', 'taker-1', null, null, 103, { reason: 'filled' }]
    ])
    expect(shown()).toMatchObject({ asks: [['102.5', '4', '0', '1']], seqId: 103 })
  })

  it('change: self-trade prevention, modification, and what is on no book', () => {
    full(101, 'change', {
      order_id: 'bid-1',
      side: 'buy',
      reason: 'STP',
      price: '100.00',
      old_size: '1.5',
      new_size: '1.25'
    })
    full(102, 'change', {
      order_id: 'bid-1',
      side: 'buy',
      reason: 'modify_order',
      old_size: '1.25',
      new_size: '2',
      old_price: '100.00',
      new_price: '99.75'
    })
    full(103, 'change', { order_id: 'm-1', side: 'buy', reason: 'STP', price: null, old_funds: '9', new_funds: '8' })
    full(104, 'change', { order_id: 'm-2', side: 'buy', reason: 'STP', price: null, old_size: '9', new_size: '8' })
    full(105, 'change', { order_id: 'bid-2', side: 'buy', reason: 'STP', price: null, old_size: '2', new_size: '1' })
    expect(since(6).map(row)).toEqual([
      ['change', 'bid', 'bid-1', '100.00', '1.25', 101, { reason: 'STP', old_size: '1.5' }],
      ['change', 'bid', 'bid-1', '99.75', '2', 102, { reason: 'modify_order', old_size: '1.25', old_price: '100.00' }],
      ['change', 'bid', 'bid-2', '100.00', '1', 105, { reason: 'STP', old_size: '2' }]
    ])
    expect(shown().seqId).toBe(105)
  })

  it('activate is private and not numbered: it moves no number', () => {
    say({
      type: 'activate',
      product_id: BTC,
      timestamp: '1483736448.299000',
      user_id: '12',
      profile_id: 'secret-profile',
      order_id: 'stop-1',
      stop_type: 'entry',
      side: 'buy',
      stop_price: '80',
      size: '2',
      funds: '50',
      private: true
    })
    full(101, 'done', { order_id: 'bid-1', side: 'buy', reason: 'canceled', price: '100.00', remaining_size: '1.5' })
    expect(since(6).map(row)).toEqual([
      ['activate', 'bid', 'stop-1', null, '2', 100, { stop_type: 'entry', stop_price: '80', funds: '50' }],
      ['done', 'bid', 'bid-1', '100.00', '1.5', 101, { reason: 'canceled' }]
    ])
    expect(since(6)[0]!.exchange_time).toBe('2017-01-06T21:00:48.299000Z')
    expect(driver.sink.text()).not.toContain('secret-profile')
    expect(details('gap')).toEqual([])
  })

  it('types of other channels are not numbered, new ones are', () => {
    say({ type: 'ticker', product_id: BTC, sequence: 150, price: '1' })
    say({ type: 'rfq_match', product_id: BTC, sequence: 150 })
    say({ type: 'unheard', product_id: BTC })
    heartbeat(100)
    expect(details('gap')).toEqual([])
    full(101, 'unheard', {})
    full(102, 'received', RECEIVED)
    expect(details('gap')).toEqual([])
    expect(shown().seqId).toBe(102)
  })

  it('matches are trades, once, also while the book waits for its image', () => {
    connect(FULL)
    answer()
    const fields = { maker_order_id: 'ask-1', taker_order_id: 'taker-1', side: 'sell', price: '101.00', size: '0.5' }
    full(101, 'match', { trade_id: 74, ...fields })
    full(102, 'match', { trade_id: 75, ...fields })
    image(100)
    expect(trades().map(({ trade_id, side }) => [trade_id, side])).toEqual([
      ['74', 'buy'],
      ['75', 'buy']
    ])
    expect(types()).toEqual(START_EVENTS.slice(0, -1))
    goLive(FULL, [BTC], {}, ['book'])
    full(101, 'match', { trade_id: 74, ...fields })
    expect(trades()).toEqual([])
    expect(types().at(-1)).toBe('match')
  })

  it.each([
    ['received', { order_id: 'x' }],
    ['received', { ...RECEIVED, price: 90 }],
    ['open', { order_id: 'x', side: 'buy', price: '1' }],
    ['open', { order_id: 'x', side: 'bid', price: '1', remaining_size: '1' }],
    ['open', { order_id: 'a b', side: 'buy', price: '1', remaining_size: '1' }],
    ['open', { order_id: 'x', side: 'buy', price: 'NaN', remaining_size: '1' }],
    ['done', { order_id: 'x', side: 'buy', price: '1', remaining_size: {} }],
    ['done', { side: 'buy' }],
    ['match', { maker_order_id: 'bid-1', taker_order_id: 'x', side: 'buy', price: '1', size: '1' }],
    ['match', { trade_id: 1, maker_order_id: 'bid-1', side: 'buy', price: '1', size: '1' }],
    ['change', { order_id: 'bid-1', side: 'buy', price: '1', new_size: 2 }],
    ['open', { order_id: 'x', side: 'buy', price: '1', remaining_size: '1', sequence: '1.5' }],
    ['done', { order_id: 'x', side: 'buy', sequence: -1 }],
    ['done', { order_id: 'x', side: 'buy', sequence: 2 ** 60 }]
  ] as [string, Row][])('%s %j: kept, and a gap', (type, fields) => {
    full(101, type, fields)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
  })
})

describe('compact messages of another form', () => {
  it.each([
    ['white space', (text: string) => text.replaceAll(',', ' , '), 'msg'],
    ['line breaks', (text: string) => text.replaceAll(',', ',\n'), 'text'],
    ['escapes', (text: string) => text.replace('buy', '\\u0062uy'), 'msg'],
    ['a number that is none in quotes', (text: string) => text.replace('"101"', '101'), 'msg'],
    ['another column at the end', (text: string) => text.replace(/\]$/, ',{"a":[1]}]'), 'msg']
  ])('%s: the same event', (_, other, form) => {
    const text = JSON.stringify(['open', BTC, '101', 'bid-9', 'buy', '98', '1e-7', TIME])
    expect(other(text)).not.toBe(text)
    expect(driver.in('a', other(text))).toBe(form)
    expect(since(6)).toMatchObject([{ event_type: 'open', order_id: 'bid-9', side: 'bid', price: '98', size: '1e-7' }])
    noop(102)
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['a side that is none', ['open', BTC, '101', 'bid-9', 'bid', '98', '1', TIME]],
    ['a price that is none', ['open', BTC, '101', 'bid-9', 'buy', '', '1', TIME]],
    ['a negative size', ['open', BTC, '101', 'bid-9', 'buy', '98', '-1', TIME]],
    ['a price that is a number', ['open', BTC, '101', 'bid-9', 'buy', 98, '1', TIME]],
    ['an id that must not stand in a line', ['open', BTC, '101', 'a"b', 'buy', '98', '1', TIME]],
    ['an id that is none', ['done', BTC, '101', { toString: 1 }, TIME]],
    ['a taker that is none', ['match', BTC, '101', 'bid-1', '', '98', '1', TIME]],
    ['a sequence that is none', ['noop', BTC, 'x', TIME]],
    ['a sequence that is too large', ['noop', BTC, '99999999999999999', TIME]],
    ['no sequence', ['noop', BTC]]
  ])('%s: kept, and a gap', (_, cells) => {
    expect(say(cells)).toBe('msg')
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(logs()).toContain('BUILD_FAIL: Missing required fields')
    driver.pass('a', 1000)
    image(101)
    expect(details('synced')).toHaveLength(2)
  })

  it.each([
    '[]',
    '["open"]',
    '["open",null,null]',
    '["open","XRP-USD","101"]',
    '["__proto__","BTC-USD","101"]',
    '["constructor"]',
    '[["open"]]',
    'pong',
    '{"type":"status","products":[]}',
    '{"type":"match","product_id":"__proto__"}',
    '{"type":"heartbeat","product_id":"constructor"}',
    '{"type":null}',
    '{}',
    'null',
    '7',
    '"x"',
    '["'.repeat(200),
    '['.repeat(200)
  ])('%s belongs to no book', text => {
    driver.in('a', text)
    expect(details('gap')).toEqual([])
    open(101, 'bid-9', 'buy', '98', '1')
    expect(types().at(-1)).toBe('open')
  })
})

describe('level 2', () => {
  beforeEach(() => goLive(LEVEL2))

  it('a snapshot is the book, updates set levels', () => {
    l2update([
      ['buy', '100.00', '4'],
      ['sell', '101.50', '2']
    ])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(updates()[1]).toMatchObject({
      bids: [
        ['100.00', '3.5', '0', null],
        ['99.5', '3', '0', null]
      ],
      asks: [
        ['101.00', '1', '0', null],
        ['102.5', '4', '0', null]
      ],
      seqId: null,
      checksum: null
    })
    expect(updates()[2]).toMatchObject({
      bids: [['100.00', '4', '0', null]],
      asks: [['101.50', '2', '0', null]],
      exchange_time: TIME,
      seqId: null
    })
    expect(shown()).toMatchObject({
      bids: [
        ['100.00', '4', '0', null],
        ['99.5', '3', '0', null]
      ],
      asks: [
        ['101.00', '1', '0', null],
        ['101.50', '2', '0', null],
        ['102.5', '4', '0', null]
      ]
    })
  })

  it('a price is one level, whatever zeros it ends in', () => {
    l2update([
      ['buy', '99.500000', '7'],
      ['sell', '102.50', '0.00'],
      ['buy', '100', '0.0']
    ])
    expect(shown()).toMatchObject({ bids: [['99.500000', '7', '0', null]], asks: [['101.00', '1', '0', null]] })
    l2update([
      ['buy', '99.50', '0.00000000'],
      ['sell', '101', '0']
    ])
    expect(shown()).toMatchObject({ bids: [], asks: [] })
    expect(updates().at(-1)).toMatchObject({ bids: [['99.50', '0.00000000', '0', null]] })
  })

  it('changes of one frame are applied in their order', () => {
    l2update([
      ['buy', '99', '1'],
      ['buy', '99', '0'],
      ['buy', '98', '0'],
      ['buy', '98', '2']
    ])
    expect(shown().bids).toEqual([
      ['100.00', '3.5', '0', null],
      ['99.5', '3', '0', null],
      ['98', '2', '0', null]
    ])
  })

  it('updates before the snapshot mean nothing, and the snapshot may overtake the list', () => {
    connect(LEVEL2)
    l2update([['buy', '1', '1']])
    snapshot()
    answer()
    l2update([['buy', '2', '1']])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('subscribed')).toHaveLength(1)
    expect(details('gap')).toEqual([])
  })

  it.each(['level2_batch', 'level2_50', 'level2'])('the list may call the channel %s', name => {
    connect(LEVEL2)
    say({ type: 'subscriptions', channels: [{ name, product_ids: [BTC], account_ids: null }] })
    expect(details('subscribed')).toHaveLength(1)
    snapshot()
    expect(details('synced')).toHaveLength(1)
  })

  it('a snapshot without a time, and one of the year 1', () => {
    for (const time of [undefined, NO_TIME]) {
      say({ type: 'snapshot', product_id: BTC, asks: [], bids: [['1', '1']], time })
      expect(shown()).toMatchObject({ bids: [['1', '1', '0', null]], asks: [] })
    }
    driver.in('a', `{"type":"l2update","product_id":"${BTC}","changes":[["buy","2","1"]],"time":"${NO_TIME}"}`)
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', exchange_time: null })
    expect(details('gap')).toEqual([])
  })

  it('needs its snapshot: without one it is asked for again', () => {
    connect(LEVEL2)
    answer()
    for (let n = 0; n < 16; n++) {
      heartbeat(100)
      driver.pass('a', 1000)
    }
    expect(details('resubscribed')).toMatchObject([{ reason: 'no image' }])
    answer()
    snapshot()
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it('is renewed by leaving and asking again, once', () => {
    l2update([['buy', '101.00', '1']])
    for (let n = 0; n < 7; n++) {
      heartbeat(100 + n)
      driver.pass('a', 1000)
    }
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    expect(asked().slice(1)).toEqual([
      { type: 'unsubscribe', product_ids: [BTC], channels: ['level2_batch', 'heartbeat'] }
    ])
    // What still comes of the old one changes nothing, nor does a list that still has it.
    l2update([['buy', '1', '1']])
    snapshot()
    say(list())
    expect(types().at(-1)).toBe('gap')
    expect(asked()).toHaveLength(2)
    answer(1)
    expect(asked()).toHaveLength(3)
    expect(asked()[2]).toMatchObject({ type: 'subscribe', channels: ['level2_batch', 'heartbeat'] })
    l2update([['buy', '1', '1']])
    expect(types().at(-1)).toBe('gap')
    answer()
    snapshot()
    expect(types().slice(-3)).toEqual(['gap', 'clear', 'snapshot'])
    expect(details('gap')).toHaveLength(1)
  })

  const UPDATE = `{"type":"l2update","product_id":"${BTC}","changes":[["buy","98.00","1e-7"],["sell","103","2"]],"time":"${TIME}"}`

  it.each([
    ['the usual form', (text: string) => text.replace('1e-7', '0.0000001'), 'msg'],
    ['an exponent', (text: string) => text, 'msg'],
    ['white space', (text: string) => text.replaceAll(',', ' , '), 'msg'],
    ['line breaks', (text: string) => text.replaceAll(',', ',\n'), 'text'],
    ['another order', (text: string) => text.replace(/^\{("type":"l2update"),(.*)\}$/, '{$2,$1}'), 'msg'],
    ['other fields', (text: string) => text.replace('"changes"', '"new":{"a":[1]},"changes"'), 'msg'],
    ['more digits', (text: string) => text.replace('"2"', '"123456789.123456789"'), 'msg']
  ])('%s: the same record', (_, other, form) => {
    const text = other(UPDATE)
    expect(driver.in('a', text)).toBe(form)
    const size = /98\.00"\s*,\s*"([^"]+)/.exec(text)![1]
    expect(updates().at(-1)).toMatchObject({
      event_type: 'update',
      bids: [['98.00', size, '0', null]],
      asks: [['103', expect.any(String), '0', null]],
      exchange_time: TIME
    })
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['no changes', (text: string) => text.replace('"changes"', '"changez"')],
    ['a side that is none', (text: string) => text.replace('"buy"', '"bid"')],
    ['a negative size', (text: string) => text.replace('"1e-7"', '"-1"')],
    ['a price that is a number', (text: string) => text.replace('"98.00"', '98')],
    ['a price of too many digits', (text: string) => text.replace('"98.00"', '"1234567.8901234567"')],
    ['a change that is none', (text: string) => text.replace('["buy"', '[["buy"]')],
    ['a change without a size', (text: string) => text.replace(',"2"]', ']')]
  ])('%s: kept, and a gap', (_, other) => {
    const text = other(UPDATE)
    expect(text).not.toBe(UPDATE)
    driver.in('a', text)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(types()).toEqual(['clear', 'snapshot', 'gap'])
  })

  it('a zero of another form of frame removes, too', () => {
    driver.in('a', UPDATE.replace('"98.00","1e-7"', '"99.50","0.00"').replaceAll(',', ' , '))
    expect(shown().bids).toEqual([['100.00', '3.5', '0', null]])
  })

  it('a time of another kind is none, and one that makes the frame no JSON is not taken for unknown', () => {
    expect(driver.in('a', UPDATE.replace(`"${TIME}"`, '7'))).toBe('msg')
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', exchange_time: null })
    expect(driver.in('a', UPDATE.replace('1e-7', '0.5').replace(TIME, '0001-01-01T\n'))).toBe('text')
    // Without numbers nobody knows what it said.
    expect(details('gap')).toMatchObject([{ reason: 'unreadable' }])
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'gap'])
  })

  it('a broken snapshot is none', () => {
    say({ type: 'snapshot', product_id: BTC, asks: [['1', '1']], bids: [['1', null]] })
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    answer()
    say({ type: 'snapshot', product_id: BTC, asks: [['1', '1']] })
    expect(details('synced')).toHaveLength(1)
    expect(logs().filter(text => text.startsWith('BUILD_FAIL'))).toHaveLength(2)
  })
})

describe('trades', () => {
  it('are told with the side of the taker', () => {
    trade(10, 'sell')
    trade(11, 'buy')
    expect(trades()).toMatchObject([
      { trade_id: '10', side: 'buy', price: '101.00', size: '0.5', channel: 'trades' },
      { trade_id: '11', side: 'sell' }
    ])
    expect(trades()[0]!.metadata).toEqual({ maker_order_id: 'maker-1', taker_order_id: 'taker-1', sequence: 50 })
    // What `matches` tells does not touch the book.
    expect(types()).toEqual(START_EVENTS)
  })

  it('are written once', () => {
    trade(10)
    trade(10)
    expect(trades()).toHaveLength(1)
  })

  it('the last match of before is none, but shows what was missed', () => {
    trade(9, 'sell', { type: 'last_match' })
    expect(trades()).toEqual([])
    expect(driver.fetches('a')).toHaveLength(1)
    trade(10)
    trade(13, 'sell', { type: 'last_match' })
    expect(driver.fetches('a').at(-1)).toBe(`/products/${BTC}/trades?limit=1000&after=1011`)
  })

  const history = (...ids: number[]) =>
    ids.map(id => ({ time: TIME, trade_id: id, price: '7.00000000', size: '1.00000000', side: 'buy' }))

  it('ids that are skipped are filled over REST', () => {
    trade(10)
    trade(14)
    expect(driver.fetches('a').at(-1)).toBe(`/products/${BTC}/trades?limit=1000&after=1011`)
    driver.fetched('a', 200, history(15, 14, 13, 12, 11, 10, 9))
    expect(trades().map(({ trade_id, side, metadata }) => [trade_id, side, metadata])).toEqual([
      ['10', 'buy', expect.anything()],
      ['14', 'buy', expect.anything()],
      ['11', 'sell', { backfill: true }],
      ['12', 'sell', { backfill: true }],
      ['13', 'sell', { backfill: true }]
    ])
    expect(details('gap')).toEqual([])
  })

  it('page by page', () => {
    trade(10)
    trade(2011)
    const page = (from: number) => history(...Array.from({ length: 1000 }, (_, n) => from + 999 - n))
    driver.fetched('a', 200, page(11))
    expect(driver.fetches('a').at(-1)).toBe(`/products/${BTC}/trades?limit=1000&after=2011`)
    driver.fetched('a', 200, page(1011))
    expect(trades()).toHaveLength(2002)
    expect(driver.fetches('a')).toHaveLength(3)
  })

  it('a history that cannot be had is told as a gap of the trades, not of the book', () => {
    trade(10)
    trade(14)
    for (let n = 0; n < 5; n++) {
      driver.fetched('a', 500, undefined)
      heartbeat(100, 14)
      driver.pass('a', 2000)
    }
    expect(details('gap')).toMatchObject([{ channel: 'trades', expected: 11, received: 14 }])
    expect(events().map(row => row.event_type)).toEqual(START_EVENTS)
  })

  it('rows of a history that cannot be read are told, the others kept', () => {
    trade(10)
    trade(14)
    driver.fetched('a', 200, [7, ...history(13, 12, 11), null, { trade_id: 12 }])
    expect(trades()).toHaveLength(5)
    expect(logs()).toEqual(['BUILD_FAIL: Missing required fields'])
  })

  it('heartbeats show what matches has dropped, after a second', () => {
    trade(10)
    heartbeat(100, 10)
    heartbeat(100, 12)
    expect(driver.fetches('a')).toHaveLength(1)
    heartbeat(100, 12)
    expect(driver.fetches('a').at(-1)).toContain('/trades?')
    driver.fetched('a', 200, history(12, 11, 10))
    heartbeat(100, 12)
    heartbeat(100, 12)
    expect(driver.fetches('a')).toHaveLength(2)
    expect(trades().map(({ trade_id }) => trade_id)).toEqual(['10', '11', '12'])
    expect(requests('unsubscribe', 'matches')).toEqual([])
  })

  it('while REST is away, heartbeats do not ask for more and more', () => {
    trade(10)
    for (let n = 0; n < 9; n++) {
      heartbeat(100, 12 + n)
      driver.pass('a', 1000)
      if (driver.fetches('a').length > 1) driver.fetched('a', 0, undefined)
    }
    expect(driver.fetches('a').slice(1)).toEqual(Array(4).fill(`/products/${BTC}/trades?limit=1000&after=1011`))
    expect(details('gap')).toEqual([])
    driver.pass('a', 2000)
    driver.fetched('a', 200, history(20, 19, 18, 17, 16, 15, 14, 13, 12, 11))
    heartbeat(100, 20)
    heartbeat(100, 20)
    driver.fetched('a', 200, history(20, 19, 18, 17, 16, 15, 14, 13, 12, 11))
    expect(trades()).toHaveLength(11)
    expect(details('gap')).toEqual([])
  })

  it('one that comes within the second is not fetched', () => {
    trade(10)
    heartbeat(100, 11)
    trade(11)
    heartbeat(100, 11)
    expect(driver.fetches('a')).toHaveLength(1)
  })

  it('one that REST does not have either is asked for once more only when there are newer ones', () => {
    trade(10)
    for (let n = 0; n < 30; n++) {
      heartbeat(100, 11)
      driver.pass('a', 1000)
      if (driver.fetches('a').length > 1) driver.fetched('a', 200, [])
    }
    expect(details('gap')).toMatchObject([{ channel: 'trades', expected: 11, received: 12 }])
    const count = driver.fetches('a').length
    for (let n = 0; n < 10; n++) heartbeat(100, 11)
    expect(driver.fetches('a')).toHaveLength(count)
    expect(details('gap')).toHaveLength(1)
  })

  it('a channel that drops them for long is subscribed anew', () => {
    trade(10)
    for (let n = 0; n < 40; n++) {
      heartbeat(100, 10)
      driver.pass('a', 1000)
    }
    expect(requests('unsubscribe', 'matches')).toEqual([])
    heartbeat(100, 11)
    heartbeat(100, 11)
    expect(requests('unsubscribe', 'matches')).toEqual([
      { type: 'unsubscribe', product_ids: [BTC], channels: ['matches'] }
    ])
    answer()
    expect(asked().at(-1)).toEqual({ type: 'subscribe', product_ids: [BTC], channels: ['matches', 'heartbeat'] })
    expect(details('gap')).toEqual([])
    expect(details('resubscribed')).toEqual([])
  })

  it('are not wanted with --no-trades', () => {
    goLive(LEVEL3, [BTC], {}, ['book'])
    // An earlier run has written some.
    driver.engine.subjects.get(BTC)!.knowTrades(0, ['5'])
    trade(10)
    trade(20)
    heartbeat(100, 30)
    heartbeat(100, 30)
    trade(40, 'sell', { type: 'last_match' })
    expect(trades()).toEqual([])
    expect(driver.fetches('a')).toHaveLength(1)
  })

  it.each([
    [10, 'hold', {}],
    ['x', 'buy', {}],
    [1.5, 'buy', {}],
    [10, 'buy', { price: 101 }],
    [10, 'buy', { size: '-1' }],
    [10, 'buy', { size: undefined }]
  ])('that cannot be read do not cost the book: %j %s %j', (id, side, fields) => {
    trade(id, side, fields)
    expect(trades()).toEqual([])
    expect(logs()).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([])
  })
})

describe('silence', () => {
  /** Seconds with a heartbeat that shows this number. */
  const beat = (seconds: number, sequence: (second: number) => number) => {
    for (let second = 0; second < seconds; second++) {
      heartbeat(sequence(second))
      driver.pass('a', 1000)
    }
  }

  it.each([LEVEL3, FULL, LEVEL2])('a quiet market with heartbeats is left alone: %j', selection => {
    goLive(selection)
    beat(600, () => 100)
    expect(details('stalled')).toEqual([])
    expect(asked()).toHaveLength(1)
    expect(driver.requests.hangups).toEqual([])
  })

  it.each([LEVEL3, FULL, LEVEL2])('a product without heartbeat and data is dead after 30 s: %j', selection => {
    goLive(selection, [BTC, ETH])
    const other = (seconds: number) => {
      for (let second = 0; second < seconds; second++) {
        heartbeat(100, 20, ETH)
        driver.pass('a', 1000)
      }
    }
    other(29)
    expect(details('stalled')).toEqual([])
    other(3)
    expect(driver.sink.statuses('stalled').map(row => row.instId)).toEqual([BTC])
    expect(details('gap', BTC)).toMatchObject([{ reason: 'silence' }])
    expect(details('gap', ETH)).toEqual([])
    const channel = selection.channel ?? (selection.level === 'l3' ? 'level3' : 'level2_batch')
    expect(asked().slice(1)).toEqual([{ type: 'unsubscribe', product_ids: [BTC], channels: [channel, 'heartbeat'] }])
    answer()
    expect(asked().at(-1)).toMatchObject({ type: 'subscribe', product_ids: [BTC], channels: [channel, 'heartbeat'] })
    if (selection.level === 'l2') snapshot()
    else {
      if (selection.channel === 'full') full(300, 'received', RECEIVED)
      else noop(300)
      image(300)
    }
    expect(details('synced', BTC)).toHaveLength(2)
    other(5)
    expect(details('stalled')).toHaveLength(1)
  })

  it('level 3 is mute when heartbeats are ahead of it for 10 s', () => {
    beat(9, second => 101 + second)
    expect(details('stalled')).toEqual([])
    beat(3, () => 120)
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(requests('unsubscribe', 'level3')).toHaveLength(1)
    // What was under way for the old subscription makes no book, and asks for none.
    noop(121)
    driver.pass('a', 3000)
    expect(imagesAsked()).toHaveLength(1)
    answer()
    noop(130)
    expect(imagesAsked()).toHaveLength(2)
    image(130)
    expect(details('synced')).toHaveLength(2)
    expect(details('gap')).toHaveLength(1)
  })

  it('a number that was never true does not hide that the next subscription is mute', () => {
    goLive(LEVEL3, [BTC, ETH])
    noop(9_000_000_000_000_000)
    for (let second = 0; second < 33; second++) {
      heartbeat(100, 20, ETH)
      driver.pass('a', 1000)
    }
    expect(details('stalled', BTC)).toHaveLength(1)
    answer()
    for (let second = 0; second < 13; second++) {
      heartbeat(100, 20, ETH)
      heartbeat(201 + second)
      driver.pass('a', 1000)
    }
    expect(details('stalled', BTC)).toHaveLength(2)
  })

  it('level 3 that catches up is not', () => {
    for (let second = 0; second < 60; second++) {
      heartbeat(101 + second)
      driver.pass('a', 1000)
      noop(101 + second)
    }
    expect(details('stalled')).toEqual([])
  })

  it('an acknowledged subscription that stays silent is asked for again', () => {
    connect()
    answer()
    driver.pass('a', 3000)
    image(100)
    beat(12, second => 101 + second)
    expect(details('stalled')).toHaveLength(1)
    expect(requests('unsubscribe', 'level3')).toHaveLength(1)
  })

  it('level 2 is mute when much happened without it for 10 s, and with little only after 90 s', () => {
    goLive(LEVEL2)
    beat(12, second => 100 + second * 10)
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    goLive(LEVEL2)
    beat(85, second => 100 + Math.min(second, 5))
    expect(details('gap')).toEqual([])
    beat(12, () => 106)
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
  })

  it('level 2 with data is not mute', () => {
    goLive(LEVEL2)
    for (let second = 0; second < 60; second++) {
      heartbeat(100 + second * 30)
      driver.pass('a', 1000)
      l2update([['buy', '99', String(second + 1)]])
    }
    expect(details('stalled')).toEqual([])
  })

  it('level 2 with little data in a market of much else is not mute', () => {
    goLive(LEVEL2)
    for (let second = 0; second < 90; second++) {
      heartbeat(100 + second)
      driver.pass('a', 1000)
      if (second % 15 === 14) l2update([['buy', '99', String(second + 1)]])
    }
    expect(details('stalled')).toEqual([])
  })

  it('level 2 whose heartbeats end while they are ahead is dead after 30 s', () => {
    goLive(LEVEL2, [BTC, ETH])
    heartbeat(100)
    heartbeat(105)
    for (let second = 0; second < 33; second++) {
      heartbeat(100, 20, ETH)
      driver.pass('a', 1000)
    }
    expect(driver.sink.statuses('stalled').map(row => row.instId)).toEqual([BTC])
  })

  it('a heartbeat that is gone while data come is subscribed to again, without a gap', () => {
    for (let second = 0; second < 35; second++) {
      noop(101 + second)
      driver.pass('a', 1000)
    }
    expect(details('gap')).toEqual([])
    expect(details('stalled')).toMatchObject([{ channel: 'heartbeat' }])
    expect(asked().slice(1)).toEqual([
      { type: 'unsubscribe', product_ids: [BTC], channels: ['heartbeat'] },
      { type: 'subscribe', product_ids: [BTC], channels: ['heartbeat'] }
    ])
    answer()
    expect(details('gap')).toEqual([])
  })

  it('--stale-after overrides the limit', () => {
    goLive(LEVEL3, [BTC], { silenceMs: 60_000 })
    beat(20, () => 105)
    expect(details('stalled')).toEqual([])
    beat(42, () => 105)
    expect(details('stalled')).toHaveLength(1)
    goLive(LEVEL2, [BTC], { silenceMs: 5000 })
    beat(7, second => 101 + second)
    expect(details('stalled')).toHaveLength(1)
  })

  it('asks whether anybody is there, and hangs up when nobody answers', () => {
    driver.pass('a', 9000)
    expect(asked()).toHaveLength(1)
    driver.pass('a', 2000)
    expect(asked().at(-1)).toEqual({ type: 'subscribe', product_ids: [BTC], channels: ['heartbeat'] })
    answer()
    driver.pass('a', 19_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 3000)
    expect(driver.requests.hangups.at(-1)?.reason).toContain('ping')
  })
})

describe('errors', () => {
  const refuse = (reason: string, message = 'Failed to subscribe') => {
    answered++
    say({ type: 'error', message, reason })
  }
  const refused = () =>
    driver.sink.statuses('refused').map(row => [row.instId, (row.detail as Row).channel, (row.detail as Row).final])

  it.each([
    ['Failed to subscribe', 'level2, level3, and full channels now require authentication. https://docs'],
    ['Sorry, you could not be authenticated: Unauthorized', 'invalid signature'],
    ['Authentication Failed', '{"message":"invalid api key"}'],
    ['Authentication Failed', 'invalid passphrase']
  ])('credentials: %s, %s: final for all, and loud', (message, reason) => {
    connect(LEVEL3, [BTC, ETH])
    refuse(reason, message)
    expect(refused()).toEqual(
      [
        [BTC, 'book', true],
        [BTC, 'trades', true],
        [ETH, 'book', true],
        [ETH, 'trades', true]
      ].sort((a, b) => String(a[0]).localeCompare(String(b[0])))
    )
    expect(driver.requests.logs[0]).toMatchObject({
      level: 'error',
      message: 'The exchange does not accept the credentials'
    })
    expect(driver.requests.settledNames).toEqual(['a'])
    for (let n = 0; n < 300; n++) {
      driver.pass('a', 1000)
      answer()
    }
    // Only the connection is kept: nothing is tried again.
    expect(asked().at(-1)).toEqual({ type: 'subscribe', product_ids: [BTC, ETH], channels: ['heartbeat'] })
    expect(requests('subscribe', 'level3')).toHaveLength(1)
    expect(driver.requests.hangups).toEqual([])
  })

  it('a clock that is wrong is another matter: later', () => {
    connect()
    refuse('request timestamp expired', 'Sorry, you could not be authenticated: Unauthorized')
    expect(refused()).toEqual([
      [BTC, 'book', false],
      [BTC, 'trades', false]
    ])
  })

  it('an unknown product spoils the message, and then itself alone', () => {
    connect(LEVEL3, [BTC, 'FOO-USD', ETH])
    refuse('FOO-USD is not a valid product')
    expect(refused()).toEqual([])
    expect(
      asked()
        .slice(1)
        .map(({ product_ids, channels }) => [product_ids, channels])
    ).toEqual([
      [[BTC], ['level3', 'matches', 'heartbeat']],
      [['FOO-USD'], ['level3', 'matches', 'heartbeat']],
      [[ETH], ['level3', 'matches', 'heartbeat']]
    ])
    expect(asked().every(({ signature }) => signature !== undefined)).toBe(true)
    answer(1)
    refuse('FOO-USD is not a valid product')
    answer()
    expect(refused()).toEqual([
      ['FOO-USD', 'book', true],
      ['FOO-USD', 'trades', true]
    ])
    noop(100)
    image(100)
    noop(500, ETH)
    image(500)
    expect(details('synced')).toHaveLength(2)
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('asking one by one has its own time', () => {
    connect(LEVEL3, [BTC, ETH])
    driver.pass('a', 9000)
    heartbeat(100)
    driver.pass('a', 5000)
    refuse('FOO-USD is not a valid product')
    heartbeat(100)
    driver.pass('a', 5000)
    expect(driver.requests.hangups).toEqual([])
    heartbeat(100)
    driver.pass('a', 9000)
    heartbeat(100)
    driver.pass('a', 1000)
    expect(driver.requests.hangups).not.toEqual([])
  })

  it('an error that comes twice for one message does not hit another product', () => {
    connect(LEVEL3, [BTC, 'FOO-USD'])
    refuse('FOO-USD is not a valid product')
    say({ type: 'error', message: 'Failed to subscribe', reason: 'FOO-USD is not a valid product' })
    answer(1)
    refuse('FOO-USD is not a valid product')
    expect(refused().map(([product]) => product)).toEqual(['FOO-USD', 'FOO-USD'])
    expect(details('subscribed')).toHaveLength(1)
  })

  it('a product whose name begins like another one is not meant by it', () => {
    connect(LEVEL3, [BTC, 'BTC-USDC'])
    refuse('[BTC-USD BTC-USDC] invalid')
    say({ type: 'error', message: 'Failed to subscribe', reason: 'BTC-USDC is not a valid product' })
    expect(refused().map(([product]) => product)).toEqual(['BTC-USDC', 'BTC-USDC'])
    answer(1)
    expect(driver.sink.statuses('subscribed', BTC)).toHaveLength(1)
  })

  it('an error that names nothing answers the oldest message', () => {
    connect(LEVEL3, [BTC, ETH])
    refuse(' is not a valid product')
    answer(1)
    refuse(' is not a valid product')
    expect(refused().map(([product]) => product)).toEqual([ETH, ETH])
  })

  it.each(['Rate limit exceeded', 'Too many requests', 'internal error'])('%s: later', message => {
    connect(LEVEL3, [BTC, ETH])
    refuse('', message)
    expect(refused()).toHaveLength(4)
    expect(refused().every(([, , final]) => final === false)).toBe(true)
    expect(driver.requests.settledNames).toEqual([])
    const pass = (seconds: number) => {
      for (let n = 0; n < seconds; n++) {
        driver.pass('a', 1000)
        heartbeat(100)
      }
    }
    pass(59)
    expect(requests('subscribe', 'level3')).toHaveLength(1)
    pass(3)
    expect(
      requests('subscribe', 'level3')
        .slice(1)
        .map(({ product_ids }) => product_ids)
    ).toEqual([[BTC], [ETH]])
    answer()
    expect(details('subscribed')).toHaveLength(2)
  })

  it('a product at its cap waits alone', () => {
    connect(LEVEL3, [BTC, ETH])
    refuse('BTC-USD: no more than 10 subscriptions to level3 allowed')
    refuse('BTC-USD: no more than 10 subscriptions to level3 allowed')
    answer()
    expect(refused()).toEqual([
      [BTC, 'book', false],
      [BTC, 'trades', false]
    ])
    expect(driver.sink.statuses('subscribed').map(row => row.instId)).toEqual([ETH])
  })

  it('a reader that is too slow does not wait to be cut off', () => {
    say({ type: 'error', message: 'ErrSlowConsume', reason: 'too slow' })
    expect(driver.requests.hangups).toMatchObject([{ reason: expect.stringContaining('ErrSlowConsume') }])
    expect(refused()).toEqual([])
  })

  it.each([{}, { message: 7 }, { message: {}, reason: [BTC] }, { message: 'Message too big', reason: null }])(
    'an error that answers nothing is only told: %j',
    fields => {
      say({ type: 'error', ...fields })
      expect(logs()).toEqual(['Error from the exchange'])
      expect(refused()).toEqual([])
      expect(details('gap')).toEqual([])
    }
  )

  it.each([{ channels: null }, { channels: [null, 7, 'x', { name: 'level3' }, { name: 'level3', product_ids: 7 }] }])(
    'a list of another form: %j',
    fields => {
      connect()
      say({ type: 'subscriptions', ...fields })
      expect(details('subscribed')).toEqual([])
      answer()
      expect(details('subscribed')).toHaveLength(1)
    }
  )
})

describe('what is offered', () => {
  it('endpoints, channels, credentials, limits', () => {
    expect(coinbase.levels).toEqual(['l3', 'l2'])
    expect(coinbase.choices).toEqual({ channels: { l3: ['level3', 'full'] } })
    expect(coinbase.credentials).toEqual({
      levels: ['l3'],
      variables: ['COINBASE_API_KEY', 'COINBASE_API_SECRET', 'COINBASE_API_PASSPHRASE']
    })
    expect(coinbase.endpoints(LEVEL3).routes).toMatchObject([
      { url: 'wss://ws-feed.exchange.coinbase.com', feeds: ['book', 'trades'], instrumentsMax: 5 }
    ])
    expect(coinbase.endpoints(LEVEL2)).toMatchObject({
      restUrl: 'https://api.exchange.coinbase.com',
      routes: [{ instrumentsMax: 25 }]
    })
    expect(coinbase.limits.frameBytesMax).toBe(64 * 1024 * 1024)
    // Fewer than ten messages and eight connections a second.
    expect(coinbase.limits.sendSpacingMs).toBeGreaterThan(100)
    expect(coinbase.limits.connectSpacingMs).toBeGreaterThanOrEqual(125)
    expect(described(coinbase, [BTC], FULL)).toEqual([
      { exchange: 'coinbase', instId: BTC, market: 'spot', level: 'l3', channel: 'full' }
    ])
    expect(coinbase.depthMax(described(coinbase, [BTC], LEVEL3)[0]!)).toBe(Number.POSITIVE_INFINITY)
  })

  it.each([
    ['BTC-USD', 'BTC-USD'],
    ['btc-usd', 'BTC-USD'],
    ['BTCUSD', 'BTC-USD'],
    ['BTC/USD', 'BTC-USD'],
    ['btc_usd', 'BTC-USD'],
    ['BTC:USD', 'BTC-USD'],
    ['XBTUSD', 'BTC-USD'],
    ['xbt/usd', 'BTC-USD'],
    ['ETHBTC', 'ETH-BTC'],
    ['ETHXBT', 'ETH-BTC'],
    ['BTCUSDC', 'BTC-USDC'],
    ['btcusdt', 'BTC-USDT'],
    ['SOLEUR', 'SOL-EUR'],
    ['00-USD', '00-USD'],
    ['BTC', 'BTC'],
    ['USD', 'USD'],
    ['', '']
  ])('%s is %s', (symbol, name) => {
    expect(coinbase.spell(symbol)).toBe(name)
  })

  it('metadata', () => {
    const row = {
      id: 'ETH-BTC',
      base_currency: 'ETH',
      quote_currency: 'BTC',
      quote_increment: '0.00001',
      base_increment: '0.00000001',
      display_name: 'ETH-BTC',
      min_market_funds: '0.000016',
      status: 'online'
    }
    const { paths, read } = coinbase.catalogue(null)
    expect(paths([])).toEqual(['/products'])
    expect(paths(['ETH-BTC', BTC])).toEqual(['/products'])
    expect(read([[row, 7, null, { id: 'X-Y' }]])).toEqual([
      {
        exchange: 'coinbase',
        instId: 'ETH-BTC',
        market: 'spot',
        base: 'ETH',
        quote: 'BTC',
        settleCcy: 'BTC',
        contractValue: '1',
        contractValueCcy: 'ETH',
        multiplier: null,
        tickSize: '0.00001',
        lotSize: '0.00000001',
        minSize: '0.00000001',
        minNotional: '0.000016',
        status: 'online',
        raw: row
      },
      expect.objectContaining({ instId: 'X-Y', base: null, tickSize: null, minSize: null, status: null })
    ])
    expect(() => read([{ message: 'NotFound' }])).toThrow(TypeError)
  })
})

/** A call of the engine as a scenario made it. */
interface Step {
  readonly method: 'open' | 'apply' | 'fetched' | 'tick'
  readonly args: unknown[]
  /** Of `apply`: the frame. */
  readonly text: string
  /** What was known after it, as the text of a state line, and how much had been written and asked for. */
  readonly state: string
  readonly written: number
  readonly sent: number
  readonly fetched: number
}

/** Notes every call of the driver's engine, with the state after it. */
function noteSteps(instIds: readonly string[], selection: Selection, feeds: readonly FeedKind[]): Step[] {
  const steps: Step[] = []
  const { engine, requests: asked, sink, config } = driver
  const instruments = described(coinbase, instIds, selection)
  let text = ''
  const read = engine.read.bind(engine)
  engine.read = (name, frame) => {
    text = frame
    return read(name, frame)
  }
  for (const method of ['apply', 'fetched', 'tick'] as const) {
    const original = engine[method].bind(engine) as (...args: unknown[]) => void
    ;(engine as unknown as Row)[method] = (...args: unknown[]) => {
      original(...args)
      const detail: StateDetail = {
        v: STATE_VERSION,
        config,
        instruments,
        feeds,
        replaces: null,
        subjects: engine.subjectStates(instruments),
        connection: engine.connectionState('a')
      }
      steps.push({
        method,
        args: structuredClone(args),
        text: method === 'apply' ? text : '',
        state: JSON.stringify(detail),
        written: sink.lines.length,
        sent: asked.sent.length,
        fetched: asked.fetches.length
      })
    }
  }
  return steps
}

/** From the state after each step on, a second engine must write and ask for what the first one did. */
function compareFromEachState(steps: readonly Step[]): void {
  for (const [place, { state, args, written, sent, fetched }] of steps.entries()) {
    const sink = new MemorySink()
    const asked = new RecordedRequests()
    const engine = new Engine(coinbase, sink, asked, CREDENTIALS)
    engine.hour(args[0] as number, 'a', args[2] as number, JSON.parse(state) as StateDetail)
    sink.lines.length = 0
    for (const step of steps.slice(place + 1)) {
      if (step.method === 'apply') engine.read('a', step.text)
      ;(engine[step.method] as (...args: unknown[]) => void).apply(engine, step.args)
    }
    const where = `after step ${place} (${steps[place]!.text.slice(0, 60)})`
    expect(sink.lines, where).toEqual(driver.sink.lines.slice(written))
    expect(asked.sent, where).toEqual(driver.requests.sent.slice(sent))
    expect(asked.fetches, where).toEqual(driver.requests.fetches.slice(fetched))
  }
}

describe('the state', () => {
  const SCENARIOS: [string, Selection, () => void][] = [
    [
      'level3',
      LEVEL3,
      () => {
        answer()
        noop(101)
        noop(500, ETH)
        open(102, 'bid-9', 'buy', '98', '1')
        image(100)
        image(400)
        trade(10)
        trade(14)
        driver.pass('a', 1000)
        image(500)
        open(103, 'bid-10', 'buy', '98', '2')
        say({ type: 'level3', schema: { ...SCHEMA, noop: ['type', 'sequence', 'product_id'] } })
        say(['noop', '104', BTC])
        say(['noop', '106', BTC])
        say(['noop', '107', BTC])
        heartbeat(107, 15)
        driver.pass('a', 1000)
        heartbeat(107, 15)
        image(106)
        change(108, 'bid-9', '97', '1')
        driver.fetched('a', 500, undefined, 'trades-0-1')
        driver.pass('a', 4000)
        heartbeat(120, 16)
        driver.pass('a', 12_000)
        heartbeat(125, 17)
        answer()
        say(['noop', '125', BTC])
        image(125)
        say(['noop', '3', BTC])
        driver.pass('a', 12_000)
        answer()
        say({ type: 'error', message: 'Rate limit exceeded' })
        driver.pass('a', 3000)
      }
    ],
    [
      'full, refused at first',
      FULL,
      () => {
        say({ type: 'error', message: 'Failed to subscribe', reason: 'ETH-USD is not a valid product' })
        answered++
        answer(1)
        say({ type: 'error', message: 'Failed to subscribe', reason: 'no more than 10 subscriptions' })
        answered++
        full(101, 'received', RECEIVED)
        full(102, 'open', { order_id: 'bid-9', side: 'buy', price: '98', remaining_size: '1' })
        image(101)
        full(103, 'match', {
          trade_id: 74,
          maker_order_id: 'bid-9',
          taker_order_id: 'taker-1',
          side: 'buy',
          price: '98',
          size: '1'
        })
        full(104, 'done', { order_id: 'bid-9', side: 'buy', reason: 'filled', price: '98', remaining_size: '0' })
        for (let n = 0; n < 33; n++) {
          driver.pass('a', 1000)
          full(105 + n, 'received', RECEIVED)
        }
        answer()
        for (let n = 0; n < 30; n++) {
          driver.pass('a', 1000)
          heartbeat(137)
        }
        answer()
        full(500, 'received', RECEIVED, ETH)
        driver.fetched('a', 200, book(500))
        full(501, 'open', { order_id: 'bid-1', side: 'buy', price: '98', remaining_size: '1' }, ETH)
      }
    ],
    [
      'level2',
      LEVEL2,
      () => {
        answer()
        snapshot()
        l2update([['buy', '99.000', '1']])
        snapshot(ETH)
        heartbeat(100)
        l2update([['sell', '101.0', '0.00']])
        heartbeat(102, 20, ETH)
        trade(10)
        driver.pass('a', 11_000)
        answer()
        heartbeat(150, 11)
        heartbeat(150, 11)
        l2update([['buy', '500', '1']])
        driver.pass('a', 7000)
        answer(1)
        driver.pass('a', 1000)
        answer()
        snapshot()
        for (let n = 0; n < 35; n++) {
          driver.pass('a', 1000)
          heartbeat(100, 20, ETH)
        }
      }
    ]
  ]

  it.each(SCENARIOS)('goes on as if nothing had been: %s', (_, selection, scenario) => {
    connect(selection, [BTC, ETH])
    const steps = noteSteps([BTC, ETH], selection, ['book', 'trades'])
    scenario()
    expect(steps.length).toBeGreaterThan(20)
    expect(driver.sink.statuses('synced').length).toBeGreaterThan(1)
    compareFromEachState(steps)
  })

  it('needs no credentials to be told again', () => {
    const play = (credentials: Credentials | null) => {
      driver = new Driver(coinbase, {}, START_US, credentials)
      answered = 0
      inForce = new Set()
      driver.open('a', [BTC], LEVEL3)
      answer()
      noop(100)
      image(100)
      noop(102)
      driver.pass('a', 1000)
      image(102)
      return driver.sink.text()
    }
    expect(play(null)).toBe(play(CREDENTIALS))
  })
})

describe('mutated frames', () => {
  const FAILED = 'Assertion failed in a session'
  const COMPACT = [
    JSON.stringify(['open', BTC, '101', 'bid-9', 'buy', '98', '1', TIME]),
    JSON.stringify(['match', BTC, '101', 'bid-1', 'taker-1', '100.00', '1', TIME]),
    JSON.stringify(['change', ETH, '101', 'bid-1', '100.00', '1', TIME]),
    JSON.stringify(['done', ETH, '101', 'bid-1', TIME]),
    JSON.stringify({ type: 'level3', schema: SCHEMA })
  ]
  const OBJECTS = [
    JSON.stringify({
      type: 'open',
      product_id: BTC,
      sequence: 101,
      order_id: 'x',
      side: 'buy',
      price: '9',
      remaining_size: '1'
    }),
    JSON.stringify({ type: 'done', product_id: BTC, sequence: 101, order_id: 'bid-1', side: 'buy', reason: 'filled' }),
    JSON.stringify({
      type: 'change',
      product_id: BTC,
      sequence: 101,
      order_id: 'bid-1',
      side: 'buy',
      new_size: '1',
      new_price: '9'
    }),
    JSON.stringify({ type: 'activate', product_id: BTC, order_id: 'x', timestamp: '1483736448.299000', size: '1' })
  ]
  const LEVELS = [
    `{"type":"l2update","product_id":"${BTC}","changes":[["buy","98.00","0.00"],["sell","103","2"]],"time":"${TIME}"}`,
    `{"type":"snapshot","product_id":"${ETH}","asks":[["101.00","1"]],"bids":[["100.00","3.5"],["99.5","3"]],"time":"${TIME}"}`
  ]
  const COMMON = [
    `{"type":"match","trade_id":10,"maker_order_id":"a","taker_order_id":"b","side":"sell","size":"1","price":"2","product_id":"${BTC}","sequence":101,"time":"${TIME}"}`,
    `{"type":"heartbeat","sequence":101,"last_trade_id":20,"product_id":"${BTC}","time":"${TIME}"}`,
    `{"type":"subscriptions","channels":[{"name":"level3","product_ids":["${BTC}"]},{"name":"heartbeat","product_ids":["${BTC}"]}]}`,
    '{"type":"error","message":"Failed to subscribe","reason":"BTC-USD is not a valid product"}'
  ]

  it.each([
    ['level3', LEVEL3, [...COMPACT, ...COMMON]],
    ['full', FULL, [...OBJECTS, ...COMMON]],
    ['level2', LEVEL2, [...LEVELS, ...COMMON]]
  ])('%s: never throw, and whatever is taken as JSON is JSON', (name, selection, base) => {
    const seed = 11_202_026 + name.length
    const random = seeded(seed)
    let kept = 0
    let lost = 0
    for (let n = 0; n < 3000; n++) {
      if (n % 25 === 0) goLive(selection, [BTC, ETH])
      const text = mutate(base[n % base.length]!, random)
      const where = `seed ${seed}, frame ${n}: ${text}`
      if (takesHostile(driver, 'a', text, where)) kept++
      driver.tick('a')
      if (n % 25 !== 24) continue
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
      lost += details('gap').length
    }
    expect(kept).toBeGreaterThan(300)
    expect(kept).toBeLessThan(2700)
    expect(lost).toBeGreaterThan(10)
  })

  it('answers of REST never throw either', () => {
    const seed = 4242
    const random = seeded(seed)
    const image = JSON.stringify(book(101))
    const history = JSON.stringify([{ time: TIME, trade_id: 12, price: '7', size: '1', side: 'buy' }])
    for (let n = 0; n < 600; n++) {
      connect()
      answer()
      trade(10)
      trade(14)
      noop(101)
      const texts = [mutate(image, random), mutate(history, random)]
      for (const [place, text] of texts.entries()) {
        const where = `seed ${seed}, answer ${n}: ${text}`
        let value: unknown
        try {
          value = JSON.parse(text)
        } catch {
          value = undefined
        }
        expect(() => driver.fetched('a', 200, value, place ? 'trades-0-1' : 'image-0-1'), where).not.toThrow()
        expect(logs(), where).not.toContain(FAILED)
      }
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), texts[0]).not.toThrow()
    }
  })
})

/** A plain book of levels, by value. */
class PlainBook {
  readonly sides = { buy: new Map<number, number>(), sell: new Map<number, number>() }

  set(side: 'buy' | 'sell', price: string, size: string): void {
    if (Number.parseFloat(size) === 0) this.sides[side].delete(Number.parseFloat(price))
    else this.sides[side].set(Number.parseFloat(price), Number.parseFloat(size))
  }

  top(side: 'buy' | 'sell', depth: number): number[][] {
    const better = side === 'buy' ? -1 : 1
    return [...this.sides[side]].sort(([a], [b]) => (a - b) * better).slice(0, depth)
  }
}

describe.skipIf(!hasRecordings)(`recordings${NEEDS_RECORDINGS}`, () => {
  interface Frame {
    type: string
    product_id: string
    bids: [string, string][]
    asks: [string, string][]
    changes: ['buy' | 'sell', string, string][]
    sequence: number
    order_id: string
    side: 'buy' | 'sell'
    price: string
    remaining_size: string
  }
  const parse = (text: string) => JSON.parse(text) as Frame

  it('coinbase-level2-1: whole, all ten products', () => {
    const frames = loadFrames('coinbase-level2-1')
    expect(frames).toHaveLength(9946)
    const parsed = frames.map(({ text }) => parse(text))
    const products = [...new Set(parsed.map(frame => frame.product_id).filter(Boolean))]
    expect(products).toHaveLength(10)
    driver = new Driver(coinbase, {}, frames[0]!.us - 2000)
    driver.open('a', products, LEVEL2)
    play(driver, 'a', frames)
    driver.us += 2_000_000
    driver.tick('a')
    expect(details('gap')).toEqual([])
    expect(driver.requests.hangups).toEqual([])
    expect(logs()).toEqual([])
    expect(details('synced')).toHaveLength(10)
    expect(details('subscribed')).toHaveLength(10)
    const rows = driver.sink.records('l2_updates')
    expect(rows.filter(row => row.event_type === 'update')).toHaveLength(9719)
    expect(rows.filter(row => row.event_type === 'snapshot')).toHaveLength(10)
    expect(trades()).toHaveLength(97)
    for (const product of products) {
      const ids = trades()
        .filter(row => row.instId === product)
        .map(row => Number(row.trade_id))
      expect(ids).toEqual(ids.map((_, n) => ids[0]! + n))
      const truth = new PlainBook()
      for (const frame of parsed.filter(frame => frame.product_id === product)) {
        if (frame.type === 'snapshot') {
          for (const [price, size] of frame.bids) truth.set('buy', price, size)
          for (const [price, size] of frame.asks) truth.set('sell', price, size)
        } else if (frame.type === 'l2update') for (const change of frame.changes) truth.set(...change)
      }
      const { bids_top400: bids, asks_top400: asks } = shots(product).at(-1)! as Record<string, [string, string][]>
      const values = (side: [string, string][]) => side.map(([p, s]) => [Number.parseFloat(p), Number.parseFloat(s)])
      expect(values(bids!)).toEqual(truth.top('buy', 400))
      expect(values(asks!)).toEqual(truth.top('sell', 400))
    }
  })

  /** Plays the excerpt into `full`; `without` leaves one frame out. Images have the orders that are ended in it. */
  function playExcerpt(without = -1): number[] {
    const frames = loadFrames('coinbase-full-excerpt-2017')
    const parsed = frames.map(({ text }) => parse(text))
    const opened = new Set(parsed.filter(({ type }) => type === 'open').map(({ order_id }) => order_id))
    const numbered = parsed.filter(({ type }) => type !== 'heartbeat')
    const imageOf = (product: string) => {
      const own = numbered.filter(({ product_id }) => product_id === product)
      const ended = own.filter(({ type, order_id }) => type === 'done' && !opened.has(order_id))
      const rows = (side: string) =>
        ended.filter(frame => frame.side === side).map(frame => [frame.price, frame.remaining_size, frame.order_id])
      return { bids: rows('buy'), asks: rows('sell'), sequence: own[0]!.sequence - 1, time: TIME }
    }
    connect(FULL, [BTC, ETH])
    answer()
    let fetched = 0
    for (const product of [BTC, ETH]) {
      driver.pass('a', 3000)
      driver.fetched('a', 200, imageOf(product))
      fetched++
    }
    expect(imagesAsked()).toHaveLength(fetched)
    for (const [place, { text }] of frames.entries()) if (place !== without) driver.in('a', text)
    return parsed.flatMap(({ type }, place) => (type === 'heartbeat' ? [] : [place]))
  }

  it('coinbase-full-excerpt-2017: 20 steps of the sequence, 7 received, 7 open, 8 done', () => {
    const places = playExcerpt()
    const all = [...events(BTC), ...events(ETH)]
    const count = (type: string) => all.filter(row => row.event_type === type).length
    expect([count('received'), count('open'), count('done'), count('gap')]).toEqual([7, 7, 8, 0])
    // The first numbers follow the images, the 20 others each other.
    expect(places).toHaveLength(22)
    expect([shown(BTC).seqId, shown(ETH).seqId]).toEqual([3_419_023_022, 617_133_261])
    expect(all.filter(row => row.event_type === 'done').map(row => (row.metadata as Row).reason)).toEqual(
      Array(8).fill('canceled')
    )
    expect(logs()).toEqual([])
  })

  it('coinbase-full-excerpt-2017: each lost frame is one gap of its product, the last of each none', () => {
    const places = playExcerpt()
    const gaps = places.map(place => {
      playExcerpt(place)
      return details('gap').length
    })
    expect(gaps.filter(count => count === 1)).toHaveLength(20)
    expect(gaps.filter(count => count === 0)).toHaveLength(2)
  })

  it('single frames: all that are of a book are read', () => {
    const path = fileURLToPath(new URL('../../../shared/recordings/single-frames-1.jsonl.gz', import.meta.url))
    const frames = gunzipSync(readFileSync(path))
      .toString()
      .split('\n')
      .filter(line => line.includes('"coinbase_pro"'))
      .map(line => (JSON.parse(line) as { msg: string }).msg)
    expect(frames).toHaveLength(6)
    connect(LEVEL2)
    for (const text of frames) driver.in('a', text)
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(trades()).toEqual([])
    goLive(FULL)
    const open = frames.find(text => text.includes('"open"'))!
    driver.in('a', open.replace('38292760991', '101'))
    expect(since(6)).toMatchObject([{ event_type: 'open', side: 'ask', price: '31572.35', size: '0.23' }])
    expect(logs()).toEqual([])
  })
})
