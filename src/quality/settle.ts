/** One damage, one finding: what follows from another finding is left out. */
import { HOUR_US, hourOf } from '../core/time.ts'
import { type Finding, RULES, type RuleId, type Severity } from './finding.ts'

/** A stretch of time, µs, of the instruments of a connection; `names` are folder names. */
export interface TickSpan {
  readonly exchange: string
  readonly names: readonly string[]
  readonly fromUs: number
  readonly toUs: number
}

/** What the frames say about when snapshots could be taken. */
export interface Ticks {
  /** There was no tick in some slot of the cadence. */
  readonly idle: readonly TickSpan[]
  /** The frames were looked at. */
  readonly looked: readonly TickSpan[]
}

const SEVERITIES: readonly Severity[] = ['error', 'warning', 'info']
/** Of several findings about one line those of these rules say least. */
const VAGUE: readonly RuleId[] = ['not_rebuilt', 'unplayed', 'no_frames']
/** What may follow from one wrong line of the events, or from a file that cannot be read. */
const BOOK_RULES: ReadonlySet<RuleId> = new Set([
  'sequence_break',
  'missing_event',
  'missing_status',
  'unknown_order',
  'known_order',
  'wrong_order',
  'hour_image',
  'book_differs',
  'snapshot_differs',
  'wrong_number',
  'wrong_synced_at',
  'missing_slot',
  'late_tick',
  'unflagged_gap',
  'wrong_flag',
  'crossed_book'
])
/** What a block of lines that was written twice, moved or taken from elsewhere looks like. */
const ROW_RULES: ReadonlySet<RuleId> = new Set([
  'time_back',
  'duplicate_line',
  'duplicate_snapshot',
  'duplicate_trade',
  'frame_order',
  'known_order',
  'unknown_order',
  'sequence_break'
])
/** What is said of lines that are not there. */
const LACK = /^(?:a line is|\d+ lines are) missing here/
/** What is said of a line that is too many. */
const UNFOUNDED = /^(?:stands twice|the frames do not give it)/
/** A line of which the frames tell may be missing because it stands there, and cannot be read. */
const LINE_RULES: ReadonlySet<RuleId> = new Set([
  'torn_line',
  'bad_json',
  'bad_record',
  'time_mismatch',
  'time_back',
  'wrong_hour'
])
/** A finding about a book may be dated so much before the line that it follows from. */
const NEAR_US = 10_000_000
const NO_TICKS: Ticks = { idle: [], looked: [] }

/** The findings that are no consequence of others, errors first, then by file and line. */
export function settle(findings: readonly Finding[], ticks = NO_TICKS): Finding[] {
  const byPlace = new Map<string, Finding>()
  for (const finding of findings) {
    const each = withTicks(finding, ticks)
    const key =
      each.line === null ? `${each.rule}\n${each.file}\n${each.exchange}\n${each.name}` : `${each.file}\n${each.line}`
    const known = byPlace.get(key)
    if (known === undefined || isBetter(each, known)) byPlace.set(key, each)
  }
  const placed = [...byPlace.values()]
  const causes = new Causes(placed, findings)
  return joinRows(placed.filter(each => !causes.explain(each)).sort(compare))
}

/** Lines one behind the other that stand twice or out of their order are told by the first. */
function joinRows(findings: readonly Finding[]): Finding[] {
  const joined: Finding[] = []
  let count = 0
  const end = (): void => {
    const last = joined.at(-1)
    if (last !== undefined && count > 0)
      joined.splice(-1, 1, {
        ...last,
        message: `${last.message}; so with the next ${count === 1 ? 'line' : `${count} lines`}`
      })
    count = 0
  }
  for (const each of findings) {
    const last = joined.at(-1)
    const isNext = last?.line != null && each.file === last.file && each.line === last.line + count + 1
    if (isNext && each.severity === last.severity && isOfRow(each) && isOfRow(last)) count++
    else {
      end()
      joined.push(each)
    }
  }
  end()
  return joined
}

function isOfRow({ rule, message }: Finding): boolean {
  return rule === 'not_rebuilt' ? UNFOUNDED.test(message) : ROW_RULES.has(rule)
}

/** A slot without a snapshot is one that the capture had no time for, if no tick fell into it. */
function withTicks(finding: Finding, { idle, looked }: Ticks): Finding {
  const { rule, us, exchange, name } = finding
  if ((rule !== 'missing_slot' && rule !== 'late_tick') || us === null) return finding
  const holds = (span: TickSpan) =>
    us > span.fromUs && us <= span.toUs && span.exchange === exchange && span.names.includes(name)
  const right = idle.some(holds) ? 'late_tick' : looked.some(holds) ? 'missing_slot' : rule
  return right === rule ? finding : { ...finding, rule: right, severity: RULES[right].severity }
}

function isBetter(a: Finding, b: Finding): boolean {
  const [rankA, rankB] = [a, b].map(({ severity }) => SEVERITIES.indexOf(severity)) as [number, number]
  return rankA < rankB || (rankA === rankB && VAGUE.indexOf(a.rule) < VAGUE.indexOf(b.rule))
}

/** What other findings may follow from. */
class Causes {
  /** Files that cannot be read as they were written. */
  private readonly damaged = new Set<string>()
  /** `<exchange>/<name>/<kind of feed>/<hour>` of files that are damaged or missing, `<exchange>/<hour>` of frames. */
  private readonly brokenHours = new Set<string>()
  private readonly framesHours = new Set<string>()
  /** Lines that cannot be read as they were written. */
  private readonly badLines = new Set<string>()
  /** Moments of lines that the frames do not give, by instrument and feed: `events`, `status`, `snapshots`; their places. */
  private readonly moments = new Map<string, number[]>()
  private readonly places = new Set<string>()

  /** `<rule>/<exchange>/<name>` of what is wrong now. */
  private readonly told = new Set<string>()

  constructor(placed: readonly Finding[], all: readonly Finding[]) {
    for (const { rule, file, line, exchange, name, feed } of placed) {
      const hour = hourOfFile(file)
      this.told.add(`${rule}/${exchange}/${name}`)
      if (rule === 'damaged_file') this.damaged.add(file)
      if (LINE_RULES.has(rule)) this.badLines.add(`${file}\n${line}`)
      if (rule === 'damaged_file' || rule === 'missing_feed')
        this.brokenHours.add(`${exchange}/${name}/${kindOf(feed)}/${hour}`)
      if (feed === 'frames' && (rule === 'hour_start' || rule === 'damaged_file' || rule === 'bad_record'))
        this.framesHours.add(`${exchange}/${hour}`)
    }
    for (const { rule, us, exchange, name, feed, file, line } of all) {
      if (rule !== 'not_rebuilt' || us === null || feed === 'trades' || feed === 'frames') continue
      const key = `${exchange}/${name}/${kindOf(feed)}`
      const list = this.moments.get(key) ?? []
      this.moments.set(key, list)
      list.push(us)
      this.places.add(`${file}\n${line}`)
    }
  }

  /** Whether a finding follows from another. */
  explain(finding: Finding): boolean {
    const { rule, file, line, us, exchange, name, feed } = finding
    if (rule === 'damaged_file' || rule === 'missing_feed' || rule === 'doubled_hour') return false
    if (this.damaged.has(file)) return true
    if (rule === 'open_gap')
      return this.told.has(`mute_instrument/${exchange}/${name}`) || this.told.has(`mute_instrument/${exchange}/`)
    if (rule === 'unended' || rule === 'unhealed_gap') {
      const isDead = (of: string) => this.told.has(`dead_capture/${of}/`) || this.told.has(`dead_disk/${of}/`)
      // A process that captures several exchanges is told of without one.
      return isDead(exchange) || isDead('')
    }
    if (rule === 'unplayed') return this.framesHours.has(`${exchange}/${hourOfFile(file)}`)
    // What was overwritten with it may have been several lines.
    const isLack = rule === 'frame_missing' || (rule === 'not_rebuilt' && LACK.test(finding.message))
    if (isLack && line !== null && this.badLines.has(`${file}\n${line - 1}`)) return true
    if (rule === 'not_rebuilt' && feed === 'status' && line !== null)
      return [line - 2, line - 1, line + 1, line + 2].some(at => this.badLines.has(`${file}\n${at}`))
    const isBook = BOOK_RULES.has(rule)
    if (!isBook && rule !== 'not_rebuilt') return false
    const hour = us === null ? hourOfFile(file) : hourOf(us)
    const kinds = isBook ? ['events', 'status', 'snapshots'] : [kindOf(feed)]
    if (kinds.some(kind => this.brokenHours.has(`${exchange}/${name}/${kind}/${hour}`))) return true
    if (!isBook || us === null || this.places.has(`${file}\n${line}`)) return false
    const isNear = (kind: string, beforeUs: number, afterUs: number) =>
      this.moments
        .get(`${exchange}/${name}/${kind}`)
        ?.some(moment => us >= moment - beforeUs && us <= moment + afterUs) ?? false
    if (isNear('events', NEAR_US, HOUR_US)) return true
    if (rule === 'missing_status' || rule === 'unflagged_gap') return isNear('status', NEAR_US, NEAR_US)
    // The end of one hour is missing, and it is seen at the begin of the next.
    return (rule === 'missing_slot' || rule === 'late_tick') && line === 1 && isNear('snapshots', 0, HOUR_US)
  }
}

function kindOf(feed: string): string {
  if (feed === 'l3_events' || feed === 'l2_updates') return 'events'
  return feed === 'status' || feed === 'trades' ? feed : 'snapshots'
}

/** The hour that a path names, counted from the epoch; NaN where it names none. */
function hourOfFile(file: string): number {
  const found = /\/(\d{4}-\d\d-\d\d)\/(\d\d)\.jsonl/.exec(file)
  return found === null ? Number.NaN : hourOf(Date.parse(`${found[1]}T${found[2]}:00:00Z`) * 1000)
}

function compare(a: Finding, b: Finding): number {
  const bySeverity = SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity)
  if (bySeverity !== 0) return bySeverity
  if (a.file !== b.file) return a.file < b.file ? -1 : 1
  return (a.line ?? 0) - (b.line ?? 0) || (a.us ?? 0) - (b.us ?? 0) || (a.rule < b.rule ? -1 : 1)
}
