import { cursorTo, moveCursor } from 'node:readline'
import type { Logger } from 'pino'
import type { Subject } from '../capture/subject.ts'
import type { RunConfig } from '../config/run.ts'
import { difference } from '../core/decimal.ts'
import { messageOf } from '../core/errors.ts'
import { snapshotFeed } from '../core/instrument.ts'
import { isoMs } from '../core/time.ts'
import { healthPath } from '../vault/layout.ts'
import { replaceFile } from '../vault/metadata.ts'
import type { Capture, Line } from './capture.ts'

const PANEL_MS = 1000
const HEALTH_MS = 5000
const SUMMARY_MS = 60_000

/** What is known of one instrument at a moment. */
interface Reading {
  readonly exchange: string
  readonly instId: string
  readonly state: 'live' | 'broken' | 'waiting'
  readonly bid: string | null
  readonly ask: string | null
  readonly depth: string
  readonly events: number
  readonly snapshots: number
  readonly trades: number
  readonly gaps: number
  readonly mismatches: number
  readonly absentDeletes: number
  readonly shotAgeMs: number | null
  readonly bytes: number
}

/** Shows a running capture: a line per instrument on a terminal, health files every 5 s, a log summary every minute. */
export class Monitor {
  private readonly capture: Capture
  private readonly config: RunConfig
  private readonly logger: Logger
  private readonly timers: NodeJS.Timeout[] = []
  private drawn = 0
  private before = new Map<string, number>()

  constructor(capture: Capture, config: RunConfig, logger: Logger) {
    this.capture = capture
    this.config = config
    this.logger = logger
  }

  /** Begins. */
  start(): void {
    if (process.stdout.isTTY) this.timers.push(setInterval(() => this.draw(), PANEL_MS))
    this.timers.push(setInterval(() => this.health(), HEALTH_MS))
    this.timers.push(setInterval(() => this.summary(), SUMMARY_MS))
    this.health()
  }

  /** Ends, with a last word. */
  stop(): void {
    for (const timer of this.timers) clearInterval(timer)
    if (process.stdout.isTTY) this.draw()
    this.summary()
    this.health()
  }

  private read(line: Line, subject: Subject): Reading {
    const { instrument, primary } = subject
    const stream = (feed: string) => this.capture.writer.stream(instrument.exchange, feed, instrument.instId)
    const isL3 = instrument.level === 'l3'
    const book = primary?.live ? (isL3 ? primary.orders : primary.levels) : undefined
    const shots = stream(snapshotFeed(instrument.level, instrument.market))
    const feeds = [stream(isL3 ? 'l3_events' : 'l2_updates'), shots, stream('trades'), stream('status')]
    return {
      exchange: line.exchange.id,
      instId: instrument.instId,
      state: book ? 'live' : subject.gapUs === null ? 'waiting' : 'broken',
      bid: book?.best(false) ?? null,
      ask: book?.best(true) ?? null,
      depth: book ? `${book.count(false)}/${book.count(true)}` : '-',
      events: feeds[0]!.lines,
      snapshots: shots.lines,
      trades: feeds[2]!.lines,
      gaps: subject.gaps,
      mismatches: subject.mismatches,
      absentDeletes: subject.absentDeletes,
      shotAgeMs: subject.lastShotMs === 0 ? null : Math.round(this.capture.nowUs() / 1000 - subject.lastShotMs),
      bytes: feeds.reduce((sum, each) => sum + each.bytes, 0)
    }
  }

  private readings(): Reading[] {
    return this.capture.lines.flatMap(line => line.subjects.map(subject => this.read(line, subject)))
  }

  /** A log line comes: the next panel stands below it. */
  makeRoom(): void {
    this.drawn = 0
  }

  /** One line per instrument, drawn over the last ones. */
  private draw(): void {
    const rows = this.readings().map(r => {
      const key = `${r.exchange} ${r.instId}`
      const rate = r.events - (this.before.get(key) ?? 0)
      this.before.set(key, r.events)
      const spread = r.bid !== null && r.ask !== null ? difference(r.ask, r.bid) : '-'
      const age = r.shotAgeMs === null ? '-' : `${(r.shotAgeMs / 1000).toFixed(1)}s`
      return (
        `${key.padEnd(24)} ${r.state.padEnd(7)} ${r.bid ?? '-'} / ${r.ask ?? '-'}  spread ${spread}  depth ${r.depth}  ` +
        `${rate} ev/s  gaps ${r.gaps}  snapshot ${age} ago  ${(r.bytes / 1e6).toFixed(1)} MB`
      )
    })
    const width = process.stdout.columns || 120
    if (this.drawn > 0) moveCursor(process.stdout, 0, -this.drawn)
    cursorTo(process.stdout, 0)
    // Each row ends by clearing the rest of its line, so that longer rows of before leave nothing behind.
    process.stdout.write(rows.map(row => `${row.slice(0, width - 1)}\u001b[K\n`).join(''))
    this.drawn = rows.length
  }

  /** One file per exchange, named by its first connection, replaced whole. */
  private health(): void {
    const time = isoMs(this.capture.nowUs())
    const { rss, heapUsed } = process.memoryUsage()
    const { writer } = this.capture
    for (const line of this.capture.lines) {
      const names = line.journal.names
      const health = {
        time_utc: time,
        pid: process.pid,
        run: this.capture.run,
        exchange: line.exchange.id,
        connections: names,
        frames_in: line.journal.framesIn,
        last_frame_utc: line.journal.lastFrameUs === 0 ? null : isoMs(line.journal.lastFrameUs),
        writer: { paused: writer.isPaused, pending_bytes: writer.pendingBytes },
        memory: { rss, heap_used: heapUsed },
        instruments: line.subjects.map(subject => this.read(line, subject))
      }
      try {
        const name = this.capture.firstName(line)
        // Before it has a connection name nothing of it can be told from another process.
        if (name === undefined) continue
        const path = healthPath(this.config.vault, line.exchange.id, name)
        replaceFile(path, `${JSON.stringify(health, null, 2)}\n`, false)
      } catch (error) {
        this.logger.error({ error: messageOf(error) }, 'Health file could not be written')
      }
    }
  }

  private summary(): void {
    for (const { exchange, instId, state, events, snapshots, trades, gaps, mismatches, bytes } of this.readings()) {
      this.logger.info(
        { exchange, instId, state, snapshots, events, trades, gaps, mismatches, bytes },
        'Snapshot written: summary'
      )
    }
  }
}
