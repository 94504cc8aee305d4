import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import type { FeedKind, Instrument, Level, Market } from '../core/instrument.ts'
import type { ExchangeTime } from '../core/time.ts'

/** What a feed lets a capture verify. */
export interface Proof {
  /** What one sequence covers: the whole connection, one instrument, or nothing. */
  readonly sequence: 'connection' | 'instrument' | 'none'
  readonly checksum: boolean
}

/** Limits of an exchange; units are in the names. */
export interface Limits {
  /** A book subscription without any frame for longer is mute. */
  readonly silenceMsMax: number
  /** After so much silence of the whole connection a keep-alive is sent. */
  readonly pingMs: number
  /** How long an acknowledgement, a first image or the answer to a keep-alive may take. */
  readonly ackMsMax: number
  readonly connectsPerMinuteMax: number
  readonly connectSpacingMs: number
  /** Between two messages of one connection to the exchange; 0: any pace. */
  readonly sendSpacingMs: number
  /** Budget of REST requests, in the exchange's units of weight (1 a request where it has none). */
  readonly restWeightPerMinuteMax: number
  /** Larger frames are kept and not read. */
  readonly frameBytesMax: number
}

/** What of an instrument is captured; null where the exchange decides. */
export interface Selection {
  readonly level: Level
  readonly market: Market | null
  readonly channel: string | null
  readonly updateSpeed: string | null
}

/** What may be named in a selection, besides the level; a missing list: nothing. */
export interface Choices {
  readonly markets?: readonly Market[]
  /** Names of book channels, by level. */
  readonly channels?: Partial<Record<Level, readonly string[]>>
  readonly updateSpeeds?: readonly string[]
}

/** One kind of connection: where to, and for what. */
export interface Route {
  readonly url: string
  readonly feeds: readonly FeedKind[]
  /** Instruments of one connection. */
  readonly instrumentsMax: number
}

/** Where a selection is captured from. The first route carries the book. */
export interface Endpoints {
  readonly restUrl: string
  readonly routes: readonly Route[]
}

/** What signs a request. Lives in memory only. */
export interface Credentials {
  readonly key: string
  /** As the exchange hands it out: base64. */
  readonly secret: string
  /** Empty where the exchange has none. */
  readonly passphrase: string
}

/** Which levels need credentials, and the environment variables they come from, in the order of `Credentials`. */
export interface CredentialsNeed {
  readonly levels: readonly Level[]
  readonly variables: readonly string[]
}

/** A REST request of a session. */
export interface FetchRequest {
  /** Comes back with the answer; unique within the connection. */
  readonly id: string
  /** Path and query. */
  readonly path: string
  readonly weight?: number
  /** Makes it a POST. */
  readonly post?: { readonly body: string; readonly headers: Readonly<Record<string, string>> }
  /** Takes the secrets out of an answer before it is recorded. */
  readonly hide?: (answer: string) => string
}

/** What came of a REST request. */
export interface FetchAnswer {
  /** HTTP status; 0 when there was no answer. */
  readonly status: number
  /** The parsed body; undefined when it is no JSON. */
  readonly value: unknown
}

/** Metadata of an instrument in one form for all exchanges; text as sent, null where the exchange has none. */
export interface InstrumentInfo {
  readonly exchange: string
  readonly instId: string
  readonly market: Market
  readonly base: string | null
  readonly quote: string | null
  readonly settleCcy: string | null
  readonly contractValue: string | null
  readonly contractValueCcy: string | null
  readonly multiplier: string | null
  readonly tickSize: string | null
  readonly lotSize: string | null
  readonly minSize: string | null
  /** In the quote currency. */
  readonly minNotional: string | null
  readonly status: string | null
  /** The exchange's own entry. */
  readonly raw: unknown
}

/** How an exchange's instrument list is read over REST. */
export interface Catalogue {
  /** Weight of one request. */
  readonly weight?: number
  /** Paths to read for the instruments of these symbols; no symbols: for everything. */
  paths(symbols: readonly string[]): string[]
  /** The instruments in the answers, in the order of `paths`. Throws on another format. */
  read(answers: readonly unknown[]): InstrumentInfo[]
}

/** What the engine keeps for one book of one connection; sessions call it while they apply a frame. */
export interface Keeper {
  readonly instrument: Instrument
  /** Whether the book is built and unbroken. */
  readonly live: boolean
  readonly orders: OrderBook
  readonly levels: LevelBook
  /** The largest numeric trade id written for the instrument, on whatever connection; null before the first. */
  readonly lastTradeId: number | null
  /** First and last ids of trades that are missing and still being looked for, on whatever connection. */
  readonly tradeHoles: [from: number, to: number][]
  /**
   * Starts a full image: the book is empty. `imageOrder` calls follow (L3), or `levels` is filled (L2), then `endImage`. What is
   * put, changed or removed before `endImage` becomes a part of the image.
   */
  beginImage(sequence: number | null, exchangeTime: ExchangeTime): void
  imageOrder(id: string, isAsk: boolean, price: string, size: string): void
  /** L2: `image` has the numbers and the time of the image; its levels are already in `levels`. */
  endImage(image?: L2Frame): void
  /** Several events of one frame follow, until `endBatch`: only the last of them is marked as such. */
  beginBatch(): void
  endBatch(): void
  /** Inserts or replaces an order. `metadata` is JSON text of an object, here and below. */
  putOrder(
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    sequence: number | null,
    exchangeTime: ExchangeTime,
    metadata?: string
  ): void
  /** Removes an order; false when the id is unknown, which is counted and else ignored. */
  removeOrder(id: string, sequence: number | null, exchangeTime: ExchangeTime, metadata?: string): boolean
  /** Takes `size` from a resting order, and removes it at zero; false when the id is unknown. */
  matchOrder(id: string, size: string, sequence: number | null, exchangeTime: ExchangeTime, metadata?: string): boolean
  /** An event that leaves the book as it is. */
  noteOrder(note: OrderNote): void
  /** The sequence moves on without an event. */
  advance(sequence: number): void
  /** L2: an update whose levels the session has put into `levels`. */
  update(frame: L2Frame): void
  /** The exchange's checksum of the book as it is now; 0 and null mean not provided. */
  verify(expected: number | null): void
  /** Continuity is lost. Asks the session for a new image, unless `recover` is false. */
  lose(reason: string, expected: number | string | null, received: number | string | null, recover?: boolean): void
  trade(trade: Trade): void
  /** Something about the subscription that belongs into the status feed. */
  status(event: string, detail: Record<string, unknown>): void
  /** A frame of this instrument that could not be read. */
  malformed(what: string, kind?: FeedKind): void
}

/** An order event without effect on the book; text as sent, null where the exchange does not tell. */
export interface OrderNote {
  readonly type: 'received' | 'activate' | 'done'
  readonly id: string
  readonly isAsk: boolean | null
  readonly price: string | null
  readonly size: string | null
  readonly sequence: number | null
  readonly exchangeTime: ExchangeTime
  readonly metadata: string
}

/** The parts of an L2 record; `bids` and `asks` are JSON text: `[["43250.5","100","0",null],…]`. */
export interface L2Frame {
  bids: string
  asks: string
  sequence: number | null
  previous: number | null
  checksum: number | null
  exchangeTime: ExchangeTime
}

/** One trade: text as sent. `metadata` is JSON text of an object. */
export interface Trade {
  readonly id: string
  readonly isSell: boolean
  readonly price: string
  readonly size: string
  readonly exchangeTime: ExchangeTime
  readonly metadata: string
}

/** What a session may ask for while it handles a line. */
export interface Host {
  /** Receive time of the line being handled, µs. */
  readonly us: number
  readonly keepers: readonly Keeper[]
  /** What this connection is for. */
  readonly feeds: readonly FeedKind[]
  /** Levels a side that snapshots show. */
  readonly depth: number
  /** Overrides the exchange's silence limit when not null. */
  readonly silenceMs: number | null
  /** Null in a rebuild: nothing is sent there. What a session does must not depend on it. */
  readonly credentials: Credentials | null
  /** `recorded`: what is written instead of a text with secrets in it. */
  send(text: string, recorded?: string): void
  /** The answer comes to `onFetched`, unless the connection ends before. */
  fetch(request: FetchRequest): void
  /** The connection is of no use any more: close it and connect again. */
  hangup(reason: string): void
  /** The exchange will close this connection: open another first, leave this one when that one is live. */
  replace(reason: string): void
  /** A frame that nobody can read. What looks like cut JSON may have been an update. */
  unreadable(text: string): void
  /** The exchange told the metadata of an instrument, or changed them. */
  metadata(info: InstrumentInfo): void
  log(level: 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void
}

/** How a frame stands in its line: as it is, or as a JSON string. */
export type FrameForm = 'msg' | 'text'

/** The protocol of one connection, from its opening to its end. Nothing of it survives the connection. */
export interface Session {
  onOpen(): void
  /** Reads a frame without any effect; the frame's line is written between this and `apply`. */
  read(text: string): FrameForm
  /** Applies the frame that `read` read last. */
  apply(): void
  /** The answer to a `fetch`. */
  onFetched(id: string, answer: FetchAnswer): void
  /** Time passes: acknowledgements that are overdue, keep-alives, silence. */
  onTick(): void
  /** A book needs a new image. */
  resync(index: number, reason: string): void
  /** Whether a book subscription was refused for good. */
  refused(index: number): boolean
  /** Whether every subscription of trades works, or was refused. */
  tradesReady(): boolean
  /** Frames of the connection were lost before they came here: what waits for an image is incomplete. */
  onLost?(): void
  state(): unknown
  restore(state: unknown): void
}

/** One exchange: constants and pure functions. */
export interface Exchange {
  readonly id: string
  /** What it offers; the first one is the default. */
  readonly levels: readonly Level[]
  readonly proof: Partial<Record<Level, Proof>>
  readonly limits: Limits
  readonly choices: Choices
  readonly credentials?: CredentialsNeed
  /** Binary frames are compressed so. */
  readonly compression?: 'gzip'
  /** Where the instruments of a selection are captured from. */
  endpoints(selection: Selection): Endpoints
  /** How the list of a market is read; null: the exchange's usual one. */
  catalogue(market: Market | null): Catalogue
  /** The exchange's own name for a symbol in any common spelling, without looking at a list. */
  spell(symbol: string): string
  /** Market and channel of an instrument by its name and what was selected. */
  describe(instId: string, selection: Selection): Instrument
  /** Levels or orders a side that its book may hold; infinite where the whole book is sent. */
  depthMax(instrument: Instrument): number
  open(host: Host): Session
  /** The checksum of a book, over the exchange's own number text, as the exchange prints it. */
  checksum?(keeper: Pick<Keeper, 'instrument' | 'orders' | 'levels'>): number
}
