import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { FeedKind } from '../../src/core/instrument.ts'
import type { Exchange } from '../../src/exchanges/exchange.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { Clock } from '../../src/wire/clock.ts'
import { Fetcher } from '../../src/wire/fetcher.ts'
import type { Journal } from '../../src/wire/journal.ts'
import { backoffMs, Gate } from '../../src/wire/pace.ts'
import { Runner } from '../../src/wire/runner.ts'
import type { Socket, SocketEvents } from '../../src/wire/socket.ts'
import { described, type Row } from '../helpers/driver.ts'

/** What the next attempts to connect come to, and when each of them began, ms. */
const net = vi.hoisted(() => ({
  open: (_url: string, _onOpen: unknown): Promise<unknown> => Promise.reject(new Error('connect ECONNREFUSED')),
  begunMs: [] as number[]
}))
vi.mock('../../src/wire/socket.ts', async original => ({
  ...(await original<typeof import('../../src/wire/socket.ts')>()),
  Socket: {
    open: (url: string, _signal: AbortSignal, onOpen: unknown) => {
      net.begunMs.push(performance.now())
      return net.open(url, onOpen)
    }
  }
}))
// The timers of promises are those that the tests move.
vi.mock('node:timers/promises', () => ({
  setTimeout: (ms: number, value: unknown, { signal }: { signal?: AbortSignal } = {}) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted()
      const timer = setTimeout(resolve, ms, value)
      const abort = () => {
        clearTimeout(timer)
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', abort, { once: true })
    })
}))

const { UpgradeRefused } = await import('../../src/wire/socket.ts')
const MINUTE_MS = 60_000
const FEEDS: readonly FeedKind[] = ['book', 'trades']

const ended: (() => Promise<void>)[] = []
let logs: { level: string; message: string; facts: Row }[] = []
beforeEach(() => {
  vi.useFakeTimers()
  net.begunMs = []
  net.open = () => Promise.reject(new Error('connect ECONNREFUSED'))
  logs = []
})
afterEach(async () => {
  await Promise.all(ended.splice(0).map(end => end()))
  vi.useRealTimers()
})

/** The connection that has begun last. */
let last: { runner: Runner; name: string }

/** A runner of so many connections, each for one instrument; `onBegin` takes the place of the journal. */
function run(exchange: Exchange, connections: number, gate?: Gate, onBegin: () => void = () => undefined): Runner {
  const names = new Set<string>()
  const runner = new Runner({
    exchange,
    ...(gate ? { gate } : {}),
    fetcher: new Fetcher('http://127.0.0.1:1', 1),
    clock: { now: () => performance.now() * 1000 } as Clock,
    takeName: () => {
      const name = `c-${names.size + 1}`
      names.add(name)
      return name
    },
    releaseName: () => undefined,
    storeMetadata: () => undefined,
    log: (level, message, facts) => void logs.push({ level, message, facts })
  })
  const open = (name: string) => {
    last = { runner, name }
    onBegin()
  }
  const nothing = () => undefined
  runner.attach({ open, close: nothing, in: nothing, out: nothing, tick: nothing } as unknown as Journal)
  const instIds = Array.from({ length: connections }, (_, n) => `A${n}`)
  const selection = { level: exchange.levels[0]!, market: null, channel: null, updateSpeed: null }
  const route = { url: 'ws://127.0.0.1:1', feeds: FEEDS, instrumentsMax: 1 }
  runner.start(described(exchange, instIds, selection), [route], FEEDS, 1000)
  ended.push(() => runner.stop())
  return runner
}

/** The most attempts within any minute. */
function mostInAMinute(begunMs: readonly number[]): number {
  let from = 0
  return begunMs.reduce((most, ms, at) => {
    while (begunMs[from]! <= ms - MINUTE_MS) from++
    return Math.max(most, at - from + 1)
  }, 0)
}

/** A far end that takes connections, whose books are live at once or never, and that ends them after `lifeMs`. */
function flap(live: boolean, lifeMs: number): void {
  net.open = async (_url, onOpen) => {
    const socket = { leave: () => undefined, send: () => true, terminate: () => undefined }
    const events = (onOpen as (socket: Socket) => SocketEvents)(socket as unknown as Socket)
    if (live) last.runner.settled(last.name)
    setTimeout(() => events.onEnd(1006, ''), lifeMs)
    return socket
  }
}

describe.each(Object.entries(EXCHANGES))('%s', (_, exchange) => {
  const { connectsPerMinuteMax, connectSpacingMs } = exchange.limits

  it('an hour without the exchange: never more attempts than it allows, never two together, never none', async () => {
    const runner = run(exchange, 6)
    await vi.advanceTimersByTimeAsync(60 * MINUTE_MS)
    const { begunMs } = net
    expect(mostInAMinute(begunMs)).toBeLessThanOrEqual(connectsPerMinuteMax)
    for (const [at, ms] of begunMs.entries())
      if (at > 0) expect(ms - begunMs[at - 1]!).toBeGreaterThanOrEqual(connectSpacingMs - 1)
    // Six connections whose pauses are 20 to 60 s.
    const late = begunMs.filter(ms => ms > begunMs[0]! + 30 * MINUTE_MS)
    expect(late.length).toBeGreaterThan(6 * 30 - 1)
    expect(late.length).toBeLessThan(6 * 30 * 3 + 6)
    // An outage is no mistake of ours.
    expect(runner.restarts).toBe(0)
  })

  it.each([
    ['live at once', true],
    ['never live', false]
  ])('ten minutes of connections that are %s and end after a moment', async (_name, live) => {
    run(exchange, 30)
    flap(live, 50)
    await vi.advanceTimersByTimeAsync(10 * MINUTE_MS)
    expect(mostInAMinute(net.begunMs)).toBeLessThanOrEqual(connectsPerMinuteMax)
    expect(net.begunMs.length).toBeGreaterThan(10 * 10)
  })
})

const exchange = EXCHANGES.okx!

it('pauses grow to a minute, no two are alike, and live books begin them anew', async () => {
  const random = Array.from({ length: 11 }, (_, n) => n / 10)
  for (let failures = 1; failures < 60; failures++) {
    const pauses = random.map(chance => backoffMs(failures, chance))
    expect(Math.max(...pauses)).toBeLessThanOrEqual(MINUTE_MS)
    expect(new Set(pauses).size).toBe(random.length)
    if (failures > 6) expect(Math.min(...pauses)).toBe(20_000)
  }
  run(exchange, 1)
  await vi.advanceTimersByTimeAsync(20 * MINUTE_MS)
  expect(net.begunMs.at(-1)! - net.begunMs.at(-2)!).toBeGreaterThanOrEqual(20_000)
  flap(true, 20_000)
  const before = net.begunMs.length
  await vi.advanceTimersByTimeAsync(2 * MINUTE_MS)
  const begun = net.begunMs.slice(before)
  expect(begun.length).toBeGreaterThan(2)
  for (const [at, ms] of begun.entries()) if (at > 0) expect(ms - begun[at - 1]!).toBeLessThan(25_000)
})

it('a connection that is never live as a whole, but lasts, is met again at once', async () => {
  run(exchange, 1)
  await vi.advanceTimersByTimeAsync(20 * MINUTE_MS)
  flap(false, 10 * MINUTE_MS)
  const before = net.begunMs.length
  await vi.advanceTimersByTimeAsync(45 * MINUTE_MS)
  const begun = net.begunMs.slice(before)
  expect(begun.length).toBeGreaterThan(3)
  for (const [at, ms] of begun.entries())
    if (at > 0) expect(ms - begun[at - 1]! - 10 * MINUTE_MS).toBeLessThanOrEqual(1600)
})

it('runners that share the way to an exchange share its budget', async () => {
  const gate = new Gate(exchange.limits.connectsPerMinuteMax, exchange.limits.connectSpacingMs)
  for (let n = 0; n < 3; n++) run(exchange, 30, gate)
  flap(true, 50)
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS)
  expect(mostInAMinute(net.begunMs)).toBeLessThanOrEqual(exchange.limits.connectsPerMinuteMax)
})

describe.each([429, 418, 503])('the upgrade is answered with %i', status => {
  const refuse = (waitMs: number) => {
    net.open = () => Promise.reject(new UpgradeRefused(status, waitMs))
  }

  it('and a wish: nobody asks before its end, whatever connection it was told to, and then all do', async () => {
    refuse(10 * MINUTE_MS)
    run(exchange, 5)
    await vi.advanceTimersByTimeAsync(MINUTE_MS)
    const atOnce = net.begunMs.length
    expect(atOnce).toBeLessThanOrEqual(5)
    net.open = () => Promise.reject(new Error('connect ECONNREFUSED'))
    await vi.advanceTimersByTimeAsync(8 * MINUTE_MS)
    expect(net.begunMs.length).toBe(atOnce)
    await vi.advanceTimersByTimeAsync(2 * MINUTE_MS)
    expect(net.begunMs.length).toBeGreaterThanOrEqual(atOnce + 5)
  })

  it('and nothing else: growing pauses for all together', async () => {
    refuse(0)
    run(exchange, 5)
    await vi.advanceTimersByTimeAsync(60 * MINUTE_MS)
    // 2, 4, 8 … 120 s: 5 who ask at each end of a pause.
    expect(net.begunMs.length).toBeLessThan(5 * 40)
    expect(net.begunMs.length).toBeGreaterThan(20)
  })
})

it('a mistake of ours in the beginning of a connection is logged, counted, and tried again', async () => {
  let failing = true
  const runner = run(exchange, 1, undefined, () => {
    if (failing) throw new TypeError('cannot read properties of undefined')
  })
  flap(true, 10 * MINUTE_MS)
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS)
  expect(runner.restarts).toBeGreaterThan(8)
  expect(runner.restarts).toBeLessThan(40)
  const told = logs.filter(({ level }) => level === 'error')
  expect(told).toHaveLength(runner.restarts)
  expect(told[0]!.facts).toMatchObject({ conn: 'c-1', count: 1, error: expect.stringContaining('TypeError') })
  failing = false
  await vi.advanceTimersByTimeAsync(2 * MINUTE_MS)
  const before = runner.restarts
  await vi.advanceTimersByTimeAsync(30 * MINUTE_MS)
  expect(runner.restarts).toBe(before)
  expect(net.begunMs.at(-1)).toBeGreaterThan(performance.now() - 11 * MINUTE_MS)
})
