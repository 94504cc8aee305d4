import { expect, it } from 'vitest'
import { Clock } from '../../src/wire/clock.ts'

const SECOND = 1000
const HOUR = 3_600_000

/** Two clocks of a machine whose wall clock is set by hand. */
class Machine {
  monotonic = 5000
  ahead = Date.UTC(2026, 10, 20, 10)

  wallMs(): number {
    return this.monotonic + this.ahead
  }

  monotonicMs(): number {
    return this.monotonic
  }

  /** Lets seconds pass; the clock is read ten times in each and adjusted once. Gives the steps that were noticed. */
  run(clock: Clock, seconds: number): number[] {
    const steps: number[] = []
    let last = clock.now()
    for (let tenth = 0; tenth < seconds * 10; tenth++) {
      this.monotonic += 100
      if (tenth % 10 === 9) steps.push(clock.adjust())
      const now = clock.now()
      expect(now).toBeGreaterThan(last)
      last = now
    }
    return steps.filter(step => step !== 0)
  }

  /** How far the clock is from the wall clock, ms. */
  error(clock: Clock): number {
    return clock.now() / 1000 - this.wallMs()
  }
}

it('follows the wall clock, in whole microseconds', () => {
  const machine = new Machine()
  const clock = new Clock(0, machine)
  expect(machine.run(clock, 60)).toEqual([])
  expect(Math.abs(machine.error(clock))).toBeLessThan(0.01)
  expect(Number.isSafeInteger(clock.now())).toBe(true)
})

it('gives a new moment every time, also when no time passes', () => {
  const clock = new Clock(0, new Machine())
  const moments = Array.from({ length: 1000 }, () => clock.now())
  expect(new Set(moments).size).toBe(1000)
  expect(moments).toEqual([...moments].sort((a, b) => a - b))
})

it.each([SECOND, HOUR])('a wall clock that is set forward by %i ms is followed at once, and told once', step => {
  const machine = new Machine()
  const clock = new Clock(0, machine)
  machine.run(clock, 5)
  machine.ahead += step
  const steps = machine.run(clock, 5)
  expect(steps).toHaveLength(1)
  expect(steps[0]).toBeCloseTo(step, 0)
  expect(Math.abs(machine.error(clock))).toBeLessThan(0.01)
})

it.each([
  [SECOND, 3],
  [HOUR, 7201]
])('a wall clock that is set back by %i ms is approached, never followed backwards', (step, seconds) => {
  const machine = new Machine()
  const clock = new Clock(0, machine)
  machine.run(clock, 5)
  machine.ahead -= step
  expect(machine.error(clock)).toBeCloseTo(step, 0)
  // Half of the time that passes makes good for the step; meanwhile the clock goes on.
  for (let second = 0; second < 3; second++) {
    const before = clock.now()
    machine.run(clock, 1)
    expect(clock.now() - before).toBeGreaterThan(400_000)
  }
  machine.run(clock, seconds)
  expect(Math.abs(machine.error(clock))).toBeLessThan(1)
})

it('a slow drift is followed without a word', () => {
  const machine = new Machine()
  const clock = new Clock(0, machine)
  for (let n = 0; n < 100; n++) {
    machine.ahead += n % 2 === 0 ? 0.05 : -0.04
    expect(machine.run(clock, 1)).toEqual([])
    expect(Math.abs(machine.error(clock))).toBeLessThan(1)
  }
})

it('begins after the last moment that an earlier run has written', () => {
  const machine = new Machine()
  const floorUs = (machine.wallMs() + 10_000) * 1000
  const clock = new Clock(floorUs, machine)
  expect(clock.now()).toBeGreaterThan(floorUs)
  machine.run(clock, 30)
  expect(Math.abs(machine.error(clock))).toBeLessThan(1)
})
