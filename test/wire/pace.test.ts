import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Pace } from '../../src/wire/pace.ts'

// Sleeping moves the fake clock: minutes pass at once.
const time = vi.hoisted(() => ({ now: 0 }))
vi.mock('node:timers/promises', () => ({
  setTimeout: async (ms: number, _value: unknown, options: { signal: AbortSignal }) => {
    options.signal.throwIfAborted()
    time.now += ms
  }
}))

beforeEach(() => {
  time.now = 1000
  vi.spyOn(performance, 'now').mockImplementation(() => time.now)
})
afterEach(() => vi.restoreAllMocks())

it('lets so many begin at once, and never more within any minute', async () => {
  const pace = new Pace(5)
  const { signal } = new AbortController()
  const begun: number[] = []
  const waits = Array.from({ length: 23 }, async () => {
    await pace.wait(signal)
    begun.push(time.now)
  })
  await Promise.all(waits)
  expect(begun.slice(0, 5)).toEqual(Array(5).fill(1000))
  for (const [at, moment] of begun.entries()) {
    if (at >= 5) expect(moment - begun[at - 5]!).toBeGreaterThanOrEqual(60_000)
  }
  expect(begun.at(-1)).toBe(1000 + 4 * 60_000)
})

it('keeps the distance between two', async () => {
  const pace = new Pace(100, 400)
  const { signal } = new AbortController()
  const begun: number[] = []
  for (let n = 0; n < 5; n++) {
    await pace.wait(signal)
    begun.push(time.now)
  }
  expect(begun).toEqual([1000, 1400, 1800, 2200, 2600])
  time.now += 5000
  await pace.wait(signal)
  expect(time.now).toBe(7600)
})

it('lets at most so much weight begin within any minute', async () => {
  const pace = new Pace(10)
  const { signal } = new AbortController()
  const begun: { at: number; weight: number }[] = []
  for (const weight of [4, 4, 4, 1, 9, 2, 25, 1]) {
    await pace.wait(signal, weight)
    begun.push({ at: time.now, weight: Math.min(weight, 10) })
    time.now += 500
  }
  for (const { at } of begun) {
    const within = begun.filter(other => other.at > at - 60_000 && other.at <= at)
    expect(within.reduce((sum, { weight }) => sum + weight, 0)).toBeLessThanOrEqual(10)
  }
  expect(begun.map(({ at }) => at - 1000)).toEqual([0, 500, 60_000, 60_500, 120_000, 180_000, 240_000, 300_000])
})

it('what comes later begins at once', async () => {
  const pace = new Pace(2)
  const { signal } = new AbortController()
  await pace.wait(signal)
  await pace.wait(signal)
  time.now += 60_000
  const before = time.now
  await pace.wait(signal)
  expect(time.now).toBe(before)
})

it('keeps the order in which they came', async () => {
  const pace = new Pace(1)
  const { signal } = new AbortController()
  const order: number[] = []
  await Promise.all([1, 2, 3, 4].map(n => pace.wait(signal).then(() => order.push(n))))
  expect(order).toEqual([1, 2, 3, 4])
})

it('one that is given up does not hold up the others', async () => {
  const pace = new Pace(1)
  const given = new AbortController()
  const { signal } = new AbortController()
  await pace.wait(signal)
  given.abort()
  const first = pace.wait(given.signal)
  const second = pace.wait(signal)
  await expect(first).rejects.toThrow()
  await expect(second).resolves.toBeUndefined()
})
