import type { Host, Keeper, Trade } from '../../src/exchanges/exchange.ts'

/** A host with one keeper that only remembers: for the parts of sessions that need no book. */
export class StubHost implements Host {
  us = 1_000_000_000_000
  readonly feeds = ['book', 'trades'] as const
  readonly depth = 400
  readonly silenceMs = null
  readonly credentials = null
  readonly keepers: readonly Keeper[]
  readonly statuses: { event: string; detail: Record<string, unknown> }[] = []
  readonly trades: Trade[] = []
  readonly logs: string[] = []
  lastTradeId: number | null = null
  readonly tradeHoles: [number, number][] = []

  constructor() {
    const instrument = { exchange: 'x', instId: 'A-B', market: 'spot', level: 'l2', channel: 'book' } as const
    const keeper: Partial<Keeper> = {
      instrument,
      status: (event, detail) => void this.statuses.push({ event, detail }),
      lose: () => undefined,
      trade: trade => {
        this.trades.push(trade)
        this.lastTradeId = Math.max(this.lastTradeId ?? 0, Number(trade.id))
      }
    }
    Object.defineProperty(keeper, 'lastTradeId', { get: () => this.lastTradeId })
    Object.defineProperty(keeper, 'tradeHoles', { value: this.tradeHoles })
    this.keepers = [keeper as Keeper]
  }

  /** Lets seconds pass. */
  pass(seconds: number): void {
    this.us += seconds * 1_000_000
  }

  send(): void {}
  fetch(): void {}
  hangup(): void {}
  replace(): void {}
  metadata(): void {}
  unreadable(): void {}
  log(_level: string, message: string): void {
    this.logs.push(message)
  }
}
