/** `l3cap status`: whether the captures of a vault run as they should, by the health files they write. */
import { statSync } from 'node:fs'
import { relative } from 'node:path'
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { printable } from '../core/printable.ts'
import { isoMs } from '../core/time.ts'
import { type FoundHealth, readHealthFiles } from '../vault/health.ts'
import { type Health, type InstrumentHealth, lifeProblem, parseHealth, problemsOf, secondsText } from './health.ts'
import { collect } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: readonly string[]
  readonly symbol: readonly string[]
  readonly json: boolean
}

/** One health file, judged: what it says, and what is wrong. */
export interface ProcessStatus extends Health {
  readonly path: string
  readonly age_ms: number
  readonly live: boolean
  /** Its process does not run, and others write all of its instruments now: nothing is wrong with that. */
  readonly replaced: boolean
  readonly problems: readonly string[]
}

/** What `l3cap status --json` prints. */
export interface VaultStatus {
  readonly vault: string
  readonly at: string
  readonly live: boolean
  /** What is wrong besides the processes: damaged files, nothing to look at. */
  readonly problems: readonly string[]
  readonly processes: readonly ProcessStatus[]
}

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `NOT_LIVE`. */
export function statusCommand(): Command {
  return new Command('status')
    .summary('tell whether the captures of a vault are live')
    .description(
      'Reads the health files of a vault: what runs, and what of it is not live. Exit 0 when everything is live, 1 when ' +
        'something is not (named on stderr), 2 when there is no vault.'
    )
    .option('--vault <dir>', 'vault directory (environment: L3CAP_VAULT)', defaultVault())
    .addOption(
      new Option('--exchange <id>', 'only these exchanges (repeat or commas)').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--symbol <name>', 'only these instruments (repeat or commas)').argParser(collect).default([], 'all')
    )
    .option('--json', 'print one JSON object', false)
    .action(async (options: Options) => {
      const { vault, exchange, symbol, json } = options
      if (!statSync(vault, { throwIfNoEntry: false })?.isDirectory())
        throw new L3capError('USAGE', `there is no vault at ${vault}`)
      const status = judge(vault, await readHealthFiles(vault), exchange, symbol, Date.now())
      process.stdout.write(json ? `${JSON.stringify(status)}\n` : describe(status))
      if (!status.live) throw new L3capError('NOT_LIVE', printable(complaints(status).join('\n')))
    })
}

/**
 * Judges the health files of a vault at a moment (milliseconds since the epoch). Empty lists of exchanges and symbols mean
 * all.
 */
export function judge(
  vault: string,
  files: readonly FoundHealth[],
  exchanges: readonly string[],
  symbols: readonly string[],
  nowMs: number
): VaultStatus {
  const problems: string[] = []
  const known: [file: FoundHealth, health: Health, life: string | null][] = []
  for (const file of files.filter(each => exchanges.length === 0 || exchanges.includes(each.exchange))) {
    const parsed = file.text === null ? { trouble: file.trouble ?? 'unreadable' } : parseHealth(file.text)
    if ('health' in parsed) known.push([file, parsed.health, lifeProblem(parsed.health, ageOf(file, parsed, nowMs))])
    else problems.push(`${relative(vault, file.path)} is damaged: ${parsed.trouble}`)
  }
  const written = new Set(known.flatMap(([, health, life]) => (life === null ? health.instruments.map(keyOf) : [])))
  const processes = known
    .map(([file, health, life]): ProcessStatus => {
      const instruments = health.instruments.filter(each => isWanted(each, symbols))
      const shown = { ...health, instruments }
      const replaced = life !== null && health.instruments.every(each => written.has(keyOf(each)))
      const found = life === null ? problemsOf(shown) : [life]
      const age_ms = ageOf(file, { health }, nowMs)
      return { path: file.path, age_ms, ...shown, live: found.length === 0, replaced, problems: found }
    })
    .filter(({ instruments }) => symbols.length === 0 || instruments.length > 0)
  for (const wanted of exchanges.filter(id => !files.some(({ exchange }) => exchange === id)))
    problems.push(`no health file of ${wanted}: no capture of it has run here`)
  for (const symbol of symbols.filter(each => !processes.some(({ instruments }) => instruments.some(isNamed(each)))))
    problems.push(`no capture of ${symbol} has run here`)
  if (processes.length === 0 && problems.length === 0) problems.push('no health file: no capture has run here')
  const live = problems.length === 0 && processes.every(each => each.live || each.replaced)
  // Whoever did stop is no trouble where others go on; that nobody does is.
  return { vault, at: isoMs(nowMs * 1000), live, problems, processes }
}

/** How old a health file is: by what it says, or by its file, as clocks may be set between the two. */
function ageOf(file: FoundHealth, { health }: { health: Health }, nowMs: number): number {
  return Math.max(0, Math.round(nowMs - Math.min(Date.parse(health.time_utc), file.modifiedMs)))
}

function keyOf({ exchange, instId }: InstrumentHealth): string {
  return `${exchange} ${instId}`
}

function isWanted(instrument: InstrumentHealth, symbols: readonly string[]): boolean {
  return symbols.length === 0 || symbols.some(symbol => isNamed(symbol)(instrument))
}

/** Whether an instrument is the one of a name in any common spelling. */
function isNamed(symbol: string): (instrument: InstrumentHealth) => boolean {
  const letters = (text: string) => text.toUpperCase().replace(/[^A-Z0-9]/g, '')
  // Bitfinex writes a `t` before the name of a pair.
  const spellings = [letters(symbol), ...(/^t[A-Z]/.test(symbol) ? [letters(symbol.slice(1))] : [])]
  return ({ instId }) => instId === symbol || spellings.includes(letters(instId))
}

function complaints({ problems, processes }: VaultStatus): string[] {
  const named = processes
    .filter(({ replaced }) => !replaced)
    .flatMap(({ exchange, pid, problems: own }) => own.map(problem => `${exchange} (process ${pid}): ${problem}`))
  return [...problems, ...named]
}

function describe(status: VaultStatus): string {
  const blocks = status.processes.map(describeProcess)
  const verdict = status.live ? 'everything is live' : 'NOT everything is live'
  return printable([...blocks, ...status.problems, `${status.vault} at ${status.at}: ${verdict}`, ''].join('\n'))
}

/** A line cannot be made to look like two. */
function oneLine(text: string): string {
  return text.replaceAll('\n', '?')
}

function describeProcess(status: ProcessStatus): string {
  const { exchange, pid, host, version, started_utc, live, replaced, problems } = status
  const { memory, event_loop_delay_ms: loop, disk_free_bytes: free, writer, frames_dropped } = status
  const state = live ? 'live' : replaced ? 'not running, replaced by another' : 'NOT LIVE'
  const waiting = `${megabytes(writer.pending_bytes)} wait, at most ${megabytes(writer.pending_bytes_max)}`
  const facts = [
    `said ${secondsText(status.age_ms)} ago`,
    `memory ${megabytes(memory.rss)}`,
    `loop delay p99 ${loop === null ? '-' : `${loop.p99} ms, at most ${loop.max} ms`}`,
    `disk free ${free === null ? 'unknown' : megabytes(free)}`,
    `writer ${writer.paused ? `PAUSED (${writer.reason ?? 'no reason told'})` : 'writes'}, ${waiting}`,
    `${status.frames_in} frames, ${frames_dropped} dropped`
  ]
  const lines = [
    `${exchange}: ${state}, process ${pid} on ${host}, version ${version}, since ${started_utc}`,
    `  ${facts.join('; ')}`,
    ...status.instruments.map(each => `  ${describeInstrument(each, status)}`),
    ...(replaced ? [] : problems.map(problem => `  ! ${problem}`))
  ]
  return `${lines.map(oneLine).join('\n')}\n`
}

function describeInstrument(instrument: InstrumentHealth, { time_utc, age_ms }: ProcessStatus): string {
  const ago = (utc: string | null) =>
    utc === null ? '-' : `${secondsText(Math.max(0, Date.parse(time_utc) + age_ms - Date.parse(utc)))} ago`
  const { state, instId, level, gaps, mismatches, lag_ms: lag } = instrument
  return (
    `${instId.padEnd(18)} ${level} ${state.padEnd(7)}  event ${ago(instrument.last_event_utc)}  ` +
    `snapshot ${ago(instrument.last_snapshot_utc)}  gaps ${gaps}  mismatches ${mismatches}  ` +
    `lag ${lag === null ? '-' : `${lag.p50} ms, p99 ${lag.p99} ms`}`
  )
}

function megabytes(bytes: number): string {
  return bytes < 1e10 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}
