import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { L3capError } from '../core/errors.ts'
import { FEEDS } from '../core/instrument.ts'
import { printable } from '../core/printable.ts'
import { parseDuration } from '../core/time.ts'
import { imageStartUs, Merge, type MergeInput } from '../replay/merge.ts'
import { Tempo } from '../replay/tempo.ts'
import { type HourFilter, narrowFilter } from '../vault/layout.ts'
import { listStreams, placeOf, type Range } from '../vault/streams.ts'
import { collect, readRange } from './options.ts'

interface Options {
  readonly vault: string
  readonly exchange: string[]
  readonly symbol: string[]
  readonly feeds?: string[]
  readonly from?: string
  readonly to?: string
  readonly since?: string
  readonly image: boolean
  readonly speed?: string
  readonly skipIdle?: string
  readonly serve?: string
  readonly once: boolean
}

/** What a replay is of, and how fast. */
interface Plan {
  readonly vault: string
  readonly filter: HourFilter
  readonly feeds: readonly string[]
  readonly range: Range
  readonly image: boolean
  readonly speed: number
  readonly idleUsMax: number
  /** The port to serve on; null: to print. */
  readonly port: number | null
  readonly once: boolean
}

const EVENTS = ['l3_events', 'l2_updates']
/** The words of `--feeds` besides the names of feeds. */
const FEED_WORDS: Record<string, readonly string[]> = {
  events: EVENTS,
  snapshots: FEEDS.filter(feed => /^l[23]_(?:spot|perps|futures|options)$/.test(feed))
}
const SLEEP_MS_MAX = 60_000
const TROUBLES_SHOWN = 20
const SHOWN_CHARS_MAX = 300

/** `l3cap replay`: what was recorded, again, in the order in which it was received. */
export function replayCommand(): Command {
  const list = (flags: string, description: string) => new Option(flags, description).argParser(collect)
  return new Command('replay')
    .summary('print the events and trades of a time range in order, or serve the recorded frames')
    .description(
      'Prints the lines of all chosen instruments and feeds to stdout, word for word, in the order in which they were received. ' +
        'With --serve the recorded frames become a WebSocket exchange on loopback, for any client.'
    )
    .option('--vault <dir>', 'vault directory; environment L3CAP_VAULT', defaultVault())
    .addOption(list('--exchange <id>', 'only these exchanges; repeat or commas').default([], 'all'))
    .addOption(
      list('--symbol <name>', 'only these instruments; of frames, connections; repeat or commas').default([], 'all')
    )
    .addOption(
      list('--feeds <names>', `events, trades, snapshots, status, frames, or names of feeds (default: events,trades)`)
    )
    .option('--from <time>', 'from here on: ISO 8601 UTC, µs since the epoch, -5m (default: the beginning)')
    .option('--to <time>', 'up to, not including, this moment (default: the end)')
    .option('--since <duration>', 'the last 5m, 6h, … up to now; instead of --from (default: the beginning)')
    .option('--image', 'events begin at the last full image before --from, so that a book can be built', false)
    .option('--speed <n>', '1: real time, 10: ten times as fast, max: no waiting (default: max, with --serve 1)')
    .option('--skip-idle <duration>', 'pauses are no longer than this, as recorded (default: as they were)')
    .option('--serve <port>', 'serve the recorded frames on 127.0.0.1; 0 takes a free port (default: print lines)')
    .option(
      '--once',
      'with --serve: end when all recorded connections on the paths that clients came to were played',
      false
    )
    .action((options: Options) => replay(options))
}

async function replay(options: Options): Promise<void> {
  const plan = readOptions(options, Date.now() * 1000)
  // Each write tells its failure itself; without a listener it would also end the process.
  process.stdout.on('error', () => undefined)
  if (plan.port !== null) {
    // Loaded only here: printing lines need not carry it.
    const { serveRecording } = await import('./replay-server.ts')
    await serveRecording({ ...plan, port: plan.port })
    return
  }
  const troubles = new Troubles(plan.vault)
  const merge = new Merge(await inputsOf(plan), troubles.tell)
  const tempo = new Tempo(plan.speed, plan.range.fromUs, plan.idleUsMax)
  while (merge.nextUs < Number.POSITIVE_INFINITY) {
    const nowMs = performance.now()
    const waitMs = tempo.waitMs(merge.nextUs, nowMs)
    if (waitMs > 0) await sleep(Math.min(waitMs, SLEEP_MS_MAX))
    else if (!(await print(await merge.fill(Math.max(merge.nextUs, tempo.dueUs(nowMs)))))) return
  }
  troubles.sum()
}

/** Judges the options. Throws `USAGE` with all mistakes. */
function readOptions(options: Options, nowUs: number): Plan {
  const mistakes: string[] = []
  if (!existsSync(options.vault)) mistakes.push(`--vault: there is no ${options.vault}`)
  const feeds = (options.feeds ?? ['events', 'trades']).flatMap(word => {
    const found = FEED_WORDS[word] ?? FEEDS.filter(feed => feed === word)
    if (found.length === 0) mistakes.push(`--feeds ${word}: it is one of events, trades, snapshots, status, frames`)
    return found
  })
  const duration = (name: string, text: string | undefined) => {
    const ms = text === undefined ? undefined : parseDuration(text)
    if (text !== undefined && ms === undefined) mistakes.push(`${name} ${text} is no duration such as 500ms, 30s or 5m`)
    return ms === undefined ? undefined : ms * 1000
  }
  const range = readRange(options, nowUs, mistakes)(nowUs)
  const port = options.serve === undefined ? null : Number(options.serve)
  if (port !== null && !(Number.isInteger(port) && port >= 0 && port <= 65_535))
    mistakes.push(`--serve ${options.serve} is no port from 0 to 65535`)
  if (port === null && options.once) mistakes.push('--once goes with --serve')
  if (port !== null && options.feeds !== undefined) mistakes.push('--feeds: what is served are the frames')
  const asked = options.speed ?? (port === null ? 'max' : '1')
  const speed = asked === 'max' ? Number.POSITIVE_INFINITY : Number(asked)
  if (!(speed > 0)) mistakes.push(`--speed ${asked} is no number above 0, nor max`)
  const idleUsMax = duration('--skip-idle', options.skipIdle) ?? Number.POSITIVE_INFINITY
  const { filter, mistakes: unknown } = narrowFilter(options.vault, options.exchange, options.symbol)
  mistakes.push(...unknown)
  if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
  const { vault, image, once } = options
  return { vault, filter, feeds, range, image, speed, idleUsMax, port, once }
}

/** The streams to merge. Frames belong to connections: names of instruments alone leave none of them out. */
async function inputsOf({ vault, filter, feeds, range, image }: Plan): Promise<MergeInput[]> {
  const derived = feeds.filter(feed => feed !== 'frames')
  const found = listStreams(vault, { ...filter, feed: derived }, range)
  if (feeds.includes('frames')) {
    const named = listStreams(vault, { ...filter, feed: 'frames' }, range)
    found.push(
      ...(named.length > 0 ? named : listStreams(vault, { ...filter, name: undefined, feed: 'frames' }, range))
    )
  }
  if (found.length === 0) throw new L3capError('VAULT', `${vault} holds no hours of ${feeds.join(', ')} in that range`)
  const inputs: MergeInput[] = []
  for (const stream of found) {
    const { fromUs } = range
    const isImage = image && fromUs !== undefined && EVENTS.includes(stream.feed)
    inputs.push({ stream, ...range, fromUs: isImage ? await imageStartUs(stream, fromUs) : fromUs })
  }
  return inputs
}

/** Resolves when the bytes are written: false when nobody reads any more. */
function print(bytes: Buffer): Promise<boolean> {
  if (bytes.length === 0) return Promise.resolve(true)
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, error => {
      if (!error) resolve(true)
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE') resolve(false)
      else reject(error)
    })
  })
}

/** Tells what is wrong with files, while the rest goes on. */
class Troubles {
  private readonly vault: string
  private count = 0

  constructor(vault: string) {
    this.vault = vault
  }

  readonly tell = (path: string, line: number | null, what: string): void => {
    if (++this.count > TROUBLES_SHOWN) return
    const place = placeOf(this.vault, path) + (line === null ? '' : `:${line}`)
    process.stderr.write(`l3cap: ${printable(`${place}: ${what}`.slice(0, SHOWN_CHARS_MAX))}\n`)
  }

  /** Throws when there was something. */
  sum(): void {
    if (this.count > 0)
      throw new L3capError('VAULT_DAMAGED', `${this.count} damaged places; everything else was printed`)
  }
}
