import { messageOf } from '../core/errors.ts'
import { DurableNames, type HourFile } from './hourfile.ts'
import { hourPath } from './layout.ts'
import { FileStream, type StreamHome } from './stream.ts'

/** After so many calls of `retry` a sync is slow. */
const SYNC_SECONDS_MAX = 3

/** How a writer works; callbacks are told of pauses. */
export interface WriterOptions {
  /** Bytes that may wait in memory while the disk does not take them. */
  readonly pendingMax: number
  onPause(reason: string): void
  onResume(waitedBytes: number): void
  /** What this process had written into a file is no longer there: somebody removed or cut it. */
  onMissing?(path: string, bytes: number): void
  /** A sync takes seconds: what is written meanwhile would not survive a power cut. Told once for each. */
  onSlowSync?(path: string): void
  /** Rejects when nothing may be written, as the vault is not where it was. */
  guard?(): Promise<void>
}

/**
 * All streams of a process. Lines wait in memory for the next `flush`, which hands the frames over before anything
 * derived from them, without ever waiting for the disk itself. A disk that takes nothing, or does not answer, pauses the
 * writer: lines wait, up to a bound, until a flush succeeds.
 */
export class VaultWriter implements StreamHome {
  private readonly root: string
  readonly names: DurableNames
  private readonly options: WriterOptions
  private readonly streams = new Map<string, FileStream>()
  private readonly frames: FileStream[] = []
  private readonly derived: FileStream[] = []
  private pending = 0
  private wasFull = false
  private pauseReason: string | undefined
  /** The flush under way, and whether another was asked for meanwhile. */
  private flushing: Promise<void> | null = null
  private again = false
  /** How often the vault was found to be gone: a flush that was under way then does not prove that it is there. */
  private refusals = 0
  /** Files that wait for a sync. */
  private readonly unsynced: HourFile[] = []
  private syncing: Promise<void> | null = null
  private syncFailure: unknown
  /** The file that is being synced, and how often `retry` has found it so. */
  private atSync: string | undefined
  private syncSeconds = 0
  /** Counts what the disk has answered; a flush in which it stands still for a second has stalled. */
  private answers = 0
  private answersBefore = -1

  constructor(root: string, options: WriterOptions) {
    this.root = root
    this.names = new DurableNames(root)
    this.options = options
  }

  /** The stream of a feed; the same one for the same names. */
  stream(exchange: string, feed: string, name: string): FileStream {
    const key = `${exchange}/${feed}/${name}`
    let stream = this.streams.get(key)
    if (stream === undefined) {
      stream = new FileStream(this, hour => hourPath(this.root, exchange, feed, name, hour))
      this.streams.set(key, stream)
      const list = feed === 'frames' ? this.frames : this.derived
      list.push(stream)
    }
    return stream
  }

  /** Whether more waits than may. */
  get isFull(): boolean {
    const { pendingMax } = this.options
    // Room for a line is no room for a book: once full, it stays so until half of it is free.
    this.wasFull = this.pending > (this.wasFull ? pendingMax / 2 : pendingMax)
    return this.wasFull
  }

  /** Whether the disk takes nothing at present. */
  get isPaused(): boolean {
    return this.pauseReason !== undefined
  }

  /** Why the disk takes nothing at present. */
  get reason(): string | undefined {
    return this.pauseReason
  }

  /** Bytes that wait. */
  get pendingBytes(): number {
    return this.pending
  }

  /** For the streams. */
  took(bytes: number): void {
    this.pending += bytes
  }

  /** For the streams. */
  gave(bytes: number): void {
    this.pending -= bytes
    this.answers++
  }

  /** For the streams. */
  async mayOpen(): Promise<void> {
    await this.options.guard?.()
  }

  /** For the streams. */
  missed(path: string, bytes: number): void {
    // Who removes one file removes others: that is one loss, however late a quiet stream comes to see it.
    for (const stream of this.streams.values()) stream.doubt(true)
    this.options.onMissing?.(path, bytes)
  }

  /** For the streams. */
  end(file: HourFile): void {
    file.ending = true
    this.queue(file)
  }

  /** Hands everything that waits to the operating system, in its own time. While paused only `retry` does. */
  flush(): void {
    if (this.pauseReason !== undefined || this.pending === 0) return
    if (this.flushing !== null) this.again = true
    else this.begin()
  }

  /** Resolves when everything taken so far is with the operating system, or the writer is paused. */
  async drain(): Promise<void> {
    do {
      this.flush()
      await this.flushing
    } while (this.pending > 0 && this.pauseReason === undefined)
  }

  private begin(): void {
    this.flushing = this.work().finally(() => {
      this.flushing = null
    })
  }

  private async work(): Promise<void> {
    do {
      this.again = false
      const waiting = this.pending
      const { refusals } = this
      try {
        await this.pass()
      } catch (error) {
        this.pause(error)
        return
      }
      if (this.refusals !== refusals) return
      this.resume(waiting)
    } while (this.again && this.pending > 0)
  }

  /** Everything that was taken before this moment, frames first. */
  private async pass(): Promise<void> {
    const frames = jobs(this.frames)
    const derived = jobs(this.derived)
    // One write at a time: of the four threads that wait for the system, others need some when the disk hangs.
    for (const [stream, pieces] of [...frames, ...derived]) await stream.drain(pieces)
  }

  /**
   * To be called each second. While paused: tries again whether the disk takes text. Else looks whether it still answers:
   * when it did not for a whole second, the writer is paused until it does.
   */
  retry(): void {
    if (this.atSync !== undefined && ++this.syncSeconds === SYNC_SECONDS_MAX) this.options.onSlowSync?.(this.atSync)
    if (this.flushing !== null) {
      if (this.answers === this.answersBefore) this.suspect(this.answers)
      this.answersBefore = this.answers
      return
    }
    this.answersBefore = -1
    if (this.pauseReason !== undefined) this.begin()
  }

  /**
   * Pauses unless the answer is there already: a process that was stopped or busy has not listened, and comes to its timers
   * first.
   */
  private suspect(answers: number): void {
    const judge = () => {
      if (this.flushing !== null && this.answers === answers) this.pause('the disk does not answer')
    }
    // All answers that have come are heard between the two.
    setImmediate(() => setImmediate(judge))
  }

  private pause(error: unknown): void {
    if (this.pauseReason !== undefined) return
    this.pauseReason = typeof error === 'string' ? error : messageOf(error)
    this.options.onPause(this.pauseReason)
  }

  private resume(waited: number): void {
    if (this.pauseReason === undefined) return
    this.pauseReason = undefined
    this.options.onResume(waited)
  }

  /** Writes nothing more into the open files: the vault is not where it was. `retry` finds out when it is there again. */
  refuse(reason: string): void {
    for (const stream of this.streams.values()) stream.doubt(false)
    this.refusals++
    this.pause(reason)
  }

  /** Asks the disk to keep what was written; answers come later. Files that somebody removed or moved are begun anew. */
  sync(): void {
    for (const { current } of [...this.frames, ...this.derived])
      if (current !== null && current.unsynced > 0) this.queue(current)
  }

  private queue(file: HourFile): void {
    if (file.queued) return
    file.queued = true
    this.unsynced.push(file)
    if (this.syncing === null) this.syncing = this.syncFiles()
  }

  /** One after the other, so that writing finds a free thread. */
  private async syncFiles(): Promise<void> {
    for (let file = this.unsynced.shift(); file; file = this.unsynced.shift()) {
      file.queued = false
      this.atSync = file.path
      this.syncSeconds = 0
      try {
        await syncFile(file)
      } catch (error) {
        // What a disk has refused to keep cannot be told from what it has kept: the file is opened anew, and it is told.
        file.isSpoilt = true
        this.syncFailure ??= error
        this.pause(`${messageOf(error)}; ${file.unsynced} bytes of ${file.path} may not be on disk`)
      }
    }
    this.syncing = null
    this.atSync = undefined
  }

  /**
   * Flushes, syncs and closes everything. Rejects with the first refusal of the disk; what was not written then waits still.
   */
  async close(): Promise<void> {
    // Refusals from before have been told; that of a sync under way is one of this closing.
    this.syncFailure = undefined
    await this.flushing
    let failure: unknown
    do {
      failure ??= await this.leaveAll()
      // What an answer of the disk has led to may have been taken meanwhile.
    } while (failure === undefined && this.pending > 0)
    if (failure !== undefined) throw failure
    this.streams.clear()
    this.frames.length = this.derived.length = 0
  }

  /** Writes what waits, syncs and closes all files; the first refusal of the disk, if there is one. */
  private async leaveAll(): Promise<unknown> {
    let failure: unknown
    try {
      await this.pass()
    } catch (error) {
      failure = error
    }
    await this.syncing
    for (const stream of this.streams.values()) stream.leave()
    await this.syncing
    return failure ?? this.syncFailure
  }
}

/** A stream and how many of its pieces are meant. */
type Job = readonly [stream: FileStream, pieces: number]

function jobs(streams: readonly FileStream[]): Job[] {
  const found: Job[] = []
  for (const stream of streams) {
    const pieces = stream.collect()
    if (pieces > 0) found.push([stream, pieces])
  }
  return found
}

async function syncFile(file: HourFile): Promise<void> {
  const { ending } = file
  try {
    // After a refusal there is no use in asking again: what it keeps is unknown.
    if (!file.isSpoilt) await file.sync()
    // Lines written to a file that has lost its name would go nowhere, or where nobody looks.
    if (!ending && (await file.isDamaged())) file.isStray = true
  } finally {
    if (ending) await file.close()
  }
}
