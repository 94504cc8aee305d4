import { close, constants, fdatasync, fstat, fsync, mkdir, open, type Stats, stat, write } from 'node:fs'
import { dirname } from 'node:path'

const FILE_MODE = 0o640
/** A link is not followed, and a pipe in the place of a file does not keep us waiting. */
const FLAGS =
  constants.O_WRONLY |
  constants.O_APPEND |
  constants.O_CREAT |
  // Windows knows neither.
  (constants.O_NOFOLLOW ?? 0) |
  (constants.O_NONBLOCK ?? 0)
const DIRECTORY_MODE = 0o750

const NAMES_MAX = 10_000

/** Which directories of a vault have their names on disk: those that were made since may be gone after a power cut. */
export class DurableNames {
  private readonly root: string
  private readonly known = new Set<string>()

  constructor(root: string) {
    this.root = root
  }

  /** Brings the name of a file, and those of all directories on the way to it, to disk. Rejects as the file system does. */
  async keep(path: string): Promise<void> {
    await syncName(dirname(path))
    // To be asked again costs little; days and weeks of directories must not be remembered.
    if (this.known.size > NAMES_MAX) this.known.clear()
    for (let name = dirname(path); name.length > this.root.length && !this.known.has(name); name = dirname(name)) {
      await syncName(dirname(name))
      this.known.add(name)
    }
  }
}

/**
 * One hour file that is open for appending. Every call is asynchronous: a disk that hangs must not keep the process from
 * its sockets.
 */
export class HourFile {
  readonly path: string
  private readonly fd: number
  private readonly inode: number
  /** Bytes in the file, as far as this process knows. */
  size: number
  /** Bytes that were written since the last sync. */
  unsynced = 0
  /** Whether its name is on disk. Not even that of an old file is, if its process was killed early. */
  private isNamed = false
  private readonly names: DurableNames
  /** Nothing will be written any more: the next sync closes it. */
  ending = false
  /** It cannot be trusted any more: whoever writes to it leaves it before the next line. */
  isSpoilt = false
  /** It is to be left before the next line, as it may not be where its name is. */
  isStray = false
  /** Waits for its turn to be synced. */
  queued = false

  private constructor(path: string, fd: number, { size, ino }: Stats, names: DurableNames) {
    this.path = path
    this.fd = fd
    this.size = size
    this.inode = ino
    this.names = names
  }

  /** Opens a file for appending, with the directories it stands in. Rejects as the file system does. */
  static async open(path: string, names: DurableNames): Promise<HourFile> {
    const directory = dirname(path)
    await call<string | undefined>(done => mkdir(directory, { recursive: true, mode: DIRECTORY_MODE }, done))
    const fd = await call<number>(done => open(path, FLAGS, FILE_MODE, done))
    try {
      const found = await stats(fd)
      if (!found.isFile()) throw new Error(`${path} is no regular file`)
      return new HourFile(path, fd, found, names)
    } catch (error) {
      close(fd, () => undefined)
      throw error
    }
  }

  /** Appends a part of a buffer; the number of bytes that the disk took, at least one. */
  async append(bytes: Buffer, from: number, to: number): Promise<number> {
    const wrote = await call<number>(done => write(this.fd, bytes, from, to - from, null, done))
    if (wrote === 0) throw new Error('the disk takes no more bytes')
    this.size += wrote
    this.unsynced += wrote
    return wrote
  }

  /** Brings what was written, and the names of new files and directories, to disk. Rejects as the file system does. */
  async sync(): Promise<void> {
    const { unsynced } = this
    if (unsynced > 0) await call<void>(done => fdatasync(this.fd, done))
    this.unsynced -= unsynced
    if (!this.isNamed) await this.names.keep(this.path)
    this.isNamed = true
  }

  /** Whether somebody has removed, moved or cut the file since, or put another into its place. */
  async isDamaged(): Promise<boolean> {
    const { size } = this
    try {
      const found = await call<Stats>(done => stat(this.path, done))
      return found.ino !== this.inode || found.size < size
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ENOTDIR') return true
      throw error
    }
  }

  /** Closes it. Rejects as the file system does; it is closed all the same. */
  close(): Promise<void> {
    return call<void>(done => close(this.fd, done))
  }
}

function stats(fd: number): Promise<Stats> {
  return call(done => fstat(fd, done))
}

async function syncName(directory: string): Promise<void> {
  // Windows has no such thing and needs none.
  if (process.platform === 'win32') return
  const fd = await call<number>(done => open(directory, 'r', done))
  try {
    await call<void>(done => fsync(fd, done))
  } finally {
    await call<void>(done => close(fd, done))
  }
}

function call<T>(start: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => (error ? reject(error) : resolve(value as T)))
  })
}
