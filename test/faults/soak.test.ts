import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SentFrame } from '../../src/simulator/simulator.ts'
import { live, nowMs, type Running, report, Stage, type StageExchange, wishes } from './harness.ts'
import { type Figures, hourFiles, judge, type Life, type SentConnection, type Source } from './oracle.ts'

// One long life at five times a busy market (53 frames a second of one Bitfinex pair, order by order), with a reconnect of
// every connection each minute. What was sent goes to the disk as it is sent, and is judged some minutes at a time.
// `npm run faults -- --only soak --minutes 120` is the long form.
const EVENTS_PER_SECOND = 265
const EXCHANGES: readonly StageExchange[] = [
  { exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] },
  { exchange: 'okx', symbols: ['BTC-USDT-SWAP', 'ETH-USDT-SWAP'], options: { okxChecksums: true } }
]
const MINUTES = Number(process.env.L3CAP_FAULT_MINUTES ?? 0.25)
const { seeds, isLong } = wishes('soak', { seed: 5, runs: 1 })
const SEED = seeds[0] ?? 5
const RECONNECT_MS = isLong ? 60_000 : 4000
const SAMPLE_MS = isLong ? 10_000 : 500
/** Connections that are judged together. */
const SLICE_SESSIONS = 5
const CHUNK_BYTES = 1024 * 1024

/** What the process used at a moment. */
interface Sample {
  readonly minute: number
  readonly rssMiB: number
  readonly heapMiB: number
  readonly descriptors: number
}

let stage: Stage
let running: Running
/** Where everything lies, and who wrote it: of this run, or of an earlier one that is only judged again. */
let folder: string
let lives: readonly Life[]
let sources: readonly Source[]
const samples: Sample[] = []
const spilled = new Set<SentConnection>()

const spillPath = (exchange: string, number: number) => join(folder, 'sent', `${exchange}-${number}.jsonl`)

/** Writes what was sent on connections that are over to the disk, and forgets it. */
function spill(keep: number): void {
  for (const { exchange, connections } of stage.sources) {
    for (const connection of connections.slice(0, keep === 0 ? undefined : -keep)) {
      const frames = connection.frames.splice(0)
      if (frames.length === 0) continue
      spilled.add(connection)
      appendFileSync(spillPath(exchange, connection.number), frames.map(each => `${JSON.stringify(each)}\n`).join(''))
    }
  }
}

function sample(startedMs: number): void {
  const status = readFileSync(`/proc/${running.pid}/status`, 'utf8')
  const folder = join(stage.vault, 'meta/bitfinex/health')
  const file = existsSync(folder) ? readdirSync(folder).find(name => name.endsWith('.json')) : undefined
  const health = file
    ? (JSON.parse(readFileSync(join(folder, file), 'utf8')) as { memory: { heap_used: number } })
    : null
  samples.push({
    minute: (nowMs() - startedMs) / 60_000,
    rssMiB: Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024,
    heapMiB: (health?.memory.heap_used ?? 0) / 1024 ** 2,
    descriptors: readdirSync(`/proc/${running.pid}/fd`).length
  })
}

/** The lines of a file, one by one, whatever its size. */
function* linesOf(path: string): Generator<string> {
  const file = openSync(path, 'r')
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES)
    let rest = Buffer.alloc(0)
    for (let count = readSync(file, chunk); count > 0; count = readSync(file, chunk)) {
      const bytes = Buffer.concat([rest, chunk.subarray(0, count)])
      let start = 0
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
        yield bytes.toString('utf8', start, end)
        start = end + 1
      }
      rest = Buffer.from(bytes.subarray(start))
    }
    if (rest.length > 0) yield rest.toString()
  } finally {
    closeSync(file)
  }
}

function* allLines(paths: readonly string[]): Generator<string> {
  for (const path of paths) yield* linesOf(path)
}

/** What an exchange says before it is asked for anything. */
const UNHEARD_MAX = 1
const countLines = (path: string) => [...linesOf(path)].length

const numberIn = (line: string, key: string) => Number(new RegExp(`"${key}":(\\d+)`).exec(line)![1])

/** Reads on in a feed as far as a frame number; what is left is for the next slice. */
class Shots {
  private readonly lines: Generator<string>
  private next: string | undefined

  constructor(lines: Generator<string>) {
    this.lines = lines
    this.next = lines.next().value ?? undefined
  }

  upTo(frame: number): string[] {
    const found: string[] = []
    while (this.next !== undefined && numberIn(this.next, 'frame') <= frame) {
      found.push(this.next)
      this.next = this.lines.next().value ?? undefined
    }
    return found
  }

  get isEmpty(): boolean {
    return this.next === undefined
  }
}

/** Judges an exchange slice by slice. Returns what is wrong, and adds to the figures. */
function judgeSlices(exchange: string, figures: Figures): string[] {
  const findings: string[] = []
  const root = join(join(folder, 'vault'), 'raw', exchange)
  const [name, ...others] = readdirSync(join(root, 'frames'))
  if (others.length > 0) return [`${exchange}: more connections than one at a time: ${others}`]
  const feeds = readdirSync(root).filter(feed => /^l[23]_(spot|perps)$/.test(feed))
  const shots = feeds.flatMap(feed =>
    readdirSync(join(root, feed)).map(instrument => ({
      path: join('raw', exchange, feed, instrument, '2000-01-01/00.jsonl'),
      source: new Shots(allLines(hourFiles(join(folder, 'vault'), exchange, feed, instrument)))
    }))
  )
  const { connections } = sources.find(each => each.exchange === exchange)!
  let slice: string[] = []
  let opens = 0
  let done = 0
  const finish = () => {
    const out = join(folder, 'slice')
    const put = (path: string, lines: readonly string[]) => {
      mkdirSync(dirname(join(out, path)), { recursive: true })
      writeFileSync(join(out, path), lines.map(line => `${line}\n`).join(''))
    }
    put(join('raw', exchange, 'frames', name!, '2000-01-01/00.jsonl'), slice)
    const last = numberIn(slice.at(-1)!, 'frame')
    for (const { path, source } of shots) put(path, source.upTo(last))
    const mine = connections.slice(done, done + opens).map(({ number, life }) => ({
      number,
      life,
      frames: [...linesOf(spillPath(exchange, number))].map(line => JSON.parse(line) as SentFrame)
    }))
    const verdict = judge(out, lives, [{ exchange, connections: mine }], { isSlice: true })
    findings.push(...verdict.findings)
    for (const key of Object.keys(figures) as (keyof Figures)[])
      figures[key] =
        key === 'lossMs' ? Math.max(figures[key], verdict.figures[key]) : figures[key] + verdict.figures[key]
    rmSync(out, { recursive: true })
    done += opens
    opens = 0
    slice = []
  }
  for (const line of allLines(hourFiles(join(folder, 'vault'), exchange, 'frames', name!))) {
    if (line.includes('"dir":"open"')) {
      if (opens === SLICE_SESSIONS) finish()
      opens++
    }
    slice.push(line)
  }
  finish()
  // One that was being opened when the capture stopped was never heard.
  const unheard = connections.slice(done).filter(({ number }) => countLines(spillPath(exchange, number)) > UNHEARD_MAX)
  if (unheard.length > 0) findings.push(`${exchange}: ${unheard.length} connections are not in the vault`)
  if (shots.some(({ source }) => !source.isEmpty)) findings.push(`${exchange}: snapshots after the last frame`)
  return findings
}

function hashes(vault: string): Map<string, string> {
  const raw = join(vault, 'raw')
  const files = readdirSync(raw, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const found = new Map<string, string>()
  for (const path of files.map(entry => join(entry.parentPath, entry.name)).sort()) {
    const short = relative(raw, path)
    if (/^[^/\\]+[/\\](frames|status)[/\\]/.test(short)) continue
    const hash = createHash('sha256')
    for (const line of linesOf(path)) hash.update(line)
    found.set(short, hash.digest('hex'))
  }
  return found
}

/** Takes a run that an earlier process has kept: its vault, what was sent, and what the process used. */
function judgeAgain(earlier: string): void {
  folder = earlier
  lives = [{ number: 1, end: 'clean', startedMs: 0, endedMs: Number.NaN }]
  sources = EXCHANGES.map(({ exchange }) => {
    const numbers = readdirSync(join(folder, 'sent')).flatMap(name => {
      const match = new RegExp(`^${exchange}-(\\d+)\\.jsonl$`).exec(name)
      return match ? [Number(match[1])] : []
    })
    const connections = numbers.sort((a, b) => a - b).map(number => ({ number, life: 1, frames: [] }))
    for (const connection of connections) spilled.add(connection)
    return { exchange, connections }
  })
  const progress = process.env.L3CAP_FAULT_PROGRESS
  if (progress) samples.push(...(JSON.parse(readFileSync(progress, 'utf8')) as { samples: Sample[] }).samples)
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

describe.skipIf(seeds.length === 0)(
  `${MINUTES} minutes at ${EVENTS_PER_SECOND} events/s an instrument (seed ${SEED})`,
  () => {
    beforeAll(
      async () => {
        const earlier = process.env.L3CAP_FAULT_FOLDER
        if (earlier) return judgeAgain(earlier)
        stage = await Stage.open({
          seed: SEED,
          kind: 'soak',
          exchanges: EXCHANGES,
          eventsPerSecond: EVENTS_PER_SECOND,
          cadence: isLong ? '2s' : '200ms'
        })
        folder = stage.folder
        lives = stage.lives
        sources = stage.sources
        mkdirSync(join(folder, 'sent'))
        running = stage.start()
        await running.heard()
        const startedMs = nowMs()
        let reconnectMs = startedMs + RECONNECT_MS
        while (nowMs() - startedMs < MINUTES * 60_000) {
          await live(SAMPLE_MS)
          if (running.hasExited) throw new Error(stage.about(`it ended: ${running.output.slice(-3000)}`))
          // The last connection is to be heard.
          if (nowMs() > reconnectMs && nowMs() < startedMs + MINUTES * 60_000 - RECONNECT_MS / 2) {
            reconnectMs += RECONNECT_MS
            for (const simulator of stage.simulators) simulator.inject({ kind: 'close', code: 1006 })
          }
          spill(2)
          sample(startedMs)
          if (process.env.L3CAP_FAULT_PROGRESS)
            writeFileSync(process.env.L3CAP_FAULT_PROGRESS, JSON.stringify({ folder, samples }))
        }
        expect(await running.stop()).toBe(0)
        spill(0)
      },
      MINUTES * 60_000 + 120_000
    )
    afterAll(() => stage?.close())

    test('every frame is accounted for, and every snapshot is the true book', { timeout: 3_600_000 }, () => {
      const figures: Figures = {
        frames: 0,
        lines: 0,
        sessions: 0,
        snapshots: 0,
        skipped: 0,
        lost: 0,
        lossMs: 0,
        orphans: 0
      }
      const findings = EXCHANGES.flatMap(({ exchange }) => judgeSlices(exchange, figures))
      expect(findings).toEqual([])
      const sent = [...spilled].length
      console.log(`soak: ${JSON.stringify({ ...figures, connections: sent })}`)
      report('soak', figures, findings.length, 0)
      expect(figures.sessions).toBeGreaterThan(sent - EXCHANGES.length - 1)
      expect(figures.frames).toBeGreaterThan(MINUTES * 60 * EVENTS_PER_SECOND)
      expect(figures.snapshots).toBeGreaterThan(MINUTES * 60)
    })

    test('is rebuilt to the same bytes', { timeout: 3_600_000 }, () => {
      const out = join(folder, 'again')
      execFileSync(process.execPath, ['bin/l3cap.js', 'rebuild', '--vault', join(folder, 'vault'), '--out', out])
      expect(hashes(out)).toEqual(hashes(join(folder, 'vault')))
      rmSync(out, { recursive: true })
    })

    test('memory and descriptors are what they were', () => {
      const after = samples.filter(({ minute }) => minute > MINUTES / 8)
      const quarter = Math.floor(after.length / 4)
      const figure = (key: keyof Sample) => {
        const values = after.map(each => each[key])
        const first = median(values.slice(0, quarter))
        const last = median(values.slice(-quarter))
        return { first, last, max: Math.max(...values), ratio: last / first }
      }
      const figures = { rssMiB: figure('rssMiB'), heapMiB: figure('heapMiB'), descriptors: figure('descriptors') }
      console.log(
        `soak: ${samples.length} samples, medians of the first and the last quarter: ${JSON.stringify(figures)}`
      )
      expect(figures.descriptors.ratio).toBeLessThan(1.1)
      // A short run is still growing into its buffers.
      const isSteady = MINUTES >= 30
      expect(figures.rssMiB.ratio).toBeLessThan(isSteady ? 1.2 : 2)
      if (isSteady) expect(figures.heapMiB.ratio).toBeLessThan(1.25)
    })
  }
)
