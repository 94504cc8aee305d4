/** Coverage that outlives the files: days as they are stored, and how they join what the files still tell. */
import * as z from 'zod'
import { HOUR_US, isoMs } from '../core/time.ts'
import { assemble, type Gap, type HourCoverage, type InstrumentCoverage } from './coverage.ts'

/** One stored day of an instrument. */
export interface StoredDay {
  /** Of this format. */
  readonly v: 1
  readonly exchange: string
  readonly name: string
  readonly instId: string
  readonly date: string
  readonly hours: readonly HourCoverage[]
  /** Those that touch the day, whole. */
  readonly gaps: readonly Gap[]
}

const DAY_HOURS = 24
const count = z.int().min(0)
const SHARE = z.number().min(0).max(1)
const HOUR = z.object({
  hour: count,
  verdict: z.enum(['complete', 'degraded', 'missing']),
  fromUs: count,
  toUs: count,
  cadenceMs: z.number().positive(),
  slots: z.object({ expected: count, present: count, share: SHARE }),
  frames: count,
  connections: z.record(z.string(), count),
  events: count,
  trades: count,
  mismatches: count,
  gaps: count,
  gapMs: count,
  bytes: count,
  firstUs: count.nullable(),
  lastUs: count.nullable(),
  stored: z.boolean()
})
const GAP = z.object({ cause: z.string(), fromUs: count, toUs: count.nullable(), lengthMs: count })
const DAY = z.object({
  v: z.literal(1),
  exchange: z.string(),
  name: z.string(),
  instId: z.string(),
  date: z.string(),
  hours: z.array(HOUR).max(DAY_HOURS),
  gaps: z.array(GAP)
})

/** Reads a stored day from the text of its file; a sentence where it is none, or the day of another date. */
export function parseDay(text: string, date: string): { day: StoredDay } | { trouble: string } {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { trouble: 'it is no JSON' }
  }
  const { success, data, error } = DAY.safeParse(value)
  if (!success) return { trouble: `${error.issues[0]?.path.join('.')}: ${error.issues[0]?.message}` }
  if (data.date !== date || data.hours.some(({ hour }) => dateOf(hour) !== date))
    return { trouble: 'another date is in it' }
  return { day: data }
}

/** The date of an hour, `YYYY-MM-DD`. */
export function dateOf(hour: number): string {
  return isoMs(hour * HOUR_US).slice(0, 10)
}

/** The days of an instrument, to be stored. */
export function splitDays({ exchange, name, instId, hours, gaps }: InstrumentCoverage): StoredDay[] {
  const dates = [...new Set(hours.map(({ hour }) => dateOf(hour)))]
  return dates.map(date => {
    const own = hours.filter(({ hour }) => dateOf(hour) === date)
    const beginUs = Math.floor(own[0]!.hour / DAY_HOURS) * DAY_HOURS * HOUR_US
    const touching = gaps.filter(gap => gap.fromUs < beginUs + DAY_HOURS * HOUR_US && endOf(gap) > beginUs)
    return { v: 1, exchange, name, instId, date, hours: own, gaps: touching }
  })
}

/**
 * What the files tell and what was stored, as one. Of an hour that both have, the one with more records counts; hours
 * between the first and the last that none has are missing. Undefined where there is nothing.
 */
export function mergeDays(
  built: InstrumentCoverage | undefined,
  stored: readonly StoredDay[]
): InstrumentCoverage | undefined {
  const days = stored.filter(({ hours }) => hours.length > 0)
  const id = built ?? days[0]
  if (id === undefined || days.length === 0) return built
  const hours = new Map<number, HourCoverage>()
  for (const hour of days.flatMap(day => day.hours)) hours.set(hour.hour, { ...hour, stored: true })
  for (const hour of built?.hours ?? []) {
    const known = hours.get(hour.hour)
    if (known === undefined || recordsOf(hour) >= recordsOf(known)) hours.set(hour.hour, hour)
  }
  const numbers = [...hours.keys()]
  const last = Math.max(...numbers)
  const rows: HourCoverage[] = []
  for (let hour = Math.min(...numbers); hour <= last; hour++)
    rows.push(hours.get(hour) ?? missingHour(hour, rows.at(-1)!.cadenceMs))
  const gaps = (built?.gaps ?? []).reduce(addGap, days.flatMap(day => day.gaps).reduce(addGap, []))
  return assemble(
    id.exchange,
    id.name,
    id.instId,
    rows,
    [...gaps].sort((a, b) => a.fromUs - b.fromUs)
  )
}

function recordsOf({ slots, events, trades }: HourCoverage): number {
  return slots.present + events + trades
}

/** Adds a gap, or completes the one that was told before, as far as was looked at then. */
function addGap(gaps: readonly Gap[], gap: Gap): Gap[] {
  const isSame = (each: Gap) => each.cause === gap.cause || gap.cause === 'unknown'
  const known = gaps.find(each => isSame(each) && each.fromUs <= endOf(gap) && gap.fromUs <= endOf(each))
  if (known === undefined) return [...gaps, gap]
  // One that begins with an hour may have begun before what was looked at.
  const isCut = known.fromUs % HOUR_US === 0 && gap.cause !== 'unknown'
  const fromUs = isCut ? Math.min(known.fromUs, gap.fromUs) : known.fromUs
  const toUs = known.toUs ?? gap.toUs
  const lengthMs = Math.round(((toUs ?? Math.max(endOf(known), endOf(gap))) - fromUs) / 1000)
  return [...gaps.filter(each => each !== known), { cause: known.cause, fromUs, toUs, lengthMs }]
}

function endOf({ fromUs, toUs, lengthMs }: Gap): number {
  return toUs ?? fromUs + lengthMs * 1000
}

function missingHour(hour: number, cadenceMs: number): HourCoverage {
  const expected = Math.floor(HOUR_US / 1000 / cadenceMs)
  return {
    hour,
    verdict: 'missing',
    fromUs: hour * HOUR_US,
    toUs: (hour + 1) * HOUR_US,
    cadenceMs,
    slots: { expected, present: 0, share: 0 },
    frames: 0,
    connections: {},
    events: 0,
    trades: 0,
    mismatches: 0,
    gaps: 0,
    gapMs: 0,
    bytes: 0,
    firstUs: null,
    lastUs: null,
    stored: false
  }
}
