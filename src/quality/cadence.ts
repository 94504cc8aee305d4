/** Whether a live book has a snapshot in every slot of the cadence. */
import { isoMs } from '../core/time.ts'
import type { Doubt, Place, Reporter } from './report.ts'

/** So many snapshots of a process tell its cadence. */
const SHOTS_MIN = 6
/** Fewer tell it, too, where no more come. */
const SHOTS_LEAST = 3
const DISTANCE_FACTOR = 1.1
/** Signs of life that are closer together are one. */
const SIGN_US_MIN = 50_000
/** Slots with a sign of life that are remembered between two snapshots. */
const SLOTS_MAX = 100_000

/** A process that stood still for so long hears what has come meanwhile, and takes no snapshots until then. */
const STILL_US = 5_000_000
const LISTEN_US = 2_000_000

type Action =
  | { readonly kind: 'live' | 'forgive' | 'excuse'; readonly us: number }
  | { readonly kind: 'lost'; readonly us: number; readonly place: Place }
  | { readonly kind: 'shot'; readonly us: number; readonly place: Place }

/** Judges the slots of one instrument, process by process: each may have a cadence of its own. */
export class SlotJudge {
  private readonly reporter: Reporter
  /** Told by the caller, µs; null: it is inferred. */
  private readonly knownUs: number | null
  private cadenceUs: number | null
  /** What happened before the cadence was known. */
  private early: Action[] = []
  private shots: number[] = []
  /** The slot that is due next; null while no book is live. */
  private due: number | null = null
  private lastSlot = Number.NaN
  private forgiven = 0
  private excusedUs = Number.NEGATIVE_INFINITY
  private isPaused = false
  /** Slots in which the process showed that it lived. */
  private lively = new Set<number>()
  private livelyEndUs = 0
  private seenUs = Number.NEGATIVE_INFINITY
  private listenUntilUs = 0
  /** Signs of life before the cadence was known. */
  private signs: number[] = []
  private hasTicks = false
  private hole: Doubt | null = null

  constructor(reporter: Reporter, cadenceMs: number | undefined) {
    this.reporter = reporter
    this.knownUs = this.cadenceUs = cadenceMs === undefined ? null : cadenceMs * 1000
  }

  /** The cadence, µs; 0 while it is not known. */
  get periodUs(): number {
    return this.cadenceUs ?? 0
  }

  /** Another process begins; what was due of the one before is not asked for. */
  restart(): void {
    this.infer(SHOTS_LEAST)
    this.cadenceUs = this.knownUs
    this.early = []
    this.shots = []
    this.due = null
    this.lastSlot = Number.NaN
    this.forgiven = 0
    this.isPaused = false
    this.lively.clear()
    this.signs = []
    this.livelyEndUs = 0
  }

  /** Something of the instrument was received: the process was alive. */
  seen(us: number): void {
    this.listen(us)
    if (us >= this.livelyEndUs && !this.hasTicks) this.enliven(us)
  }

  private listen(us: number): void {
    // With a long cadence there may be nothing else to hear for so long.
    if (us - this.seenUs > Math.max(STILL_US, 2 * this.periodUs)) this.listenUntilUs = us + LISTEN_US
    this.seenUs = us
  }

  /** Snapshots were taken where they were due. Once ticks are told, nothing else counts as a sign of life. */
  tick(us: number): void {
    if (!this.hasTicks) {
      this.lively.clear()
      this.signs = []
    }
    this.hasTicks = true
    this.enliven(us)
  }

  private enliven(us: number): void {
    const { cadenceUs } = this
    if (cadenceUs === null) {
      if (this.signs.length < SLOTS_MAX && us >= this.listenUntilUs) this.signs.push(us)
      this.livelyEndUs = us + SIGN_US_MIN
      return
    }
    const slot = Math.floor(us / cadenceUs)
    if (!this.hasTicks && slot * cadenceUs < this.listenUntilUs) return
    if (this.lively.size < SLOTS_MAX) this.lively.add(slot)
    this.livelyEndUs = (slot + 1) * cadenceUs
  }

  /** The book is live. */
  live(us: number): void {
    // While a connection is built up again nothing comes in, and that is no standstill.
    this.seenUs = us
    this.act({ kind: 'live', us })
  }

  /** The book is lost; `place`: where a missing snapshot would stand. */
  lost(us: number, place: Place): void {
    this.listen(us)
    this.act({ kind: 'lost', us, place })
  }

  /** A snapshot that is not flagged. */
  shot(us: number, place: Place): void {
    this.listen(us)
    this.act({ kind: 'shot', us, place })
  }

  /** A line of the snapshots is damaged, and told: its slot is not asked for. */
  forgive(us: number): void {
    this.act({ kind: 'forgive', us })
  }

  /** The clock was set, or the writer paused: slots around it are not asked for; from a pause on until it ends. */
  excuse(us: number, isPaused: boolean): void {
    this.isPaused = isPaused
    this.act({ kind: 'excuse', us })
  }

  private act(action: Action): void {
    if (this.cadenceUs !== null) return this.judge(action, this.cadenceUs)
    this.early.push(action)
    if (action.kind === 'shot') this.shots.push(action.us)
    if (this.shots.length === SHOTS_MIN) this.infer(SHOTS_MIN)
  }

  /** The usual distance of snapshots, with two digits that count: timers are late by a little. */
  private infer(least: number): void {
    const { shots, early } = this
    if (this.cadenceUs !== null || shots.length < least) return
    const distances = shots.slice(1).map((us, n) => us - shots[n]!)
    distances.sort((a, b) => a - b)
    // Few that differ tell nothing: there may have been a gap between them.
    if (shots.length < SHOTS_MIN && distances.at(-1)! > distances[0]! * DISTANCE_FACTOR) return
    const median = distances[(distances.length - 1) >> 1]!
    this.cadenceUs = Number((median / 1000).toPrecision(2)) * 1000
    this.early = []
    for (const us of this.signs) this.enliven(us)
    this.signs = []
    for (const action of early) this.judge(action, this.cadenceUs)
  }

  private judge(action: Action, cadenceUs: number): void {
    const slot = Math.floor(action.us / cadenceUs)
    if (action.kind === 'live') this.due ??= slot + 1
    else if (action.kind === 'excuse') this.excusedUs = action.us
    else if (action.kind === 'forgive') {
      this.forgiven++
      this.hole?.drop()
    } else if (action.kind === 'lost') {
      // The slot of the loss itself may not have had its tick.
      if (this.due !== null) this.miss(this.due, slot, action.us, action.place, cadenceUs)
      this.due = null
      this.lastSlot = Number.NaN
    } else if (action.kind === 'shot') this.judgeShot(slot, action.us, action.place, cadenceUs)
  }

  private judgeShot(slot: number, us: number, place: Place, cadenceUs: number): void {
    if (slot === this.lastSlot) {
      const message = `the second snapshot in the slot from ${isoMs(slot * cadenceUs)} on`
      return this.reporter.tell('duplicate_snapshot', place, message)
    }
    if (this.due !== null) this.miss(this.due, slot, us, place, cadenceUs)
    this.due = slot + 1
    this.lastSlot = slot
    for (const lively of this.lively) if (lively < slot) this.lively.delete(lively)
  }

  /** Slots from `from` up to, not including, `to` had none. */
  private miss(from: number, to: number, us: number, place: Place, cadenceUs: number): void {
    const missing = to - from - this.forgiven
    this.forgiven = 0
    if (missing <= 0) return
    if (this.isPaused || this.excusedUs >= (from - 1) * cadenceUs) return
    let isLively = this.lively.size === SLOTS_MAX
    for (let slot = from; slot < to && !isLively; slot++) isLively = this.lively.has(slot)
    const message = `${missing} missing between ${isoMs(from * cadenceUs)} and ${isoMs(to * cadenceUs)}, one is due every ${cadenceUs / 1000} ms`
    this.hole = this.reporter.tellLater(
      us,
      isLively ? 'missing_slot' : 'late_tick',
      { ...place, us },
      isLively ? `snapshots: ${message}` : `snapshots: ${message}; nothing shows that the process had time for them`
    )
  }
}
