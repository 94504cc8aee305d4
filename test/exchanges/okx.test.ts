import { beforeEach, describe, expect, it } from 'vitest'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Driver, type Row } from '../helpers/driver.ts'
import { mutate, seeded } from '../helpers/mutate.ts'
import { ASKS, BIDS, type LevelText, OkxPeer } from '../helpers/peers.ts'

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

/** What the log says of an error that a session threw. */
const FAILED = 'Assertion failed in a session'

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
      if (n % 25 !== 24) continue
      for (const line of driver.sink.lines) expect(() => JSON.parse(line.text), where).not.toThrow()
      lost += details('gap').length
    }
    expect(kept).toBeGreaterThan(500)
    expect(kept).toBeLessThan(4500)
    expect(lost).toBeGreaterThan(50)
  })
})
