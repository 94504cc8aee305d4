import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import stringify from 'fast-json-stable-stringify'
import { instrumentPath } from './layout.ts'
import { readSmall } from './reader.ts'
import { syncDirectory } from './repair.ts'

/** Replaces a file as a whole: a reader sees the old content or the new one, never a part. */
export function replaceFile(path: string, text: string, sync: boolean): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o750 })
  const temporary = `${path}.${process.pid}.tmp`
  try {
    const file = openSync(temporary, 'w', 0o640)
    try {
      const bytes = Buffer.from(text)
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
      if (sync) fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
    if (sync) syncDirectory(dirname(path))
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

/**
 * Stores metadata as JSON unless the file says the same already; `updated_utc` is when it last differed.
 * True when the file was written.
 */
export function storeMetadata(path: string, value: object, nowIso: string): boolean {
  if (sameAsStored(path, value)) return false
  replaceFile(path, `${JSON.stringify({ ...value, updated_utc: nowIso }, null, 2)}\n`, true)
  return true
}

/** The market that the vault has an instrument's name for, by its metadata; undefined when it has none. */
export function storedMarket(vault: string, exchange: string, instId: string): unknown {
  try {
    return (JSON.parse(readSmall(instrumentPath(vault, exchange, instId))) as { market?: unknown }).market
  } catch {
    return undefined
  }
}

function sameAsStored(path: string, value: object): boolean {
  try {
    const stored = JSON.parse(readSmall(path)) as Record<string, unknown>
    delete stored.updated_utc
    return stringify(stored) === stringify(value)
  } catch {
    // Missing or damaged: it is written anew.
    return false
  }
}
