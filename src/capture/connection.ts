import type { FeedKind } from '../core/instrument.ts'
import type {
  Credentials,
  Exchange,
  FetchAnswer,
  FetchRequest,
  FrameForm,
  Host,
  InstrumentInfo,
  Session
} from '../exchanges/exchange.ts'
import { BookKeeper, type Home, type KeeperState } from './keeper.ts'
import type { EngineConfig, Subject } from './subject.ts'

/** Frames of any channel are missing then, and nothing tells which. */
const UNREAD: readonly string[] = ['overload', 'damaged']

/** What the engine asks of the world. Live, the wire does it; in a rebuild nobody does, as it has been done. */
export interface Requests {
  /** `recorded` is what the frames feed shows of it. */
  send(connection: string, text: string, recorded: string): void
  fetch(connection: string, request: FetchRequest): void
  /** The exchange told an instrument's metadata. */
  metadata(info: InstrumentInfo): void
  hangup(connection: string, reason: string): void
  /** Open another connection for the same instruments; this one ends soon. */
  replace(connection: string, reason: string): void
  /** The replacement is live: this connection may be closed. */
  leave(connection: string): void
  /** Every book of the connection is live, or refused for good. */
  settled(connection: string): void
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void
}

/** A connection as plain data. */
export interface ConnectionState {
  replaces: string | null
  isReplaced: boolean
  isSettled: boolean
  session: unknown
  keepers: KeeperState[]
}

/** One connection from its opening to its end: the exchange's session, a keeper for each instrument, the line at hand. */
export class Connection implements Host, Home {
  readonly name: string
  readonly exchange: Exchange
  readonly config: EngineConfig
  readonly keepers: BookKeeper[]
  readonly feeds: readonly FeedKind[]
  readonly credentials: Credentials | null
  private readonly session: Session
  private readonly requests: Requests
  us = 0
  frame = 0
  replaces: string | null
  isReplaced = false
  private isSettled = false
  /** What `read` ended with instead of a frame. */
  private failure: unknown
  private cachedFrame = -1
  private cachedSource = ''
  private readonly sourceHead: string

  constructor(
    name: string,
    exchange: Exchange,
    config: EngineConfig,
    subjects: Subject[],
    feeds: readonly FeedKind[],
    replaces: string | null,
    requests: Requests,
    credentials: Credentials | null
  ) {
    this.name = name
    this.exchange = exchange
    this.config = config
    this.feeds = feeds
    this.replaces = replaces
    this.requests = requests
    this.credentials = credentials
    this.sourceHead = `"conn":${JSON.stringify(name)},"frame":`
    this.keepers = subjects.map((subject, index) => new BookKeeper(this, index, subject))
    this.session = exchange.open(this)
  }

  get depth(): number {
    return this.config.depth
  }

  get silenceMs(): number | null {
    return this.config.silenceMs
  }

  /** `"conn":…,"frame":…` of the line at hand. */
  get source(): string {
    if (this.cachedFrame !== this.frame) {
      this.cachedFrame = this.frame
      this.cachedSource = this.sourceHead + this.frame
    }
    return this.cachedSource
  }

  /** `"conn":…,"frame":…` of another line of this connection. */
  sourceOf(frame: number): string {
    return this.sourceHead + frame
  }

  /** Moves to the next line. */
  at(us: number, frame: number): void {
    this.us = us
    this.frame = frame
  }

  /** The connection is open. */
  open(): void {
    for (const keeper of this.keepers) keeper.status('connected', {})
    this.guard(() => this.session.onOpen())
  }

  /** Reads a frame without any effect. One that brings the session down is kept as text, and `apply` tells of it. */
  read(text: string): FrameForm {
    this.failure = undefined
    try {
      return this.session.read(text)
    } catch (error) {
      this.failure = error
      return 'text'
    }
  }

  /** Applies the frame read last. */
  apply(): void {
    this.guard(() => {
      if (this.failure !== undefined) throw this.failure
      this.session.apply()
    })
    if (!this.isSettled) this.settle()
  }

  /** Hands the answer to a REST request over. */
  fetched(id: string, answer: FetchAnswer): void {
    this.guard(() => this.session.onFetched(id, answer))
    if (!this.isSettled) this.settle()
  }

  /** A mistake of ours in one session is a gap and a new connection, never the end of the capture. */
  private guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.log('error', 'Assertion failed in a session', {
        error: error instanceof Error ? (error.stack ?? error.message) : String(error)
      })
      this.loseAll('assertion', null, null, false)
      this.hangup('assertion failed')
    }
  }

  /** Time passes. */
  tick(): void {
    const before = this.sourceOf(this.frame - 1)
    // Snapshots reflect the line before the tick: they are taken before the session lets time pass.
    this.guard(() => {
      for (const keeper of this.keepers) keeper.tick(before)
      this.session.onTick()
    })
    if (!this.isSettled) this.settle()
  }

  private settle(): void {
    for (let index = 0; this.feeds.includes('book') && index < this.keepers.length; index++) {
      if (!this.keepers[index]!.live && !this.session.refused(index)) return
    }
    if (this.feeds.includes('trades') && !this.session.tradesReady()) return
    this.isSettled = true
    this.requests.settled(this.name)
    if (this.replaces !== null) this.requests.leave(this.replaces)
  }

  /** All books of the connection lose continuity. */
  loseAll(reason: string, expected: number | null, received: number | null, recover: boolean): void {
    for (const keeper of this.keepers) keeper.lose(reason, expected, received, recover)
  }

  /** Frames of the connection never reached the session. Where numbers do not show that by themselves, it is told here. */
  lostFrames(reason: string, count: number): void {
    this.guard(() => this.session.onLost?.())
    this.loseUnproven(reason, count)
  }

  /** The books that nothing else would show the loss of a frame in. */
  private loseUnproven(reason: string, count: number): void {
    for (const keeper of this.keepers) {
      const { level } = keeper.instrument
      const proof = this.exchange.proof[level]
      if (proof?.sequence === 'none' && !proof.checksum) keeper.lose(reason, null, count)
      if (UNREAD.includes(reason) && this.feeds.includes('trades'))
        keeper.status('gap', { channel: 'trades', cause: reason, expected: null, received: count })
    }
  }

  resync(index: number, reason: string): void {
    this.guard(() => this.session.resync(index, reason))
  }

  /** Whether there are several instruments and the checksums of all of them fail. */
  allFailing(): boolean {
    const checked = this.keepers.filter(keeper => keeper.hasChecked && !keeper.subject.checksumOff)
    return checked.length > 1 && checked.every(keeper => keeper.failing && this.isUnexplained(keeper))
  }

  /** Whether no lost frame explains a failure: where the exchange numbers none, only a fresh image that fails says so. */
  private isUnexplained(keeper: BookKeeper): boolean {
    return this.exchange.proof[keeper.instrument.level]?.sequence !== 'none' || keeper.subject.freshFailures > 0
  }

  /** Switches the verification of checksums off, loudly: not the books but the exchange's recipe has changed. */
  stopVerifying(keepers: readonly BookKeeper[], reason: string): void {
    const names = keepers.map(keeper => keeper.instrument.instId)
    for (const keeper of keepers) {
      keeper.subject.checksumOff = true
      keeper.status('checksum_mismatch', { verification: 'off', reason })
    }
    this.log('error', 'Checksum verification switched off: the exchange has changed', { instIds: names, reason })
  }

  send(text: string, recorded = text): void {
    this.requests.send(this.name, text, recorded)
  }

  fetch(request: FetchRequest): void {
    this.requests.fetch(this.name, request)
  }

  unreadable(text: string): void {
    this.log('warn', 'Unreadable frame kept', { start: text.slice(0, 80) })
    if (/^\s*[[{]/.test(text)) this.loseUnproven('unreadable', 1)
  }

  metadata(info: InstrumentInfo): void {
    this.requests.metadata(info)
  }

  hangup(reason: string): void {
    this.requests.hangup(this.name, reason)
  }

  replace(reason: string): void {
    this.isReplaced = true
    this.requests.replace(this.name, reason)
  }

  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void {
    this.requests.log(level, message, { exchange: this.exchange.id, conn: this.name, ...facts })
  }

  /** The connection as plain data. */
  state(): ConnectionState {
    return {
      replaces: this.replaces,
      isReplaced: this.isReplaced,
      isSettled: this.isSettled,
      session: this.session.state(),
      keepers: this.keepers.map(keeper => keeper.state())
    }
  }

  /** Takes what `state` gave. */
  restore(state: ConnectionState): void {
    this.replaces = state.replaces
    this.isReplaced = state.isReplaced
    this.isSettled = state.isSettled
    this.session.restore(state.session)
    for (const [index, keeper] of state.keepers.entries()) this.keepers[index]?.restore(keeper)
  }
}
