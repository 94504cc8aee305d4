/** The pieces that a check is done in, one after the other or in threads, and what each of them gives. */
import { HOUR_US } from '../core/time.ts'
import type { Finding, RuleId } from '../quality/finding.ts'
import { RULES } from '../quality/finding.ts'
import type { FrameEdge } from '../quality/frames.ts'
import type { Session, StatusRuns } from '../quality/runs.ts'
import type { TickSpan } from '../quality/settle.ts'
import type { HourFile } from '../vault/layout.ts'

/** What all pieces of one check share. Times in µs; lines from `toUs` on are not judged. */
export interface CheckScope {
  readonly vault: string
  readonly deep: boolean
  readonly fromUs: number
  readonly toUs: number
  readonly nowUs: number
  /** `<exchange>/<folder>` of what a running process writes: half a line at the end is nothing there. */
  readonly writing: readonly string[]
}

/** All frames of one exchange and hour, and what was derived from them. */
export interface FramesTask {
  readonly kind: 'frames'
  readonly exchange: string
  readonly hour: number
  readonly connections: readonly {
    readonly name: string
    readonly files: readonly HourFile[]
    /** The first file of the next hour, where there is one. */
    readonly next: string | null
  }[]
  readonly derived: readonly HourFile[]
  /** Folder names of the instruments that are asked for; empty: all. */
  readonly names: readonly string[]
}

/** One instrument with all its feeds. */
export interface InstrumentTask {
  readonly kind: 'instrument'
  readonly exchange: string
  readonly name: string
  readonly files: readonly HourFile[]
  /** As the frames of the exchange tell it; undefined where there are none, or several. */
  readonly cadenceMs: number | undefined
  /** Lines before are not read; undefined: all are. */
  readonly readFromUs?: number | undefined
}

/** One piece of a check. */
export type CheckTask = FramesTask | InstrumentTask

/** What a piece gives; `more` counts the findings of a rule and file that were too many to keep. */
export interface CheckPiece {
  readonly findings: Finding[]
  readonly more: {
    readonly rule: RuleId
    readonly severity: Finding['severity']
    readonly file: string
    readonly count: number
  }[]
  readonly lines: number
  readonly chars: number
  /** When the instruments of a connection had no tick in more than a slot of their cadence, and when they were looked at. */
  readonly idle: readonly TickSpan[]
  readonly looked: readonly TickSpan[]
  /** What frames and status tell of processes. */
  readonly sessions: readonly Session[]
  readonly statuses: readonly StatusRuns[]
  readonly edges: { readonly name: string; readonly first: FrameEdge; readonly last: FrameEdge }[]
  readonly origins: readonly Origin[]
}

/** An hour file begins with a record of this connection, whose process kept frames: so there is an hour of them. */
export interface Origin {
  readonly exchange: string
  /** The folder name of the connection. */
  readonly name: string
  readonly hour: number
  /** The hour file, relative to the vault. */
  readonly file: string
}

const FINDINGS_MAX = 1000
/** A capture may write into an hour for some seconds after its end. */
const WRITE_US = 60_000_000

/** Keeps the findings of a piece, a thousand of each rule and file, and counts the others. */
export class FindingStore {
  readonly findings: Finding[] = []
  private readonly counts = new Map<
    string,
    { rule: RuleId; severity: Finding['severity']; file: string; count: number }
  >()

  /** Takes a finding. */
  add(finding: Finding): void {
    const { rule, severity, file } = finding
    const key = `${rule}\n${severity}\n${file}`
    const known = this.counts.get(key)
    if (known !== undefined) known.count++
    else this.counts.set(key, { rule, severity, file, count: 1 })
    if ((known?.count ?? 1) <= FINDINGS_MAX) this.findings.push(finding)
  }

  /** The counts of those that were not kept. */
  get more(): CheckPiece['more'] {
    const over = [...this.counts.values()].filter(({ count }) => count > FINDINGS_MAX)
    return over.map(each => ({ ...each, count: each.count - FINDINGS_MAX }))
  }
}

/** Whether half a line at the end of a file is one that a running process is about to go on with. */
export function isOpenEnd(file: HourFile, scope: CheckScope): boolean {
  const isRecent = (file.hour + 1) * HOUR_US + WRITE_US > scope.nowUs
  return file.kind === 'jsonl' && isRecent && scope.writing.includes(`${file.exchange}/${file.name}`)
}

/** A finding with the severity of its rule. */
export function makeFinding(
  rule: RuleId,
  about: Pick<Finding, 'exchange' | 'name' | 'feed' | 'file'>,
  line: number | null,
  us: number | null,
  message: string
): Finding {
  const { exchange, name, feed, file } = about
  return { rule, severity: RULES[rule].severity, exchange, name, feed, file, line, us, message }
}
