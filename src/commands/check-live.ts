/** `check --live`: what the captures say of themselves, and the newest minutes of what they wrote. */
import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { HOUR_US } from '../core/time.ts'
import type { Finding } from '../quality/finding.ts'
import { judgeGap, judgeLive, type LiveInstrument, type LiveProcess } from '../quality/live.ts'
import { Timeline } from '../quality/timeline.ts'
import { readHealthFiles } from '../vault/health.ts'
import { folderName, type HourFile } from '../vault/layout.ts'
import { lastLine } from '../vault/reader.ts'
import { placeOf, readHour, recvUsOf } from '../vault/streams.ts'
import { makeFinding } from './check-tasks.ts'
import { isGone, lifeProblem } from './health.ts'
import { judge, type ProcessStatus } from './status.ts'

/** What part of a vault is looked at; empty lists mean all. */
export interface LiveOptions {
  readonly vault: string
  readonly exchanges: readonly string[]
  /** As the user wrote them. */
  readonly symbols: readonly string[]
  readonly nowMs: number
  /** How far back gaps are told of. */
  readonly fromUs: number
}

/** Judges the captures of a vault as they are now; `files` are its hour files. */
export async function checkLive(
  options: LiveOptions,
  files: readonly HourFile[],
  report: (finding: Finding) => void
): Promise<void> {
  const { vault, exchanges, symbols, nowMs } = options
  const nowUs = Math.round(nowMs * 1000)
  const status = judge(vault, await readHealthFiles(vault), exchanges, symbols, nowMs)
  const newest = newestFiles(files)
  for (const problem of status.problems) {
    const isDamaged = problem.includes(' is damaged: ')
    const file = isDamaged ? problem.slice(0, problem.indexOf(' is damaged: ')) : ''
    const about = { exchange: '', name: '', feed: '', file: file.replaceAll('\\', '/') }
    report(makeFinding(isDamaged ? 'unreadable' : 'dead_capture', about, null, nowUs, problem))
  }
  // Who does not run and whose instruments others write is no trouble.
  const processes = status.processes.filter(({ replaced }) => !replaced)
  judgeLive(
    processes.map(each => describeProcess(vault, each, newest)),
    nowUs,
    report
  )
  const dead = new Set(
    processes.filter(each => lifeProblem(each, each.age_ms) !== null).map(({ exchange }) => exchange)
  )
  for (const file of newest.values()) {
    if (file.feed === 'status' && !dead.has(file.exchange)) await tellGaps(file, options, nowUs, report)
  }
}

type Newest = ReadonlyMap<string, HourFile>

/** The newest plain file of each stream, by `<exchange>/<feed>/<name>`. */
function newestFiles(files: readonly HourFile[]): Newest {
  const newest = new Map<string, HourFile>()
  for (const file of files) {
    const key = `${file.exchange}/${file.feed}/${file.name}`
    if (file.kind === 'jsonl' && file.hour >= (newest.get(key)?.hour ?? 0)) newest.set(key, file)
  }
  return newest
}

function describeProcess(vault: string, status: ProcessStatus, newest: Newest): LiveProcess {
  const { exchange, path, pid, host, age_ms, cadence_ms, stopped_utc, started_utc, time_utc, writer, disk_free_bytes } =
    status
  const isSilent = lifeProblem(status, age_ms) !== null
  const life = stopped_utc !== null ? 'stopped' : isGone(status) ? 'gone' : isSilent ? lifeOfSilent(status) : 'runs'
  const pause = writer.paused ? `${writer.reason ?? 'no reason told'}, ${writer.pending_bytes} bytes wait` : null
  return {
    ...{ exchange, file: placeOf(vault, path), life, pid, host, pause },
    startedUs: usOf(started_utc),
    saidUs: usOf(stopped_utc ?? time_utc),
    cadenceMs: cadence_ms,
    freeBytes: disk_free_bytes,
    instruments: life === 'runs' ? status.instruments.map(each => describeInstrument(exchange, each, newest)) : []
  }
}

/** Of another host nobody here can tell whether a process exists. */
function lifeOfSilent({ host }: ProcessStatus): 'silent' | 'exists' {
  return host === hostname() ? 'exists' : 'silent'
}

function describeInstrument(
  exchange: string,
  health: ProcessStatus['instruments'][number],
  newest: Newest
): LiveInstrument {
  const { instId, level, state, since_utc, last_snapshot_utc, lag_ms } = health
  const name = folderName(instId)
  const prefix = `${exchange}/${level}_`
  const shots = [...newest].filter(([key]) => key.startsWith(prefix) && key.endsWith(`/${name}`) && isShots(key))
  return {
    ...{ name, state, sinceUs: usOf(since_utc) },
    takenUs: last_snapshot_utc === null ? null : usOf(last_snapshot_utc),
    storedUs: shots.reduce<number | null>((found, [, file]) => lastUsOf(file.path) ?? found, null),
    lagMs: lag_ms?.p50 ?? null
  }
}

function isShots(key: string): boolean {
  return /\/l[23]_(?:spot|perps|futures|options)\//.test(key)
}

function lastUsOf(path: string): number | null {
  try {
    const line = lastLine(path, each => !Number.isNaN(recvUsOf(each)))
    return line === undefined ? null : recvUsOf(line)
  } catch {
    // A file that nobody can read has taken nothing.
    return null
  }
}

function usOf(utc: string): number {
  return Date.parse(utc) * 1000
}

/** Tells the gaps of the last minutes, as the status feed does. */
async function tellGaps(
  file: HourFile,
  options: LiveOptions,
  nowUs: number,
  report: (finding: Finding) => void
): Promise<void> {
  const { vault, fromUs } = options
  if ((file.hour + 1) * HOUR_US <= fromUs || !existsSync(file.path)) return
  const timeline = new Timeline()
  const about = { exchange: file.exchange, name: file.name, file: placeOf(vault, file.path) }
  let lost: { lostUs: number; cause: string; line: number } | null = null
  for await (const { lines, firstLine } of readHour(file.path)) {
    for (const [at, text] of lines.entries()) {
      const row = parse(text)
      if (row === undefined) continue
      timeline.take(row.recv_us, row.event, row.detail)
      if (timeline.state === 'waiting' && row.event === 'gap') {
        lost ??= { lostUs: row.recv_us, cause: timeline.cause, line: firstLine + at }
      } else if (timeline.state !== 'waiting' && lost !== null) {
        if (row.recv_us >= fromUs) tell({ ...lost, backUs: row.recv_us })
        lost = null
      }
    }
  }
  if (lost !== null) tell({ ...lost, backUs: null })

  function tell(gap: { lostUs: number; backUs: number | null; cause: string; line: number }): void {
    const finding = judgeGap(gap, { ...about, line: gap.line }, nowUs)
    if (finding !== null) report(finding)
  }
}

function parse(text: string): { recv_us: number; event: string; detail: Record<string, unknown> } | undefined {
  try {
    return JSON.parse(text) as { recv_us: number; event: string; detail: Record<string, unknown> }
  } catch {
    // The rules for the lines of the instrument tell of it.
    return undefined
  }
}
