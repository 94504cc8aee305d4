/** The frames of one exchange and hour: each line by itself, and what comes out when they are played. */
import { existsSync } from 'node:fs'
import type { OpenDetail } from '../capture/engine.ts'
import { Playback } from '../capture/playback.ts'
import type { Sink } from '../capture/subject.ts'
import { messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import type { Finding } from '../quality/finding.ts'
import { type CutFrame, FrameJudge } from '../quality/frames.ts'
import { isUnkept, type Session } from '../quality/runs.ts'
import type { TickSpan } from '../quality/settle.ts'
import { folderName, type HourFile } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import { placeOf } from '../vault/streams.ts'
import { Comparison, type Death } from './check-deep.ts'
import { withoutPath } from './check-lines.ts'
import {
  type CheckPiece,
  type CheckScope,
  FindingStore,
  type FramesTask,
  isOpenEnd,
  makeFinding
} from './check-tasks.ts'
import { FrameSource, playSources } from './frame-source.ts'

/** What may wait to be compared: little, so that it is gone before it has grown old in memory. */
const PENDING_CHARS_MAX = 256 * 1024
const HEAD_CHARS = 1024
const MISMATCH = '"event":"checksum_mismatch"'
const SHOWN_CHARS = 60
/** How often it is looked how much was read. */
const LOOK_LINES = 1024
/** More are not remembered. */
const SPANS_MAX = 10_000

/** One connection of the hour. */
class ConnectionHour {
  readonly source: FrameSource
  readonly judge: FrameJudge
  readonly deaths: Death[] = []
  /** Folder names of the instruments that the connection is for, as its last `open` or `state` line names them. */
  names: string[] = []
  hasBook = false
  private readonly files: readonly HourFile[]
  private readonly scope: CheckScope
  private readonly report: (finding: Finding) => void
  private isClosed = true
  private placedPath = ''
  private place = ''
  private lastUs = Number.NaN
  /** The process that wrote the line at hand. */
  run = ''
  private readonly exchange: string
  private readonly name: string
  private cadenceUs = Number.POSITIVE_INFINITY
  private tickUs = Number.NaN
  /** Whether something is wrong with the line at hand. */
  private isWrong = false
  /** Since when the lines are not what they were; undefined where they are, or where it is told. */
  private wrongUs: number | undefined
  /** Whether something has been wrong since the last tick. */
  private isDoubtful = false
  /** When the last line was played that nothing is wrong with. */
  private playedUs = 0
  readonly idle: TickSpan[] = []
  /** What each process wrote. */
  readonly sessions: Session[] = []
  private session: Omit<Session, 'toUs' | 'isClosed' | 'file' | 'line'> | undefined
  /** The line at hand. */
  private end = { dir: '', file: '', line: 0 }

  constructor(
    task: FramesTask,
    files: readonly HourFile[],
    name: string,
    scope: CheckScope,
    isPlayed: boolean,
    report: (finding: Finding) => void
  ) {
    this.files = files
    this.scope = scope
    this.report = report
    this.exchange = task.exchange
    this.name = name
    const note = (finding: Finding): void => {
      if (finding.severity === 'error') this.isWrong = this.isDoubtful = true
      report(finding)
    }
    this.judge = new FrameJudge({ exchange: task.exchange, name, hour: task.hour, isPlayed, report: note })
    const paths = files.map(({ path }) => path)
    this.source = new FrameSource(paths, { hour: task.hour, toUs: scope.toUs, observer: this })
  }

  /** Where the line at hand stands. */
  get file(): string {
    const { path } = this.source
    if (path !== this.placedPath) {
      this.placedPath = path
      this.place = placeOf(this.scope.vault, path)
    }
    return this.place
  }

  /** Of the observer: each line as it stands in its file. */
  line(cut: CutFrame | undefined, text: string): void {
    this.judge.take(cut, text, this.file, this.source.line)
    if (cut === undefined) return
    if (cut.dir === 'open' || cut.dir === 'state') this.begin(cut)
    // A connection may end before its process has time for a tick again.
    else if (cut.dir === 'tick' || cut.dir === 'close') this.tick(cut.us)
    this.session ??= { exchange: this.exchange, name: this.name, names: [], run: '', fromUs: cut.us, isFirst: false }
    this.isClosed = cut.dir === 'close'
    this.end = { dir: cut.dir, file: this.file, line: this.source.line }
    this.lastUs = cut.us
  }

  /** Notes where ticks are further apart than the cadence: no snapshot can be there. */
  private tick(us: number): void {
    const slot = (moment: number) => Math.floor(moment / this.cadenceUs)
    const isIdle = slot(us) - slot(this.tickUs) > 1 && !this.isDoubtful
    if (isIdle && this.idle.length < SPANS_MAX) this.idle.push(this.span(this.tickUs, us))
    this.isDoubtful = false
    this.tickUs = us
  }

  private span(fromUs: number, toUs: number): TickSpan {
    return { exchange: this.exchange, names: this.names, fromUs, toUs }
  }

  /** From the first to the last line. */
  get looked(): TickSpan[] {
    const { first, last } = this.judge
    return first === undefined || last === undefined || !this.hasBook ? [] : [this.span(first.us, last.us)]
  }

  /** Since when the lines up to the one that is played now are not what they were; undefined where they are. */
  takeWrong(): number | undefined {
    const isWrong = this.isWrong || this.source.isPatch
    this.isWrong = false
    if (isWrong) this.wrongUs ??= this.playedUs
    else this.playedUs = this.source.head!.us
    // Which instruments are concerned the next opening tells.
    if (this.names.length === 0) return undefined
    const { wrongUs } = this
    this.wrongUs = undefined
    return wrongUs
  }

  private begin(cut: CutFrame): void {
    const run = /"run":"([^"]*)"/.exec(cut.text.slice(0, HEAD_CHARS))?.[1] ?? ''
    if (run !== this.run) this.endSession()
    if (run !== this.run && !this.isClosed) this.deaths.push({ lastUs: this.lastUs, nextUs: cut.us })
    this.run = run
    const { names, feeds, cadenceMs } = describeOpening(cut)
    this.names = names
    const isFirst = cut.dir === 'open' && cut.frame === 1
    const { exchange } = this
    this.session ??= { exchange, name: this.name, names, run, fromUs: cut.us, isFirst }
    this.hasBook = feeds.includes('book')
    this.cadenceUs = cadenceMs * 1000
    this.tickUs = cut.us
  }

  /** The sessions so far, and the one that goes on. */
  get begun(): Session[] {
    const { session, end, isClosed } = this
    if (session === undefined) return this.sessions
    const toUs = isClosed ? this.lastUs : Number.POSITIVE_INFINITY
    return [...this.sessions, { ...session, ...end, toUs, isClosed }]
  }

  private endSession(): void {
    const { session, end } = this
    this.session = undefined
    if (session === undefined || this.sessions.length === SPANS_MAX) return
    const { dir, file, line } = end
    this.sessions.push({ ...session, toUs: this.lastUs, isClosed: dir === 'close' || dir === 'skip', file, line })
  }

  /** Of the observer: what is wrong with a file. */
  trouble(kind: 'damaged' | 'doubled' | 'mark', message: string): void {
    // Retention may have deleted it in the meantime.
    if (kind === 'damaged' && !existsSync(this.source.path)) return
    const rule = kind === 'damaged' ? 'damaged_file' : kind === 'doubled' ? 'doubled_hour' : 'bad_record'
    const line = kind === 'damaged' ? this.source.line + 1 : 1
    const text = withoutPath(message, this.source.path)
    this.report(makeFinding(rule, { ...this.current, file: this.file }, line, null, text))
  }

  /** Of the observer: half a line. */
  tail(start: string): void {
    if (isOpenEnd(this.current, this.scope)) return
    const message = `ends with half a line: ${JSON.stringify(start.slice(0, SHOWN_CHARS))}`
    this.report(makeFinding('torn_line', { ...this.current, file: this.file }, this.source.line + 1, null, message))
  }

  private get current(): HourFile {
    return this.files.find(({ path }) => path === this.source.path) ?? this.files[0]!
  }

  /** The hour has ended; `goesOn` in the next one. */
  finish(goesOn: boolean): void {
    this.judge.finish()
    this.endSession()
    if (!this.isClosed && !goesOn) this.deaths.push({ lastUs: this.lastUs, nextUs: Number.POSITIVE_INFINITY })
  }
}

/** Checks the frames of an hour; `onChars` is told of what was read. */
export async function checkFrames(
  task: FramesTask,
  scope: CheckScope,
  onChars: (chars: number) => void
): Promise<CheckPiece> {
  const store = new FindingStore()
  const report = (finding: Finding): void => {
    if (finding.us === null || finding.us >= scope.fromUs) store.add(finding)
  }
  const exchange = EXCHANGES[task.exchange]
  const isPlayed = exchange !== undefined && (scope.deep || Object.values(exchange.proof).some(each => each?.checksum))
  const connections = task.connections.map(
    ({ name, files }) => new ConnectionHour(task, files, name, scope, isPlayed, report)
  )
  const bySource = new Map(connections.map(each => [each.source, each]))
  const { hour, derived } = task
  const comparison = new Comparison({
    ...{ vault: scope.vault, exchange: task.exchange, hour, toUs: scope.toUs, derived },
    isUnkept: (name, us) =>
      isUnkept(
        connections.flatMap(each => each.begun),
        name,
        us
      )
  })
  const playback = isPlayed ? new Playback(exchange, sinkFor(comparison, task, scope)) : undefined
  let told = 0
  let count = 0
  const tell = (): void => {
    const chars = connections.reduce((sum, { source }) => sum + source.bytes, 0)
    if (chars > told) onChars(chars - told)
    told = chars
  }
  const lines = await playSources(
    connections.map(({ source }) => source),
    source => {
      const connection = bySource.get(source)!
      if (playback !== undefined) playOne(playback, connection, comparison, task.exchange)
    },
    () => {
      if (++count % LOOK_LINES === 0) tell()
      return comparison.pendingChars > PENDING_CHARS_MAX ? comparison.drain() : undefined
    }
  )
  tell()
  for (const [at, connection] of connections.entries())
    connection.finish(await goesOn(task.connections[at]!.next, connection.run))
  if (playback !== undefined) {
    const deathsOf = (name: string) => connections.flatMap(each => (each.names.includes(name) ? each.deaths : []))
    await comparison.finish(
      deathsOf,
      finding => (scope.deep || finding.rule === 'checksum_mismatch') && report(finding)
    )
    tellUnused(playback.unused, task, scope, report)
  }
  const edges = task.connections.flatMap(({ name }, at) => {
    const { first, last } = connections[at]!.judge
    return first === undefined || last === undefined ? [] : [{ name, first, last }]
  })
  const idle = connections.flatMap(each => each.idle)
  const looked = connections.flatMap(each => each.looked)
  const sessions = connections.flatMap(each => each.sessions)
  const { findings, more } = store
  return { findings, more, lines, chars: told, idle, looked, sessions, statuses: [], edges, origins: [] }
}

/** Where what the playback gives goes to: all of it with `--deep`, else only what tells of checksums. */
function sinkFor(comparison: Comparison, task: FramesTask, scope: CheckScope): Sink {
  const nowhere = { append: () => undefined }
  return {
    stream: (feed, instId) => {
      const name = folderName(instId)
      const isWanted = task.names.length === 0 || task.names.includes(name)
      if (!isWanted || (!scope.deep && feed !== 'status')) return nowhere
      return {
        append: (us, line) => {
          if (scope.deep || line.includes(MISMATCH)) comparison.append(feed, name, us, line)
        }
      }
    }
  }
}

function playOne(playback: Playback, connection: ConnectionHour, comparison: Comparison, exchange: string): void {
  const { source, judge } = connection
  const head = source.head!
  const { us, conn, frame } = head
  const wrongUs = connection.takeWrong()
  if (wrongUs !== undefined) comparison.spoil(connection.names, wrongUs, connection.hasBook)
  const file = connection.file
  comparison.place = { exchange, conn, file, line: source.line, frame, us }
  try {
    playback.play(head)
  } catch (error) {
    if (error instanceof SyntaxError) judge.broken(file, source.line, us, messageOf(error))
    throw error
  }
}

function tellUnused(unused: number, task: FramesTask, scope: CheckScope, report: (finding: Finding) => void): void {
  const file = task.connections[0]?.files[0]
  if (unused === 0 || file === undefined) return
  const about = { exchange: task.exchange, name: '', feed: 'frames', file: placeOf(scope.vault, file.path) }
  const message = `${unused} lines of this hour belong to no connection whose opening or state can be read`
  report(makeFinding('unplayed', about, null, task.hour * HOUR_US, message))
}

/** What an `open` or `state` line says of its connection; `names` are folder names. */
function describeOpening(cut: CutFrame): { names: string[]; feeds: readonly string[]; cadenceMs: number } {
  try {
    const parsed = JSON.parse(cut.text) as Record<string, Partial<OpenDetail>>
    const { instruments = [], feeds = [], config } = parsed[cut.dir] ?? {}
    const names = instruments.map(({ instId }) => folderName(instId))
    return { names, feeds, cadenceMs: config?.cadenceMs ?? Number.POSITIVE_INFINITY }
  } catch {
    // The judge of the line tells of it.
    return { names: [], feeds: [], cadenceMs: Number.POSITIVE_INFINITY }
  }
}

/** Whether a connection that was not closed may live on in the next hour: not where another process begins that one. */
async function goesOn(next: string | null, run: string): Promise<boolean> {
  if (next === null) return false
  try {
    for await (const bytes of readBytes(next)) {
      const head = bytes.toString('latin1', 0, HEAD_CHARS)
      return !head.includes('"dir":"open"') || head.includes(`"run":${JSON.stringify(run)}`)
    }
  } catch {
    // Who checks that hour tells of it.
  }
  return false
}
