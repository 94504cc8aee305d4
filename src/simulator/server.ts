import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse
} from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { type RawData, type WebSocket, WebSocketServer } from 'ws'
import type { Fault, FaultKind } from './faults.ts'

const HOST = '127.0.0.1'
const TICK_MS = 20
const HOUSEKEEPING_MS = 100
/** A client that reads nothing is cut off at this many unsent bytes, so that it cannot fill the memory. */
const UNSENT_BYTES_MAX = 64 * 1024 * 1024
const REQUEST_BYTES_MAX = 1024 * 1024
const MUTE_MS = 10_000
const REST_ERROR_STATUS = 500

/**
 * One frame that a simulator sent, or withheld because of a fault, in the order of the wire. What would have been sent
 * without faults are all frames but those that were sent with the fault `duplicate` or `reorder`: a swapped frame stands
 * there twice, withheld where it was due and sent where it came instead.
 */
export interface SentFrame {
  /** Milliseconds since the epoch. */
  readonly atMs: number
  /** Which connection, counted from 1 since the start of the simulator. */
  readonly connection: number
  /** The query of the request that opened the connection, without the question mark; empty if there was none. */
  readonly query: string
  /** The instrument of a channel frame; undefined for answers and announcements. */
  readonly instrument: string | undefined
  readonly text: string
  /** False if a drop, a mute, a swap or the end of the connection kept it from the client. */
  readonly sent: boolean
  /** The fault that befell it. */
  readonly fault: FaultKind | undefined
}

/**
 * What a frame of a channel is, as far as faults care: only book updates are dropped, doubled or swapped, and only a
 * frame of new trades can be the one that `drop-trade` loses.
 */
export type FrameKind = 'update' | 'trade' | 'other'

/** One thing a connection is subscribed to. */
export interface Subscription {
  readonly connection: Connection
  readonly instrument: string
  readonly isBook: boolean
  /** Frames with the same text here share one numbering within the connection: a swap is a swap among them. */
  readonly numbering: string
  mutedUntilMs: number
}

/** How often clients may connect: more than `max` within `windowMs` are refused, and then for `blockMs`. */
export interface ConnectLimit {
  readonly max: number
  readonly windowMs: number
  readonly blockMs: number
}

/** A REST request. `path` is decoded and without the query. */
export interface RestRequest {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  /** The text of the body, empty if there is none. */
  readonly body: string
}

/** The answer to a REST request. A `body` that is a string is sent as it is, anything else as JSON. */
export interface RestAnswer {
  readonly status: number
  readonly body: unknown
  readonly headers?: Record<string, string>
}

/** What one exchange adds to the server: its protocol and its markets. */
export interface Venue {
  /**
   * The paths of the WebSocket; any other is answered with 404. The first is the one in `Simulator.wsUrl`. A path that
   * ends with `/*` stands for everything below it.
   */
  readonly paths: readonly string[]
  readonly connectLimit: ConnectLimit
  /** The kinds of faults that mean something on this exchange. */
  readonly faultKinds: readonly FaultKind[]
  /** Gives it the server it lives in; before the first connection. */
  attach(server: SimulatorServer): void
  /** A client connected. */
  opened(connection: Connection): void
  /** A client said something. */
  received(connection: Connection, text: string): void
  /** A client sent a ping or pong of the WebSocket protocol itself. Pings are answered without being asked. */
  controlled?(connection: Connection, kind: 'ping' | 'pong', payload: Buffer): void
  /** A connection ended; its subscriptions must be forgotten. */
  closed(connection: Connection): void
  /** Time passed: the markets move and subscribers hear of it. Called only while somebody is subscribed. */
  tick(elapsedMs: number, nowMs: number): void
  /** Time for keep-alives: called ten times a second, whether or not somebody is subscribed. */
  keepHouse?(nowMs: number): void
  /** The code to close a connection with that has been idle (or open) too long; 0 to let it be. */
  idleCode(connection: Connection, nowMs: number): number
  /** Announces a maintenance or a restart the way the exchange does. */
  announce(fault: Fault, server: SimulatorServer): void
  rest(request: RestRequest, nowMs: number): RestAnswer
  /** Frames go out as binary messages of this; `SentFrame.text` stays the plain text. */
  encode?(text: string): Buffer
}

/**
 * The exchange's clock, in milliseconds since the epoch. It takes the machine's time once and then runs evenly: an
 * exchange does not jump when somebody sets the clock of the machine that captures it.
 */
export function exchangeNowMs(): number {
  return Math.floor(performance.timeOrigin + performance.now())
}

/** What a connection is made from. */
interface ConnectionSettings {
  readonly number: number
  readonly socket: WebSocket
  readonly stream: Duplex
  readonly path: string
  readonly query: URLSearchParams
  readonly server: SimulatorServer
  readonly onFrame: ((frame: SentFrame) => void) | undefined
  readonly encode: ((text: string) => Buffer) | undefined
}

/** One client's connection. */
export class Connection {
  /** Counted from 1 since the start of the simulator. */
  readonly number: number
  readonly socket: WebSocket
  /** The path it came to: one of the venue's `paths`, or below one that ends with `/*`. */
  readonly path: string
  /** The query of the request that opened it. */
  readonly query: URLSearchParams
  readonly subscriptions = new Set<Subscription>()
  readonly openedMs: number
  lastReceivedMs: number
  lastSentMs: number
  mutedUntilMs = 0
  /** Faults of single frames that wait for the next frame they fit. */
  readonly pending: Fault[] = []
  private readonly stream: Duplex
  private readonly server: SimulatorServer
  private readonly onFrame: ((frame: SentFrame) => void) | undefined
  private readonly queryText: string
  private readonly encode: ((text: string) => Buffer) | undefined
  private held: { subscription: Subscription; text: string } | undefined

  constructor(settings: ConnectionSettings) {
    this.number = settings.number
    this.socket = settings.socket
    this.stream = settings.stream
    this.path = settings.path
    this.query = settings.query
    this.server = settings.server
    this.onFrame = settings.onFrame
    this.queryText = String(settings.query)
    this.encode = settings.encode
    this.openedMs = exchangeNowMs()
    this.lastReceivedMs = this.openedMs
    this.lastSentMs = this.openedMs
  }

  /** Sends an answer or an announcement, which no fault but a mute concerns. */
  sendEvent(text: string): void {
    const isMuted = exchangeNowMs() < this.mutedUntilMs
    const isSent = !isMuted && this.isOpen
    if (isSent) this.transmit(text)
    this.note(text, undefined, isSent, isMuted ? 'mute' : undefined)
  }

  /** Sends a frame of a channel, unless a fault has other plans for it. */
  sendFrame(subscription: Subscription, text: string, kind: FrameKind, nowMs: number): void {
    const { instrument } = subscription
    if (nowMs < this.mutedUntilMs || nowMs < subscription.mutedUntilMs) {
      this.note(text, instrument, false, 'mute')
      return
    }
    if (kind === 'trade' && this.server.takeFault('drop-trade', instrument)) {
      this.note(text, instrument, false, 'drop-trade')
      return
    }
    if (kind === 'update' && this.pending.length > 0) {
      if (this.takeFault('drop', instrument)) {
        this.note(text, instrument, false, 'drop')
        return
      }
      if (!this.held && this.takeFault('reorder', instrument)) {
        this.held = { subscription, text }
        this.note(text, instrument, false, 'reorder')
        return
      }
      if (this.takeFault('duplicate', instrument)) this.write(text, instrument, nowMs, 'duplicate')
    }
    this.write(text, instrument, nowMs)
    const { held } = this
    if (held && held.subscription.numbering === subscription.numbering) {
      this.held = undefined
      this.write(held.text, held.subscription.instrument, nowMs, 'reorder')
    }
  }

  /** Takes a waiting fault of this kind that fits the instrument; false if there is none. */
  takeFault(kind: FaultKind, instrument: string): boolean {
    return takeFrom(this.pending, kind, instrument) !== undefined
  }

  /** Forgets a subscription, and a frame of it that was held back. */
  drop(subscription: Subscription): void {
    this.subscriptions.delete(subscription)
    if (this.held?.subscription === subscription) this.held = undefined
  }

  /** True if it is subscribed to the book of the instrument, or to any book when none is named. */
  covers(instrument: string | undefined): boolean {
    for (const subscription of this.subscriptions) {
      if (subscription.isBook && (instrument === undefined || subscription.instrument === instrument)) return true
    }
    return false
  }

  /** Ends it with a close code; 1006 ends it without a close frame. */
  close(code: number, reason = ''): void {
    if (code === 1006) this.socket.terminate()
    else this.socket.close(code, reason)
  }

  /** Collects what is sent until `release`, so that a burst is one write to the network. */
  collect(): void {
    this.stream.cork()
  }

  /** Sends what was collected. */
  release(): void {
    this.stream.uncork()
    if (this.socket.bufferedAmount > UNSENT_BYTES_MAX) this.socket.terminate()
  }

  private write(text: string, instrument: string, nowMs: number, fault?: FaultKind): void {
    // What a closing connection would have been told is noted, so that the log stays the whole of what happened.
    if (!this.isOpen) {
      if (fault === undefined) this.note(text, instrument, false, undefined)
      return
    }
    this.transmit(text)
    this.lastSentMs = nowMs
    this.note(text, instrument, true, fault)
  }

  private get isOpen(): boolean {
    return this.socket.readyState === this.socket.OPEN
  }

  private transmit(text: string): void {
    this.socket.send(this.encode ? this.encode(text) : text)
  }

  private note(text: string, instrument: string | undefined, sent: boolean, fault: FaultKind | undefined): void {
    const { number, queryText, onFrame } = this
    onFrame?.({ atMs: exchangeNowMs(), connection: number, query: queryText, instrument, text, sent, fault })
  }
}

/** The server of one simulated exchange: HTTP and WebSocket on one loopback port, limits, timers and faults. */
export class SimulatorServer {
  readonly log: SentFrame[] = []
  readonly connections = new Set<Connection>()
  private readonly venue: Venue
  private readonly onFrame: ((frame: SentFrame) => void) | undefined
  private readonly http: Server
  private readonly sockets: WebSocketServer
  private readonly timers = new Set<NodeJS.Timeout>()
  private housekeeping: NodeJS.Timeout | undefined
  private ticking: NodeJS.Timeout | undefined
  private lastTickMs = 0
  /** So many times as much as usual happens in the markets; a whole number. */
  haste = 1
  private count = 0
  private connects: number[] = []
  private blockedUntilMs = 0
  /** Faults of single frames that came while nobody was subscribed. */
  private waiting: Fault[] = []
  /** Faults of answers and trades, which whoever is next takes. */
  private readonly standing: Fault[] = []

  /** `onFrame` hears of every frame at the moment it is sent or withheld, whether or not the log keeps it. */
  constructor(venue: Venue, keepLog: boolean, onFrame?: (frame: SentFrame) => void) {
    this.venue = venue
    if (!keepLog) this.onFrame = onFrame
    else {
      this.onFrame = frame => {
        this.log.push(frame)
        onFrame?.(frame)
      }
    }
    this.sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: REQUEST_BYTES_MAX })
    this.http = createServer((request, response) => void this.answer(request, response))
    this.http.on('upgrade', (request, stream, head) => this.upgrade(request, stream, head))
  }

  /** Listens; resolves to the port. Port 0 chooses a free one. */
  async listen(port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.http.once('error', reject)
      this.http.listen(port, HOST, () => {
        this.http.off('error', reject)
        resolve()
      })
    })
    this.housekeeping = setInterval(() => this.keepHouse(), HOUSEKEEPING_MS)
    return (this.http.address() as AddressInfo).port
  }

  /** Ends every connection and timer. */
  async close(): Promise<void> {
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
    clearInterval(this.housekeeping)
    clearInterval(this.ticking)
    this.ticking = undefined
    for (const connection of this.connections) connection.socket.terminate()
    this.http.closeAllConnections()
    await new Promise<void>(resolve => {
      this.http.close(() => resolve())
    })
  }

  /** Runs something later, unless the server is closed before. */
  later(ms: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      action()
    }, ms)
    this.timers.add(timer)
  }

  /** Registers a subscription: faults that waited for one take hold, and the markets begin to move. */
  subscribed(subscription: Subscription): void {
    const { connection } = subscription
    connection.subscriptions.add(subscription)
    if (subscription.isBook) {
      const fitting = this.waiting.filter(({ instrument }) => connection.covers(instrument))
      connection.pending.push(...fitting)
      this.waiting = this.waiting.filter(fault => !fitting.includes(fault))
    }
    if (this.ticking) return
    this.lastTickMs = performance.now()
    this.ticking = setInterval(() => this.tick(), TICK_MS)
  }

  /** Makes a fault happen at its time. */
  inject(fault: Fault): void {
    if (fault.afterMs) this.later(fault.afterMs, () => this.apply(fault))
    else this.apply(fault)
  }

  /**
   * Takes a waiting fault of an answer (`refuse`, `silent-ack`, `stale-image`) or of a trade; false if there is none.
   */
  takeFault(kind: FaultKind, instrument: string): boolean {
    return takeFrom(this.standing, kind, instrument) !== undefined
  }

  /** Takes a waiting `rest-error`: the status and headers to answer the request of a book image with. */
  takeRestError(instrument: string): { status: number; headers: Record<string, string> } | undefined {
    const fault = takeFrom(this.standing, 'rest-error', instrument)
    if (!fault) return undefined
    const status = fault.status ?? REST_ERROR_STATUS
    return { status, headers: status === 429 || status === 418 ? { 'retry-after': '1' } : {} }
  }

  private apply(fault: Fault): void {
    switch (fault.kind) {
      case 'mute':
        this.mute(fault)
        return
      case 'close':
        for (const connection of this.connections) {
          if (fault.instrument === undefined || connection.covers(fault.instrument))
            connection.close(fault.code ?? 1006)
        }
        return
      case 'maintenance':
      case 'restart-notice':
        this.venue.announce(fault, this)
        return
      case 'rest-error':
      case 'stale-image':
      case 'refuse':
      case 'silent-ack':
      case 'drop-trade':
        this.standing.push(fault)
        return
      default:
        this.arm(fault)
    }
  }

  private arm(fault: Fault): void {
    const concerned = [...this.connections].filter(connection => connection.covers(fault.instrument))
    for (const connection of concerned) connection.pending.push(fault)
    if (concerned.length === 0) this.waiting.push(fault)
  }

  private mute(fault: Fault): void {
    const untilMs = exchangeNowMs() + (fault.ms ?? MUTE_MS)
    for (const connection of this.connections) {
      if (fault.instrument === undefined) connection.mutedUntilMs = untilMs
      for (const subscription of connection.subscriptions) {
        if (subscription.instrument === fault.instrument) subscription.mutedUntilMs = untilMs
      }
    }
  }

  private tick(): void {
    const tickMs = performance.now()
    const elapsedMs = tickMs - this.lastTickMs
    this.lastTickMs = tickMs
    const busy = [...this.connections].filter(connection => connection.subscriptions.size > 0)
    if (busy.length === 0) {
      clearInterval(this.ticking)
      this.ticking = undefined
      return
    }
    for (const connection of busy) connection.collect()
    for (let times = 0; times < this.haste; times++) this.venue.tick(elapsedMs, exchangeNowMs())
    for (const connection of busy) connection.release()
  }

  private keepHouse(): void {
    const nowMs = exchangeNowMs()
    this.venue.keepHouse?.(nowMs)
    for (const connection of this.connections) {
      const code = this.venue.idleCode(connection, nowMs)
      if (code) connection.close(code)
    }
  }

  private upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    // A client that goes away in the middle of its handshake is no concern of ours.
    stream.on('error', () => stream.destroy())
    const target = parseTarget(request.url ?? '/')
    const isServed = target !== undefined && this.venue.paths.some(path => covers(path, target.path))
    const status = !isServed ? '404 Not Found' : this.mayConnect() ? '' : '429 Too Many Requests'
    if (!isServed || status) {
      // Destroyed, too: a client that keeps its half open would hold up `close`.
      stream.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => stream.destroy())
      return
    }
    this.sockets.handleUpgrade(request, stream, head, socket => this.accept(socket, stream, target))
  }

  private mayConnect(): boolean {
    const { max, windowMs, blockMs } = this.venue.connectLimit
    const nowMs = exchangeNowMs()
    if (nowMs < this.blockedUntilMs) return false
    this.connects = this.connects.filter(atMs => atMs > nowMs - windowMs)
    if (this.connects.length >= max) {
      this.blockedUntilMs = nowMs + blockMs
      return false
    }
    this.connects.push(nowMs)
    return true
  }

  private accept(socket: WebSocket, stream: Duplex, { path, query }: Target): void {
    const { venue } = this
    const connection = new Connection({
      number: ++this.count,
      socket,
      stream,
      path,
      query,
      server: this,
      onFrame: this.onFrame,
      encode: venue.encode?.bind(venue)
    })
    this.connections.add(connection)
    socket.on('message', (data: RawData, isBinary) => {
      connection.lastReceivedMs = exchangeNowMs()
      if (!isBinary) venue.received(connection, String(data))
    })
    socket.on('ping', payload => venue.controlled?.(connection, 'ping', payload))
    socket.on('pong', payload => venue.controlled?.(connection, 'pong', payload))
    // `close` follows every error and does what there is to do.
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      this.connections.delete(connection)
      venue.closed(connection)
      connection.subscriptions.clear()
    })
    venue.opened(connection)
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readBody(request)
    if (body === undefined) {
      response.destroy()
      return
    }
    const target = parseTarget(request.url ?? '/')
    const { method = 'GET', headers } = request
    const answer: RestAnswer = target
      ? this.venue.rest({ method, ...target, headers, body }, exchangeNowMs())
      : { status: 400, body: { error: 'bad request' } }
    const text = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body)
    const length = Buffer.byteLength(text)
    response.writeHead(answer.status, {
      'content-type': 'application/json',
      'content-length': length,
      ...answer.headers
    })
    response.end(text)
  }
}

/** The body of a request; undefined when it is too large, or the client went away. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = []
  let bytes = 0
  try {
    for await (const part of request as AsyncIterable<Buffer>) {
      bytes += part.length
      if (bytes > REQUEST_BYTES_MAX) return undefined
      parts.push(part)
    }
  } catch {
    // A client that goes away in the middle of its request needs no answer.
    return undefined
  }
  return Buffer.concat(parts).toString()
}

/** What a request is for. */
interface Target {
  readonly path: string
  readonly query: URLSearchParams
}

/** The path and query of a request target; undefined when it is malformed. */
function parseTarget(target: string): Target | undefined {
  try {
    const url = new URL(target, `http://${HOST}`)
    return { path: decodeURIComponent(url.pathname), query: url.searchParams }
  } catch {
    return undefined
  }
}

/** True if a path is the one a venue serves, or below it. */
function covers(served: string, path: string): boolean {
  return served.endsWith('/*') ? path.startsWith(served.slice(0, -1)) : path === served
}

/** Takes the first fault of a kind that fits the instrument out of a list. */
function takeFrom(faults: Fault[], kind: FaultKind, instrument: string): Fault | undefined {
  const index = faults.findIndex(
    fault => fault.kind === kind && (fault.instrument === undefined || fault.instrument === instrument)
  )
  return index < 0 ? undefined : faults.splice(index, 1)[0]
}

/** The JSON object in a text; undefined when the text is no JSON or another value. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}
