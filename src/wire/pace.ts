import { setTimeout as sleep } from 'node:timers/promises'

interface Begun {
  readonly atMs: number
  readonly weight: number
}

/**
 * Lets things of at most so much weight begin within any minute, none sooner than `spacingMs` after the one before, in order.
 */
export class Pace {
  private readonly perMinute: number
  private readonly spacingMs: number
  private readonly begun: Begun[] = []
  private spent = 0
  private turn: Promise<void> = Promise.resolve()

  constructor(perMinute: number, spacingMs = 0) {
    this.perMinute = perMinute
    this.spacingMs = spacingMs
  }

  /** Waits for its turn. Rejects when the signal aborts. */
  wait(signal: AbortSignal, weight = 1): Promise<void> {
    const mine = this.turn.then(() => this.take(signal, Math.min(weight, this.perMinute)))
    this.turn = mine.catch(() => undefined)
    return mine
  }

  private async take(signal: AbortSignal, weight: number): Promise<void> {
    signal.throwIfAborted()
    let readyMs = (this.begun.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) + this.spacingMs
    let left = this.spent + weight - this.perMinute
    for (let at = 0; left > 0; at++) {
      const oldest = this.begun[at]!
      left -= oldest.weight
      readyMs = Math.max(readyMs, oldest.atMs + 60_000)
    }
    const waitMs = readyMs - performance.now()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal })
    const nowMs = performance.now()
    // A timer may fire a moment early: what made room must not be counted against the next one.
    while (this.begun.length > 0 && this.begun[0]!.atMs + 60_000 <= nowMs + 2) this.spent -= this.begun.shift()!.weight
    this.begun.push({ atMs: nowMs, weight })
    this.spent += weight
  }
}

const BACKOFF_MS_MIN = 1000
const BACKOFF_MS_MAX = 40_000
/** Refused without a word on how long: this long, and twice as long each time it goes on. */
const REFUSED_MS_MIN = 2000
const REFUSED_MS_MAX = 120_000
const TIMER_MS_MAX = 2 ** 31 - 1

/**
 * Milliseconds to wait after so many failures in a row (from 1): twice as long each time, at most a minute, and never the
 * same for two who failed together. `random`: from 0 to 1.
 */
export function backoffMs(failures: number, random = Math.random()): number {
  return Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** (failures - 1)) * (0.5 + random)
}

/** Whether an HTTP status asks to come less often (429, 418) or later (503). */
export function isRefusal(status: number): boolean {
  return status === 429 || status === 418 || status === 503
}

/**
 * The way to one exchange: its budget, and its refusals, which hold back everybody who goes this way for as long as the
 * exchange says, or for growing times where it says nothing.
 */
export class Gate {
  private readonly pace: Pace
  private refusals = 0
  private refusedUntilMs = 0
  private refusedMs = Number.NEGATIVE_INFINITY

  /** `perMinute`: weight that may pass within any minute; `spacingMs`: between two who pass. */
  constructor(perMinute: number, spacingMs = 0) {
    this.pace = new Pace(perMinute, spacingMs)
  }

  /** Waits for its turn. Rejects when the signal aborts. */
  async pass(signal: AbortSignal, weight = 1): Promise<void> {
    // The budget is taken when the refusal is over: what waited must not come all at once.
    await this.refusal(signal)
    await this.pace.wait(signal, weight)
    await this.refusal(signal)
  }

  private async refusal(signal: AbortSignal): Promise<void> {
    while (this.refusedUntilMs > performance.now())
      await sleep(Math.min(this.refusedUntilMs - performance.now(), TIMER_MS_MAX), undefined, { signal })
  }

  /**
   * Who passed at `beganMs` (of `performance.now`) was refused; `saidMs`: for how long, 0 when that was not said. Gives the
   * milliseconds that everybody waits now.
   */
  refused(saidMs: number, beganMs: number): number {
    // What was under way when the first refusal came says nothing new.
    if (beganMs > this.refusedMs) this.refusals++
    const nowMs = performance.now()
    this.refusedMs = nowMs
    const waitMs = saidMs > 0 ? saidMs : Math.min(REFUSED_MS_MAX, REFUSED_MS_MIN * 2 ** Math.max(0, this.refusals - 1))
    this.refusedUntilMs = Math.max(this.refusedUntilMs, nowMs + waitMs)
    return this.refusedUntilMs - nowMs
  }

  /** Who passed was welcome. */
  admitted(): void {
    this.refusals = 0
  }
}
