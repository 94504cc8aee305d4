/** `l3cap retention`: compresses and deletes the old hours of a vault, once; a scheduler runs it again. */
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { parseDuration } from '../core/time.ts'
import { narrowFilter } from '../vault/layout.ts'
import { ageMistakes, type RetentionReport, runRetention } from '../vault/retention.ts'
import { collect } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly compressAfter: string
  readonly deleteAfter: string
  readonly dryRun: boolean
  readonly deleteNow: boolean
  readonly json: boolean
}

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `LOCKED`, `VAULT`. */
export function retentionCommand(): Command {
  return new Command('retention')
    .summary('compress and delete old hours')
    .description(
      'Compresses hours to .jsonl.gz some time after they end and deletes them some days after. The age of an hour is ' +
        'counted from its end as its path names it. Safe while captures run; each step is safe to repeat after a crash. ' +
        'When the clock is more than 2 days later than at the last run, nothing is deleted for 24 h (compressing goes on), ' +
        'with a warning: the clock may be wrong, and what it makes old at once would be gone. A scheduler that runs it more ' +
        'rarely than every 2 days needs --delete-now.'
    )
    .option('--vault <dir>', 'vault directory (environment: L3CAP_VAULT)', defaultVault())
    .addOption(
      new Option('--exchange <id>', 'only these exchanges (repeat or commas)').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--symbol <name>', 'only these instruments or connections (repeat or commas)')
        .argParser(collect)
        .default([], 'all')
    )
    .option('--compress-after <duration>', 'compress hours that ended so long ago (at least 10m)', '6h')
    .option('--delete-after <duration>', 'delete hours that ended so long ago', '5d')
    .option('--delete-now', 'delete, though the clock is more than 2 days later than at the last run', false)
    .option('--dry-run', 'say what would be done and change nothing', false)
    .option('--json', 'print the report as JSON', false)
    .action(async (options: Options) => {
      const settings = readOptions(options)
      const { dryRun, deleteNow } = options
      const report = await runRetention(options.vault, { ...settings, nowMs: Date.now(), dryRun, deleteNow })
      // A scheduler throws the report away and mails what stands on stderr; a person sees the report.
      const unseen = process.stdout.isTTY ? [] : report.warnings
      for (const warning of unseen) process.stderr.write(`l3cap: warning: ${warning}\n`)
      process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : describe(report))
      if (report.failed.length === 0) return
      const lines = report.failed.map(({ path, message }) => `${path}: ${message}`)
      throw new L3capError('VAULT', `retention failed for ${lines.length}:\n${lines.join('\n')}`)
    })
}

function readOptions(options: Options) {
  const mistakes: string[] = []
  const duration = (flag: string, text: string): number => {
    const value = parseDuration(text)
    if (value === undefined) mistakes.push(`${flag} must be a duration such as 6h or 5d, not ${JSON.stringify(text)}`)
    return value ?? Number.NaN
  }
  const compressAfterMs = duration('--compress-after', options.compressAfter)
  const deleteAfterMs = duration('--delete-after', options.deleteAfter)
  mistakes.push(...ageMistakes(compressAfterMs, deleteAfterMs)) // nothing to say about what is not a number
  const narrowed = narrowFilter(options.vault, options.exchange, options.symbol)
  mistakes.push(...narrowed.mistakes)
  if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
  return { compressAfterMs, deleteAfterMs, filter: narrowed.filter }
}

function describe(report: RetentionReport): string {
  const lines = report.warnings.map(warning => `warning: ${warning}`)
  for (const { path, bytes, gzBytes, joined } of report.compressed) {
    const size = gzBytes === null ? `${bytes} bytes` : `${bytes} bytes, .gz now ${gzBytes}`
    lines.push(`${joined ? 'join' : 'compress'} ${path} (${size})`)
  }
  for (const { path } of report.finished) lines.push(`finish ${path} (its .gz held the lines already)`)
  for (const { path, bytes } of report.leftovers) lines.push(`clean ${path} (${bytes} bytes)`)
  for (const { path, bytes } of report.deleted) lines.push(`delete ${path} (${bytes} bytes)`)
  for (const { path, bytes } of report.held) lines.push(`hold ${path} (${bytes} bytes)`)
  for (const { path, message } of report.failed) lines.push(`failed ${path}: ${message}`)
  const counts = [
    `${report.compressed.length + report.finished.length} compressed`,
    `${report.deleted.length} deleted`,
    `${report.failed.length} failed`
  ]
  lines.push(`${report.dryRun ? 'would be: ' : ''}${counts.join(', ')}`)
  return `${lines.join('\n')}\n`
}
