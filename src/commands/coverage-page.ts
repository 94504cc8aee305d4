/** The page of `l3cap coverage --html`: one file that needs nothing besides, and can ask for nothing. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { CoverageReport, InstrumentCoverage } from '../quality/coverage.ts'
import type { InstrumentSeries } from '../quality/series.ts'
import { escapeHtml, instrumentSection, overview, pageHead } from './coverage-page-body.ts'
import { SCRIPT } from './coverage-page-script.ts'
import { STYLE } from './coverage-page-style.ts'

/** Causes of gaps in which no process captured: nothing went wrong with the exchange. */
const OFF_CAUSES = ['stopped', 'killed']
const SECOND_US = 1_000_000

/**
 * The whole page, as HTML. Instruments without series get no charts; series of others are left out.
 * What comes from files is shown as text, and the page's own policy forbids every request and every other script.
 */
export function coveragePage(report: CoverageReport, series: readonly InstrumentSeries[]): string {
  const ids = report.instruments.map((_, at) => `instrument-${at + 1}`)
  const seriesOf = ({ exchange, name }: InstrumentCoverage) =>
    series.find(each => each.exchange === exchange && each.name === name)
  const data = report.instruments.map((each, at) => ({
    id: ids[at]!,
    series: seriesOf(each) ?? null,
    gaps: each.gaps.map(({ cause, fromUs, lengthMs }) => [
      fromUs / SECOND_US,
      (fromUs + lengthMs * 1000) / SECOND_US,
      OFF_CAUSES.includes(cause) ? 'off' : 'lost'
    ])
  }))
  const { script: chartScript, style: chartStyle, license } = readCharts()
  const script = inline(`/*\n${license}*/\n${chartScript}\n${SCRIPT}`)
  const style = `${chartStyle}\n${STYLE}`
  const policy = `default-src 'none'; style-src '${hashOf(style)}'; script-src '${hashOf(script)}'; base-uri 'none'; form-action 'none'`
  const sections = report.instruments.map((each, at) => instrumentSection(each, seriesOf(each), ids[at]!))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Coverage of ${escapeHtml(report.vault)}</title>
<style>${style}</style>
</head>
<body>
${pageHead(report)}
${report.instruments.length > 1 ? overview(report, ids) : ''}
${sections.join('\n')}
</main>
<footer>Times are UTC. Made by l3cap coverage at ${escapeHtml(report.at)}; charts by uPlot.</footer>
<script type="application/json" id="data">${JSON.stringify({ instruments: data }).replaceAll('<', '\\u003c')}</script>
<script>${script}</script>
</body>
</html>
`
}

/** The chart library, as it is installed. */
function readCharts(): { script: string; style: string; license: string } {
  const folder = dirname(createRequire(import.meta.url).resolve('uplot/package.json'))
  // A browser turns other line ends into these before it compares hashes.
  const read = (...path: string[]) => readFileSync(join(folder, ...path), 'utf8').replace(/\r\n?/g, '\n')
  return {
    script: read('dist', 'uPlot.iife.min.js'),
    style: read('dist', 'uPlot.min.css'),
    license: read('LICENSE')
  }
}

/** A script that may stand between tags: in strings and patterns, where alone these can occur, the escapes mean the same. */
function inline(script: string): string {
  return script.replace(/<(?=\/script|!--)/gi, '\\x3c')
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`
}
