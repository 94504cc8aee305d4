import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Ladder } from '../../src/book/ladder.ts'

type Rung = { key: number }

function keysOf(ladder: Ladder<Rung>, max?: number): number[] {
  const keys: number[] = []
  ladder.forEach(({ key }) => void keys.push(key), max)
  return keys
}

/** Inserts what is not there, removes what is. */
function toggle(ladder: Ladder<Rung>, key: number): void {
  if (ladder.seek(key) === undefined) ladder.insert({ key })
  else ladder.remove()
}

it.each([
  ['few', 60, 300],
  ['many: sections are cut in two, and vanish', 3000, 4000]
])('holds what a sorted list would, of %s keys', (_, range, length) => {
  const keys = fc.array(fc.integer({ min: -range, max: range }), { minLength: length / 2, maxLength: length })
  fc.assert(
    fc.property(keys, fc.integer({ min: -range - 9, max: range + 9 }), (toggles, asked) => {
      const ladder = new Ladder<Rung>()
      const oracle = new Set<number>()
      for (const key of toggles) {
        toggle(ladder, key)
        if (!oracle.delete(key)) oracle.add(key)
      }
      const sorted = [...oracle].sort((a, b) => b - a)
      expect(keysOf(ladder)).toEqual(sorted)
      expect(keysOf(ladder, 7)).toEqual(sorted.slice(0, 7))
      expect(ladder.count).toBe(sorted.length)
      expect(ladder.best()?.key).toBe(sorted[0])
      for (const n of [0, 1, 130, sorted.length - 1, sorted.length]) expect(ladder.at(n)?.key).toBe(sorted[n])
      expect(ladder.seek(asked)?.key).toBe(oracle.has(asked) ? asked : undefined)
      for (const key of sorted) expect(ladder.seek(key)?.key).toBe(key)
      for (const key of sorted) toggle(ladder, key)
      expect([ladder.count, ladder.best(), ladder.at(0)]).toEqual([0, undefined, undefined])
      toggle(ladder, asked)
      expect(keysOf(ladder)).toEqual([asked])
      ladder.clear()
      expect(ladder.best()).toBeUndefined()
    }),
    { numRuns: 40 }
  )
})

it('grows from either end', () => {
  for (const direction of [1, -1]) {
    const ladder = new Ladder<Rung>()
    for (let n = 0; n < 1000; n++) toggle(ladder, n * direction)
    expect(keysOf(ladder)).toEqual(Array.from({ length: 1000 }, (_, n) => n * direction).sort((a, b) => b - a))
  }
})
