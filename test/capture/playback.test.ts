import { describe, expect, it } from 'vitest'
import { Engine, STATE_VERSION } from '../../src/capture/engine.ts'
import { type FrameLine, Playback, readFrameLine } from '../../src/capture/playback.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { FeedKind, Level } from '../../src/core/instrument.ts'
import { hourOf } from '../../src/core/time.ts'
import { bitfinex } from '../../src/exchanges/bitfinex.ts'
import type { Exchange } from '../../src/exchanges/exchange.ts'
import { okx } from '../../src/exchanges/okx.ts'
import { Journal } from '../../src/wire/journal.ts'
import { CONFIG, described, MemorySink, RecordedRequests, type Wire } from '../helpers/driver.ts'
import { ASKS, BIDS, BitfinexPeer, OkxPeer, ORDERS } from '../helpers/peers.ts'

const HOUR_11 = Date.UTC(2026, 10, 20, 11) * 1000
const SECOND = 1_000_000

/** A journal with its engine; the frames feed is kept in memory, connection by connection. */
class Desk implements Wire {
  readonly sink = new MemorySink()
  readonly requests = new RecordedRequests()
  readonly frames = new Map<string, string[]>()
  readonly engine: Engine
  readonly journal: Journal
  us: number
  full = false

  constructor(exchange: Exchange, startUs: number, config: EngineConfig) {
    this.us = startUs
    this.journal = new Journal(
      {
        exchange,
        run: 'run-1',
        config,
        secrets: [],
        now: () => {
          this.us += 13
          return this.us
        },
        frames: name => {
          const lines = this.frames.get(name) ?? []
          this.frames.set(name, lines)
          return {
            append: (_, line) => void lines.push(line),
            appendAround: (_, before, frame, after) => void lines.push(before + frame + after)
          }
        },
        isFull: () => this.full
      },
      this.requests
    )
    this.engine = new Engine(exchange, this.sink, this.journal)
    this.journal.attach(this.engine)
  }

  get sent(): readonly { connection: string; text: string }[] {
    return this.requests.sent
  }

  in(connection: string, text: string): void {
    this.journal.in(connection, Buffer.from(text), false)
  }

  /** Moves to a moment, with a tick every two seconds; what happens in between is the caller's. */
  until(us: number, each: () => void = () => undefined): void {
    while (this.us < us) {
      this.us = Math.min(us, this.us + 2 * SECOND)
      this.journal.tick()
      each()
    }
  }
}

/** One far end, whatever the exchange. */
interface Script {
  answer(): void
  image(): void
  /** A change of the book; the n-th one. */
  change(n: number): void
  trade(id: number): void
  /** Loses a frame, and says the next one. */
  gap(): void
  notice(): void
  /** The far end keeps quiet markets alive. */
  beat(): void
}

interface Setup {
  readonly exchange: Exchange
  readonly level: Level
  readonly instIds: readonly [string, string]
  script(desk: Desk, name: string): Script
}

const SETUPS: Record<string, Setup> = {
  bitfinex: {
    exchange: bitfinex,
    level: 'l3',
    instIds: ['BTCUSD', 'BTCF0:USTF0'],
    script(desk, name) {
      const peer = new BitfinexPeer(desk, name, desk.sent.length)
      const symbols = ['tBTCUSD', 'tBTCF0:USTF0']
      return {
        answer: () => peer.answer(),
        image: () => {
          for (const symbol of symbols) peer.image(ORDERS, symbol)
        },
        change: n => {
          peer.order([100 + (n % 7), String(79_400 + (n % 5)), n % 3 === 0 ? '1e-7' : `0.${n + 1}`])
          peer.order([100 + (n % 7), n % 2 === 0 ? '0' : '79430', '-1'], symbols[1])
        },
        trade: id => {
          peer.trade('te', id, '-0.5', '79420')
          peer.trade('tu', id, '-0.5', '79420')
        },
        gap: () => {
          peer.sequence++
          peer.beat()
        },
        notice: () => peer.event({ event: 'info', code: 20051, msg: 'stopping' }),
        beat: () => {
          for (const symbol of symbols) {
            peer.beat('book', symbol)
            peer.beat('trades', symbol)
          }
        }
      }
    }
  },
  okx: {
    exchange: okx,
    level: 'l2',
    instIds: ['BTC-USDT', 'BTC-USDT-SWAP'],
    script(desk, name) {
      const peer = new OkxPeer(desk, name, desk.sent.length)
      const names = ['BTC-USDT', 'BTC-USDT-SWAP']
      return {
        answer: () => peer.answer(),
        image: () => {
          for (const instId of names) peer.image(BIDS, ASKS, instId, (peer.numbers.get(instId) ?? 1000) + 50)
        },
        change: n => {
          for (const instId of names)
            peer.update([[String(62_000 + (n % 5)), n % 3 === 0 ? '0' : `1.${n}`, String(n % 4)]], [], instId)
        },
        trade: id => void peer.trade(String(id), 'sell', '62010', '0.5'),
        gap: () => {
          peer.next([], [])
          peer.update([['1', '1', '1']], [])
        },
        notice: () => peer.event({ event: 'notice', code: '64008', msg: 'The connection will soon be closed.' }),
        beat: () => {
          for (const instId of names) peer.update([], [], instId, 0)
        }
      }
    }
  }
}

/**
 * Two hours and a bit: a gap that lasts over the end of the first hour, a change of connection that lasts over the end
 * of the second, an overload, an outage, trades that come twice.
 */
function live(setup: Setup): Desk {
  const desk = new Desk(setup.exchange, HOUR_11 - 20 * SECOND, { ...CONFIG, cadenceMs: 2000 })
  const instruments = described(setup.exchange, setup.instIds, setup.level)
  const feeds: FeedKind[] = ['book', 'trades']
  const url = 'ws://127.0.0.1/'
  const first = setup.script(desk, 'x-1')
  desk.journal.open('x-1', url, instruments, feeds, null)
  first.answer()
  first.image()
  let n = 0
  const market = (script: Script) => () => {
    script.change(n++)
    if (n % 3 === 0) script.trade(5000 + n)
    if (n % 5 === 0) script.beat()
    script.answer()
  }
  desk.until(HOUR_11 - 6 * SECOND, market(first))
  // Lost before the hour; the acknowledgement and the image come after it.
  first.gap()
  desk.until(HOUR_11 + 3 * SECOND)
  first.answer()
  first.image()
  desk.until(HOUR_11 + 600 * SECOND, market(first))
  desk.full = true
  first.change(n++)
  first.change(n++)
  desk.full = false
  desk.journal.tick()
  // Bitfinex counts on: the first frame after the overload shows the hole.
  first.beat()
  first.answer()
  first.image()
  desk.until(HOUR_11 + 1200 * SECOND, market(first))
  desk.journal.close('x-1', 'lost', 1006, 'gone')
  desk.until(HOUR_11 + 1210 * SECOND)
  const again = setup.script(desk, 'x-1')
  desk.journal.open('x-1', url, instruments, feeds, null)
  again.answer()
  again.image()
  desk.until(HOUR_11 + 3594 * SECOND, market(again))
  again.notice()
  desk.until(HOUR_11 + 3597 * SECOND, market(again))
  const second = setup.script(desk, 'x-2')
  desk.journal.open('x-2', url, instruments, feeds, 'x-1')
  desk.until(HOUR_11 + 3603 * SECOND, market(again))
  second.answer()
  second.image()
  again.trade(77_777)
  second.trade(77_777)
  market(again)()
  expect(desk.requests.leaves).toEqual(['x-1'])
  desk.journal.close('x-1', 'replaced', 1000, 'replaced')
  desk.until(HOUR_11 + 3630 * SECOND, market(second))
  desk.journal.close('x-2', 'stopped', 1000, 'stopped')
  return desk
}

/** The lines of all connections, in the order in which a rebuild takes them. */
function merged(desk: Desk, wanted: (us: number) => boolean): FrameLine[] {
  return [...desk.frames.values()]
    .flat()
    .map(line => readFrameLine(line.slice(0, -1))!)
    .filter(line => wanted(line.us))
    .sort((a, b) => a.us - b.us || Number(b.dir === 'state') - Number(a.dir === 'state'))
}

function replay(setup: Setup, lines: readonly FrameLine[]): { sink: MemorySink; unused: number } {
  const sink = new MemorySink()
  const playback = new Playback(setup.exchange, sink)
  for (const line of lines) playback.play(line)
  return { sink, unused: playback.unused }
}

/** What of a sink belongs to the hours, status left out: it tells of more than frames. */
function derived(sink: MemorySink, wanted: (us: number) => boolean): string {
  const some = new MemorySink()
  some.lines.push(...sink.lines.filter(line => line.feed !== 'status' && wanted(line.us)))
  return some.text()
}

describe.each(Object.entries(SETUPS))('%s', (_, setup) => {
  const desk = live(setup)
  const everything = () => true

  it('the story has all that it should have', () => {
    const count = (event: string) => desk.sink.statuses(event, setup.instIds[0]).length
    const gaps = desk.sink.statuses('gap', setup.instIds[0]).map(row => row.detail as { reason?: string })
    expect(gaps.filter(({ reason }) => reason === undefined)).toMatchObject([{ channel: 'trades', cause: 'overload' }])
    expect(gaps.flatMap(({ reason }) => reason ?? [])).toEqual(['sequence', 'overload', 'disconnect'])
    expect(count('synced')).toBe(5)
    expect(desk.sink.statuses('stalled')).toEqual([])
    const trades = desk.sink.records('trades', setup.instIds[0]).map(row => row.trade_id)
    expect(new Set(trades).size).toBe(trades.length)
    expect(trades).toContain('77777')
    expect(desk.sink.lines.filter(({ feed }) => feed.startsWith('l')).length).toBeGreaterThan(4000)
    for (const lines of desk.frames.values()) for (const line of lines) expect(() => JSON.parse(line)).not.toThrow()
  })

  it('the frames of a connection count up, and hours open with a state', () => {
    for (const lines of desk.frames.values()) {
      const cut = lines.map(line => readFrameLine(line.slice(0, -1))!)
      expect(cut.map(({ frame }) => frame)).toEqual(cut.map((_, at) => at + 1))
      for (const [at, line] of cut.entries()) {
        if (at > 0 && hourOf(line.us) !== hourOf(cut[at - 1]!.us)) expect(line.dir).toBe('state')
      }
    }
  })

  it('the whole story gives the same lines, status too', () => {
    const { sink, unused } = replay(setup, merged(desk, everything))
    expect(unused).toBe(0)
    expect(sink.text() === desk.sink.text()).toBe(true)
  })

  it.each([-1, 0, 1])('the hour %i from its own frames alone gives its own lines', offset => {
    const hour = hourOf(HOUR_11) + offset
    const wanted = (us: number) => hourOf(us) === hour
    const { sink, unused } = replay(setup, merged(desk, wanted))
    expect(unused).toBe(0)
    const expected = derived(desk.sink, wanted)
    expect(expected.length).toBeGreaterThan(1000)
    expect(derived(sink, everything)).toBe(expected)
  })

  it('every hour of events opens with clear and a full image, when the book is whole', () => {
    const feed = setup.level === 'l3' ? 'l3_events' : 'l2_updates'
    for (const instId of setup.instIds) {
      const rows = desk.sink.records(feed, instId).filter(row => hourOf(Number(row.recv_us)) === hourOf(HOUR_11) + 1)
      expect(rows.slice(0, 2)).toMatchObject([
        { event_type: 'clear', metadata: { reason: 'hour' } },
        { event_type: 'snapshot' }
      ])
    }
  })

  it('a state line holds all that the engine knows', () => {
    const states = merged(desk, us => hourOf(us) > hourOf(HOUR_11)).filter(({ dir }) => dir === 'state')
    expect(states.map(({ conn }) => conn).sort()).toEqual(['x-1', 'x-2'])
    const engine = new Engine(setup.exchange, new MemorySink(), new RecordedRequests())
    for (const { us, conn, frame, text } of states) {
      const { state } = JSON.parse(text)
      expect(state.v).toBe(STATE_VERSION)
      engine.hour(us, conn, frame, state)
      expect(JSON.parse(JSON.stringify(engine.connectionState(conn)))).toEqual(state.connection)
      expect(engine.subjectStates(described(setup.exchange, setup.instIds, setup.level))).toEqual(state.subjects)
    }
  })

  it('lines of another version, or of a connection that was never opened, are counted', () => {
    const lines = merged(desk, us => hourOf(us) > hourOf(HOUR_11))
    const old = lines.map(line => ({ ...line, text: line.text.replace(`{"v":${STATE_VERSION},`, '{"v":999,') }))
    const { sink, unused } = replay(setup, old)
    expect(unused).toBe(lines.length)
    expect(sink.lines).toEqual([])
  })
})

describe('readFrameLine', () => {
  it.each([
    '',
    '{}',
    '{"recv_us":"x"}',
    '{"recv_us":1,"conn":"a","frame":1}',
    '{"recv_us":1e99,"conn":"a","frame":1,"dir":"in"}'
  ])('%j is none', text => {
    expect(readFrameLine(text)).toBeUndefined()
  })

  it('cuts a line', () => {
    expect(readFrameLine('{"recv_us":17,"conn":"a-1","frame":3,"dir":"in","msg":[]}')).toMatchObject({
      us: 17,
      conn: 'a-1',
      frame: 3,
      dir: 'in'
    })
  })
})
