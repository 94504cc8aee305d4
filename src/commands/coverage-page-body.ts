/** The words, tables and heat maps of the coverage page, as HTML. */
import { printable } from '../core/printable.ts'
import { HOUR_US, isoMs } from '../core/time.ts'
import type { CoverageReport, Gap, HourCoverage, InstrumentCoverage, Sums, Total } from '../quality/coverage.ts'
import type { InstrumentSeries } from '../quality/series.ts'

const SECOND_US = 1_000_000
const DAY_HOURS = 24
/** So many gaps are listed without being asked for. */
const GAPS_OPEN_MAX = 12
/** Least shares of snapshots, in percent, of the steps of a degraded hour. */
const STEPS: readonly (readonly [step: string, percentMin: number])[] = [
  ['d1', 99],
  ['d2', 90],
  ['d3', 50],
  ['d4', 0]
]
const COUNT = new Intl.NumberFormat('en')
const FIGURE = new Intl.NumberFormat('en', { maximumSignificantDigits: 6 })
const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Text of a file or a user, harmless between tags and in quoted attributes. */
export function escapeHtml(text: string): string {
  return printable(text).replace(/[&<>"']/g, sign => ESCAPES[sign]!)
}

/** A moment to the second, UTC, or to the millisecond: `2026-11-20 10:15:00.123`. */
function utcText(us: number, decimals: 0 | 3 = 0): string {
  return isoMs(us)
    .slice(0, decimals === 0 ? 19 : 23)
    .replace('T', ' ')
}

/** `350 ms`, `12.3 s`, `4 min 5 s`, `2 h 17 min`, `3 d 4 h`. */
function lengthText(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms % 1000 === 0 ? 0 : 1)} s`
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) => {
    const rest = Math.floor((ms % big) / small)
    return `${Math.floor(ms / big)} ${bigUnit}${rest > 0 ? ` ${rest} ${smallUnit}` : ''}`
  }
  if (ms < 3_600_000) return pair(60_000, 'min', 1000, 's')
  return ms < 86_400_000 ? pair(3_600_000, 'h', 60_000, 'min') : pair(86_400_000, 'd', 3_600_000, 'h')
}

/** Rounded down, so that only what is whole is called 100 %. */
function percentText(share: number): string {
  return `${Math.floor(share * 10_000 + 1e-9) / 100} %`
}

function bytesText(bytes: number): string {
  const [size, unit] = bytes < 1e6 ? [bytes / 1e3, 'kB'] : bytes < 1e9 ? [bytes / 1e6, 'MB'] : [bytes / 1e9, 'GB']
  return `${size.toFixed(1)} ${unit}`
}

function plural(count: number, what: string): string {
  const many = what.endsWith('ch') ? `${what}es` : `${what}s`
  return `${COUNT.format(count)} ${count === 1 ? what : many}`
}

/** The class of an hour's cell: its verdict, and where it is degraded how much of it is there. */
function stepOf({ verdict, slots }: HourCoverage): string {
  if (verdict !== 'degraded') return verdict
  return STEPS.find(([, percentMin]) => slots.share * 100 >= percentMin)?.[0] ?? 'd4'
}

/** Everything that is known of an hour, in one line. */
function hourText(each: HourCoverage): string {
  const { hour, verdict, slots, gaps, gapMs, stored } = each
  const from = utcText(hour * HOUR_US).slice(0, 16)
  const to = utcText((hour + 1) * HOUR_US).slice(11, 16)
  const parts = [
    `${COUNT.format(slots.present)} of ${plural(slots.expected, 'snapshot')} (${percentText(slots.share)})`,
    plural(each.frames, 'frame'),
    plural(each.events, 'event'),
    plural(each.trades, 'trade'),
    gaps === 0 ? 'no gap' : `${plural(gaps, 'gap')}, ${lengthText(gapMs)}`,
    ...(each.mismatches > 0 ? [plural(each.mismatches, 'checksum mismatch')] : []),
    ...(stored ? ['known from check: its files are gone'] : [])
  ]
  return `${from}–${to} UTC ${verdict}: ${parts.join('; ')}`
}

function cellOf(each: HourCoverage | undefined): string {
  if (!each) return '<td class="none"></td>'
  const classes = stepOf(each) + (each.stored ? ' stored' : '')
  const place = `data-from="${(each.hour * HOUR_US) / SECOND_US}" data-to="${((each.hour + 1) * HOUR_US) / SECOND_US}"`
  const texts = {
    complete: '<span class="hidden">complete</span>',
    degraded: String(Math.floor(each.slots.share * 100 + 1e-9)),
    missing: '–<span class="hidden">missing</span>'
  }
  return `<td class="${classes}" ${place} title="${escapeHtml(hourText(each))}">${texts[each.verdict]}</td>`
}

/** Days by hours: a row a day, a cell an hour. */
function heatMap({ hours, days }: InstrumentCoverage): string {
  const byHour = new Map(hours.map(each => [each.hour, each]))
  const names = Array.from({ length: DAY_HOURS }, (_, hour) => String(hour).padStart(2, '0'))
  const head = names.map((name, hour) => `<th scope="col"${hour % 6 === 0 ? ' class="even"' : ''}>${name}</th>`)
  const rows = days.map(({ date, slots }) => {
    const firstHour = Date.parse(`${date}T00:00:00Z`) / 3_600_000
    const cells = names.map((_, at) => cellOf(byHour.get(firstHour + at)))
    const name = `<span class="year">${date.slice(0, 5)}</span>${date.slice(5)}`
    return `<tr><th scope="row">${name}</th>${cells.join('')}<td class="share">${percentText(slots.share)}</td></tr>`
  })
  return `<table class="heat"><caption class="hidden">Coverage by day and hour, UTC</caption>
<colgroup><col class="date"><col span="24"><col class="day"></colgroup>
<thead><tr><th scope="col"><span class="hidden">day</span></th>${head.join('')}<th scope="col" class="day">of slots</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`
}

function legend(hours: readonly HourCoverage[]): string {
  const keys: [string, string][] = [
    ['complete', 'complete'],
    ['d1', 'degraded: 99 % and more'],
    ['d2', 'from 90 %'],
    ['d3', 'from 50 %'],
    ['d4', 'less'],
    ['missing', 'missing'],
    ['none', 'outside']
  ]
  if (hours.some(({ stored }) => stored)) keys.push(['none stored', 'files gone, figures kept'])
  const items = keys.map(([classes, text]) => `<span><i class="key ${classes}"></i>${text}</span>`)
  return `<div class="legend">${items.join('')}</div>`
}

/** How much each cause took away, the worst first. */
function causesText(gaps: readonly Gap[]): string {
  const causes = new Map<string, { count: number; ms: number }>()
  for (const { cause, lengthMs } of gaps) {
    const { count, ms } = causes.get(cause) ?? { count: 0, ms: 0 }
    causes.set(cause, { count: count + 1, ms: ms + lengthMs })
  }
  return [...causes]
    .sort(([, a], [, b]) => b.ms - a.ms)
    .map(([cause, { count, ms }]) => `${escapeHtml(cause)} ${count} × (${lengthText(ms)})`)
    .join(' · ')
}

function gapList(gaps: readonly Gap[], total: Total): string {
  if (gaps.length === 0) return '<h3>No gaps</h3>'
  const rows = gaps.map(({ cause, fromUs, toUs, lengthMs }, at) => {
    const place = `data-from="${fromUs / SECOND_US}" data-to="${(fromUs + lengthMs * 1000) / SECOND_US}"`
    const from = `<button type="button" class="link" ${place} aria-label="show ${utcText(fromUs)} in the charts">${utcText(fromUs, 3)}</button>`
    const to = toUs === null ? 'not ended' : utcText(toUs, 3)
    return `<tr><td class="n soft">${at + 1}</td><td>${escapeHtml(cause)}</td><td>${from}</td><td class="to">${to}</td><td class="n">${lengthText(lengthMs)}</td></tr>`
  })
  const all = `${plural(gaps.length, 'gap')}, ${lengthText(total.gapMs)} in all`
  return `<details class="gaps"${gaps.length <= GAPS_OPEN_MAX ? ' open' : ''}><summary>${all}</summary>
<p class="causes">${causesText(gaps)}</p>
<div class="scroll"><table class="list"><thead><tr><th class="n">#</th><th>cause</th><th>from, UTC</th><th class="to">to, UTC</th><th class="n">length</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div></details>`
}

/** The middle of what is there; undefined when there is nothing. */
function medianOf(values: readonly (number | null)[]): number | undefined {
  const sorted = values.filter(value => value !== null).sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

function spreadText(series: InstrumentSeries | undefined): string {
  const [spread, mid] = [medianOf(series?.spread ?? []), medianOf(series?.mid ?? [])]
  if (spread === undefined || mid === undefined) return '–'
  return `${FIGURE.format(spread)}<small>${((spread / mid) * 10_000).toPrecision(2)} bps of the mid</small>`
}

function facts(each: InstrumentCoverage, series: InstrumentSeries | undefined): string {
  const { total, hours, gaps } = each
  const longest = gaps.reduce((ms, { lengthMs }) => Math.max(ms, lengthMs), 0)
  const cadence = [...new Set(hours.map(({ cadenceMs }) => lengthText(cadenceMs)))].join(', ')
  const items: [string, string, string?][] = [
    [
      'Snapshots',
      percentText(total.slots.share),
      `${COUNT.format(total.slots.present)} of ${COUNT.format(total.slots.expected)}, each ${cadence}`
    ],
    ['Hours complete', `${total.complete} of ${hours.length}`, `${total.degraded} degraded, ${total.missing} missing`],
    [
      'Gaps',
      COUNT.format(gaps.length),
      gaps.length === 0 ? '' : `${lengthText(total.gapMs)}; longest ${lengthText(longest)}`
    ],
    ['Mismatches', COUNT.format(total.mismatches), 'of checksums'],
    ['Frames', COUNT.format(total.frames), 'of its connections'],
    ['Events', COUNT.format(total.events)],
    ['Trades', COUNT.format(total.trades)],
    ['Stored', bytesText(total.bytes), 'uncompressed, without frames']
  ]
  const rows = items.map(
    ([name, value, more]) => `<div><dt>${name}</dt><dd>${value}${more ? `<small>${more}</small>` : ''}</dd></div>`
  )
  return `<dl class="facts">${rows.join('')}<div><dt>Spread, median</dt><dd>${spreadText(series)}</dd></div></dl>`
}

function chart(kind: string, title: string, more: string, hasData: boolean): string {
  const box = hasData
    ? `<div class="chart" data-chart="${kind}"></div>`
    : '<div class="chart empty">nothing recorded</div>'
  return `<figure><figcaption>${title} <small>${more}</small></figcaption>${box}</figure>`
}

function charts(series: InstrumentSeries | undefined): string {
  if (!series) return '<p class="soft">The files of this range are gone: there is nothing to draw.</p>'
  const bucket = lengthText(series.bucketUs / 1000)
  const has = (values: readonly (number | null)[]) => values.some(value => value !== null)
  const cut = series.depths
    .filter(({ cutShare }) => cutShare > 0)
    .map(({ bps, cutShare }) => `${percentText(cutShare)} of the books end before ${bps} bps`)
  return `<div class="tools"><h3>Charts</h3><span class="soft"><span class="hint">one step is ${bucket}; drag to zoom, double-click for all <i class="key lost"></i>gap <i class="key off"></i>no process </span><button type="button" class="reset" hidden>show all</button></span></div>
<div class="charts">
${[
  chart('spread', 'Spread', 'in price units, from all snapshots', has(series.spread)),
  chart('mid', 'Mid price', '', has(series.mid)),
  chart(
    'depth',
    'Depth',
    ['size near the mid, sampled', ...cut].join('; '),
    series.depths.some(({ bids }) => has(bids))
  ),
  chart('events', 'Book events', 'per second, without full images', has(series.eventsPerSecond)),
  chart('trades', 'Trades', 'per second, and volume of each step (right)', has(series.tradesPerSecond)),
  chart('sizes', 'Sizes', 'share of all, four steps to the decade', series.sizes.length > 0)
].join('\n')}
</div>`
}

/** One instrument: figures, heat map, gaps and places for its charts. `id` is the id of the section. */
export function instrumentSection(each: InstrumentCoverage, series: InstrumentSeries | undefined, id: string): string {
  return `<section class="card" id="${id}">
<h2>${escapeHtml(each.instId)} <small>${escapeHtml(each.exchange)}</small></h2>
${facts(each, series)}
<h3>Hours <span class="soft">UTC; numbers are percent of the snapshots that were due</span></h3>
${heatMap(each)}
${legend(each.hours)}
<output class="detail soft">Point at an hour for its figures${series ? '; click to see it in the charts' : ''}.</output>
${gapList(each.gaps, each.total)}
${charts(series)}
</section>`
}

/** The hours of each verdict as a bar. */
function bar({ complete, degraded, missing }: Total): string {
  const all = Math.max(1, complete + degraded + missing)
  let x = 0
  const parts = (
    [
      ['complete', complete],
      ['d2', degraded],
      ['missing', missing]
    ] as const
  ).map(([classes, count]) => {
    const width = (count / all) * 100
    x += width
    return `<rect class="${classes}" x="${x - width}" y="0" width="${width}" height="10"/>`
  })
  const label = `${complete} complete, ${degraded} degraded, ${missing} missing`
  return `<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="${label}">${parts.join('')}</svg>`
}

/** One line an instrument, with links to the sections. */
export function overview({ instruments }: CoverageReport, ids: readonly string[]): string {
  const counts = ({ mismatches, events, trades, bytes }: Sums) =>
    [COUNT.format(mismatches), COUNT.format(events), COUNT.format(trades), bytesText(bytes)]
      .map(text => `<td class="n">${text}</td>`)
      .join('')
  const rows = instruments.map(({ exchange, instId, total, gaps }, at) => {
    const name = `<a href="#${ids[at]!}">${escapeHtml(instId)}</a>`
    const hours = `<td>${bar(total)}</td><td class="n">${total.complete}</td><td class="n">${total.degraded}</td><td class="n">${total.missing}</td>`
    const lost = `<td class="n">${COUNT.format(gaps.length)}</td><td class="n">${lengthText(total.gapMs)}</td>`
    return `<tr><td>${escapeHtml(exchange)}</td><td>${name}</td><td class="n">${percentText(total.slots.share)}</td>${hours}${lost}${counts(total)}</tr>`
  })
  const right = ['complete', 'degraded', 'missing', 'gaps', 'in gaps', 'mismatches', 'events', 'trades', 'bytes']
  return `<div class="card scroll"><table class="list overview"><thead><tr><th>exchange</th><th>instrument</th><th class="n">snapshots</th><th>hours</th>${right.map(name => `<th class="n">${name}</th>`).join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>`
}

/** What the page is about: the vault, the range, when it was made, and what could not be read. */
export function pageHead(report: CoverageReport): string {
  const hours = report.instruments.flatMap(each => each.hours)
  const fromUs = hours.reduce((least, each) => Math.min(least, each.fromUs), Number.POSITIVE_INFINITY)
  const toUs = hours.reduce((most, each) => Math.max(most, each.toUs), Number.NEGATIVE_INFINITY)
  const range = hours.length === 0 ? 'nothing was captured in this range' : `${utcText(fromUs)} to ${utcText(toUs)} UTC`
  const problems = report.problems.map(each => `<li>${escapeHtml(each)}</li>`)
  const trouble = `<div class="card problems"><strong>Not everything could be read</strong><ul>${problems.join('')}</ul></div>`
  return `<header><h1>Coverage</h1>
<div class="soft">Vault <span class="path">${escapeHtml(report.vault)}</span> · ${range} · ${plural(report.instruments.length, 'instrument')} · made ${escapeHtml(report.at)}</div></header>
<main>
${problems.length > 0 ? trouble : ''}`
}
