import type { AddressInfo } from 'node:net'
import { createServer, type Socket as TcpSocket } from 'node:net'
import { afterEach, expect, it, vi } from 'vitest'
import { Engine } from '../../src/capture/engine.ts'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import type { Exchange } from '../../src/exchanges/exchange.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { Clock } from '../../src/wire/clock.ts'
import { Fetcher } from '../../src/wire/fetcher.ts'
import { Journal } from '../../src/wire/journal.ts'
import { Runner } from '../../src/wire/runner.ts'
import { CONFIG, described, MemorySink, type Row } from '../helpers/driver.ts'

const WAIT = { timeout: 15_000, interval: 10 }
const ends: (() => Promise<unknown> | unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** A capture of a WebSocket address into memory. */
class Rig {
  readonly sink = new MemorySink()
  readonly frames: Row[] = []
  readonly names = new Set<string>()
  readonly runner: Runner
  private readonly exchange: Exchange
  private readonly url: string
  private stopped: Promise<void> | undefined

  constructor(exchange: Exchange, url: string) {
    this.exchange = exchange
    this.url = url
    const clock = new Clock()
    this.runner = new Runner({
      exchange,
      fetcher: new Fetcher('http://127.0.0.1:1', 60),
      clock,
      takeName: () => {
        let number = 1
        while (this.names.has(`c-${number}`)) number++
        this.names.add(`c-${number}`)
        return `c-${number}`
      },
      releaseName: name => void this.names.delete(name),
      storeMetadata: () => undefined,
      log: () => undefined
    })
    const journal = new Journal(
      {
        exchange,
        run: 'r',
        config: { ...CONFIG, cadenceMs: 100 },
        now: () => clock.now(),
        frames: () => ({
          append: (_, line) => void this.frames.push(JSON.parse(line) as Row),
          appendAround: (_, before, frame, after) => void this.frames.push(JSON.parse(before + frame + after) as Row)
        }),
        isFull: () => false
      },
      this.runner
    )
    const engine = new Engine(exchange, this.sink, journal)
    journal.attach(engine)
    this.runner.attach(journal)
    ends.push(() => this.stop())
  }

  start(instIds: readonly string[]): this {
    const level = this.exchange.levels[0]!
    const selection = { level, market: null, channel: null, updateSpeed: null }
    const routes = this.exchange.endpoints(selection).routes.map(route => ({ ...route, url: this.url }))
    this.runner.start(described(this.exchange, instIds, selection), routes, ['book', 'trades'], 100)
    return this
  }

  stop(): Promise<void> {
    this.stopped ??= this.runner.stop()
    return this.stopped
  }

  statuses(event: string): Row[] {
    return this.sink.statuses(event).map(row => row.detail as Row)
  }

  lines(dir: string): Row[] {
    return this.frames.filter(row => row.dir === dir)
  }
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
  const rig = new Rig(exchange, simulator.wsUrl).start([instId])
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
  const rig = new Rig(exchange, simulator.wsUrl).start([instId])
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
  const rig = new Rig(okx, simulator.wsUrl).start(['BTC-USDT'])
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(1), WAIT)
  rig.runner.leave('c-1')
  const frames = rig.lines('in').length
  await vi.waitFor(() => expect(rig.lines('in').length).toBeGreaterThan(frames), WAIT)
  expect(rig.lines('close')).toEqual([])
})

it('opens as many connections as the instruments need', async () => {
  const names = Array.from({ length: 13 }, (_, n) => `AA${String.fromCharCode(65 + n)}USD`)
  const simulator = await simulate({ exchange: 'bitfinex', instruments: names, eventsPerSecond: 5 })
  const rig = new Rig(bitfinex, simulator.wsUrl).start(names)
  await vi.waitFor(() => expect(rig.statuses('synced')).toHaveLength(13), WAIT)
  expect(rig.lines('open').map(row => (row.open as { instruments: unknown[] }).instruments.length)).toEqual([12, 1])
  await rig.stop()
})

it('stops within a second while it is connected', async () => {
  const simulator = await simulate({ exchange: 'okx' })
  const rig = new Rig(okx, simulator.wsUrl).start(['BTC-USDT'])
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
  const rig = new Rig(okx, 'ws://127.0.0.1:1/').start(['BTC-USDT'])
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
  const rig = new Rig(okx, `ws://127.0.0.1:${(mute.address() as AddressInfo).port}/`).start(['BTC-USDT'])
  await vi.waitFor(() => expect(sockets).toHaveLength(1), WAIT)
  const began = performance.now()
  const stopped = rig.stop()
  const late = new Promise(resolve => setTimeout(resolve, 1000, 'late').unref())
  expect(await Promise.race([stopped.then(() => 'stopped'), late])).toBe('stopped')
  expect(performance.now() - began).toBeLessThan(1000)
})
