import { closeSync, fdatasync, fdatasyncSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf } from '../core/errors.ts'
import { HOUR_US, hourOf } from '../core/time.ts'
import { hourPath } from './layout.ts'
import { syncDirectory } from './repair.ts'

/** A stream with more text than this is flushed at once. */
const FLUSH_CHARS = 65_536
const SCRATCH_BYTES = 262_144
const FILE_MODE = 0o640
const DIRECTORY_MODE = 0o750

/** How a writer works; callbacks are told of pauses, never from within an append that fails. */
export interface WriterOptions {
  /** Characters that may wait in memory while the disk does not take them. */
  readonly pendingMax: number
  onPause(reason: string): void
  onResume(pausedChars: number): void
}

interface Piece {
  readonly hour: number
  text: string
}

/** One feed of one instrument or connection: lines go to the hour file of their own receive time. */
export class FileStream {
  private readonly writer: VaultWriter
  private readonly pathOf: (hour: number) => string
  private readonly pieces: Piece[] = []
  private piece: Piece | undefined
  private hourEndUs = 0
  private file = -1
  private fileHour = -1
  /** Bytes of a line that the disk took in part. */
  private rest: Buffer | undefined
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
    if (us >= this.hourEndUs || this.piece === undefined) this.turn(us)
    this.piece!.text += line
    this.lines++
    this.writer.took(line.length)
    if (this.piece!.text.length > FLUSH_CHARS) this.writer.flush()
  }

  private turn(us: number): void {
    const hour = hourOf(us)
    this.hourEndUs = (hour + 1) * HOUR_US
    this.piece = this.pieces.find(piece => piece.hour === hour)
    if (this.piece === undefined) {
      this.piece = { hour, text: '' }
      this.pieces.push(this.piece)
    }
  }

  /** Hands everything to the operating system. Throws when it does not take it; nothing is lost then. */
  flush(): void {
    while (this.pieces.length > 0) {
      const piece = this.pieces[0]!
      if (piece.text === '' && this.rest === undefined) {
        // The piece of the hour at hand stays, empty, for the next line.
        if (piece === this.piece) return
        this.pieces.shift()
        continue
      }
      this.openFor(piece.hour)
      if (this.rest !== undefined) this.put(this.rest)
      const { text } = piece
      if (text !== '') {
        piece.text = ''
        this.writer.gave(text.length)
        const scratch = this.writer.scratch
        this.put(text.length * 3 <= scratch.length ? scratch.subarray(0, scratch.write(text)) : Buffer.from(text))
      }
    }
  }

  private put(bytes: Buffer): void {
    let done = 0
    try {
      while (done < bytes.length) {
        const wrote = writeSync(this.file, bytes, done)
        done += wrote
        this.bytes += wrote
      }
      this.rest = undefined
    } catch (error) {
      // A disk may take half a line: the other half goes first when it takes more.
      this.rest = Buffer.from(bytes.subarray(done))
      throw error
    } finally {
      if (done > 0) this.unsynced = true
    }
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
 * All streams of a process. Text waits in memory for the next `flush`, which hands the frames over before anything
 * derived from them. A disk that takes nothing pauses the writer: text waits, up to a bound, until a flush succeeds.
 */
export class VaultWriter {
  private readonly root: string
  private readonly options: WriterOptions
  private readonly streams = new Map<string, FileStream>()
  private readonly frames: FileStream[] = []
  private readonly derived: FileStream[] = []
  readonly scratch = Buffer.allocUnsafe(SCRATCH_BYTES)
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

  /** Whether more text waits than may. */
  get isFull(): boolean {
    return this.pending > this.options.pendingMax
  }

  /** Whether the disk takes nothing at present. */
  get isPaused(): boolean {
    return this.pauseReason !== undefined
  }

  /** Characters that wait. */
  get pendingChars(): number {
    return this.pending
  }

  /** Bookkeeping of the streams. */
  took(chars: number): void {
    this.pending += chars
  }

  /** Bookkeeping of the streams. */
  gave(chars: number): void {
    this.pending -= chars
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

  /** Flushes, syncs and closes everything. Throws when the disk does not take it. */
  close(): void {
    for (const stream of [...this.frames, ...this.derived]) stream.close()
    this.streams.clear()
  }
}
