/** A vault to read from: what it holds, and its records in order. */
import { statSync } from 'node:fs'
import { L3capError } from '../core/errors.ts'
import { FEEDS, LEVELS, type Level, MARKETS, type Market, snapshotFeed } from '../core/instrument.ts'
import type {
  EventRecord,
  FrameRecord,
  SnapshotRecord,
  StatusRecord,
  TradeRecord,
  UpdateRecord
} from '../core/records.ts'
import { HOUR_US, parseMoment } from '../core/time.ts'
import { type HourFilter, narrowFilter } from '../vault/layout.ts'
import { listStreams, type Range, recvUsOf, type Stream } from '../vault/streams.ts'
import { type Damage, type PlacedBatch, readStream } from './lines.ts'

/**
 * A moment: a `Date`, text as `parseMoment` reads it (ISO 8601 with up to microseconds, `2026-11-20 15:30`), or a number of
 * microseconds since the epoch, as in `recv_us`.
 */
export type Moment = Date | string | number

/** One instrument. */
export interface InstrumentQuery {
  /** May be left out where only one exchange of the vault has the symbol. */
  readonly exchange?: string | undefined
  /** The instrument in any common spelling: `BTCUSD`, `BTC/USD`, `tBTCUSD`. */
  readonly symbol: string
  /** Which of its books, where the vault has both; by default `l3`. */
  readonly level?: Level | undefined
}

/** A stretch of time: receive times from `from` up to, not including, `to`; what is left out is not limited. */
export interface TimeQuery {
  readonly from?: Moment | undefined
  readonly to?: Moment | undefined
}

/** Records of one instrument. */
export interface RecordQuery extends InstrumentQuery, TimeQuery {
  /** Told of each damaged line or file, which is passed over then. Without it the reading ends with an error. */
  readonly onDamage?: ((damage: Damage) => void) | undefined
}

/** Frames of one connection. */
export interface FrameQuery extends TimeQuery {
  readonly exchange?: string | undefined
  /** The name of the connection, as in `conn`. May be left out where there is one only. */
  readonly conn?: string | undefined
  readonly onDamage?: ((damage: Damage) => void) | undefined
}

/** Lines of any feeds; a missing key means all. */
export interface LineQuery extends TimeQuery {
  readonly exchange?: string | undefined
  /** An instrument in any common spelling, or a connection. */
  readonly symbol?: string | undefined
  readonly feed?: string | readonly string[] | undefined
  readonly onDamage?: ((damage: Damage) => void) | undefined
}

/** An instrument that a vault holds. */
export interface VaultInstrument {
  readonly exchange: string
  /** The folder name: the exchange's own name with `-` for what no file system takes (`BTC/USD` is `BTC-USD`). */
  readonly name: string
  readonly markets: readonly Market[]
  readonly levels: readonly Level[]
  readonly feeds: readonly string[]
  /** The start of its first hour and the end of its last one, µs. */
  readonly fromUs: number
  readonly toUs: number
}

/** A connection whose frames a vault holds. `fromUs` and `toUs` as those of an instrument. */
export interface VaultConnection {
  readonly exchange: string
  readonly name: string
  readonly fromUs: number
  readonly toUs: number
}

/** One hour of one stream. */
export interface VaultHour {
  readonly exchange: string
  readonly feed: string
  readonly name: string
  /** When the hour begins, µs. */
  readonly us: number
  /** Its files, to be read in this order. */
  readonly paths: readonly string[]
}

/** One line as it stands in the vault. */
export interface VaultLine {
  readonly text: string
  /** Receive time, µs; NaN where the line tells none. */
  readonly us: number
  /** Relative to the vault, with forward slashes. */
  readonly file: string
  /** From 1, in the uncompressed file. */
  readonly line: number
}

/**
 * Opens a vault for reading. Nothing is read yet, nothing is ever written; a capture may write it meanwhile.
 * @throws {L3capError} `VAULT` when there is no such directory
 */
export function openVault(path: string): Vault {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new L3capError('VAULT', `there is no vault at ${path}`)
  return new Vault(path)
}

/**
 * The book changes of an instrument, oldest first: records of `l3_events`, or of `l2_updates` where the vault has no order
 * events of it in that time (or `level` asks for them). Records are as they stand in the file, parsed and not checked.
 * @throws {L3capError} as `Vault.readEvents`
 */
export function readEvents(vault: Vault, query: RecordQuery): AsyncGenerator<EventRecord | UpdateRecord> {
  return vault.readEvents(query)
}

/**
 * A vault directory, see `openVault`. What reads throws `L3capError`: `USAGE` for a query that names nothing or too much,
 * `VAULT` when a file or directory cannot be read, `VAULT_DAMAGED` for damage that nobody wants to be told of.
 */
export class Vault {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  /** The instruments of the vault, by exchange and name. Reads directories only. */
  instruments(): VaultInstrument[] {
    const streams = listStreams(this.path, { feed: FEEDS.filter(feed => feed !== 'frames') })
    return groupsOf(streams, ({ exchange, name }) => `${exchange} ${name}`)
      .sort(([a], [b]) => (`${a!.exchange} ${a!.name}` < `${b!.exchange} ${b!.name}` ? -1 : 1))
      .map(group => {
        const { exchange, name } = group[0]!
        const feeds = group.map(({ feed }) => feed)
        const has = (level: Level, market: Market) => feeds.includes(snapshotFeed(level, market))
        return {
          exchange,
          name,
          markets: MARKETS.filter(market => LEVELS.some(level => has(level, market))),
          levels: LEVELS.filter(
            level => feeds.includes(eventFeed(level)) || MARKETS.some(market => has(level, market))
          ),
          feeds,
          ...spanOf(group)
        }
      })
  }

  /** The connections whose frames the vault holds. Reads directories only. */
  connections(): VaultConnection[] {
    const streams = listStreams(this.path, { feed: 'frames' })
    return streams.map(({ exchange, name, hours }) => ({ exchange, name, ...spanOf([{ hours }]) }))
  }

  /** The hours of all streams that a query means. Reads directories only. */
  hours(query: Omit<LineQuery, 'onDamage'> = {}): VaultHour[] {
    return this.streams(query).flatMap(({ exchange, feed, name, hours }) =>
      groupsOf(hours, ({ hour }) => hour).map(files => ({
        exchange,
        feed,
        name,
        us: files[0]!.hour * HOUR_US,
        paths: files.map(({ path }) => path)
      }))
    )
  }

  /** The lines of all streams that a query means, word for word, one stream after the other. */
  async *lines(query: LineQuery = {}): AsyncGenerator<VaultLine> {
    const range = rangeOf(query)
    for (const stream of this.streams(query)) {
      for await (const { lines, file, firstLine } of readStream(this.path, stream, range, query.onDamage ?? fail)) {
        for (let n = 0; n < lines.length; n++) {
          const text = lines[n]!
          yield { text, us: recvUsOf(text), file, line: firstLine + n }
        }
      }
    }
  }

  /** As the function `readEvents`. */
  async *readEvents(query: RecordQuery): AsyncGenerator<EventRecord | UpdateRecord> {
    yield* this.records<EventRecord | UpdateRecord>(
      query,
      LEVELS.map(level => [eventFeed(level)])
    )
  }

  /** The snapshots of an instrument, oldest first; those of orders where the vault has both, unless `level` says otherwise. */
  async *readSnapshots(query: RecordQuery): AsyncGenerator<SnapshotRecord> {
    yield* this.records<SnapshotRecord>(
      query,
      LEVELS.map(level => MARKETS.map(market => snapshotFeed(level, market)))
    )
  }

  /** The trades of an instrument in the order in which they were received. */
  async *readTrades(query: Omit<RecordQuery, 'level'>): AsyncGenerator<TradeRecord> {
    yield* this.records<TradeRecord>(query, [['trades']])
  }

  /** What happened to the capture of an instrument, oldest first. */
  async *readStatus(query: Omit<RecordQuery, 'level'>): AsyncGenerator<StatusRecord> {
    yield* this.records<StatusRecord>(query, [['status']])
  }

  /** The wire frames of a connection, parsed; `lines` with the feed `frames` has them word for word. */
  async *readFrames(query: FrameQuery): AsyncGenerator<FrameRecord> {
    const { exchange, conn, onDamage } = query
    const known = this.connections().filter(
      each => (exchange === undefined || each.exchange === exchange) && (conn === undefined || each.name === conn)
    )
    const { exchange: id, name } = theOnly(known, conn === undefined ? 'a connection' : `the connection ${conn}`)
    const streams = listStreams(this.path, { exchange: id, feed: 'frames', name }, rangeOf(query))
    for (const stream of streams) yield* this.parsed<FrameRecord>(stream, rangeOf(query), onDamage ?? fail)
  }

  /**
   * The instrument that a query means.
   * @throws {L3capError} `USAGE` when the vault has none of the name, or several
   */
  find({ exchange, symbol }: InstrumentQuery): { readonly exchange: string; readonly name: string } {
    const filter = this.filterOf(exchange, symbol)
    const streams = listStreams(this.path, { ...filter, feed: FEEDS.filter(feed => feed !== 'frames') })
    const found = new Map(streams.map(({ exchange: id, name }) => [`${id} ${name}`, { exchange: id, name }]))
    return theOnly([...found.values()], symbol)
  }

  private filterOf(exchange: string | undefined, symbol: string | undefined): HourFilter {
    const listOf = (text: string | undefined) => (text === undefined ? [] : [text])
    const { filter, mistakes } = narrowFilter(this.path, listOf(exchange), listOf(symbol))
    // They are worded for a command line.
    if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.map(text => text.replace(/^--/, '')).join('\n'))
    return filter
  }

  private streams({ exchange, symbol, feed, ...time }: Omit<LineQuery, 'onDamage'>): Stream[] {
    return listStreams(this.path, { ...this.filterOf(exchange, symbol), feed }, rangeOf(time))
  }

  /** Records of one choice of feeds: that of the level asked for, else the first that the vault has in that time. */
  private async *records<Record>(query: RecordQuery, choices: readonly (readonly string[])[]): AsyncGenerator<Record> {
    const range = rangeOf(query)
    const instrument = this.find(query)
    const wanted = query.level === undefined ? choices : choices.slice(LEVELS.indexOf(query.level)).slice(0, 1)
    const streams = wanted.map(feed => listStreams(this.path, { ...instrument, feed }, range))
    for (const stream of streams.find(each => each.length > 0) ?? [])
      yield* this.parsed<Record>(stream, range, query.onDamage ?? fail)
  }

  private async *parsed<Record>(
    stream: Stream,
    range: Range,
    onDamage: (damage: Damage) => void
  ): AsyncGenerator<Record> {
    for await (const batch of readStream(this.path, stream, range, onDamage)) {
      for (let n = 0; n < batch.lines.length; n++) {
        const record = parse<Record>(batch, n, onDamage)
        if (record !== undefined) yield record
      }
    }
  }
}

function parse<Record>(batch: PlacedBatch, n: number, onDamage: (damage: Damage) => void): Record | undefined {
  try {
    return JSON.parse(batch.lines[n]!) as Record
  } catch (error) {
    onDamage({ file: batch.file, line: batch.firstLine + n, message: 'the line is no JSON', cause: error })
    return undefined
  }
}

/** The feed of the book changes of a level. */
export function eventFeed(level: Level): string {
  return level === 'l3' ? 'l3_events' : 'l2_updates'
}

/**
 * A moment in µs.
 * @throws {L3capError} `USAGE` for text that names no moment
 */
export function microsOf(moment: Moment): number {
  const us =
    typeof moment === 'number' ? moment : typeof moment === 'string' ? parseMoment(moment) : moment.getTime() * 1000
  if (us === undefined || Number.isNaN(us)) throw new L3capError('USAGE', `${String(moment)} is no moment`)
  return us
}

function rangeOf({ from, to }: TimeQuery): Range {
  return {
    fromUs: from === undefined ? undefined : microsOf(from),
    toUs: to === undefined ? undefined : microsOf(to)
  }
}

function groupsOf<Item>(items: readonly Item[], keyOf: (item: Item) => string | number): Item[][] {
  const groups = new Map<string | number, Item[]>()
  for (const item of items) {
    const group = groups.get(keyOf(item)) ?? []
    group.push(item)
    groups.set(keyOf(item), group)
  }
  return [...groups.values()]
}

function spanOf(streams: readonly Pick<Stream, 'hours'>[]): { fromUs: number; toUs: number } {
  const hours = streams.flatMap(each => each.hours.map(({ hour }) => hour))
  const first = hours.reduce((low, hour) => Math.min(low, hour))
  const last = hours.reduce((high, hour) => Math.max(high, hour))
  return { fromUs: first * HOUR_US, toUs: (last + 1) * HOUR_US }
}

function theOnly<Item extends { exchange: string; name: string }>(items: readonly Item[], wanted: string): Item {
  const [first, ...others] = items
  if (first === undefined) throw new L3capError('USAGE', `the vault does not hold ${wanted}`)
  if (others.length === 0) return first
  const names = items.map(({ exchange, name }) => `${exchange} ${name}`).join(', ')
  throw new L3capError('USAGE', `${wanted} may be one of these: ${names}`)
}

/** What is done about damage that nobody wants to be told of. */
export function fail({ file, line, message, cause }: Damage): never {
  const place = line === null ? file : `${file}:${line}`
  throw new L3capError('VAULT_DAMAGED', `${place}: ${message}`, { cause })
}
