import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { SimulatedExchange } from '../../src/simulator/listing.ts'
import { wsFrame } from '../helpers/bytes.ts'
import { CERTIFICATE } from '../helpers/certificate.ts'
import type { Row } from '../helpers/driver.ts'
import { recordsOf } from '../helpers/vault.ts'
import { Cable } from './cable.ts'
import { live, type Running, Stage, type StageExchange, until } from './harness.ts'

// The whole program behind a line that breaks in every way there is, judged by what the simulator sent.
// L3CAP_FAULT_CLOSES=all tries every close code, L3CAP_FAULT_BURST_SECONDS=60 is the long form of the bursts,
// L3CAP_FAULT_SEED repeats another traffic.
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 11)
const BURST_SECONDS = Number(process.env.L3CAP_FAULT_BURST_SECONDS ?? 3)
const CODES = process.env.L3CAP_FAULT_CLOSES
  ? [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
  : [1001, 1012, 4000]
const LONG_MS = 60_000 + CODES.length * 10_000 + BURST_SECONDS * 20_000
const WAIT_MS = 45_000

const closing: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Line extends StageExchange {
  readonly cable: Cable
}

/** An exchange behind a cable; its REST goes straight to the simulator. */
async function behind(exchange: SimulatedExchange, symbols: readonly string[]): Promise<Line> {
  const cable = await Cable.open()
  closing.push(() => cable.close())
  const selection = { level: EXCHANGES[exchange]!.levels[0]!, market: null, channel: null, updateSpeed: null }
  const { pathname } = new URL(EXCHANGES[exchange]!.endpoints(selection).routes[0]!.url)
  return { exchange, symbols, cable, entry: { wsUrl: `ws://127.0.0.1:${cable.port}${pathname}?life=1` } }
}

async function stageOf(kind: string, lines: readonly Line[], eventsPerSecond = 50): Promise<Stage> {
  const stage = await Stage.open({ seed: SEED, kind, exchanges: lines, eventsPerSecond })
  closing.push(() => stage.close())
  for (const [at, { cable }] of lines.entries()) cable.lead(stage.simulators[at]!.port)
  return stage
}

/** The status records of an event, of all symbols of a line. */
function statuses(stage: Stage, { exchange, symbols }: Line, event: string): Row[] {
  return symbols
    .flatMap(symbol => recordsOf(stage.vault, exchange, 'status', symbol))
    .filter(row => row.event === event)
}
const details = (rows: readonly Row[]) => rows.map(row => row.detail as Row)

/** Waits until so many images have been taken by each book of a line. */
function synced(stage: Stage, line: Line, times: number): Promise<void> {
  const count = () =>
    Math.min(...line.symbols.map(symbol => statuses(stage, { ...line, symbols: [symbol] }, 'synced').length))
  return until(
    () => count() >= times,
    () => stage.about(`${line.exchange}: ${count()} of ${times} images`),
    WAIT_MS
  )
}

/** Stops the program and looks for whatever is wrong in its vault. */
async function finish(stage: Stage, running: Running): Promise<void> {
  expect(await running.stop(), running.output.slice(-2000)).toBe(0)
  expect(stage.judge(true).findings).toEqual([])
}

const okxLine = () => behind('okx', ['BTC-USDT-SWAP', 'ETH-USDT-SWAP'])

it(`every end of a connection is one gap with its cause, and is met again (seed ${SEED})`, {
  timeout: LONG_MS
}, async () => {
  const okx = await okxLine()
  const huobi = await behind('huobi', ['btcusdt'])
  const stage = await stageOf('ends', [okx, huobi])
  const { cable } = okx
  const running = stage.start()
  await Promise.all([synced(stage, okx, 1), synced(stage, huobi, 1)])
  // Half-open: nothing comes, nothing is told. It takes its time to show, while the other exchange goes on.
  huobi.cable.freeze()
  const ways: [act: () => void, code: number, reason: RegExp][] = [
    ...CODES.map((code): [() => void, number, RegExp] => [
      () => stage.simulators[0]!.inject({ kind: 'close', code }),
      code,
      /^$/
    ]),
    [() => cable.cut('end'), 1006, /no close frame/],
    [() => cable.cut('reset'), 1006, /ECONNRESET/],
    [
      () => {
        cable.say(wsFrame(1, Buffer.alloc(200, 'x')).subarray(0, 50), true)
        cable.cut('end')
      },
      1006,
      /no close frame/
    ],
    // The far end goes on as if nothing were: the end is ours.
    [() => cable.say(Buffer.from([0x81, 127, 0, 0, 0, 0, 0x10, 0, 0, 0]), true), 1006, /payload/],
    [() => cable.say(Buffer.from([0xc1, 1, 0]), true), 1006, /RSV1/]
  ]
  for (const [at, [act]] of ways.entries()) {
    act()
    await synced(stage, okx, at + 2)
  }
  await synced(stage, huobi, 2)
  await finish(stage, running)
  for (const symbol of okx.symbols) {
    const one = { ...okx, symbols: [symbol] }
    const ends = details(statuses(stage, one, 'disconnected'))
    expect(ends).toEqual(
      ways.map(([, code, reason]) => ({ conn: 'okx-1', code, reason: expect.stringMatching(reason) }))
    )
    expect(details(statuses(stage, one, 'gap')).map(({ cause }) => cause)).toEqual(ways.map(() => 'disconnect'))
    expect(
      details(statuses(stage, one, 'synced'))
        .slice(1)
        .every(({ down_ms }) => Number(down_ms) > 0)
    ).toBe(true)
  }
  expect(cable.connectsMs).toHaveLength(ways.length + 1)
  // One connection for books, one for trades.
  const halfOpen = details(statuses(stage, huobi, 'disconnected'))
  expect(halfOpen.map(({ code, reason }) => [code, reason])).toEqual(Array(2).fill([1006, 'no frame within 15000 ms']))
  expect(statuses(stage, huobi, 'gap')).toHaveLength(1)
})

describe('a server that does not let anybody in', () => {
  it(`is asked no sooner than it says, and each time later where it says nothing (seed ${SEED})`, {
    timeout: LONG_MS
  }, async () => {
    const told = await okxLine()
    const mute = await behind('bitfinex', ['BTCUSD'])
    const absurd = await behind('coinbase', ['BTC-USD'])
    told.cable.receptions.push({ answer: '429 Too Many Requests\r\nRetry-After: 3' })
    mute.cable.receptions.push({ answer: '503 Service Unavailable' }, { answer: "418 I'm a teapot" })
    absurd.cable.receptions.push({ answer: '503 Busy\r\nRetry-After: 99999999999999' }, 'reset', 'reset')
    const stage = await stageOf('refusals', [told, mute, absurd])
    const running = stage.start()
    await Promise.all([told, mute, absurd].map(line => synced(stage, line, 1)))
    await finish(stage, running)
    const pauses = ({ cable: { connectsMs } }: Line) => connectsMs.slice(1).map((ms, at) => ms - connectsMs[at]!)
    expect(pauses(told)).toHaveLength(1)
    expect(pauses(told)[0]).toBeGreaterThan(2900)
    const [first, second, ...others] = pauses(mute)
    expect(others).toEqual([])
    expect(first).toBeGreaterThan(1900)
    expect(second! / first!).toBeGreaterThan(1.5)
    expect(pauses(absurd)).toHaveLength(3)
    for (const line of [told, mute, absurd]) {
      expect(statuses(stage, line, 'gap')).toEqual([])
      expect(statuses(stage, line, 'disconnected')).toEqual([])
    }
  })

  it('is not believed when it cannot prove who it is, whatever the environment says', {
    timeout: LONG_MS
  }, async () => {
    let welcome = 0
    const server = createServer(CERTIFICATE, (_, response) => {
      welcome++
      response.end('{}')
    })
    new WebSocketServer({ server }).on('connection', () => welcome++)
    let tries = 0
    server.on('tlsClientError', () => tries++)
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    closing.push(() => new Promise(resolve => server.close(resolve).closeAllConnections()))
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const stage = await Stage.open({ seed: SEED, kind: 'tls', exchanges: [] })
    closing.push(() => stage.close())
    const running = stage.start({
      words: [
        '--exchange',
        'okx',
        '--symbol',
        'BTC-USDT',
        '--ws-url',
        `wss://${address}/ws/v5/public`,
        '--rest-url',
        `https://${address}`
      ],
      env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    })
    await until(
      () => /Connecting failed/.test(running.output),
      () => running.output.slice(-2000),
      WAIT_MS
    )
    expect(await running.stop()).toBe(0)
    expect(running.output).toMatch(/self-signed certificate/)
    expect(tries).toBeGreaterThan(0)
    expect(welcome).toBe(0)
    expect(existsSync(join(stage.vault, 'raw', 'okx', 'frames'))).toBe(false)
  })
})

it(`what nobody should say is kept and costs only what it must (seed ${SEED})`, { timeout: LONG_MS }, async () => {
  const okx = await okxLine()
  const stage = await stageOf('hostile', [okx])
  const running = stage.start()
  await synced(stage, okx, 1)
  const big = `{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"x":"${'y'.repeat(50_000_000)}"}`
  const text = (said: string) => okx.cable.say(wsFrame(1, Buffer.from(said)))
  const parts = ['{"event":"no', 'tice","code":"1","msg":"in pieces"}']
  okx.cable.say(
    Buffer.concat([
      wsFrame(1, Buffer.from(parts[0]!), false),
      wsFrame(9, Buffer.alloc(125, 'p')),
      wsFrame(0, Buffer.from(parts[1]!))
    ])
  )
  text(`${'['.repeat(50_000)}${']'.repeat(50_000)}`)
  text('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"event":"__proto__"}')
  text(
    '{"arg":{"channel":"trades","instId":"ETH-USDT-SWAP"},"data":[{"instId":"ETH-USDT-SWAP","tradeId":"9007199254740993999","px":"1e400","sz":"1","side":"buy","ts":"1e400"}]}'
  )
  text('{"event":"\\ud800","msg":"half of a \\udc00 pair"}')
  okx.cable.say(wsFrame(2, Buffer.from('binary on a text wire')))
  okx.cable.say(wsFrame(10, Buffer.from('a pong that nobody asked for')))
  text(big)
  const frames = () => recordsOf(stage.vault, 'okx', 'frames', 'okx-1')
  await until(
    () => framesBytes(stage) > 50_000_000,
    () => stage.about('the large frame is not kept'),
    WAIT_MS
  )
  await live(1000)
  expect(await running.stop()).toBe(0)
  const lines = frames()
  expect(lines.filter(row => row.unread === true).map(row => row.encoding ?? String(row.text).length)).toEqual([
    'base64',
    big.length
  ])
  expect(lines.some(row => (row.msg as Row | undefined)?.msg === 'in pieces')).toBe(true)
  expect(lines.filter(row => row.dir === 'close').map(row => row.cause)).toEqual(['stopped'])
  // OKX numbers its updates: a frame that is none of them has cost none.
  expect(statuses(stage, okx, 'gap')).toEqual([])
  for (const symbol of okx.symbols) {
    const shots = recordsOf(stage.vault, 'okx', 'l2_perps', symbol)
    expect(shots.length).toBeGreaterThan(5)
    expect(recordsOf(stage.vault, 'okx', 'trades', symbol).every(row => /^\d+(\.\d+)?$/.test(String(row.price)))).toBe(
      true
    )
  }
})

/** Bytes of the frames feed so far. */
function framesBytes(stage: Stage): number {
  const folder = join(stage.vault, 'raw', 'okx', 'frames', 'okx-1')
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}

/** Resident memory of a process, in MiB. */
function residentMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024
}

it(`bursts of ten and a hundred times the usual: nothing is lost, and snapshots are in time again (seed ${SEED})`, {
  timeout: LONG_MS
}, async () => {
  const lines = [await okxLine(), await behind('bitfinex', ['BTCUSD', 'ETHUSD'])]
  const stage = await stageOf('bursts', lines, 25)
  const running = stage.start()
  for (const line of lines) await synced(stage, line, 1)
  await live(1000)
  const calmMiB = existsSync('/proc/self/status') ? residentMiB(running.pid) : 0
  let mostMiB = 0
  for (const times of [10, 100]) {
    for (const simulator of stage.simulators) simulator.hurry(times)
    for (let second = 0; second < (times === 10 ? Math.ceil(BURST_SECONDS / 3) : BURST_SECONDS); second++) {
      await live(1000)
      if (calmMiB > 0) mostMiB = Math.max(mostMiB, residentMiB(running.pid))
    }
    for (const simulator of stage.simulators) simulator.hurry(1)
  }
  const calmMs = Date.now()
  await live(2000)
  await finish(stage, running)
  for (const line of lines) {
    expect(statuses(stage, line, 'gap')).toEqual([])
    expect(statuses(stage, line, 'disconnected')).toEqual([])
    for (const symbol of line.symbols) {
      const feed = line.exchange === 'okx' ? 'l2_perps' : 'l3_spot'
      const times = recordsOf(stage.vault, line.exchange, feed, symbol).map(row => Number(row.recv_us) / 1000)
      const late = times.filter(ms => ms > calmMs + 500)
      expect(late.length).toBeGreaterThan(4)
      for (const [at, ms] of late.entries()) if (at > 0) expect(ms - late[at - 1]!).toBeLessThan(3 * 200)
    }
  }
  // What waits to be written may be 64 MiB.
  if (calmMiB > 0) expect(mostMiB - calmMiB).toBeLessThan(400)
})
