/** The lines of one stream over its hours, as a reader of the records needs them: each once, whatever happens to the files. */
import { L3capError } from '../core/errors.ts'
import { type HourFile, siblingPath } from '../vault/layout.ts'
import { type LineBatch, placeOf, type Range, readHour, recvUsOf, type Stream } from '../vault/streams.ts'

/** Something in a vault that cannot be read. */
export interface Damage {
  /** Relative to the vault, with forward slashes. */
  readonly file: string
  /** From 1; null where it is the whole file, or its rest. */
  readonly line: number | null
  readonly message: string
  readonly cause: unknown
}

/** Lines with the file that they stand in, relative to the vault, and its hour since the epoch. */
export interface PlacedBatch extends LineBatch {
  readonly file: string
  readonly hour: number
}

/**
 * The lines of a stream within a range, in order. Where an hour stands there compressed and plain, lines that are in both are
 * read once; a file that retention compresses meanwhile is read as what it became. A half line at the end of a file is
 * left out: it is being written, or was never finished; `onTail` is told. Of a damaged file what can be read is; `onDamage` is told (or throws).
 * @throws {L3capError} `VAULT` when a file cannot be read
 */
export async function* readStream(
  vault: string,
  stream: Stream,
  range: Range,
  onDamage: (damage: Damage) => void,
  onTail?: () => void
): AsyncGenerator<PlacedBatch> {
  let hour = Number.NaN
  let lastUs = Number.NEGATIVE_INFINITY
  for (const each of stream.hours) {
    if (each.hour !== hour) lastUs = Number.NEGATIVE_INFINITY
    hour = each.hour
    // Retention may have joined the plain file with a compressed one that was read before: twice at most.
    for (let file: HourFile | undefined = each; file !== undefined; ) {
      const { path } = file
      // What is as old as the compressed lines is a copy of them: retention had not removed the plain file yet.
      const fromUs = Math.max(range.fromUs ?? Number.NEGATIVE_INFINITY, lastUs + 1)
      file = undefined
      try {
        for await (const batch of readHour(path, { fromUs, toUs: range.toUs, onTail })) {
          yield { ...batch, file: placeOf(vault, path), hour }
          const us = lastTimeOf(batch.lines)
          if (us > lastUs) lastUs = us
        }
      } catch (error) {
        if (isGone(error) && each.kind === 'jsonl' && path === each.path)
          file = { ...each, kind: 'gz', path: siblingPath(each, 'gz') }
        else if (!isGone(error)) tell(error, placeOf(vault, path), onDamage)
      }
    }
  }
}

function lastTimeOf(lines: readonly string[]): number {
  for (let n = lines.length - 1; n >= 0; n--) {
    const us = recvUsOf(lines[n]!)
    if (!Number.isNaN(us)) return us
  }
  return Number.NEGATIVE_INFINITY
}

function isGone(error: unknown): boolean {
  return error instanceof L3capError && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}

function tell(error: unknown, file: string, onDamage: (damage: Damage) => void): void {
  if (!(error instanceof L3capError) || error.code !== 'VAULT_DAMAGED') throw error
  onDamage({ file, line: null, message: error.message, cause: error })
}
