/** `l3cap repair`: mends half-written tails of hour files that no process writes. */
import { existsSync } from 'node:fs'
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { narrowFilter } from '../vault/layout.ts'
import { type RepairReport, repairVault } from '../vault/repair.ts'
import { collect } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly dryRun: boolean
  readonly json: boolean
}

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `LOCKED`. */
export function repairCommand(): Command {
  return new Command('repair')
    .summary('mend half-written tails in a vault that no process writes')
    .description(
      'Moves what a crash left behind the last whole line of an hour file to <HH>.jsonl.torn. Whole lines are never ' +
        'touched. Instruments that a running process writes are left alone and reported (exit 3).'
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
    .option('--dry-run', 'say what would be done and change nothing', false)
    .option('--json', 'print the report as JSON', false)
    .action((options: Options) => {
      if (!existsSync(options.vault)) throw new L3capError('VAULT', `there is no vault at ${options.vault}`)
      const { filter, mistakes } = narrowFilter(options.vault, options.exchange, options.symbol)
      if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
      const { vault, dryRun } = options
      const report = repairVault(vault, filter, { dryRun, nowMs: Date.now(), command: 'l3cap repair' })
      process.stdout.write(options.json ? `${JSON.stringify({ vault, ...report })}\n` : describe(report))
      complain(report)
    })
}

/** Trouble of this run goes before that of others: a failure is exit 1, an instrument in use exit 3. */
function complain(report: RepairReport): void {
  const failed = report.failed.map(({ path, message }) => `${path}: ${message}`)
  const skipped = report.skipped.map(({ holder }) => holder)
  const lines = [...failed, ...skipped].join('\n')
  if (failed.length > 0) throw new L3capError('VAULT', `repair failed for ${failed.length}:\n${lines}`)
  if (skipped.length > 0) throw new L3capError('LOCKED', `repair left ${skipped.length} in use alone:\n${lines}`)
}

function describe(report: RepairReport): string {
  const lines = report.repaired.map(({ path, movedBytes }) => `repair ${path} (${movedBytes} bytes to .torn)`)
  for (const { exchange, name, holder } of report.skipped) lines.push(`skip ${exchange} ${name}: ${holder}`)
  for (const { path, message } of report.failed) lines.push(`failed ${path}: ${message}`)
  const counts = `${report.examined} examined, ${report.repaired.length} repaired, ${report.skipped.length} skipped`
  lines.push(`${report.dryRun ? 'would be: ' : ''}${counts}, ${report.failed.length} failed`)
  return `${lines.join('\n')}\n`
}
