/** Mending what a check found, from the frames, into another vault: the one that is mended stays as it is. */
import { constants, copyFileSync, cpSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import type { Finding } from '../quality/finding.ts'
import { type HourFile, type HourFilter, hourPath, listHours, parseHourPath } from '../vault/layout.ts'
import { readBytes } from '../vault/reader.ts'
import { placeOf } from '../vault/streams.ts'
import { type HourTask, rebuildHour } from './rebuild-hour.ts'

/** What was done with the files of a vault; paths relative to it. */
export interface MendReport {
  readonly vault: string
  readonly out: string
  /** Files that were taken over byte for byte. */
  copied: number
  /** Files that were made again from the frames. */
  readonly mended: string[]
  /** Files in which the check found errors, taken over as they are, and why they could not be made again. */
  readonly kept: { readonly file: string; readonly why: string }[]
}

/** The files of one stream and hour: a compressed one, a plain one, or both; none where the feed is missing. */
interface Hour {
  readonly exchange: string
  readonly feed: string
  readonly name: string
  readonly hour: number
  readonly files: HourFile[]
  errors: number
}

const NEWLINE = 10
/** `status` tells of the capture itself, which no frame does. */
const NOT_DERIVED: readonly string[] = ['frames', 'status']
const META_KEPT: readonly string[] = ['instruments', 'coverage']

/**
 * Writes a vault into `out`, which must not hold one: what has no error is taken over byte for byte; derived files with errors, or
 * that are missing, are made again where all frames of their exchange and hour are whole; what cannot be is taken over as it
 * is, and named. A rebuilt hour that has fewer records than the old one (whose frames were not kept all the time) does not
 * replace it. `findings` are those of `check --deep`.
 * @throws {L3capError} `VAULT` when something cannot be read or written
 */
export async function mendVault(
  vault: string,
  out: string,
  filter: HourFilter,
  findings: readonly Finding[]
): Promise<MendReport> {
  const report: MendReport = { vault, out, copied: 0, mended: [], kept: [] }
  const hours = gather(vault, filter, findings)
  const scratch = join(out, 'scratch')
  try {
    for (const group of byExchangeAndHour(hours)) await mendHour(group, report, scratch)
    copyMeta(report, [...new Set([...hours.values()].map(({ exchange }) => exchange))])
    writeFileSync(join(out, 'meta', 'mended.json'), `${JSON.stringify(report, null, 1)}\n`)
  } catch (error) {
    if (error instanceof L3capError) throw error
    throw new L3capError('VAULT', `cannot write to ${out}: ${messageOf(error)}`, { cause: error })
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return report
}

/** All hours of a vault, and those that findings say are missing, by the place of their plain file. */
function gather(vault: string, filter: HourFilter, findings: readonly Finding[]): Map<string, Hour> {
  const hours = new Map<string, Hour>()
  const hourOf = ({ exchange, feed, name, hour }: Omit<Hour, 'files' | 'errors'>): Hour => {
    const key = hourPath('', exchange, feed, name, hour)
    const found = hours.get(key) ?? { exchange, feed, name, hour, files: [], errors: 0 }
    hours.set(key, found)
    return found
  }
  // The frames of a connection concern many instruments.
  for (const file of listHours(vault, { exchange: filter.exchange })) {
    if (file.feed === 'frames' || isWanted(file.name, filter)) hourOf(file).files.push(file)
  }
  for (const { severity, file } of findings) {
    const path = severity === 'error' ? parseHourPath(file) : undefined
    if (path && (path.feed === 'frames' || isWanted(path.name, filter))) hourOf(path).errors++
  }
  return hours
}

function isWanted(name: string, { name: wanted }: HourFilter): boolean {
  return wanted === undefined || [wanted].flat().includes(name)
}

function byExchangeAndHour(hours: ReadonlyMap<string, Hour>): Iterable<Hour[]> {
  const groups = new Map<string, Hour[]>()
  for (const hour of hours.values()) {
    const key = `${hour.exchange}/${hour.hour}`
    const group = groups.get(key) ?? []
    groups.set(key, group)
    group.push(hour)
  }
  return groups.values()
}

async function mendHour(group: readonly Hour[], report: MendReport, scratch: string): Promise<void> {
  const frames = group.filter(({ feed }) => feed === 'frames')
  const broken = group.filter(({ feed, errors }) => errors > 0 && !NOT_DERIVED.includes(feed))
  const isWhole = frames.length > 0 && frames.every(({ errors }) => errors === 0)
  if (broken.length > 0 && isWhole) await rebuildHour(taskOf(frames, broken, scratch))
  for (const hour of group) {
    const why = hour.errors > 0 ? await obstacle(hour, frames, isWhole, scratch) : undefined
    if (hour.errors > 0 && why === undefined) take(hour, report, scratch)
    else keep(hour, report, why)
  }
}

function taskOf(frames: readonly Hour[], broken: readonly Hour[], out: string): HourTask {
  const connections = frames.map(({ files }) =>
    files.filter(({ kind }) => kind === 'gz' || kind === 'jsonl').map(({ path }) => path)
  )
  return { exchange: frames[0]!.exchange, out, connections, names: [...new Set(broken.map(({ name }) => name))] }
}

/** Why an hour with errors cannot be made again; undefined when it was. */
async function obstacle(
  hour: Hour,
  frames: readonly Hour[],
  isWhole: boolean,
  scratch: string
): Promise<string | undefined> {
  if (hour.feed === 'frames') return 'nothing else tells what came over the wire'
  if (hour.feed === 'status') return 'no frame tells what happened to the capture'
  if (frames.length === 0) return 'there are no frames of this hour'
  if (!isWhole) return 'frames of this hour are damaged, too'
  const made = rebuiltPath(hour, scratch)
  const [is, was] = [existsSync(made) ? await countLines(made) : 0, await countAll(hour)]
  // Lines that are wrong are part of the old count.
  if (is + hour.errors < was) return `its frames give ${is} records, and it has ${was}: they were not kept all the time`
  return undefined
}

function rebuiltPath({ exchange, feed, name, hour }: Hour, scratch: string): string {
  return hourPath(scratch, exchange, feed, name, hour)
}

async function countAll({ files }: Hour): Promise<number> {
  let count = 0
  for (const { path, kind } of files) if (kind === 'gz' || kind === 'jsonl') count += await countLines(path)
  return count
}

/** The whole lines of a file; of a damaged one those before the damage. */
async function countLines(path: string): Promise<number> {
  let count = 0
  try {
    for await (const chunk of readBytes(path)) {
      for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, at + 1)) count++
    }
  } catch (error) {
    if (!(error instanceof L3capError) || error.code !== 'VAULT_DAMAGED') throw error
  }
  return count
}

function take(hour: Hour, report: MendReport, scratch: string): void {
  const made = rebuiltPath(hour, scratch)
  const { exchange, feed, name } = hour
  const path = hourPath(report.out, exchange, feed, name, hour.hour)
  report.mended.push(placeOf(report.out, path))
  if (!existsSync(made)) return
  mkdirSync(dirname(path), { recursive: true })
  renameSync(made, path)
}

function keep({ files }: Hour, report: MendReport, why: string | undefined): void {
  for (const { path } of files) {
    const file = placeOf(report.vault, path)
    const target = join(report.out, file)
    mkdirSync(dirname(target), { recursive: true })
    copyFileSync(path, target, constants.COPYFILE_FICLONE)
    if (why === undefined) report.copied++
    else report.kept.push({ file, why })
  }
}

function copyMeta({ vault, out }: MendReport, exchanges: readonly string[]): void {
  mkdirSync(join(out, 'meta'), { recursive: true })
  for (const exchange of exchanges) {
    for (const kind of META_KEPT) {
      const from = join(vault, 'meta', exchange, kind)
      if (existsSync(from)) cpSync(from, join(out, 'meta', exchange, kind), { recursive: true })
    }
  }
}
