/** What can be said of the files of a vault by their names and sizes alone. */
import { HOUR_US, isoMs } from '../core/time.ts'
import { type Finding, RULES, type RuleId } from './finding.ts'

/** One file of an hour. */
export interface PlacedFile {
  /** Relative to the vault, with forward slashes. */
  readonly file: string
  readonly exchange: string
  readonly feed: string
  readonly name: string
  /** Counted from the epoch. */
  readonly hour: number
  readonly kind: 'jsonl' | 'gz' | 'torn' | 'tmp'
  readonly bytes: number
}

/** What else the files are judged by. */
export interface PlaceOptions {
  readonly nowUs: number
  /** Hours outside are not told of. */
  readonly fromUs: number
  readonly toUs: number
  /** Whether a retention works on the vault now: what is temporary may be its own. */
  readonly isRetaining: boolean
  /** Whether a running process may be about to write into a file. */
  readonly isOpen: (file: PlacedFile) => boolean
  readonly report: (finding: Finding) => void
}

/** When retention takes an hour, counted from its end, with its defaults; and how late it may be. */
const COMPRESS_US = 6 * HOUR_US
const COMPRESS_SLACK_US = 2 * HOUR_US
const DELETE_US = 5 * 24 * HOUR_US
const DELETE_SLACK_US = 24 * HOUR_US
/** Clocks may differ by so much. */
const AHEAD_US_MAX = 300_000_000
const FOREIGN_MAX = 100

/** Judges the hour files of a vault, and the paths (relative to it) of what is none. */
export function judgePlaces(files: readonly PlacedFile[], foreign: readonly string[], options: PlaceOptions): void {
  const isAhead = ({ hour }: PlacedFile) => hour * HOUR_US > options.nowUs + AHEAD_US_MAX
  const isWanted = ({ hour }: PlacedFile) => (hour + 1) * HOUR_US > options.fromUs && hour * HOUR_US < options.toUs
  const wanted = files.filter(each => isWanted(each) && !isAhead(each))
  for (const each of files.filter(isAhead))
    find(options, 'future_hour', each, `is of the hour from ${isoMs(each.hour * HOUR_US)}, which has not begun`)
  for (const each of wanted) judgeFile(each, options)
  judgeRetention(wanted, options)
  judgeFeeds(wanted, options)
  for (const path of foreign.slice(0, FOREIGN_MAX)) {
    const [, exchange = '', feed = '', name = ''] = path.split('/')
    find(options, 'foreign_file', { exchange, feed, name, file: path }, 'is no hour file: no command reads it')
  }
}

function find(
  options: PlaceOptions,
  rule: RuleId,
  about: Pick<PlacedFile, 'exchange' | 'feed' | 'name' | 'file'> & { readonly hour?: number },
  message: string,
  severity = RULES[rule].severity as Finding['severity']
): void {
  const { exchange, feed, name, file, hour } = about
  const us = hour === undefined ? null : hour * HOUR_US
  options.report({ rule, severity, exchange, name, feed, file, line: null, us, message })
}

function judgeFile(each: PlacedFile, options: PlaceOptions): void {
  const { kind, bytes } = each
  if (kind === 'tmp') {
    if (!options.isRetaining) find(options, 'leftover', each, 'was left by a compression that did not come to its end')
  } else if (kind === 'torn') find(options, 'torn_file', each, `holds ${bytes} bytes of half lines that a crash left`)
  else if (bytes === 0 && !options.isOpen(each)) find(options, 'empty_file', each, 'is empty')
}

/** One finding for each stream, with its oldest file; a vault that nobody writes any more is told of once. */
function judgeRetention(files: readonly PlacedFile[], options: PlaceOptions): void {
  const ageUs = ({ hour }: PlacedFile) => options.nowUs - (hour + 1) * HOUR_US
  const streams = new Map<string, PlacedFile[]>()
  for (const each of files) {
    const isDue = ageUs(each) > (each.kind === 'jsonl' ? COMPRESS_US + COMPRESS_SLACK_US : DELETE_US + DELETE_SLACK_US)
    if (!isDue) continue
    const key = `${each.exchange}/${each.feed}/${each.name}`
    const list = streams.get(key) ?? []
    streams.set(key, list)
    list.push(each)
  }
  const due = [...streams.values()]
  if (due.length === 0) return
  const newest = files.reduce((a, b) => (b.hour > a.hour ? b : a))
  if (ageUs(newest) > DELETE_US + DELETE_SLACK_US) {
    const about = { exchange: '', feed: '', name: '', file: '' }
    const count = due.reduce((sum, list) => sum + list.length, 0)
    find(
      options,
      'retention_due',
      about,
      `${count} files are older than retention keeps them; nothing was written since`
    )
    return
  }
  for (const list of due) {
    const oldest = list.reduce((a, b) => (b.hour < a.hour ? b : a))
    const more = list.length > 1 ? `, and ${list.length - 1} more of this feed are, too` : ''
    const isOld = ageUs(oldest) > DELETE_US + DELETE_SLACK_US
    find(options, 'retention_due', oldest, `is due to be ${isOld ? 'deleted' : 'compressed'}${more}`)
  }
}

/** Feeds that an hour must have because others tell of it. */
function judgeFeeds(files: readonly PlacedFile[], options: PlaceOptions): void {
  const held = new Map<string, Set<string>>()
  const whole = files.filter(({ kind, bytes }) => (kind === 'jsonl' || kind === 'gz') && bytes > 0)
  for (const { exchange, name, hour, feed } of whole) {
    const key = `${exchange}/${name}/${hour}`
    held.set(key, (held.get(key) ?? new Set()).add(feed))
  }
  for (const each of whole) {
    const level = /^(l[23])_(?!events|updates)/.exec(each.feed)?.[1]
    if (level === undefined) continue
    const feed = level === 'l3' ? 'l3_events' : 'l2_updates'
    const feeds = held.get(`${each.exchange}/${each.name}/${each.hour}`)
    if (feeds === undefined || feeds.has(feed)) continue
    // An hour with a compressed and a plain file is told of once.
    feeds.add(feed)
    const file = each.file.replace(`/${each.feed}/`, `/${feed}/`).replace(/\.gz$/, '')
    find(
      options,
      'missing_feed',
      { ...each, feed, file },
      `is missing: there are snapshots of that hour (${each.feed})`
    )
  }
  judgeFrames(whole, options)
}

/** A connection without frames in an hour, although it has some before and after and its exchange was captured. */
function judgeFrames(files: readonly PlacedFile[], options: PlaceOptions): void {
  const derived = new Set(
    files.filter(({ feed }) => feed !== 'frames').map(({ exchange, hour }) => `${exchange}/${hour}`)
  )
  const hours = new Map<string, PlacedFile[]>()
  for (const each of files) {
    if (each.feed !== 'frames') continue
    const key = `${each.exchange}/${each.name}`
    const list = hours.get(key) ?? []
    hours.set(key, list)
    list.push(each)
  }
  for (const list of hours.values()) {
    const known = new Set(list.map(({ hour }) => hour))
    for (const each of list) {
      const hour = each.hour + 1
      if (known.has(hour) || !known.has(hour + 1) || !derived.has(`${each.exchange}/${hour}`)) continue
      known.add(hour)
      const text = new Date(hour * 3_600_000).toISOString()
      const folder = each.file.split('/').slice(0, 4).join('/')
      const file = `${folder}/${text.slice(0, 10)}/${text.slice(11, 13)}.jsonl`
      const message = 'is missing: the hours before and after are there, and what was derived from it is'
      find(options, 'missing_feed', { ...each, hour, file }, message, 'warning')
    }
  }
}
