/** What a ladder sorts: anything with a price key. */
export interface Rung {
  /** Larger is better: the price for bids, its negative for asks. */
  readonly key: number
}

/** A section that grows beyond this is cut in two: inserting and removing moves no more than so many. */
const SECTION_MAX = 128

/**
 * One side of a book: rungs sorted by key, in sections, the best last. Most changes happen near the best price, where they are
 * found in a few steps; those far from it move only their own section, however deep the book.
 */
export class Ladder<T extends Rung> {
  private sections: T[][] = [[]]
  private size = 0
  // Where `seek` found its key, or where that belongs.
  private section = 0
  private place = 0

  /** Number of rungs. */
  get count(): number {
    return this.size
  }

  /** The rung of a key; undefined when there is none. `insert` and `remove` then work there. */
  seek(key: number): T | undefined {
    const { sections } = this
    let at = sections.length - 1
    if (at > 0 && sections[at]![0]!.key > key) at = this.sectionOf(key, at)
    const rungs = sections[at]!
    let low = 0
    let high = rungs.length - 1
    this.section = at
    while (low <= high) {
      const middle = (low + high) >>> 1
      const rung = rungs[middle]!
      if (rung.key === key) {
        this.place = middle
        return rung
      }
      if (rung.key < key) low = middle + 1
      else high = middle - 1
    }
    this.place = low
    return undefined
  }

  /** The last section that begins at or before a key, below `end`; the first one when none does. */
  private sectionOf(key: number, end: number): number {
    const { sections } = this
    let step = 1
    // Galloping from the best end finds near sections in a few steps.
    while (end - step > 0 && sections[end - step]![0]!.key > key) step *= 2
    let low = Math.max(0, end - step)
    let high = end - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (sections[middle]![0]!.key <= key) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Puts a rung where `seek` has just found none of its key. */
  insert(rung: T): void {
    const rungs = this.sections[this.section]!
    this.size++
    if (this.place === rungs.length) rungs.push(rung)
    else rungs.splice(this.place, 0, rung)
    if (rungs.length > SECTION_MAX) this.sections.splice(this.section + 1, 0, rungs.splice(SECTION_MAX >> 1))
  }

  /** Takes away the rung that `seek` has just found. */
  remove(): void {
    const rungs = this.sections[this.section]!
    this.size--
    if (this.place === rungs.length - 1) rungs.pop()
    else rungs.splice(this.place, 1)
    if (rungs.length === 0 && this.sections.length > 1) this.sections.splice(this.section, 1)
  }

  /** The best rung; undefined when there is none. */
  best(): T | undefined {
    const rungs = this.sections[this.sections.length - 1]!
    return rungs[rungs.length - 1]
  }

  /** The n-th best rung, from 0. */
  at(n: number): T | undefined {
    let left = n
    for (let section = this.sections.length - 1; section >= 0; section--) {
      const rungs = this.sections[section]!
      if (left < rungs.length) return rungs[rungs.length - 1 - left]
      left -= rungs.length
    }
    return undefined
  }

  /** Calls back for the `max` best rungs, best first. */
  forEach(visit: (rung: T) => void, max = Number.POSITIVE_INFINITY): void {
    let left = max
    for (let section = this.sections.length - 1; section >= 0 && left > 0; section--) {
      const rungs = this.sections[section]!
      for (let place = rungs.length - 1; place >= 0 && left > 0; place--, left--) visit(rungs[place]!)
    }
  }

  /** Removes everything. */
  clear(): void {
    this.sections = [[]]
    this.size = 0
  }
}
