/** `l3cap repair`: mends half-written tails in place, and everything that frames can mend in another vault. */
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { printable } from '../core/printable.ts'
import { type HourFilter, narrowFilter } from '../vault/layout.ts'
import { type RepairReport, repairVault } from '../vault/repair.ts'
import { runCheck } from './check-run.ts'
import { type MendReport, mendVault } from './mend.ts'
import { collect, outMistakes } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly out?: string
  readonly dryRun: boolean
  readonly json: boolean
}

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `LOCKED`. */
export function repairCommand(): Command {
  return new Command('repair')
    .summary('mend half-written tails in a vault that no process writes; with --out, what frames can mend')
    .description(
      'Moves what a crash left behind the last whole line of an hour file to <HH>.jsonl.torn. Whole lines are never ' +
        'touched. Instruments that a running process writes are left alone and reported (exit 3). With --out it changes ' +
        'nothing, but writes another vault: derived files that `check --deep` finds errors in are made again from the ' +
        'frames, everything else is taken over byte for byte (exit 1 when errors remain).'
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
    .option(
      '--out <dir>',
      'write a mended vault of what is chosen there, leave this one as it is (default: mend in place)'
    )
    .option('--dry-run', 'say what would be done and change nothing', false)
    .option('--json', 'print the report as JSON', false)
    .action(async (options: Options) => {
      const { vault, out, dryRun } = options
      if (!existsSync(vault)) throw new L3capError('USAGE', `--vault: there is no ${vault}`)
      const { filter, mistakes } = narrowFilter(vault, options.exchange, options.symbol)
      if (out !== undefined && dryRun) mistakes.push('--dry-run: with --out nothing is changed; see `check --deep`')
      if (out !== undefined) mistakes.push(...outMistakes(vault, out))
      if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
      if (out !== undefined) return mend(options, out, filter)
      const report = repairVault(vault, filter, { dryRun, nowMs: Date.now(), command: 'l3cap repair' })
      process.stdout.write(options.json ? `${JSON.stringify({ vault, ...report })}\n` : describe(report))
      complain(report)
    })
}

async function mend({ vault, exchange, symbol, json }: Options, out: string, filter: HourFilter): Promise<void> {
  const names = symbol.length > 0 ? [filter.name ?? []].flat() : []
  const jobs = availableParallelism()
  // Of the frames all are needed: which of them an instrument has is not in their names.
  const asked = { vault, exchanges: exchange, names, deep: true, jobs, nowMs: Date.now() }
  const report = await mendVault(vault, out, filter, (await runCheck(asked)).findings)
  process.stdout.write(json ? `${JSON.stringify(report)}\n` : describeMend(report))
  const kept = report.kept.map(({ file, why }) => `${file}: ${why}`)
  if (kept.length > 0)
    throw new L3capError(
      'FINDINGS',
      printable(
        [`${kept.length === 1 ? '1 file keeps its' : `${kept.length} files keep their`} errors:`, ...kept].join('\n')
      )
    )
}

function describeMend({ vault, out, copied, mended }: MendReport): string {
  const lines = mended.map(file => `made again from the frames: ${file}`)
  const total = `${vault} to ${out}: ${mended.length} made again, ${copied} taken over as they are`
  return `${printable([...lines, total].join('\n'))}\n`
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
