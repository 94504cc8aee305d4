import { expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import { type Finding, RULES, type RuleId } from '../../src/quality/finding.ts'
import { settle } from '../../src/quality/settle.ts'

const HOUR = 495_000
const US = HOUR * HOUR_US
const DATE = new Date(HOUR * 3_600_000).toISOString()

/** A finding in a file of the hour, at a second of it. */
function finding(
  rule: RuleId,
  feed: string,
  line: number | null,
  second: number | null,
  more: Partial<Finding> = {}
): Finding {
  const { exchange = 'okx', name = feed === 'frames' ? 'okx-1' : 'A' } = more
  const file = feed === '' ? '' : `raw/${exchange}/${feed}/${name}/${DATE.slice(0, 10)}/${DATE.slice(11, 13)}.jsonl`
  const us = second === null ? null : US + second * 1_000_000
  return { rule, severity: RULES[rule].severity, exchange, name, feed, file, line, us, message: 'x', ...more }
}

const rules = (findings: readonly Finding[], ticks?: Parameters<typeof settle>[1]) =>
  settle(findings, ticks).map(({ rule, line }) => `${rule} ${line}`)

it('orders by severity, file and line', () => {
  const all = [
    finding('killed', 'status', 3, 1),
    finding('bad_json', 'trades', 12, 9),
    finding('bad_json', 'trades', 2, 1),
    finding('torn_file', 'trades', null, null)
  ]
  expect(rules(all)).toEqual(['bad_json 2', 'bad_json 12', 'killed 3', 'torn_file null'])
})

it('tells one thing of a line: the one that says most', () => {
  expect(rules([finding('not_rebuilt', 'l2_spot', 4, 1), finding('wrong_mid', 'l2_spot', 4, 1)])).toEqual([
    'wrong_mid 4'
  ])
  expect(rules([finding('far_exchange_time', 'trades', 4, 1), finding('not_rebuilt', 'trades', 4, 1)])).toEqual([
    'not_rebuilt 4'
  ])
})

it('leaves out what follows from an event that the frames do not give', () => {
  const cause = finding('not_rebuilt', 'l2_updates', 40, 10)
  const effects = [
    finding('book_differs', 'l2_updates', 38, 9),
    finding('snapshot_differs', 'l2_spot', 5, 12),
    finding('hour_image', 'l2_updates', 1, 3599)
  ]
  expect(rules([cause, ...effects])).toEqual(['not_rebuilt 40'])
  // Of another instrument, or of itself, it says nothing.
  expect(rules([cause, finding('book_differs', 'l2_updates', 38, 9, { name: 'B' })])).toHaveLength(2)
  expect(rules([cause, finding('wrong_mid', 'l2_spot', 5, 12)])).toHaveLength(2)
  expect(rules([cause, finding('bad_json', 'l2_updates', 60, 12)])).toHaveLength(2)
  expect(rules([finding('not_rebuilt', 'l2_spot', 3, 10), finding('missing_slot', 'l2_spot', 9, 20)])).toHaveLength(2)
})

it('leaves out what follows from a file that cannot be read', () => {
  const cause = finding('damaged_file', 'l2_updates', 40, null)
  expect(
    rules([cause, finding('not_rebuilt', 'l2_updates', 12, 3), finding('book_differs', 'l2_spot', 5, 12)])
  ).toEqual(['damaged_file 40'])
  expect(rules([cause, finding('duplicate_trade', 'trades', 5, 12)])).toHaveLength(2)
})

it('leaves out what follows from a file that is missing', () => {
  const cause = finding('missing_feed', 'l2_updates', null, null)
  expect(rules([cause, cause, finding('snapshot_differs', 'l2_spot', 5, 12)])).toEqual(['missing_feed null'])
})

it('asks the ticks whether a snapshot could be taken', () => {
  const span = (fromUs: number, toUs: number) => ({
    exchange: 'okx',
    names: ['A'],
    fromUs: US + fromUs * 1e6,
    toUs: US + toUs * 1e6
  })
  const looked = [span(0, 3600)]
  const missing = finding('missing_slot', 'l2_spot', 5, 12)
  expect(rules([missing], { idle: [], looked })).toEqual(['missing_slot 5'])
  expect(rules([missing], { idle: [span(8, 12)], looked })).toEqual(['late_tick 5'])
  expect(rules([missing], { idle: [span(8, 11)], looked })).toEqual(['missing_slot 5'])
  expect(rules([finding('late_tick', 'l2_spot', 5, 12)], { idle: [], looked })).toEqual(['missing_slot 5'])
  // Without frames it is as the instrument's own records say.
  expect(rules([finding('late_tick', 'l2_spot', 5, 12)])).toEqual(['late_tick 5'])
})

it('does not tell of the end of records where a process is dead', () => {
  const unended = finding('unended', 'status', 3, 10)
  expect(rules([finding('dead_capture', '', null, null, { name: '', exchange: '' }), unended])).toEqual([
    'dead_capture null'
  ])
  expect(rules([unended])).toEqual(['unended 3'])
})

it('tells a block of lines that stands twice by its first', () => {
  const twice = (line: number) => finding('not_rebuilt', 'trades', line, line, { message: 'stands twice' })
  const block = [finding('time_back', 'trades', 7, 7), twice(8), finding('duplicate_trade', 'trades', 9, 9)]
  const found = settle([...block, twice(20)])
  expect(found.map(({ rule, line, message }) => `${rule} ${line} ${message}`)).toEqual([
    'time_back 7 x; so with the next 2 lines',
    'not_rebuilt 20 stands twice'
  ])
  // What is missing behind a line, or is wrong in it, is something else.
  expect(rules([twice(8), finding('not_rebuilt', 'trades', 9, 9), finding('bad_json', 'trades', 10, 10)])).toHaveLength(
    3
  )
})

it('leaves out what a line of status that cannot be read seems to lack', () => {
  const missing = finding('not_rebuilt', 'status', 5, 3)
  expect(rules([finding('torn_line', 'status', 4, null), missing])).toEqual(['torn_line 4'])
  expect(rules([finding('torn_line', 'status', 40, null), missing])).toHaveLength(2)
  expect(rules([finding('torn_line', 'trades', 4, null), finding('not_rebuilt', 'trades', 5, 3)])).toHaveLength(2)
})

it('takes lines that are missing behind one that was overwritten for a part of the same', () => {
  const missing = finding('not_rebuilt', 'trades', 5, 3, { message: '12 lines are missing here: x' })
  expect(rules([finding('torn_line', 'trades', 4, null), missing])).toEqual(['torn_line 4'])
  expect(rules([finding('torn_line', 'trades', 3, null), missing])).toHaveLength(2)
  expect(rules([finding('bad_json', 'frames', 4, 1), finding('frame_missing', 'frames', 5, 2)])).toEqual(['bad_json 4'])
})
