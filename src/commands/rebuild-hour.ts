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
}

const NEWLINE = 10
/** Lines that may wait for the disk. */
const PENDING_BYTES_MAX = 8 * 1024 * 1024

/** The lines of one connection's files, one after the other, decoded one by one so that none keeps its chunk alive. */
class Source {
  head: FrameLine | undefined
  private readonly paths: readonly string[]
  private chunks: AsyncGenerator<Buffer> | undefined
  private next = 0
  private chunk: Buffer = Buffer.alloc(0)
  private at = 0
  private readonly rest: Buffer[] = []

  constructor(paths: readonly string[]) {
    this.paths = paths
  }

  /** Moves to the next line if it lies in the chunk at hand; false: `refill` is needed. */
  advance(): boolean {
    const end = this.chunk.indexOf(NEWLINE, this.at)
    if (end < 0) return false
    let line: FrameLine | undefined
    if (this.rest.length > 0) {
      const whole = Buffer.concat([...this.rest, this.chunk.subarray(this.at, end)])
      this.rest.length = 0
      line = readFrameBytes(whole, 0, whole.length)
    } else line = readFrameBytes(this.chunk, this.at, end)
    if (line === undefined) {
      const start = this.chunk.toString('utf8', this.at, Math.min(end, this.at + 100))
      throw new L3capError('VAULT_DAMAGED', `${this.paths[this.next - 1]}: no line of the frames feed: ${start}`)
    }
    this.at = end + 1
    this.head = line
    return true
  }

  /** Reads on until there is a line; at the end `head` becomes undefined. */
  async refill(): Promise<void> {
    do {
      if (this.at < this.chunk.length) this.rest.push(this.chunk.subarray(this.at))
      const more = await this.chunks?.next()
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
        this.chunks = readBytes(path)
      }
    } while (!this.advance())
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
    playback.play(first.head!)
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
  return { frames, lines, unused: playback.unused }
}
