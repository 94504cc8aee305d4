/**
 * Compressing and deleting old hours. The age of an hour is counted from its end as its path names it, never from file
 * times. An hour is compressed in steps that a crash may end anywhere: write `.gz.tmp`, sync it, read it back and compare,
 * rename it to `.gz`, sync the directory, delete the plain file. Whatever is found by the next run, it either starts again
 * from the plain file or sees that the `.gz` holds it already.
 */
import { createHash } from 'node:crypto'
import {
  createWriteStream,
  existsSync,
  lstatSync,
  renameSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync
} from 'node:fs'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { L3capError, messageOf } from '../core/errors.ts'
import { isoMs } from '../core/time.ts'
import {
  type DateDirectory,
  type HourFile,
  type HourFilter,
  retentionLockPath,
  retentionStatePath,
  siblingPath,
  walkDates
} from './layout.ts'
import { acquireLock } from './lock.ts'
import { readBytes } from './reader.ts'
import { syncDirectory, syncFile } from './repair.ts'
import { isSameClock, judgeClock, readClock, storeClock } from './retention-clock.ts'

/** The moments between two changes of the vault, in their order, as `onStep` is told of them. */
export type RetentionStep =
  | 'compress'
  | 'temporary-written'
  | 'temporary-compared'
  | 'renamed'
  | 'plain-deleted'
  | 'delete'
  | 'deleted'

/** Durations are counted from the end of the hour. `nowMs` is the wall clock that they are compared with. */
export interface RetentionOptions {
  readonly nowMs: number
  readonly filter?: HourFilter | undefined
  /** Default 6 h, at least 10 min: a capture may be writing for some seconds after the hour ended. */
  readonly compressAfterMs?: number | undefined
  /** Default 5 d, at least `compressAfterMs`. */
  readonly deleteAfterMs?: number | undefined
  /** Says what would be done, and changes nothing. */
  readonly dryRun?: boolean | undefined
  /** Deletes although the clock is far ahead of the last run's, and ends a hold. */
  readonly deleteNow?: boolean | undefined
  /** Told of each step and the plain file it concerns; what it throws ends the run there, as a crash would. */
  readonly onStep?: ((step: RetentionStep, path: string) => void) | undefined
}

/** What was done, or would be. Sizes are bytes on disk; `gzBytes` is null in a dry run. */
export interface RetentionReport {
  readonly vault: string
  /** The clock that was used, ISO 8601 UTC. */
  readonly at: string
  readonly dryRun: boolean
  /** Hours compressed; `joined` where late lines were put behind those of an older `.gz`. */
  readonly compressed: { path: string; bytes: number; gzBytes: number | null; joined: boolean }[]
  /** Plain files deleted because the `.gz` held their lines already: an earlier run had died. */
  readonly finished: { path: string; bytes: number }[]
  readonly deleted: { path: string; bytes: number }[]
  /** Leftovers of compressions that did not finish. */
  readonly leftovers: { path: string; bytes: number }[]
  readonly directories: string[]
  /** Until when (ISO 8601 UTC) nothing is deleted, because the clock leapt; null when there is no such hold. */
  readonly heldUntil: string | null
  /** What would have been deleted but for the hold. */
  readonly held: { path: string; bytes: number }[]
  readonly warnings: string[]
  readonly failed: { path: string; message: string }[]
}

/** The shortest age at which an hour may be touched. */
export const AGE_MS_MIN = 600_000
/** 6 h. */
export const COMPRESS_AFTER_MS = 21_600_000
/** 5 d. */
export const DELETE_AFTER_MS = 432_000_000

const HOUR_MS = 3_600_000
const GZIP_LEVEL = 6
/** A compressed hour is as private as the plain one was, and for nobody else to change. */
const MODE_MAX = 0o644

/** Carries what `onStep` threw past the handling of failures: after a crash nothing is tidied up either. */
class Interruption extends Error {}

interface Work {
  readonly options: RetentionOptions
  readonly report: RetentionReport & { heldUntil: string | null }
  readonly compressAfterMs: number
  readonly deleteAfterMs: number
}

/** The mistakes in a pair of ages, as sentences; none when they can be used. */
export function ageMistakes(compressAfterMs: number, deleteAfterMs: number): string[] {
  const mistakes: string[] = []
  if (compressAfterMs < AGE_MS_MIN) mistakes.push('--compress-after must be at least 10m')
  if (deleteAfterMs < AGE_MS_MIN) mistakes.push('--delete-after must be at least 10m')
  if (deleteAfterMs < compressAfterMs) mistakes.push('--delete-after must not be shorter than --compress-after')
  return mistakes
}

/**
 * Compresses and deletes the old hours of a vault, deletions first as they make room. Safe while captures run. One file's
 * failure does not stop the others: it is in `failed`. Hours later than `nowMs` are in `warnings`: a clock is wrong. When
 * `nowMs` is more than two days after the last run, nothing is deleted for a day (`heldUntil`, with a warning).
 * @throws {L3capError} `USAGE` for ages that are not allowed, `VAULT` when there is no vault, `LOCKED` when another
 * retention works on it
 */
export async function runRetention(vault: string, options: RetentionOptions): Promise<RetentionReport> {
  const compressAfterMs = options.compressAfterMs ?? COMPRESS_AFTER_MS
  const deleteAfterMs = options.deleteAfterMs ?? DELETE_AFTER_MS
  const mistakes = ageMistakes(compressAfterMs, deleteAfterMs)
  if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
  checkVault(vault)
  const dryRun = options.dryRun ?? false
  const report: Work['report'] = {
    vault,
    at: isoMs(options.nowMs * 1000),
    dryRun,
    compressed: [],
    finished: [],
    deleted: [],
    leftovers: [],
    directories: [],
    heldUntil: null,
    held: [],
    warnings: [],
    failed: []
  }
  const what = `retention: ${vault}`
  const lock = dryRun
    ? undefined
    : acquireLock(retentionLockPath(vault), { command: 'l3cap retention', nowMs: options.nowMs, what })
  try {
    await runHeld(vault, { options, report, compressAfterMs, deleteAfterMs })
  } catch (error) {
    throw error instanceof Interruption ? error.cause : error
  } finally {
    lock?.release()
  }
  return report
}

function checkVault(vault: string): void {
  if (!existsSync(vault) || !statSync(vault).isDirectory())
    throw new L3capError('VAULT', `there is no vault at ${vault}`)
  const raw = join(vault, 'raw')
  // Links inside a vault are left alone; here that would mean a disk filling up with nobody being told.
  if (lstatSync(raw, { throwIfNoEntry: false })?.isSymbolicLink()) {
    throw new L3capError('VAULT', `${raw} is a link: make the vault directory itself the link, or name the real one`)
  }
}

/**
 * Runs, with the clock of the last run in mind: one that leapt far ahead would make everything old at once. What is to be
 * remembered is written before anything is deleted; a disk too full for that is tried again when there is room.
 */
async function runHeld(vault: string, work: Work): Promise<void> {
  const { report, options } = work
  const last = readClock(vault)
  const { state, warning } = judgeClock(last, options.nowMs, options.deleteNow ?? false)
  report.heldUntil = state.heldUntilMs === null ? null : isoMs(state.heldUntilMs * 1000)
  if (warning !== undefined) report.warnings.push(warning)
  if (report.dryRun || isSameClock(last, state)) return await runAll(vault, work)
  const isStored = storeClock(vault, state) === undefined
  await runAll(vault, work)
  const trouble = isStored ? undefined : storeClock(vault, state)
  if (trouble !== undefined) report.failed.push({ path: retentionStatePath(vault), message: messageOf(trouble) })
}

async function runAll(vault: string, work: Work): Promise<void> {
  const { report, options } = work
  const dates = [
    ...walkDates(vault, options.filter, (path, error) => report.failed.push({ path, message: messageOf(error) }))
  ]
  const ahead = dates.flatMap(date => date.files.filter(file => file.hour * HOUR_MS > options.nowMs))
  if (ahead.length > 0) {
    report.warnings.push(
      `${ahead.length} files of hours that have not begun, such as ${ahead[0]!.path}: look at the clock`
    )
  }
  for (const date of dates) {
    for (const file of date.files) if (ageMs(file, work) >= work.deleteAfterMs) deleteFile(file, 'deleted', work)
    removeDirectory(date, work)
  }
  for (const date of dates) {
    for (const file of date.files) {
      const age = ageMs(file, work)
      if (age < work.compressAfterMs || age >= work.deleteAfterMs) continue
      if (file.kind === 'jsonl') await compressHour(file, work)
      // Beside a plain file it was replaced just now; alone it can never be finished.
      else if (file.kind === 'tmp' && !date.files.some(other => other.hour === file.hour && other.kind === 'jsonl')) {
        deleteFile(file, 'leftovers', work)
      }
    }
  }
}

function ageMs(file: HourFile, work: Work): number {
  return work.options.nowMs - (file.hour + 1) * HOUR_MS
}

function step(work: Work, name: RetentionStep, path: string): void {
  try {
    work.options.onStep?.(name, path)
  } catch (error) {
    throw new Interruption('interrupted', { cause: error })
  }
}

function deleteFile(file: HourFile, list: 'deleted' | 'leftovers', work: Work): void {
  try {
    const bytes = regular(file.path).size
    if (list === 'deleted' && work.report.heldUntil !== null) {
      work.report.held.push({ path: file.path, bytes })
      return
    }
    if (!work.report.dryRun) {
      step(work, 'delete', file.path)
      unlinkSync(file.path)
      step(work, 'deleted', file.path)
    }
    work.report[list].push({ path: file.path, bytes })
  } catch (error) {
    fail(file.path, error, work)
  }
}

/** Removes the directory of a day when all its hours are to be deleted and nothing else stands in it. */
function removeDirectory(date: DateDirectory, work: Work): void {
  const endMs = (date.firstHour + 24) * HOUR_MS
  if (work.options.nowMs - endMs < work.deleteAfterMs || work.report.dryRun || work.report.heldUntil !== null) return
  try {
    rmdirSync(date.path)
    work.report.directories.push(date.path)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(code)) fail(date.path, error, work)
  }
}

async function compressHour(file: HourFile, work: Work): Promise<void> {
  const temporary = siblingPath(file, 'tmp')
  let isOurs = false
  try {
    const plain = regular(file.path)
    const gzPath = siblingPath(file, 'gz')
    const gz = lstatSync(gzPath, { throwIfNoEntry: false })
    if (gz && !gz.isFile()) throw new Error(`${gzPath} is in the way and no regular file`)
    if (work.report.dryRun) {
      work.report.compressed.push({ path: file.path, bytes: plain.size, gzBytes: null, joined: gz !== undefined })
      return
    }
    step(work, 'compress', file.path)
    removeTemporary(temporary)
    const parts = gz ? await partsToJoin(gzPath, file.path, plain.size) : [file.path]
    if (parts.length > 0) {
      isOurs = true
      await writeTemporary(parts, temporary, plain.mode, () => step(work, 'temporary-written', file.path))
      step(work, 'temporary-compared', file.path)
      unchanged(file.path, plain)
      renameSync(temporary, gzPath)
      isOurs = false
      step(work, 'renamed', file.path)
    }
    finish(file.path, gzPath, plain)
    step(work, 'plain-deleted', file.path)
    if (parts.length === 0) work.report.finished.push({ path: file.path, bytes: plain.size })
    else {
      const gzBytes = statSync(gzPath).size
      work.report.compressed.push({ path: file.path, bytes: plain.size, gzBytes, joined: gz !== undefined })
    }
  } catch (error) {
    fail(file.path, error, work)
    // A full disk is not to be filled with halves.
    if (isOurs) removeTemporary(temporary)
  }
}

/** Deletes the plain file, once the `.gz` and its name are on disk: the renaming run may have died before it knew. */
function finish(path: string, gzPath: string, plain: Stats): void {
  syncFile(gzPath)
  syncDirectory(dirname(gzPath))
  unchanged(path, plain)
  unlinkSync(path)
  syncDirectory(dirname(path))
}

/** Writes the parts as one gzip member, so that no cut can fall between two, and proves that they can be read again. */
async function writeTemporary(
  parts: readonly string[],
  temporary: string,
  mode: number,
  onWritten: () => void
): Promise<void> {
  const written = createHash('sha256')
  async function* content(): AsyncGenerator<Buffer> {
    let last = 10
    for (const part of parts) {
      let isFirst = true
      for await (const bytes of readBytes(part)) {
        // Half a line at the end of the older part must not swallow the first line of the next.
        if (isFirst && last !== 10) {
          written.update('\n')
          yield Buffer.from('\n')
        }
        isFirst = false
        written.update(bytes)
        last = bytes.at(-1) ?? last
        yield bytes
      }
    }
  }
  await pipeline(
    content,
    createGzip({ level: GZIP_LEVEL }),
    createWriteStream(temporary, { flags: 'wx', mode: mode & MODE_MAX })
  )
  syncFile(temporary)
  onWritten()
  const read = createHash('sha256')
  for await (const bytes of readBytes(temporary)) read.update(bytes)
  if (read.digest('hex') !== written.digest('hex')) throw new Error(`${temporary} does not hold what was written to it`)
}

/**
 * What the new `.gz` of an hour with both files is made of: nothing new when the old one ends with the plain file's
 * content, the plain file alone when that begins with the old one's, else both.
 */
async function partsToJoin(gzPath: string, path: string, plainBytes: number): Promise<string[]> {
  let gzBytes = 0
  for await (const bytes of readBytes(gzPath)) gzBytes += bytes.length
  const common = Math.min(gzBytes, plainBytes)
  const isCommon = (await hashRange(gzPath, gzBytes - common, gzBytes)) === (await hashRange(path, 0, common))
  if (!isCommon) return [gzPath, path]
  return plainBytes <= gzBytes ? [] : [path]
}

/** The hash of a part of a file's content. */
async function hashRange(path: string, start: number, end: number): Promise<string> {
  const hash = createHash('sha256')
  let position = 0
  for await (const bytes of readBytes(path)) {
    hash.update(bytes.subarray(Math.max(0, start - position), Math.max(0, end - position)))
    position += bytes.length
  }
  return hash.digest('hex')
}

function regular(path: string): Stats {
  const stats = lstatSync(path)
  if (!stats.isFile()) throw new Error('it is no regular file')
  return stats
}

/** Throws when the plain file is another than it was: somebody writes to an hour that should be long closed. */
function unchanged(path: string, before: Stats): void {
  const now = regular(path)
  if (now.size !== before.size || now.ino !== before.ino || now.mtimeMs !== before.mtimeMs) {
    throw new Error('it was changed while it was compressed; the next run will take it')
  }
}

/** A link or directory of that name is not ours: creating the file then fails, and the hour is reported. */
function removeTemporary(temporary: string): void {
  if (lstatSync(temporary, { throwIfNoEntry: false })?.isFile()) unlinkSync(temporary)
}

function fail(path: string, error: unknown, work: Work): void {
  if (error instanceof Interruption) throw error
  work.report.failed.push({ path, message: messageOf(error) })
}
