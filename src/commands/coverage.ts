/** `l3cap coverage`: what a vault covers, hour by hour, and every gap with its cause. */
import { statSync, writeFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { defaultVault, environment } from '../config/env.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import { HOUR_US, hourOf, isoMs } from '../core/time.ts'
import type { CoverageRange, CoverageReport, InstrumentCoverage } from '../quality/coverage.ts'
import { mergeDays, type StoredDay } from '../quality/days.ts'
import { coveredExchanges, coveredNames } from '../vault/coverage.ts'
import { type HourFilter, narrowFilter } from '../vault/layout.ts'
import { listStreams, placeOf, type Range, type Stream } from '../vault/streams.ts'
import { loadDays } from './coverage-days.ts'
import { coveragePage } from './coverage-page.ts'
import { countFrames, type OnTrouble, scanInstrument } from './coverage-scan.ts'
import { readSeries } from './coverage-series.ts'
import { csvOf, describe } from './coverage-text.ts'
import { collect, readRange } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly since?: string
  readonly from?: string
  readonly to?: string
  readonly hours: boolean
  readonly json: boolean
  readonly csv: boolean
  readonly html?: string
}

/** The year 2010: what is older comes from a clock that was not set. */
const EARLIEST_US = 1_262_304_000_000_000
const AHEAD_US_MAX = 24 * HOUR_US

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `VAULT_DAMAGED`. */
export function coverageCommand(): Command {
  return new Command('coverage')
    .summary('print what is covered, hour by hour, and every gap')
    .description(
      'Reads a vault, also while it is written, and tells for each instrument and hour what is there: complete (every ' +
        'snapshot that was due, and no gap), degraded or missing; and every gap with its cause. Ranges are widened to whole ' +
        'hours. Days whose files retention has deleted come from what check stored of them. Exit 0; 1 when something could ' +
        'not be read.'
    )
    .option('--vault <dir>', 'vault directory (environment: L3CAP_VAULT)', defaultVault())
    .addOption(
      new Option('--exchange <id>', 'only these exchanges (repeat or commas)').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--symbol <name>', 'only these instruments (repeat or commas)').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--since <duration>', 'only the last hours or days, such as 6h or 5d').conflicts(['from', 'to'])
    )
    .option('--from <time>', 'from this time on, UTC: 2026-11-20, 2026-11-20T15:00 (default: the first hour)')
    .option('--to <time>', 'up to this time (default: the last hour)')
    .option('--hours', 'show complete hours too', false)
    .addOption(new Option('--json', 'print the report as one JSON object').default(false).conflicts('csv'))
    .option('--csv', 'print one row for each instrument and hour', false)
    .option('--html <file>', 'write a page with charts that needs nothing besides')
    .action(runCoverage)
}

async function runCoverage(options: Options): Promise<void> {
  const { vault, html, hours } = options
  const nowUs = Date.now() * 1000
  const { range, filter } = readOptions(options, nowUs)
  const report = await coverVault(vault, filter, { ...range, nowUs })
  const colours = process.stdout.isTTY === true && !environment().noColor
  const text = options.json
    ? `${JSON.stringify(report)}\n`
    : options.csv
      ? csvOf(report)
      : describe(report, { hours, colours })
  process.stdout.write(text)
  if (html !== undefined) {
    await writePage(html, report)
    if (!options.json && !options.csv) process.stdout.write(`\npage: ${html}\n`)
  }
  if (report.problems.length === 0) return
  throw new L3capError('VAULT_DAMAGED', `not everything could be read:\n${report.problems.join('\n')}`)
}

async function writePage(path: string, report: CoverageReport): Promise<void> {
  const page = coveragePage(report, await readSeries(report))
  try {
    writeFileSync(path, page)
  } catch (error) {
    throw new L3capError('USAGE', `cannot write ${path}: ${messageOf(error)}`, { cause: error })
  }
}

function readOptions(options: Options, nowUs: number): { range: Range; filter: HourFilter } {
  const { vault } = options
  const mistakes: string[] = []
  if (!statSync(vault, { throwIfNoEntry: false })?.isDirectory())
    throw new L3capError('USAGE', `there is no vault at ${vault}`)
  const { fromUs, toUs } = readRange(options, nowUs, mistakes)(nowUs)
  const { filter, mistakes: unknown } = narrowFilter(vault, options.exchange, options.symbol)
  mistakes.push(...unknown)
  if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
  const whole = (us: number | undefined, round: (hours: number) => number) =>
    us === undefined ? undefined : round(us / HOUR_US) * HOUR_US
  return { range: { fromUs: whole(fromUs, Math.floor), toUs: whole(toUs, Math.ceil) }, filter }
}

/**
 * The coverage of a vault, of the instruments that `filter` names. What cannot be read stands in the report's `problems`;
 * the rest is there all the same.
 * @throws {L3capError} `VAULT` when a directory cannot be read
 */
export async function coverVault(vault: string, filter: HourFilter, range: CoverageRange): Promise<CoverageReport> {
  const problems: string[] = []
  const onTrouble = (place: string, message: string) => problems.push(`${place}: ${message}`)
  const instruments: InstrumentCoverage[] = []
  for (const [exchange, names] of namesOf(vault, filter)) {
    const frameStreams = listStreams(vault, { exchange, feed: 'frames' }, range)
    const frames = await countFrames(vault, timely(vault, frameStreams, range.nowUs, onTrouble), onTrouble)
    for (const name of names) {
      const streams = timely(vault, streamsOf(vault, exchange, name, range), range.nowUs, onTrouble)
      const built = streams.length > 0 ? await scanInstrument(vault, streams, frames, range, onTrouble) : undefined
      const stored = loadDays(vault, exchange, name, onTrouble).map(day => narrowDay(day, range))
      const merged = mergeDays(built, stored)
      if (merged) instruments.push(merged)
    }
  }
  const { fromUs = null, toUs = null, nowUs } = range
  return { vault, at: isoMs(nowUs), fromUs, toUs, instruments, problems }
}

/** The instruments by exchange that a vault has files or stored days of. */
function namesOf(vault: string, filter: HourFilter): Map<string, string[]> {
  const found = new Map<string, Set<string>>()
  const add = (exchange: string, name: string) =>
    found.set(exchange, (found.get(exchange) ?? new Set<string>()).add(name))
  for (const { exchange, feed, name } of listStreams(vault, filter)) if (feed !== 'frames') add(exchange, name)
  const isWanted = (wanted: HourFilter['name'], name: string) => wanted === undefined || [wanted].flat().includes(name)
  for (const exchange of coveredExchanges(vault).filter(each => isWanted(filter.exchange, each)))
    for (const name of coveredNames(vault, exchange)) if (isWanted(filter.name, name)) add(exchange, name)
  return new Map([...found].sort().map(([exchange, names]) => [exchange, [...names].sort()]))
}

/** An instrument's own streams. A state lasts from one status record to the next: the range does not cut them. */
function streamsOf(vault: string, exchange: string, name: string, range: CoverageRange): Stream[] {
  const isData = ({ feed }: Stream) => feed !== 'frames' && feed !== 'status'
  const data = listStreams(vault, { exchange, name }, range).filter(isData)
  return [...data, ...listStreams(vault, { exchange, name, feed: 'status' })]
}

/**
 * Leaves out, and tells, hours that only a wrong clock or a wrong name can have given: all hours between them and the others
 * would count as missing.
 */
function timely(vault: string, streams: readonly Stream[], nowUs: number, onTrouble: OnTrouble): Stream[] {
  const isTimely = (hour: number) => hour * HOUR_US >= EARLIEST_US && hour <= hourOf(nowUs + AHEAD_US_MAX)
  return streams.flatMap(stream => {
    const hours = stream.hours.filter(({ hour }) => isTimely(hour))
    const other = stream.hours.find(({ hour }) => !isTimely(hour))
    if (other) onTrouble(placeOf(vault, other.path), 'it is of a time that cannot be right: left out')
    return hours.length > 0 ? [{ ...stream, hours }] : []
  })
}

/** What of a stored day lies in the range, and in a time that can be right. */
function narrowDay(day: StoredDay, range: CoverageRange): StoredDay {
  const fromUs = Math.max(range.fromUs ?? 0, EARLIEST_US)
  const toUs = Math.min(range.toUs ?? Number.POSITIVE_INFINITY, range.nowUs + AHEAD_US_MAX)
  const hours = day.hours.filter(({ hour }) => hour * HOUR_US >= fromUs && hour * HOUR_US < toUs)
  const gaps = day.gaps.filter(gap => gap.fromUs < toUs && (gap.toUs ?? gap.fromUs + gap.lengthMs * 1000) > fromUs)
  return { ...day, hours, gaps }
}
