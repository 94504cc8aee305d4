/** What the status records of an instrument say about when its book was live. */

/** A stretch of time in one state, from `fromUs` up to, not including, `toUs`, µs. */
export interface Span {
  readonly fromUs: number
  readonly toUs: number
  /** `off`: no process captured it. `waiting`: one did, without a book. `live`: snapshots were due. */
  readonly state: 'off' | 'waiting' | 'live'
  /**
   * Of `off`: `stopped`, or `killed` where a process ended without a word. Of `waiting`: the cause of the gap, `start`,
   * `refused`, or `unknown` where its begin is not in the records. Of `live`: empty.
   */
  readonly cause: string
}

/**
 * Reads the status records of one instrument in order. What comes before the first record that tells a state is `unknown`:
 * retention may have deleted the hour of `started` while the capture went on.
 */
export class Timeline {
  private state_: 'unknown' | Span['state'] = 'unknown'
  private sinceUs_ = Number.NaN
  private cause_ = ''
  private lastUs = Number.NEGATIVE_INFINITY

  get state(): 'unknown' | Span['state'] {
    return this.state_
  }

  /** Since when the state holds, µs; NaN while it is unknown. */
  get sinceUs(): number {
    return this.sinceUs_
  }

  /** As `Span.cause`. */
  get cause(): string {
    return this.cause_
  }

  /** Tells that something of the instrument was written at a moment, µs: after a kill the last one is when it ended. */
  seen(us: number): void {
    if (us > this.lastUs) this.lastUs = us
  }

  /**
   * Takes one status record: its receive time in µs, `event` and `detail`. Gives the spans that it ended, in order: none or
   * one, and two where a process died without a word (what it was in, and `off`).
   */
  take(us: number, event: string, detail: Readonly<Record<string, unknown>>): Span[] {
    const ended = this.change(us, event, detail)
    this.seen(us)
    return ended
  }

  private change(us: number, event: string, detail: Readonly<Record<string, unknown>>): Span[] {
    const { state_: state } = this
    if (event === 'started') {
      // Something was written, and nothing said that it ended.
      const hasDied = state !== 'off' && this.lastUs > Number.NEGATIVE_INFINITY
      const died = hasDied ? this.turn(Math.min(this.lastUs, us), 'off', 'killed') : []
      return [...died, ...this.turn(us, 'waiting', 'start')]
    }
    if (event === 'stopped') return this.turn(us, 'off', 'stopped')
    if (event === 'synced') {
      if (state === 'unknown') this.recall(us, detail)
      // A planned change of connection, and any image that is not the end of a gap.
      return this.state_ === 'live' ? [] : this.turn(us, 'live', '')
    }
    // Trades that are missing are no loss of the book.
    if (event === 'gap' && detail.channel !== 'trades') {
      if (state === 'waiting' || state === 'off') return []
      return this.turn(us, 'waiting', String(detail.cause ?? detail.reason ?? 'unknown'))
    }
    // Who was refused at the start does not wait for a slow exchange.
    if (event === 'refused' && detail.channel === 'book' && this.cause_ === 'start') this.cause_ = 'refused'
    return []
  }

  /** What a first `synced` tells about the time before it. */
  private recall(us: number, detail: Readonly<Record<string, unknown>>): void {
    if (typeof detail.down_ms !== 'number') return
    this.state_ = 'waiting'
    this.sinceUs_ = us - detail.down_ms * 1000
    this.cause_ = 'unknown'
  }

  private turn(us: number, state: Span['state'], cause: string): Span[] {
    const ended = this.until(us)
    this.state_ = state
    this.sinceUs_ = us
    this.cause_ = cause
    return ended === undefined ? [] : [ended]
  }

  /** The span that is not over, as far as a moment (µs); undefined while the state is unknown, and where it has no length. */
  until(us: number): Span | undefined {
    if (this.state_ === 'unknown' || us <= this.sinceUs_) return undefined
    return { fromUs: this.sinceUs_, toUs: us, state: this.state_, cause: this.cause_ }
  }
}
