/** What `TradeIds.state` gives: ascending ids as differences where they are numbers, the others as they are. */
export interface TradeIdsState {
  numeric: number[]
  other: string[]
}

const GENERATION_MAX = 500_000
/** A quiet market's history reaches back for hours: this many ids are never forgotten. */
const GENERATION_MIN = 1000

const RUN_LENGTH_MIN = 1024

/**
 * The ids of one hour. Most are whole numbers that go up: those stand in a row of eight bytes each, as a busy hour has
 * hundreds of thousands of them.
 */
class Generation {
  private row = new Float64Array(RUN_LENGTH_MIN)
  private length = 0
  /** Numbers that came after larger ones. */
  private readonly late = new Set<number>()
  private readonly other = new Set<string>()

  get size(): number {
    return this.length + this.late.size + this.other.size
  }

  has(id: string, value: number): boolean {
    if (Number.isNaN(value)) return this.other.has(id)
    return this.late.has(value) || this.row[this.place(value)] === value
  }

  /** The id must be new. */
  add(id: string, value: number): void {
    if (Number.isNaN(value)) this.other.add(id)
    else if (this.length > 0 && value < this.row[this.length - 1]!) this.late.add(value)
    else {
      if (this.length === this.row.length) {
        const longer = new Float64Array(this.length * 2)
        longer.set(this.row)
        this.row = longer
      }
      this.row[this.length++] = value
    }
  }

  /** Where the first number stands that is not smaller; beyond the row when there is none. */
  private place(value: number): number {
    let low = 0
    let high = this.length
    // Nearly all are larger than everything before.
    if (high > 0 && value > this.row[high - 1]!) return this.row.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.row[middle]! < value) low = middle + 1
      else high = middle
    }
    return low < this.length ? low : this.row.length
  }

  pack(): TradeIdsState {
    const row = this.row.subarray(0, this.length)
    const numbers = this.late.size === 0 ? row : Float64Array.from([...row, ...this.late]).sort()
    return { numeric: Array.from(numbers, (value, at) => value - (numbers[at - 1] ?? 0)), other: [...this.other] }
  }
}

/** The number that an id is, if its text can be made of it again; else NaN. */
function numberOf(id: string): number {
  const value = Number(id)
  return Number.isSafeInteger(value) && String(value) === id ? value : Number.NaN
}

/** The trade ids of this and the last hour, and no fewer than the newest thousand, so that a trade is written once. Bounded: the oldest go first. */
export class TradeIds {
  private current = new Generation()
  private last = new Generation()

  /** Takes an id; false when it is known. */
  add(id: string): boolean {
    const value = numberOf(id)
    if (this.current.has(id, value) || this.last.has(id, value)) return false
    if (this.current.size >= GENERATION_MAX) this.rotate()
    this.current.add(id, value)
    return true
  }

  /** A new hour: what is older than one hour is forgotten, unless it is among the newest thousand. */
  rotate(): void {
    if (this.current.size < GENERATION_MIN) return
    this.last = this.current
    this.current = new Generation()
  }

  /** Both generations as plain data, this hour's first. */
  state(): TradeIdsState[] {
    return [this.current, this.last].map(generation => generation.pack())
  }

  /** Takes what `state` gave. */
  restore(state: TradeIdsState[]): void {
    this.current = unpack(state[0])
    this.last = unpack(state[1])
  }
}

function unpack(state: TradeIdsState | undefined): Generation {
  const ids = new Generation()
  let value = 0
  for (const step of state?.numeric ?? []) {
    value += step
    ids.add('', value)
  }
  for (const id of state?.other ?? []) ids.add(id, Number.NaN)
  return ids
}
