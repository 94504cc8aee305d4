import { printable } from '../core/printable.ts'
import type { Finding, Severity } from '../quality/finding.ts'
import type { CheckReport } from './check-run.ts'

const SHOWN_MAX: Record<Severity, number> = { error: 50, warning: 20, info: 10 }
const BAR_CELLS = 24

/** What a check found, for people: `file:line: severity rule: message`, and a summary. */
export function describeReport(report: CheckReport): string {
  const { findings, counts, stats } = report
  const lines: string[] = []
  for (const severity of ['error', 'warning', 'info'] as const) {
    const all = findings.filter(each => each.severity === severity)
    for (const each of all.slice(0, SHOWN_MAX[severity])) lines.push(describeFinding(each))
    const total = counts[`${severity}s`]
    const more = total - Math.min(all.length, SHOWN_MAX[severity])
    if (more > 0)
      lines.push(`and ${more} more of severity ${severity}; --json names ${total > all.length ? 'more' : 'all'}`)
  }
  const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`
  const size = `${(stats.bytes / 1e6).toFixed(stats.bytes < 1e8 ? 1 : 0)} MB`
  const what = `${plural(stats.instruments, 'instrument')}, ${plural(stats.files, 'file')}, ${size} in ${stats.seconds.toFixed(1)} s`
  lines.push(`checked ${what}: ${plural(counts.errors, 'error')}, ${plural(counts.warnings, 'warning')}`)
  return `${lines.join('\n')}\n`
}

/** One finding on one line. */
export function describeFinding({ file, line, severity, rule, exchange, name, message }: Finding): string {
  const who = [exchange, name].filter(Boolean).join(' ') || 'vault'
  const place = file === '' ? who : line === null ? file : `${file}:${line}`
  // A line cannot be made to look like two.
  return printable(`${place}: ${severity} ${rule}: ${message}`).replaceAll('\n', '?')
}

/** A progress bar of one line on a terminal; says nothing elsewhere. */
export class ProgressBar {
  private readonly out: NodeJS.WriteStream
  private readonly beganMs: number
  private shownMs = 0

  constructor(out: NodeJS.WriteStream, nowMs: number) {
    this.out = out
    this.beganMs = nowMs
  }

  /** Shows how much is done, ten times a second at most. */
  show(doneBytes: number, totalBytes: number, nowMs: number): void {
    if (!this.out.isTTY || nowMs - this.shownMs < 100) return
    this.shownMs = nowMs
    const share = totalBytes === 0 ? 0 : Math.min(1, doneBytes / totalBytes)
    const cells = Math.round(share * BAR_CELLS)
    const bar = `${'█'.repeat(cells)}${'░'.repeat(BAR_CELLS - cells)}`
    const rate = (doneBytes / 1e3 / Math.max(1, nowMs - this.beganMs)).toFixed(0)
    this.out.write(`\r${bar} ${Math.floor(share * 100)} %  ${(doneBytes / 1e6).toFixed(0)} MB  ${rate} MB/s \u001b[K`)
  }

  /** Takes the bar away. */
  clear(): void {
    if (this.shownMs > 0) this.out.write('\r\u001b[K')
  }
}
