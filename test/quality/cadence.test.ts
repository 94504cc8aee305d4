import { expect, it } from 'vitest'
import { SlotJudge } from '../../src/quality/cadence.ts'
import type { Finding } from '../../src/quality/finding.ts'
import { Reporter } from '../../src/quality/report.ts'

const SECOND_US = 1_000_000
const START_US = 1_795_000_000 * SECOND_US

/** What is found where snapshots were taken at these seconds, and data came at others. */
function judged(shots: readonly number[], data: readonly number[], cadenceMs?: number): string[] {
  const found: Finding[] = []
  const reporter = new Reporter('okx', 'A', finding => found.push(finding))
  const slots = new SlotJudge(reporter, cadenceMs)
  const all = [...data.map(at => ({ at, isShot: false })), ...shots.map(at => ({ at, isShot: true }))]
  slots.live(START_US)
  for (const { at, isShot } of all.sort((a, b) => a.at - b.at)) {
    const us = START_US + at * SECOND_US
    if (isShot) slots.shot(us, { feed: 'l2_spot', file: 'f', line: at, us })
    else slots.seen(us)
  }
  slots.restart()
  reporter.settle(Number.POSITIVE_INFINITY)
  return found.map(({ rule, line }) => `${rule} ${line}`)
}

const range = (from: number, to: number, step: number) =>
  Array.from({ length: Math.round((to - from) / step) }, (_, n) => from + n * step)

it('misses a snapshot while data come in', () => {
  expect(judged([2, 4, 8, 10], range(0.1, 12, 0.1), 2000)).toEqual(['missing_slot 8'])
})

it('expects none while a process that stood still hears what has come meanwhile', () => {
  const data = [...range(0.1, 4.5, 0.1), ...range(9.7, 14, 0.1)]
  expect(judged([2, 4, 12, 14], data, 2000)).toEqual(['late_tick 12'])
})

it('infers no cadence from a few snapshots with a gap between them', () => {
  expect(judged([2, 4, 12], range(0.1, 12, 0.1))).toEqual([])
  expect(judged([2, 10, 12], range(0.1, 12, 0.1))).toEqual([])
})
