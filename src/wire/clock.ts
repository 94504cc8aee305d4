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
 * back is approached by running at half speed, so that hours never come twice and snapshots go on.
 */
export class Clock {
  private readonly source: ClockSource
  private offsetMs: number
  private lastUs: number
  private adjustedMs: number
  /** How far the wall clock was ahead (behind: negative) after the last adjustment. */
  private knownAheadMs = 0

  /** `floorUs`: the last moment that an earlier run has written; this one begins after it. */
  constructor(floorUs = 0, source: ClockSource = SYSTEM) {
    this.source = source
    this.adjustedMs = source.monotonicMs()
    const wallMs = source.wallMs()
    this.offsetMs = Math.max(wallMs, (floorUs + 1) / 1000) - this.adjustedMs
    this.lastUs = floorUs
  }

  /** The moment now, later than every moment given before. */
  now(): number {
    const us = Math.floor((this.source.monotonicMs() + this.offsetMs) * 1000)
    this.lastUs = us > this.lastUs ? us : this.lastUs + 1
    return this.lastUs
  }

  /**
   * Compares with the wall clock, now and then. Milliseconds by which it was set since the last time (positive: forward),
   * 0 when it was not.
   */
  adjust(): number {
    const monotonicMs = this.source.monotonicMs()
    const passedMs = monotonicMs - this.adjustedMs
    this.adjustedMs = monotonicMs
    const aheadMs = this.source.wallMs() - (monotonicMs + this.offsetMs)
    const steppedMs = aheadMs - this.knownAheadMs
    if (aheadMs >= 0) this.offsetMs += aheadMs
    else this.offsetMs -= Math.min(-aheadMs, passedMs / 2)
    this.knownAheadMs = aheadMs >= 0 ? 0 : aheadMs + Math.min(-aheadMs, passedMs / 2)
    return Math.abs(steppedMs) > STEP_MS ? steppedMs : 0
  }
}
