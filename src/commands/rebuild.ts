import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { listHours, narrowFilter } from '../vault/layout.ts'
import { collect, outMistakes } from './options.ts'
import { type HourReport, type HourTask, rebuildHour } from './rebuild-hour.ts'

interface Options {
  readonly vault: string
  readonly out?: string
  readonly exchange: string[]
  readonly symbol: string[]
  readonly jobs: string
  readonly json: boolean
}

const DAMAGES_SHOWN = 20

/** `l3cap rebuild`: all derived feeds again, from the frames. */
export function rebuildCommand(): Command {
  return new Command('rebuild')
    .summary('write all derived feeds again from the frames')
    .description(
      'Reads the frames of a vault and writes events, updates, snapshots and trades again into another directory: the same ' +
        'bytes. Every hour is rebuilt from its own frames alone. The status feed is not derived from frames and not written.'
    )
    .option('--vault <dir>', 'vault directory; environment L3CAP_VAULT', defaultVault())
    .option('--out <dir>', 'directory to write into, without feeds of its own yet (default: none, it must be said)')
    .addOption(
      new Option('--exchange <id>', 'only these exchanges; repeat or commas').argParser(collect).default([], 'all')
    )
    .addOption(
      new Option('--symbol <name>', 'only these instruments; repeat or commas').argParser(collect).default([], 'all')
    )
    .option('--jobs <n>', 'hours rebuilt at a time', String(availableParallelism()))
    .option('--json', 'print the report as JSON', false)
    .action((options: Options) => rebuild(options))
}

async function rebuild(options: Options): Promise<void> {
  const mistakes: string[] = []
  const jobs = Number(options.jobs)
  if (!Number.isInteger(jobs) || jobs < 1)
    mistakes.push(`--jobs must be a whole number from 1, not ${JSON.stringify(options.jobs)}`)
  const { out } = options
  if (out === undefined) mistakes.push('--out is needed')
  else mistakes.push(...outMistakes(options.vault, out))
  if (!existsSync(options.vault)) mistakes.push(`--vault: there is no ${options.vault}`)
  const narrowed = narrowFilter(options.vault, options.exchange, options.symbol)
  mistakes.push(...narrowed.mistakes)
  if (mistakes.length > 0 || out === undefined) throw new L3capError('USAGE', mistakes.join('\n'))
  const names = options.symbol.length > 0 ? [narrowed.filter.name ?? []].flat() : []
  const tasks = planTasks(options.vault, out, narrowed.filter.exchange, names)
  const began = performance.now()
  const reports = jobs > 1 && tasks.length > 1 ? await inThreads(tasks, jobs) : await oneByOne(tasks)
  const total = reports.reduce(
    (a, b) => ({ frames: a.frames + b.frames, lines: a.lines + b.lines, unused: a.unused + b.unused }),
    { frames: 0, lines: 0, unused: 0 }
  )
  const seconds = (performance.now() - began) / 1000
  const damaged = reports.flatMap(each => each.damaged)
  const report = { hours: tasks.length, ...total, damaged, seconds: Math.round(seconds * 1000) / 1000 }
  process.stdout.write(
    options.json
      ? `${JSON.stringify(report)}\n`
      : `${report.hours} hours, ${total.frames} lines of frames, ${total.lines} records, ${report.seconds} s\n`
  )
  const unused =
    total.unused > 0 ? [`${total.unused} lines belong to no connection whose opening or state is there`] : []
  const mess = [...damaged, ...unused]
  if (mess.length === 0) return
  const more = mess.length > DAMAGES_SHOWN ? [`and ${mess.length - DAMAGES_SHOWN} more; --json names all`] : []
  const result = `everything else was rebuilt into ${out}; a gap stands where a book missed lines`
  throw new L3capError('VAULT_DAMAGED', [...mess.slice(0, DAMAGES_SHOWN), ...more, result].join('\n'))
}

function planTasks(
  vault: string,
  out: string,
  exchange: string | readonly string[] | undefined,
  names: readonly string[]
): HourTask[] {
  const tasks = new Map<string, Map<string, string[]>>()
  for (const file of listHours(vault, { exchange, feed: 'frames' })) {
    if (file.kind !== 'jsonl' && file.kind !== 'gz') continue
    const key = `${file.hour}/${file.exchange}`
    const connections = tasks.get(key) ?? new Map<string, string[]>()
    tasks.set(key, connections)
    const paths = connections.get(file.name) ?? []
    connections.set(file.name, paths)
    // Late lines stand in a plain file beside the compressed one.
    if (file.kind === 'gz') paths.unshift(file.path)
    else paths.push(file.path)
  }
  return [...tasks].map(([key, connections]) => ({
    exchange: key.slice(key.indexOf('/') + 1),
    out,
    connections: [...connections.values()],
    names
  }))
}

async function oneByOne(tasks: readonly HourTask[]): Promise<HourReport[]> {
  const reports: HourReport[] = []
  for (const task of tasks) reports.push(await rebuildHour(task))
  return reports
}

/** Each hour writes files of its own, so that threads share nothing. */
async function inThreads(tasks: readonly HourTask[], jobs: number): Promise<HourReport[]> {
  const waiting = [...tasks]
  const reports: HourReport[] = []
  const work = async (): Promise<void> => {
    const worker = new Worker(new URL('./rebuild-worker.js', import.meta.url))
    try {
      for (let task = waiting.shift(); task; task = waiting.shift()) reports.push(await ask(worker, task))
    } finally {
      await worker.terminate()
    }
  }
  await Promise.all(Array.from({ length: Math.min(jobs, tasks.length) }, work))
  return reports
}

function ask(worker: Worker, task: HourTask): Promise<HourReport> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('message', (answer: { report?: HourReport; error?: string }) => {
      worker.off('error', reject)
      if (answer.report) resolve(answer.report)
      else reject(new L3capError('VAULT', answer.error ?? 'a thread ended without an answer'))
    })
    worker.postMessage(task)
  })
}
