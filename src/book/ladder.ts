/** What a ladder sorts: anything with a price key. */
export interface Rung {
  /** Larger is better: the price for bids, its negative for asks. */
  readonly key: number
}

/**
 * One side of a book: rungs sorted so that the best is the last. Most changes happen near the best price, so inserting
 * and removing there moves next to nothing.
 */
export class Ladder<T extends Rung> {
  readonly rungs: T[] = []

  /** The place of a key, or `-(place where it belongs) - 1` when it is not there. */
  find(key: number): number {
    const rungs = this.rungs
    let low = 0
    let high = rungs.length - 1
    // Galloping from the best end finds near prices in a few steps, whatever the depth.
    let step = 1
    while (high - step > 0 && rungs[high - step]!.key >= key) step *= 2
    low = Math.max(0, high - step)
    while (low <= high) {
      const middle = (low + high) >>> 1
      const there = rungs[middle]!.key
      if (there === key) return middle
      if (there < key) low = middle + 1
      else high = middle - 1
    }
    return -low - 1
  }

  /** Puts a rung at a place. */
  insert(place: number, rung: T): void {
    const rungs = this.rungs
    if (place === rungs.length) rungs.push(rung)
    else rungs.splice(place, 0, rung)
  }

  /** Takes the rung at a place away. */
  remove(place: number): void {
    if (place === this.rungs.length - 1) this.rungs.pop()
    else this.rungs.splice(place, 1)
  }

  /** The best rung; undefined when the side is empty. */
  best(): T | undefined {
    return this.rungs[this.rungs.length - 1]
  }

  /** Removes everything. */
  clear(): void {
    this.rungs.length = 0
  }
}
