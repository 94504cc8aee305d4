import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HOUR_US, hourOf, isoMs, parseDuration, parseMoment, usText } from '../../src/core/time.ts'

describe('usText', () => {
  it('says what String says', () => {
    const us = fc.integer({ min: 0, max: Date.UTC(2255, 0) * 1000 })
    fc.assert(
      fc.property(us, moment => {
        expect(usText(moment)).toBe(String(moment))
      })
    )
    expect([usText(0), usText(999_999), usText(1_000_000), usText(1_795_215_646_000_001)]).toEqual([
      '0',
      '999999',
      '1000000',
      '1795215646000001'
    ])
  })
})

describe('isoMs', () => {
  it('says what Date says', () => {
    const us = fc.integer({ min: 0, max: Date.UTC(2255, 0) * 1000 })
    fc.assert(
      fc.property(us, moment => {
        expect(isoMs(moment)).toBe(new Date(Math.floor(moment / 1000)).toISOString())
      })
    )
  })

  it('goes over the end of a year, and back', () => {
    const newYear = Date.UTC(2027, 0) * 1000
    expect(isoMs(newYear - 1)).toBe('2026-12-31T23:59:59.999Z')
    expect(isoMs(newYear)).toBe('2027-01-01T00:00:00.000Z')
    expect(isoMs(newYear - 1)).toBe('2026-12-31T23:59:59.999Z')
    expect(isoMs(newYear - 990_001)).toBe('2026-12-31T23:59:59.009Z')
    expect(isoMs(newYear + 12_345)).toBe('2027-01-01T00:00:00.012Z')
    expect(isoMs(Date.UTC(2028, 1, 29, 12) * 1000)).toBe('2028-02-29T12:00:00.000Z')
  })
})

it('hours begin on the hour', () => {
  const hour = Date.UTC(2026, 11, 31, 23) * 1000
  expect(hourOf(hour + HOUR_US - 1)).toBe(hourOf(hour))
  expect(hourOf(hour + HOUR_US)).toBe(hourOf(hour) + 1)
  expect(hourOf(hour) * HOUR_US).toBe(hour)
})

describe('parseDuration', () => {
  it.each([
    ['500ms', 500],
    ['2s', 2000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['6h', 21_600_000],
    ['5d', 432_000_000],
    [' 2s ', 2000],
    ['0s', 0]
  ])('%s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })

  it.each(['', '5', 's', '-1s', '1 s', '1y', '1e3s', '.5s', '5.s', '2s2s', '2S'])('%j is none', text => {
    expect(parseDuration(text)).toBeUndefined()
  })
})

describe('parseMoment', () => {
  const us = (iso: string) => Date.parse(iso) * 1000

  it.each([
    ['2026-11-20', us('2026-11-20T00:00:00Z')],
    ['2026-11-20 15:30', us('2026-11-20T15:30:00Z')],
    ['2026-11-20T15:30:45', us('2026-11-20T15:30:45Z')],
    ['2026-11-20T15:30:45Z', us('2026-11-20T15:30:45Z')],
    ['2026-11-20 15:30:45.5Z', us('2026-11-20T15:30:45.500Z')],
    ['2026-11-20T15:30:45.123456Z', us('2026-11-20T15:30:45Z') + 123_456],
    ['2026-11-20T15:30:45.123456789Z', us('2026-11-20T15:30:45Z') + 123_456],
    ['2026-11-20T15:30:45.000001+02:00', us('2026-11-20T13:30:45Z') + 1],
    ['1795215646000001', 1_795_215_646_000_001]
  ])('%s', (text, moment) => {
    expect(parseMoment(text)).toBe(moment)
  })

  it.each([
    '',
    'now',
    '-5m',
    '2026-02-30',
    '2026-13-01',
    '2026-11-20 25:00',
    '15:30',
    '2026-11-20T15:30:45.Z',
    '179521564600000'
  ])('%j is none', text => {
    expect(parseMoment(text)).toBeUndefined()
  })

  it('counts from now', () => {
    expect(parseMoment('now', 7_000_000_000)).toBe(7_000_000_000)
    expect(parseMoment('-5m', 7_000_000_000)).toBe(6_700_000_000)
    expect(parseMoment('-5', 7_000_000_000)).toBeUndefined()
  })
})
