import { closeSync, fdatasync, fdatasyncSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf } from '../core/errors.ts'
import { HOUR_US, hourOf } from '../core/time.ts'
import { hourPath } from './layout.ts'
import { syncDirectory } from './repair.ts'

/** The buffer of a stream grows with what one flush period brings, up to this; a full one is flushed at once. */
const BUFFER_BYTES_MIN = 4096
const BUFFER_BYTES_MAX = 65_536
/** The most that a character takes in UTF-8. */
const BYTES_PER_CHAR = 3
const FILE_MODE = 0o640
const DIRECTORY_MODE = 0o750

/** How a writer works; callbacks are told of pauses. */
export interface WriterOptions {
  /** Bytes that may wait in memory while the disk does not take them. */
  readonly pendingMax: number
  onPause(reason: string): void
  onResume(waitedBytes: number): void
}

/** Bytes of one hour that wait for the disk. */
interface Piece {
  readonly hour: number
  bytes: Buffer
}

/** One feed of one instrument or connection: lines go to the hour file of their own receive time. */
export class FileStream {
  private readonly writer: VaultWriter
  private readonly pathOf: (hour: number) => string
  /** What could not be written yet, in order; the buffer comes after it. */
  private readonly waiting: Piece[] = []
  private buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES_MIN)
  private used = 0
  private hour = -1
  private hourEndUs = 0
  private file = -1
  private fileHour = -1
  private unsynced = false
  private syncing = false
  lines = 0
  bytes = 0

  constructor(writer: VaultWriter, pathOf: (hour: number) => string) {
    this.writer = writer
    this.pathOf = pathOf
  }

  /** Takes one line with its line break. It reaches the operating system with the next flush. */
  append(us: number, line: string): void {
    if (us >= this.hourEndUs) this.turn(us)
    const room = line.length * BYTES_PER_CHAR
    if (this.used + room > this.buffer.length && !this.makeRoom(room)) this.setAside(Buffer.from(line))
    else {
      const bytes = this.buffer.write(line, this.used)
      this.used += bytes
      this.writer.took(bytes)
    }
    this.lines++
  }

  /** Takes one line in three parts, so that a long frame need not be copied into a line first. */
  appendAround(us: number, before: string, frame: string, after: string): void {
    if (us >= this.hourEndUs) this.turn(us)
    const room = (before.length + frame.length + after.length) * BYTES_PER_CHAR
    if (this.used + room > this.buffer.length && !this.makeRoom(room))
      this.setAside(Buffer.from(before + frame + after))
    else {
      const start = this.used
      let at = start + this.buffer.write(before, start)
      at += this.buffer.write(frame, at)
      at += this.buffer.write(after, at)
      this.used = at
      this.writer.took(at - start)
    }
    this.lines++
  }

  private turn(us: number): void {
    this.seal()
    this.hour = hourOf(us)
    this.hourEndUs = (this.hour + 1) * HOUR_US
  }

  /** Makes the buffer take so many bytes more; false when that is too much for a buffer. */
  private makeRoom(room: number): boolean {
    // All streams are flushed together, so that no record reaches the disk before its frame.
    if (this.used > 0 && this.used + room > BUFFER_BYTES_MAX) this.writer.flush()
    if (this.used + room > BUFFER_BYTES_MAX) this.seal()
    if (room > BUFFER_BYTES_MAX) return false
    if (this.used + room > this.buffer.length) {
      const larger = Buffer.allocUnsafeSlow(
        Math.min(BUFFER_BYTES_MAX, Math.max(this.buffer.length * 2, this.used + room))
      )
      this.buffer.copy(larger, 0, 0, this.used)
      this.buffer = larger
    }
    return true
  }

  /** Moves the buffer's content behind what waits. */
  private seal(): void {
    if (this.used === 0) return
    this.waiting.push({ hour: this.hour, bytes: Buffer.from(this.buffer.subarray(0, this.used)) })
    this.used = 0
  }

  private setAside(bytes: Buffer): void {
    this.waiting.push({ hour: this.hour, bytes })
    this.writer.took(bytes.length)
  }

  /** Hands everything to the operating system. Throws when it does not take it; nothing is lost then. */
  flush(): void {
    for (let piece = this.waiting[0]; piece; piece = this.waiting[0]) {
      this.openFor(piece.hour)
      while (piece.bytes.length > 0) piece.bytes = piece.bytes.subarray(this.put(piece.bytes, piece.bytes.length))
      this.waiting.shift()
    }
    if (this.used === 0) return
    this.openFor(this.hour)
    while (this.used > 0) {
      // A disk may take half a line: the other half stays at the front and goes first when it takes more.
      const wrote = this.put(this.buffer, this.used)
      if (wrote < this.used) this.buffer.copyWithin(0, wrote, this.used)
      this.used -= wrote
    }
  }

  private put(bytes: Buffer, length: number): number {
    const wrote = writeSync(this.file, bytes, 0, length)
    this.bytes += wrote
    this.unsynced = true
    this.writer.gave(wrote)
    return wrote
  }

  private openFor(hour: number): void {
    if (hour === this.fileHour && this.file >= 0) return
    this.closeFile()
    const path = this.pathOf(hour)
    const directory = dirname(path)
    mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE })
    this.file = openSync(path, 'a', FILE_MODE)
    this.fileHour = hour
    syncDirectory(directory)
  }

  private closeFile(): void {
    if (this.file < 0) return
    const file = this.file
    this.file = -1
    if (this.unsynced) fdatasyncSync(file)
    this.unsynced = false
    // A sync on the way holds the descriptor: its callback closes it.
    if (!this.syncing) closeSync(file)
  }

  /** Asks the disk to keep what was written; answers come later. */
  sync(onError: (error: unknown) => void): void {
    if (!this.unsynced || this.syncing || this.file < 0) return
    const { file } = this
    this.syncing = true
    this.unsynced = false
    fdatasync(file, error => {
      this.syncing = false
      if (file !== this.file) closeSync(file)
      if (error) {
        this.unsynced = true
        onError(error)
      }
    })
  }

  /** Flushes, syncs and closes. */
  close(): void {
    this.flush()
    this.closeFile()
  }
}

/**
 * All streams of a process. Lines wait in memory for the next `flush`, which hands the frames over before anything
 * derived from them. A disk that takes nothing pauses the writer: lines wait, up to a bound, until a flush succeeds.
 */
export class VaultWriter {
  private readonly root: string
  private readonly options: WriterOptions
  private readonly streams = new Map<string, FileStream>()
  private readonly frames: FileStream[] = []
  private readonly derived: FileStream[] = []
  private pending = 0
  private pauseReason: string | undefined

  constructor(root: string, options: WriterOptions) {
    this.root = root
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
    return this.pending > this.options.pendingMax
  }

  /** Whether the disk takes nothing at present. */
  get isPaused(): boolean {
    return this.pauseReason !== undefined
  }

  /** Bytes that wait. */
  get pendingBytes(): number {
    return this.pending
  }

  /** Bookkeeping of the streams. */
  took(bytes: number): void {
    this.pending += bytes
  }

  /** Bookkeeping of the streams. */
  gave(bytes: number): void {
    this.pending -= bytes
  }

  /** Hands everything that waits to the operating system. While paused only `retry` does. */
  flush(): void {
    if (this.pauseReason === undefined && this.pending > 0) this.attempt()
  }

  /** While paused: tries again whether the disk takes text. */
  retry(): void {
    if (this.pauseReason === undefined) return
    const waiting = this.pending
    if (!this.attempt()) return
    this.pauseReason = undefined
    this.options.onResume(waiting)
  }

  private attempt(): boolean {
    try {
      for (const stream of this.frames) stream.flush()
      for (const stream of this.derived) stream.flush()
      return true
    } catch (error) {
      this.pause(error)
      return false
    }
  }

  private pause(error: unknown): void {
    if (this.pauseReason !== undefined) return
    this.pauseReason = messageOf(error)
    this.options.onPause(this.pauseReason)
  }

  /** Asks the disk to keep what was written. */
  sync(): void {
    for (const stream of this.streams.values()) stream.sync(error => this.pause(error))
  }

  /** Flushes, syncs and closes everything. Throws the first refusal of the disk, after every stream was tried. */
  close(): void {
    let failure: unknown
    for (const stream of [...this.frames, ...this.derived]) {
      try {
        stream.close()
      } catch (error) {
        failure ??= error
      }
    }
    this.streams.clear()
    if (failure !== undefined) throw failure
  }
}
