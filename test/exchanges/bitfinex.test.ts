import { beforeEach, describe, expect, it } from 'vitest'
import { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { priceKey } from '../../src/core/decimal.ts'
import { isoMs } from '../../src/core/time.ts'
import { bitfinex, bitfinexChecksum, bitfinexLevelChecksum } from '../../src/exchanges/bitfinex.ts'
import {
  Driver,
  hasRecordings,
  loadFrames,
  NEEDS_RECORDINGS,
  play,
  type RecordedFrame,
  type Row
} from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'
import { BitfinexPeer, ORDERS, type OrderText } from '../helpers/peers.ts'
import { expectResumable, type Step } from '../helpers/resumed.ts'

let driver: Driver
let peer: BitfinexPeer

/** A connection whose flags are confirmed; what it asked for is not. */
function connect(config: Partial<EngineConfig> = {}, instIds = ['BTCUSD']): void {
  driver = new Driver(bitfinex, config)
  driver.open('a', instIds, 'l3')
  peer = new BitfinexPeer(driver, 'a')
  peer.confirm()
}

/** The same with books that are live. */
function goLive(config: Partial<EngineConfig> = {}, instIds = ['BTCUSD']): void {
  connect(config, instIds)
  peer.answer()
  for (const instId of instIds) peer.image(ORDERS, `t${instId}`)
}

const asked = (event: string) => (driver.asked('a') as Row[]).filter(request => request.event === event)
const leftBooks = () => asked('unsubscribe').filter(({ chanId }) => bookChannels.has(Number(chanId)))
let bookChannels: Set<number>
const events = (name = 'BTCUSD') => driver.sink.records('l3_events', name)
const types = () => events().map(row => row.event_type)
const details = (event: string) => driver.sink.statuses(event).map(row => row.detail as Row)
const shots = () => driver.sink.records('l3_spot')

/** The checksum that Bitfinex would send of these orders. */
function checksumOf(orders: readonly OrderText[]): number {
  const book = new OrderBook()
  for (const [id, price, amount] of orders)
    book.set(String(id), amount.startsWith('-'), price, amount.replace(/^-/, ''))
  return bitfinexChecksum({ orders: book })
}

beforeEach(() => {
  goLive()
  bookChannels = new Set([peer.channel()])
})

describe('subscribing', () => {
  it('sends the flags before anything else, then asks for the raw book and the trades', () => {
    expect(driver.asked('a')).toEqual([
      { event: 'conf', flags: 229_376 },
      { event: 'subscribe', channel: 'book', symbol: 'tBTCUSD', prec: 'R0', freq: 'F0', len: '250' },
      { event: 'subscribe', channel: 'trades', symbol: 'tBTCUSD' }
    ])
    expect(types()).toEqual(['clear', 'snapshot', 'snapshot', 'snapshot', 'snapshot', 'snapshot'])
    expect(events().map(row => row.last)).toEqual([false, false, false, false, false, true])
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('asks for no trades where none are wanted', () => {
    driver = new Driver(bitfinex)
    driver.open('a', ['BTCUSD'], 'l3', null, ['book'])
    new BitfinexPeer(driver, 'a').confirm()
    expect(asked('subscribe').map(({ channel }) => channel)).toEqual(['book'])
  })

  it('keeps data that comes before the acknowledgement of its channel', () => {
    connect()
    const rows = ORDERS.map(order => `[${order.join(',')}]`).join(',')
    peer.say(55, `[${rows}]`)
    peer.say(55, '[14,79417,1]')
    expect(events()).toEqual([])
    peer.event({ event: 'subscribed', channel: 'book', chanId: 55, symbol: 'tBTCUSD', prec: 'R0' })
    expect(types()).toEqual(['clear', ...Array(5).fill('snapshot'), 'open'])
    expect(events().at(-1)).toMatchObject({ order_id: '14', price: '79417', size: '1', side: 'bid' })
    expect(details('gap')).toEqual([])
  })

  it('takes an empty image', () => {
    connect()
    peer.answer()
    peer.image([])
    expect(events()).toMatchObject([{ event_type: 'clear', last: true }])
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ bids_top400: [], best_bid: null, mid_price: null })
  })

  it('renews a subscription whose image does not come', () => {
    connect()
    peer.answer()
    driver.pass('a', 9000)
    expect(asked('unsubscribe')).toEqual([])
    driver.pass('a', 2000)
    expect(details('resubscribed')).toEqual([{ conn: 'a', reason: 'no image', attempt: 1 }])
    peer.answer()
    peer.image(ORDERS)
    expect(types()[0]).toBe('clear')
    expect(details('gap')).toEqual([])
  })

  it('asks for nothing before the flags are confirmed, and hangs up when they are not', () => {
    const open = () => {
      driver = new Driver(bitfinex)
      driver.open('a', ['BTCUSD'], 'l3')
    }
    open()
    expect(driver.asked('a')).toEqual([{ event: 'conf', flags: 229_376 }])
    driver.pass('a', 12_000)
    expect(driver.requests.hangups.length).toBeGreaterThan(0)
    open()
    driver.in('a', '{"event":"conf","status":"OK","flags":32768}')
    expect(asked('subscribe')).toEqual([])
    expect(driver.requests.hangups).toHaveLength(1)
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    driver.pass('a', 10_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 1000)
    expect(driver.requests.hangups[0]).toMatchObject({ connection: 'a', reason: expect.stringContaining('10000 ms') })
  })

  it('waits for an acknowledgement as long as others come', () => {
    connect({}, ['BTCUSD', 'ETHUSD', 'LTCUSD'])
    for (const [n, symbol] of ['tBTCUSD', 'tETHUSD', 'tLTCUSD'].entries()) {
      driver.pass('a', 8000, 2000)
      peer.event({ event: 'subscribed', channel: 'book', chanId: 50 + n, symbol, prec: 'R0' })
      peer.say(50 + n, '[]')
    }
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 11_000)
    expect(driver.requests.hangups[0]!.reason).toContain('no acknowledgement')
  })

  it.each([
    [10300, 'symbol: invalid', true],
    [10302, 'channel: unknown', true],
    [10305, 'limit', false],
    [11000, 'not ready', false]
  ])('error %i is final: %s', (code, msg, final) => {
    connect()
    const failure = { event: 'error', channel: 'book', symbol: 'tBTCUSD', prec: 'R0', msg, code }
    peer.event(failure)
    expect(details('refused')).toEqual([{ conn: 'a', channel: 'book', final: code < 10305 && final, code, msg }])
    const before = asked('subscribe').length
    expect(driver.requests.settledNames).toEqual([])
    peer.event({ event: 'subscribed', channel: 'trades', chanId: 9, symbol: 'tBTCUSD' })
    expect(driver.requests.settledNames).toEqual(final ? ['a'] : [])
    for (let n = 0; n < 6; n++) {
      driver.pass('a', 9900, 3300)
      peer.event({ event: 'pong' })
    }
    expect(asked('subscribe')).toHaveLength(before)
    driver.pass('a', 2000)
    expect(asked('subscribe')).toHaveLength(before + (final ? 0 : 1))
  })

  it('10301 is answered by the acknowledgement that is under way', () => {
    connect()
    peer.event({ event: 'error', channel: 'book', symbol: 'tBTCUSD', prec: 'R0', code: 10301, msg: 'subscribe: dup' })
    peer.answer()
    peer.image(ORDERS)
    expect(details('refused')).toEqual([])
    expect(types()[0]).toBe('clear')
  })
})

describe('orders', () => {
  it.each([
    ['a new order', [31, '79420', '-0.10'], { event_type: 'open', side: 'ask', price: '79420', size: '0.10' }],
    ['a new size', [11, '79419', '0.02'], { event_type: 'change', side: 'bid', size: '0.02' }],
    ['a new price', [11, '79417', '0.023'], { event_type: 'change', price: '79417' }],
    ['a new side', [11, '79425', '-0.023'], { event_type: 'change', side: 'ask', price: '79425' }],
    ['a removal tells price and size', [11, '0', '1'], { event_type: 'done', price: '79419', size: '0.023' }],
    ['a tiny amount', [31, '79400', '1e-8'], { event_type: 'open', size: '1e-8' }],
    ['a tiny price', [31, '4.9e-7', '1'], { event_type: 'open', price: '4.9e-7' }],
    ['a capital exponent', [31, '79400', '2.5E-7'], { event_type: 'open', size: '2.5E-7' }]
  ] as const)('%s', (_, order, expected) => {
    peer.order(order as OrderText)
    expect(events()).toHaveLength(7)
    expect(events().at(-1)).toMatchObject({ ...expected, order_id: String(order[0]), last: true, sequence: 2 })
    peer.say(peer.channel(), `"cs",${checksumNow(order as OrderText)}`)
    expect(details('checksum_mismatch')).toEqual([])
    expect(details('gap')).toEqual([])
  })

  function checksumNow(order: OrderText): number {
    const others = ORDERS.filter(([id]) => id !== order[0])
    const place = ORDERS.findIndex(([id]) => id === order[0])
    if (order[1] === '0') return checksumOf(others)
    return checksumOf(place < 0 ? [...ORDERS, order] : [...others, order])
  }

  it('removal of an unknown order means nothing', () => {
    peer.order([999, '0', '-1'])
    expect(events()).toHaveLength(6)
    expect(details('gap')).toEqual([])
  })

  it('white space within a frame changes nothing', () => {
    const form = driver.in(
      'a',
      ` [${peer.channel()} ,\t[ 31 , 79420.0 , -0.1 ] , 2 , ${Math.floor(driver.us / 1000)} ] `
    )
    peer.sequence++
    expect(form).toBe('msg')
    expect(events().at(-1)).toMatchObject({ event_type: 'open', order_id: '31', price: '79420.0' })
    // A line break must not stand in a line of the vault.
    const broken = `[${peer.channel()},\n[32,79420,-0.1],3,${Math.floor(driver.us / 1000)}]`
    expect(driver.in('a', broken)).toBe('text')
    expect(events().at(-1)).toMatchObject({ order_id: '32' })
  })

  it.each(['[31,79420,-0.1,7]', '[31,79420,-0.1,"x",null]'])('%s: what is added to a row is left alone', payload => {
    peer.say(peer.channel(), payload)
    expect(events().at(-1)).toMatchObject({ event_type: 'open', order_id: '31', price: '79420', size: '0.1' })
    expect(details('gap')).toEqual([])
  })

  it('white space before the channel number changes nothing either', () => {
    driver.in('a', `[ ${peer.channel()},[31,79420,-0.1],2,${Math.floor(driver.us / 1000)}]`)
    expect(details('gap')).toEqual([])
    expect(events().at(-1)).toMatchObject({ event_type: 'open', order_id: '31' })
  })

  it.each([
    ['price is text', '[31,"79420",1]'],
    ['price is negative', '[31,-5,1]'],
    ['id is negative', '[-31,5,1]'],
    ['a field too few', '[31,79420]'],
    ['null', '[31,null,1]'],
    ['several rows', '[[31,79420,1]]'],
    ['an unknown mark', '"zz"'],
    ['an object', '{"id":31}'],
    ['more digits than a book can hold', '[31,1234567890123456.5,1]'],
    ['nested too deep', '[[[31,79420,1]]]']
  ])('a frame that cannot be read is kept, and a gap: %s', (_, payload) => {
    peer.say(peer.channel(), payload)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(driver.requests.logs.map(({ message }) => message)).toContain('BUILD_FAIL: Missing required fields')
    expect(types().at(-1)).toBe('gap')
    expect(leftBooks()).toHaveLength(1)
  })
})

describe('trades', () => {
  it('are written once, by the first of te and tu, and history is marked', () => {
    peer.say(peer.channel('trades'), '[[70,1788829784024,-0.00022,79421],[69,1788829784023,1e-8,79424]]')
    peer.trade('te', 71, '0.5', '79420')
    peer.trade('tu', 71, '0.5', '79420')
    peer.trade('tu', 70, '-0.00022', '79421')
    expect(driver.sink.records('trades').map(row => [row.trade_id, row.side, row.size, row.metadata])).toEqual([
      ['69', 'buy', '1e-8', { backfill: true }],
      ['70', 'sell', '0.00022', { backfill: true }],
      ['71', 'buy', '0.5', {}]
    ])
    expect(driver.sink.records('trades')[1]).toMatchObject({
      exchange_time: '2026-09-08T01:09:44.024Z',
      channel: 'trades'
    })
  })

  it('that cannot be read do not cost the book', () => {
    peer.say(peer.channel('trades'), '"te",[1,2,3]')
    expect(driver.requests.logs.map(({ message }) => message)).toContain('BUILD_FAIL: Missing required fields')
    expect(details('gap')).toEqual([])
  })
})

describe('silence', () => {
  it('a quiet market with heartbeats is left alone', () => {
    for (let beat = 0; beat < 20; beat++) {
      driver.pass('a', 15_000, 5000)
      peer.beat()
      peer.beat('trades')
    }
    expect(details('stalled')).toEqual([])
    expect(asked('unsubscribe')).toEqual([])
    expect(asked('ping')).toEqual([])
    expect(driver.requests.hangups).toEqual([])
  })

  it('a mute book is subscribed again, once, while the rest of the connection lives', () => {
    for (let second = 0; second < 50; second += 5) {
      driver.pass('a', 5000, 5000)
      peer.beat('trades')
    }
    expect(details('stalled')).toEqual([{ conn: 'a', channel: 'book', silent_ms: expect.any(Number) }])
    expect(Number(details('stalled')[0]!.silent_ms)).toBeGreaterThan(45_000)
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(leftBooks()).toHaveLength(1)
    peer.answer()
    peer.image(ORDERS)
    expect(details('synced')).toHaveLength(2)
    expect(details('stalled')).toHaveLength(1)
  })

  it('--stale-after decides', () => {
    goLive({ silenceMs: 5000 })
    for (let second = 0; second < 8; second++) {
      driver.pass('a', 1000)
      peer.beat('trades')
    }
    expect(details('stalled')).toHaveLength(1)
  })

  it('a mute connection is asked, and left when it does not answer', () => {
    driver.pass('a', 21_000)
    expect(asked('ping')).toEqual([{ event: 'ping', cid: 1 }])
    driver.pass('a', 9000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 3000)
    expect(driver.requests.hangups[0]?.reason).toContain('no answer to ping')
  })

  it('an answered ping is life', () => {
    for (let n = 0; n < 3; n++) {
      driver.pass('a', 14_000, 1000)
      peer.answer()
    }
    expect(asked('ping').length).toBeGreaterThan(0)
    expect(driver.requests.hangups).toEqual([])
  })
})

describe('continuity', () => {
  it('a lost number concerns every book of the connection, but no other connection', () => {
    goLive({}, ['BTCUSD', 'ETHUSD'])
    driver.open('b', ['LTCUSD'], 'l3')
    const other = new BitfinexPeer(driver, 'b')
    other.answer()
    other.image(ORDERS, 'tLTCUSD')
    peer.sequence++
    peer.order([31, '79420', '-1'])
    expect(driver.sink.statuses('gap').map(row => row.instId)).toEqual(['BTCUSD', 'ETHUSD'])
    expect(details('gap')[0]).toMatchObject({ reason: 'sequence', expected: 3, received: 4 })
    expect(asked('unsubscribe')).toHaveLength(4)
  })

  it('heartbeats, checksums and trades are counted', () => {
    peer.beat()
    peer.trade('te', 5, '1', '1')
    peer.say(peer.channel(), `"cs",${checksumOf(ORDERS)}`)
    peer.order([31, '79420', '-1'])
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('a count that begins anew is one gap, and the new count is followed', () => {
    for (let n = 0; n < 5; n++) peer.beat()
    peer.sequence = 0
    driver.us += 1_000_000
    peer.beat()
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 7, received: 1 }])
    peer.answer()
    peer.image(ORDERS)
    peer.order([31, '79420', '-1'])
    expect(types().at(-1)).toBe('open')
    expect(details('gap')).toHaveLength(1)
  })

  it('repetitions of the past are dropped', () => {
    const old = peer.frame(peer.channel(), '[31,79420,-1]')
    driver.in('a', old)
    peer.order([31, '0', '-1'])
    driver.in('a', old)
    peer.beat()
    expect(types().slice(6)).toEqual(['open', 'done'])
    expect(details('gap')).toEqual([])
  })

  it('old frames of a channel that was left belong to nobody, also when its number is used again', () => {
    const channel = peer.channel()
    peer.sequence++
    peer.beat()
    peer.order([31, '79420', '-1'])
    peer.nextChannel = channel
    const requests = peer.requests()
    expect(requests.filter(({ event }) => event === 'unsubscribe')).toHaveLength(2)
    peer.event({ event: 'unsubscribed', status: 'OK', chanId: channel })
    peer.say(channel, '[32,79420,-1]')
    expect(types().at(-1)).toBe('gap')
    peer.answer()
    expect(peer.channel()).toBe(channel)
    peer.image([[41, '79419', '7']])
    peer.order([42, '79420', '-1'])
    expect(
      events()
        .slice(-3)
        .map(row => row.order_id)
    ).toEqual([null, '41', '42'])
    expect(details('gap')).toHaveLength(1)
  })

  it('a gap while the image is awaited asks again, and is no second gap', () => {
    peer.sequence++
    peer.beat()
    peer.answer()
    peer.sequence++
    peer.beat()
    peer.answer()
    peer.image(ORDERS)
    expect(details('gap')).toHaveLength(1)
    expect(details('resubscribed').map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(details('synced')).toHaveLength(2)
  })

  it('asks with growing pauses when it happens again and again', () => {
    for (let n = 0; n < 3; n++) {
      peer.sequence++
      peer.beat()
      peer.answer()
      peer.image(ORDERS)
    }
    expect(details('synced')).toHaveLength(4)
    const before = asked('subscribe').length
    peer.sequence++
    peer.beat()
    peer.answer()
    expect(asked('subscribe')).toHaveLength(before)
    driver.pass('a', 3000)
    expect(asked('subscribe')).toHaveLength(before + 2)
  })

  it('a lost connection is a gap that the next connection heals', () => {
    driver.pass('a', 2000)
    driver.close('a', 'lost', 1006)
    driver.us += 3_000_000
    driver.open('b', ['BTCUSD'], 'l3')
    const other = new BitfinexPeer(driver, 'b')
    other.answer()
    other.image(ORDERS)
    expect(driver.sink.records('status').map(row => row.event)).toEqual([
      ...['connected', 'subscribed', 'synced', 'disconnected', 'gap', 'connected', 'subscribed', 'synced']
    ])
    expect(Number(details('synced')[1]!.down_ms)).toBeGreaterThanOrEqual(3000)
    expect(shots().map(row => row.gap_detected)).toEqual([false, false, true])
    expect(shots()[2]!.bids_top400).toEqual(shots()[1]!.bids_top400)
  })

  it('overload is a gap', () => {
    driver.engine.skip(driver.us + 1, 'a', 1000, 17)
    expect(details('gap')).toMatchObject([
      { reason: 'overload', received: 17 },
      { channel: 'trades', cause: 'overload', received: 17 }
    ])
  })
})

describe('checksums', () => {
  const say = (crc: number) => peer.say(peer.channel(), `"cs",${crc}`)

  it('three wrong ones in a row resynchronise, two and a right one do not', () => {
    const right = checksumOf(ORDERS)
    for (const crc of [1, 2, right, 3, 4]) say(crc)
    expect(details('checksum_mismatch').map(({ in_row }) => in_row)).toEqual([1, 2, 1, 2])
    expect(details('gap')).toEqual([])
    say(5)
    expect(details('gap')).toMatchObject([{ reason: 'checksum', expected: 5, received: right }])
    expect(leftBooks()).toHaveLength(1)
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, checksum: 5 })
  })

  it.each([
    ['resync', 1],
    ['warn', 0]
  ] as const)('%s', (onMismatch, gaps) => {
    goLive({ onMismatch })
    say(checksumOf(ORDERS))
    for (let n = 1; n <= (onMismatch === 'warn' ? 10 : 1); n++) say(n)
    expect(details('gap')).toHaveLength(gaps)
  })

  it('of every one of several instruments wrong: the exchange has changed', () => {
    goLive({}, ['BTCUSD', 'ETHUSD'])
    for (let n = 1; n < 6; n++) {
      for (const symbol of ['tBTCUSD', 'tETHUSD']) peer.say(peer.channel('book', symbol), `"cs",${n}`)
    }
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs.filter(({ message }) => message.includes('switched off'))).toHaveLength(1)
  })

  it('of three fresh images in a row wrong: the exchange has changed', () => {
    goLive({ onMismatch: 'resync' })
    for (let n = 1; n < 6; n++) {
      say(n)
      driver.pass('a', 61_000, 61_000)
      peer.answer()
      peer.image(ORDERS)
    }
    expect(driver.requests.logs.filter(({ message }) => message.includes('switched off'))).toHaveLength(1)
    expect(details('gap').filter(({ reason }) => reason === 'checksum')).toHaveLength(2)
  })
})

describe('books that are wrong', () => {
  it('crossed for longer than 5 s', () => {
    peer.order([31, '79430', '1'])
    driver.pass('a', 5000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 2000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed', received: '79430 >= 79421' }])
    expect(leftBooks()).toHaveLength(1)
  })

  it('crossed for a moment is a moment', () => {
    for (let n = 0; n < 4; n++) {
      peer.order([31, '79430', '1'])
      driver.pass('a', 4000)
      peer.order([31, '0', '1'])
      peer.order([31, '79430', '1'])
    }
    expect(details('gap')).toEqual([])
  })

  it('deeper than subscribed for longer than 5 s', () => {
    connect()
    peer.answer()
    const many = (count: number) => Array.from({ length: count }, (_, n): OrderText => [n + 1, String(1000 - n), '1'])
    peer.image(many(251))
    driver.pass('a', 5000)
    peer.order([251, '0', '1'])
    driver.pass('a', 6000)
    expect(details('gap')).toEqual([])
    peer.order([252, '2', '1'])
    driver.pass('a', 7000)
    expect(details('gap')).toMatchObject([{ reason: 'too_deep', expected: 250, received: 251 }])
  })
})

describe('announcements', () => {
  it('20051: another connection is live before this one is left, and nothing is lost', () => {
    driver.pass('a', 2000)
    peer.event({ event: 'info', code: 20051, msg: 'stopping' })
    peer.event({ event: 'info', code: 20051, msg: 'stopping' })
    expect(driver.requests.replacements).toEqual(['a'])
    driver.open('b', ['BTCUSD'], 'l3', 'a')
    const other = new BitfinexPeer(driver, 'b')
    other.answer()
    peer.order([31, '79417', '1'])
    peer.trade('te', 5, '1', '79420')
    expect(driver.requests.leaves).toEqual([])
    other.image([...ORDERS, [31, '79417', '1']])
    expect(driver.requests.leaves).toEqual(['a'])
    // What the old connection still says is not written a second time.
    peer.order([32, '79416', '1'])
    other.trade('te', 5, '1', '79420')
    other.order([32, '79416', '1'])
    driver.close('a', 'replaced')
    driver.pass('b', 2000)
    expect(details('gap')).toEqual([])
    expect(details('synced').map(({ conn, planned }) => [conn, planned])).toEqual([
      ['a', undefined],
      ['b', true]
    ])
    expect(new Set(shots().map(row => row.synced_at)).size).toBe(2)
    expect(shots().map(row => row.gap_detected)).not.toContain(true)
    expect(driver.sink.records('trades')).toHaveLength(1)
    expect(events().filter(row => row.order_id === '32')).toMatchObject([{ conn: 'b', event_type: 'open' }])
  })

  it('a connection that is being left does not take its instrument back', () => {
    peer.event({ event: 'info', code: 20051 })
    driver.open('b', ['BTCUSD'], 'l3', 'a')
    const other = new BitfinexPeer(driver, 'b')
    other.answer()
    other.image(ORDERS)
    peer.sequence++
    peer.beat()
    peer.answer()
    peer.image(ORDERS)
    expect(details('gap')).toEqual([])
    expect(details('synced')).toHaveLength(2)
    other.order([33, '79415', '1'])
    expect(events().at(-1)).toMatchObject({ conn: 'b', order_id: '33' })
  })

  it('20060 is a gap at once, 20061 brings fresh images', () => {
    peer.event({ event: 'info', code: 20060, msg: 'maintenance' })
    expect(details('gap')).toMatchObject([{ reason: 'maintenance' }])
    peer.order([31, '79420', '-1'])
    expect(types().at(-1)).toBe('gap')
    expect(asked('unsubscribe')).toEqual([])
    for (let n = 0; n < 8; n++) {
      driver.pass('a', 15_000, 5000)
      peer.answer()
    }
    expect(asked('unsubscribe')).toEqual([])
    peer.event({ event: 'info', code: 20061, msg: 'resumed' })
    expect(asked('unsubscribe')).toHaveLength(2)
    peer.answer()
    peer.image(ORDERS)
    expect(details('maintenance').map(({ code }) => code)).toEqual([20060, 20061])
    expect(details('synced')).toHaveLength(2)
    expect(details('gap')).toHaveLength(1)
  })
})

describe('a maintenance that is announced in part', () => {
  it('20061 without 20060: no snapshot shows a book that is no longer followed', () => {
    driver.pass('a', 2000)
    peer.event({ event: 'info', code: 20061, msg: 'resumed' })
    const before = shots().length
    peer.order([31, '79420.5', '-1'])
    driver.pass('a', 4000)
    const fresh = shots().slice(before)
    const stale = fresh.filter(row => row.best_ask !== '79420.5' && row.gap_detected === false)
    expect(stale.map(row => [row.recv_us, row.best_ask, row.synced_at])).toEqual([])
  })

  it('20060 without 20061: a book whose data flows again is subscribed again some day', () => {
    peer.event({ event: 'info', code: 20060, msg: 'maintenance' })
    for (let n = 0; n < 60 && asked('unsubscribe').length === 0; n++) {
      driver.pass('a', 15_000, 5000)
      peer.beat()
      peer.beat('trades')
      peer.order([31, '79420', `-${n + 1}`])
    }
    expect(leftBooks()).toHaveLength(1)
  })
})

it('a snapshot is taken once a slot, on the tick that opens it', () => {
  for (let n = 0; n < 40; n++) driver.pass('a', 500, 500)
  const slots = shots().map(row => Math.floor(Number(row.recv_us) / 2_000_000))
  expect(new Set(slots).size).toBe(slots.length)
  expect(slots.length).toBeGreaterThanOrEqual(10)
  expect(shots()[0]).toMatchObject({
    bids_top400: [
      ['79419', '0.523', '0', '2'],
      ['79418', '0.00022', '0', '1']
    ],
    best_bid: '79419',
    best_ask: '79421',
    mid_price: '79420',
    seqId: 1,
    prevSeqId: null,
    stats: { total_orders: 5, bid_count: 3, ask_count: 2, total_bid_volume: '0.52322', spread: '2' }
  })
  expect(driver.sink.statuses('synced')[0]!.detail).toMatchObject({ synced_at: shots()[0]!.synced_at })
  expect(isoMs(Number(shots()[0]!.recv_us))).toBe(shots()[0]!.timestamp_utc)
})

/** A row of a P0 book: price, number of orders, amount (negative: ask), as JSON text. */
type LevelRow = readonly [price: string, count: string, amount: string]

describe('books of levels', () => {
  const LEVELS: readonly LevelRow[] = [
    ['79419', '2', '0.523'],
    ['79418', '1', '0.00022'],
    ['79421', '1', '-1.5'],
    ['79424', '3', '-0.25']
  ]
  const L2 = 'l2_updates'
  const records = (name = 'BTCUSD') => driver.sink.records(L2, name)
  const kinds = () => records().map(row => row.event_type)
  const rows = (levels: readonly LevelRow[]) => `[${levels.map(level => `[${level.join(',')}]`).join(',')}]`
  const level = (row: LevelRow) => peer.say(peer.channel(), `[${row.join(',')}]`)

  function live(levels: readonly LevelRow[] = LEVELS, instIds = ['BTCUSD'], config: Partial<EngineConfig> = {}): void {
    driver = new Driver(bitfinex, config)
    driver.open('a', instIds, 'l2')
    peer = new BitfinexPeer(driver, 'a')
    peer.confirm()
    peer.answer()
    for (const instId of instIds) peer.say(peer.channel('book', `t${instId}`), rows(levels))
  }

  /** The checksum that Bitfinex would send of these levels. */
  function crcOf(levels: readonly LevelRow[]): number {
    const book = new LevelBook()
    for (const [price, count, amount] of levels)
      book.set(amount.startsWith('-'), priceKey(price), price, amount.replace(/^-/, ''), count)
    return bitfinexLevelChecksum({ levels: book })
  }

  beforeEach(() => live())

  it('subscribes the finest precision, and takes the image', () => {
    expect(asked('subscribe')[0]).toEqual({
      event: 'subscribe',
      channel: 'book',
      symbol: 'tBTCUSD',
      prec: 'P0',
      freq: 'F0',
      len: '250'
    })
    expect(kinds()).toEqual(['clear', 'snapshot'])
    expect(records()[1]).toMatchObject({
      channel: 'book-P0',
      bids: [
        ['79419', '0.523', '0', '2'],
        ['79418', '0.00022', '0', '1']
      ],
      asks: [
        ['79421', '1.5', '0', '1'],
        ['79424', '0.25', '0', '3']
      ],
      seqId: 1,
      prevSeqId: null
    })
    expect(details('subscribed')[0]).toMatchObject({ proof: { sequence: 'connection', checksum: true } })
    expect(driver.requests.settledNames).toEqual(['a'])
    expect(bitfinex.levels).toEqual(['l3', 'l2'])
  })

  it.each([
    ['a new bid', ['79420', '1', '0.10'], { bids: [['79420', '0.10', '0', '1']], asks: [] }],
    ['a new ask', ['79425', '4', '-3'], { bids: [], asks: [['79425', '3', '0', '4']] }],
    ['a new size', ['79419', '3', '1e-8'], { bids: [['79419', '1e-8', '0', '3']], asks: [] }],
    ['a tiny price', ['4.9e-7', '1', '5'], { bids: [['4.9e-7', '5', '0', '1']], asks: [] }],
    ['a bid that is gone', ['79419', '0', '1'], { bids: [['79419', '0', '0', '0']], asks: [] }],
    ['an ask that is gone', ['79421', '0', '-1'], { bids: [], asks: [['79421', '0', '0', '0']] }],
    ['a bid that was not there', ['79000', '0', '1'], { bids: [['79000', '0', '0', '0']], asks: [] }]
  ] as const)('%s', (_, row, expected) => {
    level(row)
    expect(records()).toHaveLength(3)
    expect(records()[2]).toMatchObject({ ...expected, event_type: 'update', seqId: 2, checksum: null })
    const isAsk = row[2].startsWith('-')
    const others = LEVELS.filter(([price, , amount]) => price !== row[0] || amount.startsWith('-') !== isAsk)
    const after = row[1] === '0' ? others : [...others, row]
    peer.say(peer.channel(), `"cs",${crcOf(after)}`)
    expect(details('checksum_mismatch')).toEqual([])
    peer.say(peer.channel(), `"cs",${crcOf(LEVELS)}`)
    const isSame = row[1] === '0' && others.length === LEVELS.length
    expect(details('checksum_mismatch')).toHaveLength(isSame ? 0 : 1)
    expect(details('gap')).toEqual([])
  })

  it('an empty image is an image', () => {
    live([])
    expect(kinds()).toEqual(['clear', 'snapshot'])
    level(['79419', '1', '1'])
    driver.pass('a', 2000)
    expect(driver.sink.records('l2_spot').at(-1)).toMatchObject({ best_bid: '79419', best_ask: null, seqId: 2 })
  })

  it('fields that the exchange adds are no trouble, and data may come before its acknowledgement', () => {
    driver = new Driver(bitfinex)
    driver.open('a', ['BTCUSD'], 'l2')
    peer = new BitfinexPeer(driver, 'a')
    peer.confirm()
    peer.say(55, '[[79419,2,0.5,"x"],[79421,1,-1,null]]')
    peer.say(55, '[79419,0,1,7]')
    peer.event({ event: 'subscribed', channel: 'book', chanId: 55, symbol: 'tBTCUSD', prec: 'P0' })
    expect(kinds()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it('an acknowledgement of another precision is not ours', () => {
    driver = new Driver(bitfinex)
    driver.open('a', ['BTCUSD'], 'l2')
    peer = new BitfinexPeer(driver, 'a')
    peer.confirm()
    peer.event({ event: 'subscribed', channel: 'book', chanId: 54, symbol: 'tBTCUSD', prec: 'R0' })
    expect(details('subscribed')).toEqual([])
    const failure = {
      event: 'error',
      channel: 'book',
      symbol: 'tBTCUSD',
      prec: 'P0',
      msg: 'symbol: invalid',
      code: 10300
    }
    peer.event(failure)
    expect(details('refused')).toMatchObject([{ final: true }])
  })

  it('a lost number concerns every book of the connection, and is one gap each', () => {
    live(LEVELS, ['BTCUSD', 'BTCF0:USTF0'])
    peer.beat('trades')
    peer.sequence++
    level(['79420', '1', '1'])
    level(['79420', '2', '1'])
    expect(driver.sink.statuses('gap').map(row => [row.instId, row.market, (row.detail as Row).reason])).toEqual([
      ['BTCUSD', 'spot', 'sequence'],
      ['BTCF0:USTF0', 'perp', 'sequence']
    ])
    expect(kinds().at(-1)).toBe('gap')
    expect(asked('unsubscribe')).toHaveLength(4)
    peer.answer()
    peer.say(peer.channel(), rows(LEVELS))
    expect(kinds().slice(-2)).toEqual(['clear', 'snapshot'])
  })

  it("a maintenance is a gap at once, and what comes meanwhile is nobody's", () => {
    peer.event({ event: 'info', code: 20060, msg: 'maintenance' })
    level(['79420', '1', '1'])
    expect(kinds()).toEqual(['clear', 'snapshot', 'gap'])
    peer.event({ event: 'info', code: 20061, msg: 'resumed' })
    peer.answer()
    peer.say(peer.channel(), rows(LEVELS))
    expect(kinds()).toEqual(['clear', 'snapshot', 'gap', 'clear', 'snapshot'])
  })

  it('the same frame twice is applied once', () => {
    const frame = peer.frame(peer.channel(), '[79420,1,1]')
    driver.in('a', frame)
    driver.in('a', frame)
    expect(kinds()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['price is text', '["79420",1,1]'],
    ['price is negative', '[-79420,1,1]'],
    ['count has a fraction', '[79420,1.5,1]'],
    ['count is negative', '[79420,-1,1]'],
    ['count is null', '[79420,null,1]'],
    ['amount is text', '[79420,1,"1"]'],
    ['a field too few', '[79420,1]'],
    ['several rows', '[[79420,1,1]]'],
    ['more digits than a book can hold', '[1234567890123456.5,1,1]'],
    ['an unknown mark', '"zz"']
  ])('a frame that cannot be read is kept, and a gap: %s', (_, payload) => {
    peer.say(peer.channel(), payload)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(kinds().at(-1)).toBe('gap')
  })

  it('an image that cannot be read is no book', () => {
    live([
      ['79419', '2', '0.5'],
      ['79421', '1', '"x"']
    ])
    expect(records()).toEqual([])
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
  })

  it('deeper than subscribed for longer than 5 s', () => {
    live(Array.from({ length: 251 }, (_, n): LevelRow => [String(1000 - n), '1', '1']))
    driver.pass('a', 7000)
    expect(details('gap')).toMatchObject([{ reason: 'too_deep', expected: 250, received: 251 }])
  })

  const VECTORS = {
    'tXRPBTC, 25 and 25 rows': [
      30_026_640,
      `0.0000886 1060.55466114 0.00008864 -481.8549041 0.00008859 1000 0.0000887 -2141.77009092 0.00008858 2713.47159343
      0.00008871 -2256.45433182 0.00008857 4276.92870916 0.00008872 -2707.58122743 0.00008856 6764.75562319 0.00008873 -15699.9
      0.00008854 5641.48532401 0.00008874 -5640.31794092 0.00008853 2255.92632223 0.00008876 -29004.93294912 0.0000885
      2256.69584601 0.00008878 -2500 0.00008848 3630.3 0.0000888 -20000 0.00008845 28195.70625766 0.00008881 -2880.15595827
      0.00008844 15571.7 0.00008882 -27705.42933984 0.00008843 2500 0.00008883 -4509.83708214 0.00008841 64196.16117814
      0.00008884 -1500 0.00008838 7500 0.00008885 -2500 0.00008837 56.54876269 0.00008888 -902.91405442 0.00008834 10886.476298
      0.00008889 -900 0.00008831 20000 0.00008891 -7500 0.0000883 1000 0.00008894 -775.08564697 0.00008829 2517.22175358
      0.00008896 -150 0.00008828 450.45 0.00008899 -11628.02590049 0.00008827 13000 0.000089 -1299.7 0.00008824 1500 0.00008902
      -4841.8 0.0000882 300 0.00008904 -25320.46250083 0.00008817 3000 0.00008909 -14000 0.00008816 100 0.00008913 -123947.999`
    ],
    'tVETBTC, 24 and 25 rows, exponents as text': [
      1_770_440_002,
      `0.00000121 304023.8109708 0.00000122 -312043.19 0.0000012 518315.33310128 0.00000123 -415094.8939744 0.00000119 566200.89
      0.00000124 -348181.23 0.00000118 260000 0.00000125 -12000 0.00000117 100000 0.00000126 -143872.31 0.00000116 160000
      0.00000127 -5000 0.00000114 60000 0.0000013 -5000 0.00000113 198500 0.00000134 -8249.18938656 0.00000112 60000 0.00000135
      -230043.1337899 0.0000011 60000 0.00000136 -13161.25184766 0.00000106 113868.87735849 0.00000145 -2914 0.00000105 105000
      0.0000015 -54448.5 0.00000103 3000 0.00000152 -5538.54849594 0.00000102 105000 0.00000153 -62691.75475079 0.00000101 202970
      0.00000159 -2914 0.000001 21000 0.0000016 -52631.10296831 7e-7 10000 0.00000164 -4000 6.6e-7 10000 0.00000166
      -3831.46784605 6e-7 100000 0.00000171 -14575.17730379 4.9e-7 10000 0.00000174 -3124.81815395 2.5e-7 2000 0.0000018 -18000
      6e-8 100000 0.00000182 -16000 5e-8 200000 0.00000186 -4000 1e-8 640000 0.00000189 -10000.686624 0.00000191 -14500`
    ]
  } as const

  it.each(Object.entries(VECTORS))('published checksum of %s', (_, [crc, text]) => {
    const words = text.split(/\s+/)
    const levels = words.flatMap((price, at): LevelRow[] => (at % 2 === 0 ? [[price, '1', words[at + 1]!]] : []))
    live(levels)
    peer.say(peer.channel(), `"cs",${crc}`)
    // The 26th row of a side does not count.
    level(['0.1', '1', '-5'])
    peer.say(peer.channel(), `"cs",${crc}`)
    expect(details('checksum_mismatch')).toEqual([])
    peer.say(peer.channel(), `"cs",${crc + 1}`)
    expect(details('checksum_mismatch')).toMatchObject([{ expected: crc + 1, computed: crc }])
  })

  it('expanded exponents are another checksum', () => {
    const words = VECTORS['tVETBTC, 24 and 25 rows, exponents as text'][1].split(/\s+/)
    const expanded = words.map(word => (word.includes('e') ? Number(word).toFixed(20).replace(/0+$/, '') : word))
    live(expanded.flatMap((price, at): LevelRow[] => (at % 2 === 0 ? [[price, '1', expanded[at + 1]!]] : [])))
    peer.say(peer.channel(), '"cs",1770440002')
    expect(details('checksum_mismatch')).toMatchObject([{ computed: 869_113_743 }])
  })

  it('6000:1:6100:-3:5900:2:6200:-4, and a book without a side', () => {
    const levels: LevelRow[] = [
      ['6000', '1', '1'],
      ['5900', '1', '2'],
      ['6100', '1', '-3'],
      ['6200', '1', '-4']
    ]
    expect(crcOf(levels)).toBe(1_756_193_398)
    expect(crcOf([])).toBe(0)
  })
})

describe('perpetuals', () => {
  it.each([
    'BTCF0:USTF0',
    'tBTCF0:USTF0',
    'btcf0:ustf0',
    'BTCF0/USTF0',
    'BTCF0-USTF0',
    'BTCF0USTF0',
    'BTC-PERP',
    'btc_perp',
    'BTC/USDT-PERP',
    'BTC-USDT-PERP',
    'BTCUSDT-PERP',
    'BTCUST-PERP',
    'BTC/USDT:USDT'
  ])('%s', symbol => {
    expect(bitfinex.spell(symbol)).toBe('BTCF0:USTF0')
  })

  it.each([
    ['ETHF0:BTCF0', 'ETHF0:BTCF0'],
    ['ETH-BTC-PERP', 'ETHF0:BTCF0'],
    ['DOGE-PERP', 'DOGEF0:USTF0'],
    ['DOGE:USD', 'DOGE:USD'],
    ['DOGEUSD', 'DOGE:USD'],
    ['BTC-USDT', 'BTCUST'],
    ['tBTCUSD', 'BTCUSD'],
    ['USTUSD', 'USTUSD'],
    ['PERP/USD', 'PERP:USD']
  ])('%s is %s', (symbol, instId) => {
    expect(bitfinex.spell(symbol)).toBe(instId)
  })

  it.each([
    ['l3', 'book-R0', 'R0'],
    ['l2', 'book-P0', 'P0']
  ] as const)('%s', (level, channel, prec) => {
    driver = new Driver(bitfinex)
    driver.open('a', ['BTCF0:USTF0'], level)
    peer = new BitfinexPeer(driver, 'a')
    peer.confirm()
    expect(asked('subscribe')[0]).toMatchObject({ symbol: 'tBTCF0:USTF0', prec })
    peer.answer()
    peer.say(peer.channel('book', 'tBTCF0:USTF0'), '[[79419,1,1],[79421,1,-1]]')
    driver.pass('a', 2000)
    expect(driver.sink.records(`${level}_perps`)[0]).toMatchObject({ channel, market: 'perp', instId: 'BTCF0:USTF0' })
  })
})

describe('state', () => {
  it.each(['l3', 'l2'] as const)('%s goes on from it at any moment', level => {
    const row =
      level === 'l3'
        ? (id: number, price: string, amount: string) => `[${id},${price},${amount}]`
        : (n: number, price: string, amount: string) =>
            `[${price === '0' ? 79_418 + n : price},${price === '0' ? 0 : n},${amount}]`
    const prec = level === 'l3' ? 'R0' : 'P0'
    let number = 0
    const frame = (channel: number, payload: string, ms = 1000 + number): Step =>
      `[${channel},${payload},${++number},${ms}]`
    const ack = (channel: string, chanId: number): Step =>
      JSON.stringify({
        event: 'subscribed',
        channel,
        chanId,
        symbol: 'tBTCUSD',
        ...(channel === 'book' ? { prec } : {})
      })
    const steps: Step[] = [
      '{"event":"info","version":2,"platform":{"status":1}}',
      '{"event":"conf","status":"OK","flags":229376}',
      frame(7, `[${row(1, '79419', '1e-8')},${row(2, '79421', '-2')}]`),
      frame(7, row(3, '79418', '5')),
      ack('book', 7),
      ack('trades', 8),
      frame(8, '[[5,1000,1,79420],[4,999,-1,79419]]'),
      frame(8, '"te",[6,1001,0.5,79420]'),
      frame(7, row(1, '0', '1')),
      { passMs: 2000 },
      frame(7, '"cs",12345'),
      frame(7, '"hb"'),
      frame(7, row(4, '79422', '-3')),
      { passMs: 12_000 },
      { passMs: 12_000 },
      '{"event":"pong","ts":1,"cid":1}'
    ]
    number++
    steps.push(
      frame(7, row(5, '79423', '-3')),
      '{"event":"unsubscribed","status":"OK","chanId":7}',
      '{"event":"unsubscribed","status":"OK","chanId":8}',
      frame(9, `[${row(1, '79419', '1')}]`),
      ack('book', 9),
      ack('trades', 10),
      frame(7, row(5, '79423', '-3')),
      frame(9, row(6, '79424', '-3')),
      '{"event":"info","code":20060}',
      { passMs: 3000 },
      '{"event":"info","code":20061}',
      { passMs: 2000 }
    )
    const sink = expectResumable({
      exchange: bitfinex,
      selected: level,
      instIds: ['BTCUSD', 'ETHUSD'],
      feeds: ['book', 'trades'],
      steps
    })
    expect(sink.statuses('synced', 'BTCUSD')).toHaveLength(2)
    expect(sink.statuses('gap', 'BTCUSD').map(({ detail }) => (detail as Row).reason)).toEqual([
      'sequence',
      'maintenance'
    ])
  })
})

describe.skipIf(!hasRecordings)(`recordings of P0${NEEDS_RECORDINGS}`, () => {
  /** The frames as they would be with all flags that a capture sets: number (where there is none yet) and time behind each. */
  function flagged(frames: readonly RecordedFrame[], isNumbered: boolean): RecordedFrame[] {
    let number = 0
    return frames.map(({ us, text }) => {
      if (text.startsWith('{"event":"conf"')) return { us, text: text.replace(/"flags":\d+/, '"flags":229376') }
      if (!text.startsWith('[')) return { us, text }
      return { us, text: text.replace(/\]$/, `${isNumbered ? '' : `,${++number}`},${Math.floor(us / 1000)}]`) }
    })
  }

  const PAIRS = ['ETH2X:ETH', 'REQUSD', 'GTXUST', 'CHZUST', 'KNCBTC', 'ETHJPY', 'ZRXETH', 'LRCBTC']

  function played(frames: readonly RecordedFrame[], instIds: readonly string[]): void {
    driver = new Driver(bitfinex, {}, frames[0]!.us - 1000)
    driver.open('a', instIds, 'l2')
    play(driver, 'a', frames)
  }

  it('bitfinex-p0-1: 22,648 steps of the sequence, 8 images, 22,466 updates; channels that are not ours are counted', () => {
    const frames = flagged(loadFrames('bitfinex-p0-1'), true)
    played(frames, PAIRS)
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
    expect(driver.requests.hangups).toEqual([])
    const all = driver.sink.lines.filter(({ feed }) => feed === 'l2_updates')
    const count = (type: string) => all.filter(({ text }) => text.includes(`"event_type":"${type}"`)).length
    expect([count('snapshot'), count('clear'), count('update')]).toEqual([8, 8, 22_466])
    expect(frames.filter(({ text }) => text.startsWith('['))).toHaveLength(22_649)
    expect(driver.sink.statuses('synced')).toHaveLength(8)
    expect(driver.requests.settledNames).toEqual(['a'])
    const crossed = driver.sink.records('l2_spot').filter(row => Number(row.best_bid) >= Number(row.best_ask))
    expect(crossed).toEqual([])
    expect(driver.sink.records('l2_spot').length).toBeGreaterThan(400)
    const live = driver.sink.records('trades').filter(row => (row.metadata as Row).backfill === undefined)
    expect(live).toHaveLength(8)
    // Exponents stay as they were sent.
    expect(all.some(({ text }) => /\["[\d.]+e-7",/.test(text))).toBe(true)
  })

  it('bitfinex-p0-1: any lost frame, of a ticker too, is one gap of every book', () => {
    const frames = flagged(loadFrames('bitfinex-p0-1').slice(0, 3000), true)
    const places = frames.flatMap(({ text }, at) => (at > 1400 && text.startsWith('[') && at % 150 === 0 ? [at] : []))
    places.push(frames.findIndex(({ text }, at) => at > 1400 && /^\[14647\d,/.test(text)))
    expect(places.length).toBeGreaterThan(8)
    for (const place of places) {
      played([...frames.slice(0, place), ...frames.slice(place + 1)], PAIRS)
      expect(
        driver.sink.statuses('gap').map(row => row.instId),
        `without ${place}`
      ).toEqual(PAIRS)
    }
  })

  it('bitfinex-p0-cs-exponent-1: the one checksum is right, over text as received', () => {
    const frames = flagged(loadFrames('bitfinex-p0-cs-exponent-1'), false)
    played(frames, ['XRPBTC'])
    expect(driver.sink.records('l2_updates').map(row => row.event_type)).toEqual(['clear', 'snapshot', 'update'])
    driver.pass('a', 2000)
    expect(driver.sink.records('l2_spot').at(-1)).toMatchObject({ checksum: -1_175_357_890 })
    expect(details('checksum_mismatch')).toEqual([])
    played(
      frames.map(({ us, text }) => ({ us, text: text.replace('[7e-7,', '[0.0000007,') })),
      ['XRPBTC']
    )
    expect(details('checksum_mismatch')).toHaveLength(1)
  })
})

describe('mutated frames', () => {
  it('never throw, and whatever is taken as JSON is JSON', () => {
    const seed = 20_261_120
    const random = seeded(seed)
    let kept = 0
    for (let n = 0; n < 5000; n++) {
      if (n % 25 === 0) goLive({}, ['BTCUSD', 'ETHUSD'])
      const base = [
        peer.frame(peer.channel(), '[31,79420.5,-0.25]'),
        peer.frame(peer.channel(), '"hb"'),
        peer.frame(peer.channel(), `"cs",${checksumOf(ORDERS)}`),
        peer.frame(peer.channel('trades'), `"te",[${n},1788829784024,-1.5e-7,79421]`),
        peer.frame(peer.channel(), `[${ORDERS.map(order => `[${order.join(',')}]`).join(',')}]`),
        '{"event":"subscribed","channel":"book","chanId":101,"symbol":"tETHUSD","prec":"R0"}',
        '{"event":"info","code":20061,"msg":"ended"}',
        '{"event":"conf","status":"OK","flags":229376}'
      ]
      const text = mutate(base[n % base.length]!, random)
      const where = `seed ${seed}, frame ${n}: ${text}`
      if (takesHostile(driver, 'a', text, where)) kept++
      driver.tick('a')
      if (n % 25 === 24) for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
    }
    expect(kept).toBeGreaterThan(500)
    expect(kept).toBeLessThan(4500)
  })
})
