import { isAscii, isUtf8 } from 'node:buffer'
import { gunzipSync } from 'node:zlib'
import type { Requests } from '../capture/connection.ts'
import { type CloseCause, type Engine, type OpenDetail, STATE_VERSION, type StateDetail } from '../capture/engine.ts'
import type { EngineConfig, FrameStream } from '../capture/subject.ts'
import { messageOf } from '../core/errors.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { parseFrame } from '../core/json.ts'
import { HOUR_US, hourOf, usText } from '../core/time.ts'
import type { Exchange, FetchRequest, InstrumentInfo } from '../exchanges/exchange.ts'

const LONG_FRAME = 256
/** Ticks make lines every two seconds at least. */
const LEAP_US_MIN = 5_000_000
const LISTEN_US = 2_000_000
/** Shorter texts cannot be told from ordinary words. */
const SECRET_CHARS_MIN = 8

/** A connection as the journal keeps it. */
interface Open {
  readonly name: string
  readonly stream: FrameStream | null
  readonly detail: OpenDetail
  /** The line up to the number: `,"conn":"okx-1","frame":`. */
  readonly head: string
  /** When it was opened, and when its last frame came, µs. */
  readonly sinceUs: number
  lastFrameUs: number
}

/** What the journal needs of the world. */
export interface JournalParts {
  readonly exchange: Exchange
  readonly run: string
  readonly config: EngineConfig
  /** Texts that are written nowhere. */
  readonly secrets: readonly string[]
  now(): number
  /** The frames stream of a connection; null without frames. */
  frames(name: string): FrameStream | null
  /** Whether there is no room for more frames. */
  isFull(): boolean
}

/**
 * Writes the frames feed of one exchange and drives the engine with the very same lines. What the engine asks for
 * while it handles a line is handed on afterwards, so that a change of the hour never falls into the middle of one.
 */
export class Journal implements Requests {
  private readonly parts: JournalParts
  private readonly actions: Requests
  private engine!: Engine
  private readonly open_ = new Map<string, Open>()
  /** Lines written under a connection name so far, and the hour of the last one. */
  private readonly counts = new Map<string, number>()
  private readonly hours = new Map<string, number>()
  private readonly queue: (() => void)[] = []
  private readonly skipped = new Map<string, { from: number; count: number }>()
  private hourEndUs = 0
  /** The moment of the last line. */
  private stampedUs = 0
  private listenUntilUs = 0
  private draining = false
  framesIn = 0
  /** Frames and answers that there was no room for. */
  dropped = 0
  lastFrameUs = 0

  constructor(parts: JournalParts, actions: Requests) {
    this.parts = parts
    this.actions = actions
  }

  /** The engine to drive; it gets this journal as its `Requests`. */
  attach(engine: Engine): void {
    this.engine = engine
  }

  /** Names of the open connections. */
  get names(): string[] {
    return [...this.open_.keys()]
  }

  /** When the last frame of each open connection came, µs since the epoch; 0 before the first. */
  get lastFrames(): Map<string, number> {
    return new Map([...this.open_.values()].map(({ name, lastFrameUs }) => [name, lastFrameUs]))
  }

  /** Since when each open connection is open, µs since the epoch. */
  get since(): Map<string, number> {
    return new Map([...this.open_.values()].map(({ name, sinceUs }) => [name, sinceUs]))
  }

  /** What was written of this hour is gone: connections that open in it tell again what is known of their instruments. */
  forgetHours(): void {
    this.hours.clear()
  }

  private next(name: string): number {
    const frame = (this.counts.get(name) ?? 0) + 1
    this.counts.set(name, frame)
    return frame
  }

  private write(open: Open, us: number, frame: number, rest: string): void {
    open.stream?.append(us, `{"recv_us":${usText(us)}${open.head}${frame},"dir":${rest}\n`)
  }

  private writeFrame(open: Open, us: number, frame: number, text: string): void {
    const before = `{"recv_us":${usText(us)}${open.head}${frame},"dir":"in","msg":`
    // Putting a line together costs less than writing it in parts, as long as it is short.
    if (text.length < LONG_FRAME) open.stream?.append(us, `${before}${text}}\n`)
    else open.stream?.appendAround(us, before, text, '}\n')
  }

  /** The moment of a new line; the first of an hour brings the states of all connections. */
  private stamp(): number {
    const us = this.parts.now()
    if (us >= this.hourEndUs) this.turn(us)
    return this.note(us)
  }

  /** Sees whether time has leapt since the last line. */
  private note(us: number): number {
    if (this.stampedUs !== 0 && us - this.stampedUs > LEAP_US_MIN) this.listenUntilUs = us + LISTEN_US
    this.stampedUs = us
    return us
  }

  private turn(us: number): void {
    const hour = hourOf(us)
    const first = this.hourEndUs === 0
    this.hourEndUs = (hour + 1) * HOUR_US
    if (first) return
    for (const open of this.open_.values()) {
      try {
        this.turnOne(open, us, hour)
        // A book that has missed frames is not left standing as the hour's own.
        this.resume(open, us)
      } catch (error) {
        // An hour without its state line cannot be rebuilt alone: a new connection begins it.
        this.log('error', 'State of a connection could not be written', { conn: open.name, error: messageOf(error) })
        this.hangup(open.name, 'state could not be written')
      }
    }
  }

  private turnOne(open: Open, us: number, hour: number): void {
    if (open.stream) {
      const subjects = this.engine.subjectStates(open.detail.instruments)
      const detail: StateDetail = { ...open.detail, subjects, connection: this.engine.connectionState(open.name) }
      const state = `"state","run":${JSON.stringify(this.parts.run)},"state":${JSON.stringify(detail)}}`
      this.write(open, us, this.next(open.name), state)
    } else this.next(open.name)
    this.hours.set(open.name, hour)
    this.engine.hour(us, open.name, this.counts.get(open.name)!)
  }

  /** `open`: a connection is established for these feeds of these instruments. */
  open(
    name: string,
    url: string,
    instruments: readonly Instrument[],
    feeds: readonly FeedKind[],
    replaces: string | null
  ): void {
    const us = this.stamp()
    const frame = this.next(name)
    const plain: OpenDetail = { v: STATE_VERSION, config: this.parts.config, instruments, feeds, replaces }
    const open: Open = {
      name,
      stream: this.parts.frames(name),
      detail: plain,
      head: `,"conn":${JSON.stringify(name)},"frame":`,
      sinceUs: us,
      lastFrameUs: 0
    }
    const hour = hourOf(us)
    const known = this.hours.get(name) === hour
    const detail = known ? plain : { ...plain, subjects: this.engine.subjectStates(instruments) }
    this.hours.set(name, hour)
    this.open_.set(name, open)
    this.write(
      open,
      us,
      frame,
      `"open","run":${JSON.stringify(this.parts.run)},"url":${JSON.stringify(url)},"open":${JSON.stringify(detail)}}`
    )
    this.engine.open(us, name, frame, detail)
    this.drain()
  }

  /** `in`: a message as it came. */
  in(name: string, data: Buffer, isBinary: boolean): void {
    if (this.parts.isFull()) return this.skip(name)
    const us = this.stamp()
    const open = this.open_.get(name)
    if (open === undefined) return
    this.framesIn++
    this.lastFrameUs = open.lastFrameUs = us
    if (this.skipped.size > 0) this.resume(open, us)
    const frame = this.next(name)
    const plain = isBinary ? this.inflate(data) : data
    const isPlain = plain !== undefined && isAscii(plain)
    const isText = plain !== undefined && (isPlain || isUtf8(plain))
    if (!isText || plain.length > this.parts.exchange.limits.frameBytesMax) {
      const text = isText ? JSON.stringify(plain.toString()) : `"${data.toString('base64')}"`
      this.write(open, us, frame, `"in"${isText ? '' : ',"encoding":"base64"'},"unread":true,"text":${text}}`)
      this.engine.unreadable(us, name, frame, isText ? 'larger than the limit' : isBinary ? 'binary' : 'broken UTF-8')
    } else {
      const text = this.hide(plain.toString(isPlain ? 'latin1' : 'utf8'))
      const form = this.engine.read(name, text)
      if (form === 'msg') this.writeFrame(open, us, frame, text)
      else this.write(open, us, frame, `"in","text":${JSON.stringify(text)}}`)
      this.engine.apply(us, name, frame)
    }
    if (this.queue.length > 0) this.drain()
  }

  /** What a binary frame holds; undefined when nobody can read it. */
  private inflate(data: Buffer): Buffer | undefined {
    const { compression, limits } = this.parts.exchange
    if (compression !== 'gzip') return undefined
    try {
      return gunzipSync(data, { maxOutputLength: limits.frameBytesMax })
    } catch {
      // No gzip, cut short, or larger than the limit: it is kept as it came.
      return undefined
    }
  }

  /** A text without the secrets that an exchange may have echoed. */
  private hide(text: string): string {
    let rest = text
    for (const secret of this.parts.secrets) if (rest.includes(secret)) rest = rest.replaceAll(secret, '***')
    return rest
  }

  /** `http`: what came of a REST request. `text` is the body, with secrets still in it. */
  fetched(name: string, url: string, request: FetchRequest, status: number, text: string): void {
    if (this.parts.isFull()) return this.skip(name)
    const us = this.stamp()
    const open = this.open_.get(name)
    if (open === undefined) return
    if (this.skipped.size > 0) this.resume(open, us)
    const frame = this.next(name)
    const signed = Object.values(request.post?.headers ?? {}).filter(value => value.length >= SECRET_CHARS_MIN)
    const clean = signed.reduce((rest, secret) => rest.replaceAll(secret, '***'), this.hide(text))
    const body = parseFrame(clean)
    const recorded = request.hide?.(clean) ?? clean
    const isJson = recorded === clean ? body.embeddable : parseFrame(recorded).embeddable
    const method = request.post ? 'POST' : 'GET'
    const head = `"http","id":${JSON.stringify(request.id)},"method":"${method}","url":${JSON.stringify(url)},"status":${status}`
    this.write(open, us, frame, `${head},${isJson ? `"msg":${recorded}` : `"text":${JSON.stringify(recorded)}`}}`)
    this.engine.fetched(us, name, frame, request.id, { status, value: body.value })
    this.drain()
  }

  private skip(name: string): void {
    this.dropped++
    const skipped = this.skipped.get(name)
    if (skipped) skipped.count++
    else this.skipped.set(name, { from: this.parts.now(), count: 1 })
  }

  /** There is room again: what could not be kept is marked, and is a gap. */
  private resume(open: Open, us: number): void {
    const skipped = this.skipped.get(open.name)
    if (skipped === undefined) return
    this.skipped.delete(open.name)
    const frame = this.next(open.name)
    this.write(open, us, frame, `"skip","from":${skipped.from},"count":${skipped.count}}`)
    this.engine.skip(us, open.name, frame, skipped.count)
  }

  /** `out`: a message that was sent. Call it only when the socket took the message. */
  out(name: string, text: string): void {
    const us = this.stamp()
    const open = this.open_.get(name)
    if (open === undefined) return
    const isJson = text.startsWith('{')
    this.write(open, us, this.next(name), isJson ? `"out","msg":${text}}` : `"out","text":${JSON.stringify(text)}}`)
  }

  /** `tick`: snapshots are due on every open connection. */
  tick(): void {
    // The clock was set, or the process stood still: what waits in the sockets is heard before silence is judged.
    if (this.note(this.parts.now()) < this.listenUntilUs) return
    for (const open of [...this.open_.values()]) {
      if (this.parts.isFull()) return
      // What the tick of another has led to may have ended this one.
      if (this.open_.get(open.name) !== open) continue
      const us = this.stamp()
      if (this.skipped.size > 0) this.resume(open, us)
      const frame = this.next(open.name)
      this.write(open, us, frame, '"tick"}')
      this.engine.tick(us, open.name, frame)
      this.drain()
    }
  }

  /** `close`: the connection has ended. */
  close(name: string, cause: CloseCause, code: number | null, reason: string): void {
    const open = this.open_.get(name)
    if (open === undefined) return
    const us = this.stamp()
    this.resume(open, us)
    const frame = this.next(name)
    const said = this.hide(reason)
    this.write(open, us, frame, `"close","code":${code},"reason":${JSON.stringify(said)},"cause":"${cause}"}`)
    try {
      this.engine.close(us, name, frame, cause, code, said)
    } finally {
      this.open_.delete(name)
    }
    this.drain()
  }

  private drain(): void {
    // An action may lead to another line (`out`), whose own requests are taken in turn here, not inside.
    if (this.draining) return
    this.draining = true
    try {
      for (let action = this.queue.shift(); action; action = this.queue.shift()) action()
    } finally {
      this.draining = false
    }
  }

  send(name: string, text: string, recorded: string): void {
    this.queue.push(() => this.actions.send(name, text, recorded))
  }

  fetch(name: string, request: FetchRequest): void {
    this.queue.push(() => this.actions.fetch(name, request))
  }

  metadata(info: InstrumentInfo): void {
    this.queue.push(() => this.actions.metadata(info))
  }

  hangup(name: string, reason: string): void {
    this.queue.push(() => this.actions.hangup(name, reason))
  }

  replace(name: string, reason: string): void {
    this.queue.push(() => this.actions.replace(name, reason))
  }

  leave(name: string): void {
    this.queue.push(() => this.actions.leave(name))
  }

  settled(name: string): void {
    this.queue.push(() => this.actions.settled(name))
  }

  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void {
    this.actions.log(level, message, facts)
  }
}
