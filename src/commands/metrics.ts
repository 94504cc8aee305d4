/** What a running capture tells over HTTP: `/metrics` for Prometheus, `/health` as JSON. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { MetricsAddress } from '../config/run.ts'
import { L3capError, messageOf } from '../core/errors.ts'
import { type Health, type InstrumentHealth, problemsOf } from './health.ts'
import { programVersion } from './vitals.ts'

const CONNECTIONS_MAX = 8
const REQUEST_MS_MAX = 5000
const SECOND_MS = 1000

/** One value with what tells it from the others of its name. */
type Sample = readonly [labels: Record<string, string>, value: number]

/** Where the readings come from: asked at each request. */
export interface MetricsSource {
  all(): Health[]
}

/**
 * Serves the metrics of a capture on one address until it is closed. Nothing is measured for it: each request reads what the
 * health files say.
 */
export class MetricsServer {
  private readonly server: Server
  private readonly registry = new Registry()
  private source: MetricsSource | null = null
  /** Read once for each request, so that all of an answer is of one moment. */
  private readings: Health[] = []

  private constructor() {
    const version = programVersion()
    collectDefaultMetrics({ register: this.registry })
    this.gauge('build_info', 'Always 1; the label is what runs', ['version'], () => [[{ version }, 1]])
    this.defineProcess()
    this.defineInstruments()
    this.server = createServer({ connectionsCheckingInterval: SECOND_MS }, (request, response) => {
      this.answer(request, response).catch(error => {
        if (!response.headersSent) reply(response, 500, 'text/plain', `${messageOf(error)}\n`)
        else response.destroy()
      })
    })
    this.server.maxConnections = CONNECTIONS_MAX
    this.server.headersTimeout = this.server.requestTimeout = this.server.keepAliveTimeout = REQUEST_MS_MAX
    this.server.timeout = REQUEST_MS_MAX * 2
  }

  /** Listens. Rejects with `L3capError` CONFIG when the address cannot be had. */
  static async listen({ host, port }: MetricsAddress): Promise<MetricsServer> {
    const made = new MetricsServer()
    await new Promise<void>((resolve, reject) => {
      const refuse = (error: Error) =>
        reject(
          new L3capError('CONFIG', `metrics: cannot listen on ${host}:${port}: ${error.message}`, { cause: error })
        )
      made.server.once('error', refuse)
      made.server.listen(port, host, () => {
        made.server.off('error', refuse)
        // A connection that cannot be taken, for want of descriptors, is no reason to end.
        made.server.on('error', () => undefined)
        resolve()
      })
    })
    return made
  }

  /** Where it listens: `http://127.0.0.1:9464`. */
  get url(): string {
    const { address, port, family } = this.server.address() as AddressInfo
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
  }

  /** The capture has begun: there is something to tell. */
  attach(source: MetricsSource): void {
    this.source = source
  }

  /** Ends it, and every connection. */
  close(): void {
    this.server.close()
    this.server.closeAllConnections()
  }

  private async answer({ method, url }: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (url ?? '').split('?')[0]
    if (path !== '/metrics' && path !== '/health') return reply(response, 404, 'text/plain', 'not found\n')
    if (method !== 'GET') {
      response.setHeader('allow', 'GET')
      return reply(response, 405, 'text/plain', 'only GET\n')
    }
    this.readings = this.source?.all() ?? []
    if (path === '/metrics') return reply(response, 200, this.registry.contentType, await this.registry.metrics())
    const problems = this.readings.flatMap(problemsOf)
    if (this.readings.length === 0) problems.push('starting')
    const live = problems.length === 0
    const text = `${JSON.stringify({ live, problems, processes: this.readings })}\n`
    reply(response, live ? 200 : 503, 'application/json', text)
  }

  private defineProcess(): void {
    const perExchange = (value: (health: Health) => number) => () =>
      this.readings.map((health): Sample => [{ exchange: health.exchange }, value(health)])
    /** What is the same for all exchanges of the process. */
    const once = (samples: (health: Health) => Sample[]) => () => this.readings.slice(0, 1).flatMap(samples)
    this.counter(
      'frames_total',
      'Frames received',
      ['exchange'],
      perExchange(health => health.frames_in)
    )
    this.counter(
      'frames_dropped_total',
      'Frames that there was no room for, as the disk did not take them',
      ['exchange'],
      perExchange(health => health.frames_dropped)
    )
    this.gauge(
      'connections',
      'Open connections',
      ['exchange'],
      perExchange(health => health.connections.length)
    )
    this.gauge(
      'writer_pending_bytes',
      'Bytes that wait for the disk',
      [],
      once(({ writer }) => [[{}, writer.pending_bytes]])
    )
    this.gauge(
      'writer_paused',
      '1 while the disk takes nothing',
      [],
      once(({ writer }) => [[{}, Number(writer.paused)]])
    )
    this.gauge(
      'disk_free_bytes',
      'Room on the disk of the vault',
      [],
      once(({ disk_free_bytes: free }) => (free === null ? [] : [[{}, free]]))
    )
    this.gauge(
      'event_loop_delay_seconds',
      'How late the event loop was, over the last 5 to 10 seconds; quantile 1 is the most',
      ['quantile'],
      once(({ event_loop_delay_ms: delay }) =>
        delay === null ? [] : quantileSamples({}, [...pairs(delay), ['1', delay.max]])
      )
    )
  }

  private defineInstruments(): void {
    const labels = ['exchange', 'instrument']
    const each = (value: (instrument: InstrumentHealth) => number | null) => () =>
      this.instruments().flatMap((instrument): Sample[] => {
        const found = value(instrument)
        return found === null ? [] : [[labelsOf(instrument), found]]
      })
    const seconds = (utc: string | null) => (utc === null ? null : Date.parse(utc) / 1000)
    this.counter(
      'events_total',
      'Lines of order events or book updates',
      labels,
      each(of => of.events)
    )
    this.counter(
      'snapshots_total',
      'Snapshots written',
      labels,
      each(of => of.snapshots)
    )
    this.counter(
      'trades_total',
      'Trades written',
      labels,
      each(of => of.trades)
    )
    this.counter(
      'gaps_total',
      'Losses of continuity',
      labels,
      each(of => of.gaps)
    )
    this.counter(
      'checksum_mismatches_total',
      'Checksums that were not right',
      labels,
      each(of => of.mismatches)
    )
    this.gauge(
      'book_live',
      '1 while the book can be trusted',
      labels,
      each(of => Number(of.state === 'live'))
    )
    const last = 'last_event_timestamp_seconds'
    this.gauge(
      last,
      'When the book changed last',
      labels,
      each(of => seconds(of.last_event_utc))
    )
    const shot = 'last_snapshot_timestamp_seconds'
    this.gauge(
      shot,
      'When a snapshot was taken last',
      labels,
      each(of => seconds(of.last_snapshot_utc))
    )
    this.gauge(
      'feed_lag_seconds',
      "Receive time minus the exchange's own, over the last minute, where the exchange tells it",
      [...labels, 'quantile'],
      () =>
        this.instruments().flatMap(instrument =>
          instrument.lag_ms === null ? [] : quantileSamples(labelsOf(instrument), pairs(instrument.lag_ms))
        )
    )
  }

  private instruments(): InstrumentHealth[] {
    return this.readings.flatMap(({ instruments }) => instruments)
  }

  private gauge(name: string, help: string, labelNames: string[], samples: () => Sample[]): void {
    new Gauge({
      name: `l3cap_${name}`,
      help,
      labelNames,
      registers: [this.registry],
      collect() {
        this.reset()
        // What has no labels stands at 0 from the start; what is unknown is not 0.
        if (labelNames.length === 0) this.remove()
        // Two entries of the configuration may be for one exchange: what has the same labels adds up.
        for (const [labels, value] of samples()) this.inc(labels, value)
      }
    })
  }

  private counter(name: string, help: string, labelNames: string[], samples: () => Sample[]): void {
    new Counter({
      name: `l3cap_${name}`,
      help,
      labelNames,
      registers: [this.registry],
      collect() {
        this.reset()
        for (const [labels, value] of samples()) this.inc(labels, value)
      }
    })
  }
}

function labelsOf({ exchange, instId }: InstrumentHealth): Record<string, string> {
  return { exchange, instrument: instId }
}

function pairs({ p50, p99 }: { p50: number; p99: number }): [string, number][] {
  return [
    ['0.5', p50],
    ['0.99', p99]
  ]
}

/** Milliseconds by quantile as samples in seconds. */
function quantileSamples(labels: Record<string, string>, values: readonly [string, number][]): Sample[] {
  return values.map(([quantile, ms]): Sample => [{ ...labels, quantile }, ms / 1000])
}

function reply(response: ServerResponse, status: number, type: string, text: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
  response.end(text)
}
