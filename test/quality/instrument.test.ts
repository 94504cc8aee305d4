import { afterEach, describe, expect, it, vi } from 'vitest'
import { middle } from '../../src/core/decimal.ts'
import { HOUR_US, hourOf, isoMs } from '../../src/core/time.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import type { Finding, RuleId } from '../../src/quality/finding.ts'
import { recvUsOf } from '../../src/vault/streams.ts'
import { VirtualCapture } from '../faults/virtual.ts'
import { MemorySink, type Row, START_US, type SunkLine } from '../helpers/driver.ts'
import { filesOf, type HourLines, judge } from './judging.ts'

const CADENCE_MS = 30_000
const STEP_MS = 10_000
const RUN = '0f8fad5b-d9cb-469f-a165-70867728950e'
const SYMBOLS = {
  bitfinex: 'BTCUSD',
  bitstamp: 'btcusd',
  coinbase: 'BTC-USD',
  kraken: 'BTC/USD',
  okx: 'BTC-USDT-SWAP',
  binance: 'BTCUSDT',
  huobi: 'btcusdt'
} as const
type Id = keyof typeof SYMBOLS
const IDS = Object.keys(SYMBOLS) as Id[]

const TIMES = /"timestamp_utc":"[^"]*","recv_us":\d+/
const timesOf = (us: number) => `"timestamp_utc":"${isoMs(us)}","recv_us":${us}`
const atStart = timesOf(START_US)
const atNoon = timesOf(START_US + 2 * HOUR_US)

/** The line that ends the first frame of several events behind the image. */
function lastOfFrame(lines: readonly string[]): number {
  const isLast = (line: string) => line.includes('"last":true') && !line.includes('"snapshot"')
  return lines.findIndex((line, at) => isLast(line) && lines[at - 1]!.includes('"last":false')) + 1
}

/** Opens an order of the image again. */
function orderTwice(lines: string[]): number {
  const at = lines.findIndex(line => line.includes('"event_type":"open"'))
  const id = /"order_id":"[^"]*"/.exec(lines[9]!)![0]
  lines[at] = lines[at]!.replace(/"order_id":"[^"]*"/, id)
  return at + 1
}

interface Captured {
  readonly exchange: string
  readonly name: string
  readonly files: HourLines[]
}

/** A capture of one instrument in virtual time, from 10:15 to a bit after 11:00, with what goes wrong on the way. */
function capture(exchange: Id, meddle: (capture: VirtualCapture, step: number) => void = () => undefined): Captured {
  const lines: SunkLine[] = []
  vi.spyOn(MemorySink.prototype, 'stream').mockImplementation(function (this: MemorySink, feed, name) {
    return {
      append: (us, text) => {
        lines.push({ feed, name, us, text })
        this.lines.push({ feed, name, us, text })
      }
    }
  })
  const instId = SYMBOLS[exchange]
  const level = EXCHANGES[exchange]!.levels[0]!
  const virtual = new VirtualCapture({
    simulator: { exchange, eventsPerSecond: 2 },
    selection: { level, market: null, channel: null, updateSpeed: null },
    instIds: [instId],
    config: { cadenceMs: CADENCE_MS, depth: 40 }
  })
  try {
    const { engine } = virtual.driver
    const subject = engine.subjects.get(instId)!
    // What the program writes, the engine does not.
    const begin = lines.length
    subject.status(START_US, 'started', { run: RUN, pid: 1, frames: true })
    lines.unshift(...lines.splice(begin))
    for (let step = 0; step < (50 * 60_000) / STEP_MS; step++) {
      meddle(virtual, step)
      const { us } = virtual.driver
      const nextUs = us + STEP_MS * 1000
      // The first line of an hour brings the whole book.
      if (hourOf(nextUs) > hourOf(us))
        for (const name of connectionsOf(lines)) engine.hour(hourOf(nextUs) * HOUR_US, name, 1_000_000)
      virtual.pass(STEP_MS / 1000, STEP_MS)
    }
    subject.status(virtual.driver.us, 'stopped', { run: RUN, reason: 'duration' })
    const name = instId.replace(/[^A-Za-z0-9._-]/g, '-')
    const own = lines.map(line => ({ ...line, name: name }))
    return { exchange, name, files: filesOf(own, exchange, name) }
  } finally {
    virtual.close()
  }
}

function connectionsOf(lines: readonly SunkLine[]): string[] {
  const details = lines
    .filter(({ feed }) => feed === 'status')
    .map(({ text }) => (JSON.parse(text) as Row).detail as Row)
  return [...new Set(details.map(({ conn }) => conn).filter(conn => conn !== undefined))] as string[]
}

function found({ exchange, name, files }: Captured): Finding[] {
  return judge(files, { exchange, name })
}

afterEach(() => void vi.restoreAllMocks())

describe('a clean capture over an hour change', () => {
  for (const exchange of IDS) {
    it(`of ${exchange} gives no finding`, () => {
      const captured = capture(exchange)
      // Four feeds, two hours each.
      expect(captured.files.length).toBe(8)
      expect(found(captured)).toEqual([])
    })
  }
})

/** Where the tests break something: the file of a feed in the first hour (0) or the second; `shots` and `events` whatever the level. */
function fileOf({ files }: Captured, feed: string, hour = 0): HourLines {
  const kinds: Record<string, RegExp> = { shots: /^l[23]_(?:spot|perps)$/, events: /^l3_events$|^l2_updates$/ }
  return files.filter(file => kinds[feed]?.test(file.feed) ?? file.feed === feed)[hour]!
}

/** The number of the n-th line (the first: 0) that has a text. */
function lineWith(lines: readonly string[], text: string, nth = 0): number {
  return lines.flatMap((line, at) => (line.includes(text) ? [at + 1] : [])).at(nth)!
}

/** Changes one line and gives its number. */
function edit(line: number | ((lines: string[]) => number), from: string | RegExp, to: string) {
  return (lines: string[]): number => {
    const number = typeof line === 'number' ? line : line(lines)
    const before = lines[number - 1]!
    lines[number - 1] = before.replace(from, to)
    expect(lines[number - 1], `line ${number}`).not.toBe(before)
    return number
  }
}

/** Removes one line and gives the number of the one that is there instead. */
function drop(line: number | ((lines: string[]) => number)) {
  return (lines: string[]): number => {
    const number = typeof line === 'number' ? line : line(lines)
    lines.splice(number - 1, 1)
    return number
  }
}

/** Writes one line a second time and gives the number of the second one. */
function double(line: number | ((lines: string[]) => number)) {
  return (lines: string[]): number => {
    const number = typeof line === 'number' ? line : line(lines)
    lines.splice(number, 0, lines[number - 1]!)
    return number + 1
  }
}

/** Puts a line behind the next one, and gives the number of the first of the two. */
function swap(line: number) {
  return (lines: string[]): number => {
    lines.splice(line - 1, 2, lines[line]!, lines[line - 1]!)
    return line
  }
}

/** Makes the best bid of a snapshot better than its best ask, and all else fit that. */
function cross(lines: string[]): number {
  const record = JSON.parse(lines[SHOT - 1]!) as {
    best_ask: string
    best_bid: string
    bids_top40: string[][]
    mid_price: string
  }
  record.best_bid = record.bids_top40[0]![0] = `9${record.best_bid}`
  record.mid_price = middle(record.best_bid, record.best_ask)
  lines[SHOT - 1] = JSON.stringify(record)
  return SHOT
}

const nth = (text: string, n: number) => (lines: string[]) => lineWith(lines, text, n)

interface Damage {
  readonly what: string
  readonly exchange: Id
  /** What is broken, and where it must be found. */
  readonly feed: string
  readonly hour?: number
  readonly rule: RuleId
  /** Breaks the lines and gives the number of the line that must be named. */
  readonly harm: (lines: string[]) => number
}

const SHOT = 40

const DAMAGES: readonly Damage[] = [
  ...damages('bitfinex', 'shots', [
    ['a line that is cut', 'torn_line', edit(SHOT, /.{20}$/, '')],
    ['a digit of a size', 'snapshot_differs', edit(SHOT, /("bids_top40":\[\["\d+",")/, '$19')],
    ['levels out of order', 'unsorted_levels', edit(SHOT, /("asks_top40":\[\[.*?\]),(\[.*?\]),(\[.*?\])/, '$1,$3,$2')],
    ['a wrong best bid', 'wrong_best', edit(SHOT, /"best_bid":"\d/, '"best_bid":"5')],
    ['a seqId that is too high', 'wrong_number', edit(SHOT, '"seqId":', '"seqId":9')],
    ['another synced_at', 'wrong_synced_at', edit(SHOT, '"synced_at":"2026', '"synced_at":"2025')],
    ['a flag where nothing was lost', 'wrong_flag', edit(SHOT, '"gap_detected":false', '"gap_detected":true')],
    ['a number of frames as text', 'bad_record', edit(SHOT, /"frame":(\d+)/, '"frame":"$1"')]
  ]),
  ...damages('okx', 'shots', [
    ['keys in another order', 'bad_record', edit(SHOT, /("best_bid":"[^"]*"),("best_ask":"[^"]*")/, '$2,$1')],
    ['another market', 'bad_record', edit(SHOT, '"market":"perp"', '"market":"spot"')],
    ['a digit of a size', 'snapshot_differs', edit(SHOT, /("asks_top40":\[\["[\d.]+",")/, '$19')],
    ['a level twice', 'unsorted_levels', edit(SHOT, /"bids_top40":\[(\[.*?\]),\[.*?\],/, '"bids_top40":[$1,$1,')],
    ['a level of nothing', 'unsorted_levels', edit(SHOT, /("bids_top40":\[\["[\d.]+"),"[\d.]+"/, '$1,"0.0"')],
    ['a wrong mid price', 'wrong_mid', edit(SHOT, '"mid_price":"', '"mid_price":"5')],
    ['a book that crosses', 'crossed_book', lines => cross(lines)],
    ['a wrong seqId', 'wrong_number', edit(SHOT, '"seqId":', '"seqId":1')],
    ['a wrong prevSeqId', 'wrong_number', edit(SHOT, '"prevSeqId":', '"prevSeqId":1')],
    ['a line twice', 'duplicate_snapshot', double(SHOT)],
    ['a line that is gone', 'missing_slot', drop(SHOT)],
    ['two lines out of order', 'time_back', swap(SHOT)]
  ]),
  ...damages('coinbase', 'shots', [
    ['a wrong sum', 'wrong_stats', edit(SHOT, '"total_bid_volume":"', '"total_bid_volume":"9')],
    ['a seqId that is too low', 'wrong_number', edit(SHOT, /"seqId":\d+/, '"seqId":1')],
    ['a wrong count', 'wrong_stats', edit(SHOT, '"bid_count":', '"bid_count":9')]
  ]),
  ...damages('bitstamp', 'shots', [['a wrong spread', 'wrong_stats', edit(SHOT, '"spread":"', '"spread":"9')]]),
  ...damages('bitfinex', 'events', [
    ['NUL bytes', 'torn_line', edit(nth('"change"', 9), '"price":"', '"price":"\0\0')],
    ['a key that is missing', 'bad_record', edit(nth('"done"', 9), /"sequence":\d+,/, '')],
    ['another instrument', 'bad_record', edit(5, '"BTCUSD"', '"ETHUSD"')],
    ['a line twice', 'duplicate_line', double(nth('"open"', 9))],
    ['a wrong size of a done', 'wrong_order', edit(nth('"done"', 9), /"size":"/, '"size":"9')],
    ['an order that is not in the book', 'unknown_order', edit(nth('"done"', 9), '"order_id":"', '"order_id":"9')],
    ['a number that runs back', 'sequence_break', edit(nth('"open"', 9), /"sequence":\d+/, '"sequence":1')],
    ['a time that runs back', 'time_back', edit(nth('"open"', 90), TIMES, atStart)]
  ]),
  ...damages('kraken', 'events', [
    ['two times in one line', 'time_mismatch', edit(nth('"open"', 9), /\.\d\d\dZ/, '.999Z')],
    ['the last line of a frame that is gone', 'missing_event', drop(lines => lastOfFrame(lines))]
  ]),
  ...damages('coinbase', 'events', [
    ['a match of too much', 'wrong_order', edit(nth('"event_type":"match"', 3), '"size":"', '"size":"9')],
    ['an order twice', 'known_order', lines => orderTwice(lines)]
  ]),
  ...damages('okx', 'events', [
    ['a key too many', 'bad_record', edit(99, '"metadata":{}', '"metadata":{},"x":1')],
    ['a line that is gone', 'sequence_break', drop(99)],
    ['a price', 'book_differs', edit(nth('"bids":[["', 99), /"bids":\[\["/, '"bids":[["9')],
    ['an update in the place of an image', 'missing_event', drop(2)]
  ]),
  ...damages('huobi', 'events', [['a line that is gone', 'sequence_break', drop(99)]]),
  ...damages('binance', 'events', [['a line twice', 'duplicate_line', double(99)]]),
  ...damages('bitfinex', 'trades', [['a comma too many', 'bad_json', edit(9, ',"conn"', ',,"conn"')]]),
  ...damages('kraken', 'trades', [
    ['a line twice', 'duplicate_trade', double(20)],
    ['a trade of nothing', 'wrong_trade', edit(20, /"size":"[^"]+"/, '"size":"0.00"')],
    ['a side that is none', 'bad_record', edit(20, /"side":"\w+"/, '"side":"ask"')],
    [
      'a time of the exchange far away',
      'far_exchange_time',
      edit(20, '"exchange_time":"2026', '"exchange_time":"2024')
    ],
    ['a line of another hour', 'wrong_hour', edit(20, TIMES, atNoon)]
  ]),
  ...damages('bitfinex', 'status', [
    ['an event that nobody knows', 'bad_record', edit(2, '"connected"', '"conected"')],
    ['a synced that is gone', 'missing_status', drop(nth('"synced"', 0))],
    [
      'a connected that is gone',
      'missing_status',
      lines => drop(nth('"connected"', 0))(lines) && lineWith(lines, '"synced"')
    ]
  ]),
  ...damages('bitfinex', 'events', [['no clear', 'hour_image', drop(1)]], 1),
  ...damages('bitstamp', 'events', [['another size', 'hour_image', edit(20, '"size":"', '"size":"9')]], 1),
  ...damages(
    'kraken',
    'events',
    [['an order that is gone', 'hour_image', lines => drop(20)(lines) && nth('"snapshot"', -1)(lines)]],
    1
  ),
  ...damages('okx', 'events', [['another size', 'hour_image', edit(2, /("bids":\[\["[\d.]+",")/, '$19')]], 1),
  ...damages('okx', 'events', [['no image', 'hour_image', lines => drop(1)(lines) && drop(1)(lines)]], 1)
]

function damages(
  exchange: Id,
  feed: string,
  list: readonly (readonly [what: string, rule: RuleId, harm: Damage['harm']])[],
  hour = 0
): Damage[] {
  return list.map(([what, rule, harm]) => ({ what, rule, harm, exchange, feed, hour }))
}

describe('one damage gives one finding, at its place', () => {
  const clean = new Map<Id, Captured>()

  for (const { what, exchange, feed, hour = 0, rule, harm } of DAMAGES) {
    it(`${exchange}, ${hour === 0 ? '' : 'the next hour of '}${feed}: ${what}`, () => {
      const base = clean.get(exchange) ?? capture(exchange)
      clean.set(exchange, base)
      const captured = { ...base, files: base.files.map(file => ({ ...file, lines: [...file.lines] })) }
      const broken = fileOf(captured, feed, hour)
      const line = harm(broken.lines)
      const findings = found(captured).map(({ rule, file, line }) => ({ rule, file, line }))
      expect(findings).toEqual([{ rule, file: broken.file, line }])
    })
  }
})

/** One update of the book is lost on its way. */
const loseOne = (virtual: VirtualCapture, step: number): void => {
  if (step !== 120) return
  let lost = false
  virtual.hear = text => {
    if (lost || !UPDATES.test(text)) return text
    lost = true
    return undefined
  }
}
const UPDATES = /^\[\d+,\[\d|"action":"update"|"depthUpdate"|"tick":\{"seqNum"/

describe('a loss that is marked', () => {
  const withGap = new Map<Id, Captured>()
  const captured = (exchange: Id): Captured => {
    const base = withGap.get(exchange) ?? capture(exchange, loseOne)
    withGap.set(exchange, base)
    return { ...base, files: base.files.map(file => ({ ...file, lines: [...file.lines] })) }
  }

  for (const exchange of ['bitfinex', 'okx', 'binance', 'huobi'] as const) {
    it(`of ${exchange} is no finding`, () => {
      const files = captured(exchange)
      expect(fileOf(files, 'shots').lines.some(line => line.includes('"gap_detected":true'))).toBe(true)
      expect(found(files)).toEqual([])
    })

    const broken: readonly (readonly [what: string, feed: string, rule: RuleId, harm: Damage['harm']])[] = [
      [
        'a flag that is gone',
        'shots',
        'unflagged_gap',
        edit(nth('"gap_detected":true', 0), '_detected":true', '_detected":false')
      ],
      ['a flagged snapshot that is gone', 'shots', 'unflagged_gap', drop(nth('"gap_detected":true', 0))],
      [
        'a flagged snapshot of another book',
        'shots',
        'snapshot_differs',
        edit(nth('"gap_detected":true', 0), /(_top40":\[\["[\d.]+",")/, '$19')
      ],
      ['a gap event that is gone', 'events', 'missing_event', drop(nth('"event_type":"gap"', 0))],
      ['a clear that is gone', 'events', 'missing_event', drop(nth('"event_type":"clear"', 1))],
      ['a gap that status lacks', 'status', 'missing_status', drop(nth('"event":"gap"', 0))],
      ['a synced that status lacks', 'status', 'missing_status', drop(nth('"event":"synced"', 1))]
    ]
    for (const [what, feed, rule, harm] of broken) {
      it(`of ${exchange}: ${what}`, () => {
        const files = captured(exchange)
        const file = fileOf(files, feed)
        const line = harm(file.lines)
        const findings = found(files).map(({ rule, file, line }) => ({ rule, file, line }))
        expect(findings).toEqual([{ rule, file: file.file, line }])
      })
    }
  }
})

describe('a process that ends without a word', () => {
  /** All that was written up to a moment; of the events a second less reached the disk. */
  const cut = (base: Captured, us: number): HourLines[] =>
    base.files
      .map(file => {
        const endUs = file.feed.endsWith('_events') || file.feed.endsWith('_updates') ? us - 1_000_000 : us
        return { ...file, lines: file.lines.filter(line => recvUsOf(line) < endUs) }
      })
      .filter(({ lines }) => lines.length > 0)

  for (const exchange of ['bitfinex', 'okx'] as const) {
    it(`is told, and nothing that it did not come to write: ${exchange}`, () => {
      const base = capture(exchange)
      const shots = fileOf(base, 'shots').lines
      // A moment after a snapshot that shows more than the events which reached the disk.
      const us = recvUsOf(shots[SHOT]!) + 1
      const files = cut(base, us)
      const status = fileOf({ ...base, files }, 'status')
      const line = status.lines.push(status.lines[0]!.replace(TIMES, timesOf(us + 60_000_000)))
      const findings = judge(files, { exchange, name: base.name }).map(({ rule, file, line }) => ({ rule, file, line }))
      expect(findings).toEqual([{ rule: 'killed', file: status.file, line }])
    })

    it(`in the middle of a loss is no fault of the feeds that lack it: ${exchange}`, () => {
      const base = capture(exchange, loseOne)
      const status = fileOf(base, 'status')
      const us = recvUsOf(status.lines[lineWith(status.lines, '"event":"gap"') - 1]!) + 1
      const files = cut(base, us)
      const { lines } = fileOf({ ...base, files }, 'status')
      lines.push(status.lines[0]!.replace(TIMES, timesOf(us + 60_000_000)))
      expect(judge(files, { exchange, name: base.name }).map(({ rule }) => rule)).toEqual(['killed'])
    })

    it(`is told when nothing came for long: ${exchange}`, () => {
      const base = capture(exchange)
      const us = recvUsOf(fileOf(base, 'shots').lines[SHOT]!) + 1
      const judged = (endUs: number) =>
        judge(cut(base, us), { exchange, name: base.name, endUs }).map(({ rule }) => rule)
      expect(judged(us + 10_000_000)).toEqual([])
      expect(judged(us + 600_000_000)).toEqual(['unended'])
    })
  }
})

describe('a snapshot that is missing', () => {
  const base = (): Captured => {
    const captured = capture('okx')
    drop(SHOT)(fileOf(captured, 'shots').lines)
    return captured
  }
  const rulesOf = (captured: Captured, ticks: readonly number[]): string[] =>
    judge(captured.files, { exchange: 'okx', name: captured.name, ticks }).map(({ rule }) => rule)

  it('is the fault of a busy process where no tick fell into its slot', () => {
    const captured = base()
    const times = fileOf(captured, 'shots').lines.map(recvUsOf)
    expect(rulesOf(captured, times)).toEqual(['late_tick'])
    expect(
      rulesOf(
        captured,
        [...times, times[SHOT - 1]! - CADENCE_MS * 1000].sort((a, b) => a - b)
      )
    ).toEqual(['missing_slot'])
  })

  it('is not asked for while the writer is paused or the clock is set', () => {
    for (const event of ['clock_step', 'writer_paused']) {
      const captured = base()
      const { lines } = fileOf(captured, 'status')
      const us = recvUsOf(fileOf(captured, 'shots').lines[SHOT - 2]!) + 1
      const detail = event === 'clock_step' ? '{"step_ms":30000}' : '{"reason":"the disk does not answer"}'
      const at = lines.findIndex(line => recvUsOf(line) > us)
      const tail = `"event":"${event}","detail":${detail}}`
      lines.splice(at < 0 ? lines.length : at, 0, lines[0]!.replace(TIMES, timesOf(us)).replace(/"event":.*$/, tail))
      expect(rulesOf(captured, [])).toEqual([])
    }
  })
})
