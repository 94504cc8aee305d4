/** Moments are `us`: integer microseconds since the epoch, UTC. They stay exact as numbers until the year 2255. */

/** Microseconds of an hour. */
export const HOUR_US = 3_600_000_000

/** The two seconds asked for last: receive times and exchange times rarely lie in the same one. */
let recentSecond = -1
let recentPrefix = ''
let otherSecond = -1
let otherPrefix = ''

/** ISO 8601 UTC with milliseconds: `2023-12-14T15:30:45.123Z`. */
export function isoMs(us: number): string {
  const ms = Math.floor(us / 1000)
  const second = Math.floor(ms / 1000)
  if (second !== recentSecond) {
    const prefix = second === otherSecond ? otherPrefix : new Date(second * 1000).toISOString().slice(0, 20)
    otherSecond = recentSecond
    otherPrefix = recentPrefix
    recentSecond = second
    recentPrefix = prefix
  }
  const rest = ms - second * 1000
  return `${recentPrefix}${rest < 10 ? '00' : rest < 100 ? '0' : ''}${rest}Z`
}

/** The exchange's own time: milliseconds since the epoch, or ISO 8601 UTC text as sent; null where it tells none. */
export type ExchangeTime = number | string | null

const ISO_UTC = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/

/** ISO 8601 UTC text of an exchange as it is; null for anything else, and for the year 1 that some send as "unknown". */
export function isoText(value: unknown): string | null {
  return typeof value === 'string' && ISO_UTC.test(value) && !value.startsWith('0001') ? value : null
}

/** ISO 8601 UTC with microseconds, of a whole number of microseconds as text; null when it is none. */
export function isoOfMicros(value: unknown): string | null {
  if (typeof value !== 'string' || !/^\d{13,16}$/.test(value)) return null
  return `${isoMs(Number(value)).slice(0, -1)}${value.slice(-3)}Z`
}

let textUs = -1
let text = ''
let textSecond = -1
let secondText = ''

/**
 * The decimal text of a moment in µs. What `String` would give, but numbers of 16 digits take it long, and the same one
 * is written to several lines.
 */
export function usText(us: number): string {
  if (us === textUs) return text
  const second = Math.floor(us / 1_000_000)
  if (second !== textSecond) {
    textSecond = second
    secondText = String(second)
  }
  textUs = us
  text = second > 0 ? secondText + String(us - second * 1_000_000 + 1_000_000).slice(1) : String(us)
  return text
}

/** The number of the hour since the epoch. */
export function hourOf(us: number): number {
  return Math.floor(us / HOUR_US)
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds of a duration such as `500ms`, `2s`, `5m`, `6h`, `5d`; undefined when it is not one. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim())
  if (!match) return undefined
  return Math.round(Number.parseFloat(match[1]!) * UNITS[match[2]!]!)
}

const MOMENT = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|[+-]\d\d:\d\d)?$/i

/**
 * The moment that a user wrote, µs; undefined when it is none. `2026-11-20` (its start), `2026-11-20 15:30`, ISO 8601 with up to
 * nine decimals of the second (those below a microsecond are cut off), UTC unless an offset says otherwise; microseconds since
 * the epoch (16 digits, as in `recv_us`). With `nowUs` also `now` and what lies before it by a duration: `-5m`.
 */
export function parseMoment(text: string, nowUs?: number): number | undefined {
  const wanted = text.trim()
  if (/^\d{16}$/.test(wanted)) return Number(wanted)
  if (nowUs !== undefined && wanted === 'now') return nowUs
  if (nowUs !== undefined && wanted.startsWith('-')) {
    const backMs = parseDuration(wanted.slice(1))
    return backMs === undefined ? undefined : nowUs - backMs * 1000
  }
  const match = MOMENT.exec(wanted)
  if (!match) return undefined
  const [, date, minutes = '00:00', seconds = '00', fraction = '', zone = 'Z'] = match
  const ms = Date.parse(`${date}T${minutes}:${seconds}${zone.toUpperCase()}`)
  // Some engines roll the 30th of February over to March.
  const isDate = new Date(`${date}T00:00:00Z`)
  if (Number.isNaN(ms) || Number.isNaN(isDate.getTime()) || isDate.toISOString().slice(0, 10) !== date) return undefined
  return ms * 1000 + Number(fraction.slice(0, 6).padEnd(6, '0'))
}
