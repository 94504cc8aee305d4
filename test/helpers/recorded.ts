import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { Engine } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { Exchange, FetchRequest, Selection } from '../../src/exchanges/exchange.ts'
import { Journal } from '../../src/wire/journal.ts'
import { CONFIG, described, MemorySink, RECORDINGS, RecordedRequests } from './driver.ts'
import type { Tape } from './tape.ts'

/** One line of a recording. */
interface RecordingRow {
  readonly t: string
  readonly dir: 'open' | 'out' | 'in' | 'http'
  readonly url?: string
  readonly msg: string
}

/** How a recording is captured. */
export interface RecordingOptions {
  readonly recording: string
  readonly selection: Selection
  readonly instIds: readonly string[]
  readonly config?: Partial<EngineConfig>
  /** What the exchange answers at once to a message that no recorded client sent. */
  answer(message: Record<string, unknown>): object[]
  /** Recorded frames that answer what the recorded client said, and are left out. */
  readonly without?: RegExp
  /** So many lines of it at most. @default all */
  readonly linesMax?: number
}

const TICK_US = 500_000
const CONN = 'test-1'

function rowsOf(recording: string): RecordingRow[] {
  const text = gunzipSync(readFileSync(`${RECORDINGS}${recording}.jsonl.gz`)).toString()
  return text
    .split('\n')
    .slice(1)
    .filter(Boolean)
    .map(line => JSON.parse(line) as RecordingRow)
}

/** Path and instrument of an address: what tells two requests of a recording apart. */
function place(url: string): string {
  const { pathname, searchParams } = new URL(url, 'http://127.0.0.1')
  return `${pathname.replace(/\/$/, '')} ${searchParams.get('symbol') ?? ''}`
}

/** Plays recorded traffic into a capture: what came over REST is the answer to the same request of ours. */
class Player extends RecordedRequests {
  us: number
  readonly lines: string[] = []
  readonly sink = new MemorySink()
  readonly journal: Journal
  private readonly options: RecordingOptions
  private readonly asked: FetchRequest[] = []
  private readonly held: RecordingRow[] = []

  constructor(exchange: Exchange, options: RecordingOptions, startUs: number) {
    super()
    this.us = startUs
    this.options = options
    const write = (line: string) => void this.lines.push(line.slice(0, -1))
    this.journal = new Journal(
      {
        exchange,
        run: 'r',
        config: { ...CONFIG, cadenceMs: 500, ...options.config },
        secrets: [],
        now: () => ++this.us,
        frames: () => ({
          append: (_, line) => write(line),
          appendAround: (_, before, frame, after) => write(before + frame + after)
        }),
        isFull: () => false
      },
      this
    )
    this.journal.attach(new Engine(exchange, this.sink, this.journal))
    this.journal.open(
      CONN,
      'ws://127.0.0.1/',
      described(exchange, options.instIds, options.selection),
      ['book', 'trades'],
      null
    )
  }

  override send(connection: string, text: string, recorded: string): void {
    super.send(connection, text, recorded)
    this.journal.out(connection, recorded)
    if (!text.startsWith('{')) return
    for (const answer of this.options.answer(JSON.parse(text) as Record<string, unknown>))
      this.journal.in(connection, Buffer.from(JSON.stringify(answer)), false)
  }

  override fetch(connection: string, request: FetchRequest): void {
    super.fetch(connection, request)
    const at = this.held.findIndex(row => place(row.url!) === place(request.path))
    if (at < 0) this.asked.push(request)
    else this.answerWith(request, this.held.splice(at, 1)[0]!)
  }

  private answerWith(request: FetchRequest, row: RecordingRow): void {
    this.journal.fetched(CONN, row.url!, request, 200, row.msg)
  }

  take(row: RecordingRow): void {
    const us = Number(BigInt(row.t) / 1000n)
    const tickUs = Math.floor(us / TICK_US) * TICK_US
    if (tickUs > this.us) {
      this.us = tickUs
      this.journal.tick()
    }
    this.us = Math.max(this.us, us)
    if (row.dir === 'in') this.journal.in(CONN, Buffer.from(row.msg), false)
    if (row.dir !== 'http') return
    const at = this.asked.findIndex(request => place(request.path) === place(row.url!))
    if (at < 0) this.held.push(row)
    else this.answerWith(this.asked.splice(at, 1)[0]!, row)
  }
}

/** A capture of a recording, as a tape. Its requests are those that the session made. */
export function tapeOfRecording(exchange: Exchange, options: RecordingOptions): Tape & { requests: RecordedRequests } {
  const { recording, linesMax, without } = options
  const rows = rowsOf(recording)
    .slice(0, linesMax)
    .filter(({ dir, msg }) => dir !== 'in' || !without?.test(msg))
  const player = new Player(exchange, options, Number(BigInt(rows[0]!.t) / 1000n) - 1000)
  for (const row of rows) player.take(row)
  return { lines: player.lines, derived: player.sink.text(), requests: player }
}
