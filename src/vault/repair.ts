/**
 * Mending what a crash leaves at the end of an hour file. A killed process leaves half a line; a power cut may leave NUL
 * bytes where the system had reserved space but not written it, with or without the rest of a line behind them. Neither
 * can contain a whole record, as JSON text never contains a NUL. Everything else is left as it is.
 */
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { type HourFilter, listHours, lockPath } from './layout.ts'
import { acquireLock, type Lock, lockHolder } from './lock.ts'
import { findLineStart, readRange } from './reader.ts'

/** What `repairVault` did, or would do: paths of hour files. */
export interface RepairReport {
  readonly dryRun: boolean
  /** Plain files that were looked at. */
  examined: number
  readonly repaired: { path: string; movedBytes: number }[]
  /** Instruments and connections that a live process writes; none of their files was touched. */
  readonly skipped: { exchange: string; name: string; holder: string }[]
  readonly failed: { path: string; message: string }[]
}

/** `command` is the text that others read in the lock while the repair works. */
export interface RepairOptions {
  readonly dryRun: boolean
  readonly nowMs: number
  readonly command: string
}

const CHUNK_BYTES = 1024 * 1024
/** Zero on Windows, where the flags do not exist. */
const NO_FOLLOW = constants.O_NOFOLLOW ?? 0
/** Opening a pipe must not wait for its other end. */
const NO_WAIT = constants.O_NONBLOCK ?? 0
const TORN_MODE = 0o640

/**
 * Moves a half-written tail to `<file>.torn` and cuts the file back to its last whole line. Undefined when the file ends
 * with a whole line, is empty or does not exist. The tail is safe on disk before the file is cut, so that a crash in
 * between leaves it twice in the `.torn` file and never nowhere. The caller must be the only writer.
 * @throws {L3capError} `VAULT` when a file cannot be read or written, or is a link
 */
export function repairTail(path: string): { movedBytes: number } | undefined {
  return withFile(path, constants.O_RDWR, file => {
    const { wholeBytes, sizeBytes } = measure(file)
    if (wholeBytes === sizeBytes) return undefined
    appendTail(file, wholeBytes, sizeBytes, `${path}.torn`)
    ftruncateSync(file, wholeBytes)
    fsyncSync(file)
    return { movedBytes: sizeBytes - wholeBytes }
  })
}

/**
 * The bytes that `repairTail` would move; 0 when the file is whole or does not exist. Changes nothing.
 * @throws {L3capError} `VAULT` when the file cannot be read or is a link
 */
export function tailBytes(path: string): number {
  const measured = withFile(path, constants.O_RDONLY, measure)
  return measured ? measured.sizeBytes - measured.wholeBytes : 0
}

/**
 * Repairs the plain files of a vault. The lock of each instrument and connection is held meanwhile; where a live process
 * has it, the files are left alone and reported. One file's failure does not stop the others.
 * @throws {L3capError} `VAULT` when the directories cannot be read
 */
export function repairVault(vault: string, filter: HourFilter, options: RepairOptions): RepairReport {
  const report: RepairReport = { dryRun: options.dryRun, examined: 0, repaired: [], skipped: [], failed: [] }
  const groups = new Map<string, { exchange: string; name: string; paths: string[] }>()
  for (const { exchange, name, path, kind } of listHours(vault, filter)) {
    if (kind !== 'jsonl') continue
    const group = groups.get(`${exchange}/${name}`) ?? { exchange, name, paths: [] }
    groups.set(`${exchange}/${name}`, group)
    group.paths.push(path)
  }
  for (const { exchange, name, paths } of groups.values()) {
    const lock = lockPath(vault, exchange, name)
    const held = take(lock, `${exchange} ${name}`, options)
    if ('refused' in held) {
      if (held.isLocked) report.skipped.push({ exchange, name, holder: held.refused })
      else report.failed.push({ path: lock, message: held.refused })
      continue
    }
    try {
      for (const path of paths) repairOne(path, report)
    } finally {
      held.lock?.release()
    }
  }
  return report
}

type Taken = { lock: Lock | undefined } | { refused: string; isLocked: boolean }

/** A dry run only looks at the lock. */
function take(path: string, what: string, options: RepairOptions): Taken {
  try {
    if (!options.dryRun) return { lock: acquireLock(path, { ...options, what }) }
    const holder = lockHolder(path, options.nowMs)
    if (!holder) return { lock: undefined }
    return { refused: `${what} is being written by pid ${holder.pid} on ${holder.host}`, isLocked: true }
  } catch (error) {
    return { refused: messageOf(error), isLocked: error instanceof L3capError && error.code === 'LOCKED' }
  }
}

function repairOne(path: string, report: RepairReport): void {
  report.examined += 1
  try {
    const movedBytes = report.dryRun ? tailBytes(path) : (repairTail(path)?.movedBytes ?? 0)
    if (movedBytes > 0) report.repaired.push({ path, movedBytes })
  } catch (error) {
    report.failed.push({ path, message: messageOf(error) })
  }
}

function withFile<T>(path: string, flags: number, work: (file: number) => T): T | undefined {
  let file: number | undefined
  try {
    file = openSync(path, flags | NO_FOLLOW | NO_WAIT)
    if (!fstatSync(file).isFile()) throw new Error('it is no regular file')
    return work(file)
  } catch (error) {
    if (file === undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new L3capError('VAULT', `cannot repair ${path}: ${messageOf(error)}`, { cause: error })
  } finally {
    if (file !== undefined) closeSync(file)
  }
}

/** The size, and how much of it is whole lines: what follows the last line end, and last lines with a NUL, are not. */
function measure(file: number): { wholeBytes: number; sizeBytes: number } {
  const sizeBytes = fstatSync(file).size
  let wholeBytes = findLineStart(file, sizeBytes) ?? 0
  while (wholeBytes > 0) {
    let hasNul = false
    const start = findLineStart(file, wholeBytes - 1, 0, bytes => {
      hasNul ||= bytes.includes(0)
    })
    if (!hasNul) break
    wholeBytes = start ?? 0
  }
  return { wholeBytes, sizeBytes }
}

/** Appends a range of the file to the torn file, on a line of its own, and brings both file and directory to disk. */
function appendTail(file: number, start: number, end: number, tornPath: string): void {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | NO_FOLLOW | NO_WAIT
  const torn = openSync(tornPath, flags, TORN_MODE)
  try {
    const stats = fstatSync(torn)
    if (!stats.isFile()) throw new Error(`${tornPath} is no regular file`)
    const { size } = stats
    if (size > 0 && readRange(torn, size - 1, size)[0] !== 10) writeSync(torn, '\n')
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, end - start))
    for (let position = start; position < end; ) {
      const count = readSync(file, chunk, 0, Math.min(chunk.length, end - position), position)
      if (count === 0) throw new Error('the file became shorter while it was read')
      for (let done = 0; done < count; ) done += writeSync(torn, chunk, done, count - done)
      position += count
    }
    fsyncSync(torn)
  } finally {
    closeSync(torn)
  }
  syncDirectory(dirname(tornPath))
}

/** Brings new and changed names of a directory to disk; Windows has no such thing and needs none. */
export function syncDirectory(directory: string): void {
  if (process.platform === 'win32') return
  const file = openSync(directory, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** Brings the content of a file to disk. */
export function syncFile(path: string): void {
  const file = openSync(path, 'r+') // Windows syncs only what is open for writing
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
