/** When recorded moments are due again. Pure: the clock is an argument. */
export class Tempo {
  private readonly speed: number
  private readonly idleUsMax: number
  private readonly fromUs: number
  private anchorUs = Number.NaN
  private anchorMs = 0
  /** The latest moment that was asked for. */
  private lastUs = 0

  /**
   * `speed`: recorded seconds for each second, infinite for no waiting. What lies before `fromUs` is due at once. Pauses longer
   * than `idleUsMax` become as long as that.
   */
  constructor(speed: number, fromUs = Number.NEGATIVE_INFINITY, idleUsMax = Number.POSITIVE_INFINITY) {
    this.speed = speed
    this.fromUs = fromUs
    this.idleUsMax = idleUsMax
  }

  /**
   * Milliseconds until a recorded moment (µs) is due, 0 or less when it is. `nowMs` is any steady clock. The first moment asked
   * for is due at once, and all others are counted from it, so that delays do not add up.
   */
  waitMs(us: number, nowMs: number): number {
    if (us < this.fromUs) return 0
    if (Number.isNaN(this.anchorUs)) {
      this.anchorUs = this.lastUs = us
      this.anchorMs = nowMs
    }
    if (us > this.lastUs) {
      this.anchorUs += Math.max(0, us - this.lastUs - this.idleUsMax)
      this.lastUs = us
    }
    return (us - this.anchorUs) / 1000 / this.speed - (nowMs - this.anchorMs)
  }

  /** The last recorded moment that is due, µs: infinite without waiting. */
  dueUs(nowMs: number): number {
    if (this.speed === Number.POSITIVE_INFINITY) return this.speed
    if (Number.isNaN(this.anchorUs)) return this.fromUs
    return this.anchorUs + Math.max(0, nowMs - this.anchorMs) * 1000 * this.speed
  }
}
