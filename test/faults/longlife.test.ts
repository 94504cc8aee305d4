import { getEventListeners } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Engine } from '../../src/capture/engine.ts'
import { TradeIds } from '../../src/capture/trade-ids.ts'
import { HOUR_US } from '../../src/core/time.ts'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { VaultWriter } from '../../src/vault/writer.ts'
import { Journal } from '../../src/wire/journal.ts'
import { CONFIG, described, RecordedRequests, START_US } from '../helpers/driver.ts'
import { BitfinexPeer, ORDERS } from '../helpers/peers.ts'
import { Rig } from '../helpers/rig.ts'

// What a capture holds after a long life is what it held after a short one. L3CAP_FAULT_ROTATIONS=10000 and
// L3CAP_FAULT_HOURS=500 make the lives longer.
const ROTATIONS = Number(process.env.L3CAP_FAULT_ROTATIONS ?? 4000)
const HOURS = Number(process.env.L3CAP_FAULT_HOURS ?? 48)
const FIRST_HOUR = Date.UTC(2026, 10, 20) / 3_600_000
const MIB = 1024 * 1024
const isLinux = process.platform === 'linux'

setFlagsFromString('--expose_gc')
const collect = runInNewContext('gc') as () => void

/** Bytes of the heap that are in use, rubbish taken away. */
function heapBytes(): number {
  collect()
  return process.memoryUsage().heapUsed + process.memoryUsage().external
}

const descriptors = () => readdirSync('/proc/self/fd').length

/** Waits for a condition. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const endMs = performance.now() + 30_000
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not within 30 s: ${what}`)
    await new Promise(done => setTimeout(done, 10))
  }
}

describe('a writer', () => {
  let vault: string
  let writer: VaultWriter
  beforeEach(() => {
    vault = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'l3cap-longlife-'))
    writer = new VaultWriter(vault, {
      pendingMax: Number.POSITIVE_INFINITY,
      onPause: reason => expect.unreachable(reason),
      onResume: () => undefined
    })
  })
  afterEach(async () => {
    await writer.close()
    rmSync(vault, { recursive: true })
  })

  test.skipIf(!isLinux)(`holds no more after ${ROTATIONS} hours than after a few`, { timeout: 600_000 }, async () => {
    const stream = writer.stream('okx', 'frames', 'okx-1')
    const before = descriptors()
    let early = 0
    for (let hour = 0; hour < ROTATIONS; hour++) {
      const us = (FIRST_HOUR + hour) * HOUR_US
      stream.append(us, `{"recv_us":${us}}\n`)
      await writer.drain()
      // What is left behind is synced and closed in its own time.
      if (hour % 50 === 0) await until(() => descriptors() - before <= 2, 'the files of the hours before are closed')
      if (hour === ROTATIONS / 10) early = heapBytes()
    }
    expect((heapBytes() - early) / MIB, 'MiB more').toBeLessThan(3)
    await writer.close()
    expect(descriptors()).toBeLessThanOrEqual(before)
    for (const hour of [0, 1, ROTATIONS / 2, ROTATIONS - 1]) {
      const us = (FIRST_HOUR + hour) * HOUR_US
      expect(readFileSync(hourPath(vault, 'okx', 'frames', 'okx-1', FIRST_HOUR + hour), 'utf8')).toBe(
        `{"recv_us":${us}}\n`
      )
    }
  })

  test.skipIf(!isLinux)('of 500 instruments has one file open for each of their feeds, hour after hour', async () => {
    const feeds = ['l2_updates', 'l2_perps', 'trades', 'status']
    const names = Array.from({ length: 500 }, (_, at) => `COIN${at}-USDT`)
    const before = descriptors()
    let second = 0
    for (let hour = 0; hour < 4; hour++) {
      const us = (FIRST_HOUR + hour) * HOUR_US
      for (const name of names) for (const feed of feeds) writer.stream('okx', feed, name).append(us, '{}\n')
      await writer.drain()
      const wanted = before + feeds.length * names.length
      await until(() => descriptors() <= wanted, 'the files of the hour before are closed')
      if (hour === 1) second = heapBytes()
    }
    expect((heapBytes() - second) / MIB, 'MiB more').toBeLessThan(5)
    await writer.close()
    expect(descriptors()).toBeLessThanOrEqual(before)
  })
})

/** How many things lie in the collections and texts that can be reached from these objects. */
function countHeld(roots: readonly object[]): number {
  const seen = new Set<object>(roots)
  let count = 0
  for (const each of seen) {
    const inside: unknown[] = []
    if (each instanceof Map) inside.push(...each.keys(), ...each.values())
    else if (each instanceof Set) inside.push(...each)
    else if (ArrayBuffer.isView(each)) count += each.byteLength
    else inside.push(...Object.values(each))
    if (each instanceof Map || each instanceof Set || Array.isArray(each)) count += inside.length
    for (const value of inside) if (typeof value === 'object' && value !== null) seen.add(value)
  }
  return count
}

describe('a capture', () => {
  test(`of ${HOURS} hours with a reconnect each minute holds what it held after a quarter of them`, {
    timeout: 600_000
  }, () => {
    const requests = new RecordedRequests()
    const silent = { append: () => undefined, appendAround: () => undefined }
    let us = START_US
    const journal = new Journal(
      {
        exchange: bitfinex,
        run: 'r',
        config: CONFIG,
        secrets: [],
        now: () => ++us,
        frames: () => silent,
        isFull: () => false
      },
      requests
    )
    const engine = new Engine(bitfinex, { stream: () => silent }, journal)
    journal.attach(engine)
    const sent = requests.sent
    let tradeId = 1
    const minute = (at: number) => {
      // Every tenth connection is planned to be replaced, and lives under the other name.
      const name = at % 10 === 0 ? 'bitfinex-2' : 'bitfinex-1'
      const instruments = described(bitfinex, ['BTCUSD', 'ETHUSD'], 'l3')
      journal.open(name, 'ws://-/', instruments, ['book', 'trades'], null)
      const peer = new BitfinexPeer({ us, sent, in: (to, text) => journal.in(to, Buffer.from(text), false) }, name)
      peer.event({ event: 'info', version: 2, serverId: 'x', platform: { status: 1 } })
      peer.answer()
      for (const symbol of ['tBTCUSD', 'tETHUSD']) {
        peer.image(ORDERS, symbol)
        for (let n = 0; n < 10; n++) peer.order([1000 + at * 10 + n, '79418', '0.5'], symbol)
        for (let n = 0; n < 10; n++) peer.order([1000 + at * 10 + n, '0', '1'], symbol)
        peer.trade('te', tradeId++, '0.01', '79420', symbol)
      }
      for (let n = 0; n < 4; n++) {
        us += 15_000_000
        journal.tick()
      }
      journal.close(name, 'lost', 1006, '')
      for (const list of Object.values(requests) as unknown[][]) list.length = 0
    }
    let early = 0
    for (let at = 0; at < HOURS * 60; at++) {
      if (at === HOURS * 15) early = countHeld([engine, journal])
      minute(at)
    }
    expect(requests.hangups).toEqual([])
    expect(early).toBeGreaterThan(100)
    // Trades of this and the last hour, and no fewer than a thousand: more or less by what the hour has brought so far.
    expect(countHeld([engine, journal]) - early).toBeLessThan(2 * 2000)
    expect(journal.names).toEqual([])
  })

  test('remembers trades by the million, not more', () => {
    const ids = new TradeIds()
    const count = 1_200_000
    for (let id = 0; id < count; id++) ids.add(String(id))
    expect(ids.add(String(count - 1))).toBe(false)
    expect(ids.add(String(count - 500_000))).toBe(false)
    const held = ids.state().reduce((sum, { numeric }) => sum + numeric.length, 0)
    expect(held).toBeLessThanOrEqual(1_000_000)
  })
})

describe('a runner', () => {
  /** What keeps the process busy, by kind. */
  function resources(): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1
    return counts
  }

  test('has the same timers, sockets and listeners after every reconnect, and none at the end', {
    timeout: 60_000
  }, async () => {
    const before = resources()
    const simulator = await startSimulator({ exchange: 'bitfinex', seed: 3, connectsPerMinute: 0 })
    const rig = new Rig(bitfinex, simulator.port).start(['BTCUSD'])
    const { stopping } = rig.runner as unknown as { stopping: AbortController }
    const listeners: number[] = []
    const sockets: number[] = []
    const timers: number[] = []
    for (let life = 1; life <= 5; life++) {
      await until(() => rig.statuses('synced').length === life, `the book of life ${life}`)
      listeners.push(getEventListeners(stopping.signal, 'abort').length)
      sockets.push(resources().TCPSocketWrap ?? 0)
      timers.push(resources().Timeout ?? 0)
      if (life < 5) simulator.inject({ kind: 'close', code: 1006 })
    }
    for (const counts of [listeners, sockets]) expect(counts.slice(1)).toEqual(counts.slice(1).map(() => counts[1]))
    expect(Math.max(...timers.slice(1)) - Math.min(...timers.slice(1))).toBeLessThanOrEqual(2)
    await rig.stop()
    await simulator.close()
    // What has been closed goes with the next turns of the loop.
    await until(() => getEventListeners(stopping.signal, 'abort').length === 0, 'the end of the listeners')
    await until(() => (resources().TCPSocketWrap ?? 0) <= (before.TCPSocketWrap ?? 0), 'the end of the sockets')
    await until(() => (resources().Timeout ?? 0) <= (before.Timeout ?? 0) + 2, 'the end of the timers')
  })
})
