import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { folderName, hourPath, listHours, streamDir } from './layout.ts'
import { lastLine, readLines } from './reader.ts'
import { repairTail } from './repair.ts'

/** The newest plain hour files of a stream, at most two: where a crash can have left half a line. */
function newestFiles(vault: string, exchange: string, feed: string, name: string): string[] {
  const directory = streamDir(vault, exchange, feed, name)
  if (!existsSync(directory)) return []
  const days = readdirSync(directory)
    .filter(day => /^\d{4}-\d\d-\d\d$/.test(day))
    .sort()
    .reverse()
    .slice(0, 2)
  const files = days.flatMap(day =>
    readdirSync(join(directory, day))
      .filter(file => /^\d\d\.jsonl$/.test(file))
      .sort()
      .reverse()
      .map(file => join(directory, day, file))
  )
  return files.slice(0, 2)
}

/** Mends the tails of a stream's newest hours; the bytes moved aside. */
export function repairStream(vault: string, exchange: string, feed: string, name: string): number {
  let moved = 0
  for (const path of newestFiles(vault, exchange, feed, name)) moved += repairTail(path)?.movedBytes ?? 0
  return moved
}

/** The receive time of the last record of a stream, µs; 0 when there is none. A new run must not begin before it. */
export function lastReceiveUs(vault: string, exchange: string, feed: string, name: string): number {
  for (const path of newestFiles(vault, exchange, feed, name)) {
    const match = /"recv_us":(\d+)/.exec(lastLine(path) ?? '')
    if (match) return Number(match[1])
  }
  return 0
}

const IDS_MIN = 1000
const DAYS_MAX = 5

/**
 * The trade ids that the vault holds of this and the last hour, and of as many hours before as bring at least the
 * newest thousand; oldest first.
 */
export async function readTradeIds(vault: string, exchange: string, instId: string, hour: number): Promise<string[]> {
  const parts: string[][] = []
  let count = 0
  for (const back of hoursBack(vault, exchange, instId, hour)) {
    if (back < hour - 1 && count >= IDS_MIN) break
    const ids = await readHour(hourPath(vault, exchange, 'trades', instId, back))
    count += ids.length
    parts.unshift(ids)
  }
  return parts.flat()
}

function hoursBack(vault: string, exchange: string, instId: string, hour: number): number[] {
  const held = listHours(vault, { exchange, feed: 'trades', name: folderName(instId) }).map(file => file.hour)
  return [...new Set(held)].filter(each => each <= hour && each > hour - DAYS_MAX * 24).sort((a, b) => b - a)
}

async function readHour(plain: string): Promise<string[]> {
  const ids: string[] = []
  for (const path of [`${plain}.gz`, plain]) {
    if (!existsSync(path)) continue
    for await (const lines of readLines(path)) {
      for (const line of lines) {
        const match = /"trade_id":("(?:[^"\\]|\\.)*")/.exec(line)
        if (match) ids.push(JSON.parse(match[1]!) as string)
      }
    }
  }
  return ids
}
