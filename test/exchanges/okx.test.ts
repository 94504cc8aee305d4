import { beforeEach, describe, expect, it } from 'vitest'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Driver, type Row } from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'
import { ASKS, BIDS, type LevelText, OkxPeer } from '../helpers/peers.ts'
import { expectResumable, type Step } from '../helpers/resumed.ts'

let driver: Driver
let peer: OkxPeer

/** A connection that is open; nothing was answered. */
function connect(config: Partial<EngineConfig> = {}, instIds = ['BTC-USDT']): void {
  driver = new Driver(okx, config)
  driver.open('a', instIds, 'l2')
  peer = new OkxPeer(driver, 'a')
}

/** The same with books that are live. */
function goLive(config: Partial<EngineConfig> = {}, instIds = ['BTC-USDT']): void {
  connect(config, instIds)
  peer.answer()
  for (const instId of instIds) peer.image(BIDS, ASKS, instId)
}

interface Request {
  id: string
  op: string
  args: { channel: string; instId: string }[]
}

const asked = (op: string, channel: string, name = 'a') =>
  driver
    .asked(name)
    .filter((request): request is Request => typeof request === 'object' && request !== null)
    .filter(request => request.op === op && request.args[0]?.channel === channel)
const updates = (name = 'BTC-USDT') => driver.sink.records('l2_updates', name)
const types = () => updates().map(row => row.event_type)
const details = (event: string) => driver.sink.statuses(event).map(row => row.detail as Row)
const shots = () => driver.sink.records('l2_spot')

/** Lets time pass on a connection that answers pings. */
function wait(seconds: number): void {
  for (let second = 0; second < seconds; second++) {
    driver.pass('a', 1000)
    peer.answer()
  }
}

beforeEach(() => goLive())

describe('subscribing', () => {
  it('asks for books and trades, and takes the first image', () => {
    expect(driver.asked('a')).toEqual([
      { id: '1', op: 'subscribe', args: [{ channel: 'books', instId: 'BTC-USDT' }] },
      { id: '2', op: 'subscribe', args: [{ channel: 'trades', instId: 'BTC-USDT' }] }
    ])
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      bids: [
        ['62009.9', '4.49', '0', '3'],
        ['62009', '10', '0', '1']
      ],
      seqId: 1000,
      prevSeqId: -1,
      checksum: null
    })
    expect(driver.requests.settledNames).toEqual(['a'])
    expect(details('subscribed')[0]).toMatchObject({ proof: { sequence: 'instrument', checksum: false } })
  })

  it('takes an image that comes before its acknowledgement', () => {
    connect()
    peer.image(BIDS, ASKS)
    peer.answer()
    peer.update([['62009', '0', '0']], [])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('subscribed')).toHaveLength(1)
  })

  it('ignores updates before the image', () => {
    connect()
    peer.answer()
    peer.update([['1', '1', '1']], [])
    expect(updates()).toEqual([])
    peer.image(BIDS, ASKS)
    peer.update([['1', '1', '1']], [])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it('renews a subscription whose image does not come', () => {
    connect()
    peer.answer()
    driver.pass('a', 11_000)
    expect(details('resubscribed')).toEqual([{ conn: 'a', reason: 'no image', attempt: 1 }])
    peer.answer()
    expect(asked('subscribe', 'books')).toHaveLength(2)
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    driver.pass('a', 10_000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 1000)
    expect(driver.requests.hangups).toHaveLength(1)
  })

  it.each([
    ['60018', true],
    ['64004', true],
    ['60014', false],
    ['63999', false]
  ])('error %s, final: %s', (code, final) => {
    connect()
    const [books, trades] = [asked('subscribe', 'books')[0]!, asked('subscribe', 'trades')[0]!]
    peer.event({ id: books.id, event: 'error', code, msg: "doesn't exist", connId: 'x' })
    peer.event({ id: trades.id, event: 'subscribe', arg: trades.args[0] })
    const refused = { conn: 'a', channel: 'book', final, code, msg: "doesn't exist" }
    // What has no book has no trades.
    expect(details('refused')).toEqual(final ? [refused, { ...refused, channel: 'trades' }] : [refused])
    expect(driver.requests.settledNames).toEqual(final ? ['a'] : [])
    const pass = (seconds: number) => {
      for (let second = 0; second < seconds; second++) {
        driver.pass('a', 1000)
        driver.in('a', 'pong')
      }
    }
    pass(59)
    expect(asked('subscribe', 'books')).toHaveLength(1)
    pass(2)
    expect(asked('subscribe', 'books')).toHaveLength(final ? 1 : 2)
  })

  it('an error without an id may name what it means in its text', () => {
    connect({}, ['BTC-USDT', 'ETH-USDT'])
    const msg = "Wrong URL or channel:books,instId:ETH-USDT doesn't exist. Please use the correct URL."
    peer.event({ event: 'error', code: '60018', msg, connId: 'x' })
    expect(driver.sink.statuses('refused', 'BTC-USDT')).toEqual([])
    expect(driver.sink.statuses('refused', 'ETH-USDT').map(row => row.detail)).toMatchObject([
      { channel: 'book', final: true, code: '60018' },
      { channel: 'trades', final: true }
    ])
  })

  it.each([{ id: '__proto__' }, { id: 'constructor' }, { id: '77' }, {}])(
    'an error of %j belongs to nothing',
    error => {
      peer.event({ ...error, event: 'error', code: '60012', msg: 'Invalid request' })
      expect(details('refused')).toEqual([])
      expect(driver.requests.logs).toMatchObject([{ level: 'warn' }])
    }
  )
})

describe('the chain', () => {
  it('keep-alives, jumps, repeated numbers and a restart that keeps the link are fine', () => {
    // The example of the documentation: 10, 15, 15, 3, 5 with −1, 10, 15, 15, 3.
    goLive()
    peer.image(BIDS, ASKS, 'BTC-USDT', 10)
    const say = (prevSeqId: number, seqId: number, bids: readonly LevelText[]) =>
      driver.in('a', peer.frame('update', bids, [], { prevSeqId, seqId }))
    say(10, 15, [['62008', '1', '1']])
    say(15, 15, [])
    say(15, 3, [['62007', '1', '1']])
    say(3, 5, [['62006', '1', '1']])
    expect(details('gap')).toEqual([])
    expect(
      updates()
        .slice(-4)
        .map(row => row.seqId)
    ).toEqual([15, 15, 3, 5])
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ seqId: 5, prevSeqId: 3 })
    expect((shots().at(-1)!.bids_top400 as unknown[]).length).toBe(5)
  })

  it('a broken link is a gap of that instrument alone', () => {
    goLive({}, ['BTC-USDT', 'ETH-USDT-SWAP'])
    peer.next([['62008', '1', '1']], [])
    peer.update([['62007', '1', '1']], [])
    peer.update([['1', '1', '1']], [], 'ETH-USDT-SWAP')
    expect(driver.sink.statuses('gap').map(row => [row.instId, row.detail])).toMatchObject([
      ['BTC-USDT', { reason: 'sequence', expected: 1000, received: 1003 }]
    ])
    expect(updates('ETH-USDT-SWAP').at(-1)).toMatchObject({ event_type: 'update', market: 'perp' })
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
    expect(asked('unsubscribe', 'trades')).toEqual([])
    // What is still under way does not ask a second time.
    peer.update([['62006', '1', '1']], [])
    peer.image(BIDS, ASKS, 'BTC-USDT', 5000)
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
    expect(types().at(-1)).toBe('gap')
    peer.answer()
    peer.image(BIDS, ASKS, 'BTC-USDT', 6000)
    expect(details('synced')).toHaveLength(3)
    expect(details('gap')).toHaveLength(1)
  })

  it('the same frame twice is applied once, an image too', () => {
    const frame = peer.next([['62008', '1', '1']], [])
    driver.in('a', frame)
    driver.in('a', frame)
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    const image = peer.frame('snapshot', BIDS, ASKS, { prevSeqId: -1, seqId: 2000 })
    driver.in('a', image)
    driver.in('a', image)
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'clear', 'snapshot'])
    expect(details('gap')).toEqual([])
  })

  it('a further image of a live book is taken', () => {
    peer.image([['7', '7', '7']], [], 'BTC-USDT', 8000)
    peer.update([['6', '6', '6']], [])
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '7', best_ask: null, seqId: 8003 })
    expect(details('gap')).toEqual([])
  })

  it('zero sizes remove, in every way a zero is written, and removing what is not there means nothing', () => {
    peer.update(
      [['62009.9', '0.00', '0']],
      [
        ['62010', '0', '0'],
        ['99999', '0', '0']
      ]
    )
    driver.pass('a', 2000)
    expect(shots().at(-1)).toMatchObject({ best_bid: '62009', best_ask: '62010.1', mid_price: '62009.55' })
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [['62009.9', '0.00', '0', '0']] })
  })
})

describe('frames of another form', () => {
  it.each([
    ['white space', (text: string) => JSON.stringify(JSON.parse(text), null, 1).replaceAll('\n', ' '), 'msg'],
    ['line breaks', (text: string) => JSON.stringify(JSON.parse(text), null, 1), 'text'],
    ['other fields', (text: string) => text.replace('"data":[{', '"data":[{"new":{"a":[1]},'), 'msg'],
    [
      'other order',
      (text: string) => text.replace(/^\{("arg":\{[^}]*\}),("action":"\w+"),(.*)\}$/, '{$3,$2,$1}'),
      'msg'
    ],
    ['a fifth cell', (text: string) => text.replaceAll('"0","3"]', '"0","3","x"]'), 'msg']
  ])('%s: the same record', (_, change, form) => {
    const frame = peer.next([['62008', '1e-7', '3']], [])
    const other = change(frame)
    expect(other).not.toBe(frame)
    expect(driver.in('a', other)).toBe(form)
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [['62008', '1e-7', '0', '3']], seqId: 1003 })
    expect(details('gap')).toEqual([])
    peer.update([['62007', '1', '1']], [])
    expect(types().at(-1)).toBe('update')
  })

  it('several updates in one frame are each applied', () => {
    const [first, second] = [peer.next([['62008', '1', '1']], []), peer.next([['62007', '1', '1']], [])]
    driver.in('a', first.replace(/\]\}$/, `,${/"data":\[(.*)\]\}$/.exec(second)![1]}]}`))
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update'])
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['no bids', (text: string) => text.replace('"bids"', '"bidz"')],
    ['no data', (text: string) => text.replace(/"data":.*$/, '"data":[]}')],
    ['data is null', (text: string) => text.replace(/"data":.*$/, '"data":null}')],
    ['an unknown action', (text: string) => text.replace('"update"', '"partial"')],
    ['a negative size', (text: string) => text.replace('"1e-7"', '"-1"')],
    ['a size that is no number', (text: string) => text.replace('"1e-7"', '""')],
    ['a price that is no number', (text: string) => text.replace('"62008"', '"abc"')],
    ['a price of too many digits', (text: string) => text.replace('"62008"', '"1234567.8901234567"')],
    ['a count that is no number', (text: string) => text.replace('"0","3"', '"0","x"')],
    ['numbers instead of text', (text: string) => text.replace('"62008"', '62008')],
    ['too few cells', (text: string) => text.replace(',"0","3"', '')],
    ['a sequence that is text', (text: string) => text.replace(/"seqId":(\d+)/, '"seqId":"$1"')],
    ['a fractional sequence', (text: string) => text.replace(/"seqId":(\d+)/, '"seqId":$1.5')],
    ['half of the chain', (text: string) => text.replace(/"prevSeqId":\d+,/, '')],
    ['no chain any more', (text: string) => text.replace(/,"prevSeqId":.*$/, '}]}')]
  ])('%s: kept, and a gap', (_, change) => {
    const frame = peer.next([['62008', '1e-7', '3']], [])
    const other = change(frame)
    expect(other).not.toBe(frame)
    driver.in('a', other)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(types()).toEqual(['clear', 'snapshot', 'gap'])
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
  })

  it.each(['pong', 'not JSON', '{"event":', '[]', 'null', '7', '"x"', '{"arg":null}', '{}', '['.repeat(200)])(
    '%s belongs to no book',
    text => {
      driver.in('a', text)
      expect(details('gap')).toEqual([])
      peer.update([['62008', '1', '1']], [])
      expect(types().at(-1)).toBe('update')
    }
  )
})

describe('trades', () => {
  it('are written once', () => {
    peer.trade('435811967', 'buy', '85.21', '3.26503')
    peer.trade('435811967', 'buy', '85.21', '3.26503')
    peer.trade('435811968', 'sell', '1e-7', '1')
    expect(driver.sink.records('trades').map(row => [row.trade_id, row.side, row.price, row.size])).toEqual([
      ['435811967', 'buy', '85.21', '3.26503'],
      ['435811968', 'sell', '1e-7', '1']
    ])
    expect(driver.sink.records('trades')[0]!.metadata).toEqual({ count: '1', source: '0', seqId: 5 })
  })

  it.each([
    ['hold', '1', '1'],
    ['buy', '-1', '1'],
    ['buy', '1', 'x']
  ])('that cannot be read do not cost the book: %s %s %s', (side, price, size) => {
    peer.trade('1', side, price, size)
    expect(driver.sink.records('trades')).toEqual([])
    expect(driver.requests.logs.map(({ message }) => message)).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([])
  })
})

describe('silence', () => {
  it('keep-alives every minute are life enough', () => {
    for (let minute = 0; minute < 10; minute++) {
      wait(60)
      const seqId = peer.numbers.get('BTC-USDT')!
      driver.in('a', peer.frame('update', [], [], { prevSeqId: seqId, seqId }))
    }
    expect(details('stalled')).toEqual([])
    expect(asked('unsubscribe', 'books')).toEqual([])
    expect(driver.requests.hangups).toEqual([])
  })

  it('a mute book is subscribed again, once, though the connection answers pings', () => {
    wait(95)
    expect(details('stalled')).toMatchObject([{ channel: 'book' }])
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
    expect(asked('subscribe', 'books')).toHaveLength(2)
    peer.image(BIDS, ASKS, 'BTC-USDT', 9000)
    expect(details('synced')).toHaveLength(2)
    wait(60)
    expect(details('stalled')).toHaveLength(1)
  })

  it('trades may be silent for ever', () => {
    goLive({ silenceMs: 5000 })
    for (let n = 0; n < 100; n++) {
      wait(4)
      peer.update([['62008', String(n + 1), '1']], [])
    }
    expect(details('stalled')).toEqual([])
  })

  it('ping is text, and no pong ends the connection', () => {
    driver.pass('a', 21_000)
    expect(driver.asked('a').at(-1)).toBe('ping')
    driver.pass('a', 9000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 3000)
    expect(driver.requests.hangups[0]?.reason).toContain('ping')
  })
})

describe('checksums', () => {
  const say = (checksum: number) => {
    const prevSeqId = peer.numbers.get('BTC-USDT')!
    driver.in('a', peer.frame('update', [], [], { prevSeqId, seqId: prevSeqId }, 'BTC-USDT', checksum))
  }

  it('0 is not provided: never wrong, and null in records', () => {
    for (let n = 0; n < 10; n++) say(0)
    driver.pass('a', 2000)
    expect(details('checksum_mismatch')).toEqual([])
    expect(shots().at(-1)!.checksum).toBeNull()
  })

  it('three wrong ones in a row are a gap', () => {
    say(1)
    say(2)
    expect(details('gap')).toEqual([])
    say(3)
    expect(details('checksum_mismatch')).toHaveLength(3)
    expect(details('gap')).toMatchObject([{ reason: 'checksum', expected: 3 }])
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
    expect(shots().at(-1)).toMatchObject({ gap_detected: true, checksum: 3 })
  })
})

describe('books that are wrong', () => {
  it('crossed for longer than 5 s', () => {
    peer.update([['62011', '1', '1']], [])
    driver.pass('a', 4000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 3000)
    expect(details('gap')).toMatchObject([{ reason: 'crossed' }])
  })

  it('deeper than subscribed for longer than 5 s', () => {
    const many = Array.from({ length: 401 }, (_, n): LevelText => [String(60_000 - n), '1', '1'])
    peer.image(many, ASKS, 'BTC-USDT', 7000)
    driver.pass('a', 4000)
    expect(details('gap')).toEqual([])
    driver.pass('a', 3000)
    expect(details('gap')).toMatchObject([{ reason: 'too_deep', expected: 400, received: 401 }])
  })
})

describe('64008', () => {
  const NOTICE = { event: 'notice', code: '64008', msg: 'The connection will soon be closed for a service upgrade.' }

  it('another connection is live before this one is left, and nothing is lost', () => {
    driver.pass('a', 2000)
    peer.event(NOTICE)
    peer.event(NOTICE)
    expect(driver.requests.replacements).toEqual(['a'])
    expect(details('maintenance')).toHaveLength(2)
    driver.open('b', ['BTC-USDT'], 'l2', 'a')
    const other = new OkxPeer(driver, 'b')
    other.answer()
    peer.update([['62008', '1', '1']], [])
    peer.trade('9', 'buy', '62010', '1')
    other.trade('9', 'buy', '62010', '1')
    expect(driver.requests.leaves).toEqual([])
    other.image([...BIDS, ['62008', '1', '1']], ASKS, 'BTC-USDT', 1003)
    expect(driver.requests.leaves).toEqual(['a'])
    peer.update([['62007', '1', '1']], [])
    other.update([['62007', '1', '1']], [])
    driver.close('a', 'replaced')
    driver.pass('b', 2000)
    other.update([['62006', '1', '1']], [])
    expect(details('gap')).toEqual([])
    expect(details('synced').map(({ conn, planned }) => [conn, planned])).toEqual([
      ['a', undefined],
      ['b', true]
    ])
    expect(new Set(shots().map(row => row.synced_at)).size).toBe(2)
    expect(driver.sink.records('trades')).toHaveLength(1)
    expect(
      updates()
        .filter(row => row.event_type === 'update')
        .map(row => [row.conn, row.seqId])
    ).toEqual([
      ['a', 1003],
      ['b', 1006],
      ['b', 1009]
    ])
  })

  it('the new connection, lost after it took over, hands back to one that still lives', () => {
    peer.event(NOTICE)
    driver.open('b', ['BTC-USDT'], 'l2', 'a')
    const other = new OkxPeer(driver, 'b')
    other.answer()
    other.image(BIDS, ASKS)
    driver.close('b', 'lost', 1006)
    expect(details('gap')).toEqual([])
    expect(details('synced').map(({ conn }) => conn)).toEqual(['a', 'b', 'a'])
    expect(types().slice(-2)).toEqual(['clear', 'snapshot'])
    peer.update([['62008', '1', '1']], [])
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', conn: 'a' })
  })

  it('the old connection lost before the new one is live: a gap, which the new one heals', () => {
    peer.event(NOTICE)
    driver.open('b', ['BTC-USDT'], 'l2', 'a')
    const other = new OkxPeer(driver, 'b')
    other.answer()
    driver.close('a', 'lost', 1006)
    other.image(BIDS, ASKS)
    expect(details('gap')).toMatchObject([{ reason: 'disconnect', conn: 'a' }])
    expect(details('synced').at(-1)).toMatchObject({ conn: 'b', down_ms: expect.any(Number) })
  })
})

describe('path B: books without an image', () => {
  const PATH = '/api/v5/market/books?instId=BTC-USDT&sz=400&source=0'
  const rest = (seqId: unknown, bids: readonly LevelText[] = BIDS, asks: readonly LevelText[] = ASKS) => {
    const rows = (levels: readonly LevelText[]) => levels.map(([price, size, orders]) => [price, size, '0', orders])
    return { code: '0', msg: '', data: [{ asks: rows(asks), bids: rows(bids), ts: '1597026383085', seqId }] }
  }
  const say = (prevSeqId: number, seqId: number, bids: readonly LevelText[] = [], instId = 'BTC-USDT') =>
    driver.in('a', peer.frame('update', bids, [], { prevSeqId, seqId }, instId))

  /** A connection whose subscriptions are acknowledged. */
  function acknowledged(config: Partial<EngineConfig> = {}, instIds = ['BTC-USDT']): void {
    connect(config, instIds)
    peer.answer()
  }

  it('an update comes first: the image is fetched, and what waited is applied to it', () => {
    acknowledged()
    say(10, 15, [['1', '1', '1']])
    expect(driver.fetches('a')).toEqual([PATH])
    say(15, 20, [['62008', '8', '8']])
    say(20, 25, [['62009', '0', '0']])
    expect(updates()).toEqual([])
    driver.fetched('a', 200, rest(15))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      bids: [
        ['62009.9', '4.49', '0', '3'],
        ['62008', '8', '0', '8']
      ],
      asks: [
        ['62010', '190.13', '0', '10'],
        ['62010.1', '0.02', '0', '1']
      ],
      seqId: 25,
      prevSeqId: 20,
      checksum: null
    })
    say(25, 30, [['62007', '7', '7']])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
    expect(details('resubscribed')).toEqual([])
    expect(driver.fetches('a')).toHaveLength(1)
    expect(asked('unsubscribe', 'books')).toEqual([])
    expect(driver.requests.settledNames).toEqual(['a'])
  })

  it('spot and swap, each with its own image', () => {
    acknowledged({}, ['BTC-USDT', 'BTC-USDT-SWAP'])
    say(10, 15)
    expect(driver.fetches('a')).toEqual([PATH])
    say(20, 25, [], 'BTC-USDT-SWAP')
    expect(driver.fetches('a')).toEqual([PATH, PATH.replace('BTC-USDT', 'BTC-USDT-SWAP')])
    driver.fetched('a', 200, rest(15), 'image-0-1')
    driver.fetched('a', 200, rest(25), 'image-1-2')
    driver.pass('a', 2000)
    expect(driver.sink.records('l2_spot')[0]).toMatchObject({ instId: 'BTC-USDT', seqId: 15, best_bid: '62009.9' })
    expect(driver.sink.records('l2_perps')[0]).toMatchObject({ instId: 'BTC-USDT-SWAP', seqId: 25, market: 'perp' })
  })

  it('B3: an image older than the first update is fetched again', () => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', 200, rest(9))
    expect(updates()).toEqual([])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    driver.fetched('a', 200, rest(10))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 15, prevSeqId: 10 })
    expect(details('gap')).toEqual([])
  })

  it('B3: also when the numbers start anew there', () => {
    acknowledged()
    say(15, 3)
    driver.fetched('a', 200, rest(10))
    expect(updates()).toEqual([])
    driver.pass('a', 1000)
    driver.fetched('a', 200, rest(3))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 3 })
  })

  it('B4: an image between two numbers is continued by the update that spans it', () => {
    acknowledged()
    say(10, 15, [['1', '1', '1']])
    say(15, 20, [['2', '2', '2']])
    driver.fetched('a', 200, rest(17))
    expect(updates().at(-1)).toMatchObject({ seqId: 20, bids: [...shown(BIDS), ['2', '2', '0', '2']] })
    say(20, 25)
    expect(details('gap')).toEqual([])
  })

  const shown = (levels: readonly LevelText[]) => levels.map(([price, size, orders]) => [price, size, '0', orders])

  it('B4: an image ahead of the stream: what it has is dropped, what spans it joins, and then the chain counts', () => {
    acknowledged()
    say(10, 15, [['1', '1', '1']])
    driver.fetched('a', 200, rest(23))
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({ bids: shown(BIDS), seqId: 23, prevSeqId: null })
    say(15, 20, [['2', '2', '2']])
    expect(types()).toEqual(['clear', 'snapshot'])
    say(20, 25, [['3', '3', '3']])
    expect(updates()[2]).toMatchObject({ event_type: 'update', seqId: 25, bids: [['3', '3', '0', '3']] })
    say(25, 30)
    expect(details('gap')).toEqual([])
    say(20, 40)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 30, received: 20 }])
  })

  it('B4: one that ends where the image is anchors the chain', () => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', 200, rest(20))
    say(15, 20, [['2', '2', '2']])
    expect(types()).toEqual(['clear', 'snapshot'])
    say(19, 30)
    expect(details('gap')).toMatchObject([{ expected: 20, received: 19 }])
  })

  it('a book that is live without a link loses it when the next update leads from beyond it', () => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', 200, rest(20))
    say(21, 25)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 20, received: 21 }])
    expect(asked('unsubscribe', 'books')).toHaveLength(1)
  })

  it('a stream that stays behind its image is not believed for ever', () => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', 200, rest(1000))
    driver.pass('a', 9000)
    say(15, 20)
    expect(details('gap')).toEqual([])
    driver.pass('a', 2000)
    say(20, 25)
    expect(details('gap')).toMatchObject([{ reason: 'sequence', expected: 1000, received: 20 }])
  })

  it('keep-alives and numbers that start anew are links like others', () => {
    acknowledged()
    say(10, 15)
    say(15, 15)
    say(15, 3, [['3', '3', '3']])
    say(3, 5)
    driver.fetched('a', 200, rest(15))
    expect(updates().at(-1)).toMatchObject({ seqId: 5, bids: [...shown(BIDS), ['3', '3', '0', '3']] })
    say(5, 6)
    expect(details('gap')).toEqual([])
    acknowledged()
    for (const [before, number] of [
      [10, 15],
      [15, 3],
      [3, 5]
    ] as const)
      say(before, number)
    driver.fetched('a', 200, rest(3))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 5 })
  })

  it('a hole between what waits: only an image from behind it will do', () => {
    acknowledged()
    say(10, 15)
    say(20, 25)
    for (const seqId of [12, 15, 17]) {
      driver.fetched('a', 200, rest(seqId))
      expect(updates()).toEqual([])
      driver.pass('a', 3000)
    }
    driver.fetched('a', 200, rest(20))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 25 })
    expect(driver.fetches('a')).toHaveLength(4)
  })

  it('what came twice while it waited counts once', () => {
    acknowledged()
    for (const _ of [1, 2]) say(10, 15, [['1', '1', '1']])
    for (const _ of [1, 2]) say(15, 20, [['2', '2', '2']])
    driver.fetched('a', 200, rest(10))
    expect(updates().at(-1)).toMatchObject({ event_type: 'snapshot', seqId: 20, prevSeqId: 15 })
  })

  it('updates of another form wait as well', () => {
    acknowledged()
    const spaced = peer.frame('update', [['62008', '1e-7', '3']], [], { prevSeqId: 10, seqId: 15 })
    driver.in('a', JSON.stringify(JSON.parse(spaced), null, 1))
    const [first, second] = [
      peer.frame('update', [['62007', '7', '7']], [], { prevSeqId: 15, seqId: 20 }),
      peer.frame('update', [['62006', '6e-1', '6']], [], { prevSeqId: 20, seqId: 25 })
    ]
    driver.in('a', first.replace(/\]\}$/, `,${/"data":\[(.*)\]\}$/.exec(second)![1]}]}`))
    driver.fetched('a', 200, rest(10, []))
    expect(updates().at(-1)).toMatchObject({
      seqId: 25,
      bids: [
        ['62008', '1e-7', '0', '3'],
        ['62007', '7', '0', '7'],
        ['62006', '6e-1', '0', '6']
      ]
    })
  })

  it.each([
    ['status 500', 500, null],
    ['status 429', 429, { code: '50011', msg: 'Too Many Requests' }],
    ['no answer', 0, undefined],
    ['status 503 with an image', 503, rest(15)],
    ['another code with an image', 200, { ...rest(15), code: '50001' }],
    ['another code', 200, { code: '51001', msg: "Instrument ID doesn't exist.", data: [] }],
    ['no data', 200, { code: '0', msg: '', data: [] }],
    ['no number', 200, rest(undefined)],
    ['a number that is text', 200, rest('15')],
    ['a fractional number', 200, rest(15.5)],
    ['levels that are no text', 200, rest(15, [[1, '1', '1'] as unknown as LevelText])],
    ['a negative size', 200, rest(15, [['1', '-1', '1']])],
    ['an array', 200, [rest(15)]]
  ])('%s: no image, fetched again', (_, status, value) => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', status, value)
    expect(updates()).toEqual([])
    expect(driver.requests.logs.filter(({ level }) => level !== 'info')).toMatchObject([
      { level: 'warn', message: 'No image', facts: { instId: 'BTC-USDT', status } }
    ])
    driver.pass('a', 1000)
    expect(driver.fetches('a')).toHaveLength(2)
    driver.fetched('a', 200, rest(15))
    expect(types()).toEqual(['clear', 'snapshot'])
  })

  it("an image that comes by the subscription nevertheless is taken, and that of REST is nobody's", () => {
    acknowledged()
    say(10, 15)
    peer.image(BIDS, ASKS, 'BTC-USDT', 1000)
    driver.fetched('a', 200, rest(10))
    peer.update([['62008', '1', '1']], [])
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(details('gap')).toEqual([])
  })

  it('nothing comes within the time of an acknowledgement: subscribed again, and then the image is fetched at once', () => {
    acknowledged()
    driver.pass('a', 11_000)
    expect(details('resubscribed')).toMatchObject([{ reason: 'no image' }])
    expect(driver.fetches('a')).toEqual([])
    peer.answer()
    expect(driver.fetches('a')).toEqual([PATH])
    wait(15)
    expect(details('resubscribed')).toHaveLength(1)
    driver.fetched('a', 200, rest(15))
    expect(types()).toEqual(['clear', 'snapshot'])
    // A quiet market: the number is repeated after a minute.
    wait(60)
    say(15, 15)
    wait(60)
    say(15, 20, [['62008', '1', '1']])
    expect(types().slice(2)).toEqual(['update', 'update'])
    expect(details('gap')).toEqual([])
    expect(details('stalled')).toEqual([])
  })

  it('once seen it is kept to on that connection: a later subscription waits for an update, not for an image', () => {
    acknowledged()
    say(10, 15)
    driver.fetched('a', 200, rest(15))
    say(20, 25)
    expect(details('gap')).toHaveLength(1)
    peer.answer()
    expect(asked('subscribe', 'books')).toHaveLength(2)
    expect(driver.fetches('a')).toHaveLength(1)
    say(30, 35)
    expect(driver.fetches('a')).toHaveLength(2)
    driver.fetched('a', 200, rest(32))
    expect(details('synced')).toHaveLength(2)
    // And where no update comes either, it takes the image alone, without subscribing again.
    say(40, 45)
    peer.answer()
    driver.pass('a', 11_000)
    expect(asked('subscribe', 'books')).toHaveLength(3)
    expect(driver.fetches('a')).toHaveLength(3)
    driver.fetched('a', 200, rest(45))
    expect(details('synced')).toHaveLength(3)
    expect(details('gap')).toHaveLength(2)
    // Another connection begins without prejudice.
    driver.open('b', ['BTC-USDT'], 'l2')
    const other = new OkxPeer(driver, 'b')
    other.answer()
    other.image(BIDS, ASKS, 'BTC-USDT', 50)
    expect(driver.fetches('b')).toEqual([])
  })

  it('a subscription that was left takes no image any more', () => {
    acknowledged({ silenceMs: 5000 })
    say(10, 15)
    driver.pass('a', 7000)
    expect(details('stalled')).toHaveLength(1)
    driver.fetched('a', 200, rest(15), 'image-0-1')
    peer.answer()
    driver.fetched('a', 200, rest(15), 'image-0-1')
    expect(updates()).toEqual([])
    say(30, 35)
    driver.fetched('a', 200, rest(30))
    expect(updates().at(-1)).toMatchObject({ seqId: 35 })
  })

  it('updates without numbers can be joined to no image', () => {
    acknowledged()
    driver.in(
      'a',
      peer.frame('update', [['1', '1', '1']], [], { prevSeqId: 1, seqId: 2 }).replace(/,"prevSeqId".*$/, '}]}')
    )
    expect(driver.fetches('a')).toEqual([])
  })

  it('goes on from its state at any moment', () => {
    const frame = (prevSeqId: number, seqId: number, bids: readonly LevelText[] = []): Step =>
      peer.frame('update', bids, [], { prevSeqId, seqId })
    const ack = (event: string, id: string, channel = 'books'): Step =>
      `{"id":"${id}","event":"${event}","arg":{"channel":"${channel}","instId":"BTC-USDT"}}`
    const image = (n: number, seqId: number): Step => ({
      id: `image-0-${n}`,
      answer: { status: 200, value: rest(seqId) }
    })
    const sink = expectResumable({
      exchange: okx,
      selected: 'l2',
      instIds: ['BTC-USDT'],
      feeds: ['book', 'trades'],
      steps: [
        ack('subscribe', '1'),
        ack('subscribe', '2', 'trades'),
        frame(10, 15, [['62008', '1', '1']]),
        image(1, 9),
        { passMs: 700 },
        frame(15, 20, [['62007', '1e-7', '1']]),
        { id: 'image-0-2', answer: { status: 500, value: undefined } },
        { passMs: 1500 },
        { id: 'image-0-3', answer: { status: 0, value: undefined } },
        { passMs: 12_000 },
        frame(20, 20),
        image(4, 23),
        frame(20, 22),
        frame(22, 25),
        { passMs: 2000 },
        frame(26, 27),
        frame(27, 28),
        ack('unsubscribe', '3'),
        ack('subscribe', '4'),
        { passMs: 6000 },
        { passMs: 6000 },
        image(5, 28),
        frame(28, 28),
        'pong',
        frame(28, 29),
        frame(30, 31),
        ack('unsubscribe', '5'),
        ack('subscribe', '6'),
        frame(31, 32),
        image(6, 32),
        frame(32, 33),
        { passMs: 2000 }
      ]
    })
    expect(sink.statuses('synced')).toHaveLength(3)
    expect(sink.statuses('gap').map(row => (row.detail as Row).expected)).toEqual([25, 29])
  })
})

describe('mutated frames', () => {
  it('never throw, and whatever is taken as JSON is JSON', () => {
    const seed = 11_202_026
    const random = seeded(seed)
    let kept = 0
    let lost = 0
    for (let n = 0; n < 5000; n++) {
      if (n % 25 === 0) goLive({}, ['BTC-USDT', 'ETH-USDT'])
      const base = [
        peer.frame('update', [['62008', '1e-7', '3']], [], { prevSeqId: 1000, seqId: 1000 }),
        peer.frame('snapshot', BIDS, ASKS, { prevSeqId: -1, seqId: 2000 }, 'ETH-USDT', -123_456),
        peer.frame('update', [], [], { prevSeqId: 1000, seqId: 1000 }, 'ETH-USDT'),
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"5","px":"85.21","sz":"3.2","side":"buy","ts":"1779638515381","count":"3","source":"0","seqId":30263220729}]}',
        '{"id":"1","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"x"}',
        '{"id":"1","event":"error","code":"60018","msg":"Wrong URL"}',
        'pong'
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
    expect(kept).toBeLessThan(4500)
    expect(lost).toBeGreaterThan(50)
  })
})
