import { afterEach, describe, expect, it } from 'vitest'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { Selection } from '../../src/exchanges/exchange.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { SimulatedExchange } from '../../src/simulator/listing.ts'
import type { SimulatorOptions } from '../../src/simulator/simulator.ts'
import type { Row } from '../helpers/driver.ts'
import { VirtualCapture } from './virtual.ts'

// Hours in which nothing happens, in virtual time. L3CAP_FAULT_QUIET_HOURS=24 is the long form.
const HOURS = Number(process.env.L3CAP_FAULT_QUIET_HOURS ?? 1)
const LONG_MS = 30 * 60_000

interface Variant {
  readonly name: string
  readonly exchange: SimulatedExchange
  readonly selection: Selection
  readonly instIds: readonly string[]
  readonly simulator?: Partial<SimulatorOptions>
  readonly config?: Partial<EngineConfig>
  /** The longest that a mute book may stay unnoticed while others are busy, s. */
  readonly noticedSeconds: number
}

const l3: Selection = { level: 'l3', market: null, channel: null, updateSpeed: null }
const l2: Selection = { ...l3, level: 'l2' }
const VARIANTS: readonly Variant[] = [
  {
    name: 'bitfinex l3',
    exchange: 'bitfinex',
    selection: l3,
    instIds: ['BTCUSD', 'ETHUSD', 'BTCF0:USTF0'],
    noticedSeconds: 50
  },
  { name: 'bitfinex l2', exchange: 'bitfinex', selection: l2, instIds: ['BTCUSD', 'ETHUSD'], noticedSeconds: 50 },
  {
    name: 'okx l2',
    exchange: 'okx',
    selection: l2,
    instIds: ['BTC-USDT', 'ETH-USDT', 'BTC-USDT-SWAP'],
    noticedSeconds: 95
  },
  {
    name: 'coinbase l3',
    exchange: 'coinbase',
    selection: l3,
    instIds: ['BTC-USD', 'ETH-USD', 'SOL-USD'],
    noticedSeconds: 40
  },
  {
    name: 'coinbase full',
    exchange: 'coinbase',
    selection: { ...l3, channel: 'full' },
    instIds: ['BTC-USD', 'ETH-USD'],
    noticedSeconds: 40
  },
  { name: 'coinbase l2', exchange: 'coinbase', selection: l2, instIds: ['BTC-USD', 'ETH-USD'], noticedSeconds: 130 },
  {
    name: 'bitstamp l3',
    exchange: 'bitstamp',
    selection: l3,
    instIds: ['btcusd', 'ethusd', 'ethbtc'],
    noticedSeconds: 130
  },
  { name: 'bitstamp l2', exchange: 'bitstamp', selection: l2, instIds: ['btcusd', 'ethusd'], noticedSeconds: 130 },
  {
    name: 'kraken l3',
    exchange: 'kraken',
    selection: l3,
    instIds: ['BTC/USD', 'ETH/USD', 'SOL/USD'],
    config: { depth: 10 },
    noticedSeconds: 185
  },
  {
    name: 'kraken l2',
    exchange: 'kraken',
    selection: l2,
    instIds: ['BTC/USD', 'ETH/USD'],
    config: { depth: 10 },
    noticedSeconds: 185
  },
  {
    name: 'binance spot',
    exchange: 'binance',
    selection: l2,
    instIds: ['BTCUSDT', 'ETHUSDT', 'SOLUSDT'],
    noticedSeconds: 330
  },
  {
    name: 'binance perp',
    exchange: 'binance',
    selection: { ...l2, market: 'perp' },
    instIds: ['BTCUSDT', 'ETHUSDT'],
    noticedSeconds: 330
  },
  {
    name: 'huobi mbp.400',
    exchange: 'huobi',
    selection: l2,
    instIds: ['btcusdt', 'ethusdt', 'htxusdt'],
    noticedSeconds: 35
  },
  {
    name: 'huobi mbp.150',
    exchange: 'huobi',
    selection: { ...l2, channel: 'mbp.150' },
    instIds: ['btcusdt', 'ethusdt'],
    noticedSeconds: 35
  }
]

let capture: VirtualCapture | undefined
afterEach(() => capture?.close())

function begin(variant: Variant, eventsPerSecond: number): VirtualCapture {
  const { exchange, selection, instIds, simulator, config } = variant
  const begun = new VirtualCapture({
    simulator: { exchange, seed: 5, instruments: [...instIds], eventsPerSecond, ...simulator },
    selection,
    instIds,
    ...(config ? { config } : {})
  })
  capture = begun
  return begun
}

/** The books of an instrument say nothing any more; books that are subscribed later do. */
function mute(market: VirtualCapture, instrument: string): void {
  const books = market.subscriptions(instrument).filter(({ isBook }) => isBook)
  expect(books.length).toBeGreaterThan(0)
  if (market.driver.exchange.proof.l3?.sequence !== 'connection') {
    for (const subscription of books) subscription.mutedUntilMs = Number.POSITIVE_INFINITY
    return
  }
  // Where the frames of a connection are numbered, those that are not sent have no numbers.
  const mutes = books.map(book => `[${(book as unknown as { id: number }).id},`)
  let withheld = 0
  market.hear = text => {
    if (mutes.some(head => text.startsWith(head))) {
      withheld++
      return undefined
    }
    return text.replace(/,(\d+),(\d+)\]$/, (_, sequence, time) => `,${Number(sequence) - withheld},${time}]`)
  }
}

describe.each(VARIANTS)('$name', { timeout: LONG_MS }, variant => {
  const { instIds, noticedSeconds } = variant
  const { limits } = EXCHANGES[variant.exchange]!

  it(`${HOURS} hours in which nothing happens: left alone, and snapshots go on`, () => {
    const market = begin(variant, 0)
    market.pass(120)
    expect(market.events.map(row => row.event)).toEqual(instIds.map(() => 'synced'))
    market.events.length = 0
    const before = new Map(market.shots)
    const { fetches } = market
    market.pass(HOURS * 3600)
    // Looking at a silent book again may give it a new image, without a gap.
    const alarms = market.events.filter(
      ({ event, detail }) => event !== 'synced' || (detail as Row).down_ms !== undefined
    )
    expect(alarms).toEqual([])
    const looks = variant.exchange === 'kraken' ? (HOURS * 3600 * instIds.length) / (limits.silenceMsMax / 1000) : 0
    expect(market.events.length).toBeLessThanOrEqual(looks)
    expect(market.partings).toEqual([])
    expect(market.flagged).toBe(0)
    for (const instId of instIds) {
      const taken = market.shots.get(instId)! - before.get(instId)!
      expect(Math.abs(taken - HOURS * 1800)).toBeLessThanOrEqual(1)
    }
    // Asking is allowed, hammering is not: a question a minute for an instrument.
    expect(market.fetches - fetches).toBeLessThanOrEqual(HOURS * 60 * instIds.length)
    const loud = market.driver.requests.logs.filter(({ level }) => level === 'error')
    expect(loud).toEqual([])
  })

  it('one mute book among busy ones is noticed in time, and only it is asked for again', () => {
    const market = begin(variant, 5)
    market.pass(120, 500)
    expect(market.events.map(row => row.event)).toEqual(instIds.map(() => 'synced'))
    market.events.length = 0
    const silent = instIds[0]!
    mute(market, silent)
    const mutedUs = market.driver.us
    market.pass(noticedSeconds + 2 * (limits.ackMsMax / 1000), 500)
    const others = market.events.filter(row => row.instId !== silent)
    expect(others).toEqual([])
    expect(market.partings).toEqual([])
    const first = market.events[0]
    expect(first, 'nothing was noticed').toBeDefined()
    expect((Number(first!.recv_us) - mutedUs) / 1_000_000).toBeLessThanOrEqual(noticedSeconds)
    expect(market.events.filter(row => row.event === 'gap')).toHaveLength(1)
    expect(market.events.at(-1)).toMatchObject({ event: 'synced', instId: silent })
    expect(market.flagged).toBe(1)
  })
})
