/** Coverage of closed days in `meta`: written by `check`, read by `coverage`. */
import { messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import type { CoverageReport } from '../quality/coverage.ts'
import { mergeDays, parseDay, type StoredDay, splitDays } from '../quality/days.ts'
import { readDays, writeDay } from '../vault/coverage.ts'
import { placeOf } from '../vault/streams.ts'

const DAY_US = 24 * HOUR_US

/**
 * The stored days of an instrument (by its folder name), in order. Damaged ones are left out; `onTrouble` is told of each,
 * by its place in the vault.
 * @throws {L3capError} `VAULT` when their directory cannot be read
 */
export function loadDays(
  vault: string,
  exchange: string,
  name: string,
  onTrouble: (place: string, message: string) => void
): StoredDay[] {
  return readDays(vault, exchange, name).flatMap(({ path, date, text, trouble }) => {
    const parsed = text === null ? { trouble: trouble ?? 'it cannot be read' } : parseDay(text, date)
    if ('day' in parsed) return [parsed.day]
    onTrouble(placeOf(vault, path), parsed.trouble)
    return []
  })
}

/**
 * Stores the closed days of a report, so that they outlive their files: days that ended before `nowUs`. An hour that is
 * stored with more records than the report has of it stays as it is. Gives how many files were written, and what could not
 * be, in plain words; never throws.
 */
export function storeCoverage(
  vault: string,
  report: CoverageReport,
  nowUs: number
): { written: number; problems: string[] } {
  let written = 0
  const problems: string[] = []
  for (const instrument of report.instruments) {
    const { exchange, name } = instrument
    try {
      // A damaged one is replaced.
      const stored = loadDays(vault, exchange, name, () => undefined)
      for (const day of splitDays(instrument)) {
        if (Math.floor(day.hours[0]!.hour / 24) * DAY_US + DAY_US > nowUs) continue
        const known = stored.filter(({ date }) => date === day.date)
        const merged = mergeDays({ ...instrument, hours: day.hours, gaps: day.gaps }, known) ?? instrument
        const [value] = splitDays({ ...merged, hours: merged.hours.map(hour => ({ ...hour, stored: true })) })
        if (value && writeDay(vault, exchange, name, day.date, value)) written++
      }
    } catch (error) {
      problems.push(`the coverage of ${exchange} ${name} could not be stored: ${messageOf(error)}`)
    }
  }
  return { written, problems }
}
