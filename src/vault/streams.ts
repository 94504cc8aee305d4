/** The lines of a vault's streams: which hours there are, and their whole lines with their numbers. */
import { closeSync, fstatSync } from 'node:fs'
import { relative, sep } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import { type HourFile, type HourFilter, listHours } from './layout.ts'
import { findLineStart, openRegular, readLines, readRange } from './reader.ts'

/** All hour files of one stream: hours in order, the `.gz` of an hour before the plain file, whose lines are younger. */
export interface Stream {
  readonly exchange: string
  readonly feed: string
  /** The folder name of the instrument or connection. */
  readonly name: string
  readonly hours: readonly HourFile[]
}

/** Receive times from `fromUs` up to, not including, `toUs`; what is left out is not limited. */
export interface Range {
  readonly fromUs?: number | undefined
  readonly toUs?: number | undefined
}

/** Whole lines of a file, in order: `lines[0]` is line `firstLine` of the uncompressed file, counted from 1. */
export interface LineBatch {
  readonly lines: readonly string[]
  readonly firstLine: number
}

/** `onTail` is told what follows the last line end, and the number of that line, once, when there is any. */
export interface ReadHourOptions extends Range {
  readonly onTail?: ((tail: string, line: number) => void) | undefined
}

const RECORD_HEAD = '{"timestamp_utc":"2023-12-14T15:30:46.001Z","recv_us":'.length
const FRAME_HEAD = '{"recv_us":'.length
const TIMESTAMP_KEY = '{"t'
/** A stretch of a file in which the search for a moment is not worth going on. */
const SEARCH_BYTES_MIN = 256 * 1024
/** Enough for the head of any line. */
const HEAD_BYTES = 128
const COUNT_BYTES = 4 * 1024 * 1024
/** Damage may have put a line out of its order: reading goes on for a while behind the range. */
const BEHIND_US = 1_000_000
const NEWLINE = 10

/**
 * The streams of a vault in the order exchange, feed, name, with the hours that overlap a range.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export function listStreams(vault: string, filter: HourFilter = {}, range: Range = {}): Stream[] {
  const streams = new Map<string, Stream & { hours: HourFile[] }>()
  const { fromUs = Number.NEGATIVE_INFINITY, toUs = Number.POSITIVE_INFINITY } = range
  for (const file of listHours(vault, filter)) {
    if (file.kind !== 'jsonl' && file.kind !== 'gz') continue
    if ((file.hour + 1) * HOUR_US <= fromUs || file.hour * HOUR_US >= toUs) continue
    const { exchange, feed, name } = file
    const key = `${exchange}/${feed}/${name}`
    const stream = streams.get(key) ?? { exchange, feed, name, hours: [] }
    streams.set(key, stream)
    stream.hours.push(file)
  }
  return [...streams.values()]
}

/** A file's path relative to the vault, with forward slashes. */
export function placeOf(vault: string, path: string): string {
  return relative(vault, path).split(sep).join('/')
}

/** The receive time in the head of a line of any feed, µs; NaN when it is not where every record has it. */
export function recvUsOf(line: string): number {
  let at = line.startsWith(TIMESTAMP_KEY) ? RECORD_HEAD : FRAME_HEAD
  let value = 0
  const start = at
  for (let code = line.charCodeAt(at); code >= 48 && code <= 57; code = line.charCodeAt(++at))
    value = value * 10 + code - 48
  return at === start || !line.startsWith('"recv_us":', start - 10) ? Number.NaN : value
}

/**
 * The lines of one hour file whose receive times lie in a range, in batches, in order. Lines without a receive time go with
 * those around them. A plain file is entered near its place; a compressed one is read from its start.
 * @throws {L3capError} as `readLines`
 */
export async function* readHour(path: string, options: ReadHourOptions = {}): AsyncGenerator<LineBatch> {
  const { fromUs = Number.NEGATIVE_INFINITY, toUs = Number.POSITIVE_INFINITY, onTail } = options
  const isEntered = !path.endsWith('.gz') && fromUs > Number.NEGATIVE_INFINITY
  const { offset, line } = isEntered ? enter(path, fromUs) : { offset: 0, line: 1 }
  let firstLine = line
  let isWithin = false
  let isBehind = false
  const tail = (text: string): void => {
    if (!isBehind) onTail?.(text, firstLine)
  }
  for await (const batch of readLines(path, { onTail: tail, start: offset })) {
    let lines: readonly string[] = batch
    const isInside = recvUsOf(batch[0]!) >= fromUs && recvUsOf(batch.at(-1)!) < toUs
    if (fromUs > Number.NEGATIVE_INFINITY && !isWithin) {
      const from = batch.findIndex(each => recvUsOf(each) >= fromUs)
      isWithin = from >= 0
      lines = isWithin ? batch.slice(from) : []
    }
    const first = firstLine + batch.length - lines.length
    firstLine += batch.length
    if (!isInside && toUs < Number.POSITIVE_INFINITY) {
      const end = lines.findIndex(each => recvUsOf(each) >= toUs)
      isBehind = lines.some(each => recvUsOf(each) >= toUs + BEHIND_US)
      if (end >= 0) lines = lines.slice(0, end)
    }
    if (lines.length > 0) yield { lines, firstLine: first }
    if (isBehind) return
  }
}

/** A line start of a plain file at or before the first line of a moment, and the number of that line. */
function enter(path: string, fromUs: number): { offset: number; line: number } {
  try {
    return search(path, fromUs)
  } catch (error) {
    throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
  }
}

function search(path: string, fromUs: number): { offset: number; line: number } {
  const file = openRegular(path)
  try {
    let low = 0
    let high = fstatSync(file).size
    while (high - low > SEARCH_BYTES_MIN) {
      const middle = findLineStart(file, low + Math.floor((high - low) / 2), low) ?? low
      if (middle <= low) break
      const head = readRange(file, middle, Math.min(middle + HEAD_BYTES, high)).toString('latin1')
      // Where a line tells no time, nothing can be said of what lies before it.
      if (recvUsOf(head) < fromUs) low = middle
      else high = middle
    }
    return { offset: low, line: countLines(file, low) + 1 }
  } finally {
    closeSync(file)
  }
}

function countLines(file: number, end: number): number {
  let count = 0
  for (let start = 0; start < end; start += COUNT_BYTES) {
    const bytes = readRange(file, start, Math.min(start + COUNT_BYTES, end))
    for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++
  }
  return count
}
