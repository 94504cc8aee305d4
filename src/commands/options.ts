import { existsSync } from 'node:fs'
import { join, relative, resolve, sep } from 'node:path'
import { parseDuration, parseMoment } from '../core/time.ts'
import type { Range } from '../vault/streams.ts'

/** Collects the values of an option that may be repeated or hold several with commas. For commander's `argParser`. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  const values = value
    .split(',')
    .map(part => part.trim())
    .filter(Boolean)
  return [...(previous ?? []), ...values]
}

/** What is wrong with a directory that feeds of a vault are to be written into; nothing when it may be. */
export function outMistakes(vault: string, out: string): string[] {
  const way = relative(resolve(vault), resolve(out)).split(sep)
  if (['raw', 'meta'].includes(way[0]!)) return [`--out: ${out} lies among the files of the vault`]
  return existsSync(join(out, 'raw')) ? [`--out: ${out} holds feeds already`] : []
}

/** A range of receive times as the command line has it. */
export interface RangeFlags {
  readonly since?: string
  readonly from?: string
  readonly to?: string
}

/**
 * Reads a range, and adds what is wrong with it to `mistakes`. Gives what it is at a moment (µs): `--since`, and times such as
 * `-5m`, move on with the clock.
 */
export function readRange(flags: RangeFlags, nowUs: number, mistakes: string[]): (nowUs: number) => Range {
  const { since, from, to } = flags
  const sinceMs = since === undefined ? undefined : parseDuration(since)
  if (since !== undefined && sinceMs === undefined)
    mistakes.push(`--since must be a duration such as 6h or 5d, not ${JSON.stringify(since)}`)
  if (since !== undefined && from !== undefined) mistakes.push('--since and --from exclude each other')
  for (const [name, text] of [
    ['--from', from],
    ['--to', to]
  ] as const) {
    if (text !== undefined && parseMoment(text, nowUs) === undefined)
      mistakes.push(`${name} must be a time such as 2026-11-20, 2026-11-20T15:00 or -5m, not ${JSON.stringify(text)}`)
  }
  const rangeAt = (us: number): Range => ({
    fromUs: sinceMs !== undefined ? us - sinceMs * 1000 : from === undefined ? undefined : parseMoment(from, us),
    toUs: to === undefined ? undefined : parseMoment(to, us)
  })
  const { fromUs, toUs } = rangeAt(nowUs)
  if (fromUs !== undefined && toUs !== undefined && fromUs >= toUs)
    mistakes.push(`${since === undefined ? '--from' : '--since'} must lie before --to`)
  return rangeAt
}
