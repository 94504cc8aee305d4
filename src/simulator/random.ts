/** A seeded source of numbers: the same seed gives the same numbers, on every machine. */
export interface Random {
  /** A number from 0 (included) to 1 (excluded). */
  next(): number
  /** A whole number from 0 (included) to `bound` (excluded). */
  integer(bound: number): number
  /** An exponentially distributed number of the given mean, as waiting times and distances are. */
  exponential(mean: number): number
  /** One of the items, which must not be empty. */
  pick<T>(items: readonly T[]): T
}

/** Creates a source from any whole number (mulberry32: 32 bits of state, ample for a made-up market). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
  return {
    next,
    integer: bound => Math.floor(next() * bound),
    exponential: mean => -mean * Math.log(1 - next()),
    pick: items => items[Math.floor(next() * items.length)]!
  }
}

/** A 32-bit hash of a text (FNV-1a), to give every instrument a seed and a price of its own. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return hash >>> 0
}
