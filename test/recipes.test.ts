import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LevelRow } from '../src/core/records.ts'
import type { Row } from './helpers/driver.ts'
import { captureDated, commandsOf, findCommand, outputOf, queryDuckdb, recipeOf, rowsOf } from './helpers/recipes.ts'

// The recipes of README.md, run word for word on a vault of the date they name, against what plain loops make of its lines.
const HOUR_MS = Date.parse('2026-11-20T15:00:00Z')
const SIX_HOURS_MS = 21_600_000
const COINBASE = { exchange: 'coinbase', name: 'BTC-USD' }
const OKX = { exchange: 'okx', name: 'BTC-USDT-SWAP' }
const PYTHONS = ['python3', '/usr/bin/python3']

let folder: string
let vault: string
const python = findCommand(PYTHONS, '-c', 'import pandas')
const jq = findCommand(['jq'], '--version')

/** Where CI is, every tool must be; elsewhere the name of the test says what it lacks. */
function needs(tool: string, found: string | undefined) {
  const isSkipped = found === undefined && !process.env.CI
  return { test: it.skipIf(isSkipped), note: isSkipped ? ` (SKIPPED: there is no ${tool})` : '' }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-recipes-'))
  vault = join(folder, 'vault')
  const later = await captureDated(folder, HOUR_MS)
  later(SIX_HOURS_MS, 'retention', '--vault', 'vault')
  // Nobody may read what a crash cut off.
  writeFileSync(join(vault, 'raw/okx/trades/BTC-USDT-SWAP/2026-11-20/15.jsonl.torn'), '{"timestamp_utc":"2026-11')
}, 90_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const rows = (feed: string, { exchange, name }: { exchange: string; name: string }) =>
  rowsOf(vault, exchange, feed, name)
const shots = () => rows('l2_perps', OKX)
const table = (lines: unknown[][]) => lines.map(line => line.map(cell => String(cell ?? '')).join('\t'))
const near = (texts: string[]) =>
  texts.map(text => text.split('\t').map(cell => (/^-?\d+\.\d{5,}/.test(cell) ? Number(cell).toFixed(6) : cell)))
const numberOf = (text: string) => Number(text)
/** A decimal as DuckDB prints it. */
const long = (text: string) => {
  const [whole, rest = ''] = text.split('.')
  return `${whole}.${rest.padEnd(18, '0')}`
}

/** The last snapshot at or before a trade, unless it is flagged or four seconds old. */
function shotBefore(all: Row[], us: number): Row | undefined {
  const shot = all.filter(({ recv_us, gap_detected }) => Number(recv_us) <= us && gap_detected === false).at(-1)
  return shot && us - Number(shot.recv_us) < 4_000_000 ? shot : undefined
}

it('the vault has what the recipes are about: both forms of hours, trades, a gap of each book', () => {
  const find = (pattern: string) => outputOf('find', ['raw', '-path', pattern], { cwd: vault }).split('\n').length - 1
  for (const feed of ['coinbase/l3_spot', 'coinbase/l3_events', 'okx/l2_perps', 'okx/trades']) {
    expect(find(`raw/${feed}/*/2026-11-20/14.jsonl.gz`), feed).toBe(1)
    expect(find(`raw/${feed}/*/2026-11-20/15.jsonl`), feed).toBe(1)
  }
  for (const book of [OKX, COINBASE]) {
    expect(rows('trades', book).length).toBeGreaterThan(20)
    expect(rows('status', book).filter(({ event }) => event === 'gap')).toHaveLength(1)
  }
})

describe('the recipes with jq', () => {
  const { test, note } = needs('jq', jq)
  const run = (name: string) => {
    const command = commandsOf(recipeOf('jq')).get(name)
    expect(command, `README.md has no recipe ${name}`).toBeDefined()
    return outputOf('bash', ['-c', command!], { cwd: folder }).trimEnd().split('\n')
  }

  test(`best prices and spread${note}`, () => {
    const want = shots()
      .filter(({ gap_detected }) => gap_detected === false)
      .map(({ timestamp_utc, best_bid, best_ask }) => [
        timestamp_utc,
        best_bid,
        best_ask,
        (numberOf(best_ask as string) - numberOf(best_bid as string)).toFixed(6)
      ])
    expect(want.length).toBeGreaterThan(5)
    const cut = run('Best prices').map(line => line.replace(/[^\t]+$/, spread => Number(spread).toFixed(6)))
    expect(cut).toEqual(table(want))
  })

  test(`gaps with their cause${note}`, () => {
    const want = [COINBASE, OKX].flatMap(book =>
      rows('status', book)
        .map(row => ({ ...row, detail: row.detail as Row }) as Row & { detail: Row })
        .filter(({ event, detail }) => event === 'gap' || detail.down_ms)
        .map(({ timestamp_utc, instId, event, detail }) => [timestamp_utc, instId, event, detail.cause, detail.down_ms])
    )
    expect(want.length).toBeGreaterThanOrEqual(3)
    expect(run('Gaps with')).toEqual(table(want))
  })

  test(`trades per minute${note}`, () => {
    const minutes = new Map<string, [number, number]>()
    for (const { timestamp_utc, size, metadata } of rows('trades', OKX)) {
      if ((metadata as Row).backfill) continue
      const minute = (timestamp_utc as string).slice(0, 16)
      const [count, sum] = minutes.get(minute) ?? [0, 0]
      minutes.set(minute, [count + 1, sum + numberOf(size as string)])
    }
    expect(minutes.size).toBe(2)
    expect(near(run('Trades and'))).toEqual(near(table([...minutes].map(([minute, sums]) => [minute, ...sums]))))
  })

  test(`walls${note}`, () => {
    const want = rows('l3_spot', COINBASE).map(row => {
      const [bids, asks] = [row.bids_top400 as LevelRow[], row.asks_top400 as LevelRow[]]
      const sizes = [...bids, ...asks].map(([, size]) => numberOf(size)).sort((a, b) => a - b)
      const median = sizes[Math.floor(sizes.length / 2)]!
      const walls = (side: LevelRow[]) => side.filter(([, size]) => numberOf(size) > 5 * median).map(([p, s]) => [p, s])
      return { timestamp_utc: row.timestamp_utc, median, bids: walls(bids), asks: walls(asks) }
    })
    expect(want.some(({ bids, asks }) => bids.length > 0 && asks.length > 0)).toBe(true)
    expect(run('Walls').map(line => JSON.parse(line) as unknown)).toEqual(want)
  })

  test(`the top of the book at a moment${note}`, () => {
    const book = new Map<string, { side: string; price: string; size: number }>()
    const events = rows('l3_events', COINBASE).filter(
      ({ timestamp_utc: at }) => String(at) <= '2026-11-20T15:00:03.000Z'
    )
    for (const { event_type, order_id, side, price, size } of events as Record<string, string>[]) {
      const order = book.get(order_id!)
      if (event_type === 'clear') book.clear()
      else if (event_type === 'done') book.delete(order_id!)
      else if (event_type === 'match') {
        order!.size = Math.round((order!.size - Number(size)) * 1e8) / 1e8
        if (order!.size === 0) book.delete(order_id!)
      } else book.set(order_id!, { side: side!, price: price!, size: Number(size) })
    }
    expect(events.some(({ event_type }) => event_type === 'match')).toBe(true)
    const top = (side: string, sign: number) => {
      const orders = [...book.values()].filter(order => order.side === side)
      const prices = [...new Set(orders.map(({ price }) => price))].sort((a, b) => sign * (Number(a) - Number(b)))
      return prices.slice(0, 3).map(price => {
        const own = orders.filter(order => order.price === price)
        return [price, Number(own.reduce((sum, { size }) => sum + size, 0).toFixed(8)), own.length]
      })
    }
    expect(JSON.parse(run('The top')[0]!)).toEqual({ bids: top('bid', -1), asks: top('ask', 1) })
  })
})

describe('the recipes with DuckDB', () => {
  let results: Row[][]
  beforeAll(() => {
    const after = "SELECT count(*) AS count, sum(size) AS size FROM 'trades.parquet';"
    results = queryDuckdb(recipeOf('duckdb') + after, folder)
  }, 60_000)

  it('joins trades with the snapshots before them', () => {
    const want = [COINBASE, OKX].flatMap(book => {
      const all = rows(book === OKX ? 'l2_perps' : 'l3_spot', book)
      return rows('trades', book).flatMap(({ trade_id, recv_us, price }) => {
        const shot = shotBefore(all, Number(recv_us)) as Record<string, string> | undefined
        return shot ? [[trade_id, long(String(price)), long(shot.best_bid!), long(shot.best_ask!)]] : []
      })
    })
    expect(want.length).toBeGreaterThan(40)
    const have = results[4]!.map(({ trade_id, price, best_bid, best_ask }) => [trade_id, price, best_bid, best_ask])
    expect(have.sort()).toEqual(want.sort())
  })

  it('finds gaps and their length', () => {
    const want = [COINBASE, OKX].map(book => {
      const all = rows('status', book)
      const at = all.findIndex(({ event }) => event === 'gap')
      const healed = all.slice(at).find(({ event }) => event === 'synced')!
      return [book.exchange, (all[at]!.detail as Row).cause, Number(healed.recv_us) - Number(all[at]!.recv_us)]
    })
    const have = results[5]!.map(({ exchange, cause, down }) => [exchange, cause, Number((down as Row).micros)])
    expect(have).toEqual(want)
  })

  it('measures the lives of orders', () => {
    const lives: number[] = []
    const opened = new Map<unknown, number>()
    for (const { event_type, order_id, recv_us } of rows('l3_events', COINBASE)) {
      if (event_type === 'gap') opened.clear()
      else if (event_type === 'open') opened.set(order_id, Number(recv_us))
      else if (event_type === 'done' && opened.has(order_id)) lives.push(Number(recv_us) - opened.get(order_id)!)
    }
    lives.sort((a, b) => a - b)
    const middle = (lives[Math.floor((lives.length - 1) / 2)]! + lives[Math.floor(lives.length / 2)]!) / 2
    expect(lives.length).toBeGreaterThan(2)
    const [found, ...others] = results[6]!
    expect([found!.exchange, found!.orders, others]).toEqual(['coinbase', String(lives.length), []])
    expect(Number(found!.median_ms)).toBeCloseTo(middle / 1000, 3)
  })

  it('writes Parquet with exact decimals', () => {
    const sizes = [COINBASE, OKX]
      .flatMap(book => rows('trades', book))
      .map(({ size }) => BigInt(long(String(size)).replace('.', '')))
    const sum = sizes
      .reduce((total, size) => total + size, 0n)
      .toString()
      .padStart(19, '0')
    expect(results.at(-1)).toEqual([{ count: String(sizes.length), size: `${sum.slice(0, -18)}.${sum.slice(-18)}` }])
  })
})

describe('the recipe with pandas', () => {
  const { test, note } = needs('python3 with pandas', python)
  test(`says the same as DuckDB, and the mean spread${note}`, () => {
    const isText = "print('text', all(isinstance(value, str) for value in [*trades.trade_id, *trades.price]))"
    const output = outputOf(python ?? PYTHONS[0]!, ['-c', recipeOf('pandas') + isText], { cwd: folder })
    expect(output).toMatch(/^text True$/m)
    const [series, csv] = output.split(/^(?=trade_id,)/m) as [string, string]
    const joined = queryDuckdb(recipeOf('duckdb'), folder)[4]!
    const want = joined
      .filter(({ exchange }) => exchange === 'okx')
      .map(row => [row.trade_id, row.side, row.price, row.size, row.best_bid, row.best_ask])
    const have = csv.trim().split('\n').slice(1, -1).filter(Boolean)
    const lengthened = have.map(line => line.split(',').map((cell, at) => (at < 2 ? cell : long(cell))))
    expect(lengthened).toEqual(want)
    const sums = new Map<number, number[]>()
    for (const { recv_us, best_bid, best_ask, gap_detected } of shots() as Record<string, string>[]) {
      if (String(gap_detected) === 'true') continue
      const slot = Math.floor(Number(recv_us) / 2_000_000)
      sums.set(slot, [...(sums.get(slot) ?? []), Number(best_ask) - Number(best_bid)])
    }
    const means = [...sums.values()].map(list => list.reduce((sum, each) => sum + each, 0) / list.length)
    const printed = [...series.matchAll(/^2026-11-20 [\d:]+\+00:00 +([\d.]+)$/gm)].map(match => Number(match[1]))
    expect(printed.length).toBe(means.length)
    for (const [at, mean] of means.entries()) expect(printed[at]).toBeCloseTo(mean, 4)
  })
})
