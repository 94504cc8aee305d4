import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import type { Capture } from '../../src/commands/capture.ts'
import { openLog } from '../../src/commands/log.ts'
import { Panel } from '../../src/commands/panel.ts'
import type { Vitals } from '../../src/commands/vitals.ts'
import { hourOf } from '../../src/core/time.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
const SHIM = resolve('test/faults/disk.cjs')
const HOSTILE = 'x\u001b[2J\u001b]0;y\u0007\u009b31m\u202ez'
const SHOWN = 'x\\u001b[2J\\u001b]0;y\\u0007\\u009b31m\\u202ez'
let folder: string

beforeAll(ensureBuilt)
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-log-'))
})
afterEach(() => {
  vi.restoreAllMocks()
  rmSync(folder, { recursive: true, force: true })
})

/** Captures for a moment from a simulated exchange; `code` is null when it had to be killed. */
async function run(logDir: string, env: NodeJS.ProcessEnv = {}) {
  const given = ['run', '--simulate', '--vault', join(folder, 'vault'), '--log-dir', logDir, '--duration', '800ms']
  const child = spawn(process.execPath, [CLI, ...given], { env: { ...process.env, ...env } })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', text => (stdout += String(text)))
  child.stderr.on('data', text => (stderr += String(text)))
  const limit = setTimeout(() => child.kill('SIGKILL'), 15_000)
  const code = await new Promise<number | null>(done => child.once('close', done))
  clearTimeout(limit)
  return { code, stdout, stderr }
}

/** What is written to a terminal while something works. */
async function onTerminal(work: () => Promise<void> | void): Promise<string> {
  const { isTTY, columns } = process.stdout
  let written = ''
  Object.assign(process.stdout, { isTTY: true, columns: 300 })
  vi.spyOn(process.stdout, 'write').mockImplementation(text => {
    written += String(text)
    return true
  })
  try {
    await work()
  } finally {
    Object.assign(process.stdout, { isTTY, columns })
  }
  return written
}

function expectHarmless(written: string): void {
  expect(written).toContain(SHOWN)
  for (const order of ['\u001b[2J', '\u001b]', '\u0007', '\u009b', '\u202e']) expect(written).not.toContain(order)
}

it('goes on, and ends, on a log disk that is full, and says so on standard output', async () => {
  const logs = join(folder, 'logs')
  const disk = { root: logs, rules: [{ kind: 'write', code: 'ENOSPC' }] }
  const env = { FAULT_DISK: JSON.stringify(disk), NODE_OPTIONS: `--require ${SHIM}` }
  const { code, stdout, stderr } = await run(logs, env)
  expect(code, stderr).toBe(0)
  expect(stdout).toMatch(/ENOSPC.*Log file takes no lines/)
  expect(stdout).toContain('"Stopped"')
  expect(readFileSync(join(logs, readdirSync(logs)[0]!), 'utf8')).toBe('')
  expect(existsSync(join(folder, 'vault', 'raw', 'bitfinex', 'l3_events', 'BTCUSD'))).toBe(true)
}, 30_000)

it('is wrong usage when its directory cannot be made, and nothing is started', async () => {
  writeFileSync(join(folder, 'file'), '')
  const { code, stderr } = await run(join(folder, 'file', 'logs'))
  expect(code, stderr).toBe(2)
  expect(stderr).toMatch(/log-dir: .*file/)
  expect(existsSync(join(folder, 'vault'))).toBe(false)
})

it('warns of a damaged old hour with its path, and the capture starts', async () => {
  const hour = hourOf(Date.now() * 1000) - 1
  const path = `${hourPath(join(folder, 'vault'), 'bitfinex', 'trades', 'BTCUSD', hour)}.gz`
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, gzipSync('{"trade_id":"1"}\n').subarray(0, 20))
  const { code, stdout, stderr } = await run(join(folder, 'logs'))
  expect(code, stderr).toBe(0)
  const lines = stdout.trimEnd().split('\n')
  const told = lines.filter(line => line.includes('passed over')).map(line => JSON.parse(line) as unknown)
  expect(told).toEqual([expect.objectContaining({ level: 40, path, error: expect.stringContaining('damaged') })])
  expect(existsSync(join(folder, 'vault', 'raw', 'bitfinex', 'l3_events', 'BTCUSD'))).toBe(true)
}, 30_000)

it('what servers say is shown on a terminal and not obeyed: in log lines', async () => {
  const written = await onTerminal(async () => {
    const { logger, end } = await openLog('info', join(folder, 'logs'), false)
    logger.warn({ reason: HOSTILE, list: [HOSTILE], nested: { [HOSTILE]: HOSTILE } }, `said ${HOSTILE}`)
    end()
  })
  expectHarmless(written)
})

it('what servers say is shown on a terminal and not obeyed: in the panel', async () => {
  const instrument = { exchange: 'okx', instId: HOSTILE, state: 'live', best_bid: HOSTILE, best_ask: null, bytes: 0 }
  const vitals = { all: () => [{ time_utc: '2026-01-01T00:00:00.000Z', instruments: [instrument] }] }
  const panel = new Panel({ lines: [] } as unknown as Capture, vitals as unknown as Vitals)
  expectHarmless(await onTerminal(() => panel.draw()))
})

it('what servers say is shown on a terminal and not obeyed: on standard error', async () => {
  const child = spawn(process.execPath, [CLI, 'status', '--vault', join(folder, HOSTILE)])
  let stderr = ''
  child.stderr.on('data', text => (stderr += String(text)))
  expect(await new Promise(done => child.once('close', done))).toBe(2)
  expectHarmless(stderr)
})
