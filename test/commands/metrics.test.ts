import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Health } from '../../src/commands/health.ts'
import { MetricsServer } from '../../src/commands/metrics.ts'
import { readRunConfig } from '../../src/config/run.ts'
import { L3capError } from '../../src/core/errors.ts'
import { type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const WAIT = { timeout: 15_000, interval: 50 }
const BTC = 'exchange="bitfinex",instrument="BTCUSD"'
let folder: string
let simulator: Simulator
const children: ChildProcess[] = []

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-metrics-'))
  simulator = await startSimulator({ exchange: 'bitfinex' })
})
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await simulator.close()
  rmSync(folder, { recursive: true, force: true })
})

function given(name: string, ...more: string[]): string[] {
  const where = ['--vault', join(folder, name), '--log-dir', join(folder, 'logs'), '--ws-url', simulator.wsUrl]
  const what = ['--exchange', 'bitfinex', '--symbol', 'BTCUSD', '--cadence', '100ms', '--rest-url', simulator.restUrl]
  return ['bin/l3cap.js', 'run', ...what, ...where, ...more]
}

/** Starts a capture and waits until its log says something. */
async function started(name: string, said: RegExp, ...more: string[]): Promise<[ChildProcess, RegExpExecArray]> {
  const child = spawn(process.execPath, given(name, ...more), { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  let log = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  return [child, await vi.waitFor(() => said.exec(log) ?? expect.unreachable(`not said yet: ${log}`), WAIT)]
}

/** Samples of the text format by name and labels; throws at a line that is none. */
function parse(text: string): Map<string, number> {
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('# '))
  return new Map(
    lines.map(line => {
      const match = /^([a-z0-9_]+(?:\{[^{}]*\})?) (-?[\d.e+-]+|Na[Nn]|\+Inf)$/.exec(line)
      if (!match) throw new Error(`no sample: ${line}`)
      return [match[1]!, Number(match[2])]
    })
  )
}

/** Ports that a process listens on. */
function listeningPorts(pid: number): number[] {
  const links = readdirSync(`/proc/${pid}/fd`).map(fd => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      // Closed meanwhile.
      return ''
    }
  })
  return ['tcp', 'tcp6'].flatMap(table =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .map(line => line.trim().split(/\s+/))
      .filter(cells => cells[3] === '0A' && links.includes(`socket:[${cells[9]}]`))
      .map(cells => Number.parseInt(cells[1]!.split(':')[1]!, 16))
  )
}

it('serves what the capture knows, and ends with it', async () => {
  const [child, [, url]] = await started('served', /"url":"(http:[^"]+)\/metrics"/, '--metrics', '0')
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:/)
  await vi.waitFor(async () => expect((await fetch(`${url}/health`)).status).toBe(200), WAIT)
  const found = await vi.waitFor(async () => {
    const answer = await fetch(`${url}/metrics`)
    expect(answer.headers.get('content-type')).toContain('text/plain')
    const samples = parse(await answer.text())
    expect(samples.get(`l3cap_snapshots_total{${BTC}}`)).toBeGreaterThan(0)
    expect(samples.has('l3cap_disk_free_bytes')).toBe(true)
    // Only trades tell the exchange's time there: the first may take a while.
    expect(samples.has(`l3cap_feed_lag_seconds{${BTC},quantile="0.99"}`)).toBe(true)
    return samples
  }, WAIT)
  expect(found.get(`l3cap_book_live{${BTC}}`)).toBe(1)
  expect(found.get(`l3cap_gaps_total{${BTC}}`)).toBe(0)
  expect(found.get(`l3cap_checksum_mismatches_total{${BTC}}`)).toBe(0)
  expect(found.get('l3cap_frames_dropped_total{exchange="bitfinex"}')).toBe(0)
  expect(found.get('l3cap_writer_paused')).toBe(0)
  expect(found.get('process_resident_memory_bytes')).toBeGreaterThan(0)
  expect([...found.keys()].some(key => key.startsWith('l3cap_build_info{version="'))).toBe(true)
  for (const name of [
    'frames_total{exchange="bitfinex"}',
    `events_total{${BTC}}`,
    `last_event_timestamp_seconds{${BTC}}`
  ])
    expect(found.get(`l3cap_${name}`), name).toBeGreaterThan(0)

  expect((await fetch(`${url}/`)).status).toBe(404)
  expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405)
  if (process.platform === 'linux') expect(listeningPorts(child.pid!)).toEqual([Number(new URL(url!).port)])

  simulator.inject({ kind: 'close', afterMs: 0, code: 1012 })
  await vi.waitFor(
    async () => {
      const answer = await fetch(`${url}/health`)
      expect(answer.status).toBe(503)
      expect(await answer.json()).toMatchObject({ live: false, problems: [expect.stringContaining('BTCUSD: broken')] })
    },
    { timeout: 15_000, interval: 10 }
  )

  const exited = new Promise<number | null>(resolve => child.once('exit', resolve))
  child.kill('SIGTERM')
  expect(await exited).toBe(0)
  await expect(fetch(`${url}/health`)).rejects.toThrow()
}, 40_000)

it('adds up what two entries of the configuration tell of one exchange', async () => {
  const entry = (connections: number, frames: number): Partial<Health> => ({
    exchange: 'binance',
    connections: Array.from({ length: connections }, (_, at) => ({
      name: `binance-${at}`,
      since_utc: '2026-01-01T00:00:00.000Z',
      last_frame_utc: null,
      frames: 0
    })),
    frames_in: frames,
    frames_dropped: 0,
    writer: { paused: false, reason: null, pending_bytes: 0, pending_bytes_max: 0 },
    event_loop_delay_ms: null,
    disk_free_bytes: null,
    instruments: []
  })
  const server = await MetricsServer.listen({ host: '127.0.0.1', port: 0 })
  try {
    server.attach({ all: () => [entry(1, 10), entry(2, 20)] as Health[] })
    for (let again = 0; again < 2; again++) {
      const samples = parse(await (await fetch(`${server.url}/metrics`)).text())
      expect(samples.get('l3cap_connections{exchange="binance"}')).toBe(3)
      expect(samples.get('l3cap_frames_total{exchange="binance"}')).toBe(30)
      expect(samples.has('l3cap_disk_free_bytes')).toBe(false)
    }
  } finally {
    server.close()
  }
})

it.skipIf(process.platform !== 'linux')('listens on nothing unless told', async () => {
  const [child] = await started('silent', /"Connected"/)
  expect(listeningPorts(child.pid!)).toEqual([])
  child.kill('SIGKILL')
})

it('ends before anything is started when its port is taken', async () => {
  const other = createServer()
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
  const { port } = other.address() as AddressInfo
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>(resolve =>
    execFile(process.execPath, given('taken', '--metrics', String(port)), (error, _, text) =>
      resolve({ code: error?.code ?? 0, stderr: text })
    )
  )
  other.close()
  expect(code, stderr).toBe(2)
  expect(stderr).toContain(`metrics: cannot listen on 127.0.0.1:${port}`)
  expect(existsSync(join(folder, 'taken'))).toBe(false)
})

it('takes a port, a host and a port, and nothing else', () => {
  const read = (metrics: unknown) => readRunConfig({ exchange: 'okx', symbol: ['BTC-USDT'], metrics }).metrics
  expect(read(undefined)).toBeNull()
  expect(read('9464')).toEqual({ host: '127.0.0.1', port: 9464 })
  expect(read(9464)).toEqual({ host: '127.0.0.1', port: 9464 })
  expect(read('0.0.0.0:9464')).toEqual({ host: '0.0.0.0', port: 9464 })
  expect(read('[::1]:9464')).toEqual({ host: '::1', port: 9464 })
  for (const wrong of ['', 'x', ':9464', '70000', 'a b:1', 'http://x:1', -1, 1.5, true])
    expect(() => read(wrong), String(wrong)).toThrow(L3capError)
})
