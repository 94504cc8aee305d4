/** Reads the series of the coverage page from a vault. */
import { L3capError } from '../core/errors.ts'
import type { CoverageReport } from '../quality/coverage.ts'
import { type InstrumentSeries, SeriesBuilder } from '../quality/series.ts'
import { listStreams, readHour, recvUsOf } from '../vault/streams.ts'

/** Feeds that say nothing for a chart. */
const SKIPPED = ['frames', 'status']

/**
 * The series of every instrument of a report, all over the same range: from the first to the last moment that the report
 * covers. Instruments whose files are gone have none.
 * @throws {L3capError} `VAULT` when a file cannot be read
 */
export async function readSeries(report: CoverageReport): Promise<InstrumentSeries[]> {
  const hours = report.instruments.flatMap(each => each.hours)
  const fromUs = hours.reduce((least, each) => Math.min(least, each.fromUs), Number.POSITIVE_INFINITY)
  const toUs = hours.reduce((most, each) => Math.max(most, each.toUs), Number.NEGATIVE_INFINITY)
  const series: InstrumentSeries[] = []
  for (const { exchange, name, hours: own } of report.instruments) {
    if (own.some(({ stored }) => !stored)) series.push(await readOne(report.vault, exchange, name, { fromUs, toUs }))
  }
  return series
}

async function readOne(
  vault: string,
  exchange: string,
  name: string,
  range: { readonly fromUs: number; readonly toUs: number }
): Promise<InstrumentSeries> {
  const builder = new SeriesBuilder(exchange, name, range)
  for (const { feed, hours } of listStreams(vault, { exchange, name }, range)) {
    if (SKIPPED.includes(feed)) continue
    for (const { path } of hours) {
      try {
        for await (const { lines } of readHour(path, range)) {
          for (const line of lines) builder.take(feed, recvUsOf(line), line)
        }
      } catch (error) {
        // What stands before the damage is shown; that it is damaged is told by `check`.
        if (!(error instanceof L3capError && error.code === 'VAULT_DAMAGED')) throw error
      }
    }
  }
  return builder.finish()
}
