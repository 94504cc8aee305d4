/** Reads the series of the coverage page from a vault. */
import { L3capError } from '../core/errors.ts'
import type { CoverageReport } from '../quality/coverage.ts'
import { type InstrumentSeries, SeriesBuilder } from '../quality/series.ts'
import { readStream } from '../replay/lines.ts'
import { listStreams, recvUsOf } from '../vault/streams.ts'

/** Feeds that say nothing for a chart. */
const SKIPPED = ['frames', 'status']

/**
 * The series of every instrument of a report, all over the same range: from the first to the last moment that the report
 * covers. Instruments whose files are gone have none. What cannot be read is left out: the report tells of it.
 * @throws {L3capError} `VAULT` when a directory cannot be read
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
  for (const stream of listStreams(vault, { exchange, name }, range)) {
    if (SKIPPED.includes(stream.feed)) continue
    for (const hour of new Set(stream.hours.map(each => each.hour))) {
      const own = { ...stream, hours: stream.hours.filter(each => each.hour === hour) }
      try {
        // What stands before the damage is shown.
        for await (const { lines } of readStream(vault, own, range, () => undefined)) {
          for (const line of lines) builder.take(stream.feed, recvUsOf(line), line)
        }
      } catch (error) {
        if (!(error instanceof L3capError)) throw error
      }
    }
  }
  return builder.finish()
}
