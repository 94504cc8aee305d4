import type { Duplex } from 'node:stream'
import { vi } from 'vitest'
import type { WebSocket } from 'ws'
import type { EngineConfig } from '../../src/capture/subject.ts'
import type { FeedKind } from '../../src/core/instrument.ts'
import type { Selection } from '../../src/exchanges/exchange.ts'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import { SIMULATED_CREDENTIALS } from '../../src/simulator/listing.ts'
import {
  Connection,
  type RestAnswer,
  SimulatorServer,
  type Subscription,
  type Venue
} from '../../src/simulator/server.ts'
import { createVenue, type SimulatorOptions } from '../../src/simulator/simulator.ts'
import { Driver, type Row, START_US } from '../helpers/driver.ts'

/** A server without a port: its markets move when they are told to. */
class StillServer extends SimulatorServer {
  /** What shall happen later, and when, ms since the epoch. */
  readonly due: { atMs: number; action: () => void }[] = []
  nowMs = 0

  override subscribed(subscription: Subscription): void {
    subscription.connection.subscriptions.add(subscription)
  }

  override later(ms: number, action: () => void): void {
    this.due.push({ atMs: this.nowMs + ms, action })
  }
}

/** What is captured, and how. */
export interface VirtualOptions {
  readonly simulator: SimulatorOptions
  readonly selection: Selection
  readonly instIds: readonly string[]
  readonly config?: Partial<EngineConfig>
}

interface Line {
  readonly name: string
  readonly connection: Connection
  readonly inbox: string[]
}

/**
 * A simulated exchange and an engine that captures it, both in one virtual time: hours pass in a moment. No socket,
 * timer or file takes part. While one is in use it has the clocks of the process; `close` gives them back.
 */
export class VirtualCapture {
  readonly driver: Driver
  readonly venue: Venue
  /** Status records so far, but for those that every start has. */
  readonly events: Row[] = []
  /** Regular snapshots so far, by instrument, and those flagged as gaps. */
  readonly shots = new Map<string, number>()
  flagged = 0
  /** Requests of books and lists over REST so far. */
  fetches = 0
  /** What becomes of a frame on its way; undefined: it is lost. */
  hear: (text: string) => string | undefined = text => text
  private readonly server: StillServer
  private readonly lines: Line[] = []
  private sent = 0
  private fetched = 0

  constructor({ simulator, selection, instIds, config }: VirtualOptions) {
    const exchange = EXCHANGES[simulator.exchange]!
    this.driver = new Driver(exchange, { depth: 1, ...config }, START_US, SIMULATED_CREDENTIALS)
    vi.spyOn(performance, 'now').mockImplementation(() => this.driver.us / 1000 - performance.timeOrigin)
    vi.spyOn(Date, 'now').mockImplementation(() => Math.floor(this.driver.us / 1000))
    this.venue = createVenue({ seed: 1, ...simulator })
    this.server = new StillServer(this.venue, false)
    this.server.nowMs = this.driver.us / 1000
    this.venue.attach(this.server)
    for (const route of exchange.endpoints(selection).routes) this.open(route.url, route.feeds, instIds, selection)
    this.settle()
  }

  private open(url: string, feeds: readonly FeedKind[], instIds: readonly string[], selection: Selection): void {
    const { pathname, searchParams } = new URL(url)
    const name = `c-${this.lines.length + 1}`
    const inbox: string[] = []
    const { venue } = this
    const socket = {
      readyState: 1,
      OPEN: 1,
      bufferedAmount: 0,
      send: (text: string) => {
        const heard = this.hear(text)
        if (heard !== undefined) inbox.push(heard)
      },
      // A library of WebSockets answers these by itself.
      ping: (payload: Buffer) => venue.controlled?.(connection, 'pong', payload),
      close: (code: number) => this.ended(name, code),
      terminate: () => this.ended(name, 1006)
    }
    const connection = new Connection({
      number: this.lines.length + 1,
      socket: socket as unknown as WebSocket,
      stream: { cork: () => undefined, uncork: () => undefined } as unknown as Duplex,
      path: pathname,
      query: searchParams,
      server: this.server,
      onFrame: undefined,
      encode: undefined
    })
    this.lines.push({ name, connection, inbox })
    this.server.connections.add(connection)
    venue.opened(connection)
    this.driver.open(name, instIds, selection, null, feeds)
  }

  private ended(name: string, code: number): void {
    this.events.push({ event: 'ended by the exchange', name, code })
  }

  /** Lets time pass, in steps of a second or shorter ones. */
  pass(seconds: number, stepMs = 1000): void {
    const endUs = this.driver.us + seconds * 1_000_000
    while (this.driver.us < endUs) {
      this.driver.us += stepMs * 1000
      const nowMs = this.driver.us / 1000
      this.server.nowMs = nowMs
      for (const { action } of this.server.due.filter(({ atMs }) => atMs <= nowMs)) action()
      this.server.due.splice(0, Number.POSITIVE_INFINITY, ...this.server.due.filter(({ atMs }) => atMs > nowMs))
      this.venue.tick(stepMs, nowMs)
      this.venue.keepHouse?.(nowMs)
      for (const { connection, name } of this.lines) {
        const code = this.venue.idleCode(connection, nowMs)
        if (code !== 0) this.ended(name, code)
      }
      this.settle()
      for (const { name } of this.lines) this.driver.tick(name)
      this.settle()
    }
  }

  /** Everything that was said is heard, and answered. */
  private settle(): void {
    for (let busy = true; busy; ) {
      busy = false
      const { sent, fetches } = this.driver.requests
      for (; this.sent < sent.length; this.sent++) {
        busy = true
        const { connection: name, text } = sent[this.sent]!
        const { connection } = this.lines.find(line => line.name === name)!
        connection.lastReceivedMs = this.driver.us / 1000
        this.venue.received(connection, text)
      }
      for (; this.fetched < fetches.length; this.fetched++) {
        busy = true
        const { connection: name, request } = fetches[this.fetched]!
        this.fetches++
        const { status, body } = this.ask(request.path, request.post)
        this.driver.fetched(name, status, typeof body === 'string' ? JSON.parse(body) : body, request.id)
      }
      for (const { name, inbox } of this.lines) {
        for (const text of inbox.splice(0)) {
          busy = true
          this.driver.in(name, text)
        }
      }
    }
    this.collect()
  }

  private ask(
    target: string,
    post: { body: string; headers: Readonly<Record<string, string>> } | undefined
  ): RestAnswer {
    const url = new URL(target, 'http://127.0.0.1')
    const headers = Object.fromEntries(
      Object.entries(post?.headers ?? {}).map(([key, value]) => [key.toLowerCase(), value])
    )
    const request = {
      method: post ? 'POST' : 'GET',
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers,
      body: post?.body ?? ''
    }
    return this.venue.rest(request, this.driver.us / 1000)
  }

  /** Counts what was written and forgets it: hours of snapshots would fill the memory. */
  private collect(): void {
    const { sink, requests } = this.driver
    for (const { feed, name, text } of sink.lines) {
      if (feed === 'status') {
        const row = JSON.parse(text) as Row
        if (!['connected', 'subscribed', 'synced'].includes(String(row.event))) this.events.push(row)
        else if (row.event === 'synced') this.events.push(row)
      } else if (/^l[23]_(?:spot|perps)$/.test(feed)) {
        if (text.includes('"gap_detected":true')) this.flagged++
        else this.shots.set(name, (this.shots.get(name) ?? 0) + 1)
      }
    }
    sink.lines.length = 0
    this.sent -= requests.sent.splice(0, this.sent).length
    this.fetched -= requests.fetches.splice(0, this.fetched).length
  }

  /** The subscriptions of an instrument that the exchange serves now. */
  subscriptions(instrument: string): Subscription[] {
    return this.lines.flatMap(({ connection }) =>
      [...connection.subscriptions].filter(subscription => subscription.instrument === instrument)
    )
  }

  /** Connections that the engine wants to end or to change. */
  get partings(): string[] {
    const { hangups, replacements } = this.driver.requests
    return [...hangups.map(({ reason }) => reason), ...replacements]
  }

  /** Gives the clocks back. */
  close(): void {
    vi.restoreAllMocks()
  }
}
