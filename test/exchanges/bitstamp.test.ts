import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { Engine, STATE_VERSION, type StateDetail } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { FeedKind, Level } from '../../src/core/instrument.ts'
import { bitstamp } from '../../src/exchanges/bitstamp.ts'
import { BitstampReader, OrderEvent } from '../../src/exchanges/bitstamp-reader.ts'
import type { Selection } from '../../src/exchanges/exchange.ts'
import {
  Driver,
  described,
  hasRecordings,
  MemorySink,
  NEEDS_RECORDINGS,
  RecordedRequests,
  type Row,
  START_US
} from '../helpers/driver.ts'
import { mutate, seeded } from '../helpers/mutate.ts'

const SELECTION: Selection = { level: 'l3', market: null, channel: null, updateSpeed: null }

/** An order of a scripted book. */
type OrderText = readonly [price: string, amount: string, id: string]
type LevelText = readonly [price: string, amount: string]

const BIDS: readonly OrderText[] = [
  ['100.00', '2.00000000', '11'],
  ['100.00', '1.00000000', '12'],
  ['99.50', '5.00000000', '13']
]
const ASKS: readonly OrderText[] = [
  ['101.00', '1.50000000', '21'],
  ['102.00', '4.00000000', '22']
]

/** What is told of an order; the rest is filled in. */
interface Told {
  side?: 'buy' | 'sell'
  price?: string
  size?: string
  /** µs; now if absent. */
  us?: number
  instId?: string
}

function eventId(us: number, number: number): string {
  const hex = (Math.floor(us / 1000) * 1000).toString(16).padStart(16, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12)}-0000-${String(number).padStart(12, '0')}`
}

const microsOf = (us: number) => `${Math.floor(us / 1000)}000`

/** The far end of one scripted connection. Frames are hand-made in the form of the documented ones. */
class Peer {
  /** The ids of the events of each pair; the first is of an event that nobody heard. */
  readonly ids = new Map<string, string[]>()
  private readonly driver: Driver
  private readonly name: string
  private answered = 0

  constructor(driver: Driver, name = 'a') {
    this.driver = driver
    this.name = name
  }

  /** What was sent and not answered yet. */
  requests(): Row[] {
    const fresh = this.driver.sent.slice(this.answered)
    this.answered = this.driver.sent.length
    return fresh.filter(({ connection }) => connection === this.name).map(({ text }) => JSON.parse(text) as Row)
  }

  /** Answers everything that was asked, and what is asked because of it. */
  answer(): void {
    for (let batch = this.requests(); batch.length > 0; batch = this.requests()) {
      for (const { event, data } of batch) {
        if (event === 'bts:heartbeat') this.say({ event, channel: '', data: { status: 'success' } })
        else {
          const done = event === 'bts:subscribe' ? 'bts:subscription_succeeded' : 'bts:unsubscription_succeeded'
          this.say({ event: done, channel: (data as Row).channel, data: {} })
        }
      }
    }
  }

  say(frame: unknown): unknown {
    return this.driver.in(this.name, JSON.stringify(frame))
  }

  error(message: string, code: unknown = null): void {
    this.say({ event: 'bts:error', channel: '', data: { code, message } })
  }

  /** Ids begin with the time of the event. */
  private next(instId: string, us: number): [before: string, id: string] {
    const known = this.ids.get(instId) ?? [eventId(START_US - 60_000_000, 0)]
    this.ids.set(instId, known)
    const before = known.at(-1)!
    const id = eventId(us, known.length)
    known.push(id)
    return [before, id]
  }

  /** The id of the n-th event that was made, or the n-th from the end. */
  id(n: number, instId = 'btcusd'): string {
    return this.ids.get(instId)!.at(n)!
  }

  /** The exchange counts from somewhere else. */
  restart(instId = 'btcusd', us = this.driver.us): void {
    this.next(instId, us)
  }

  /** The next event of the chain, not yet said. */
  event(event: 'created' | 'changed' | 'deleted', id: string, told: Told = {}): string {
    const { side = 'buy', price = '100.00', size = '1.00000000', us = this.driver.us, instId = 'btcusd' } = told
    const [before, eventId] = this.next(instId, us)
    return (
      `{"data":{"id":${id},"id_str":"${id}","order_type":${side === 'buy' ? 0 : 1},"order_subtype":5,` +
      `"datetime":"${Math.floor(us / 1_000_000)}","microtimestamp":"${microsOf(us)}","amount":${Number(size)},` +
      `"amount_str":"${size}","amount_traded":"0","amount_at_create":"${size}","price":${Number(price)},` +
      `"price_str":"${price}","is_liquidation":false},"channel":"live_orders_${instId}","event":"order_${event}",` +
      `"event_id":"${eventId}","pre_event_id":"${before}","order_source":"orderbook"}`
    )
  }

  tell(event: 'created' | 'changed' | 'deleted', id: string, told?: Told): void {
    this.driver.in(this.name, this.event(event, id, told))
  }

  /** A difference of levels, not yet said. */
  diff(bids: readonly LevelText[], asks: readonly LevelText[], us = this.driver.us, instId = 'btcusd'): string {
    const data = { timestamp: String(Math.floor(us / 1_000_000)), microtimestamp: String(us), bids, asks }
    return JSON.stringify({ data, channel: `diff_order_book_${instId}`, event: 'data' })
  }

  trade(fields: Row, instId = 'btcusd'): void {
    const data = {
      id: 629876235,
      timestamp: '1788551770',
      amount: 0.00062132,
      amount_str: '0.00062132',
      price: 79715.39,
      price_str: '79715.39',
      type: 0,
      microtimestamp: '1788551770815000',
      buy_order_id: 2046839997194241,
      sell_order_id: 2046839996030977,
      ...fields
    }
    this.say({ data, channel: `live_trades_${instId}`, event: 'trade' })
  }
}

/** The answer of `order_book`. */
function book(bids: readonly (readonly string[])[], asks: readonly (readonly string[])[], us: number): Row {
  return { timestamp: String(Math.floor(us / 1_000_000)), microtimestamp: String(us), bids, asks }
}

let driver: Driver
let peer: Peer

function connect(config: Partial<EngineConfig> = {}, instIds = ['btcusd'], level: Level = 'l3'): void {
  driver = new Driver(bitstamp, config)
  driver.open('a', instIds, level)
  peer = new Peer(driver)
}

const image = (bids: readonly OrderText[] = BIDS, asks: readonly OrderText[] = ASKS, us = driver.us) =>
  driver.fetched('a', 200, book(bids, asks, us))

/** The same with one book that is live. */
function goLive(config: Partial<EngineConfig> = {}): void {
  connect(config)
  peer.answer()
  image()
}

const asked = () =>
  driver.asked('a').map(row => `${String((row as Row).event)} ${String(((row as Row).data as Row)?.channel)}`)
const subscribed = (channel: string) => asked().filter(text => text === `bts:subscribe ${channel}`).length
const paths = (group = 2) => driver.fetches('a').filter(path => path.includes(`group=${group}`))
const events = (name = 'btcusd') => driver.sink.records('l3_events', name)
/** Events since the image: type, id, side, price, size. */
const news = (name = 'btcusd') =>
  events(name)
    .filter(row => row.event_type !== 'clear' && row.event_type !== 'snapshot')
    .map(({ event_type, order_id, side, price, size }) => [event_type, order_id, side, price, size].join(' '))
const metadata = () => events().map(row => row.metadata)
const details = (event: string, name?: string) => driver.sink.statuses(event, name).map(row => row.detail as Row)
const shots = () => driver.sink.records('l3_spot')
/** The book as the next snapshot shows it. */
function shown(): Row {
  driver.pass('a', 2000)
  return driver.sink.records('l3_spot').concat(driver.sink.records('l2_spot')).at(-1)!
}

beforeEach(() => goLive())

describe('subscribing (step 1)', () => {
  it('asks for one channel at a time, books first, in messages of less than 512 bytes', () => {
    connect({}, ['btcusd', 'ethusd'])
    expect(asked()).toEqual(['bts:subscribe live_orders_btcusd'])
    peer.answer()
    expect(asked()).toEqual([
      'bts:subscribe live_orders_btcusd',
      'bts:subscribe live_orders_ethusd',
      'bts:subscribe live_trades_btcusd',
      'bts:subscribe live_trades_ethusd'
    ])
    for (const { text } of driver.sent) expect(text.length).toBeLessThan(512)
    expect(details('subscribed')[0]).toMatchObject({
      channel: 'live_orders',
      proof: { sequence: 'instrument', checksum: false }
    })
  })

  it('writes nothing of a book before its image, and is settled when all are live', () => {
    connect({}, ['btcusd', 'ethusd'])
    peer.answer()
    const { us } = driver
    peer.tell('created', '31', { us })
    expect(events()).toEqual([])
    driver.fetched('a', 200, book(BIDS, ASKS, us), 'image-0-1')
    expect(driver.requests.settledNames).toEqual([])
    driver.fetched('a', 200, book([], [], driver.us), 'image-1-2')
    expect(driver.requests.settledNames).toEqual(['a'])
    expect(events().map(row => row.event_type)).toEqual(['clear', ...Array<string>(6).fill('snapshot')])
    expect(events('ethusd').map(row => row.event_type)).toEqual(['clear'])
  })

  it('takes what comes before a late acknowledgement', () => {
    connect()
    const { us } = driver
    peer.tell('created', '31', { price: '100.50', us })
    driver.pass('a', 3000)
    peer.answer()
    image(BIDS, ASKS, us)
    expect(events().map(row => row.order_id)).toContain('31')
  })

  it('hangs up when no acknowledgement comes, and not because of those that wait for their turn', () => {
    connect({}, ['btcusd', 'ethusd', 'ltcusd'])
    for (let n = 0; n < 5; n++) {
      driver.pass('a', 10_000)
      const [request] = peer.requests().filter(row => row.event === 'bts:subscribe')
      peer.say({ event: 'bts:subscription_succeeded', channel: (request!.data as Row).channel, data: {} })
    }
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 15_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 2000)
    expect(driver.requests.hangups[0]?.reason).toBe('no acknowledgement within 15000 ms')
  })

  it('captures only what it is opened for', () => {
    driver = new Driver(bitstamp)
    driver.open('a', ['btcusd'], 'l3', null, ['trades'])
    peer = new Peer(driver)
    peer.answer()
    expect(asked()).toEqual(['bts:subscribe live_trades_btcusd'])
    expect(driver.fetches('a')).toEqual([])
    peer.trade({})
    peer.tell('created', '31')
    expect(driver.sink.records('trades')).toHaveLength(1)
    expect(driver.requests.settledNames).toEqual(['a'])
    driver.pass('a', 14_000)
    expect(driver.requests.logs).toEqual([])
  })
})

describe('refusals', () => {
  it.each([
    ['Bad subscription string.', null, true],
    ['Invalid channel provided.', null, true],
    ['Incorrect JSON format.', null, true],
    ['Connection is unauthorized.', 4009, true],
    ['Try again later.', 17, false]
  ])('%s (%s), final: %s. It concerns one instrument, though it names none', (message, code, final) => {
    connect({}, ['btcusd', 'ethusd', 'ltcusd'])
    driver.in('a', '{"event":"bts:subscription_succeeded","channel":"live_orders_btcusd","data":{}}')
    peer.requests()
    peer.error(message, code)
    peer.answer()
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-0-1')
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-2-2')
    const told = details('refused', 'ethusd')
    expect(told[0]).toMatchObject({ channel: 'book', final, msg: message })
    expect(told.map(row => row.channel)).toEqual(final ? ['book', 'trades'] : ['book'])
    expect(details('refused')).toHaveLength(told.length)
    expect(subscribed('live_trades_ethusd')).toBe(final ? 0 : 1)
    expect(driver.requests.settledNames).toEqual(final ? ['a'] : [])
    peer.tell('created', '31', { instId: 'btcusd', price: '100.50' })
    expect(news()).toEqual(['open 31 bid 100.50 1.00000000'])
    for (let second = 0; second < 70; second++) {
      driver.pass('a', 1000)
      peer.answer()
    }
    expect(subscribed('live_orders_ethusd')).toBe(final ? 1 : 2)
  })

  it('a refusal of trades leaves the book alone', () => {
    connect()
    peer.requests()
    driver.in('a', '{"event":"bts:subscription_succeeded","channel":"live_orders_btcusd","data":{}}')
    peer.error('Invalid channel provided.')
    image()
    peer.tell('created', '31', { price: '100.50' })
    expect(details('refused')).toMatchObject([{ channel: 'trades', final: true }])
    expect(news()).toHaveLength(1)
  })

  it('an error that nothing was asked for is told, and costs nothing', () => {
    peer.error('Bad subscription string.')
    expect(details('refused')).toEqual([])
    expect(driver.requests.logs).toMatchObject([{ level: 'warn', message: 'Error from the exchange' }])
  })

  it('a pair that is acknowledged though there is no such book is refused after three answers', () => {
    connect({}, ['btcusd', 'nonsense'])
    peer.answer()
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-0-1')
    const missing = () => driver.fetched('a', 404, { status: 'error', reason: 'Not found.' })
    missing()
    driver.pass('a', 1000)
    missing()
    driver.pass('a', 2000)
    expect(details('refused')).toEqual([])
    missing()
    expect(details('refused', 'nonsense')).toMatchObject([{ channel: 'book', final: true, code: 404 }])
    expect(driver.requests.settledNames).toEqual(['a'])
    driver.pass('a', 10_000)
    expect(driver.fetches('a')).toHaveLength(4)
    peer.tell('created', '31', { price: '100.50' })
    expect(news()).toHaveLength(1)
  })
})

describe('the image (steps 2 to 4)', () => {
  beforeEach(() => {
    connect()
    peer.answer()
  })

  it('is asked for with a nonce when the subscription is acknowledged, once', () => {
    const [path] = driver.fetches('a')
    expect(path).toMatch(/^\/api\/v2\/order_book\/btcusd\/\?group=2&_=\d{13}$/)
    // The acknowledgement of the book was the second line, that of the trades the third.
    expect(path!.slice(-13)).toBe(String(Math.floor((driver.us - 1000) / 1000)))
    expect(driver.fetches('a')).toHaveLength(1)
  })

  it('step 2: rows with a price or size of zero are no orders', () => {
    image([...BIDS, ['0.00', '3', '14'], ['99', '0.00000000', '15'], ['9999999999', '1', '16']], ASKS)
    expect(shown()).toMatchObject({ best_bid: '100.00', stats: { total_orders: 5, bid_count: 3, ask_count: 2 } })
  })

  it.each([
    ['a row of two columns', [['100', '1']]],
    ['a price that is no number', [['abc', '1', '11']]],
    ['a negative size', [['100', '-1', '11']]],
    ['an id that cannot stand in a line', [['100', '1', '1"2']]],
    ['an id that is lost beyond 2^53', [['100', '1', 2 ** 56]]],
    ['numbers', [[100, 1, '11']]],
    ['no rows', ['100']],
    ['no list', {}]
  ])('step 2: %s is no image of orders; another is asked for', (_, bids) => {
    driver.fetched('a', 200, { ...book([], ASKS, driver.us), bids })
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    image()
    expect(details('synced')).toHaveLength(1)
  })

  it.each([undefined, null, [], 'x', {}, { microtimestamp: '1', bids: [], asks: [] }, { bids: [], asks: [] }])(
    'step 2: %j is no image',
    value => {
      driver.fetched('a', 200, value)
      expect(events()).toEqual([])
      driver.pass('a', 1000)
      expect(driver.fetches('a')).toHaveLength(2)
    }
  )

  it('step 2: ids may be numbers', () => {
    driver.fetched('a', 200, { ...book([], [], driver.us), bids: [['100', '1', 2046839978799111]] })
    expect(events()[1]).toMatchObject({ order_id: '2046839978799111' })
  })

  it('step 3: earlier milliseconds are in the image, its own one may be or not and is applied, by id', () => {
    const at = Math.floor(driver.us / 1000) * 1000 + 50_000
    const before: Told = { us: at - 1000 }
    const border: Told = { us: at }
    peer.tell('deleted', '12', { ...before, size: '0' })
    peer.tell('created', '41', before)
    // Created, known to the image: replaced.
    peer.tell('created', '11', { ...border, size: '7.00000000' })
    peer.tell('created', '42', { ...border, price: '100.20' })
    // Changed and deleted, unknown to the image: ignored.
    peer.tell('changed', '77', { ...border, price: '100.90', size: '9.00000000' })
    peer.tell('deleted', '78', { ...border, size: '0' })
    peer.tell('deleted', '13', { ...border, price: '99.50', size: '5.00000000' })
    peer.tell('created', '43', { us: at + 1000, price: '100.30' })
    image(BIDS, ASKS, at + 537)
    const held = events().filter(row => row.event_type === 'snapshot')
    expect(held.map(row => [row.order_id, row.price, row.size])).toEqual([
      ['43', '100.30', '1.00000000'],
      ['42', '100.20', '1.00000000'],
      ['11', '100.00', '7.00000000'],
      ['12', '100.00', '1.00000000'],
      ['21', '101.00', '1.50000000'],
      ['22', '102.00', '4.00000000']
    ])
    expect(news()).toEqual([])
    expect(details('gap')).toEqual([])
    // What was under way of earlier milliseconds comes after the image: it is in there.
    peer.tell('created', '41', { us: at - 1000, price: '100.60' })
    expect(news()).toEqual([])
    peer.tell('created', '44', { us: at + 999, price: '100.40' })
    peer.tell('created', '45', { us: at + 1000, price: '100.50' })
    expect(news()).toEqual(['open 44 bid 100.40 1.00000000', 'open 45 bid 100.50 1.00000000'])
  })

  it('step 4: one older than the first queued event has a hole behind it', () => {
    const at = Math.floor(driver.us / 1000) * 1000
    peer.tell('created', '31', { us: at, price: '100.50' })
    image(BIDS, ASKS, at - 1)
    expect(events()).toEqual([])
    expect(driver.fetches('a')).toHaveLength(1)
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    image(BIDS, ASKS, at)
    expect(details('synced')).toHaveLength(1)
    expect(events().map(row => row.order_id)).toContain('31')
  })

  it('without a queued event any image will do', () => {
    image(BIDS, ASKS, driver.us - 5_000_000)
    expect(details('synced')).toHaveLength(1)
  })

  it('a hole in the queue: only an image of a later millisecond has what was lost', () => {
    const at = Math.floor(driver.us / 1000) * 1000
    peer.tell('created', '31', { us: at, price: '100.50' })
    peer.event('created', '32', { us: at + 5000, price: '100.60' })
    peer.tell('created', '33', { us: at + 5000, price: '100.70' })
    image(BIDS, ASKS, at + 5999)
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    image([['100.60', '1', '32'], ...BIDS], ASKS, at + 6000)
    expect(details('gap')).toEqual([])
    expect(shown()).toMatchObject({ best_bid: '100.60', stats: { total_orders: 6 } })
  })

  it('step 4: nor may the event before the first queued one be of the image’s own millisecond', () => {
    const at = Math.floor(driver.us / 1000) * 1000
    peer.event('created', '31', { us: at, price: '100.50' })
    peer.tell('created', '32', { us: at, price: '100.60' })
    image(BIDS, ASKS, at + 500)
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    image(BIDS, ASKS, at + 1000)
    expect(details('synced')).toHaveLength(1)
  })

  it('the event before the first one that comes must be in the image', () => {
    const at = Math.floor(driver.us / 1000) * 1000 + 10_000
    image(BIDS, ASKS, at)
    peer.event('created', '31', { us: at + 2000, price: '100.50' })
    peer.tell('created', '32', { us: at + 3000, price: '100.60' })
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: null, received: peer.id(1) }])
    driver.pass('a', 1000)
    image()
    peer.tell('created', '33', { us: driver.us + 1000 })
    expect(details('gap')).toHaveLength(1)
  })

  it('ids of another form tell no time', () => {
    const at = Math.floor(driver.us / 1000) * 1000 + 10_000
    image(BIDS, ASKS, at)
    const text = peer.event('created', '32', { us: at + 3000, price: '100.60' })
    driver.in('a', text.replace(/"pre_event_id":"[^"]*"/, '"pre_event_id":"some-other-id"'))
    expect(news()).toHaveLength(1)
    expect(details('gap')).toEqual([])
    connect()
    peer.answer()
    image(BIDS, ASKS, at)
    peer.event('created', '31', { us: at + 2000 })
    driver.in(
      'a',
      peer.event('created', '32', { us: at + 3000 }).replace(/"event_id":"[^"]*"/, '"event_id":"some-other-id"')
    )
    expect(details('gap')).toEqual([])
    expect(news()).toHaveLength(1)
  })

  it('whatever it was lost by, a book is not replaced by an older one', () => {
    image()
    peer.tell('created', '31', { price: '101.00' })
    driver.pass('a', 7000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    driver.pass('a', 1000)
    image(BIDS, ASKS, driver.us - 10_000_000)
    expect(details('synced')).toHaveLength(1)
    driver.pass('a', 2000)
    image()
    expect(details('synced')).toHaveLength(2)
  })

  it.each([429, 500, 503, 0])('an answer of status %i: asked for again, later and later', status => {
    const times: number[] = []
    for (let n = 0; n < 9; n++) {
      driver.fetched('a', status, undefined)
      const count = driver.fetches('a').length
      for (let ms = 0; driver.fetches('a').length === count; ms += 500) {
        driver.pass('a', 500, 500)
        peer.answer()
        times[n] = ms + 500
      }
    }
    expect(times.slice(0, 6)).toEqual([500, 1000, 2000, 4000, 8000, 16_000])
    expect(times.at(-1)).toBe(60_000)
    expect(driver.requests.hangups).toEqual([])
    image()
    expect(details('synced')).toHaveLength(1)
    expect(details('refused')).toEqual([])
  })

  it('no answer at all: asked for again, and a late answer counts no more', () => {
    driver.pass('a', 29_000)
    peer.answer()
    expect(driver.fetches('a')).toHaveLength(1)
    driver.pass('a', 3000)
    expect(driver.fetches('a')).toHaveLength(2)
    driver.fetched('a', 200, book([], [], driver.us), 'image-0-1')
    expect(events()).toEqual([])
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-0-2')
    expect(details('synced')).toHaveLength(1)
  })

  it('the queue is bounded; when the oldest had to go, the image must be newer than all of it', () => {
    driver.stepUs = 10
    const early = driver.us
    for (let n = 0; n < 20_001; n++) peer.tell(n % 2 ? 'deleted' : 'created', '31', { price: '90.00' })
    const state = driver.engine.connectionState('a').session as { images: { list: { backlog: string[] }[] } }
    expect(state.images.list[0]!.backlog.length).toBeLessThanOrEqual(20_000)
    driver.stepUs = 1000
    image(BIDS, ASKS, early + 150_000)
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    image()
    expect(details('synced')).toHaveLength(1)
  })

  it('images that are too old for minutes: a wrong time of the exchange is given up at last', () => {
    peer.tell('created', '31', { us: driver.us + 3_600_000_000 })
    let asks = 0
    for (; asks < 20 && details('synced').length === 0; asks++) {
      image()
      driver.pass('a', 60_500, 500)
      peer.answer()
    }
    expect(asks).toBeGreaterThan(5)
    expect(asks).toBeLessThan(20)
    expect(shown()).toMatchObject({ stats: { total_orders: 5 } })
  })

  it('an image in the middle of a match is crossed: the newest orders of it are held apart', () => {
    image([...BIDS, ['101.50', '3', '31']], [...ASKS, ['100.50', '1', '9']])
    // 9 came before 31, and 31 crosses it; 21 at 101 is crossed by 31 alone.
    expect(shown()).toMatchObject({ best_bid: '100.00', best_ask: '100.50' })
    const { us } = driver
    peer.tell('deleted', '9', { side: 'sell', price: '100.50', size: '0', us })
    peer.tell('deleted', '21', { side: 'sell', price: '101.00', size: '0', us })
    peer.tell('changed', '31', { price: '101.50', size: '0.5', us })
    expect(news().at(-1)).toBe('open 31 bid 101.50 0.5')
    expect(shown()).toMatchObject({ best_bid: '101.50', best_ask: '102.00' })
  })
})

describe('an image that is crossed', () => {
  it('shows the order that came first, by the number that its id is', () => {
    connect()
    peer.answer()
    image([...BIDS, ['101.20', '3', '9']])
    expect(shown()).toMatchObject({ best_bid: '101.20', best_ask: '102.00' })
    connect()
    peer.answer()
    image([...BIDS, ['101.20', '3', '20']])
    expect(shown()).toMatchObject({ best_bid: '101.20', best_ask: '102.00' })
    connect()
    peer.answer()
    image([...BIDS, ['101.20', '3', '23']])
    expect(shown()).toMatchObject({ best_bid: '100.00', best_ask: '101.00' })
  })

  it('and what is held apart waits for the next moment, though its creation is told again', () => {
    connect()
    peer.answer()
    const { us } = driver
    peer.tell('created', '31', { price: '100.50', us })
    peer.tell('created', '32', { price: '100.40', us: us + 1000 })
    image([...BIDS, ['101.20', '3', '31']], ASKS, us)
    expect(events().map(row => row.order_id)).toContain('31')
    connect()
    peer.answer()
    image([...BIDS, ['101.20', '3', '31']], ASKS)
    peer.tell('created', '31', { price: '100.50', us: driver.us })
    expect(news()).toEqual([])
    peer.tell('created', '32', { price: '100.40' })
    expect(news()).toEqual(['open 31 bid 100.50 1.00000000', 'open 32 bid 100.40 1.00000000'])
  })
})

describe('the chain (step 5)', () => {
  it('one missing event is one gap, asks once, and the event that revealed it is not lost', () => {
    const first = driver.us
    peer.tell('created', '31', { price: '100.50' })
    peer.event('created', '32', { price: '100.60' })
    const revealedUs = Math.floor(driver.us / 1000) * 1000
    peer.tell('created', '33', { price: '100.70' })
    driver.us += 5000
    peer.tell('created', '34', { price: '100.80' })
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: peer.id(1), received: peer.id(2) }])
    expect(news().map(text => text.split(' ')[0])).toEqual(['open', 'gap'])
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, best_bid: '100.50' })
    driver.pass('a', 1000)
    expect(paths()).toHaveLength(2)
    expect(subscribed('live_orders_btcusd')).toBe(1)
    expect(details('resubscribed')).toMatchObject([{ reason: 'sequence', attempt: 2 }])
    // An image from before the loss heals nothing.
    image(BIDS, ASKS, first)
    expect(details('synced')).toHaveLength(1)
    driver.pass('a', 2000)
    image([['100.60', '1', '32'], ['100.50', '1', '31'], ...BIDS], ASKS, revealedUs + 1000)
    expect(details('synced')).toHaveLength(2)
    expect(details('gap')).toHaveLength(1)
    const held = events().slice(events().findLastIndex(row => row.event_type === 'clear'))
    expect(held.map(row => row.order_id).slice(1, 5)).toEqual(['34', '32', '31', '11'])
    peer.tell('created', '35', { price: '100.90' })
    expect(news().at(-1)).toBe('open 35 bid 100.90 1.00000000')
  })

  it('repeated events are applied once, also when others lie between', () => {
    const first = peer.event('created', '31', { price: '100.50' })
    const second = peer.event('changed', '31', { price: '100.50', size: '0.25' })
    for (const text of [first, first, second, second, first]) driver.in('a', text)
    expect(news()).toEqual(['open 31 bid 100.50 1.00000000', 'change 31 bid 100.50 0.25'])
    expect(details('gap')).toEqual([])
    peer.tell('deleted', '31', { price: '100.50', size: '0' })
    expect(news()).toHaveLength(3)
  })

  it('two in the wrong order are one gap', () => {
    const first = peer.event('created', '31')
    const second = peer.event('changed', '31', { size: '0.25' })
    const third = peer.event('created', '32')
    for (const text of [second, first, third]) driver.in('a', text)
    expect(details('gap')).toHaveLength(1)
    driver.pass('a', 1000)
    image([...BIDS, ['100.00', '0.25', '31']], ASKS)
    expect(details('gap')).toHaveLength(1)
    peer.tell('created', '33')
    expect(details('gap')).toHaveLength(1)
    expect(news().at(-1)).toBe('open 33 bid 100.00 1.00000000')
  })

  it('the chain of another instrument is another chain', () => {
    connect({}, ['btcusd', 'ethusd'])
    peer.answer()
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-0-1')
    driver.fetched('a', 200, book(BIDS, ASKS, driver.us), 'image-1-2')
    peer.tell('created', '31', { instId: 'btcusd' })
    peer.tell('created', '31', { instId: 'ethusd' })
    peer.event('created', '32', { instId: 'btcusd' })
    peer.tell('created', '33', { instId: 'btcusd' })
    peer.tell('created', '33', { instId: 'ethusd' })
    expect(details('gap', 'btcusd')).toHaveLength(1)
    expect(details('gap', 'ethusd')).toEqual([])
    expect(news('ethusd')).toHaveLength(2)
  })

  it('is compared within one subscription only', () => {
    peer.tell('created', '31')
    driver.in('a', '{"event":"bts:unsubscription_succeeded","channel":"live_orders_btcusd","data":{}}')
    expect(details('gap')).toMatchObject([{ reason: 'unsubscribed' }])
    peer.answer()
    driver.pass('a', 1000)
    peer.restart('btcusd', START_US)
    image()
    peer.tell('created', '32')
    expect(details('gap')).toHaveLength(1)
    expect(news().at(-1)).toBe('open 32 bid 100.00 1.00000000')
  })

  it('events without the fields cannot show a loss, which is told once', () => {
    goLive()
    const bare = (text: string) => text.replace(/,"event_id":.*$/, '}')
    driver.in('a', bare(peer.event('created', '31', { price: '100.50' })))
    peer.event('created', '32')
    driver.in('a', bare(peer.event('created', '33', { price: '100.60' })))
    expect(news()).toHaveLength(2)
    expect(metadata().at(-1)).toEqual({})
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['Events bear no ids: losses cannot be noticed'])
  })

  it('fields that go missing are a loss, once', () => {
    peer.tell('created', '31')
    for (const id of ['32', '33']) driver.in('a', peer.event('created', id).replace(/,"event_id":.*$/, '}'))
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: peer.id(1), received: null }])
    driver.pass('a', 1000)
    image()
    driver.in('a', peer.event('created', '34').replace(/,"event_id":.*$/, '}'))
    expect(details('gap')).toHaveLength(1)
  })

  it('overload is one gap, whatever the next event says', () => {
    peer.tell('created', '31')
    driver.engine.skip(driver.us + 1, 'a', 1000, 17)
    peer.restart()
    driver.pass('a', 1000)
    image()
    peer.tell('created', '32')
    expect(details('gap')).toMatchObject([{ reason: 'overload' }, { channel: 'trades', cause: 'overload' }])
  })

  it('a book that is lost again and again is asked for later and later', () => {
    for (let n = 0; n < 4; n++) {
      peer.event('created', '1')
      peer.tell('created', String(50 + n))
      for (let ms = 0; ms < 20_000 && paths().length < n + 2; ms += 500) driver.pass('a', 500, 500)
      image()
    }
    expect(details('gap')).toHaveLength(4)
    expect(details('resubscribed').map(row => row.attempt)).toEqual([2, 3, 4, 5])
  })
})

describe('events (step 6)', () => {
  it('created at the back, changed in its place, deleted', () => {
    peer.tell('created', '31', { size: '0.50000000' })
    peer.tell('changed', '11', { size: '1.25000000' })
    expect(news()).toEqual(['open 31 bid 100.00 0.50000000', 'change 11 bid 100.00 1.25000000'])
    expect(events().at(-1)).toMatchObject({
      exchange: 'bitstamp',
      market: 'spot',
      channel: 'live_orders',
      sequence: null,
      last: true,
      metadata: { event_id: peer.id(2) }
    })
    expect(events().at(-1)!.exchange_time).toMatch(/^2026-11-20T10:15:00\.\d{3}000Z$/)
    driver.engine.hour(driver.us, 'a', 999)
    expect(
      events()
        .slice(-6)
        .map(row => row.order_id)
    ).toEqual(['11', '12', '31', '13', '21', '22'])
  })

  it('another price is another place', () => {
    peer.tell('changed', '11', { price: '99.75', size: '1.00000000' })
    peer.tell('changed', '11', { price: '100.00', size: '1.00000000' })
    expect(news()).toEqual(['change 11 bid 99.75 1.00000000', 'change 11 bid 100.00 1.00000000'])
    driver.engine.hour(driver.us, 'a', 999)
    expect(
      events()
        .slice(-5)
        .map(row => row.order_id)
    ).toEqual(['12', '11', '13', '21', '22'])
  })

  it.each([
    ['0', 'filled'],
    ['0.00000000', 'filled'],
    ['2.00000000', 'canceled']
  ])('deleted with %s left: %s', (size, reason) => {
    peer.tell('deleted', '11', { size })
    expect(news()).toEqual(['done 11 bid 100.00 2.00000000'])
    expect(metadata().at(-1)).toEqual({ event_id: peer.id(1), reason })
  })

  it('changed to nothing is filled; its deletion then says nothing new', () => {
    peer.tell('changed', '11', { size: '0' })
    peer.tell('deleted', '11', { size: '0' })
    expect(news()).toEqual(['done 11 bid 100.00 2.00000000'])
  })

  it('created with nothing is no order', () => {
    peer.tell('created', '31', { size: '0.00000000' })
    peer.tell('changed', '31', { size: '1' })
    expect(news()).toEqual([])
  })

  it('of orders that are not there nothing is written', () => {
    peer.tell('changed', '77', { size: '1' })
    peer.tell('deleted', '77', { size: '1' })
    expect(news()).toEqual([])
    expect(details('gap')).toEqual([])
  })

  it('numbers are those of the texts, ids beyond 2^53 too', () => {
    const text = peer.event('created', '90071992547409931', { price: '100.10', size: '0.10000000' })
    driver.in('a', text)
    expect(news()).toEqual(['open 90071992547409931 bid 100.10 0.10000000'])
    // Without the texts, the numbers as they stand there.
    const bare = peer.event('created', '90071992547409933', { price: '100.10', size: '0.10000000' })
    driver.in('a', bare.replace(/"(id|amount|price)_str":"[^"]*",?/g, '').replace('"amount":0.1', '"amount":1E-1'))
    expect(news().at(-1)).toBe('open 90071992547409933 bid 100.1 1E-1')
  })
})

describe('orders that trade at once', () => {
  const SELL: Told = { side: 'sell' }

  it('a market order is never shown: the orders it meets are', () => {
    peer.tell('created', '31', { price: '9999999999', size: '5.50000000' })
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '0' })
    peer.tell('changed', '31', { price: '9999999999', size: '4.00000000' })
    peer.tell('changed', '22', { ...SELL, price: '102.00', size: '0.5' })
    peer.tell('deleted', '31', { price: '9999999999', size: '0' })
    expect(news()).toEqual(['done 21 ask 101.00 1.50000000', 'change 22 ask 102.00 0.5'])
    expect(shown()).toMatchObject({ best_bid: '100.00', best_ask: '102.00' })
  })

  it.each(['0', '0.00', '123456789012345678901234', '1000000000'])(
    'a price of %s is none, even where nothing is crossed',
    price => {
      connect()
      peer.answer()
      image(BIDS, [])
      peer.tell('created', '31', { price })
      expect(news()).toEqual([])
      driver.pass('a', 30_000, 500)
      expect(details('gap')).toEqual([])
      expect(shown()).toMatchObject({ best_bid: '100.00', best_ask: null })
      peer.tell('deleted', '31', { price, size: '0' })
      expect(news()).toEqual([])
    }
  )

  it('a very high price to sell at is a price', () => {
    peer.tell('created', '31', { ...SELL, price: '9999999999' })
    expect(news()).toEqual(['open 31 ask 9999999999 1.00000000'])
  })

  it('a limit order that crosses is opened with what is left when it crosses no more', () => {
    const us = driver.us
    peer.tell('created', '31', { price: '101.50', size: '4.00000000', us })
    expect(news()).toEqual([])
    expect(shots().filter(row => row.best_bid === '101.50')).toEqual([])
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '0', us })
    // There is room for it now, but what is left of it is not told yet.
    expect(news()).toEqual(['done 21 ask 101.00 1.50000000'])
    peer.tell('changed', '31', { price: '101.50', size: '2.50000000', us })
    expect(news().slice(1)).toEqual(['open 31 bid 101.50 2.50000000'])
    expect(metadata().at(-1)).toEqual({ event_id: peer.id(3), held: true })
    peer.tell('deleted', '31', { price: '101.50', size: '2.50000000' })
    expect(news().slice(2)).toEqual(['done 31 bid 101.50 2.50000000'])
  })

  it('the same of one that sells', () => {
    peer.tell('created', '31', { ...SELL, price: '99.75', size: '4.00000000' })
    peer.tell('deleted', '11', { size: '0' })
    peer.tell('changed', '31', { ...SELL, price: '99.75', size: '2.00000000' })
    peer.tell('deleted', '12', { size: '0' })
    peer.tell('changed', '31', { ...SELL, price: '99.75', size: '1.00000000' })
    expect(news()).toEqual([
      'done 11 bid 100.00 2.00000000',
      'done 12 bid 100.00 1.00000000',
      'open 31 ask 99.75 1.00000000'
    ])
  })

  it('one that is filled whole leaves no trace', () => {
    peer.tell('created', '31', { price: '101.00', size: '1.50000000' })
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '0' })
    peer.tell('deleted', '31', { price: '101.00', size: '0' })
    expect(news()).toEqual(['done 21 ask 101.00 1.50000000'])
  })

  it('is not opened between the events of its match', () => {
    const us = driver.us
    peer.tell('created', '31', { price: '101.00', size: '1.50000000', us })
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '0', us })
    peer.tell('changed', '12', { size: '0.5', us })
    peer.tell('deleted', '31', { price: '101.00', size: '0', us })
    expect(news()).toEqual(['done 21 ask 101.00 1.50000000', 'change 12 bid 100.00 0.5'])
  })

  it('of which nothing more is told is opened with the next moment, in one batch', () => {
    const us = driver.us
    peer.tell('created', '31', { price: '101.50', us })
    peer.tell('created', '32', { price: '101.60', us })
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '1.50000000', us })
    expect(news()).toHaveLength(1)
    peer.tell('created', '33', { price: '90.00', us: us + 1000 })
    expect(news().slice(1)).toEqual([
      'open 31 bid 101.50 1.00000000',
      'open 32 bid 101.60 1.00000000',
      'open 33 bid 90.00 1.00000000'
    ])
    expect(
      events()
        .slice(-3)
        .map(row => [row.last, row.frame])
    ).toEqual([
      [false, events().at(-1)!.frame],
      [false, events().at(-1)!.frame],
      [true, events().at(-1)!.frame]
    ])
  })

  it('or when nothing more comes', () => {
    peer.tell('created', '31', { price: '101.50' })
    peer.tell('deleted', '21', { ...SELL, price: '101.00', size: '1.50000000' })
    driver.pass('a', 1000)
    expect(news().slice(1)).toEqual(['open 31 bid 101.50 1.00000000'])
    expect(shown()).toMatchObject({ best_bid: '101.50' })
  })

  it('an order of the book whose new price crosses is taken out', () => {
    peer.tell('changed', '11', { price: '101.00', size: '2.00000000' })
    expect(news()).toEqual(['done 11 bid 100.00 2.00000000'])
    expect(metadata().at(-1)).toEqual({ event_id: peer.id(1), reason: 'repriced' })
    peer.tell('changed', '11', { price: '100.90', size: '2.00000000' })
    expect(news().slice(1)).toEqual(['open 11 bid 100.90 2.00000000'])
  })

  it('that crosses for longer than 5 s says that the book is wrong', () => {
    peer.tell('created', '31', { price: '101.00' })
    driver.pass('a', 4000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 3000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed', received: '101.00 >= 101.00' }])
    expect(paths()).toHaveLength(2)
    image()
    driver.pass('a', 20_000, 500)
    expect(details('gap')).toHaveLength(1)
  })

  it('the bounds of what is held apart', () => {
    for (let n = 0; n < 6000; n++) peer.tell('created', String(1000 + n), { price: '0' })
    const held = () =>
      (driver.engine.connectionState('a').session as { books: { held: { list: unknown[] } }[] }).books[0]!.held
    expect(held().list).toHaveLength(5000)
    wait(70)
    expect(held().list).toHaveLength(5000)
  })
})

describe('frames that cannot be read', () => {
  const good = () => peer.event('created', '31', { price: '100.50' })
  it.each([
    ['no id', (text: string) => text.replace(/"id(_str)?":[^,]*,/g, '')],
    ['an id with a quote', (text: string) => text.replace('"id_str":"31"', '"id_str":"3\\"1"')],
    ['a long id', (text: string) => text.replace('"id_str":"31"', `"id_str":"${'3'.repeat(65)}"`)],
    ['no price', (text: string) => text.replace(/"price(_str)?":[^,]*,/g, '')],
    ['a price that is null', (text: string) => text.replace(/"price(_str)?":[^,]*,/g, '"price_str":null,')],
    ['a price that is no number', (text: string) => text.replace('"100.50"', '"abc"')],
    ['a negative price', (text: string) => text.replace('"100.50"', '"-1"')],
    ['a price of too many digits', (text: string) => text.replace('"100.50"', '"1234567.8901234567"')],
    ['no amount', (text: string) => text.replace(/"amount(_str)?":[^,]*,/g, '')],
    ['a negative amount', (text: string) => text.replace('"amount_str":"1.0', '"amount_str":"-1.0')],
    ['no side', (text: string) => text.replace('"order_type":0', '"order_type":2')],
    ['a side that is true', (text: string) => text.replace('"order_type":0', '"order_type":true')],
    ['no time', (text: string) => text.replace(/"microtimestamp":"[^"]*",/, '')],
    ['a time that is none', (text: string) => text.replace(/"microtimestamp":"/, '"microtimestamp":"x')],
    ['a time of another year', (text: string) => text.replace(/"microtimestamp":"1/, '"microtimestamp":"2')],
    ['an event id that is none', (text: string) => text.replace('"event_id":"0', '"event_id":" ')],
    ['data that is a list', (text: string) => text.replace(/"data":\{[^}]*\}/, '"data":[1]')],
    ['data that is null', (text: string) => text.replace(/"data":\{[^}]*\}/, '"data":null')],
    ['half a frame', (text: string) => text.slice(0, -1)]
  ])('%s: kept, and a gap', (_, change) => {
    const text = good()
    const other = change(text)
    expect(other).not.toBe(text)
    driver.in('a', other)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(news().map(line => line.split(' ')[0])).toEqual(['gap'])
    driver.pass('a', 1000)
    expect(paths()).toHaveLength(2)
    image()
    expect(details('synced')).toHaveLength(2)
  })

  it('while an image is under way: another is asked for, as the first may not have what the frame said', () => {
    connect()
    peer.answer()
    driver.in('a', good().replace('"100.50"', '"abc"'))
    driver.fetched('a', 200, book([], [], driver.us), 'image-0-1')
    expect(events()).toEqual([])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    image()
    expect(details('synced')).toHaveLength(1)
  })

  it.each([
    [
      'white space',
      (text: string) => text.replaceAll(':', ' : ').replaceAll(',"', '\t, "').replace(/}$/, ' } '),
      'msg'
    ],
    ['line breaks', (text: string) => text.replaceAll(',"', ',\n"'), 'text'],
    [
      'another order',
      (text: string) => text.replace(/^\{("data":\{[^}]*\}),("channel":"[^"]*"),(.*)\}$/, '{$3,$2,$1}'),
      'msg'
    ],
    [
      'more members',
      (text: string) => text.replace('"data":{', '"new":{"a":[1,{}]},"data":{"other":[null,-1e5],'),
      'msg'
    ],
    ['escapes', (text: string) => text.replace('"order_created"', '"order\\u005fcreated"'), 'msg']
  ])('%s: the same event', (_, change, form) => {
    const text = good()
    const other = change(text)
    expect(other).not.toBe(text)
    expect(driver.in('a', other)).toBe(form)
    expect(news()).toEqual(['open 31 bid 100.50 1.00000000'])
    peer.tell('created', '32')
    expect(details('gap')).toEqual([])
  })

  it.each([
    ...['', 'pong', '{', '[]', 'null', '7', '"x"', '{}', '{"event":7}', '{"event":"trade"}', '{"event":"data"}'],
    ...['{"event":"order_created"}', '{"event":"__proto__","channel":"constructor"}', '['.repeat(200), '{"a":1}\n{}'],
    '{"event":"order_created","channel":"live_orders_ethusd","data":{}}',
    '{"event":"order_unheard_of","channel":"live_orders_btcusd","data":{}}',
    '{"event":"data","channel":"live_orders_btcusd","data":{"bids":[],"asks":[]}}',
    '{"event":"bts:error"}',
    '{"event":"bts:subscription_succeeded","channel":"live_orders_btcusd"}',
    '{"event":"bts:subscription_succeeded","channel":"live_orders_ethusd"}',
    '{"event":"bts:unsubscription_succeeded","channel":"x"}'
  ])('%j belongs to no book', text => {
    driver.in('a', text)
    expect(details('gap')).toEqual([])
    peer.tell('created', '31')
    expect(news()).toHaveLength(1)
    expect(paths()).toHaveLength(1)
  })

  it('the reader takes exactly what JSON takes, and no number loses a digit', () => {
    const random = seeded(7)
    const reader = new BitstampReader()
    const frames = [
      good(),
      peer.diff([['1', '2']], [['3', '0.00000000']]),
      '{"event":"bts:error","channel":"","data":{"code":null,"message":"a\\"\\\\\\u0041\\n"}}',
      '{ "data" : [1, -2.5e+3, true, false, null, {"a":{}}, []], "event":"x" , "event":"trade" }'
    ]
    let taken = 0
    for (let n = 0; n < 20_000; n++) {
      const text = n < 4 ? frames[n]! : mutate(frames[n % 4]!, random)
      let value: unknown
      try {
        value = JSON.parse(text)
      } catch {
        value = undefined
      }
      const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
      expect(reader.read(text), text).toBe(isObject)
      if (!isObject) continue
      taken++
      const { event, channel } = value as Row
      if (typeof event === 'string') expect(reader.values[0], text).toBe(event)
      if (typeof channel === 'string') expect(reader.values[1], text).toBe(channel)
      expect(reader.embeddable).toBe(!/[\n\r]/.test(text))
    }
    expect(taken).toBeGreaterThan(1000)
    expect(reader.read(`{"a":${'['.repeat(99)}${']'.repeat(99)}}`)).toBe(true)
    expect(reader.read(`{"a":${'['.repeat(100)}${']'.repeat(100)}}`)).toBe(false)
  })

  it('an event of the usual form is read like any other, and is JSON', () => {
    const random = seeded(13)
    const reader = new BitstampReader()
    const [usual, slow] = [new OrderEvent(), new OrderEvent()]
    const parts = ({ kind, id, isAsk, price, size, isZero, key, ms, micros, eventId, preEventId }: OrderEvent) => {
      return { kind, id, isAsk, price, size, isZero, key, ms, micros, eventId, preEventId }
    }
    const frames = (['created', 'changed', 'deleted'] as const).flatMap((kind, n) => [
      peer.event(kind, '2046839978799111', { side: n === 1 ? 'sell' : 'buy', price: '71743.85', size: '0.00137276' }),
      peer.event(kind, '9', { price: '9999999999', size: '0' }),
      peer.event(kind, '9', { side: 'sell', price: '0', size: '0.00000002' })
    ])
    for (const text of frames) expect(usual.readUsual(text), text).toBe(true)
    let taken = 0
    for (let n = 0; n < 20_000; n++) {
      const text = mutate(frames[n % frames.length]!, random)
      if (!usual.readUsual(text)) continue
      taken++
      const { event, channel } = JSON.parse(text) as { event: string; channel: string }
      expect(reader.read(text) && slow.fill(event.slice(6) as OrderEvent['kind'], reader.values), text).toBe(true)
      expect(parts(usual), text).toEqual(parts(slow))
      expect(usual.channel).toBe(channel)
      expect(text).not.toMatch(/[\n\r]/)
    }
    expect(taken).toBeGreaterThan(1000)
  })

  it('whatever is done to frames, no line is broken and nothing is thrown', () => {
    const random = seeded(11)
    let lost = 0
    let kept = 0
    for (let n = 0; n < 3000; n++) {
      if (n % 25 === 0) goLive()
      const kinds = [
        () => peer.event('created', String(100 + n), { price: `${90 + (n % 8)}.00` }),
        () => peer.event('changed', '11', { size: '0.5' }),
        () => peer.event('deleted', '12', { size: '0' }),
        () => '{"event":"bts:error","channel":"","data":{"code":null,"message":"Bad subscription string."}}'
      ]
      const text = mutate(kinds[n % 4]!(), random)
      const where = `frame ${n}: ${text}`
      if (driver.in('a', text) === 'msg') {
        expect(text).not.toMatch(/[\n\r]/)
        expect(() => JSON.parse(text), where).not.toThrow()
        kept++
      }
      if (paths().length > details('synced').length) image()
      driver.tick('a')
      for (const { message } of driver.requests.logs) expect(message, where).not.toContain('Assertion')
      if (n % 25 !== 24) continue
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
      lost += details('gap').length
    }
    expect(kept).toBeGreaterThan(300)
    expect(lost).toBeGreaterThan(50)
  })
})

describe('trades', () => {
  const trades = () => driver.sink.records('trades')

  it('are written once, with the taker’s side and the ids of both orders', () => {
    peer.trade({})
    peer.trade({})
    peer.trade({ id: 629876236, type: 1, price_str: '1E-8' })
    expect(trades().map(row => [row.trade_id, row.side, row.price, row.size])).toEqual([
      ['629876235', 'buy', '79715.39', '0.00062132'],
      ['629876236', 'sell', '1E-8', '0.00062132']
    ])
    expect(trades()[0]).toMatchObject({ exchange_time: '2026-09-04T19:56:10.815000Z', channel: 'trades' })
    expect(trades().map(row => row.metadata)).toEqual([
      {
        buy_order_id: '2046839997194241',
        sell_order_id: '2046839996030977',
        maker_order_id: '2046839996030977',
        taker_order_id: '2046839997194241'
      },
      {
        buy_order_id: '2046839997194241',
        sell_order_id: '2046839996030977',
        maker_order_id: '2046839997194241',
        taker_order_id: '2046839996030977'
      }
    ])
  })

  it('ids beyond 2^53 keep their digits', () => {
    driver.in(
      'a',
      '{"data":{"id":90071992547409931,"id_str":"90071992547409931","timestamp":"1788551770815","amount":1,"amount_str":"1",' +
        '"price":2,"price_str":"2","type":1,"microtimestamp":"1788551770815123","buy_order_id":90071992547409933,' +
        '"sell_order_id":90071992547409935},"channel":"live_trades_btcusd","event":"trade"}'
    )
    expect(trades()[0]).toMatchObject({
      trade_id: '90071992547409931',
      exchange_time: '2026-09-04T19:56:10.815123Z',
      metadata: { maker_order_id: '90071992547409933', taker_order_id: '90071992547409935' }
    })
  })

  it('without the ids of their orders, or a time, are trades', () => {
    peer.trade({ buy_order_id: null, microtimestamp: undefined })
    expect(trades()[0]).toMatchObject({ metadata: {}, exchange_time: null })
  })

  it.each([
    { id: null },
    { id: '1"' },
    { price_str: '-1' },
    { amount_str: 'x' },
    { type: 2 },
    { price_str: {}, price: [] }
  ])('that cannot be read do not cost the book: %j', fields => {
    peer.trade(fields)
    expect(trades()).toEqual([])
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([])
  })
})

describe('the connection', () => {
  it('a heartbeat after 15 s of quiet; none answered for 15 s more ends it', () => {
    driver.pass('a', 14_000)
    expect(driver.asked('a').at(-1)).not.toEqual({ event: 'bts:heartbeat' })
    driver.pass('a', 2000)
    expect(driver.asked('a').at(-1)).toEqual({ event: 'bts:heartbeat' })
    peer.answer()
    driver.pass('a', 16_000)
    expect(driver.asked('a').filter(row => (row as Row).event === 'bts:heartbeat')).toHaveLength(2)
    driver.pass('a', 14_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 2000)
    expect(driver.requests.hangups).toHaveLength(1)
  })

  it.each([null, '', {}])('bts:request_reconnect with %j: another is live before this one is left', data => {
    driver.pass('a', 2000)
    for (let n = 0; n < 2; n++) peer.say({ event: 'bts:request_reconnect', channel: '', data })
    expect(driver.requests.replacements).toEqual(['a'])
    expect(details('maintenance')).toHaveLength(1)
    driver.open('b', ['btcusd'], 'l3', 'a')
    const other = new Peer(driver, 'b')
    other.answer()
    peer.tell('created', '31', { price: '100.50' })
    expect(driver.requests.leaves).toEqual([])
    driver.fetched('b', 200, book([...BIDS, ['100.50', '1', '31']], ASKS, driver.us))
    expect(driver.requests.leaves).toEqual(['a'])
    other.tell('created', '32', { price: '100.60' })
    peer.tell('created', '32', { price: '100.60' })
    driver.close('a', 'replaced')
    expect(details('gap')).toEqual([])
    expect(details('synced').at(-1)).toMatchObject({ conn: 'b', planned: true })
    expect(events().filter(row => row.order_id === '32')).toMatchObject([{ conn: 'b' }])
  })

  it('is replaced before it is 90 days old', () => {
    driver.us += 88 * 86_400_000_000
    peer.say({ event: 'bts:heartbeat', channel: '', data: {} })
    driver.tick('a')
    expect(driver.requests.replacements).toEqual([])
    driver.us += 86_400_000_000
    peer.say({ event: 'bts:heartbeat', channel: '', data: {} })
    driver.tick('a')
    expect(driver.requests.replacements).toEqual(['a'])
  })

  it('that is lost is a gap; the next one heals it', () => {
    driver.close('a', 'lost', 1006)
    driver.open('b', ['btcusd'], 'l3')
    new Peer(driver, 'b').answer()
    driver.fetched('b', 200, book(BIDS, ASKS, driver.us))
    expect(driver.sink.records('status').map(row => row.event)).toEqual([
      ...['connected', 'subscribed', 'synced', 'disconnected', 'gap', 'connected', 'subscribed', 'synced']
    ])
  })
})

/** Lets time pass on a connection whose far end answers, and answers what is asked of REST by `answer`. */
function wait(seconds: number, answer?: () => void): void {
  for (let second = 0; second < seconds; second++) {
    const before = driver.fetches('a').length
    driver.pass('a', 1000)
    peer.answer()
    if (answer && driver.fetches('a').length > before) answer()
  }
}

/** How the comparison of the first book stands. */
const audit = () => (driver.engine.connectionState('a').session as { audits: { stage: string }[] }).audits[0]!

describe('comparing with REST (step 7)', () => {
  const changes = (seconds: number) => {
    // An active market: an order comes and goes, far from the best price.
    for (let second = 0; second < seconds; second++) {
      peer.tell(second % 2 ? 'deleted' : 'created', '99', { price: '50.00' })
      driver.pass('a', 1000)
      peer.answer()
    }
  }

  it('every ten minutes; a book that agrees is left alone', () => {
    changes(595)
    expect(audit().stage).toBe('idle')
    while (audit().stage === 'idle') changes(1)
    changes(1)
    expect(paths()).toHaveLength(1)
    changes(2)
    expect(paths()).toHaveLength(2)
    image()
    changes(610)
    expect(paths()).toHaveLength(3)
    image()
    changes(590)
    expect(paths()).toHaveLength(3)
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
  })

  it.each([
    ['an order that is gone', BIDS.slice(1), ASKS, 'none', 'bid 100.00 2.00000000 11'],
    ['one that is missing', [...BIDS, ['99.70', '1', '55'] as const], ASKS, 'bid 99.70 1 55', 'none'],
    [
      'another size',
      [['100.00', '2.5', '11'] as const, ...BIDS.slice(1)],
      ASKS,
      'bid 100.00 2.5 11',
      'bid 100.00 2.00000000 11'
    ],
    ['another price', BIDS, [ASKS[0]!, ['103', '4', '22'] as const], 'ask 103 4 22', 'ask 102.00 4.00000000 22']
  ])('%s: twice in a row is a gap, once is none', (_, bids, asks, expected, received) => {
    changes(610)
    image(bids as OrderText[], asks as OrderText[])
    changes(10)
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toMatchObject([{ message: 'Book disagrees with REST' }])
    changes(40)
    expect(paths()).toHaveLength(3)
    image(bids as OrderText[], asks as OrderText[])
    changes(10)
    expect(details('gap')).toMatchObject([{ reason: 'image_mismatch', expected, received }])
    expect(paths()).toHaveLength(4)
    image(bids as OrderText[], asks as OrderText[])
    changes(700)
    expect(details('gap')).toHaveLength(1)
  })

  it('a disagreement, then agreement, then a disagreement: no gap', () => {
    changes(610)
    image(BIDS.slice(1))
    changes(40)
    image()
    changes(620)
    image(BIDS.slice(1))
    changes(20)
    expect(paths()).toHaveLength(4)
    expect(details('gap')).toEqual([])
  })

  it('what changes around the request is left out: before, between and after', () => {
    changes(600)
    // The first of these begins it; its request goes out two seconds later.
    for (let round = 0; round < 2; round++) {
      const asks = paths().length
      while (audit().stage === 'idle') changes(1)
      peer.tell('changed', '11', { size: '0.1' })
      while (paths().length === asks) changes(1)
      peer.tell('created', '61', { price: '100.70' })
      const us = driver.us
      image(BIDS, ASKS, us)
      peer.tell('deleted', '21', { side: 'sell', price: '101.00', size: '0' })
      changes(4)
      peer.tell('changed', '11', { size: '2.00000000' })
      peer.tell('deleted', '61', { price: '100.70' })
      peer.tell('created', '21', { side: 'sell', price: '101.00', size: '1.50000000' })
      changes(590)
    }
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
    expect(paths().length).toBeGreaterThanOrEqual(3)
  })

  it('more than 20 levels down nothing is compared; orders held apart and new ones are left out', () => {
    connect()
    peer.answer()
    const many = Array.from({ length: 30 }, (_, n): OrderText => [String(90 - n), '1', String(500 + n)])
    image(many, ASKS)
    changes(596)
    peer.tell('created', '71', { price: '0', side: 'sell' })
    while (paths().length < 2) changes(1)
    image([...many.slice(0, 22), ['99.00', '1', '71']], ASKS)
    for (let n = 0; n < 5; n++) peer.tell('created', String(80 + n), { price: '95.00' })
    changes(10)
    expect(audit().stage).toBe('idle')
    expect(driver.requests.logs).toEqual([])
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['an error', () => driver.fetched('a', 500, undefined)],
    ['an old answer', () => image([], [], driver.us - 60_000_000)],
    ['an answer of another form', () => driver.fetched('a', 200, { ...book([], [], driver.us), bids: [['1', '2']] })]
  ])('%s says nothing', (_, answer) => {
    changes(610)
    for (let round = 0; round < 4; round++) {
      const asks = paths().length
      answer()
      while (paths().length === asks) changes(1)
    }
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
  })

  it('a book of which too much changes meanwhile is not compared', () => {
    changes(600)
    while (audit().stage === 'idle') changes(1)
    driver.stepUs = 1
    for (let n = 0; n < 20_001; n++) peer.tell(n % 2 ? 'deleted' : 'created', '99', { price: '50.00' })
    expect(audit().stage).toBe('idle')
    driver.stepUs = 1000
    changes(500)
    expect(paths()).toHaveLength(1)
  })

  it('no answer says nothing either, and is asked for again', () => {
    changes(700)
    expect(paths().length).toBeGreaterThan(2)
    expect(details('gap')).toEqual([])
  })

  it('a book that is lost meanwhile is not compared', () => {
    changes(610)
    peer.event('created', '1')
    peer.tell('created', '62')
    driver.fetched('a', 200, book([], [], driver.us), 'audit-0-1')
    changes(10)
    expect(details('gap')).toMatchObject([{ reason: 'sequence' }])
  })
})

describe('silence', () => {
  it('a quiet market is left alone, as long as REST agrees', () => {
    wait(600, () => image())
    expect(paths().length).toBeGreaterThan(5)
    expect(paths().length).toBeLessThan(14)
    expect(details('gap')).toEqual([])
    expect(details('stalled')).toEqual([])
    expect(subscribed('live_orders_btcusd')).toBe(1)
  })

  it('a subscription that was acknowledged and stays mute is subscribed again', () => {
    peer.tell('created', '90', { price: '98.00' })
    peer.tell('deleted', '90', { price: '98.00', size: '0' })
    const moved: OrderText[] = [['99.90', '1', '91'], ...BIDS.slice(0, 1)]
    wait(70, () => image(moved))
    expect(details('stalled')).toMatchObject([{ channel: 'book' }])
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(asked().filter(text => text.includes('live_orders'))).toEqual([
      'bts:subscribe live_orders_btcusd',
      'bts:unsubscribe live_orders_btcusd',
      'bts:subscribe live_orders_btcusd'
    ])
    expect(details('synced')).toHaveLength(2)
    // Another subscription, another chain.
    peer.restart('btcusd', START_US)
    peer.tell('created', '92', { price: '99.00' })
    peer.tell('deleted', '92', { price: '99.00', size: '0' })
    wait(130, () => image(moved))
    expect(details('gap')).toHaveLength(1)
  })

  it('all of the book is compared then, not only the best of it', () => {
    connect()
    peer.answer()
    const many = Array.from({ length: 30 }, (_, n): OrderText => [String(90 - n), '1', String(500 + n)])
    image(many, ASKS)
    wait(70, () => image(many.slice(0, 29), ASKS))
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
  })

  it('without REST nobody knows, and nothing is lost', () => {
    wait(300, () => driver.fetched('a', 500, undefined))
    expect(details('gap')).toEqual([])
    wait(60, () => image())
    expect(details('gap')).toEqual([])
  })

  it('an event that comes while it is looked at is life', () => {
    wait(61)
    expect(paths()).toHaveLength(2)
    image([['100.40', '1', '31'], ...BIDS])
    driver.pass('a', 1000)
    peer.tell('created', '31', { price: '100.40', size: '1' })
    wait(20)
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
  })

  it('the limit can be set', () => {
    goLive({ silenceMs: 3000 })
    wait(4)
    expect(paths()).toHaveLength(2)
  })

  it('trades may be silent for ever', () => {
    wait(600, () => image())
    expect(asked().filter(text => text.includes('live_trades'))).toHaveLength(1)
  })
})

describe('level l2', () => {
  const LOW: readonly LevelText[] = [
    ['100.00', '3.00000000'],
    ['99.50', '5.00000000']
  ]
  const HIGH: readonly LevelText[] = [
    ['101.00', '1.50000000'],
    ['102.00', '4.00000000']
  ]
  const updates = () => driver.sink.records('l2_updates')
  const types = () => updates().map(row => row.event_type)
  const levels = (us = driver.us, bids = LOW, asks = HIGH) => driver.fetched('a', 200, book(bids, asks, us))

  beforeEach(() => {
    connect({}, ['btcusd'], 'l2')
    peer.answer()
  })

  it('asks for levels, and says that nothing is proved', () => {
    expect(asked()[0]).toBe('bts:subscribe diff_order_book_btcusd')
    expect(driver.fetches('a')[0]).toMatch(/^\/api\/v2\/order_book\/btcusd\/\?group=1&_=\d{13}$/)
    expect(details('subscribed')[0]).toMatchObject({ proof: { sequence: 'none', checksum: false } })
    levels()
    expect(updates()[1]).toMatchObject({
      event_type: 'snapshot',
      channel: 'diff_order_book',
      bids: [
        ['100.00', '3.00000000', '0', null],
        ['99.50', '5.00000000', '0', null]
      ],
      seqId: null
    })
  })

  it('step 3: frames up to the image’s microsecond are dropped, later ones applied', () => {
    const at = driver.us
    driver.in('a', peer.diff([['98', '1']], [], at - 1))
    driver.in('a', peer.diff([['97', '1']], [], at))
    driver.in('a', peer.diff([['96', '1']], [['101.00', '0.00000000']], at + 1))
    levels(at)
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      bids: [{}, {}, ['96', '1', '0', null]],
      asks: [['102.00', '4.00000000', '0', null]]
    })
    driver.in('a', peer.diff([['95', '1']], [], at + 2))
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [['95', '1', '0', null]], asks: [] })
    expect(updates().at(-1)!.exchange_time).toMatch(/^2026-11-20T10:15:00\.\d{6}Z$/)
  })

  it('step 4: an image older than the first frame that waits is asked for again', () => {
    const at = driver.us
    driver.in('a', peer.diff([['98', '1']], [], at))
    levels(at - 1)
    expect(updates()).toEqual([])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    levels(at)
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it('step 3: what was under way and is in the image is dropped after it, too', () => {
    const at = driver.us + 100_000
    levels(at)
    driver.in('a', peer.diff([['98', '1']], [], at - 5))
    driver.in('a', peer.diff([['98', '1']], [], at))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(details('gap')).toEqual([])
  })

  it('step 5: repeated frames are applied once, a late one is a gap', () => {
    levels()
    const frames = [1, 2, 3].map(n => peer.diff([[String(90 + n), String(n)]], [], driver.us + n * 10))
    for (const n of [0, 0, 2, 2, 0]) driver.in('a', frames[n]!)
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update'])
    driver.in('a', frames[1]!)
    expect(details('gap')).toMatchObject([{ reason: 'order' }])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    // An image that is older than what was applied does not heal it.
    levels(driver.us - 3_000_000)
    expect(details('synced')).toHaveLength(1)
    driver.pass('a', 2000)
    levels()
    expect(details('synced')).toHaveLength(2)
    expect(details('gap')).toHaveLength(1)
  })

  it('step 5: what comes late while an image is under way must be in the image', () => {
    const at = driver.us
    for (const n of [0, 200, 100]) driver.in('a', peer.diff([[String(90 + n), String(n)]], [], at + n))
    levels(at + 50)
    expect(updates()).toEqual([])
    driver.pass('a', 1000)
    levels(at + 200)
    expect(updates()[1]).toMatchObject({ event_type: 'snapshot', bids: [{}, {}] })
  })

  it('whatever it was lost by, a book is not replaced by an older one', () => {
    levels()
    driver.in('a', peer.diff([['101.00', '1']], []))
    driver.pass('a', 8000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    levels(driver.us - 10_000_000)
    expect(details('synced')).toHaveLength(1)
    driver.pass('a', 2000)
    levels()
    expect(details('synced')).toHaveLength(2)
  })

  it('numbers in every way they are written; a price of zero is none', () => {
    levels()
    driver.in(
      'a',
      peer.diff(
        [
          ['1E-8', '1e-7'],
          ['0', '1'],
          ['0.00002835', '12345678901.12345678']
        ],
        [
          ['102.00', '0e0'],
          ['101.00', '0']
        ]
      )
    )
    expect(updates().at(-1)).toMatchObject({
      bids: [
        ['1E-8', '1e-7', '0', null],
        ['0.00002835', '12345678901.12345678', '0', null]
      ],
      asks: [
        ['102.00', '0e0', '0', null],
        ['101.00', '0', '0', null]
      ]
    })
    driver.in('a', peer.diff([], [['0.00', '1']]))
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [], asks: [] })
    expect(shown()).toMatchObject({ best_bid: '100.00', best_ask: null, asks_top400: [] })
  })

  it('rows of zero in an image are none', () => {
    levels(driver.us, [['0', '1'], ...LOW], [['103', '0.00'], ...HIGH])
    expect(shown()).toMatchObject({ bids_top400: [{}, {}], asks_top400: [{}, {}] })
  })

  it.each([
    ['no bids', (text: string) => text.replace('"bids"', '"bidz"')],
    ['a side that is null', (text: string) => text.replace('"asks":[]', '"asks":null')],
    ['a size that is no number', (text: string) => text.replace('"1"]', '""]')],
    ['a negative size', (text: string) => text.replace('"1"]', '"-1"]')],
    ['a price that is no number', (text: string) => text.replace('"98"', '"x"')],
    ['numbers instead of text', (text: string) => text.replace('"98"', '98')],
    ['too few cells', (text: string) => text.replace(',"1"]', ']')],
    ['no time', (text: string) => text.replace('"microtimestamp"', '"micro"')]
  ])('%s: kept, and a gap', (_, change) => {
    levels()
    const text = peer.diff([['98', '1']], [])
    const other = change(text)
    expect(other).not.toBe(text)
    driver.in('a', other)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
  })

  it('orders in the channel of levels, and levels in that of trades, are nobody’s', () => {
    levels()
    driver.in('a', peer.event('created', '31').replace('live_orders', 'diff_order_book'))
    driver.in('a', peer.event('created', '31').replace('live_orders', 'live_trades'))
    driver.in('a', peer.diff([['98', '1']], []).replace('diff_order_book', 'live_trades'))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(driver.requests.logs).toEqual([])
  })

  it('white space and more cells: the same update', () => {
    levels()
    const text = peer.diff([['98', '1']], []).replace('"bids":[["98","1"]]', '"bids" : [ [ "98", "1", "x" ] ]')
    expect(driver.in('a', text)).toBe('msg')
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [['98', '1', '0', null]] })
  })

  it('a book that is crossed for longer than 5 s is wrong', () => {
    levels()
    driver.in('a', peer.diff([['101.00', '1']], []))
    driver.pass('a', 4000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 3000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
  })

  it('step 7: a lost frame is found by the comparison with REST', () => {
    levels()
    const changes = (seconds: number) => {
      for (let second = 0; second < seconds; second++) {
        driver.in('a', peer.diff([['50', String(second + 1)]], []))
        driver.pass('a', 1000)
        peer.answer()
      }
    }
    peer.diff([['100.00', '9']], [])
    const truth: readonly LevelText[] = [
      ['100.00', '9'],
      ['99.50', '5']
    ]
    changes(610)
    levels(driver.us, [...truth, ['99.6', '0.00']])
    changes(40)
    expect(details('gap')).toEqual([])
    levels(driver.us, [['99.6', '0.00'], ...truth])
    changes(10)
    expect(details('gap')).toMatchObject([
      { reason: 'image_mismatch', expected: 'bid 100.00 9', received: 'bid 100.00 3.00000000' }
    ])
    levels(driver.us, truth)
    changes(620)
    levels(driver.us, [...truth, ['98.5', '1']])
    driver.in('a', peer.diff([['98.5', '1']], []))
    changes(10)
    expect(details('gap')).toHaveLength(1)
    expect(driver.requests.logs.filter(({ message }) => message === 'Book disagrees with REST')).toHaveLength(2)
  })

  it('step 7: a quiet book is left alone, a mute one subscribed again', () => {
    levels()
    wait(130, () => levels(driver.us, [...LOW, ['99.60', '0.00']]))
    expect(driver.requests.logs).toEqual([])
    expect(details('gap')).toEqual([])
    wait(70, () => levels(driver.us, LOW.slice(1)))
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(subscribed('diff_order_book_btcusd')).toBe(2)
  })
})

describe('instruments', () => {
  const ROWS = [
    {
      name: 'BTC/USD',
      market_symbol: 'btcusd',
      base_currency: 'BTC',
      base_decimals: 8,
      counter_currency: 'USD',
      counter_decimals: 2,
      minimum_order_value: '10',
      trading: 'Enabled',
      market_type: 'SPOT',
      contract_size: '1.00000000'
    },
    {
      name: 'BTC/USD-PERP',
      market_symbol: 'btcusd-perp',
      base_currency: 'BTC',
      base_decimals: 8,
      counter_currency: 'USD',
      counter_decimals: 0,
      minimum_order_value: '10',
      trading: 'Disabled',
      market_type: 'PERPETUAL',
      contract_size: '1.00000000'
    }
  ]
  const catalogue = bitstamp.catalogue(null)

  it('are listed in one answer', () => {
    expect(catalogue.paths([])).toEqual(['/api/v2/markets/'])
    const [spot, perp] = catalogue.read([ROWS])
    expect(spot).toEqual({
      exchange: 'bitstamp',
      instId: 'btcusd',
      market: 'spot',
      base: 'BTC',
      quote: 'USD',
      settleCcy: 'USD',
      contractValue: null,
      contractValueCcy: null,
      multiplier: null,
      tickSize: '0.01',
      lotSize: '0.00000001',
      minSize: null,
      minNotional: '10',
      status: 'Enabled',
      raw: ROWS[0]
    })
    expect(perp).toMatchObject({
      instId: 'btcusd-perp',
      market: 'perp',
      settleCcy: null,
      contractValue: '1.00000000',
      tickSize: '1',
      status: 'Disabled'
    })
  })

  it('of the older list are read as well', () => {
    const row = {
      name: 'ETH/EUR',
      url_symbol: 'etheur',
      base_decimals: 8,
      counter_decimals: 1,
      minimum_order: '20.0 EUR',
      trading: 'Enabled'
    }
    expect(catalogue.read([[row, {}, null]])).toMatchObject([
      { instId: 'etheur', base: 'ETH', quote: 'EUR', tickSize: '0.1', minNotional: '20.0' }
    ])
  })

  it.each([[undefined], [{}], [[{ name: 'x' }]]])('%j is no list', answer => {
    expect(() => catalogue.read([answer])).toThrow(TypeError)
  })

  it.each([
    ...['btcusd', 'BTCUSD', 'BTC/USD', 'BTC-USD', 'btc_usd', 'BTC:USD', 'XBTUSD', 'XBT/USD', ' btcusd '].map(name => [
      name,
      'btcusd'
    ]),
    ...['btcusd-perp', 'BTC/USD-PERP', 'BTCUSD_PERP', 'BTC-USD-PERP', 'btcusdperp', 'XBT/USD:PERP'].map(name => [
      name,
      'btcusd-perp'
    ]),
    ['ETH/XBT', 'ethbtc'],
    ['XDG/USD', 'dogeusd'],
    ['USDT/USD', 'usdtusd'],
    ['USDCUSDT', 'usdcusdt']
  ])('%s is %s', (symbol, instId) => {
    expect(bitstamp.spell(symbol)).toBe(instId)
  })

  it('are described by their names', () => {
    expect(bitstamp.describe('btcusd-perp', SELECTION)).toEqual({
      exchange: 'bitstamp',
      instId: 'btcusd-perp',
      market: 'perp',
      level: 'l3',
      channel: 'live_orders'
    })
    const { routes, restUrl } = bitstamp.endpoints(SELECTION)
    expect([restUrl, routes[0]!.url]).toEqual(['https://www.bitstamp.net', 'wss://ws.bitstamp.net'])
    // Two channels for each, of 1024.
    expect(routes[0]!.instrumentsMax * 2).toBeLessThanOrEqual(1024)
  })

  it('perpetuals are captured like pairs', () => {
    connect({}, ['btcusd-perp'])
    peer.answer()
    image()
    peer.tell('created', '31', { instId: 'btcusd-perp' })
    expect(driver.fetches('a')[0]).toContain('/order_book/btcusd-perp/')
    expect(events('btcusd-perp').at(-1)).toMatchObject({ market: 'perp', event_type: 'open' })
  })
})

type Line = readonly [method: 'open' | 'read' | 'apply' | 'fetched' | 'tick' | 'close' | 'skip', ...args: unknown[]]

/** Remembers the lines that a driver's engine gets from now on. */
function tape(of: Driver): Line[] {
  const lines: Line[] = []
  const engine = of.engine as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const method of ['open', 'read', 'apply', 'fetched', 'tick', 'close', 'skip'] as const) {
    const original = engine[method]!.bind(of.engine)
    engine[method] = (...args) => {
      lines.push([method, ...structuredClone(args)])
      return original(...args)
    }
  }
  return lines
}

function playLine(engine: Engine, [method, ...args]: Line): void {
  ;(engine as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!(...args)
}

/** After each line: what a second engine makes of the state must be what the first one makes, byte for byte. */
function expectRestorable(of: Driver, lines: readonly Line[], instIds: string[], level: Level): number {
  const instruments = described(bitstamp, instIds, level)
  const feeds: FeedKind[] = ['book', 'trades']
  let places = 0
  for (let place = 1; place < lines.length; place++) {
    if (lines[place - 1]![0] === 'read') continue
    places++
    const [sink, other] = [new MemorySink(), new MemorySink()]
    const [asks, otherAsks] = [new RecordedRequests(), new RecordedRequests()]
    const first = new Engine(bitstamp, sink, asks)
    for (const line of lines.slice(0, place)) playLine(first, line)
    const us = Number(lines[place - 1]!.find(arg => typeof arg === 'number'))
    const detail = JSON.parse(
      JSON.stringify({
        v: STATE_VERSION,
        config: of.config,
        instruments,
        feeds,
        replaces: null,
        subjects: first.subjectStates(instruments),
        connection: first.connectionState('a')
      })
    ) as StateDetail
    const [mark, askMark] = [sink.lines.length, asks.sent.length]
    const fetchMark = asks.fetches.length
    const second = new Engine(bitstamp, other, otherAsks)
    first.hour(us, 'a', 0)
    second.hour(us, 'a', 0, detail)
    for (const line of lines.slice(place)) {
      playLine(first, line)
      playLine(second, line)
    }
    expect(other.lines, `restored behind line ${place}`).toEqual(sink.lines.slice(mark))
    expect(otherAsks.sent, `restored behind line ${place}`).toEqual(asks.sent.slice(askMark))
    expect(otherAsks.fetches, `restored behind line ${place}`).toEqual(asks.fetches.slice(fetchMark))
  }
  return places
}

describe('a state that is restored goes on as if nothing had been', () => {
  it('L3: images, the chain, orders held apart, comparisons, silence, refusals', () => {
    driver = new Driver(bitstamp)
    const lines = tape(driver)
    driver.open('a', ['btcusd', 'ethusd', 'ltcusd'], 'l3')
    peer = new Peer(driver)
    peer.requests()
    peer.say({ event: 'bts:subscription_succeeded', channel: 'live_orders_btcusd', data: {} })
    peer.error('Try again later.')
    peer.error('Bad subscription string.')
    peer.tell('created', '31', { price: '101.50' })
    image(BIDS, ASKS, driver.us - 900_000)
    driver.pass('a', 1000)
    image()
    peer.answer()
    const us = driver.us
    peer.tell('created', '32', { price: '101.50', us })
    peer.tell('created', '33', { price: '0', side: 'sell', us })
    peer.tell('deleted', '21', { side: 'sell', price: '101.00', size: '0', us })
    const twice = peer.event('created', '34', { us: us + 2000, price: '101.80' })
    driver.in('a', twice)
    driver.in('a', twice)
    peer.event('created', '35')
    peer.tell('created', '36', { price: '102.50' })
    driver.fetched('a', 500, undefined)
    driver.pass('a', 500, 500)
    image()
    peer.trade({})
    peer.trade({})
    wait(70, () => image(BIDS.slice(1)))
    wait(5)
    image()
    peer.tell('created', '37', { price: '100.70' })
    for (let n = 0; n < 11; n++) {
      driver.pass('a', 55_000, 55_000)
      peer.tell(n % 2 ? 'deleted' : 'created', '38', { price: '60' })
      peer.answer()
    }
    for (let n = 0; n < 60 && details('gap').length < 3; n++) {
      peer.tell(n % 2 ? 'created' : 'deleted', '38', { price: '60' })
      const before = driver.fetches('a').length
      driver.pass('a', 2000, 2000)
      peer.answer()
      if (driver.fetches('a').length > before) image(BIDS.slice(2))
    }
    peer.say({ event: 'bts:request_reconnect', channel: '', data: null })
    const reasons = details('gap').map(row => row.reason)
    expect(reasons).toContain('sequence')
    expect(reasons).toContain('silence')
    expect(reasons).toContain('image_mismatch')
    expect(expectRestorable(driver, lines, ['btcusd', 'ethusd', 'ltcusd'], 'l3')).toBeGreaterThan(100)
  })

  it('L2: images, repeated and late frames', () => {
    driver = new Driver(bitstamp)
    const lines = tape(driver)
    driver.open('a', ['btcusd'], 'l2')
    peer = new Peer(driver)
    peer.answer()
    const levels = () => driver.fetched('a', 200, book([['100', '1']], [['101', '1']], driver.us))
    driver.in('a', peer.diff([['99', '1']], []))
    levels()
    const frames = [1, 2, 3].map(n => peer.diff([[String(90 + n), String(n)]], [], driver.us + n * 10))
    for (const n of [0, 0, 2, 1, 2]) driver.in('a', frames[n]!)
    driver.pass('a', 1000)
    levels()
    driver.in('a', peer.diff([['98', '1']], []))
    wait(70, levels)
    wait(5)
    levels()
    driver.in('a', peer.diff([['98', '1']], []))
    expect(details('gap').map(row => row.reason)).toEqual(['order', 'silence'])
    expect(expectRestorable(driver, lines, ['btcusd'], 'l2')).toBeGreaterThan(50)
  })
})

/** What happens next: a change of the market, something that befalls the next frame, an answer of REST, time. */
type Step = { order: number; size: number } | 'drop' | 'double' | 'swap' | 'look' | 'answer' | 'tick' | 'moment'

const STEPS = fc.array(
  fc.oneof(
    { weight: 14, arbitrary: fc.record({ order: fc.nat(11), size: fc.nat(6) }) },
    { weight: 1, arbitrary: fc.constantFrom('drop' as const, 'double' as const, 'swap' as const) },
    { weight: 2, arbitrary: fc.constantFrom('look' as const, 'moment' as const) },
    { weight: 3, arbitrary: fc.constant('answer' as const) },
    { weight: 4, arbitrary: fc.constant('tick' as const) }
  ),
  { minLength: 20, maxLength: 200 }
)

/** A market of twelve orders, and a line that loses, doubles and swaps what it says. */
function playMarket(steps: readonly Step[]): Driver {
  driver = new Driver(bitstamp)
  driver.stepUs = 200
  driver.open('a', ['btcusd'], 'l3')
  peer = new Peer(driver)
  peer.answer()
  const market = new Map<number, string>()
  const truth = () => {
    const side = (isAsk: boolean) =>
      [...market]
        .filter(([id]) => id >= 6 === isAsk)
        .sort(([a], [b]) => (isAsk ? a - b : b - a))
        .map(([id, size]) => [String(100 + id), size, '0', '1'])
    return JSON.stringify([side(false), side(true)])
  }
  const rows = (isAsk: boolean) =>
    [...market].filter(([id]) => id >= 6 === isAsk).map(([id, size]) => [String(100 + id), size, String(id)])
  let fault: Step | undefined
  let swapped: string | undefined
  /** The book after each event, and how many of them came or were in an image. */
  const states = [truth()]
  let come = 0
  let photo: [Row, number] | undefined
  const look = (): [Row, number] => [book(rows(false), rows(true), driver.us), states.length - 1]
  const tick = () => {
    const before = driver.sink.lines.length
    driver.pass('a', 2000)
    peer.answer()
    for (const { feed, text } of driver.sink.lines.slice(before)) {
      if (feed !== 'l3_spot') continue
      const row = JSON.parse(text) as Row
      expect(JSON.stringify([row.bids_top400, row.asks_top400])).toBe(states[come])
    }
  }
  const answer = () => {
    const before = details('synced').length
    const [shownThen, number] = photo ?? look()
    photo = undefined
    driver.fetched('a', 200, shownThen)
    if (details('synced').length > before) come = Math.max(come, number)
  }
  const change = (order: number, size: number) => {
    const isKnown = market.has(order)
    if (size === 0 && !isKnown) return
    // What an image of the very millisecond has of an event that was lost cannot be known before the next event.
    if (fault) driver.us += 2000
    if (size === 0) market.delete(order)
    else market.set(order, String(size))
    const told: Told = { side: order < 6 ? 'buy' : 'sell', price: String(100 + order), size: String(size) }
    const text = peer.event(size === 0 ? 'deleted' : isKnown ? 'changed' : 'created', String(order), told)
    states.push(truth())
    if (fault) driver.us += 2000
    const now = fault
    fault = undefined
    if (now === 'drop') return
    if (now === 'swap' && swapped === undefined) {
      swapped = text
      return
    }
    driver.in('a', text)
    come = states.length - 1
    if (now === 'double') driver.in('a', text)
    if (swapped) driver.in('a', swapped)
    swapped = undefined
  }
  for (const step of steps) {
    if (step === 'tick') tick()
    else if (step === 'moment') driver.us += 1000
    else if (step === 'look') photo = look()
    else if (step === 'answer') answer()
    else if (typeof step === 'string') fault = step
    else change(step.order, step.size)
  }
  return driver
}

it('whatever is lost, doubled or swapped, no snapshot shows a book that never was', () => {
  let taken = 0
  let gaps = 0
  fc.assert(
    fc.property(STEPS, steps => {
      playMarket(steps)
      taken += shots().length
      gaps += details('gap').length
      for (const { message } of driver.requests.logs) expect(message).not.toContain('Assertion')
    }),
    { numRuns: 300 }
  )
  expect(taken).toBeGreaterThan(500)
  expect(gaps).toBeGreaterThan(50)
})

/** Recordings lie beside the project, not in it. */
const RECORDINGS = fileURLToPath(new URL('../../../shared/recordings/', import.meta.url))

interface Recorded {
  readonly us: number
  readonly dir: string
  readonly url: string
  readonly exchange?: string
  readonly msg: string
}

function loadRecording(name: string): Recorded[] {
  let lastUs = 0
  return gunzipSync(readFileSync(`${RECORDINGS}${name}.jsonl.gz`))
    .toString()
    .split('\n')
    .slice(1)
    .filter(Boolean)
    .map(line => JSON.parse(line) as Recorded & { t: string })
    .map(({ t, ...record }) => {
      lastUs = Math.max(lastUs + 1, Number(BigInt(t) / 1000n))
      return { ...record, us: lastUs }
    })
}

describe.skipIf(!hasRecordings)(`recordings${NEEDS_RECORDINGS}`, () => {
  it('bitstamp-diff-1: 102 diffs are in their image, 615 are applied, no level that is not there is removed', () => {
    const records = loadRecording('bitstamp-diff-1')
    const wanted = (record: Recorded) => /"channel":"(\w+)"/.exec(record.msg)![1]!
    const instIds = records
      .filter(({ dir, msg }) => dir === 'out' && msg.includes('diff_order_book'))
      .map(record => wanted(record).replace('diff_order_book_', ''))
    const images = new Map(
      records.filter(({ dir }) => dir === 'http').map(({ url, msg }) => [url.split('/').at(-1)!, msg])
    )
    expect([instIds.length, images.size]).toEqual([10, 10])
    driver = new Driver(bitstamp, { cadenceMs: 500 }, records[0]!.us)
    driver.stepUs = 1
    driver.open('a', instIds, 'l2')
    // The recorder asked for everything at once: the same in the same order.
    let answered = 0
    for (const { us, msg } of records.filter(({ dir }) => dir === 'in')) {
      const tickUs = Math.floor(us / 500_000) * 500_000
      if (tickUs > driver.us) {
        driver.us = tickUs
        driver.tick('a')
      }
      driver.us = Math.max(driver.us, us)
      driver.in('a', msg)
      for (const { request } of driver.requests.fetches.slice(answered)) {
        answered++
        const instId = request.path.split('/').at(-2)!
        driver.fetched('a', 200, JSON.parse(images.get(instId)!), request.id)
      }
    }
    const outs = records.filter(({ dir }) => dir === 'out').map(({ msg }) => msg)
    expect(driver.sent.map(({ text }) => text)).toEqual(outs)
    const lines = driver.sink.records('l2_updates')
    expect(lines.filter(row => row.event_type === 'update')).toHaveLength(615)
    expect(lines.filter(row => row.event_type === 'snapshot')).toHaveLength(10)
    const diffs = records.filter(({ dir, msg }) => dir === 'in' && msg.includes('"event":"data"'))
    expect(diffs).toHaveLength(615 + 102)
    let absent = 0
    for (const instId of instIds) {
      const sides = { bids: new Map<string, string>(), asks: new Map<string, string>() }
      for (const row of lines.filter(line => line.instId === instId && line.event_type !== 'clear')) {
        for (const side of ['bids', 'asks'] as const) {
          for (const [price, size] of row[side] as string[][]) {
            if (/^0(\.0*)?$/.test(size!)) absent += sides[side].delete(price!) ? 0 : 1
            else sides[side].set(price!, size!)
          }
        }
        const best = (side: 'bids' | 'asks', pick: (...values: number[]) => number) =>
          [...sides[side].keys()].reduce((found, price) => pick(found, Number(price)), side === 'bids' ? 0 : 1e12)
        expect(best('bids', Math.max)).toBeLessThan(best('asks', Math.min))
      }
    }
    expect(absent).toBe(0)
    expect(driver.sink.records('trades')).toHaveLength(10)
    expect(driver.sink.records('trades')[0]).toMatchObject({
      trade_id: '216000477',
      side: 'buy',
      price: '3805.44',
      metadata: { maker_order_id: '1443875731320832', taker_order_id: '1443875737346049' }
    })
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
    expect(driver.requests.settledNames).toEqual(['a'])
    const books = driver.sink.records('l2_spot')
    expect(books.length).toBeGreaterThan(300)
    for (const row of books) expect(Number(row.best_bid)).toBeLessThan(Number(row.best_ask))
  })

  it('single-frames-1: each is of its kind', () => {
    const frames = loadRecording('single-frames-1').filter(({ exchange }) => exchange === 'bitstamp')
    expect(frames).toHaveLength(5)
    const of = (what: string) => frames.find(({ msg }) => msg.includes(what))!.msg
    driver = new Driver(bitstamp, {}, Date.UTC(2022, 5, 1, 8) * 1000)
    driver.open('a', ['btcusd'], 'l3')
    peer = new Peer(driver)
    peer.answer()
    image()
    driver.in('a', of('live_trades'))
    // It has no event ids: it is of before there were any. It crosses the book of the test and is held apart.
    driver.in('a', of('live_orders'))
    expect(driver.sink.records('trades')).toMatchObject([
      { trade_id: '158457579', side: 'buy', price: '57748.80', size: '1E-8' }
    ])
    expect(news()).toEqual([])
    driver.in('a', of('live_orders').replace('order_created', 'order_changed').replaceAll('31483.1', '12.1'))
    expect(news()).toEqual(['open 1496011283275781 bid 12.10 7.92010000'])
    driver = new Driver(bitstamp, {}, Date.UTC(2021, 5, 1) * 1000)
    driver.open('a', ['btcusd'], 'l2')
    peer = new Peer(driver)
    peer.answer()
    driver.fetched('a', 200, { ...(JSON.parse(of('"30415.13"')) as Row), microtimestamp: '1622520011000000' })
    driver.in('a', of('diff_order_book'))
    expect(driver.sink.records('l2_updates').at(-1)).toMatchObject({
      event_type: 'update',
      exchange_time: '2021-06-01T04:00:11.989838Z',
      asks: [
        ['36665.20', '0.00000000', '0', null],
        ['36669.76', '0.75000000', '0', null]
      ]
    })
  })
})
