/** Which files a vault holds, and who writes them now. */
import { type Dirent, existsSync, lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import type { Finding } from '../quality/finding.ts'
import { judgePlaces, type PlacedFile } from '../quality/place.ts'
import { type HourFile, lockPath, parseHourPath, retentionLockPath } from '../vault/layout.ts'
import { lockHolder } from '../vault/lock.ts'
import { placeOf } from '../vault/streams.ts'
import { type CheckScope, isOpenEnd, makeFinding } from './check-tasks.ts'

/** Everything below `raw`. */
export interface Holdings {
  /** Hour files of all kinds, each with its size, in the order of their paths; of one hour the `.gz` first. */
  readonly files: readonly (HourFile & { readonly bytes: number })[]
  /** What is no hour file; paths relative to the vault. */
  readonly foreign: readonly string[]
  /** Directories that cannot be read. */
  readonly findings: readonly Finding[]
}

const NO_PLACE = { exchange: '', feed: '', name: '', file: '' }
/** raw/exchange/feed/name/date: below that there are no directories of ours. */
const DEPTH_MAX = 5
const FOREIGN_MAX = 1000

/** Walks a vault. Links are not followed; files that disappear meanwhile are left out. */
export function listHoldings(vault: string): Holdings {
  const files: (HourFile & { bytes: number })[] = []
  const foreign: string[] = []
  const findings: Finding[] = []
  const tell = (path: string): void => {
    if (foreign.length < FOREIGN_MAX) foreign.push(path)
  }
  const walk = (directory: string, depth: number): void => {
    for (const entry of entriesOf(vault, directory, findings)) {
      const path = join(directory, entry.name)
      const place = placeOf(vault, path)
      const found = entry.isFile() ? parseHourPath(place) : undefined
      if (found !== undefined) {
        const stats = lstatSync(path, { throwIfNoEntry: false })
        if (stats !== undefined) files.push({ ...found, path, bytes: stats.size })
      } else if (entry.isDirectory() && depth < DEPTH_MAX) walk(path, depth + 1)
      else tell(place)
    }
  }
  walk(join(vault, 'raw'), 1)
  return { files, foreign, findings }
}

function entriesOf(vault: string, directory: string, findings: Finding[]): Dirent[] {
  try {
    const order = (name: string) => name.replace(/\.gz$/, '') + (name.endsWith('.gz') ? '' : '~')
    const entries = readdirSync(directory, { withFileTypes: true })
    return entries.sort((a, b) => (order(a.name) < order(b.name) ? -1 : 1))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      const about = { ...NO_PLACE, file: placeOf(vault, directory) }
      findings.push(makeFinding('unreadable', about, null, null, messageOf(error)))
    }
    return []
  }
}

/** `<exchange>/<folder>` of the instruments and connections that running processes write. */
export function namesWritten(vault: string, files: readonly HourFile[], nowMs: number): string[] {
  const recent = files.filter(({ hour }) => (hour + 2) * HOUR_US > nowMs * 1000)
  const names = [...new Set(recent.map(({ exchange, name }) => `${exchange}/${name}`))]
  return names.filter(each => {
    const [exchange, name] = each.split('/') as [string, string]
    return holds(lockPath(vault, exchange, name), nowMs)
  })
}

function holds(path: string, nowMs: number): boolean {
  try {
    return lockHolder(path, nowMs) !== undefined
  } catch {
    // A vault may be a copy without its locks, or one whose locks only its owner may read: nobody is known to write it.
    return false
  }
}

/** Judges what `listHoldings` found by names and sizes. */
export function checkPlaces(holdings: Holdings, scope: CheckScope, report: (finding: Finding) => void): void {
  const byFile = new Map<string, HourFile>()
  const placed = holdings.files.map((file): PlacedFile => {
    const { exchange, feed, name, hour, kind, bytes, path } = file
    const place = placeOf(scope.vault, path)
    byFile.set(place, file)
    return { file: place, exchange, feed, name, hour, kind, bytes }
  })
  for (const finding of holdings.findings) report(finding)
  judgePlaces(placed, holdings.foreign, {
    nowUs: scope.nowUs,
    fromUs: scope.fromUs,
    toUs: scope.toUs,
    isRetaining:
      existsSync(retentionLockPath(scope.vault)) && holds(retentionLockPath(scope.vault), scope.nowUs / 1000),
    isOpen: ({ file }) => isOpenEnd(byFile.get(file)!, scope),
    report
  })
}
