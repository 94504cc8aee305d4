import { expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import { judgeRuns, type RunMark, type Session } from '../../src/quality/runs.ts'

const US = 495_000 * HOUR_US

function session(run: string, second: number, more: Partial<Session> = {}): Session {
  const place = { file: 'frames', line: 90 }
  const fromUs = US + second * 1_000_000
  return { exchange: 'okx', name: 'okx-1', names: ['A'], run, fromUs, isFirst: true, isClosed: true, ...place, ...more }
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
