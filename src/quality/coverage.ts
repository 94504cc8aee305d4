/** What of an instrument a vault covers: hour by hour, with every gap and its cause. */
import { HOUR_US, hourOf, isoMs } from '../core/time.ts'
import { cutHole, SlotCounter, slotsWithin } from './slots.ts'
import { type Span, Timeline } from './timeline.ts'

/**
 * `complete`: every snapshot slot is there, and no gap. `missing`: neither snapshots nor events, though some were due.
 * `degraded`: anything between.
 */
export type Verdict = 'complete' | 'degraded' | 'missing'

/** A stretch of time without a book that can be trusted. One that goes over the border of an hour is one gap. */
export interface Gap {
  /**
   * As status tells it (`sequence`, `disconnect`, ...); `stopped` and `killed` where no process ran, up to the next book;
   * `start` and `refused` for a first book that was late; `unknown` where its begin is no longer in the vault;
   * `unexplained` where snapshots are missing and status says nothing.
   */
  readonly cause: string
  readonly fromUs: number
  /** Null where it did not end within what was looked at. */
  readonly toUs: number | null
  /** As far as was looked at. */
  readonly lengthMs: number
}

/** What was found in a stretch of time. */
export interface Sums {
  /** Moments at which a snapshot was due, those that have one, and their share from 0 to 1 (1 where none was due). */
  readonly slots: { readonly expected: number; readonly present: number; readonly share: number }
  /** Lines of the connections that fed the instrument. One that feeds several instruments counts with each. */
  readonly frames: number
  readonly events: number
  readonly trades: number
  readonly mismatches: number
  /** Gaps that touch it, and how much of it they take. */
  readonly gaps: number
  readonly gapMs: number
  /** Of the instrument's own feeds, uncompressed. */
  readonly bytes: number
}

/** One hour, counted from the epoch. */
export interface HourCoverage extends Sums {
  readonly hour: number
  readonly verdict: Verdict
  /** The part of the hour that was to be captured: less than the hour where a capture began or ended in it. */
  readonly fromUs: number
  readonly toUs: number
  readonly cadenceMs: number
  /** Receive times of the first and the last record; null where there is none. */
  readonly firstUs: number | null
  readonly lastUs: number | null
  /** Lines of frames by connection. */
  readonly connections: Readonly<Record<string, number>>
  /** Known from `check` alone: the files are gone. */
  readonly stored: boolean
}

/** Sums over several hours, and how many there are of each verdict. */
export interface Total extends Sums {
  readonly complete: number
  readonly degraded: number
  readonly missing: number
}

/** One UTC day, `YYYY-MM-DD`. */
export interface DayCoverage extends Total {
  readonly date: string
}

/** One instrument: every hour from the first to the last in order, and its gaps in order. */
export interface InstrumentCoverage {
  readonly exchange: string
  /** The folder name, and the name as the records have it. */
  readonly name: string
  readonly instId: string
  readonly total: Total
  readonly days: readonly DayCoverage[]
  readonly hours: readonly HourCoverage[]
  readonly gaps: readonly Gap[]
}

/** What `l3cap coverage --json` prints. Moments are µs since the epoch. */
export interface CoverageReport {
  readonly vault: string
  /** When it was made, ISO 8601. */
  readonly at: string
  /** The range that was asked for; null where it was not limited. */
  readonly fromUs: number | null
  readonly toUs: number | null
  readonly instruments: readonly InstrumentCoverage[]
  /** What could not be read, in plain words. */
  readonly problems: readonly string[]
}

/** What a builder judges by, µs. */
export interface CoverageRange {
  /** Nothing outside is judged. */
  readonly fromUs?: number | undefined
  readonly toUs?: number | undefined
  /** The moment of looking: what should have been written by then and was not, is missing. */
  readonly nowUs: number
}

const EVENT_FEEDS: readonly string[] = ['l3_events', 'l2_updates']
const SNAPSHOT_FEED = /^l[23]_(?:spot|perps|futures|options)$/
/** The events of status that a state follows from; the others need not be kept. */
const STATES: readonly string[] = ['started', 'stopped', 'synced', 'gap', 'refused']
const DEFAULT_CADENCE_MS = 2000
/** A first book may take so long before the wait for it counts as a gap: nothing was covered before it. */
const START_US_MAX = 60_000_000
/** A live book that is silent for longer, and for two cadences, is captured no more. */
const SILENCE_US_MAX = 10_000_000
const DAY_HOURS = 24

/** One hour while it is counted. */
interface Tally {
  events: number
  trades: number
  mismatches: number
  bytes: number
  firstUs: number
  lastUs: number
  readonly connections: Set<string>
}

/** The time that is judged, and what of it had no book. */
interface Judged {
  readonly fromUs: number
  readonly toUs: number
  /** Whether capturing ended at `toUs`, and not only the range. */
  readonly isOver: boolean
  readonly gaps: readonly Gap[]
}

/**
 * Counts what an instrument has, from the lines of its feeds: any order of feeds, each feed in its own order. Keeps some
 * numbers of each hour and each gap, and the snapshot times of one hour.
 */
export class CoverageBuilder {
  private readonly exchange: string
  private readonly name: string
  private instId: string
  private readonly tallies = new Map<number, Tally>()
  private readonly counters = new Map<string, SlotCounter>()
  private readonly moments: { us: number; event: string; detail: Record<string, unknown> }[] = []
  /** Receive times of the last records before a fresh book: after a kill, the last signs of life. */
  private readonly marks: number[] = []
  /** By feed: the last event, and the `synced_at` of the last snapshot. */
  private readonly lasts = new Map<string, { us: number; syncedAt: string }>()
  /** By connection and hour: lines of frames, and the cadence. */
  private readonly frames = new Map<string, number>()
  private readonly cadences = new Map<string, number>()

  constructor(exchange: string, name: string) {
    this.exchange = exchange
    this.name = name
    this.instId = name
  }

  /**
   * Takes one line of the instrument's own feeds, with its receive time, which must lie in the hour of its file. Of
   * snapshots and trades the last 1000 characters will do, when `bytes` tells the length of the whole line with its end.
   */
  take(feed: string, us: number, line: string, bytes = line.length + 1): void {
    const tally = this.count(feed, hourOf(us), 1, bytes, us, us)
    const last = this.lasts.get(feed) ?? { us: Number.NaN, syncedAt: '' }
    if (EVENT_FEEDS.includes(feed)) {
      const isClear = line.startsWith('"clear"', line.indexOf('"event_type":') + 13)
      // Before the first book there was nothing.
      if (isClear && !Number.isNaN(last.us)) this.marks.push(last.us)
    } else if (feed === 'trades') addConnection(tally, line)
    else if (feed === 'status') this.takeStatus(tally, us, line)
    else if (SNAPSHOT_FEED.test(feed)) last.syncedAt = this.takeShot(feed, tally, us, line, last)
    last.us = us
    this.lasts.set(feed, last)
  }

  /**
   * Counts lines of an hour that nobody has looked at, of a feed of events or of trades, from their first to their last
   * receive time. Events need `takeFresh` besides.
   */
  count(feed: string, hour: number, lines: number, bytes: number, firstUs: number, lastUs: number): Tally {
    const none = { events: 0, trades: 0, mismatches: 0, bytes: 0, firstUs, lastUs }
    const tally = this.tallies.get(hour) ?? { ...none, connections: new Set() }
    this.tallies.set(hour, tally)
    if (EVENT_FEEDS.includes(feed)) tally.events += lines
    else if (feed === 'trades') tally.trades += lines
    tally.bytes += bytes
    tally.firstUs = Math.min(tally.firstUs, firstUs)
    tally.lastUs = Math.max(tally.lastUs, lastUs)
    return tally
  }

  /** Tells the receive time of the event before a `clear`. */
  takeFresh(beforeUs: number): void {
    this.marks.push(beforeUs)
  }

  /**
   * Counts lines of the frames of a connection in an hour. It need not be one that feeds the instrument. `head`, 600
   * characters of the hour's first line, tells the cadence; snapshots that were taken before have to do without.
   */
  countFrames(connection: string, hour: number, lines: number, head = ''): void {
    const key = `${connection} ${hour}`
    this.frames.set(key, (this.frames.get(key) ?? 0) + lines)
    const cadence = /"cadenceMs":(\d{1,9})[,}]/.exec(head)
    if (cadence) this.cadences.set(key, Number(cadence[1]))
  }

  private takeStatus(tally: Tally, us: number, line: string): void {
    const { event, detail, instId } = parseStatus(line)
    if (instId !== undefined) this.instId = instId
    // The word that verification is switched off has no figures.
    if (event === 'checksum_mismatch' && detail.computed !== undefined) tally.mismatches++
    if (typeof detail.conn === 'string') tally.connections.add(detail.conn)
    if (event !== undefined && STATES.includes(event)) this.moments.push({ us, event, detail })
  }

  /** Gives the snapshot's `synced_at`. */
  private takeShot(
    feed: string,
    tally: Tally,
    us: number,
    line: string,
    last: { us: number; syncedAt: string }
  ): string {
    const connection = addConnection(tally, line)
    const synced = line.lastIndexOf('"synced_at":"')
    const syncedAt = line.slice(synced + 13, synced + 37)
    if (syncedAt !== last.syncedAt && last.syncedAt !== '') this.marks.push(last.us)
    // A flagged one stands outside the slots.
    if (line.lastIndexOf('"gap_detected":true') < 0) {
      const counter = this.counters.get(feed) ?? new SlotCounter()
      this.counters.set(feed, counter)
      counter.take(us, this.cadences.get(`${connection} ${hourOf(us)}`))
    }
    return syncedAt
  }

  /** What was covered; undefined where nothing lies in the range. */
  build(range: CoverageRange): InstrumentCoverage | undefined {
    if (this.tallies.size === 0) return undefined
    for (const counter of this.counters.values()) counter.finish()
    const judged = this.judge(range)
    if (judged === undefined) return undefined
    const hours: HourCoverage[] = []
    const last = Math.max(hourOf(judged.fromUs), hourOf(judged.toUs - 1))
    for (let hour = hourOf(judged.fromUs); hour <= last; hour++) hours.push(this.hour(hour, judged, hours.at(-1)))
    return assemble(this.exchange, this.name, this.instId, hours, judged.gaps)
  }

  /** The states as status tells them, up to the end of capturing (µs). */
  private spans(nowUs: number): { spans: Span[]; endUs: number } {
    const timeline = new Timeline()
    const lastsUs = [...this.tallies.values()].map(tally => tally.lastUs)
    const marks = [...this.marks, ...lastsUs].sort((a, b) => a - b)
    const spans: Span[] = []
    let mark = 0
    for (const { us, event, detail } of this.moments) {
      for (; marks[mark]! < us; mark++) timeline.seen(marks[mark]!)
      spans.push(...timeline.take(us, event, detail))
    }
    const lastUs = Math.max(...lastsUs)
    const quietUs = nowUs - lastUs
    const cadencesUs = Math.max(0, ...[...this.counters.values()].map(counter => 2 * counter.lastCadenceUs))
    const isWaiting = timeline.state === 'waiting'
    const isDead = timeline.state === 'live' && quietUs > Math.max(SILENCE_US_MAX, cadencesUs)
    // Who waits for a book writes little. Nobody knows how long one that died would have gone on: its hour counts as lost.
    const endUs = isWaiting || isDead ? Math.max(lastUs, Math.min(nowUs, (hourOf(lastUs) + 1) * HOUR_US)) : lastUs
    const open = timeline.until(isDead ? lastUs : endUs)
    if (open) spans.push(open)
    if (isDead) spans.push({ fromUs: lastUs, toUs: endUs, state: 'off', cause: 'killed' })
    return { spans, endUs }
  }

  private judge({ fromUs = Number.NEGATIVE_INFINITY, toUs = Infinity, nowUs }: CoverageRange): Judged | undefined {
    const { spans, endUs } = this.spans(nowUs)
    let beginUs = Math.min(...[...this.tallies.values()].map(tally => tally.firstUs))
    const [head, next] = spans
    // What was written before the state is known comes from a capture that had begun earlier.
    const isBegin = head !== undefined && isStart(head) && head.fromUs <= beginUs && next?.state === 'live'
    if (isBegin && head.toUs - head.fromUs <= START_US_MAX) {
      beginUs = head.toUs
      spans.shift()
    }
    const told = gapsOf(spans, endUs)
    const known = told.map(gap => ({ fromUs: gap.fromUs, toUs: gap.toUs ?? endUs }))
    const counters = [...this.counters.values()]
    const holes = counters.flatMap(counter => counter.holes)
    const youngest = counters
      .sort((a, b) => a.lastUs - b.lastUs)
      .at(-1)
      ?.holeUntil(endUs)
    const unexplained = (youngest ? [...holes, youngest] : holes)
      .flatMap(hole => cutHole(hole, known))
      .map(hole => gapOf('unexplained', hole.fromUs, hole.toUs === endUs ? null : hole.toUs, endUs))
    const gaps = [...told, ...unexplained]
      .filter(gap => gap.fromUs < toUs && (gap.toUs ?? endUs) > fromUs)
      // When a process was killed, its last lines may lie outside of what was read.
      .map(gap => (gap.cause === 'killed' ? gapOf(gap.cause, Math.max(gap.fromUs, fromUs), gap.toUs, endUs) : gap))
      .sort((a, b) => a.fromUs - b.fromUs)
    const judged = { fromUs: Math.max(beginUs, fromUs), toUs: Math.min(endUs, toUs), isOver: endUs <= toUs, gaps }
    return judged.fromUs > judged.toUs ? undefined : judged
  }

  private hour(hour: number, judged: Judged, before: HourCoverage | undefined): HourCoverage {
    const tally = this.tallies.get(hour)
    const fromUs = Math.max(judged.fromUs, hour * HOUR_US)
    const toUs = Math.min(judged.toUs, (hour + 1) * HOUR_US)
    const shots = [...this.counters.values()].flatMap(counter => counter.hours.get(hour) ?? [])
    const known = shots[0] ?? [...this.counters.values()].flatMap(counter => [...counter.hours.values()])[0]
    const cadenceMs = shots[0]?.cadenceMs ?? before?.cadenceMs ?? known?.cadenceMs ?? DEFAULT_CADENCE_MS
    const due = slotsWithin(fromUs, toUs, cadenceMs, judged.isOver && toUs === judged.toUs)
    const expected = Math.max(0, due.last - due.first + 1)
    let present = 0
    for (const { count, firstUs, lastUs } of shots) {
      // A book that is made in the midst of a slot has its snapshot at the next tick, before one is due.
      const early = Math.floor(firstUs / 1000 / cadenceMs) < due.first ? 1 : 0
      const late = Math.floor(lastUs / 1000 / cadenceMs) > due.last ? 1 : 0
      present += Math.max(0, count - early - late)
    }
    present = Math.min(present, expected)
    const names = tally && tally.connections.size > 0 ? [...tally.connections] : Object.keys(before?.connections ?? {})
    const lines = names.sort().map((name): [string, number] => [name, this.frames.get(`${name} ${hour}`) ?? 0])
    const connections = Object.fromEntries(lines.filter(([, count]) => count > 0))
    const events = tally?.events ?? 0
    const { gaps, gapMs } = gapsWithin(judged.gaps, fromUs, toUs)
    const isMissing = expected > 0 && present === 0 && events === 0
    const isComplete = present === expected && gapMs === 0 && gaps === 0
    return {
      hour,
      verdict: isMissing ? 'missing' : isComplete ? 'complete' : 'degraded',
      fromUs,
      toUs,
      cadenceMs,
      slots: { expected, present, share: shareOf(present, expected) },
      frames: lines.reduce((sum, [, count]) => sum + count, 0),
      connections,
      events,
      trades: tally?.trades ?? 0,
      mismatches: tally?.mismatches ?? 0,
      gaps,
      gapMs,
      bytes: tally?.bytes ?? 0,
      firstUs: tally?.firstUs ?? null,
      lastUs: tally?.lastUs ?? null,
      stored: false
    }
  }
}

/** The connection that a record names near its end; empty where it names none. */
function addConnection(tally: Tally, line: string): string {
  const at = line.lastIndexOf(',"conn":"')
  const name = at < 0 ? '' : line.slice(at + 9, line.indexOf('"', at + 9))
  if (name !== '') tally.connections.add(name)
  return name
}

function parseStatus(line: string): { event?: string; detail: Record<string, unknown>; instId?: string } {
  let record: unknown
  try {
    record = JSON.parse(line)
  } catch {
    // A damaged line says nothing; `check` tells of it.
  }
  const { event, detail, instId } = (record ?? {}) as Record<string, unknown>
  return {
    ...(typeof event === 'string' ? { event } : {}),
    ...(typeof instId === 'string' ? { instId } : {}),
    detail: typeof detail === 'object' && detail !== null ? (detail as Record<string, unknown>) : {}
  }
}

function isStart({ state, cause }: Span): boolean {
  return state === 'waiting' && (cause === 'start' || cause === 'refused')
}

/** The gaps that a row of spans tells; a start after a stop is part of it. */
function gapsOf(spans: readonly Span[], endUs: number): Gap[] {
  const rows: { cause: string; fromUs: number; toUs: number; wasOff: boolean }[] = []
  for (const span of spans.filter(({ state }) => state !== 'live')) {
    const last = rows.at(-1)
    if (last?.wasOff && last.toUs === span.fromUs && isStart(span)) {
      last.toUs = span.toUs
      last.wasOff = false
    } else rows.push({ ...span, wasOff: span.state === 'off' })
  }
  return rows.map(({ cause, fromUs, toUs }) => gapOf(cause, fromUs, toUs >= endUs ? null : toUs, endUs))
}

function gapOf(cause: string, fromUs: number, toUs: number | null, endUs: number): Gap {
  return { cause, fromUs, toUs, lengthMs: Math.round(((toUs ?? Math.max(endUs, fromUs)) - fromUs) / 1000) }
}

/** How many gaps touch a stretch of time, and how much of it they take. */
function gapsWithin(gaps: readonly Gap[], fromUs: number, toUs: number): { gaps: number; gapMs: number } {
  let count = 0
  let us = 0
  for (const gap of gaps) {
    const takenUs = Math.min(gap.toUs ?? gap.fromUs + gap.lengthMs * 1000, toUs) - Math.max(gap.fromUs, fromUs)
    if (takenUs <= 0) continue
    count++
    us += takenUs
  }
  return { gaps: count, gapMs: Math.round(us / 1000) }
}

function shareOf(present: number, expected: number): number {
  return expected === 0 ? 1 : present / expected
}

/** An instrument's coverage of its hours, which stand in order: sums by day and altogether. */
export function assemble(
  exchange: string,
  name: string,
  instId: string,
  hours: readonly HourCoverage[],
  gaps: readonly Gap[]
): InstrumentCoverage {
  const days = new Map<number, HourCoverage[]>()
  for (const hour of hours) {
    const day = Math.floor(hour.hour / DAY_HOURS)
    const list = days.get(day)
    if (list) list.push(hour)
    else days.set(day, [hour])
  }
  const dayCoverages = [...days].map(([day, list]): DayCoverage => {
    const date = isoMs(day * DAY_HOURS * HOUR_US).slice(0, 10)
    return { date, ...sum(list, gapsWithin(gaps, day * DAY_HOURS * HOUR_US, (day + 1) * DAY_HOURS * HOUR_US).gaps) }
  })
  return { exchange, name, instId, total: sum(hours, gaps.length), days: dayCoverages, hours, gaps }
}

function sum(hours: readonly HourCoverage[], gaps: number): Total {
  const add = (value: (hour: HourCoverage) => number) => hours.reduce((total, hour) => total + value(hour), 0)
  const [expected, present] = [add(({ slots }) => slots.expected), add(({ slots }) => slots.present)]
  return {
    complete: add(({ verdict }) => Number(verdict === 'complete')),
    degraded: add(({ verdict }) => Number(verdict === 'degraded')),
    missing: add(({ verdict }) => Number(verdict === 'missing')),
    slots: { expected, present, share: shareOf(present, expected) },
    frames: add(hour => hour.frames),
    events: add(hour => hour.events),
    trades: add(hour => hour.trades),
    mismatches: add(hour => hour.mismatches),
    gaps,
    gapMs: add(hour => hour.gapMs),
    bytes: add(hour => hour.bytes)
  }
}
