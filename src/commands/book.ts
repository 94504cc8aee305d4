/** `l3cap book`: the book of an instrument at a moment, from the vault. */
import { Command, Option } from 'commander'
import type { Level2 } from '../book/levels.ts'
import type { PriceLevel } from '../book/orders.ts'
import { defaultVault } from '../config/env.ts'
import { difference, middle, readDecimal, Sum } from '../core/decimal.ts'
import { L3capError } from '../core/errors.ts'
import { LEVELS, type Level } from '../core/instrument.ts'
import { printable } from '../core/printable.ts'
import { isoMs, isoOfMicros, parseMoment, usText } from '../core/time.ts'
import { type BookAt, bookAt, type Distrust } from '../replay/book-at.ts'
import { openVault } from '../replay/vault.ts'

interface Options {
  readonly vault: string
  readonly exchange?: string
  readonly symbol: string
  readonly at: string
  readonly depth: string
  readonly level?: Level
  readonly orders: boolean
  readonly json: boolean
}

/** `now` shows the newest moment that the vault proves; one so long ago is not now. */
const LATE_US_MAX = 10_000_000
const DEPTH_MAX = 1_000_000

/** The command, ready to be added to a program. Its action throws `L3capError`: `USAGE`, `VAULT`, `UNTRUSTED`. */
export function bookCommand(): Command {
  return new Command('book')
    .summary('show the book of an instrument at a moment')
    .description(
      'Rebuilds the book of an instrument from the vault, up to and including a moment, and says whether it can be trusted. ' +
        'Exit 0 when it can, 1 when not (inside a gap, before the first image, while no capture ran, …: what is known is ' +
        'shown nevertheless), 2 on wrong usage.'
    )
    .option('--vault <dir>', 'vault directory (environment: L3CAP_VAULT)', defaultVault())
    .option('--exchange <id>', 'the exchange; may be left out where only one has the symbol')
    .requiredOption('--symbol <name>', 'the instrument, in any common spelling')
    .option(
      '--at <time>',
      'the moment: 2026-11-20T15:30:00.123456Z, "2026-11-20 15:30:00", -5m, or now: the newest one that is proven',
      'now'
    )
    .option('--depth <count>', 'price levels a side', '20')
    .addOption(new Option('--level <level>', 'which book, where the vault has both').choices(LEVELS))
    .option('--orders', 'show the single orders of each level too, the oldest first (L3 only)', false)
    .option('--json', 'print one JSON object', false)
    .action(async (options: Options) => {
      const nowUs = Date.now() * 1000
      const { at, depth, mistakes } = readOptions(options, nowUs)
      if (mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('\n'))
      const { exchange, symbol, level, orders, json } = options
      const state = await bookAt(openVault(options.vault), { exchange, symbol, level, at })
      if (orders && state.level === 'l2')
        throw new L3capError('USAGE', `--orders: ${state.exchange} ${state.name} is captured by price levels`)
      const reason = state.reason ?? (at === 'latest' ? lateness(state.atUs, nowUs) : null)
      process.stdout.write(json ? `${toJson(state, reason, depth, orders)}\n` : describe(state, reason, depth, orders))
      if (reason !== null) throw new L3capError('UNTRUSTED', printable(reason.message))
    })
}

function readOptions(options: Options, nowUs: number) {
  const at = options.at === 'now' ? 'latest' : parseMoment(options.at, nowUs)
  const depth = /^\d{1,7}$/.test(options.depth) ? Number(options.depth) : 0
  const mistakes: string[] = []
  if (at === undefined)
    mistakes.push(`--at must be a moment such as 2026-11-20T15:30:00Z, not ${JSON.stringify(options.at)}`)
  if (depth < 1 || depth > DEPTH_MAX)
    mistakes.push(`--depth must be a whole number from 1 to ${DEPTH_MAX}, not ${JSON.stringify(options.depth)}`)
  return { at: at ?? 'latest', depth, mistakes } as const
}

function lateness(atUs: number, nowUs: number): Distrust | null {
  if (nowUs - atUs <= LATE_US_MAX) return null
  const message = `the newest moment that the vault proves is ${isoMs(atUs)}, ${seconds(nowUs - atUs)} s ago`
  return { kind: 'behind', message, cause: '', fromUs: atUs, toUs: null }
}

function seconds(us: number): string {
  return (us / 1_000_000).toFixed(3)
}

/** ISO 8601 with microseconds. */
function timeText(us: number): string {
  return isoOfMicros(usText(us)) ?? isoMs(us)
}

function levelsOf(state: BookAt, isAsk: boolean, depth: number): (PriceLevel | Level2)[] {
  const found: (PriceLevel | Level2)[] = []
  for (let n = 0; n < depth; n++) {
    const level = state.level === 'l3' ? state.book.level(isAsk, n) : state.book.at(isAsk, n)
    if (level === undefined) break
    found.push(level)
  }
  return found
}

/** `[order_id, price, size]` of a level, in queue order. */
function ordersOf(level: PriceLevel | Level2): [id: string, price: string, size: string][] {
  const found: [string, string, string][] = []
  if ('first' in level)
    for (let order = level.first; order !== null; order = order.after) found.push([order.id, level.price, order.size])
  return found
}

function toJson(state: BookAt, reason: Distrust | null, depth: number, withOrders: boolean): string {
  const { exchange, name, level, book, atUs, syncedAt, eventUs, ageMs, conn, frame, seqId, image, lines } = state
  const [bid, ask] = [book.best(false), book.best(true)]
  const at = (us: number | null) => (us === null ? null : timeText(us))
  const head = {
    exchange,
    name,
    level,
    at: timeText(atUs),
    at_us: atUs,
    trusted: reason === null,
    reason: reason && { ...reason, fromUs: undefined, toUs: undefined, from: at(reason.fromUs), to: at(reason.toUs) },
    [`bids_top${depth}`]: JSON.parse(book.top(false, depth)) as unknown,
    [`asks_top${depth}`]: JSON.parse(book.top(true, depth)) as unknown,
    best_bid: bid,
    best_ask: ask,
    mid_price: bid === null || ask === null ? null : middle(bid, ask),
    seqId,
    synced_at: syncedAt,
    event: at(eventUs),
    age_ms: ageMs,
    conn,
    frame,
    image,
    lines
  }
  const stats = level === 'l3' ? { stats: JSON.parse(book.stats()) as unknown } : {}
  const [bid_orders, ask_orders] = [false, true].map(isAsk => levelsOf(state, isAsk, depth).flatMap(ordersOf))
  return JSON.stringify({ ...head, ...stats, ...(withOrders ? { bid_orders, ask_orders } : {}) })
}

function describe(state: BookAt, reason: Distrust | null, depth: number, withOrders: boolean): string {
  const { exchange, name, level, book, atUs, syncedAt, eventUs, conn, frame, seqId } = state
  const [bid, ask] = [book.best(false), book.best(true)]
  const facts = [
    `synced_at ${syncedAt ?? 'unknown'}`,
    eventUs === null ? 'no event' : `last event ${seconds(atUs - eventUs)} s before`,
    ...(seqId === null ? [] : [`seqId ${seqId}`])
  ]
  const between =
    bid === null || ask === null ? '(a side is empty)' : `spread ${difference(ask, bid)}, mid ${middle(bid, ask)}`
  const [bids, asks] = [false, true].map(isAsk => rowsOf(levelsOf(state, isAsk, depth), isAsk, withOrders))
  const widths = widthsOf([...bids!, ...asks!].flat())
  const lineOf = (row: Row) => `  ${row.map((text, n) => text.padStart(widths[n]!)).join('  ')}`.trimEnd()
  const lines = [
    ...(reason === null ? [] : [`NOT TRUSTED: ${reason.message}`]),
    `${exchange} ${name} ${level} at ${timeText(atUs)}: ${reason === null ? 'trusted' : 'not trusted'}`,
    `  ${facts.join(', ')}`,
    '',
    lineOf(HEADS),
    ...asks!.reverse().flat().map(lineOf),
    `  --- ${between}`,
    ...bids!.flat().map(lineOf),
    '',
    state.image === null
      ? 'from no image'
      : `from the image at ${state.image} and ${state.lines} lines, the last of ${conn} frame ${frame}`
  ]
  return printable(`${lines.join('\n')}\n`)
}

type Row = readonly [side: string, price: string, size: string, orders: string, cumulative: string, id: string]
const HEADS: Row = ['', 'price', 'size', 'orders', 'cumulative', '']

/** The rows of each level, best first: its own, and those of its orders. */
function rowsOf(levels: readonly (PriceLevel | Level2)[], isAsk: boolean, withOrders: boolean): Row[][] {
  const total = new Sum()
  return levels.map(level => {
    const size = 'sum' in level ? level.sum.toString() : level.size
    const count = 'count' in level ? String(level.count) : (level.orders ?? '-')
    readDecimal(size)
    total.addRead()
    const orders = withOrders ? ordersOf(level).map(([id, , part]): Row => ['', '', part, '', '', id]) : []
    return [[isAsk ? 'ask' : 'bid', level.price, size, count, total.toString(), ''], ...orders]
  })
}

function widthsOf(rows: readonly Row[]): number[] {
  return HEADS.map((head, n) => rows.reduce((width, row) => Math.max(width, row[n]!.length), head.length))
}
