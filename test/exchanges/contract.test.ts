import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { Exchange, Selection } from '../../src/exchanges/exchange.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { SimulatedExchange } from '../../src/simulator/listing.ts'
import type { SimulatorOptions } from '../../src/simulator/simulator.ts'
import { described, type MemorySink } from '../helpers/driver.ts'
import { mutate, seeded } from '../helpers/mutate.ts'
import { snapshotDifference } from '../helpers/replay.ts'
import { frameLine, playTape, recordTape, type Tape, TapePlayer, updatePlaces } from '../helpers/tape.ts'

const SOURCES = new URL('../../src/exchanges/', import.meta.url)
/** How many hostile frames each variant gets, and how many places of its tape are tried; the long form sets them. */
const HOSTILE = Number(process.env.L3CAP_FUZZ_FRAMES ?? 1500)
const SAMPLES = Number(process.env.L3CAP_CONTRACT_SAMPLES ?? 12)
const LONG_MS = 20 * 60_000

/** One way of capturing an exchange. */
interface Variant {
  readonly name: string
  readonly exchange: SimulatedExchange
  readonly selection: Selection
  readonly instIds: readonly string[]
  readonly simulator?: Partial<SimulatorOptions>
  readonly config?: Partial<EngineConfig>
}

const l3: Selection = { level: 'l3', market: null, channel: null, updateSpeed: null }
const l2: Selection = { ...l3, level: 'l2' }
const VARIANTS: readonly Variant[] = [
  { name: 'bitfinex l3', exchange: 'bitfinex', selection: l3, instIds: ['BTCUSD', 'BTCF0:USTF0'] },
  { name: 'bitfinex l2', exchange: 'bitfinex', selection: l2, instIds: ['BTCUSD', 'BTCF0:USTF0'] },
  { name: 'okx l2', exchange: 'okx', selection: l2, instIds: ['BTC-USDT', 'BTC-USDT-SWAP'] },
  {
    name: 'okx l2, images by REST',
    exchange: 'okx',
    selection: l2,
    instIds: ['BTC-USDT', 'BTC-USDT-SWAP'],
    simulator: { imageless: true }
  },
  { name: 'coinbase l3', exchange: 'coinbase', selection: l3, instIds: ['BTC-USD', 'ETH-USD'] },
  {
    name: 'coinbase full',
    exchange: 'coinbase',
    selection: { ...l3, channel: 'full' },
    instIds: ['BTC-USD', 'ETH-USD']
  },
  { name: 'coinbase l2', exchange: 'coinbase', selection: l2, instIds: ['BTC-USD', 'ETH-USD'] },
  { name: 'bitstamp l3', exchange: 'bitstamp', selection: l3, instIds: ['btcusd', 'ethusd'] },
  { name: 'bitstamp l2', exchange: 'bitstamp', selection: l2, instIds: ['btcusd', 'ethusd'] },
  { name: 'kraken l3', exchange: 'kraken', selection: l3, instIds: ['BTC/USD', 'ETH/USD'], config: { depth: 10 } },
  { name: 'kraken l2', exchange: 'kraken', selection: l2, instIds: ['BTC/USD', 'ETH/USD'], config: { depth: 10 } },
  { name: 'binance spot', exchange: 'binance', selection: l2, instIds: ['BTCUSDT', 'ETHUSDT'] },
  { name: 'binance perp', exchange: 'binance', selection: { ...l2, market: 'perp' }, instIds: ['BTCUSDT', 'ETHUSDT'] },
  { name: 'huobi mbp.400', exchange: 'huobi', selection: l2, instIds: ['btcusdt', 'ethusdt'] },
  {
    name: 'huobi mbp.150',
    exchange: 'huobi',
    selection: { ...l2, channel: 'mbp.150' },
    instIds: ['btcusdt', 'ethusdt']
  }
]

/** Recorded side by side: each takes as long as its exchange needs for so many updates. */
const TAPES = new Map<Variant, Tape>(
  await Promise.all(
    VARIANTS.map(async variant => {
      const { instIds, selection, config } = variant
      const tape = await recordTape(EXCHANGES[variant.exchange]!, {
        simulator: { exchange: variant.exchange, seed: 7, eventsPerSecond: 60, ...variant.simulator },
        selection,
        instIds,
        updates: 60,
        msMax: 20_000,
        ...(config ? { config } : {})
      })
      return [variant, tape] as const
    })
  )
)

describe('the registry', () => {
  it('holds every exchange that a file exports', async () => {
    const found: Record<string, Exchange> = {}
    for (const file of readdirSync(SOURCES).filter(name => name.endsWith('.ts'))) {
      const exported = (await import(new URL(file, SOURCES).href)) as Record<string, unknown>
      for (const value of Object.values(exported)) {
        const each = value as Partial<Exchange> | null
        if (typeof value === 'object' && typeof each?.id === 'string' && typeof each.open === 'function')
          found[each.id] = each as Exchange
      }
    }
    expect(Object.keys(found).length).toBeGreaterThan(1)
    expect(EXCHANGES).toEqual(found)
  })

  it.each(Object.entries(EXCHANGES))('%s says what it can prove, and is put to the test here', (id, exchange) => {
    expect(exchange.id).toBe(id)
    expect(exchange.levels.length).toBeGreaterThan(0)
    for (const level of exchange.levels) {
      expect(exchange.proof[level]).toBeDefined()
      const selection = { ...l2, level }
      expect(described(exchange, ['X'], selection)[0]).toMatchObject({ exchange: id, instId: 'X', level })
      const [first, ...others] = exchange.endpoints(selection).routes
      expect(first!.feeds).toContain('book')
      expect([first, ...others].flatMap(route => route!.feeds).sort()).toEqual(['book', 'trades'])
      expect(VARIANTS.filter(each => each.exchange === id).map(each => each.selection.level)).toContain(level)
    }
  })
})

/** The gaps of a capture. They must stand in status, events and snapshots alike. */
function gapsOf(sink: MemorySink): number {
  const events = sink.lines.filter(({ text }) => text.includes('"event_type":"gap"')).length
  const statuses = sink.statuses('gap').filter(row => (row.detail as { channel?: string }).channel !== 'trades').length
  const flagged = sink.lines.filter(({ text }) => text.includes('"gap_detected":true')).length
  expect([events, flagged]).toEqual([statuses, statuses])
  return statuses
}

/** The snapshots. */
function booksOf(sink: MemorySink): string[] {
  return sink.lines.filter(({ feed }) => /^l[23]_(?:spot|perps)$/.test(feed)).map(({ text }) => text)
}

/** Up to so many of a list, spread over it. */
function spread<T>(list: readonly T[], count: number): T[] {
  if (list.length <= count) return [...list]
  return Array.from({ length: count }, (_, n) => list[Math.floor((n * list.length) / count)]!)
}

const report: string[] = []
afterAll(() => console.log(`dropped frames of simulated exchanges: ${report.join('; ')}`))

describe.each(VARIANTS)('$name', { timeout: LONG_MS }, variant => {
  const exchange = EXCHANGES[variant.exchange]!
  const proof = exchange.proof[variant.selection.level]!
  const tape = TAPES.get(variant)!
  let clean: MemorySink
  /** Places of updates with another one of the same instrument behind them, and that one's place. */
  let updates: [at: number, next: number][]

  beforeAll(() => {
    clean = playTape(exchange, tape.lines)
    updates = [...updatePlaces(tape.lines, clean).values()].flatMap(places =>
      places.slice(0, -1).map((at, n): [number, number] => [at, places[n + 1]!])
    )
  })

  const without = (at: number) => playTape(exchange, [...tape.lines.slice(0, at), ...tape.lines.slice(at + 1)])
  /** How many books one lost frame breaks. */
  const broken = proof.sequence === 'connection' ? variant.instIds.length : 1
  const noticed = (sink: MemorySink) => gapsOf(sink) > 0 || sink.statuses('checksum_mismatch').length > 0

  it('captures books, events and trades without a gap, and a rebuild gives the same bytes', () => {
    expect(gapsOf(clean)).toBe(0)
    expect(clean.text()).toBe(tape.derived)
    expect(playTape(exchange, tape.lines).text()).toBe(tape.derived)
    expect(clean.statuses('checksum_mismatch')).toEqual([])
    expect(clean.statuses('refused')).toEqual([])
    expect(snapshotDifference(clean, variant.config?.depth ?? 400)).toBeNull()
    for (const instId of variant.instIds) {
      const shots = clean.lines.filter(({ feed, name }) => /^l[23]_(?:spot|perps)$/.test(feed) && name === instId)
      expect(shots.length).toBeGreaterThan(2)
      expect(clean.records('trades', instId).length).toBeGreaterThan(0)
      expect(clean.statuses('synced', instId).length).toBe(1)
    }
    expect(updates.length).toBeGreaterThan(50)
  })

  it('finds every lost frame where the exchange can prove it', () => {
    let found = 0
    const sample = spread(updates, SAMPLES)
    for (const [at] of sample) {
      const sink = without(at)
      if (proof.sequence !== 'none') expect(gapsOf(sink), `without line ${at}`).toBe(broken)
      if (noticed(sink)) found++
      // What a checksum does not show, the next frame has made good.
      else if (proof.checksum)
        expect(booksOf(sink).slice(-variant.instIds.length)).toEqual(booksOf(clean).slice(-variant.instIds.length))
    }
    report.push(`${variant.name} tried ${sample.length}, found ${found}`)
    if (proof.sequence === 'none' && !proof.checksum) expect(found).toBe(0)
    else if (proof.sequence === 'none') expect(found / sample.length).toBeGreaterThan(0.2)
  })

  it('finds two frames in the wrong order where the exchange can prove it', () => {
    for (const [at, next] of spread(updates, SAMPLES)) {
      const [first, second] = [frameLine(tape.lines[at]!).msg!, frameLine(tape.lines[next]!).msg!]
      const swapped = [...tape.lines]
      swapped[at] = swapped[at]!.replace(first, () => second)
      swapped[next] = swapped[next]!.replace(second, () => first)
      const gaps = gapsOf(playTape(exchange, swapped))
      if (proof.sequence !== 'none') expect(gaps, `lines ${at} and ${next}`).toBe(broken)
    }
  })

  it('takes a doubled frame for one', () => {
    for (const [at] of spread(updates, SAMPLES)) {
      const sink = playTape(exchange, [...tape.lines.slice(0, at), tape.lines[at]!, ...tape.lines.slice(at)])
      expect(gapsOf(sink), `line ${at} doubled`).toBe(0)
      expect(booksOf(sink)).toEqual(booksOf(clean))
      if (proof.sequence !== 'none') expect(sink.text()).toBe(clean.text())
    }
  })

  it('goes on from a state line as if nothing had been', () => {
    for (const at of spread([...tape.lines.keys()].slice(2, -2), SAMPLES)) {
      const whole = new TapePlayer(exchange)
      whole.play(tape.lines.slice(0, at))
      const { us } = frameLine(tape.lines[at]!)
      const before = whole.sink.lines.length
      const states = whole.turn(us)
      const playback = playTape(exchange, [
        ...states,
        ...tape.lines.slice(at).filter(text => !/"dir":"out"/.test(text))
      ])
      whole.play(tape.lines.slice(at))
      const closing = /"event":"(?:disconnected)"/
      const rest = whole.sink.lines.slice(before).filter(({ text }) => !closing.test(text))
      expect(playback.lines.map(({ feed, text }) => feed + text)).toEqual(rest.map(({ feed, text }) => feed + text))
    }
  })

  it('hostile frames end nothing, and every snapshot is what the events give', () => {
    const random = seeded(variant.name.length * 7919)
    const places = tape.lines.flatMap((text, at) => (frameLine(text).msg === undefined ? [] : [at]))
    const rounds = Math.ceil(HOSTILE / 50)
    for (let round = 0; round < rounds; round++) {
      const player = new TapePlayer(exchange)
      const lines = [...tape.lines]
      for (let n = 0; n < 50; n++) {
        const at = places[Math.floor(random() * places.length)]!
        const frame = frameLine(tape.lines[at]!).msg!
        const hostile = mutate(frame, random)
        const head = tape.lines[at]!.slice(0, tape.lines[at]!.indexOf('"msg":'))
        lines[at] = `${head}"text":${JSON.stringify(hostile)}}`
      }
      player.play(lines)
      const assertions = player.requests.logs.filter(({ message }) => message.startsWith('Assertion'))
      expect(assertions).toEqual([])
      for (const { text } of player.sink.lines) expect(() => JSON.parse(text)).not.toThrow()
      expect(snapshotDifference(player.sink, variant.config?.depth ?? 400), `round ${round}`).toBeNull()
    }
  })
})
