import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { gunzipSync } from 'node:zlib'
import type { SentFrame } from '../../src/simulator/simulator.ts'
import { makeTruth } from './truth.ts'

/** What a life lost may be this old at its death, in milliseconds: after kill -9, and after a power cut. */
export const LOSS_MS_MAX = { killed: 1000, power: 3000 } as const
const FINDINGS_MAX = 40
/** What an exchange says to a connection before it is asked for anything, and how old that may be when a life ends. */
const GREETING_FRAMES_MAX = 1
const GREETING_MS_MAX = 2000
/** Exchanges that number their updates: what is lost shows with the next frame, and no book may hide it. */
const NUMBERED: readonly string[] = ['bitfinex', 'okx', 'coinbase', 'binance', 'huobi']

/** How a life ended: by itself with exit 0, by a signal that nobody can catch, with the power of the machine, or not yet. */
export type End = 'clean' | 'killed' | 'power' | 'running'

/** One process that wrote into the vault; `life=<number>` is in the address of its sockets. */
export interface Life {
  readonly number: number
  end: End
  /** Milliseconds since the epoch, on the clock of the simulators. From `endedMs` on it can have written nothing. */
  startedMs: number
  endedMs: number
  /** How old the loss of this life may be at its death, where its disk was stalled or full: instead of LOSS_MS_MAX. */
  lossMsMax?: number
  /** By how much its wall clock was ahead of ours, in milliseconds. */
  clockShiftMs?: number
}

/** What a simulator sent, and withheld, on one connection, in the order of the wire. */
export interface SentConnection {
  readonly number: number
  readonly life: number
  readonly frames: SentFrame[]
}

/** A simulated exchange that was captured. */
export interface Source {
  readonly exchange: string
  readonly connections: readonly SentConnection[]
}

/** What the oracle counted. */
export interface Figures {
  /** Frames of the exchange found word for word, and lines of all feeds read. */
  frames: number
  lines: number
  sessions: number
  /** Snapshots compared with the true book; flagged ones are not. */
  snapshots: number
  /** Frames that `skip` lines stand for. */
  skipped: number
  /** Sent frames that a death took, and how long before it the oldest of them was sent (ms). */
  lost: number
  lossMs: number
  /** Records of which a power cut took the frame. */
  orphans: number
}

/** What is wrong, in words; nothing if all is right. */
export interface Verdict {
  readonly findings: string[]
  readonly figures: Figures
}

type Row = Record<string, unknown>

/** A line of the frames feed. */
interface Line {
  readonly us: number
  readonly frame: number
  readonly dir: string
  /** The frame of an `in` line, or the body of an `http` line, as it was on the wire. */
  readonly text: string
  readonly row: Row
}

/** What the vault has of one connection: from an `open` line to its `close` line. */
interface Session {
  readonly conn: string
  readonly life: number
  readonly run: string
  readonly instruments: readonly string[]
  readonly lines: Line[]
  isClosed: boolean
}

/** A snapshot record and where it stands. */
interface Shot {
  readonly row: Row
  readonly place: string
}

class Report {
  readonly findings: string[] = []
  readonly figures: Figures = {
    frames: 0,
    lines: 0,
    sessions: 0,
    snapshots: 0,
    skipped: 0,
    lost: 0,
    lossMs: 0,
    orphans: 0
  }

  find(text: string): void {
    if (this.findings.length < FINDINGS_MAX) this.findings.push(text.slice(0, 500))
  }
}

/** Where the lines of one stream stand: hour after hour, the compressed file of an hour before the plain one. */
export function hourFiles(vault: string, exchange: string, feed: string, name: string): string[] {
  const folder = join(vault, 'raw', exchange, feed, name)
  if (!existsSync(folder)) return []
  const order = (path: string) => `${path.replace(/\.gz$/, '')} ${path.endsWith('.gz') ? 0 : 1}`
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && /^\d\d\.jsonl(\.gz)?$/.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
    .sort((a, b) => (order(a) < order(b) ? -1 : 1))
}

function foldersIn(path: string): string[] {
  return existsSync(path) ? readdirSync(path).sort() : []
}

/** Reads every stream of a vault, each line of which must be whole. */
class Files {
  private readonly vault: string
  private readonly report: Report
  private readonly mayBeTorn: boolean

  constructor(vault: string, report: Report, mayBeTorn: boolean) {
    this.vault = vault
    this.report = report
    this.mayBeTorn = mayBeTorn
  }

  /** The records of a stream with their lines. */
  read(exchange: string, feed: string, name: string): { row: Row; line: string; place: string }[] {
    const found: { row: Row; line: string; place: string }[] = []
    for (const path of hourFiles(this.vault, exchange, feed, name)) {
      const bytes = readFileSync(path)
      const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()
      const short = relative(this.vault, path)
      const lines = text.split('\n')
      const tail = lines.pop() ?? ''
      if (tail !== '' && !this.mayBeTorn) this.report.find(`${short}: half a line at the end: ${tail}`)
      let lastUs = 0
      for (const [at, line] of lines.entries()) {
        const place = `${short}:${at + 1}`
        const row = parse(line)
        if (row === undefined) {
          // Reserved but never written space at the end goes with the torn line behind it.
          const isTail = this.mayBeTorn && at === lines.length - 1 && line.includes('\0')
          if (!isTail) this.report.find(`${place}: no whole line of JSON: ${line}`)
          continue
        }
        const us = Number(row.recv_us)
        if (!(us >= lastUs)) this.report.find(`${place}: recv_us goes back from ${lastUs} to ${us}`)
        lastUs = us
        found.push({ row, line, place })
        this.report.figures.lines++
      }
    }
    return found
  }
}

function parse(line: string): Row | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as Row) : undefined
  } catch {
    return undefined
  }
}

/** How a vault is judged. */
export interface JudgeOptions {
  /** It is a part of a vault, cut out between two connections: it need not begin with the first line, nor tell its status. */
  readonly isSlice?: boolean
}

/** Judges what is in a vault by what the simulators sent. No process may be writing. */
export function judge(
  vault: string,
  lives: readonly Life[],
  sources: readonly Source[],
  options: JudgeOptions = {}
): Verdict {
  const report = new Report()
  const last = lives.at(-1)
  const files = new Files(vault, report, last !== undefined && last.end !== 'clean')
  const byNumber = new Map(lives.map(life => [life.number, life]))
  for (const exchange of foldersIn(join(vault, 'raw'))) {
    const source = sources.find(each => each.exchange === exchange)
    if (source === undefined) report.find(`raw/${exchange}: nobody captured that`)
    else new Judge(vault, source, byNumber, files, report, options.isSlice ?? false).run()
  }
  for (const source of sources) {
    const wasHeard = source.connections.some(each => each.frames.length > 0)
    if (wasHeard && !existsSync(join(vault, 'raw', source.exchange))) {
      for (const connection of source.connections) {
        judgeLoss(connection, 0, byNumber.get(connection.life), report, `${source.exchange}, no file at all`)
      }
    }
  }
  return report
}

/** What was sent and is not in the vault, from a place on, must have been lost with a life, and be young then. */
function judgeLoss(
  connection: SentConnection,
  from: number,
  life: Life | undefined,
  report: Report,
  about: string
): void {
  const lost = connection.frames.filter(frame => frame.sent).slice(from)
  const first = lost[0]
  if (first === undefined || life === undefined || life.end === 'running') return
  if (life.end === 'clean') {
    // A connection that was still being opened when the life was told to stop: what greets it is heard by nobody.
    const isGreeting = from === 0 && lost.length <= GREETING_FRAMES_MAX && life.endedMs - first.atMs < GREETING_MS_MAX
    if (isGreeting) return
    report.find(`${about}: ${lost.length} frames of a life that stopped cleanly are nowhere, first ${first.text}`)
    return
  }
  // What was sent after the death is nobody's.
  const ageMs = life.endedMs - first.atMs
  if (ageMs < 0) return
  const { figures } = report
  figures.lost += lost.filter(frame => frame.atMs <= life.endedMs).length
  figures.lossMs = Math.max(figures.lossMs, ageMs)
  const max = life.lossMsMax ?? LOSS_MS_MAX[life.end]
  if (ageMs > max) {
    report.find(`${about}: ${lost.length} frames are nowhere, the first sent ${Math.round(ageMs)} ms before the death`)
  }
}

/** Judges one exchange. */
class Judge {
  private readonly vault: string
  private readonly source: Source
  private readonly lives: ReadonlyMap<number, Life>
  private readonly files: Files
  private readonly report: Report
  private readonly used = new Set<SentConnection>()
  private readonly isSlice: boolean

  constructor(
    vault: string,
    source: Source,
    lives: ReadonlyMap<number, Life>,
    files: Files,
    report: Report,
    isSlice: boolean
  ) {
    this.isSlice = isSlice
    this.vault = vault
    this.source = source
    this.lives = lives
    this.files = files
    this.report = report
  }

  run(): void {
    const { exchange } = this.source
    const root = join(this.vault, 'raw', exchange)
    const sessions = foldersIn(join(root, 'frames')).flatMap(name => this.sessionsOf(name))
    sessions.sort((a, b) => a.lines[0]!.us - b.lines[0]!.us)
    this.report.figures.sessions += sessions.length
    const shots = this.shotsOf(root)
    const owned = this.own(sessions, shots)
    // A session that heard nothing could be any connection: those that heard something choose first.
    const heard = ({ lines }: Session) => lines.some(({ dir }) => dir === 'in')
    for (const session of [...sessions.filter(heard), ...sessions.filter(each => !heard(each))])
      this.judgeSession(session, owned.get(session) ?? new Map())
    for (const connection of this.source.connections) {
      if (this.used.has(connection)) continue
      judgeLoss(connection, 0, this.lives.get(connection.life), this.report, `${exchange} #${connection.number}`)
    }
    for (const name of foldersIn(join(root, 'status'))) this.judgeStatus(name, sessions)
    for (const feed of foldersIn(root)) {
      if (feed === 'frames' || feed === 'status' || /^l[23]_(spot|perps|futures|options)$/.test(feed)) continue
      for (const name of foldersIn(join(root, feed))) {
        const records = this.files.read(exchange, feed, name)
        if (feed === 'trades') this.judgeTrades(records)
      }
    }
    for (const name of foldersIn(join(root, 'status'))) this.judgeFlags(name, shots)
  }

  /** A trade stands once, whatever the exchange repeats to a connection or to a life that follows. */
  private judgeTrades(records: readonly Shot[]): void {
    const places = new Map<unknown, string>()
    for (const { row, place } of records) {
      const before = places.get(row.trade_id)
      if (before !== undefined) this.report.find(`${place}: trade ${row.trade_id} stands at ${before} already`)
      places.set(row.trade_id, place)
    }
  }

  /** Each gap of a book has its flagged snapshot, unless a death may have taken one of the two. */
  private judgeFlags(name: string, shots: ReadonlyMap<string, Shot[]>): void {
    const { exchange } = this.source
    const dead = [...this.lives.values()].filter(({ end }) => end === 'killed' || end === 'power')
    for (const { row, place } of hourFiles(this.vault, exchange, 'status', name).flatMap(path => wholeRows(path))) {
      if (row.event !== 'gap' || (row.detail as Row).channel !== undefined) continue
      const us = Number(row.recv_us)
      const isYoung = dead.some(life => {
        const endUs = (life.endedMs + (life.clockShiftMs ?? 0)) * 1000
        const max = life.lossMsMax ?? LOSS_MS_MAX[life.end as 'killed' | 'power']
        return us >= endUs - max * 1000 && us <= endUs + 100_000
      })
      const flags = (shots.get(String(row.instId)) ?? []).filter(shot => shot.row.gap_detected === true)
      const isFlagged = flags.some(shot => Math.abs(Number(shot.row.recv_us) - us) <= 2000)
      if (!isYoung && !isFlagged) this.report.find(`${place}: a gap without its flagged snapshot`)
    }
  }

  /** Cuts the frames feed of a connection name into sessions; numbers go up by one within a life. */
  private sessionsOf(name: string): Session[] {
    const { exchange } = this.source
    const sessions: Session[] = []
    const numbers = new Map<number, number>()
    for (const { row, line, place } of this.files.read(exchange, 'frames', name)) {
      if (row.dir === 'open') {
        const url = new URL(String(row.url))
        const { instruments } = row.open as { instruments: { instId: string }[] }
        const names = instruments.map(({ instId }) => instId)
        const life = Number(url.searchParams.get('life'))
        const before = sessions.at(-1)
        if (before && before.life === life && !before.isClosed)
          this.report.find(`${place}: a new connection while ${name} was open`)
        sessions.push({ conn: name, life, run: String(row.run), instruments: names, lines: [], isClosed: false })
      }
      const session = sessions.at(-1)
      if (session === undefined || session.isClosed) {
        this.report.find(`${place}: a line of no connection: ${line}`)
        continue
      }
      const before = numbers.get(session.life) ?? (this.isSlice ? Number(row.frame) - 1 : 0)
      const expected = before + 1
      if (row.frame !== expected) this.report.find(`${place}: frame ${row.frame} where ${expected} is due`)
      if (row.conn !== name) this.report.find(`${place}: conn ${row.conn} in the file of ${name}`)
      numbers.set(session.life, Number(row.frame))
      session.lines.push(readLine(row, line))
      if (row.dir === 'close') session.isClosed = true
    }
    return sessions
  }

  private shotsOf(root: string): Map<string, Shot[]> {
    const shots = new Map<string, Shot[]>()
    for (const feed of foldersIn(root).filter(each => /^l[23]_(spot|perps|futures|options)$/.test(each))) {
      for (const name of foldersIn(join(root, feed))) {
        const rows = this.files.read(this.source.exchange, feed, name)
        if (rows.length > 0) shots.set(String(rows[0]!.row.instId), rows)
      }
    }
    return shots
  }

  /** Gives each snapshot to the session that it reflects; within one `synced_at` that is one, without a hole in it. */
  private own(sessions: readonly Session[], shots: ReadonlyMap<string, Shot[]>): Map<Session, Map<string, Shot[]>> {
    const owned = new Map<Session, Map<string, Shot[]>>()
    for (const [instId, list] of shots) {
      let before: { session: Session; shot: Shot } | undefined
      for (const shot of list) {
        const { row, place } = shot
        const us = Number(row.recv_us)
        const session = sessions.findLast(each => each.conn === row.conn && each.lines[0]!.us <= us)
        const last = session?.lines.at(-1)?.frame ?? 0
        const writer = session && this.lives.get(session.life)
        const life = writer && isWithin(writer, us) ? writer : (this.lifeAt(us) ?? writer)
        if (session === undefined || Number(row.frame) > last || session.life !== life?.number) {
          // A power cut may keep a record and take its frame, and all others of its life.
          if (life?.end === 'power') this.report.figures.orphans++
          else this.report.find(`${place}: reflects frame ${row.frame} of ${row.conn}, which is not in the vault`)
          continue
        }
        const own = owned.get(session) ?? new Map<string, Shot[]>()
        owned.set(session, own)
        own.set(instId, [...(own.get(instId) ?? []), shot])
        if (row.gap_detected === true) {
          before = undefined
          continue
        }
        if (before && before.shot.row.synced_at === row.synced_at) this.judgePair(before, { session, shot })
        before = { session, shot }
      }
    }
    return owned
  }

  /** The life that wrote at a moment of its own clock. */
  private lifeAt(us: number): Life | undefined {
    return [...this.lives.values()].findLast(life => isWithin(life, us))
  }

  private judgePair(one: { session: Session; shot: Shot }, two: { session: Session; shot: Shot }): void {
    const said = `${two.shot.place}: has the synced_at of the snapshot before it`
    if (one.session !== two.session) this.report.find(`${said}, from another connection`)
    const [from, to] = [Number(one.shot.row.frame), Number(two.shot.row.frame)]
    const skip = two.session.lines.find(({ dir, frame }) => dir === 'skip' && frame > from && frame <= to)
    if (skip) this.report.find(`${said}, though frames were skipped at ${skip.frame}`)
  }

  /** The connection of the simulator that a session is, and how many of its sent frames the session holds. */
  private connectionOf(session: Session): SentConnection | undefined {
    const candidates = this.source.connections.filter(each => each.life === session.life && !this.used.has(each))
    let best: { connection: SentConnection; right: number } | undefined
    for (const connection of candidates) {
      const right = agreement(session, connection)
      if (right === Number.POSITIVE_INFINITY) return connection
      if (best === undefined || right > best.right) best = { connection, right }
    }
    return best?.connection
  }

  private judgeSession(session: Session, shots: Map<string, Shot[]>): void {
    const about = `${session.conn} of life ${session.life}`
    const texts = session.lines.filter(({ dir }) => dir === 'in')
    const connection = this.connectionOf(session)
    if (connection === undefined) {
      if (texts.length > 0) this.report.find(`${about}: no simulator had that connection`)
      return
    }
    this.used.add(connection)
    const walk = new Walk(this.source.exchange, session, connection, shots, this.report, about)
    const stored = walk.run()
    if (stored !== undefined && !session.isClosed)
      judgeLoss(connection, stored, this.lives.get(session.life), this.report, about)
    const life = this.lives.get(session.life)
    if (life?.end === 'clean' && !session.isClosed) this.report.find(`${about}: no close line`)
  }

  /** `started` begins each run, `stopped` ends a clean one, and nothing comes in between. */
  private judgeStatus(name: string, sessions: readonly Session[]): void {
    const { exchange } = this.source
    const runs = new Map<string, boolean>()
    let isStopped = true
    let isStarted = false
    for (const { row, place } of this.files.read(exchange, 'status', name)) {
      const run = String((row.detail as Row).run)
      if (row.event === 'started') {
        runs.set(run, false)
        isStopped = false
        isStarted = true
      } else if (isStopped) this.report.find(`${place}: ${row.event} where started is due`)
      if (row.event === 'stopped') {
        if (!runs.has(run)) this.report.find(`${place}: stopped of a run that was not the last`)
        runs.set(run, true)
        isStopped = true
      }
    }
    if (!isStarted) this.report.find(`${exchange} ${name}: no started in its status`)
    for (const { run, life, lines, instruments } of sessions) {
      if (!instruments.some(each => each.replace(/[^A-Za-z0-9._-]/g, '-') === name)) continue
      const known = this.lives.get(life)
      const youngUs = (known?.end === 'power' ? LOSS_MS_MAX.power : LOSS_MS_MAX.killed) * 1000
      const isLong = lines.at(-1)!.us - lines[0]!.us > youngUs
      if (!runs.has(run) && (known?.end === 'clean' || isLong))
        this.report.find(`${exchange} ${name}: life ${life} has no started in its status`)
      if (known?.end === 'clean' && runs.get(run) === false)
        this.report.find(`${exchange} ${name}: life ${life} has no stopped in its status`)
    }
  }
}

/** Whether a life had begun and not ended at a moment of its own clock. */
function isWithin({ startedMs, endedMs, clockShiftMs = 0 }: Life, us: number): boolean {
  const ms = us / 1000 - clockShiftMs
  return ms >= startedMs && !(ms > endedMs)
}

function readLine(row: Row, line: string): Line {
  const at = row.dir === 'in' || row.dir === 'http' ? line.indexOf('"msg":') : -1
  const text = at >= 0 ? line.slice(at + '"msg":'.length, -1) : typeof row.text === 'string' ? row.text : ''
  return { us: Number(row.recv_us), frame: Number(row.frame), dir: String(row.dir), text, row }
}

/** How many lines of a session agree with a connection; infinite if all do. */
function agreement(session: Session, connection: SentConnection): number {
  const sent = connection.frames.filter(frame => frame.sent)
  let place = 0
  for (const line of session.lines) {
    if (line.dir === 'skip') place += Number(line.row.count)
    if (line.dir === 'in' && sent[place++]?.text !== line.text) return place
  }
  return Number.POSITIVE_INFINITY
}

function wholeRows(path: string): Shot[] {
  const text = readFileSync(path, 'utf8').split('\n')
  return text.flatMap((line, at) => {
    const row = parse(line)
    return row === undefined ? [] : [{ row, place: `${path}:${at + 1}` }]
  })
}

type Top = [price: string, size: string, orders: string | null][] | null

/** A book as it is, and as a client must still have it that missed something and cannot know yet. */
class Known {
  /** How often a client must have noticed that something was lost. */
  losses = 0
  private readonly truth
  private held: { bids: Top; asks: Top } | undefined

  constructor(exchange: string, instId: string, depth: number) {
    this.truth = makeTruth(exchange, instId, depth)
  }

  take(text: string, isSent: boolean, depth: number): void {
    const before = isSent || this.held ? undefined : this.tops(depth)
    const isConcerned = this.truth.apply(text)
    if (!isConcerned) return
    if (!isSent) this.held ??= before
    else if (this.held) {
      this.held = undefined
      this.losses++
    }
  }

  image(text: string, url: string): void {
    this.truth.image?.(text, url)
  }

  /** What a snapshot may show. */
  allowed(depth: number): { bids: Top; asks: Top }[] {
    return this.held ? [this.tops(depth), this.held] : [this.tops(depth)]
  }

  private tops(depth: number): { bids: Top; asks: Top } {
    return { bids: this.truth.top(false, depth), asks: this.truth.top(true, depth) }
  }
}

/** Goes through a session and its connection side by side. */
class Walk {
  private readonly session: Session
  private readonly connection: SentConnection
  private readonly shots: Map<number, { instId: string; shot: Shot }[]> = new Map()
  private readonly known = new Map<string, Known>()
  private readonly report: Report
  private readonly about: string
  private readonly depth: number
  /** The next frame of the connection, sent or not. */
  private place = 0
  private stored = 0
  private doubled: string | undefined
  /** Losses that were known at the first snapshot with a `synced_at`. */
  private readonly losses = new Map<string, number>()
  private readonly isNumbered: boolean

  constructor(
    exchange: string,
    session: Session,
    connection: SentConnection,
    shots: ReadonlyMap<string, Shot[]>,
    report: Report,
    about: string
  ) {
    this.session = session
    this.connection = connection
    this.report = report
    this.about = about
    this.isNumbered = NUMBERED.includes(exchange)
    this.depth = depthOf([...shots.values()][0]?.[0]?.row) ?? 400
    for (const [instId, list] of shots) {
      this.known.set(instId, new Known(exchange, instId, this.depth))
      for (const shot of list) {
        const frame = Number(shot.row.frame)
        this.shots.set(frame, [...(this.shots.get(frame) ?? []), { instId, shot }])
      }
    }
  }

  /** The number of sent frames that the vault has; undefined when it has something else. */
  run(): number | undefined {
    const { figures } = this.report
    for (const line of this.session.lines) {
      if (line.dir === 'in') {
        const frame = this.nextSent()
        if (frame?.text !== line.text) {
          const due = frame === undefined ? 'nothing was sent' : `it was ${frame.text}`
          this.report.find(`${this.about}, frame ${line.frame}: ${line.text.slice(0, 160)} where ${due}`)
          return undefined
        }
        figures.frames++
        this.stored++
      } else if (line.dir === 'skip') this.skip(line)
      else if (line.dir === 'http') this.image(line)
      for (const { instId, shot } of this.shots.get(line.frame) ?? []) this.compare(instId, shot)
    }
    return this.stored
  }

  /** Goes on to the next frame that was sent; what was withheld before it is made known to the books. */
  private nextSent(): SentFrame | undefined {
    const { frames } = this.connection
    while (this.place < frames.length) {
      const frame = frames[this.place++]!
      this.teach(frame)
      if (frame.sent) return frame
    }
    return undefined
  }

  private teach({ text, sent, fault }: SentFrame, isSeen = sent): void {
    // A swapped frame was known where it was due, the second of a doubled one with the first.
    if (fault === 'reorder' && sent) return
    if (this.doubled === text) {
      this.doubled = undefined
      return
    }
    if (fault === 'duplicate' && sent) this.doubled = text
    for (const known of this.known.values()) known.take(text, isSeen, this.depth)
  }

  private skip(line: Line): void {
    const count = Number(line.row.count)
    const { frames } = this.connection
    for (let left = count; left > 0 && this.place < frames.length; ) {
      const frame = frames[this.place++]!
      this.teach(frame, false)
      if (frame.sent) left--
    }
    this.stored += count
    this.report.figures.skipped += count
  }

  private image(line: Line): void {
    if (line.row.status !== 200) return
    for (const known of this.known.values()) known.image(line.text, String(line.row.url))
  }

  private compare(instId: string, { row, place }: Shot): void {
    if (row.gap_detected === true) return
    this.report.figures.snapshots++
    const known = this.known.get(instId)!
    const synced = `${instId} ${row.synced_at}`
    const losses = this.losses.get(synced) ?? known.losses
    this.losses.set(synced, losses)
    if (this.isNumbered && losses !== known.losses)
      this.report.find(`${place}: has the synced_at of a book that lost an update meanwhile`)
    const differences = known.allowed(this.depth).map(({ bids, asks }) => differenceOf(row, bids, asks, this.depth))
    if (differences.every(each => each !== undefined))
      this.report.find(`${place}, frame ${row.frame} of ${this.about}: ${differences[0]}`)
  }
}

function depthOf(row: Row | undefined): number | undefined {
  const key = Object.keys(row ?? {}).find(each => each.startsWith('bids_top'))
  return key === undefined ? undefined : Number(key.slice('bids_top'.length))
}

/** Where a snapshot differs from a book; undefined where it does not. */
function differenceOf(row: Row, bids: Top, asks: Top, depth: number): string | undefined {
  if (bids === null || asks === null) return 'there was no book'
  const sides = [
    ['bid', bids, row[`bids_top${depth}`], row.best_bid],
    ['ask', asks, row[`asks_top${depth}`], row.best_ask]
  ] as const
  for (const [side, want, rows, best] of sides) {
    const have = rows as [string, string, string, string | null][]
    if (have.length !== want.length) return `${have.length} levels on the ${side} side, not ${want.length}`
    for (const [at, [price, size, orders]] of want.entries()) {
      const level = have[at]!
      const isSame =
        plain(level[0]) === plain(price) &&
        plain(level[1]) === plain(size) &&
        (orders === null || level[3] === null || level[3] === orders)
      if (!isSame) return `${side} level ${at} is ${level.join(' ')}, not ${price} ${size} ${orders}`
    }
    const first = want[0]?.[0]
    if (first === undefined ? best !== null : plain(String(best)) !== plain(first))
      return `best ${side} is ${best}, not ${first}`
  }
  return undefined
}

/** A decimal without what does not change its value. */
function plain(text: string): string {
  if (/e/i.test(text)) return String(Number(text))
  const rest = text.replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1')
  return rest.includes('.') ? rest.replace(/\.?0+$/, '') : rest
}

/** Files of the feeds that are a function of the frames, by their path below `raw`, without `.gz`. */
function derivedPaths(vault: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const raw = join(vault, 'raw')
  for (const exchange of foldersIn(raw)) {
    for (const feed of foldersIn(join(raw, exchange)).filter(each => each !== 'frames' && each !== 'status')) {
      for (const name of foldersIn(join(raw, exchange, feed))) {
        for (const path of hourFiles(vault, exchange, feed, name)) {
          const key = relative(raw, path).replace(/\.gz$/, '')
          found.set(key, [...(found.get(key) ?? []), path])
        }
      }
    }
  }
  return found
}

function wholeLines(paths: readonly string[]): string[] {
  return paths.flatMap(path => {
    const bytes = readFileSync(path)
    const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()
    return text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter(Boolean)
  })
}

/** The spans in which the writers of an exchange were paused, µs of their own clock. */
function pausesOf(vault: string, exchange: string): [fromUs: number, toUs: number][] {
  const spans: [number, number][] = []
  for (const name of foldersIn(join(vault, 'raw', exchange, 'status'))) {
    let fromUs: number | undefined
    for (const line of wholeLines(hourFiles(vault, exchange, 'status', name))) {
      const row = parse(line)
      const us = Number(row?.recv_us)
      if (row?.event === 'writer_paused') fromUs ??= us
      else if (row?.event === 'writer_resumed' && fromUs !== undefined) {
        spans.push([fromUs, us])
        fromUs = undefined
      }
    }
    if (fromUs !== undefined) spans.push([fromUs, Number.POSITIVE_INFINITY])
  }
  return spans
}

/**
 * Compares a vault with what `rebuild` made of its frames: every derived line of the vault is there, in the same order;
 * what only the rebuild has lies just before the death of a life, or in a pause of the writer. Returns what is wrong.
 */
export function compareRebuild(vault: string, rebuilt: string, lives: readonly Life[]): string[] {
  const findings: string[] = []
  const again = derivedPaths(rebuilt)
  const held = derivedPaths(vault)
  for (const [path, files] of held) {
    if (again.has(path)) continue
    // A power cut may have kept records and taken all their frames.
    const isOrphan = (line: string) => {
      const ms = Number(parse(line)?.recv_us) / 1000
      return lives.some(
        ({ end, startedMs, endedMs, clockShiftMs = 0 }) =>
          end === 'power' && ms - clockShiftMs >= startedMs && ms - clockShiftMs <= endedMs
      )
    }
    const strange = wholeLines(files).find(line => !isOrphan(line))
    if (strange !== undefined) findings.push(`${path}: a rebuild does not make it, nor ${strange}`)
  }
  const dead = lives.filter(({ end }) => end === 'killed' || end === 'power')
  const isPower = dead.some(({ end }) => end === 'power')
  for (const [path, made] of again) {
    const wanted = wholeLines(made)
    const known = new Set(wanted)
    // A power cut may have kept a record and taken its frame.
    const lines = wholeLines(held.get(path) ?? []).filter(line => !isPower || known.has(line))
    let at = 0
    const extras: string[] = []
    for (const line of wanted) {
      if (lines[at] === line) at++
      else extras.push(line)
    }
    if (at < lines.length) findings.push(`${path}:${at + 1}: a rebuild does not make ${lines[at]}`)
    const pauses = pausesOf(vault, path.split(/[\\/]/)[0]!)
    const strange = extras.filter(line => {
      const us = Number(parse(line)?.recv_us)
      if (pauses.some(([fromUs, toUs]) => us >= fromUs - 1_000_000 && us <= toUs)) return false
      return !dead.some(life => {
        const endUs = (life.endedMs + (life.clockShiftMs ?? 0)) * 1000
        const max = life.lossMsMax ?? LOSS_MS_MAX[life.end as 'killed' | 'power']
        return us <= endUs + 100_000 && us >= endUs - max * 1000
      })
    })
    if (strange.length > 0) findings.push(`${path}: ${strange.length} lines are missing, first ${strange[0]}`)
  }
  return findings.map(each => each.slice(0, 500))
}
