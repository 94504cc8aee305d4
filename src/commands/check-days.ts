import { existsSync } from 'node:fs'
import { HOUR_US } from '../core/time.ts'
import { dateOf } from '../quality/days.ts'
import { coveragePath } from '../vault/layout.ts'
import type { CheckTask } from './check-tasks.ts'
import { coverVault } from './coverage.ts'
import { storeCoverage } from './coverage-days.ts'

const DAY_HOURS = 24
/** Late lines of a day's last hour are written by then. */
const LATE_US = 600_000_000

/** What was checked, µs. */
interface Checked {
  readonly vault: string
  readonly fromUs: number
  readonly toUs: number
  readonly nowUs: number
}

/**
 * Stores the coverage of the closed days that were checked as a whole and are not stored yet, so that it outlives their
 * files. A vault that cannot be written, or read, keeps what it has: nothing is thrown.
 */
export async function storeDays(tasks: readonly CheckTask[], checked: Checked): Promise<void> {
  const { vault, fromUs, toUs, nowUs } = checked
  const lacking = new Map<string, { names: Set<string>; firstHour: number; endHour: number }>()
  for (const task of tasks) {
    if (task.kind !== 'instrument') continue
    for (const { exchange, name, hour } of task.files) {
      const firstHour = Math.floor(hour / DAY_HOURS) * DAY_HOURS
      const endHour = firstHour + DAY_HOURS
      const isClosed = endHour * HOUR_US + LATE_US <= nowUs
      if (!isClosed || firstHour * HOUR_US < fromUs || endHour * HOUR_US > toUs) continue
      if (existsSync(coveragePath(vault, exchange, name, dateOf(firstHour)))) continue
      const known = lacking.get(exchange) ?? { names: new Set(), firstHour, endHour }
      known.names.add(name)
      known.firstHour = Math.min(known.firstHour, firstHour)
      known.endHour = Math.max(known.endHour, endHour)
      lacking.set(exchange, known)
    }
  }
  for (const [exchange, { names, firstHour, endHour }] of lacking) {
    const range = { fromUs: firstHour * HOUR_US, toUs: endHour * HOUR_US, nowUs }
    try {
      storeCoverage(vault, await coverVault(vault, { exchange, name: [...names] }, range), nowUs)
    } catch {
      // The check has told what cannot be read.
    }
  }
}
