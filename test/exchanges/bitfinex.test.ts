import { beforeEach, describe, expect, it } from 'vitest'
import { OrderBook } from '../../src/book/orders.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { isoMs } from '../../src/core/time.ts'
import { bitfinex, bitfinexChecksum } from '../../src/exchanges/bitfinex.ts'
import { Driver, type Row } from '../helpers/driver.ts'
import { mutate, seeded } from '../helpers/mutate.ts'
import { BitfinexPeer, ORDERS, type OrderText } from '../helpers/peers.ts'

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
    connect({ trades: false })
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
    expect(driver.requests.settledNames).toEqual(final ? ['a'] : [])
    const before = asked('subscribe').length
    peer.event({ event: 'subscribed', channel: 'trades', chanId: 9, symbol: 'tBTCUSD' })
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
    expect(details('gap')).toMatchObject([{ reason: 'overload', received: 17 }])
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

/** What the log says of an error that a session threw. */
const FAILED = 'Assertion failed in a session'

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
      let form = ''
      expect(() => {
        form = driver.in('a', text)
      }, where).not.toThrow()
      expect(
        driver.requests.logs.map(({ message }) => message),
        where
      ).not.toContain(FAILED)
      if (form === 'msg') {
        kept++
        expect(text.includes('\n') || text.includes('\r'), where).toBe(false)
        expect(() => JSON.parse(`{"msg":${text}}`), where).not.toThrow()
      } else expect(form, where).toBe('text')
      driver.tick('a')
      if (n % 25 === 24) for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
    }
    expect(kept).toBeGreaterThan(500)
    expect(kept).toBeLessThan(4500)
  })
})
