/** The coverage report for people and for spreadsheets. */
import { printable } from '../core/printable.ts'
import { HOUR_US, isoMs } from '../core/time.ts'
import type { CoverageReport, Gap, HourCoverage, InstrumentCoverage, Sums } from '../quality/coverage.ts'

/** What `describe` shows. */
export interface TextOptions {
  /** Every hour, not only those that are not complete. */
  readonly hours: boolean
  readonly colours: boolean
}

const DAY_HOURS = 24
/** A degraded hour with at least this share of its snapshots is shown as a nearly full one. */
const DENSE_SHARE = 0.9
const GREEN = 32
const YELLOW = 33
const RED = 31
const LEGEND = '█ complete  ▓ degraded, 90% of the snapshots or more  ▒ degraded, fewer  · missing'
const CSV_COLUMNS: readonly [string, (hour: HourCoverage, instrument: InstrumentCoverage) => string | number][] = [
  ['exchange', (_, { exchange }) => exchange],
  ['instId', (_, { instId }) => instId],
  ['hour_utc', ({ hour }) => isoMs(hour * HOUR_US)],
  ['verdict', ({ verdict }) => verdict],
  ['from_utc', ({ fromUs }) => isoMs(fromUs)],
  ['to_utc', ({ toUs }) => isoMs(toUs)],
  ['cadence_ms', ({ cadenceMs }) => cadenceMs],
  ['slots_expected', ({ slots }) => slots.expected],
  ['slots_present', ({ slots }) => slots.present],
  ['share', ({ slots }) => slots.share],
  ['frames', ({ frames }) => frames],
  ['events', ({ events }) => events],
  ['trades', ({ trades }) => trades],
  ['gaps', ({ gaps }) => gaps],
  ['gap_ms', ({ gapMs }) => gapMs],
  ['mismatches', ({ mismatches }) => mismatches],
  ['bytes', ({ bytes }) => bytes],
  ['first_utc', ({ firstUs }) => (firstUs === null ? '' : isoMs(firstUs))],
  ['last_utc', ({ lastUs }) => (lastUs === null ? '' : isoMs(lastUs))],
  ['connections', ({ connections }) => Object.keys(connections).join(' ')],
  ['stored', ({ stored }) => String(stored)]
]

/** One row for each instrument and hour, with a header, as RFC 4180 has it. */
export function csvOf({ instruments }: CoverageReport): string {
  const rows = instruments.flatMap(instrument =>
    instrument.hours.map(hour => CSV_COLUMNS.map(([, value]) => String(value(hour, instrument))))
  )
  const header = CSV_COLUMNS.map(([name]) => name)
  return [header, ...rows].map(row => `${row.map(quoted).join(',')}\r\n`).join('')
}

function quoted(text: string): string {
  // A spreadsheet would compute what begins like a formula; no field of ours does, but for names out of files.
  const field = printable(/^[=+@\t\r-]/.test(text) ? `'${text}` : text)
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field
}

/** The report for a terminal: for each instrument sums, a strip of its days, hours and gaps. */
export function describe(report: CoverageReport, options: TextOptions): string {
  const blocks = report.instruments.map(instrument => describeInstrument(instrument, options))
  if (blocks.length === 0) return 'nothing was captured in this range\n'
  return `${[...blocks, LEGEND].join('\n\n')}\n`
}

function describeInstrument(instrument: InstrumentCoverage, options: TextOptions): string {
  const { exchange, instId, total, hours, gaps } = instrument
  const [first, last] = [hours[0]!, hours.at(-1)!]
  const name = printable(`${exchange} ${instId}`).replaceAll('\n', '?')
  const isStored = hours.some(({ stored }) => stored)
  const verdicts = [`${total.complete} complete`, `${total.degraded} degraded`, `${total.missing} missing`]
  const lines = [
    `${name}  ${momentText(first.fromUs)} to ${momentText(last.toUs)} UTC`,
    `  ${plural(hours.length, 'hour')}: ${verdicts.join(', ')}; snapshots ${shareText(total)}; ${factsText(total)}`,
    ...(isStored ? ['  * what check stored of it: the files are gone'] : []),
    '',
    ...stripOf(hours, options.colours)
  ]
  const shown = options.hours ? hours : hours.filter(({ verdict }) => verdict !== 'complete')
  const tables: string[][] = []
  if (shown.length > 0) tables.push(tableOf(HOUR_HEAD, shown.map(hourRow)))
  if (gaps.length > 0) tables.push(tableOf(GAP_HEAD, gaps.map(gapRow)))
  return [lines, ...tables].map(table => table.join('\n')).join('\n\n')
}

/** One row a day, one cell an hour. Without colours it says the same. */
export function stripOf(hours: readonly HourCoverage[], colours: boolean): string[] {
  const days = new Map<number, string[]>()
  const stored = new Set<number>()
  for (const hour of hours) {
    const day = Math.floor(hour.hour / DAY_HOURS)
    const cells = days.get(day) ?? new Array<string>(DAY_HOURS).fill(' ')
    const [cell, colour] = cellOf(hour)
    cells[hour.hour - day * DAY_HOURS] = colours ? `\u001b[${colour}m${cell}\u001b[0m` : cell
    days.set(day, cells)
    if (hour.stored) stored.add(day)
  }
  const rows = [...days].map(([day, cells]) =>
    `  ${isoMs(day * DAY_HOURS * HOUR_US).slice(0, 10)}  ${cells.join('')}${stored.has(day) ? ' *' : ''}`.trimEnd()
  )
  return ['              0     6     12    18', ...rows]
}

function cellOf({ verdict, slots }: HourCoverage): [cell: string, colour: number] {
  if (verdict === 'complete') return ['█', GREEN]
  if (verdict === 'missing') return ['·', RED]
  return [slots.share >= DENSE_SHARE ? '▓' : '▒', YELLOW]
}

const HOUR_HEAD = ['hour', 'verdict', 'live', 'snapshots', 'frames', 'events', 'trades', 'gaps', 'mismatches']

function hourRow(hour: HourCoverage): string[] {
  const { fromUs, toUs, verdict, frames, events, trades, gaps, gapMs, mismatches, stored } = hour
  return [
    momentText(hour.hour * HOUR_US).slice(0, 16) + (stored ? ' *' : ''),
    verdict,
    lengthText((toUs - fromUs) / 1000 - gapMs),
    shareText(hour),
    String(frames),
    String(events),
    String(trades),
    gaps === 0 ? '0' : `${gaps} (${lengthText(gapMs)})`,
    String(mismatches)
  ]
}

const GAP_HEAD = ['gap from', 'to', 'length', 'cause']

function gapRow({ cause, fromUs, toUs, lengthMs }: Gap): string[] {
  return [exactText(fromUs), toUs === null ? 'open' : exactText(toUs), lengthText(lengthMs), oneLine(cause)]
}

function exactText(us: number): string {
  return isoMs(us).slice(0, -1).replace('T', ' ')
}

function momentText(us: number): string {
  return exactText(us).slice(0, 19)
}

function oneLine(text: string): string {
  return printable(text).replaceAll('\n', '?')
}

/** Columns as wide as their widest cell; numbers are not aligned to the right, as most are followed by words. */
function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, at) => rows.reduce((width, row) => Math.max(width, row[at]!.length), title.length))
  return [head, ...rows].map(row => `  ${row.map((cell, at) => cell.padEnd(widths[at]!)).join('  ')}`.trimEnd())
}

/** Rounded down, so that what lacks one snapshot never looks whole. */
function shareText({ slots }: Sums): string {
  const percent = Math.floor(slots.share * 10_000) / 100
  return `${slots.present}/${slots.expected} (${percent}%)`
}

function factsText({ frames, events, trades, gaps, gapMs, mismatches, bytes }: Sums): string {
  const gapText = gaps === 0 ? 'no gap' : `${plural(gaps, 'gap')} (${lengthText(gapMs)})`
  return [
    `${frames} frames`,
    `${events} events`,
    `${trades} trades`,
    gapText,
    plural(mismatches, 'mismatch'),
    `${(bytes / 1e6).toFixed(1)} MB`
  ].join('; ')
}

function plural(count: number, word: string): string {
  if (count === 1) return `1 ${word}`
  return `${count} ${word}${word.endsWith('h') ? 'es' : 's'}`
}

/** The two largest units of a length. */
function lengthText(ms: number): string {
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 3 : 1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor(ms / 1000) % 60} s`
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
  return `${Math.floor(minutes / 60 / 24)} d ${Math.floor(minutes / 60) % 24} h`
}
