/** What `TradeIds.state` gives: ascending ids as differences where they are numbers, the others as they are. */
export interface TradeIdsState {
  numeric: number[]
  other: string[]
}

const GENERATION_MAX = 500_000
/** A quiet market's history reaches back for hours: this many ids are never forgotten. */
const GENERATION_MIN = 1000

/** The trade ids of this and the last hour, and no fewer than the newest thousand, so that a trade is written once. Bounded: the oldest go first. */
export class TradeIds {
  private current = new Set<string>()
  private last = new Set<string>()

  /** Takes an id; false when it is known. */
  add(id: string): boolean {
    if (this.current.has(id) || this.last.has(id)) return false
    if (this.current.size >= GENERATION_MAX) this.rotate()
    this.current.add(id)
    return true
  }

  /** A new hour: what is older than one hour is forgotten, unless it is among the newest thousand. */
  rotate(): void {
    if (this.current.size < GENERATION_MIN) return
    this.last = this.current
    this.current = new Set()
  }

  /** Both generations as plain data, this hour's first. */
  state(): TradeIdsState[] {
    return [this.current, this.last].map(pack)
  }

  /** Takes what `state` gave. */
  restore(state: TradeIdsState[]): void {
    this.current = unpack(state[0])
    this.last = unpack(state[1])
  }
}

function pack(ids: Set<string>): TradeIdsState {
  const numbers: number[] = []
  const other: string[] = []
  for (const id of ids) {
    const value = Number(id)
    if (Number.isSafeInteger(value) && String(value) === id) numbers.push(value)
    else other.push(id)
  }
  numbers.sort((a, b) => a - b)
  return { numeric: numbers.map((value, at) => value - (numbers[at - 1] ?? 0)), other }
}

function unpack(state: TradeIdsState | undefined): Set<string> {
  const ids = new Set<string>(state?.other)
  let value = 0
  for (const step of state?.numeric ?? []) {
    value += step
    ids.add(String(value))
  }
  return ids
}
