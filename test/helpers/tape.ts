import { Engine, STATE_VERSION } from '../../src/capture/engine.ts'
import { type FrameLine, Playback, readFrameLine } from '../../src/capture/playback.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { Exchange, Selection } from '../../src/exchanges/exchange.ts'
import { type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { type described, MemorySink, RecordedRequests, type Row, type SunkLine } from './driver.ts'
import { Rig } from './rig.ts'

/** What a capture wrote: the lines of the frames feed, and everything that was derived from them. */
export interface Tape {
  readonly lines: readonly string[]
  readonly derived: string
}

/** What is captured for a tape. */
export interface TapeOptions {
  readonly simulator: SimulatorOptions
  readonly selection: Selection
  readonly config?: Partial<EngineConfig>
  readonly instIds: readonly string[]
  /** The tape ends when each instrument has trades, snapshots and so many updates after its image, or after `msMax`. */
  readonly updates: number
  readonly msMax: number
}

const SHOTS_MIN = 5
const UPDATE = /"event_type":"(?:update|open|change|match|done)"/

/** Captures from a simulated exchange into memory. */
export async function recordTape(exchange: Exchange, options: TapeOptions): Promise<Tape> {
  const simulator = await startSimulator({ connectsPerMinute: 0, connectsPerSecond: 0, ...options.simulator })
  const { selection, instIds } = options
  const rig = new Rig(exchange, simulator.port, { selection, ...(options.config ? { config: options.config } : {}) })
  try {
    rig.start(instIds)
    const endMs = performance.now() + options.msMax
    const enough = () => instIds.every(instId => hasEnough(rig.sink, instId, options.updates))
    while (performance.now() < endMs && !enough()) await new Promise(resolve => setTimeout(resolve, 50))
    await rig.stop()
  } finally {
    await simulator.close()
  }
  return { lines: rig.texts.map(text => text.slice(0, -1)), derived: rig.sink.text() }
}

function hasEnough(sink: MemorySink, instId: string, updates: number): boolean {
  const own = sink.lines.filter(({ name }) => name === instId)
  const count = (wanted: (line: SunkLine) => boolean) => own.filter(wanted).length
  return (
    count(({ text }) => UPDATE.test(text)) >= updates &&
    count(({ feed }) => feed === 'trades') > 0 &&
    count(({ feed }) => /^l[23]_(?:spot|perps)$/.test(feed)) >= SHOTS_MIN
  )
}

/** A line of the tape, cut. Fails when it is none. */
export function frameLine(text: string): FrameLine {
  const line = readFrameLine(text)
  if (line === undefined) throw new TypeError(`no line of the frames feed: ${text.slice(0, 100)}`)
  return line
}

/** What the lines lead to. */
export function playTape(exchange: Exchange, lines: readonly string[]): MemorySink {
  const sink = new MemorySink()
  const playback = new Playback(exchange, sink)
  for (const line of lines) playback.play(frameLine(line))
  if (playback.unused > 0) throw new TypeError(`${playback.unused} lines of the tape could not be used`)
  return sink
}

/** Where the `in` lines are that changed the book of an instrument after its image: places in the tape, by instrument. */
export function updatePlaces(lines: readonly string[], clean: MemorySink): Map<string, number[]> {
  const sources = new Map<string, string>()
  for (const { name, text } of clean.lines) {
    if (!UPDATE.test(text)) continue
    const source = /"conn":"([^"]+)","frame":(\d+)/.exec(text)!
    sources.set(`${source[1]} ${source[2]}`, name)
  }
  const places = new Map<string, number[]>()
  for (const [at, text] of lines.entries()) {
    const { conn, frame, dir } = frameLine(text)
    const name = sources.get(`${conn} ${frame}`)
    if (dir === 'in' && name !== undefined) places.set(name, [...(places.get(name) ?? []), at])
  }
  return places
}

/** An engine that is driven with the lines of a tape, to be looked into at any place of it. */
export class TapePlayer {
  readonly sink = new MemorySink()
  readonly requests = new RecordedRequests()
  private readonly engine: Engine
  private readonly open = new Map<string, Row>()

  constructor(exchange: Exchange) {
    this.engine = new Engine(exchange, this.sink, this.requests)
  }

  /** Takes lines of a tape. */
  play(lines: readonly string[]): void {
    for (const text of lines) {
      const { us, conn, frame, dir } = frameLine(text)
      const row = JSON.parse(text) as Row
      if (dir === 'open') {
        this.open.set(conn, row.open as Row)
        this.engine.open(us, conn, frame, row.open as never)
      } else if (dir === 'in') {
        const line = frameLine(text)
        this.engine.read(conn, line.msg ?? String(row.text))
        this.engine.apply(us, conn, frame)
      } else if (dir === 'http') {
        this.engine.fetched(us, conn, frame, String(row.id), { status: Number(row.status), value: row.msg })
      } else if (dir === 'tick') this.engine.tick(us, conn, frame)
      else if (dir === 'close') this.open.delete(conn)
    }
  }

  /** What the `state` lines of an hour that begins now would hold, as text; the books are written as at an hour. */
  turn(us: number): string[] {
    return [...this.open].map(([conn, open]) => {
      const instruments = open.instruments as ReturnType<typeof described>
      const subjects = this.engine.subjectStates(instruments)
      const state = { ...open, v: STATE_VERSION, subjects, connection: this.engine.connectionState(conn) }
      const text = JSON.stringify({ recv_us: us, conn, frame: 0, dir: 'state', run: 'r', state })
      this.engine.hour(us, conn, 0)
      return text
    })
  }
}
