import { beforeAll, describe, expect, it } from 'vitest'
import { HOUR_US, isoMs } from '../../src/core/time.ts'
import { CoverageBuilder, type CoverageRange, type InstrumentCoverage } from '../../src/quality/coverage.ts'
import { mergeDays, parseDay, splitDays } from '../../src/quality/days.ts'

/** 2026-11-20T10:00Z. */
const TEN_US = Date.UTC(2026, 10, 20, 10) * 1000
const MINUTE_US = 60_000_000
const CADENCE_US = 2_000_000
/** Looked at while it runs, two hours on; and long after. */
const RUNNING = { nowUs: TEN_US + 2 * HOUR_US }
const LONG_AFTER = { nowUs: TEN_US + 1000 * HOUR_US }

/** Moments are microseconds after ten o'clock. */
class Tape {
  readonly feeds: Record<string, [us: number, line: string][]> = { status: [], l3_events: [], l3_spot: [], trades: [] }
  private syncedUs = 0

  status(us: number, event: string, detail: Record<string, unknown> = {}): this {
    return this.add('status', us, `"instId":"BTC/USD","event":"${event}","detail":${JSON.stringify(detail)}}`)
  }

  /** A process comes to life: `started`, `synced`, and the image. */
  start(us: number, waitUs = 100_000): this {
    return this.status(us, 'started').sync(us + waitUs)
  }

  sync(us: number): this {
    this.syncedUs = us
    this.status(us, 'synced', { conn: 'x-1' })
    return this.add('l3_events', us, '"event_type":"clear","metadata":{}}')
  }

  gap(us: number, cause: string): this {
    this.shot(us, true)
    return this.status(us, 'gap', { cause, reason: cause, conn: 'x-1' })
  }

  shot(us: number, flagged = false): this {
    const synced = isoMs(TEN_US + this.syncedUs)
    return this.add(
      'l3_spot',
      us,
      `"gap_detected":${flagged},"synced_at":"${synced}","conn":"x-1","frame":7,"stats":{}}`
    )
  }

  /** A live book: an event each second, a snapshot in each slot of the cadence, 3 ms late. */
  live(fromUs: number, toUs: number, without: readonly number[] = []): this {
    for (let us = Math.ceil(fromUs / 1_000_000) * 1_000_000; us < toUs; us += 1_000_000) {
      this.add('l3_events', us + 1000, '"event_type":"open","metadata":{}}')
      if (us % CADENCE_US === 0 && !without.includes(us)) this.shot(us + 3000)
    }
    return this
  }

  private add(feed: string, us: number, rest: string): this {
    const at = TEN_US + us
    this.feeds[feed]!.push([at, `{"timestamp_utc":"${isoMs(at)}","recv_us":${at},${rest}`])
    return this
  }

  build(range: CoverageRange = LONG_AFTER, order: readonly string[] = Object.keys(this.feeds)): InstrumentCoverage {
    const builder = new CoverageBuilder('x', 'BTC-USD')
    for (const hour of [0, 1, 2, 3]) builder.countFrames('x-1', TEN_US / HOUR_US + hour, 1000)
    builder.countFrames('x-2', TEN_US / HOUR_US, 5)
    for (const feed of order) for (const [us, line] of this.feeds[feed]!) builder.take(feed, us, line)
    return builder.build(range)!
  }
}

const gapsOf = ({ gaps }: InstrumentCoverage) =>
  gaps.map(({ cause, fromUs, toUs }) => [cause, fromUs - TEN_US, toUs === null ? null : toUs - TEN_US])
const hoursOf = ({ hours }: InstrumentCoverage) =>
  hours.map(({ hour, verdict, slots }) => [hour - TEN_US / HOUR_US, verdict, slots.present, slots.expected])

/** Live through three hours, from ten o'clock to one. */
const threeHours = () =>
  new Tape()
    .start(-200_000)
    .live(0, 3 * HOUR_US)
    .status(3 * HOUR_US, 'stopped')

describe('hours', () => {
  it('are complete when every slot is there', () => {
    const built = threeHours().build()
    expect(hoursOf(built)).toEqual([
      [-1, 'complete', 0, 0],
      [0, 'complete', 1800, 1800],
      [1, 'complete', 1800, 1800],
      [2, 'complete', 1800, 1800]
    ])
    expect(built.gaps).toEqual([])
    expect(built.instId).toBe('BTC/USD')
    expect(built.total).toMatchObject({ complete: 4, slots: { share: 1 }, events: 10_801, frames: 3000, gaps: 0 })
    expect(built.hours[1]!.connections).toEqual({ 'x-1': 1000 })
    expect(built.days.map(({ date, complete }) => [date, complete])).toEqual([['2026-11-20', 4]])
  })

  it('are the same whatever feed is read first', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, MINUTE_US)
      .start(2 * MINUTE_US)
      .live(3 * MINUTE_US, 4 * MINUTE_US)
    const want = tape.build()
    expect(tape.build(LONG_AFTER, ['l3_spot', 'trades', 'l3_events', 'status'])).toEqual(want)
    expect(tape.build(LONG_AFTER, ['l3_events', 'status', 'trades', 'l3_spot'])).toEqual(want)
  })

  it('are degraded by one snapshot that is missing, and status does not tell why', () => {
    const built = new Tape().start(0).live(200_000, HOUR_US, [1800_000_000]).status(HOUR_US, 'stopped').build()
    expect(hoursOf(built)).toEqual([[0, 'degraded', 1798, 1799]])
    expect(gapsOf(built)).toEqual([['unexplained', 1800_000_000, 1802_000_000]])
  })

  it('lack a snapshot at the border of one too', () => {
    const built = new Tape()
      .start(0)
      .live(200_000, 2 * HOUR_US, [HOUR_US - CADENCE_US, HOUR_US])
      .build(RUNNING)
    expect(gapsOf(built)).toEqual([['unexplained', HOUR_US - CADENCE_US, HOUR_US + CADENCE_US]])
    expect(built.hours.map(({ slots }) => slots.expected - slots.present)).toEqual([1, 1])
  })

  it('count a slot once, though a process that began anew took it again', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, 2 * CADENCE_US + 1)
      .start(2 * CADENCE_US + 200_000)
    const built = tape
      .shot(2 * CADENCE_US + 400_000)
      .live(3 * CADENCE_US, 10 * CADENCE_US, [4 * CADENCE_US])
      .build()
    expect(hoursOf(built)[0]![2]).toBe(8)
  })

  it('are degraded by a gap that cost no snapshot', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, MINUTE_US + 1)
      .gap(MINUTE_US + 500_000, 'sequence')
    const built = tape
      .sync(MINUTE_US + 600_000)
      .live(MINUTE_US + 700_000, 2 * MINUTE_US)
      .status(2 * MINUTE_US, 'stopped')
      .build()
    expect(gapsOf(built)).toEqual([['sequence', MINUTE_US + 500_000, MINUTE_US + 600_000]])
    expect(built.hours[0]).toMatchObject({ verdict: 'degraded', gaps: 1, gapMs: 100 })
    expect(built.hours[0]!.slots).toMatchObject({ expected: 59, present: 59 })
  })

  it('between the first and the last are missing where nothing was captured', () => {
    const tape = new Tape().start(0).live(200_000, MINUTE_US).status(MINUTE_US, 'stopped')
    const built = tape
      .start(2 * HOUR_US + MINUTE_US)
      .live(2 * HOUR_US + MINUTE_US + 200_000, 2 * HOUR_US + 2 * MINUTE_US)
      .build()
    expect(hoursOf(built).map(([hour, verdict]) => [hour, verdict])).toEqual([
      [0, 'degraded'],
      [1, 'missing'],
      [2, 'degraded']
    ])
    expect(built.hours.map(({ gapMs }) => gapMs)).toEqual([59 * 60_000, 3_600_000, expect.any(Number)])
    expect(built.hours[1]).toMatchObject({ slots: { expected: 1800, present: 0, share: 0 }, frames: 1000 })
    expect(gapsOf(built)[0]).toEqual(['stopped', MINUTE_US, 2 * HOUR_US + MINUTE_US + 100_000])
  })
})

describe('gaps', () => {
  it('over the border of an hour are one, and count in each hour by their part', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, HOUR_US - MINUTE_US)
      .gap(HOUR_US - MINUTE_US, 'disconnect')
    tape
      .sync(HOUR_US + 2 * MINUTE_US + 500_000)
      .live(HOUR_US + 2 * MINUTE_US + 500_000, 2 * HOUR_US)
      .status(2 * HOUR_US, 'stopped')
    const built = tape.build()
    expect(gapsOf(built)).toEqual([['disconnect', HOUR_US - MINUTE_US, HOUR_US + 2 * MINUTE_US + 500_000]])
    expect(built.hours.map(({ gaps, gapMs }) => [gaps, gapMs])).toEqual([
      [1, 60_000],
      [1, 120_500]
    ])
    expect(built.hours.map(({ slots }) => slots.expected - slots.present)).toEqual([30, 61])
    expect(built.total).toMatchObject({ gaps: 1, gapMs: 180_500 })
    expect(built.days[0]).toMatchObject({ gaps: 1 })
  })

  it('of a killed process begin with what it wrote last, and end with the next book', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, MINUTE_US)
      .start(2 * MINUTE_US)
    const built = tape
      .live(2 * MINUTE_US + 200_000, 3 * MINUTE_US)
      .status(3 * MINUTE_US, 'stopped')
      .build()
    expect(gapsOf(built)).toEqual([['killed', MINUTE_US - 1_000_000 + 1000, 2 * MINUTE_US + 100_000]])
  })

  it('are open where a process died and none came after it', () => {
    const tape = new Tape().start(0).live(200_000, MINUTE_US)
    const lastUs = MINUTE_US - 999_000
    expect(gapsOf(tape.build())).toEqual([['killed', lastUs, null]])
    expect(tape.build().gaps[0]!.lengthMs).toBe(Math.round((HOUR_US - lastUs) / 1000))
    // One that wrote five seconds ago runs.
    const running = tape.build({ nowUs: TEN_US + MINUTE_US + 4_000_000 })
    expect(gapsOf(running)).toEqual([])
    expect(running.hours[0]).toMatchObject({ verdict: 'complete', toUs: TEN_US + lastUs })
  })

  it('are open where the book has not come back', () => {
    const tape = new Tape().start(0).live(200_000, MINUTE_US).gap(MINUTE_US, 'silence')
    expect(gapsOf(tape.build({ nowUs: TEN_US + MINUTE_US + 1_000_000 }))).toEqual([['silence', MINUTE_US, null]])
  })

  it('of trades are none of the book', () => {
    const tape = new Tape()
      .start(0)
      .live(200_000, MINUTE_US)
      .status(MINUTE_US - 1, 'gap', { channel: 'trades' })
    expect(tape.status(MINUTE_US, 'stopped').build().gaps).toEqual([])
  })

  it('are told of a first book only when it is late', () => {
    const quick = new Tape().start(0, 30_500_000).live(31_000_000, MINUTE_US).status(MINUTE_US, 'stopped').build()
    expect(gapsOf(quick)).toEqual([])
    expect(quick.hours[0]).toMatchObject({ verdict: 'complete', fromUs: TEN_US + 30_500_000 })
    const slow = new Tape()
      .start(0, 2 * MINUTE_US + 500_000)
      .live(2 * MINUTE_US + 500_000, 3 * MINUTE_US)
      .status(3 * MINUTE_US, 'stopped')
    expect(gapsOf(slow.build())).toEqual([['start', 0, 2 * MINUTE_US + 500_000]])
    expect(hoursOf(slow.build())).toEqual([[0, 'degraded', 29, 90]])
  })

  it('are not told of what lies before the records that are left', () => {
    const tape = new Tape()
      .live(0, MINUTE_US)
      .gap(MINUTE_US, 'sequence')
      .sync(MINUTE_US + 1_000_000)
    const built = tape
      .live(MINUTE_US + 1_500_000, 2 * MINUTE_US)
      .status(2 * MINUTE_US, 'stopped')
      .build()
    expect(gapsOf(built)).toEqual([['sequence', MINUTE_US, MINUTE_US + 1_000_000]])
    expect(built.hours[0]!.fromUs).toBe(TEN_US + 1000)
  })
})

describe('a range', () => {
  it('judges nothing outside of it', () => {
    const built = threeHours().build({ ...LONG_AFTER, fromUs: TEN_US + HOUR_US, toUs: TEN_US + 2 * HOUR_US })
    expect(hoursOf(built)).toEqual([[1, 'complete', 1800, 1800]])
  })

  it('in which nothing lies gives nothing', () => {
    const range = { ...LONG_AFTER, fromUs: TEN_US + 5 * HOUR_US, toUs: TEN_US + 6 * HOUR_US }
    expect(threeHours().build(range)).toBeUndefined()
    expect(new Tape().build()).toBeUndefined()
  })
})

describe('the cadence', () => {
  const hourOf200ms = (head: string) => {
    const builder = new CoverageBuilder('x', 'y')
    builder.countFrames('x-1', TEN_US / HOUR_US, 5, head)
    for (const at of [0, 1, 2, 4, 5, 6]) {
      const late = at % 2 === 0 ? 7000 : 1000
      builder.take(
        'l2_perps',
        TEN_US + at * 200_000 + late,
        '"gap_detected":false,"synced_at":"x","conn":"x-1","frame":1}'
      )
    }
    return builder.build(LONG_AFTER)!.hours[0]!
  }

  it('is what the frames say', () => {
    const head = '{"recv_us":1,"conn":"x-1","frame":1,"dir":"open","open":{"v":3,"config":{"depth":400,"cadenceMs":100}'
    expect(hourOf200ms(head)).toMatchObject({ cadenceMs: 100, slots: { present: 4, expected: 11 } })
  })

  it('is inferred from the snapshots where there are no frames', () => {
    expect(hourOf200ms('')).toMatchObject({ cadenceMs: 200, slots: { present: 4, expected: 5 } })
  })
})

describe('stored days', () => {
  /** Fifteen hours over midnight, with a gap over it. */
  function built(): InstrumentCoverage {
    const tape = new Tape()
      .start(0)
      .live(200_000, 13 * HOUR_US + 1800_000_000)
      .gap(13 * HOUR_US + 1800_000_000, 'disconnect')
    tape
      .sync(14 * HOUR_US + MINUTE_US + 500_000)
      .live(14 * HOUR_US + MINUTE_US + 500_000, 15 * HOUR_US)
      .status(15 * HOUR_US, 'stopped')
    return tape.build()
  }
  let whole: InstrumentCoverage
  beforeAll(() => {
    whole = built()
  })

  it('hold what touches them, and read back the same', () => {
    const days = splitDays(whole)
    expect(days.map(({ date, hours, gaps }) => [date, hours.length, gaps.length])).toEqual([
      ['2026-11-20', 14, 1],
      ['2026-11-21', 1, 1]
    ])
    for (const day of days) expect(parseDay(JSON.stringify(day), day.date)).toEqual({ day })
  })

  it('joined again are the whole, marked as stored', () => {
    const merged = mergeDays(undefined, splitDays(whole))!
    expect(merged.hours).toEqual(whole.hours.map(hour => ({ ...hour, stored: true })))
    expect({ ...merged, hours: [] }).toEqual({ ...whole, hours: [] })
  })

  it('give way to files that have more, and stand in for those that have less', () => {
    const [day] = splitDays(whole)
    const half = { ...whole, hours: whole.hours.slice(3).map((hour, at) => (at === 0 ? { ...hour, events: 0 } : hour)) }
    const merged = mergeDays(half, [day!])!
    expect(merged.hours.map(({ stored }) => stored)).toEqual([...Array(4).fill(true), ...Array(11).fill(false)])
    expect(merged.total.events).toBe(whole.total.events)
    expect(merged.gaps).toEqual(whole.gaps)
  })

  it('and files with hours between that nobody has make these missing', () => {
    const [day] = splitDays(whole)
    const merged = mergeDays({ ...whole, hours: whole.hours.slice(-1) }, [{ ...day!, hours: day!.hours.slice(0, 2) }])!
    expect(merged.hours.map(({ verdict }) => verdict)).toEqual([
      'complete',
      'complete',
      ...Array(12).fill('missing'),
      'degraded'
    ])
  })

  it('know a gap longer than the files that are left', () => {
    const left = {
      cause: 'unknown',
      // As far as the next record tells it, in milliseconds.
      fromUs: whole.gaps[0]!.fromUs - 300,
      toUs: TEN_US + 14 * HOUR_US + MINUTE_US,
      lengthMs: 60_000
    }
    const merged = mergeDays({ ...whole, gaps: [left] }, splitDays(whole).slice(0, 1))!
    expect(merged.gaps).toEqual(whole.gaps)
  })

  it('that are damaged are told as such', () => {
    const [day] = splitDays(whole)
    const text = JSON.stringify(day)
    const other = { ...day!, hours: [{ ...day!.hours[0]!, hour: 1 }] }
    for (const broken of [
      '',
      '{',
      '[]',
      'null',
      text.slice(0, -1),
      text.replace('"v":1', '"v":2'),
      JSON.stringify(other)
    ])
      expect(parseDay(broken, '2026-11-20')).toEqual({ trouble: expect.any(String) })
    const empty = JSON.stringify({ ...day, hours: [] })
    for (const each of [text, empty]) expect(parseDay(each, '2026-11-21')).toEqual({ trouble: 'another date is in it' })
  })
})
