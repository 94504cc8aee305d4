import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Engine } from '../../src/capture/engine.ts'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import { type SentFrame, type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import { parseHourPath } from '../../src/vault/layout.ts'
import { VaultWriter } from '../../src/vault/writer.ts'
import { Journal } from '../../src/wire/journal.ts'
import { CONFIG, described, RecordedRequests, type Row } from '../helpers/driver.ts'
import { BitfinexPeer, ORDERS, type OrderText } from '../helpers/peers.ts'
import { derivedFiles, ensureBuilt, expectSameBytes, recordsOf } from '../helpers/vault.ts'

// The program while its wall clock is set, at the change of an hour, and at the end of a year in other time zones.
const BIN = resolve(process.env.L3CAP_FAULT_BIN ?? 'bin/l3cap.js')
const SHIM = resolve('test/faults/clock.cjs')
const SECOND = 1000
const HOUR = 3_600_000
const WAIT_MS = 30_000
const SYMBOLS = ['BTCUSD', 'ETHUSD']

let folder: string
let vault: string
let simulator: Simulator
const running: Captured[] = []

beforeAll(ensureBuilt, 120_000)
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-time-'))
  vault = join(folder, 'vault')
  simulator = await startSimulator({
    exchange: 'bitfinex',
    seed: 5,
    eventsPerSecond: 60,
    connectsPerMinute: 0,
    keepLog: true
  })
})
afterEach(async () => {
  for (const each of running.splice(0)) each.kill()
  await simulator.close()
  rmSync(folder, { recursive: true })
})

/** A run of the program into the vault, with a wall clock that can be set. */
class Captured {
  private readonly child: ChildProcess
  private readonly exited: Promise<number | null>
  private output = ''
  /** When it was told to stop. */
  stoppedMs = Number.POSITIVE_INFINITY

  constructor(shiftMs: number, env: Record<string, string> = {}) {
    set(shiftMs)
    const { wsUrl, restUrl } = simulator
    const words = [
      'run',
      '--exchange',
      'bitfinex',
      '--symbol',
      SYMBOLS.join(),
      '--ws-url',
      wsUrl,
      '--rest-url',
      restUrl
    ]
    words.push('--cadence', '200ms', '--vault', vault, '--log-dir', join(folder, 'logs'))
    this.child = spawn(process.execPath, [BIN, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: `--require ${SHIM}`, CLOCK_FILE: join(folder, 'clock'), ...env }
    })
    this.child.stderr?.on('data', text => {
      this.output += String(text)
    })
    this.exited = new Promise(done => this.child.on('exit', done))
    running.push(this)
  }

  /** Stops it as a user would. */
  async stop(): Promise<void> {
    this.stoppedMs = Date.now()
    this.child.kill('SIGTERM')
    expect(await this.exited, this.output).toBe(0)
  }

  kill(): void {
    if (this.child.exitCode === null) this.child.kill('SIGKILL')
  }
}

/** Sets the wall clock of the running program: so many milliseconds ahead of ours. */
function set(shiftMs: number): void {
  writeFileSync(join(folder, 'clock'), `${Math.round(shiftMs)}\n`)
}

/** Waits for a condition. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const endMs = performance.now() + WAIT_MS
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not within ${WAIT_MS} ms: ${what}`)
    await new Promise(done => setTimeout(done, 30))
  }
}

/** The whole lines of a feed so far: the program may be writing the last one. */
function linesOf(feed: string, name: string): { path: string; text: string }[] {
  const stream = join(vault, 'raw', 'bitfinex', feed, name)
  if (!existsSync(stream)) return []
  return readdirSync(stream, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort()
    .flatMap(path =>
      readFileSync(path, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map(text => ({ path, text }))
    )
}

const shots = (symbol: string) => linesOf('l3_spot', symbol).length

/** Waits until every book has so many more snapshots than now. */
async function sampled(more: number): Promise<void> {
  const wanted = SYMBOLS.map(symbol => shots(symbol) + more)
  await until(() => SYMBOLS.every((symbol, at) => shots(symbol) >= wanted[at]!), `${more} more snapshots`)
}

function steps(symbol: string): number[] {
  const rows = linesOf('status', symbol).map(({ text }) => JSON.parse(text) as Row)
  return rows.filter(row => row.event === 'clock_step').map(row => Number((row.detail as Row).step_ms))
}

/** Every line of every feed stands in the file of its own hour, later than the one before it. */
function expectOrder(): void {
  const raw = join(vault, 'raw')
  const entries = readdirSync(raw, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  for (const entry of entries) {
    const path = relative(vault, join(entry.parentPath, entry.name))
    const hour = parseHourPath(path)?.hour
    expect(hour, path).toBeDefined()
    let last = 0
    for (const line of readFileSync(join(vault, path), 'utf8').split('\n').slice(0, -1)) {
      const { recv_us, timestamp_utc } = JSON.parse(line) as { recv_us: number; timestamp_utc?: string }
      expect(recv_us, `${path}: ${line.slice(0, 200)}`).toBeGreaterThanOrEqual(last)
      expect(hourOf(recv_us), `${path}: ${line.slice(0, 200)}`).toBe(hour)
      if (timestamp_utc !== undefined) expect(timestamp_utc).toBe(new Date(Math.floor(recv_us / 1000)).toISOString())
      last = recv_us
    }
  }
}

/** How old a frame may be that is on its way yet: busy machines take their time. */
const WAY_MS_MAX = 2000

/**
 * What the exchange sent stands in the frames feed, word for word, each once and in order; but for what was on its way
 * when the capture was told to stop, which takes it a moment.
 */
function expectFrames(captures: readonly Captured[]): void {
  const runs: string[][] = []
  for (const { text } of linesOf('frames', 'bitfinex-1')) {
    if (text.includes('"dir":"open"')) runs.push([])
    else if (text.includes('"dir":"in","msg":')) runs.at(-1)!.push(text.slice(text.indexOf('"msg":') + 6, -1))
  }
  const sent = new Map<number, SentFrame[]>()
  for (const frame of simulator.log) sent.set(frame.connection, [...(sent.get(frame.connection) ?? []), frame])
  expect(runs.length).toBe(sent.size)
  for (const [at, frames] of [...sent.values()].entries()) {
    const texts = frames.map(frame => frame.text)
    const { length } = runs[at]!
    expect(runs[at]).toEqual(texts.slice(0, length))
    const lostMs = frames[length]?.atMs ?? Number.POSITIVE_INFINITY
    expect(lostMs, 'the first frame that was on its way at the end').toBeGreaterThan(
      captures[at]!.stoppedMs - WAY_MS_MAX
    )
  }
}

/** How far our clock is from a moment of the day that is so many milliseconds before the next full hour. */
const beforeHour = (ms: number) => HOUR - (Date.now() % HOUR) - ms

describe('a wall clock that is set', () => {
  test('forward and back by a second and by an hour, and a start behind it', { timeout: 120_000 }, async () => {
    let shift = beforeHour(6000)
    const first = new Captured(shift)
    await until(() => new Set(linesOf('l3_spot', SYMBOLS[0]!).map(({ path }) => path)).size === 2, 'the next hour')
    const told: number[] = []
    for (const step of [SECOND, -SECOND, HOUR, -HOUR]) {
      await sampled(2)
      shift += step
      set(shift)
      told.push(step)
      await until(() => SYMBOLS.every(symbol => steps(symbol).length === told.length), `a step of ${step} ms told`)
    }
    await sampled(3)
    await first.stop()
    // The program goes on an hour ahead of the wall clock; so does the next one, at the same pace.
    const second = new Captured(shift)
    await until(() => SYMBOLS.every(symbol => steps(symbol).length === told.length + 1), 'the step told at the start')
    await sampled(3)
    await second.stop()
    for (const symbol of SYMBOLS) {
      const found = steps(symbol)
      for (const [at, step] of told.entries()) expect(Math.abs(found[at]! - step)).toBeLessThan(SECOND / 2)
      // The first run has made good for some of it already.
      expect(found.slice(told.length).map(step => Math.round((step / HOUR) * 50) / 50)).toEqual([-1])
      // Setting a clock is no reason to lose a book, nor to ask for one.
      const events = recordsOf(vault, 'bitfinex', 'status', symbol).map(row => row.event)
      expect(
        events.filter(event => ['gap', 'stalled', 'disconnected', 'resubscribed'].includes(String(event)))
      ).toEqual([])
      expect(events.filter(event => event === 'synced')).toHaveLength(2)
    }
    expectOrder()
    expectFrames([first, second])
    await expectRebuilt({})
  })
})

/** Rebuilds the vault in an environment; the bytes must be those of the capture. */
async function expectRebuilt(env: Record<string, string>): Promise<void> {
  const out = mkdtempSync(join(folder, 'again-'))
  const words = [BIN, 'rebuild', '--vault', vault, '--out', out, '--jobs', '1']
  const child = spawn(process.execPath, words, { stdio: 'ignore', env: { ...process.env, ...env } })
  expect(await new Promise(done => child.on('exit', done))).toBe(0)
  expectSameBytes(derivedFiles(vault), derivedFiles(out), JSON.stringify(env))
}

describe('the last second of a year', () => {
  const elsewhere = { TZ: 'Asia/Kathmandu', LANG: 'tr_TR.UTF-8', LC_ALL: 'tr_TR.UTF-8', LANGUAGE: 'tr' }

  test('is the last of 31 December UTC, wherever the machine stands', { timeout: 60_000 }, async () => {
    mkdirSync(vault)
    const captured = new Captured(Date.UTC(2027, 0, 1) - 2500 - Date.now(), elsewhere)
    await until(() => linesOf('l3_spot', SYMBOLS[0]!).some(({ path }) => path.includes('2027')), 'the new year')
    await sampled(2)
    await captured.stop()
    expectOrder()
    expectFrames([captured])
    const files = [...derivedFiles(vault).keys()].filter(path => path.includes('l3_events')).sort()
    const folders = SYMBOLS.flatMap(symbol => [`${symbol}/2026-12-31/23.jsonl`, `${symbol}/2027-01-01/00.jsonl`])
    expect(files).toEqual(folders.map(path => join('bitfinex', 'l3_events', path)))
    for (const env of [elsewhere, { TZ: 'UTC', LC_ALL: 'C' }, { TZ: 'America/St_Johns', LC_ALL: 'ar_EG.UTF-8' }])
      await expectRebuilt(env)
  })
})

describe('the full hour', () => {
  /** A journal that writes into the vault, with a clock that stands where it is put. */
  class Recording {
    readonly requests = new RecordedRequests()
    readonly journal: Journal
    readonly peer: BitfinexPeer
    readonly writer = new VaultWriter(vault, {
      pendingMax: Number.POSITIVE_INFINITY,
      onPause: reason => expect.unreachable(reason),
      onResume: () => undefined
    })
    us: number

    constructor(us: number) {
      this.us = us
      const stream = (feed: string, name: string) => this.writer.stream('bitfinex', feed, name)
      this.journal = new Journal(
        {
          exchange: bitfinex,
          run: 'r',
          config: CONFIG,
          secrets: [],
          now: () => this.us,
          frames: name => stream('frames', name),
          isFull: () => false
        },
        this.requests
      )
      this.journal.attach(new Engine(bitfinex, { stream }, this.journal))
      const say = (name: string, text: string) => this.journal.in(name, Buffer.from(text), false)
      this.peer = new BitfinexPeer({ us, sent: this.requests.sent, in: say }, 'bitfinex-1')
      this.journal.open('bitfinex-1', 'ws://-/', described(bitfinex, ['BTCUSD'], 'l3'), ['book', 'trades'], null)
      this.peer.event({ event: 'info', version: 2, serverId: 'x', platform: { status: 1 } })
      this.peer.answer()
    }
  }

  const EDGE = Date.UTC(2026, 10, 20, 12) * 1000

  test('is the home of the frames that come with it; an hour in which nothing comes leaves none', async () => {
    const recording = new Recording(EDGE - 10_000_000)
    const { peer } = recording
    peer.image(ORDERS)
    const moments = [EDGE - 2, EDGE - 1, EDGE, EDGE + 1, EDGE + 4 * HOUR_US - 1, EDGE + 4 * HOUR_US]
    for (const [at, us] of moments.entries()) {
      recording.us = us
      peer.order([11, '79419', `0.${at + 1}`])
    }
    await recording.writer.close()
    expectOrder()
    const frames = linesOf('frames', 'bitfinex-1').map(
      ({ path, text }) => [path.slice(-19, -6), JSON.parse(text) as Row] as const
    )
    const ordered = frames.filter(([, row]) => Number(row.recv_us) >= EDGE - 2)
    const words = ordered.map(([hour, row]) => `${hour} ${row.dir} ${Number(row.recv_us) - EDGE}`)
    expect(words).toEqual([
      '2026-11-20/11 in -2',
      '2026-11-20/11 in -1',
      '2026-11-20/12 state 0',
      '2026-11-20/12 in 0',
      '2026-11-20/12 in 1',
      '2026-11-20/15 state 14399999999',
      '2026-11-20/15 in 14399999999',
      '2026-11-20/16 state 14400000000',
      '2026-11-20/16 in 14400000000'
    ])
    expect(frames.map(([, row]) => row.frame)).toEqual(frames.map((_, at) => at + 1))
    // Each hour's events begin with the whole book, and hold each frame's own.
    for (const [hour, changes] of [
      ['11', 2],
      ['12', 2],
      ['15', 1],
      ['16', 1]
    ] as const) {
      const types = linesOf('l3_events', 'BTCUSD')
        .filter(({ path }) => path.endsWith(`${hour}.jsonl`))
        .map(({ text }) => (JSON.parse(text) as Row).event_type)
      expect(types).toEqual([
        'clear',
        ...ORDERS.map(() => 'snapshot'),
        ...Array.from({ length: changes }, () => 'change')
      ])
    }
    await expectRebuilt({})
  })

  test('does not keep frames waiting while it writes a book of 50,000 orders', async () => {
    const recording = new Recording(EDGE - 1_000_000)
    const { journal, peer } = recording
    const orders = Array.from({ length: 50_000 }, (_, at): OrderText => {
      const isAsk = at % 2 === 1
      return [1000 + at, String(isAsk ? 80_000 + at : 79_999 - at), isAsk ? '-0.12345678' : '0.12345678']
    })
    // How long this machine takes for an image of the same book measures what the full hour may take.
    const beganMs = performance.now()
    peer.image(orders)
    const imageMs = performance.now() - beganMs
    recording.us = EDGE
    const turnMs = performance.now()
    journal.tick()
    const hourMs = performance.now() - turnMs
    await recording.writer.close()
    expect(linesOf('l3_events', 'BTCUSD').filter(({ path }) => path.endsWith('12.jsonl'))).toHaveLength(50_001)
    console.log(`an hour begins with 50,000 orders: ${hourMs.toFixed(0)} ms; their image took ${imageMs.toFixed(0)} ms`)
    expect(hourMs / imageMs).toBeLessThan(1)
  })
})
