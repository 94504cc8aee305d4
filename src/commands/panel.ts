import { cursorTo, moveCursor } from 'node:readline'
import { difference } from '../core/decimal.ts'
import { printable } from '../core/printable.ts'
import type { Capture } from './capture.ts'
import type { InstrumentHealth } from './health.ts'
import type { Vitals } from './vitals.ts'

/** The panel on a terminal: a line per instrument, drawn over the last ones. */
export class Panel {
  private readonly capture: Capture
  private readonly vitals: Vitals
  private readonly before = new Map<string, number>()
  private drawn = 0

  constructor(capture: Capture, vitals: Vitals) {
    this.capture = capture
    this.vitals = vitals
  }

  /** A log line comes: the next panel stands below it. */
  makeRoom(): void {
    this.drawn = 0
  }

  /** Draws it as things are now. */
  draw(): void {
    const depths = this.depths()
    const rows = this.vitals.all().flatMap(({ instruments, time_utc }) =>
      instruments.map(instrument => {
        const depth = depths.get(`${instrument.exchange} ${instrument.instId}`) ?? '-'
        return this.row(instrument, depth, Date.parse(time_utc))
      })
    )
    const width = process.stdout.columns || 120
    if (this.drawn > 0) moveCursor(process.stdout, 0, -this.drawn)
    cursorTo(process.stdout, 0)
    // Each row ends by clearing the rest of its line, so that longer rows of before leave nothing behind.
    process.stdout.write(rows.map(row => `${printable(row).slice(0, width - 1)}\u001b[K\n`).join(''))
    this.drawn = rows.length
  }

  private row(r: InstrumentHealth, depth: string, nowMs: number): string {
    const key = `${r.exchange} ${r.instId}`
    const rate = r.events - (this.before.get(key) ?? 0)
    this.before.set(key, r.events)
    const spread = r.best_bid !== null && r.best_ask !== null ? difference(r.best_ask, r.best_bid) : '-'
    const { last_snapshot_utc: shot } = r
    const age = shot === null ? '-' : `${((nowMs - Date.parse(shot)) / 1000).toFixed(1)}s`
    return (
      `${key.padEnd(24)} ${r.state.padEnd(7)} ${r.best_bid ?? '-'} / ${r.best_ask ?? '-'}  spread ${spread}  ` +
      `depth ${depth}  ${rate} ev/s  gaps ${r.gaps}  snapshot ${age} ago  ${(r.bytes / 1e6).toFixed(1)} MB`
    )
  }

  /** Levels of each side of the live books. */
  private depths(): Map<string, string> {
    const found = new Map<string, string>()
    for (const { instrument, primary } of this.capture.lines.flatMap(line => line.subjects)) {
      if (!primary?.live) continue
      const book = instrument.level === 'l3' ? primary.orders : primary.levels
      found.set(`${instrument.exchange} ${instrument.instId}`, `${book.count(false)}/${book.count(true)}`)
    }
    return found
  }
}
