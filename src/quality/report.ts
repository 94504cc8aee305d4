/** How the judges of one instrument tell what they find. */
import type { Finding, RuleId } from './finding.ts'
import { RULES } from './finding.ts'

/** Where a line stands. `us`: its receive time, µs; null where it has none. */
export interface Place {
  readonly feed: string
  readonly file: string
  readonly line: number | null
  readonly us: number | null
}

/** A finding that is not told yet. */
export interface Doubt {
  /** It has turned out that nothing is wrong. */
  drop(): void
}

interface Pending {
  readonly us: number
  readonly finding: Finding
  isDropped: boolean
}

/** What a kill or a power cut may have left unwritten in one feed and not in another, µs: two syncs. */
export const SETTLED_US = 2_000_000

/**
 * Tells findings of one instrument. What one feed lacks of another is told only when the capture has gone on for a while: a
 * process that was killed may have written the one and not the other.
 */
export class Reporter {
  private readonly exchange: string
  private readonly name: string
  private readonly report: (finding: Finding) => void
  private pending: Pending[] = []
  private nextUs = Number.POSITIVE_INFINITY

  constructor(exchange: string, name: string, report: (finding: Finding) => void) {
    this.exchange = exchange
    this.name = name
    this.report = report
  }

  private make(rule: RuleId, place: Place, message: string): Finding {
    const { exchange, name } = this
    const { feed, file, line, us } = place
    return { rule, severity: RULES[rule].severity, exchange, name, feed, file, line, us, message }
  }

  /** Tells a finding. */
  tell(rule: RuleId, place: Place, message: string): void {
    this.report(this.make(rule, place, message))
  }

  /** Tells a finding about a moment (µs) later, unless it is dropped before, or the process turns out to have died there. */
  tellLater(us: number, rule: RuleId, place: Place, message: string): Doubt {
    const pending: Pending = { us, finding: this.make(rule, place, message), isDropped: false }
    this.pending.push(pending)
    this.nextUs = Math.min(this.nextUs, us)
    return {
      drop: () => {
        pending.isDropped = true
      }
    }
  }

  /** Time has come to this moment, µs. */
  settle(us: number): void {
    if (us <= this.nextUs + SETTLED_US) return
    const due = this.pending.filter(pending => us > pending.us + SETTLED_US)
    this.pending = this.pending.filter(pending => us <= pending.us + SETTLED_US)
    this.nextUs = Math.min(...this.pending.map(pending => pending.us))
    for (const { finding, isDropped } of due) if (!isDropped) this.report(finding)
  }

  /** The process ended without a word: what it was about to write is no fault. */
  forgive(): void {
    this.pending = []
    this.nextUs = Number.POSITIVE_INFINITY
  }
}

/** The line at hand of one feed. */
export class Cursor {
  readonly feed: string
  file = ''
  hour = Number.NaN
  line = 0
  us: number | null = null
  /** The first of the lines that have the time of the one at hand. */
  since = 1
  /** Whether it is the second file of its hour, behind the compressed one. */
  isSecond = false

  constructor(feed: string) {
    this.feed = feed
  }

  /** Goes to the start of a file. */
  start(file: string, hour: number): void {
    this.isSecond = hour === this.hour
    this.file = file
    this.hour = hour
    this.line = 0
  }

  /** Where the line at hand stands. */
  get here(): Place {
    const { feed, file, line, us } = this
    return { feed, file, line, us }
  }

  /** Where a line of a moment (µs) is missing: before those of that moment, else behind the one at hand. */
  gapAt(us: number): Place {
    return this.us === us ? { ...this.here, line: this.since } : this.next
  }

  /** Where a line is missing that should follow the one at hand. */
  get next(): Place {
    const { feed, file, line, us } = this
    return { feed, file, line: line + 1, us }
  }
}
