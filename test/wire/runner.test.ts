import type { AddressInfo } from 'node:net'
import { createServer, type Socket as TcpSocket } from 'node:net'
import { afterEach, expect, it, vi } from 'vitest'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import type { Exchange } from '../../src/exchanges/exchange.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import type { Row } from '../helpers/driver.ts'
import { Rig } from '../helpers/rig.ts'

const WAIT = { timeout: 15_000, interval: 10 }
const ends: (() => Promise<unknown> | unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** A rig that is stopped at the end of the test. */
function rigOf(exchange: Exchange, port: number): Rig {
  const rig = new Rig(exchange, port)
  ends.push(() => rig.stop())
  return rig
}

async function simulate(options: SimulatorOptions): Promise<Simulator> {
  const simulator = await startSimulator({
    connectsPerMinute: 0,
    connectsPerSecond: 0,
    eventsPerSecond: 200,
    ...options
  })
  ends.push(() => simulator.close())
  return simulator
}

it.each([
  ['bitfinex', bitfinex, 'BTCUSD'],
  ['okx', okx, 'BTC-USDT']
] as const)('%s: captures, meets a lost connection, connects again', async (id, exchange, instId) => {
  const simulator = await simulate({ exchange: id })
  const rig = rigOf(exchange, simulator.port).start([instId])
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(1), WAIT)
  simulator.inject({ kind: 'close', code: 1012 })
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(2), WAIT)
  const lost = rig.statuses('disconnected')
  expect(lost).toMatchObject([{ conn: 'c-1', code: 1012 }])
  expect(rig.statuses('gap')).toMatchObject([{ reason: 'disconnect' }])
  expect(Number(rig.statuses('synced')[1]!.down_ms)).toBeGreaterThan(0)
  expect(rig.lines('open').map(row => row.conn)).toEqual(['c-1', 'c-1'])
  const snapshots = rig.sink.lines.filter(({ feed }) => feed.endsWith('_spot')).length
  await vi.waitFor(
    () => expect(rig.sink.lines.filter(({ feed }) => feed.endsWith('_spot')).length).toBeGreaterThan(snapshots + 2),
    WAIT
  )
  await rig.stop()
  expect(rig.lines('close').map(row => row.cause)).toEqual(['lost', 'stopped'])
  expect(rig.frames.map(row => row.frame)).toEqual(rig.frames.map((_, at) => at + 1))
  expect(rig.names.size).toBe(0)
  expect(rig.statuses('gap')).toHaveLength(1)
})

it.each([
  ['bitfinex', bitfinex, 'BTCUSD'],
  ['okx', okx, 'BTC-USDT']
] as const)('%s: a restart that is announced costs nothing', async (id, exchange, instId) => {
  const simulator = await simulate({ exchange: id })
  const rig = rigOf(exchange, simulator.port).start([instId])
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(1), WAIT)
  simulator.inject({ kind: 'restart-notice', ms: 3000 })
  await vi.waitFor(() => expect(rig.lines('close').map(row => row.cause)).toEqual(['replaced']), WAIT)
  await vi.waitFor(() => expect(rig.names).toEqual(new Set(['c-2'])), WAIT)
  await rig.stop()
  expect(rig.statuses('synced').map(({ conn, planned }) => [conn, planned])).toEqual([
    ['c-1', undefined],
    ['c-2', true]
  ])
  expect(rig.statuses('gap')).toEqual([])
  expect(rig.lines('open').map(row => [row.conn, (row.open as Row).replaces])).toEqual([
    ['c-1', null],
    ['c-2', 'c-1']
  ])
  const trades = rig.sink.records('trades').map(row => row.trade_id)
  expect(new Set(trades).size).toBe(trades.length)
})

it('leaves no connection that is not being replaced: names are used again', async () => {
  const simulator = await simulate({ exchange: 'okx' })
  const rig = rigOf(okx, simulator.port).start(['BTC-USDT'])
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(1), WAIT)
  rig.runner.leave('c-1')
  const frames = rig.lines('in').length
  await vi.waitFor(() => expect(rig.lines('in').length).toBeGreaterThan(frames), WAIT)
  expect(rig.lines('close')).toEqual([])
})

it('opens as many connections as the instruments need', async () => {
  const names = Array.from({ length: 13 }, (_, n) => `AA${String.fromCharCode(65 + n)}USD`)
  const simulator = await simulate({ exchange: 'bitfinex', instruments: names, eventsPerSecond: 5 })
  const rig = rigOf(bitfinex, simulator.port).start(names)
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(13), WAIT)
  expect(rig.lines('open').map(row => (row.open as { instruments: unknown[] }).instruments.length)).toEqual([12, 1])
  await rig.stop()
})

it('stops within a second while it is connected', async () => {
  const simulator = await simulate({ exchange: 'okx' })
  const rig = rigOf(okx, simulator.port).start(['BTC-USDT'])
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(1), WAIT)
  const began = performance.now()
  await rig.stop()
  expect(performance.now() - began).toBeLessThan(1000)
  const lines = rig.frames.length
  // Nothing is written after it has stopped, though the far end goes on.
  await new Promise(resolve => setImmediate(resolve))
  expect(rig.frames.length).toBe(lines)
})

it('stops within a second while nobody listens', async () => {
  const rig = rigOf(okx, 1).start(['BTC-USDT'])
  const began = performance.now()
  await rig.stop()
  expect(performance.now() - began).toBeLessThan(1000)
  expect(rig.frames).toEqual([])
})

it('stops within a second while a server takes the connection and says nothing', async () => {
  const sockets: TcpSocket[] = []
  const mute = createServer(socket => void sockets.push(socket))
  await new Promise<void>(resolve => mute.listen(0, '127.0.0.1', resolve))
  ends.push(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise(resolve => mute.close(resolve))
  })
  const rig = rigOf(okx, (mute.address() as AddressInfo).port).start(['BTC-USDT'])
  await vi.waitFor(() => expect(sockets).toHaveLength(1), WAIT)
  const began = performance.now()
  const stopped = rig.stop()
  const late = new Promise(resolve => setTimeout(resolve, 1000, 'late').unref())
  expect(await Promise.race([stopped.then(() => 'stopped'), late])).toBe('stopped')
  expect(performance.now() - began).toBeLessThan(1000)
})
