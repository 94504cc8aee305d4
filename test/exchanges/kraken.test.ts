import crc32 from 'crc-32'
import { beforeEach, describe, expect, it } from 'vitest'
import { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'
import { STATE_VERSION } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import { priceKey } from '../../src/core/decimal.ts'
import type { FeedKind, Level } from '../../src/core/instrument.ts'
import type { Credentials } from '../../src/exchanges/exchange.ts'
import { kraken } from '../../src/exchanges/kraken.ts'
import { readKrakenCatalogue, spellKraken } from '../../src/exchanges/kraken-catalogue.ts'
import { krakenLevelsChecksum, krakenOrdersChecksum } from '../../src/exchanges/kraken-reader.ts'
import { hideToken, krakenSignature } from '../../src/exchanges/kraken-token.ts'
import {
  CONFIG,
  Driver,
  described,
  hasRecordings,
  loadFrames,
  NEEDS_RECORDINGS,
  play,
  type Row
} from '../helpers/driver.ts'
import { mutate, seeded, takesHostile } from '../helpers/mutate.ts'

const BTC = 'BTC/USD'
const ETH = 'ETH/USD'
const KEYS: Credentials = { key: 'the-key', secret: 'dGhlLXNlY3JldA==', passphrase: '' }
const TIMES = '"time_in":"2026-07-07T23:00:03.501510Z","time_out":"2026-07-07T23:00:03.501553Z"'

let driver: Driver

/** A connection that is open; nothing was answered. */
function connect(
  level: Level = 'l2',
  instIds: readonly string[] = [BTC],
  config: Partial<EngineConfig> = {},
  feeds: readonly FeedKind[] = level === 'l3' ? ['book'] : ['book', 'trades']
): void {
  driver = new Driver(kraken, { depth: 10, ...config }, undefined, KEYS)
  driver.open('a', instIds, level, null, feeds)
}

interface Asked extends Row {
  method: string
  req_id: number
  params: { channel: string; symbol: string[]; depth?: number; token?: string; snapshot?: boolean }
}

const asked = (method: string, channel?: string) =>
  driver
    .asked('a')
    .filter((each): each is Asked => typeof each === 'object' && each !== null)
    .filter(each => each.method === method && (channel === undefined || each.params.channel === channel))
const say = (text: string) => driver.in('a', text)
const ack = (channel = 'book', symbol = BTC, method = 'subscribe', depth = 10) =>
  say(
    `{"method":"${method}","result":{"channel":"${channel}","depth":${depth},"snapshot":true,"symbol":"${symbol}"},"success":true,${TIMES}}`
  )
const refuse = (error: string, more: Row = { symbol: BTC }, method = 'subscribe') =>
  say(JSON.stringify({ error, method, success: false, ...more }))
const updates = (name = BTC) => driver.sink.records('l2_updates', name)
const events = () => driver.sink.records('l3_events')
const types = () => updates().map(row => row.event_type)
const details = (event: string) => driver.sink.statuses(event).map(row => row.detail as Row)
const shots = () => driver.sink.records('l2_spot')
const messages = () => driver.requests.logs.map(({ message }) => message)
const heartbeat = () => say('{"channel":"heartbeat"}')

/** Lets time pass on a connection that is alive. */
function wait(seconds: number): void {
  for (let second = 0; second < seconds; second++) {
    heartbeat()
    driver.pass('a', 1000)
  }
}

type Entry = readonly [price: string, qty: string]
const digits = (text: string) => text.replace('.', '').replace(/^0+/, '')

/** An L2 book as the exchange has it, and what it says of it. */
class LevelVenue {
  private readonly sides: Record<'bids' | 'asks', Map<string, string>> = { bids: new Map(), asks: new Map() }
  private readonly symbol: string
  private readonly depth: number
  private count = 0

  constructor(bids: readonly Entry[], asks: readonly Entry[], symbol = BTC, depth = 10) {
    this.symbol = symbol
    this.depth = depth
    this.put(bids, asks)
  }

  private put(bids: readonly Entry[], asks: readonly Entry[]): void {
    for (const [side, entries] of [
      ['bids', bids],
      ['asks', asks]
    ] as const) {
      for (const [price, qty] of entries) {
        if (Number(qty) === 0) this.sides[side].delete(price)
        else this.sides[side].set(price, qty)
      }
      for (const [price] of this.rows(side).slice(this.depth)) this.sides[side].delete(price)
    }
  }

  rows(side: 'bids' | 'asks'): Entry[] {
    const better = side === 'asks' ? 1 : -1
    return [...this.sides[side]].sort(([a], [b]) => (Number(a) - Number(b)) * better)
  }

  get checksum(): number {
    const rows = [...this.rows('asks').slice(0, 10), ...this.rows('bids').slice(0, 10)]
    return crc32.str(rows.flat().map(digits).join('')) >>> 0
  }

  private frame(type: string, bids: readonly Entry[], asks: readonly Entry[]): string {
    const list = (entries: readonly Entry[]) => entries.map(([price, qty]) => `{"price":${price},"qty":${qty}}`).join()
    const time = `2026-07-07T23:00:04.${String(++this.count).padStart(6, '0')}Z`
    return `{"channel":"book","type":"${type}","data":[{"symbol":"${this.symbol}","bids":[${list(bids)}],"asks":[${list(asks)}],"checksum":${this.checksum},"timestamp":"${time}"}]}`
  }

  image(): string {
    return this.frame('snapshot', this.rows('bids'), this.rows('asks'))
  }

  update(bids: readonly Entry[], asks: readonly Entry[]): string {
    this.put(bids, asks)
    return this.frame('update', bids, asks)
  }
}

const BIDS: Entry[] = [
  ['63501.6', '0.63889204'],
  ['63500.9', '0.00005100']
]
const ASKS: Entry[] = [
  ['63501.9', '0.00100000'],
  ['63502.0', '1.50000000']
]
/** So many levels from a price on. */
const ladder = (from: number, step: number, count: number): Entry[] =>
  Array.from({ length: count }, (_, n) => [(from + n * step).toFixed(1), '1.00000000'])

let venue: LevelVenue

/** The same with a book that is live. */
function goLive(config: Partial<EngineConfig> = {}): void {
  connect('l2', [BTC], config)
  venue = new LevelVenue(BIDS, ASKS)
  ack()
  ack('trade')
  say(venue.image())
}

/** A level 3 book as the exchange has it: orders of a price in their queue. */
class OrderVenue {
  readonly sides: Record<'bids' | 'asks', [id: string, price: string, qty: string][]> = { bids: [], asks: [] }
  private count = 0

  get checksum(): number {
    const text = (side: 'bids' | 'asks', better: number) => {
      const prices = [...new Set(this.sides[side].map(([, price]) => price))]
      const best = prices.sort((a, b) => (Number(a) - Number(b)) * better).slice(0, 10)
      return best
        .map(best =>
          this.sides[side]
            .filter(([, price]) => price === best)
            .map(([, p, q]) => digits(p) + digits(q))
            .join('')
        )
        .join('')
    }
    return crc32.str(text('asks', 1) + text('bids', -1)) >>> 0
  }

  private time(): string {
    return `2026-07-07T23:00:04.${String(++this.count).padStart(9, '0')}Z`
  }

  image(): string {
    const list = (side: 'bids' | 'asks') =>
      this.sides[side]
        .map(
          ([id, price, qty]) =>
            `{"order_id":"${id}","limit_price":${price},"order_qty":${qty},"timestamp":"${this.time()}"}`
        )
        .join()
    return `{"channel":"level3","type":"snapshot","data":[{"symbol":"${BTC}","bids":[${list('bids')}],"asks":[${list('asks')}],"checksum":${this.checksum},"timestamp":"${this.time()}"}]}`
  }

  /** Says what happened to orders of one side; the sides themselves are changed by the caller before. */
  update(
    side: 'bids' | 'asks',
    entries: readonly (readonly [event: string, id: string, price: string, qty: string | null])[]
  ): string {
    const rows = entries.map(
      ([event, id, price, qty]) =>
        `{"event":"${event}","order_id":"${id}","limit_price":${price}${qty === null ? '' : `,"order_qty":${qty}`},"timestamp":"${this.time()}"}`
    )
    const list = (each: string) => (each === side ? rows.join() : '')
    return `{"channel":"level3","type":"update","data":[{"symbol":"${BTC}","bids":[${list('bids')}],"asks":[${list('asks')}],"checksum":${this.checksum},"timestamp":"${this.time()}"}]}`
  }
}

const TOKEN = { error: [], result: { token: 'SECRET/token+1', expires: 900 } }
let orders: OrderVenue

/** A level 3 book that is live. */
function goLive3(config: Partial<EngineConfig> = {}): void {
  connect('l3', [BTC], config)
  driver.fetched('a', 200, TOKEN)
  ack('level3')
  orders = new OrderVenue()
  orders.sides.bids = [
    ['OBBBBB-BXL4E-5WGIN1', '44939.4', '0.88968699'],
    ['OBBBBB-BXL4E-5WGIN2', '44939.4', '0.45210000'],
    ['OBBBBB-BXL4E-5WGIN3', '44937.1', '0.03346877']
  ]
  orders.sides.asks = [['OAAAAA-BXL4E-5WGIN1', '44939.5', '4.52308393']]
  say(orders.image())
}

beforeEach(() => goLive())

describe('subscribing (1)', () => {
  it('asks for books, trades and the list of instruments, and takes the snapshot', () => {
    expect(driver.asked('a')).toEqual([
      { method: 'subscribe', params: { channel: 'book', symbol: [BTC], depth: 10, snapshot: true }, req_id: 1 },
      { method: 'subscribe', params: { channel: 'trade', symbol: [BTC], snapshot: false }, req_id: 2 },
      { method: 'subscribe', params: { channel: 'instrument', snapshot: true }, req_id: 3 }
    ])
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(updates()[1]).toMatchObject({
      channel: 'book',
      bids: [
        ['63501.6', '0.63889204', '0', null],
        ['63500.9', '0.00005100', '0', null]
      ],
      seqId: null,
      prevSeqId: null,
      checksum: venue.checksum
    })
    expect(driver.requests.settledNames).toEqual(['a'])
    expect(details('subscribed')).toMatchObject([{ channel: 'book', proof: { sequence: 'none', checksum: true } }])
    expect(driver.requests.logs).toEqual([])
  })

  it.each([
    ['l2', 1, 10],
    ['l2', 10, 10],
    ['l2', 11, 25],
    ['l2', 100, 100],
    ['l2', 400, 500],
    ['l2', 501, 1000],
    ['l2', 5000, 1000],
    ['l3', 10, 10],
    ['l3', 11, 100],
    ['l3', 400, 1000],
    ['l3', 5000, 1000]
  ] as const)('%s: %i levels need the depth %i', (level, depth, wanted) => {
    connect(level, [BTC], { depth })
    if (level === 'l3') driver.fetched('a', 200, TOKEN)
    expect(asked('subscribe', level === 'l3' ? 'level3' : 'book')[0]!.params.depth).toBe(wanted)
  })

  it('puts up to 50 symbols into a message', () => {
    const names = Array.from({ length: 120 }, (_, n) => `C${n}/USD`)
    connect('l2', names)
    const books = asked('subscribe', 'book').map(({ params }) => params.symbol)
    expect(books.map(list => list.length)).toEqual([50, 50, 20])
    expect(books.flat()).toEqual(names)
    expect(asked('subscribe', 'trade').map(({ params }) => params.symbol.length)).toEqual([50, 50, 20])
  })

  it('takes a snapshot that comes before its acknowledgement, and tells of it once', () => {
    connect()
    say(venue.image())
    say(venue.update([['63501.7', '1.00000000']], []))
    ack()
    say(venue.update([['63501.8', '1.00000000']], []))
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update'])
    expect(details('subscribed')).toHaveLength(1)
    ack('trade')
    wait(15)
    expect(driver.requests.hangups).toEqual([])
    expect(details('gap')).toEqual([])
  })

  it('ignores updates before the snapshot (2), asked for or acknowledged', () => {
    connect()
    say(venue.update([['63501.7', '1.00000000']], []))
    ack()
    say(venue.update([['63501.8', '1.00000000']], []))
    expect(updates()).toEqual([])
    say(venue.image())
    expect(types()).toEqual(['clear', 'snapshot'])
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('renews a subscription whose snapshot does not come (7)', () => {
    connect()
    ack()
    wait(11)
    expect(details('resubscribed')).toEqual([{ conn: 'a', reason: 'no image', attempt: 1 }])
    expect(asked('unsubscribe')).toMatchObject([{ params: { channel: 'book', symbol: [BTC], depth: 10 } }])
    ack('book', BTC, 'unsubscribe')
    expect(asked('subscribe', 'book')).toHaveLength(2)
  })

  it('hangs up when no acknowledgement comes', () => {
    connect()
    wait(9)
    expect(driver.requests.hangups).toEqual([])
    wait(2)
    expect(driver.requests.hangups).toContainEqual({ connection: 'a', reason: 'no acknowledgement within 10000 ms' })
  })

  it('books that are renewed together are asked for together', () => {
    connect('l2', [BTC, ETH])
    for (const symbol of [BTC, ETH]) ack('book', symbol)
    for (const symbol of [BTC, ETH]) ack('trade', symbol)
    wait(11)
    expect(asked('unsubscribe').map(({ params }) => params.symbol)).toEqual([[BTC, ETH]])
  })
})

describe('refusals', () => {
  it.each([
    'Currency pair not supported BTC/USD',
    'Subscription depth not supported',
    'Currency pair not in ISO 4217-A3 format BTCUSD'
  ])('%s: final, for that symbol alone', error => {
    connect('l2', [BTC, ETH])
    refuse(error, { symbol: BTC, req_id: 1 })
    refuse(error, { symbol: BTC, req_id: 2 })
    expect(details('refused')).toEqual([
      { conn: 'a', channel: 'book', final: true, error },
      { conn: 'a', channel: 'trades', final: true, error }
    ])
    ack('book', ETH)
    ack('trade', ETH)
    say(new LevelVenue(BIDS, ASKS, ETH).image())
    expect(driver.requests.settledNames).toEqual(['a'])
    wait(590)
    expect(asked('subscribe', 'book')).toHaveLength(1)
    expect(driver.sink.statuses('refused', ETH)).toEqual([])
  })

  it('without a number, the first of the symbol that is still open is meant', () => {
    connect()
    refuse('Currency pair not supported BTC/USD')
    expect(details('refused')).toMatchObject([{ channel: 'book' }])
    refuse('Currency pair not supported BTC/USD')
    expect(details('refused')).toMatchObject([{ channel: 'book' }, { channel: 'trades' }])
  })

  it.each(['EService:Unavailable', 'Exceeded msg rate', 'EGeneral:Internal error', 'what nobody has seen yet'])(
    '%s: asked for again, with growing pauses',
    error => {
      connect()
      ack('trade')
      const pauses: number[] = []
      for (let n = 0; n < 9; n++) {
        const before = asked('subscribe', 'book')
        refuse(error, { symbol: BTC, req_id: before.at(-1)!.req_id })
        const us = driver.us
        while (asked('subscribe', 'book').length === before.length) wait(1)
        pauses.push(Math.round((driver.us - us) / 5e6) * 5)
      }
      expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 320, 600, 600])
      expect(details('refused')).toHaveLength(9)
      expect(details('refused')[0]).toMatchObject({ final: false, error })
      expect(driver.requests.hangups).toEqual([])
    }
  )

  it('a message that is refused as a whole, with and without its number', () => {
    connect('l2', [BTC, ETH])
    refuse('Exceeded msg rate', { req_id: 1 })
    expect(details('refused')).toMatchObject([{ channel: 'book' }, { channel: 'book' }])
    refuse('Exceeded msg rate', {})
    expect(details('refused').slice(2)).toMatchObject([{ channel: 'trades' }, { channel: 'trades' }])
    // One of them was under way nevertheless.
    ack('book', ETH)
    say(new LevelVenue(BIDS, ASKS, ETH).image())
    wait(8)
    expect(asked('subscribe', 'book').at(-1)!.params.symbol).toEqual([BTC])
    expect(types().length).toBe(0)
    expect(updates(ETH)).toHaveLength(2)
  })

  it('"Already subscribed" is no refusal; without a snapshot it is renewed', () => {
    connect()
    refuse('Already subscribed', { symbol: BTC, req_id: 1 })
    expect(details('refused')).toEqual([])
    expect(details('subscribed')).toHaveLength(1)
    wait(11)
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
  })

  it('an unsubscription that is refused is as good as one', () => {
    say(venue.update([], []).replace(/"bids":/, '"bidz":'))
    refuse('Subscription Not Found', { symbol: BTC, req_id: 4 }, 'unsubscribe')
    expect(asked('subscribe', 'book')).toHaveLength(2)
    expect(details('refused')).toEqual([])
  })

  it.each([{ req_id: 77 }, { symbol: 'X/Y' }, { symbol: '__proto__', req_id: 1 }, { symbol: 7 }])(
    'a refusal of %j belongs to nothing',
    more => {
      refuse('Currency pair not supported', more)
      expect(details('refused')).toEqual([])
      expect(messages()).toEqual(['Error from the exchange'])
      say(venue.update([], []))
      expect(types().at(-1)).toBe('update')
    }
  )

  it('what is answered is forgotten', () => {
    const open = () => (driver.engine.connectionState('a').session as { asked: { left: number[] }[] }).asked
    connect('l2', [BTC, ETH])
    expect(open().map(({ left }) => left)).toEqual([
      [0, 2],
      [1, 3]
    ])
    const number = (n: number, text: string) => say(text.replace('"success"', `"req_id":${n},"success"`))
    number(1, `{"method":"subscribe","result":{"channel":"book","symbol":"${BTC}"},"success":true}`)
    refuse('Currency pair not supported ETH/USD', { symbol: ETH, req_id: 1 })
    refuse('Currency pair not supported ETH/USD', { symbol: ETH, req_id: 2 })
    expect(open().map(({ left }) => left)).toEqual([[1]])
  })

  it('the list of instruments is asked for again when it was refused or nothing came', () => {
    refuse('Exceeded msg rate', { req_id: 3 })
    expect(details('refused')).toEqual([])
    wait(61)
    expect(asked('subscribe', 'instrument')).toHaveLength(2)
    say(`{"method":"subscribe","result":{"channel":"instrument","snapshot":true},"success":true,${TIMES}}`)
    wait(130)
    expect(asked('subscribe', 'instrument')).toHaveLength(2)
  })
})

describe('updates (3, 4, 5)', () => {
  /** The book that a reader has who applies the records by the table of the contract. */
  function readerBook(): [string[][], string[][]] {
    const book = { bids: new Map<number, string[]>(), asks: new Map<number, string[]>() }
    for (const row of updates()) {
      if (row.event_type === 'clear' || row.event_type === 'snapshot') {
        book.bids.clear()
        book.asks.clear()
      }
      for (const side of ['bids', 'asks'] as const) {
        for (const level of row[side] as string[][]) {
          if (Number(level[1]) === 0) book[side].delete(Number(level[0]))
          else book[side].set(Number(level[0]), level)
        }
      }
    }
    const sorted = (side: 'bids' | 'asks', better: number) =>
      [...book[side]].sort(([a], [b]) => (a - b) * better).map(([, level]) => level)
    return [sorted('bids', -1), sorted('asks', 1)]
  }

  const shown = () => {
    driver.pass('a', 2000)
    return shots().at(-1)!
  }

  it('several entries of one price count in their order', () => {
    say(
      venue.update(
        [
          ['63501.6', '0.00000000'],
          ['63501.6', '2.00000000'],
          ['63500.9', '3.00000000'],
          ['63500.9', '0.00000000']
        ],
        []
      )
    )
    expect(shown().bids_top10).toEqual([['63501.6', '2.00000000', '0', null]])
    expect(updates().at(-1)!.bids).toEqual([
      ['63501.6', '0.00000000', '0', null],
      ['63501.6', '2.00000000', '0', null],
      ['63500.9', '3.00000000', '0', null],
      ['63500.9', '0.00000000', '0', null]
    ])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('removing what is not there means nothing, and both sides may change at once', () => {
    say(venue.update([['1.0', '0.00000000']], [['63501.9', '0']]))
    expect(shown()).toMatchObject({ best_bid: '63501.6', best_ask: '63502.0', checksum: venue.checksum })
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('levels beyond the depth are cut off, and stand in the same line as removed', () => {
    connect()
    venue = new LevelVenue(ladder(100, -1, 10), ladder(101, 1, 10))
    ack()
    say(venue.image())
    say(
      venue.update(
        [
          ['100.5', '2.00000000'],
          ['99.5', '3.00000000']
        ],
        [['100.9', '4.00000000']]
      )
    )
    const line = updates().at(-1)!
    expect(line.bids).toEqual([
      ['100.5', '2.00000000', '0', null],
      ['99.5', '3.00000000', '0', null],
      ['91.0', '0', '0', null],
      ['92.0', '0', '0', null]
    ])
    expect(line.asks).toEqual([
      ['100.9', '4.00000000', '0', null],
      ['110.0', '0', '0', null]
    ])
    const shot = shown()
    expect([shot.bids_top10, shot.asks_top10]).toEqual(readerBook())
    expect((shot.bids_top10 as unknown[]).length).toBe(10)
    // A level that was cut off comes back when there is room.
    say(
      venue.update(
        [
          ['100.5', '0.00000000'],
          ['92.0', '7.00000000']
        ],
        []
      )
    )
    expect((shown().bids_top10 as string[][]).at(-1)).toEqual(['92.0', '7.00000000', '0', null])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('a snapshot that is deeper than subscribed is cut as well', () => {
    connect()
    ack()
    venue = new LevelVenue(ladder(100, -1, 10), ladder(101, 1, 12), BTC, 12)
    say(venue.image())
    expect((updates()[1]!.asks as unknown[]).length).toBe(10)
    expect(shown()).toMatchObject({ best_ask: '101.0' })
  })

  it('numbers keep the text they were sent with', () => {
    say(venue.update([['63501.60', '0.50000000']], []).replace('"qty":0.50000000', '"qty":5e-1'))
    expect(updates().at(-1)!.bids).toEqual([['63501.60', '5e-1', '0', null]])
    expect(shown()).toMatchObject({ best_bid: '63501.60' })
  })

  it('the time of the exchange is passed on', () => {
    say(venue.update([], []))
    expect(updates().at(-1)!.exchange_time).toBe('2026-07-07T23:00:04.000002Z')
    for (const time of [
      'yesterday',
      '2026-07-07T23:00:04.1234567890Z',
      '2026-07-07T23.00.04Z',
      '2026-07-0xT23:00:04Z'
    ]) {
      say(venue.update([], []).replace(/"timestamp":"[^"]*"/, `"timestamp":"${time}"`))
      expect(updates().at(-1)!.exchange_time).toBeNull()
    }
    say(venue.update([], []).replace(/"timestamp":"[^"]*"/, '"timestamp":"2026-07-07T23:00:04Z"'))
    expect(updates().at(-1)!.exchange_time).toBe('2026-07-07T23:00:04Z')
  })

  it('the same frame twice is applied once', () => {
    const frame = venue.update([['63501.7', '1.00000000']], [])
    for (let n = 0; n < 3; n++) say(frame)
    const image = venue.image()
    for (let n = 0; n < 3; n++) say(image)
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'clear', 'snapshot'])
    say(venue.update([], []))
    expect(types().at(-1)).toBe('update')
  })

  it('a random market: the records give the book of every snapshot, every checksum is right', () => {
    const random = seeded(11)
    connect()
    venue = new LevelVenue(ladder(100, -1, 10), ladder(101, 1, 10))
    ack()
    say(venue.image())
    const entry = (isAsk: boolean): Entry => {
      const price = isAsk ? 101 + Math.floor(random() * 20) : 100 - Math.floor(random() * 20)
      return [
        price.toFixed(1),
        random() < 0.3 ? '0.00000000' : `${Math.floor(random() * 9)}.${Math.floor(random() * 9)}0000000`
      ]
    }
    const some = (isAsk: boolean) => Array.from({ length: Math.floor(random() * 4) }, () => entry(isAsk))
    for (let n = 0; n < 300; n++) {
      say(venue.update(some(false), some(true)))
      const shot = shown()
      expect([shot.bids_top10, shot.asks_top10]).toEqual(readerBook())
      expect((shot.bids_top10 as string[][]).map(([price, qty]) => [price, qty])).toEqual(venue.rows('bids'))
    }
    expect(details('checksum_mismatch')).toEqual([])
    expect(details('gap')).toEqual([])
  })
})

describe('frames of another form', () => {
  it.each([
    [
      'white space',
      (text: string) =>
        JSON.stringify(JSON.parse(text), null, 1)
          .replaceAll('\n', ' ')
          .replace(/1(?=,? *\}? "qty)/, '1'),
      'msg'
    ],
    ['other order', (text: string) => text.replace(/"price":([\d.]+),"qty":([\d.]+)/g, '"qty":$2,"price":$1'), 'msg'],
    [
      'other order of members',
      (text: string) => text.replace(/^\{("channel":"book"),("type":"\w+"),(.*)\}$/, '{$3,$2,$1}'),
      'msg'
    ],
    ['other fields', (text: string) => text.replace('"data":[{', '"new":{"a":[1.50]},"data":[{"x":null,'), 'msg'],
    ['an escaped symbol', (text: string) => text.replace('BTC/USD', 'BTC\\/USD'), 'msg'],
    ['line breaks', (text: string) => text.replaceAll(',"', ',\n"'), 'text']
  ])('%s: the same record', (_, change, form) => {
    const frame = venue.update([['63501.7', '0.12345678']], [])
    const other = change(frame)
    expect(other).not.toBe(frame)
    expect(say(other)).toBe(form)
    expect(updates().at(-1)).toMatchObject({ event_type: 'update', bids: [['63501.7', '0.12345678', '0', null]] })
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('sizes with many digits and numbers with exponents', () => {
    say(venue.update([['63501.7', '12345678901.12345678']], []))
    say(venue.update([['63501.8', '0.00001000']], []).replace('"qty":0.00001000', '"qty":1000e-08'))
    expect(details('checksum_mismatch')).toEqual([])
    expect(
      updates()
        .slice(-2)
        .map(row => row.bids)
    ).toEqual([[['63501.7', '12345678901.12345678', '0', null]], [['63501.8', '1000e-08', '0', null]]])
  })

  it('several symbols in one frame are each applied', () => {
    connect('l2', [BTC, ETH])
    const [one, other] = [new LevelVenue(BIDS, ASKS), new LevelVenue(BIDS, ASKS, ETH)]
    const joined = (a: string, b: string) => a.replace(/\]\}$/, `,${/"data":\[(.*)\]\}$/.exec(b)![1]}]}`)
    for (const symbol of [BTC, ETH]) ack('book', symbol)
    say(joined(one.image(), other.image()))
    say(joined(one.update([], [['63502.1', '1.00000000']]), other.update([['63501.7', '2.00000000']], [])))
    expect(types()).toEqual(['clear', 'snapshot', 'update'])
    expect(updates(ETH)).toHaveLength(3)
    // Of two parts of one frame one cannot be read: neither is applied, and both have lost something.
    say(joined(one.update([], []), other.update([], [])).replace(/"asks"(?!.*"asks")/, '"askz"'))
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'gap'])
    expect(updates(ETH).map(row => row.event_type)).toEqual(['clear', 'snapshot', 'update', 'gap'])
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }, { reason: 'build_fail' }])
  })

  it('two parts for one symbol are both applied', () => {
    const [a, b] = [venue.update([['63501.7', '1.00000000']], []), venue.update([['63501.8', '1.00000000']], [])]
    const frame = a.replace(/\]\}$/, `,${/"data":\[(.*)\]\}$/.exec(b)![1]}]}`)
    say(frame)
    expect(types()).toEqual(['clear', 'snapshot', 'update', 'update'])
  })

  it.each([
    ['no bids', (text: string) => text.replace('"bids"', '"bidz"')],
    ['bids are null', (text: string) => text.replace(/"bids":\[[^\]]*\]/, '"bids":null')],
    ['a negative size', (text: string) => text.replace('0.12345678', '-0.12345678')],
    ['a size that is no number', (text: string) => text.replace('0.12345678', '"x"')],
    ['a size too large', (text: string) => text.replace('0.12345678', '1e40')],
    ['a size of too many digits', (text: string) => text.replace('0.12345678', '12345678901234.5')],
    ['a size of too many decimals', (text: string) => text.replace('0.12345678', `0.${'1'.repeat(19)}`)],
    ['no size', (text: string) => text.replace(',"qty":0.12345678', '')],
    ['a price that is no number', (text: string) => text.replace('63501.7', 'true')],
    ['a price of too many digits', (text: string) => text.replace('63501.7', '1234567.8901234567')],
    ['a level that is an array', (text: string) => text.replace(/"bids":\[\{[^}]*\}/, '"bids":[[1,2]')],
    ['a checksum that is none', (text: string) => text.replace(/"checksum":\d+/, '"checksum":-1')],
    ['a checksum too large', (text: string) => text.replace(/"checksum":\d+/, '"checksum":4294967296')],
    ['an unknown type', (text: string) => text.replace('"update"', '"delta"')]
  ])('%s: kept, and a gap', (_, change) => {
    const frame = venue.update([['63501.7', '0.12345678']], [])
    const other = change(frame)
    expect(other).not.toBe(frame)
    say(other)
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(types()).toEqual(['clear', 'snapshot', 'gap'])
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
  })

  it('a checksum that is absent or 0 is not provided', () => {
    say(venue.update([], []).replace(/"checksum":\d+,/, ''))
    say(venue.update([], []).replace(/"checksum":\d+,/, '"checksum":0,'))
    expect(
      updates()
        .slice(-2)
        .map(row => row.checksum)
    ).toEqual([null, 0])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it.each([
    'not JSON',
    '{"channel":',
    '[]',
    'null',
    '7',
    '{}',
    '{"channel":"book"}',
    '{"channel":"book","type":"update","data":[]}',
    '{"channel":"book","type":"update","data":[null]}',
    '{"channel":"book","type":"update","data":[{"symbol":"__proto__","bids":[],"asks":[]}]}',
    '{"channel":"book","type":"update","data":[{"symbol":"XRP/USD","bids":[],"asks":[],"checksum":1}]}',
    '{"channel":"ohlc","type":"update","data":[{"symbol":"BTC/USD"}]}',
    '{"channel":"instrument","type":"update","data":null}',
    '{"channel":"status","type":"update","data":7}',
    '{"method":"pong","req_id":1}',
    '['.repeat(200)
  ])('%s costs no book', text => {
    say(text)
    expect(details('gap')).toEqual([])
    say(venue.update([], []))
    expect(types().at(-1)).toBe('update')
  })
})

describe('checksums (6, 7)', () => {
  const wrong = () =>
    say(venue.update([], []).replace(/"checksum":(\d+)/, (_, n) => `"checksum":${(Number(n) ^ 1) >>> 0}`))

  it('are verified on the snapshot and on every update', () => {
    connect()
    ack()
    say(venue.image().replace(/"checksum":\d+/, '"checksum":1'))
    wrong()
    expect(details('checksum_mismatch')).toMatchObject([
      { expected: 1, computed: venue.checksum, in_row: 1 },
      { computed: venue.checksum, in_row: 2 }
    ])
  })

  it('three wrong ones in a row renew the book, once; what still comes is ignored until the snapshot', () => {
    for (let n = 0; n < 3; n++) wrong()
    expect(details('gap')).toMatchObject([{ reason: 'checksum' }])
    expect(asked('unsubscribe', 'book')).toMatchObject([{ params: { channel: 'book', symbol: [BTC], depth: 10 } }])
    expect(shots().at(-1)).toMatchObject({ gap_detected: true })
    // Frames of the old subscription, a snapshot among them.
    wrong()
    say(venue.image())
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
    ack('book', BTC, 'unsubscribe')
    expect(asked('subscribe', 'book')).toHaveLength(2)
    wrong()
    ack()
    wrong()
    expect(types().at(-1)).toBe('gap')
    say(venue.image())
    say(venue.update([['63501.7', '1.00000000']], []))
    expect(types().slice(-3)).toEqual(['clear', 'snapshot', 'update'])
    expect(details('synced').at(-1)).toHaveProperty('down_ms')
    expect(details('gap')).toHaveLength(1)
  })

  it('a lost update shows', () => {
    venue.update([['63501.7', '1.00000000']], [])
    say(venue.update([], []))
    expect(details('checksum_mismatch')).toHaveLength(1)
  })

  it('renewals that follow one another wait longer and longer', () => {
    const gone: number[] = []
    for (let n = 0; n < 6; n++) {
      const us = driver.us
      for (let m = 0; m < 3; m++) wrong()
      ack('book', BTC, 'unsubscribe')
      while (asked('subscribe', 'book').length < n + 2) wait(1)
      gone.push(Math.round((driver.us - us) / 1e6))
      ack()
      say(venue.image())
    }
    expect(gone).toEqual([0, 0, 0, 2, 4, 8])
  })
})

describe('trades', () => {
  const trade = (id: number | string, second = 4, more = '') =>
    `{"symbol":"BTC/USD","side":"sell","price":63501.60,"qty":0.00185211,"ord_type":"limit","trade_id":${id},"timestamp":"2026-07-07T23:00:${String(second).padStart(2, '0')}.590753Z"${more}}`
  const tell = (...rows: string[]) => say(`{"channel":"trade","type":"update","data":[${rows.join()}]}`)
  const written = () => driver.sink.records('trades').map(row => row.trade_id)
  const gaps = () => details('gap').map(({ expected, received }) => [expected, received])
  const since = (at = -1) => /since=(\d+)/.exec(driver.fetches('a').at(at)!)![1]
  /** `since` of a moment of the trades above, in nanoseconds. */
  const moment = (second: number, us = 590_753) =>
    `${Date.UTC(2026, 6, 7, 23, 0, second) / 1000}${String(us).padStart(6, '0')}000`
  const row = (id: number) => ['63501.60000', '0.5', 1783465204.5907531, id % 2 ? 'b' : 's', 'm', '', id]
  const history = (...ids: number[]) => ({
    error: [],
    result: { XXBTZUSD: ids.map(row), last: `17834652${ids.at(-1)}00000000` }
  })

  it("are written once, with the taker's side and the text as sent", () => {
    tell(trade(103436768), trade(103436769).replace('"sell"', '"buy"'))
    tell(trade(103436769))
    expect(driver.sink.records('trades')).toMatchObject([
      {
        trade_id: '103436768',
        side: 'sell',
        price: '63501.60',
        size: '0.00185211',
        exchange_time: '2026-07-07T23:00:04.590753Z',
        metadata: { ord_type: 'limit' }
      },
      { trade_id: '103436769', side: 'buy' }
    ])
    expect(driver.requests.fetches).toEqual([])
  })

  it('a snapshot of them, never asked for, is history', () => {
    say(`{"channel":"trade","type":"snapshot","data":[${trade(5)},${trade(9)}]}`)
    expect(driver.sink.records('trades')[0]!.metadata).toEqual({ backfill: true, ord_type: 'limit' })
    expect(driver.requests.fetches).toEqual([])
  })

  it.each([
    ['no id', trade('null')],
    ['an id that is none', trade('"x"')],
    ['a broken id', trade('1.5')],
    ['no side', trade(5).replace('"sell"', '"hold"')],
    ['a negative size', trade(5).replace('0.00185211', '-1')],
    ['no price', trade(5).replace('63501.60', 'null')]
  ])('%s: kept, and the book is not lost', (_, text) => {
    tell(text)
    expect(written()).toEqual([])
    expect(messages()).toEqual(['BUILD_FAIL: Missing required fields'])
    expect(details('gap')).toEqual([])
  })

  it('of symbols that nobody asked for are left alone', () => {
    tell(trade(5).replace('BTC/USD', 'XRP/USD'), trade(6).replace('"BTC/USD"', '7'))
    expect(written()).toEqual([])
    expect(messages()).toEqual([])
  })

  it('that are missing are asked for from the last one seen on', () => {
    tell(trade(10, 4))
    tell(trade(14, 9))
    expect(driver.fetches('a')).toEqual([`/0/public/Trades?pair=XBTUSD&since=${moment(4, 590_752)}&count=1000`])
    driver.fetched('a', 200, history(10, 11, 12, 13, 14))
    expect(written()).toEqual(['10', '14', '11', '12', '13'])
    expect(driver.sink.records('trades')[2]).toMatchObject({
      side: 'buy',
      price: '63501.60000',
      exchange_time: '2026-07-07T23:00:04.590753Z',
      metadata: { backfill: true, ord_type: 'market' }
    })
    expect(gaps()).toEqual([])
    expect((driver.engine.connectionState('a').session as { trades: Row }).trades.pages).toEqual({})
  })

  it('come page by page, each asked for from the end of the one before', () => {
    tell(trade(10))
    tell(trade(14))
    driver.fetched('a', 200, history(11, 12))
    expect(since()).toBe('178346521200000000')
    driver.fetched('a', 200, history(13, 14))
    expect(written()).toEqual(['10', '14', '11', '12', '13'])
  })

  it('of what passed before this connection the time is guessed, further and further back', () => {
    tell(trade(10))
    driver.close('a', 'lost')
    driver.open('a', [BTC], 'l2')
    tell(trade(20, 30))
    const end = BigInt(moment(30))
    expect(BigInt(since()!)).toBe(end - 60_000_000_000n)
    driver.fetched('a', 200, history(18, 19, 20))
    expect(written()).toEqual(['10', '20'])
    wait(3)
    expect(BigInt(since()!)).toBe(end - 240_000_000_000n)
    driver.fetched('a', 200, { error: [], result: { XXBTZUSD: [], last: '1' } })
    wait(3)
    expect(BigInt(since()!)).toBe(end - 960_000_000_000n)
    // Too early now: the pages before the hole are gone through, however many they are.
    for (let n = 0; n < 7; n++) {
      driver.fetched('a', 200, history(n, n + 1))
      wait(3)
      expect(since()).toBe(`17834652${n + 1}00000000`)
    }
    driver.fetched('a', 200, history(8, 9, 10, 11, 12))
    expect(since()).toBe('178346521200000000')
    // From here on what the history does not have is missing.
    driver.fetched('a', 200, history(14, 15, 16, 17, 18, 19, 20))
    expect(written()).toEqual(['10', '20', ...[11, 12, 14, 15, 16, 17, 18, 19].map(String)])
    expect(gaps().filter(([expected]) => expected !== null)).toEqual([[13, 14]])
  })

  it.each(['2026-99-07T23:00:04.590753Z', '1969-07-07T23:00:04Z', 'yesterday'])(
    'of the time %s no hole is asked for',
    time => {
      const at = (id: number) => tell(trade(id).replace(/"timestamp":"[^"]*"/, `"timestamp":"${time}"`))
      tell(trade(10))
      at(11)
      at(14)
      expect(driver.fetches('a')).toEqual([expect.stringContaining(`since=${moment(4, 590_752)}&`)])
      driver.fetched('a', 200, history(11, 12, 13))
      driver.close('a', 'lost')
      driver.open('a', [BTC], 'l2')
      at(20)
      expect(since()).toBe(String((BigInt(driver.us) - 60_000_000n) * 1000n))
      driver.fetched('a', 200, history(18))
      expect(messages()).not.toContain('Assertion failed in a session')
    }
  )

  it('the search for the start ends', () => {
    tell(trade(10))
    driver.close('a', 'lost')
    driver.open('a', [BTC], 'l2')
    tell(trade(20, 30))
    for (let n = 0; n < 100; n++) {
      driver.fetched('a', 200, history(19, 20))
      wait(3)
    }
    expect(driver.fetches('a').length).toBeLessThan(60)
    expect(gaps()).toContainEqual([11, 20])
    expect(since()).toBe('0')
  })

  it.each([
    ['500', 500, {}],
    ['no answer', 0, undefined],
    ['an error', 200, { error: ['EGeneral:Internal error'] }],
    ['no rows', 200, { error: [], result: { last: '5' } }],
    ['rows of another form', 200, { error: [], result: { XXBTZUSD: [[1, 2]], last: '5' } }],
    [
      'a row that is no trade',
      200,
      { error: [], result: { XXBTZUSD: [[...row(11).slice(0, 3), 'x', 'm', '', 11]], last: '5' } }
    ],
    ['an id that is no number', 200, { error: [], result: { XXBTZUSD: [[...row(11).slice(0, 6), '11']], last: '5' } }]
  ])('%s: tried again, then told', (_, status, value) => {
    tell(trade(10))
    tell(trade(14))
    for (let n = 0; n < 5; n++) {
      expect(driver.fetches('a')).toHaveLength(n + 1)
      driver.fetched('a', status, value)
      wait(3)
    }
    expect(driver.fetches('a')).toHaveLength(5)
    expect(gaps()).toEqual([[11, 14]])
    expect(written()).toEqual(['10', '14'])
  })

  it('ids that the history does not have are told', () => {
    tell(trade(10))
    tell(trade(14))
    driver.fetched('a', 200, history(10, 11, 13))
    expect(gaps()).toEqual([[12, 13]])
    expect(written()).toEqual(['10', '14', '11', '13'])
  })
})

describe('metadata', () => {
  const PAIR =
    '{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,"qty_increment":0.00000001,"price_precision":1,' +
    '"cost_precision":5,"cost_min":0.50,"tick_size":0.1,"price_increment":0.1,"qty_min":0.00005000}'
  const tell = (...pairs: string[]) =>
    say(`{"channel":"instrument","type":"update","data":{"assets":[],"pairs":[${pairs.join()}]}}`)
  const infos = () => driver.requests.infos

  it('is told for our instruments, and only when something has changed', () => {
    const other = PAIR.replace('BTC/USD', 'XRP/USD')
    tell(other, PAIR)
    tell(other, PAIR)
    expect(infos()).toMatchObject([
      {
        exchange: 'kraken',
        instId: BTC,
        market: 'spot',
        base: 'BTC',
        quote: 'USD',
        settleCcy: 'USD',
        contractValue: null,
        tickSize: '0.1',
        lotSize: '0.00000001',
        minSize: '0.00005000',
        minNotional: '0.50',
        status: 'online',
        raw: JSON.parse(PAIR)
      }
    ])
    tell(PAIR.replace('online', 'cancel_only'))
    expect(infos()[1]).toMatchObject({ status: 'cancel_only' })
    expect(infos()).toHaveLength(2)
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['price_precision', '1/8', '2/8'],
    ['qty_precision', '1/8', '1/9']
  ])('a change of %s renews the book at once', (field, before, after) => {
    tell(PAIR)
    const [, value = ''] = new RegExp(`"${field}":(\\d)`).exec(PAIR)!
    tell(PAIR.replace(`"${field}":${value}`, `"${field}":${Number(value) + 1}`))
    expect(details('gap')).toMatchObject([{ reason: 'precision', expected: before, received: after }])
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
    expect(details('resubscribed')).toMatchObject([{ reason: 'precision', attempt: 1 }])
    tell(PAIR)
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
    ack('book', BTC, 'unsubscribe')
    ack()
    say(venue.image())
    expect(types().at(-1)).toBe('snapshot')
  })

  it('renews a book whose snapshot is under way, too', () => {
    connect()
    tell(PAIR)
    ack()
    tell(PAIR.replace('"price_precision":1', '"price_precision":3'))
    expect(asked('unsubscribe', 'book')).toHaveLength(1)
  })

  it.each([
    '{}',
    '{"pairs":null}',
    '{"pairs":[null,7,{"symbol":7},{"symbol":"__proto__"},{"symbol":""}]}',
    'null',
    '[]'
  ])('a list of another form (%s) changes nothing', data => {
    say(`{"channel":"instrument","type":"update","data":${data}}`)
    tell('{"symbol":"BTC/USD","price_precision":{},"status":5}')
    expect(infos()).toMatchObject([{ instId: BTC, tickSize: null, status: '5' }])
    expect(details('gap')).toEqual([])
  })

  it('REST: names, dark pools, units', () => {
    const pair = (altname: string, wsname: string | undefined, more = {}) => ({
      altname,
      wsname,
      base: 'XXBT',
      quote: 'ZUSD',
      pair_decimals: 1,
      lot_decimals: 8,
      lot_multiplier: 1,
      ordermin: '0.0001',
      costmin: '0.5',
      tick_size: '0.1',
      status: 'online',
      ...more
    })
    const result = {
      XXBTZUSD: pair('XBTUSD', 'XBT/USD'),
      'XXBTZUSD.d': pair('XBTUSD.d', undefined),
      'XETHXXBT.d': pair('ETHXBT', 'ETH/XBT.d'),
      'XXBTZEUR.d': pair('XBTEUR.d', 'XBT/EUR'),
      XDGUSD: pair('XDGUSD', 'XDG/USD', { lot_decimals: 0, tick_size: null, pair_decimals: 7 }),
      XETHXXBT: pair('ETHXBT', 'ETH/XBT')
    }
    const list = readKrakenCatalogue.read([{ error: [], result }])
    expect(list.map(({ instId }) => instId)).toEqual([BTC, 'DOGE/USD', 'ETH/BTC'])
    expect(list[0]).toEqual({
      exchange: 'kraken',
      instId: BTC,
      market: 'spot',
      base: 'BTC',
      quote: 'USD',
      settleCcy: 'USD',
      contractValue: null,
      contractValueCcy: null,
      multiplier: null,
      tickSize: '0.1',
      lotSize: '0.00000001',
      minSize: '0.0001',
      minNotional: '0.5',
      status: 'online',
      raw: result.XXBTZUSD
    })
    expect(list[1]).toMatchObject({ lotSize: '1', tickSize: '0.0000001' })
  })

  it('REST: which paths, and what an error means', () => {
    expect(readKrakenCatalogue.paths([])).toEqual(['/0/public/AssetPairs'])
    expect(readKrakenCatalogue.paths([BTC, 'DOGE/USDT'])).toEqual(['/0/public/AssetPairs?pair=XBTUSD,XDGUSDT'])
    expect(readKrakenCatalogue.read([{ error: ['EQuery:Unknown asset pair'] }])).toEqual([])
    expect(() => readKrakenCatalogue.read([{ error: ['EService:Unavailable'] }])).toThrow('EService:Unavailable')
    for (const answer of [undefined, null, [], {}, { error: [], result: [] }])
      expect(() => readKrakenCatalogue.read([answer])).toThrow(TypeError)
  })

  it.each([
    ['BTC/USD', BTC],
    ['XBTUSD', BTC],
    ['XXBTZUSD', BTC],
    ['BTCUSD', BTC],
    ['BTC-USD', BTC],
    ['btc_usd', BTC],
    ['xbt/usd', BTC],
    ['XBT:USD', BTC],
    ['XDGUSD', 'DOGE/USD'],
    ['XXDGZUSD', 'DOGE/USD'],
    ['doge/xbt', 'DOGE/BTC'],
    ['XETHXXBT', 'ETH/BTC'],
    ['ETHUSDT', 'ETH/USDT'],
    ['SOLPYUSD', 'SOL/PYUSD'],
    ['XTZXBT', 'XTZ/BTC'],
    ['XRPUSD', 'XRP/USD'],
    ['DOTUSD', 'DOT/USD'],
    ['USDCUSD', 'USDC/USD'],
    ['FOO', 'FOO'],
    ['USD', 'USD']
  ])('%s is %s', (symbol, name) => {
    expect(spellKraken(symbol)).toBe(name)
    expect(kraken.spell(name)).toBe(name)
  })
})

describe('the exchange itself', () => {
  const status = (system: string) =>
    say(
      `{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"${system}","api_version":"v2","connection_id":4421894013101914413}]}`
    )

  it('tells of maintenance and what else is not online, once each', () => {
    for (const system of ['online', 'maintenance', 'maintenance', 'cancel_only', 'online', 'online']) status(system)
    expect(details('maintenance').map(({ system }) => system)).toEqual(['maintenance', 'cancel_only', 'online'])
    connect()
    status('post_only')
    expect(details('maintenance')).toEqual([{ conn: 'a', system: 'post_only' }])
  })

  it('silence in a maintenance is no stall, and counts anew after it', () => {
    status('maintenance')
    wait(400)
    status('online')
    wait(170)
    expect(asked('unsubscribe')).toEqual([])
    wait(20)
    expect(asked('unsubscribe').map(({ params }) => params.channel)).toEqual(['book'])
    expect(details('stalled')).toEqual([])
  })

  it('heartbeats prove the connection, not the book: another image tells that it was mute, once', () => {
    wait(179)
    expect(asked('unsubscribe')).toEqual([])
    wait(5)
    expect(asked('unsubscribe').map(({ params }) => params.channel)).toEqual(['book'])
    expect(asked('ping')).toEqual([])
    // Until the image says what the silence meant.
    expect(details('gap')).toEqual([])
    venue.update([['63501.6', '7.00000000']], [])
    ack('book', BTC, 'unsubscribe')
    ack()
    say(venue.image())
    expect(details('stalled')).toEqual([{ conn: 'a', channel: 'book', silent_ms: 180_000 }])
    expect(details('gap')).toMatchObject([{ reason: 'silence' }])
    expect(details('resubscribed')).toMatchObject([{ reason: 'silence' }])
    expect(details('synced')).toHaveLength(2)
    expect(driver.sink.statuses('synced').at(-1)).toMatchObject({ detail: { down_ms: 0 } })
  })

  it('the same image again: the market was quiet, and its book goes on from it', () => {
    for (let hours = 0; hours < 3; hours++) {
      wait(181)
      ack('book', BTC, 'unsubscribe')
      ack()
      say(venue.image())
      for (const event of ['stalled', 'gap', 'resubscribed', 'checksum_mismatch']) expect(details(event)).toEqual([])
      expect(details('synced')).toHaveLength(hours + 2)
    }
    say(venue.update([['63501.6', '7.00000000']], []))
    expect(driver.sink.records('l2_updates').at(-1)).toMatchObject({ event_type: 'update' })
  })

  it('an update on its way while the book is looked at again is applied', () => {
    wait(181)
    say(venue.update([['63501.6', '7.00000000']], []))
    ack('book', BTC, 'unsubscribe')
    ack()
    say(venue.image())
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it.each(['Too many requests', 'Subscription depth not supported'])(
    'refused while it is looked at again (%s): a gap',
    error => {
      wait(181)
      ack('book', BTC, 'unsubscribe')
      const { req_id } = asked('subscribe').at(-1)!
      say(JSON.stringify({ error, method: 'subscribe', req_id, success: false, symbol: BTC }))
      expect(details('gap')).toMatchObject([{ reason: 'refused' }])
      expect(details('refused')).toHaveLength(1)
    }
  )

  it('another limit of silence can be set; trades may be silent for ever', () => {
    goLive({ silenceMs: 5000 })
    for (let n = 0; n < 100; n++) {
      wait(4)
      say(venue.update([['63501.6', `${n + 1}.00000000`]], []))
    }
    expect(asked('unsubscribe')).toEqual([])
    wait(6)
    expect(asked('unsubscribe')).toHaveLength(1)
  })

  it('asks for a sign of life after a time of quiet, and hangs up without one', () => {
    driver.pass('a', 10_000)
    expect(asked('ping')).toEqual([])
    driver.pass('a', 1000)
    expect(asked('ping')).toMatchObject([{ req_id: 4 }])
    say('{"method":"pong","req_id":4,"time_in":"2026-07-07T23:00:03.501510Z","time_out":"2026-07-07T23:00:03.501553Z"}')
    driver.pass('a', 11_000)
    expect(asked('ping')).toHaveLength(2)
    driver.pass('a', 9000)
    expect(driver.requests.hangups).toEqual([])
    driver.pass('a', 3000)
    expect(driver.requests.hangups[0]?.reason).toContain('ping')
  })

  it('what it is, and where', () => {
    const selection = { level: 'l2', market: null, channel: null, updateSpeed: null } as const
    expect(kraken.describe(BTC, selection)).toEqual({
      exchange: 'kraken',
      instId: BTC,
      market: 'spot',
      level: 'l2',
      channel: 'book'
    })
    expect(kraken.describe(BTC, { ...selection, level: 'l3' })).toMatchObject({ level: 'l3', channel: 'level3' })
    expect(kraken.endpoints(selection)).toMatchObject({
      restUrl: 'https://api.kraken.com',
      routes: [{ url: 'wss://ws.kraken.com/v2', feeds: ['book', 'trades'] }]
    })
    expect(kraken.endpoints({ ...selection, level: 'l3' }).routes).toMatchObject([
      { url: 'wss://ws-l3.kraken.com/v2', feeds: ['book'] },
      { url: 'wss://ws.kraken.com/v2', feeds: ['trades'] }
    ])
    expect(kraken.credentials).toEqual({ levels: ['l3'], variables: ['KRAKEN_API_KEY', 'KRAKEN_API_SECRET'] })
    expect([
      kraken.depthMax(kraken.describe(BTC, selection)),
      kraken.depthMax(kraken.describe(BTC, { ...selection, level: 'l3' }))
    ]).toEqual([1000, Number.POSITIVE_INFINITY])
  })
})

describe('the token of level 3 (1)', () => {
  const subscribed = () => asked('subscribe', 'level3')
  const tokens = () => driver.fetches('a').length

  it('is got by a signed request before anything is asked for', () => {
    connect('l3')
    expect(driver.asked('a')).toEqual([])
    const [fetch] = driver.requests.fetches
    const nonce = String(driver.us)
    expect(fetch!.request).toMatchObject({
      path: '/0/private/GetWebSocketsToken',
      post: {
        body: `nonce=${nonce}`,
        headers: {
          'Content-Type': 'application/x-www-form-urlencoded',
          'API-Key': KEYS.key,
          'API-Sign': krakenSignature(KEYS.secret, '/0/private/GetWebSocketsToken', nonce, `nonce=${nonce}`)
        }
      }
    })
    driver.fetched('a', 200, TOKEN)
    expect(driver.asked('a')).toEqual([
      {
        method: 'subscribe',
        params: { channel: 'level3', symbol: [BTC], depth: 10, snapshot: true, token: 'SECRET/token+1' },
        req_id: 1
      }
    ])
  })

  it('is written nowhere', () => {
    goLive3()
    driver.pass('a', 2000)
    const { request } = driver.requests.fetches[0]!
    expect(request.hide!(JSON.stringify(TOKEN))).toBe('{"error":[],"result":{"token":"***","expires":900}}')
    const recorded = driver.requests.sent.map(each => each.recorded)
    expect(JSON.parse(recorded[0]!)).toMatchObject({ params: { token: '***' } })
    const state = JSON.stringify(driver.engine.connectionState('a'))
    for (const text of [...recorded, state, driver.sink.text(), JSON.stringify(driver.requests.logs)]) {
      for (const secret of ['SECRET', KEYS.key, KEYS.secret, 'the-secret']) expect(text).not.toContain(secret)
    }
  })

  it.each([
    ['{ "result" : { "token" : "a\\"b" } }', '{ "result" : { "token" : "***" } }'],
    ['{"token":"a","x":1,"token":"b"}', '{"token":"***","x":1,"token":"***"}'],
    ['{"result":{"token":"cut', '{"result":{"token":"***"'],
    ['{"error":["EAPI:Invalid key"]}', '{"error":["EAPI:Invalid key"]}']
  ])('%s is recorded as %s', (answer, recorded) => {
    expect(hideToken(answer)).toBe(recorded)
  })

  it('is used again for 14 minutes, and got anew after them; leaving needs it, too', () => {
    goLive3()
    const lose = () => {
      say('{"channel":"level3","type":"update","data":[{"symbol":"BTC/USD"}]}')
      ack('level3', BTC, 'unsubscribe')
    }
    const heal = () => {
      ack('level3')
      say(orders.image())
    }
    lose()
    expect(asked('unsubscribe')).toMatchObject([
      { params: { channel: 'level3', symbol: [BTC], depth: 10, token: 'SECRET/token+1' } }
    ])
    expect(subscribed()).toHaveLength(2)
    expect(tokens()).toBe(1)
    heal()
    for (let minute = 0; minute < 14; minute++) {
      wait(60)
      say(orders.update('bids', []))
    }
    say('{"channel":"level3","type":"update","data":[{"symbol":"BTC/USD"}]}')
    expect(asked('unsubscribe')).toHaveLength(1)
    expect(tokens()).toBe(2)
    // However long the token takes, nothing is overdue.
    wait(20)
    expect(driver.requests.hangups).toEqual([])
    driver.fetched('a', 200, { error: [], result: { token: 'second', expires: 900 } })
    expect(asked('unsubscribe').at(-1)).toMatchObject({ params: { token: 'second' } })
    ack('level3', BTC, 'unsubscribe')
    heal()
    expect(tokens()).toBe(2)
    expect(events().at(-1)).toMatchObject({ event_type: 'snapshot' })
  })

  it('is as old as the request for it', () => {
    connect('l3')
    wait(50)
    driver.fetched('a', 200, TOKEN)
    ack('level3')
    say(orders.image())
    for (let n = 0; n < 26; n++) {
      wait(30)
      say(orders.update('bids', []))
    }
    expect(tokens()).toBe(1)
    wait(15)
    say('{"channel":"level3","type":"update","data":[{"symbol":"BTC/USD"}]}')
    expect(tokens()).toBe(2)
  })

  it.each([
    ['a wrong key', 200, { error: ['EAPI:Invalid key'] }],
    ['no permission', 200, { error: ['EGeneral:Permission denied'] }],
    ['no answer', 0, undefined],
    ['500', 500, 'x'],
    ['another form', 200, { error: [{ toString: 1 }], result: { token: 5 } }],
    ['an empty token', 200, { error: [], result: { token: '' } }]
  ])('%s: loud, and asked for again with growing pauses', (_, status, value) => {
    connect('l3', [BTC, ETH])
    const pauses: number[] = []
    for (let n = 0; n < 8; n++) {
      driver.fetched('a', status, value)
      const us = driver.us
      while (tokens() < n + 2) wait(1)
      pauses.push(Math.round((driver.us - us) / 5e6) * 5)
    }
    expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 320, 600])
    expect(driver.sink.statuses('refused', BTC)).toHaveLength(8)
    expect(details('refused')[0]).toMatchObject({
      channel: 'book',
      final: false,
      error: expect.stringContaining(`status ${status}`)
    })
    expect(driver.requests.logs.filter(({ level }) => level === 'error')).toHaveLength(16)
    expect(driver.requests.hangups).toEqual([])
    driver.fetched('a', 200, TOKEN)
    // Both are asked for in one message.
    expect(subscribed().map(({ params }) => params.symbol)).toEqual([[BTC, ETH]])
  })

  it('an answer that does not come is waited for a minute', () => {
    connect('l3')
    wait(59)
    expect(details('refused')).toEqual([])
    wait(2)
    expect(details('refused')).toMatchObject([{ error: 'no WebSocket token: no answer' }])
    expect(driver.requests.hangups).toEqual([])
    driver.fetched('a', 200, TOKEN)
    expect(subscribed()).toEqual([])
    wait(6)
    expect(tokens()).toBe(2)
    driver.fetched('a', 200, TOKEN)
    expect(subscribed()).toHaveLength(1)
  })

  it('what waits for its token cannot be refused', () => {
    connect('l3')
    refuse('Exceeded msg rate', {})
    expect(details('refused')).toEqual([])
    driver.fetched('a', 200, TOKEN)
    expect(subscribed()).toHaveLength(1)
  })

  it('a token that the exchange does not take is not used again', () => {
    connect('l3')
    driver.fetched('a', 200, TOKEN)
    refuse('ESession:Invalid session', { req_id: 1 })
    expect(details('refused')).toMatchObject([{ final: false, error: 'ESession:Invalid session' }])
    wait(6)
    expect(tokens()).toBe(2)
    driver.fetched('a', 200, { error: [], result: { token: 'second' } })
    expect(subscribed().at(-1)).toMatchObject({ params: { token: 'second' } })
    // One that was only too fast is.
    refuse('Exceeded msg rate', { req_id: 2, symbol: BTC })
    wait(11)
    expect(tokens()).toBe(2)
    expect(subscribed()).toHaveLength(3)
  })

  it('no more is subscribed in a second than may be', () => {
    const names = Array.from({ length: 7 }, (_, n) => `C${n}/USD`)
    connect('l3', names, { depth: 400 })
    driver.fetched('a', 200, TOKEN)
    const sizes = () => subscribed().map(({ params }) => params.symbol.length)
    expect(sizes()).toEqual([2])
    driver.pass('a', 1000)
    expect(sizes()).toEqual([2])
    driver.pass('a', 1000)
    expect(sizes()).toEqual([2, 2])
    for (const name of names) ack('level3', name)
    wait(8)
    expect(sizes()).toEqual([2, 2, 2, 1])
    expect(subscribed().flatMap(({ params }) => params.symbol)).toEqual(names)
    expect(driver.requests.hangups).toEqual([])
    connect(
      'l3',
      Array.from({ length: 50 }, (_, n) => `C${n}/USD`),
      { depth: 10 }
    )
    driver.fetched('a', 200, TOKEN)
    expect(sizes()).toEqual([40])
  })

  it('the signature is the published one', () => {
    const secret = 'kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=='
    const body = 'nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25'
    expect(krakenSignature(secret, '/0/private/AddOrder', '1616492376594', body)).toBe(
      '4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=='
    )
  })

  it('without a book, the connection serves trades and the list of instruments', () => {
    connect('l3', [BTC], {}, ['trades'])
    expect(driver.asked('a')).toMatchObject([
      { method: 'subscribe', params: { channel: 'trade', symbol: [BTC], snapshot: false } },
      { method: 'subscribe', params: { channel: 'instrument' } }
    ])
    expect(tokens()).toBe(0)
    expect(driver.requests.settledNames).toEqual([])
    ack('trade')
    expect(driver.requests.settledNames).toEqual(['a'])
    wait(300)
    expect(driver.requests.hangups).toEqual([])
    connect('l3')
    expect(driver.asked('a')).toEqual([])
  })
})

describe('level 3', () => {
  const B1 = 'OBBBBB-BXL4E-5WGIN1'
  const B2 = 'OBBBBB-BXL4E-5WGIN2'
  const B3 = 'OBBBBB-BXL4E-5WGIN3'
  const A1 = 'OAAAAA-BXL4E-5WGIN1'
  const last = (count: number) => events().slice(-count)
  const queue = (price: string) => {
    const found: string[] = []
    const [keeper] = (
      driver.engine.connectionState('a') as unknown as { keepers: { book: { bids: string[][]; asks: string[][] } }[] }
    ).keepers
    for (const [id, at] of [...keeper!.book.bids, ...keeper!.book.asks]) if (at === price) found.push(id!)
    return found
  }

  beforeEach(() => goLive3())

  it('the snapshot is the book, in the order of its queues', () => {
    expect(events().map(row => [row.event_type, row.order_id, row.side, row.price, row.size, row.last])).toEqual([
      ['clear', null, null, null, null, false],
      ['snapshot', B1, 'bid', '44939.4', '0.88968699', false],
      ['snapshot', B2, 'bid', '44939.4', '0.45210000', false],
      ['snapshot', B3, 'bid', '44937.1', '0.03346877', false],
      ['snapshot', A1, 'ask', '44939.5', '4.52308393', true]
    ])
    expect(events()[1]).toMatchObject({ channel: 'level3', sequence: null, exchange_time: null })
    expect(driver.requests.settledNames).toEqual(['a'])
    expect(details('checksum_mismatch')).toEqual([])
    driver.pass('a', 2000)
    expect(driver.sink.records('l3_spot').at(-1)).toMatchObject({
      bids_top10: [
        ['44939.4', '1.34178699', '0', '2'],
        ['44937.1', '0.03346877', '0', '1']
      ],
      checksum: orders.checksum
    })
  })

  it('add, modify and delete are open, change and done, in one batch', () => {
    orders.sides.bids.splice(
      0,
      3,
      [B1, '44939.4', '0.50000000'],
      [B2, '44939.4', '0.45210000'],
      ['ONEW', '44939.4', '1.00000000']
    )
    say(
      orders.update('bids', [
        ['add', 'ONEW', '44939.4', '1.00000000'],
        ['modify', B1, '44939.4', '0.50000000'],
        ['delete', B3, '44937.1', '0.00000000']
      ])
    )
    expect(
      last(3).map(row => [row.event_type, row.order_id, row.side, row.price, row.size, row.last, row.metadata])
    ).toEqual([
      ['open', 'ONEW', 'bid', '44939.4', '1.00000000', false, {}],
      ['change', B1, 'bid', '44939.4', '0.50000000', false, {}],
      ['done', B3, 'bid', '44937.1', '0.03346877', true, {}]
    ])
    expect(last(1)[0]).toMatchObject({
      exchange_time: expect.stringMatching(/^2026-07-07T23:00:04\.\d{9}Z$/),
      sequence: null
    })
    expect(queue('44939.4')).toEqual([B1, B2, 'ONEW'])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('an order that moves to another price goes to the back there', () => {
    orders.sides.bids = [
      [B2, '44939.4', '0.45210000'],
      [B3, '44937.1', '0.03346877'],
      [B1, '44937.1', '0.88968699']
    ]
    say(orders.update('bids', [['modify', B1, '44937.1', '0.88968699']]))
    expect(queue('44937.1')).toEqual([B3, B1])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('a delete may lack its size, and one of an unknown order means nothing', () => {
    orders.sides.bids.splice(2, 1)
    say(
      orders.update('bids', [
        ['delete', 'ONOBODY', '1.0', null],
        ['delete', B3, '44937.1', null]
      ])
    )
    expect(last(1)[0]).toMatchObject({ event_type: 'done', order_id: B3, last: true })
    expect(details('gap')).toEqual([])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('a change of an unknown order puts it there; no size is no order', () => {
    orders.sides.asks.push(['OLATE', '44940.0', '2.00000000'])
    orders.sides.bids.shift()
    say(
      orders.update('asks', [
        ['modify', 'OLATE', '44940.0', '2.00000000'],
        ['modify', B1, '44939.4', '0.00000000'],
        ['add', 'ONULL', '44941.0', '0']
      ])
    )
    expect(last(2).map(row => [row.event_type, row.order_id])).toEqual([
      ['open', 'OLATE'],
      ['done', B1]
    ])
    expect(details('checksum_mismatch')).toEqual([])
  })

  it('an order that shrinks or grows at its price keeps its place', () => {
    orders.sides.bids[0] = [B1, '44939.4', '5.00000000']
    say(orders.update('bids', [['modify', B1, '44939.4', '5.00000000']]))
    orders.sides.bids[0] = [B1, '44939.4', '0.10000000']
    say(orders.update('bids', [['modify', B1, '44939.4', '0.10000000']]))
    expect(queue('44939.4')).toEqual([B1, B2])
    expect(details('checksum_mismatch')).toEqual([])
    expect(driver.requests.logs).toEqual([])
  })

  it.each([
    ['grown', '5.00000000', '0.10000000'],
    ['shrunk', '0.10000000', '0.10000000']
  ])('unless the checksum says that it has lost it: %s', (_, size, other) => {
    // Two orders change; in the first case only the one that has grown goes to the back.
    orders.sides.bids =
      other === size
        ? [
            [B2, '44939.4', '0.45210000'],
            [B1, '44939.4', size],
            [B3, '44937.1', '0.03346877']
          ]
        : [
            [B2, '44939.4', other],
            [B1, '44939.4', size],
            [B3, '44937.1', '0.03346877']
          ]
    say(
      orders.update('bids', [
        ['modify', B1, '44939.4', size],
        ...(other === size ? [] : ([['modify', B2, '44939.4', other]] as const))
      ])
    )
    expect(queue('44939.4')).toEqual([B2, B1])
    expect(details('checksum_mismatch')).toEqual([])
    expect(messages()).toEqual(['Orders have lost their place in the queue'])
    // No event tells of it: no record shows queues.
    expect(last(1)[0]).toMatchObject({ event_type: 'change' })
  })

  it('a checksum that fits neither way is wrong, and what may be the reason is told', () => {
    orders.sides.bids[0] = [B1, '44939.4', '5.00000000']
    say(orders.update('bids', [['modify', B1, '44939.4', '6.00000000']]))
    expect(queue('44939.4')).toEqual([B1, B2])
    expect(details('checksum_mismatch')).toHaveLength(1)
    expect(messages()).toEqual(['The place in the queue of changed orders is in doubt', 'Checksum mismatch'])
  })

  it('while a book is wrong, no order is moved, and the doubt is told once', () => {
    goLive3({ onMismatch: 'warn' })
    const say3 = (size: string) => {
      orders.sides.bids[0] = [B1, '44939.4', size]
      say(orders.update('bids', [['modify', B1, '44939.4', size]]))
    }
    orders.sides.asks[0] = [A1, '44939.5', '4.00000000']
    say3('5.00000000')
    say3('6.00000000')
    expect(messages().filter(message => message.startsWith('The place'))).toHaveLength(1)
    say(orders.update('asks', [['modify', A1, '44939.5', '4.00000000']]))
    orders.sides.bids = [orders.sides.bids[1]!, [B1, '44939.4', '7.00000000'], orders.sides.bids[2]!]
    say(orders.update('bids', [['modify', B1, '44939.4', '7.00000000']]))
    expect(queue('44939.4')).toEqual([B2, B1])
    expect(details('checksum_mismatch')).toHaveLength(2)
    // Wrong again, until a snapshot comes.
    say(orders.update('bids', [['modify', B1, '44939.4', '9.00000000']]))
    say(orders.image())
    orders.sides.bids = [
      [B1, '44939.4', '7.00000000'],
      [B2, '44939.4', '8.00000000'],
      [B3, '44937.1', '0.03346877']
    ]
    say(orders.update('bids', [['modify', B2, '44939.4', '8.00000000']]))
    expect(queue('44939.4')).toEqual([B1, B2])
    expect(details('checksum_mismatch')).toHaveLength(3)
  })

  it('orders of levels beyond the window are done, in the same batch (4)', () => {
    connect('l3')
    driver.fetched('a', 200, TOKEN)
    ack('level3')
    orders = new OrderVenue()
    orders.sides.bids = Array.from({ length: 10 }, (_, n) => [`O${n}`, `${100 - n}.0`, '1.00000000'])
    orders.sides.bids.push(['O9B', '91.0', '2.00000000'])
    say(orders.image())
    orders.sides.bids.push(['ONEW', '99.5', '3.00000000'])
    say(orders.update('bids', [['add', 'ONEW', '99.5', '3.00000000']]))
    expect(last(3).map(row => [row.event_type, row.order_id, row.last, row.metadata])).toEqual([
      ['open', 'ONEW', false, {}],
      ['done', 'O9', false, { reason: 'depth' }],
      ['done', 'O9B', true, { reason: 'depth' }]
    ])
    orders.sides.bids = orders.sides.bids.filter(([, price]) => price !== '91.0')
    // A level goes: the next one comes back, order by order.
    orders.sides.bids = orders.sides.bids.filter(([id]) => id !== 'O0')
    orders.sides.bids.push(['O9', '91.0', '1.00000000'], ['O9B', '91.0', '2.00000000'])
    say(
      orders.update('bids', [
        ['delete', 'O0', '100.0', '1.00000000'],
        ['add', 'O9', '91.0', '1.00000000'],
        ['add', 'O9B', '91.0', '2.00000000']
      ])
    )
    expect(last(3).map(row => row.event_type)).toEqual(['done', 'open', 'open'])
    expect(details('checksum_mismatch')).toEqual([])
    driver.pass('a', 2000)
    expect((driver.sink.records('l3_spot').at(-1)!.bids_top10 as unknown[]).length).toBe(10)
  })

  it('a snapshot that is deeper than subscribed is cut', () => {
    connect('l3')
    driver.fetched('a', 200, TOKEN)
    ack('level3')
    orders.sides.asks = Array.from({ length: 12 }, (_, n) => [`O${n}`, `${100 + n}.0`, '1.00000000'])
    orders.sides.bids = []
    say(orders.image())
    expect(events().filter(row => row.event_type === 'snapshot')).toHaveLength(10)
    expect(events().filter(row => row.event_type === 'done')).toEqual([])
    expect(events().at(-1)).toMatchObject({ last: true })
  })

  it('the same frame twice is applied once', () => {
    orders.sides.asks.push(['ONEW', '44940.0', '1.00000000'])
    const frame = orders.update('asks', [['add', 'ONEW', '44940.0', '1.00000000']])
    say(frame)
    const before = events().length
    say(frame)
    expect(events()).toHaveLength(before)
  })

  it('three wrong checksums in a row renew it (7)', () => {
    for (let n = 0; n < 3; n++) say(orders.update('bids', []).replace(/"checksum":\d+/, '"checksum":1'))
    expect(details('gap')).toMatchObject([{ reason: 'checksum' }])
    expect(asked('unsubscribe', 'level3')).toHaveLength(1)
    say(orders.update('bids', [['add', 'ONEW', '44939.0', '1.00000000']]))
    ack('level3', BTC, 'unsubscribe')
    ack('level3')
    say(orders.image())
    expect(events().at(-1)).toMatchObject({ event_type: 'snapshot', last: true })
    expect(details('gap')).toHaveLength(1)
  })

  it.each([
    ['another order of keys', (text: string) => text.replace(/("event":"\w+"),("order_id":"\w+")/, '$2,$1')],
    ['white space', (text: string) => text.replaceAll(',"', ', "')],
    ['an exponent', (text: string) => text.replace('0.00001000', '1000e-08')],
    ['quoted numbers', (text: string) => text.replace('0.00001000', '"0.00001000"')]
  ])('%s: the same event', (_, change) => {
    orders.sides.asks.push(['ONEW', '44940.0', '0.00001000'])
    const frame = orders.update('asks', [['add', 'ONEW', '44940.0', '0.00001000']])
    const other = change(frame)
    expect(other).not.toBe(frame)
    say(other)
    expect(last(1)[0]).toMatchObject({ event_type: 'open', order_id: 'ONEW', price: '44940.0' })
    expect(details('checksum_mismatch')).toEqual([])
    expect(details('gap')).toEqual([])
  })

  it.each([
    ['an unknown event', (text: string) => text.replace('"add"', '"fill"')],
    ['no event', (text: string) => text.replace('"event":"add",', '')],
    ['no id', (text: string) => text.replace('"order_id":"ONEW",', '')],
    ['an id with a quote', (text: string) => text.replace('ONEW', 'O\\"EW')],
    ['an id with a line break', (text: string) => text.replace('ONEW', 'O\\nEW')],
    ['an id too long', (text: string) => text.replace('ONEW', 'O'.repeat(65))],
    ['an empty id', (text: string) => text.replace('ONEW', '')],
    ['no price', (text: string) => text.replace('"limit_price":44940.0,', '')],
    ['no size', (text: string) => text.replace(',"order_qty":1.00000000', '')],
    ['a negative size', (text: string) => text.replace('1.00000000', '-1.00000000')]
  ])('%s: kept, and a gap', (_, change) => {
    const frame = orders.update('asks', [['add', 'ONEW', '44940.0', '1.00000000']])
    const other = change(frame)
    expect(other).not.toBe(frame)
    say(other)
    expect(last(1)[0]).toMatchObject({ event_type: 'gap' })
    expect(details('gap')).toMatchObject([{ reason: 'build_fail' }])
    expect(messages()).toContain('BUILD_FAIL: Missing required fields')
  })

  it('a time that is none is no time', () => {
    say(
      orders
        .update('asks', [['delete', A1, '44939.5', null]])
        .replace(/"timestamp":"[^"]*"(?=\}\])/, '"timestamp":"2026-07-07 23:00:04"')
    )
    expect(last(1)[0]).toMatchObject({ event_type: 'done', exchange_time: null })
  })

  it('a random market, with queues: every checksum is right', () => {
    const random = seeded(5)
    const pick = (count: number) => Math.floor(random() * count)
    const depth = 10
    connect('l3')
    driver.fetched('a', 200, TOKEN)
    ack('level3')
    orders = new OrderVenue()
    let made = 0
    const fresh = (side: 'bids' | 'asks'): [string, string, string] => [
      `O${++made}`,
      `${side === 'bids' ? 100 - pick(15) : 101 + pick(15)}.0`,
      `${1 + pick(9)}.${pick(9)}0000000`
    ]
    const cut = (side: 'bids' | 'asks') => {
      const prices = [...new Set(orders.sides[side].map(([, price]) => Number(price)))].sort((a, b) =>
        side === 'asks' ? a - b : b - a
      )
      const kept = new Set(prices.slice(0, depth))
      orders.sides[side] = orders.sides[side].filter(([, price]) => kept.has(Number(price)))
    }
    for (const side of ['bids', 'asks'] as const) {
      for (let n = 0; n < 40; n++) orders.sides[side].push(fresh(side))
      cut(side)
    }
    say(orders.image())
    for (let n = 0; n < 400; n++) {
      const side = random() < 0.5 ? 'bids' : 'asks'
      const told: [string, string, string, string | null][] = []
      for (let m = 0; m <= pick(3); m++) {
        const list = orders.sides[side]
        const kind = pick(4)
        const at = pick(list.length)
        if (kind === 0 || list.length < 20) {
          const order = fresh(side)
          list.push(order)
          told.push(['add', ...order])
        } else if (kind === 1) {
          const [order] = list.splice(at, 1)
          told.push(['delete', order![0], order![1], random() < 0.5 ? null : '0.00000000'])
        } else {
          const old = list[at]!
          const order: [string, string, string] = [old[0], kind === 2 ? old[1] : fresh(side)[1], '0.50000000']
          if (order[1] === old[1]) list[at] = order
          else {
            list.splice(at, 1)
            list.push(order)
          }
          told.push(['modify', ...order])
        }
      }
      cut(side)
      say(orders.update(side, told))
    }
    expect(details('checksum_mismatch')).toEqual([])
    expect(details('gap')).toEqual([])
    expect(events().filter(row => (row.metadata as Row).reason === 'depth').length).toBeGreaterThan(20)
  })
})

describe('published checksums', () => {
  const levels = (asks: readonly Entry[], bids: readonly Entry[]) => {
    const book = new LevelBook()
    for (const [rows, isAsk] of [
      [asks, true],
      [bids, false]
    ] as const)
      for (const [price, qty] of rows) book.set(isAsk, priceKey(price), price, qty, null)
    return book
  }
  const entries = (text: string): Entry[] =>
    [...text.matchAll(/\(([\d.]+),([\d.]+)\)/g)].map(([, price, qty]) => [price!, qty!])

  it('1: v1, every volume the same', () => {
    const asks = Array.from({ length: 10 }, (_, n): Entry => [(0.05005 + n * 0.00005).toFixed(5), '0.00000500'])
    const bids = '0.05000,0.04995,0.04990,0.04980,0.04975,0.04970,0.04965,0.04960,0.04955,0.04950'
    const book = levels(
      asks,
      bids.split(',').map((price): Entry => [price, '0.00000500'])
    )
    expect(krakenLevelsChecksum(book)).toBe(974_947_235)
    // The eleventh level does not count.
    book.set(true, 1, '1', '1', null)
    expect(krakenLevelsChecksum(book)).toBe(974_947_235)
  })

  it('2: v2, BTC/USD', () => {
    const asks =
      '(45285.2,0.00100000)(45286.4,1.54571953)(45286.6,1.54571109)(45289.6,1.54560911)(45290.2,0.15890660)(45291.8,1.54553491)(45294.7,0.04454749)(45296.1,0.35380000)(45297.5,0.09945542)(45299.5,0.18772827)'
    const bids =
      '(45283.5,0.10000000)(45283.4,1.54582015)(45282.1,0.10000000)(45281.0,0.10000000)(45280.3,1.54592586)(45279.0,0.07990000)(45277.6,0.03310103)(45277.5,0.30000000)(45277.3,1.54602737)(45276.6,0.15445238)'
    expect(krakenLevelsChecksum(levels(entries(asks), entries(bids)))).toBe(3_310_070_434)
  })

  it('3: a thin book with 8 bids', () => {
    const asks =
      '(0.01300,850.00000000)(0.01400,323483.99590510)(0.01500,100287.34442717)(0.01600,67995.78441017)(0.01700,41776.38397740)(0.01800,11785.76177777)(0.01900,23700.00000000)(0.02000,3941.17000000)(0.02100,16598.69173066)(0.02200,17572.51572836)'
    const bids =
      '(0.01200,14220.66466572)(0.01100,160223.61546438)(0.01000,63083.48958963)(0.00900,6750.00000000)(0.00800,213059.49706376)(0.00700,1000.00000000)(0.00600,4000.00000000)(0.00100,245000.00000000)'
    expect(krakenLevelsChecksum(levels(entries(asks), entries(bids)))).toBe(69_619_317)
    expect(krakenLevelsChecksum(levels([], []))).toBe(0)
  })

  it('4: level 3, order by order', () => {
    const asks: Record<string, string> = {
      '44939.5': '4.52308393,0.00111261,0.00100000,0.01000000',
      '44950.0': '0.10334926',
      '44953.0': '0.00064537',
      '44955.0': '0.00250000',
      '44959.6': '0.35630000,0.35630000',
      '44960.1': '0.00338072',
      '44960.2': '0.88967575',
      '44967.0': '3.14392283',
      '44978.5': '0.06778960',
      '44979.2': '0.35630000'
    }
    const bids: Record<string, string> = {
      '44939.4': '0.88968699,0.45210000,0.10000000,0.14296323,0.25000000,0.10292988,0.33880000,1.28140860',
      '44937.1': '0.03346877',
      '44934.7': '0.35630000',
      '44930.2': '0.22734299,0.01000000,0.05550000,0.70000000,0.15000000',
      '44928.0': '0.00105240',
      '44919.6': '0.33870000',
      '44919.5': '0.07610000',
      '44912.0': '0.35630000',
      '44909.7': '0.06690000',
      '44901.9': '0.00088982'
    }
    const book = new OrderBook()
    for (const [rows, isAsk] of [
      [asks, true],
      [bids, false]
    ] as const)
      for (const [price, sizes] of Object.entries(rows))
        for (const [n, size] of sizes.split(',').entries()) book.set(`${price}-${n}`, isAsk, price, size)
    expect(krakenOrdersChecksum(book)).toBe(1_063_832_831)
    book.set('eleventh', true, '50000.0', '1')
    expect(krakenOrdersChecksum(book)).toBe(1_063_832_831)
    // Another order of the queue is another checksum, and what counts as behind is behind.
    book.remove('44939.5-1')
    book.set('44939.5-1', true, '44939.5', '0.00111261')
    expect(krakenOrdersChecksum(book)).not.toBe(1_063_832_831)
    for (const behind of [['44939.5-0'], ['44939.5-3', '44939.5-2'], ['none']])
      expect(krakenOrdersChecksum(book, new Set(behind))).not.toBe(1_063_832_831)
    for (const behind of [
      ['44939.5-2', '44939.5-3'],
      ['44939.5-1', '44939.5-2', '44939.5-3']
    ])
      expect(krakenOrdersChecksum(book, new Set(behind))).toBe(1_063_832_831)
  })

  it('the digits of a number with an exponent are those of the number', () => {
    const one = (price: string, size: string) => krakenLevelsChecksum(levels([[price, size]], []))
    expect(one('0.00001', '0.000015')).toBe(one('1e-05', '1.5e-5'))
    expect(one('120', '1500')).toBe(one('1.2e2', '1.5E+3'))
    expect(one('1', '5')).not.toBe(one('1', '50'))
  })
})

describe('a state line', () => {
  type Step = (on: Driver) => void
  const frame =
    (text: string): Step =>
    on =>
      void on.in('a', text)
  const pass =
    (ms: number): Step =>
    on =>
      on.pass('a', ms)

  /** What an engine does that is made from the state after `at` steps, and what the one does that has lived through them. */
  function compare(level: Level, steps: readonly Step[], at: number, instIds = [BTC]): void {
    const selection = { level, market: null, channel: null, updateSpeed: null } as const
    const feeds: readonly FeedKind[] = level === 'l3' ? ['book'] : ['book', 'trades']
    const config = { ...CONFIG, depth: 10 }
    const whole = new Driver(kraken, config, undefined, KEYS)
    whole.open('a', instIds, level, null, feeds)
    for (const step of steps.slice(0, at)) step(whole)
    const instruments = described(kraken, instIds, selection)
    const text = JSON.stringify({
      v: STATE_VERSION,
      config,
      instruments,
      feeds,
      replaces: null,
      subjects: whole.engine.subjectStates(instruments),
      connection: whole.engine.connectionState('a')
    })
    const again = new Driver(kraken, config)
    again.us = whole.us
    const marks = [
      whole.sink.lines.length,
      whole.sent.length,
      whole.requests.fetches.length,
      whole.requests.infos.length
    ] as const
    again.engine.hour(whole.us, 'a', 0, JSON.parse(text))
    whole.engine.hour(whole.us, 'a', 0)
    for (const step of steps.slice(at)) for (const each of [whole, again]) step(each)
    const lines = (on: Driver, from: number) =>
      on.sink.lines.slice(from).map(line => line.feed + line.text.replace(/"frame":\d+/, ''))
    expect(lines(again, 0), `from step ${at} on`).toEqual(lines(whole, marks[0]))
    expect(again.requests.sent.map(each => each.recorded)).toEqual(
      whole.requests.sent.slice(marks[1]).map(each => each.recorded)
    )
    const fetches = (on: Driver, from: number) =>
      on.requests.fetches.slice(from).map(({ request }) => [request.id, request.path])
    expect(fetches(again, 0)).toEqual(fetches(whole, marks[2]))
    expect(again.requests.infos).toEqual(whole.requests.infos.slice(marks[3]))
    expect(JSON.stringify(again.engine.connectionState('a'))).toBe(JSON.stringify(whole.engine.connectionState('a')))
  }

  const acked = (channel: string, method = 'subscribe', symbol = BTC) =>
    frame(`{"method":"${method}","result":{"channel":"${channel}","symbol":"${symbol}"},"success":true}`)
  const trade = (id: number) =>
    frame(
      `{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":1.0,"qty":1.0,"ord_type":"limit","trade_id":${id},"timestamp":"2026-07-07T23:00:04.590753Z"}]}`
    )
  const wrong = (text: string) => text.replace(/"checksum":\d+/, '"checksum":1')

  it('of a level 2 book, after every line of a full life', () => {
    const market = new LevelVenue(ladder(100, -1, 10), ladder(101, 1, 10))
    const update = () =>
      market.update(
        [
          ['100.0', '2.00000000'],
          ['99.5', '1.00000000']
        ],
        []
      )
    const twice = update()
    const steps: Step[] = [
      frame('{"channel":"status","type":"update","data":[{"system":"online"}]}'),
      frame(market.image()),
      acked('book'),
      acked('trade'),
      frame(
        '{"channel":"instrument","type":"snapshot","data":{"pairs":[{"symbol":"BTC/USD","price_precision":1,"qty_precision":8}]}}'
      ),
      frame(twice),
      frame(twice),
      trade(10),
      trade(14),
      on => on.fetched('a', 500, {}, 'trades-0-1'),
      pass(3000),
      frame(update()),
      on =>
        on.fetched(
          'a',
          200,
          { error: [], result: { X: [['1', '1', 1783465204.5, 'b', 'm', '', 11]], last: '1783465204600000000' } },
          'trades-0-2'
        ),
      frame(wrong(update())),
      frame(wrong(update())),
      frame('{"channel":"status","type":"update","data":[{"system":"maintenance"}]}'),
      frame(wrong(update())),
      pass(2000),
      frame(update()),
      acked('book', 'unsubscribe'),
      frame('{"error":"EService:Unavailable","method":"subscribe","success":false,"symbol":"BTC/USD"}'),
      pass(12_000),
      frame('{"channel":"heartbeat"}'),
      acked('book'),
      frame(market.image()),
      on =>
        on.fetched(
          'a',
          200,
          {
            error: [],
            result: {
              X: [
                ['1', '1', 1783465204.5, 'b', 'm', '', 12],
                ['1', '1', 1783465204.5, 'b', 'm', '', 13]
              ],
              last: '17'
            }
          },
          'trades-0-3'
        ),
      frame(
        '{"channel":"instrument","type":"update","data":{"pairs":[{"symbol":"BTC/USD","price_precision":2,"qty_precision":8}]}}'
      ),
      acked('book', 'unsubscribe'),
      acked('book'),
      frame(market.image()),
      frame('{"channel":"status","type":"update","data":[{"system":"online"}]}'),
      pass(9000),
      frame(update()),
      pass(21_000),
      frame('{"error":"Exceeded msg rate","method":"subscribe","success":false,"req_id":3}'),
      pass(5000)
    ]
    for (let at = 0; at <= steps.length; at++) compare('l2', steps, at)
  })

  it('of a level 3 book, after every line of a full life, without the token', () => {
    const market = new OrderVenue()
    market.sides.bids = [
      ['O1', '100.0', '1.00000000'],
      ['O2', '100.0', '2.00000000']
    ]
    market.sides.asks = Array.from({ length: 10 }, (_, n) => [`A${n}`, `${101 + n}.0`, '1.00000000'])
    const image = market.image()
    market.sides.asks.push(['ANEW', '101.5', '1.00000000'])
    const added = market.update('asks', [['add', 'ANEW', '101.5', '1.00000000']])
    market.sides.asks = market.sides.asks.filter(([id]) => id !== 'A9')
    market.sides.bids = [
      ['O2', '100.0', '2.00000000'],
      ['O1', '100.0', '3.00000000']
    ]
    const grown = market.update('bids', [['modify', 'O1', '100.0', '3.00000000']])
    const doubtful = wrong(market.update('bids', [['modify', 'O2', '100.0', '2.00000000']]))
    market.sides.bids = [
      ['O1', '100.0', '3.00000000'],
      ['O2', '100.0', '4.00000000']
    ]
    // Moving the order would fit, but the book is in doubt.
    const moved = market.update('bids', [['modify', 'O2', '100.0', '4.00000000']])
    const token =
      (id: string): Step =>
      on =>
        on.fetched('a', 200, { error: [], result: { token: '***' } }, id)
    const steps: Step[] = [
      on => on.fetched('a', 200, { error: ['EAPI:Invalid nonce'] }, 'token-1'),
      pass(6000),
      token('token-2'),
      frame('{"error":"ESession:Invalid session","method":"subscribe","success":false,"req_id":1}'),
      frame('{"channel":"heartbeat"}'),
      pass(9000),
      frame('{"channel":"heartbeat"}'),
      pass(2000),
      token('token-3'),
      acked('level3'),
      frame(image),
      frame(added),
      frame(grown),
      frame(grown),
      frame(doubtful),
      frame(moved),
      frame(wrong(market.update('bids', []))),
      frame(wrong(market.update('bids', []))),
      acked('level3', 'unsubscribe'),
      pass(5000),
      acked('level3'),
      frame(market.image()),
      frame(market.update('bids', [])),
      pass(3000)
    ]
    for (let at = 0; at <= steps.length; at++) compare('l3', steps, at)
  })

  it('of subscriptions that wait for their turn', () => {
    const names = Array.from({ length: 60 }, (_, n) => `C${n}/USD`)
    const steps: Step[] = [on => on.fetched('a', 200, TOKEN, 'token-1'), pass(1000), pass(1000), pass(1000), pass(9000)]
    for (let at = 0; at <= steps.length; at++) compare('l3', steps, at, names)
  })
})

describe('hostile frames', () => {
  it.each(['l2', 'l3'] as const)('%s: throw nothing, ruin no line, and a book that is hit is marked', level => {
    const seed = 20_261_120
    const random = seeded(seed)
    let kept = 0
    let lost = 0
    for (let n = 0; n < 4000; n++) {
      if (n % 25 === 0) level === 'l2' ? goLive() : goLive3()
      const base = [
        level === 'l2'
          ? venue.update(
              [
                ['63501.7', '1.00000000'],
                ['63501.6', '0.00000000']
              ],
              [['63502.0', '0.25000000']]
            )
          : orders.update('bids', [
              ['add', 'ONEW', '44938.0', '1.00000000'],
              ['modify', 'OBBBBB-BXL4E-5WGIN1', '44939.4', '2.00000000'],
              ['delete', 'OBBBBB-BXL4E-5WGIN2', '44939.4', null]
            ]),
        level === 'l2' ? venue.image() : orders.image(),
        `{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":1.0,"qty":1.0,"ord_type":"limit","trade_id":${n * 3},"timestamp":"2026-07-07T23:00:04.590753Z"}]}`,
        '{"channel":"instrument","type":"update","data":{"pairs":[{"symbol":"BTC/USD","price_precision":1,"qty_precision":8}]}}',
        '{"error":"Exceeded msg rate","method":"subscribe","success":false,"req_id":1,"symbol":"BTC/USD"}',
        '{"method":"subscribe","result":{"channel":"book","symbol":"BTC/USD"},"success":true,"req_id":1}',
        '{"channel":"status","type":"update","data":[{"system":"online"}]}'
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
    expect(kept).toBeLessThan(3800)
    expect(lost).toBeGreaterThan(50)
  })

  it('an answer of REST in any form throws nothing', () => {
    const values: unknown[] = [
      null,
      7,
      [],
      {},
      { result: [] },
      { result: { last: {} } },
      { error: 'x', result: { X: 7, last: '5' } }
    ]
    for (const value of [...values, JSON.parse('{"__proto__":{"token":"x"},"result":{"__proto__":[],"last":"1"}}')]) {
      connect('l3')
      driver.fetched('a', 200, value)
      connect()
      driver.fetched('a', 200, value, 'token-1')
      driver.fetched('a', 200, value, '__proto__')
      expect(messages()).not.toContain('Assertion failed in a session')
    }
  })
})

describe.skipIf(!hasRecordings)(`a recording of BTC/USD, depth 10${NEEDS_RECORDINGS}`, () => {
  const frames = hasRecordings ? loadFrames('kraken-v2-book10-btc') : []
  const isBook = (text: string) => text.startsWith('{"channel":"book"')
  const openAt = (config: Partial<EngineConfig> = {}) => {
    driver = new Driver(kraken, { depth: 10, cadenceMs: 500, ...config }, frames[0]!.us - 10)
    driver.open('a', [BTC], 'l2')
  }

  it('562 of 562 checksums are right, and 192 levels are cut off', () => {
    openAt()
    play(driver, 'a', frames)
    const lines = updates()
    expect(lines.map(row => row.event_type).filter(type => type === 'update')).toHaveLength(561)
    expect(lines.filter(row => row.event_type === 'snapshot')).toHaveLength(1)
    const checked = frames
      .filter(({ text }) => isBook(text))
      .map(({ text }) => Number(/"checksum":(\d+)/.exec(text)![1]))
    expect(lines.slice(1).map(row => row.checksum)).toEqual(checked)
    expect(checked).toHaveLength(562)
    expect(details('checksum_mismatch')).toEqual([])
    const cut = lines
      .flatMap(row => [...(row.bids as string[][]), ...(row.asks as string[][])])
      .filter(([, size]) => size === '0')
    expect(cut).toHaveLength(192)
    expect(driver.sink.records('trades')).toHaveLength(12)
    expect(details('gap')).toEqual([])
    expect(driver.requests.logs).toEqual([])
    expect(driver.requests.fetches).toEqual([])
    expect(shots().length).toBeGreaterThan(30)
  })

  it('each false checksum is noticed, alone', () => {
    let noticed = 0
    for (const parity of [0, 1]) {
      let n = 0
      openAt({ onMismatch: 'warn' })
      const some = frames.map(({ us, text }) => {
        if (!isBook(text) || n++ % 2 !== parity) return { us, text }
        return { us, text: text.replace(/"checksum":(\d+)/, (_, crc) => `"checksum":${(Number(crc) ^ 1) >>> 0}`) }
      })
      play(driver, 'a', some)
      noticed += details('checksum_mismatch').length
      expect(details('gap')).toEqual([])
    }
    expect(noticed).toBe(562)
  })

  it('gives the same when nothing has its usual form', () => {
    openAt()
    play(driver, 'a', frames)
    const expected = driver.sink.text()
    openAt()
    play(
      driver,
      'a',
      frames.map(({ us, text }) => ({ us, text: text.replace(/"type"/, ' "type"') }))
    )
    expect(driver.sink.text()).toBe(expected)
  })
})
