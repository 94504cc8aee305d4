import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { Engine } from '../capture/engine.ts'
import type { EngineConfig, FrameStream, Subject } from '../capture/subject.ts'
import type { ExchangeRun, RunConfig } from '../config/run.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import { LEVELS, MARKETS, snapshotFeed } from '../core/instrument.ts'
import { hourOf, isoMs } from '../core/time.ts'
import type { Exchange, InstrumentInfo } from '../exchanges/exchange.ts'
import { VaultIdentity } from '../vault/identity.ts'
import { connectionNames, instrumentPath, lockPath, streamDir } from '../vault/layout.ts'
import { acquireLock, type Lock } from '../vault/lock.ts'
import { storedMarket, storeMetadata } from '../vault/metadata.ts'
import { lastReceiveUs, type ResumeOptions, readTradeIds, repairStream } from '../vault/resume.ts'
import { VaultWriter } from '../vault/writer.ts'
import { Clock } from '../wire/clock.ts'
import type { Fetcher } from '../wire/fetcher.ts'
import { Journal } from '../wire/journal.ts'
import { Gate } from '../wire/pace.ts'
import { Runner } from '../wire/runner.ts'
import { Flood } from './log.ts'

/** The instruments of one exchange of a capture. */
export interface Share {
  readonly run: ExchangeRun
  readonly instruments: readonly Instrument[]
  /** REST of the exchange: lists, images and histories have one budget. */
  readonly fetcher: Fetcher
}

/** One exchange while it is captured. */
export interface Line {
  readonly exchange: Exchange
  readonly engine: Engine
  readonly journal: Journal
  readonly runner: Runner
  readonly subjects: readonly Subject[]
}

const FLUSH_MS = 40
const PENDING_BYTES_MAX = 64 * 1024 * 1024
const SECOND_MS = 1000
/** Shorter secrets cannot be told from ordinary words in what an exchange echoes. */
const SECRET_CHARS_MIN = 8

/** Everything a running capture holds: locks, writer, clock, and for each exchange an engine, a journal, a runner. */
export class Capture {
  readonly run = randomUUID()
  readonly lines: Line[] = []
  readonly writer: VaultWriter
  private readonly config: RunConfig
  private readonly logger: Logger
  private readonly identity: VaultIdentity
  private readonly locks = new Map<string, Lock>()
  private readonly gates = new Map<string, Gate>()
  private readonly timers: NodeJS.Timeout[] = []
  private isStopped = false
  private clock = new Clock()
  private readonly flood = new Flood()
  private readonly repaired = new Map<string, number>()
  /** Paths of the vault that could not be read or mended, as they were told. */
  private readonly troubled = new Set<string>()
  /** Which line (its place in `lines`) had a connection name first. */
  private readonly owners = new Map<string, number>()

  /** Opens the vault, but writes nothing of an instrument yet. Throws `VAULT` when it is not where it was. */
  constructor(config: RunConfig, logger: Logger) {
    this.config = config
    this.logger = logger
    this.identity = VaultIdentity.open(config.vault, {
      // What is simulated may be thrown away without a word.
      memory: config.simulate ? null : join(config.logDir, 'vaults.json'),
      create: config.create,
      nowIso: isoMs(Date.now() * 1000)
    })
    this.writer = new VaultWriter(config.vault, {
      pendingMax: PENDING_BYTES_MAX,
      onPause: reason => this.onWriter('writer_paused', { reason }),
      onResume: waited => this.onWriter('writer_resumed', { waited_bytes: waited }),
      onMissing: (path, bytes) => this.onMissing(path, bytes),
      onSlowSync: path => this.logger.error({ path }, 'Syncing takes seconds: a power cut would take more than one'),
      guard: () => this.checkVault()
    })
  }

  /**
   * Takes the locks of all instruments. Throws, with nothing taken, LOCKED when another process has one, CONFIG when an
   * instrument is named twice or the vault has its name as that of another market.
   */
  lock(shares: readonly Share[]): void {
    refuseClashes(this.config.vault, shares)
    try {
      for (const { run, instruments } of shares) {
        for (const { instId } of instruments) {
          this.take(run.exchange.id, instId, `${run.exchange.id} ${instId} of the vault ${this.config.vault}`)
        }
      }
    } catch (error) {
      this.unlock()
      throw error
    }
  }

  private take(exchange: string, name: string, what: string): void {
    const path = lockPath(this.config.vault, exchange, name)
    this.locks.set(`${exchange}/${name}`, acquireLock(path, { command: 'run', nowMs: Date.now(), what }))
  }

  private unlock(): void {
    for (const lock of this.locks.values()) lock.release()
    this.locks.clear()
  }

  /** Mends the tails that a crash left, learns what earlier runs wrote, and connects. */
  async start(shares: readonly Share[]): Promise<void> {
    let floorUs = 0
    for (const { run, instruments } of shares) {
      for (const instrument of instruments) {
        for (const feed of feedsOf(instrument)) {
          this.mend(run.exchange.id, feed, instrument.instId)
          floorUs = Math.max(floorUs, this.lastUs(run.exchange.id, feed, instrument.instId))
        }
      }
    }
    this.clock = new Clock(floorUs)
    for (const share of shares) this.lines.push(await this.prepare(share))
    this.tellAll('started', { run: this.run, pid: process.pid, frames: this.config.frames })
    for (const { exchange, subjects } of this.lines) {
      for (const subject of subjects) {
        const bytes = this.repaired.get(`${exchange.id}/${subject.instrument.instId}`)
        if (bytes !== undefined) subject.status(this.clock.now(), 'tail_repaired', { moved_bytes: bytes })
      }
    }
    for (const exchange of new Set(this.lines.map(line => line.exchange.id))) this.mendLeft(exchange)
    this.startTimers()
    const wanted: FeedKind[] = this.config.trades ? ['book', 'trades'] : ['book']
    for (const [at, line] of this.lines.entries()) {
      const { instruments, run } = shares[at]!
      line.runner.start(instruments, run.endpoints.routes, wanted, this.config.cadenceMs)
    }
  }

  private mend(exchange: string, feed: string, name: string): void {
    const moved = repairStream(this.config.vault, exchange, feed, name, this.resumption())
    if (moved === 0) return
    const key = `${exchange}/${name}`
    this.repaired.set(key, (this.repaired.get(key) ?? 0) + moved)
    this.logger.warn({ exchange, feed, name, moved_bytes: moved }, 'Half-written tail moved aside')
  }

  /** What of an earlier run cannot be read is told once, and keeps nobody from capturing. */
  private readonly onTrouble = (path: string, error: unknown): void => {
    if (this.troubled.has(path)) return
    this.troubled.add(path)
    this.logger.warn({ path, error: messageOf(error) }, 'Part of the vault passed over')
  }

  private resumption(): ResumeOptions {
    return { nowUs: Date.now() * 1000, onTrouble: this.onTrouble }
  }

  /** When earlier runs wrote to a stream last. */
  private lastUs(exchange: string, feed: string, name: string): number {
    return lastReceiveUs(this.config.vault, exchange, feed, name, this.resumption())
  }

  private tradeIdsOf(exchange: string, instId: string, hour: number): Promise<string[]> {
    return readTradeIds(this.config.vault, exchange, instId, hour, this.onTrouble)
  }

  /** Connections that this capture may never name: what a killed one left is mended all the same. */
  private mendLeft(exchange: string): void {
    for (const name of connectionNames(this.config.vault, exchange)) {
      try {
        this.take(exchange, name, `the connection name ${name}`)
      } catch (error) {
        if (error instanceof L3capError && error.code === 'LOCKED') continue
        throw error
      }
      try {
        this.mendFrames(exchange, name)
      } finally {
        this.releaseName(exchange, name)
      }
    }
  }

  /** Connection names are taken while the capture runs: their tails are told to every instrument of the exchange. */
  private mendFrames(exchange: string, name: string): void {
    this.mend(exchange, 'frames', name)
    const bytes = this.repaired.get(`${exchange}/${name}`)
    if (bytes === undefined) return
    this.repaired.delete(`${exchange}/${name}`)
    for (const line of this.lines.filter(each => each.exchange.id === exchange)) {
      for (const subject of line.subjects)
        subject.status(this.clock.now(), 'tail_repaired', { conn: name, moved_bytes: bytes })
    }
  }

  private async prepare({ run, instruments, fetcher }: Share): Promise<Line> {
    const { exchange } = run
    const { depth, cadenceMs, onMismatch, staleAfterMs, trades } = this.config
    const config: EngineConfig = { depth, cadenceMs, onMismatch, silenceMs: staleAfterMs }
    const owner = this.lines.length
    const secrets = Object.values(run.credentials ?? {}).filter(text => text.length >= SECRET_CHARS_MIN)
    const runner = new Runner({
      exchange,
      fetcher,
      clock: this.clock,
      takeName: () => this.takeName(exchange.id, owner),
      releaseName: name => this.releaseName(exchange.id, name),
      gate: this.gateOf(exchange),
      storeMetadata: info => this.storeMetadata(info),
      log: (level, message, facts) => this.log(level, message, withoutSecrets(facts, secrets))
    })
    const journal = new Journal(
      {
        exchange,
        run: this.run,
        config,
        now: () => this.clock.now(),
        frames: name => this.framesOf(exchange.id, name),
        secrets,
        isFull: () => this.writer.isFull
      },
      runner
    )
    const engine = new Engine(
      exchange,
      { stream: (feed, name) => this.writer.stream(exchange.id, feed, name) },
      journal,
      run.credentials
    )
    journal.attach(engine)
    runner.attach(journal)
    const hour = hourOf(this.clock.now())
    const subjects = instruments.map(instrument => engine.subject(instrument, config))
    for (const subject of subjects) {
      if (trades) subject.knowTrades(hour, await this.tradeIdsOf(exchange.id, subject.instrument.instId, hour))
    }
    return { exchange, engine, journal, runner, subjects }
  }

  /** An exchange counts connections by address, however many entries of the configuration they are for. */
  private gateOf({ id, limits }: Exchange): Gate {
    const gate = this.gates.get(id) ?? new Gate(limits.connectsPerMinuteMax, limits.connectSpacingMs)
    this.gates.set(id, gate)
    return gate
  }

  private log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void {
    const dropped = (kind: string, count: number) => this.logger.warn({ kind, count }, 'Log lines left out')
    if (level === 'debug' || this.flood.admit(message, performance.now(), dropped)) this.logger[level](facts, message)
  }

  /** Stores what is known of an instrument, unless it is known already. */
  storeMetadata(info: InstrumentInfo): void {
    try {
      storeMetadata(instrumentPath(this.config.vault, info.exchange, info.instId), info, isoMs(Date.now() * 1000))
    } catch (error) {
      this.logger.error({ instId: info.instId, error: messageOf(error) }, 'Metadata could not be stored')
    }
  }

  private framesOf(exchange: string, name: string): FrameStream | null {
    return this.config.frames ? this.writer.stream(exchange, 'frames', name) : null
  }

  /** The lowest free connection name of the exchange: no two running connections have one, in whatever process. */
  private takeName(exchange: string, owner: number): string {
    for (let number = 1; ; number++) {
      const name = `${exchange}-${number}`
      // Lines are counted by name within a process: a name stays with the line that had it first.
      const taken = this.locks.has(`${exchange}/${name}`) || (this.owners.get(name) ?? owner) !== owner
      if (taken) continue
      try {
        this.take(exchange, name, `the connection name ${name}`)
      } catch (error) {
        if (error instanceof L3capError && error.code === 'LOCKED') continue
        throw error
      }
      this.mendFrames(exchange, name)
      if (this.lastUs(exchange, 'frames', name) > this.clock.now()) {
        // Another process wrote it under a clock that was ahead of ours: times in a file never go back.
        this.releaseName(exchange, name)
        continue
      }
      this.owners.set(name, owner)
      return name
    }
  }

  private releaseName(exchange: string, name: string): void {
    this.locks.get(`${exchange}/${name}`)?.release()
    this.locks.delete(`${exchange}/${name}`)
  }

  private startTimers(): void {
    this.timers.push(setInterval(() => this.writer.flush(), FLUSH_MS))
    this.timers.push(setInterval(() => this.everySecond(), SECOND_MS))
    if (this.config.fsyncMs !== null) this.timers.push(setInterval(() => this.writer.sync(), this.config.fsyncMs))
  }

  private everySecond(): void {
    this.writer.retry()
    this.checkVault().catch(error => this.writer.refuse(messageOf(error)))
    const stepMs = this.clock.adjust()
    if (stepMs === 0) return
    this.logger.warn({ step_ms: Math.round(stepMs) }, 'The wall clock was set')
    this.tellAll('clock_step', { step_ms: Math.round(stepMs) })
  }

  /** Whoever meets it first says the same. */
  private async checkVault(): Promise<void> {
    try {
      await this.identity.check()
    } catch (error) {
      throw new Error(`the vault is gone: ${messageOf(error)}`, { cause: error })
    }
  }

  private onWriter(event: 'writer_paused' | 'writer_resumed', detail: Record<string, unknown>): void {
    this.logger[event === 'writer_paused' ? 'error' : 'warn'](
      detail,
      event === 'writer_paused' ? 'Writing paused' : 'Writing resumed'
    )
    // A pause shows in the middle of a line; its status comes after the line's own records, and none after `stopped`.
    setImmediate(() => this.isStopped || this.tellAll(event, detail))
  }

  /** Lines that were stored are no longer there. The rest of the hour begins with new connections and full books. */
  private onMissing(path: string, bytes: number): void {
    this.logger.error({ path, bytes }, 'Stored lines have disappeared')
    setImmediate(() => {
      for (const { journal, runner } of this.lines) {
        for (const name of journal.names) runner.hangup(name, 'stored lines have disappeared')
        journal.forgetHours()
      }
    })
  }

  private tellAll(event: string, detail: Record<string, unknown>): void {
    for (const { subjects } of this.lines) {
      for (const subject of subjects) subject.status(this.clock.now(), event, detail)
    }
  }

  /** Nobody looks for the missing trades any more. */
  private tellTradeHoles(): void {
    for (const subject of this.lines.flatMap(line => line.subjects)) {
      for (const [from, to] of subject.tradeHoles) {
        const detail = { channel: 'trades', cause: 'trades', expected: from, received: to + 1, why: 'stopped' }
        subject.status(this.clock.now(), 'gap', detail)
      }
    }
  }

  /** The connection name that a line had first; undefined before it had any. */
  firstName(line: Line): string | undefined {
    const place = this.lines.indexOf(line)
    return [...this.owners].find(([, owner]) => owner === place)?.[0]
  }

  /** Microseconds since the epoch, on the clock of the records. */
  nowUs(): number {
    return this.clock.now()
  }

  /** Closes the connections, writes `stopped`, flushes, syncs, gives the locks back. */
  async stop(reason: string): Promise<void> {
    await Promise.all(this.lines.map(line => line.runner.stop()))
    this.tellTradeHoles()
    this.isStopped = true
    this.tellAll('stopped', { run: this.run, reason })
    for (const timer of this.timers) clearInterval(timer)
    try {
      await this.writer.close()
    } catch (error) {
      throw new L3capError(
        'VAULT',
        `the last ${this.writer.pendingBytes} bytes could not be written: ${messageOf(error)}`,
        { cause: error }
      )
    } finally {
      this.unlock()
    }
  }
}

/** What is to be logged, without the secrets that a server may have echoed in its words. */
function withoutSecrets(facts: Record<string, unknown>, secrets: readonly string[]): Record<string, unknown> {
  const clean = (value: unknown) =>
    typeof value === 'string' ? secrets.reduce((text, secret) => text.replaceAll(secret, '***'), value) : value
  if (secrets.length === 0) return facts
  return Object.fromEntries(Object.entries(facts).map(([key, value]) => [key, clean(value)]))
}

/** One name is one folder in the vault: what two markets share a name may not be mixed there. */
function refuseClashes(vault: string, shares: readonly Share[]): void {
  const mistakes: string[] = []
  const seen = new Set<string>()
  for (const { exchange, instId, market } of shares.flatMap(({ instruments }) => instruments)) {
    const name = `${exchange} ${instId}`
    if (seen.has(name)) mistakes.push(`symbol: ${name} is named twice; one vault holds one market and level of it`)
    seen.add(name)
    const stored = storedMarket(vault, exchange, instId)
    for (const other of MARKETS.filter(each => each !== market)) {
      const feeds = LEVELS.map(level => snapshotFeed(level, other))
      if (stored === other || feeds.some(feed => existsSync(streamDir(vault, exchange, feed, instId))))
        mistakes.push(
          `symbol: the vault ${vault} holds ${name} as ${other}; capture it as ${market} into another vault`
        )
    }
  }
  if (mistakes.length > 0) throw new L3capError('CONFIG', [...new Set(mistakes)].join('\n'))
}

function feedsOf(instrument: Instrument): string[] {
  return [
    instrument.level === 'l3' ? 'l3_events' : 'l2_updates',
    snapshotFeed(instrument.level, instrument.market),
    'trades',
    'status'
  ]
}
