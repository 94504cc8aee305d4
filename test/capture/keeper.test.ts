import { beforeEach, describe, expect, it } from 'vitest'
import type { Exchange, Host, Session } from '../../src/exchanges/exchange.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Driver, type Row } from '../helpers/driver.ts'

/** A session whose frames are calls: the test writes down what a protocol would make of its frames. */
class ScriptedSession implements Session {
  private readonly host: Host
  private text = ''

  constructor(host: Host) {
    this.host = host
  }

  read(text: string) {
    this.text = text
    return 'msg' as const
  }

  apply(): void {
    const keepers = this.host.keepers as unknown as Record<string, (...args: unknown[]) => unknown>[]
    for (const call of JSON.parse(this.text) as unknown[][]) {
      // A call may begin with the instrument it is for.
      const [index, name, ...args] = typeof call[0] === 'number' ? call : [0, ...call]
      keepers[index as number]![name as string]!(...args)
    }
  }

  onOpen(): void {}
  onFetched(): void {}
  onTick(): void {}
  resync(): void {}
  refused(): boolean {
    return false
  }
  tradesReady(): boolean {
    return true
  }
  state(): unknown {
    return {}
  }
  restore(): void {}
}

const scripted: Exchange = {
  ...okx,
  levels: ['l3'],
  describe: instId => ({ exchange: 'okx', instId, market: 'spot', level: 'l3', channel: 'orders' }),
  open: host => new ScriptedSession(host)
}
const IMAGE = [
  ['beginImage', 10, null],
  ['imageOrder', 'a', false, '100', '3'],
  ['imageOrder', 'b', true, '101', '1.50'],
  ['endImage']
]

let driver: Driver
beforeEach(() => {
  driver = new Driver(scripted)
  driver.open('x', ['A-B'], 'l3')
})
const frame = (...calls: unknown[][]) => driver.in('x', JSON.stringify(calls))
const events = () => driver.sink.records('l3_events')
const brief = (rows: Row[]) => rows.map(({ event_type, order_id, size, last }) => [event_type, order_id, size, last])

it('what happens before the end of an image is part of it', () => {
  frame(...IMAGE.slice(0, -1), ['putOrder', 'c', false, '99', '7', 11, null], ['matchOrder', 'a', '1', 12, null])
  expect(events()).toEqual([])
  frame(['removeOrder', 'b', 13, null], ['endImage'])
  expect(brief(events())).toEqual([
    ['clear', null, null, false],
    ['snapshot', 'a', '2', false],
    ['snapshot', 'c', '7', true]
  ])
  expect(events().every(({ sequence }) => sequence === null || sequence === 13)).toBe(true)
})

it('a match takes from the resting order, exactly, and removes it at zero', () => {
  frame(...IMAGE)
  const metadata = '{"trade_id":"7"}'
  frame(['matchOrder', 'b', '0.5', 11, '2026-11-20T10:00:00.123456Z', metadata])
  frame(['matchOrder', 'b', '1.00', 12, null, metadata])
  frame(['matchOrder', 'b', '1', 13, null, metadata])
  expect(events().slice(3)).toMatchObject([
    {
      event_type: 'match',
      order_id: 'b',
      side: 'ask',
      price: '101',
      size: '0.5',
      sequence: 11,
      exchange_time: '2026-11-20T10:00:00.123456Z',
      metadata: { trade_id: '7' }
    },
    { event_type: 'match', size: '1.00', sequence: 12, exchange_time: null }
  ])
  expect(events()).toHaveLength(5)
  driver.pass('x', 2000)
  expect(driver.sink.records('l3_spot').at(-1)).toMatchObject({ asks_top400: [], seqId: 13 })
})

it('a match that takes more than there is breaks the book', () => {
  frame(...IMAGE)
  frame(['matchOrder', 'b', '1.51', 11, null])
  expect(events().at(-1)).toMatchObject({
    event_type: 'gap',
    metadata: { reason: 'match_too_large', expected: '1.50', received: '1.51' }
  })
  expect(driver.sink.records('l3_spot').at(-1)).toMatchObject({ gap_detected: true })
})

it('of the events of one frame only the last is marked', () => {
  frame(...IMAGE)
  const put = (id: string) => ['putOrder', id, false, '98', '1', 11, null]
  const note = [
    'noteOrder',
    {
      type: 'received',
      id: 'r',
      isAsk: null,
      price: null,
      size: '2',
      sequence: 11,
      exchangeTime: null,
      metadata: '{"x":1}'
    }
  ]
  frame(['beginBatch'], put('c'), note, ['removeOrder', 'a', 11, null, '{"reason":"canceled"}'], ['endBatch'])
  frame(['beginBatch'], put('d'), ['endBatch'])
  frame(['beginBatch'], ['endBatch'])
  expect(brief(events().slice(3))).toEqual([
    ['open', 'c', '1', false],
    ['received', 'r', '2', false],
    ['done', 'a', '3', true],
    ['open', 'd', '1', true]
  ])
  expect(events()[5]!.metadata).toEqual({ reason: 'canceled' })
})

it('a loss in the middle of a batch leaves no event behind', () => {
  frame(...IMAGE)
  frame(['beginBatch'], ['putOrder', 'c', false, '98', '1', 11, null], ['lose', 'sequence', 12, 13])
  expect(brief(events().slice(3))).toEqual([
    ['open', 'c', '1', true],
    ['gap', null, null, true]
  ])
  frame(...IMAGE)
  frame(['putOrder', 'e', false, '98', '1', 20, null])
  expect(events().at(-1)).toMatchObject({ event_type: 'open', order_id: 'e', last: true })
})

it('a sequence that moves without an event shows in the next snapshot', () => {
  frame(...IMAGE)
  frame(['advance', 99])
  driver.pass('x', 2000)
  expect(driver.sink.records('l3_spot').at(-1)).toMatchObject({ seqId: 99, gap_detected: false })
})

it('knows the largest trade id, also of earlier runs', () => {
  const subject = driver.engine.subjects.get('A-B')!
  expect(subject.lastTradeId).toBeNull()
  subject.knowTrades(1, ['5', '12', 'abc', '9'])
  expect(subject.lastTradeId).toBe(12)
  const trade = { isSell: true, price: '1', size: '1', exchangeTime: null, metadata: '{}' }
  frame(['trade', { ...trade, id: '11' }], ['trade', { ...trade, id: '14' }])
  expect(subject.lastTradeId).toBe(14)
  expect(subject.state().lastTradeId).toBe(14)
})

const wrong = (...indices: number[]) => frame(...indices.map(index => [index, 'verify', 999]))
const images = () => frame(...[0, 1].flatMap(index => IMAGE.map(call => [index, ...call])))
const verificationOff = () =>
  driver.sink.statuses('checksum_mismatch').filter(row => (row.detail as Row).verification === 'off').length

it.each([
  ['a sequence that shows losses: the exchange has changed its recipe', 'instrument', 2, 0],
  ['nothing else to show a loss: the books are wrong, and are made anew', 'none', 0, 2]
] as const)('when all checksums fail where there is %s', (_, sequence, off, gaps) => {
  driver = new Driver({ ...scripted, proof: { l3: { sequence, checksum: true } }, checksum: () => 1 })
  driver.open('x', ['A-B', 'C-D'], 'l3')
  images()
  frame([0, 'verify', 1], [1, 'verify', 1])
  for (let n = 0; n < 3; n++) wrong(0, 1)
  expect(verificationOff()).toBe(off)
  expect(driver.sink.statuses('gap')).toHaveLength(gaps)
})

it('fresh images that fail, too, switch verification off where nothing else shows a loss', () => {
  driver = new Driver({ ...scripted, proof: { l3: { sequence: 'none', checksum: true } }, checksum: () => 1 })
  driver.open('x', ['A-B', 'C-D'], 'l3')
  images()
  wrong(0, 1)
  expect(verificationOff()).toBe(0)
  wrong(0, 1)
  expect(verificationOff()).toBe(2)
  expect(driver.sink.statuses('gap')).toEqual([])
})

describe('frames that never reach the session', () => {
  const open = (sequence: 'instrument' | 'none') => {
    driver = new Driver({ ...scripted, proof: { l3: { sequence, checksum: false } } })
    driver.open('x', ['A-B'], 'l3')
    frame(...IMAGE)
  }
  const reasons = () => driver.sink.statuses('gap').map(row => [(row.detail as Row).cause, (row.detail as Row).channel])

  it.each([
    ['none', ['unreadable']],
    ['instrument', []]
  ] as const)('an unreadable one where the sequence is of %s', (sequence, gaps) => {
    open(sequence)
    driver.engine.unreadable(driver.us + 1, 'x', 90, 'binary')
    expect(reasons().map(([cause]) => cause)).toEqual(gaps)
  })

  it.each([
    ['{"bids":[["1"', 1],
    ['pong', 0]
  ])('%s that is no JSON where nothing is numbered', (text, gaps) => {
    open('none')
    frame(['status', 'connected', {}])
    const host = driver.engine as unknown as { connections: Map<string, Host> }
    host.connections.get('x')!.unreadable(text)
    expect(reasons()).toHaveLength(gaps)
  })

  it('an overload is told of books and of trades', () => {
    open('instrument')
    driver.engine.skip(driver.us + 1, 'x', 90, 7)
    expect(reasons()).toEqual([
      ['overload', undefined],
      ['overload', 'trades']
    ])
  })
})
