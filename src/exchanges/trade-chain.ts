import type { Host, Keeper, Trade } from './exchange.ts'

/** A hole in the ids of an instrument's trades that is being filled. Plain data. */
export interface TradeHole {
  readonly index: number
  /** First and last missing id. */
  from: number
  readonly to: number
  tries: number
  /** The request under way; null: none. */
  id: string | null
  askedUs: number
  dueUs: number
}

/** All holes of a connection as plain data. */
export interface TradeChainState {
  requests: number
  holes: TradeHole[]
  /** The largest id of each instrument that was no trade. */
  passed: Record<number, number>
}

/** Holes of one instrument that are looked for at a time. */
const HOLES_MAX = 16
/** Requests of a connection at a time: histories must not eat the budget that images and tokens need. */
const UNDER_WAY_MAX = 2
/** A longer hole is told, and only its newest part filled. */
const HOLE_IDS_MAX = 5000
const TRIES_MAX = 5
const RETRY_US = 2_000_000
/** A request is answered in the end, but may have to wait long for its budget. */
const ANSWER_US_MAX = 600_000_000

/**
 * Trades whose ids rise by one: finds the missing ones and asks for them over REST. The last id is the instrument's, not
 * the connection's, so that what passed while nobody was connected is filled, too.
 */
export class TradeChain {
  state: TradeChainState = { requests: 0, holes: [], passed: {} }
  private readonly host: Host
  private readonly ask: (index: number, from: number, to: number, id: string) => void

  /** `ask` requests trades of an instrument from id to id (at least the first of them); the answer must bear `id`. */
  constructor(host: Host, ask: (index: number, from: number, to: number, id: string) => void) {
    this.host = host
    this.ask = ask
  }

  /** A trade of the stream, of a numeric id. */
  live(index: number, id: number, trade: Trade): void {
    const keeper = this.host.keepers[index]!
    this.expect(index, keeper, id)
    keeper.trade(trade)
  }

  /** An id of the stream that is no trade: it has its place in the chain, and is nothing else. */
  pass(index: number, id: number): void {
    this.expect(index, this.host.keepers[index]!, id)
    this.state.passed[index] = Math.max(id, this.state.passed[index] ?? id)
  }

  /** An id that the exchange names as its newest, without the trade. */
  newest(index: number, id: number): void {
    this.expect(index, this.host.keepers[index]!, id + 1)
  }

  private expect(index: number, keeper: Keeper, id: number): void {
    const last = Math.max(keeper.lastTradeId ?? -1, this.state.passed[index] ?? -1)
    if (last < 0 || id <= last + 1) return
    let from = last + 1
    const covering = () => this.state.holes.find(hole => hole.index === index && hole.from <= from && hole.to >= from)
    // What one hole covers may end where another one begins.
    for (let hole = covering(); hole !== undefined; hole = covering()) from = hole.to + 1
    if (from >= id) return
    if (id - from > HOLE_IDS_MAX) {
      this.tell(index, from, id - HOLE_IDS_MAX - 1, 'too long to be filled')
      from = id - HOLE_IDS_MAX
    }
    if (keeper.tradeHoles.length >= HOLES_MAX) return this.tell(index, from, id - 1, 'too many holes')
    keeper.tradeHoles.push([from, id - 1])
    this.open(index, from, id - 1)
  }

  private open(index: number, from: number, to: number): void {
    const hole: TradeHole = { index, from, to, tries: 0, id: null, askedUs: 0, dueUs: 0 }
    this.state.holes.push(hole)
    this.request(hole)
  }

  private get underWay(): number {
    return this.state.holes.filter(({ id }) => id !== null).length
  }

  /** Holes belong to the instrument: those of a connection that ended are taken over, those that another one filled end. */
  private share(): void {
    const isOpen = ({ index, to }: TradeHole) => this.host.keepers[index]!.tradeHoles.some(each => each[1] === to)
    this.state.holes = this.state.holes.filter(isOpen)
    for (const [index, keeper] of this.host.keepers.entries()) {
      for (const [from, to] of keeper.tradeHoles) {
        const known = this.state.holes.some(hole => hole.index === index && hole.to === to)
        if (!known) this.open(index, from, to)
      }
    }
  }

  private tell(index: number, from: number, to: number, why: string): void {
    const keeper = this.host.keepers[index]!
    const facts = { channel: 'trades', cause: 'trades', expected: from, received: to + 1, why }
    keeper.status('gap', facts)
    this.host.log('warn', 'Trades missing', { instId: keeper.instrument.instId, ...facts })
  }

  private request(hole: TradeHole): void {
    if (this.underWay >= UNDER_WAY_MAX) {
      // Due, and asked for at the first tick that finds room.
      hole.dueUs = this.host.us
      return
    }
    hole.id = `trades-${hole.index}-${++this.state.requests}`
    hole.askedUs = this.host.us
    hole.tries++
    this.ask(hole.index, hole.from, hole.to, hole.id)
  }

  /** The hole that an answer is for; undefined when nobody waits for it. */
  hole(id: string): TradeHole | undefined {
    return this.state.holes.find(hole => hole.id === id)
  }

  /**
   * The answer to a request: trades in ascending order of id, those beyond the hole among them; none when it failed.
   * `isSparse`: ids that are absent between two trades of the answer are no trades, and nothing is missing.
   */
  fill(hole: TradeHole, trades: readonly Trade[], isSparse = false): void {
    const keeper = this.host.keepers[hole.index]!
    const before = hole.from
    // Whether what is absent from here on is known to be nothing: a sparse answer has reached back far enough.
    let isKnown = false
    hole.id = null
    for (const trade of trades) {
      const id = Number(trade.id)
      if (id < hole.from) isKnown = isSparse
      if (id < hole.from || (id > hole.to && !isSparse)) continue
      if (id > hole.from && !isKnown) this.tell(hole.index, hole.from, Math.min(id - 1, hole.to), 'not in the history')
      if (id <= hole.to) keeper.trade(trade)
      isKnown = isSparse
      hole.from = Math.min(id, hole.to) + 1
      if (hole.from > hole.to) break
    }
    if (hole.from > hole.to) return this.close(hole)
    const shared = keeper.tradeHoles.find(each => each[1] === hole.to)
    if (shared) shared[0] = hole.from
    // The history comes in pages: the next one is asked for at once.
    if (hole.from > before) {
      hole.tries = 0
      this.request(hole)
    } else if (hole.tries >= TRIES_MAX) {
      this.tell(hole.index, hole.from, hole.to, 'the history could not be had')
      this.close(hole)
    } else hole.dueUs = this.host.us + RETRY_US
  }

  private close(hole: TradeHole): void {
    this.state.holes = this.state.holes.filter(other => other !== hole)
    const { tradeHoles } = this.host.keepers[hole.index]!
    const at = tradeHoles.findIndex(each => each[1] === hole.to)
    if (at >= 0) tradeHoles.splice(at, 1)
  }

  /** Time passes: asks again. */
  tick(): void {
    this.share()
    for (const hole of [...this.state.holes]) {
      if (hole.id === null ? this.host.us >= hole.dueUs : this.host.us - hole.askedUs > ANSWER_US_MAX) {
        if (hole.id !== null) this.fill(hole, [])
        else this.request(hole)
      }
    }
  }
}
