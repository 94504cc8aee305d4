import { asObject } from '../core/json.ts'
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
  /** The whole line. */
  readonly text: string
  /** Where the part behind `"dir":"…"` starts. */
  readonly rest: number
}

const HEAD = '{"recv_us":'

/** Cuts a line of the frames feed; undefined when it is none. */
export function readFrameLine(text: string): FrameLine | undefined {
  if (!text.startsWith(HEAD)) return undefined
  const usEnd = text.indexOf(',"conn":"', HEAD.length)
  const connEnd = text.indexOf('","frame":', usEnd + 9)
  const frameEnd = text.indexOf(',"dir":"', connEnd + 10)
  const dirEnd = text.indexOf('"', frameEnd + 8)
  if (usEnd < 0 || connEnd < 0 || frameEnd < 0 || dirEnd < 0) return undefined
  const us = Number(text.slice(HEAD.length, usEnd))
  const frame = Number(text.slice(connEnd + 10, frameEnd))
  if (!Number.isSafeInteger(us) || !Number.isSafeInteger(frame)) return undefined
  return {
    us,
    conn: text.slice(usEnd + 9, connEnd),
    frame,
    dir: text.slice(frameEnd + 8, dirEnd),
    text,
    rest: dirEnd + 1
  }
}

const NOBODY: Requests = {
  send: () => undefined,
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

  /** Takes the next line. */
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
      case 'skip':
        return engine.skip(us, conn, frame, Number(this.parts(line).count))
    }
  }

  private playFrame(engine: Engine, line: FrameLine): void {
    const { us, conn, frame, text, rest } = line
    if (text.startsWith(',"msg":', rest)) {
      engine.read(conn, text.slice(rest + 7, -1))
      engine.apply(us, conn, frame)
      return
    }
    const parts = this.parts(line)
    if (parts.unread === true) return engine.unreadable(us, conn, frame, 'kept unread')
    engine.read(conn, String(parts.text))
    engine.apply(us, conn, frame)
  }

  private begin(line: FrameLine): void {
    const { us, conn, frame } = line
    const parts = this.parts(line)
    const detail = asObject(parts[line.dir]) as unknown as OpenDetail | StateDetail | undefined
    if (detail?.v !== STATE_VERSION) {
      this.unused++
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
