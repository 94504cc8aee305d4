import { isDecimal, priceKey } from '../core/decimal.ts'
import { asObject } from '../core/json.ts'
import { isoOfMicros, isoText } from '../core/time.ts'
import type { FetchAnswer, Host, Trade } from './exchange.ts'
import { restName } from './kraken-catalogue.ts'
import { TradeChain, type TradeChainState, type TradeHole } from './trade-chain.ts'

/** How far the search for the start of a hole has come. Plain data. */
interface Page {
  /** Trades after this moment are asked for, nanoseconds since the epoch. */
  since: string
  /** So many seconds before the end of the hole, as long as it is a guess; 0: it is known to lie before the hole. */
  backS: number
  asked: number
}

/** The history of a connection's trades as plain data. */
export interface KrakenTradesState {
  chain: TradeChainState
  /** The exchange's time of each instrument's newest trade here, ISO text. */
  times: (string | null)[]
  /** By instrument and end of the hole. */
  pages: Record<string, Page>
}

const ROWS_MAX = 1000
const PAGES_MAX = 50
const GUESS_S = 60
const GUESS_FACTOR = 4
const NS_OF_MICROSECOND = 1000n
const NS_OF_SECOND = 1_000_000_000n

/**
 * Trades, and those that are missing. Ids rise by one within a pair: "a sequence number, unique per book" (docs.kraken.com,
 * trade channel), and so they do in every recording and REST answer seen. REST is asked by time, not by id: from the last
 * trade seen on this connection on; of what passed before this connection, from a guess that is moved back until it is early
 * enough.
 */
export class KrakenTrades {
  private readonly host: Host
  private readonly chain: TradeChain
  private times: (string | null)[]
  private pages: Record<string, Page> = {}
  /** The time of the trade at hand. */
  private current: string | null = null

  constructor(host: Host) {
    this.host = host
    this.chain = new TradeChain(host, (index, _from, to, id) => this.ask(index, to, id))
    this.times = host.keepers.map(() => null)
  }

  get state(): KrakenTradesState {
    return { chain: this.chain.state, times: this.times, pages: this.pages }
  }

  set state({ chain, times, pages }: KrakenTradesState) {
    this.chain.state = chain
    this.times = times
    this.pages = pages
  }

  /**
   * Takes a row of the `trade` channel, with its numbers as text: `{"symbol":"BTC/USD","side":"sell","price":45283.5,"qty":0.1,
   * "ord_type":"market","trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}`; `side` is the taker's. `isHistory`: of
   * a snapshot. False when a field is missing or of another type.
   */
  take(index: number, row: Record<string, unknown>, isHistory: boolean): boolean {
    const { trade_id: id, side, price, qty: size, timestamp, ord_type } = row
    if (typeof id !== 'string' || !/^\d{1,15}$/.test(id) || (side !== 'buy' && side !== 'sell')) return false
    if (typeof price !== 'string' || typeof size !== 'string' || !areNumbers(price, size)) return false
    const exchangeTime = isoText(timestamp)
    const facts = typeof ord_type === 'string' ? { ord_type } : {}
    const metadata = JSON.stringify(isHistory ? { backfill: true, ...facts } : facts)
    const trade = { id, isSell: side === 'sell', price, size, exchangeTime, metadata }
    if (isHistory) {
      this.host.keepers[index]!.trade(trade)
      return true
    }
    // A time that no calendar has cannot be asked for.
    this.current = exchangeTime !== null && isMoment(exchangeTime) ? exchangeTime : null
    this.chain.live(index, Number(id), trade)
    this.times[index] = this.current ?? this.times[index]!
    return true
  }

  private ask(index: number, to: number, id: string): void {
    const key = keyOf(index, to)
    const page = this.pages[key] ?? this.firstPage(index)
    this.pages[key] = page
    page.asked++
    const pair = encodeURIComponent(restName(this.host.keepers[index]!.instrument.instId))
    this.host.fetch({ id, path: `/0/public/Trades?pair=${pair}&since=${page.since}&count=${ROWS_MAX}` })
  }

  private firstPage(index: number): Page {
    const known = this.times[index]
    // The exchange cuts its times to microseconds here, and takes `since` as not included.
    if (known) return { since: String(nanoseconds(known) - NS_OF_MICROSECOND), backS: 0, asked: 0 }
    return { since: this.before(GUESS_S, this.current), backS: GUESS_S, asked: 0 }
  }

  private before(seconds: number, time: string | null): string {
    const end = time === null ? BigInt(this.host.us) * NS_OF_MICROSECOND : nanoseconds(time)
    const since = end - BigInt(seconds) * NS_OF_SECOND
    return String(since > 0n ? since : 0n)
  }

  /** The answer to a request of this history; false when it is of another. */
  answered(id: string, { status, value }: FetchAnswer): boolean {
    const hole = this.chain.hole(id)
    if (hole === undefined) return id.startsWith('trades-')
    const page = this.pages[keyOf(hole.index, hole.to)]
    const found = status === 200 ? readTrades(value) : undefined
    if (page === undefined || found === undefined) this.chain.fill(hole, [])
    else this.fill(hole, page, found)
    this.forget()
    return true
  }

  private fill(hole: TradeHole, page: Page, { trades, last }: History): void {
    const first = trades[0]
    if (page.backS > 0 && (first === undefined || Number(first.id) > hole.from)) {
      // The guess was too late.
      page.backS *= GUESS_FACTOR
      page.since = this.before(page.backS, this.times[hole.index] ?? null)
      return this.again(hole, page)
    }
    page.backS = 0
    if (first !== undefined) page.since = last
    if (first !== undefined && Number(trades.at(-1)!.id) < hole.from) return this.again(hole, page)
    this.chain.fill(hole, trades)
  }

  /** Another page is needed before anything can be filled: no failure, as long as there are not too many. */
  private again(hole: TradeHole, page: Page): void {
    if (page.asked < PAGES_MAX) hole.tries = 0
    this.chain.fill(hole, [])
  }

  /** Pages of holes that are no more. */
  private forget(): void {
    const open = new Set(this.chain.state.holes.map(({ index, to }) => keyOf(index, to)))
    for (const key of Object.keys(this.pages)) if (!open.has(key)) delete this.pages[key]
  }

  /** Time passes: asks again. */
  tick(): void {
    this.chain.tick()
    this.forget()
  }
}

function keyOf(index: number, to: number): string {
  return `${index}:${to}`
}

function secondsOf(iso: string): number {
  return Math.floor(Date.parse(`${iso.slice(0, 19)}Z`) / 1000)
}

function isMoment(iso: string): boolean {
  return secondsOf(iso) > 0
}

/** Nanoseconds since the epoch of ISO text that is a moment. */
function nanoseconds(iso: string): bigint {
  return BigInt(secondsOf(iso)) * NS_OF_SECOND + BigInt(iso.slice(20, -1).padEnd(9, '0'))
}

interface History {
  /** In ascending order of id. */
  readonly trades: Trade[]
  /** The moment to ask for next. */
  readonly last: string
}

/**
 * The answer of `/0/public/Trades`: `{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m",
 * "",61044952]],"last":"1688671969993150842"}}`. Undefined when it is another.
 */
function readTrades(value: unknown): History | undefined {
  const result = asObject(asObject(value)?.result)
  const last = result?.last
  const rows = Object.entries(result ?? {}).find(([key]) => key !== 'last')?.[1]
  if (typeof last !== 'string' || !/^\d{1,20}$/.test(last) || !Array.isArray(rows)) return undefined
  const trades = rows.map(readTrade)
  if (!trades.every(trade => trade !== undefined)) return undefined
  return { trades: trades.sort((a, b) => Number(a.id) - Number(b.id)), last }
}

function areNumbers(price: string, size: string): boolean {
  return isDecimal(size) && isDecimal(price) && !Number.isNaN(priceKey(price))
}

function readTrade(row: unknown): Trade | undefined {
  if (!Array.isArray(row)) return undefined
  const [price, size, time, side, type, , id] = row
  if (typeof price !== 'string' || typeof size !== 'string' || !areNumbers(price, size)) return undefined
  if (side !== 'b' && side !== 's') return undefined
  if (!Number.isSafeInteger(id) || id < 0) return undefined
  const ordType = type === 'm' ? 'market' : type === 'l' ? 'limit' : null
  return {
    id: String(id),
    isSell: side === 's',
    price,
    size,
    exchangeTime: typeof time === 'number' ? isoOfMicros(String(Math.round(time * 1e6))) : null,
    metadata: JSON.stringify({ backfill: true, ord_type: ordType })
  }
}
