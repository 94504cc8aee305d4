import { type FrameLine, Playback, readFrameBytes } from '../capture/playback.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import { folderName } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import { VaultWriter } from '../vault/writer.ts'

/** One hour of one exchange: the frames files of its connections, `.gz` before the plain one of the same connection. */
export interface HourTask {
  readonly exchange: string
  readonly out: string
  /** Paths of one connection each, in order. */
  readonly connections: readonly (readonly string[])[]
  /** Folder names of the instruments to write; empty: all. */
  readonly names: readonly string[]
}

/** What a rebuild of an hour did. */
export interface HourReport {
  readonly frames: number
  readonly lines: number
  readonly unused: number
  /** What is wrong with which file; a gap stands in the feeds at each place. */
  readonly damaged: readonly string[]
}

const NEWLINE = 10
const BYTE_ORDER_MARK = Buffer.from('\ufeff')
/** Damages of one connection's hour that are told. */
const DAMAGES_MAX = 1000
/** Lines that may wait for the disk. */
const PENDING_BYTES_MAX = 8 * 1024 * 1024

/** The lines of one connection's files, one after the other, decoded one by one so that none keeps its chunk alive. */
class Source {
  head: FrameLine | undefined
  private last: FrameLine | undefined
  /** The line that comes after what stands for lines that are missing. */
  private held: FrameLine | undefined
  private readonly paths: readonly string[]
  private chunks: AsyncGenerator<Buffer> | undefined
  private next = 0
  private chunk: Buffer = Buffer.alloc(0)
  private at = 0
  private readonly rest: Buffer[] = []
  /** Lines of the file at hand, up to this one. */
  private lines = 0
  /** What is wrong, and in which file. */
  readonly damaged: string[] = []

  constructor(paths: readonly string[]) {
    this.paths = paths
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

  /** Takes the line that ends there; false when it is wrong and there is nothing yet to put into its place. */
  private take(end: number): boolean {
    this.lines++
    let line: FrameLine | undefined
    if (this.rest.length > 0) {
      const whole = Buffer.concat([...this.rest, this.chunk.subarray(this.at, end)])
      this.rest.length = 0
      line = readFrameBytes(whole, 0, whole.length)
    } else line = readFrameBytes(this.chunk, this.at, end)
    if (line === undefined) {
      const start = this.chunk.toString('utf8', this.at, Math.min(end, this.at + 100))
      this.at = end + 1
      const before = this.last
      const isMarked = this.miss(`no line of the frames feed: ${JSON.stringify(start)}`)
      // It had a number of its own: what comes next follows it.
      if (before !== undefined) this.last = { ...before, frame: before.frame + 1 }
      return isMarked
    }
    this.at = end + 1
    const before = this.last
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

  /**
   * Puts a `skip` line in the place of the `count` lines that are missing, so that no book is trusted that has not seen
   * them; false when nothing was read before, as there is no book then.
   */
  miss(what: string, count = 1): boolean {
    this.tell(`line ${this.lines}: ${what}`)
    if (this.last === undefined) return false
    this.head = { ...this.last, dir: 'skip', msg: undefined, text: JSON.stringify({ count, reason: 'damaged' }) }
    return true
  }

  /** Remembers what is wrong with the file at hand. */
  private tell(what: string): void {
    if (this.damaged.length < DAMAGES_MAX) this.damaged.push(`${this.paths[this.next - 1]}: ${what}`)
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
        // The message begins with the path, as `miss` does.
        const what = messageOf(error).replace(`${this.paths[this.next - 1]} is damaged`, 'what follows is damaged')
        if (this.miss(what)) return
        continue
      }
      this.chunk = more?.value ?? Buffer.alloc(0)
      this.at = 0
      if (more === undefined || more.done) {
        // What follows the last line end of a file was never a whole line.
        this.rest.length = 0
        const path = this.paths[this.next++]
        if (path === undefined) {
          this.head = undefined
          return
        }
        this.lines = 0
        this.chunks = readBytes(path)
      } else if (this.lines === 0 && this.rest.length === 0) this.passMark()
    } while (!this.advance())
  }

  /** Editors put a mark before the first line, which is whole all the same. */
  private passMark(): void {
    if (!this.chunk.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK)) return
    this.at = BYTE_ORDER_MARK.length
    this.tell('begins with a byte order mark, which was passed over')
  }
}

/** Whether line a comes before line b: by receive time; a `state` shares the time of the line that it precedes. */
function isBefore(a: FrameLine, b: FrameLine): boolean {
  return a.us < b.us || (a.us === b.us && a.dir === 'state' && b.dir !== 'state')
}

/** Rebuilds the derived feeds of one hour from its frames alone. */
export async function rebuildHour(task: HourTask): Promise<HourReport> {
  const exchange = EXCHANGES[task.exchange]
  if (exchange === undefined) throw new L3capError('USAGE', `exchange ${task.exchange} is unknown`)
  let refusal: L3capError | undefined
  const writer = new VaultWriter(task.out, {
    pendingMax: Number.POSITIVE_INFINITY,
    onPause: reason => {
      refusal = new L3capError('VAULT', `cannot write to ${task.out}: ${reason}`)
    },
    onResume: () => undefined
  })
  let lines = 0
  const nowhere = { append: () => undefined }
  const playback = new Playback(exchange, {
    stream: (feed, name) => {
      // `status` tells of the capture itself (starts, stops, disks): not everything in it can be read from frames.
      if (feed === 'status' || (task.names.length > 0 && !task.names.includes(folderName(name)))) return nowhere
      const stream = writer.stream(task.exchange, feed, name)
      return {
        append: (us, line) => {
          lines++
          stream.append(us, line)
        }
      }
    }
  })
  const sources = task.connections.map(paths => new Source(paths))
  for (const source of sources) await source.refill()
  let live = sources.filter(source => source.head !== undefined)
  let frames = 0
  while (live.length > 0) {
    let first = live[0]!
    for (const source of live) if (isBefore(source.head!, first.head!)) first = source
    try {
      playback.play(first.head!)
    } catch (error) {
      // The text of a line that is no JSON any more; everything else is a mistake of ours.
      if (!(error instanceof SyntaxError)) throw error
      if (first.miss(`frame ${first.head!.frame} of ${first.head!.conn} is broken: ${error.message}`)) continue
    }
    frames++
    if (writer.pendingBytes > PENDING_BYTES_MAX) await writer.drain()
    if (refusal !== undefined) throw refusal
    if (first.advance()) continue
    await first.refill()
    live = live.filter(source => source.head !== undefined)
  }
  await writer.close().catch(error => {
    throw new L3capError('VAULT', `cannot write to ${task.out}: ${messageOf(error)}`, { cause: error })
  })
  return { frames, lines, unused: playback.unused, damaged: sources.flatMap(source => source.damaged) }
}
