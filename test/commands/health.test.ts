import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { Lag } from '../../src/capture/lag.ts'
import { type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const moment = z.iso.datetime()
const count = z.int().min(0)
const HEALTH = z.strictObject({
  time_utc: moment,
  started_utc: moment,
  stopped_utc: moment.nullable(),
  pid: count,
  run: z.guid(),
  host: z.string().min(1),
  version: z.string().regex(/^\d+\.\d+\.\d+/),
  vault: z.string(),
  exchange: z.literal('bitfinex'),
  cadence_ms: z.literal(500),
  connections: z.array(
    z.strictObject({ name: z.string(), since_utc: moment, last_frame_utc: moment.nullable(), frames: count })
  ),
  frames_in: count,
  frames_dropped: z.literal(0),
  writer: z.strictObject({
    paused: z.literal(false),
    reason: z.null(),
    pending_bytes: count,
    pending_bytes_max: count
  }),
  memory: z.strictObject({ rss: count, heap_used: count, heap_total: count, external: count }),
  event_loop_delay_ms: z
    .strictObject({ p50: z.number().min(0), p99: z.number().min(0), max: z.number().min(0) })
    .nullable(),
  disk_free_bytes: count,
  cpu_seconds: z.number().positive(),
  instruments: z
    .array(
      z.strictObject({
        exchange: z.literal('bitfinex'),
        instId: z.literal('BTCUSD'),
        market: z.literal('spot'),
        level: z.literal('l3'),
        state: z.enum(['live', 'broken', 'waiting', 'refused']),
        since_utc: moment,
        last_frame_utc: moment.nullable(),
        last_event_utc: moment.nullable(),
        last_trade_utc: moment.nullable(),
        last_snapshot_utc: moment.nullable(),
        synced_at: moment.nullable(),
        gaps: count,
        mismatches: count,
        absent_deletes: count,
        events: count,
        snapshots: count,
        trades: count,
        bytes: count,
        best_bid: z.string().nullable(),
        best_ask: z.string().nullable(),
        lag_ms: z.strictObject({ p50: z.number(), p99: z.number() }).nullable()
      })
    )
    .length(1)
})

const WAIT = { timeout: 25_000, interval: 50 }
/** The files are replaced every 5 s: here they are sooner. */
const HASTY = new URL('../helpers/hasty.js', import.meta.url).href
let folder: string
let vault: string
let path: string
let simulator: Simulator
let child: ChildProcess
let log = ''

function health() {
  return HEALTH.parse(JSON.parse(readFileSync(path, 'utf8')))
}

/** The file once its instrument is in a state. */
async function until(state: string) {
  return await vi.waitFor(() => {
    const found = health()
    expect(found.instruments[0]!.state).toBe(state)
    return found
  }, WAIT)
}

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-health-'))
  vault = join(folder, 'vault')
  path = join(vault, 'meta/bitfinex/health/bitfinex-1.json')
  simulator = await startSimulator({ exchange: 'bitfinex' })
  // What stands in its way is complained of once; a damaged file of before is simply replaced.
  mkdirSync(join(path, 'in-the-way'), { recursive: true, mode: 0o750 })
  const where = ['--ws-url', simulator.wsUrl, '--rest-url', simulator.restUrl, '--vault', vault]
  const what = ['--exchange', 'bitfinex', '--symbol', 'BTCUSD', '--cadence', '500ms', '--log-dir', join(folder, 'logs')]
  child = spawn(process.execPath, ['--import', HASTY, 'bin/l3cap.js', 'run', ...what, ...where], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
})

afterAll(async () => {
  child?.kill('SIGKILL')
  await simulator?.close()
  rmSync(folder, { recursive: true, force: true })
})

it('the health file tells what becomes of a book: live, broken, live again, stopped', async () => {
  await vi.waitFor(() => expect(log).toContain('Health file could not be written'), WAIT)
  expect(existsSync(`${path}.tmp`)).toBe(false)
  rmSync(path, { recursive: true })
  writeFileSync(path, '{"time_utc":', { mode: 0o600 })
  await vi.waitFor(() => expect(health().instruments[0]!.last_snapshot_utc).not.toBeNull(), WAIT)
  const live = await until('live')
  expect(live.pid).toBe(child.pid)
  expect(live.connections.map(({ name }) => name)).toEqual(['bitfinex-1'])
  const first = live.instruments[0]!
  expect(first.best_bid).not.toBeNull()
  expect(first.lag_ms).not.toBeNull()
  expect(Date.parse(first.last_snapshot_utc!)).toBeGreaterThan(Date.parse(first.since_utc))
  if (process.platform !== 'win32') {
    expect(statSync(path).mode & 0o777).toBe(0o640)
    expect(statSync(dirname(path)).mode & 0o777).toBe(0o750)
  }

  const { port } = simulator
  await simulator.close()
  const broken = await until('broken')
  const { gaps, best_bid, synced_at, since_utc } = broken.instruments[0]!
  expect({ gaps, best_bid, synced_at }).toEqual({ gaps: 1, best_bid: null, synced_at: null })
  expect(Date.parse(since_utc)).toBeGreaterThan(Date.parse(first.since_utc))
  expect(broken.connections).toEqual([])

  simulator = await startSimulator({ exchange: 'bitfinex', port })
  const { since_utc: sinceAgain } = (await until('live')).instruments[0]!
  expect(Date.parse(sinceAgain)).toBeGreaterThan(Date.parse(since_utc))
  expect(log.split('Health file could not be written')).toHaveLength(2)

  const exited = new Promise<number | null>(resolve => child.once('exit', resolve))
  child.kill('SIGTERM')
  expect(await exited).toBe(0)
  const last = health()
  expect(last.stopped_utc).not.toBeNull()
  expect(last.run).toBe(live.run)
}, 60_000)

it('the lag is that of the last minute, in samples', () => {
  const lag = new Lag()
  expect(lag.quantiles(0)).toBeNull()
  const startMs = 1_700_000_000_000
  for (let index = 0; index < 100; index++) {
    const ms = startMs + index * 250
    lag.note(ms * 1000, index % 2 === 0 ? ms - 10 - index : new Date(ms - 10 - index).toISOString())
  }
  const lastUs = (startMs + 99 * 250) * 1000
  expect(lag.quantiles(lastUs)).toEqual({ p50: 59, p99: 108 })
  expect(lag.dueUs).toBeGreaterThan(lastUs)
  // Thirty seconds on only what came in the minute before counts, and in the end nothing.
  expect(lag.quantiles(lastUs + 59_000_000)!.p50).toBeGreaterThan(100)
  expect(lag.quantiles(lastUs + 61_000_000)).toBeNull()
  lag.note(lastUs, 'no time')
  expect(lag.quantiles(lastUs)).toEqual({ p50: 59, p99: 108 })
})
