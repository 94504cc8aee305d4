import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type BookAt, bookAt, openVault, type Vault } from '../../src/l3cap.ts'
import { randomFaults } from '../../src/simulator/faults.ts'
import { createRandom } from '../../src/simulator/random.ts'
import type { SentFrame } from '../../src/simulator/simulator.ts'
import { live, nowMs, onStage, type Stage, type StageExchange, until } from '../faults/harness.ts'
import type { SentConnection } from '../faults/oracle.ts'
import { makeTruth, type TrueLevel, type Truth, unitsOf } from '../faults/truth.ts'
import type { Row } from '../helpers/driver.ts'
import { recordsOf } from '../helpers/vault.ts'

const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 7)
/** A frame that was withheld or lost for so long is missing, and not merely late. */
const LATE_MS = 1000
const MOMENTS = 20

/** Kinds of faults that this exchange can prove, or that lose nothing. */
const FAULTS = {
  bitfinex: ['drop', 'duplicate', 'reorder', 'mute', 'close'],
  okx: ['drop', 'duplicate', 'reorder', 'mute', 'close'],
  coinbase: ['duplicate', 'close'],
  binance: ['drop', 'duplicate', 'close'],
  huobi: ['drop', 'duplicate', 'close'],
  kraken: ['duplicate', 'close'],
  bitstamp: ['duplicate', 'close']
} as const

const EXCHANGES: readonly StageExchange[] = [
  { exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] },
  { exchange: 'okx', symbols: ['BTC-USDT-SWAP'], options: { okxChecksums: true } },
  { exchange: 'coinbase', symbols: ['BTC-USD'], entry: { level: 'l2' } },
  { exchange: 'kraken', symbols: ['BTC/USD'] },
  { exchange: 'binance', symbols: ['BTCUSDT'] },
  { exchange: 'huobi', symbols: ['btcusdt'] },
  { exchange: 'bitstamp', symbols: ['btcusd'] }
]

/** What the vault has of one connection, what was sent on it, and the true book of an instrument on it. */
class Session {
  readonly conn: string
  readonly lines: Row[] = []
  /** Frames word for word where `lines` has an `in` or `http`. */
  readonly texts: string[] = []
  sent: readonly SentFrame[] = []
  private truth: Truth | null = null
  private line = 0
  private place = 0

  constructor(conn: string) {
    this.conn = conn
  }

  /** The true book at a moment; a later one may be asked for next. */
  at(atUs: number, make: () => Truth): Truth {
    this.truth ??= make()
    for (; this.line < this.lines.length && Number(this.lines[this.line]!.recv_us) <= atUs; this.line++) {
      const { dir, url } = this.lines[this.line]!
      const text = this.texts[this.line]!
      if (dir === 'http') this.truth.image?.(text, String(url))
      while (dir === 'in') {
        const next = this.sent[this.place++]!
        this.truth.apply(next.text)
        if (next.sent && next.text === text) break
      }
    }
    return this.truth
  }

  /** Whether a change of the book that nobody has heard of was made before a moment, after all that `at` has read. */
  misses(beforeMs: number, make: () => Truth): boolean {
    const received = this.texts.filter((_, n) => this.lines[n]!.dir === 'in').length
    let sentCount = this.sent.slice(0, this.place).filter(({ sent }) => sent).length
    const lost = this.sent.slice(this.place).filter(({ sent, atMs }) => {
      if (sent) sentCount++
      return (!sent || sentCount > received) && atMs < beforeMs
    })
    // Only a truth that has heard the subscription knows what is data of its book.
    const truth = make()
    for (const { text } of lost.length > 0 ? this.sent.slice(0, this.place) : []) truth.apply(text)
    return lost.some(({ text }) => truth.apply(text))
  }
}

/** The sessions of an exchange, each with what the simulator sent and withheld on it. */
function sessionsOf(stage: Stage, exchange: string): Session[] {
  const vault = openVault(stage.vault)
  const sessions: Session[] = []
  for (const { paths, name } of vault.hours({ exchange, feed: 'frames' })) {
    for (const line of paths.flatMap(path => readFileSync(path, 'utf8').split('\n').filter(Boolean))) {
      const row = JSON.parse(line) as Row
      if (row.dir === 'open') sessions.push(new Session(name))
      const at = line.indexOf(',"msg":')
      const session = sessions.findLast(({ conn }) => conn === name)!
      session.lines.push(row)
      session.texts.push(at < 0 ? String(row.text ?? '') : line.slice(at + 7, -1))
    }
  }
  const free = new Set(stage.sources.find(source => source.exchange === exchange)!.connections)
  for (const session of sessions) {
    const received = session.texts.filter((_, n) => session.lines[n]!.dir === 'in')
    const found = [...free].find(({ frames }) => {
      const sent = frames.filter(frame => frame.sent)
      return received.length > 0 && received.every((text, n) => sent[n]?.text === text)
    })
    if (found === undefined) continue
    free.delete(found)
    session.sent = found.frames
  }
  return sessions
}

function differs(book: BookAt['book'], truth: Truth): string | undefined {
  for (const isAsk of [false, true]) {
    const have = JSON.parse(book.top(isAsk, 400)) as string[][]
    const want = truth.top(isAsk, 400)
    if (want === null) return 'there is no true book'
    const isSame = ([price, size, , orders]: string[], level: TrueLevel | undefined) =>
      level !== undefined &&
      unitsOf(price!) === unitsOf(level[0]) &&
      unitsOf(size!) === unitsOf(level[1]) &&
      orders === level[2]
    const at = have.findIndex((level, n) => !isSame(level, want[n]))
    if (at >= 0) return `level ${at} of ${isAsk ? 'asks' : 'bids'}: ${have[at]} instead of ${want[at]}`
    if (have.length !== want.length) return `${have.length} levels instead of ${want.length}`
  }
  return undefined
}

/** Whether two snapshots around a moment say that nothing was missed between them. */
function isCovered(shots: readonly Row[], atUs: number): boolean {
  const after = shots.findIndex(({ recv_us }) => Number(recv_us) >= atUs)
  const [left, right] = [shots[after - 1], shots[after]]
  return left !== undefined && right !== undefined && left.synced_at === right.synced_at && !right.gap_detected
}

/** Moments of every kind, in order: at random, and next to whatever happened. */
function momentsOf(vault: string, exchange: string, name: string, seed: number): number[] {
  const random = createRandom(seed)
  const statuses = recordsOf(vault, exchange, 'status', name)
  const times = statuses.map(({ recv_us }) => Number(recv_us))
  const [first, last] = [Math.min(...times), Math.max(...times)]
  const span = last - first
  const anywhere = Array.from({ length: MOMENTS }, () => first - 200_000 + random.integer(span + 400_000))
  const marked = statuses.filter(({ event }) => ['gap', 'synced', 'started', 'stopped'].includes(String(event)))
  const marks = marked.flatMap(({ recv_us }) => [-1, -20_000].map(by => Number(recv_us) + by))
  return [...anywhere, ...marks].sort((a, b) => a - b)
}

interface Tally {
  readonly wrong: string[]
  readonly undue: string[]
  trusted: number
  untrusted: Record<string, number>
}

async function judge(stage: Stage, vault: Vault, exchange: string, instId: string, shiftMs: number, tally: Tally) {
  const name = instId.replace(/[^A-Za-z0-9._-]/g, '-')
  const sessions = sessionsOf(stage, exchange)
  const shots: Row[] = []
  for await (const shot of vault.readSnapshots({ exchange, symbol: name })) shots.push(shot as unknown as Row)
  for (const atUs of momentsOf(stage.vault, exchange, name, SEED + tally.trusted)) {
    const state = await bookAt(vault, { exchange, symbol: name, at: atUs })
    const about = `${exchange} ${instId} at ${atUs}`
    if (state.reason !== null) {
      const { kind, toUs, message } = state.reason
      tally.untrusted[kind] = (tally.untrusted[kind] ?? 0) + 1
      // What is found later to have been lost is distrusted from the last event on, whatever was believed then.
      const isHindsight = kind === 'gap' && toUs !== null && state.reason.fromUs === state.eventUs
      if (isCovered(shots, atUs) && !isHindsight && kind !== 'checksum') tally.undue.push(`${about}: ${message}`)
      continue
    }
    tally.trusted++
    const session = sessions.findLast(
      ({ conn, lines }) => conn === state.conn && Number(lines[0]!.recv_us) <= state.eventUs!
    )!
    const make = () => makeTruth(exchange, instId, 400)
    const different = differs(state.book, session.at(atUs, make))
    const isLate = session.misses(atUs / 1000 - shiftMs - LATE_MS, make)
    const found = isLate ? 'changes are missing' : different
    if (found !== undefined) tally.wrong.push(`${about}: ${found}`)
  }
}

/** Lets faults happen on the wire of every exchange for some milliseconds from now on. */
function trouble(stage: Stage, ms: number, isMuting: boolean): void {
  for (const [n, { exchange, symbols }] of EXCHANGES.entries()) {
    const kinds = FAULTS[exchange].filter(kind => isMuting || kind !== 'mute')
    const faults = randomFaults(stage.random.integer(1e6), 3, ms, symbols, kinds)
    for (const fault of faults) stage.simulators[n]!.inject({ ...fault, ...(fault.ms ? { ms: 1500 } : {}) })
  }
}

/** Whether the frames that were withheld on a connection lie back so far that the next ones have shown it. */
function isLongPast({ frames }: SentConnection): boolean {
  const lost = frames.findLast(({ sent }) => !sent)
  return lost === undefined || lost.atMs < nowMs() - 1000
}

test(`every book at a moment is the true one, or says that it may not be (seed ${SEED})`, { timeout: 120_000 }, () =>
  onStage({ seed: SEED, kind: 'book', exchanges: EXCHANGES, eventsPerSecond: 40 }, async stage => {
    const shiftMs = 3_600_000 - (Date.now() % 3_600_000) - 5000
    const words = ['--stale-after', '2s']
    const first = stage.start({ clockShiftMs: shiftMs, words })
    await first.heard()
    trouble(stage, 2500, true)
    await live(4000)
    await first.kill()
    const second = stage.start({ clockShiftMs: shiftMs, words })
    await second.heard(60)
    // A loss that nobody could notice before the end would look like a quiet market.
    trouble(stage, 1500, false)
    await live(1700)
    await until(
      () => stage.sources.every(({ connections }) => connections.every(isLongPast)),
      () => stage.about('frames are lost without end')
    )
    expect(await second.stop(), stage.about(second.output)).toBe(0)
    const vault = openVault(stage.vault)
    const tally: Tally = { wrong: [], undue: [], trusted: 0, untrusted: {} }
    for (const { exchange, symbols } of EXCHANGES)
      for (const instId of symbols) await judge(stage, vault, exchange, instId, shiftMs, tally)
    expect(tally.wrong, stage.about('false trust')).toEqual([])
    expect(tally.undue, stage.about('undue distrust')).toEqual([])
    expect(tally.trusted, stage.about('trusted')).toBeGreaterThan(60)
    expect(tally.untrusted).toMatchObject({
      gap: expect.any(Number),
      killed: expect.any(Number),
      no_image: expect.any(Number)
    })
  })
)
