/** What can be said of the lines of a connection's frames without playing them. */
import { FRAME } from '../core/records.ts'
import { HOUR_US, isoMs } from '../core/time.ts'
import { type Finding, RULES, type RuleId } from './finding.ts'

/** A line of the frames feed, cut into its parts; `text` is the whole line, empty where `msg` says it all. */
export interface CutFrame {
  readonly us: number
  readonly conn: string
  readonly frame: number
  readonly dir: string
  readonly msg: string | undefined
  readonly text: string
}

/** What a judge of one connection's hour needs to know. */
export interface FrameJudgeOptions {
  readonly exchange: string
  /** The folder name of the connection. */
  readonly name: string
  /** Counted from the epoch. */
  readonly hour: number
  /** Whether somebody else reads each frame, and tells of those that are no JSON. */
  readonly isPlayed: boolean
  readonly report: (finding: Finding) => void
}

/** One end of a connection's hour. */
export interface FrameEdge {
  readonly conn: string
  /** The process, as the last `open` or `state` line names it; empty before the first. */
  readonly run: string
  readonly frame: number
  readonly dir: string
  readonly us: number
  readonly file: string
  readonly line: number
}

/** Lines that are missing, as far as is known: others may still stand further on. */
interface Hole {
  readonly at: FrameEdge
  readonly after: number
  readonly from: number
  readonly to: number
  /** Whether it was said that the line behind it stands too early. */
  readonly isTold: boolean
}

/** So many lines further on a line that was missed is no longer waited for. */
const HOLE_LINES_MAX = 256
const TICK = '"dir":"tick"}'
const SHOWN_CHARS = 60

/** Judges the lines of one connection's files of one hour, in their order. */
export class FrameJudge {
  /** The first and the last line; undefined before the first. */
  first: FrameEdge | undefined
  last: FrameEdge | undefined
  private readonly options: FrameJudgeOptions
  private hole: Hole | undefined
  /** The number that a line with another one should have had. */
  private stray: number | undefined
  private count = 0
  private holeCount = 0
  private recentUs = 0
  private beforeUs = 0
  private recentLine = 0
  private hasFirst = false

  constructor(options: FrameJudgeOptions) {
    this.options = options
  }

  private find(rule: RuleId, file: string, line: number | null, us: number | null, message: string): void {
    const { exchange, name, report } = this.options
    report({ rule, severity: RULES[rule].severity, exchange, name, feed: 'frames', file, line, us, message })
  }

  /** Takes a line; undefined where it is none, but `text`. */
  take(cut: CutFrame | undefined, text: string, file: string, line: number): void {
    this.count++
    if (this.hole !== undefined && this.count - this.holeCount > HOLE_LINES_MAX) this.settleHole()
    if (cut === undefined) return this.takeBroken(text, file, line)
    const isTimed = this.judgeNumber(cut, file, line)
    this.judgeHead(cut, file, line, isTimed)
    this.judgeContent(cut, file, line)
  }

  /** Says that the line taken last holds no JSON any more. */
  broken(file: string, line: number, us: number, what: string): void {
    this.find('bad_json', file, line, us, what)
  }

  /** There are no more lines. */
  finish(): void {
    this.settleHole()
  }

  private takeBroken(text: string, file: string, line: number): void {
    const shown = JSON.stringify(text.slice(0, SHOWN_CHARS))
    const us = this.last?.us ?? null
    if (text.includes('\0')) this.find('torn_line', file, line, us, `holds zeros: ${shown}`)
    else if (isJson(text))
      this.find('bad_record', file, line, us, `${faultOf(text) || 'something stands around the object'}: ${shown}`)
    else this.find('bad_json', file, line, us, `is no whole JSON object: ${shown}`)
    // It had a number of its own: what comes next follows it.
    if (this.last !== undefined) this.last = { ...this.last, frame: this.last.frame + 1 }
    this.hasFirst = true
  }

  /** False where the line does not stand in its place, so that its time says nothing. */
  private judgeNumber(cut: CutFrame, file: string, line: number): boolean {
    const { last } = this
    const opens = cut.dir === 'open' || cut.dir === 'state'
    const run = opens ? (/"run":"([^"]*)"/.exec(cut.text)?.[1] ?? '') : (last?.run ?? '')
    const edge = { conn: cut.conn, run, frame: cut.frame, dir: cut.dir, us: cut.us, file, line }
    this.first ??= edge
    if (last === undefined || (opens && last.run !== '' && run !== last.run)) {
      if (last !== undefined && cut.frame !== 1) {
        this.find(
          'frame_missing',
          file,
          line,
          cut.us,
          `frame 1 was due of another process, and frame ${cut.frame} stands here`
        )
      }
      this.settleHole()
      this.last = edge
      return true
    }
    const stray = this.stray
    this.stray = undefined
    if (cut.frame === last.frame + 1 || (stray === last.frame + 1 && cut.frame === stray + 1)) {
      this.last = edge
      return true
    }
    if (cut.frame > last.frame) {
      this.settleHole()
      this.hole = { at: edge, after: last.frame, from: last.frame + 1, to: cut.frame - 1, isTold: false }
      this.holeCount = this.count
      this.last = edge
      return true
    }
    return this.judgeEarlier(cut, edge, last)
  }

  /** A line whose number is not above the last one. */
  private judgeEarlier(cut: CutFrame, edge: FrameEdge, last: FrameEdge): boolean {
    const { hole } = this
    if (hole !== undefined && cut.frame >= hole.from && cut.frame <= hole.to) {
      const { file, line, us, frame } = hole.at
      this.hole = undefined
      if (cut.frame === hole.from) {
        const message = `frame ${frame} stands before frame ${cut.frame}`
        if (!hole.isTold) this.find('frame_order', file, line, us, message)
        const left = { ...hole, from: hole.from + 1, isTold: true }
        if (left.from <= left.to) this.hole = left
        return false
      }
      if (cut.frame === hole.from + 1 && !hole.isTold) {
        this.find('frame_order', file, line, us, `is numbered ${frame} where ${hole.from} was due`)
        this.last = edge
        return true
      }
      this.hole = hole
    }
    const again = cut.frame === last.frame ? 'stands twice' : `stands behind frame ${last.frame}`
    this.find('frame_order', edge.file, edge.line, cut.us, `frame ${cut.frame} ${again}`)
    this.stray = last.frame + 1
    return false
  }

  /** Says what of a hole has not come up since. */
  private settleHole(): void {
    if (this.hole === undefined) return
    const { at, after, from, to } = this.hole
    this.hole = undefined
    const missing = to - from + 1
    const what = missing === 1 ? `frame ${from} is missing` : `frames ${from} to ${to} are missing (${missing} lines)`
    this.find('frame_missing', at.file, at.line, at.us, `frame ${at.frame} follows frame ${after}: ${what}`)
  }

  private judgeHead(cut: CutFrame, file: string, line: number, isTimed: boolean): void {
    const { hour, name } = this.options
    const isInside = cut.us >= hour * HOUR_US && cut.us < (hour + 1) * HOUR_US
    if (!isInside) {
      const from = isoMs(hour * HOUR_US)
      this.find(
        'wrong_hour',
        file,
        line,
        hour * HOUR_US,
        `is of ${isoMs(cut.us)}, in the file of the hour from ${from}`
      )
    } else if (isTimed) this.judgeTime(cut.us, file, line)
    if (!this.hasFirst && cut.dir !== 'open' && cut.dir !== 'state') {
      const why = 'what was known of the connection is missing, so that nothing can be rebuilt from here'
      this.find(
        'hour_start',
        file,
        line,
        cut.us,
        `the hour begins with frame ${cut.frame}, which is "${cut.dir}": ${why}`
      )
    }
    this.hasFirst = true
    if (cut.conn.replace(/[^A-Za-z0-9._-]/gu, '-') !== name)
      this.find('bad_record', file, line, cut.us, `is of the connection ${cut.conn}, in the files of ${name}`)
  }

  private judgeTime(us: number, file: string, line: number): void {
    const { recentUs, beforeUs } = this
    if (us < recentUs && us >= beforeUs) {
      // The line before ran ahead, and this one goes on from the one before that.
      this.find('time_back', file, this.recentLine, recentUs, `is ${recentUs - us} µs later than the next line`)
    } else if (us < recentUs) {
      this.find('time_back', file, line, us, `is ${recentUs - us} µs earlier than the line before`)
      return
    } else this.beforeUs = recentUs
    this.recentUs = us
    this.recentLine = line
  }

  private judgeContent(cut: CutFrame, file: string, line: number): void {
    const { us, msg, text, dir } = cut
    if (msg !== undefined) {
      if (!this.options.isPlayed && !isJson(msg)) this.broken(file, line, us, 'its frame is no JSON')
      return
    }
    if (text.endsWith(TICK) && dir === 'tick') return
    if (!isJson(text)) return this.find('bad_json', file, line, us, 'is no whole JSON object')
    const fault = faultOf(text)
    if (fault !== '') this.find('bad_record', file, line, us, fault)
    else if (dir === 'skip') {
      const { count, from } = JSON.parse(text) as { count: number; from: number }
      this.find('frames_skipped', file, line, us, `${count} messages since ${isoMs(from)} were not kept`)
    }
  }
}

/** What is wrong between two hours of one connection that follow each other; undefined when nothing is. */
export function judgeTurn(before: FrameEdge, after: FrameEdge): string | undefined {
  if (after.run === '' || before.run === '' || before.run !== after.run) return undefined
  const missing = after.frame - before.frame - 1
  if (missing === 0) return undefined
  if (missing < 0) return `frame ${after.frame} begins the hour, and frame ${before.frame} ended the one before`
  const what = missing === 1 ? 'one line is missing' : `${missing} lines are missing`
  return `frame ${after.frame} begins the hour, and frame ${before.frame} ends the one before: ${what}`
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** What of a line is not of the schema; empty when it is. The text must be JSON. */
function faultOf(text: string): string {
  const parsed = FRAME.safeParse(JSON.parse(text))
  if (parsed.success) return ''
  const issue = parsed.error.issues[0]!
  return `${issue.path.join('.') || 'the line'}: ${issue.message}`
}
