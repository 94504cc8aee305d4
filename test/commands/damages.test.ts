import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { runCheck } from '../../src/commands/check-run.ts'
import { isoMs } from '../../src/core/time.ts'
import type { Finding, RuleId } from '../../src/quality/finding.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { placeOf } from '../../src/vault/streams.ts'
import { ensureBuilt } from '../helpers/vault.ts'

/** The capture begins so long before the end of an hour, and goes on for so long after it. */
const BEFORE_MS = 5500
const DURATION = '9s'
const HOUR_MS = 3_600_000
/** The hours lie so long in the past that they may be compressed, and not so long that they have to be. */
const AGE_HOURS = 2
const EXCHANGES = [
  { exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] },
  { exchange: 'okx', symbols: ['BTC-USDT', 'ETH-USDT'] },
  { exchange: 'binance', symbols: ['BTCUSDT', 'ETHUSDT'] },
  { exchange: 'coinbase', symbols: ['BTC-USD', 'ETH-USD'] },
  { exchange: 'bitstamp', symbols: ['btcusd'] }
]
/** Its hours are compressed. */
const COMPRESSED = 'bitstamp'

const LASTING_LINES = 100

let folder: string
let vault: string
let nowMs: number
/** The second hour, counted from the epoch. */
let lastHour: number
let copies = 0

/** The simulators count by the clock that no step of the wall clock changes. */
const SIMULATED_CLOCK = `data:text/javascript,${encodeURIComponent(
  "Object.defineProperty(performance, 'timeOrigin', { value: performance.timeOrigin + Number(process.env.CLOCK_SHIFT_MS) })"
)}`

/** One file of the vault: `hour` is 0 or 1. */
type Place = readonly [exchange: string, feed: string, name: string, hour: 0 | 1]

type Holds = (line: string, n: number, lines: readonly string[]) => boolean

/** Changes the lines of a file, and says which line (from 1) a finding must name. */
type Spoil = (lines: string[]) => number

interface Damage {
  readonly what: string
  readonly place: Place
  /** By any of these rules. */
  readonly rules: readonly RuleId[]
  /** How the lines are changed, or what is done to the plain path of the hour or the compressed one. */
  readonly spoil?: Spoil
  readonly file?: (plain: string, gz: string) => Told
}

/** The line that is to be named, null where none can be, undefined where any may be; and the file, where it is another. */
interface Told {
  readonly line: number | null | undefined
  readonly path?: string
}

/** The line at a share of the file, or the first one behind it for which something holds; counted from 0. */
function at(lines: readonly string[], share: number, holds: Holds = () => true): number {
  const start = Math.floor(lines.length * share)
  const found = lines.findIndex((line, n) => n >= start && holds(line, n, lines))
  expect(found, 'a line to spoil').toBeGreaterThanOrEqual(0)
  return found
}

/** Replaces a line by what is made of it. */
function change(share: number, make: (line: string) => string, holds?: Holds): Spoil {
  return lines => {
    const n = at(lines, share, holds)
    const made = make(lines[n]!)
    expect(made, 'the line is another').not.toBe(lines[n])
    lines[n] = made
    return n + 1
  }
}

const remove =
  (share: number, holds?: Holds): Spoil =>
  lines => {
    const n = at(lines, share, holds)
    lines.splice(n, 1)
    return n + 1
  }

const double =
  (share: number, holds?: Holds): Spoil =>
  lines => {
    const n = at(lines, share, holds)
    lines.splice(n, 0, lines[n]!)
    return n + 2
  }

const swap =
  (share: number, holds: (line: string) => boolean = () => true): Spoil =>
  lines => {
    const n = lines.findIndex((line, k) => k >= lines.length * share && holds(line) && holds(lines[k + 1] ?? ''))
    const [a, b] = [lines[n]!, lines[n + 1]!]
    lines.splice(n, 2, b, a)
    return n + 1
  }

/** Adds to the receive time of a line, in both keys. */
const shiftTime =
  (us: number) =>
  (line: string): string => {
    const recvUs = Number(/"recv_us":(\d+)/.exec(line)![1])
    const moved = line.replace(`"recv_us":${recvUs}`, `"recv_us":${recvUs + us}`)
    return moved.replace(/"timestamp_utc":"[^"]*"/, `"timestamp_utc":"${isoMs(recvUs + us)}"`)
  }

/** Another last digit of the number or text that follows. */
const digit =
  (before: RegExp) =>
  (line: string): string => {
    const end = line.search(before) + before.exec(line)![0].length
    const number = /^[\d.]*\d/.exec(line.slice(end))![0]
    const last = Number(number.at(-1))
    return `${line.slice(0, end)}${number.slice(0, -1)}${last === 9 ? 1 : last + 1}${line.slice(end + number.length)}`
  }

/** A frame that puts an order into the book, where it stays for a while. */
const isLasting = (line: string, n: number, lines: readonly string[]) => {
  const id = /"msg":\[\d+,\[(\d{6,}),[1-9]/.exec(line)?.[1]
  return id !== undefined && !lines.slice(n + 1, n + LASTING_LINES).some(each => each.includes(id))
}
const bitfinexFrames: Place = ['bitfinex', 'frames', 'bitfinex-1', 0]
const shots = (n: 0 | 1): Place => ['bitfinex', 'l3_spot', n === 0 ? 'BTCUSD' : 'ETHUSD', 0]

const DAMAGES: readonly Damage[] = [
  { what: 'a frame removed', place: bitfinexFrames, rules: ['frame_missing'], spoil: remove(0.3) },
  { what: 'a frame doubled', place: bitfinexFrames, rules: ['frame_order'], spoil: double(0.4) },
  { what: 'two frames swapped', place: bitfinexFrames, rules: ['frame_order'], spoil: swap(0.5) },
  {
    what: 'a frame that is no JSON',
    place: bitfinexFrames,
    rules: ['bad_json'],
    spoil: change(
      0.6,
      line => line.replace('"msg":[', '"msg":[['),
      line => line.includes('"msg":[')
    )
  },
  {
    what: 'a frame cut in the middle',
    place: bitfinexFrames,
    rules: ['bad_json', 'torn_line'],
    spoil: change(0.65, line => line.slice(0, line.length / 2))
  },
  {
    what: 'a frame without its number',
    place: bitfinexFrames,
    rules: ['bad_record'],
    spoil: change(0.7, line => line.replace(/"frame":\d+,/, ''))
  },
  {
    what: 'the time of a frame run back',
    place: bitfinexFrames,
    rules: ['time_back'],
    spoil: change(0.75, shiftTime(-1_500_000))
  },
  {
    what: 'a frame of another hour',
    place: bitfinexFrames,
    rules: ['wrong_hour'],
    spoil: change(0.8, shiftTime(-3_600_000_000))
  },
  {
    what: 'a digit of a price in a frame',
    place: ['bitfinex', 'frames', 'bitfinex-1', 1],
    rules: ['not_rebuilt', 'checksum_mismatch'],
    spoil: change(0.3, digit(/"msg":\[\d+,\[\d+,/), isLasting)
  },
  {
    what: 'the opening state removed',
    place: ['coinbase', 'frames', 'coinbase-1', 1],
    rules: ['hour_start'],
    spoil: remove(0)
  },
  {
    what: 'an update removed',
    place: ['okx', 'l2_updates', 'BTC-USDT', 0],
    rules: ['sequence_break', 'not_rebuilt'],
    spoil: remove(0.5)
  },
  {
    what: 'the number of an update changed',
    place: ['okx', 'l2_updates', 'BTC-USDT', 1],
    rules: ['sequence_break', 'not_rebuilt'],
    spoil: change(0.5, digit(/"seqId":/))
  },
  {
    what: 'a digit of a size in an update',
    place: ['okx', 'l2_updates', 'ETH-USDT', 0],
    rules: ['not_rebuilt', 'book_differs'],
    spoil: change(0.5, digit(/"(?:bids|asks)":\[\["[\d.]+","/), line =>
      /"(?:bids|asks)":\[\["[\d.]+","\d*[1-9]/.test(line)
    )
  },
  {
    what: 'the updates of an hour missing',
    place: ['okx', 'l2_updates', 'ETH-USDT', 1],
    rules: ['missing_feed'],
    file: path => {
      rmSync(path)
      return { line: null }
    }
  },
  {
    what: 'an update doubled',
    place: ['binance', 'l2_updates', 'BTCUSDT', 0],
    rules: ['duplicate_line', 'sequence_break', 'not_rebuilt'],
    spoil: double(0.5)
  },
  {
    what: 'two updates swapped',
    place: ['binance', 'l2_updates', 'BTCUSDT', 1],
    rules: ['sequence_break', 'time_back', 'not_rebuilt'],
    spoil: swap(0.5)
  },
  {
    what: 'an update that is no JSON',
    place: ['binance', 'l2_updates', 'ETHUSDT', 0],
    rules: ['bad_json', 'torn_line'],
    spoil: change(0.5, line => line.replace('"bids":[', '"bids":[[['))
  },
  {
    what: 'half a line at the end',
    place: ['binance', 'l2_updates', 'ETHUSDT', 1],
    rules: ['torn_line'],
    file: path => {
      const text = readFileSync(path, 'utf8')
      writeFileSync(path, `${text}{"timestamp_utc":"20`)
      return { line: text.split('\n').length }
    }
  },
  {
    what: 'an event removed',
    place: ['coinbase', 'l3_events', 'BTC-USD', 0],
    rules: ['not_rebuilt', 'sequence_break', 'unknown_order', 'missing_event', 'book_differs'],
    spoil: remove(0.9, line => line.includes('"event_type":"open"'))
  },
  {
    what: 'the size of an event changed',
    place: ['coinbase', 'l3_events', 'ETH-USD', 0],
    rules: ['not_rebuilt', 'book_differs'],
    spoil: change(0.9, digit(/"size":"/), line => line.includes('"event_type":"open"'))
  },
  { what: 'best_bid changed', place: shots(0), rules: ['wrong_best'], spoil: change(0.3, digit(/"best_bid":"/)) },
  { what: 'mid_price changed', place: shots(0), rules: ['wrong_mid'], spoil: change(0.5, digit(/"mid_price":"/)) },
  {
    what: 'a sum changed',
    place: shots(0),
    rules: ['wrong_stats', 'snapshot_differs'],
    spoil: change(0.7, digit(/"total_bid_volume":"/))
  },
  {
    what: 'levels unsorted',
    place: shots(1),
    rules: ['unsorted_levels'],
    spoil: change(0.2, line => line.replace(/("bids_top400":\[)(\[[^\]]*\]),(\[[^\]]*\])/, '$1$3,$2'))
  },
  {
    what: 'snapshots removed',
    place: shots(1),
    rules: ['missing_slot', 'not_rebuilt'],
    spoil: lines => {
      const n = at(lines, 0.4)
      lines.splice(n, 2)
      return n + 1
    }
  },
  { what: 'a snapshot doubled', place: shots(1), rules: ['duplicate_snapshot', 'not_rebuilt'], spoil: double(0.7) },
  {
    what: 'a crossed book',
    place: ['bitfinex', 'l3_spot', 'BTCUSD', 1],
    rules: ['crossed_book', 'snapshot_differs', 'wrong_best', 'not_rebuilt', 'unsorted_levels'],
    spoil: change(0.1, line => line.replace(/("asks_top400":\[\[")\d/, '$10'))
  },
  {
    what: 'synced_at changed',
    place: ['binance', 'l2_spot', 'BTCUSDT', 0],
    rules: ['wrong_synced_at', 'unflagged_gap'],
    spoil: change(0.3, digit(/"synced_at":"[^"]*\./))
  },
  {
    what: 'a trade removed',
    place: ['okx', 'trades', 'BTC-USDT', 0],
    rules: ['not_rebuilt'],
    spoil: remove(0.5, line => !line.includes('backfill'))
  },
  { what: 'a trade doubled', place: ['okx', 'trades', 'BTC-USDT', 1], rules: ['duplicate_trade'], spoil: double(0.5) },
  {
    what: 'the price of a trade changed',
    place: ['okx', 'trades', 'ETH-USDT', 0],
    rules: ['not_rebuilt'],
    spoil: change(0.5, digit(/"price":"/))
  },
  {
    what: 'two trades swapped',
    place: ['binance', 'trades', 'BTCUSDT', 1],
    rules: ['time_back', 'not_rebuilt'],
    spoil: swap(0.5)
  },
  {
    what: 'an exchange time that is far away',
    place: ['coinbase', 'trades', 'BTC-USD', 1],
    rules: ['far_exchange_time', 'not_rebuilt'],
    spoil: change(
      0.5,
      line => line.replace(/"exchange_time":"\d{4}/, '"exchange_time":"2021'),
      line => !line.includes('backfill')
    )
  },
  {
    what: 'a key of a trade removed',
    place: ['coinbase', 'trades', 'ETH-USD', 0],
    rules: ['bad_record'],
    spoil: change(0.5, line => line.replace(/"side":"[^"]*",/, ''))
  },
  {
    what: 'a status removed',
    place: ['coinbase', 'status', 'BTC-USD', 0],
    rules: ['missing_status', 'not_rebuilt'],
    spoil: remove(0, line => line.includes('"event":"synced"'))
  },
  {
    what: 'a compressed file cut',
    place: ['bitstamp', 'trades', 'btcusd', 0],
    rules: ['damaged_file'],
    file: (_, gz) => {
      const bytes = readFileSync(gz)
      writeFileSync(gz, bytes.subarray(0, bytes.length - 9))
      return { line: undefined, path: gz }
    }
  },
  {
    what: 'an hour both plain and compressed',
    place: ['bitstamp', 'trades', 'btcusd', 1],
    rules: ['doubled_hour'],
    file: (path, gz) => {
      writeFileSync(path, gunzipSync(readFileSync(gz)))
      return { line: 1 }
    }
  },
  {
    what: 'a bit of a compressed file flipped',
    place: ['bitstamp', 'l3_events', 'btcusd', 1],
    rules: ['damaged_file'],
    file: (_, gz) => {
      const bytes = readFileSync(gz)
      bytes[bytes.length >> 1]! ^= 16
      writeFileSync(gz, bytes)
      return { line: undefined, path: gz }
    }
  },
  {
    what: 'the leftover of a compression',
    place: ['okx', 'trades', 'ETH-USDT', 1],
    rules: ['leftover'],
    file: (_, gz) => {
      writeFileSync(`${gz}.tmp`, 'x')
      return { line: null, path: `${gz}.tmp` }
    }
  },
  {
    what: 'an hour that is due for retention',
    place: ['binance', 'trades', 'ETHUSDT', 0],
    rules: ['retention_due'],
    file: path => {
      const line = readFileSync(path, 'utf8').split('\n')[0]!
      const moved = shiftTime(-10 * HOUR_MS * 1000)(line).replace(/"exchange_time":"[^"]*"/, '"exchange_time":null')
      return otherHour(path, -10, `${moved}\n`)
    }
  },
  {
    what: 'an hour that has not begun',
    place: ['binance', 'trades', 'ETHUSDT', 1],
    rules: ['future_hour'],
    file: path => otherHour(path, 9, '')
  },
  {
    what: 'an empty file',
    place: ['binance', 'trades', 'ETHUSDT', 0],
    rules: ['empty_file'],
    file: path => otherHour(path, -1, '')
  }
]

/** Writes the file of another hour of a stream: `hours` from the one of a path. */
function otherHour(path: string, hours: number, text: string): Told {
  const stream = dirname(dirname(path))
  const moment = new Date(
    Date.parse(`${path.slice(-19, -9)}T${path.slice(-8, -6)}:00:00Z`) + hours * HOUR_MS
  ).toISOString()
  const other = join(stream, moment.slice(0, 10), `${moment.slice(11, 13)}.jsonl`)
  mkdirSync(dirname(other), { recursive: true })
  writeFileSync(other, text)
  return { line: null, path: other }
}

/** The errors and warnings of a deep check; that this machine was too busy for a snapshot is no damage. */
async function found(copy: string, exchanges: readonly string[]): Promise<Finding[]> {
  const report = await runCheck({ vault: copy, exchanges, names: [], deep: true, jobs: 1, nowMs })
  return report.findings.filter(({ severity, rule }) => severity !== 'info' && rule !== 'late_tick')
}

/** Does one damage to a copy; the file that a finding must name, relative to the vault, and the line. */
function spoil(copy: string, { place, spoil: make, file }: Damage): { file: string; line: number | null | undefined } {
  const [exchange, feed, name, hour] = place
  const plain = hourPath(copy, exchange, feed, name, lastHour - 1 + hour)
  const gz = `${plain}.gz`
  if (make === undefined) {
    const { line, path = plain } = file!(plain, gz)
    return { file: placeOf(copy, path), line }
  }
  const path = existsSync(gz) ? gz : plain
  const lines = (path === gz ? gunzipSync(readFileSync(gz)) : readFileSync(plain)).toString().split('\n')
  const end = lines.pop()!
  const line = make(lines)
  const text = `${lines.join('\n')}\n${end}`
  writeFileSync(path, path === gz ? gzipSync(text) : text)
  return { file: placeOf(copy, path), line }
}

/** A copy of the vault, or of one exchange in it. */
function copyVault(exchange = ''): string {
  const copy = join(folder, `copy-${++copies}`)
  cpSync(join(vault, 'raw', exchange), join(copy, 'raw', exchange), { recursive: true })
  return copy
}

const describe = ({ rule, severity, file, line, message }: Finding) => ({ rule, severity, file, line, message })

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-damages-'))
  vault = join(folder, 'vault')
  const config = join(folder, 'config.json')
  writeFileSync(config, JSON.stringify({ exchanges: EXCHANGES }))
  const realMs = Date.now()
  lastHour = Math.floor(realMs / HOUR_MS) - AGE_HOURS
  const env = { ...process.env, CLOCK_SHIFT_MS: String(lastHour * HOUR_MS - BEFORE_MS - realMs) }
  const clock = ['--import', resolve('test/faults/shifted-clock.js'), '--import', SIMULATED_CLOCK]
  const where = ['--vault', vault, '--log-dir', join(folder, 'logs')]
  const run = ['run', '--simulate', '--config', config, ...where, '--cadence', '250ms', '--duration', DURATION]
  execFileSync(process.execPath, [...clock, 'bin/l3cap.js', ...run], { env, stdio: 'pipe' })
  execFileSync(process.execPath, [
    'bin/l3cap.js',
    'retention',
    '--vault',
    vault,
    '--exchange',
    COMPRESSED,
    '--compress-after',
    '30m'
  ])
  nowMs = realMs
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

it('finds nothing in a vault that was not touched', async () => {
  expect((await found(vault, [])).map(describe)).toEqual([])
}, 30_000)

/** A block of lines that was written twice. */
const repeat =
  (share: number, count: number): Spoil =>
  lines => {
    const n = at(lines, share)
    lines.splice(n + count, 0, ...lines.slice(n, n + count))
    return n + count + 1
  }

const okxStatus: Place = ['okx', 'status', 'BTC-USDT', 0]

/** Each takes effect beyond its line, and would hide others. */
const WIDE_DAMAGES: readonly Damage[] = [
  {
    what: 'a frame that the engine cannot read any more',
    place: ['okx', 'frames', 'okx-1', 0],
    rules: ['not_rebuilt'],
    spoil: change(
      0.5,
      line => line.replace(/"prevSeqId":\d+/, '"prevSeqId":null'),
      line => line.includes('"action":"update"')
    )
  },
  { what: 'a block of frames twice', place: bitfinexFrames, rules: ['frame_order'], spoil: repeat(0.5, 9) },
  {
    what: 'the last frame removed',
    place: ['bitfinex', 'frames', 'bitfinex-1', 1],
    rules: ['frame_missing'],
    spoil: lines => {
      lines.pop()
      return lines.length + 1
    }
  },
  {
    what: 'a block of updates twice',
    place: ['okx', 'l2_updates', 'BTC-USDT', 0],
    rules: ['time_back'],
    spoil: repeat(0.4, 9)
  },
  {
    what: 'a block of trades twice',
    place: ['coinbase', 'trades', 'BTC-USD', 0],
    rules: ['time_back'],
    spoil: repeat(0.4, 5)
  },
  {
    what: 'an event cut',
    place: ['bitfinex', 'l3_events', 'BTCUSD', 0],
    rules: ['torn_line'],
    spoil: change(0.6, line => line.slice(0, line.length / 2))
  },
  { what: 'started removed', place: okxStatus, rules: ['missing_status'], spoil: remove(0) },
  { what: 'a status doubled', place: okxStatus, rules: ['duplicate_line'], spoil: double(0.5) },
  { what: 'two statuses swapped', place: okxStatus, rules: ['time_back'], spoil: swap(0.2) },
  {
    what: 'a status cut',
    place: okxStatus,
    rules: ['torn_line'],
    spoil: change(0.5, line => line.slice(0, line.length / 2))
  },
  { what: 'a blank behind a status', place: okxStatus, rules: ['bad_json'], spoil: change(0.5, line => `${line} `) }
]

it.each([...DAMAGES, ...WIDE_DAMAGES].map(each => [each.what, each] as const))(
  'finds %s, and nothing else',
  async (_, damage) => {
    const copy = copyVault()
    const told = spoil(copy, damage)
    const findings = await found(copy, [damage.place[0]])
    rmSync(copy, { recursive: true })
    expect(findings.map(describe)).toEqual([expect.objectContaining({ file: told.file })])
    const [{ rule, line }] = findings as [Finding]
    expect(damage.rules, JSON.stringify(findings)).toContain(rule)
    if (told.line !== undefined) expect(line, JSON.stringify(findings)).toBe(told.line)
  },
  30_000
)

it('finds all of them at once, and nothing else', async () => {
  const copy = copyVault()
  // In the order of the lines of a file, so that none moves that was changed before.
  const told = DAMAGES.map(damage => ({ ...spoil(copy, damage), rules: damage.rules, what: damage.what }))
  const findings = await found(copy, [])
  const missed: string[] = []
  for (const { file, line, rules, what } of told) {
    const n = findings.findIndex(
      each => each.file === file && rules.includes(each.rule) && (line === undefined || each.line === line)
    )
    if (n >= 0) findings.splice(n, 1)
    else missed.push(`${what}: ${file}:${line}`)
  }
  expect({ missed, others: findings.map(describe) }).toEqual({ missed: [], others: [] })
}, 60_000)
