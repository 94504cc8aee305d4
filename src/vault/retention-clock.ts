/**
 * The clock of the last retention, kept in `meta/retention.json`. Deletion goes by the wall clock, and a wall clock that
 * leaps ahead makes every hour old at once: then deletions wait for a day, in which somebody can set it right.
 */
import { asObject } from '../core/json.ts'
import { isoMs } from '../core/time.ts'
import { retentionStatePath } from './layout.ts'
import { replaceFile } from './metadata.ts'
import { readSmall } from './reader.ts'

/** Milliseconds since the epoch. `heldUntilMs` is null when nothing is held. */
export interface RetentionClock {
  readonly lastRunMs: number
  readonly heldUntilMs: number | null
}

/** 2 d. */
const LEAP_MS = 172_800_000
/** 24 h. */
const HOLD_MS = 86_400_000
/** 10 min. */
const SAME_MS = 600_000

/** What the last run left; undefined when there is none that can be read, which counts as none. */
export function readClock(vault: string): RetentionClock | undefined {
  let stored: Record<string, unknown> | undefined
  try {
    stored = asObject(JSON.parse(readSmall(retentionStatePath(vault))))
  } catch {
    return undefined // missing, or damaged: it is written anew
  }
  const lastRunMs = moment(stored?.last_run_utc)
  return lastRunMs === undefined ? undefined : { lastRunMs, heldUntilMs: moment(stored?.held_until_utc) ?? null }
}

function moment(value: unknown): number | undefined {
  const ms = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return Number.isNaN(ms) ? undefined : ms
}

/** Replaces what the last run left; the error when the disk does not take it. */
export function storeClock(vault: string, state: RetentionClock): unknown {
  const { lastRunMs, heldUntilMs } = state
  const held_until_utc = heldUntilMs === null ? null : isoMs(heldUntilMs * 1000)
  try {
    const text = JSON.stringify({ last_run_utc: isoMs(lastRunMs * 1000), held_until_utc })
    replaceFile(retentionStatePath(vault), `${text}\n`, true)
    return undefined
  } catch (error) {
    return error
  }
}

/** Whether a state need not be stored again: a run that follows at once changes nothing in a vault. */
export function isSameClock(last: RetentionClock | undefined, state: RetentionClock): boolean {
  if (last === undefined || last.heldUntilMs !== state.heldUntilMs) return false
  return state.lastRunMs >= last.lastRunMs && state.lastRunMs - last.lastRunMs < SAME_MS
}

/** What is to be remembered of a run at `nowMs`, and what to say. `deleteNow`: the user knows the clock to be right. */
export function judgeClock(
  last: RetentionClock | undefined,
  nowMs: number,
  deleteNow: boolean
): { state: RetentionClock; warning: string | undefined } {
  const free = { state: { lastRunMs: nowMs, heldUntilMs: null }, warning: undefined }
  if (!last || deleteNow) return free
  const passedMs = nowMs - last.lastRunMs
  // A clock that leapt back has been set right: whatever was held until a moment of the wrong one is not any more.
  if (passedMs < -LEAP_MS) return free
  const isLeap = passedMs > LEAP_MS
  const heldUntilMs = isLeap ? nowMs + HOLD_MS : last.heldUntilMs
  if (heldUntilMs === null || nowMs >= heldUntilMs) return free
  const now = isoMs(nowMs * 1000)
  const why = isLeap
    ? `the clock says ${now}, more than 2 days after the last run at ${isoMs(last.lastRunMs * 1000)}`
    : `the clock had leapt more than 2 days ahead, and says ${now}`
  const warning =
    `${why}: nothing is deleted until ${isoMs(heldUntilMs * 1000)}. Is the clock right? Then wait, or say --delete-now; ` +
    'else set it right'
  return { state: { lastRunMs: nowMs, heldUntilMs }, warning }
}
