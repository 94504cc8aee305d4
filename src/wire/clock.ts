/** Reads the wall clock and the monotonic clock, both in milliseconds. */
export interface ClockSource {
  wallMs(): number
  monotonicMs(): number
}

const SYSTEM: ClockSource = { wallMs: () => Date.now(), monotonicMs: () => performance.now() }
/** Differences up to this are drift and are followed silently. */
const STEP_MS = 500

/**
 * Receive times: integer microseconds since the epoch, each larger than the one before, whatever the wall clock does.
 * Between adjustments the monotonic clock counts. A wall clock that is ahead is followed at once; one that was set
 * back is approached by running at half speed, so that hours never come twice.
 */
export class Clock {
  private readonly source: ClockSource
  private offsetMs: number
  private lastUs: number
  private lastMonotonicMs: number

  constructor(floorUs = 0, source: ClockSource = SYSTEM) {
    this.source = source
    this.lastMonotonicMs = source.monotonicMs()
    this.offsetMs = source.wallMs() - this.lastMonotonicMs
    this.lastUs = floorUs
  }

  /** The moment now, later than every moment given before. */
  now(): number {
    const us = Math.floor((this.source.monotonicMs() + this.offsetMs) * 1000)
    this.lastUs = us > this.lastUs ? us : this.lastUs + 1
    return this.lastUs
  }

  /** Compares with the wall clock; milliseconds of a step (positive: the wall clock is ahead), 0 when there was none. */
  adjust(): number {
    const monotonicMs = this.source.monotonicMs()
    const passedMs = monotonicMs - this.lastMonotonicMs
    this.lastMonotonicMs = monotonicMs
    const aheadMs = this.source.wallMs() - (monotonicMs + this.offsetMs)
    if (aheadMs >= 0) this.offsetMs += aheadMs
    else this.offsetMs -= Math.min(-aheadMs, passedMs / 2)
    return Math.abs(aheadMs) > STEP_MS ? aheadMs : 0
  }
}
