/** What the prepared traffic of all exchanges is made with: from a seed, so that every run plays the same frames. */

/** When the traffic begins, milliseconds since the epoch. */
export const START_MS = 1788829784405

/** A small seeded generator of numbers in [0, 1). */
export function seeded(seed) {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 4294967296
  }
}

/** A whole number from 0 on: small ones are likely, `mean` is the mean. */
export function near(random, mean) {
  return Math.floor(-Math.log(1 - random()) * mean)
}

/** A whole number from 1 on with a long tail: half of them are at most `middle`, none is above `most`. */
export function skewed(random, middle, spread, most) {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  return Math.max(1, Math.min(most, Math.round(middle * Math.exp(spread * normal))))
}

/** A size with so many decimals, never zero: mostly small, some large. */
export function sizeText(random, decimals) {
  const unit = 10 ** -decimals
  return Math.max(unit, random() ** 4 * 3 + unit).toFixed(decimals)
}

/** ISO 8601 of microseconds since the epoch. */
export function isoMicros(us) {
  const ms = Math.floor(us / 1000)
  return `${new Date(ms).toISOString().slice(0, -1)}${String(us - ms * 1000).padStart(3, '0')}Z`
}

/** JSON text of a list of levels `["price","size"]`. */
export function pairs(rows) {
  return `[${rows.map(([price, size]) => `["${price}","${size}"]`).join()}]`
}

/**
 * One side of a small true book: values by place, which is the distance from the middle in ticks, so that the best is the
 * smallest. It keeps its number of levels between `least` and `most`.
 */
export class Side {
  places = []
  values = new Map()

  /** `make(random)` gives the value of a level. `reach`: changes hit so many of the best levels on average. */
  constructor({ random, least, most, reach, make }) {
    this.settings = { random, least, most, reach, make }
    let place = near(random, 2)
    while (this.places.length < (least + most) / 2) {
      this.set(place, make(random))
      // The farther from the middle the farther apart.
      place += 1 + near(random, 2 + this.places.length / 200)
    }
  }

  get length() {
    return this.places.length
  }

  /** Where a place stands among those that are there: the number of better ones. */
  rank(place) {
    let low = 0
    let high = this.places.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.places[middle] < place) low = middle + 1
      else high = middle
    }
    return low
  }

  set(place, value) {
    if (!this.values.has(place)) this.places.splice(this.rank(place), 0, place)
    this.values.set(place, value)
  }

  remove(place) {
    if (this.values.delete(place)) this.places.splice(this.rank(place), 1)
  }

  /** A level that is there, near the best one. */
  pick() {
    const { random, reach } = this.settings
    return this.places[Math.min(this.length - 1, near(random, reach))]
  }

  /** A place near the best one where there is no level. */
  free() {
    const { random, reach } = this.settings
    for (;;) {
      const place = near(random, reach * 3)
      if (!this.values.has(place)) return place
    }
  }

  /** Makes a level, removes one, or gives one another value; tells which. */
  change() {
    const { random, least, most, make } = this.settings
    const kind = random()
    const isFull = this.length >= most
    const isNew = this.length <= least || (!isFull && kind < 0.3)
    const place = isNew ? this.free() : this.pick()
    if (!isNew && (isFull || kind < 0.6)) this.remove(place)
    else this.set(place, make(random))
    return place
  }

  /** Changes so many levels; their places, best first, each once. */
  changes(count) {
    return [...new Set(Array.from({ length: count }, () => this.change()))].sort((a, b) => a - b)
  }
}

/** Both sides of such a book. */
export function sides(settings) {
  return { bid: new Side(settings), ask: new Side(settings) }
}

/** The price at a place: ticks from the middle, which lies between bids and asks. */
export function priceText(middle, isAsk, place, decimals) {
  return ((middle + (isAsk ? place + 1 : -place)) / 10 ** decimals).toFixed(decimals)
}
