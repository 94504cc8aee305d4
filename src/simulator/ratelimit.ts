/** Lets at most so many things happen within any window of time. */
export class RateLimit {
  private readonly max: number
  private readonly windowMs: number
  /** When the latest things happened, milliseconds since the epoch, oldest first. */
  private times: number[] = []

  constructor(max: number, windowMs: number) {
    this.max = max
    this.windowMs = windowMs
  }

  /** True if one more may happen now, which then counts; one that may not does not count. */
  admits(nowMs: number): boolean {
    this.times = this.times.filter(atMs => atMs > nowMs - this.windowMs)
    if (this.times.length >= this.max) return false
    this.times.push(nowMs)
    return true
  }
}
