import { expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import { isUnkept, judgeRuns, type RunMark, type Session } from '../../src/quality/runs.ts'

const US = 495_000 * HOUR_US

function session(run: string, second: number, more: Partial<Session> = {}): Session {
  const place = { file: 'frames', line: 90 }
  const fromUs = US + second * 1_000_000
  const span = { fromUs, toUs: fromUs + 1_000_000, isFirst: true, isClosed: true }
  return { exchange: 'okx', name: 'okx-1', names: ['A'], run, ...span, ...place, ...more }
}

function mark(event: RunMark['event'], run: string, second: number, line: number): RunMark {
  return { event, run, us: US + second * 1_000_000, file: 'status', line }
}

function judged(sessions: readonly Session[], marks: readonly RunMark[]): string[] {
  const found: string[] = []
  judgeRuns(sessions, [{ exchange: 'okx', name: 'A', marks }], ({ rule, name, file, line }) =>
    found.push(`${rule} ${name} ${file}:${line}`)
  )
  return found
}

const WHOLE = [mark('started', 'r', 1, 1), mark('connected', '', 2, 2), mark('stopped', 'r', 9, 5)]

it('finds nothing where both begin and end', () => {
  expect(judged([session('r', 2)], WHOLE)).toEqual([])
  expect(judged([], WHOLE)).toEqual([])
})

it('tells of a process that never started', () => {
  expect(judged([session('r', 2)], WHOLE.slice(1))).toEqual(['missing_status A status:2'])
  const second = [...WHOLE, mark('connected', '', 12, 6)]
  expect(judged([session('r', 2), session('s', 12)], second)).toEqual(['missing_status A status:6'])
})

it('does not ask for a start that lies before what is there', () => {
  expect(judged([session('r', 2, { isFirst: false }), session('r', 5, { name: 'okx-2' })], WHOLE.slice(1))).toEqual([])
  expect(judged([session('r', 2, { names: ['B'] })], WHOLE.slice(1))).toEqual([])
  expect(judged([session('r', -5)], WHOLE.slice(1))).toEqual([])
  expect(judged([session('r', 2)], [])).toEqual([])
})

it('tells of a connection that was not closed, though its process stopped', () => {
  expect(judged([session('r', 2, { isClosed: false })], WHOLE)).toEqual(['frame_missing okx-1 frames:91'])
  const killed = WHOLE.slice(0, 2)
  expect(judged([session('r', 2, { isClosed: false })], killed)).toEqual([])
})

it('goes by the last hour of a connection', () => {
  const first = session('r', 2, { isClosed: false })
  expect(judged([session('r', 5), first], WHOLE)).toEqual([])
  // Whose it is cannot be said.
  expect(judged([first, session('', 5, { isClosed: false, names: [] })], WHOLE)).toEqual([])
})

it('knows of which moments no process kept frames', () => {
  const at = (second: number) => US + second * 1_000_000
  const between = [session('r', 2), session('s', 8)]
  expect([1, 2, 2.5, 3, 5, 8.5, 12].filter(second => isUnkept(between, 'A', at(second)))).toEqual([1, 5, 12])
  // It goes on, it began before what is there, or it was another instrument's.
  expect(isUnkept([session('r', 2, { isClosed: false })], 'A', at(5))).toBe(false)
  expect(isUnkept([session('r', 2, { isFirst: false })], 'A', at(1))).toBe(false)
  expect(isUnkept([session('r', 2, { names: ['B'] })], 'A', at(5))).toBe(false)
  // A flagged snapshot is dated a little later.
  expect(isUnkept(between, 'A', at(3) + 1000)).toBe(false)
})
