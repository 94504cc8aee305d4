/** Holds what frames tell of the processes that wrote them against what status tells: each begins and ends in both. */
import { hourOf, isoMs } from '../core/time.ts'
import { type Finding, RULES, type RuleId } from './finding.ts'

/** What one process wrote of a connection into one hour of frames. Times in µs. */
export interface Session {
  readonly exchange: string
  /** The folder name of the connection. */
  readonly name: string
  /** Folder names of the instruments that it was for. */
  readonly names: readonly string[]
  /** Empty where no line says it. */
  readonly run: string
  readonly fromUs: number
  readonly toUs: number
  /** Whether it begins with the first line of the process. */
  readonly isFirst: boolean
  /** Whether it ends with a `close` line, or with one that tells of lines that were left out. */
  readonly isClosed: boolean
  /** Where its last line stands. */
  readonly file: string
  readonly line: number
}

/** A flagged snapshot may be dated a millisecond after its frame. */
const SLACK_US = 2000

/**
 * Whether none of some sessions can have brought what an instrument received at a moment: the processes had not begun then, or
 * had closed their connections. Another one captured, that kept no frames. False where there is none of the instrument.
 */
export function isUnkept(sessions: readonly Session[], name: string, us: number): boolean {
  const own = sessions.filter(({ names }) => names.includes(name))
  return (
    own.length > 0 &&
    own.every(({ fromUs, toUs, isFirst, isClosed }) => (us < fromUs ? isFirst : isClosed && us > toUs + SLACK_US))
  )
}

/** A line of status that tells of a process; `run` is empty where it does not say which. */
export interface RunMark {
  readonly event: 'started' | 'stopped' | 'connected'
  readonly run: string
  readonly us: number
  readonly file: string
  readonly line: number
}

/** What status tells of the processes that captured one instrument. */
export interface StatusRuns {
  readonly exchange: string
  /** The folder name of the instrument. */
  readonly name: string
  readonly marks: readonly RunMark[]
}

/** Tells what the status or the frames of an instrument lack. */
export function judgeRuns(
  sessions: readonly Session[],
  statuses: readonly StatusRuns[],
  report: (finding: Finding) => void
): void {
  const ordered = [...sessions].sort((a, b) => a.fromUs - b.fromUs)
  for (const status of statuses) {
    const all = ordered.filter(({ exchange }) => exchange === status.exchange)
    judgeStarts(all, status, report)
    judgeEnds(all, status, report)
  }
}

/** A process whose frames are there from its first line on has said in status that it started. */
function judgeStarts(all: readonly Session[], { exchange, name, marks }: StatusRuns, report: Report): void {
  const known = new Set(marks.flatMap(({ event, run }) => (event === 'started' ? [run] : [])))
  for (const session of all) {
    const { run, names, isFirst, fromUs } = session
    if (run === '' || known.has(run)) continue
    known.add(run)
    const place = marks.find(({ us }) => us >= fromUs)
    // Status of the hour may be gone, or may not begin before the next one.
    if (!isFirst || !names.includes(name) || place === undefined || hourOf(place.us) !== hourOf(fromUs)) continue
    const message = `no started stands before this line, but a process began at ${isoMs(fromUs)}`
    report(make('missing_status', { exchange, name, feed: 'status', ...place }, message))
  }
}

/** A process that says in status that it stopped has closed its connections. */
function judgeEnds(all: readonly Session[], { exchange, name, marks }: StatusRuns, report: Report): void {
  for (const { event, run, us } of marks) {
    if (event !== 'stopped') continue
    const last = new Map(all.flatMap(each => (each.fromUs <= us ? [[each.name, each]] : [])))
    for (const session of last.values()) {
      if (session.run !== run || session.isClosed || !session.names.includes(name)) continue
      const { file, line } = session
      const message = `the process stopped at ${isoMs(us)}, and the connection was not closed: its last lines are missing`
      report(make('frame_missing', { exchange, name: session.name, feed: 'frames', file, line: line + 1, us }, message))
    }
  }
}

type Report = (finding: Finding) => void

function make(
  rule: RuleId,
  { exchange, name, feed, file, line, us }: Pick<Finding, 'exchange' | 'name' | 'feed' | 'file' | 'line' | 'us'>,
  message: string
): Finding {
  return { rule, severity: RULES[rule].severity, exchange, name, feed, file, line, us, message }
}
