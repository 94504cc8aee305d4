import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Health, InstrumentHealth } from '../../src/commands/health.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
let vault: string

beforeAll(ensureBuilt)
beforeEach(() => {
  vault = mkdtempSync(join(tmpdir(), 'l3cap-status-'))
})
afterEach(() => rmSync(vault, { recursive: true, force: true }))

function status(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    execFile(process.execPath, [CLI, 'status', '--vault', vault, ...given], (error, stdout, stderr) => {
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

function ago(seconds: number): string {
  return new Date(Date.now() - seconds * 1000).toISOString()
}

function instrument(changes: Partial<InstrumentHealth> = {}): InstrumentHealth {
  return {
    exchange: 'bitfinex',
    instId: 'BTCUSD',
    market: 'spot',
    level: 'l3',
    state: 'live',
    since_utc: ago(600),
    last_frame_utc: ago(1),
    last_event_utc: ago(1),
    last_trade_utc: null,
    last_snapshot_utc: ago(2),
    synced_at: ago(600),
    gaps: 0,
    mismatches: 0,
    absent_deletes: 0,
    events: 10,
    snapshots: 10,
    trades: 10,
    bytes: 10,
    best_bid: '1',
    best_ask: '2',
    lag_ms: { p50: 1, p99: 2 },
    ...changes
  }
}

/** A health file of a live capture: this test's own process stands for it. */
function health(changes: Partial<Health> = {}): Health {
  return {
    time_utc: ago(1),
    started_utc: ago(600),
    stopped_utc: null,
    pid: process.pid,
    run: 'a run',
    host: hostname(),
    version: '0.1.0',
    vault,
    exchange: 'bitfinex',
    cadence_ms: 2000,
    connections: [],
    frames_in: 10,
    frames_dropped: 0,
    writer: { paused: false, reason: null, pending_bytes: 0, pending_bytes_max: 0 },
    memory: { rss: 1e8, heap_used: 1e7, heap_total: 1e7, external: 1e6 },
    event_loop_delay_ms: null,
    disk_free_bytes: null,
    cpu_seconds: 1,
    instruments: [instrument()],
    ...changes
  }
}

function put(content: Health | string, name = 'bitfinex-1', exchange = 'bitfinex'): string {
  const path = join(vault, 'meta', exchange, 'health', `${name}.json`)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

/** A process id that no process has: above what any kernel gives. */
const NOBODY = 2 ** 30

describe('status', () => {
  it('is 0 when everything is live, and says so as JSON', async () => {
    put(health())
    const { code, stdout, stderr } = await status('--json', '--symbol', 'BTC/USD')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toMatchObject({
      vault,
      live: true,
      problems: [],
      processes: [{ live: true, problems: [], pid: process.pid, instruments: [{ instId: 'BTCUSD' }] }]
    })
  })

  it('is 2 without a vault, and 1 with one that nobody writes', async () => {
    expect((await status()).code).toBe(1)
    expect((await status()).stderr).toContain('no health file')
    rmSync(vault, { recursive: true })
    expect((await status()).code).toBe(2)
  })

  const writer = { paused: true, reason: 'ENOSPC: no space', pending_bytes: 7, pending_bytes_max: 7 }
  const waiting = { state: 'waiting', last_snapshot_utc: null } as const
  it.each<[string, () => Partial<Health>, RegExp]>([
    ['an old file', () => ({ time_utc: ago(20) }), /says nothing since 2\d s/],
    ['a process that is gone', () => ({ pid: NOBODY }), /is gone/],
    ['a stopped capture', () => ({ stopped_utc: ago(3) }), /stopped at/],
    ['a paused writer', () => ({ writer }), /paused.*ENOSPC/],
    ['a broken book', () => ({ instruments: [instrument({ state: 'broken' })] }), /BTCUSD: broken since/],
    ['a refused book', () => ({ instruments: [instrument({ state: 'refused' })] }), /BTCUSD: refused since/],
    ['a book that has not come', () => ({ instruments: [instrument(waiting)] }), /waiting.*after the start\n/],
    [
      'a book that has not come yet',
      () => ({ started_utc: ago(9), instruments: [instrument(waiting)] }),
      /waiting.*not unusual so soon/
    ],
    ['no snapshots', () => ({ instruments: [instrument({ last_snapshot_utc: ago(13) })] }), /no snapshot for 1\d s/]
  ])('is 1 for %s, and names it', async (_, changes, named) => {
    put(health(changes()))
    const { code, stderr } = await status()
    expect(code).toBe(1)
    expect(stderr).toMatch(named)
  })

  it('knows an old file by its own date, too, and processes of other hosts only by their files', async () => {
    const path = put(health({ host: 'elsewhere', pid: NOBODY }))
    expect((await status()).code).toBe(0)
    utimesSync(path, Date.now() / 1000 - 60, Date.now() / 1000 - 60)
    expect((await status()).code).toBe(1)
  })

  it('names damaged files, and tells of the others all the same', async () => {
    put(health())
    put('{"time_utc":', 'bitfinex-2')
    put(JSON.stringify({ ...health(), pid: 'x' }), 'okx-1', 'okx')
    mkdirSync(join(vault, 'meta/bitfinex/health/bitfinex-3.json'))
    const { code, stdout, stderr } = await status()
    expect(code).toBe(1)
    expect(stdout).toMatch(/bitfinex: live/)
    for (const name of ['bitfinex-2.json is damaged', 'okx-1.json is damaged: pid', 'bitfinex-3.json is damaged'])
      expect(stderr).toContain(name)
    expect((await status('--exchange', 'okx')).stderr).not.toContain('bitfinex-2')
  })

  it('leaves out of the verdict who stopped while another writes the same instruments, and nobody else', async () => {
    put(health())
    put(health({ stopped_utc: ago(3), run: 'before' }), 'bitfinex-2')
    put(health({ pid: NOBODY, run: 'killed' }), 'bitfinex-3')
    expect((await status()).code).toBe(0)
    put(health({ stopped_utc: ago(3), instruments: [instrument({ instId: 'ETHUSD' })] }), 'bitfinex-2')
    expect((await status()).code).toBe(1)
    expect((await status('--symbol', 'BTCUSD')).code).toBe(0)
    expect((await status('--symbol', 'LTCUSD')).stderr).toContain('no capture of LTCUSD')
    expect((await status('--exchange', 'kraken')).code).toBe(1)
  })

  it('keeps control codes from the screen', async () => {
    const reason = 'a\u001b]0;b\u0007c\u009bd\ne'
    put(health({ writer: { ...writer, reason } }))
    const { stdout, stderr } = await status()
    expect(stdout).toContain('a\\u001b]0;b\\u0007c\\u009bd?e')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is meant
    expect(stdout + stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  })

  it('is 1 after a capture was killed', async () => {
    const given = ['run', '--simulate', '--vault', vault, '--log-dir', join(vault, 'logs')]
    const child = spawn(process.execPath, [CLI, ...given], { stdio: 'ignore' })
    const exited = new Promise(done => child.once('exit', done))
    const path = join(vault, 'meta/bitfinex/health/bitfinex-1.json')
    await vi.waitFor(() => expect(existsSync(path)).toBe(true), { timeout: 15_000, interval: 20 })
    child.kill('SIGKILL')
    await exited
    const { code, stderr } = await status()
    expect(code).toBe(1)
    expect(stderr).toContain(`process ${child.pid} is gone`)
  })
})
