/** Reads a vault for its coverage: bytes, not records, wherever counting is all that is wanted. */
import { L3capError, messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import { CoverageBuilder, type CoverageRange, type InstrumentCoverage } from '../quality/coverage.ts'
import { type HourFile, siblingPath } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import { placeOf, recvUsOf, type Stream } from '../vault/streams.ts'

/** Lines of frames of one connection in one hour, and the head of the first. */
export interface FrameCount {
  readonly connection: string
  readonly hour: number
  readonly lines: number
  readonly head: string
}

/** Told of a file (relative to the vault) that cannot be read to its end, and why. */
export type OnTrouble = (place: string, message: string) => void

const CLEAR = '"event_type":"clear"'
const NEWLINE = 10
const HEAD_BYTES = 600
const TAIL_BYTES = 1000
/** Longer than any line of a capture. */
const LINE_BYTES_MAX = 256 * 1024 * 1024

/** Counts the frames of an exchange's connections. */
export async function countFrames(
  vault: string,
  streams: readonly Stream[],
  onTrouble: OnTrouble
): Promise<FrameCount[]> {
  const counts: FrameCount[] = []
  for (const { name, hours } of streams) {
    let count: { connection: string; hour: number; lines: number; head: string } | undefined
    await readFiles(vault, hours, onTrouble, ({ hour }, block) => {
      if (count?.hour !== hour) {
        count = { connection: name, hour, lines: 0, head: block.toString('latin1', 0, HEAD_BYTES) }
        counts.push(count)
      }
      count.lines += countLines(block)
    })
  }
  return counts
}

/**
 * What the streams of one instrument cover. Those of `status` are to be whole, whatever the range: the state at its begin
 * follows from them. Undefined where nothing lies in the range.
 */
export async function scanInstrument(
  vault: string,
  streams: readonly Stream[],
  frames: readonly FrameCount[],
  range: CoverageRange,
  onTrouble: OnTrouble
): Promise<InstrumentCoverage | undefined> {
  const { exchange, name } = streams[0]!
  const builder = new CoverageBuilder(exchange, name)
  for (const { connection, hour, lines, head } of frames) builder.countFrames(connection, hour, lines, head)
  for (const { feed, hours } of streams) {
    const isCounted = feed === 'l3_events' || feed === 'l2_updates'
    const counter = new EventCounter(builder, feed)
    await readFiles(vault, hours, onTrouble, (file, block) => {
      if (isCounted) counter.take(file.hour, block)
      else takeLines(builder, file, block)
    })
  }
  return builder.build(range)
}

/** Counts events without looking at them, but for those that begin a book. */
class EventCounter {
  private readonly builder: CoverageBuilder
  private readonly feed: string
  /** The receive time of the last line of the block before. */
  private lastUs = Number.NaN

  constructor(builder: CoverageBuilder, feed: string) {
    this.builder = builder
    this.feed = feed
  }

  take(hour: number, block: Buffer): void {
    const startUs = hour * HOUR_US
    // A damaged line may tell any time.
    const within = (us: number, other: number) => (us >= startUs && us < startUs + HOUR_US ? us : other)
    const before = this.lastUs
    const firstUs = within(timeAt(block, 0), within(before, startUs))
    this.lastUs = within(timeAt(block, lineStart(block, block.length - 1)), firstUs)
    this.builder.count(this.feed, hour, countLines(block), block.length, firstUs, this.lastUs)
    for (let at = block.indexOf(CLEAR); at >= 0; at = block.indexOf(CLEAR, at + CLEAR.length)) {
      const start = lineStart(block, at)
      const beforeUs = start === 0 ? before : timeAt(block, lineStart(block, start - 1))
      if (!Number.isNaN(beforeUs)) this.builder.takeFresh(beforeUs)
    }
  }
}

/** Hands the lines of a block over, long ones by their last part. Lines whose time lies in another hour are left out. */
function takeLines(builder: CoverageBuilder, { feed, hour }: HourFile, block: Buffer): void {
  for (let start = 0; start < block.length; ) {
    const end = block.indexOf(NEWLINE, start)
    const us = timeAt(block, start)
    if (Math.floor(us / HOUR_US) === hour) {
      const from = feed === 'status' ? start : Math.max(start, end - TAIL_BYTES)
      const encoding = feed === 'status' ? 'utf8' : 'latin1'
      builder.take(feed, us, block.toString(encoding, from, end), end - start + 1)
    }
    start = end + 1
  }
}

function timeAt(block: Buffer, start: number): number {
  return recvUsOf(block.toString('latin1', start, start + 128))
}

/** Where the line begins that holds a byte. */
function lineStart(block: Buffer, at: number): number {
  return at === 0 ? 0 : block.lastIndexOf(NEWLINE, at - 1) + 1
}

function countLines(block: Buffer): number {
  let count = 0
  for (let at = block.indexOf(NEWLINE); at >= 0; at = block.indexOf(NEWLINE, at + 1)) count++
  return count
}

/**
 * Hands over files in blocks of whole lines. Where an hour stands there compressed and plain, lines that are in both come once:
 * retention has not removed the plain file yet, or has joined it with the other meanwhile.
 */
async function readFiles(
  vault: string,
  files: readonly HourFile[],
  onTrouble: OnTrouble,
  onBlock: (file: HourFile, block: Buffer) => void
): Promise<void> {
  let hour = Number.NaN
  let lastUs = Number.NEGATIVE_INFINITY
  for (const file of files) {
    if (file.hour !== hour) lastUs = Number.NEGATIVE_INFINITY
    hour = file.hour
    const knownUs = lastUs
    await readFile(vault, file, onTrouble, block => {
      let start = 0
      while (start < block.length && timeAt(block, start) <= knownUs) start = block.indexOf(NEWLINE, start) + 1
      if (start === block.length) return
      const fresh = block.subarray(start)
      const us = timeAt(fresh, lineStart(fresh, fresh.length - 1))
      if (us > lastUs && Math.floor(us / HOUR_US) === hour) lastUs = us
      onBlock(file, fresh)
    })
  }
}

/** Hands over a file in blocks of whole lines; a half line at its end is left out. */
async function readFile(
  vault: string,
  file: HourFile,
  onTrouble: OnTrouble,
  onBlock: (block: Buffer) => void
): Promise<void> {
  let hasBegun = false
  const take = (block: Buffer): void => {
    hasBegun = true
    onBlock(block)
  }
  // Retention may have compressed or deleted it since it was listed.
  for (const path of [file.path, siblingPath(file, 'gz')]) {
    try {
      await readBlocks(path, take)
      return
    } catch (error) {
      if (!hasBegun && isGone(error)) continue
      onTrouble(placeOf(vault, path), messageOf(error))
      return
    }
  }
}

function isGone(error: unknown): boolean {
  return error instanceof L3capError && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}

async function readBlocks(path: string, onBlock: (block: Buffer) => void): Promise<void> {
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const chunk of readBytes(path)) {
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      onBlock(rest.length === 0 ? chunk.subarray(0, end) : Buffer.concat([...rest, chunk.subarray(0, end)]))
      rest = []
      restBytes = 0
    }
    if (end === chunk.length) continue
    rest.push(chunk.subarray(end))
    restBytes += chunk.length - end
    if (restBytes > LINE_BYTES_MAX) throw new L3capError('VAULT_DAMAGED', `${path} holds a line of more than 256 MiB`)
  }
}
