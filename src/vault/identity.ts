/**
 * Which directory is the vault. A disk that is not mounted leaves an empty directory in its place: writing there would
 * fill another disk, and hide everything when the right one comes back. So a vault carries an id, a capture looks at it
 * before it opens a file, and a vault that was written before is not silently begun anew.
 */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { replaceFile } from './metadata.ts'
import { syncDirectory } from './repair.ts'

/** How a vault is opened. */
export interface OpenOptions {
  /** File that remembers, outside of the vault, which vaults were written; null: nothing is remembered. */
  readonly memory: string | null
  /** Begin anew what was there before. */
  readonly create: boolean
  /** ISO 8601 UTC. */
  readonly nowIso: string
}

/** A vault that is there. */
export class VaultIdentity {
  private readonly root: string
  private readonly id: string
  private place: string
  private checking: Promise<void> | null = null

  private constructor(root: string, id: string, place: string) {
    this.root = root
    this.id = id
    this.place = place
  }

  /**
   * Opens a vault for writing; makes its directory and its `meta/vault.json` when they are missing.
   * @throws {L3capError} `VAULT` when it was there before and is not now, or cannot be written
   */
  static open(root: string, { memory, create, nowIso }: OpenOptions): VaultIdentity {
    const path = resolve(root)
    const known = memory === null ? {} : recall(memory)
    if (isEmpty(path) && Object.hasOwn(known, path) && !create)
      throw new L3capError(
        'VAULT',
        `the vault ${path} has been written since ${known[path]}, and now it is empty or not there. Is its disk mounted? ` +
          '--create begins a new one'
      )
    try {
      mkdirSync(path, { recursive: true, mode: 0o750 })
      const id = readId(path) ?? writeId(path, nowIso)
      // A vault is not remembered before its own name, and that of what is in it, would survive a power cut.
      for (const directory of [path, dirname(path)]) syncDirectory(directory)
      if (memory !== null && !Object.hasOwn(known, path))
        replaceFile(memory, `${JSON.stringify({ ...known, [path]: nowIso }, null, 2)}\n`, true)
      return new VaultIdentity(path, id, placeOf(statSync(path)))
    } catch (error) {
      throw new L3capError('VAULT', `cannot write the vault ${path}: ${messageOf(error)}`, { cause: error })
    }
  }

  /**
   * Rejects when the directory is not the vault that was opened: it was removed, or its disk is no longer mounted. Never
   * asked twice at a time: a disk that does not answer must not hold one thread of the process after the other.
   */
  check(): Promise<void> {
    this.checking ??= this.look().finally(() => {
      this.checking = null
    })
    return this.checking
  }

  private async look(): Promise<void> {
    const place = placeOf(await stat(this.root))
    if (place === this.place) return
    // Mounted again it may be another device.
    const text = await readFile(markerPath(this.root), 'utf8')
    if (idIn(text) !== this.id) throw new Error(`${this.root} is another vault than the one that was opened`)
    this.place = place
  }
}

function markerPath(root: string): string {
  return join(root, 'meta', 'vault.json')
}

function placeOf({ dev, ino }: { dev: number; ino: number }): string {
  return `${dev}:${ino}`
}

function isEmpty(path: string): boolean {
  return !existsSync(path) || readdirSync(path).length === 0
}

function readId(path: string): string | undefined {
  try {
    return idIn(readFileSync(markerPath(path), 'utf8'))
  } catch {
    return undefined // missing, or something stands in its place: it is written anew
  }
}

function idIn(text: string): string | undefined {
  try {
    const { id } = JSON.parse(text) as { id?: unknown }
    return typeof id === 'string' ? id : undefined
  } catch {
    return undefined // damaged
  }
}

function writeId(path: string, nowIso: string): string {
  const id = randomUUID()
  replaceFile(markerPath(path), `${JSON.stringify({ id, created_utc: nowIso }, null, 2)}\n`, true)
  return id
}

/** Vaults by path, with the time when they were first written. A damaged memory is an empty one. */
function recall(memory: string): Record<string, string> {
  try {
    const value: unknown = JSON.parse(readFileSync(memory, 'utf8'))
    return typeof value === 'object' && value !== null ? { ...(value as Record<string, string>) } : {}
  } catch {
    return {}
  }
}
