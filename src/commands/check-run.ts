import { existsSync } from 'node:fs'
import { isoMs } from '../core/time.ts'
import type { Finding, RuleId } from '../quality/finding.ts'
import { judgeTurn } from '../quality/frames.ts'
import { judgeRuns } from '../quality/runs.ts'
import { settle } from '../quality/settle.ts'
import { hourPath, retentionLockPath } from '../vault/layout.ts'
import { placeOf } from '../vault/streams.ts'
import { storeDays } from './check-days.ts'
import { checkLive } from './check-live.ts'
import { checkPlaces, type Holdings, listHoldings, namesWritten } from './check-place.ts'
import { filesOf, planCheck } from './check-plan.ts'
import { runPieces } from './check-pool.ts'
import { type CheckPiece, type CheckScope, type CheckTask, FindingStore, makeFinding } from './check-tasks.ts'

/** What a check is asked for; empty lists mean all, `names` are folder names. Times in µs, what is missing is not limited. */
export interface CheckOptions {
  readonly vault: string
  readonly exchanges: readonly string[]
  readonly names: readonly string[]
  readonly fromUs?: number | undefined
  readonly toUs?: number | undefined
  /** Compares every derived line with what the frames give. */
  readonly deep: boolean
  /** Looks at the captures that run now and at the newest minutes only: at those since `fromUs`, five where it is missing. */
  readonly live?: boolean
  /** As the user wrote them, for health files. */
  readonly symbols?: readonly string[]
  /** Threads. */
  readonly jobs: number
  readonly nowMs: number
  /** Told how many bytes are read, and about how many there are. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void
}

/** What a check found. */
export interface CheckReport {
  readonly vault: string
  /** When it was made, and what part of the vault was looked at; ISO 8601 UTC, null where it was not limited. */
  readonly at: string
  readonly from: string | null
  readonly to: string | null
  readonly findings: readonly Finding[]
  /** Of all findings, also of those that were too many to be named: a thousand of each rule and file are. */
  readonly counts: {
    readonly errors: number
    readonly warnings: number
    readonly infos: number
    readonly rules: Readonly<Partial<Record<RuleId, number>>>
  }
  /** `bytes` are uncompressed. */
  readonly stats: {
    readonly instruments: number
    readonly files: number
    readonly lines: number
    readonly bytes: number
    readonly seconds: number
  }
}

/** What was written within so long may still be on its way to the disk. */
const SETTLE_US = 2_000_000
/** How far back `live` looks. */
const LIVE_US = 300_000_000
/** A compressed line takes about an eighth of its length. */
const PACKED = 8

/**
 * Checks a vault, or a part of it. Needs nothing but its files, also while they are written, compressed and deleted.
 * @throws {L3capError} `VAULT` when a thread failed
 */
export async function runCheck(options: CheckOptions): Promise<CheckReport> {
  const beganMs = performance.now()
  const { vault, exchanges, names, deep, nowMs, live = false } = options
  const nowUs = Math.round(nowMs * 1000)
  const askedUs = options.fromUs ?? (live ? nowUs - LIVE_US : undefined)
  const fromUs = askedUs ?? Number.NEGATIVE_INFINITY
  const endUs = options.toUs ?? Number.POSITIVE_INFINITY
  const all = listHoldings(vault)
  const holdings = narrowed(all, exchanges, names)
  const writing = namesWritten(vault, all.files, nowMs)
  const toUs = writing.length === 0 ? endUs : Math.min(endUs, nowUs - SETTLE_US)
  const scope: CheckScope = { vault, deep, fromUs, toUs, nowUs, writing }
  const planned = await planCheck(all.files, { exchanges, names, fromUs, toUs: endUs, isLive: live })
  const totalBytes = bytesOf(planned, holdings)
  let doneBytes = 0
  const pieces = await runPieces(planned, scope, live ? 1 : options.jobs, chars => {
    doneBytes += chars
    options.onProgress?.(doneBytes, totalBytes)
  })
  const store = new FindingStore()
  const report = (finding: Finding): void => store.add(finding)
  if (live) {
    const asked = { vault, exchanges, symbols: options.symbols ?? [], nowMs, fromUs }
    for (const finding of all.findings) report(finding)
    await checkLive(asked, holdings.files, report)
  } else {
    checkPlaces(holdings, scope, report)
    tellTurns(planned, pieces, scope, report)
    const [sessions, statuses] = [pieces.flatMap(each => each.sessions), pieces.flatMap(each => each.statuses)]
    judgeRuns(sessions, statuses, finding => (finding.us ?? fromUs) >= fromUs && report(finding))
    tellLackingFrames(pieces, all, vault, report)
    const nothing = { exchange: '', name: '', feed: '', file: '' }
    if (planned.length === 0) report(makeFinding('no_data', nothing, null, null, 'there is no hour file to look at'))
  }
  if (!live) await storeDays(planned, { vault, fromUs, toUs: endUs, nowUs })
  for (const piece of pieces) for (const finding of piece.findings) report(finding)
  const looks = { idle: pieces.flatMap(({ idle }) => idle), looked: pieces.flatMap(({ looked }) => looked) }
  const findings = settle(store.findings, looks)
  return {
    ...{ vault, at: isoMs(nowUs) },
    from: askedUs === undefined ? null : isoMs(askedUs),
    to: options.toUs === undefined ? null : isoMs(options.toUs),
    findings,
    counts: countFindings(findings, [...store.more, ...pieces.flatMap(({ more }) => more)]),
    stats: {
      instruments: planned.filter(({ kind }) => kind === 'instrument').length,
      files: planned.reduce((sum, task) => sum + filesOf(task).length, 0),
      lines: pieces.reduce((sum, { lines }) => sum + lines, 0),
      bytes: pieces.reduce((sum, { chars }) => sum + chars, 0),
      seconds: Math.round(performance.now() - beganMs) / 1000
    }
  }
}

/** Of the frames all connections stay: which of them an instrument has is not in their names. */
function narrowed(all: Holdings, exchanges: readonly string[], names: readonly string[]): Holdings {
  if (exchanges.length === 0 && names.length === 0) return all
  const isWanted = ({ exchange, name, feed }: { exchange: string; name: string; feed: string }) =>
    (exchanges.length === 0 || exchanges.includes(exchange)) &&
    (names.length === 0 || (feed !== 'frames' && names.includes(name)))
  return { files: all.files.filter(isWanted), foreign: [], findings: all.findings }
}

function bytesOf(tasks: readonly CheckTask[], { files }: Holdings): number {
  const sizes = new Map(files.map(({ path, bytes, kind }) => [path, kind === 'gz' ? bytes * PACKED : bytes]))
  let sum = 0
  for (const task of tasks) for (const { path } of filesOf(task)) sum += sizes.get(path) ?? 0
  return sum
}

/** Holds the hours of each connection against each other. */
function tellTurns(
  tasks: readonly CheckTask[],
  pieces: readonly CheckPiece[],
  scope: CheckScope,
  report: (finding: Finding) => void
): void {
  const edges = new Map<string, CheckPiece['edges'][number]>()
  for (const [at, task] of tasks.entries()) {
    if (task.kind !== 'frames') continue
    for (const each of pieces[at]!.edges) edges.set(`${task.exchange}/${each.name}/${task.hour}`, each)
  }
  for (const [at, task] of tasks.entries()) {
    if (task.kind !== 'frames') continue
    for (const { name, first } of pieces[at]!.edges) {
      const before = edges.get(`${task.exchange}/${name}/${task.hour - 1}`)?.last
      const fault = before === undefined ? undefined : judgeTurn(before, first)
      if (fault === undefined || first.us < scope.fromUs) continue
      const about = { exchange: task.exchange, name, feed: 'frames', file: first.file }
      report(makeFinding('frame_missing', about, first.line, first.us, fault))
    }
  }
}

/** Tells of hours of frames that records come from, and that are not there. */
function tellLackingFrames(
  pieces: readonly CheckPiece[],
  { files }: Holdings,
  vault: string,
  report: (finding: Finding) => void
): void {
  // Retention deletes the files of an hour one after the other.
  if (existsSync(retentionLockPath(vault))) return
  const held = new Set(
    files.flatMap(({ exchange, feed, name, hour }) => (feed === 'frames' ? `${exchange}/${name}/${hour}` : []))
  )
  for (const { exchange, name, hour, file } of pieces.flatMap(({ origins }) => origins)) {
    const key = `${exchange}/${name}/${hour}`
    if (held.has(key)) continue
    held.add(key)
    const place = placeOf(vault, hourPath(vault, exchange, 'frames', name, hour))
    const about = { exchange, name, feed: 'frames', file: place }
    report(
      makeFinding('missing_feed', about, null, null, `is missing: ${file} comes from it, and its process kept frames`)
    )
  }
}

/** Counts findings, and `more` that were not kept. */
export function countFindings(findings: readonly Finding[], more: CheckPiece['more']): CheckReport['counts'] {
  const counts = { errors: 0, warnings: 0, infos: 0 }
  const rules: Partial<Record<RuleId, number>> = {}
  const add = (rule: RuleId, severity: Finding['severity'], count: number): void => {
    counts[`${severity}s`] += count
    rules[rule] = (rules[rule] ?? 0) + count
  }
  for (const { rule, severity } of findings) add(rule, severity, 1)
  for (const { rule, severity, count } of more) add(rule, severity, count)
  return { ...counts, rules }
}
