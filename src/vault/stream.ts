import { HOUR_US, hourOf } from '../core/time.ts'
import { type DurableNames, HourFile } from './hourfile.ts'

/** The buffer of a stream grows with what one flush period brings, up to this; a full one is flushed at once. */
const BUFFER_BYTES_MIN = 4096
const BUFFER_BYTES_MAX = 262_144
/** A buffer that is filled less than this becomes smaller again, down to what any stream may keep. */
const FILL_MIN = 1 / 8
const BUFFER_BYTES_KEPT = 65_536
/** The most that a character takes in UTF-8. */
const BYTES_PER_CHAR = 3

/** Whole lines of one hour that wait for the disk, or of which the disk took a part. */
interface Piece {
  readonly hour: number
  readonly bytes: Buffer
  from: number
  readonly to: number
}

/** What a stream needs of its writer. */
export interface StreamHome {
  /** Bytes wait from now on, or wait no more. */
  took(bytes: number): void
  gave(bytes: number): void
  /** A buffer is full: all streams shall be flushed. */
  flush(): void
  /** Which names of the vault are on disk. */
  readonly names: DurableNames
  /** Throws when nothing may be written at present. Called before a file is opened. */
  mayOpen(): Promise<void>
  /** Nothing more comes for a file: it is to be synced and closed. */
  end(file: HourFile): void
  /** What this process had written into a file is no longer there. */
  missed(path: string, bytes: number): void
}

/** One feed of one instrument or connection: lines go to the hour file of their own receive time. */
export class FileStream {
  private readonly home: StreamHome
  private readonly pathOf: (hour: number) => string
  /** What waits, in order; the buffer comes after it. */
  private readonly waiting: Piece[] = []
  private buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES_MIN)
  private spare: Buffer | null = null
  private used = 0
  private hour = -1
  private hourEndUs = 0
  private file: HourFile | null = null
  private fileHour = -1
  /** How long the file of `fileHour` must be at least. */
  private sizeBytes = 0
  private isTold = false
  lines = 0
  bytes = 0

  constructor(home: StreamHome, pathOf: (hour: number) => string) {
    this.home = home
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
      this.home.took(bytes)
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
      this.home.took(at - start)
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
    if (this.used + room > BUFFER_BYTES_MAX) {
      this.seal()
      // All streams are flushed together, so that no record reaches the disk before its frame.
      this.home.flush()
    }
    if (room > BUFFER_BYTES_MAX) return false
    if (this.used + room > this.buffer.length) {
      const size = Math.min(BUFFER_BYTES_MAX, Math.max(this.buffer.length * 2, this.used + room))
      const larger = Buffer.allocUnsafeSlow(size)
      this.buffer.copy(larger, 0, 0, this.used)
      this.buffer = larger
      this.spare = null
    }
    return true
  }

  /** Moves the buffer's content behind what waits. */
  private seal(): void {
    if (this.used === 0) return
    const { hour, used } = this
    this.used = 0
    if (this.waiting.length > 0) {
      // The disk is behind: what waits long must not hold more memory than it has bytes.
      this.waiting.push({ hour, bytes: Buffer.from(this.buffer.subarray(0, used)), from: 0, to: used })
      return
    }
    this.waiting.push({ hour, bytes: this.buffer, from: 0, to: used })
    const { length } = this.buffer
    const isWide = length > BUFFER_BYTES_KEPT && used < length * FILL_MIN
    this.buffer = isWide ? Buffer.allocUnsafeSlow(length / 2) : (this.spare ?? Buffer.allocUnsafeSlow(length))
    this.spare = null
  }

  private setAside(bytes: Buffer): void {
    this.waiting.push({ hour: this.hour, bytes, from: 0, to: bytes.length })
    this.home.took(bytes.length)
  }

  /** Everything taken so far as pieces; how many there are. */
  collect(): number {
    this.seal()
    return this.waiting.length
  }

  /** Hands the first pieces to the operating system. Rejects when it does not take them; nothing is lost then. */
  async drain(pieces: number): Promise<void> {
    for (let left = pieces; left > 0; left--) {
      const piece = this.waiting[0]!
      const { file: open } = this
      const isFit = open && !open.isSpoilt && !open.isStray
      const file = isFit && piece.hour === this.fileHour ? open : await this.openFor(piece)
      // A disk may take half a line: the other half goes first when it takes more.
      while (piece.from < piece.to) {
        const wrote = await file.append(piece.bytes, piece.from, piece.to)
        piece.from += wrote
        this.sizeBytes = file.size
        this.bytes += wrote
        this.home.gave(wrote)
      }
      this.waiting.shift()
      // Made for a line or a backlog, it has its own size.
      if (piece.bytes.length === this.buffer.length) this.spare = piece.bytes
    }
  }

  private async openFor(piece: Piece): Promise<HourFile> {
    this.leave()
    await this.home.mayOpen()
    const path = this.pathOf(piece.hour)
    const file = await HourFile.open(path, this.home.names)
    if (piece.hour !== this.fileHour) this.sizeBytes = 0
    this.file = file
    this.fileHour = piece.hour
    if (file.size < this.sizeBytes) {
      if (!this.isTold) this.home.missed(path, this.sizeBytes - file.size)
      // The first half of a line that is written again from its beginning.
      this.bytes -= piece.from
      this.home.took(piece.from)
      piece.from = 0
    }
    this.sizeBytes = file.size
    this.isTold = false
    return file
  }

  /** The file may not be where its name is: the next line looks. `isTold`: that it lacks something is known already. */
  doubt(isTold: boolean): void {
    if (this.file !== null) this.file.isStray = true
    this.isTold ||= isTold
  }

  /** The open file; null between files. */
  get current(): HourFile | null {
    return this.file
  }

  /** Leaves the file to be synced and closed; the next piece opens one anew. Not while a flush is under way. */
  leave(): void {
    if (this.file === null) return
    this.home.end(this.file)
    this.file = null
  }
}
