import { Binance } from './binance.ts'
import { Bitfinex } from './bitfinex.ts'
import { Bitstamp } from './bitstamp.ts'
import { Coinbase } from './coinbase.ts'
import type { Fault, FaultKind } from './faults.ts'
import { Huobi } from './huobi.ts'
import { Kraken } from './kraken.ts'
import type { SimulatedExchange } from './listing.ts'
import { Okx } from './okx.ts'
import { type SentFrame, SimulatorServer, type Venue } from './server.ts'

export { type Fault, type FaultKind, parseFault, randomFaults } from './faults.ts'
export type { SentFrame } from './server.ts'

/** What to simulate. */
export interface SimulatorOptions {
  exchange: SimulatedExchange
  /** The port on 127.0.0.1; 0 for a free one. @default 0 */
  port?: number
  /** The same seed gives the same markets. @default 1 */
  seed?: number
  /** Instruments besides the usual ones, by the exchange's own names (Bitfinex's without `t`). @default [] */
  instruments?: string[]
  /** What happens in each market per second, on average; 0 for markets that stand still. @default 20 */
  eventsPerSecond?: number
  /** What goes wrong, and when. @default [] */
  faults?: Fault[]
  /**
   * Milliseconds between heartbeats or pings. Bitfinex: of a channel (15 s). OKX: without a change of a book until an
   * empty update is pushed (60 s). Coinbase: of a product (1 s). Kraken: after silence (1 s). Bitstamp (54 s), Binance
   * (20 s, futures nine times as much) and HTX (5 s): between the pings of the server.
   */
  heartbeatMs?: number
  /** Bitfinex: connections allowed in a minute, 0 for any number. @default 20 */
  connectsPerMinute?: number
  /** OKX (3) and Coinbase (8): connections allowed in a second, 0 for any number. */
  connectsPerSecond?: number
  /** Kraken: connections allowed in ten minutes, 0 for any number. @default 150 */
  connectsPerTenMinutes?: number
  /** Kraken: requests that a connection may send in a second, 0 for any number. @default 20 */
  requestsPerSecond?: number
  /** Kraken: what all `level3` subscriptions of a second may cost, 0 for no limit. @default 200 */
  level3CostPerSecond?: number
  /** Kraken: how long a token can be used, in milliseconds. @default 900000 */
  tokenMs?: number
  /** Kraken: milliseconds after which the quantities of the first pair get another decimal. @default never */
  precisionChangeMs?: number
  /** Coinbase and Bitstamp: about how many orders rest on each side of a book. @default 600 */
  bookOrders?: number
  /** OKX: send true checksums instead of zeros. @default false */
  okxChecksums?: boolean
  /** OKX: books come without a first snapshot; REST has it. @default false */
  imageless?: boolean
  /** Binance: milliseconds after which a connection is ended, whatever it does. @default 86400000 (24 h) */
  lifetimeMs?: number
  /** Keep every frame in `log`; it grows without limit. @default false */
  keepLog?: boolean
  /** Hears of every frame at the moment it is sent or withheld, in the order of the wire; with and without `keepLog`. */
  onFrame?: (frame: SentFrame) => void
}

/** A simulated exchange that is running. */
export interface Simulator {
  /** The address of the WebSocket, path included. */
  readonly wsUrl: string
  /** The root of the REST API, without a trailing slash. */
  readonly restUrl: string
  readonly port: number
  /** What was sent and withheld, oldest first; empty without `keepLog`. */
  readonly log: readonly SentFrame[]
  /** Makes a fault happen, now or `afterMs` milliseconds from now. */
  inject(fault: Fault): void
  /** From now on so many times as much happens in the markets as usual; a whole number, 1 ends it. */
  hurry(times: number): void
  /** Ends every connection and timer. */
  close(): Promise<void>
}

/** What venues are made from; each takes what concerns it. */
type VenueSettings = SimulatorOptions & Required<Pick<SimulatorOptions, 'seed' | 'instruments' | 'eventsPerSecond'>>

const VENUES: Record<SimulatedExchange, (settings: VenueSettings) => Venue> = {
  bitfinex: settings => new Bitfinex({ heartbeatMs: 15_000, connectsPerMinute: 20, ...settings }),
  okx: settings =>
    new Okx({
      heartbeatMs: 60_000,
      connectsPerSecond: 3,
      imageless: false,
      ...settings,
      checksums: settings.okxChecksums ?? false
    }),
  coinbase: settings => new Coinbase(settings),
  bitstamp: settings => new Bitstamp(settings),
  kraken: settings => new Kraken(settings),
  binance: settings => new Binance({ heartbeatMs: 20_000, lifetimeMs: 86_400_000, ...settings }),
  huobi: settings => new Huobi({ heartbeatMs: 5000, ...settings })
}

/** The protocol and the markets of a simulated exchange, without a server. */
export function createVenue(options: SimulatorOptions): Venue {
  return VENUES[options.exchange]({ seed: 1, instruments: [], eventsPerSecond: 20, ...options })
}

/** The kinds of faults that mean something on an exchange; others can be injected and never happen. */
export function simulatorFaultKinds(exchange: SimulatedExchange): readonly FaultKind[] {
  return createVenue({ exchange }).faultKinds
}

/** Starts a simulated exchange on 127.0.0.1. Rejects when the port cannot be had. */
export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const venue = createVenue(options)
  const server = new SimulatorServer(venue, options.keepLog ?? false, options.onFrame)
  venue.attach(server)
  const port = await server.listen(options.port ?? 0)
  for (const fault of options.faults ?? []) server.inject(fault)
  return {
    wsUrl: `ws://127.0.0.1:${port}${venue.paths[0]}`,
    restUrl: `http://127.0.0.1:${port}`,
    port,
    log: server.log,
    inject: fault => server.inject(fault),
    hurry: times => {
      server.haste = times
    },
    close: () => server.close()
  }
}
