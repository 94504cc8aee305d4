import { Engine } from '../../src/capture/engine.ts'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { FeedKind } from '../../src/core/instrument.ts'
import type { Credentials, Exchange, Selection } from '../../src/exchanges/exchange.ts'
import { SIMULATED_CREDENTIALS } from '../../src/simulator/listing.ts'
import { Clock } from '../../src/wire/clock.ts'
import { Fetcher } from '../../src/wire/fetcher.ts'
import { Journal } from '../../src/wire/journal.ts'
import { Runner } from '../../src/wire/runner.ts'
import { CONFIG, described, MemorySink, type Row } from './driver.ts'

/** What a rig captures, and how. */
export interface RigOptions {
  readonly selection?: Selection
  readonly config?: Partial<EngineConfig>
  readonly credentials?: Credentials | null
  readonly feeds?: readonly FeedKind[]
}

/** A capture of an exchange on a port of loopback into memory: the wire and the engine, without a vault. */
export class Rig {
  readonly sink = new MemorySink()
  /** The lines of the frames feed, each with its line end. */
  readonly texts: string[] = []
  readonly names = new Set<string>()
  readonly runner: Runner
  private readonly exchange: Exchange
  private readonly port: number
  private readonly selection: Selection
  private readonly feeds: readonly FeedKind[]
  private stopped: Promise<void> | undefined

  constructor(exchange: Exchange, port: number, options: RigOptions = {}) {
    this.exchange = exchange
    this.port = port
    this.selection = options.selection ?? { level: exchange.levels[0]!, market: null, channel: null, updateSpeed: null }
    this.feeds = options.feeds ?? ['book', 'trades']
    const clock = new Clock()
    this.runner = new Runner({
      exchange,
      fetcher: new Fetcher(`http://127.0.0.1:${port}`, exchange.limits.restWeightPerMinuteMax),
      clock,
      takeName: () => {
        let number = 1
        while (this.names.has(`c-${number}`)) number++
        this.names.add(`c-${number}`)
        return `c-${number}`
      },
      releaseName: name => void this.names.delete(name),
      storeMetadata: () => undefined,
      log: () => undefined
    })
    const write = (line: string) => void this.texts.push(line)
    const journal = new Journal(
      {
        exchange,
        run: 'r',
        config: { ...CONFIG, cadenceMs: 100, ...options.config },
        secrets: [],
        now: () => clock.now(),
        frames: () => ({
          append: (_, line) => write(line),
          appendAround: (_, before, frame, after) => write(before + frame + after)
        }),
        isFull: () => false
      },
      this.runner
    )
    const credentials = options.credentials === undefined ? SIMULATED_CREDENTIALS : options.credentials
    const engine = new Engine(exchange, this.sink, journal, credentials)
    journal.attach(engine)
    this.runner.attach(journal)
  }

  /** The lines of the frames feed, parsed. */
  get frames(): Row[] {
    return this.texts.map(text => JSON.parse(text) as Row)
  }

  /** Connects. */
  start(instIds: readonly string[]): this {
    const routes = this.exchange.endpoints(this.selection).routes.map(route => {
      const { pathname, search } = new URL(route.url)
      return { ...route, url: `ws://127.0.0.1:${this.port}${pathname}${search}` }
    })
    const tickMs = 100
    this.runner.start(described(this.exchange, instIds, this.selection), routes, this.feeds, tickMs)
    return this
  }

  /** Ends all connections. */
  stop(): Promise<void> {
    this.stopped ??= this.runner.stop()
    return this.stopped
  }

  /** The details of the status records of an event. */
  statuses(event: string): Row[] {
    return this.sink.statuses(event).map(row => row.detail as Row)
  }

  /** The frames lines of a direction. */
  lines(dir: string): Row[] {
    return this.frames.filter(row => row.dir === dir)
  }
}
