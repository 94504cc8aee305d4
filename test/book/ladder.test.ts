import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Ladder } from '../../src/book/ladder.ts'

it('finds every key where it is, and every other key where it belongs', () => {
  const keys = fc.uniqueArray(fc.integer({ min: -300, max: 300 }), { maxLength: 200 })
  fc.assert(
    fc.property(keys, fc.integer({ min: -310, max: 310 }), (unsorted, key) => {
      const ladder = new Ladder<{ key: number }>()
      for (const each of unsorted) {
        const place = ladder.find(each)
        expect(place).toBeLessThan(0)
        ladder.insert(-place - 1, { key: each })
      }
      const sorted = [...unsorted].sort((a, b) => a - b)
      expect(ladder.rungs.map(rung => rung.key)).toEqual(sorted)
      expect(ladder.best()?.key).toBe(sorted.at(-1))
      const there = sorted.indexOf(key)
      expect(ladder.find(key)).toBe(there >= 0 ? there : -sorted.filter(each => each < key).length - 1)
      for (const [place, each] of sorted.entries()) expect(ladder.find(each)).toBe(place)
    })
  )
})

it('removes the rung that it is told to, and no other', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer(), { minLength: 1, maxLength: 50 }), fc.nat(), (unsorted, pick) => {
      const ladder = new Ladder<{ key: number }>()
      const sorted = [...unsorted].sort((a, b) => a - b)
      for (const key of sorted) ladder.insert(ladder.rungs.length, { key })
      const place = pick % sorted.length
      ladder.remove(place)
      expect(ladder.rungs.map(rung => rung.key)).toEqual(sorted.filter((_, at) => at !== place))
      ladder.clear()
      expect(ladder.best()).toBeUndefined()
    })
  )
})
