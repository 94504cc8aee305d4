import { asObject, parseFrame } from '../core/json.ts'
import type { Exchange } from '../exchanges/exchange.ts'
import type { Requests } from './connection.ts'
import { type CloseCause, Engine, type OpenDetail, STATE_VERSION, type StateDetail } from './engine.ts'
import type { Sink } from './subject.ts'

/** One line of the frames feed, cut into what playback needs. */
export interface FrameLine {
  readonly us: number
  readonly conn: string
  readonly frame: number
  readonly dir: string
  /** The frame of an `in` line that stands as `msg`. */
  msg: string | undefined
  /** The whole line; empty where `msg` says it all. */
  readonly text: string
}

const US = '{"recv_us":'
const CONN = ',"conn":"'
const FRAME = '","frame":'
const DIR = ',"dir":"'
const IN_MSG = 'in","msg":'
const HEAD_BYTES = 256
let recentConn = ''
let digitsEnd = 0

/** The unsigned integer at a place; where it ends is in `digitsEnd`, its own start when there is none. */
function integerAt(text: string, start: number): number {
  let value = 0
  let at = start
  for (let code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(++at))
    value = value * 10 + code - 48
  digitsEnd = at
  return value
}

/** Cuts a line of the frames feed; undefined when it is none. */
export function readFrameLine(text: string): FrameLine | undefined {
  if (!text.startsWith(US)) return undefined
  const us = integerAt(text, US.length)
  const conn = digitsEnd + CONN.length
  if (!text.startsWith(CONN, digitsEnd)) return undefined
  let connEnd = conn + recentConn.length
  // Lines come in long rows of one connection, whose name need not be cut out each time.
  if (!text.startsWith(recentConn, conn) || !text.startsWith(FRAME, connEnd)) {
    connEnd = text.indexOf(FRAME, conn)
    if (connEnd < 0) return undefined
    recentConn = text.slice(conn, connEnd)
  }
  const frame = integerAt(text, connEnd + FRAME.length)
  const dir = digitsEnd + DIR.length
  if (!text.startsWith(DIR, digitsEnd) || !Number.isSafeInteger(us) || !Number.isSafeInteger(frame)) return undefined
  if (text.startsWith(IN_MSG, dir)) {
    return { us, conn: recentConn, frame, dir: 'in', msg: text.slice(dir + IN_MSG.length, -1), text: '' }
  }
  const dirEnd = text.indexOf('"', dir)
  if (dirEnd < 0) return undefined
  return { us, conn: recentConn, frame, dir: text.slice(dir, dirEnd), msg: undefined, text }
}

/**
 * The same of a line's bytes, from `start` to its line end at `end`. The frame becomes a text of its own: reading through
 * a window into a longer text would cost more, and would keep the longer one alive.
 */
export function readFrameBytes(bytes: Buffer, start: number, end: number): FrameLine | undefined {
  const head = bytes.toString('latin1', start, Math.min(start + HEAD_BYTES, end))
  const dir = head.indexOf(DIR)
  if (!head.startsWith(IN_MSG, dir + DIR.length)) return readFrameLine(bytes.toString('utf8', start, end))
  const line = readFrameLine(head)
  if (line === undefined) return undefined
  line.msg = bytes.toString('utf8', start + dir + DIR.length + IN_MSG.length, end - 1)
  return line
}

const NOBODY: Requests = {
  send: () => undefined,
  fetch: () => undefined,
  metadata: () => undefined,
  hangup: () => undefined,
  replace: () => undefined,
  leave: () => undefined,
  settled: () => undefined,
  log: () => undefined
}

/**
 * Drives engines with recorded lines: one engine for each run that wrote them. Lines must come in the order of their
 * receive times. What the engines ask for has been done long ago.
 */
export class Playback {
  /** Lines that could not be used: of no connection that was opened, or of another format. */
  unused = 0
  private readonly exchange: Exchange
  private readonly sink: Sink
  private readonly engines = new Map<string, Engine>()
  private readonly byConnection = new Map<string, Engine>()

  constructor(exchange: Exchange, sink: Sink) {
    this.exchange = exchange
    this.sink = sink
  }

  /** Takes the next line. Throws `SyntaxError`, with nothing done, when it is no JSON any more. */
  play(line: FrameLine): void {
    if (line.dir === 'open' || line.dir === 'state') return this.begin(line)
    const engine = this.byConnection.get(line.conn)
    if (engine === undefined) {
      this.unused++
      return
    }
    const { us, conn, frame } = line
    switch (line.dir) {
      case 'in':
        return this.playFrame(engine, line)
      case 'tick':
        return engine.tick(us, conn, frame)
      case 'close': {
        const { code, reason, cause } = this.parts(line)
        engine.close(us, conn, frame, cause as CloseCause, typeof code === 'number' ? code : null, String(reason))
        this.byConnection.delete(conn)
        return
      }
      case 'http': {
        const { id, status, msg, text } = this.parts(line)
        const value = typeof text === 'string' ? parseFrame(text).value : msg
        return engine.fetched(us, conn, frame, String(id), { status: Number(status), value })
      }
      case 'skip':
        return this.skip(engine, line)
    }
  }

  private playFrame(engine: Engine, line: FrameLine): void {
    const { us, conn, frame, msg } = line
    if (msg !== undefined) {
      // Only what is JSON was stored as `msg`. The message of the parser would hold the frame.
      if (engine.read(conn, msg) === 'text') throw new SyntaxError('its frame is no JSON any more')
      engine.apply(us, conn, frame)
      return
    }
    const parts = this.parts(line)
    if (parts.unread === true) return engine.unreadable(us, conn, frame, 'kept unread')
    engine.read(conn, String(parts.text))
    engine.apply(us, conn, frame)
  }

  private skip(engine: Engine, line: FrameLine): void {
    const { count, reason } = this.parts(line)
    engine.skip(line.us, line.conn, line.frame, Number(count), reason === 'damaged' ? 'damaged' : 'overload')
  }

  private begin(line: FrameLine): void {
    const { us, conn, frame } = line
    const parts = this.parts(line)
    const detail = asObject(parts[line.dir]) as unknown as OpenDetail | StateDetail | undefined
    if (detail?.v !== STATE_VERSION) {
      this.unused++
      // The name now means a connection that cannot be played, no longer one of an earlier run.
      this.byConnection.delete(conn)
      return
    }
    const run = String(parts.run)
    let engine = this.engines.get(run)
    if (engine === undefined) {
      engine = new Engine(this.exchange, this.sink, NOBODY)
      this.engines.set(run, engine)
    }
    this.byConnection.set(conn, engine)
    if (line.dir === 'open') engine.open(us, conn, frame, detail)
    else engine.hour(us, conn, frame, detail as StateDetail)
  }

  private parts(line: FrameLine): Record<string, unknown> {
    return JSON.parse(line.text) as Record<string, unknown>
  }
}
