/** The lines of the frames feed of one connection and hour, as playback takes them: what is missing is marked. */
import { existsSync } from 'node:fs'
import { type FrameLine, readFrameBytes } from '../capture/playback.ts'
import { messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import { readBytes } from '../vault/reader.ts'

/** Who is told of what a source finds, at the source's `path` and `line`. */
export interface SourceObserver {
  /** Each line as it stands in its file; undefined: it is none, but `text`. */
  line(line: FrameLine | undefined, text: string): void
  /** What is wrong with a file itself; `doubled`: it holds lines of the compressed one again. */
  trouble(kind: 'damaged' | 'doubled' | 'mark', message: string): void
  /** There is something behind the last line end. */
  tail(start: string): void
}

/** `hour` (counted from the epoch) is the one that receive times must lie in; lines from `toUs` on are not read. */
export interface SourceOptions {
  readonly observer?: SourceObserver
  readonly hour?: number
  readonly toUs?: number
}

const NEWLINE = 10
const CLOSING_BRACE = 125
const BYTE_ORDER_MARK = Buffer.from('\ufeff')
/** Damages of one connection's hour that are told. */
const DAMAGES_MAX = 1000
const START_CHARS = 100

/** The lines of one connection's files, one after the other, decoded one by one so that none keeps its chunk alive. */
export class FrameSource {
  head: FrameLine | undefined
  private last: FrameLine | undefined
  /** The line that comes after what stands for lines that are missing. */
  private held: FrameLine | undefined
  /** What stands in the place of lines that are missing or broken. */
  private patch: FrameLine | undefined
  private readonly paths: string[]
  private readonly options: SourceOptions
  private chunks: AsyncGenerator<Buffer> | undefined
  private next = 0
  private chunk: Buffer = Buffer.alloc(0)
  private at = 0
  private readonly rest: Buffer[] = []
  /** The number of the line at hand in its file, from 1. */
  line = 0
  /** Bytes read so far, uncompressed. */
  bytes = 0
  /** The last line of the file before, while lines of this one repeat it. */
  private repeated: FrameLine | undefined
  /** What is wrong, and in which file. */
  readonly damaged: string[] = []

  constructor(paths: readonly string[], options: SourceOptions = {}) {
    this.paths = [...paths]
    this.options = options
  }

  /** The file at hand. */
  get path(): string {
    return this.paths[Math.min(this.next, this.paths.length) - 1] ?? ''
  }

  /** Whether `head` stands for lines that are missing. */
  get isPatch(): boolean {
    return this.head !== undefined && this.head === this.patch
  }

  /** Moves to the next line if it lies in the chunk at hand; false: `refill` is needed. */
  advance(): boolean {
    if (this.held !== undefined) {
      this.head = this.last = this.held
      this.held = undefined
      return true
    }
    for (;;) {
      const end = this.chunk.indexOf(NEWLINE, this.at)
      if (end < 0) return false
      // What is wrong before the first right line hides no book.
      if (this.take(end)) return true
    }
  }

  /** Takes the line that ends there; false when it is passed over, or wrong with nothing yet to put into its place. */
  private take(end: number): boolean {
    this.line++
    let bytes = this.chunk
    let start = this.at
    let stop = end
    if (this.rest.length > 0) {
      bytes = Buffer.concat([...this.rest, this.chunk.subarray(this.at, end)])
      this.rest.length = start = 0
      stop = bytes.length
    }
    this.at = end + 1
    const line = bytes[stop - 1] === CLOSING_BRACE ? readFrameBytes(bytes, start, stop) : undefined
    if (line !== undefined && this.isRepeated(line)) return false
    if (line !== undefined && this.isBehind(line)) return this.stop()
    const text = line === undefined ? bytes.toString('utf8', start, stop) : ''
    this.options.observer?.line(line, text)
    return line === undefined ? this.passBroken(text.slice(0, START_CHARS)) : this.passLine(line)
  }

  private isBehind(line: FrameLine): boolean {
    return line.us >= (this.options.toUs ?? Number.POSITIVE_INFINITY) && this.isWithin(line)
  }

  private passBroken(start: string): boolean {
    const before = this.last
    const isMarked = this.miss(`no line of the frames feed: ${JSON.stringify(start)}`)
    // It had a number of its own: what comes next follows it.
    if (before !== undefined) this.last = { ...before, frame: before.frame + 1 }
    return isMarked
  }

  private passLine(found: FrameLine): boolean {
    const before = this.last
    // A receive time that cannot be right would bring the lines of several connections out of their order.
    const isTimed = this.isWithin(found) && found.us >= (before?.us ?? 0)
    const line =
      isTimed || before === undefined || this.options.hour === undefined ? found : { ...found, us: before.us }
    this.head = this.last = line
    // Within one process the lines of a name are numbered; another process begins with `open` and 1.
    if (before?.conn === line.conn && line.frame !== before.frame + 1 && line.dir !== 'open') {
      this.held = line
      this.last = { ...line, frame: line.frame - 1 }
      const missing = line.frame - before.frame - 1
      const what = missing > 0 ? `${missing} missing` : 'out of order'
      this.miss(`frame ${line.frame} of ${line.conn} follows frame ${before.frame}: ${what}`, Math.max(1, missing))
    }
    return true
  }

  private isWithin({ us }: FrameLine): boolean {
    const { hour } = this.options
    return hour === undefined || (us >= hour * HOUR_US && us < (hour + 1) * HOUR_US)
  }

  /**
   * Whether a line of the plain file of a compressed hour stood in the compressed one: a compression that did not come to
   * its end leaves both, and the lines would be played twice.
   */
  private isRepeated(line: FrameLine): boolean {
    const before = this.repeated
    if (before === undefined) return false
    const isOlder =
      line.us < before.us || (line.us === before.us && line.conn === before.conn && line.frame <= before.frame)
    if (!isOlder) this.repeated = undefined
    else if (this.line === 1) {
      const message = 'holds lines that the compressed file of its hour holds too: they were passed over'
      this.tell(message)
      this.options.observer?.trouble('doubled', message)
    }
    return isOlder
  }

  /** Nothing more is wanted. */
  private stop(): boolean {
    this.next = this.paths.length + 1
    this.head = undefined
    this.chunk = Buffer.alloc(0)
    this.at = this.rest.length = 0
    this.chunks?.return(undefined).catch(() => undefined)
    this.chunks = undefined
    return false
  }

  /**
   * Puts a `skip` line in the place of the `count` lines that are missing, so that no book is trusted that has not seen
   * them; false when nothing was read before, as there is no book then.
   */
  miss(what: string, count = 1): boolean {
    this.tell(`line ${this.line}: ${what}`)
    if (this.last === undefined) return false
    this.patch = { ...this.last, dir: 'skip', msg: undefined, text: JSON.stringify({ count, reason: 'damaged' }) }
    this.head = this.patch
    return true
  }

  /** Remembers what is wrong with the file at hand. */
  private tell(what: string): void {
    if (this.damaged.length < DAMAGES_MAX) this.damaged.push(`${this.path}: ${what}`)
  }

  /** Reads on until there is a line; at the end `head` becomes undefined. */
  async refill(): Promise<void> {
    do {
      if (this.at < this.chunk.length) this.rest.push(this.chunk.subarray(this.at))
      let more: IteratorResult<Buffer> | undefined
      try {
        more = await this.chunks?.next()
      } catch (error) {
        this.chunks = undefined
        this.chunk = Buffer.alloc(0)
        this.at = this.rest.length = 0
        if (this.follow(error)) continue
        this.options.observer?.trouble('damaged', messageOf(error))
        // The message begins with the path, as `miss` does.
        if (this.miss(messageOf(error).replace(`${this.path} is damaged`, 'what follows is damaged'))) return
        continue
      }
      this.chunk = more?.value ?? Buffer.alloc(0)
      this.bytes += this.chunk.length
      this.at = 0
      if (more === undefined || more.done) {
        if (!this.turn()) return
      } else if (this.line === 0 && this.rest.length === 0) this.passMark()
    } while (!this.advance())
  }

  /** Retention may have compressed a file since it was listed; true when its lines can be read all the same. */
  private follow(error: unknown): boolean {
    const isGone = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
    const compressed = `${this.path}.gz`
    if (!isGone || !existsSync(compressed)) return false
    this.paths[this.next - 1] = compressed
    this.chunks = readBytes(compressed)
    return true
  }

  /** Goes on to the next file; false when there is none. */
  private turn(): boolean {
    // What follows the last line end of a file was never a whole line.
    if (this.rest.length > 0) this.options.observer?.tail(this.rest[0]!.toString('utf8', 0, START_CHARS))
    this.rest.length = 0
    this.repeated = this.path.endsWith('.gz') ? this.last : undefined
    const path = this.paths[this.next]
    if (this.next <= this.paths.length) this.next++
    this.chunks = undefined
    if (path === undefined) {
      this.head = undefined
      return false
    }
    this.line = 0
    this.chunks = readBytes(path)
    return true
  }

  /** Editors put a mark before the first line, which is whole all the same. */
  private passMark(): void {
    if (!this.chunk.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK)) return
    this.at = BYTE_ORDER_MARK.length
    const message = 'begins with a byte order mark, which was passed over'
    this.tell(message)
    this.options.observer?.trouble('mark', message)
  }
}

/** Whether line a comes before line b: by receive time; a `state` shares the time of the line that it precedes. */
export function isBefore(a: FrameLine, b: FrameLine): boolean {
  return a.us < b.us || (a.us === b.us && a.dir === 'state' && b.dir !== 'state')
}

/**
 * Reads connections as one, line by line in the order of their receive times, and hands each to `play`, which may throw
 * `SyntaxError` for a line that is no JSON any more. `rest` is waited for behind each line.
 */
export async function playSources(
  sources: readonly FrameSource[],
  play: (source: FrameSource) => void,
  rest: () => Promise<void> | undefined
): Promise<number> {
  for (const source of sources) await source.refill()
  let live = sources.filter(source => source.head !== undefined)
  let frames = 0
  while (live.length > 0) {
    let first = live[0]!
    for (const source of live) if (isBefore(source.head!, first.head!)) first = source
    try {
      play(first)
    } catch (error) {
      // The text of a line that is no JSON any more; everything else is a mistake of ours.
      if (!(error instanceof SyntaxError)) throw error
      if (first.miss(`frame ${first.head!.frame} of ${first.head!.conn} is broken: ${error.message}`)) continue
    }
    frames++
    const waiting = rest()
    if (waiting !== undefined) await waiting
    if (first.advance()) continue
    await first.refill()
    live = live.filter(source => source.head !== undefined)
  }
  return frames
}
