import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { RunConfig } from '../config/run.ts'
import { messageOf } from '../core/errors.ts'
import { isoMs } from '../core/time.ts'
import { replaceSoon } from '../vault/health.ts'
import { healthPath } from '../vault/layout.ts'
import type { Capture, Line } from './capture.ts'
import { Panel } from './panel.ts'
import { Vitals } from './vitals.ts'

const PANEL_MS = 1000
const HEALTH_MS = 5000
const SUMMARY_MS = 60_000
const COMPLAINT_MS = 60_000
/** What the last health file may take of the time that a stop has. */
const LAST_MS_MAX = 400

/** Shows a running capture: a line per instrument on a terminal, health files every 5 s, a log summary every minute. */
export class Monitor {
  readonly vitals: Vitals
  private readonly capture: Capture
  private readonly logger: Logger
  private readonly panel: Panel
  private readonly timers: NodeJS.Timeout[] = []
  private readonly files: HealthFiles

  constructor(capture: Capture, config: RunConfig, logger: Logger) {
    this.capture = capture
    this.logger = logger
    this.vitals = new Vitals(capture, config)
    this.panel = new Panel(capture, this.vitals)
    this.files = new HealthFiles(capture, config.vault, this.vitals, logger)
  }

  /** Begins. */
  start(): void {
    if (process.stdout.isTTY) this.timers.push(setInterval(() => this.panel.draw(), PANEL_MS))
    this.timers.push(setInterval(() => this.period(), HEALTH_MS))
    this.timers.push(setInterval(() => this.summary(), SUMMARY_MS))
    void this.files.write()
  }

  private period(): void {
    this.vitals.turn()
    void this.files.write()
  }

  /** A log line comes to the terminal. */
  makeRoom(): void {
    this.panel.makeRoom()
  }

  /** Ends, with a last word. */
  stop(): void {
    for (const timer of this.timers) clearInterval(timer)
    if (process.stdout.isTTY) this.panel.draw()
    this.summary()
    this.vitals.stop()
  }

  /** The capture has stopped cleanly: the last health files say so. Resolves soon, even if the disk does not answer. */
  async finish(): Promise<void> {
    const given = new AbortController()
    const limit = sleep(LAST_MS_MAX, undefined, { signal: given.signal }).catch(() => undefined)
    await Promise.race([this.files.finish(), limit])
    given.abort()
  }

  private summary(): void {
    for (const { exchange, instId, state, events, snapshots, trades, gaps, mismatches, bytes } of this.capture.lines
      .map(line => this.vitals.read(line))
      .flatMap(({ instruments }) => instruments)) {
      this.logger.info(
        { exchange, instId, state, snapshots, events, trades, gaps, mismatches, bytes },
        'Snapshot written: summary'
      )
    }
  }
}

/**
 * The health files of a capture, one for each exchange, named by its first connection. Whatever the disk says to them, the
 * capture goes on: a refusal is logged, once a minute.
 */
class HealthFiles {
  private readonly capture: Capture
  private readonly vault: string
  private readonly vitals: Vitals
  private readonly logger: Logger
  private readonly names = new Map<Line, string>()
  /** The writing under way: there is never more than one, so that a disk that hangs holds one thread at most. */
  private writing: Promise<void> | null = null
  private complainedMs = Number.NEGATIVE_INFINITY

  constructor(capture: Capture, vault: string, vitals: Vitals, logger: Logger) {
    this.capture = capture
    this.vault = vault
    this.vitals = vitals
    this.logger = logger
  }

  /** Replaces them, unless that is still under way. Never rejects. */
  async write(): Promise<void> {
    if (this.writing !== null) return
    this.writing = this.replaceAll().finally(() => {
      this.writing = null
    })
    await this.writing
  }

  private async replaceAll(): Promise<void> {
    // While the vault does not answer, its disk is not asked: each question would hold a thread.
    await this.capture.writer.mayOpen().catch(() => undefined)
    await this.vitals.askDisk()
    for (const line of this.capture.lines) {
      try {
        const name = await this.nameOf(line)
        // Before it has a connection name nothing of it can be told from another process.
        if (name === undefined) continue
        // Below the mount point of a vault that is not there, a file would go astray.
        await this.capture.writer.mayOpen()
        await this.put(line, name, null)
      } catch (error) {
        this.complain(line, error)
      }
    }
  }

  private async put(line: Line, name: string, stopped: string | null): Promise<void> {
    const path = healthPath(this.vault, line.exchange.id, name)
    await replaceSoon(path, `${JSON.stringify({ ...this.vitals.read(line), stopped_utc: stopped }, null, 2)}\n`)
  }

  /**
   * The name of the exchange's file. A planned change gives the first connection's name back, and another process may take
   * it: then the file is that one's, and this one goes on under a name it has now.
   */
  private async nameOf(line: Line): Promise<string | undefined> {
    const name = this.names.get(line) ?? this.capture.firstName(line)
    if (name === undefined) return undefined
    const held = line.journal.names
    const isLost = held.length > 0 && !held.includes(name) && !(await this.isOurs(line, name))
    const kept = isLost ? held[0]! : name
    this.names.set(line, kept)
    return kept
  }

  /** Whether the file of a name says nothing of another run. */
  private async isOurs(line: Line, name: string): Promise<boolean> {
    try {
      const text = await readFile(healthPath(this.vault, line.exchange.id, name), 'utf8')
      return (JSON.parse(text) as { run?: unknown }).run === this.capture.run
    } catch {
      // Missing or damaged: it is written anew.
      return true
    }
  }

  /** Says in the files that the capture has stopped cleanly. Never rejects. */
  async finish(): Promise<void> {
    await this.writing
    const stopped = isoMs(this.capture.nowUs())
    for (const [line, name] of this.names) {
      try {
        // The names are free by now: what another process has written there already is left alone.
        if (await this.isOurs(line, name)) await this.put(line, name, stopped)
      } catch (error) {
        this.complain(line, error)
      }
    }
  }

  private complain(line: Line, error: unknown): void {
    const nowMs = performance.now()
    if (nowMs - this.complainedMs < COMPLAINT_MS) return
    this.complainedMs = nowMs
    this.logger.error({ exchange: line.exchange.id, error: messageOf(error) }, 'Health file could not be written')
  }
}
