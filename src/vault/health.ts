/** The health files of a vault: replaced as a whole by running captures, read by whoever watches them. */
import { lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'

/** What a health file holds at most; anything larger is not one. */
const BYTES_MAX = 32 * 1024 * 1024

/** One health file as it was found: its text, or why there is none to read. */
export interface FoundHealth {
  readonly path: string
  /** The folder it stands in. */
  readonly exchange: string
  /** When it was last replaced, by the clock of the file system, milliseconds since the epoch. */
  readonly modifiedMs: number
  readonly text: string | null
  readonly trouble: string | null
}

/**
 * Replaces a file as a whole without ever blocking: a reader sees the old content or the new one. Not synced. Rejects with
 * the refusal of the disk; the old file stands then.
 */
export async function replaceSoon(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o750 })
  // One process writes the file at a time, so one name will do, and a killed process leaves at most one.
  const temporary = `${path}.tmp`
  try {
    await writeFile(temporary, text, { mode: 0o640 })
    await rename(temporary, path)
  } catch (error) {
    // What stands in the way may not be removable either; the first refusal is the one to tell.
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
}

/**
 * Every health file of a vault, by exchange and name. A file that cannot be read is among them, with its trouble.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export async function readHealthFiles(vault: string): Promise<FoundHealth[]> {
  const found: FoundHealth[] = []
  for (const exchange of await namesIn(join(vault, 'meta'))) {
    const folder = join(vault, 'meta', exchange, 'health')
    for (const name of await namesIn(folder)) {
      if (name.endsWith('.json')) found.push(await readOne(join(folder, name), exchange))
    }
  }
  return found
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new L3capError('VAULT', `cannot read ${directory}: ${messageOf(error)}`, { cause: error })
  }
}

async function readOne(path: string, exchange: string): Promise<FoundHealth> {
  const none = { path, exchange, modifiedMs: 0, text: null }
  try {
    const stat = await lstat(path)
    // A pipe would never end, a link may lead anywhere.
    if (!stat.isFile()) return { ...none, trouble: 'no regular file' }
    if (stat.size > BYTES_MAX) return { ...none, trouble: `${stat.size} bytes are too many` }
    return { path, exchange, modifiedMs: stat.mtimeMs, text: await readFile(path, 'utf8'), trouble: null }
  } catch (error) {
    return { ...none, trouble: messageOf(error) }
  }
}
