import type { ExchangeTime } from '../core/time.ts'

/** Samples kept, and the least time between two of them: together a minute. */
const SAMPLES_MAX = 240
const SPACING_US = 250_000
const WINDOW_US = SAMPLES_MAX * SPACING_US

/** Milliseconds that half, and 99 of 100, of the samples do not exceed. */
export interface LagQuantiles {
  readonly p50: number
  readonly p99: number
}

/**
 * How far behind the exchange's own time the events of an instrument come in: receive time minus exchange time over the
 * last minute, in samples. Both clocks go into it, so it may be negative. Nothing is allocated for an event.
 */
export class Lag {
  /** Before this moment (µs) no sample is wanted. */
  dueUs = 0
  /** Receive times (µs) and lags (ms), in a ring; made with the first sample, as many exchanges tell no time. */
  private times: Float64Array | null = null
  private lags = new Float64Array(0)
  private at = 0

  /** Takes a sample of an event received at `us`. Callers ask `dueUs` first. */
  note(us: number, time: NonNullable<ExchangeTime>): void {
    const sentMs = typeof time === 'number' ? time : Date.parse(time)
    if (Number.isNaN(sentMs)) return
    if (this.times === null) {
      this.times = new Float64Array(SAMPLES_MAX)
      this.lags = new Float64Array(SAMPLES_MAX)
    }
    this.dueUs = us + SPACING_US
    this.times[this.at] = us
    this.lags[this.at] = us / 1000 - sentMs
    this.at = (this.at + 1) % SAMPLES_MAX
  }

  /** The quantiles of the minute before `us`, in whole milliseconds; null without a sample. */
  quantiles(us: number): LagQuantiles | null {
    const { times, lags } = this
    if (times === null) return null
    const recent = lags.filter((_, index) => times[index]! > us - WINDOW_US).sort()
    if (recent.length === 0) return null
    const quantile = (share: number) => Math.round(recent[Math.ceil(recent.length * share) - 1]!)
    return { p50: quantile(0.5), p99: quantile(0.99) }
  }
}
