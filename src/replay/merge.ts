/** The lines of many streams in the order in which they were received, word for word: bytes are moved, never decoded. */
import { existsSync } from 'node:fs'
import { L3capError } from '../core/errors.ts'
import { HOUR_US, hourOf } from '../core/time.ts'
import { type HourFile, siblingPath } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import { type Range, readHour, recvUsOf, type Stream } from '../vault/streams.ts'

/** What is wrong with a file; `line` counts from 1 in the uncompressed file, null where it concerns no line. */
export type OnTrouble = (path: string, line: number | null, what: string) => void

/** A stream to merge, from `fromUs` on, up to, not including, `toUs`. */
export interface MergeInput extends Range {
  readonly stream: Stream
}

const OUT_BYTES = 1024 * 1024
/** Longer than any line of a capture; a file without line ends must not fill the memory. */
const LINE_BYTES_MAX = 256 * 1024 * 1024
const RECORD_HEAD = '{"timestamp_utc":"2023-12-14T15:30:46.001Z","recv_us":'.length
const FRAME_HEAD = '{"recv_us":'.length
const NEWLINE = 10
const QUOTE = 34
const COLON = 58
const LETTER_T = 116
const BRACE_OPEN = 123
const BRACE_CLOSE = 125
const EMPTY: Buffer = Buffer.alloc(0)
const CLEAR = '"event_type":"clear"'
/** What comes first of what was received at the same moment. Snapshots are all other feeds. */
const FEED_ORDER = ['status', 'l3_events', 'l2_updates', 'trades', 'snapshots', 'frames']

function placeOfFeed(feed: string): number {
  const place = FEED_ORDER.indexOf(feed)
  return place < 0 ? FEED_ORDER.indexOf('snapshots') : place
}

/** Orders streams as their lines of one moment are: status, events, trades, snapshots, frames, then by instrument. */
export function compareStreams(a: Stream, b: Stream): number {
  if (a.feed !== b.feed) {
    const places = placeOfFeed(a.feed) - placeOfFeed(b.feed)
    return places !== 0 ? places : a.feed < b.feed ? -1 : 1
  }
  const [one, other] = [`${a.exchange}/${a.name}`, `${b.exchange}/${b.name}`]
  return one < other ? -1 : one > other ? 1 : 0
}

/** The receive time in the head of a line's bytes, µs; NaN for what is no whole line of a record or frame. */
function recvUsAt(bytes: Buffer, start: number, end: number): number {
  if (bytes[start] !== BRACE_OPEN || bytes[end - 1] !== BRACE_CLOSE) return Number.NaN
  const first = start + (bytes[start + 2] === LETTER_T ? RECORD_HEAD : FRAME_HEAD)
  if (bytes[first - 1] !== COLON || bytes[first - 2] !== QUOTE) return Number.NaN
  let value = 0
  let at = first
  for (let code = bytes[at]!; code >= 48 && code <= 57; code = bytes[++at]!) value = value * 10 + code - 48
  return at === first || at > end ? Number.NaN : value
}

/**
 * Where a stream of events has to be read from, µs, to have a whole book at a moment: the newest `clear` at or before it in its
 * hour. The moment itself when there is none: no book was whole then.
 */
export async function imageStartUs(stream: Stream, us: number): Promise<number> {
  let found = us
  for (const { path, hour } of stream.hours) {
    if (hour * HOUR_US > us || (hour + 1) * HOUR_US <= us) continue
    try {
      for await (const { lines } of readHour(path, { toUs: us })) {
        // One whose time is damaged is no place to begin at.
        const line = lines.findLast(each => each.includes(CLEAR) && hourOf(recvUsOf(each)) === hour)
        if (line !== undefined) found = recvUsOf(line)
      }
    } catch (error) {
      // The merge meets the same damage, and tells it.
      if (!(error instanceof L3capError)) throw error
    }
  }
  return found
}

/**
 * The lines of one stream, a block of whole lines at a time, one file open at a time and only when its hour has come. The line
 * at hand is `block[at..end)`, with its line end, when `isReady`; else `us` is the earliest it can be, and `refill` is needed.
 */
class Source {
  readonly rank: number
  us = 0
  at = 0
  end = 0
  block: Buffer = EMPTY
  isReady = false
  isEnded = false
  private readonly files: readonly HourFile[]
  private readonly fromUs: number
  private readonly toUs: number
  private readonly onTrouble: OnTrouble
  private next = 0
  private chunks: AsyncGenerator<Buffer> | undefined
  private rest: Buffer[] = []
  private restBytes = 0
  /** The lines of the file at hand so far. */
  private line = 0
  /** The receive time of the last line that told one. */
  private toldUs = 0
  /** A plain file beside a compressed one: lines up to here stand in that one too, as a crash of retention left them. */
  private knownUs = 0

  constructor(input: MergeInput, rank: number, onTrouble: OnTrouble) {
    const { stream, fromUs = Number.NEGATIVE_INFINITY, toUs = Number.POSITIVE_INFINITY } = input
    this.files = stream.hours.filter(({ hour }) => (hour + 1) * HOUR_US > fromUs && hour * HOUR_US < toUs)
    this.fromUs = fromUs
    this.toUs = toUs
    this.rank = rank
    this.onTrouble = onTrouble
    this.close()
  }

  /** Done with a file: the lines of the next one come at the start of its hour at the earliest. */
  private close(): void {
    this.chunks = undefined
    this.rest = []
    this.restBytes = 0
    const file = this.files[this.next]
    if (file === undefined) this.isEnded = true
    else this.us = Math.max(this.us, file.hour * HOUR_US)
  }

  private open(): AsyncGenerator<Buffer> {
    const file = this.files[this.next]!
    const before = this.files[this.next - 1]
    this.next++
    this.line = 0
    this.knownUs = before?.hour === file.hour ? this.toldUs : 0
    // Retention may have compressed the hour since the streams were listed.
    this.chunks = readBytes(existsSync(file.path) ? file.path : siblingPath(file, 'gz'))
    return this.chunks
  }

  /** Reads on, until there is a line at hand or the stream has ended. The block of before is gone then. */
  async refill(): Promise<void> {
    let chunk: Buffer | undefined
    try {
      const { value, done } = await (this.chunks ?? this.open()).next()
      chunk = done ? undefined : value
    } catch (error) {
      if (!(error instanceof L3capError)) throw error
      this.onTrouble(this.files[this.next - 1]!.path, null, error.message)
    }
    // What follows the last line end is no line, or none yet.
    if (chunk === undefined) return this.close()
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      const lines = chunk.subarray(0, end)
      this.block = this.restBytes > 0 ? Buffer.concat([...this.rest, lines]) : lines
      this.rest = []
      this.restBytes = 0
      this.end = 0
      this.advance()
    }
    if (end === chunk.length) return
    this.rest.push(chunk.subarray(end))
    this.restBytes += chunk.length - end
    if (this.restBytes <= LINE_BYTES_MAX) return
    this.onTrouble(this.files[this.next - 1]!.path, this.line + 1, 'holds a line of more than 256 MiB')
    await this.chunks?.return(undefined)
    this.close()
  }

  /** Moves to the next line of the block that is one and lies in the range. */
  advance(): void {
    this.isReady = false
    const { block } = this
    const startUs = this.files[this.next - 1]!.hour * HOUR_US
    for (let start = this.end; start < block.length; start = this.end) {
      const end = block.indexOf(NEWLINE, start)
      this.end = end + 1
      this.line++
      const us = recvUsAt(block, start, end)
      if (Number.isNaN(us)) {
        const what = `no line of a record, left out: ${JSON.stringify(block.toString('utf8', start, Math.min(end, start + 60)))}`
        this.onTrouble(this.files[this.next - 1]!.path, this.line, what)
        continue
      }
      if (us <= this.knownUs) continue
      // A time of another hour is damage: the line goes with those around it, and must not hold them up.
      if (us >= startUs && us < startUs + HOUR_US) {
        this.toldUs = us
        this.us = Math.max(this.us, us)
      }
      if (this.us < this.fromUs) continue
      if (this.us >= this.toUs) {
        this.next = this.files.length
        void this.chunks?.return(undefined)
        return this.close()
      }
      this.at = start
      this.isReady = true
      return
    }
  }
}

/**
 * Merges streams by receive time. At the same moment by `compareStreams`; the lines of one stream stay in their order, whatever
 * times they tell. Damaged files and lines that are none are told and passed over. Holds a few MiB for each stream whose hour
 * has come, however large the vault.
 */
export class Merge {
  /** Sources that have not ended: a binary heap, the next line first. */
  private readonly heap: Source[] = []
  private readonly out = Buffer.allocUnsafe(OUT_BYTES)

  constructor(inputs: readonly MergeInput[], onTrouble: OnTrouble) {
    const sorted = [...inputs].sort((a, b) => compareStreams(a.stream, b.stream))
    this.heap = sorted.map((input, rank) => new Source(input, rank, onTrouble)).filter(source => !source.isEnded)
    for (let at = this.heap.length - 1; at >= 0; at--) this.sift(at)
  }

  /** When the next line was received, µs, or at the earliest; infinite at the end. */
  get nextUs(): number {
    return this.heap[0]?.us ?? Number.POSITIVE_INFINITY
  }

  /**
   * The next whole lines that were received up to a moment: at most 1 MiB, or one line that is longer. Empty when there are
   * none. The bytes are overwritten by the next call.
   */
  async fill(untilUs = Number.POSITIVE_INFINITY): Promise<Buffer> {
    let used = 0
    for (let top = this.heap[0]; top !== undefined && top.us <= untilUs; top = this.heap[0]) {
      if (!top.isReady) {
        await top.refill()
        this.settle()
        continue
      }
      const start = top.at
      if (top.end - start > OUT_BYTES - used) {
        if (used > 0) break
        const line = top.block.subarray(start, top.end)
        top.advance()
        this.settle()
        return line
      }
      const end = this.run(top, untilUs, start + OUT_BYTES - used)
      used += top.block.copy(this.out, used, start, end)
      this.settle()
    }
    return this.out.subarray(0, used)
  }

  /** Moves on over lines that stand together and come next; where they end. */
  private run(top: Source, untilUs: number, limit: number): number {
    const [, left, right] = this.heap
    const rival = right !== undefined && left !== undefined && isBefore(right, left) ? right : left
    for (;;) {
      const { end } = top
      top.advance()
      const goesOn = top.isReady && top.at === end && top.end <= limit && top.us <= untilUs
      if (!goesOn || (rival !== undefined && isBefore(rival, top))) return end
    }
  }

  /** The first source has moved on, or ended. */
  private settle(): void {
    if (this.heap[0]!.isEnded) {
      const last = this.heap.pop()!
      if (this.heap.length === 0) return
      this.heap[0] = last
    }
    this.sift(0)
  }

  private sift(start: number): void {
    const { heap } = this
    const source = heap[start]!
    let at = start
    for (;;) {
      let child = 2 * at + 1
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (child >= heap.length || !isBefore(heap[child]!, source)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = source
  }
}

function isBefore(a: Source, b: Source): boolean {
  return a.us < b.us || (a.us === b.us && a.rank < b.rank)
}
