/** Where a check remembers what it has told whom. A vault whose disk is dead must still raise an alert: nothing here fails. */
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { replaceSoon } from './health.ts'
import { folderName } from './layout.ts'
import { readSmall } from './reader.ts'

/**
 * `<vault>/meta/check/alerts.json`, or `alerts-<scope>.json` for a check of a part of the vault: two checks that look at
 * different things would each take for ended what only the other sees.
 */
export function alertStatePath(vault: string, scope: string): string {
  return join(vault, 'meta', 'check', scope === '' ? 'alerts.json' : `alerts-${folderName(scope)}.json`)
}

/** The state as it was stored; undefined where there is none that can be read. */
export function readAlertState(path: string): unknown {
  try {
    return JSON.parse(readSmall(path))
  } catch {
    return undefined // missing, or damaged: a fresh start
  }
}

/**
 * Replaces the stored state as a whole, without blocking. Resolves to the error when the disk does not take it. Makes the
 * folder, but none above it: no vault shall grow in the bare mount point of a disk that is gone.
 */
export async function storeAlertState(path: string, text: string): Promise<unknown> {
  try {
    await mkdir(dirname(path), { mode: 0o750 }).catch(error => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    })
    await replaceSoon(path, text)
    return undefined
  } catch (error) {
    return error
  }
}
