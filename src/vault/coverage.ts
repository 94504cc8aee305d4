/** The days whose coverage `check` has stored: what is known of them when retention has deleted their hours. */
import { lstatSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import stringify from 'fast-json-stable-stringify'
import { L3capError, messageOf } from '../core/errors.ts'
import { coveragePath } from './layout.ts'
import { replaceFile } from './metadata.ts'
import { readSmall } from './reader.ts'

/** One stored day as it was found: its text, or why there is none to read. */
export interface FoundDay {
  readonly path: string
  readonly date: string
  readonly text: string | null
  readonly trouble: string | null
}

const DATE_FILE = /^\d{4}-\d\d-\d\d\.json$/
/** A day has at most 24 hours and not many thousand gaps; anything larger is not one. */
const BYTES_MAX = 32 * 1024 * 1024

/**
 * The folder names of an exchange's instruments that have stored days.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export function coveredNames(vault: string, exchange: string): string[] {
  return namesIn(join(vault, 'meta', exchange, 'coverage'))
}

/**
 * The exchanges that have stored days.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export function coveredExchanges(vault: string): string[] {
  return namesIn(join(vault, 'meta')).filter(exchange => coveredNames(vault, exchange).length > 0)
}

/**
 * The stored days of an instrument (by its folder name), in order. One that cannot be read is among them, with its trouble.
 * @throws {L3capError} `VAULT` when the directory cannot be read
 */
export function readDays(vault: string, exchange: string, name: string): FoundDay[] {
  const folder = dirname(coveragePath(vault, exchange, name, 'any'))
  const files = namesIn(folder).filter(file => DATE_FILE.test(file))
  return files.map(file => readDay(join(folder, file)))
}

function readDay(path: string): FoundDay {
  const date = basename(path, '.json')
  try {
    const { size } = lstatSync(path)
    if (size > BYTES_MAX) return { path, date, text: null, trouble: `${size} bytes are too many` }
    return { path, date, text: readSmall(path), trouble: null }
  } catch (error) {
    return { path, date, text: null, trouble: messageOf(error) }
  }
}

/**
 * Replaces the stored coverage of a day as a whole, unless it says the same already. True when the file was written.
 * Throws what the disk refuses it with.
 */
export function writeDay(vault: string, exchange: string, name: string, date: string, value: object): boolean {
  const path = coveragePath(vault, exchange, name, date)
  const text = `${stringify(value)}\n`
  if (readDay(path).text === text) return false
  replaceFile(path, text, true)
  return true
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new L3capError('VAULT', `cannot read ${directory}: ${messageOf(error)}`, { cause: error })
  }
}
