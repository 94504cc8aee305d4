import { describe, expect, test, vi } from 'vitest'
import { type InstrumentSeries, SeriesBuilder } from '../../src/quality/series.ts'

const START_US = Date.UTC(2026, 10, 20, 10) * 1000
const SECOND_US = 1_000_000
const MINUTE_US = 60 * SECOND_US
const HOUR_US = 60 * MINUTE_US

type Level = readonly [price: string, size: string]

/** A snapshot record as a capture writes it, as far as it matters here. */
function snapshot(bids: readonly Level[], asks: readonly Level[], more = ''): string {
  const side = (levels: readonly Level[]) => JSON.stringify(levels.map(([price, size]) => [price, size, '0', '1']))
  const best = (levels: readonly Level[]) => JSON.stringify(levels[0]?.[0] ?? null)
  return (
    `{"timestamp_utc":"x","bids_top400":${side(bids)},"asks_top400":${side(asks)},"best_bid":${best(bids)},` +
    `"best_ask":${best(asks)},"mid_price":"0","gap_detected":false,"conn":"c-1"${more}}`
  )
}

/** One with this spread around 1000. */
const spreadOf = (bid: string, ask: string) => snapshot([[bid, '1']], [[ask, '2']])
const event = (type: string, size: string | null) =>
  `{"instId":"BTCUSD","event_type":"${type}","order_id":"1","side":"bid","price":"1","size":${JSON.stringify(size)}}`
const trade = (size: string, metadata = '{}') => `{"trade_id":"1","price":"1","size":"${size}","metadata":${metadata}}`

/** The series of an hour in which each of these lines comes so many seconds after its start. */
function seriesOf(lines: readonly (readonly [feed: string, second: number, line: string])[]): InstrumentSeries {
  const builder = new SeriesBuilder('bitfinex', 'BTCUSD', { fromUs: START_US, toUs: START_US + HOUR_US })
  for (const [feed, second, line] of lines) builder.take(feed, START_US + second * SECOND_US, line)
  return builder.finish()
}

describe('the series of an instrument', () => {
  test.each([
    [10 * MINUTE_US, 5],
    [HOUR_US, 5],
    [24 * HOUR_US, 60],
    [5 * 24 * HOUR_US, 300],
    [365 * 24 * HOUR_US, 21_600],
    [20 * 365 * 24 * HOUR_US, 5 * 86_400]
  ])('have at most about 1500 round buckets for %d µs', (rangeUs, bucketSeconds) => {
    const { bucketUs, fromUs, mid } = new SeriesBuilder('x', 'y', {
      fromUs: START_US,
      toUs: START_US + rangeUs
    }).finish()
    expect(bucketUs).toBe(bucketSeconds * SECOND_US)
    expect(fromUs % bucketUs).toBe(0)
    expect(mid.length).toBeLessThanOrEqual(1502)
    expect(fromUs + mid.length * bucketUs).toBeGreaterThanOrEqual(START_US + rangeUs)
  })

  test('have the median and the largest spread and the last mid of each bucket', () => {
    const series = seriesOf([
      ['l3_spot', 0, spreadOf('999', '1001')],
      ['l3_spot', 1, spreadOf('999.5', '1000.5')],
      ['l3_spot', 2, spreadOf('990', '1020')],
      ['l3_spot', 10, spreadOf('999', '1000')],
      // So soon after another it does not count for the median.
      ['l3_spot', 10.01, spreadOf('999', '1009')],
      ['l3_spot', 11, spreadOf('999', '1004')]
    ])
    expect(series.spread.slice(0, 4)).toEqual([2, null, 3, null])
    expect(series.spreadMax.slice(0, 4)).toEqual([30, null, 10, null])
    expect(series.mid.slice(0, 4)).toEqual([1005, null, 1001.5, null])
  })

  test('take no notice of flagged snapshots, empty sides, damage and times that run back', () => {
    const good = spreadOf('999', '1001')
    const series = seriesOf([
      ['l3_spot', 10, good],
      ['l3_spot', 11, good.replace('"gap_detected":false', '"gap_detected":true').replaceAll('1001', '1500')],
      ['l3_spot', 12, snapshot([], [['1', '1']])],
      ['l3_spot', 13, good.slice(0, 40)],
      ['l3_spot', 15, `x${good}`],
      ['l3_spot', 20, good.replaceAll('"1001"', '"NaN"')],
      ['l3_spot', 25, 'null'],
      ['l3_spot', 0, good],
      ['l3_spot', Number.NaN, good],
      ['l3_spot', -5, good],
      ['l3_spot', 3600, good],
      ['trades', 10, 'x'],
      ['trades', 10, trade('-1')],
      ['l3_events', 10, '']
    ])
    expect(series.spread.filter(value => value !== null)).toEqual([2, 2])
    expect(series.spread.slice(0, 5)).toEqual([null, null, 2, 2, null])
    expect(series.depths[0]!.bids.slice(0, 5)).toEqual([null, null, 1, null, null])
    expect(series.volume[2]).toBe(0)
    expect(series.eventsPerSecond[2]).toBe(0)
    expect(series.sizes).toEqual([])
  })

  test('have the size near the mid, and say how many books end before', () => {
    const near: Level[] = [
      ['999.5', '1'],
      ['999', '0.000000000000000002'],
      ['998.9', '4'],
      ['995', '8'],
      ['994', '16']
    ]
    const series = seriesOf([
      [
        'l2_perps',
        0,
        snapshot(near, [
          ['1000.5', '3'],
          ['1001.1', '1'],
          ['1006', '1']
        ])
      ],
      // Of its asks nothing lies beyond 50 bps.
      [
        'l2_perps',
        3,
        snapshot(
          [
            ['999.5', '3'],
            ['990', '1']
          ],
          [
            ['1000.5', '1'],
            ['1002', '5']
          ]
        )
      ]
    ])
    const [ten, fifty] = series.depths
    expect([ten!.bps, fifty!.bps]).toEqual([10, 50])
    expect([ten!.bids[0], ten!.asks[0], ten!.cutShare]).toEqual([2, 2, 0])
    expect([fifty!.bids[0], fifty!.asks[0], fifty!.cutShare]).toEqual([8, 5, 0.5])
  })

  test('parse at most three snapshots of a bucket, however many there are', () => {
    const parse = vi.spyOn(JSON, 'parse')
    seriesOf(Array.from({ length: 1000 }, (_, at) => ['l3_spot', at / 100, spreadOf('999', '1001')] as const))
    expect(parse.mock.calls.length).toBe(6)
    parse.mockRestore()
  })

  test('count changes of the book and trades where something was captured', () => {
    const series = seriesOf([
      ...['clear', 'snapshot', 'snapshot'].map(type => ['l3_events', 0, event(type, '1')] as const),
      ...['open', 'change', 'done', 'match', 'received'].map(type => ['l3_events', 1, event(type, '1')] as const),
      ['l3_events', 2, event('gap', null)],
      ['trades', 3, trade('0.5')],
      ['trades', 4, trade('1e-1')],
      ['trades', 4, trade('7', '{"backfill":true}')],
      ['l3_events', 11, event('open', '1')],
      ['l3_spot', 20, spreadOf('999', '1001')]
    ])
    expect(series.eventsPerSecond.slice(0, 6)).toEqual([1, null, 0.2, null, 0, null])
    expect(series.tradesPerSecond.slice(0, 6)).toEqual([0.4, null, 0, null, 0, null])
    expect(series.volume.slice(0, 6)).toEqual([0.6, null, 0, null, 0, null])
  })

  test('count sizes in four bins to the decade, orders when they are opened', () => {
    const series = seriesOf([
      ...['0.001', '0.00177', '0.0018', '0.0099'].map(size => ['l3_events', 0, event('open', size)] as const),
      ['l3_events', 1, event('change', '0.001')],
      ...['0.01', '0.001'].map(size => ['trades', 2, trade(size)] as const)
    ])
    expect(series.sizes).toEqual([
      { fromSize: 0.001, orders: 2, trades: 1 },
      { fromSize: 0.001778, orders: 1, trades: 0 },
      { fromSize: 0.003162, orders: 0, trades: 0 },
      { fromSize: 0.005623, orders: 1, trades: 0 },
      { fromSize: 0.01, orders: 0, trades: 1 }
    ])
  })

  test('show one level of an instrument that was captured at both', () => {
    const series = seriesOf([
      ['l2_spot', 0, spreadOf('999', '1001')],
      ['l2_updates', 0, event('update', null)],
      ['l3_events', 0, event('open', '1')],
      ['l3_spot', 0, spreadOf('900', '1001')]
    ])
    expect([series.spreadMax[0], series.eventsPerSecond[0]]).toEqual([2, 0.2])
  })
})
