import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import type { Requests } from '../../src/capture/connection.ts'
import { type CloseCause, Engine, STATE_VERSION } from '../../src/capture/engine.ts'
import type { EngineConfig, Sink, Stream } from '../../src/capture/subject.ts'
import type { FeedKind, Instrument, Level } from '../../src/core/instrument.ts'
import type {
  Credentials,
  Exchange,
  FetchRequest,
  FrameForm,
  InstrumentInfo,
  Selection
} from '../../src/exchanges/exchange.ts'

/** A record of any feed, parsed. */
export type Row = Record<string, unknown>

/** One line as an engine wrote it. */
export interface SunkLine {
  readonly feed: string
  readonly name: string
  readonly us: number
  readonly text: string
}

/** Collects what an engine writes. Every line must be one line of JSON: whoever reads the records finds out. */
export class MemorySink implements Sink {
  readonly lines: SunkLine[] = []

  stream(feed: string, name: string): Stream {
    return { append: (us, text) => void this.lines.push({ feed, name, us, text }) }
  }

  /** The records of a feed, of one instrument or of all. */
  records(feed: string, name?: string): Row[] {
    return this.lines
      .filter(line => line.feed === feed && (name === undefined || line.name === name))
      .map(line => JSON.parse(line.text) as Row)
  }

  /** The status records of an event. */
  statuses(event: string, name?: string): Row[] {
    return this.records('status', name).filter(row => row.event === event)
  }

  /** Everything as one text, stream by stream. */
  text(): string {
    const streams = new Map<string, string>()
    for (const { feed, name, text } of this.lines) {
      const key = `${feed}/${name}`
      streams.set(key, (streams.get(key) ?? '') + text)
    }
    return [...streams.keys()]
      .sort()
      .map(key => `${key}\n${streams.get(key)}`)
      .join('')
  }
}

/** Remembers what an engine asked for. */
export class RecordedRequests implements Requests {
  readonly sent: { connection: string; text: string; recorded: string }[] = []
  readonly fetches: { connection: string; request: FetchRequest }[] = []
  readonly infos: InstrumentInfo[] = []
  readonly hangups: { connection: string; reason: string }[] = []
  readonly replacements: string[] = []
  readonly leaves: string[] = []
  readonly settledNames: string[] = []
  readonly logs: { level: string; message: string; facts: Row }[] = []

  send(connection: string, text: string, recorded: string): void {
    this.sent.push({ connection, text, recorded })
  }

  fetch(connection: string, request: FetchRequest): void {
    this.fetches.push({ connection, request })
  }

  metadata(info: InstrumentInfo): void {
    this.infos.push(info)
  }

  hangup(connection: string, reason: string): void {
    this.hangups.push({ connection, reason })
  }

  replace(connection: string): void {
    this.replacements.push(connection)
  }

  leave(connection: string): void {
    this.leaves.push(connection)
  }

  settled(connection: string): void {
    this.settledNames.push(connection)
  }

  log(level: string, message: string, facts: Row): void {
    // Debug lines tell of what went well.
    if (level !== 'debug') this.logs.push({ level, message, facts })
  }
}

/** Instruments as a configuration would describe them. */
export function described(exchange: Exchange, instIds: readonly string[], selected: Level | Selection): Instrument[] {
  const selection =
    typeof selected === 'string' ? { level: selected, market: null, channel: null, updateSpeed: null } : selected
  return instIds.map(instId => exchange.describe(instId, selection))
}

/** Where a scripted exchange hands its frames to: an engine, or a journal before one. */
export interface Wire {
  readonly us: number
  readonly sent: readonly { connection: string; text: string }[]
  in(connection: string, text: string): unknown
}

/** How the tests capture unless they say otherwise. */
export const CONFIG: EngineConfig = { depth: 400, cadenceMs: 2000, onMismatch: 'three', silenceMs: null }
/** 2026-11-20T10:15:00Z. */
export const START_US = Date.UTC(2026, 10, 20, 10, 15) * 1000

/** Drives an engine by hand: every line comes `stepUs` after the one before, unless time is moved. */
export class Driver implements Wire {
  readonly sink = new MemorySink()
  readonly requests = new RecordedRequests()
  readonly engine: Engine
  readonly exchange: Exchange
  readonly config: EngineConfig
  us: number
  stepUs = 1000
  private readonly counts = new Map<string, number>()

  constructor(
    exchange: Exchange,
    config: Partial<EngineConfig> = {},
    startUs = START_US,
    credentials: Credentials | null = null
  ) {
    this.exchange = exchange
    this.config = { ...CONFIG, ...config }
    this.us = startUs
    this.engine = new Engine(exchange, this.sink, this.requests, credentials)
  }

  get sent(): readonly { connection: string; text: string }[] {
    return this.requests.sent
  }

  private next(name: string): [us: number, name: string, frame: number] {
    const frame = (this.counts.get(name) ?? 0) + 1
    this.counts.set(name, frame)
    this.us += this.stepUs
    return [this.us, name, frame]
  }

  /** Opens a connection for these instruments, all at one level, or as selected. */
  open(
    name: string,
    instIds: readonly string[],
    selected: Level | Selection,
    replaces: string | null = null,
    feeds: readonly FeedKind[] = ['book', 'trades']
  ): void {
    const instruments = described(this.exchange, instIds, selected)
    const [us, , frame] = this.next(name)
    this.engine.open(us, name, frame, { v: STATE_VERSION, config: this.config, instruments, feeds, replaces })
  }

  /** The answer to the newest REST request of a connection, or to the one of this id. */
  fetched(name: string, status: number, value: unknown, id?: string): void {
    const request = this.requests.fetches.findLast(({ connection }) => connection === name)
    this.engine.fetched(...this.next(name), id ?? request!.request.id, { status, value })
  }

  /** The paths that were asked for over REST on a connection, oldest first. */
  fetches(name: string): string[] {
    return this.requests.fetches.filter(({ connection }) => connection === name).map(({ request }) => request.path)
  }

  in(name: string, text: string): FrameForm {
    const form = this.engine.read(name, text)
    this.engine.apply(...this.next(name))
    return form
  }

  tick(name: string): void {
    this.engine.tick(...this.next(name))
  }

  /** Lets time pass with a tick every `everyMs`. */
  pass(name: string, ms: number, everyMs = 1000): void {
    const endUs = this.us + ms * 1000
    while (this.us < endUs) {
      this.us = Math.min(endUs, this.us + everyMs * 1000) - this.stepUs
      this.tick(name)
    }
  }

  close(name: string, cause: CloseCause, code: number | null = null): void {
    this.engine.close(...this.next(name), cause, code, cause)
  }

  /** The messages sent on a connection, parsed; text that is no JSON as it is. */
  asked(name: string): unknown[] {
    return this.sent
      .filter(({ connection }) => connection === name)
      .map(({ text }) => (text.startsWith('{') ? (JSON.parse(text) as unknown) : text))
  }
}

/** Recordings lie beside the project, not in it. */
export const RECORDINGS = fileURLToPath(new URL('../../../shared/recordings/', import.meta.url))

/** Whether there are recordings here; tests of recordings say in their name that they need them. */
export const hasRecordings = existsSync(`${RECORDINGS}README.md`)
/** What the names of such tests end in. */
export const NEEDS_RECORDINGS = hasRecordings ? '' : ' (SKIPPED: ../shared/recordings is not there)'

/** One received frame of a recording. Times rise strictly. */
export interface RecordedFrame {
  readonly us: number
  readonly text: string
}

/** The received frames of a recording. */
export function loadFrames(name: string): RecordedFrame[] {
  const lines = gunzipSync(readFileSync(`${RECORDINGS}${name}.jsonl.gz`))
    .toString()
    .split('\n')
    .slice(1)
    .filter(Boolean)
  let lastUs = 0
  return lines
    .map(line => JSON.parse(line) as { t: string; dir: string; msg: string })
    .filter(({ dir }) => dir === 'in')
    .map(({ t, msg }) => {
      lastUs = Math.max(lastUs + 1, Number(BigInt(t) / 1000n))
      return { us: lastUs, text: msg }
    })
}

/** Plays frames at their own times into a connection that is open, with a tick at every multiple of `everyMs`. */
export function play(driver: Driver, name: string, frames: readonly RecordedFrame[], everyMs = 500): void {
  const { stepUs } = driver
  driver.stepUs = 0
  for (const { us, text } of frames) {
    const tickUs = Math.floor(us / (everyMs * 1000)) * everyMs * 1000
    if (tickUs > driver.us) {
      driver.us = tickUs
      driver.tick(name)
    }
    driver.us = Math.max(driver.us, us)
    driver.in(name, text)
  }
  driver.stepUs = stepUs
}
