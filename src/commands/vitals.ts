import { readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import type { Subject } from '../capture/subject.ts'
import type { RunConfig } from '../config/run.ts'
import { snapshotFeed } from '../core/instrument.ts'
import { isoMs } from '../core/time.ts'
import type { FileStream } from '../vault/stream.ts'
import type { Capture, Line } from './capture.ts'
import type { Health, InstrumentHealth } from './health.ts'

const LOOP_RESOLUTION_MS = 20
const PENDING_MS = 100

/** How late the event loop comes to what is due. Milliseconds. */
type LoopDelay = NonNullable<Health['event_loop_delay_ms']>

/** The version in the package's own description. */
export function programVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

/** Reads what a running capture knows of itself. What the panel, the health files and the metrics show comes from here. */
export class Vitals {
  private readonly capture: Capture
  private readonly config: RunConfig
  private readonly startedUs: number
  private readonly version = programVersion()
  private readonly streams = new Map<Subject, Record<'events' | 'shots' | 'trades' | 'statuses', FileStream>>()
  private readonly pendingTimer: NodeJS.Timeout
  private pendingMax = 0
  /** Two overlapping histograms: one alone would miss what happens while it is begun anew. */
  private loops: [older: IntervalHistogram, newer: IntervalHistogram] = [watchLoop(), watchLoop()]
  private loopDelay: LoopDelay | null = null
  private diskFree: number | null = null

  constructor(capture: Capture, config: RunConfig) {
    this.capture = capture
    this.config = config
    this.startedUs = capture.nowUs()
    this.pendingTimer = setInterval(() => {
      this.pendingMax = Math.max(this.pendingMax, capture.writer.pendingBytes)
    }, PENDING_MS).unref()
  }

  /** Begins another period of what is measured over one. */
  turn(): void {
    const [older, newer] = this.loops
    if (older.count > 0) {
      // The histogram counts from one look to the next: the time between them is no delay.
      const delay = (ns: number) => Math.max(0, Math.round((ns / 1e6 - LOOP_RESOLUTION_MS) * 10) / 10)
      this.loopDelay = { p50: delay(older.percentile(50)), p99: delay(older.percentile(99)), max: delay(older.max) }
    }
    older.disable()
    this.loops = [newer, watchLoop()]
  }

  /** Asks how much room the disk of the vault has. A disk that does not tell leaves that unknown. */
  async askDisk(): Promise<void> {
    try {
      const { bavail, bsize } = await statfs(this.config.vault)
      this.diskFree = bavail * bsize
    } catch {
      // The vault is not there, or not to be asked: writing to it tells why.
      this.diskFree = null
    }
  }

  /** Ends the measuring. What was counted can still be read. */
  stop(): void {
    clearInterval(this.pendingTimer)
    for (const loop of this.loops) loop.disable()
  }

  /** The health of each exchange, now. */
  all(): Health[] {
    return this.capture.lines.map(line => this.read(line))
  }

  /** The health of one exchange, now. */
  read(line: Line): Health {
    const { capture, config } = this
    const { journal, exchange } = line
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
    const { writer } = capture
    const cpu = process.cpuUsage()
    return {
      time_utc: isoMs(capture.nowUs()),
      started_utc: isoMs(this.startedUs),
      stopped_utc: null,
      pid: process.pid,
      run: capture.run,
      host: hostname(),
      version: this.version,
      vault: resolve(config.vault),
      exchange: exchange.id,
      cadence_ms: config.cadenceMs,
      connections: [...journal.since].map(([name, sinceUs]) => ({
        name,
        since_utc: isoMs(sinceUs),
        last_frame_utc: moment(journal.lastFrames.get(name) ?? 0),
        frames: config.frames ? writer.stream(exchange.id, 'frames', name).lines : null
      })),
      frames_in: journal.framesIn,
      frames_dropped: journal.dropped,
      writer: {
        paused: writer.isPaused,
        reason: writer.reason ?? null,
        pending_bytes: writer.pendingBytes,
        pending_bytes_max: Math.max(this.pendingMax, writer.pendingBytes)
      },
      memory: { rss, heap_used: heapUsed, heap_total: heapTotal, external },
      event_loop_delay_ms: this.loopDelay,
      disk_free_bytes: this.diskFree,
      cpu_seconds: Math.round((cpu.user + cpu.system) / 1000) / 1000,
      instruments: this.instruments(line)
    }
  }

  private instruments(line: Line): InstrumentHealth[] {
    const { lastFrames, lastFrameUs } = line.journal
    return line.subjects.map(subject => {
      const { primary } = subject
      const frameUs = primary === null ? undefined : lastFrames.get(primary.connectionName)
      return this.instrument(subject, frameUs ?? lastFrameUs)
    })
  }

  private instrument(subject: Subject, frameUs: number): InstrumentHealth {
    const { instrument, primary } = subject
    const { exchange, instId, market, level } = instrument
    const { events, shots, trades, statuses } = this.streamsOf(subject)
    const book = primary?.live ? (level === 'l3' ? primary.orders : primary.levels) : undefined
    return {
      exchange,
      instId,
      market,
      level,
      ...this.stateOf(subject),
      last_frame_utc: moment(frameUs),
      last_event_utc: moment(subject.lastEventUs),
      last_trade_utc: moment(subject.lastTradeUs),
      last_snapshot_utc: moment(subject.lastShotMs * 1000),
      synced_at: primary?.live ? isoMs(primary.syncedUs) : null,
      gaps: subject.gaps,
      mismatches: subject.mismatches,
      absent_deletes: subject.absentDeletes,
      events: events.lines,
      snapshots: shots.lines,
      trades: trades.lines,
      bytes: events.bytes + shots.bytes + trades.bytes + statuses.bytes,
      best_bid: book?.best(false) ?? null,
      best_ask: book?.best(true) ?? null,
      lag_ms: subject.lag.quantiles(this.capture.nowUs())
    }
  }

  private stateOf(subject: Subject): Pick<InstrumentHealth, 'state' | 'since_utc'> {
    const { primary, liveUs, refusedUs, gapUs } = subject
    if (primary?.live) return { state: 'live', since_utc: isoMs(liveUs) }
    if (refusedUs !== null) return { state: 'refused', since_utc: isoMs(refusedUs) }
    if (gapUs !== null) return { state: 'broken', since_utc: isoMs(gapUs) }
    return { state: 'waiting', since_utc: isoMs(this.startedUs) }
  }

  private streamsOf(subject: Subject) {
    let streams = this.streams.get(subject)
    if (streams === undefined) {
      const { exchange, instId, market, level } = subject.instrument
      const of = (feed: string) => this.capture.writer.stream(exchange, feed, instId)
      streams = {
        events: of(level === 'l3' ? 'l3_events' : 'l2_updates'),
        shots: of(snapshotFeed(level, market)),
        trades: of('trades'),
        statuses: of('status')
      }
      this.streams.set(subject, streams)
    }
    return streams
  }
}

function watchLoop(): IntervalHistogram {
  const histogram = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS })
  histogram.enable()
  return histogram
}

function moment(us: number): string | null {
  return us === 0 ? null : isoMs(us)
}
