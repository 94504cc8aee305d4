import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import type { Finding } from '../../src/quality/finding.ts'
import { InstrumentJudge } from '../../src/quality/instrument.ts'
import { recvUsOf } from '../../src/vault/streams.ts'
import type { SunkLine } from '../helpers/driver.ts'

/** One hour file of an instrument: its lines without their ends. */
export interface HourLines {
  readonly feed: string
  readonly file: string
  readonly hour: number
  lines: string[]
}

/** Options of the judge that the tests set. */
export interface JudgeSetting {
  readonly exchange: string
  readonly name: string
  readonly endUs?: number
  readonly cadenceMs?: number
  readonly ticks?: readonly number[]
}

interface Entry {
  readonly key: number
  readonly rank: number
  readonly at: number
  readonly line: number
  readonly text: string
  readonly hour: HourLines
}

/** Status, events, trades, snapshots. */
function rankOf(feed: string): number {
  const rank = ['status', 'l3_events', 'l2_updates', 'trades'].indexOf(feed)
  return rank < 0 ? 4 : rank
}

/** The lines of all files as they are merged for a judge. */
export function merged(files: readonly HourLines[]): Entry[] {
  const entries: Entry[] = []
  let at = 0
  for (const feed of new Set(files.map(file => file.feed))) {
    const own: Omit<Entry, 'key'>[] = []
    for (const hour of files.filter(file => file.feed === feed)) {
      for (const [n, text] of hour.lines.entries()) own.push({ rank: rankOf(feed), at: at++, line: n + 1, text, hour })
    }
    let key = Number.NEGATIVE_INFINITY
    for (const [n, entry] of own.entries()) {
      const own_ = recvUsOf(entry.text)
      const next = n + 1 < own.length ? recvUsOf(own[n + 1]!.text) : Number.NaN
      const us = Number.isNaN(own_) ? key : next < own_ ? next : own_
      key = Math.max(key, us)
      entries.push({ ...entry, key })
    }
  }
  return entries.sort((a, b) => a.key - b.key || a.rank - b.rank || a.at - b.at)
}

/** What a judge finds in the files of one instrument. */
export function judge(files: readonly HourLines[], setting: JudgeSetting): Finding[] {
  const findings: Finding[] = []
  const { exchange, name, cadenceMs, ticks = [] } = setting
  const lines = merged(files)
  const endUs = setting.endUs ?? lines.at(-1)?.key ?? 0
  const report = (finding: Finding): void => void findings.push(finding)
  const subject = new InstrumentJudge({ exchange, name, cadenceMs, endUs, report })
  const started = new Map<string, HourLines>()
  let tick = 0
  for (const { hour, line, text, key } of lines) {
    while (tick < ticks.length && ticks[tick]! <= key) subject.tick(ticks[tick++]!)
    const { feed, file } = hour
    if (started.get(feed) !== hour) subject.startFile(feed, file, hour.hour)
    started.set(feed, hour)
    subject.take(feed, file, line, text)
  }
  subject.finish()
  return findings
}

/** The files that an engine would have written: a file for each feed and hour. */
export function filesOf(lines: readonly SunkLine[], exchange: string, name: string): HourLines[] {
  const files = new Map<string, HourLines>()
  for (const line of lines) {
    if (line.name !== name) continue
    const hour = hourOf(line.us)
    const path = new Date((hour * HOUR_US) / 1000).toISOString().slice(0, 13).replace('T', '/')
    const file = `raw/${exchange}/${line.feed}/${name}/${path}.jsonl`
    const known = files.get(file) ?? { feed: line.feed, file, hour, lines: [] }
    known.lines.push(line.text.slice(0, -1))
    files.set(file, known)
  }
  return [...files.values()].sort((a, b) => (a.file < b.file ? -1 : 1))
}

/** All instruments of a vault on disk. */
export function instrumentsOf(vault: string): { exchange: string; name: string; files: HourLines[] }[] {
  const found = new Map<string, { exchange: string; name: string; files: HourLines[] }>()
  const paths = readdirSync(join(vault, 'raw'), { recursive: true, encoding: 'utf8' }).sort()
  for (const path of paths) {
    const match = /^([^/]+)\/([^/]+)\/([^/]+)\/([^/]+)\/(\d\d)\.jsonl(\.gz)?$/.exec(path)
    if (!match || match[2] === 'frames' || !statSync(join(vault, 'raw', path)).isFile()) continue
    const [, exchange, feed, name, date, clock, gz] = match
    const known = found.get(`${exchange}/${name}`) ?? { exchange: exchange!, name: name!, files: [] }
    found.set(`${exchange}/${name}`, known)
    const bytes = readFileSync(join(vault, 'raw', path))
    const lines = (gz ? gunzipSync(bytes) : bytes).toString().split('\n')
    const hour = Date.parse(`${date}T${clock}:00:00Z`) / 3_600_000
    known.files.push({ feed: feed!, file: `raw/${path}`, hour, lines: lines.slice(0, -1) })
  }
  return [...found.values()]
}
