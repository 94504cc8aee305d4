import { afterAll, describe, expect, it } from 'vitest'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import { hasRecordings, type MemorySink, NEEDS_RECORDINGS } from '../helpers/driver.ts'
import { type RecordingOptions, tapeOfRecording } from '../helpers/recorded.ts'
import { playTape, updatePlaces } from '../helpers/tape.ts'

// Real traffic with frames taken out of it: how many of the losses each exchange lets a capture find. The two exchanges
// whose recordings hold their own sequence of mutations are in recordings.test.ts.

type Row = Record<string, unknown>
const l2 = { level: 'l2', market: null, channel: null, updateSpeed: null } as const
const DROPS = Number(process.env.L3CAP_CONTRACT_SAMPLES ?? 25)

interface Case extends RecordingOptions {
  readonly exchange: string
  /** Updates that are applied, at least. */
  readonly updates: number
  /** Losses that show: all; all but those that the next frame makes good (a checksum); none, for want of any proof. */
  readonly found: 'all' | 'unhealed' | 'none'
}

const binanceAnswer = (message: Row) => [{ result: null, id: message.id }]
const CASES: readonly Case[] = [
  {
    exchange: 'kraken',
    recording: 'kraken-v2-book10-btc',
    selection: l2,
    instIds: ['BTC/USD'],
    config: { depth: 10 },
    answer: () => [],
    updates: 561,
    found: 'unhealed'
  },
  {
    exchange: 'binance',
    recording: 'binance-spot-btcusdt-1',
    selection: l2,
    instIds: ['BTCUSDT'],
    answer: binanceAnswer,
    linesMax: 4000,
    updates: 300,
    found: 'all'
  },
  {
    exchange: 'binance',
    recording: 'binance-spot-2',
    selection: l2,
    instIds: ['NKNUSDT', 'BLZETH', 'LRCBTC', 'RUNEEUR'],
    answer: binanceAnswer,
    updates: 160,
    found: 'all'
  },
  {
    exchange: 'binance',
    recording: 'binance-usdm-btcusdt-1',
    selection: { ...l2, market: 'perp' },
    instIds: ['BTCUSDT'],
    answer: binanceAnswer,
    linesMax: 4000,
    updates: 200,
    found: 'all'
  },
  {
    exchange: 'coinbase',
    recording: 'coinbase-level2-1',
    selection: l2,
    instIds: ['SKL-USD', 'BAND-GBP', 'NMR-EUR', 'YFI-BTC'],
    answer: message => [
      {
        type: 'subscriptions',
        channels: (message.channels as string[]).map(name => ({ name, product_ids: message.product_ids }))
      }
    ],
    without: /^\{"type":"subscriptions"/,
    // Nobody had subscribed heartbeats: after 30 s without any the feed counts as dead.
    linesMax: 8000,
    updates: 500,
    found: 'none'
  },
  {
    exchange: 'bitstamp',
    recording: 'bitstamp-diff-1',
    selection: l2,
    instIds: ['ethusd', 'xrpeur', 'sgbeur'],
    answer: message =>
      message.event === 'bts:subscribe'
        ? [{ event: 'bts:subscription_succeeded', channel: (message.data as Row).channel, data: {} }]
        : [],
    updates: 60,
    found: 'none'
  }
]

const report: string[] = []
afterAll(() => console.log(`dropped frames of recordings: ${report.join('; ')}`))

const gapsOf = (sink: MemorySink) =>
  sink.statuses('gap').filter(row => (row.detail as { channel?: string }).channel !== 'trades').length

/** The newest snapshot of each instrument. */
const lastBooks = (sink: MemorySink) =>
  Object.fromEntries(
    sink.lines.filter(({ feed }) => /^l2_(?:spot|perps)$/.test(feed)).map(line => [line.name, line.text])
  )

describe.skipIf(!hasRecordings).each(CASES)(`$recording${NEEDS_RECORDINGS}`, { timeout: 300_000 }, options => {
  const exchange = EXCHANGES[options.exchange]!
  const tape = hasRecordings ? tapeOfRecording(exchange, options) : { lines: [], derived: '' }

  it('is captured without a gap, and rebuilt to the same bytes', () => {
    const clean = playTape(exchange, tape.lines)
    expect(clean.text()).toBe(tape.derived)
    expect(gapsOf(clean)).toBe(0)
    expect(clean.statuses('checksum_mismatch')).toEqual([])
    expect(clean.statuses('synced')).toHaveLength(options.instIds.length)
    const count = [...updatePlaces(tape.lines, clean).values()].flat().length
    expect(count).toBeGreaterThanOrEqual(options.updates)
  })

  it('shows its lost frames', () => {
    const clean = playTape(exchange, tape.lines)
    // Of each instrument the last update has none behind it that could show its loss.
    const places = [...updatePlaces(tape.lines, clean).values()].flatMap(list => list.slice(0, -1))
    const step = Math.max(1, Math.floor(places.length / DROPS))
    const tried = places.filter((_, n) => n % step === 0)
    let found = 0
    for (const at of tried) {
      const sink = playTape(exchange, [...tape.lines.slice(0, at), ...tape.lines.slice(at + 1)])
      if (options.found === 'all') expect(gapsOf(sink), `without line ${at}`).toBe(1)
      if (gapsOf(sink) > 0 || sink.statuses('checksum_mismatch').length > 0) found++
      else if (options.found === 'unhealed') expect(lastBooks(sink)).toEqual(lastBooks(clean))
    }
    report.push(`${options.recording} tried ${tried.length}, found ${found}`)
    if (options.found === 'none') expect(found).toBe(0)
    if (options.found === 'unhealed') expect(found / tried.length).toBeGreaterThan(0.5)
  })
})
