import { expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import type { Finding } from '../../src/quality/finding.ts'
import { judgePlaces, type PlacedFile } from '../../src/quality/place.ts'

const NOW = 495_000
const NOW_US = NOW * HOUR_US + 60_000_000

/** A file of so many hours ago, as a vault has it. */
function file(feed: string, ago: number, more: Partial<PlacedFile> = {}): PlacedFile {
  const hour = NOW - ago
  const text = new Date(hour * 3_600_000).toISOString()
  const { kind = 'jsonl', exchange = 'okx', name = feed === 'frames' ? 'okx-1' : 'BTC-USDT', bytes = 10 } = more
  const ending = { jsonl: '', gz: '.gz', torn: '.torn', tmp: '.gz.tmp' }[kind]
  const path = `raw/${exchange}/${feed}/${name}/${text.slice(0, 10)}/${text.slice(11, 13)}.jsonl${ending}`
  return { exchange, feed, name, hour, kind, bytes, file: path }
}

function judged(
  files: readonly PlacedFile[],
  foreign: readonly string[] = [],
  isOpen = false,
  isRetaining = false
): Finding[] {
  const findings: Finding[] = []
  const report = (finding: Finding) => findings.push(finding)
  const range = { fromUs: Number.NEGATIVE_INFINITY, toUs: Number.POSITIVE_INFINITY }
  judgePlaces(files, foreign, { nowUs: NOW_US, ...range, isRetaining, isOpen: () => isOpen, report })
  return findings
}

const told = (findings: readonly Finding[]) => findings.map(({ severity, rule, file }) => `${severity} ${rule} ${file}`)

const clean = (ago: number, kind: 'jsonl' | 'gz' = 'jsonl') =>
  ['frames', 'l2_updates', 'l2_spot', 'trades', 'status'].map(feed => file(feed, ago, { kind }))

it('finds nothing in a vault whose hours are compressed in time', () => {
  expect(judged([...clean(30, 'gz'), ...clean(7, 'gz'), ...clean(6), ...clean(1), ...clean(0)])).toEqual([])
})

it('names hours that are due, each stream once', () => {
  const late = [file('trades', 10), file('trades', 11), file('frames', 9), file('frames', 24 * 6 + 3, { kind: 'gz' })]
  expect(told(judged([...late, ...clean(0)]))).toEqual([
    `warning retention_due ${file('trades', 11).file}`,
    `warning retention_due ${file('frames', 24 * 6 + 3, { kind: 'gz' }).file}`
  ])
})

it('says once of a vault that nobody writes any more that it is old', () => {
  const old = [...clean(2000), ...clean(1999)]
  expect(told(judged(old))).toEqual(['warning retention_due '])
})

it.each([
  ['tmp', 'warning leftover'],
  ['torn', 'info torn_file']
] as const)('names a %s file', (kind, what) => {
  const odd = file('trades', 0, { kind })
  expect(told(judged([...clean(0), odd]))).toEqual([`${what} ${odd.file}`])
})

it('leaves the temporary files of a running retention alone', () => {
  expect(judged([...clean(0), file('trades', 7, { kind: 'tmp' })], [], false, true)).toEqual([])
})

it('names empty files, unless they are about to be written', () => {
  const empty = file('trades', 0, { bytes: 0 })
  expect(told(judged([empty]))).toEqual([`warning empty_file ${empty.file}`])
  expect(judged([empty], [], true)).toEqual([])
})

it('names hours that have not begun', () => {
  expect(told(judged([file('trades', -2)]))).toEqual([`error future_hour ${file('trades', -2).file}`])
})

it('names the events that snapshots tell of, once', () => {
  const files = clean(1).filter(({ feed }) => feed !== 'l2_updates')
  const both = [...files, file('l2_spot', 1, { kind: 'gz' })]
  expect(told(judged([...both, ...clean(0)]))).toEqual([`error missing_feed ${file('l2_updates', 1).file}`])
})

it('names an hour of frames that stands between two others', () => {
  const files = [...clean(2), ...clean(1).filter(({ feed }) => feed !== 'frames'), ...clean(0)]
  expect(told(judged(files))).toEqual([`warning missing_feed ${file('frames', 1).file}`])
})

it('names what is none of its files', () => {
  expect(told(judged(clean(0), ['raw/okx/trades/notes.txt']))).toEqual(['info foreign_file raw/okx/trades/notes.txt'])
})
