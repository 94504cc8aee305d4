import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { TradeIds } from '../../src/capture/trade-ids.ts'

const ids = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 300 }).map(String) },
  { weight: 1, arbitrary: fc.constantFrom('007', '-3', '1e3', '9007199254740993', 'abc', '', ' 5', '-0', 'NaN') }
)

it('an id is new once, in whatever order ids come, and also after a state was taken over', () => {
  fc.assert(
    fc.property(fc.array(ids, { maxLength: 400 }), fc.nat(400), (list, place) => {
      let known = new TradeIds()
      const seen = new Set<string>()
      for (const [at, id] of list.entries()) {
        if (at === place) {
          const next = new TradeIds()
          next.restore(JSON.parse(JSON.stringify(known.state())) as ReturnType<TradeIds['state']>)
          expect(next.state()).toEqual(known.state())
          known = next
        }
        expect(known.add(id), `${id} at ${at}`).toBe(!seen.has(id))
        seen.add(id)
      }
    })
  )
})

it('two hours are known, what is older is forgotten, but never the newest thousand', () => {
  const known = new TradeIds()
  for (let id = 0; id < 3000; id++) known.add(String(id))
  known.rotate()
  for (let id = 3000; id < 5000; id++) known.add(String(id))
  expect([known.add('10'), known.add('4000')]).toEqual([false, false])
  known.rotate()
  expect([known.add('10'), known.add('4000')]).toEqual([true, false])
  known.rotate()
  expect([known.add('10'), known.add('4000')]).toEqual([false, false])
})

it('a busy hour takes some bytes an id, not a hundred', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const used = () => {
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const known = new TradeIds()
  const before = used()
  for (let id = 0; id < 450_000; id++) known.add(String(1_800_000_000 + id * 3))
  expect(used() - before).toBeLessThan(450_000 * 24)
  expect(known.add('1800000003')).toBe(false)
})
