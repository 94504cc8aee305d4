import { hostname } from 'node:os'
import { z } from 'zod'
import { messageOf } from '../core/errors.ts'
import { LEVELS, MARKETS } from '../core/instrument.ts'

const moment = z.iso.datetime()
const count = z.number()
const quantiles = z.object({ p50: z.number(), p99: z.number() })

const INSTRUMENT = z.object({
  exchange: z.string(),
  instId: z.string(),
  market: z.enum(MARKETS),
  level: z.enum(LEVELS),
  /** `waiting` has had no book yet, `broken` has lost it, `refused` is what the exchange does not give. */
  state: z.enum(['live', 'broken', 'waiting', 'refused']),
  since_utc: moment,
  /** Of the connection that brings the book; of any of the exchange while none does. */
  last_frame_utc: moment.nullable(),
  last_event_utc: moment.nullable(),
  last_trade_utc: moment.nullable(),
  last_snapshot_utc: moment.nullable(),
  synced_at: moment.nullable(),
  gaps: count,
  mismatches: count,
  absent_deletes: count,
  events: count,
  snapshots: count,
  trades: count,
  bytes: count,
  best_bid: z.string().nullable(),
  best_ask: z.string().nullable(),
  lag_ms: quantiles.nullable()
})

const HEALTH = z.object({
  time_utc: moment,
  started_utc: moment,
  stopped_utc: moment.nullable(),
  pid: z.int().min(1),
  run: z.string(),
  host: z.string(),
  version: z.string(),
  vault: z.string(),
  exchange: z.string(),
  cadence_ms: z.number(),
  connections: z.array(
    z.object({
      name: z.string(),
      since_utc: moment,
      last_frame_utc: moment.nullable(),
      /** Lines of its frames feed, by this process; null where frames are not kept. */
      frames: count.nullable()
    })
  ),
  frames_in: count,
  frames_dropped: count,
  writer: z.object({
    paused: z.boolean(),
    reason: z.string().nullable(),
    pending_bytes: count,
    /** The most since the start. */
    pending_bytes_max: count
  }),
  memory: z.object({ rss: count, heap_used: count, heap_total: count, external: count }),
  /** Of the last 5 to 10 seconds; null before the first of them. */
  event_loop_delay_ms: z.object({ p50: z.number(), p99: z.number(), max: z.number() }).nullable(),
  disk_free_bytes: count.nullable(),
  cpu_seconds: z.number(),
  instruments: z.array(INSTRUMENT)
})

/** What is known of one instrument at a moment. Counts are of this process. */
export type InstrumentHealth = Readonly<z.infer<typeof INSTRUMENT>>

/** The content of a health file: one exchange of one process. Times are ISO 8601 UTC, sizes bytes. */
export type Health = Readonly<z.infer<typeof HEALTH>>

/** A capture says so each 5 s; one that did not for so long does not run as it should. */
const AGE_MS_MAX = 15_000
const FIRST_BOOK_MS = 30_000
const CADENCES_MAX = 3
const SNAPSHOT_GRACE_MS = 5000

/** Reads a health file's text: the content, or what is wrong with it. */
export function parseHealth(text: string): { health: Health } | { trouble: string } {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { trouble: messageOf(error) }
  }
  const parsed = HEALTH.safeParse(value)
  if (parsed.success) return { health: parsed.data }
  const issue = parsed.error.issues[0]!
  return { trouble: `${issue.path.join('.') || 'content'}: ${issue.message}` }
}

/** What is wrong with what a capture says of itself, in words; nothing when all is live. */
export function problemsOf(health: Health): string[] {
  const problems: string[] = []
  const { writer, instruments } = health
  if (health.stopped_utc !== null) return [`stopped at ${health.stopped_utc}`]
  if (writer.paused) {
    const waiting = `${writer.pending_bytes} bytes wait`
    problems.push(`writing is paused, ${waiting}${writer.reason === null ? '' : `: ${writer.reason}`}`)
  }
  for (const each of instruments) {
    const problem = instrumentProblem(each, health)
    if (problem !== null) problems.push(`${each.exchange} ${each.instId}: ${problem}`)
  }
  return problems
}

function instrumentProblem(instrument: InstrumentHealth, health: Health): string | null {
  const nowMs = Date.parse(health.time_utc)
  const { state, since_utc } = instrument
  if (state === 'waiting') {
    const waitedMs = nowMs - Date.parse(health.started_utc)
    const soon = waitedMs < FIRST_BOOK_MS ? ', which is not unusual so soon' : ''
    return `waiting for its first book, ${secondsText(waitedMs)} after the start${soon}`
  }
  if (state !== 'live') return `${state} since ${since_utc}`
  const limitMs = CADENCES_MAX * health.cadence_ms + SNAPSHOT_GRACE_MS
  // A book has a whole cadence for its first snapshot, too.
  const ageMs = nowMs - Math.max(Date.parse(instrument.last_snapshot_utc ?? since_utc), Date.parse(since_utc))
  return ageMs > limitMs ? `no snapshot for ${secondsText(ageMs)}` : null
}

/** Whether a process runs, as far as this host can tell: of other hosts it only knows their files. */
export function isGone(health: Health): boolean {
  if (health.host !== hostname()) return false
  try {
    process.kill(health.pid, 0)
    return false
  } catch (error) {
    // It exists, but belongs to somebody else.
    return (error as NodeJS.ErrnoException).code !== 'EPERM'
  }
}

/** What is wrong with a health file as a sign of life; null when it shows that its process runs. */
export function lifeProblem(health: Health, ageMs: number): string | null {
  if (health.stopped_utc !== null) return `stopped at ${health.stopped_utc}`
  if (isGone(health)) return `process ${health.pid} is gone, without a word`
  return ageMs > AGE_MS_MAX ? `says nothing since ${secondsText(ageMs)}` : null
}

/** A length of time for people: `0.8 s`, `3 min`, `5 h`, `2 d`. */
export function secondsText(ms: number): string {
  const seconds = ms / 1000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}
