/** Reading hour files: streaming for whole files, from the end for the last line. */
import { closeSync, constants, createReadStream, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { createGunzip } from 'node:zlib'
import { L3capError, messageOf } from '../core/errors.ts'

/** `onTail` is told the text after the last line end, once, when there is any. */
export interface ReadOptions {
  readonly onTail?: (tail: string) => void
  /** Where to begin, in bytes: a line start. Plain files only. */
  readonly start?: number
}

const CHUNK_BYTES = 1024 * 1024
/** Many files may be read side by side: with 1 MiB 300 of them took 2 GB, with this 0.35 GB, in less time. */
const STREAM_BYTES = 128 * 1024
/** Longer than any line of a capture; a file without line ends must not fill the memory. */
const LINE_BYTES_MAX = 256 * 1024 * 1024
const LAST_LINE_BYTES_MAX = 64 * 1024 * 1024
/** Each line that is tried is read with up to 1 MiB before it. */
const LAST_LINES_TRIED_MAX = 1000
const NEWLINE = 10
/** Opening a pipe must not wait for somebody to write into it. Zero on Windows, where the flag does not exist. */
const NO_WAIT = constants.O_NONBLOCK ?? 0

/** Opens a regular file for reading. Throws for anything else, a pipe or a device too, and never waits. */
export function openRegular(path: string): number {
  const file = openSync(path, constants.O_RDONLY | NO_WAIT)
  try {
    if (!fstatSync(file).isFile()) throw new Error('it is no regular file')
    return file
  } catch (error) {
    closeSync(file)
    throw error
  }
}

/** The text of a small file. Throws when it cannot be read or is no regular file. */
export function readSmall(path: string): string {
  const file = openRegular(path)
  try {
    return readFileSync(file, 'utf8')
  } finally {
    closeSync(file)
  }
}

/**
 * The bytes of a plain or (by its name) gzip file, in chunks of at most 128 KiB, from `start` on (plain files only). All
 * members of a gzip file are read.
 * @throws {L3capError} `VAULT_DAMAGED` when the gzip data is empty, cut off, broken or followed by something else; `VAULT`
 * when the file cannot be read or is no regular file
 */
export async function* readBytes(path: string, start = 0): AsyncGenerator<Buffer> {
  let file: number
  try {
    file = openRegular(path)
  } catch (error) {
    throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
  }
  const source = createReadStream(path, { fd: file, highWaterMark: STREAM_BYTES, start })
  if (!path.endsWith('.gz') && !path.endsWith('.gz.tmp')) {
    try {
      for await (const chunk of source) yield chunk as Buffer
    } catch (error) {
      throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
    }
    return
  }
  const gunzip = createGunzip({ chunkSize: STREAM_BYTES })
  source.on('error', error => gunzip.destroy(error))
  source.pipe(gunzip)
  try {
    for await (const chunk of gunzip) yield chunk as Buffer
    // zlib takes zeros after the last member for padding; in a vault they are what a power cut left of a member.
    if (gunzip.bytesWritten !== source.bytesRead) throw new Error('the compressed data ends before the file does')
  } catch (error) {
    const isSystem = (error as NodeJS.ErrnoException).syscall !== undefined
    if (isSystem) throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
    throw new L3capError('VAULT_DAMAGED', `${path} is damaged: ${messageOf(error)}`, { cause: error })
  } finally {
    source.destroy()
    gunzip.destroy()
  }
}

/**
 * The whole lines of a plain or gzip file, in batches in order, without their line ends. The memory needed does not grow
 * with the file. What follows the last line end is no line: `onTail` is told of it.
 * @throws {L3capError} as `readBytes`; `VAULT_DAMAGED` too for a line of more than 256 MiB
 */
export async function* readLines(path: string, options: ReadOptions = {}): AsyncGenerator<string[]> {
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const chunk of readBytes(path, options.start)) {
    // Only whole lines are decoded: a border between chunks may cut a character in two.
    const end = chunk.lastIndexOf(NEWLINE)
    if (end >= 0) {
      const text = Buffer.concat([...rest, chunk.subarray(0, end)]).toString('utf8')
      rest = []
      restBytes = 0
      yield text.split('\n')
    }
    if (end + 1 === chunk.length) continue
    rest.push(chunk.subarray(end + 1))
    restBytes += chunk.length - end - 1
    if (restBytes > LINE_BYTES_MAX) throw new L3capError('VAULT_DAMAGED', `${path} holds a line of more than 256 MiB`)
  }
  if (restBytes > 0) options.onTail?.(Buffer.concat(rest).toString('utf8'))
}

/**
 * The last whole line of a plain file that `accept` takes (default: any), without its line end, read from the end;
 * undefined when there is none or no file.
 * @throws {L3capError} `VAULT_DAMAGED` when the last 64 MiB hold no such line; `VAULT` when the file cannot be read
 */
export function lastLine(path: string, accept: (line: string) => boolean = () => true): string | undefined {
  let file: number
  try {
    file = openRegular(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
  }
  try {
    const size = fstatSync(file).size
    let end = findLineStart(file, size, size - LAST_LINE_BYTES_MAX)
    for (let tried = 0; end !== 0; tried += 1) {
      if (tried > LAST_LINES_TRIED_MAX) end = undefined
      const start = end === undefined ? undefined : findLineStart(file, end - 1, end - 1 - LAST_LINE_BYTES_MAX)
      if (end === undefined || start === undefined) {
        throw new L3capError('VAULT_DAMAGED', `${path} ends with 64 MiB that hold no whole line of a record`)
      }
      const line = readRange(file, start, end - 1).toString('utf8')
      if (accept(line)) return line
      end = size - start > LAST_LINE_BYTES_MAX ? undefined : start
    }
    return undefined
  } catch (error) {
    if (error instanceof L3capError) throw error
    throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
  } finally {
    closeSync(file)
  }
}

/**
 * The position after the last line end before `end`, 0 when there is none; undefined when `limit` is reached first.
 * `onBytes` sees every byte from the found position up to `end`, last part first.
 */
export function findLineStart(
  file: number,
  end: number,
  limit = 0,
  onBytes?: (bytes: Buffer) => void
): number | undefined {
  for (let position = end; position > 0; ) {
    if (position <= limit) return undefined
    const start = Math.max(0, position - CHUNK_BYTES)
    const bytes = readRange(file, start, position)
    const found = bytes.lastIndexOf(NEWLINE)
    onBytes?.(bytes.subarray(found + 1))
    if (found >= 0) return start + found + 1
    position = start
  }
  return 0
}

/** The bytes of an open file from `start` up to, not including, `end`. Throws when the file is shorter. */
export function readRange(file: number, start: number, end: number): Buffer {
  const bytes = Buffer.alloc(end - start)
  for (let done = 0; done < bytes.length; ) {
    const count = readSync(file, bytes, done, bytes.length - done, start + done)
    if (count === 0) throw new Error('the file became shorter while it was read')
    done += count
  }
  return bytes
}
