import { Bitfinex } from './bitfinex.ts'
import type { Fault } from './faults.ts'
import type { SimulatedExchange } from './listing.ts'
import { Okx } from './okx.ts'
import { type SentFrame, SimulatorServer } from './server.ts'

export { type Fault, parseFault, randomFaults } from './faults.ts'
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
   * Bitfinex: milliseconds between the heartbeats of a channel (15 s). OKX: milliseconds without a change after which an
   * empty update is pushed (60 s).
   */
  heartbeatMs?: number
  /** Bitfinex: connections allowed in a minute, 0 for any number. @default 20 */
  connectsPerMinute?: number
  /** OKX: connections allowed in a second, 0 for any number. @default 3 */
  connectsPerSecond?: number
  /** OKX: send true checksums instead of zeros. @default false */
  okxChecksums?: boolean
  /** Keep every frame in `log`; it grows without limit. @default false */
  keepLog?: boolean
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
  /** Ends every connection and timer. */
  close(): Promise<void>
}

/** Starts a simulated exchange on 127.0.0.1. Rejects when the port cannot be had. */
export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const common = {
    seed: options.seed ?? 1,
    instruments: options.instruments ?? [],
    eventsPerSecond: options.eventsPerSecond ?? 20
  }
  const venue =
    options.exchange === 'bitfinex'
      ? new Bitfinex({
          ...common,
          heartbeatMs: options.heartbeatMs ?? 15_000,
          connectsPerMinute: options.connectsPerMinute ?? 20
        })
      : new Okx({
          ...common,
          keepAliveMs: options.heartbeatMs ?? 60_000,
          connectsPerSecond: options.connectsPerSecond ?? 3,
          checksums: options.okxChecksums ?? false
        })
  const server = new SimulatorServer(venue, options.keepLog ?? false)
  venue.attach(server)
  const port = await server.listen(options.port ?? 0)
  for (const fault of options.faults ?? []) server.inject(fault)
  return {
    wsUrl: `ws://127.0.0.1:${port}${venue.path}`,
    restUrl: `http://127.0.0.1:${port}`,
    port,
    log: server.log,
    inject: fault => server.inject(fault),
    close: () => server.close()
  }
}
