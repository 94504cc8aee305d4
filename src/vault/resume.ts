/**
 * What a starting capture learns from the vault. Old hours may be damaged: with `onTrouble` what cannot be read is told
 * and passed over, so that it never keeps a capture from starting; without it, it is thrown.
 */
import { lstatSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { hourOf } from '../core/time.ts'
import { folderName, type HourFile, hourPath, streamDir, walkStream } from './layout.ts'
import { lastLine, readLines } from './reader.ts'
import { repairTail, syncDirectory, syncFile } from './repair.ts'

/** Told of a file or directory that cannot be used, and why. */
export type OnTrouble = (path: string, error: unknown) => void

const THROW: OnTrouble = (path, error) => {
  if (error instanceof L3capError) throw error
  throw new L3capError('VAULT', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
}
/** Records so much later than the clock are the work of a clock that was wrong: nobody waits until they are past. */
const AHEAD_HOURS_MAX = 24
const IDS_MIN = 1000
const DAYS_MAX = 5

/** How to look. `nowUs`: the wall clock, µs since the epoch; without it every hour counts, also those far ahead. */
export interface ResumeOptions {
  readonly nowUs?: number | undefined
  readonly onTrouble?: OnTrouble | undefined
}

/** The files of a stream, newest hour first. */
function filesOf(vault: string, exchange: string, feed: string, name: string, onTrouble: OnTrouble): HourFile[] {
  const directory = streamDir(vault, exchange, feed, name)
  if (lstatSync(directory, { throwIfNoEntry: false })?.isSymbolicLink()) {
    onTrouble(directory, new Error('it is a link: what it leads to is neither read nor mended'))
    return []
  }
  const stream = { exchange, feed, name: folderName(name) }
  return [...walkStream(vault, stream, onTrouble)].flatMap(date => date.files).sort((a, b) => b.hour - a.hour)
}

/** Those that a capture at `nowUs` may go on with: the newest two plain ones, and whatever lies far ahead of the clock. */
function newestFiles(
  vault: string,
  exchange: string,
  feed: string,
  name: string,
  options: ResumeOptions
): { near: HourFile[]; ahead: HourFile[] } {
  const plain = filesOf(vault, exchange, feed, name, options.onTrouble ?? THROW).filter(file => file.kind === 'jsonl')
  const { nowUs } = options
  const limit = nowUs === undefined ? Number.POSITIVE_INFINITY : hourOf(nowUs) + AHEAD_HOURS_MAX
  return {
    near: plain.filter(file => file.hour <= limit).slice(0, 2),
    ahead: plain.filter(file => file.hour > limit)
  }
}

/**
 * Mends the tails of a stream's newest hours, where a crash can have left half a line, and brings what it left to disk;
 * the bytes moved aside. What cannot be mended of the hour that a capture at `nowUs` goes on with is thrown, whatever
 * `onTrouble` says: it would append to half a line.
 */
export function repairStream(
  vault: string,
  exchange: string,
  feed: string,
  name: string,
  options: ResumeOptions = {}
): number {
  const onTrouble = options.onTrouble ?? THROW
  const { near, ahead } = newestFiles(vault, exchange, feed, name, options)
  let moved = 0
  const { nowUs } = options
  for (const { path, hour } of [...near, ...ahead]) {
    try {
      moved += repairTail(path)?.movedBytes ?? 0
      // A killed process has synced neither its last second nor the names that were new then.
      if (path === near[0]?.path) keep(vault, path)
    } catch (error) {
      if (nowUs === undefined || hour === hourOf(nowUs)) THROW(path, error)
      onTrouble(path, error)
    }
  }
  return moved
}

/** Brings a file, and all names on the way to it, to disk. */
function keep(vault: string, path: string): void {
  syncFile(path)
  const root = resolve(vault)
  for (let directory = dirname(resolve(path)); directory.length >= root.length; directory = dirname(directory))
    syncDirectory(directory)
}

/**
 * The receive time of the last record of a stream, µs; 0 when there is none. A new run must not begin before it. A line
 * counts only when its time lies in the hour of its file: a flipped bit must not send the next run into another century.
 * Nor do hours that lie more than a day ahead of `nowUs`, which are told: they come from a clock that was wrong.
 */
export function lastReceiveUs(
  vault: string,
  exchange: string,
  feed: string,
  name: string,
  options: ResumeOptions = {}
): number {
  const onTrouble = options.onTrouble ?? THROW
  const { near, ahead } = newestFiles(vault, exchange, feed, name, options)
  if (ahead[0]) onTrouble(ahead[0].path, new Error('its hour lies more than a day ahead of the clock: not waited for'))
  for (const { path, hour } of near) {
    try {
      const line = lastLine(path, text => receiveUs(text, hour) !== undefined)
      if (line !== undefined) return receiveUs(line, hour)!
    } catch (error) {
      onTrouble(path, error)
    }
  }
  return 0
}

/** The receive time of a record; undefined when it is none of that hour. */
function receiveUs(line: string, hour: number): number | undefined {
  const us = Number(/"recv_us":(\d{1,16})[,}]/.exec(line)?.[1])
  return hourOf(us) === hour ? us : undefined
}

/**
 * The trade ids that the vault holds of this and the last hour, and of as many hours before as bring at least the
 * newest thousand; oldest first. Of a damaged file those that stand before the damage.
 */
export async function readTradeIds(
  vault: string,
  exchange: string,
  instId: string,
  hour: number,
  onTrouble: OnTrouble = THROW
): Promise<string[]> {
  const held = new Set(filesOf(vault, exchange, 'trades', instId, onTrouble).map(file => file.hour))
  const parts: string[][] = []
  let count = 0
  for (const back of [...held].filter(each => each <= hour && each > hour - DAYS_MAX * 24)) {
    if (back < hour - 1 && count >= IDS_MIN) break
    const ids = await readHour(hourPath(vault, exchange, 'trades', instId, back), onTrouble)
    count += ids.length
    parts.unshift(ids)
  }
  return parts.flat()
}

async function readHour(plain: string, onTrouble: OnTrouble): Promise<string[]> {
  const ids: string[] = []
  for (const path of [`${plain}.gz`, plain]) {
    if (!lstatSync(path, { throwIfNoEntry: false })?.isFile()) continue
    try {
      for await (const lines of readLines(path)) {
        for (const line of lines) {
          const id = tradeId(line)
          if (id !== undefined) ids.push(id)
        }
      }
    } catch (error) {
      onTrouble(path, error)
    }
  }
  return ids
}

function tradeId(line: string): string | undefined {
  const match = /"trade_id":("(?:[^"\\]|\\.)*")/.exec(line)
  if (!match) return undefined
  try {
    return JSON.parse(match[1]!) as string
  } catch {
    return undefined // no JSON any more: bits of the line have changed
  }
}
