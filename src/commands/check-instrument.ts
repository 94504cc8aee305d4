/** The derived feeds of one instrument, all hours in one pass, merged by receive time. */
import type { Finding } from '../quality/finding.ts'
import { InstrumentJudge } from '../quality/instrument.ts'
import type { HourFile } from '../vault/layout.ts'
import { folderName } from '../vault/layout.ts'
import { placeOf } from '../vault/streams.ts'
import { LineCursor, type Trouble } from './check-lines.ts'
import {
  type CheckPiece,
  type CheckScope,
  FindingStore,
  type InstrumentTask,
  isOpenEnd,
  makeFinding,
  type Origin
} from './check-tasks.ts'

/** One feed of the instrument, and its place in the order of lines of one moment. */
interface FeedLines {
  readonly feed: string
  readonly rank: number
  readonly cursor: LineCursor
  file: string
}

const STATUS = 'status'
const STARTED = '"event":"started"'
const KEPT = '"frames":true'
const FLAGGED = '"gap_detected":true'
const CONN = /"conn":"([\w.:-]+)","frame":\d/

const TROUBLE_RULES = {
  damaged: 'damaged_file',
  doubled: 'doubled_hour',
  tail: 'torn_line',
  unreadable: 'unreadable'
} as const

/** Checks an instrument; `onChars` is told of what was read. */
export async function checkInstrument(
  task: InstrumentTask,
  scope: CheckScope,
  onChars: (chars: number) => void
): Promise<CheckPiece> {
  const { exchange, name, cadenceMs } = task
  const store = new FindingStore()
  const report = (finding: Finding): void => {
    if (finding.us === null || finding.us >= scope.fromUs) store.add(finding)
  }
  let chars = 0
  let lines = 0
  const note = (count: number): void => {
    chars += count
    onChars(count)
  }
  const judge = new InstrumentJudge({ exchange, name, report, cadenceMs, endUs: Math.min(scope.toUs, scope.nowUs) })
  const feeds = openFeeds(task, scope, report, judge, note)
  const origins = new Origins(exchange)
  let live: FeedLines[] = []
  for (const each of feeds) if (await each.cursor.fill()) live.push(each)
  while (live.length > 0) {
    const first = live.reduce((a, b) => (isBefore(b, a) ? b : a))
    const others = live.filter(each => each !== first)
    let more = true
    while (more && others.every(each => !isBefore(each, first))) {
      const { cursor, feed } = first
      if (cursor.file !== first.file) {
        first.file = cursor.file
        judge.startFile(feed, cursor.file, cursor.hour)
        origins.startFile(feed, cursor.file, cursor.hour, cursor.text!)
      }
      if (feed === STATUS) origins.takeStatus(cursor.text!)
      judge.take(feed, cursor.file, cursor.line, cursor.text!)
      lines++
      more = cursor.advance() || (await cursor.fill())
    }
    if (!more) live = others
  }
  judge.finish()
  const statuses = judge.marks === null ? [] : [{ exchange, name, marks: judge.marks }]
  const empty = { idle: [], looked: [], edges: [], sessions: [] }
  return { findings: store.findings, more: store.more, lines, chars, statuses, origins: origins.found, ...empty }
}

/** Which connections the hours of an instrument come from, as far as their processes said that they keep frames. */
class Origins {
  readonly found: Origin[] = []
  private readonly exchange: string
  private isKept = false

  constructor(exchange: string) {
    this.exchange = exchange
  }

  takeStatus(text: string): void {
    if (text.includes(STARTED)) this.isKept = text.includes(KEPT)
  }

  startFile(feed: string, file: string, hour: number, text: string): void {
    // A flagged snapshot of the last millisecond of an hour is dated into the next.
    if (!this.isKept || feed === STATUS || text.includes(FLAGGED)) return
    const conn = CONN.exec(text)?.[1]
    if (conn !== undefined) this.found.push({ exchange: this.exchange, name: folderName(conn), hour, file })
  }
}

function openFeeds(
  task: InstrumentTask,
  scope: CheckScope,
  report: (finding: Finding) => void,
  judge: InstrumentJudge,
  onChars: (chars: number) => void
): FeedLines[] {
  const { vault, toUs } = scope
  const trouble: Trouble = (kind, file, line, message) => {
    if (kind === 'tail' && isOpenEnd(file, scope)) return
    if (kind !== 'doubled') judge.lose(file.feed)
    report(makeFinding(TROUBLE_RULES[kind], { ...file, file: placeOf(vault, file.path) }, line, null, message))
  }
  const feeds = new Map<string, HourFile[]>()
  for (const file of task.files) {
    const list = feeds.get(file.feed) ?? []
    feeds.set(file.feed, list)
    list.push(file)
  }
  return [...feeds].map(([feed, hours]) => {
    const cursor = new LineCursor(hours, { vault, fromUs: task.readFromUs, toUs, trouble, onChars })
    return { feed, rank: rankOf(feed), cursor, file: '' }
  })
}

/** At one moment: what happened, then the events of the book, then trades, then the snapshots that reflect them. */
function rankOf(feed: string): number {
  if (feed === 'status') return 0
  if (feed === 'l3_events' || feed === 'l2_updates') return 1
  return feed === 'trades' ? 2 : 3
}

function isBefore(a: FeedLines, b: FeedLines): boolean {
  const { key } = a.cursor
  const other = b.cursor.key
  return key < other || (key === other && a.rank < b.rank)
}
