import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import { SIMULATED_CREDENTIALS, type SimulatedExchange } from '../../src/simulator/listing.ts'
import {
  type Fault,
  randomFaults,
  type SentFrame,
  type Simulator,
  type SimulatorOptions,
  simulatorFaultKinds,
  startSimulator
} from '../../src/simulator/simulator.ts'
import type { Row } from '../helpers/driver.ts'
import { ensureBuilt, recordsOf } from '../helpers/vault.ts'
import { makeTruth, plainOf, type TrueLevel, type Truth, unitsOf } from './truth.ts'

// Captures without any fault: every snapshot is the true book of its frame. L3CAP_FAULT_SECONDS=60 is the long form,
// L3CAP_FAULT_SEED repeats another traffic. With L3CAP_FAULT_COUNT=20 that many faults befall each exchange, of those
// kinds that it can prove or that lose nothing: then the snapshots that are not flagged are the true book of a client
// that missed nothing, or of one that has not heard anything since it did.
const SECONDS = Number(process.env.L3CAP_FAULT_SECONDS ?? 4)
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 5)
const FAULTS = Number(process.env.L3CAP_FAULT_COUNT ?? 0)
const BIN = 'bin/l3cap.js'
const about = `seed ${SEED}, ${SECONDS} s`

/** One book that is captured: `run` tells those apart that cannot be in one vault. */
interface Case {
  readonly run: 0 | 1
  readonly exchange: SimulatedExchange
  readonly instId: string
  readonly feed: string
  readonly entry?: Row
  readonly options?: Partial<SimulatorOptions>
}

const CASES: readonly Case[] = [
  { run: 0, exchange: 'bitfinex', instId: 'BTCUSD', feed: 'l3_spot' },
  { run: 1, exchange: 'bitfinex', instId: 'DOGE:USD', feed: 'l2_spot', entry: { level: 'l2' } },
  { run: 0, exchange: 'okx', instId: 'BTC-USDT-SWAP', feed: 'l2_perps' },
  { run: 1, exchange: 'okx', instId: 'ETH-USDT', feed: 'l2_spot', options: { imageless: true } },
  { run: 0, exchange: 'coinbase', instId: 'BTC-USD', feed: 'l3_spot' },
  { run: 1, exchange: 'coinbase', instId: 'SOL-USD', feed: 'l3_spot', entry: { level: 'l3', channel: 'full' } },
  { run: 1, exchange: 'coinbase', instId: 'ETH-USD', feed: 'l2_spot', entry: { level: 'l2' } },
  { run: 0, exchange: 'kraken', instId: 'BTC/USD', feed: 'l3_spot' },
  { run: 1, exchange: 'kraken', instId: 'ETH/USD', feed: 'l2_spot', entry: { level: 'l2' } },
  { run: 0, exchange: 'binance', instId: 'BTCUSDT', feed: 'l2_spot' },
  { run: 1, exchange: 'binance', instId: 'SOLUSDT', feed: 'l2_perps', entry: { market: 'perp' } },
  { run: 0, exchange: 'huobi', instId: 'btcusdt', feed: 'l2_spot' },
  { run: 1, exchange: 'huobi', instId: 'shibusdt', feed: 'l2_spot' },
  { run: 0, exchange: 'bitstamp', instId: 'btcusd', feed: 'l3_spot' },
  { run: 1, exchange: 'bitstamp', instId: 'ethusd', feed: 'l2_spot', entry: { level: 'l2' } }
]

/** A line of the frames feed. */
interface FrameLine {
  readonly conn: string
  readonly frame: number
  readonly dir: string
  readonly url: string
  /** What was on the wire, word for word. */
  readonly text: string
}

let folder: string
const simulators = new Map<Case, Simulator>()

const folderOf = (name: string) => name.replace(/[^A-Za-z0-9._-]/g, '-')
const vaultOf = ({ run }: Case) => join(folder, `vault-${run}`)
const titleOf = ({ exchange, instId, feed, options }: Case) =>
  `${exchange} ${instId} ${feed}${options ? ` ${JSON.stringify(options)}` : ''}`

/** Faults of kinds that leave no wrong book unnoticed on this exchange. */
function faultsOf({ exchange, instId, feed }: Case): Fault[] {
  const proof = EXCHANGES[exchange]!.proof[feed.startsWith('l3') ? 'l3' : 'l2']!
  const losing = ['drop', 'reorder', 'mute', 'close', 'restart-notice', 'maintenance', 'silent-ack']
  const unproven = ['duplicate', 'close', 'rest-error', 'stale-image']
  const kinds = simulatorFaultKinds(exchange).filter(
    kind => unproven.includes(kind) || (proof.sequence !== 'none' && losing.includes(kind))
  )
  return randomFaults(SEED, FAULTS, SECONDS * 800, [instId], kinds)
}

async function capture(run: number): Promise<void> {
  const exchanges = []
  for (const played of CASES.filter(other => other.run === run)) {
    const { exchange, instId, entry, options } = played
    const faults = faultsOf(played)
    const settings = { exchange, seed: SEED, faults, eventsPerSecond: 60, keepLog: true }
    const simulator = await startSimulator({ ...settings, ...options })
    simulators.set(played, simulator)
    const selection = { level: EXCHANGES[exchange]!.levels[0]!, market: null, channel: null, updateSpeed: null }
    const { routes } = EXCHANGES[exchange]!.endpoints({ ...selection, ...entry } as never)
    const wsUrl = `ws://127.0.0.1:${simulator.port}${new URL(routes[0]!.url).pathname}`
    exchanges.push({ exchange, symbols: [instId], wsUrl, restUrl: simulator.restUrl, ...entry })
  }
  const config = join(folder, `config-${run}.json`)
  writeFileSync(config, JSON.stringify({ exchanges, cadence: '200ms' }))
  const { key, secret, passphrase } = SIMULATED_CREDENTIALS
  const vault = join(folder, `vault-${run}`)
  const options = ['--vault', vault, '--log-dir', join(folder, `logs-${run}`), '--duration', `${SECONDS}s`]
  const child = spawn(process.execPath, [BIN, 'run', '--config', config, ...options], {
    stdio: 'ignore',
    env: {
      ...process.env,
      COINBASE_API_KEY: key,
      COINBASE_API_SECRET: secret,
      COINBASE_API_PASSPHRASE: passphrase,
      KRAKEN_API_KEY: key,
      KRAKEN_API_SECRET: secret
    }
  })
  expect(await new Promise(resolve => child.on('exit', resolve)), `run ${run}, ${about}`).toBe(0)
}

beforeAll(
  async () => {
    folder = mkdtempSync(join(tmpdir(), 'l3cap-truth-'))
    ensureBuilt()
    await Promise.all([capture(0), capture(1)])
  },
  SECONDS * 1000 + 60_000
)

afterAll(async () => {
  for (const simulator of simulators.values()) await simulator.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The lines of all connections to an exchange, each life of a connection by itself. */
function sessionsOf(vault: string, exchange: string): FrameLine[][] {
  const root = join(vault, 'raw', exchange, 'frames')
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const paths = files.map(entry => join(entry.parentPath, entry.name)).sort()
  const sessions: FrameLine[][] = []
  for (const line of paths.flatMap(path => readFileSync(path, 'utf8').split('\n').filter(Boolean))) {
    const { frame, conn, dir, url, text } = JSON.parse(line) as Row
    if (dir === 'open') sessions.push([])
    const at = line.indexOf(',"msg":')
    sessions.at(-1)!.push({
      conn: String(conn),
      frame: Number(frame),
      dir: String(dir),
      url: String(url ?? ''),
      text: at < 0 ? String(text ?? '') : line.slice(at + 7, -1)
    })
  }
  return sessions
}

/** What a simulated exchange sent, and withheld, on the connection that this is the capture of. */
function sentTo(log: readonly SentFrame[], lines: readonly FrameLine[], taken: Set<number>): SentFrame[] {
  const received = lines.filter(({ dir }) => dir === 'in')
  for (const connection of new Set(log.map(frame => frame.connection))) {
    const frames = log.filter(frame => frame.connection === connection)
    const sent = frames.filter(frame => frame.sent)
    if (taken.has(connection) || !received.every(({ text }, place) => sent[place]?.text === text)) continue
    taken.add(connection)
    return frames
  }
  throw new Error(`nobody sent what ${lines[0]!.conn} received, ${about}`)
}

/** Whether two levels are the same: numbers by their value. */
function isSame(have: readonly (string | null)[], want: TrueLevel): boolean {
  const [price, size, , orders] = have
  return unitsOf(price!) === unitsOf(want[0]) && unitsOf(size!) === unitsOf(want[1]) && orders === want[2]
}

/** How a snapshot differs from the true book; undefined when it does not. */
function difference(shot: Row, truth: Truth): string | undefined {
  for (const [isAsk, key] of [
    [false, 'bids_top400'],
    [true, 'asks_top400']
  ] as const) {
    const want = truth.top(isAsk, 400)
    const have = shot[key] as string[][]
    if (want === null) return 'there is no book'
    const at = have.findIndex((level, place) => !want[place] || !isSame(level, want[place]))
    if (at >= 0) return `${key} ${at}: ${have[at]} instead of ${want[at]}`
    if (have.length !== want.length) return `${key}: ${have.length} levels instead of ${want.length}`
  }
  return undefined
}

/** How a frame is handed to a truth; true when it concerned it. `place` counts those of the connection from 0. */
type Hand = (truth: Truth, text: string, place: number) => boolean

interface Verdict {
  judged: number
  readonly wrong: string[]
  /** Of each snapshot the place of the frame that it reflects, where that is one of its book. */
  readonly places: number[]
}

const asSent: Hand = (truth, text) => truth.apply(text)

/** Compares the snapshots of a capture with the true book after the frames that the exchange sent. */
function judge(played: Case, shots: readonly Row[], hand: Hand = asSent): Verdict {
  const { exchange, instId } = played
  const verdict: Verdict = { judged: 0, wrong: [], places: [] }
  const taken = new Set<number>()
  for (const lines of sessionsOf(vaultOf(played), exchange)) {
    const own = shots.filter(({ conn }) => conn === lines[0]!.conn)
    if (own.length === 0) continue
    const log = sentTo(simulators.get(played)!.log, lines, taken)
    const truth = makeTruth(exchange, instId, 400)
    const behind = makeTruth(exchange, instId, 400)
    let place = 0
    let isOfBook = false
    for (const { frame, dir, url, text } of lines) {
      while (dir === 'in') {
        const next = log[place]
        if (!next) throw new Error(`frame ${frame} of ${titleOf(played)} was not sent, ${about}`)
        isOfBook = hand(truth, next.text, place++)
        if (next.sent && FAULTS > 0) behind.apply(next.text)
        if (next.sent && next.text === text) break
      }
      if (dir === 'http') for (const each of [truth, behind]) each.image?.(text, url)
      for (const shot of own.filter(other => other.frame === frame)) {
        const found = difference(shot, truth)
        // Who missed something learns of it by the next frame.
        const isWrong = found !== undefined && (FAULTS === 0 || difference(shot, behind) !== undefined)
        if (isWrong) verdict.wrong.push(`frame ${frame}: ${found}`)
        if (isOfBook) verdict.places.push(place - 1)
        verdict.judged++
      }
    }
  }
  return verdict
}

const shotsOf = (played: Case) =>
  recordsOf(vaultOf(played), played.exchange, played.feed, folderOf(played.instId)).filter(row => !row.gap_detected)

describe.each(CASES.map(played => [titleOf(played), played] as const))(
  `the true book of %s (${about})`,
  (_, played) => {
    let shots: Row[]
    let verdict: Verdict

    beforeAll(() => {
      shots = shotsOf(played)
      verdict = judge(played, shots)
    })

    test('is in every snapshot', () => {
      expect(verdict.wrong, about).toEqual([])
      expect(verdict.judged, about).toBe(shots.length)
      // Five a second are due, but for the time that faults take.
      expect(verdict.judged, about).toBeGreaterThan(FAULTS === 0 ? SECONDS : 0)
    })

    test('is not that of a snapshot with another size', () => {
      const at = Math.floor(shots.length / 2)
      const shot = structuredClone(shots[at]!)
      const levels = shot.asks_top400 as string[][]
      levels[7]![1] = '123456.789'
      const { wrong } = judge(played, shots.with(at, shot))
      expect(wrong, about).toEqual([expect.stringContaining(`frame ${shot.frame}: asks_top400 7: `)])
    })

    // With faults, a book that is behind is right as well.
    test.skipIf(FAULTS > 0)('is another one without a frame', () => {
      // The change may lie below what snapshots show, so that not every one is missed.
      const isMissed = (missing: number) =>
        judge(played, shots, (truth, text, place) => place !== missing && truth.apply(text)).wrong.length > 0
      expect(verdict.places.some(isMissed), about).toBe(true)
    })

    test('stays the same when frames are repeated', () => {
      let before = ''
      let count = 0
      const { wrong } = judge(played, shots, (truth, text) => {
        const isOfBook = truth.apply(text)
        // The image comes first, and no exchange repeats it.
        if (!isOfBook || ++count < 5) return isOfBook
        expect(truth.apply(text)).toBe(true)
        if (before !== '') expect(truth.apply(before)).toBe(true)
        before = text
        return true
      })
      expect(wrong, about).toEqual([])
      expect(count, about).toBeGreaterThan(5)
    })
  }
)

// Frames made by hand, for what a calm market seldom shows.
describe('a true book', () => {
  /** The bids and asks after some frames, short. */
  function shown(truth: Truth, frames: readonly unknown[]): string {
    for (const frame of frames) truth.apply(typeof frame === 'string' ? frame : JSON.stringify(frame))
    const sides = [truth.top(false, 9), truth.top(true, 9)]
    return sides
      .map(levels => levels?.map(([price, size, orders]) => `${price}x${size}/${orders}`) ?? 'none')
      .join(' | ')
  }

  const bitfinex = [
    { event: 'conf', status: 'OK', flags: 229_376 },
    { event: 'subscribed', channel: 'book', chanId: 7, symbol: 'tBTCUSD', prec: 'R0' },
    [
      7,
      [
        [1, 100, 0.1],
        [2, 100, 0.2],
        [3, 101, -1]
      ],
      1,
      9
    ]
  ]

  test('of Bitfinex takes each number once', () => {
    const truth = makeTruth('bitfinex', 'BTCUSD', 400)
    expect(shown(truth, bitfinex)).toBe('100x0.3/2 | 101x1/1')
    const [added, gone] = [
      [7, [4, 99, 1], 2, 9],
      [7, [4, 0, 1], 3, 9]
    ]
    expect(shown(truth, [added, gone, added, [7, 'hb', 4, 9]])).toBe('100x0.3/2 | 101x1/1')
    expect(shown(truth, [{ event: 'unsubscribed', status: 'OK', chanId: 7 }])).toBe('none | none')
  })

  test('of Bitfinex ends at a hole, whatever channel it is on', () => {
    const truth = makeTruth('bitfinex', 'BTCUSD', 400)
    shown(truth, bitfinex)
    expect(shown(truth, [[8, 'hb', 3, 9]])).toBe('none | none')
  })

  const okx = (action: string, prevSeqId: number, seqId: number, size: string) => ({
    arg: { channel: 'books', instId: 'BTC-USDT' },
    action,
    data: [{ asks: [], bids: [['5', size, '0', '1']], prevSeqId, seqId }]
  })

  test('of OKX ends at a hole, follows numbers down, and begins with an image', () => {
    const truth = makeTruth('okx', 'BTC-USDT', 400)
    expect(shown(truth, [okx('snapshot', -1, 10, '1'), okx('update', 10, 15, '2')])).toBe('5x2/1 | ')
    expect(shown(truth, [okx('update', 15, 15, '2'), okx('update', 15, 3, '4')])).toBe('5x4/1 | ')
    expect(shown(truth, [okx('update', 15, 3, '9'), okx('update', 4, 5, '6')])).toBe('none | none')
    expect(shown(truth, [okx('snapshot', -1, 5, '7')])).toBe('5x7/1 | ')
  })

  test('takes the image of its own instrument alone, and none that is too old', () => {
    const truth = makeTruth('okx', 'BTC-USDT', 400)
    const image = (seqId: number) => JSON.stringify({ data: [{ bids: [['5', '1', '0', '1']], asks: [], seqId }] })
    shown(truth, [okx('update', 10, 15, '2'), okx('update', 15, 20, '3')])
    truth.image?.(image(15), '/api/v5/market/books?instId=ETH-USDT')
    truth.image?.(image(9), '/api/v5/market/books?instId=BTC-USDT')
    expect(shown(truth, [])).toBe('none | none')
    truth.image?.(image(15), '/api/v5/market/books?instId=BTC-USDT')
    expect(shown(truth, [])).toBe('5x3/1 | ')
  })

  test('of Kraken is as deep as its subscription', () => {
    const truth = makeTruth('kraken', 'BTC/USD', 400)
    const result = { channel: 'book', depth: 2, symbol: 'BTC/USD' }
    const book = (type: string, bids: [price: number, qty: number][]) => ({
      channel: 'book',
      type,
      data: [{ symbol: 'BTC/USD', bids: bids.map(([price, qty]) => ({ price, qty })), asks: [] }]
    })
    shown(truth, [
      { method: 'subscribe', success: true, result },
      book('snapshot', [
        [9, 1],
        [8, 1]
      ])
    ])
    expect(shown(truth, [book('update', [[10, 1]]), book('update', [[10, 0]])])).toBe('9x1/null | ')
  })

  test('of Bitstamp shows no order that would cross it', () => {
    const truth = makeTruth('bitstamp', 'btcusd', 400)
    const channel = 'live_orders_btcusd'
    const moment = Date.UTC(2026, 10, 20) * 1000
    const id = (at: number) => `${(moment + 5000).toString(16).padStart(16, '0')}${String(at).padStart(16, '0')}`
    const event = (name: string, at: number, order: string, type: 0 | 1, price: string, amount: string) => ({
      event: `order_${name}`,
      channel,
      event_id: id(at),
      pre_event_id: id(at - 1),
      data: {
        id_str: order,
        order_type: type,
        price_str: price,
        amount_str: amount,
        microtimestamp: `${moment + 5000}`
      }
    })
    shown(truth, [{ event: 'bts:subscription_succeeded', channel, data: {} }])
    const rows = { bids: [['99', '1', '1']], asks: [['100', '1', '2']] }
    truth.image?.(JSON.stringify({ microtimestamp: String(moment + 5001), ...rows }))
    expect(shown(truth, [event('created', 2, '3', 0, '100', '3')])).toBe('99x1/1 | 100x1/1')
    expect(shown(truth, [event('deleted', 3, '2', 1, '100', '0')])).toBe('99x1/1 | ')
    expect(shown(truth, [event('changed', 4, '3', 0, '100', '2')])).toBe('100x2/1,99x1/1 | ')
  })
})

describe('numbers', () => {
  test('are read and written exactly', () => {
    for (const text of ['0', '1', '-1.5', '79421', '0.00000001', '26.755973959140651643']) {
      expect(plainOf(unitsOf(text))).toBe(text)
    }
    expect(plainOf(unitsOf('9.121E-7'))).toBe('0.0000009121')
    expect(plainOf(unitsOf('1e-8') + unitsOf('0.10'))).toBe('0.10000001')
    expect(plainOf(unitsOf('1.20e3'))).toBe('1200')
    expect(() => unitsOf('1,5')).toThrow('not a number')
    expect(() => unitsOf('1e-31')).toThrow('too fine')
  })
})
