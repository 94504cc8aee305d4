/** Whether each trade is written once. */

import { isZero } from '../core/decimal.ts'
import { detached } from '../core/json.ts'
import type { TradeLine } from './lines.ts'
import type { Cursor, Reporter } from './report.ts'

/** The capture itself remembers no more of an hour. */
const IDS_MAX = 500_000
const START_LENGTH = 1024

/** The ids of one hour: those that rise in a row of eight bytes each, the others apart. */
class HourIds {
  private row = new Float64Array(START_LENGTH)
  private length = 0
  private readonly others = new Set<string>()

  get count(): number {
    return this.length + this.others.size
  }

  has(id: string, value: number): boolean {
    if (this.others.has(id)) return true
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.row[middle]! < value) low = middle + 1
      else high = middle
    }
    return low < this.length && this.row[low] === value
  }

  add(id: string, value: number): void {
    if (!(value > (this.row[this.length - 1] ?? -1))) {
      this.others.add(detached(id))
      return
    }
    if (this.length === this.row.length) {
      const longer = new Float64Array(2 * this.length)
      longer.set(this.row)
      this.row = longer
    }
    this.row[this.length++] = value
  }
}

/** Judges the trades of one instrument. */
export class TradeJudge {
  private readonly reporter: Reporter
  private hour = Number.NaN
  private ids = new HourIds()
  private before = new HourIds()

  constructor(reporter: Reporter) {
    this.reporter = reporter
  }

  /** Takes the next trade. */
  take(line: TradeLine, cursor: Cursor): void {
    if (cursor.hour !== this.hour) {
      this.before = cursor.hour === this.hour + 1 ? this.ids : new HourIds()
      this.ids = new HourIds()
      this.hour = cursor.hour
    }
    const { id, price, size } = line
    const number = Number(id)
    // Only a number that can be written back in one way stands for its text.
    const value = Number.isSafeInteger(number) && String(number) === id ? number : Number.NaN
    if (this.ids.has(id, value) || this.before.has(id, value))
      this.reporter.tell('duplicate_trade', cursor.here, `trade ${id} was written before`)
    else if (this.ids.count < IDS_MAX) this.ids.add(id, value)
    if (isZero(price) || isZero(size))
      this.reporter.tell('wrong_trade', cursor.here, `trade ${id} is of ${price} x ${size}`)
  }
}
