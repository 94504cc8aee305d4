/** `l3cap check`: judges a vault by nothing but its files. */
import { statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Command, Option } from 'commander'
import { type AlertFlags, readAlertSettings } from '../config/alerts.ts'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { listNames, narrowFilter } from '../vault/layout.ts'
import { addAlertOptions, alertOnce, hasAlerts, watch } from './alerting.ts'
import { describeReport, ProgressBar } from './check-print.ts'
import { type CheckReport, runCheck } from './check-run.ts'
import { collect, readRange } from './options.ts'

interface Options extends AlertFlags {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly since?: string
  readonly from?: string
  readonly to?: string
  readonly deep: boolean
  readonly live: boolean
  readonly jobs: string
  readonly json: boolean
}

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `FINDINGS`. */
export function checkCommand(): Command {
  const command = new Command('check')
    .summary('judge a vault by its files, while they are written and long after')
    .description(
      'Reads a vault, or a part of it, and names what is wrong: damaged, missing, doubled and late data, broken sequences, ' +
        'wrong checksums and books. Exit 0 when there is no error (warnings may be), 1 when there is one, 2 for wrong usage.'
    )
    .option('--vault <dir>', 'vault directory (environment: L3CAP_VAULT)', defaultVault())
    .addOption(
      new Option('--exchange <id>', 'only these exchanges (repeat or commas)').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--symbol <name>', 'only these instruments (repeat or commas)').argParser(collect).default([], 'all')
    )
    .option('--since <duration>', 'only what was received within this time, such as 1h')
    .option('--from <time>', 'only what was received from then on: 2026-11-20, 2026-11-20 15:30, ISO 8601')
    .option('--to <time>', 'only what was received before')
    .option('--live', 'only the captures that run now and the newest minutes: 5, or those of --since', false)
    .option('--deep', 'compare every derived line with what the frames give', false)
    .option('--jobs <n>', 'threads', String(availableParallelism()))
    .option('--json', 'print one JSON object', false)
  return addAlertOptions(command).action((options: Options) => check(options))
}

async function check(options: Options): Promise<void> {
  const { vault, exchange, symbol } = options
  const mistakes: string[] = []
  const { settings, mistakes: alertMistakes } = readAlertSettings(options)
  mistakes.push(...alertMistakes)
  const jobs = Number(options.jobs)
  if (!Number.isInteger(jobs) || jobs < 1) mistakes.push(`--jobs must be a whole number from 1, not ${options.jobs}`)
  const rangeOf = readRange(options, Date.now() * 1000, mistakes)
  // A disk that is not there is what alerts are for, and no mistake of who asks for them.
  const isAlarmed = settings.watchMs !== null || hasAlerts(settings)
  if (!isAlarmed || holdsAny(vault)) mistakes.push(...select(options).mistakes)
  if (options.live && options.deep) mistakes.push('--live and --deep exclude each other')
  if (options.live && (options.from ?? options.to) !== undefined)
    mistakes.push('--live takes --since, not --from and --to')
  if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
  const round = async (): Promise<CheckReport> => {
    const nowMs = Date.now()
    const { names, mistakes: unknown } = select(options)
    if (unknown.length > 0) throw new L3capError('VAULT', unknown.join('\n'))
    const bar = new ProgressBar(process.stderr, performance.now())
    try {
      return await runCheck({
        vault,
        exchanges: exchange,
        names,
        ...rangeOf(nowMs * 1000),
        symbols: symbol,
        deep: options.deep,
        live: options.live,
        jobs,
        nowMs,
        onProgress: (done, total) => bar.show(done, total, performance.now())
      })
    } finally {
      bar.clear()
    }
  }
  const context = { vault, scope: scopeOf(options), json: options.json }
  if (settings.watchMs !== null) return watch(async () => (await round()).findings, settings, context)
  let report: CheckReport | undefined
  const once = async () => {
    report = await round()
    return report.findings
  }
  let isDelivered = true
  if (hasAlerts(settings)) isDelivered = await alertOnce(once, settings, context)
  else await once()
  if (report === undefined) return
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : describeReport(report))
  if (report.counts.errors > 0) throw new L3capError('FINDINGS', `${report.counts.errors} errors in ${vault}`)
  if (!isDelivered) throw new L3capError('REST', 'not every alert was delivered')
}

/** The folders of the instruments that are asked for; `mistakes`: what the vault does not hold, or that there is none. */
function select({ vault, exchange, symbol }: Options): { names: readonly string[]; mistakes: readonly string[] } {
  if (!isDirectory(vault)) return { names: [], mistakes: [`--vault: there is no ${vault}`] }
  const { filter, mistakes } = narrowFilter(vault, exchange, symbol)
  return { names: symbol.length > 0 ? [filter.name ?? []].flat() : [], mistakes }
}

/** Whether it is a vault that anything was captured into. */
function holdsAny(vault: string): boolean {
  return isDirectory(vault) && listNames(vault).size > 0
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

/** What a check looks at, for the name of its alerts' state; empty for a whole vault. */
function scopeOf({ exchange, symbol, deep, live, since, from, to }: Options): string {
  const range = Object.entries({ since, from, to }).flatMap(([name, text]) => (text === undefined ? [] : [name, text]))
  return [...(live ? ['live'] : deep ? ['deep'] : []), ...exchange, ...symbol, ...range].join('-')
}
